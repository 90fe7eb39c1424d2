"""Mean and variance of regions as tensors of their own: to share, to remember, to reuse.

The kernels normalise by the statistics of their input and keep them to themselves. Where the
statistics come from elsewhere too - from other processes, from training - these functions take
their place, in plain PyTorch and differentiable as often as needed.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, distributed

from regionnorm.ops.plain import Regions, region_sums, regions_of, spread
from regionnorm.ops.region_norm import region_labels

__all__ = [
    "Moments",
    "find_regions",
    "moments_of_kernel",
    "normalise_regions",
    "region_moments",
    "several_processes",
]


class Moments(NamedTuple):
    """Statistics of regions, float32 (float64 for float64 features)."""

    mean: Tensor
    """``[N or 1, C, K]``; 0 in an empty region."""
    variance: Tensor
    """``[N or 1, C, K]``, biased; 0 in an empty region."""
    pixels: Tensor
    """How many each region has, ``[N or 1, 1, K]``."""


def normalise_regions(
    x: Tensor, regions: Regions, mean: Tensor, variance: Tensor, eps: float | Tensor
) -> Tensor:
    """Eq. 11 with given statistics.

    Args:
        x: Features ``[N, C, H, W]``.
        regions: What :func:`find_regions` made of their mask.
        mean: ``[N or 1, C, K]``.
        variance: ``[N or 1, C, K]``.
        eps: Added to the variance: a number, or ``[N or 1, 1, K]``.

    Returns:
        ``[N, C, H, W]`` in float32 (float64 for float64 features).
    """
    scale = torch.rsqrt(variance + eps)
    return ((_values(x) - spread(mean, regions)) * spread(scale, regions)).view(x.shape)


def find_regions(x: Tensor, mask: Tensor, num_regions: int) -> Regions:
    """Which pixels belong to which region.

    Args:
        x: Features ``[N, C, H, W]``.
        mask: As for :func:`regionnorm.region_norm`.
        num_regions: Regions K.

    Raises:
        ValueError: The mask does not fit.
    """
    return regions_of(region_labels(x, mask, num_regions), num_regions)


def region_moments(
    x: Tensor, regions: Regions, *, batch: bool = True, synchronise: bool = False
) -> Moments:
    """Mean and variance of every region and channel (eq. 9-10).

    Sums are taken twice, the second time of values already centred, because a variance from raw
    sums loses its digits where the mean is large; gradients flow through the second pass, which
    makes two reductions over processes forward and one backward.

    Args:
        x: Features ``[N, C, H, W]``.
        regions: What :func:`find_regions` made of their mask.
        batch: One mean for the whole batch, else one for each sample.
        synchronise: The batch is that of all processes together. All of them have to call.
    """
    values = _values(x)
    with torch.no_grad():
        sums = torch.cat([region_sums(values, regions), regions.counts(values)], dim=1)
        sums = _reduced(sums, batch, synchronise)
        count = sums[:, -1:]
        rough = sums[:, :-1] / count.clamp(min=1)
    centred = values - spread(rough, regions)
    sums = torch.cat([region_sums(v, regions) for v in (centred, centred.square())], dim=1)
    shift, square = (_reduced(sums, batch, synchronise) / count.clamp(min=1)).chunk(2, dim=1)
    return Moments(rough + shift, square - shift.square(), count)


def moments_of_kernel(stats: Tensor, eps: float) -> Moments:
    """What a kernel with statistics over the batch gave away, as moments.

    Args:
        stats: ``[4, N, K, C]``, see :func:`~regionnorm.ops.statistics.statistics_wanted`.
        eps: That of the call.
    """
    # All samples have the same.
    mean, rest, inverse, count = (part.t()[None] for part in stats[:, 0])
    occupied = inverse > 0
    variance = inverse.square().reciprocal().sub(eps).clamp(min=0)
    return Moments(mean + rest, torch.where(occupied, variance, 0), count[:, :1])


def several_processes() -> bool:
    """Whether more than one process trains."""
    return (
        distributed.is_available()
        and distributed.is_initialized()
        and distributed.get_world_size() > 1
    )


def _values(x: Tensor) -> Tensor:
    return x.flatten(2).to(torch.promote_types(x.dtype, torch.float32))


def _reduced(sums: Tensor, batch: bool, synchronise: bool) -> Tensor:
    if batch:
        sums = sums.sum(0, keepdim=True)
    if synchronise:
        reduced: Tensor = _SumOverProcesses.apply(sums)  # type: ignore[no-untyped-call]
        return reduced
    return sums


class _SumOverProcesses(torch.autograd.Function):
    """All-reduce; what every process receives, every process has a gradient for."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        """Sum over processes."""
        total = x.detach().clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        """Sum of the gradients of all processes."""
        return _SumOverProcesses.apply(grad)  # type: ignore[no-untyped-call]
