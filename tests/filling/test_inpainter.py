"""Filling photos: any size and mode, single files and folders."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL.ExifTags import IFD
from torch import Tensor, nn

from regionnorm import create_model
from regionnorm.checkpoints.weights import save_weights
from regionnorm.filling.completion import complete
from regionnorm.filling.inpainter import BatchReport, Inpainter, inpaint_path
from regionnorm.imaging import mask_to_array, read_image

ORIENTATION = 0x0112
Maker = Callable[..., Image.Image]


class Constant(nn.Module):
    """Paints everything, known pixels too, in one colour."""

    def __init__(self, *colour: int) -> None:
        super().__init__()
        self.register_buffer("colour", torch.tensor(colour or (255, 0, 51)) / 255)

    def forward(self, image: Tensor, mask: Tensor) -> Tensor:
        return self.colour.view(1, 3, 1, 1).expand_as(image)


class Mean(nn.Module):
    """Paints the mean of all that it is given, which shows what it was given."""

    def forward(self, image: Tensor, mask: Tensor) -> Tensor:
        return image.mean((2, 3), keepdim=True).expand_as(image)


class Returns(nn.Module):
    """Returns what a function makes of the image."""

    def __init__(self, function: Callable[[Tensor], object]) -> None:
        super().__init__()
        self.function = function

    def forward(self, image: Tensor, mask: Tensor) -> object:
        return self.function(image)


def one_line(text: object) -> str:
    assert str(text) and "\n" not in str(text)
    return str(text)


def box_mask(width: int, height: int) -> np.ndarray:
    hole = np.zeros((height, width), bool)
    hole[height // 4 : height // 2, width // 3 : -(width // 3)] = True
    return hole


# --- one photo -----------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(
    width=st.integers(1, 70),
    height=st.integers(2, 70),
    mode=st.sampled_from(["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "LAB", "I;16"]),
    seed=st.integers(0, 2**16),
)
def test_known_pixels_stay_identical_at_every_size_and_in_every_mode(
    width: int, height: int, mode: str, seed: int
) -> None:
    random = np.random.default_rng(seed)
    noise = Image.fromarray(random.integers(0, 256, (height, width, 4), np.uint8))
    photo = noise if mode == "RGBA" else noise.convert("RGB")
    if mode == "I;16":
        photo = Image.fromarray(random.integers(0, 65536, (height, width)).astype(np.uint16))
    elif mode == "P":
        photo = photo.quantize(200)
    elif mode == "LA":
        photo = noise.convert("LA")
    else:
        photo = photo.convert(mode)
    hole = random.random((height, width)) < 0.3
    hole[0, 0], hole[-1, 0] = True, False
    result = Inpainter(Constant())(photo, hole)

    assert (result.mode, result.size) == (photo.mode, photo.size)
    before, after = (
        np.asarray(image.convert("RGB") if mode == "P" else image) for image in (photo, result)
    )
    assert np.array_equal(after[~hole], before[~hole])
    if mode in ("LA", "RGBA"):
        assert np.array_equal(after[..., -1], before[..., -1])
    red = Image.new("RGB", (1, 1), (255, 0, 51))
    if mode == "I;16":
        # (0.299, 0.587, 0.114) of the colour in 16 bits
        assert abs(after[hole].astype(int) - round(65535 * (0.299 + 0.114 * 0.2))).max() <= 2
    elif mode in ("LA", "RGBA"):
        assert (after[hole][..., :-1] == np.asarray(red.convert(mode[:-1]))).all()
    elif mode == "P":
        assert abs(after[hole].astype(int) - [255, 0, 51]).max() <= 2
    else:
        expected = False if mode == "1" else np.asarray(red.convert(mode))[0, 0]
        assert (after[hole] == expected).all()


def test_photos_of_16_bits_are_filled_in_16_bits() -> None:
    deep = Image.fromarray(np.full((20, 30), 0x8081, np.uint16))

    def ramp(image: Tensor) -> Tensor:
        return (torch.arange(30) / 1000).expand_as(image)

    hole = box_mask(30, 20)
    values = np.asarray(Inpainter(Returns(ramp))(deep, hole))
    assert set(values[~hole]) == {0x8081}
    steps = np.unique(values[hole]).astype(float)
    assert len(steps) == 10  # 8 bits would hold three of them
    assert np.allclose(np.diff(steps), 65.535, atol=1)


def test_a_palette_gets_the_fills_colours_where_it_has_room(make_photo: Maker) -> None:
    photo, hole = make_photo(40, 30).quantize(255), box_mask(40, 30)
    full = make_photo(40, 30).quantize(256)
    for image, tolerance in ((photo, 2), (full, 255)):
        result = Inpainter(Constant())(image, hole)
        assert result.mode == "P"
        before, after = (np.asarray(i.convert("RGB")).astype(int) for i in (image, result))
        assert np.array_equal(after[~hole], before[~hole])
        assert abs(after[hole] - [255, 0, 51]).max() <= tolerance


def test_pixels_that_a_colour_key_hides_stay_hidden() -> None:
    photo = Image.new("RGB", (30, 20), (200, 10, 10))
    photo.paste((255, 0, 51), (0, 0, 15, 20))
    photo.info["transparency"] = (255, 0, 51)
    hole = box_mask(30, 20)
    result = Inpainter(Constant())(photo, hole)
    hidden = np.asarray(result.convert("RGBA"))[..., 3] == 0
    assert np.array_equal(hidden, np.asarray(photo.convert("RGBA"))[..., 3] == 0)


def test_hidden_colours_do_not_bleed_into_the_fill() -> None:
    pixels = np.full((40, 60, 4), 200, np.uint8)
    pixels[..., 3] = 255
    hole = np.zeros((40, 60), bool)
    hole[10:30, 20:40] = True
    pixels[hole] = 0
    pixels[:, 40:] = 0  # black, and transparent
    result = np.asarray(Inpainter(Mean())(pixels, hole))
    # The mean of what the network got: 200 everywhere but in the hole, whose zeros count.
    assert abs(result[hole][:, :3].astype(float) - 200 * (1 - hole.mean())).max() <= 1


def test_arrays_are_taken_for_photo_and_mask(make_photo: Maker) -> None:
    photo, hole = make_photo(33, 21), box_mask(33, 21)
    expected = Inpainter(Constant())(photo, hole).tobytes()
    for mask in (hole, hole.astype(np.uint8), hole * np.uint8(255), Image.fromarray(hole)):
        assert Inpainter(Constant())(np.asarray(photo), mask).tobytes() == expected
    gray = Inpainter(Constant())(np.asarray(photo.convert("L")), hole)
    assert (gray.mode, gray.size) == ("L", (33, 21))


def test_the_result_does_not_depend_on_what_the_hole_covers(make_photo: Maker) -> None:
    hole = box_mask(40, 30)
    photo = np.array(make_photo(40, 30))
    first = Inpainter(Mean())(photo, hole)
    photo[hole] = 255 - photo[hole]
    assert Inpainter(Mean())(photo, hole).tobytes() == first.tobytes()


def test_the_arguments_are_left_as_they_were(make_photo: Maker) -> None:
    photo, hole = np.array(make_photo(40, 30)), box_mask(40, 30)
    before = photo.copy(), hole.copy()
    Inpainter(Constant())(photo, hole)
    assert np.array_equal(photo, before[0]) and np.array_equal(hole, before[1])


def test_a_rotated_photo_comes_back_upright_with_its_orientation_reset(make_photo: Maker) -> None:
    upright = make_photo(40, 24)
    file = io.BytesIO()
    exif = Image.Exif()
    exif[ORIENTATION], exif[0x010F] = 6, "a camera"
    upright.rotate(90, expand=True).save(file, "PNG", exif=exif)
    hole = box_mask(40, 24)
    result = Inpainter(Constant())(Image.open(file), hole)
    assert result.size == (40, 24)
    assert np.array_equal(np.asarray(result)[~hole], np.asarray(upright)[~hole])
    kept = Image.Exif()
    kept.load(result.info["exif"])
    assert kept.get(ORIENTATION, 1) == 1
    assert kept[0x010F] == "a camera"


def test_the_exif_thumbnail_that_shows_what_was_removed_is_dropped(make_photo: Maker) -> None:
    thumbnail = io.BytesIO()
    make_photo(20, 20).save(thumbnail, "JPEG")
    small = thumbnail.getvalue()
    # IFD0 with the orientation, then IFD1 with the place and the length of a JPEG.
    first = struct.pack("<HHHIHHI", 1, ORIENTATION, 3, 1, 1, 0, 26)
    second = struct.pack("<HHHIIHHIII", 2, 0x201, 4, 1, 56, 0x202, 4, 1, len(small), 0)
    photo = make_photo(40, 30)
    photo.info["exif"] = b"Exif\0\0II*\0" + struct.pack("<I", 8) + first + second + small
    assert photo.getexif().get_ifd(IFD.IFD1) == {0x201: 56, 0x202: len(small)}
    result = Inpainter(Constant())(photo, box_mask(40, 30))
    assert small not in result.info.get("exif", b"")


def test_the_colour_profile_is_kept(make_photo: Maker) -> None:
    photo = make_photo(40, 30)
    photo.info["icc_profile"] = b"some profile"
    assert Inpainter(Constant())(photo, box_mask(40, 30)).info["icc_profile"] == b"some profile"


@pytest.mark.parametrize(
    ("size", "mask", "expected"),
    [
        ((40, 30), np.zeros((30, 40), bool), "black everywhere.*paint"),
        ((40, 30), np.ones((30, 40), bool), "white everywhere.*leave black"),
        ((40, 30), box_mask(30, 40), "mask is 30x40 but the upright photo is 40x30; give"),
        ((40, 30), np.zeros((30, 40, 3), np.uint8), "mask array of shape"),
    ],
)
def test_unusable_masks_and_photos_are_refused_in_one_line(
    make_photo: Maker, size: tuple[int, int], mask: np.ndarray, expected: str
) -> None:
    with pytest.raises(ValueError, match=expected) as error:
        Inpainter(Constant())(make_photo(*size), mask)
    one_line(error.value)


def test_what_is_neither_image_nor_array_is_refused_in_one_line() -> None:
    with pytest.raises(ValueError, match="photo of type str; give a PIL image"):
        Inpainter(Constant())("photo.png", box_mask(40, 30))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="mask of type str; give a PIL image"):
        Inpainter(Constant())(np.zeros((30, 40), np.uint8), "mask.png")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lambda image: image[..., :-1], r"returned \[1, 3, 30, 39\].*\[1, 3, 30, 40\]"),
        (lambda image: (image, image), "returned tuple"),
        (lambda image: image / 0, "NaN or infinity"),
    ],
)
def test_a_model_that_breaks_its_contract_is_named_in_one_line(
    make_photo: Maker, function: Callable[[Tensor], object], expected: str
) -> None:
    with pytest.raises(ValueError, match=expected) as error:
        Inpainter(Returns(function))(make_photo(40, 30), box_mask(40, 30))
    one_line(error.value)


# --- the model -----------------------------------------------------------------------------------


def test_a_weights_file_gives_the_same_result_as_its_network(
    tmp_path: Path, make_photo: Maker
) -> None:
    torch.manual_seed(0)
    network = create_model("rn", width=4, blocks=1)
    save_weights(network, tmp_path / "small.safetensors")
    photo, hole = make_photo(37, 29), box_mask(37, 29)
    # The same memory layout as for networks from a file: another rounds differently.
    network = network.to(memory_format=torch.channels_last)
    expected = Inpainter(network)(photo, hole)
    for path in (tmp_path / "small.safetensors", str(tmp_path / "small.safetensors")):
        # The network alone: fills of weights that are loaded are completed, too.
        inpainter = Inpainter(path, device="cpu", method="network")
        assert inpainter(photo, hole).tobytes() == expected.tobytes()


def test_a_module_is_run_in_evaluation_mode_without_gradients(make_photo: Maker) -> None:
    states: list[tuple[bool, bool]] = []

    class Watched(Constant):
        def forward(self, image: Tensor, mask: Tensor) -> Tensor:
            states.append((self.training, torch.is_inference_mode_enabled()))
            return super().forward(image, mask)

    Inpainter(Watched())(make_photo(40, 30), box_mask(40, 30))
    assert states == [(False, True)]


def test_the_model_sees_float_images_and_a_binary_mask(make_photo: Maker) -> None:
    seen: list[Tensor] = []

    class Watched(Constant):
        def forward(self, image: Tensor, mask: Tensor) -> Tensor:
            seen.extend((image, mask))
            return super().forward(image, mask)

    photo, hole = make_photo(40, 30), box_mask(40, 30)
    Inpainter(Watched())(photo, hole)
    image, mask = seen
    assert (image.shape, mask.shape) == ((1, 3, 30, 40), (1, 1, 30, 40))
    assert image.dtype == mask.dtype == torch.float32
    assert torch.equal(mask[0, 0], torch.from_numpy(hole).float())
    known = torch.from_numpy(np.asarray(photo) / np.float32(255)).permute(2, 0, 1)
    assert torch.equal(image[0], known * (1 - mask[0]))


def test_bf16_runs_the_model_in_lower_precision_and_gives_nearly_the_same(
    make_photo: Maker,
) -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(3, 3, 1)
    seen: list[torch.dtype] = []

    def run(image: Tensor) -> Tensor:
        output = layer(image).sigmoid()
        seen.append(output.dtype)
        return output

    photo, hole = make_photo(40, 30), box_mask(40, 30)
    results = [
        np.asarray(Inpainter(Returns(run), precision=precision)(photo, hole)).astype(int)
        for precision in ("fp32", "bf16")
    ]
    assert seen == [torch.float32, torch.bfloat16]
    assert abs(results[0] - results[1]).max() <= 2


@pytest.mark.parametrize("native", [True, False])
def test_precision_follows_the_processor_unless_named(
    native: bool, make_photo: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    from regionnorm.filling import inpainter

    monkeypatch.setattr(inpainter, "has_native_bfloat16", lambda device: native)
    layer = nn.Conv2d(3, 3, 1)
    seen: list[torch.dtype] = []

    def run(image: Tensor) -> Tensor:
        seen.append(layer(image).dtype)
        return image

    Inpainter(Returns(run))(make_photo(40, 30), box_mask(40, 30))
    assert seen == [torch.bfloat16 if native else torch.float32]


def test_unknown_options_are_refused_in_one_line() -> None:
    with pytest.raises(ValueError, match="precision 'fp8' is not known; use fp32 or bf16"):
        Inpainter(Constant(), precision="fp8")
    with pytest.raises(ValueError, match="'abacus'") as error:
        Inpainter(Constant(), device="abacus")
    one_line(error.value)


def test_calls_from_several_threads_give_what_single_calls_give(make_photo: Maker) -> None:
    torch.manual_seed(0)
    inpainter = Inpainter(create_model("rn", width=4, blocks=1))
    photos = [make_photo(24 + 3 * index, 30, seed=index) for index in range(8)]
    masks = [box_mask(*photo.size) for photo in photos]
    expected = [inpainter(*pair).tobytes() for pair in zip(photos, masks, strict=True)]
    with ThreadPoolExecutor(4) as pool:
        results = [image.tobytes() for image in pool.map(inpainter, photos, masks)]
    assert results == expected


def test_wide_holes_are_completed_for_loaded_weights_and_not_for_a_module_of_ones_own(
    tmp_path: Path, make_photo: Maker
) -> None:
    network = create_model("rn", width=4, blocks=1, prefill="diffusion")
    save_weights(network, tmp_path / "small.safetensors")
    photo, hole = make_photo(96, 72), np.zeros((72, 96), bool)
    hole[20:50, 30:70] = True

    def fills(**options: str) -> list[bytes]:
        models = (network, tmp_path / "small.safetensors")
        return [
            Inpainter(model, device="cpu", **options)(photo, hole).tobytes() for model in models
        ]

    alone, both = fills(method="network"), fills()
    assert both[0] == alone[0]
    assert both[1] != alone[1]
    inpainter = Inpainter(tmp_path / "small.safetensors", device="cpu")
    assert inpainter(photo, hole, method="network").tobytes() == alone[1]
    after, before = (np.asarray(image) for image in (inpainter(photo, hole), photo))
    assert np.array_equal(after[~hole], before[~hole])


def test_narrow_holes_are_the_networks_with_detail_and_do_not_vary(
    tmp_path: Path, make_photo: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_weights(create_model("rn", width=4, blocks=1), tmp_path / "small.safetensors")
    photo, hole = make_photo(96, 72), np.zeros((72, 96), bool)
    hole[20:28, 10:80] = True
    inpainter = Inpainter(tmp_path / "small.safetensors", device="cpu")
    alone, fill = inpainter(photo, hole, method="network"), inpainter(photo, hole)
    assert fill.tobytes() != alone.tobytes()
    assert fill.tobytes() == inpainter(photo, hole, variant=1).tobytes()
    assert not inpainter.varies(hole)
    assert Inpainter(method="exemplar").varies(hole)
    monkeypatch.setattr(complete, "_DETAIL", 0)
    assert inpainter(photo, hole).tobytes() == alone.tobytes()


def test_warming_up_compiles_what_wide_holes_need_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch, small_weights: Path
) -> None:
    compiled = []
    monkeypatch.setattr(complete, "warm_up", lambda: compiled.append(1))
    for inpainter, times in (
        (Inpainter(method="exemplar"), 1),
        (Inpainter(small_weights), 2),
        (Inpainter(small_weights, method="network"), 2),
        (Inpainter(torch.nn.Identity()), 2),
    ):
        inpainter.warm_up().join()
        assert len(compiled) == times


def test_exemplar_needs_no_network(make_photo: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*args: object, **options: object) -> None:
        raise AssertionError("weights were loaded")

    monkeypatch.setattr("regionnorm.checkpoints.weights.load_pretrained", load)
    inpainter = Inpainter(method="exemplar")
    photo, hole = make_photo(96, 72), np.zeros((72, 96), bool)
    hole[20:50, 30:70] = True
    first, again, other = (inpainter(photo, hole, variant=v).tobytes() for v in (0, 0, 1))
    assert first == again == Inpainter(method="exemplar", variant=0)(photo, hole).tobytes()
    assert other == Inpainter(method="exemplar", variant=1)(photo, hole).tobytes()
    with pytest.raises(ValueError, match="made without a network"):
        inpainter(photo, hole, method="network")


def test_transparent_pixels_are_not_copied(make_photo: Maker) -> None:
    pixels = np.asarray(make_photo(120, 90)).copy()
    alpha = np.full((90, 120), 255, np.uint8)
    alpha[:, :40] = 0
    hole = np.zeros((90, 120), bool)
    hole[30:60, 60:90] = True
    fills = []
    for colour in ((255, 0, 255), (0, 255, 0)):
        pixels[:, :40] = colour
        photo = Image.fromarray(np.dstack([pixels, alpha]), "RGBA")
        fills.append(np.asarray(Inpainter(method="exemplar")(photo, hole))[hole])
    assert np.array_equal(*fills)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "magic"}, "'magic' is not known; use auto, network, exemplar"),
        ({"variant": -1}, "variant is -1; give 0 or more"),
    ],
)
def test_unknown_methods_and_variants_are_refused(
    options: dict[str, Any], message: str, make_photo: Maker
) -> None:
    with pytest.raises(ValueError, match=message):
        Inpainter(**options)
    with pytest.raises(ValueError, match=message):
        Inpainter(method="exemplar")(make_photo(96, 72), box_mask(96, 72), **options)


def test_options_of_a_call_win_over_those_of_the_inpainter(make_photo: Maker) -> None:
    sizes: list[tuple[int, ...]] = []

    def watched(image: Tensor) -> Tensor:
        sizes.append(tuple(image.shape[-2:]))
        return image

    inpainter = Inpainter(Returns(watched), strategy="resize")
    photo, hole = make_photo(1100, 700), np.zeros((700, 1100), bool)
    hole[100:130, 100:130] = True
    inpainter(photo, hole)
    inpainter(photo, hole, strategy="crop")
    inpainter(photo, hole, strategy="original")
    assert sizes == [(175, 275), (256, 256), (700, 1100)]
    with pytest.raises(ValueError, match="'tiles' is not known"):
        inpainter(photo, hole, strategy="tiles")
    with pytest.raises(ValueError, match="feather is -1"):
        inpainter(photo, hole, feather=-1)


# --- folders -------------------------------------------------------------------------------------


@pytest.fixture
def twenty(tmp_path: Path, make_photo: Maker) -> tuple[Path, Path]:
    """Twenty photos of all kinds with their masks; one is corrupt, one mask does not fit."""
    photos, masks = tmp_path / "photos", tmp_path / "masks"
    photos.mkdir()
    masks.mkdir()
    sizes = [(333, 517), (1200, 801), (16, 16), (17, 255), (640, 480), (101, 99)]
    modes = ["RGB", "L", "RGBA", "P", "LA"]
    for index in range(17):
        width, height = sizes[index % 6]
        suffix = [".png", ".tif", ".PNG"][index % 3]
        photo = make_photo(width, height, modes[index % 5], seed=index)
        photo.save(photos / f"photo-{index:02}{suffix}")
        Image.fromarray(box_mask(width, height)).save(masks / f"photo-{index:02}.png")
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    make_photo(90, 60).save(photos / "rotated.jpg", exif=exif)
    Image.fromarray(box_mask(60, 90)).save(masks / "rotated.png")
    (photos / "corrupt.png").write_bytes((photos / "photo-00.png").read_bytes()[:2000])
    Image.fromarray(box_mask(333, 517)).save(masks / "corrupt.png")
    make_photo(50, 40).save(photos / "unfit.png")
    Image.fromarray(box_mask(40, 50)).save(masks / "unfit.png")
    return photos, masks


def test_a_folder_of_twenty_gives_eighteen_results_and_two_named_failures(
    tmp_path: Path, twenty: tuple[Path, Path]
) -> None:
    photos, masks = twenty
    calls: list[tuple[int, int, Path]] = []
    report = inpaint_path(
        Inpainter(Constant()),
        photos,
        masks,
        tmp_path / "new" / "out",
        on_progress=lambda *call: calls.append(call),
    )
    assert sorted((tmp_path / "new" / "out").iterdir()) == sorted(report.done)
    assert len(report.done) == 18
    failed = {path.name: one_line(message) for path, message in report.failed}
    assert failed.keys() == {"corrupt.png", "unfit.png"}
    assert "damaged or cut short" in failed["corrupt.png"]
    assert "mask is 40x50" in failed["unfit.png"]
    assert [(count, total) for count, total, _ in calls] == [(n, 20) for n in range(1, 21)]
    for path in report.done:
        photo, result = read_image(photos / path.name), read_image(path)
        hole = mask_to_array(Image.open(masks / f"{path.stem}.png"))
        assert (result.size, result.mode) == (photo.size, photo.mode)
        if path.name != "rotated.jpg":
            assert np.array_equal(np.asarray(result)[~hole], np.asarray(photo)[~hole])
    with Image.open(tmp_path / "new" / "out" / "rotated.jpg") as rotated:
        assert rotated.size == (60, 90)
        assert rotated.getexif().get(ORIENTATION, 1) == 1


@pytest.fixture
def pair(tmp_path: Path, make_photo: Maker) -> tuple[Path, Path]:
    """A photo ``in/a.png`` and its mask ``masks/a.png``."""
    (tmp_path / "in").mkdir()
    (tmp_path / "masks").mkdir()
    make_photo(40, 30).save(tmp_path / "in" / "a.png")
    Image.fromarray(box_mask(40, 30)).save(tmp_path / "masks" / "a.png")
    return tmp_path / "in" / "a.png", tmp_path / "masks" / "a.png"


def fill(*paths: Path | str, **options: bool) -> BatchReport:
    image, mask, output = paths
    return inpaint_path(Inpainter(Constant()), image, mask, output, **options)


def only_failure(report: BatchReport) -> str:
    assert not report.done
    [(_, message)] = report.failed
    return one_line(message)


def test_one_photo_goes_to_the_file_named(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    target = tmp_path / "new" / "result.webp"
    assert fill(*pair, target) == BatchReport([target], [])
    hole = box_mask(40, 30)
    before, after = np.asarray(read_image(pair[0])), np.asarray(read_image(target))
    assert np.array_equal(after[~hole], before[~hole])
    assert (after[hole] == [255, 0, 51]).all()


@pytest.mark.parametrize("output", ["there", "new", "new.folder/"])
def test_one_photo_goes_into_the_folder_named(
    tmp_path: Path, pair: tuple[Path, Path], output: str
) -> None:
    (tmp_path / "there").mkdir()
    report = fill(*pair, f"{tmp_path}/{output}")
    assert report == BatchReport([tmp_path / output / "a.png"], [])
    assert report.done[0].is_file()


def test_one_photo_finds_its_mask_in_a_folder(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    assert fill(pair[0], tmp_path / "masks", tmp_path / "b.png").done == [tmp_path / "b.png"]


def test_one_mask_serves_a_folder_that_holds_it_too(
    tmp_path: Path, pair: tuple[Path, Path], make_photo: Maker
) -> None:
    make_photo(40, 30, seed=1).save(tmp_path / "in" / "b.png")
    mask = pair[1].rename(tmp_path / "in" / "mask.png")
    report = fill(tmp_path / "in", mask, tmp_path / "in" / "out")
    assert [path.name for path in report.done] == ["a.png", "b.png"]
    assert not report.failed


def test_photos_with_the_same_stem_do_not_replace_each_other(
    tmp_path: Path, pair: tuple[Path, Path], make_photo: Maker
) -> None:
    for name in ("a.jpg", "a.gif", "a.bmp"):
        make_photo(40, 30, seed=2).save(tmp_path / "in" / name)
    report = fill(tmp_path / "in", tmp_path / "masks", tmp_path / "out")
    assert not report.failed
    names = [path.name for path in report.done]
    assert names == ["a.bmp", "a.gif", "a.jpg", "a.png"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == names


def test_a_photo_without_a_mask_is_a_named_failure(
    tmp_path: Path, pair: tuple[Path, Path], make_photo: Maker
) -> None:
    make_photo(40, 30).save(tmp_path / "in" / "b.png")
    report = fill(tmp_path / "in", tmp_path / "masks", tmp_path / "out")
    assert [path.name for path in report.done] == ["a.png"]
    [(photo, message)] = report.failed
    assert photo == tmp_path / "in" / "b.png"
    assert "no mask b.png" in one_line(message)


def test_of_several_masks_the_one_with_the_photos_name_is_taken(
    tmp_path: Path, pair: tuple[Path, Path], make_mask: Maker
) -> None:
    make_mask(9, 9).save(tmp_path / "masks" / "a.jpg")
    assert len(fill(pair[0].parent, tmp_path / "masks", tmp_path / "out").done) == 1
    pair[1].rename(tmp_path / "masks" / "a.bmp")
    message = only_failure(fill(pair[0].parent, tmp_path / "masks", tmp_path / "other"))
    assert "several masks fit it (a.bmp, a.jpg)" in message


def test_folders_inside_are_taken_on_request_and_keep_their_structure(
    tmp_path: Path, pair: tuple[Path, Path], make_photo: Maker
) -> None:
    (tmp_path / "in" / "deep").mkdir()
    (tmp_path / "masks" / "deep").mkdir()
    make_photo(50, 20).save(tmp_path / "in" / "deep" / "a.png")
    Image.fromarray(box_mask(50, 20)).save(tmp_path / "masks" / "deep" / "a.png")
    out = tmp_path / "in" / "out"
    folders = tmp_path / "in", tmp_path / "masks", out
    assert fill(*folders).done == [out / "a.png"]
    both = [out / "a.png", out / "deep" / "a.png"]
    # The second run must not take the results of the first for photos.
    for _ in range(2):
        assert fill(*folders, recursive=True, overwrite=True) == BatchReport(both, [])
    assert read_image(both[1]).size == (50, 20)


def test_results_are_replaced_only_on_request(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    target = tmp_path / "out" / "a.png"
    target.parent.mkdir()
    target.write_bytes(b"precious")
    report = fill(pair[0].parent, pair[1].parent, target.parent)
    assert report == BatchReport(skipped=[pair[0]])
    assert "allow replacing it" in only_failure(fill(*pair, target))
    assert target.read_bytes() == b"precious"
    assert fill(*pair, target, overwrite=True).done == [target]
    assert read_image(target).size == (40, 30)


def test_a_photo_or_a_mask_is_never_replaced(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    photo, mask = pair
    before = photo.read_bytes(), mask.read_bytes()
    (tmp_path / "link").symlink_to(photo.parent)
    for output in (photo, mask, tmp_path / "link" / "a.png"):
        with pytest.raises(ValueError, match="choose another place") as error:
            fill(photo, mask, output, overwrite=True)
        one_line(error.value)
    assert "would replace" in only_failure(fill(photo, mask, photo.parent, overwrite=True))
    assert "would replace" in only_failure(fill(photo, mask, mask.parent, overwrite=True))
    for output in (photo.parent, mask.parent, tmp_path / "link"):
        with pytest.raises(ValueError, match="choose another place"):
            fill(photo.parent, mask.parent, output, overwrite=True)
    with pytest.raises(ValueError, match="keep the masks in another place"):
        fill(photo.parent, photo.parent, tmp_path / "out")
    assert (photo.read_bytes(), mask.read_bytes()) == before


def test_no_photo_is_replaced_by_the_result_of_another(
    tmp_path: Path, pair: tuple[Path, Path], make_photo: Maker
) -> None:
    # With the parent as output, in/in/a.png would become in/a.png.
    (tmp_path / "in" / "in").mkdir()
    (tmp_path / "masks" / "in").mkdir()
    make_photo(40, 30, seed=1).save(tmp_path / "in" / "in" / "a.png")
    Image.fromarray(box_mask(40, 30)).save(tmp_path / "masks" / "in" / "a.png")
    before = pair[0].read_bytes()
    folders = tmp_path / "in", tmp_path / "masks", tmp_path
    report = fill(*folders, recursive=True, overwrite=True)
    assert report.done == [tmp_path / "a.png"]
    assert [path for path, _ in report.failed] == [tmp_path / "in" / "in" / "a.png"]
    assert pair[0].read_bytes() == before


def test_paths_that_cannot_work_are_refused_in_one_line(
    tmp_path: Path, pair: tuple[Path, Path]
) -> None:
    photo, mask = pair
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    out = tmp_path / "out"
    cases: list[tuple[type[Exception], str, tuple[Path, Path, Path]]] = [
        (FileNotFoundError, "no photo or folder .*gone", (tmp_path / "gone", mask, out)),
        (FileNotFoundError, "no mask or folder .*gone", (photo, tmp_path / "gone", out)),
        (ValueError, "no photos in .*empty", (tmp_path / "empty", mask, out)),
        (NotADirectoryError, "name a folder", (photo.parent, mask, tmp_path / "file")),
        (OSError, "cannot make the folder", (photo.parent, mask, tmp_path / "file" / "out")),
    ]
    for kind, expected, paths in cases:
        with pytest.raises(kind, match=expected) as error:
            fill(*paths)
        one_line(error.value)
    assert not out.exists()


@pytest.mark.parametrize("name", ["a.xyz", "a.jpg"])
def test_a_format_that_cannot_hold_the_result_is_refused_before_the_model_runs(
    tmp_path: Path, pair: tuple[Path, Path], make_photo: Maker, name: str
) -> None:
    make_photo(40, 30, "RGBA").save(pair[0])

    def never(photo: Image.Image, hole: np.ndarray) -> Image.Image:
        pytest.fail("the model ran")

    report = inpaint_path(never, *pair, tmp_path / "out" / name)
    assert "use .png" in only_failure(report)


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (RuntimeError("CUDA out of memory.\nTried to allocate 9 GiB"), "not enough memory"),
        (MemoryError(), "not enough memory"),
        (RuntimeError("two\nlines"), "two lines"),
    ],
)
def test_what_the_model_raises_is_one_line_and_does_not_stop_the_others(
    tmp_path: Path,
    pair: tuple[Path, Path],
    make_photo: Maker,
    raised: Exception,
    expected: str,
) -> None:
    make_photo(40, 30, "L").save(tmp_path / "in" / "b.png")

    def fails_on_gray(photo: Image.Image, hole: np.ndarray) -> Image.Image:
        if photo.mode == "L":
            raise raised
        return photo

    report = inpaint_path(fails_on_gray, tmp_path / "in", pair[1], tmp_path / "out")
    assert [path.name for path in report.done] == ["a.png"]
    [(photo, message)] = report.failed
    assert photo.name == "b.png"
    assert expected in one_line(message)


def test_an_interrupt_passes_through_and_leaves_no_half_file(
    tmp_path: Path, pair: tuple[Path, Path]
) -> None:
    def interrupted(photo: Image.Image, hole: np.ndarray) -> Image.Image:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        inpaint_path(interrupted, *pair, tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


def test_a_failing_save_is_a_named_failure_that_leaves_nothing_behind(
    tmp_path: Path, pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def save(self: Image.Image, path: Path, **options: object) -> None:
        Path(path).write_bytes(b"half a file")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", save)
    message = only_failure(fill(*pair, tmp_path / "out"))
    assert "No space left on device" in message
    assert not list((tmp_path / "out").iterdir())


def test_a_soft_mask_mixes_in_every_depth(rng: np.random.Generator) -> None:
    levels = np.zeros((24, 32), np.uint8)
    levels[6:18, 8:24] = 128
    levels[9:15, 12:20] = 255
    for photo in (
        rng.integers(0, 256, (24, 32, 3)).astype(np.uint8),
        Image.fromarray(rng.integers(0, 65536, (24, 32)).astype(np.uint16)),
    ):
        inpainter = Inpainter(Constant(255, 255, 255))
        mixed = np.asarray(inpainter(photo, levels, soft_mask=True)).astype(float)
        known, most = np.asarray(photo).astype(float), np.iinfo(np.asarray(photo).dtype).max
        share = (levels / 255).reshape(levels.shape + (1,) * (known.ndim - 2))
        assert abs(mixed - (known + (most - known) * share)).max() <= 0.51
        hard = np.asarray(inpainter(photo, levels)).astype(float)
        assert (hard[levels == 128] == most).all()


def test_a_soft_mask_of_floats_and_of_bools(make_photo: Callable[..., Image.Image]) -> None:
    photo, hole = make_photo(32, 24), np.zeros((24, 32), bool)
    hole[6:18, 8:24] = True
    inpainter = Inpainter(Constant(255, 0, 0))
    plain = np.asarray(inpainter(photo, hole))
    assert np.array_equal(inpainter(photo, hole, soft_mask=True), plain)
    half = np.asarray(inpainter(photo, hole * np.float32(0.6), soft_mask=True)).astype(float)
    known = np.asarray(photo).astype(float)
    assert abs(half[hole] - (known + (plain - known) * 0.6)[hole]).max() < 0.52


@pytest.mark.parametrize(
    ("dtype", "scale", "shift"),
    [(np.float32, 1 / 255, -0.05), (np.float64, 1.003 / 255, 0), (np.int16, 1, -10), (int, 2, 0)],
)
def test_a_soft_mask_beyond_its_range_is_cut_and_not_wrapped(
    make_photo: Callable[..., Image.Image], dtype: type, scale: float, shift: float
) -> None:
    levels = np.zeros((24, 32))
    levels[6:18, 8:24], levels[6:18, 24:26] = 255, 120
    mask = (levels * scale + shift).astype(dtype)
    photo = make_photo(32, 24)
    mixed = np.asarray(Inpainter(Constant(255, 0, 0))(photo, mask, soft_mask=True))
    assert np.array_equal(mixed[levels == 0], np.asarray(photo)[levels == 0])
    assert (abs(mixed[6:18, 8:24].astype(int) - (255, 0, 0)) <= 12).all()


def test_what_pieces_of_the_photo_cannot_follow_is_refused(make_photo: Maker) -> None:
    pytest.importorskip("numba")
    hole = np.zeros((48, 48), bool)
    hole[10:30, 10:30] = True
    with pytest.raises(ValueError, match="feather is 8 pixels, but method 'exemplar'"):
        Inpainter(method="exemplar", feather=8)
    inpainter = Inpainter(method="exemplar")
    with pytest.raises(ValueError, match="feather is 4 pixels, but method 'exemplar'"):
        inpainter(make_photo(48, 48), hole, feather=4)
    with pytest.raises(ValueError, match="strategy 'none'"):
        inpainter(make_photo(48, 48), hole, strategy="none")
