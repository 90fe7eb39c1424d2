"""Files: list, open and decode, encode and write whole or not at all."""

from __future__ import annotations

import importlib
import os
import secrets
import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import IO, Any, TypeVar

from PIL import Image, UnidentifiedImageError

__all__ = [
    "IMAGE_SUFFIXES",
    "atomic_path",
    "decode",
    "format_of",
    "list_images",
    "register_plugins",
    "save_image",
]

IMAGE_SUFFIXES: frozenset[str] = frozenset(
    {".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".tif", ".tiff", ".bmp", ".gif"}
    | {".jp2", ".avif", ".ppm", ".pgm", ".pbm", ".pnm", ".heic", ".heif", ".hif"}
)
"""File name endings, in lower case, that are taken for photos in a folder."""

# A closed list: Pillow would otherwise also try formats that run other programs (EPS).
_FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "PPM", "JPEG2000", "AVIF", "HEIF")
_HEIF_SUFFIXES = frozenset({".heic", ".heif", ".hif"})  # read with the plug-in pillow-heif

_T = TypeVar("_T")


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Write a file so that it is there whole or not at all.

    Yields a temporary path in the same folder, with the same suffix, to an empty file that exists.
    Leaving the block normally moves it to ``path``; an exception removes it. Missing parent
    folders are made.

    Example:
        >>> with atomic_path("out/table.txt") as temporary:
        ...     temporary.write_text("done")

    Raises:
        OSError: The place cannot be written to.
    """
    target = Path(path)
    if target.is_dir():
        raise IsADirectoryError(f"cannot write {target}: it is a folder; name a file inside it")
    # A short random name of its own: a name near the length limit must not overflow.
    temporary = target.with_name(f".{secrets.token_hex(8)}{target.suffix}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary.open("xb").close()
    except OSError as error:
        raise _cannot_write(target, error) from error
    try:
        yield temporary
        try:
            os.replace(temporary, target)
        except OSError as error:
            raise _cannot_write(target, error) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def list_images(folder: str | os.PathLike[str], recursive: bool = True) -> list[Path]:
    """Return the photos of a folder, sorted by path.

    A file counts when its suffix is in :data:`IMAGE_SUFFIXES`, in upper or lower case. Hidden
    files are left out: they are temporary files and what file managers leave behind.

    Args:
        folder: Where to look.
        recursive: Look in the folders inside it too.

    Raises:
        FileNotFoundError: There is no such folder.
        NotADirectoryError: ``folder`` is a file.
    """
    root = Path(folder)
    if not root.exists():
        raise FileNotFoundError(f"there is no folder {root}; check the path")
    if not root.is_dir():
        raise NotADirectoryError(f"{root} is a file; give the folder that holds the photos")
    found = root.rglob("*") if recursive else root.iterdir()
    return sorted(
        path
        for path in found
        if path.suffix.lower() in IMAGE_SUFFIXES
        and not path.name.startswith(".")
        and path.is_file()
    )


def save_image(
    image: Image.Image, target: Path, format_name: str, options: Mapping[str, Any]
) -> None:
    """Encode an image with Pillow's own options; the file appears whole or not at all.

    Raises:
        ValueError: Pillow refuses the mode or an option.
        OSError: The place cannot be written to.
    """
    with atomic_path(target) as temporary:
        try:
            image.save(temporary, format=format_name, **options)
        except (OSError, ValueError, KeyError, TypeError, struct.error) as error:
            raise _cannot_write(target, error) from error


def decode(path: Path, convert: Callable[[Image.Image, IO[bytes]], _T]) -> _T:
    """Open and load an image file, and return what ``convert`` makes of image and open file.

    Raises:
        FileNotFoundError: There is no such file.
        OSError: The file cannot be opened.
        ValueError: The file is no image, is damaged or cut short, is too large, or ``convert``
            cannot use it.
    """
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; give an image file")
    try:
        file = path.open("rb")
    except FileNotFoundError as error:
        raise FileNotFoundError(f"there is no file {path}; check the path") from error
    except OSError as error:
        raise type(error)(f"cannot read {path}: {_reason(error)}") from error
    with file:
        image = _load(path, file)
        try:
            return convert(image, file)
        except (ValueError, ImportError) as error:
            raise type(error)(f"cannot use {path}: {_reason(error)}") from error


def _load(path: Path, file: IO[bytes]) -> Image.Image:
    try:
        register_plugins()
        image = Image.open(file, formats=[name for name in _FORMATS if name in Image.OPEN])
        image.load()
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ValueError(f"{path} has too many pixels to be decoded; make it smaller") from error
    except UnidentifiedImageError as error:
        advice = "use PNG, JPEG, WebP, TIFF or BMP"
        if path.suffix.lower() in _HEIF_SUFFIXES and "HEIF" not in Image.OPEN:
            advice = "for HEIC run: pip install pillow-heif"
        raise ValueError(f"{path} is no image this program can read; {advice}") from error
    except Exception as error:  # the decoders raise nearly anything on damaged files
        raise ValueError(
            f"{path} is damaged or cut short ({_reason(error)}); use an intact copy"
        ) from error
    return image


@cache
def register_plugins() -> None:
    """Let Pillow know all its formats, HEIC among them where its plug-in is installed."""
    Image.init()
    with suppress(ImportError):
        importlib.import_module("pillow_heif").register_heif_opener()


def format_of(path: Path) -> str:
    """Return Pillow's name of the format that a suffix stands for.

    Raises:
        ValueError: The suffix belongs to no known format.
    """
    register_plugins()
    suffix = path.suffix.lower()
    format_name = Image.registered_extensions().get(suffix)
    if suffix not in IMAGE_SUFFIXES or format_name is None:
        raise ValueError(
            f"cannot write {path}: {suffix or 'a name without suffix'} is no image format; "
            "use .png, .jpg, .webp, .tif or .bmp"
        )
    return format_name


def _cannot_write(path: Path, error: Exception) -> OSError | ValueError:
    kind = OSError if isinstance(error, OSError) else ValueError
    return kind(f"cannot write {path}: {_reason(error)}; choose another place")


def _reason(error: Exception) -> str:
    # str(OSError) repeats the path; strerror is only the reason. Always one line.
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(str(text).split())
