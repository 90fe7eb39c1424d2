"""A sheet of photos, each with a hole, filled by Navier-Stokes and by the network.

    python examples/contact_sheet.py --out out/contact_sheet.png
    python examples/contact_sheet.py --photos my_photos/ --out out/mine.png

Rows are photos; columns are the input, OpenCV's Navier-Stokes fill, and this package's.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import skimage.data
from PIL import Image, ImageDraw, ImageFont, ImageOps

import regionnorm as rn
from regionnorm.files.formats import list_images
from regionnorm.filling.classical import classical_filler
from regionnorm.imaging import (
    composite,
    image_to_tensor,
    mask_to_tensor,
    read_image,
    tensor_to_image,
    write_image,
)
from regionnorm.masks import evaluation_mask

SIDE = 256
GAP, HEADER = 6, 22
INTERVALS = ((0.1, 0.2), (0.2, 0.3), (0.3, 0.4))
COLUMNS = ("input", "Navier-Stokes", "regionnorm")


def main() -> None:
    """Fill and write the sheet."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--photos", type=Path, help="folder; by default scikit-image's samples")
    parser.add_argument("--count", type=int, default=6)
    parser.add_argument("--columns", type=int, default=2, help="photos side by side")
    parser.add_argument("--model", default=None, help="weights file; by default the package's")
    parser.add_argument("--quality", type=int, default=85, help="of a WebP file")
    parser.add_argument("--out", type=Path, default=Path("out/contact_sheet.png"))
    arguments = parser.parse_args()

    inpainter = rn.Inpainter(arguments.model)
    photos = samples() if arguments.photos is None else read_folder(arguments.photos)
    strips = []
    for number, photo in enumerate(photos[: arguments.count]):
        interval = INTERVALS[number % len(INTERVALS)]
        hole = Image.fromarray(evaluation_mask(number, interval, SIDE, seed=0))
        strips.append(strip(photo, hole, inpainter))
    # WebP is lossless here unless told otherwise.
    options = {"quality": arguments.quality, "lossless": False}
    write_image(
        arrange(strips, arguments.columns),
        arguments.out,
        **(options if arguments.out.suffix == ".webp" else {}),
    )
    print(arguments.out)


def samples() -> list[Image.Image]:
    """Six of scikit-image's photos, cropped to squares."""
    crops = {
        "astronaut": None,
        "chelsea": None,
        "coffee": None,
        "rocket": None,
        "immunohistochemistry": None,
        "retina": (300, 300, 1100, 1100),
    }
    found = []
    for name, box in crops.items():
        photo = Image.fromarray(getattr(skimage.data, name)()).convert("RGB")
        found.append(square(photo if box is None else photo.crop(box)))
    return found


def read_folder(folder: Path) -> list[Image.Image]:
    """All photos of a folder as squares."""
    return [square(read_image(path).convert("RGB")) for path in list_images(folder)]


def square(photo: Image.Image) -> Image.Image:
    """The middle of a photo, ``SIDE`` pixels wide and high."""
    return ImageOps.fit(photo, (SIDE, SIDE), Image.Resampling.LANCZOS)


def strip(photo: Image.Image, hole: Image.Image, inpainter: rn.Inpainter) -> Image.Image:
    """Input, Navier-Stokes and ours side by side."""
    shown = photo.copy()
    shown.paste((255, 255, 255), mask=hole)
    image, mask = image_to_tensor(photo), mask_to_tensor(hole)
    classical = tensor_to_image(composite(image, classical_filler("ns")(image, mask), mask))
    panels = (shown, classical, inpainter(photo, hole))
    canvas = Image.new("RGB", (len(panels) * (SIDE + GAP) - GAP, SIDE), "white")
    for column, panel in enumerate(panels):
        canvas.paste(panel, (column * (SIDE + GAP), 0))
    return canvas


def arrange(strips: list[Image.Image], columns: int) -> Image.Image:
    """Strips in rows of ``columns``, under the columns' names."""
    columns = min(columns, len(strips))
    width, rows = strips[0].width, -(-len(strips) // columns)
    size = (columns * (width + 3 * GAP) - 3 * GAP, rows * (SIDE + GAP) - GAP + HEADER)
    canvas = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(canvas)
    for column in range(columns):
        for position, name in enumerate(COLUMNS):
            left = column * (width + 3 * GAP) + position * (SIDE + GAP)
            draw.text((left, 2), name, "black", ImageFont.load_default(size=15))
    for number, picture in enumerate(strips):
        left = number % columns * (width + 3 * GAP)
        canvas.paste(picture, (left, HEADER + number // columns * (SIDE + GAP)))
    return canvas


if __name__ == "__main__":
    main()
