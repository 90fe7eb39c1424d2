"""A photo as its file holds it: read, fill, write, without losing mode, depth or metadata.

:mod:`regionnorm.imaging` turns every file into one of four 8-bit modes, which is what networks
and metrics want. Here a photo keeps its own mode (1-bit, palette, CMYK, 16 bits ...), so that what
lies outside the hole comes back as it was stored.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from regionnorm.files.formats import format_of
from regionnorm.files.remote import as_place
from regionnorm.files.whole import decode, save_image
from regionnorm.imaging import (
    array_to_image,
    check_size,
    luma,
    orientation_of,
    standardize,
    supports_mode,
)
from regionnorm.photo import _colours, _deep
from regionnorm.photo._metadata import (
    add_directories,
    kept_info,
    save_options,
    sized_info,
    without_directories,
)
from regionnorm.photo._profiles import add_colours, read_colours
from regionnorm.photo._profiles import notes as colour_notes

__all__ = ["Photo", "check_target", "read_photo", "write_photo"]

Pixels = npt.NDArray[Any]
Hole = npt.NDArray[np.bool_]

# Modes that each format holds as they are. Pillow turns gray into colour for WebP and AVIF.
_NATIVE: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        "PNG": frozenset({"1", "L", "LA", "P", "RGB", "RGBA", "I;16", "I"}),
        "TIFF": frozenset({"1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "RGBa", "I;16", "I", "LAB"}),
        "JPEG": frozenset({"L", "RGB", "CMYK"}),
        "WEBP": frozenset({"L", "LA", "RGB", "RGBA"}),
        "BMP": frozenset({"1", "L", "P", "RGB"}),
        "GIF": frozenset({"1", "L", "P"}),
        "PPM": frozenset({"1", "L", "RGB", "I;16", "I"}),
        "JPEG2000": frozenset({"L", "LA", "RGB", "RGBA", "I;16"}),
        "AVIF": frozenset({"L", "LA", "RGB", "RGBA"}),
        "HEIF": frozenset({"L", "LA", "RGB", "RGBA"}),
    }
)
_DEEP_FORMATS = frozenset({"PNG", "TIFF"})
_KEYED_FORMATS = frozenset({"PNG", "GIF"})  # where colours may stand for transparency


@dataclass(frozen=True)
class Photo:
    """A decoded photo, upright.

    Attributes:
        image: The pixels in the file's own mode; 8 bits of them where ``deep`` holds 16.
        deep: uint16 ``[H, W, C]`` of a 16-bit file with several channels (2 gray and alpha, 3
            colour, 4 colour and alpha), which Pillow has no mode for; None otherwise.
        format: Pillow's name of the file's format.
        encoding: How the file was encoded, to write another like it.
        notes: What the user should know, one line each: further frames, a lower depth.
    """

    image: Image.Image
    deep: Pixels | None = None
    format: str = "PNG"
    encoding: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @classmethod
    def from_image(cls, image: Image.Image | Pixels) -> Photo:
        """Wrap a Pillow image of any mode, or a uint8 array ``[H, W]`` or ``[H, W, C]``.

        Raises:
            ValueError: Another dtype or shape, or a mode without a known range (32-bit float).
        """
        if not isinstance(image, Image.Image):
            image = array_to_image(image)
        return _from_opened(image, b"")

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        return self.image.size

    @property
    def mode(self) -> str:
        """Pillow's name of the mode; ``LA;16``, ``RGB;16`` or ``RGBA;16`` for deep colour."""
        if self.deep is None:
            return self.image.mode
        return {2: "LA;16", 3: "RGB;16", 4: "RGBA;16"}[self.deep.shape[2]]

    def colours(self) -> Pixels:
        """Return RGB ``[H, W, 3]``, uint8, or uint16 for photos of 16 bits."""
        if self.deep is not None:
            gray = self.deep.shape[2] == 2
            return np.repeat(self.deep[:, :, :1], 3, 2) if gray else self.deep[:, :, :3]
        if self.image.mode in ("I;16", "I"):
            return np.repeat(np.asarray(self.image).astype(np.uint16)[:, :, None], 3, 2)
        return np.asarray(_colours.to_rgb(self.image))

    def alpha(self) -> npt.NDArray[np.uint8] | None:
        """Return how opaque each pixel is, uint8 ``[H, W]``; None if all are."""
        if self.mode == "RGB;16" or not self.image.has_transparency_data:
            return None
        if self.image.mode in ("I;16", "I"):  # in which Pillow makes nothing transparent
            values = np.asarray(self.image)
            return np.where(values == self.image.info["transparency"], 0, 255).astype(np.uint8)
        return np.asarray(self.image.convert("RGBA").getchannel("A"))

    def on_canvas(self, left: int, top: int, right: int, bottom: int) -> Photo:
        """Return the photo with so many pixels more on each side, opaque and of any colour."""
        width, height = self.size
        image = Image.new(
            self.image.mode, (left + width + right, top + height + bottom), _opaque(self.image)
        )
        if self.image.mode == "P":
            image.putpalette(self.image.getpalette() or [], "RGB")
        image.paste(self.image, (left, top))
        image.info = sized_info(self.image.info, image.size)
        if self.deep is None:
            return replace(self, image=image)
        around = ((top, bottom), (left, right), (0, 0))
        return replace(self, image=image, deep=np.pad(self.deep, around, constant_values=65535))

    def filled(self, colours: Pixels, hole: Hole, *, opaque: bool = False) -> Photo:
        """Return the photo with new colours in the hole; all else stays as it is stored.

        Args:
            colours: RGB ``[H, W, 3]`` of the dtype of :meth:`colours`.
            hole: bool ``[H, W]``.
            opaque: Make the hole visible too; otherwise transparency stays as it is.
        """
        if self.deep is not None:
            deep = self.deep.copy()
            new = colours[hole]
            if deep.shape[2] == 2:
                deep[hole, 0] = luma(new)
            else:
                deep[hole, :3] = new
            if opaque and deep.shape[2] != 3:
                deep[hole, -1] = 65535
            return replace(self, image=_deep.to_8_bits(deep, self.image.info), deep=deep)
        key = self.image.info.get("transparency") if self.image.mode != "P" else None
        alpha = self.alpha() if key is not None and not opaque else None
        if alpha is not None:
            # One colour stands for transparency: what it hides would show in any other colour.
            hole = hole & (alpha > 0)
        image = _colours.fill(self.image, colours, hole, key=key, opaque=opaque)
        image.info = dict(self.image.info)
        return replace(self, image=image)


def _opaque(image: Image.Image) -> int | tuple[int, ...]:
    """Some colour of an image's mode that hides what is behind it."""
    bands = len(image.getbands())
    key = image.info.get("transparency")
    if image.mode == "P":
        alpha = np.frombuffer(key, np.uint8) if isinstance(key, bytes) else np.zeros(0, np.uint8)
        clear = set(np.flatnonzero(alpha < 255)) if isinstance(key, bytes) else {key}
        return next((entry for entry in range(256) if entry not in clear), 0)
    if key is not None and image.mode in ("1", "L", "I;16", "I", "RGB"):
        dark = 0 if bands == 1 else (0, 0, 0)
        return (
            dark if key != dark else (1 if image.mode == "1" else 255) if bands == 1 else (255,) * 3
        )
    if image.mode in ("LA", "RGBA", "RGBa"):
        return (0,) * (bands - 1) + (255,)
    return 0 if bands == 1 else (0,) * bands


def read_photo(path: str | os.PathLike[str]) -> Photo:
    """Read a photo as its file holds it, turned upright.

    Raises:
        FileNotFoundError: There is no such file.
        OSError: The file cannot be opened.
        ValueError: The file is no image, is damaged or cut short, too large, or of a kind that
            could only be written back with losses (32-bit float, 16-bit CMYK, for two).
        ImportError: A 16-bit colour photo without the ``eval`` extra, which decodes it.
    """
    return decode(as_place(path), _from_file)


def write_photo(photo: Photo, path: str | os.PathLike[str], *, quality: int | None = None) -> None:
    """Write a photo; the format follows from the suffix, the file appears whole or not at all.

    In its own format it keeps its mode, depth, colour profile, EXIF and XMP data, resolution and,
    for JPEG, quantisation tables and subsampling. Another format gets the nearest mode it has.

    Args:
        photo: What to write.
        path: Where to; missing folders are made.
        quality: 1 to 100 for JPEG, AVIF, HEIC and WebP; by default as the photo was (JPEG), 95
            (AVIF, HEIC), or lossless (WebP).

    Raises:
        ValueError: The suffix belongs to no known format, or the format cannot hold the photo.
        OSError: The place cannot be written to.
    """
    target = as_place(path)
    check_target(photo, target)
    format_name = format_of(target)
    if format_name == "TIFF" and photo.mode in ("I;16", "I") and _is_keyed(photo):
        photo = replace(photo, deep=_deep.with_alpha(photo.image))
    if photo.deep is not None and format_name in _DEEP_FORMATS:
        _deep.write(photo.deep, photo.image.info, target, format_name)
        return
    if photo.mode == "RGBa" and format_name == "TIFF":
        _deep.write(np.asarray(photo.image), photo.image.info, target, format_name)
        return
    image = photo.image if _is_native(photo, format_name) else _nearest(photo)
    encoding = photo.encoding if photo.format == format_name else {}
    options = save_options(image, format_name, encoding, quality)
    bare = image.copy()
    # Pillow writes some of `info` unasked; only what is chosen here should reach the file.
    bare.info = {k: v for k, v in image.info.items() if k in ("transparency", "background")}
    options, directories = without_directories(options)

    def finish(path: Path) -> None:
        add_directories(directories, path)
        add_colours(image.info, format_name, path)

    save_image(bare, target, format_name, options, finish)


def check_target(photo: Photo, path: str | os.PathLike[str]) -> None:
    """Raise what :func:`write_photo` would raise for a suffix, before any work is done.

    Raises:
        ValueError: The suffix belongs to no known format, or the format cannot hold the photo.
    """
    target = as_place(path)
    format_name = format_of(target)
    check_size(target, photo.size)
    if photo.deep is not None and format_name in _DEEP_FORMATS:
        return
    if _is_native(photo, format_name):
        return
    mode = _standard_mode(photo)
    if mode not in _NATIVE[format_name] or not supports_mode(target, mode):
        what = "transparent" if _is_keyed(photo) else photo.mode
        raise ValueError(
            f"cannot write {target}: {target.suffix} holds no {what} pixels; "
            "use .png, .webp or .tif"
        )


def _is_native(photo: Photo, format_name: str) -> bool:
    """Whether a format holds a photo as it is."""
    if photo.deep is not None or photo.mode not in _NATIVE[format_name]:
        return False
    return not _is_keyed(photo) or format_name in _KEYED_FORMATS


def _is_keyed(photo: Photo) -> bool:
    """Whether colours or entries of the palette stand for transparency."""
    keyed = photo.mode in ("1", "L", "P", "RGB", "I;16", "I")
    return keyed and "transparency" in photo.image.info


def _standard_mode(photo: Photo) -> str:
    if photo.deep is not None:
        return photo.mode.removesuffix(";16")
    gray = photo.mode in ("1", "L", "LA", "I;16", "I")
    alpha = photo.image.has_transparency_data
    return ("LA" if alpha else "L") if gray else ("RGBA" if alpha else "RGB")


def _nearest(photo: Photo) -> Image.Image:
    """The photo in the one of L, LA, RGB, RGBA that is nearest to its own mode."""
    if photo.image.mode != "CMYK":
        return standardize(photo.image)
    converted = _colours.to_rgb(photo.image)
    converted.info = {k: v for k, v in photo.image.info.items() if k != "icc_profile"}
    return converted


# --- decoding ------------------------------------------------------------------------------------


def _from_file(image: Image.Image, file: IO[bytes]) -> Photo:
    return _from_opened(image, _deep.head(file), file)


def _from_opened(image: Image.Image, head: bytes, file: IO[bytes] | None = None) -> Photo:
    """Make a photo of an opened and loaded image; ``head`` is the start of its file."""
    image.load()  # Pillow turns a TIFF upright then, and tells no more of its orientation
    _deep.check_kind(image)
    notes = [*_frame_notes(image), *_deep.notes(image, head), *colour_notes(image, head)]
    format_name = "JPEG" if image.format == "MPO" else image.format or "PNG"
    encoding = _encoding(image, head)
    info = kept_info(image)
    if file is not None:
        info |= read_colours(image.format, file)
    orientation = orientation_of(image)
    deep = None
    if file is not None and _deep.is_deep(image, head):
        deep = _deep.turn(_deep.read(image, file), orientation)
        upright = _deep.to_8_bits(deep, info)
    else:
        stored = None if file is None else _deep.multiplied(image, file)
        upright = _turned(image if stored is None else stored, orientation)
    upright = _settled(upright)
    own = {key: upright.info[key] for key in ("transparency", "background") if key in upright.info}
    if image.format == "PNG" and upright.mode == "L" and "transparency" in own:
        # Of 2 or 4 bits, Pillow makes 8, but for the value that is transparent.
        own["transparency"] *= {2: 85, 4: 17}.get((head or bytes(25))[24], 1)
    # Turned upright, width and height are exchanged.
    upright.info = sized_info({**info, **own}, upright.size)
    return Photo(upright, deep, format_name, encoding, tuple(notes))


_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def _turned(image: Image.Image, orientation: int) -> Image.Image:
    turned = image.transpose(_TURNS[orientation]) if orientation in _TURNS else image.copy()
    turned.info = dict(image.info)
    return turned


def _settled(image: Image.Image) -> Image.Image:
    """Bring rare modes to the few that are filled as they are; refuse what has no range."""
    if image.mode == "P" and image.palette is not None and image.palette.mode == "RGBA":
        return image.convert("RGBA")  # no file holds such a palette
    if image.mode in ("1", "L", "LA", "P", "RGB", "RGBA", "RGBa", "CMYK", "LAB"):
        return image
    if image.mode.startswith("I"):
        values = np.asarray(image)
        if values.min(initial=0) < 0 or values.max(initial=0) > 65535:
            raise ValueError("the image has 32-bit pixels; save it with 8 or 16 bits per channel")
        kept = image if image.mode == "I" else Image.fromarray(values.astype(np.uint16))
        kept.info = dict(image.info)
        return kept
    return standardize(image)


def _frame_notes(image: Image.Image) -> list[str]:
    try:
        frames = int(getattr(image, "n_frames", 1))
    except Exception:  # damaged further frames raise nearly anything
        frames = 1
    if image.format == "GIF" and frames > 1:
        return [f"the GIF holds {frames} frames; only the first is filled and written"]
    if frames > 1:
        return [f"the file holds {frames} pictures; only the first is filled and written"]
    return []


def _encoding(image: Image.Image, head: bytes) -> dict[str, Any]:
    """How a file was encoded, as Pillow's save options."""
    if image.format in ("JPEG", "MPO"):
        from PIL.JpegImagePlugin import get_sampling

        options: dict[str, Any] = {"progressive": bool(image.info.get("progressive"))}
        tables = getattr(image, "quantization", None)
        if tables and all(0 < value < 256 for table in tables.values() for value in table):
            options["qtables"] = {key: list(table) for key, table in tables.items()}
        sampling = get_sampling(image) if getattr(image, "layers", 0) == 3 else -1
        return options | {"subsampling": max(sampling, 0)}
    if image.format == "TIFF":
        return {"compression": image.info.get("compression", "raw")}
    return {}
