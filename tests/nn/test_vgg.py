"""VGG-19 features: the network, and loading it from files of either kind."""

from __future__ import annotations

import hashlib
import math
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from regionnorm.nn import vgg
from regionnorm.nn.vgg import PERCEPTUAL_LAYERS, STYLE_LAYERS, VGGFeatures, load_vgg19

CHANNELS = [64, 64, 128, 128] + [256] * 4 + [512] * 8
NAMES = [f"{block}_{i}" for block in range(1, 6) for i in range(1, 3 if block < 3 else 5)]
TORCHVISION_INDICES = [0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25, 28, 30, 32, 34]
NORMALISED_INDICES = [2, 5, 9, 12, 16]
ALL_LAYERS = [f"relu{name}" for name in NAMES]


def random_convolution(inputs: int, outputs: int, generator: torch.Generator) -> tuple[Tensor, ...]:
    weight = torch.randn(outputs, inputs, 3, 3, generator=generator) * math.sqrt(2 / (9 * inputs))
    bias = torch.randn(outputs, generator=generator) * 0.1
    return weight.half().float(), bias.half().float()


def convolutions_at(indices: list[int], generator: torch.Generator) -> dict[str, Tensor]:
    state, inputs = {}, 3
    for index, outputs in zip(indices, CHANNELS, strict=False):
        weight, bias = random_convolution(inputs, outputs, generator)
        state[f"{index}.weight"], state[f"{index}.bias"] = weight, bias
        inputs = outputs
    return state


@pytest.fixture(scope="module")
def torchvision_state() -> dict[str, Tensor]:
    state = convolutions_at(TORCHVISION_INDICES, torch.Generator().manual_seed(0))
    state = {f"features.{key}": value for key, value in state.items()}
    # One stored number stands for the classifier's 400 MB.
    return state | {"classifier.0.weight": torch.zeros(1).expand(4096, 25088)}


@pytest.fixture(scope="module")
def torchvision_file(
    torchvision_state: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    file = tmp_path_factory.mktemp("vgg") / "vgg19.pth"
    # In half precision, which is exact here, for a smaller file.
    torch.save(OrderedDict((k, v.half()) for k, v in torchvision_state.items()), file)
    return file


@pytest.fixture(scope="module")
def normalised_state() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    swap = torch.eye(3).flip(0)[:, :, None, None] * 255
    state = {"0.weight": swap, "0.bias": -torch.tensor([103.9, 116.8, 123.7])}
    return state | convolutions_at(NORMALISED_INDICES, generator)


@pytest.fixture(scope="module")
def normalised_file(
    normalised_state: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    file = tmp_path_factory.mktemp("vgg") / "normalised.pth"
    torch.save(normalised_state, file)
    return file


def images(*shape: int, seed: int = 2) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def torchvision_reference(state: dict[str, Tensor], x: Tensor) -> dict[str, Tensor]:
    """Run the flat stack of modules that torchvision's keys number, one module at a time."""
    modules: list[nn.Module] = []
    inputs = 3
    for name, outputs in zip(NAMES, CHANNELS, strict=True):
        if name in ("2_1", "3_1", "4_1", "5_1"):
            modules.append(nn.MaxPool2d(2))
        modules += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU()]
        inputs = outputs
    stack = nn.Sequential(*modules)
    features = "features."
    stack.load_state_dict(
        {k.removeprefix(features): v for k, v in state.items() if k.startswith(features)}
    )
    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    x = (x - mean) / std
    found = []
    with torch.no_grad():
        for module in stack:
            x = module(x)
            if isinstance(module, nn.ReLU):
                found.append(x)
    return dict(zip(ALL_LAYERS, found, strict=True))


def test_torchvision_weights_give_every_activation_of_the_flat_stack(
    torchvision_state: dict[str, Tensor], torchvision_file: Path
) -> None:
    x = images(2, 3, 33, 18)
    features = load_vgg19(torchvision_file, layers=ALL_LAYERS)
    found = features(x)
    assert list(found) == ALL_LAYERS
    for layer, expected in torchvision_reference(torchvision_state, x).items():
        torch.testing.assert_close(found[layer], expected, rtol=1e-4, atol=1e-4)


def test_normalised_weights_use_their_own_preprocessing_and_reflect_padding(
    normalised_state: dict[str, Tensor], normalised_file: Path
) -> None:
    x = images(2, 3, 13, 10)
    layers = ["relu1_1", "relu1_2", "relu2_1", "relu2_2", "relu3_1"]
    found = load_vgg19(normalised_file, layers=layers)(x)
    y = nn.functional.conv2d(x, normalised_state["0.weight"], normalised_state["0.bias"])
    torch.testing.assert_close(y[:, 0], 255 * x[:, 2] - 103.9, rtol=1e-4, atol=1e-3)
    for index, layer in zip(NORMALISED_INDICES, layers, strict=True):
        if index in (9, 16):
            y = nn.functional.max_pool2d(y, 2)
        y = nn.functional.pad(y, (1, 1, 1, 1), mode="reflect")
        y = nn.functional.conv2d(
            y, normalised_state[f"{index}.weight"], normalised_state[f"{index}.bias"]
        ).relu()
        torch.testing.assert_close(found[layer], y, rtol=1e-4, atol=1e-3)


def test_safetensors_file_gives_the_same_features(
    normalised_state: dict[str, Tensor], normalised_file: Path, tmp_path: Path
) -> None:
    file = tmp_path / "normalised.safetensors"
    save_file({key: value.contiguous() for key, value in normalised_state.items()}, file)
    x = images(1, 3, 16, 16)
    a = load_vgg19(file, layers=["relu2_1"])(x)["relu2_1"]
    b = load_vgg19(normalised_file, layers=["relu2_1"])(x)["relu2_1"]
    assert torch.equal(a, b)


def test_file_in_the_format_of_torch_before_1_6_loads(
    normalised_state: dict[str, Tensor], tmp_path: Path
) -> None:
    file = tmp_path / "old.pth"  # the official file is one
    torch.save(normalised_state, file, _use_new_zipfile_serialization=False)
    features = load_vgg19(file, layers=["relu1_1"])
    assert torch.equal(features.convolutions["1_1"].weight, normalised_state["2.weight"])


def test_keys_without_features_prefix_load_and_may_stop_early(
    torchvision_state: dict[str, Tensor], tmp_path: Path
) -> None:
    file = tmp_path / "first.pth"
    torch.save(
        {
            f"{i}.{p}": torchvision_state[f"features.{i}.{p}"]
            for i in (0, 2, 5)
            for p in ("weight", "bias")
        },
        file,
    )
    found = load_vgg19(file, layers=["relu2_1"])(images(1, 3, 6, 6))
    assert found["relu2_1"].shape == (1, 128, 3, 3)


def test_network_is_frozen_in_float32_and_passes_gradients_to_the_images(
    torchvision_file: Path,
) -> None:
    features = load_vgg19(torchvision_file, layers=["relu2_1"])
    assert not features.training
    assert all(not p.requires_grad and p.dtype == torch.float32 for p in features.parameters())
    x = images(1, 3, 8, 8).requires_grad_()
    features(x)["relu2_1"].sum().backward()
    assert x.grad is not None and x.grad.abs().sum() > 0


def test_loading_leaves_the_global_random_state_alone(normalised_file: Path) -> None:
    before = torch.get_rng_state()
    load_vgg19(normalised_file, layers=["relu3_1"])
    assert torch.equal(torch.get_rng_state(), before)


def test_network_stops_at_the_deepest_layer_asked_for() -> None:
    features = VGGFeatures(["relu2_1", "relu1_1"])
    assert list(features.convolutions) == ["1_1", "1_2", "2_1"]
    assert list(features(images(1, 3, 9, 7))) == ["relu2_1", "relu1_1"]


def test_named_layer_sets_are_layers_of_the_network() -> None:
    assert set(PERCEPTUAL_LAYERS) | set(STYLE_LAYERS) <= set(ALL_LAYERS)


@pytest.mark.parametrize(("padding_mode", "smallest"), [("zeros", 4), ("reflect", 8)])
def test_smallest_images_work_and_smaller_ones_are_refused(
    padding_mode: vgg.PaddingMode, smallest: int
) -> None:
    features = VGGFeatures(["relu3_1"], padding_mode=padding_mode)
    assert features(images(1, 3, smallest, smallest))["relu3_1"].isfinite().all()
    with pytest.raises(ValueError, match=f"at least {smallest}"):
        features(images(1, 3, smallest, smallest - 1))


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 1, 32, 32)])
def test_images_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"\[B, 3, H, W\]"):
        VGGFeatures(["relu1_1"])(images(*shape))


@pytest.mark.parametrize("layers", [[], ["relu1_3"], ["conv1_1"], ["relu1_1", "pool5"]])
def test_unknown_layers_are_refused(layers: list[str], normalised_file: Path) -> None:
    for call in (lambda: VGGFeatures(layers), lambda: load_vgg19(normalised_file, layers=layers)):
        with pytest.raises(ValueError, match=r"relu1_1, relu1_2, \.\.\., relu5_4"):
            call()


def test_layer_deeper_than_the_file_is_refused(normalised_file: Path) -> None:
    with pytest.raises(ValueError, match=r"up to relu3_1, but relu4_1 was asked for"):
        load_vgg19(normalised_file, layers=["relu1_1", "relu4_1"])


def test_other_networks_weights_are_refused(
    torchvision_state: dict[str, Tensor], tmp_path: Path
) -> None:
    tiny = torch.zeros(1)
    # VGG-16 is the same up to conv3_3 and goes on at other positions.
    vgg16 = [*TORCHVISION_INDICES[:7], 17, 19, 21, 24, 26, 28]
    states = {
        "vgg16": {f"features.{i}.{p}": tiny for i in vgg16 for p in ("weight", "bias")},
        "no-bias": {f"features.{i}.weight": tiny for i in TORCHVISION_INDICES},
        "gap": {k: v for k, v in torchvision_state.items() if not k.startswith("features.5.")},
        "other": {"conv.weight": tiny},
        "empty": {},
        "shape": torchvision_state | {"features.2.weight": torch.zeros(64, 3, 3, 3)},
    }
    for name, state in states.items():
        torch.save(state, tmp_path / f"{name}.pth")
        with pytest.raises(ValueError, match=f"{name}.pth does not hold VGG-19's weights"):
            load_vgg19(tmp_path / f"{name}.pth", layers=["relu1_2"])


class Touch:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


def test_code_in_a_weights_file_does_not_run(tmp_path: Path) -> None:
    torch.save({"0.weight": Touch(tmp_path / "it-ran")}, tmp_path / "weights.pth")
    with pytest.raises(ValueError, match="cannot be read as weights"):
        load_vgg19(tmp_path / "weights.pth", layers=["relu1_1"])
    assert not (tmp_path / "it-ran").exists()


def test_missing_broken_and_unsafe_files_are_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no file"):
        load_vgg19(tmp_path / "missing.pth", layers=["relu1_1"])
    (tmp_path / "text.pth").write_text("not weights")
    (tmp_path / "empty.pth").touch()
    (tmp_path / "text.safetensors").write_text("not weights at all")
    torch.save(nn.Linear(1, 1), tmp_path / "pickled-class.pth")
    torch.save({"state_dict": {}, "epoch": 3}, tmp_path / "nested.pth")
    for file in tmp_path.iterdir():
        with pytest.raises(ValueError, match="state dict") as caught:
            load_vgg19(file, layers=["relu1_1"])
        assert "\n" not in str(caught.value)


def test_environment_variable_names_the_file(
    normalised_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REGIONNORM_VGG", str(normalised_file))
    assert load_vgg19(layers=["relu1_1"]).convolutions["1_1"].padding_mode == "reflect"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty hub folder, and no file named by the environment."""
    monkeypatch.delenv("REGIONNORM_VGG", raising=False)
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "hub"))
    return tmp_path / "hub" / "checkpoints"


def serve(file: Path, monkeypatch: pytest.MonkeyPatch, prefix: str | None = None) -> None:
    """Make ``file`` stand in for the official one."""
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    monkeypatch.setattr(vgg, "OFFICIAL_URL", file.as_uri())
    monkeypatch.setattr(vgg, "OFFICIAL_HASH", prefix or digest[:8])


def test_official_file_is_downloaded_once_then_read_from_the_cache(
    normalised_file: Path, hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "official.pth"
    source.write_bytes(normalised_file.read_bytes())
    serve(source, monkeypatch)
    load_vgg19(layers=["relu1_1"])
    assert [file.name for file in hub.iterdir()] == ["official.pth"]
    source.unlink()
    load_vgg19(layers=["relu1_1"])


def test_download_with_another_hash_is_refused_and_removed(
    normalised_file: Path, hub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve(normalised_file, monkeypatch, prefix="0123456789")
    with pytest.raises(OSError, match="invalid hash"):
        load_vgg19(layers=["relu1_1"])
    assert list(hub.iterdir()) == []


def test_damaged_cached_file_is_refused(
    normalised_file: Path, hub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve(normalised_file, monkeypatch)
    hub.mkdir(parents=True)
    (hub / normalised_file.name).write_bytes(normalised_file.read_bytes()[:-1])
    with pytest.raises(OSError, match="is damaged"):
        load_vgg19(layers=["relu1_1"])


def test_offline_error_is_one_line_and_says_what_to_do(
    hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vgg, "OFFICIAL_URL", (tmp_path / "vgg19.pth").as_uri())
    with pytest.raises(OSError, match="REGIONNORM_VGG=FILE") as caught:
        load_vgg19(layers=["relu1_1"])
    assert "\n" not in str(caught.value)


def test_official_address_carries_the_hash_that_is_checked() -> None:
    assert vgg.OFFICIAL_URL.endswith(f"-{vgg.OFFICIAL_HASH}.pth")
    assert vgg.OFFICIAL_URL.startswith("https://download.pytorch.org/")
