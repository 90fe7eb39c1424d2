"""Holes that the default weights fill badly: one row for each way in which they fail.

    python examples/failures.py --out docs/images/failures.webp

Columns are the input, OpenCV's Navier-Stokes fill, the network alone, and the fill as it comes.
The model card tells what to see in each row.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import skimage.data
from PIL import Image, ImageDraw, ImageFont

import regionnorm as rn
from regionnorm.filling.classical import classical_filler
from regionnorm.imaging import (
    composite,
    image_to_tensor,
    mask_to_tensor,
    tensor_to_image,
    write_image,
)

FILLED = 384  # pixels of a square while it is filled: small photos take less from their pieces
SIDE, GAP, HEADER = 256, 4, 22
COLUMNS = ("input", "Navier-Stokes", "network alone", "regionnorm")


@dataclass(frozen=True)
class Case:
    """A square of a photo, ``crop`` = left, top, side, and an ellipse or a box that is missing.

    ``hole`` is left, top, right and bottom in pixels of the square once it is ``SIDE`` wide.
    """

    title: str
    sample: str
    crop: tuple[int, int, int]
    hole: tuple[int, int, int, int]
    round: bool = True


CASES = (
    Case("blur", "chelsea", (40, 0, 300), (60, 130, 190, 240)),
    Case("structure ends early", "brick", (0, 0, 384), (70, 70, 190, 190), False),
    Case("nothing is invented", "astronaut", (128, 0, 256), (70, 70, 150, 140)),
    Case("clouds between dark and bright", "camera", (120, 60, 256), (60, 60, 200, 190)),
    Case("wrong pieces", "camera", (100, 256, 256), (60, 40, 190, 180)),
    Case("wrong pieces", "stereo_motorcycle", (120, 0, 497), (50, 50, 190, 220), False),
)


def main() -> None:
    """Fill and write the sheet."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default=None, help="weights file; by default the package's")
    parser.add_argument("--quality", type=int, default=85, help="of a WebP file")
    parser.add_argument("--out", type=Path, default=Path("out/failures.png"))
    arguments = parser.parse_args()

    inpainter = rn.Inpainter(arguments.model)
    rows = [(case.title, panels(case, inpainter)) for case in CASES]
    # WebP is lossless here unless told otherwise.
    options = {"quality": arguments.quality, "lossless": False}
    write_image(
        arrange(rows), arguments.out, **(options if arguments.out.suffix == ".webp" else {})
    )
    print(arguments.out)


def panels(case: Case, inpainter: rn.Inpainter) -> list[Image.Image]:
    """One panel for each column."""
    pixels = getattr(skimage.data, case.sample)()
    # A stereo pair is a tuple.
    photo = Image.fromarray(pixels[0] if isinstance(pixels, tuple) else pixels).convert("RGB")
    left, top, side = case.crop
    photo = photo.crop((left, top, left + side, top + side))
    photo = photo.resize((FILLED, FILLED), Image.Resampling.LANCZOS)
    hole = Image.new("L", photo.size)
    box = [round(value * FILLED / SIDE) for value in case.hole]
    draw = ImageDraw.Draw(hole)
    (draw.ellipse if case.round else draw.rectangle)(box, fill=255)
    shown = photo.copy()
    shown.paste("white", mask=hole)
    image, mask = image_to_tensor(photo), mask_to_tensor(hole)
    classical = composite(image, classical_filler("ns")(image, mask), mask)
    alone, both = (inpainter(photo, hole, method=method) for method in ("network", "auto"))
    columns = (shown, tensor_to_image(classical), alone, both)
    return [column.resize((SIDE, SIDE), Image.Resampling.LANCZOS) for column in columns]


def arrange(rows: list[tuple[str, list[Image.Image]]]) -> Image.Image:
    """Rows under the columns' names, each with its title above it."""
    step, font = SIDE + GAP, ImageFont.load_default(size=15)
    height = HEADER + SIDE + GAP
    canvas = Image.new("RGB", (len(COLUMNS) * step - GAP, HEADER + len(rows) * height), "white")
    draw = ImageDraw.Draw(canvas)
    for column, name in enumerate(COLUMNS):
        draw.text((column * step, 2), name, "black", font)
    for number, (title, pictures) in enumerate(rows):
        top = HEADER + number * height
        draw.text((0, top + 2), f"{number + 1}. {title}", "#555555", font)
        for column, picture in enumerate(pictures):
            canvas.paste(picture, (column * step, top + HEADER))
    return canvas


if __name__ == "__main__":
    main()
