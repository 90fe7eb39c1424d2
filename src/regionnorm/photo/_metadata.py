"""What a filled photo keeps of its file's metadata, and how each format takes it."""

from __future__ import annotations

import math
import os
import re
import struct
from collections.abc import Mapping, MutableMapping
from contextlib import suppress
from numbers import Real
from pathlib import Path
from typing import Any, BinaryIO

from PIL import ExifTags, Image, PngImagePlugin, TiffImagePlugin

__all__ = ["colour_chunks", "kept_info", "save_options", "sized_info", "text_chunks", "tiff_tags"]

_ORIENTATION = 0x0112
_XMP_TAG, _IPTC_TAG, _PROFILE_TAG = 700, 33723, 34675
_IPTC_RESOURCE = 0x0404  # of Photoshop's; others beside it hold a thumbnail
_MOST_IPTC = 60_000  # bytes, of the 65,533 that a segment of a JPEG holds
_MOST_IN_JPEG = {"exif": 65_533, "xmp": 65_504, "comment": 65_533}  # bytes
_FINEST = {"JPEG": 65_535, "PNG": 100_000_000, "BMP": 50_000_000}  # pixels per inch
_LONG = 4  # TIFF's type of an unsigned number of 32 bits
# Texts that hold what is kept by itself, and would turn the photo once more.
_PROFILE_TEXTS = ("Raw profile type exif", "Raw profile type APP1", "XML:com.adobe.xmp")
# The same size once more for main image, and for who reads no pixels.
_WIDTH, _HEIGHT, _EXIF_WIDTH, _EXIF_HEIGHT = 256, 257, 40962, 40963
_XMP_SIZES = (
    (rb"tiff:ImageWidth|exif:PixelXDimension", 0),
    (rb"tiff:ImageLength|exif:PixelYDimension", 1),
)
# Tags of a TIFF file that describe how its pixels are stored, and its preview pictures.
_STRUCTURE = frozenset(
    {254, 255, 256, 257, 258, 259, 262, 263, 264, 265, 266, 273, 274, 277, 278, 279, 280, 281}
    | {282, 283, 284, 288, 289, 290, 291, 292, 293, 296, 297, 301, 317, 320, 321, 322, 400}
    | {323, 324, 325, 330, 332, 333, 334, 336, 337, 338, 339, 340, 341, 347, 512, 513, 514, 515}
    | {517, 518, 519, 520, 521, 529, 530, 531, 532, 700, 33723, 34377, 34675, 37724}
)
_LOSSLESS_TIFF = frozenset(
    {"raw", "packbits", "tiff_lzw", "tiff_deflate", "tiff_adobe_deflate", "zstd", "lzma"}
)
_ONE_BIT_TIFF = frozenset({"group3", "group4", "tiff_ccitt"})
_LOSSY_QUALITY = 95


def kept_info(image: Image.Image) -> dict[str, Any]:
    """Return the metadata of an opened image that its filled copy should carry.

    ``icc_profile``, ``exif`` (orientation reset, without the thumbnail, which would still show
    what was removed), ``xmp`` (likewise), ``iptc`` (captions, credits, keywords), ``dpi``,
    ``comment`` and, from PNG, ``text`` and the colour chunks. Whatever is damaged is left out.
    """
    info: dict[str, Any] = {}
    for key in ("icc_profile", "comment", "gamma", "chromaticity"):
        if image.info.get(key):
            info[key] = image.info[key]
    for key in ("dpi", "resolution"):
        if _is_resolution(image.info.get(key)):
            info[key] = image.info[key]
    if "srgb" in image.info:  # the usual one is 0
        info["srgb"] = image.info["srgb"]
    if not _has_resolution(image):
        info.pop("dpi", None)
    if getattr(image, "tag_v2", {}).get(296) != 1:
        info.pop("resolution", None)
    exif = _clean_exif(image)
    if exif:
        info["exif"] = exif
    xmp = _clean_xmp(image)
    if xmp:
        info["xmp"] = xmp
    iptc = _iptc(image)
    if iptc:
        info["iptc"] = iptc
    text = getattr(image, "text", None)
    if isinstance(text, dict):
        info["text"] = {k: v for k, v in text.items() if k not in _PROFILE_TEXTS}
    return info


def _iptc(image: Image.Image) -> bytes | None:
    """The records of the International Press Telecommunications Council."""
    if image.format == "TIFF":
        records = getattr(image, "tag_v2", {}).get(_IPTC_TAG)
    else:
        resources = image.info.get("photoshop")
        records = resources.get(_IPTC_RESOURCE) if isinstance(resources, dict) else None
    return records if isinstance(records, bytes) else None


def _has_resolution(image: Image.Image) -> bool:
    """Whether the file says its resolution; Pillow makes one up where TIFF and JPEG do not."""
    if image.format == "TIFF":
        return 282 in getattr(image, "tag_v2", {})
    if image.format in ("JPEG", "MPO") and image.info.get("jfif_unit", 0) == 0:
        with suppress(Exception):  # damaged EXIF data raises nearly anything
            return 282 in image.getexif()
    return True


def _is_resolution(values: object) -> bool:
    """Whether these are two numbers above 0; in damaged files it can be anything."""
    if not isinstance(values, tuple) or len(values) != 2:
        return False
    return all(isinstance(value, Real) and 0 < float(value) < math.inf for value in values)


def _clean_exif(image: Image.Image) -> bytes | None:
    with suppress(Exception):  # damaged EXIF data raises nearly anything
        raw = image.info.get("exif")
        if isinstance(raw, bytes):
            exif = Image.Exif()
            exif.load(raw)
            exif.pop(_ORIENTATION, None)
            # Written anew, it loses the thumbnail.
            return exif.tobytes() if len(exif) else None
        tags = image.getexif()
        kept = Image.Exif()
        for tag, value in tags.items():
            if tag not in _STRUCTURE and tag not in tuple(ExifTags.IFD):
                kept[tag] = value
        for tag, entries in _directories(tags).items():
            kept[tag] = entries
        return kept.tobytes() if len(kept) else None
    return None


def _directories(exif: Image.Exif) -> dict[int, dict[int, Any]]:
    """The directories of tags beside a file's main one, EXIF's and GPS's."""
    found = {int(tag): dict(exif.get_ifd(tag)) for tag in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo)}
    # The directory in EXIF's is named by its place in the old file, where the new one has pixels.
    if found[ExifTags.IFD.Exif].pop(ExifTags.IFD.Interop, None) is not None:
        with suppress(Exception):  # damaged EXIF data raises nearly anything
            inner = dict(exif.get_ifd(ExifTags.IFD.Interop))
            found[ExifTags.IFD.Exif][int(ExifTags.IFD.Interop)] = inner
    return {tag: entries for tag, entries in found.items() if entries}


def _clean_xmp(image: Image.Image) -> bytes | None:
    xmp = image.info.get("xmp") or image.info.get("XML:com.adobe.xmp")
    if isinstance(xmp, str):
        xmp = xmp.encode()
    if not isinstance(xmp, bytes) or b"xmpGImg:image" in xmp:
        return None
    xmp = re.sub(rb'tiff:Orientation="\d"', b'tiff:Orientation="1"', xmp)
    return re.sub(rb"<tiff:Orientation>\d<", b"<tiff:Orientation>1<", xmp)


def sized_info(info: Mapping[Any, Any], size: tuple[int, int]) -> dict[Any, Any]:
    """Return metadata that says this width and height wherever it says any: in EXIF and in XMP."""
    new = dict(info)
    if isinstance(info.get("exif"), bytes):
        with suppress(Exception):  # damaged EXIF data raises nearly anything
            new["exif"] = _sized_exif(info["exif"], size)
    if isinstance(info.get("xmp"), bytes):
        xmp = info["xmp"]
        for names, side in _XMP_SIZES:
            number = str(size[side]).encode()
            xmp = re.sub(rb"((?:" + names + rb")\s*(?:=\s*[\"']|>\s*))\d+", rb"\g<1>" + number, xmp)
        new["xmp"] = xmp
    return new


def _sized_exif(raw: bytes, size: tuple[int, int]) -> bytes:
    exif = Image.Exif()
    exif.load(raw)
    entries = exif.get_ifd(ExifTags.IFD.Exif)
    wanted: list[tuple[MutableMapping[int, Any], int, int]]
    wanted = [(exif, _WIDTH, 0), (exif, _HEIGHT, 1)]
    wanted += [(entries, _EXIF_WIDTH, 0), (entries, _EXIF_HEIGHT, 1)]
    wrong = [
        (tags, tag, side) for tags, tag, side in wanted if tags.get(tag, size[side]) != size[side]
    ]
    for tags, tag, side in wrong:
        tags[tag] = size[side]
    return exif.tobytes() if wrong else raw


def save_options(
    image: Image.Image, format_name: str, encoding: Mapping[str, Any], quality: int | None
) -> dict[str, Any]:
    """Return Pillow's save options that encode a photo like its file, metadata included.

    Args:
        image: What is written, with the result of :func:`kept_info` in ``info``.
        format_name: Pillow's name of the format.
        encoding: Options read from the photo's own file; empty where the format is another.
        quality: 1 to 100, or None to keep.
    """
    info = image.info
    options = _encoder(image, format_name, dict(encoding), quality)
    takes = {
        "JPEG": ("icc_profile", "exif", "xmp", "dpi", "comment"),
        "PNG": ("icc_profile", "exif", "dpi"),
        "TIFF": ("icc_profile", "exif", "dpi"),
        "WEBP": ("icc_profile", "exif", "xmp"),
        "AVIF": ("icc_profile", "exif", "xmp"),
        "HEIF": ("icc_profile", "exif", "xmp"),
        "BMP": ("dpi",),
        "GIF": ("comment",),
    }
    for key in takes.get(format_name, ()):
        value = info.get(key)
        # A segment of a JPEG has no room for more.
        most = _MOST_IN_JPEG.get(key) if format_name == "JPEG" else None
        if value and (most is None or len(value) <= most):
            options[key] = value
    if max(options.get("dpi", (0,))) > _FINEST.get(format_name, math.inf):
        options.pop("dpi")
    if format_name == "PNG":
        options["pnginfo"] = _png_chunks(info)
    if format_name == "JPEG" and len(info.get("iptc", b"")) in range(1, _MOST_IPTC):
        options["extra"] = _iptc_segment(info["iptc"])
    if format_name == "TIFF":
        # All of it as tags: beside any of them Pillow would leave out the EXIF data.
        options.pop("exif", None)
        options["tiffinfo"] = tiff_tags(info)
    return options


def without_directories(
    options: dict[str, Any],
) -> tuple[dict[str, Any], dict[int, Mapping[int, Any]]]:
    """Save options of a TIFF that libtiff takes, and the directories of tags that it does not."""
    tags = options.get("tiffinfo", {})
    found = {tag: value for tag, value in tags.items() if isinstance(value, Mapping)}
    if not found or options.get("compression") == "raw":  # which Pillow writes by itself
        return options, {}
    kept = {tag: value for tag, value in tags.items() if tag not in found}
    return options | {"tiffinfo": kept}, found


def add_directories(directories: Mapping[int, Mapping[int, Any]], path: Path) -> None:
    """Append directories of tags, EXIF's and GPS's, to a TIFF, and a first one that names them."""
    if not directories:
        return
    with path.open("r+b") as file:
        head = file.read(8)
        order = "<" if head[:2] == b"II" else ">"
        file.seek(*struct.unpack(f"{order}L", head[4:]))
        (count,) = struct.unpack(f"{order}H", file.read(2))
        entries = [file.read(12) for _ in range(count)]
        following = file.read(4)
        for tag, values in directories.items():
            directory = TiffImagePlugin.ImageFileDirectory_v2(head, group=tag)
            for key, value in values.items():
                with suppress(Exception):  # what Pillow reads and cannot write
                    directory[key] = value
            place = _even_end(file)
            file.write(directory.tobytes(place))
            entries.append(struct.pack(f"{order}HHLL", tag, _LONG, 1, place))
        entries.sort(key=lambda entry: struct.unpack(f"{order}H", entry[:2]))
        place = _even_end(file)
        file.write(struct.pack(f"{order}H", len(entries)) + b"".join(entries) + following)
        file.seek(4)
        file.write(struct.pack(f"{order}L", place))


def _even_end(file: BinaryIO) -> int:
    """Go to the end of a file, which is made even: TIFF's directories begin at even places."""
    end = file.seek(0, os.SEEK_END)
    return end + file.write(b"\0" * (end % 2))


def _encoder(
    image: Image.Image, format_name: str, encoding: dict[str, Any], quality: int | None
) -> dict[str, Any]:
    if format_name == "JPEG":
        if quality is not None or "qtables" not in encoding:
            encoding.pop("qtables", None)
            encoding["quality"] = quality or _LOSSY_QUALITY
        return {"subsampling": 0} | encoding
    if format_name in ("AVIF", "HEIF"):
        sampling = {"subsampling": "4:4:4"} if format_name == "AVIF" else {"chroma": 444}
        return {"quality": quality or _LOSSY_QUALITY, **sampling}
    if format_name == "WEBP":
        # exact: WebP would otherwise rewrite the colours under transparent pixels.
        lossless = {"lossless": True, "exact": True}
        return lossless if quality is None else {"quality": quality, "exact": True}
    if format_name == "TIFF":
        compression = encoding.get("compression", "tiff_lzw")
        kept = _LOSSLESS_TIFF | (_ONE_BIT_TIFF if image.mode == "1" else frozenset())
        return {"compression": compression if compression in kept else "tiff_lzw"}
    # GIF: Pillow would otherwise sort the palette anew.
    return {"optimize": False} if format_name == "GIF" else {}


def _iptc_segment(records: bytes) -> bytes:
    """The segment of a JPEG that holds IPTC's records, as the one of Photoshop's resources."""
    resource = b"8BIM" + struct.pack(">HHI", _IPTC_RESOURCE, 0, len(records)) + records
    content = b"Photoshop 3.0\0" + resource + b"\0" * (len(records) % 2)
    return b"\xff\xed" + struct.pack(">H", len(content) + 2) + content


def _png_chunks(info: Mapping[Any, Any]) -> PngImagePlugin.PngInfo:
    chunks = PngImagePlugin.PngInfo()
    for kind, content in (*colour_chunks(info), *text_chunks(info)):
        chunks.add(kind, content)
    return chunks


def text_chunks(info: Mapping[Any, Any]) -> list[tuple[bytes, bytes]]:
    """Return the PNG chunks tEXt and iTXt that hold ``text`` and ``xmp``."""
    chunks = PngImagePlugin.PngInfo()
    for key, value in info.get("text", {}).items():
        with suppress(Exception):  # keys and values that Pillow reads but does not write
            chunks.add_itxt(key, str(value)) if _is_wide(key, value) else chunks.add_text(
                key, str(value)
            )
    if info.get("xmp"):
        with suppress(UnicodeDecodeError):
            chunks.add_itxt("XML:com.adobe.xmp", info["xmp"].decode())
    return [(kind, content) for kind, content, *_ in chunks.chunks]


def _is_wide(key: str, value: object) -> bool:
    try:
        f"{key}{value}".encode("latin-1")
    except UnicodeEncodeError:
        return True
    return False


def colour_chunks(info: Mapping[Any, Any]) -> list[tuple[bytes, bytes]]:
    """Return the PNG chunks gAMA, cHRM and sRGB that ``info`` describes."""
    chunks = []
    with suppress(struct.error, TypeError, ValueError):
        if info.get("gamma"):
            chunks.append((b"gAMA", struct.pack(">I", round(info["gamma"] * 100_000))))
        if info.get("chromaticity"):
            points = [round(value * 100_000) for value in info["chromaticity"]]
            chunks.append((b"cHRM", struct.pack(">8I", *points)))
        if "srgb" in info:
            chunks.append((b"sRGB", struct.pack("B", info["srgb"])))
    return chunks


def _shape_tags(info: Mapping[Any, Any]) -> dict[int, Any]:
    """The tags of a TIFF that knows its pixels' shape, but not their size."""
    if "resolution" not in info:
        return {}
    across, down = info["resolution"]
    return {282: across, 283: down, 296: 1}


def tiff_tags(info: Mapping[Any, Any]) -> dict[int, Any]:
    """Return the TIFF tags that hold a photo's metadata."""
    tags: dict[int, Any] = {}
    if info.get("exif"):
        with suppress(Exception):
            exif = Image.Exif()
            exif.load(info["exif"])
            tags |= {tag: value for tag, value in exif.items() if tag not in _STRUCTURE}
            tags |= _directories(exif)
    tags |= _shape_tags(info)
    for tag, key in ((_XMP_TAG, "xmp"), (_IPTC_TAG, "iptc"), (_PROFILE_TAG, "icc_profile")):
        if info.get(key):
            tags[tag] = info[key]
    return _writable(tags)


def _writable(tags: Mapping[int, Any], group: int | None = None) -> dict[int, Any]:
    """Those tags of a directory that Pillow can write; of damaged files it reads others too."""
    kept = {}
    for tag, value in tags.items():
        sound = _writable(value, tag) if isinstance(value, Mapping) else value
        with suppress(Exception):
            directory = TiffImagePlugin.ImageFileDirectory_v2(b"II*\0\0\0\0\0", group=group)
            directory[tag] = sound
            directory.tobytes()
            kept[tag] = sound
    return kept
