"""What a network sees of a photo, and what of its fill is believed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from regionnorm.filling.conditioning import conditioned
from regionnorm.filling.inpainter import Inpainter
from regionnorm.nn.prefill import push_pull


def stained(image: Tensor, mask: Tensor) -> Tensor:
    """A smooth fill with a coloured stain of a strength that knows nothing of the picture."""
    wave = torch.linspace(-3, 3, image.shape[-1]).sin().expand_as(image)
    stain = wave * torch.tensor([0.2, -0.1, 0.15]).view(1, 3, 1, 1)
    return (push_pull(image, mask) + stain).clamp(0, 1)


def corner(height: int, width: int) -> Tensor:
    mask = torch.zeros(1, 1, height, width)
    mask[..., -36:, -66:] = 1
    return mask


def noise(height: int, width: int, low: float, high: float) -> Tensor:
    values = torch.rand(1, 3, height, width)
    return low + (high - low) * values


def fill(image: Tensor, mask: Tensor) -> Tensor:
    return conditioned(stained)(image * (1 - mask), mask)


@pytest.mark.parametrize("level", [0, 77, 200, 255])
def test_flat_stays_flat_whatever_the_rest_of_the_picture_shows(level: int) -> None:
    image, mask = noise(120, 160, 0, 1), corner(120, 160)
    image[..., 50:, 60:] = level / 255
    hole = mask.expand_as(image) > 0
    assert (fill(image, mask)[hole] - level / 255).abs().max() < 0.1 / 255


def test_nearly_even_ground_gets_no_stain() -> None:
    image, mask = noise(120, 160, 99.5 / 255, 101.5 / 255), corner(120, 160)
    hole = mask.expand_as(image) > 0
    assert (fill(image, mask)[hole] - 100.5 / 255).abs().max() < 1.1 / 255


def test_gray_stays_gray_and_a_colour_its_colour() -> None:
    gray = noise(120, 160, 0.2, 0.9)[:, :1].expand(1, 3, -1, -1)
    mask = corner(120, 160)
    red, green, blue = fill(gray, mask).unbind(1)
    hole = mask[:, 0] > 0
    assert torch.equal(red[hole], green[hole]) and torch.equal(red[hole], blue[hole])
    toned = gray + torch.tensor([0.05, 0.0, -0.05]).view(1, 3, 1, 1)
    red, green, blue = fill(toned, mask).unbind(1)
    assert ((red - green)[hole] - 0.05).abs().max() < 1e-5
    assert ((green - blue)[hole] - 0.05).abs().max() < 1e-5


def test_each_hole_is_held_against_what_is_beside_it() -> None:
    image = noise(120, 240, 0, 1)
    image[..., :100] = 0.5
    mask = torch.zeros(1, 1, 120, 240)
    mask[..., 40:80, 30:60] = 1
    mask[..., 40:80, 160:190] = 1
    filled = fill(image, mask)
    assert (filled[..., 40:80, 30:60] - 0.5).abs().max() < 1e-4
    plain = stained(image * (1 - mask), mask)
    assert (filled - plain)[..., 40:80, 160:190].abs().max() < 1e-6


@pytest.mark.parametrize("low", [0.01, 0.5, 0.95])
def test_low_contrast_is_stretched_before_the_network_and_back(low: float) -> None:
    seen: list[Tensor] = []

    def watch(image: Tensor, mask: Tensor) -> Tensor:
        seen.append(image[(mask == 0).expand_as(image)])
        return push_pull(image, mask)

    image, mask = noise(120, 160, low, low + 0.04), corner(120, 160)
    filled = conditioned(watch)(image * (1 - mask), mask)
    assert seen[0].max() - seen[0].min() == pytest.approx(0.8, abs=0.01)
    assert (filled - push_pull(image, mask)).abs().max() < 1e-5


def test_a_bright_lamp_far_away_does_not_hinder_that() -> None:
    image, mask = noise(256, 256, 0.01, 0.03), corner(256, 256)
    image[..., 10:20, 10:20] = 1
    error = (fill(image, mask) - push_pull(image, mask))[mask.expand_as(image) > 0]
    assert error.abs().max() < 0.02


def test_ordinary_pictures_reach_the_network_as_they_are() -> None:
    image, mask = noise(64, 80, 0, 1), corner(64, 80)
    shown: list[Tensor] = []

    def watch(image: Tensor, mask: Tensor) -> Tensor:
        shown.append(image)
        return push_pull(image, mask)

    conditioned(watch)(image * (1 - mask), mask)
    assert torch.equal(shown[0], image * (1 - mask))


def test_nothing_but_hole_is_the_networks() -> None:
    mask = torch.ones(1, 1, 32, 32)
    image = torch.zeros(1, 3, 32, 32)
    assert torch.allclose(conditioned(stained)(image, mask), stained(image, mask))


def test_the_shipped_weights_leave_flat_flat_and_gray_gray(rng: np.random.Generator) -> None:
    inpainter = Inpainter(device="cpu", method="network")
    hole = np.zeros((64, 96), bool)
    hole[-40:, -60:] = True
    flat = np.full((64, 96, 3), 77, np.uint8)
    assert np.array_equal(np.asarray(inpainter(flat, hole)), flat)
    levels = rng.integers(60, 200, (6, 9)).astype(np.uint8)
    gray = Image.fromarray(levels).resize((96, 64), Image.Resampling.BICUBIC).convert("RGB")
    filled = np.asarray(inpainter(gray, hole)).astype(int)
    assert np.ptp(filled, axis=2).max() == 0
