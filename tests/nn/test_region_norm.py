from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from regionnorm import ops
from regionnorm.nn.region_norm import LearnableRegionNorm2d, RegionNorm2d, resize_mask


def test_mask_is_resized_to_the_features_by_nearest_neighbour() -> None:
    mask = torch.rand(2, 1, 24, 20).round()
    x = torch.randn(2, 3, 6, 5)
    layer = RegionNorm2d(3)
    expected = ops.region_norm(x, mask[:, :, ::4, ::4], layer.weight, layer.bias)
    assert torch.equal(layer(x, mask), expected)


def test_a_mask_of_the_right_size_is_not_copied() -> None:
    mask = torch.zeros(1, 1, 6, 5)
    assert resize_mask(mask, (6, 5)) is mask


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64, torch.bfloat16])
def test_resizing_keeps_the_dtype_and_the_labels(dtype: torch.dtype) -> None:
    mask = torch.tensor([[0, 1], [1, 0]]).to(dtype).view(1, 1, 2, 2)
    resized = resize_mask(mask, (4, 6))
    expected = mask.repeat_interleave(2, 2).repeat_interleave(3, 3)
    assert resized.dtype == dtype and torch.equal(resized, expected)


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64, torch.float32])
def test_two_regions_take_masks_of_any_dtype(dtype: torch.dtype) -> None:
    x, mask = torch.randn(2, 3, 6, 5), torch.rand(2, 1, 6, 5) > 0.5
    layer = RegionNorm2d(3)
    assert torch.equal(layer(x, mask.to(dtype)), layer(x, mask))


@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.float32])
def test_more_regions_take_labels_of_any_dtype(dtype: torch.dtype) -> None:
    x, labels = torch.randn(2, 3, 6, 5), torch.randint(0, 4, (2, 1, 6, 5))
    layer = RegionNorm2d(3, 4)
    torch.nn.init.normal_(layer.weight)  # type: ignore[arg-type]
    expected = ops.region_norm(x, labels, layer.weight, layer.bias)
    assert torch.equal(layer(x, labels.to(dtype)), expected)


def test_region_norm_starts_as_normalisation_alone() -> None:
    x, mask = torch.randn(2, 3, 6, 5), torch.rand(2, 1, 6, 5).round()
    torch.testing.assert_close(RegionNorm2d(3)(x, mask), ops.region_norm(x, mask))
    assert list(RegionNorm2d(3, affine=False).parameters()) == []
    assert torch.equal(RegionNorm2d(3, affine=False)(x, mask), ops.region_norm(x, mask))


def test_options_reach_the_operation() -> None:
    x, mask = torch.randn(2, 4, 6, 5), torch.rand(2, 1, 6, 5).round()
    layer = RegionNorm2d(4, stats="group:2", affine=False, eps=0.5, activation="relu")
    expected = ops.region_norm(x, mask, stats="group:2", eps=0.5, activation="relu")
    assert torch.equal(layer(x, mask), expected)


def test_each_region_learns_its_own_affine() -> None:
    layer = RegionNorm2d(3)
    x, mask = torch.randn(2, 3, 6, 5), torch.zeros(2, 1, 6, 5)
    layer(x, mask).sum().backward()
    assert layer.weight is not None and layer.weight.grad is not None
    assert layer.bias is not None and layer.bias.grad is not None
    assert layer.bias.grad.tolist() == [[60.0] * 3, [0.0] * 3]
    assert not layer.weight.grad[1].any()


def test_state_dicts_hold_the_parameters_and_load() -> None:
    source, target = RegionNorm2d(5, 3), RegionNorm2d(5, 3)
    torch.nn.init.normal_(source.weight)  # type: ignore[arg-type]
    shapes = {name: list(value.shape) for name, value in source.state_dict().items()}
    assert shapes == {"weight": [3, 5], "bias": [3, 5]}
    target.load_state_dict(source.state_dict())
    x, labels = torch.randn(1, 5, 4, 4), torch.randint(0, 3, (1, 1, 4, 4))
    assert torch.equal(source(x, labels), target(x, labels))
    shapes = {
        name: list(value.shape) for name, value in LearnableRegionNorm2d(5).state_dict().items()
    }
    assert shapes == {
        "response.weight": [1, 2, 7, 7],
        "affine.weight": [2, 1, 7, 7],
        "affine.bias": [2],
    }


def test_printing_shows_the_settings() -> None:
    text = repr(RegionNorm2d(8, 3, stats="batch", activation="relu"))
    for part in ("8", "num_regions=3", "stats='batch'", "affine=True", "activation='relu'"):
        assert part in text
    text = repr(LearnableRegionNorm2d(8, threshold=0.6, stats="layer"))
    for part in ("8", "threshold=0.6", "stats='layer'"):
        assert part in text


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="num_features is 0"):
        RegionNorm2d(0)
    with pytest.raises(ValueError, match="'group:3', but 3 does not divide 8"):
        RegionNorm2d(8, stats="group:3")
    with pytest.raises(ValueError, match="kernel_size is 6; it should be odd"):
        LearnableRegionNorm2d(8, kernel_size=6)
    with pytest.raises(ValueError, match=r"threshold is 1\.5"):
        LearnableRegionNorm2d(8, threshold=1.5)
    with pytest.raises(ValueError, match="'sample'"):
        LearnableRegionNorm2d(8, stats="sample")


def naive_learnable(layer: LearnableRegionNorm2d, x: Tensor) -> Tensor:
    """Eq. 14-16 as loops over float64 numbers."""
    first = layer.response.weight.detach().double().numpy()
    second = layer.affine.weight.detach().double().numpy()
    assert layer.affine.bias is not None
    bias = layer.affine.bias.detach().double().numpy()
    values = x.double().numpy()
    samples, channels, height, width = values.shape
    half = first.shape[2] // 2
    result = np.empty_like(values)

    def at(plane: np.ndarray, i: int, j: int) -> float:
        return float(plane[i, j]) if 0 <= i < height and 0 <= j < width else 0.0

    def correlate(plane: np.ndarray, kernel: np.ndarray, i: int, j: int) -> float:
        return sum(
            kernel[u, v] * at(plane, i + u - half, j + v - half)
            for u in range(kernel.shape[0])
            for v in range(kernel.shape[1])
        )

    for n in range(samples):
        mean, most = values[n].mean(0), values[n].max(0)
        response = np.empty((height, width))
        for i, j in np.ndindex(height, width):
            logit = correlate(mean, first[0, 0], i, j) + correlate(most, first[0, 1], i, j)
            response[i, j] = 1 / (1 + math.exp(-logit))
        regions = response > layer.threshold
        for c in range(channels):
            for region in (regions, ~regions):
                inside = values[n, c][region]
                if inside.size:
                    scaled = (inside - inside.mean()) / math.sqrt(inside.var() + layer.eps)
                    result[n, c][region] = scaled
        for i, j in np.ndindex(height, width):
            gamma = correlate(response, second[0, 0], i, j) + bias[0]
            beta = correlate(response, second[1, 0], i, j) + bias[1]
            result[n, :, i, j] = result[n, :, i, j] * (1 + gamma) + beta
    return torch.from_numpy(result)


def learnable(**options: object) -> LearnableRegionNorm2d:
    """A layer whose gamma and beta matter."""
    layer = LearnableRegionNorm2d(4, **options)  # type: ignore[arg-type]
    torch.nn.init.normal_(layer.affine.weight, std=0.2)
    assert layer.affine.bias is not None
    torch.nn.init.normal_(layer.affine.bias, std=0.2)
    return layer


@pytest.mark.parametrize("kernel_size", [3, 7])
def test_learnable_region_norm_equals_the_equations(kernel_size: int) -> None:
    layer = learnable(threshold=0.5, kernel_size=kernel_size)
    x = torch.randn(2, 4, 9, 8)
    regions = layer.region_mask(layer.spatial_response(x))
    assert regions.any() and not regions.all()
    expected = naive_learnable(layer, x)
    torch.testing.assert_close(layer(x).double(), expected, rtol=1e-5, atol=1e-5)


def test_the_region_is_strictly_above_the_threshold() -> None:
    layer = LearnableRegionNorm2d(4, threshold=0.5)
    response = torch.tensor([0.5, 0.5000001, 0.4, 1.0])
    assert layer.region_mask(response).tolist() == [False, True, False, True]
    torch.nn.init.zeros_(layer.response.weight)  # the response is 0.5 everywhere
    x = torch.randn(1, 4, 6, 6)
    scale = 1 + F.conv2d(torch.full((1, 1, 6, 6), 0.5), layer.affine.weight, padding=3)
    expected = ops.region_norm(x, torch.zeros(1, 1, 6, 6)) * scale[:, :1] + scale[:, 1:] - 1
    torch.testing.assert_close(layer(x), expected, rtol=1e-5, atol=1e-5)


def test_no_gradient_flows_through_the_mask() -> None:
    layer = learnable(threshold=0.5).double()
    with torch.no_grad():  # gamma and beta do not depend on the response: only the mask does
        layer.affine.weight.zero_()
    x = torch.randn(1, 4, 9, 8, dtype=torch.float64, requires_grad=True)
    mask = layer.region_mask(layer.spatial_response(x))
    assert not mask.requires_grad
    assert layer.affine.bias is not None
    gamma, beta = layer.affine.bias.detach()
    fixed = ops.region_norm(x, mask) * (1 + gamma) + beta
    (expected,) = torch.autograd.grad(fixed.sin().sum(), x)
    found = torch.autograd.grad(layer(x).sin().sum(), (x, layer.response.weight))
    torch.testing.assert_close(found[0], expected)
    assert not found[1].any()


def test_the_response_learns_through_gamma_and_beta() -> None:
    layer = learnable()
    layer(torch.randn(2, 4, 9, 8)).square().sum().backward()
    for parameter in layer.parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0


def test_gamma_and_beta_stay_within_the_bound() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 4, 9, 7)
    layer = LearnableRegionNorm2d(4, bound=0.5)
    with torch.no_grad():
        layer.affine.weight.mul_(0.1)
    free = LearnableRegionNorm2d(4)
    free.load_state_dict(layer.state_dict())
    assert torch.equal(layer(x), free(x))  # far from the bound it changes nothing
    with torch.no_grad():
        for parameter in layer.affine.parameters():
            parameter.uniform_(-3, 1)
    free.load_state_dict(layer.state_dict())
    response = layer.spatial_response(x)
    gamma, beta = layer.pixel_maps(response)
    assert gamma.abs().max() <= 0.5 and beta.abs().max() <= 0.5
    assert free.pixel_maps(response)[1].abs().max() > 1
    share = (
        layer.pixel_maps(torch.ones_like(response))[1]
        / free.pixel_maps(torch.ones_like(response))[1]
    )
    assert torch.allclose(share, share.flatten()[0])  # the same maps at a smaller scale
    layer(x).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in layer.parameters())


def test_a_bound_is_shown_and_checked() -> None:
    assert "bound=0.5" in repr(LearnableRegionNorm2d(4, bound=0.5))
    for bound in (0.0, -1.0, 1.5):
        with pytest.raises(ValueError, match="at most 1"):
            LearnableRegionNorm2d(4, bound=bound)


def test_relu_is_part_of_the_layer() -> None:
    layer, fused = learnable(), learnable(activation="relu")
    fused.load_state_dict(layer.state_dict())
    x = torch.randn(2, 4, 9, 8)
    assert torch.equal(fused(x), layer(x).relu())


def test_autocast_gives_back_the_dtype_of_the_features() -> None:
    x, mask = torch.randn(2, 4, 9, 8).bfloat16(), torch.rand(2, 1, 9, 8).round()
    with torch.autocast("cpu", torch.bfloat16):
        assert RegionNorm2d(4)(x, mask).dtype == torch.bfloat16
        assert LearnableRegionNorm2d(4)(x).dtype == torch.bfloat16


def test_without_affine_the_layer_still_has_its_regions() -> None:
    layer = RegionNorm2d(4, 3, stats="batch", affine=False, track_running_stats=True)
    x = torch.randn(2, 4, 8, 8) * 2 + 5
    layer(x, torch.zeros(2, 1, 8, 8))
    assert layer.num_batches_tracked is not None
    assert layer.num_batches_tracked.tolist() == [1, 0, 0]
    with pytest.raises(ValueError, match="labels range from 0 to 4; expected 0 to 2"):
        layer(x, torch.arange(5).repeat(26)[:128].view(2, 1, 8, 8))


def test_an_activation_that_is_not_known_is_refused() -> None:
    for layer in (RegionNorm2d, LearnableRegionNorm2d):
        with pytest.raises(ValueError, match="activation is 'gelu'; expected None or 'relu'"):
            layer(4, activation="gelu")
