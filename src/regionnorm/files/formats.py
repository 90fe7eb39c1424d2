"""Which files are images, by their names, and which of a folder."""

from __future__ import annotations

import importlib
import os
from contextlib import suppress
from functools import cache

from PIL import Image

from regionnorm.files.remote import Place, RemotePath, as_place

__all__ = ["IMAGE_SUFFIXES", "format_of", "list_images", "register_plugins"]

IMAGE_SUFFIXES: frozenset[str] = frozenset(
    {".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".webp", ".tif", ".tiff"}
    | {".bmp", ".dib", ".gif", ".jp2", ".j2k", ".jpf", ".jpx", ".avif"}
    | {".ppm", ".pgm", ".pbm", ".pnm", ".heic", ".heif", ".hif"}
)
"""File name endings, in lower case, that are taken for photos in a folder."""


def list_images(folder: str | os.PathLike[str], recursive: bool = True) -> list[Place]:
    """Return the photos of a folder, sorted by path.

    A file counts when its suffix is in :data:`IMAGE_SUFFIXES`, in upper or lower case, and so does
    a link that leads nowhere: who reads it is told. Hidden files are left out: they are temporary
    files and what file managers leave behind.

    Args:
        folder: Where to look.
        recursive: Look in the folders inside it too.

    Raises:
        FileNotFoundError: There is no such folder.
        NotADirectoryError: ``folder`` is a file.
    """
    root = as_place(folder)
    if not root.exists():
        raise FileNotFoundError(f"there is no folder {root}; check the path")
    if not root.is_dir():
        raise NotADirectoryError(f"{root} is a file; give the folder that holds the photos")
    if isinstance(root, RemotePath):
        return [path for path in root.files(recursive) if _is_image(path)]
    found = root.rglob("*") if recursive else root.iterdir()
    return sorted(
        path
        for path in found
        if _is_image(path)
        and not any(part.startswith(".") for part in path.relative_to(root).parts)
        and (path.is_file() or (path.is_symlink() and not path.exists()))
    )


def _is_image(path: Place) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")


@cache
def register_plugins() -> None:
    """Let Pillow know all its formats, HEIC among them where its plug-in is installed."""
    Image.init()
    with suppress(ImportError):
        importlib.import_module("pillow_heif").register_heif_opener()


def format_of(path: Place) -> str:
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
    # The kinds of one format that Pillow tells apart: several pictures, no file header.
    return {"MPO": "JPEG", "DIB": "BMP"}.get(format_name, format_name)
