"""What is filled: photos and holes, as the files that every filler gets."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from regionnorm.files.formats import list_images
from regionnorm.imaging import read_image, read_mask, write_image

# The sides of scikit-image's photos are at most this.
_SAMPLE_SIDE = 512
SAMPLES = ("brick", "gravel", "grass", "coins", "rocket", "stereo_motorcycle", "chelsea")
SAMPLE_AREA = 0.2

Pixels = npt.NDArray[np.uint8]
Hole = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Case:
    """One photo under one hole, as PNG files; a filler is given ``shown`` and ``mask`` alone.

    Attributes:
        name: The photo's, without suffix.
        photo: The original.
        shown: The same with black in the hole.
        mask: White = hole.
    """

    name: str
    photo: Path
    shown: Path
    mask: Path

    def pixels(self) -> Pixels:
        """The original, uint8 ``[H, W, 3]``."""
        return np.asarray(read_image(self.photo).convert("RGB"))

    def hole(self) -> Hole:
        """Bool ``[H, W]``, True = hole."""
        return read_mask(self.mask)

    def filled(self, file: Path) -> Pixels:
        """A filler's answer, uint8 ``[H, W, 3]``; known pixels are the photo's whatever it did.

        Raises:
            ValueError: It has another size.
        """
        photo, answer = self.pixels(), np.asarray(read_image(file).convert("RGB"))
        if answer.shape != photo.shape:
            raise ValueError(f"{file} has shape {answer.shape}, the photo {photo.shape}")
        return np.where(self.hole()[..., None], answer, photo)


def paired(photos: Path, masks: Path, limit: int, folder: Path) -> list[Case]:
    """Write the cases of a folder of photos and one of masks with the same stems.

    Raises:
        ValueError: No photo has a mask.
    """
    by_stem = {path.stem: path for path in list_images(masks)}
    found = [path for path in list_images(photos) if path.stem in by_stem]
    if not found:
        raise ValueError(f"no photo in {photos} has a mask of its name in {masks}")
    return [
        make_case(path.stem, read_image(path), read_mask(by_stem[path.stem]), folder)
        for path in found[: limit or None]
    ]


def samples(limit: int, folder: Path) -> list[Case]:
    """Write some of scikit-image's photos, each with one hole of a fifth of its area."""
    import skimage.data

    cases = []
    for number, name in enumerate(SAMPLES[: limit or None]):
        array: Any = getattr(skimage.data, name)()
        photo = Image.fromarray(array[0] if isinstance(array, tuple) else array).convert("RGB")
        photo.thumbnail((_SAMPLE_SIDE, _SAMPLE_SIDE), Image.Resampling.LANCZOS)
        hole = _brushed(photo.size, np.random.default_rng(number))
        cases.append(make_case(name, photo, hole, folder))
    return cases


def _brushed(size: tuple[int, int], rng: np.random.Generator) -> Hole:
    """A bent stroke through the middle half, as wide as its area asks for."""
    points = [tuple(p) for p in (rng.uniform(0.25, 0.75, (4, 2)) * size).round().tolist()]
    for width in range(8, min(size), 2):
        canvas = Image.new("1", size)
        draw = ImageDraw.Draw(canvas)
        draw.line(points, fill=1, width=width, joint="curve")
        for x, y in points:
            draw.ellipse([x - width / 2, y - width / 2, x + width / 2, y + width / 2], fill=1)
        hole = np.asarray(canvas)
        if hole.mean() >= SAMPLE_AREA:
            break
    return hole


def make_case(name: str, photo: Image.Image, hole: Hole, folder: Path) -> Case:
    """Write a photo, its hole and what a filler is shown, each in a folder of its own."""
    parts = ("photo", "shown", "mask")
    case = Case(name, *(folder / part / f"{name}.png" for part in parts))
    pixels = np.asarray(photo.convert("RGB"))
    if hole.shape != pixels.shape[:2]:
        raise ValueError(f"the mask of {name} is {hole.shape}, the photo {pixels.shape[:2]}")
    shown = np.where(hole[..., None], np.uint8(0), pixels)
    for path, array in ((case.photo, pixels), (case.shown, shown), (case.mask, hole)):
        write_image(Image.fromarray(array if array.dtype == np.uint8 else _white(array)), path)
    return case


def _white(hole: Hole) -> Pixels:
    return hole.astype(np.uint8) * np.uint8(255)
