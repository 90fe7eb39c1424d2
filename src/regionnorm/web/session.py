"""What the app keeps for each visitor, and where.

Every visitor has a folder with a random name that no address of the page leads to. Finished fills
lie in folders with random names of their own, from which the page offers them for download.
"""

from __future__ import annotations

import base64
import binascii
import io
import math
import re
import secrets
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from regionnorm.filling.inpainter import Fill, Inpainter, inpaint_path
from regionnorm.imaging import mask_to_array, read_image
from regionnorm.photo import Photo

__all__ = [
    "HISTORY",
    "Filled",
    "Session",
    "Store",
    "decode_mask",
    "fill_file",
    "random_folder",
    "read_preview",
    "to_data_url",
]

HISTORY = 8
"""How many fills a visitor can go back to."""

# Phones refuse larger canvases; larger photos are painted on at a smaller scale.
_CANVAS_PIXELS = 4096 * 4096
_DATA_URL = "data:image/png;base64,"


@dataclass(frozen=True)
class Filled:
    """One finished fill: the photo it started from, the mask and the result, all as files.

    Fills of one photo and mask differ in ``variant``.
    """

    photo: Path
    mask: Path
    result: Path
    variant: int = 0


@dataclass
class Session:
    """One visitor's photo and last fills.

    Attributes:
        folder: Where the visitor's photos and masks lie.
        photo: The photo that is painted on, as it was uploaded.
        size: Width and height of the upright photo.
        fills: The last fills, latest first.
        shown: The fill that the page shows.
    """

    folder: Path
    photo: Path | None = None
    size: tuple[int, int] = (0, 0)
    fills: list[Filled] = field(default_factory=list)
    shown: Filled | None = None

    def next_variant(self, mask: Path) -> int:
        """The first variant above all those of the history that were filled with this mask."""
        return 1 + max((fill.variant for fill in self.fills if fill.mask == mask), default=-1)

    @property
    def canvas(self) -> tuple[int, int]:
        """Width and height of the mask that the page paints: the photo's up to 16 megapixels."""
        width, height = self.size
        scale = min(1.0, math.sqrt(_CANVAS_PIXELS / max(1, width * height)))
        return max(1, int(width * scale)), max(1, int(height * scale))

    def remember(self, fill: Filled) -> None:
        """Show a fill and put it in front of the history, without those beyond ``HISTORY``."""
        self.shown = fill
        self.fills.insert(0, fill)
        for old in self.fills[HISTORY:]:
            shutil.rmtree(old.result.parent, ignore_errors=True)
        del self.fills[HISTORY:]
        self.drop_unused()

    def drop_unused(self) -> None:
        """Remove the photos and masks that neither the page nor the history needs."""
        used = {path.parent for fill in self.fills for path in (fill.photo, fill.mask)}
        if self.photo is not None:
            used.add(self.photo.parent)
        for folder in self.folder.iterdir():
            if folder not in used:
                shutil.rmtree(folder, ignore_errors=True)

    def delete(self) -> None:
        """Remove every file of this visitor."""
        for fill in self.fills:
            shutil.rmtree(fill.result.parent, ignore_errors=True)
        shutil.rmtree(self.folder, ignore_errors=True)


@dataclass(frozen=True)
class Store:
    """The folders of one server.

    Attributes:
        private: Visitors' folders; no address leads there.
        public: Results, each in a folder whose random name is the only way to it.
    """

    private: Path
    public: Path

    def new_session(self) -> Session:
        """Make a visitor's folder."""
        return Session(random_folder(self.private))

    def hide_folders(self, text: str) -> str:
        """Remove from a message where files lie; their names stay."""
        for root in (self.private, self.public):
            text = re.sub(rf"{re.escape(str(root))}(?:/[\w-]+)*/", "", text)
        return text


def random_folder(parent: Path) -> Path:
    """Make a folder whose name nobody can guess, readable by this user only."""
    folder = parent / secrets.token_urlsafe(24)
    folder.mkdir(parents=True, mode=0o700)
    return folder


def decode_mask(url: str, session: Session) -> npt.NDArray[np.bool_]:
    """Turn the page's mask into bool ``[H, W]`` of the photo's size, True = hole.

    Args:
        url: A PNG as a data URL, of the size :attr:`Session.canvas`, white = hole.
        session: The visitor's, with a photo.

    Raises:
        ValueError: It is no such picture, or of another size.
    """
    try:
        if not url.startswith(_DATA_URL):
            raise ValueError(url[:20])
        data = base64.b64decode(url[len(_DATA_URL) :], validate=True)
        with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            # Before its pixels are decoded: a small file can hold a huge picture.
            size = image.size
            mask = image.convert("L") if size == session.canvas else None
    except (ValueError, OSError, SyntaxError, binascii.Error) as error:
        raise ValueError("the mask is no PNG picture; reload the page") from error
    if mask is None:
        expected = "x".join(map(str, session.canvas))
        raise ValueError(f"the mask is {size[0]}x{size[1]}, not {expected}; reload the page")
    if mask.size != session.size:
        mask = mask.resize(session.size, Image.Resampling.BILINEAR)
    return mask_to_array(mask)


@dataclass(frozen=True)
class _Variant:
    """One variant of an inpainter's fills; others may ask the same inpainter for theirs."""

    inpainter: Inpainter
    number: int

    def __call__(self, image: Image.Image, hole: npt.NDArray[np.bool_]) -> Image.Image:
        return self.inpainter(image, hole, variant=self.number)

    def fill_photo(
        self,
        photo: Photo,
        hole: npt.NDArray[np.bool_],
        *,
        opaque: bool,
        cover: npt.NDArray[np.uint8] | None = None,
    ) -> Photo:
        return self.inpainter.fill_photo(
            photo, hole, opaque=opaque, cover=cover, variant=self.number
        )


def fill_file(
    inpainter: Inpainter, photo: Path, mask: Path, folder: Path, variant: int = 0
) -> Path:
    """Fill a photo and write the result into ``folder``, in the photo's format and size.

    Args:
        inpainter: What fills the hole.
        photo: The photo.
        mask: The mask, of the photo's size; white = hole.
        folder: An empty folder, which is removed if nothing can be written.
        variant: As for a call of the inpainter.

    Returns:
        The file, called ``<photo>-filled``, variants of it ``-filled-2`` and so on, with the
        photo's suffix (``.png`` where that format cannot hold the result).

    Raises:
        ValueError: The photo or the mask cannot be used; one line says why.
    """
    fill: Fill = _Variant(inpainter, variant) if variant else inpainter
    try:
        report = inpaint_path(fill, photo, mask, folder)
        for _, reason in report.failed:
            raise ValueError(reason)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    written = Path(report.done[0])
    number = f"-{variant + 1}" if variant else ""
    return written.rename(written.with_name(f"{photo.stem}-filled{number}{written.suffix}"))


def read_preview(path: Path, side: int) -> tuple[tuple[int, int], Image.Image]:
    """Read a photo upright; returns its size, and the photo as RGB, ``side`` pixels at most.

    Transparent pixels are shown on white.
    """
    image = read_image(path)
    size = image.size
    if max(size) > side:
        image.thumbnail((side, side), Image.Resampling.LANCZOS)
    if image.mode in ("LA", "RGBA"):
        canvas = Image.new("RGBA", image.size, "white")
        canvas.alpha_composite(image.convert("RGBA"))
        image = canvas
    return size, image.convert("RGB")


def to_data_url(image: Image.Image, format_name: str) -> str:
    """Encode a picture as a data URL: it reaches this visitor's page and no file."""
    buffer = io.BytesIO()
    image.save(buffer, format=format_name, **({"quality": 92} if format_name == "JPEG" else {}))
    encoded = base64.b64encode(buffer.getvalue()).decode("ascii")
    return f"data:image/{format_name.lower()};base64,{encoded}"
