"""The paper's released weights, against a re-computation written from the formulas alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F

import regionnorm
from regionnorm.checkpoints.weights import load_released, load_weights

RunCli = Callable[..., tuple[int, str, str]]
WIDTH, BLOCKS = 8, 8
State = dict[str, Tensor]


def released_state(seed: int = 0, prefix: str = "generator.", scale: float = 0.15) -> State:
    """Random values under the released names."""
    random = torch.Generator().manual_seed(seed)
    state: State = {}

    def add(name: str, *shape: int) -> None:
        state[prefix + name] = torch.randn(*shape, generator=random) * scale

    def convolution(name: str, after: int, before: int, size: int) -> None:
        add(f"{name}.weight", after, before, size, size)
        add(f"{name}.bias", after)

    def learnable(name: str) -> None:
        add(f"{name}.sa.conv1.weight", 1, 2, 7, 7)
        state[f"{prefix}{name}.sa.conv1.weight"] += 0.03  # some pixels on either side of 0.8
        for part in ("gamma", "beta"):
            convolution(f"{name}.sa.{part}_conv", 1, 1, 7)

    for i, (before, size) in enumerate(((3, 7), (WIDTH, 4), (2 * WIDTH, 4))):
        convolution(f"encoder_conv{i + 1}", WIDTH * 2**i, before, size)
        for region in ("foreground", "background"):
            add(f"encoder_in{i + 1}.{region}_gamma", WIDTH * 2**i)
            add(f"encoder_in{i + 1}.{region}_beta", WIDTH * 2**i)
    for i in range(BLOCKS):
        for number in (1, 5):
            convolution(f"middle.{i}.conv_block.{number}", 4 * WIDTH, 4 * WIDTH, 3)
            learnable(f"middle.{i}.conv_block.{number + 1}")
    convolution("decoder.0", 8 * WIDTH, 4 * WIDTH, 3)
    learnable("decoder.2")
    convolution("decoder.4", 4 * WIDTH, 2 * WIDTH, 3)
    learnable("decoder.6")
    convolution("decoder.9", 3, WIDTH, 7)
    state["discriminator.conv1.0.weight_orig"] = torch.zeros(2)
    return state


def region(x: Tensor, inside: Tensor) -> Tensor:
    """One region of the batch normalised, zero elsewhere.

    Outside it stands the region's own mean, so that the whole map's variance is the region's times
    its share of the pixels; eps is added to that.
    """
    size = inside.sum()
    if size == 0:
        return torch.zeros_like(x)
    mean = (x * inside).sum((0, 2, 3), keepdim=True) / size
    padded = x * inside + mean * (1 - inside)
    everything = x.shape[0] * x.shape[2] * x.shape[3]
    variance = (padded - mean).square().sum((0, 2, 3), keepdim=True) / everything
    return (padded - mean) / (variance + 1e-5).sqrt() * (size / everything).sqrt() * inside


def recomputed(state: State, image: Tensor, mask: Tensor, prefix: str = "generator.") -> Tensor:
    """The released network in float64."""
    s = {name.removeprefix(prefix): value.double() for name, value in state.items()}
    x, mask = (image * (1 - mask) + mask).double(), mask.double()

    def convolve(x: Tensor, name: str, reflect: int = 0, **options: int) -> Tensor:
        x = F.pad(x, [reflect] * 4, mode="reflect") if reflect else x
        return F.conv2d(x, s[f"{name}.weight"], s[f"{name}.bias"], **options)

    def basic(x: Tensor, name: str, mask: Tensor) -> Tensor:
        result = torch.zeros_like(x)
        for which, inside in (("foreground", mask), ("background", 1 - mask)):
            gamma, beta = (s[f"{name}.{which}_{kind}"][:, None, None] for kind in ("gamma", "beta"))
            result = result + region(x, inside) * (1 + gamma) + beta
        return result

    def learnable(x: Tensor, name: str) -> Tensor:
        pooled = torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], dim=1)
        response = torch.sigmoid(F.conv2d(pooled, s[f"{name}.sa.conv1.weight"], padding=3))
        inside = (response >= 0.8).double()
        gamma = convolve(response, f"{name}.sa.gamma_conv", padding=3)
        beta = convolve(response, f"{name}.sa.beta_conv", padding=3)
        return (region(x, inside) + region(x, 1 - inside)) * (1 + gamma) + beta

    x = basic(convolve(x, "encoder_conv1", reflect=3), "encoder_in1", mask).relu()
    for i in (2, 3):
        mask = mask[:, :, ::2, ::2]
        x = convolve(x, f"encoder_conv{i}", stride=2, padding=1)
        x = basic(x, f"encoder_in{i}", mask).relu()
    for i in range(BLOCKS):
        block = f"middle.{i}.conv_block"
        y = convolve(x, f"{block}.1", reflect=2, dilation=2)
        y = convolve(learnable(y, f"{block}.2").relu(), f"{block}.5", reflect=1)
        x = x + learnable(y, f"{block}.6")
    for first, norm in ((0, 2), (4, 6)):
        x = F.pixel_shuffle(convolve(x, f"decoder.{first}", padding=1), 2)
        x = learnable(x, f"decoder.{norm}").relu()
    return (torch.tanh(convolve(x, "decoder.9", reflect=3)) + 1) / 2


def pictures() -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(3)
    coarse = torch.rand(2, 3, 8, 8, generator=random)
    image = F.interpolate(coarse, size=(48, 56), mode="bicubic").clamp(0, 1)
    mask = torch.zeros(2, 1, 48, 56)
    mask[0, :, 10:30, 12:40] = 1
    mask[1, :, 30:44, :20] = 1
    return image, mask


def saved(state: State, folder: Path) -> Path:
    path = folder / "released.pth"
    torch.save(state, path)
    return path


@pytest.mark.parametrize("prefix", ["generator.", "generator.module."])
@pytest.mark.parametrize("scale", [0.02, 0.15])
def test_the_converted_network_computes_what_the_formulas_say(
    prefix: str, scale: float, tmp_path: Path
) -> None:
    state = released_state(prefix=prefix, scale=scale)
    image, mask = pictures()
    model = load_released(saved(state, tmp_path))
    with torch.no_grad():
        found = model(image, mask)
    expected = recomputed(state, image, mask, prefix)
    assert expected.std() > 0.003
    assert (found - expected).abs().max() < 1e-4


def test_a_picture_without_a_hole_gets_the_holes_shift_too(tmp_path: Path) -> None:
    state = released_state()
    image, mask = pictures()
    with torch.no_grad():
        found = load_released(saved(state, tmp_path))(image, 0 * mask)
    assert (found - recomputed(state, image, 0 * mask)).abs().max() < 1e-4


def test_the_command_writes_weights_that_load_and_agree(tmp_path: Path, run_cli: RunCli) -> None:
    source, target = saved(released_state(), tmp_path), tmp_path / "out.safetensors"
    code, out, _ = run_cli("convert", source, target)
    assert code == 0 and str(target) in out and "M parameters" in out
    image, mask = pictures()
    with torch.no_grad():
        assert torch.equal(load_weights(target)(image, mask), load_released(source)(image, mask))
    assert all(value.dtype == torch.float32 for value in load_file(target).values())


def test_the_package_offers_it_without_a_further_import() -> None:
    module: Any = regionnorm.__getattr__("checkpoints")
    assert module.load_released is load_released


def test_what_is_not_the_released_generator_is_refused_in_one_line(
    tmp_path: Path, run_cli: RunCli
) -> None:
    state = released_state()
    broken = {
        "has a 'decoder.9.bias', which is missing here": {
            name: value for name, value in state.items() if name != "generator.decoder.9.bias"
        },
        "has no 'extra'": state | {"generator.extra": torch.zeros(1)},
        "size mismatch": state | {"generator.decoder.9.bias": torch.zeros(4)},
        "no tensor's name begins with 'generator.'": {"weight": torch.zeros(1)},
    }
    for message, wrong in broken.items():
        with pytest.raises(ValueError, match=message):
            load_released(saved(wrong, tmp_path))
    for number, content in enumerate((b"", b"hello", bytes(range(256)), b"PK\x03\x04")):
        for suffix in (".safetensors", ".pth"):
            broken_file = tmp_path / f"{number}{suffix}"
            broken_file.write_bytes(content)
            code, _, error = run_cli("convert", broken_file, tmp_path / "out.safetensors")
            assert code == 2 and error.count("\n") == 1 and "cannot be read" in error
    text = tmp_path / "text.pth"
    text.write_text("no weights")
    code, _, error = run_cli("convert", text, tmp_path / "out.safetensors")
    assert code == 2 and error.count("\n") == 1 and "cannot be read as weights" in error
    code, _, error = run_cli("convert", tmp_path / "none.pth", tmp_path / "out.safetensors")
    assert code == 2 and "does not exist" in error
    code, _, error = run_cli("convert", saved(state, tmp_path), tmp_path / "out.bin")
    assert code == 2 and "should end in .safetensors" in error
