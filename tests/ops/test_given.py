"""Given statistics by kernels: what plain PyTorch computes, and nothing where no kernel fits."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from regionnorm.nn import LearnableRegionNorm2d, RegionNorm2d
from regionnorm.ops.backend import backend
from regionnorm.ops.given import learnable_region_norm_by, region_norm_by

pytest.importorskip("numba")

LAYOUTS = [torch.contiguous_format, torch.channels_last]


def make_layer(kind: str, regions: int = 2, **options: object) -> torch.nn.Module:
    """A layer in evaluation that has seen a batch."""
    torch.manual_seed(0)
    chosen = {"stats": "batch", "track_running_stats": True, **options}
    if kind == "rn-b":
        layer: torch.nn.Module = RegionNorm2d(5, regions, **chosen)
    else:
        layer = LearnableRegionNorm2d(5, threshold=0.5, **chosen)
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    for name, average in layer.named_buffers():
        if average.is_floating_point():
            average.copy_(torch.randn_like(average).abs() + ("var" in name))
    return layer.eval()


def run(layer: torch.nn.Module, x: Tensor, mask: Tensor) -> Tensor:
    with torch.no_grad():
        result: Tensor = layer(x, mask) if isinstance(layer, RegionNorm2d) else layer(x)
    return result


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("activation", [None, "relu"])
@pytest.mark.parametrize(
    ("kind", "regions", "options"),
    [
        ("rn-b", 2, {}),
        ("rn-b", 4, {}),
        ("rn-b", 2, {"affine": False}),
        ("rn-l", 2, {}),
        ("rn-l", 2, {"bound": 0.5}),
    ],
)
def test_kernels_normalise_by_running_averages_as_plain_torch_does(
    kind, regions, options, activation, layout
):
    layer = make_layer(kind, regions, activation=activation, **options)
    x = torch.randn(3, 5, 9, 7).contiguous(memory_format=layout)
    mask = torch.randint(0, regions, (3, 1, 9, 7)).to(torch.int64 if regions > 2 else torch.float32)
    with backend("plain"):
        expected = run(layer, x, mask)
    output = run(layer, x, mask)
    assert output.dtype == x.dtype
    assert torch.allclose(output, expected, atol=1e-5)


@pytest.mark.parametrize("kind", ["rn-b", "rn-l"])
@pytest.mark.parametrize("size", [(1, 1), (1, 6), (5, 1)])
def test_maps_of_a_pixel_or_a_row_and_one_mask_for_all(kind, size):
    layer, x = make_layer(kind), torch.randn(2, 5, *size)
    mask = torch.ones(1, 1, *size)
    with backend("plain"):
        expected = run(layer, x, mask)
    assert torch.allclose(run(layer, x, mask), expected, atol=1e-5)


@pytest.mark.parametrize("kind", ["rn-b", "rn-l"])
def test_half_precision_is_computed_in_float32(kind):
    layer, x = make_layer(kind), torch.randn(2, 5, 8, 8).bfloat16()
    mask = (torch.rand(2, 1, 8, 8) > 0.5).float()
    exact = run(layer, x.float(), mask)
    output = run(layer, x, mask)
    assert output.dtype == torch.bfloat16
    assert torch.equal(output, exact.bfloat16())


@pytest.mark.parametrize("kind", ["rn-b", "rn-l"])
def test_gradients_in_evaluation_are_those_of_plain_torch(kind):
    layer = make_layer(kind)
    x, mask = torch.randn(2, 5, 6, 6), (torch.rand(2, 1, 6, 6) > 0.5).float()

    def gradient() -> Tensor:
        leaf = x.clone().requires_grad_()
        result = layer(leaf, mask) if kind == "rn-b" else layer(leaf)
        result.square().sum().backward()
        assert leaf.grad is not None
        return leaf.grad

    found = gradient()
    with backend("plain"):
        assert torch.allclose(found, gradient(), atol=1e-4)


def test_no_kernel_is_taken_where_none_fits():
    x, mask = torch.randn(1, 3, 4, 4), torch.zeros(1, 1, 4, 4)
    mean, variance = torch.zeros(2, 3), torch.ones(2, 3)
    affine = {"eps": 1e-5, "relu": False}
    assert region_norm_by(x, mask, mean, variance, None, None, **affine) is not None
    assert region_norm_by(x.double(), mask, mean, variance, None, None, **affine) is None
    leaf = x.clone().requires_grad_()
    assert region_norm_by(leaf, mask, mean, variance, None, None, **affine) is None
    weights = (torch.randn(1, 2, 3, 3), torch.randn(2, 1, 3, 3), torch.randn(2))
    learned = {"threshold": 0.5, **affine}
    assert learnable_region_norm_by(x, mean, variance, *weights, **learned) is not None
    with backend("plain"):
        assert region_norm_by(x, mask, mean, variance, None, None, **affine) is None
        assert learnable_region_norm_by(x, mean, variance, *weights, **learned) is None
