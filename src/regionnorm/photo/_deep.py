"""Photos that Pillow would change: 16 bits in several channels, colours times alpha (TIFF).

OpenCV decodes them, since no other library in reach knows every compression of TIFF; writing
needs nothing but zlib, and keeps the metadata that OpenCV would lose.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import IO, Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from regionnorm._extras import require
from regionnorm.files.remote import Place
from regionnorm.files.whole import atomic_path
from regionnorm.imaging import check_range
from regionnorm.photo._metadata import colour_chunks, text_chunks, tiff_tags
from regionnorm.photo._profiles import add_colours

__all__ = [
    "check_kind",
    "head",
    "is_deep",
    "multiplied",
    "notes",
    "read",
    "to_8_bits",
    "turn",
    "with_alpha",
    "write",
]

Pixels = npt.NDArray[Any]

_HEAD = 1 << 20  # bytes; a colour profile may come before what says the depth
_ROWS = 128  # encoded at a time, which bounds the memory
_PNG_COLOUR = {2: 4, 3: 2, 4: 6}  # channels to PNG's colour type


def head(file: IO[bytes]) -> bytes:
    """Return the start of a file, from which its depth can be told."""
    file.seek(0)
    return file.read(_HEAD)


def check_kind(image: Image.Image) -> None:
    """Refuse TIFF files whose pixels could not be written back as they are.

    Raises:
        ValueError: They have 32 bits, or 9 to 15, or a sign, or 16 bits and colours times alpha,
            or gray that counts from white.
    """
    check_range(image)
    tags = getattr(image, "tag_v2", {}) if image.format == "TIFF" else {}
    bits, kinds = max(tags.get(258, (1,))), tags.get(339, (1,))
    advice = "save it with 8 or 16 bits per channel"
    if bits > 16:
        floating = " float" if 3 in kinds else ""
        raise ValueError(f"the image has {bits}-bit{floating} pixels; {advice}")
    if 2 in kinds:
        raise ValueError(f"the image has pixels with a sign; {advice}, without one")
    if bits > 8 and 1 in tags.get(338, ()):
        raise ValueError(
            "the image has 16-bit colours multiplied by alpha; save it with straight alpha"
        )


def multiplied(image: Image.Image, file: IO[bytes]) -> Image.Image | None:
    """Return the stored pixels of a TIFF whose colours are multiplied by alpha, mode RGBa.

    Pillow divides by alpha when it loads them, which loses levels. None for any other file.
    """
    tags = getattr(image, "tag_v2", {}) if image.format == "TIFF" else {}
    extra = tags.get(338, ())
    if image.mode != "RGBA" or extra[:1] != (1,):
        return None
    file.seek(0)
    stored = Image.open(file, formats=["TIFF"])
    if not isinstance(stored, ImageFile.ImageFile) or stored.mode != "RGBA":
        return None
    # The same bytes, not told what they mean.
    tiles: Any = stored.tile
    meaning = "RGBA" + "X" * (len(extra) - 1)
    tiles[:] = [(*tile[:3], (meaning, *tile[3][1:])) for tile in tiles]
    stored.load()
    return Image.frombytes("RGBa", stored.size, stored.tobytes())


def is_deep(image: Image.Image, head: bytes) -> bool:
    """Return whether a PNG or TIFF file has 16 bits in several channels.

    Raises:
        ValueError: It has more than 8 bits in a way that could not be written back.
    """
    if image.mode.startswith(("I", "F")):
        return False
    if image.format == "PNG":
        return head[24:26] in (b"\x10\x02", b"\x10\x04", b"\x10\x06")
    if image.format == "TIFF":
        bits = getattr(image, "tag_v2", {}).get(258, (8,))
        if max(bits) <= 8:
            return False
        if image.mode in ("RGB", "RGBA") and set(bits) == {16}:
            return True
        raise ValueError(
            f"the image has {max(bits)} bits per channel in mode {image.mode}; "
            "save it as 8 bits, or as 16-bit gray or RGB"
        )
    if _other_depth(image, head) > 8 and image.format in ("PPM", "JPEG2000"):
        raise ValueError(
            f"the image has {_other_depth(image, head)} bits per channel, which {image.format} "
            "files can only be read with 8 of; save it as PNG or TIFF"
        )
    return False


def notes(image: Image.Image, head: bytes) -> list[str]:
    """Return what to say about a photo whose further bits are lost in decoding."""
    depth = _other_depth(image, head)
    tags = getattr(image, "tag_v2", {}) if image.format == "TIFF" else {}
    if (further := len(tags.get(258, ())) - len(image.getbands())) > 0:
        return [f"the file holds {further} further channels, which are not written"]
    if image.format in ("AVIF", "HEIF") and depth > 8:
        return [f"the photo has {depth} bits per channel; it is filled and written with 8"]
    return []


def _other_depth(image: Image.Image, head: bytes) -> int:
    """Bits per channel of formats other than PNG and TIFF; 8 where it cannot be told."""
    if image.format == "PPM":
        words = head.split()
        return 16 if len(words) > 3 and words[0] in (b"P3", b"P6") and _above(words[3]) else 8
    if image.format == "JPEG2000":
        # The codestream's SIZ segment: 36 bytes after its marker comes the channels' depth.
        at = head.find(b"\xff\x4f\xff\x51")
        return (head[at + 42] & 0x7F) + 1 if at >= 0 and at + 42 < len(head) else 8
    if image.format in ("AVIF", "HEIF"):
        at = head.find(b"pixi")
        return head[at + 9] if at >= 0 and at + 9 < len(head) else 8
    return 8


def _above(word: bytes) -> bool:
    return word.isdigit() and int(word) > 255


def read(image: Image.Image, file: IO[bytes]) -> Pixels:
    """Decode a file that :func:`is_deep`: uint16 ``[H, W, C]``, as stored, 2 to 4 channels.

    Raises:
        ImportError: OpenCV is missing.
        ValueError: OpenCV cannot decode it, or decodes it wrongly.
    """
    if getattr(image, "tag_v2", {}).get(284) == 2:  # OpenCV leaves most of such pixels unset
        raise ValueError(
            "the image has 16-bit channels stored one after the other (planar); "
            "save it with interleaved channels"
        )
    cv2 = require("cv2", extra="eval")
    file.seek(0)
    try:
        decoded = cv2.imdecode(np.frombuffer(file.read(), np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise ValueError("its 16-bit pixels cannot be decoded; save it as PNG") from error
    shape = None if decoded is None else decoded.shape
    if shape is None or shape[:2] != image.size[::-1] or decoded.dtype != np.uint16:
        raise ValueError("its 16-bit pixels cannot be decoded; save it as PNG")
    # Pillow calls gray with alpha RGBA where it has 16 bits.
    if image.format == "PNG" and head(file)[25] == _PNG_COLOUR[2]:
        order, same = [0, -1], [0, -1]
    else:
        # Where one colour stands for transparency, OpenCV makes alpha of it.
        clear = image.mode == "RGBA" or "transparency" in image.info
        order = [2, 1, 0, 3] if clear and shape[2] == 4 else [2, 1, 0]
        same = list(range(len(image.getbands())))
    pixels = np.ascontiguousarray(decoded[:, :, order])
    if not _is_same(pixels, np.asarray(image)[:, :, same]):
        raise ValueError("its 16-bit pixels are decoded in two ways that differ; save it as PNG")
    return pixels


def _is_same(pixels: Pixels, upper: Pixels) -> bool:
    """Whether the upper bytes of 16 bits are those that Pillow, another decoder, has read."""
    channels = upper.shape[2]
    return all(
        np.array_equal(
            pixels[start : start + _ROWS, :, :channels] >> 8, upper[start : start + _ROWS]
        )
        for start in range(0, len(pixels), _ROWS)
    )


def with_alpha(gray: Image.Image) -> Pixels:
    """Return gray of 16 bits, of which one value stands for transparency, as gray and alpha."""
    values = np.asarray(gray).astype(np.uint16)
    alpha = np.where(values == gray.info["transparency"], 0, 65535).astype(np.uint16)
    return np.stack([values, alpha], 2)


def turn(pixels: Pixels, orientation: int) -> Pixels:
    """Turn an array upright, from an EXIF orientation of 1 to 8."""
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def to_8_bits(pixels: Pixels, info: Mapping[Any, Any]) -> Image.Image:
    """Return the nearest 8-bit image (LA, RGB, RGBA) of uint16 ``[H, W, C]``."""
    levels = np.empty(pixels.shape, np.uint8)
    for start in range(0, len(pixels), _ROWS):
        part = pixels[start : start + _ROWS].astype(np.uint32)
        levels[start : start + _ROWS] = (part + 128) // 257
    image = Image.fromarray(levels)
    image.info = {**info}
    return image


def write(pixels: Pixels, info: Mapping[Any, Any], path: Place, format_name: str) -> None:
    """Write uint16 ``[H, W, C]`` as PNG or TIFF, with the metadata in ``info``.

    TIFF also takes uint8 ``[H, W, 4]``, whose colours are multiplied by alpha.

    Raises:
        ValueError: The metadata cannot be encoded.
        OSError: The place cannot be written to.
    """
    encode = _write_png if format_name == "PNG" else _write_tiff
    with atomic_path(path) as temporary:
        try:
            with temporary.open("wb") as file:
                encode(pixels, info, file)
            add_colours(info, format_name, temporary)
        except OSError as error:
            reason = error.strerror or error
            raise OSError(f"cannot write {path}: {reason}; choose another place") from error
        except (ValueError, KeyError, RuntimeError, TypeError, struct.error) as error:
            raise ValueError(f"cannot write {path}: its metadata is damaged ({error})") from error


# --- PNG -----------------------------------------------------------------------------------------


def _write_png(pixels: Pixels, info: Mapping[Any, Any], file: IO[bytes]) -> None:
    height, width, channels = pixels.shape
    file.write(b"\x89PNG\r\n\x1a\n")
    header = struct.pack(">IIBBBBB", width, height, 16, _PNG_COLOUR[channels], 0, 0, 0)
    _chunk(file, b"IHDR", header)
    if info.get("icc_profile"):
        _chunk(file, b"iCCP", b"ICC Profile\0\0" + zlib.compress(info["icc_profile"]))
    else:
        for kind, content in colour_chunks(info):
            _chunk(file, kind, content)
    if info.get("dpi"):
        across, down = (round(float(value) / 0.0254) for value in info["dpi"])
        with suppress(struct.error):  # finer than PNG can say
            _chunk(file, b"pHYs", struct.pack(">IIB", across, down, 1))
    if info.get("exif"):
        _chunk(file, b"eXIf", info["exif"].removeprefix(b"Exif\0\0"))
    for kind, content in text_chunks(info):
        _chunk(file, kind, content)
    for data in _compressed(pixels):
        _chunk(file, b"IDAT", data)
    _chunk(file, b"IEND", b"")


def _chunk(file: IO[bytes], kind: bytes, content: bytes) -> None:
    check = zlib.crc32(kind + content)
    file.write(struct.pack(">I", len(content)) + kind + content + struct.pack(">I", check))


def _compressed(pixels: Pixels) -> Iterator[bytes]:
    """The pixels, each byte less its prediction from three neighbours (PNG's filter Paeth)."""
    compressor = zlib.compressobj(6)
    height, width, channels = pixels.shape
    above = np.zeros((1, width * channels * 2), np.int16)
    step = 2 * channels
    for start in range(0, height, _ROWS):
        part = pixels[start : start + _ROWS].astype(">u2").view(np.uint8)
        rows = part.reshape(len(part), -1).astype(np.int16)
        left = np.pad(rows, ((0, 0), (step, 0)))[:, : rows.shape[1]]
        up = np.concatenate([above, rows[:-1]])
        corner = np.pad(up, ((0, 0), (step, 0)))[:, : rows.shape[1]]
        guess = left + up - corner
        to_left, to_up, to_corner = abs(guess - left), abs(guess - up), abs(guess - corner)
        best = np.where(to_up <= to_corner, up, corner)
        best = np.where((to_left <= to_up) & (to_left <= to_corner), left, best)
        lines = np.empty((len(rows), 1 + rows.shape[1]), np.uint8)
        lines[:, 0] = 4
        lines[:, 1:] = (rows - best).astype(np.uint8)
        above = rows[-1:]
        if data := compressor.compress(lines.tobytes()):
            yield data
    yield compressor.flush()


# --- TIFF ----------------------------------------------------------------------------------------


def _write_tiff(pixels: Pixels, info: Mapping[Any, Any], file: IO[bytes]) -> None:
    height, width, channels = pixels.shape
    eight = pixels.dtype == np.uint8
    kind, bits = ("u1", 8) if eight else ("<u2", 16)
    strips = [
        zlib.compress(np.ascontiguousarray(pixels[start : start + _ROWS]).astype(kind).tobytes())
        for start in range(0, height, _ROWS)
    ]
    lengths = [len(strip) for strip in strips]
    tags = ImageFileDirectory_v2(b"II*\0\0\0\0\0")
    for tag, value in tiff_tags(info).items():
        tags[tag] = value
    gray = channels == 2
    tags[256], tags[257], tags[258] = width, height, (bits,) * channels
    tags[259], tags[262], tags[277] = 8, 1 if gray else 2, channels  # deflate; black is 0, or RGB
    tags[278], tags[279] = _ROWS, tuple(lengths)
    # Pillow adds the place where the directory ends.
    tags[273] = tuple(sum(lengths[:number]) for number in range(len(lengths)))
    if channels in (2, 4):
        tags[338] = 1 if eight else 2  # the last channel is alpha, multiplied in or not
    if info.get("dpi"):
        tags[282], tags[283] = (float(value) for value in info["dpi"])
        tags[296] = 2
    tags.save(file)
    for strip in strips:
        file.write(strip)
