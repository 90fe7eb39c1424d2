"""Where lines of writing are: a text detector that another package ships, run by ONNX Runtime.

The network is PaddleOCR's "PP-OCRv6 det small" (Apache-2.0) as it lies in the wheel of
``rapidocr``. Only that file is used: nothing of the package is imported, and nothing is fetched.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from regionnorm._extras import require
from regionnorm.checkpoints.sessions import kept_session
from regionnorm.masks.regions import (
    Window,
    bounding_window,
    dilate_disk,
    label_regions,
    overlapping_spans,
)
from regionnorm.stopping import stop_if_asked

__all__ = ["Line", "find_lines"]

Hole = npt.NDArray[np.bool_]
Pixels = npt.NDArray[np.uint8]
Numbers = npt.NDArray[np.int64]

_PACKAGE, _MODEL = "rapidocr", "models/*det*.onnx"
# Long sides of copies, of strips as if they were cut off at twice their short side.
_FINE_SIDE = 1280  # small photos are looked at in a copy enlarged to this
_LONG_SIDE = 2240  # and large ones in a copy of this size
_COARSE_SIDE = 736  # where large letters are looked for once more
_MOST_ENLARGED = 2.0
_STRIP = 2  # ratio of sides
_TILE, _OVERLAP = 1280, 192
_STEP = 32  # the network takes sides that are multiples of this
_LIKELY, _SURE = 0.3, 0.5  # of a pixel, and on average of a line
_LEAST_HEIGHT = 3.0  # pixels of the copy
_MOST_THICK = 0.25  # of the short side: what is thicker, or half of it and short, is no line
_BANNER, _BANNER_THICK = 3, 0.35  # ratio of sides from which on it may be thicker
_LONG = 2.4  # ratio of length to height from which on it is a line by itself
_SAME = 1.25  # heights of short ones in a row, and what the row's is of theirs
_ALIKE, _NEAR = 1.8, 2.0  # heights of neighbours, and how many of them may lie between
_SHRUNK = 1.6  # the network marks a line's core; by how much of area over circumference it grows


@dataclass(frozen=True)
class Line:
    """A line of writing, or a word of one.

    Attributes:
        window: Where it lies, with some of the photo around it.
        inside: bool of the window's size: the line, its letters' ends perhaps left out.
        height: Of its letters, about, in pixels.
        ratio: Of its length to its height.
    """

    window: Window
    inside: Hole
    height: float
    ratio: float


def find_lines(pixels: Pixels) -> list[Line]:
    """Find lines of writing of any direction.

    Small photos are looked at enlarged, large ones in a copy of 2240 pixels, in tiles, and once
    more in a small copy for large letters. Of strips the short side says how large the copies are:
    time grows with their length.

    Args:
        pixels: RGB uint8 ``[H, W, 3]``.

    Raises:
        ImportError: The detector is not installed; the message is the command that installs it.
    """
    session = kept_session(_model_file(), extra="text")
    height, width = pixels.shape[:2]
    side = min(max(height, width), _STRIP * min(height, width))
    fine = min(_LONG_SIDE / side, max(1.0, _FINE_SIDE / side), _MOST_ENLARGED)
    scales = [fine, *([_COARSE_SIDE / side] if fine * side > 1.3 * _COARSE_SIDE else [])]
    lines = []
    for scale in scales:
        size = tuple(max(1, round(side * scale)) for side in (width, height))
        copy = Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR, reducing_gap=2)
        likely = _likelihood(session, np.asarray(copy))
        lines += list(_lines(likely, pixels.shape[:2]))
    return _written(lines)


def _written(lines: list[Line]) -> list[Line]:
    """Lines, and of what is short the words in a row: alone it is an object more often."""
    boxes = np.array([_box(line) for line in lines], np.int64).reshape(-1, 4)
    heights = np.array([line.height for line in lines])
    long = np.array([line.ratio >= _LONG for line in lines], np.bool_)
    short = np.flatnonzero(~long)
    rows = [one for one in short.tolist() if _in_a_row(one, short, boxes, heights).any()]
    latest = [*np.flatnonzero(long).tolist(), *rows]
    kept, left = list(latest), np.setdiff1d(short, rows)
    while len(latest) and len(left):
        near = np.zeros(len(left), np.bool_)
        for one in latest:
            near |= _beside(one, left, boxes, heights)
        latest, left = left[near].tolist(), left[~near]
        kept += latest
    return [lines[number] for number in kept]


def _beside(one: int, others: Numbers, boxes: Numbers, heights: npt.NDArray[np.float64]) -> Hole:
    """Which of the others are of one's size and not far from it, bool ``[N]``."""
    height, their = heights[one], heights[others]
    alike = (their / height >= 1 / _ALIKE) & (their / height <= _ALIKE)
    box, theirs = boxes[one], boxes[others]
    gaps = np.maximum(box[:2], theirs[:, :2]) - np.minimum(box[2:], theirs[:, 2:])
    beside: Hole = alike & (gaps.max(1) <= _NEAR * np.minimum(height, their))
    return beside


def _in_a_row(one: int, others: Numbers, boxes: Numbers, heights: npt.NDArray[np.float64]) -> Hole:
    """Which make a line with one: level or upright, one behind the other, of one size."""
    box, theirs = boxes[one], boxes[others]
    sides = np.maximum(box[2:], theirs[:, 2:]) - np.minimum(box[:2], theirs[:, :2])
    thick = np.maximum((box[2:] - box[:2]).min(), (theirs[:, 2:] - theirs[:, :2]).min(1))
    ratio = heights[one] / heights[others]
    alike = (ratio >= 1 / _SAME) & (ratio <= _SAME)
    row = (sides.min(1) <= _SAME * thick) & (sides.max(1) >= _LONG * sides.min(1))
    together: Hole = alike & row & _beside(one, others, boxes, heights)
    return together


def _box(line: Line) -> tuple[int, int, int, int]:
    within = bounding_window(line.inside)
    top, left = line.window.top, line.window.left
    return top + within.top, left + within.left, top + within.bottom, left + within.right


def _model_file() -> Path:
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        require(_PACKAGE, extra="text")
        raise ImportError(f"{_PACKAGE} is no package; run: pip install 'regionnorm[text]'")
    for place in spec.submodule_search_locations:
        for path in sorted(Path(place).glob(_MODEL)):
            return path
    raise ImportError(
        f"this version of {_PACKAGE} brings no text detector; run: "
        "pip install -U 'regionnorm[text]'"
    )


def _likelihood(session: Any, pixels: Pixels) -> npt.NDArray[np.float32]:
    """How likely each pixel is to be writing, ``[H, W]``, tile by tile."""
    height, width = pixels.shape[:2]
    likely = np.zeros((height, width), np.float32)
    for top, bottom in overlapping_spans(height, _TILE, _OVERLAP):
        for left, right in overlapping_spans(width, _TILE, _OVERLAP):
            stop_if_asked()
            part = pixels[top:bottom, left:right]
            down, across = (-side % _STEP for side in part.shape[:2])
            part = np.pad(part, ((0, down), (0, across), (0, 0)), mode="edge")
            # Blue first, as the network learned it, and from -1 to 1.
            given = np.ascontiguousarray(part[:, :, ::-1].transpose(2, 0, 1)[None], np.float32)
            (found,) = session.run(None, {session.get_inputs()[0].name: given / 127.5 - 1})
            there = likely[top:bottom, left:right]
            np.maximum(there, found[0, 0, : there.shape[0], : there.shape[1]], out=there)
    return likely


def _lines(likely: npt.NDArray[np.float32], shape: tuple[int, int]) -> Iterator[Line]:
    """The lines of a map, in pixels of a photo of that height and width."""
    labels, count = label_regions(likely > _LIKELY)
    flat = labels.ravel()
    area = np.bincount(flat, minlength=count + 1)
    mean = np.bincount(flat, likely.ravel(), minlength=count + 1) / np.maximum(area, 1)
    # By the long side: rounding the short one of a strip would move what is at its end.
    scale = max(shape) / max(likely.shape)
    banner = max(shape) > _BANNER * min(shape)
    most = (_BANNER_THICK if banner else _MOST_THICK) * min(likely.shape)
    # Each region's pixels, row by row, without looking at the whole map again for each.
    rows, columns = np.nonzero(labels)
    order = np.argsort(labels[rows, columns], kind="stable")
    ends = np.cumsum(area[1:])
    for number in np.flatnonzero((mean >= _SURE) & (area >= _LEAST_HEIGHT**2)):
        if number == 0:
            continue
        pixels = order[ends[number - 1] - area[number] : ends[number - 1]]
        down, across = rows[pixels], columns[pixels]
        thick, long = _sides(down, across)
        if thick < _LEAST_HEIGHT or thick > most * (1 if long > 2 * thick else 0.5):
            continue
        grown = round(_SHRUNK * thick * long / (2 * (thick + long)))
        height = thick + 2 * grown
        box = Window(int(down[0]), int(across.min()), int(down[-1]) + 1, int(across.max()) + 1)
        window = box.grow(round(grown + 1.5 * height) + 2, *labels.shape)
        inside = dilate_disk(labels[window.slices] == number, grown)
        ratio = (long + 2 * grown) / height
        yield _enlarged(Line(window, inside, height, ratio), scale, shape)


def _sides(rows: npt.NDArray[np.intp], columns: npt.NDArray[np.intp]) -> tuple[float, float]:
    """Thickness and length of a region's pixels as if it were a tilted rectangle."""
    spread = np.linalg.eigvalsh(np.cov(np.stack([rows, columns]).astype(np.float64)))
    # The variance of a rectangle's pixels along a side is a twelfth of its square.
    thick, long = np.sqrt(12 * np.maximum(spread, 0) + 1)
    return float(min(thick, len(rows) / long)), float(long)


def _enlarged(line: Line, scale: float, shape: tuple[int, int]) -> Line:
    """The same in pixels of the photo."""
    window = line.window
    edges = [window.top, window.left, window.bottom, window.right]
    limits = [shape[0], shape[1]] * 2
    top, left, bottom, right = (
        min(round(edge * scale), limit) for edge, limit in zip(edges, limits, strict=True)
    )
    placed = Window(top, left, bottom, right)
    size = (placed.width, placed.height)
    inside = Image.fromarray(line.inside).resize(size, Image.Resampling.NEAREST)
    return Line(placed, np.asarray(inside).astype(np.bool_), line.height * scale, line.ratio)
