"""Statistics of regions on their own."""

from __future__ import annotations

import pytest
import torch

from regionnorm import ops
from regionnorm.ops.backend import backend
from regionnorm.ops.moments import find_regions, normalise_regions, region_moments


@pytest.mark.parametrize("stats", ["instance", "batch"])
def test_moments_normalise_as_region_norm_does(stats: str) -> None:
    x, labels = torch.randn(2, 3, 6, 5) * 3 + 100, torch.randint(0, 4, (2, 1, 6, 5))
    regions = find_regions(x, labels, 4)
    found = region_moments(x, regions, batch=stats == "batch")
    result = normalise_regions(x, regions, found.mean, found.variance, 1e-5)
    torch.testing.assert_close(result, ops.region_norm(x, labels, stats=stats))


def test_moments_count_pixels_and_leave_empty_regions_at_zero() -> None:
    x, mask = torch.randn(2, 3, 4, 4) + 5, torch.zeros(2, 1, 4, 4)
    found = region_moments(x, find_regions(x, mask, 2))
    assert found.pixels.tolist() == [[[32, 0]]]
    assert not found.mean[..., 1].any() and not found.variance[..., 1].any()
    torch.testing.assert_close(found.mean[0, :, 0], x.mean((0, 2, 3)))
    torch.testing.assert_close(found.variance[0, :, 0], x.var((0, 2, 3), correction=0))


def test_gradients_of_moments_are_right_twice() -> None:
    x = torch.randn(2, 2, 3, 3, dtype=torch.float64, requires_grad=True)
    regions = find_regions(x, torch.rand(2, 1, 3, 3).round(), 2)

    def normalised(x: torch.Tensor) -> torch.Tensor:
        found = region_moments(x, regions)
        return normalise_regions(x, regions, found.mean, found.variance, 0.1)

    assert torch.autograd.gradcheck(normalised, (x,))
    assert torch.autograd.gradgradcheck(normalised, (x,))


def test_plain_statistics_stay_in_full_precision_under_autocast() -> None:
    x, mask = torch.randn(2, 4, 8, 8) * 3 + 50, torch.rand(2, 1, 8, 8).round()
    with backend("plain"):
        expected = ops.region_norm(x, mask)
        with torch.autocast("cpu", torch.bfloat16):
            found = ops.region_norm(x, mask)
    torch.testing.assert_close(found, expected)
