"""Files read whole and checked, written whole or not at all."""

from __future__ import annotations

import os
import secrets
import shutil
import struct
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, TypeVar

from PIL import Image, TiffImagePlugin, UnidentifiedImageError

from regionnorm.files.formats import register_plugins
from regionnorm.files.remote import Place, RemotePath, as_place, upload

__all__ = [
    "atomic_path",
    "check_pixels",
    "decode",
    "save_image",
]

# A closed list: Pillow would otherwise also try formats that run other programs (EPS).
_FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "DIB", "PPM", "JPEG2000", "AVIF", "HEIF")
_HEIF_SUFFIXES = frozenset({".heic", ".heif", ".hif"})  # read with the plug-in pillow-heif

_T = TypeVar("_T")


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Write a file so that it is there whole or not at all.

    Yields a temporary path in the same folder, with the same suffix, to an empty file that exists.
    Leaving the block normally moves it to ``path``; an exception removes it. Missing parent
    folders are made. A link stays one, and what it leads to is written; a file that is replaced
    keeps its permissions. For a URL the file is written on this machine and sent as a whole.

    Example:
        >>> with atomic_path("out/table.txt") as temporary:
        ...     temporary.write_text("done")

    Raises:
        OSError: The place cannot be written to.
    """
    target = as_place(path)
    if isinstance(target, RemotePath):
        with _sent(target) as temporary:
            yield temporary
        return
    if target.is_dir():
        raise IsADirectoryError(f"cannot write {target}: it is a folder; name a file inside it")
    try:
        place = target.resolve() if target.is_symlink() else target
    except (OSError, RuntimeError) as error:
        raise OSError(
            f"cannot write {target}: its links lead in a circle; choose another place"
        ) from error
    # A short random name of its own: a name near the length limit must not overflow.
    temporary = place.with_name(f".{secrets.token_hex(8)}{target.suffix}")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        temporary.open("xb").close()
    except OSError as error:
        raise _cannot_write(target, error) from error
    try:
        yield temporary
        with suppress(OSError):  # there is none yet, or the file system knows no permissions
            shutil.copymode(place, temporary)
        try:
            os.replace(temporary, place)
        except OSError as error:
            raise _cannot_write(target, error) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextmanager
def _sent(target: RemotePath) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="regionnorm-") as folder:
        temporary = Path(folder) / f"file{target.suffix}"
        temporary.touch()
        yield temporary
        try:
            upload(temporary, target)
        except OSError as error:
            raise _cannot_write(target, error) from error


def save_image(
    image: Image.Image,
    target: Place,
    format_name: str,
    options: Mapping[str, Any],
    finish: Callable[[Path], None] = lambda path: None,
) -> None:
    """Encode an image with Pillow's own options; the file appears whole or not at all.

    Args:
        image: What to write.
        target: Where to.
        format_name: Pillow's name of the format.
        options: Of ``Image.save``.
        finish: Called with the written file before it appears.

    Raises:
        ValueError: Pillow refuses the mode or an option.
        OSError: The place cannot be written to.
    """
    with atomic_path(target) as temporary:
        try:
            image.save(temporary, format=format_name, **options)
            finish(temporary)
        except (OSError, ValueError, KeyError, RuntimeError, TypeError, struct.error) as error:
            raise _cannot_write(target, error) from error


def decode(path: Place, convert: Callable[[Image.Image, IO[bytes]], _T]) -> _T:
    """Open and load an image file, and return what ``convert`` makes of image and open file.

    Raises:
        FileNotFoundError: There is no such file.
        OSError: The file cannot be opened.
        ValueError: The file is no image, is damaged or cut short, is too large, or ``convert``
            cannot use it.
    """
    if isinstance(path, Path) and path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; give an image file")
    try:
        file = path.open("rb")
    except FileNotFoundError as error:
        if path.is_symlink():
            raise FileNotFoundError(
                f"{path} is a link to {os.readlink(path)}, which is not there"
            ) from error
        raise FileNotFoundError(f"there is no file {path}; check the path") from error
    except OSError as error:
        raise type(error)(f"cannot read {path}: {_reason(error)}") from error
    with file:
        image = _load(path, file)
        try:
            return convert(image, file)
        except (ValueError, ImportError) as error:
            raise type(error)(f"cannot use {path}: {_reason(error)}") from error


def check_pixels(path: Path, megapixels: float) -> None:
    """Refuse a photo that is too large, by its header, before anything is decoded.

    Raises:
        ValueError: It has more than ``megapixels`` million pixels. Files that are no images are
            left to the reader.
    """
    try:
        with Image.open(path) as image:
            width, height = image.size
    except Image.DecompressionBombError as error:
        raise ValueError(
            f"{path.name} has too many pixels to be decoded; make it smaller"
        ) from error
    except Exception:  # whatever is wrong with it, the reader says it better
        return
    if width * height > 1e6 * megapixels:
        raise ValueError(
            f"{path.name} is {width}x{height}, {width * height / 1e6:.0f} megapixels; "
            f"up to {megapixels:g} are taken"
        )


def _load(path: Place, file: IO[bytes]) -> Image.Image:
    try:
        register_plugins()
        image = Image.open(file, formats=[name for name in _FORMATS if name in Image.OPEN])
        image.load()
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ValueError(f"{path} has too many pixels to be decoded; make it smaller") from error
    except UnidentifiedImageError as error:
        if tiff := _tiff_kind(file):
            raise ValueError(f"{path} is {tiff}") from error
        if file.seekable() and not file.seek(0, os.SEEK_END):
            raise ValueError(f"{path} is empty; use an intact copy") from error
        advice = "use PNG, JPEG, WebP, TIFF or BMP"
        if path.suffix.lower() in _HEIF_SUFFIXES and "HEIF" not in Image.OPEN:
            advice = "for HEIC run: pip install pillow-heif"
        raise ValueError(f"{path} is no image this program can read; {advice}") from error
    except Exception as error:  # the decoders raise nearly anything on damaged files
        if (tiff := _tiff_kind(file)) and "YCbCr" in tiff:
            raise ValueError(f"{path} is {tiff}") from error
        raise ValueError(
            f"{path} is damaged or cut short ({_reason(error)}); use an intact copy"
        ) from error
    return image


def _tiff_kind(file: IO[bytes]) -> str:
    """What a TIFF file that was not decoded holds, and what to do; empty for other files."""
    with suppress(Exception):  # it may be damaged besides
        file.seek(0)
        tags = TiffImagePlugin.ImageFileDirectory_v2(file.read(8))
        file.seek(tags.next)
        tags.load(file)
        bits, kind = tags.get(258, (1,)), max(tags.get(339, (1,)))
        advice = "save it as plain RGB with 8 or 16 bits per channel"
        if tags.get(262) == 6 and tags.get(259, 1) == 1:
            return f"a TIFF of YCbCr pixels without compression, which is not read; {advice}"
        number = {2: "signed integer", 3: "floating-point"}.get(kind, "integer")
        return (
            f"a TIFF of {len(bits)} channels of {max(bits)}-bit {number} values, "
            f"which is not read; {advice}"
        )
    return ""


def _cannot_write(path: Place, error: Exception) -> OSError | ValueError:
    kind = OSError if isinstance(error, OSError) else ValueError
    return kind(f"cannot write {path}: {_reason(error)}; choose another place")


def _reason(error: Exception) -> str:
    # str(OSError) repeats the path; strerror is only the reason. Always one line.
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(str(text).split())
