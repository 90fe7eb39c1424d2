"""Photos keep their format's mode, depth, encoding and metadata."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms, IptcImagePlugin, PngImagePlugin

from regionnorm.imaging import read_image
from regionnorm.photo import Photo, _deep, read_photo, write_photo

Maker = Callable[..., Image.Image]

ORIENTATION, MAKE = 0x0112, 0x010F
PROFILE = bytes(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())


def one_line(error: pytest.ExceptionInfo[BaseException]) -> str:
    assert str(error.value) and "\n" not in str(error.value)
    return str(error.value)


def deep_array(height: int, width: int, channels: int) -> np.ndarray:
    random = np.random.default_rng(0)
    return random.integers(0, 65536, (height, width, channels)).astype(np.uint16)


def write_deep(path: Path, pixels: np.ndarray) -> None:
    order = [2, 1, 0, 3][: pixels.shape[2]]
    assert cv2.imwrite(str(path), np.ascontiguousarray(pixels[:, :, order]))


def chunk(kind: bytes, data: bytes) -> bytes:
    """A part of a PNG file."""
    check = zlib.crc32(kind + data)
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", check)


def middle(photo: Photo) -> np.ndarray:
    hole = np.zeros(photo.size[::-1], bool)
    hole[5:12, 4:11] = True
    return hole


# --- jpeg ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("sampling", [0, 1, 2])
@pytest.mark.parametrize("quality", [35, 80, 97])
def test_jpeg_keeps_its_quantisation_and_subsampling(
    tmp_path: Path, make_photo: Maker, quality: int, sampling: int
) -> None:
    options = {"quality": quality, "subsampling": sampling, "progressive": quality == 80}
    make_photo(64, 48).save(tmp_path / "a.jpg", **options)
    write_photo(read_photo(tmp_path / "a.jpg"), tmp_path / "b.jpg")
    with Image.open(tmp_path / "a.jpg") as before, Image.open(tmp_path / "b.jpg") as after:
        assert before.quantization == after.quantization
        assert before.layer == after.layer
        assert before.info.get("progressive") == after.info.get("progressive")


def test_a_quality_asked_for_replaces_the_photos_own(tmp_path: Path, make_photo: Maker) -> None:
    make_photo(64, 48).save(tmp_path / "a.jpg", quality=90)
    photo = read_photo(tmp_path / "a.jpg")
    sizes = []
    for quality in (20, 70, 98):
        write_photo(photo, tmp_path / f"{quality}.jpg", quality=quality)
        sizes.append((tmp_path / f"{quality}.jpg").stat().st_size)
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[2] / 2


def test_cmyk_is_filled_and_written_as_cmyk(tmp_path: Path) -> None:
    ink = np.random.default_rng(0).integers(0, 256, (20, 24, 4)).astype(np.uint8)
    Image.frombytes("CMYK", (24, 20), ink.tobytes()).save(tmp_path / "a.tif")
    photo = read_photo(tmp_path / "a.tif")
    hole = middle(photo)
    colours = np.broadcast_to(np.array([255, 0, 51], np.uint8), photo.colours().shape)
    write_photo(photo.filled(colours, hole), tmp_path / "b.tif")
    with Image.open(tmp_path / "b.tif") as image:
        assert image.mode == "CMYK"
        values = np.asarray(image)
        assert np.array_equal(values[~hole], ink[~hole])
        shown = np.asarray(image.convert("RGB"))
        assert (shown[hole] == [255, 0, 51]).all()


# --- 16 bits -------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_16_bit_colour_keeps_every_bit_of_known_pixels(
    tmp_path: Path, suffix: str, channels: int
) -> None:
    pixels = deep_array(150, 37, channels)
    write_deep(tmp_path / f"a{suffix}", pixels)
    photo = read_photo(tmp_path / f"a{suffix}")
    assert photo.mode == ("RGB;16" if channels == 3 else "RGBA;16")
    hole = middle(photo)
    colours = np.full((150, 37, 3), 12345, np.uint16)
    write_photo(photo.filled(colours, hole), tmp_path / f"b{suffix}")
    again = cv2.imread(str(tmp_path / f"b{suffix}"), cv2.IMREAD_UNCHANGED)
    again = again[:, :, [2, 1, 0, 3][:channels]]
    assert again.dtype == np.uint16
    assert np.array_equal(again[~hole], pixels[~hole])
    assert (again[hole][:, :3] == 12345).all()
    if channels == 4:
        assert np.array_equal(again[..., 3], pixels[..., 3])
    with Image.open(tmp_path / f"b{suffix}") as image:
        image.load()  # Pillow too takes it for sound


def test_16_bit_gray_with_alpha_is_kept(tmp_path: Path) -> None:
    pixels = deep_array(20, 30, 2)
    _deep.write(pixels, {}, tmp_path / "a.png", "PNG")
    photo = read_photo(tmp_path / "a.png")
    assert (photo.mode, photo.colours().shape) == ("LA;16", (20, 30, 3))
    write_photo(photo, tmp_path / "b.png")
    again = read_photo(tmp_path / "b.png")
    assert again.deep is not None
    assert np.array_equal(again.deep, pixels)


@pytest.mark.parametrize("opaque", [False, True])
def test_a_fill_of_16_bit_gray_leaves_alpha_as_it_is(tmp_path: Path, opaque: bool) -> None:
    pixels = deep_array(20, 30, 2)
    _deep.write(pixels, {}, tmp_path / "a.png", "PNG")
    photo = read_photo(tmp_path / "a.png")
    hole = middle(photo)
    filled = photo.filled(np.full((20, 30, 3), 12345, np.uint16), hole, opaque=opaque).deep
    assert filled is not None and np.array_equal(filled[~hole], pixels[~hole])
    assert (filled[hole][:, 0] == 12345).all()
    assert np.array_equal(filled[hole][:, 1], np.where(opaque, 65535, pixels[hole][:, 1]))
    wider = photo.on_canvas(3, 0, 0, 0)
    margin = np.zeros((20, 33), bool)
    margin[:, :3] = True
    assert (wider.filled(np.full((20, 33, 3), 7, np.uint16), margin).alpha()[:, :3] == 255).all()  # type: ignore[index]


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_16_bit_gray_is_kept(tmp_path: Path, suffix: str) -> None:
    pixels = deep_array(20, 30, 1)[..., 0]
    Image.fromarray(pixels).save(tmp_path / f"a{suffix}")
    photo = read_photo(tmp_path / f"a{suffix}")
    hole = middle(photo)
    write_photo(photo.filled(photo.colours() // 2, hole), tmp_path / f"b{suffix}")
    with Image.open(tmp_path / f"b{suffix}") as image:
        values = np.asarray(image)
    assert np.array_equal(values[~hole], pixels[~hole])
    assert abs(values[hole].astype(int) - pixels[hole] // 2).max() <= 1


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_16_bit_colour_keeps_its_metadata(tmp_path: Path, suffix: str) -> None:
    exif = Image.Exif()
    exif[MAKE] = "a camera"
    info = {"icc_profile": PROFILE, "exif": exif.tobytes(), "xmp": b"<xmp/>", "dpi": (300, 300)}
    kind = "PNG" if suffix == ".png" else "TIFF"
    _deep.write(deep_array(20, 30, 3), info, tmp_path / f"a{suffix}", kind)
    write_photo(read_photo(tmp_path / f"a{suffix}"), tmp_path / f"b{suffix}")
    with Image.open(tmp_path / f"b{suffix}") as image:
        image.load()
        assert image.info["icc_profile"] == PROFILE
        assert image.getexif()[MAKE] == "a camera"
        assert [round(float(value)) for value in image.info["dpi"]] == [300, 300]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_16_bit_colour_is_turned_like_8_bit_colour(orientation: int) -> None:
    pixels = deep_array(5, 7, 3)
    image = Image.fromarray((pixels >> 8).astype(np.uint8))
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    image.info["exif"] = exif.tobytes()
    upright = np.asarray(Photo.from_image(image).image)
    assert np.array_equal(_deep.turn(pixels, orientation) >> 8, upright)


def test_16_bit_colour_without_opencv_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_deep(tmp_path / "a.png", deep_array(20, 30, 3))

    def missing(module: str, *, extra: str) -> None:
        raise ImportError(f"needs {module}; run: pip install 'regionnorm[{extra}]'")

    monkeypatch.setattr(_deep, "require", missing)
    with pytest.raises(ImportError, match=r"a\.png.*regionnorm\[eval\]") as error:
        read_photo(tmp_path / "a.png")
    one_line(error)


def test_depths_that_would_be_lost_are_refused_in_one_line(tmp_path: Path) -> None:
    Image.new("F", (20, 20), 0.5).save(tmp_path / "float.tif")
    Image.new("I", (20, 20), 1 << 20).save(tmp_path / "wide.tif")
    (tmp_path / "deep.ppm").write_bytes(b"P6\n4 4\n65535\n" + bytes(96))
    for name in ("float.tif", "wide.tif", "deep.ppm"):
        with pytest.raises(ValueError, match=f"{name}.*save it") as error:
            read_photo(tmp_path / name)
        one_line(error)


# --- metadata ------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif", ".avif"])
def test_metadata_stays_and_the_orientation_is_reset(
    tmp_path: Path, make_photo: Maker, suffix: str
) -> None:
    exif = Image.Exif()
    exif[ORIENTATION], exif[MAKE] = 6, "a camera"
    exif.get_ifd(0x8769)[0x920A] = 35.0  # focal length
    options = {"exif": exif.tobytes(), "icc_profile": PROFILE}
    if suffix in (".jpg", ".png", ".tif"):
        options["dpi"] = (300, 300)
    make_photo(40, 30).save(tmp_path / f"a{suffix}", **options)
    photo = read_photo(tmp_path / f"a{suffix}")
    assert photo.size == (30, 40)
    write_photo(photo, tmp_path / f"b{suffix}")
    with Image.open(tmp_path / f"b{suffix}") as image:
        assert image.size == (30, 40)
        assert image.info["icc_profile"] == PROFILE
        kept = image.getexif()
        assert kept[MAKE] == "a camera"
        assert kept.get(ORIENTATION, 1) == 1
        assert float(kept.get_ifd(0x8769)[0x920A]) == 35
        if "dpi" in options:
            assert [round(float(value)) for value in image.info["dpi"]] == [300, 300]


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif"])
def test_sizes_in_the_metadata_are_those_of_the_pixels(
    tmp_path: Path, make_photo: Maker, suffix: str
) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    exif.get_ifd(0x8769)[0xA002], exif.get_ifd(0x8769)[0xA003] = 40, 30
    xmp = b'<x a="1" exif:PixelXDimension="40"/><exif:PixelYDimension>30</exif:PixelYDimension>'
    options = {"exif": exif.tobytes()} | ({} if suffix in (".png", ".tif") else {"xmp": xmp})
    make_photo(40, 30).save(tmp_path / f"a{suffix}", **options)
    photo = read_photo(tmp_path / f"a{suffix}")
    for number, (made, size) in enumerate(
        ((photo, (30, 40)), (photo.on_canvas(5, 3, 2, 0), (37, 43)))
    ):
        write_photo(made, tmp_path / f"{number}{suffix}")
        with Image.open(tmp_path / f"{number}{suffix}") as image:
            entries = image.getexif().get_ifd(0x8769)
            assert (image.size, (entries[0xA002], entries[0xA003])) == (size, size)
            if "xmp" in options:
                text = image.info["xmp"]
                assert b'PixelXDimension="%d"' % size[0] in text and b">%d</" % size[1] in text


def test_text_and_colour_chunks_of_png_stay(tmp_path: Path, make_photo: Maker) -> None:
    chunks = PngImagePlugin.PngInfo()
    chunks.add_text("Author", "someone")
    chunks.add_itxt("Title", "写真")
    chunks.add(b"gAMA", struct.pack(">I", 45455))
    make_photo(20, 20).save(tmp_path / "a.png", pnginfo=chunks)
    write_photo(read_photo(tmp_path / "a.png"), tmp_path / "b.png")
    with Image.open(tmp_path / "b.png") as image:
        image.load()
        assert dict(image.text) == {"Author": "someone", "Title": "写真"}
        assert image.info["gamma"] == pytest.approx(0.45455)


def test_xmp_stays_with_its_orientation_reset(tmp_path: Path, make_photo: Maker) -> None:
    packet = b'<x:xmpmeta xmlns:x="adobe:ns:meta/" tiff:Orientation="8"/>'
    make_photo(30, 20).save(tmp_path / "a.jpg", xmp=packet)
    write_photo(read_photo(tmp_path / "a.jpg"), tmp_path / "b.jpg")
    with Image.open(tmp_path / "b.jpg") as image:
        assert b'tiff:Orientation="1"' in image.info["xmp"]


def test_tiff_keeps_its_compression_unless_it_is_lossy(tmp_path: Path, make_photo: Maker) -> None:
    for given, expected in (
        ("raw", "raw"),
        ("tiff_adobe_deflate", "tiff_adobe_deflate"),
        ("jpeg", "tiff_lzw"),
    ):
        make_photo(32, 32).save(tmp_path / "a.tif", compression=given)
        write_photo(read_photo(tmp_path / "a.tif"), tmp_path / "b.tif")
        with Image.open(tmp_path / "b.tif") as image:
            assert image.info["compression"] == expected


def test_further_frames_are_left_out_and_said(tmp_path: Path, make_photo: Maker) -> None:
    frames = [make_photo(20, 20, seed=number) for number in range(3)]
    for name in ("a.gif", "a.webp", "a.tif", "a.png"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
        [note] = read_photo(tmp_path / name).notes
        assert "3" in note and "only the first" in note


# --- other formats and modes ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "name", "expected"),
    [
        ("P", "b.jpg", "RGB"),
        ("1", "b.webp", "RGB"),
        ("CMYK", "b.png", "RGB"),
        ("I;16", "b.jpg", "L"),
        ("RGBA", "b.tif", "RGBA"),
    ],
)
def test_another_format_gets_the_nearest_mode(
    tmp_path: Path, make_photo: Maker, mode: str, name: str, expected: str
) -> None:
    image = Image.fromarray(deep_array(20, 20, 1)[..., 0]) if mode == "I;16" else make_photo(20, 20)
    photo = Photo.from_image(image if mode == "I;16" else image.convert(mode))
    write_photo(photo, tmp_path / name)
    with Image.open(tmp_path / name) as written:
        assert written.mode == expected


def test_a_format_without_room_for_alpha_is_refused_in_one_line(
    tmp_path: Path, make_photo: Maker
) -> None:
    for name in ("b.jpg", "b.bmp", "b.gif", "b.ppm"):
        with pytest.raises(ValueError, match=rf"cannot write .*{name}.*use \.png") as error:
            write_photo(Photo.from_image(make_photo(20, 20, "RGBA")), tmp_path / name)
        one_line(error)


def test_opaque_makes_the_hole_visible_in_every_mode_with_transparency(make_photo: Maker) -> None:
    clear = make_photo(20, 20, "RGBA")
    clear.putalpha(0)
    palette = make_photo(20, 20).quantize(16)
    palette.info["transparency"] = bytes(16)
    key = Image.new("RGB", (20, 20), (9, 9, 9))
    key.info["transparency"] = (9, 9, 9)
    for image in (clear, clear.convert("LA"), palette, key):
        photo = Photo.from_image(image)
        hole = middle(photo)
        colours = np.full((20, 20, 3), 9, np.uint8)
        alpha = photo.filled(colours, hole, opaque=True).alpha()
        assert alpha is not None
        assert (alpha[hole] == 255).all()
        assert (alpha[~hole] == 0).all()


# --- damage --------------------------------------------------------------------------------------


def test_a_text_bomb_is_refused_in_one_line(tmp_path: Path) -> None:
    bomb = chunk(b"IHDR", struct.pack(">IIBBBBB", 20, 20, 8, 2, 0, 0, 0))
    bomb += chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(80_000_000)))
    (tmp_path / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bomb)
    with pytest.raises(ValueError, match=r"bomb\.png") as error:
        read_photo(tmp_path / "bomb.png")
    one_line(error)


@pytest.mark.filterwarnings("ignore")  # Pillow warns, and goes on
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_hostile_metadata_costs_neither_photo_nor_other_metadata(
    tmp_path: Path, make_photo: Maker, kind: str
) -> None:
    file = io.BytesIO()
    hostile = b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + b"\x12\x01\x03\0\xff\xff\xff\xff" * 40
    options = {} if kind == "TIFF" else {"exif": hostile}
    make_photo(30, 20).save(file, kind, icc_profile=PROFILE, **options)
    path = tmp_path / f"a.{kind.lower()}"
    path = path.with_suffix({"JPEG": ".jpg", "PNG": ".png", "TIFF": ".tif", "WEBP": ".webp"}[kind])
    path.write_bytes(file.getvalue())
    photo = read_photo(path)
    write_photo(photo, path.with_stem("b"))
    assert read_photo(path.with_stem("b")).image.info["icc_profile"] == PROFILE


def test_a_heic_photo_without_the_plug_in_names_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(Image.OPEN, "HEIF", raising=False)
    (tmp_path / "a.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(200))
    with pytest.raises(ValueError, match=r"a\.heic.*pip install pillow-heif") as error:
        read_photo(tmp_path / "a.heic")
    one_line(error)


# --- what viewers and archives read ---------------------------------------------------------------

CAPTION = b"\x1c\x02\x78\x00\x05Piers\x1c\x02\x50\x00\x05Smith"  # IPTC: a caption, and by whom


def with_iptc(photo: Image.Image, path: Path, records: bytes = CAPTION) -> None:
    """A photo as press agencies send it, in a JPEG's or a TIFF's own place."""
    if path.suffix == ".tif":
        photo.save(path, tiffinfo={33723: records})
        return
    padded = records + b"\0" * (len(records) % 2)
    block = b"8BIM\x04\x04\0\0" + struct.pack(">I", len(records)) + padded
    thumbnail = b"8BIM\x04\x0c\0\0" + struct.pack(">I", 4) + b"what"
    content = b"Photoshop 3.0\0" + thumbnail + block
    photo.save(path, extra=b"\xff\xed" + struct.pack(">H", len(content) + 2) + content)


@pytest.mark.parametrize("suffix", [".jpg", ".tif"])
def test_captions_of_press_photos_stay(tmp_path: Path, make_photo: Maker, suffix: str) -> None:
    source, target = tmp_path / f"a{suffix}", tmp_path / f"b{suffix}"
    with_iptc(make_photo(40, 30), source)
    photo = read_photo(source)
    write_photo(photo.filled(photo.colours(), middle(photo)), target)
    with Image.open(target) as written:
        found = IptcImagePlugin.getiptcinfo(written)
        assert found == {(2, 0x78): b"Piers", (2, 0x50): b"Smith"}
        assert 0x040C not in written.info.get("photoshop", {}), "a thumbnail shows what is gone"


def test_captions_that_no_segment_holds_cost_nothing_else(
    tmp_path: Path, make_photo: Maker
) -> None:
    with_iptc(make_photo(40, 30), tmp_path / "a.tif", CAPTION * 6000)
    write_photo(read_photo(tmp_path / "a.tif"), tmp_path / "b.jpg")
    with Image.open(tmp_path / "b.jpg") as written:
        assert written.size == (40, 30) and IptcImagePlugin.getiptcinfo(written) is None


@pytest.mark.parametrize("intent", [0, 1])
def test_the_srgb_chunk_stays_whatever_its_intent(
    tmp_path: Path, make_photo: Maker, intent: int
) -> None:
    chunks = PngImagePlugin.PngInfo()
    chunks.add(b"sRGB", bytes([intent]))
    make_photo(40, 30).save(tmp_path / "a.png", pnginfo=chunks)
    write_photo(read_photo(tmp_path / "a.png"), tmp_path / "b.png")
    assert Image.open(tmp_path / "b.png").info["srgb"] == intent


def test_a_resolution_that_is_no_number_is_left_out(tmp_path: Path, make_photo: Maker) -> None:
    photo = make_photo(40, 30)
    photo.save(tmp_path / "a.tif", dpi=(72, 72))
    data = (tmp_path / "a.tif").read_bytes()
    at = struct.unpack("<I", data[data.index(struct.pack("<HHI", 282, 5, 1)) + 8 :][:4])[0]
    (tmp_path / "a.tif").write_bytes(data[:at] + bytes(8) + data[at + 8 :])
    for name in ("b.png", "b.jpg", "b.tif"):
        write_photo(read_photo(tmp_path / "a.tif"), tmp_path / name)
        assert Image.open(tmp_path / name).size == (40, 30)


def test_text_that_turns_the_photo_is_used_up(tmp_path: Path, make_photo: Maker) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    raw = exif.tobytes()
    chunks = PngImagePlugin.PngInfo()
    chunks.add_text("Raw profile type exif", f"\nexif\n{len(raw):8}\n{raw.hex()}\n")
    chunks.add_text("Author", "Smith")
    make_photo(40, 30).save(tmp_path / "a.png", pnginfo=chunks)
    photo = read_photo(tmp_path / "a.png")
    assert photo.size == (30, 40)
    write_photo(photo, tmp_path / "b.png")
    assert read_photo(tmp_path / "b.png").size == (30, 40)
    assert Image.open(tmp_path / "b.png").text["Author"] == "Smith"  # type: ignore[attr-defined]


def deep_png(path: Path, pixels: np.ndarray, *chunks: tuple[bytes, bytes]) -> None:
    """16-bit RGB with further chunks before its pixels."""
    height, width, _ = pixels.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0))
    others = b"".join(chunk(*one) for one in chunks)
    data = chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + others + data)


def test_16_bit_png_keeps_its_texts_and_what_is_transparent(tmp_path: Path) -> None:
    pixels = deep_array(20, 16, 3)
    pixels[:4] = 7710, 8995, 7710
    clear = (b"tRNS", struct.pack(">3H", 7710, 8995, 7710))
    wide = b"Title\0\0\0\0\0" + "Brücke ☀".encode()
    deep_png(tmp_path / "a.png", pixels, clear, (b"tEXt", b"Author\0Smith"), (b"iTXt", wide))
    photo = read_photo(tmp_path / "a.png")
    alpha = photo.alpha()
    assert alpha is not None and (alpha[:4] == 0).all() and (alpha[4:] == 255).all()
    hole = middle(photo)
    write_photo(photo.filled(np.full_like(photo.colours(), 7710), hole), tmp_path / "b.png")
    again = read_photo(tmp_path / "b.png")
    assert again.mode == "RGBA;16"
    assert (again.colours()[~hole] == pixels[~hole]).all()
    assert (again.alpha() == alpha).all()
    text = Image.open(tmp_path / "b.png").text  # type: ignore[attr-defined]
    assert text == {"Author": "Smith", "Title": "Brücke ☀"}


@pytest.mark.parametrize(
    "mode, suffix",
    [
        *((mode, suffix) for mode in ("P", "RGB", "L") for suffix in (".tif", ".webp", ".png")),
        *(("I;16", suffix) for suffix in (".jp2", ".webp", ".png")),
    ],
)
def test_transparency_by_colour_goes_along_into_another_format(
    tmp_path: Path, make_photo: Maker, mode: str, suffix: str
) -> None:
    photo, key = keyed(make_photo, mode)
    photo.save(tmp_path / "a.png", transparency=key)
    before = np.full((30, 40), 255)
    before[:9, :9] = 0
    write_photo(read_photo(tmp_path / "a.png"), tmp_path / f"b{suffix}")
    assert (read_photo(tmp_path / f"b{suffix}").alpha() == before).all()


@pytest.mark.parametrize("mode", ["P", "RGB", "L", "I;16"])
@pytest.mark.parametrize("suffix", [".jpg", ".bmp", ".ppm"])
def test_transparency_by_colour_is_refused_where_it_would_be_lost(
    tmp_path: Path, make_photo: Maker, mode: str, suffix: str
) -> None:
    photo, key = keyed(make_photo, mode)
    photo.save(tmp_path / "a.png", transparency=key)
    with pytest.raises(ValueError, match="holds no transparen") as error:
        write_photo(read_photo(tmp_path / "a.png"), tmp_path / f"b{suffix}")
    assert "use .png, .webp or .tif" in one_line(error)
    assert not (tmp_path / f"b{suffix}").exists()


def keyed(make_photo: Maker, mode: str) -> tuple[Image.Image, int | tuple[int, int, int]]:
    """A photo of which one colour, that of a corner, is to be transparent, and that colour."""
    if mode == "I;16":
        gray = np.arange(1200).reshape(30, 40).astype(np.uint16) * 50 + 1
        gray[:9, :9] = 60_000
        return Image.fromarray(gray), 60_000
    photo = make_photo(40, 30).convert("L" if mode == "L" else "RGB")
    photo.paste(7 if mode == "L" else (1, 2, 3), (0, 0, 9, 9))
    if mode == "P":
        photo = photo.quantize(16)
        return photo, photo.getpixel((2, 2))  # type: ignore[return-value]
    return photo, 7 if mode == "L" else (1, 2, 3)


def test_gray_that_counts_from_white_is_refused(tmp_path: Path) -> None:
    Image.fromarray(np.arange(600, dtype=np.uint16).reshape(20, 30)).save(tmp_path / "a.tif")
    data = (tmp_path / "a.tif").read_bytes()
    black = struct.pack("<HHI", 262, 3, 1)
    at = data.index(black) + len(black)
    (tmp_path / "a.tif").write_bytes(data[:at] + bytes(2) + data[at + 2 :])
    with pytest.raises(ValueError, match="16-bit gray") as error:
        read_photo(tmp_path / "a.tif")
    assert "save it" in one_line(error)


def test_a_palette_with_alpha_stays_transparent(make_photo: Maker) -> None:
    image = make_photo(40, 30).convert("RGBA")
    image.paste((0, 0, 0, 0), (0, 0, 12, 12))
    palette = image.quantize(32)
    assert palette.mode == "P" and palette.palette and palette.palette.mode == "RGBA"
    photo = Photo.from_image(palette)
    alpha = photo.alpha()
    assert alpha is not None and (alpha[:12, :12] == 0).all() and (alpha[14:, 14:] == 255).all()
    assert photo.filled(photo.colours(), middle(photo)).image.has_transparency_data


@pytest.mark.parametrize("what", ["xmp", "exif", "comment"])
def test_metadata_too_long_for_a_jpeg_are_left_out(what: str, tmp_path: Path) -> None:
    photo = Photo.from_image(Image.new("RGB", (20, 16)))
    exif = Image.Exif()
    exif[270] = "x" * 70_000
    long = {"xmp": b"<x>" + b" " * 70_000, "exif": exif.tobytes(), "comment": b"x" * 70_000}
    photo.image.info[what] = long[what]
    write_photo(photo, tmp_path / "a.jpg")
    with Image.open(tmp_path / "a.jpg") as written:
        assert what not in written.info


def keyed_gray(path: Path, bits: int, key: int) -> np.ndarray:
    """A gray PNG of so many bits in which one value is transparent; that value is a stripe's."""
    values = np.arange(20 * 24).reshape(20, 24) % 2**bits
    values[values == key] = (key + 1) % 2**bits
    values[3:6] = key
    if bits == 16:
        rows = [row.astype(">u2").tobytes() for row in values]
    else:
        levels = values[:, :, None] >> np.arange(bits)[::-1] & 1
        rows = [np.packbits(row).tobytes() for row in levels.reshape(20, -1)]
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 24, 20, bits, 0, 0, 0, 0))
    data = chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows)))
    clear = chunk(b"tRNS", struct.pack(">H", key))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + clear + data + chunk(b"IEND", b""))
    return values == key


@pytest.mark.parametrize("opaque", [False, True])
@pytest.mark.parametrize(
    "bits, key", [(1, 0), (1, 1), (2, 0), (2, 1), (2, 3), (4, 7), (8, 77), (16, 777), (16, 65535)]
)
def test_the_transparent_gray_of_a_png_stays_transparent(
    bits: int, key: int, opaque: bool, tmp_path: Path
) -> None:
    clear = keyed_gray(tmp_path / "a.png", bits, key)
    photo = read_photo(tmp_path / "a.png")
    assert (photo.alpha() == np.where(clear, 0, 255)).all()
    hole = middle(photo)
    stripe = photo.colours()[4, 0]  # of the transparent value itself
    colours = np.broadcast_to(stripe, photo.colours().shape)
    write_photo(photo.filled(colours, hole, opaque=opaque), tmp_path / "b.png")
    again = read_photo(tmp_path / "b.png")
    assert again.mode == photo.mode
    assert (again.alpha() == np.where(clear & ~(hole & opaque), 0, 255)).all()
    assert (again.colours()[~hole] == photo.colours()[~hole]).all()


def test_gray_of_16_bits_with_a_transparent_value_gets_alpha_in_other_formats(
    tmp_path: Path,
) -> None:
    clear = keyed_gray(tmp_path / "a.png", 16, 300)
    photo = read_photo(tmp_path / "a.png")
    write_photo(photo, tmp_path / "b.tif")
    stored = tifffile.imread(tmp_path / "b.tif")
    assert (stored[..., 0] == photo.colours()[..., 0]).all()
    assert (stored[..., 1] == np.where(clear, 0, 65535)).all()
    assert read_image(tmp_path / "a.png").mode == "LA"


KEPT = {
    ".png": ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"],
    ".tif": ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "LAB", "I;16"],
    ".webp": ["RGB", "RGBA"],
    ".bmp": ["1", "L", "P", "RGB"],
    ".gif": ["L", "P"],
    ".ppm": ["L", "RGB"],
    ".pgm": ["I;16"],
    ".jp2": ["L", "LA", "RGB", "RGBA", "I;16"],
}


@pytest.mark.parametrize(
    "suffix, mode", [(suffix, mode) for suffix in KEPT for mode in KEPT[suffix]]
)
def test_known_pixels_of_every_mode_and_lossless_format_stay(
    suffix: str, mode: str, tmp_path: Path
) -> None:
    noise = deep_array(30, 40, 4)
    if mode == "I;16":
        image = Image.fromarray(noise[..., 0])
    elif mode in ("LA", "RGBA"):
        image = Image.fromarray((noise[..., : len(mode)] >> 8).astype(np.uint8))
    elif mode in ("CMYK", "LAB"):
        image = Image.frombytes(
            mode, (40, 30), (noise[..., : len(mode)] >> 8).astype("u1").tobytes()
        )
    else:
        colours = Image.fromarray((noise[..., :3] >> 8).astype(np.uint8))
        image = colours.quantize(200) if mode == "P" else colours.convert(mode)
    options = {"lossless": True, "exact": True} if suffix == ".webp" else {}
    image.save(tmp_path / f"a{suffix}", **options)
    photo = read_photo(tmp_path / f"a{suffix}")
    hole = middle(photo)
    write_photo(photo.filled(255 - photo.colours(), hole), tmp_path / f"b{suffix}")
    again = read_photo(tmp_path / f"b{suffix}")
    assert again.mode == photo.mode
    before, after = photo.image, again.image
    if mode == "P" or (suffix, mode) == (".gif", "L"):
        before, after = before.convert("RGB"), after.convert("RGB")
    assert np.array_equal(np.asarray(before)[~hole], np.asarray(after)[~hole])
    assert not np.array_equal(np.asarray(before)[hole], np.asarray(after)[hole])
    if "A" in mode and mode != "LAB":
        assert np.array_equal(np.asarray(before)[..., -1], np.asarray(after)[..., -1])
