"""Fill holes in four of scikit-image's photos, and compare with OpenCV's classical fillers.

    python examples/demo.py

writes to ``out/demo``: for each photo the input, the mask, the result and the original side by
side, their files in ``photos``, ``masks`` and ``filled``, and the comparison in ``table.md``.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import skimage.data
from PIL import Image, ImageDraw, ImageFont

import regionnorm as rn
from regionnorm.files.whole import atomic_path
from regionnorm.filling.classical import classical_filler
from regionnorm.imaging import (
    composite,
    image_to_tensor,
    mask_to_tensor,
    tensor_to_image,
    write_image,
)
from regionnorm.masks import free_form_mask, scratch_mask
from regionnorm.measuring.metrics import compute_metrics

Fill = Callable[[Image.Image, Image.Image], Image.Image]

LONG_SIDE = 512
GAP, HEADER = 8, 26
DAMAGE, REMOVED = (255, 255, 255), (255, 40, 80)

# The tower right of the rocket and the lamps at its foot, in the pixels of the 640x427 photo.
TOWER = [(438, 116), (454, 116), (462, 190), (472, 330), (486, 427), (404, 427), (404, 368)]
TOWER += [(430, 340), (437, 190)]


@dataclass(frozen=True)
class Case:
    """A photo and what is wrong with it.

    ``removed`` says that the hole hides an object: there is no original to compare with.
    """

    name: str
    title: str
    photo: Image.Image
    mask: Image.Image
    removed: bool = False


def main() -> None:
    """Write the pictures and the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("out/demo"))
    parser.add_argument("--model", default=None, help="weights file; by default the package's")
    parser.add_argument("--before-after", type=Path, help="also write the README's picture here")
    arguments = parser.parse_args()

    start = time.perf_counter()
    inpainter = rn.Inpainter(arguments.model)
    cases = make_cases()
    fillers: dict[str, Fill] = {
        "regionnorm": inpainter,
        "telea": partial(fill_classically, "telea"),
        "ns": partial(fill_classically, "ns"),
    }
    rows = []
    for case in cases:
        results = {name: fill(case.photo, case.mask) for name, fill in fillers.items()}
        write_case(case, results["regionnorm"], arguments.out)
        if not case.removed:
            rows += [table_row(case, name, result) for name, result in results.items()]
    table = format_table(rows)
    with atomic_path(arguments.out / "table.md") as temporary:
        temporary.write_text(table, encoding="utf-8")
    if arguments.before_after:
        write_image(before_after(cases, inpainter), arguments.before_after)
    print(table)
    print(f"{len(cases)} photos in {time.perf_counter() - start:.0f} s; see {arguments.out}/*.png")


# --- photos and what is wrong with them ----------------------------------------------------------


def make_cases() -> list[Case]:
    """Four photos: scratched, painted over, written on, and with an object in the way."""
    data = skimage.data
    arrays = (data.astronaut(), data.chelsea(), data.coffee(), data.rocket())
    portrait, cat, cup, rocket = (shrink(Image.fromarray(array)) for array in arrays)
    scratches = scratch_mask(
        portrait.height, portrait.width, np.random.default_rng(0), area=(0.025, 0.04)
    )
    strokes = free_form_mask(cat.height, cat.width, np.random.default_rng(1), area=(0.07, 0.1))
    return [
        Case("astronaut", "scratches", portrait, to_image(scratches)),
        Case("chelsea", "free-form hole", cat, to_image(strokes)),
        Case("coffee", "text overlay", cup, text_mask(cup.size)),
        Case("rocket", "object removed", rocket, tower_mask(rocket.size), removed=True),
    ]


def shrink(photo: Image.Image) -> Image.Image:
    """Bring the long side down to 512 px."""
    scale = min(1.0, LONG_SIDE / max(photo.size))
    size = (round(photo.width * scale), round(photo.height * scale))
    return photo.resize(size, Image.Resampling.LANCZOS)


def to_image(hole: npt.NDArray[np.bool_]) -> Image.Image:
    """White = hole."""
    return Image.fromarray(np.where(hole, np.uint8(255), np.uint8(0)))


def text_mask(size: tuple[int, int]) -> Image.Image:
    """Lines of text across the picture, as a preview's watermark."""
    mask = Image.new("L", size)
    draw = ImageDraw.Draw(mask)
    font = ImageFont.load_default(size=22)
    for line, top in enumerate(range(14, size[1], 46)):
        draw.text((-40 * (line % 4), top), "preview only · not for sale · " * 4, 255, font)
    # Letters have soft edges: no tinted pixel may count as known.
    return mask.point(lambda level: 255 if level > 0 else 0)


def tower_mask(size: tuple[int, int]) -> Image.Image:
    """The tower of the rocket's photo."""
    mask = Image.new("L", size)
    scale = size[0] / 640
    ImageDraw.Draw(mask).polygon([(x * scale, y * scale) for x, y in TOWER], fill=255)
    return mask


# --- filling and measuring -----------------------------------------------------------------------


def fill_classically(name: str, photo: Image.Image, mask: Image.Image) -> Image.Image:
    """Fill with one of OpenCV's methods."""
    image, hole = image_to_tensor(photo), mask_to_tensor(mask)
    return tensor_to_image(composite(image, classical_filler(name)(image, hole), hole))


def table_row(case: Case, filler: str, result: Image.Image) -> tuple[str, ...]:
    """Measure the whole photo with its hole filled."""
    share = f"{100 * float(mask_to_tensor(case.mask).mean()):.1f} %"
    values = compute_metrics(image_to_tensor(result), image_to_tensor(case.photo))
    psnr, ssim, l1 = (float(values[key]) for key in ("psnr", "ssim", "l1"))
    return (case.name, case.title, share, filler, f"{psnr:.2f}", f"{ssim:.4f}", f"{l1:.3f}")


def format_table(rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table that also reads well as plain text."""
    header = ("photo", "damage", "hole", "filler", "PSNR (dB)", "SSIM", "l1 (%)")
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]
    rule = tuple("-" * width for width in widths)
    lines = (
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in (header, rule, *rows)
    )
    note = "Over the whole photo. The rocket is left out: nobody knows what its tower hid."
    return "\n".join(lines) + f"\n\n{note}\n"


# --- pictures ------------------------------------------------------------------------------------


def write_case(case: Case, result: Image.Image, out: Path) -> None:
    """Write the labelled sheet, and its parts as files for the command line."""
    panels = [("input", damaged(case)), ("mask", case.mask), ("result", result)]
    if not case.removed:
        panels.append(("original", case.photo))
    write_image(
        sheet([(f"{case.title}: {label}", panel) for label, panel in panels]),
        out / f"{case.name}.png",
    )
    write_image(case.photo, out / "photos" / f"{case.name}.png")
    write_image(case.mask, out / "masks" / f"{case.name}.png")
    write_image(result, out / "filled" / f"{case.name}.png")


def damaged(case: Case) -> Image.Image:
    """The photo as it came: with white damage, or with the object marked."""
    if not case.removed:
        shown = case.photo.copy()
        shown.paste(DAMAGE, mask=case.mask)
        return shown
    tinted = Image.blend(case.photo, Image.new("RGB", case.photo.size, REMOVED), 0.5)
    return Image.composite(tinted, case.photo, case.mask)


def sheet(panels: Sequence[tuple[str, Image.Image]]) -> Image.Image:
    """Panels of one height side by side, each under its label."""
    width = sum(panel.width for _, panel in panels) + GAP * (len(panels) + 1)
    canvas = Image.new("RGB", (width, panels[0][1].height + HEADER + GAP), "white")
    draw = ImageDraw.Draw(canvas)
    left = GAP
    for label, panel in panels:
        draw.text((left, 5), label, "black", ImageFont.load_default(size=15))
        canvas.paste(panel.convert("RGB"), (left, HEADER))
        left += panel.width + GAP
    return canvas


def before_after(cases: Sequence[Case], fill: Fill) -> Image.Image:
    """The README's picture: input above result, for all photos at one height."""
    height = 240
    columns = []
    for case in cases:
        size = (round(case.photo.width * height / case.photo.height), height)
        pair = (damaged(case), fill(case.photo, case.mask))
        columns.append([panel.resize(size, Image.Resampling.LANCZOS) for panel in pair])
    width = sum(before.width for before, _ in columns) + GAP * (len(columns) - 1)
    canvas = Image.new("RGB", (width, 2 * height + GAP), "white")
    left = 0
    for before, after in columns:
        canvas.paste(before, (left, 0))
        canvas.paste(after, (left, height + GAP))
        left += before.width + GAP
    return canvas


if __name__ == "__main__":
    main()
