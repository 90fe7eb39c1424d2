"""Photos, masks and fills as files: checked, read, filled, and made small for a screen."""

from __future__ import annotations

import base64
import io
import math
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from regionnorm.filling.batch import BatchReport
from regionnorm.filling.expand import Margins
from regionnorm.filling.inpainter import Fill, Inpainter, inpaint_path
from regionnorm.imaging import MASK_THRESHOLD, read_image, write_image
from regionnorm.masks.soft import cover_of
from regionnorm.photo import Photo
from regionnorm.web.visitors import Box, Picture

__all__ = [
    "box_of",
    "canvas_of",
    "decode_mask",
    "encoded",
    "fill_file",
    "fill_into",
    "patch",
    "read_preview",
    "thumbnail",
    "to_data_url",
    "work_of",
]

Hole = npt.NDArray[np.bool_]
Levels = npt.NDArray[np.uint8]

# Phones refuse larger canvases; larger photos are painted on at a smaller scale.
_CANVAS_PIXELS = 4096 * 4096
_EXACT_PIXELS = 3_000_000  # of a patch that is sent without loss
_DARK, _MOST_GRAY = 63, 0.3  # a file with more grays than that is taken for a photo
_AROUND = 0.35  # of the changed part's size, shown around it on a thumbnail


def canvas_of(size: tuple[int, int]) -> tuple[int, int]:
    """Width and height of the mask that the page paints: the photo's up to 16 megapixels."""
    width, height = size
    scale = min(1.0, math.sqrt(_CANVAS_PIXELS / max(1, width * height)))
    return max(1, int(width * scale)), max(1, int(height * scale))


def decode_mask(
    data: bytes, corner: tuple[int, int], size: tuple[int, int], *, empty: bool = False
) -> Levels:
    """Turn the page's mask into uint8 ``[H, W]`` of the photo's size, 255 = hole.

    Args:
        data: A PNG of the painted part of :func:`canvas_of`, white = hole; a gray pixel shows as
            much of the fill as it is bright.
        corner: Where its left upper corner lies.
        size: The photo's width and height.
        empty: Whether nothing need be painted, for the photo is to grow; then there may be no
            data either.

    Raises:
        ValueError: It is no such picture, or reaches beyond the photo.
    """
    if empty and not data:
        return np.zeros((size[1], size[0]), np.uint8)
    left, top = corner
    width, height = canvas_of(size)
    try:
        with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            # Before its pixels are decoded: a small file can hold a huge picture.
            fits = min(corner) >= 0 and left + image.width <= width and top + image.height <= height
            part = image.convert("L") if fits else None
            given = image.size
    except (ValueError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError("the mask is no PNG picture; reload the page") from error
    if part is None:
        raise ValueError(
            f"the mask is {given[0]}x{given[1]} from ({left}, {top}), beyond {width}x{height}; "
            "reload the page"
        )
    soft = cover_of(np.asarray(part)) is not None
    mask = Image.new("L", (width, height))
    mask.paste(part, corner)
    if mask.size != size:
        mask = mask.resize(size, Image.Resampling.BILINEAR)
    levels = np.asarray(mask)
    if not soft:  # edges that are gray from scaling alone
        levels = np.where(levels > 255 * MASK_THRESHOLD, np.uint8(255), np.uint8(0))
    if not empty and not (levels > 255 * MASK_THRESHOLD).any():
        raise ValueError("nothing is painted yet; paint over what should go")
    if levels.all():
        raise ValueError("everything is painted over; leave something of the photo to fill from")
    if ((levels > _DARK) & (levels < 255 - _DARK)).mean() > _MOST_GRAY:
        raise ValueError("most of the photo is painted softly; use a harder brush there")
    return levels


def work_of(hole: Hole, more: int = 0) -> float:
    """How long a fill takes, in units that are about the same for all photos.

    Args:
        hole: bool ``[H, W]``.
        more: Pixels that are added around it and filled, too.
    """
    return 0.05 + (hole.size + more) / 40e6 + float(np.count_nonzero(hole) + more) / 1e6


@dataclass(frozen=True)
class _Variant:
    """One variant of an inpainter's fills; others may ask the same inpainter for theirs."""

    inpainter: Inpainter
    number: int

    def __call__(self, image: Image.Image, hole: Hole) -> Image.Image:
        return self.inpainter(image, hole, variant=self.number)

    def fill_photo(
        self,
        photo: Photo,
        hole: Hole,
        *,
        opaque: bool,
        cover: npt.NDArray[np.uint8] | None = None,
    ) -> Photo:
        return self.inpainter.fill_photo(
            photo, hole, opaque=opaque, cover=cover, variant=self.number
        )


def fill_into(
    folder: Path, fill: Fill, photo: Path, mask: Path | str, margins: Margins | None = None
) -> BatchReport:
    """Fill a photo, or a folder with nothing but one, into an empty folder.

    Raises as :func:`fill_file` does; then ``folder`` is removed.
    """
    try:
        report = inpaint_path(fill, photo, mask, folder, expand=margins)
        for _, reason in report.failed:
            raise ValueError(reason)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return report


def fill_file(
    inpainter: Inpainter,
    photo: Path,
    mask: Path | str,
    folder: Path,
    variant: int = 0,
    margins: Margins | None = None,
) -> Path:
    """Fill a photo and write the result into ``folder``, in the photo's format and size.

    Args:
        inpainter: What fills the hole.
        photo: The photo.
        mask: The mask, of the photo's size, or with margins of the larger one's; white = hole;
            or a rule that makes it.
        folder: An empty folder, which is removed if nothing can be written.
        variant: As for a call of the inpainter.
        margins: What to add on each side.

    Returns:
        The file, called ``<photo>-filled``, variants of it ``-filled-2`` and so on, with the
        photo's suffix (``.png`` where that format cannot hold the result).

    Raises:
        ValueError: The photo or the mask cannot be used; one line says why.
        Stopped: Nobody wants it any more.
    """
    fill: Fill = _Variant(inpainter, variant) if variant else inpainter
    written = Path(fill_into(folder, fill, photo, mask, margins).done[0])
    number = f"-{variant + 1}" if variant else ""
    return written.rename(written.with_name(f"{photo.stem}-filled{number}{written.suffix}"))


def read_preview(path: Path, side: int | None) -> tuple[tuple[int, int], Image.Image]:
    """Read a photo upright; returns its size, and the photo as RGB, ``side`` pixels at most.

    Transparent pixels are shown on white.
    """
    image = read_image(path)
    size = image.size
    if side is not None and max(size) > side:
        image.thumbnail((side, side), Image.Resampling.LANCZOS, reducing_gap=3)
    if image.mode in ("LA", "RGBA"):
        canvas = Image.new("RGBA", image.size, "white")
        canvas.alpha_composite(image.convert("RGBA"))
        image = canvas
    return size, image.convert("RGB")


def encoded(path: Path, side: int | None) -> Path:
    """A JPEG of a picture for the screen, ``side`` pixels at most; made once, beside it."""
    made = _beside(path) / f"view-{side or 'whole'}.jpg"
    if not made.is_file():
        write_image(read_preview(path, side)[1], made)
    return made


def patch(picture: Picture) -> Path:
    """What a fill changed, as an image of its box; made once, beside it."""
    assert picture.box is not None
    left, top, right, bottom = picture.box
    exact = (right - left) * (bottom - top) <= _EXACT_PIXELS
    made = _beside(picture.path) / f"patch.{'png' if exact else 'jpg'}"
    if not made.is_file():
        write_image(read_preview(picture.path, None)[1].crop(picture.box), made)
    return made


def thumbnail(picture: Picture, side: int) -> Path:
    """A small picture: of a fill the part that it changed, with something around it."""
    made = _beside(picture.path) / f"small-{side}.jpg"
    if not made.is_file():
        image = read_preview(picture.path, None if picture.box else side)[1]
        if picture.box:
            image = image.crop(_around(picture.box, picture.size))
        image.thumbnail((side, side), Image.Resampling.LANCZOS, reducing_gap=3)
        write_image(image, made)
    return made


def _beside(path: Path) -> Path:
    """Where what is made from a file lies: its own name may be any."""
    return path.parent / "made"


def _around(box: Box, size: tuple[int, int]) -> Box:
    """A square with the box in its middle, as far as the photo goes."""
    left, top, right, bottom = box
    half = max(48, round((0.5 + _AROUND) * max(right - left, bottom - top)))
    across, down = (left + right) // 2, (top + bottom) // 2
    return (
        max(0, across - half),
        max(0, down - half),
        min(size[0], across + half),
        min(size[1], down + half),
    )


def box_of(hole: Hole) -> Box:
    """The smallest box that holds a hole."""
    rows, columns = np.flatnonzero(hole.any(axis=1)), np.flatnonzero(hole.any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def to_data_url(image: Image.Image) -> str:
    """A small picture inside JSON: it reaches this visitor's page and no file."""
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=92)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
