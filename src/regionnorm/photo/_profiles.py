"""What files say of their colours where Pillow neither reads nor writes it.

JPEG 2000 has colour profiles in its header, GIF in an extension; PNG names wide and HDR colours in
chunks of their own (cICP). Without them the same bytes stand for other colours.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any

from PIL import Image

__all__ = ["add_colours", "notes", "read_colours"]

_PNG_START = 33  # bytes of its signature and its first chunk, the header
_PNG_CHUNKS = frozenset({b"cICP", b"mDCV", b"mDCv", b"cLLI", b"cLLi"})
_MOST_IN_CHUNK = 64  # bytes; the longest of these has 24
_GIF_NAME = b"ICCRGBG1012"
_ICC_METHODS = (2, 3)  # of JPEG 2000: a profile, restricted or any
# Numbers of ITU-T H.273: what is sRGB, near it, or not said.
_USUAL_PRIMARIES, _USUAL_TRANSFERS = (1, 2), (1, 2, 6, 13)


def read_colours(format_name: str | None, file: IO[bytes]) -> dict[str, Any]:
    """Return ``icc_profile`` or, from PNG, ``hdr`` (chunks), where the file has them."""
    reader = _READERS.get(format_name or "")
    with suppress(Exception):  # whatever is damaged is left out
        if reader is not None:
            return {key: value for key, value in reader(file).items() if value}
    return {}


def add_colours(info: Mapping[Any, Any], format_name: str, path: Path) -> None:
    """Add to a written file what :func:`read_colours` returns."""
    key, add = _WRITERS.get(format_name, ("", None))
    if add is not None and info.get(key):
        with path.open("r+b") as file:
            add(info[key], file)


def notes(image: Image.Image, head: bytes) -> list[str]:
    """Return what to say about a photo whose colours the written file cannot describe."""
    if image.format == "BMP" and head[14:15] == b"\x7c" and head[70:74] in (b"DEBM", b"KNIL"):
        return ["the BMP's colour profile is not read or written; PNG and TIFF keep theirs"]
    at = head.find(b"colrnclx")
    if image.format not in ("AVIF", "HEIF") or at < 0 or image.info.get("icc_profile"):
        return []
    primaries, transfer = struct.unpack(">HH", head[at + 8 : at + 12].ljust(4, b"\0"))
    if primaries in _USUAL_PRIMARIES and transfer in _USUAL_TRANSFERS:
        return []
    return [
        f"the photo's colours are not sRGB (primaries {primaries}, transfer {transfer} of H.273), "
        "which is not written; convert it to sRGB first"
    ]


def _splice(file: IO[bytes], start: int, stop: int, piece: bytes) -> None:
    """Write a piece into a file in place of what is from ``start`` to ``stop``."""
    file.seek(stop)
    rest = file.read()
    file.seek(start)
    file.write(piece + rest)
    file.truncate()


# --- PNG -----------------------------------------------------------------------------------------


def _read_png(file: IO[bytes]) -> dict[str, Any]:
    found = []
    file.seek(8)
    while len(start := file.read(8)) == 8:
        length, kind = struct.unpack(">I4s", start)
        if kind == b"IDAT":
            break
        if kind in _PNG_CHUNKS and length <= _MOST_IN_CHUNK:
            found.append((kind, file.read(length)))
            length = 0
        file.seek(length + 4, 1)
    return {"hdr": found}


def _add_to_png(chunks: list[tuple[bytes, bytes]], file: IO[bytes]) -> None:
    made = [
        struct.pack(">I", len(content))
        + kind
        + content
        + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in chunks
    ]
    _splice(file, _PNG_START, _PNG_START, b"".join(made))


# --- GIF -----------------------------------------------------------------------------------------


def _skip_gif_start(file: IO[bytes]) -> int:
    """Go behind a GIF's header and its palette."""
    file.seek(0)
    flags = file.read(13)[10]
    return file.seek(3 * (2 << (flags & 7)) if flags & 0x80 else 0, 1)


def _gif_blocks(file: IO[bytes]) -> Iterator[bytes]:
    while (size := file.read(1)) not in (b"", b"\0"):
        yield file.read(size[0])


def _read_gif(file: IO[bytes]) -> dict[str, Any]:
    _skip_gif_start(file)
    while (kind := file.read(2))[:1] == b"!":
        name, *content = [*_gif_blocks(file)] or [b""]
        if kind[1:] == b"\xff" and name == _GIF_NAME:
            return {"icc_profile": b"".join(content)}
    return {}


def _add_to_gif(profile: bytes, file: IO[bytes]) -> None:
    if profile[16:20] != b"RGB ":  # its palette has no other colours
        return
    parts = [profile[start : start + 255] for start in range(0, len(profile), 255)]
    blocks = b"".join(bytes([len(part)]) + part for part in (_GIF_NAME, *parts))
    place = _skip_gif_start(file)
    _splice(file, place, place, b"!\xff" + blocks + b"\0")
    file.seek(3)
    file.write(b"89a")  # 87a knows no extensions


# --- JPEG 2000 -----------------------------------------------------------------------------------


def _boxes(file: IO[bytes], start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """The kind of each box, and where its content starts and stops."""
    while start + 8 <= end:
        file.seek(start)
        length, kind = struct.unpack(">I4s", file.read(8))
        content = start + 8
        if length == 1:
            (length,) = struct.unpack(">Q", file.read(8))
            content += 8
        stop = start + length if length else end
        if stop < content:
            return
        yield kind, content, stop
        start = stop


def _jp2_colours(file: IO[bytes]) -> Iterator[tuple[int, int, int]]:
    """Where the header's content starts, and where that of each box about colours is."""
    for kind, start, stop in _boxes(file, 0, file.seek(0, 2)):
        if kind == b"jp2h":
            for inner, first, last in _boxes(file, start, stop):
                if inner == b"colr":
                    yield start, first, last


def _read_jp2(file: IO[bytes]) -> dict[str, Any]:
    for _, start, stop in _jp2_colours(file):
        file.seek(start)
        content = file.read(stop - start)
        if content[0] in _ICC_METHODS:
            return {"icc_profile": content[3:]}
    return {}


def _add_to_jp2(profile: bytes, file: IO[bytes]) -> None:
    for header, start, stop in _jp2_colours(file):
        box = struct.pack(">I4s3B", 11 + len(profile), b"colr", 2, 0, 0) + profile
        file.seek(header - 8)
        (length,) = struct.unpack(">I", file.read(4))
        file.seek(header - 8)
        file.write(struct.pack(">I", length + len(box) - (stop - start + 8)))
        _splice(file, start - 8, stop, box)
        return


_READERS: Mapping[str, Callable[[IO[bytes]], dict[str, Any]]] = MappingProxyType(
    {"PNG": _read_png, "GIF": _read_gif, "JPEG2000": _read_jp2}
)
_WRITERS: Mapping[str, tuple[str, Callable[[Any, IO[bytes]], None]]] = MappingProxyType(
    {
        "PNG": ("hdr", _add_to_png),
        "GIF": ("icc_profile", _add_to_gif),
        "JPEG2000": ("icc_profile", _add_to_jp2),
    }
)
