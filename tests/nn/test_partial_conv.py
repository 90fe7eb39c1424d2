"""Partial convolution against its formula, element by element."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from regionnorm.nn import PartialConv2d, partial_conv2d

WIDE = torch.float64


def expected(
    x: Tensor,
    known: Tensor,
    weight: Tensor,
    bias: Tensor,
    stride: int = 1,
    padding: int = 0,
    dilation: int = 1,
) -> tuple[Tensor, Tensor]:
    """Liu et al. (2018), eq. 1 and 2, window by window."""
    known = known.expand_as(x).to(x.dtype)
    x, known = (F.pad(part, (padding,) * 4) for part in (x, known))
    reach_y, reach_x = (dilation * (size - 1) + 1 for size in weight.shape[2:])
    rows = range(0, x.shape[2] - reach_y + 1, stride)
    columns = range(0, x.shape[3] - reach_x + 1, stride)
    out = x.new_zeros(len(x), len(weight), len(rows), len(columns))
    reached = x.new_zeros(len(x), 1, len(rows), len(columns))
    for n in range(len(x)):
        for i, top in enumerate(rows):
            for j, left in enumerate(columns):
                place = (
                    n,
                    slice(None),
                    slice(top, top + reach_y, dilation),
                    slice(left, left + reach_x, dilation),
                )
                count = known[place].sum()
                if count == 0:
                    continue
                reached[n, 0, i, j] = 1
                ratio = known[place].numel() / count
                for o in range(len(weight)):
                    total = (weight[o] * x[place] * known[place]).sum()
                    out[n, o, i, j] = total * ratio + bias[o]
    return out, reached


def example(height: int, width: int, mask_channels: int) -> tuple[Tensor, ...]:
    x = torch.randn(2, 3, height, width, dtype=WIDE)
    known = torch.rand(2, mask_channels, height, width) > 0.6
    known[0, :, : height // 2 + 1, : width // 2 + 1] = False
    weight, bias = torch.randn(4, 3, 3, 3, dtype=WIDE), torch.randn(4, dtype=WIDE)
    return x, known, weight, bias


@pytest.mark.parametrize("mask_channels", [1, 3])
@pytest.mark.parametrize(
    "geometry",
    [{}, {"padding": 1}, {"stride": 2, "padding": 1}, {"padding": 2, "dilation": 2}],
)
def test_it_is_the_formula_of_the_paper(geometry: dict[str, int], mask_channels: int) -> None:
    x, known, weight, bias = example(7, 10, mask_channels)
    out, reached = partial_conv2d(x, known, weight, bias, **geometry)
    wanted, wanted_reached = expected(x, known, weight, bias, **geometry)
    assert 0 < reached.mean() < 1
    assert torch.equal(reached.to(WIDE), wanted_reached)
    # The ratio of counts is taken in float32.
    assert torch.allclose(out, wanted, rtol=1e-6, atol=1e-6)


def test_a_share_says_as_much_as_a_map_for_each_channel() -> None:
    x, known, weight, bias = example(7, 10, 3)
    x = x * known
    share = known.to(WIDE).mean(dim=1, keepdim=True)
    assert len(share.unique()) == 4
    out, reached = partial_conv2d(x, share, weight, bias, padding=1)
    wanted, wanted_reached = expected(x, known, weight, bias, padding=1)
    assert torch.equal(reached.to(WIDE), wanted_reached)
    assert torch.allclose(out, wanted, rtol=1e-6, atol=1e-6)


def test_with_everything_known_it_is_a_convolution() -> None:
    x, known, weight, bias = example(6, 6, 1)
    out, reached = partial_conv2d(x, torch.ones_like(known), weight, bias)
    assert torch.allclose(out, F.conv2d(x, weight, bias))
    assert reached.min() == 1


def test_with_nothing_known_it_is_zero() -> None:
    x, known, weight, bias = example(6, 6, 3)
    out, reached = partial_conv2d(x, torch.zeros_like(known), weight, bias, padding=1)
    assert not out.any()
    assert not reached.any()


def test_what_is_not_known_is_never_read() -> None:
    x, known, weight, bias = example(9, 9, 3)
    poisoned = torch.where(known, x, torch.nan)
    clean, _ = partial_conv2d(x, known, weight, bias, padding=1)
    assert torch.equal(clean, partial_conv2d(poisoned, known, weight, bias, padding=1)[0])


def test_what_is_known_grows_until_the_hole_is_gone() -> None:
    known = torch.ones(1, 1, 17, 17)
    known[..., 4:13, 4:13] = 0
    layer = PartialConv2d(1, 1, 3, padding=1)
    left = []
    for _ in range(6):
        left.append(int((1 - known).sum()))
        known = layer(torch.zeros(1, 1, 17, 17), known)[1]
    assert left == [81, 49, 25, 9, 1, 0]


def test_gradients_are_those_of_the_formula() -> None:
    x, known, weight, bias = (part[:1] for part in example(4, 5, 1))
    leaves = tuple(leaf.requires_grad_() for leaf in (x, weight, bias))

    def run(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return partial_conv2d(x, known, weight, bias, padding=1)[0]

    assert torch.autograd.gradcheck(run, leaves)


def test_wide_windows_keep_their_scale_in_half_precision() -> None:
    # 4,608 known elements in a window: more than float16 counts exactly.
    layer = PartialConv2d(512, 1, 3, bias=False)
    x, known = torch.ones(1, 512, 3, 3), torch.ones(1, 1, 3, 3)
    known[..., 0, 0] = 0
    wanted = layer(x, known)[0]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out, reached = layer(x, known)
    assert out.dtype == torch.bfloat16
    assert reached.dtype == torch.float32
    assert torch.allclose(out.float(), wanted, rtol=0.02, atol=0.02)


@pytest.mark.parametrize("shape", [(2, 2, 5, 5), (1, 1, 5, 5), (2, 1, 5, 6)])
def test_a_mask_that_does_not_fit_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="known has shape"):
        partial_conv2d(torch.zeros(2, 3, 5, 5), torch.ones(shape), torch.zeros(1, 3, 3, 3))
