"""Fills to look at: a contact sheet, and pictures for a judge who must not know whose they are."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from removal.cases import Case, Hole, Pixels

from regionnorm.files.whole import atomic_path
from regionnorm.imaging import write_image

_GAP, _HEADER = 6, 24
_MARK = (255, 0, 255)  # of the hole: a colour that few photos have
_SHEET_TILE, _BLIND_TILE = 240, 440
_MOST_ENLARGED = 3.0
_SURROUNDINGS = 0.4  # of the hole's sides, shown around it on each side
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"

Box = tuple[int, int, int, int]


def sheet(cases: Sequence[Case], fills: Mapping[str, Path]) -> Image.Image:
    """A row for each case: the photo with its hole, every filler's answer, the original."""
    headings = ["hole", *fills, "original"]
    rows = []
    for case in cases:
        answers = [case.filled(folder / f"{case.name}.png") for folder in fills.values()]
        panels = [marked(case.pixels(), case.hole()), *answers, case.pixels()]
        rows.append([_fitted(Image.fromarray(panel), _SHEET_TILE) for panel in panels])
    return _grid(rows, headings)


def write_blind(
    cases: Sequence[Case],
    fills: Mapping[str, Path],
    folder: Path,
    seed: int,
    *,
    whole: bool = False,
) -> Path:
    """One picture a case: the photo with its hole, and around it each fill under a letter.

    With ``whole`` the judge sees what somebody who is shown a photo sees: whole pictures at their
    own size, and not where the hole is.

    The letters are shuffled case by case. Which is whose stands in a file beside ``folder``, not
    in it, so that the folder can be handed to a judge.

    Returns:
        The file with the key: case to letter to filler.
    """
    key: dict[str, dict[str, str]] = {}
    rng = np.random.default_rng(seed)
    for case in cases:
        order = [list(fills)[i] for i in rng.permutation(len(fills))]
        key[case.name] = dict(zip(_LETTERS, order, strict=False))
        folders = [fills[name] for name in order]
        picture = _side_by_side(case, folders) if whole else _blind(case, folders)
        write_image(picture, folder / f"{case.name}.png")
    file = folder.with_name(f"{folder.name}-key.json")
    with atomic_path(file) as temporary:
        temporary.write_text(json.dumps(key, indent=1) + "\n", encoding="utf-8")
    return file


def _blind(case: Case, folders: Sequence[Path]) -> Image.Image:
    pixels, hole = case.pixels(), case.hole()
    box = _around(hole)
    tiles = [_fitted(Image.fromarray(marked(pixels, hole)), _BLIND_TILE)]
    for folder in folders:
        answer = Image.fromarray(case.filled(folder / f"{case.name}.png"))
        tiles.append(_fitted(answer.crop(box), _BLIND_TILE))
    return _in_two_rows(tiles, ["the hole", *_LETTERS[: len(folders)]])


def _side_by_side(case: Case, folders: Sequence[Path]) -> Image.Image:
    answers = [case.filled(folder / f"{case.name}.png") for folder in folders]
    return _in_two_rows([Image.fromarray(answer) for answer in answers], _LETTERS[: len(folders)])


def _in_two_rows(tiles: Sequence[Image.Image], headings: Sequence[str]) -> Image.Image:
    across = -(-len(tiles) // 2)
    return _grid([tiles[i : i + across] for i in range(0, len(tiles), across)], headings)


def marked(pixels: Pixels, hole: Hole) -> Pixels:
    """The photo with its hole in one colour."""
    return np.where(hole[..., None], np.array(_MARK, np.uint8), pixels)


def _around(hole: Hole) -> Box:
    """Left, top, right and bottom of the hole and its surroundings."""
    (top, bottom), (left, right) = (
        (int(found[0]), int(found[-1]) + 1)
        for found in (np.flatnonzero(hole.any(axis=axis)) for axis in (1, 0))
    )
    margin = max(24, round(_SURROUNDINGS * max(bottom - top, right - left)))
    height, width = hole.shape
    return (
        max(0, left - margin),
        max(0, top - margin),
        min(width, right + margin),
        min(height, bottom + margin),
    )


def _fitted(image: Image.Image, side: int) -> Image.Image:
    """Scaled so that its longer side is ``side``, unless that would enlarge it too much."""
    scale = min(side / max(image.size), _MOST_ENLARGED)
    width, height = (max(1, round(scale * length)) for length in image.size)
    return image.resize((width, height), Image.Resampling.LANCZOS)


def _grid(rows: Sequence[Sequence[Image.Image]], headings: Sequence[str]) -> Image.Image:
    """Tiles in rows; headings over the first row alone, or over every tile if there are enough."""
    count = max(map(len, rows))
    every = len(headings) > count
    width = max(tile.width for row in rows for tile in row)
    heights = [max(tile.height for tile in row) for row in rows]
    header = [_HEADER if every or i == 0 else 0 for i in range(len(rows))]
    size = (
        count * (width + _GAP) + _GAP,
        sum(heights) + sum(header) + _GAP * (len(rows) + 1),
    )
    picture = Image.new("RGB", size, "white")
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(size=18)
    top, named = 0, iter(headings)
    for row, height, above in zip(rows, heights, header, strict=True):
        for place, tile in enumerate(row):
            left = _GAP + place * (width + _GAP)
            if above:
                draw.text((left, top + 2), next(named), "black", font)
            picture.paste(tile, (left, top + above))
        top += height + above + _GAP
    return picture
