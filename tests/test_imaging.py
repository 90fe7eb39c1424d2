"""Reading, writing and converting photos and masks."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from regionnorm import imaging
from regionnorm.files.formats import IMAGE_SUFFIXES, list_images
from regionnorm.files.whole import atomic_path
from regionnorm.imaging import (
    array_to_image,
    composite,
    image_to_tensor,
    mask_to_array,
    mask_to_tensor,
    read_image,
    read_mask,
    standardize,
    supports_mode,
    tensor_to_image,
    write_image,
)

ORIENTATION = 0x0112


def exif(orientation: int) -> Image.Exif:
    data = Image.Exif()
    data[ORIENTATION] = orientation
    return data


def one_line(error: pytest.ExceptionInfo[BaseException]) -> str:
    text = str(error.value)
    assert text and "\n" not in text
    return text


# --- atomic_path ---------------------------------------------------------------------------------


def test_atomic_path_shows_nothing_until_the_block_ends(tmp_path: Path) -> None:
    target = tmp_path / "new" / "folder" / "photo.png"
    with atomic_path(target) as temporary:
        temporary.write_bytes(b"whole")
        assert not target.exists()
        assert temporary.parent == target.parent
        assert temporary.suffix == target.suffix
    assert target.read_bytes() == b"whole"
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize("raised", [ValueError, KeyboardInterrupt])
def test_atomic_path_keeps_the_old_file_when_the_block_fails(
    tmp_path: Path, raised: type[BaseException]
) -> None:
    target = tmp_path / "photo.png"
    target.write_bytes(b"old")
    with pytest.raises(raised), atomic_path(target) as temporary:
        temporary.write_bytes(b"half")
        raise raised
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


def test_atomic_path_writes_through_a_link_and_keeps_permissions(tmp_path: Path) -> None:
    target, link, dangling = (tmp_path / "far" / "a.png", tmp_path / "b.png", tmp_path / "c.png")
    target.parent.mkdir()
    target.write_bytes(b"old")
    target.chmod(0o600)
    link.symlink_to(Path("far") / "a.png")
    dangling.symlink_to(Path("far") / "new.png")
    for place in (link, dangling):
        with atomic_path(place) as temporary:
            temporary.write_bytes(b"new")
        assert place.is_symlink() and place.read_bytes() == b"new"
    assert target.stat().st_mode & 0o777 == 0o600
    assert sorted(target.parent.iterdir()) == [target, target.with_name("new.png")]
    circle = tmp_path / "d.png"
    circle.symlink_to(circle)
    with pytest.raises(OSError, match=r"cannot write .*d\.png"), atomic_path(circle):
        pass


def test_atomic_path_says_in_one_line_that_a_place_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for target in (tmp_path, tmp_path / "file" / "photo.png"):
        with pytest.raises(OSError) as error, atomic_path(target):
            pytest.fail("the block must not run")
        assert str(target) in one_line(error)


def test_atomic_path_takes_names_near_the_length_limit(tmp_path: Path) -> None:
    target = tmp_path / ("n" * 250 + ".png")
    with atomic_path(target) as temporary:
        temporary.write_bytes(b"whole")
    assert target.read_bytes() == b"whole"


def test_files_written_atomically_have_ordinary_permissions(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "a.bin"):
        pass
    (tmp_path / "b.bin").touch()
    assert os.stat(tmp_path / "a.bin").st_mode == os.stat(tmp_path / "b.bin").st_mode


# --- list_images ---------------------------------------------------------------------------------


def test_list_images_finds_photos_by_suffix_in_any_case_and_skips_hidden_files(
    tmp_path: Path,
) -> None:
    for name in ("b.JPG", "a.png", "in/c.TiFf", "notes.txt", "._a.png", "d.png/e.webp"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    names = [path.relative_to(tmp_path).as_posix() for path in list_images(tmp_path)]
    assert names == ["a.png", "b.JPG", "d.png/e.webp", "in/c.TiFf"]
    flat = [path.name for path in list_images(tmp_path, recursive=False)]
    assert flat == ["a.png", "b.JPG"]


def test_list_images_names_a_folder_that_is_missing_or_a_file(tmp_path: Path) -> None:
    (tmp_path / "file.png").touch()
    with pytest.raises(FileNotFoundError, match="nowhere") as missing:
        list_images(tmp_path / "nowhere")
    with pytest.raises(NotADirectoryError, match=r"file\.png") as file:
        list_images(tmp_path / "file.png")
    one_line(missing), one_line(file)


# --- reading -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "expected"),
    [("1", "L"), ("L", "L"), ("LA", "LA"), ("P", "RGB"), ("RGB", "RGB"), ("RGBA", "RGBA")],
)
def test_every_png_mode_becomes_one_of_four(
    tmp_path: Path, make_photo, mode: str, expected: str
) -> None:
    photo = make_photo(20, 17, mode)
    photo.save(tmp_path / "photo.png")
    image = read_image(tmp_path / "photo.png")
    assert (image.mode, image.size) == (expected, (20, 17))
    assert np.array_equal(np.asarray(image), np.asarray(photo.convert(expected)))


def test_transparent_colours_become_an_alpha_channel(tmp_path: Path) -> None:
    palette = Image.new("P", (16, 16))
    palette.putpalette([255, 0, 0, 0, 255, 0])
    palette.putpixel((3, 2), 1)
    palette.save(tmp_path / "palette.png", transparency=1)
    Image.new("RGB", (16, 16), (1, 2, 3)).save(tmp_path / "rgb.png", transparency=(1, 2, 3))
    Image.new("L", (16, 16), 9).save(tmp_path / "gray.png", transparency=9)

    image = read_image(tmp_path / "palette.png")
    assert image.mode == "RGBA"
    assert image.getpixel((3, 2)) == (0, 255, 0, 0)
    assert image.getpixel((0, 0)) == (255, 0, 0, 255)
    assert read_image(tmp_path / "rgb.png").getpixel((0, 0)) == (1, 2, 3, 0)
    assert read_image(tmp_path / "gray.png").getpixel((0, 0)) == (9, 0)


def test_16_bit_gray_is_scaled_and_not_clipped(tmp_path: Path) -> None:
    values = np.array([[0, 128, 129, 257, 32896, 65535]], np.uint16).repeat(16, 0)
    Image.fromarray(values).save(tmp_path / "deep.png")
    Image.fromarray(values).save(tmp_path / "deep.tif")
    for name in ("deep.png", "deep.tif"):
        image = read_image(tmp_path / name)
        assert image.mode == "L"
        assert np.asarray(image)[0].tolist() == [0, 0, 1, 1, 128, 255]


def test_cmyk_becomes_rgb_and_loses_the_profile_that_no_longer_fits(tmp_path: Path) -> None:
    photo = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    photo.save(tmp_path / "print.tif", icc_profile=b"profile of a press")
    image = read_image(tmp_path / "print.tif")
    assert (image.mode, image.getpixel((0, 0))) == ("RGB", (255, 0, 0))
    assert "icc_profile" not in image.info


def test_float_pixels_are_refused_in_one_line(tmp_path: Path) -> None:
    Image.new("F", (16, 16)).save(tmp_path / "float.tif")
    with pytest.raises(ValueError, match=r"float\.tif.*8 or 16 bits") as error:
        read_image(tmp_path / "float.tif")
    one_line(error)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied_to_photos_and_masks_alike(
    tmp_path: Path, orientation: int
) -> None:
    # The camera stores the upright scene turned or mirrored, and says so.
    scene = np.zeros((16, 24), np.uint8)
    scene[2:6, 3:11] = 255
    stored = {
        1: scene,
        2: scene[:, ::-1],
        3: scene[::-1, ::-1],
        4: scene[::-1],
        5: scene.T,
        6: np.rot90(scene),
        7: scene[::-1, ::-1].T,
        8: np.rot90(scene, -1),
    }[orientation]
    path = tmp_path / "camera.png"
    Image.fromarray(np.ascontiguousarray(stored)).save(path, exif=exif(orientation))
    image = read_image(path)
    assert np.array_equal(np.asarray(image), scene)
    assert image.getexif().get(ORIENTATION, 1) == 1
    assert np.array_equal(read_mask(path), scene > 127)


def test_damaged_exif_data_does_not_cost_the_photo(tmp_path: Path, make_photo) -> None:
    make_photo(20, 16).save(tmp_path / "photo.png", exif=b"Exif\0\0no such thing")
    assert read_image(tmp_path / "photo.png").size == (20, 16)


def test_what_is_no_image_is_refused_in_one_line(tmp_path: Path) -> None:
    for name, content, reason in (
        ("text.png", b"not an image", "is no image.*use PNG"),
        ("empty.jpg", b"", "is empty; use an intact copy"),
    ):
        (tmp_path / name).write_bytes(content)
        for read in (read_image, read_mask):
            with pytest.raises(ValueError, match=f"{name} {reason}") as error:
                read(tmp_path / name)
            one_line(error)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif", ".bmp", ".gif"])
def test_files_cut_short_are_refused_in_one_line(tmp_path: Path, make_photo, suffix: str) -> None:
    whole = tmp_path / f"whole{suffix}"
    make_photo(90, 80).save(whole)
    for share in (0.02, 0.3, 0.7):
        cut = tmp_path / f"cut{suffix}"
        cut.write_bytes(whole.read_bytes()[: int(share * whole.stat().st_size)])
        with pytest.raises(ValueError, match=f"cut{suffix}") as error:
            read_image(cut)
        one_line(error)


def test_a_decompression_bomb_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        check = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", check)

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    content = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b""))
    (tmp_path / "bomb.png").write_bytes(content)
    with pytest.raises(ValueError, match=r"bomb\.png has too many pixels") as error:
        read_image(tmp_path / "bomb.png")
    one_line(error)


def test_a_missing_file_and_a_folder_are_named_in_one_line(tmp_path: Path) -> None:
    for read in (read_image, read_mask):
        with pytest.raises(FileNotFoundError, match=r"gone\.png") as missing:
            read(tmp_path / "gone.png")
        with pytest.raises(IsADirectoryError, match="is a folder") as folder:
            read(tmp_path)
        one_line(missing), one_line(folder)


# --- writing -------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
@pytest.mark.parametrize("suffix", [".png", ".tif", ".webp", ".bmp", ".jp2", ".ppm"])
def test_lossless_formats_return_every_value(
    tmp_path: Path, make_photo, suffix: str, mode: str
) -> None:
    photo = make_photo(21, 18, mode)
    if "A" in mode:
        photo.putalpha(make_photo(21, 18, "L", seed=1))
    path = tmp_path / f"photo{suffix}"
    if not supports_mode(path, mode):
        assert suffix in (".bmp", ".ppm") and "A" in mode
        return
    write_image(photo, path)
    again = read_image(path)
    # WebP knows no gray: it is colour with three equal channels.
    assert again.mode == mode or suffix == ".webp"
    assert np.array_equal(np.asarray(again), np.asarray(photo.convert(again.mode)))


def test_jpeg_is_written_without_chroma_subsampling(tmp_path: Path, make_photo) -> None:
    write_image(make_photo(32, 32), tmp_path / "photo.jpg")
    with Image.open(tmp_path / "photo.jpg") as image:
        assert [sampling[1:3] for sampling in image.layer] == [(1, 1)] * 3


def test_save_options_win_over_the_defaults(tmp_path: Path, make_photo) -> None:
    write_image(make_photo(64, 64), tmp_path / "fine.jpg")
    write_image(make_photo(64, 64), tmp_path / "coarse.jpg", quality=10)
    assert (tmp_path / "coarse.jpg").stat().st_size < (tmp_path / "fine.jpg").stat().st_size / 3


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif"])
def test_profile_and_exif_are_kept(tmp_path: Path, make_photo, suffix: str) -> None:
    photo = make_photo(20, 20)
    data = Image.Exif()
    data[0x010F] = "a camera"
    photo.info |= {"icc_profile": b"some profile", "exif": data.tobytes()}
    write_image(photo, tmp_path / f"photo{suffix}")
    again = read_image(tmp_path / f"photo{suffix}")
    assert again.info["icc_profile"] == b"some profile"
    with Image.open(tmp_path / f"photo{suffix}") as image:
        assert image.getexif()[0x010F] == "a camera"


@pytest.mark.parametrize(
    ("name", "mode"),
    [("a.xyz", "RGB"), ("a", "RGB"), ("a.eps", "RGB"), ("a.jpg", "RGBA"), ("a.gif", "RGB")],
)
def test_formats_that_would_spoil_the_photo_are_refused_in_one_line(
    tmp_path: Path, make_photo, name: str, mode: str
) -> None:
    with pytest.raises(ValueError, match=r"cannot write .*use \.png") as error:
        write_image(make_photo(20, 20, mode), tmp_path / name)
    one_line(error)
    assert not list(tmp_path.iterdir())


def test_a_failing_save_leaves_nothing_behind(
    tmp_path: Path, make_photo, monkeypatch: pytest.MonkeyPatch
) -> None:
    def save(self: Image.Image, path: Path, **options: object) -> None:
        Path(path).write_bytes(b"half a file")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", save)
    with pytest.raises(OSError, match=r"photo\.png: No space left on device") as error:
        write_image(make_photo(20, 20), tmp_path / "photo.png")
    one_line(error)
    assert not list(tmp_path.iterdir())


def test_every_suffix_listed_can_be_written_in_gray(tmp_path: Path, make_photo) -> None:
    plugin = {".heic", ".heif", ".hif"} - set(Image.registered_extensions())
    for suffix in IMAGE_SUFFIXES - plugin:
        write_image(make_photo(20, 20, "L"), tmp_path / f"photo{suffix}")
        assert read_image(tmp_path / f"photo{suffix}").size == (20, 20)


# --- arrays and tensors --------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9), st.just(3))))
def test_an_image_survives_the_way_to_a_tensor_and_back(pixels: np.ndarray) -> None:
    tensor = image_to_tensor(pixels)
    assert tensor.shape == (1, 3, *pixels.shape[:2])
    assert tensor.dtype == torch.float32
    assert tensor.min() >= 0 and tensor.max() <= 1
    assert np.array_equal(np.asarray(tensor_to_image(tensor)), pixels)
    assert np.array_equal(np.asarray(tensor_to_image(tensor[0])), pixels)


def test_tensors_are_rounded_to_nearest_and_clipped() -> None:
    values = torch.tensor([-1.0, 0.49 / 255, 0.51 / 255, 254.4 / 255, 254.6 / 255, 7.0])
    image = tensor_to_image(values.expand(1, 3, 2, 6))
    assert np.asarray(image)[0, :, 0].tolist() == [0, 0, 1, 254, 255, 255]


def test_gray_and_alpha_images_become_three_channels(make_photo) -> None:
    gray = make_photo(18, 16, "L")
    expected = torch.from_numpy(np.asarray(gray) / np.float32(255)).expand(1, 3, 16, 18)
    assert torch.equal(image_to_tensor(gray), expected)
    assert torch.equal(image_to_tensor(np.asarray(gray)), expected)
    assert torch.equal(image_to_tensor(gray.convert("RGBA")), expected)


@pytest.mark.parametrize(
    "array",
    [np.zeros((4, 4, 3), np.float32), np.zeros((4, 4, 5), np.uint8), np.zeros((0, 4), np.uint8)],
)
def test_arrays_that_are_no_photo_are_refused_in_one_line(array: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"shape \[.*dtype .*give uint8") as error:
        array_to_image(array)
    one_line(error)


def test_tensor_to_image_refuses_a_batch() -> None:
    with pytest.raises(ValueError, match=r"\[2, 3, 4, 4\]; give one image"):
        tensor_to_image(torch.zeros(2, 3, 4, 4))


@pytest.mark.parametrize(
    "mask",
    [
        np.array([[False, True]]),
        np.array([[0, 1]], np.uint8),
        np.array([[127, 128]], np.uint8),
        np.array([[0, 255]], np.int64),
        np.array([[0.5, 0.51]], np.float32),
        np.array([[[0], [255]]], np.uint8),
        Image.fromarray(np.array([[127, 128]], np.uint8)),
        Image.fromarray(np.array([[False, True]])),
        Image.fromarray(np.array([[[9, 9, 9, 255], [255, 255, 255, 0]]], np.uint8)),
        Image.fromarray(np.array([[0, 65535]], np.uint16)),
    ],
)
def test_every_kind_of_mask_has_one_threshold(mask: Image.Image | np.ndarray) -> None:
    assert mask_to_array(mask).tolist() == [[False, True]]
    assert torch.equal(mask_to_tensor(mask), torch.tensor([[[[0.0, 1.0]]]]))


def test_masks_of_another_shape_are_refused_in_one_line() -> None:
    with pytest.raises(ValueError, match=r"shape \[4, 4, 3\].*give \[H, W\]") as error:
        mask_to_array(np.zeros((4, 4, 3), np.uint8))
    one_line(error)


def test_composite_reads_neither_the_hole_of_the_image_nor_the_rest_of_the_output() -> None:
    image, output = torch.full((1, 3, 2, 2), 0.25), torch.full((1, 3, 2, 2), 0.75)
    mask = torch.tensor([[[[1.0, 0.0], [0.0, 0.5]]]])
    image[..., 0, 0], output[..., 0, 1] = float("nan"), float("inf")
    image.requires_grad_()
    output.requires_grad_()
    result = composite(image, output, mask)
    assert torch.equal(result[0, 0], torch.tensor([[0.75, 0.25], [0.25, 0.5]]))
    result.sum().backward()
    assert torch.equal(image.grad[0, 0], torch.tensor([[0.0, 1.0], [1.0, 0.5]]))
    assert torch.equal(output.grad[0, 0], torch.tensor([[1.0, 0.0], [0.0, 0.5]]))


def test_composite_takes_the_hole_from_the_output_and_the_rest_from_the_image() -> None:
    image, output = torch.rand(2, 3, 5, 7), torch.rand(2, 3, 5, 7)
    mask = (torch.rand(2, 1, 5, 7) > 0.5).float()
    hole = mask.bool().expand_as(image)
    result = composite(image, output, mask)
    assert torch.equal(result[hole], output[hole])
    assert torch.equal(result[~hole], image[~hole])


def test_standardize_does_not_change_its_argument(make_photo) -> None:
    photo = make_photo(18, 16)
    photo.info["exif"] = exif(6).tobytes()
    before = photo.tobytes()
    assert standardize(photo).size == (16, 18)
    assert photo.size == (18, 16)
    assert photo.tobytes() == before
    assert imaging.standardize(photo).getexif().get(ORIENTATION, 1) == 1
