"""TIFF files of rare kinds are kept as they are, or refused in a line that says what they hold."""

from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from regionnorm.filling.batch import inpaint_path
from regionnorm.imaging import read_image, read_mask
from regionnorm.photo import Photo, _deep, read_photo, write_photo
from regionnorm.stopping import Stopped

WIDTH, HEIGHT = 24, 20
BITS, COMPRESSION, KIND, CHANNELS, EXTRA, FORMAT = 258, 259, 262, 277, 338, 339
ACROSS, DOWN, UNIT = 282, 283, 296
GRAY, RGB, YCBCR = 1, 2, 6


def write_tiff(
    path: Path, pixels: np.ndarray, tags: dict[int, Any], types: dict[int, int] | None = None
) -> None:
    """An uncompressed TIFF file of one strip, ``pixels`` ``[H, W, C]``; ``types`` as TIFF has."""
    directory = ImageFileDirectory_v2(b"II*\0\0\0\0\0")
    directory.tagtype |= types or {}
    bits = (8 * pixels.itemsize,) * pixels.shape[2]
    size = {256: pixels.shape[1], 257: pixels.shape[0], 278: pixels.shape[0]}
    every = {BITS: bits, COMPRESSION: 1, CHANNELS: len(bits), 273: 0, 279: pixels.nbytes}
    for tag, value in (size | every | tags).items():
        directory[tag] = value
    with path.open("wb") as file:
        directory.save(file)
        file.write(pixels.tobytes())


def noise(channels: int, dtype: str = "u1") -> np.ndarray:
    values = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, channels))
    return values.astype(dtype)


@pytest.mark.parametrize(
    "channels, dtype, tags, message",
    [
        (1, "<u4", {KIND: GRAY}, "32-bit pixels"),
        (1, "<i2", {KIND: GRAY, FORMAT: 2}, "with a sign"),
        (3, "<f4", {KIND: RGB, FORMAT: (3, 3, 3)}, "3 channels of 32-bit floating-point"),
        (3, "<u4", {KIND: RGB}, "3 channels of 32-bit integer"),
        (3, "u1", {KIND: YCBCR, 530: (1, 1)}, "YCbCr pixels without compression"),
        (4, "<u2", {KIND: RGB, EXTRA: 1}, "multiplied by alpha"),
    ],
)
def test_pixels_that_cannot_be_kept_are_named(
    channels: int, dtype: str, tags: dict[int, Any], message: str, tmp_path: Path
) -> None:
    write_tiff(tmp_path / "odd.tif", noise(channels, dtype), tags)
    with pytest.raises(ValueError, match=message) as caught:
        read_photo(tmp_path / "odd.tif")
    assert "odd.tif" in str(caught.value) and "\n" not in str(caught.value)
    assert "use TIFF" not in str(caught.value) and "damaged" not in str(caught.value)


def test_colours_multiplied_by_alpha_stay_as_they_are_stored(tmp_path: Path) -> None:
    pixels = noise(4)
    pixels[:, :, :3] = pixels[:, :, :3].astype(int) * pixels[:, :, 3:] // 255
    write_tiff(tmp_path / "a.tif", pixels, {KIND: RGB, EXTRA: 1})
    photo = read_photo(tmp_path / "a.tif")
    hole = np.zeros((HEIGHT, WIDTH), bool)
    hole[5:9, 5:9] = True
    white = np.full((HEIGHT, WIDTH, 3), 255, np.uint8)
    filled = photo.filled(white, hole)
    write_photo(filled, tmp_path / "b.tif")
    with Image.open(tmp_path / "b.tif") as image:
        assert image.tag_v2[EXTRA] == (1,)
    again = np.asarray(read_photo(tmp_path / "b.tif").image)
    assert np.array_equal(again[~hole], pixels[~hole])
    assert np.array_equal(again[hole], pixels[hole][:, 3:].repeat(4, 1))  # white times alpha
    assert (photo.filled(white, hole, opaque=True).colours()[hole] == 255).all()
    write_photo(filled, tmp_path / "b.png")
    with Image.open(tmp_path / "b.png") as image:
        assert image.mode == "RGBA" and np.array_equal(np.asarray(image)[:, :, 3], pixels[:, :, 3])


def test_colours_multiplied_by_alpha_stay_beside_further_channels(tmp_path: Path) -> None:
    pixels = noise(5)
    pixels[:, :, :3] = pixels[:, :, :3].astype(int) * pixels[:, :, 3:4] // 255
    write_tiff(tmp_path / "a.tif", pixels, {KIND: RGB, EXTRA: (1, 0)})
    photo = read_photo(tmp_path / "a.tif")
    assert photo.mode == "RGBa" and np.array_equal(np.asarray(photo.image), pixels[:, :, :4])


@pytest.mark.parametrize("channels", [3, 4])
def test_16_bits_in_planes_are_refused(channels: int, tmp_path: Path) -> None:
    pixels, length = noise(channels, "<u2"), 2 * WIDTH * HEIGHT
    planes = np.ascontiguousarray(pixels.transpose(2, 0, 1)).reshape(pixels.shape)
    places = tuple(length * number for number in range(channels))
    tags = {KIND: RGB, 284: 2, 273: places, 279: (length,) * channels}
    write_tiff(tmp_path / "a.tif", planes, tags | ({EXTRA: 2} if channels == 4 else {}))
    with pytest.raises(ValueError, match=r"a\.tif.*planar.*save it with interleaved"):
        read_photo(tmp_path / "a.tif")


def test_pixels_that_opencv_decodes_wrongly_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import cv2

    write_tiff(tmp_path / "a.tif", noise(3, "<u2") * 257, {KIND: RGB})
    read_photo(tmp_path / "a.tif")

    class Wrong:
        IMREAD_UNCHANGED, error = cv2.IMREAD_UNCHANGED, cv2.error

        @staticmethod
        def imdecode(data: np.ndarray, flags: int) -> np.ndarray:
            decoded = cv2.imdecode(data, flags)
            decoded[7, 5, 1] ^= 0x0100
            return decoded

    monkeypatch.setattr(_deep, "require", lambda module, *, extra: Wrong)
    with pytest.raises(ValueError, match=r"a\.tif.*two ways.*save it as PNG"):
        read_photo(tmp_path / "a.tif")


def test_gray_of_12_bits_is_refused_and_not_taken_for_dark(tmp_path: Path) -> None:
    packed = np.full((HEIGHT, WIDTH * 3 // 2, 1), 255, np.uint8)  # white
    write_tiff(tmp_path / "a.tif", packed, {256: WIDTH, KIND: GRAY, BITS: 12})
    for read in (read_photo, read_image, read_mask):
        with pytest.raises(ValueError, match=r"a\.tif.*12-bit gray.*8 or 16 bits"):
            read(tmp_path / "a.tif")


def test_gray_that_counts_from_white_is_no_inverted_mask(tmp_path: Path) -> None:
    write_tiff(tmp_path / "a.tif", noise(1, "<u2") * 257, {KIND: 0})
    for read in (read_image, read_mask):
        with pytest.raises(ValueError, match=r"a\.tif.*counts from white"):
            read(tmp_path / "a.tif")


def test_further_channels_that_are_lost_are_said(tmp_path: Path) -> None:
    write_tiff(tmp_path / "a.tif", noise(4), {KIND: RGB, EXTRA: 0})
    assert any("1 further channel" in note for note in read_photo(tmp_path / "a.tif").notes)


@pytest.mark.parametrize("tags", [{}, {ACROSS: 3.0, DOWN: 2.0, UNIT: 1}, {ACROSS: 3.0, DOWN: 2.0}])
def test_no_resolution_is_made_up(tags: dict[int, Any], tmp_path: Path) -> None:
    for channels, dtype in ((3, "u1"), (3, "<u2")):
        write_tiff(tmp_path / "a.tif", noise(channels, dtype), {KIND: RGB, **tags})
        write_photo(read_photo(tmp_path / "a.tif"), tmp_path / "b.tif")
        with Image.open(tmp_path / "a.tif") as before, Image.open(tmp_path / "b.tif") as after:
            for tag in (ACROSS, DOWN):
                assert before.tag_v2.get(tag) == after.tag_v2.get(tag)
            assert after.tag_v2.get(UNIT, 2) == tags.get(UNIT, 2)


def test_xmp_does_not_cost_the_exif_data(tmp_path: Path) -> None:
    tags = {KIND: RGB, 271: "camera", 700: b"<x:xmpmeta/>"}
    write_tiff(tmp_path / "a.tif", noise(3), tags)
    write_photo(read_photo(tmp_path / "a.tif"), tmp_path / "b.tif")
    with Image.open(tmp_path / "b.tif") as after:
        assert after.tag_v2[271] == "camera" and after.tag_v2[700] == b"<x:xmpmeta/>"


def test_a_jpeg_with_exif_data_and_no_resolution_gets_none(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[271] = "camera"
    Image.fromarray(noise(3)).save(tmp_path / "a.jpg", exif=exif)
    write_photo(read_photo(tmp_path / "a.jpg"), tmp_path / "b.jpg")
    with Image.open(tmp_path / "a.jpg") as before, Image.open(tmp_path / "b.jpg") as after:
        assert before.info["jfif_unit"] == after.info["jfif_unit"] == 0


def exif_of(path: Path) -> tuple[dict[int, Any], dict[int, Any]]:
    with Image.open(path) as image:
        exif = image.getexif()
        return dict(exif.get_ifd(ExifTags.IFD.Exif)), dict(exif.get_ifd(ExifTags.IFD.GPSInfo))


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_adobe_deflate", "packbits"])
@pytest.mark.parametrize("suffix", [".jpg", ".tif"])
def test_a_cameras_exif_data_go_into_tiffs_of_any_compression(
    suffix: str, compression: str, tmp_path: Path
) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Artist] = "Somebody"
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.DateTimeOriginal] = "2026:01:02 03:04:05"
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.FNumber] = 2.8
    exif.get_ifd(ExifTags.IFD.GPSInfo)[1] = "N"
    source, target = tmp_path / f"a{suffix}", tmp_path / "b.tif"
    Image.fromarray(noise(3)).save(tmp_path / "a.jpg", exif=exif)
    if suffix == ".tif":
        photo = read_photo(tmp_path / "a.jpg")
        write_photo(replace(photo, format="TIFF", encoding={"compression": "raw"}), source)
    photo = replace(read_photo(source), format="TIFF", encoding={"compression": compression})
    write_photo(photo, target)
    found, place = exif_of(target)
    assert (found[36867], float(found[33437])) == ("2026:01:02 03:04:05", 2.8)
    assert place == {1: "N"}
    with Image.open(target) as written:
        assert written.info["compression"] == compression
        assert written.getexif()[ExifTags.Base.Artist] == "Somebody"
        assert np.array_equal(np.asarray(written), np.asarray(photo.image))
    write_photo(read_photo(target), tmp_path / "c.tif")
    assert exif_of(tmp_path / "c.tif") == exif_of(target)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_opened_tiff_is_turned_once(orientation: int, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    Image.fromarray(noise(3)).save(tmp_path / "a.tif", exif=exif)
    expected = read_photo(tmp_path / "a.tif").image
    with Image.open(tmp_path / "a.tif") as opened:
        found = Photo.from_image(opened).image
    assert np.array_equal(np.asarray(found), np.asarray(expected))


def test_a_resolution_finer_than_png_can_say_is_left_out(tmp_path: Path) -> None:
    pixels = noise(3, "<u2")
    write_tiff(tmp_path / "a.tif", pixels, {KIND: RGB, ACROSS: 1e8, DOWN: 1e8, UNIT: 3})
    write_photo(read_photo(tmp_path / "a.tif"), tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as written:
        assert "dpi" not in written.info


@pytest.mark.parametrize("dtype", ["u1", "<u2"])
@pytest.mark.parametrize("target", ["b.tif", "b.png", "b.jpg", "b.bmp"])
@pytest.mark.parametrize("unit", [1, 2])
@pytest.mark.parametrize("down", ["no number", -5.0, 1e9])
def test_damaged_resolution_costs_nothing_else(
    down: Any, unit: int, target: str, dtype: str, tmp_path: Path
) -> None:
    tags = {KIND: RGB, ACROSS: 72.0, DOWN: down, UNIT: unit, 271: "camera"}
    write_tiff(
        tmp_path / "a.tif", noise(3, dtype), tags, {DOWN: 2 if isinstance(down, str) else 12}
    )
    write_photo(read_photo(tmp_path / "a.tif"), tmp_path / target)
    with Image.open(tmp_path / target) as written:
        written.load()
        assert target == "b.bmp" or written.getexif()[271] == "camera"


def test_damaged_tags_are_left_out_and_others_stay(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[271], exif[318] = "camera", (0.5, 0.25)
    exif.get_ifd(ExifTags.IFD.Exif)[36867] = "2026:01:02 03:04:05"
    photo = Photo.from_image(Image.fromarray(noise(3)))
    numbers, text = struct.pack(">HHL", 318, 5, 2), struct.pack(">HHL", 318, 2, 16)
    assert numbers in exif.tobytes()
    photo.image.info["exif"] = exif.tobytes().replace(numbers, text)
    deep = replace(photo, deep=noise(3, "<u2"))
    for number, made in enumerate((photo, deep)):
        write_photo(made, tmp_path / f"{number}.tif")
        found, _ = exif_of(tmp_path / f"{number}.tif")
        assert found[36867] == "2026:01:02 03:04:05"
        with Image.open(tmp_path / f"{number}.tif") as written:
            assert written.getexif()[271] == "camera" and 318 not in written.getexif()


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
@pytest.mark.parametrize(
    "raised, expected, words",
    [
        (TypeError("odd"), ValueError, "its metadata is damaged (odd)"),
        (OSError(28, "No space left on device"), OSError, "No space left on device; choose"),
    ],
)
def test_16_bits_that_cannot_be_written_cost_one_line(
    raised: Exception,
    expected: type[Exception],
    words: str,
    name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object) -> None:
        raise raised

    for encoder in ("_write_png", "_write_tiff"):
        monkeypatch.setattr(_deep, encoder, fail)
    photo = replace(Photo.from_image(Image.fromarray(noise(3))), deep=noise(3, "<u2"))
    with pytest.raises(expected) as caught:
        write_photo(photo, tmp_path / name)
    assert str(caught.value).startswith(f"cannot write {tmp_path / name}: {words}")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_photo_that_raises_anything_is_not_the_end_of_a_folder(
    jobs: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in "abc":
        Image.fromarray(noise(3)).save(tmp_path / f"{name}.png")
    hole = np.zeros((HEIGHT, WIDTH), np.uint8)
    hole[5:9, 5:9] = 255
    (tmp_path / "masks").mkdir()
    Image.fromarray(hole).save(tmp_path / "masks" / "mask.png")

    def fill(photos: str, error: type[BaseException]) -> Any:
        def read(path: Path) -> Photo:
            if path.name == "b.png":
                raise error("odd")
            return read_photo(path)

        monkeypatch.setattr("regionnorm.filling.batch.read_photo", read)
        return inpaint_path(
            lambda image, _: image, tmp_path, tmp_path / "masks" / "mask.png", tmp_path / photos,
            recursive=False, jobs=jobs,
        )  # fmt: skip

    for error in (TypeError, AttributeError, ZeroDivisionError):
        report = fill(error.__name__, error)
        assert [path.name for path in report.done] == ["a.png", "c.png"]
        [(photo, message)] = report.failed
        assert photo.name == "b.png" and message == "odd"
    for stop in (KeyboardInterrupt, SystemExit, Stopped):
        with pytest.raises(stop):
            fill(stop.__name__, stop)


@pytest.mark.filterwarnings("error::UserWarning")  # Pillow's, of directories that are none
@pytest.mark.parametrize("source", ["a.jpg", "a.png", "a.webp", "a.tif"])
@pytest.mark.parametrize("target", ["b.tif", "b.jpg", "deep.tif"])
def test_the_directory_inside_exifs_goes_along(source: str, target: str, tmp_path: Path) -> None:
    exif = Image.Exif()
    inner = {1: "R03", 2: b"0100"}  # Adobe RGB
    exif.get_ifd(ExifTags.IFD.Exif).update({36867: "2026:01:02 03:04:05", 40965: inner})
    Image.fromarray(noise(3)).save(tmp_path / "a.jpg", exif=exif)
    if source != "a.jpg":
        write_photo(read_photo(tmp_path / "a.jpg"), tmp_path / source)
    photo = read_photo(tmp_path / source)
    write_photo(
        replace(photo, deep=noise(3, "<u2")) if target == "deep.tif" else photo, tmp_path / target
    )
    with Image.open(tmp_path / target) as written:
        assert written.getexif().get_ifd(ExifTags.IFD.Exif)[36867] == "2026:01:02 03:04:05"
        assert written.getexif().get_ifd(ExifTags.IFD.Interop) == inner


def test_the_colours_of_white_and_primaries_stay(tmp_path: Path) -> None:
    colours = {318: (0.25, 0.5), 319: (0.5, 0.25, 0.25, 0.75, 0.125, 0.0625)}
    write_tiff(tmp_path / "a.tif", noise(3), {KIND: RGB, **colours})
    write_photo(read_photo(tmp_path / "a.tif"), tmp_path / "b.tif")
    with Image.open(tmp_path / "b.tif") as after:
        assert {tag: after.tag_v2[tag] for tag in colours} == colours
