"""Gated convolution against its formula."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from regionnorm.nn import GatedConv2d, make_norm

WIDE = torch.float64


def expected(layer: GatedConv2d, x: Tensor, stride: int, dilation: int) -> Tensor:
    """Yu et al. (2019), eq. 3: features and gates by two separate sums over each window."""
    weight, bias = layer.conv.weight, layer.conv.bias
    assert bias is not None
    half, size = len(weight) // 2, weight.shape[-1]
    padded = F.pad(x, (dilation * (size // 2),) * 4)
    rows, columns = range(0, x.shape[2], stride), range(0, x.shape[3], stride)
    out = x.new_zeros(len(x), half, len(rows), len(columns))
    reach = dilation * (size - 1) + 1
    for n in range(len(x)):
        for i, top in enumerate(rows):
            for j, left in enumerate(columns):
                window = padded[n, :, top : top + reach : dilation, left : left + reach : dilation]
                for o in range(half):
                    feature = ((weight[o] * window).sum() + bias[o]).item()
                    gate = ((weight[half + o] * window).sum() + bias[half + o]).item()
                    elu = feature if feature > 0 else math.expm1(feature)
                    out[n, o, i, j] = elu / (1 + math.exp(-gate))
    return out


@pytest.mark.parametrize(("size", "stride", "dilation"), [(3, 1, 1), (5, 2, 1), (3, 1, 2)])
def test_it_is_the_formula_of_the_paper(size: int, stride: int, dilation: int) -> None:
    layer = GatedConv2d(2, 3, size, stride=stride, dilation=dilation).double()
    nn.init.normal_(layer.conv.bias)  # type: ignore[arg-type]
    x = torch.randn(2, 2, 7, 6, dtype=WIDE)
    assert torch.allclose(layer(x), expected(layer, x, stride, dilation))


def test_a_closed_gate_lets_nothing_through() -> None:
    layer = GatedConv2d(1, 2, 3)
    with torch.no_grad():
        layer.conv.weight[2:] = 0
        layer.conv.bias[2:] = -1e4  # type: ignore[index]
    assert not layer(torch.randn(1, 1, 5, 5)).any()


def test_gradients_are_those_of_the_formula() -> None:
    layer = GatedConv2d(2, 2, 3, stride=2).double()
    x = torch.randn(1, 2, 5, 4, dtype=WIDE, requires_grad=True)
    assert torch.autograd.gradcheck(layer, (x,))


def test_a_norm_acts_on_the_features_and_not_on_the_gate() -> None:
    layer = GatedConv2d(2, 4, 3, norm=make_norm("in", 4))
    x, mask = torch.randn(2, 2, 8, 8), torch.zeros(2, 1, 8, 8)
    features, gate = layer.conv(x).chunk(2, dim=1)
    wanted = F.elu(F.instance_norm(features)) * gate.sigmoid()
    assert torch.allclose(layer(x, mask), wanted, atol=1e-5)


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_each_half_is_whole_in_memory_and_the_result_keeps_the_layout(
    layout: torch.memory_format,
) -> None:
    seen = []

    def activation(features: Tensor) -> Tensor:
        seen.append(features)
        return F.elu(features)

    layer = GatedConv2d(3, 4, 3, activation=activation)
    layer.to(memory_format=layout)  # type: ignore[call-overload]
    x = torch.randn(2, 3, 8, 6)
    out = layer(x.contiguous(memory_format=layout))
    assert torch.allclose(out, layer(x.contiguous()), atol=1e-6)
    assert out.is_contiguous(memory_format=layout)
    if layout == torch.channels_last:
        assert seen[0].is_contiguous(memory_format=layout)


def test_features_keep_their_size_over_many_layers() -> None:
    x = torch.randn(1, 16, 32, 32)
    for _ in range(12):
        x = GatedConv2d(16, 16, 3)(x)
    assert 0.2 < x.square().mean().sqrt() < 5


def test_even_kernels_are_refused() -> None:
    with pytest.raises(ValueError, match="odd"):
        GatedConv2d(1, 1, 4)
