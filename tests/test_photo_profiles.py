"""What files say of their colours beside their pixels is kept, or its loss is said."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from regionnorm.photo import Photo, _deep, read_photo, write_photo

PROFILE = bytes(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()).replace(
    b"sRGB", b"wide"
)
HDR = [(b"cICP", bytes([9, 16, 0, 1])), (b"mDCV", bytes(range(24))), (b"cLLI", bytes(8))]


@pytest.fixture
def photo() -> Photo:
    values = np.random.default_rng(0).integers(0, 256, (20, 24, 3)).astype(np.uint8)
    made = Photo.from_image(Image.fromarray(values))
    made.image.info["icc_profile"] = PROFILE
    return made


def filled(photo: Photo) -> tuple[Photo, np.ndarray]:
    hole = np.zeros(photo.size[::-1], bool)
    hole[5:12, 4:11] = True
    return photo.filled(255 - photo.colours(), hole), hole


@pytest.mark.parametrize("name", ["a.jp2", "a.gif", "a.png", "a.tif", "a.webp", "a.avif", "a.jpg"])
def test_the_colour_profile_stays(name: str, photo: Photo, tmp_path: Path) -> None:
    if name == "a.gif":
        photo = Photo.from_image(photo.image.quantize(200))
        photo.image.info["icc_profile"] = PROFILE
    write_photo(photo, tmp_path / name)
    read = read_photo(tmp_path / name)
    assert read.image.info["icc_profile"] == PROFILE
    made, hole = filled(read)
    write_photo(made, tmp_path / f"b{name}")
    again = read_photo(tmp_path / f"b{name}")
    assert again.image.info["icc_profile"] == PROFILE
    if name not in ("a.avif", "a.jpg"):
        assert (again.colours()[~hole] == read.colours()[~hole]).all()


def test_profiles_of_jpeg_2000_files_of_others_are_found(photo: Photo, tmp_path: Path) -> None:
    photo.image.save(tmp_path / "a.jp2")
    data = (tmp_path / "a.jp2").read_bytes()
    at = data.index(b"colr") - 4
    box = struct.pack(">I4s3B", 11 + len(PROFILE), b"colr", 2, 0, 0) + PROFILE
    header = data.index(b"jp2h") - 4
    (length,) = struct.unpack(">I", data[header : header + 4])
    longer = struct.pack(">I", length + len(box))  # one more, before that of sRGB
    data = data[:header] + longer + data[header + 4 : at] + box + data[at:]
    (tmp_path / "a.jp2").write_bytes(data)
    for target in ("b.jp2", "b.png"):
        write_photo(read_photo(tmp_path / "a.jp2"), tmp_path / target)
        assert read_photo(tmp_path / target).image.info["icc_profile"] == PROFILE


def test_profiles_of_gifs_of_others_are_found(photo: Photo, tmp_path: Path) -> None:
    photo.image.quantize(256).save(tmp_path / "a.gif", comment=b"a comment")
    data = (tmp_path / "a.gif").read_bytes()
    comment = data.index(b"!\xfe")
    parts = [PROFILE[start : start + 100] for start in range(0, len(PROFILE), 100)]
    blocks = b"".join(bytes([len(part)]) + part for part in (b"ICCRGBG1012", *parts)) + b"\0"
    behind = comment + 4 + data[comment + 2]
    (tmp_path / "a.gif").write_bytes(data[:behind] + b"!\xff" + blocks + data[behind:])
    assert read_photo(tmp_path / "a.gif").image.info["icc_profile"] == PROFILE


def test_a_gif_with_a_profile_is_of_the_kind_that_has_extensions(
    photo: Photo, tmp_path: Path
) -> None:
    palette = Photo.from_image(photo.image.quantize(200))
    for profile in (PROFILE, PROFILE[:16] + b"GRAY" + PROFILE[20:]):
        palette.image.info["icc_profile"] = profile
        write_photo(palette, tmp_path / "a.gif")
        data = (tmp_path / "a.gif").read_bytes()
        assert (b"ICCRGBG1012" in data) == (profile == PROFILE)  # gray says nothing of colours
        assert profile != PROFILE or data[:6] == b"GIF89a"
        assert np.array_equal(np.asarray(read_photo(tmp_path / "a.gif").image), palette.image)


@pytest.mark.parametrize("deep", [False, True])
def test_the_chunks_of_hdr_pngs_stay(deep: bool, photo: Photo, tmp_path: Path) -> None:
    info = {"hdr": HDR, "text": {"Author": "Smith"}}
    if deep:
        pixels = np.random.default_rng(0).integers(0, 65536, (20, 24, 3)).astype(np.uint16)
        _deep.write(pixels, info, tmp_path / "a.png", "PNG")
    else:
        photo.image.info = info
        write_photo(photo, tmp_path / "a.png")
    made, hole = filled(read_photo(tmp_path / "a.png"))
    write_photo(made, tmp_path / "b.png")
    assert chunks(tmp_path / "b.png", b"cICP", b"mDCV", b"cLLI") == HDR
    again = read_photo(tmp_path / "b.png")
    assert again.image.info["text"] == {"Author": "Smith"}
    assert (again.colours()[~hole] == read_photo(tmp_path / "a.png").colours()[~hole]).all()


def chunks(path: Path, *wanted: bytes) -> list[tuple[bytes, bytes]]:
    """Those chunks of a PNG file before its pixels, each checked."""
    data, at, found = path.read_bytes(), 8, []
    while (kind := data[at + 4 : at + 8]) != b"IDAT":
        (length,) = struct.unpack(">I", data[at : at + 4])
        content = data[at + 8 : at + 8 + length]
        assert struct.unpack(">I", data[at + 8 + length :][:4]) == (zlib.crc32(kind + content),)
        found += [(kind, content)] if kind in wanted else []
        at += length + 12
    return found


@pytest.mark.parametrize("cut", [40, 60, 90, 600])
@pytest.mark.parametrize("name", ["a.jp2", "a.gif", "a.png"])
def test_damaged_descriptions_of_colours_cost_one_line(
    name: str, cut: int, photo: Photo, tmp_path: Path
) -> None:
    palette = Photo.from_image(photo.image.quantize(200))
    palette.image.info["icc_profile"] = PROFILE
    write_photo(palette if name == "a.gif" else photo, tmp_path / name)
    data = bytearray((tmp_path / name).read_bytes())
    data[cut : cut + 8] = b"\xff" * 8
    (tmp_path / name).write_bytes(data)
    try:
        read = read_photo(tmp_path / name)
    except ValueError as error:
        assert name in str(error) and "\n" not in str(error)
    else:
        write_photo(read, tmp_path / f"b{name}")


def test_colours_that_cannot_be_described_are_said(photo: Photo, tmp_path: Path) -> None:
    photo.image.save(tmp_path / "plain.bmp")
    data = (tmp_path / "plain.bmp").read_bytes()
    header = bytearray(124)
    header[:40], header[:4], header[56:60] = data[14:54], struct.pack("<I", 124), b"DEBM"
    start = struct.pack("<2sIHHI", b"BM", len(data) + 84, 0, 0, 138)
    (tmp_path / "a.bmp").write_bytes(start + header + data[54:])
    Image.fromarray(photo.colours()).save(tmp_path / "plain.avif")
    data = (tmp_path / "plain.avif").read_bytes()
    at = data.index(b"colrnclx") + 8
    hdr = data[:at] + struct.pack(">HH", 9, 16) + data[at + 4 :]
    (tmp_path / "a.avif").write_bytes(hdr)
    for name, word in (("a.bmp", "colour profile"), ("a.avif", "primaries 9, transfer 16")):
        [note] = read_photo(tmp_path / name).notes
        assert word in note
        assert not read_photo(tmp_path / name.replace("a.", "plain.", 1)).notes
