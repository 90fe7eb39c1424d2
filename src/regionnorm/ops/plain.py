"""The operations in plain PyTorch: every device and dtype, any number of derivatives.

Pixels of a region are chosen, never multiplied by 0 or 1: NaN in one region stays there, forward
and backward, and no setting for the precision of matrix products reaches the statistics.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = [
    "Regions",
    "channel_mean_max",
    "learnable_region_norm",
    "pixel_maps",
    "region_norm",
    "region_norm_per_pixel",
    "region_sums",
    "regions_of",
    "spatial_response",
    "spread",
]


# From so many regions on, one pass over a table is faster than a pass for each. Not on GPUs: there
# such a pass adds in any order, and no two runs would be the same.
_MANY = 3
_STRETCH = 256  # pixels at least that are added one by one, the sums of stretches pairwise


class Regions(NamedTuple):
    """Which pixels belong to which region."""

    inside: tuple[Tensor, ...]
    """The pixels of each region, bool ``[N or 1, 1, L]``; empty where there are many regions."""
    entries: Tensor | None = None
    """Of many regions: where in a table of stretches of pixels and regions each pixel belongs,
    ``[N or 1, 1, L]``."""
    table: tuple[int, int] = (1, 0)
    """Stretches and regions."""

    def counts(self, like: Tensor) -> Tensor:
        """Pixels of each region, ``[N, 1, K]`` in the dtype of ``like``, which has N samples."""
        if self.entries is not None:
            counts = region_sums(torch.ones_like(self.entries, dtype=like.dtype), self)
        else:
            counts = torch.stack([inside.sum(-1) for inside in self.inside], dim=-1)
        return counts.to(like.dtype).expand(like.shape[0], -1, -1)


def regions_of(labels: Tensor, num_regions: int) -> Regions:
    """Regions of labels ``[N or 1, L]`` of an integer dtype or bool."""
    labels = labels[:, None]
    if labels.dtype == torch.bool and num_regions == 2:
        return Regions((~labels, labels))
    if num_regions < _MANY or labels.device.type != "cpu":
        return Regions(tuple(labels == region for region in range(num_regions)))
    length = labels.shape[2]
    stretch = max(_STRETCH, 4 * num_regions)  # or the table would be as large as the features
    first = torch.arange(length, device=labels.device).div(stretch, rounding_mode="floor")
    table = (-(-length // stretch), num_regions)
    return Regions((), labels.long() + first * num_regions, table)


def region_norm(
    x: Tensor,
    labels: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    *,
    num_regions: int,
    groups: tuple[str, int],
    eps: float,
    relu: bool,
) -> Tensor:
    """Normalise by regions; ``labels`` are ``[N or 1, H * W]`` of any integer dtype or bool."""
    regions = regions_of(labels, num_regions)
    normalised = _normalise(x, regions, groups, eps)
    if weight is not None:
        normalised = normalised * spread(weight.to(normalised.dtype).t()[None], regions)
    if bias is not None:
        normalised = normalised + spread(bias.to(normalised.dtype).t()[None], regions)
    return _finish(normalised, x, relu)


def region_norm_per_pixel(
    x: Tensor,
    labels: Tensor,
    scale: Tensor,
    shift: Tensor,
    *,
    groups: tuple[str, int],
    eps: float,
    relu: bool,
) -> Tensor:
    """Normalise two regions, then scale and shift every pixel."""
    normalised = _normalise(x, regions_of(labels, 2), groups, eps)
    dtype = normalised.dtype
    result = normalised * scale.to(dtype).flatten(2) + shift.to(dtype).flatten(2)
    return _finish(result, x, relu)


def channel_mean_max(x: Tensor) -> Tensor:
    """Mean and maximum over the channels, ``[N, 2, H, W]``."""
    return torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], dim=1)


def learnable_region_norm(
    x: Tensor,
    response_weight: Tensor,
    affine_weight: Tensor,
    affine_bias: Tensor,
    *,
    threshold: float,
    groups: tuple[str, int],
    eps: float,
    relu: bool,
) -> Tensor:
    """Find two regions (eq. 14-15), normalise by them, scale and shift every pixel (eq. 16)."""
    response = spatial_response(channel_mean_max(x), response_weight)
    labels = (response.detach() > threshold).flatten(1)
    gamma, beta = pixel_maps(response, affine_weight, affine_bias)
    return region_norm_per_pixel(x, labels, 1 + gamma, beta, groups=groups, eps=eps, relu=relu)


def spatial_response(summary: Tensor, weight: Tensor) -> Tensor:
    """Eq. 14 from the channels' mean and maximum; features and weights may differ in dtype."""
    return _convolve(summary, weight, None).sigmoid()


def pixel_maps(response: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Gamma and beta of every pixel ``[N, 1, H, W]`` (eq. 16)."""
    gamma, beta = _convolve(response, weight, bias).chunk(2, dim=1)
    return gamma, beta


def _convolve(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Convolution to the same size in the wider of the two dtypes (or in autocast's)."""
    dtype = torch.promote_types(x.dtype, weight.dtype)
    bias = None if bias is None else bias.to(dtype)
    return F.conv2d(x.to(dtype), weight.to(dtype), bias, padding=weight.shape[2] // 2)


def _normalise(x: Tensor, regions: Regions, groups: tuple[str, int], eps: float) -> Tensor:
    """Eq. 9-12 on flattened features: ``[N, C, L]`` in the dtype of the statistics.

    The mean is taken twice. The second pass, over values already centred, removes the rounding
    error of the first, which matters when the mean is much larger than the deviation; gradients
    flow through the second only, because ``x - mean(x)`` does not depend on a constant shift.
    """
    values = x.flatten(2).to(torch.promote_types(x.dtype, torch.float32))
    with torch.no_grad():
        rough = spread(_region_mean(values, regions, groups), regions)
    centred = values - rough
    centred = centred - spread(_region_mean(centred, regions, groups), regions)
    variance = _region_mean(centred.square(), regions, groups)
    return centred * spread(torch.rsqrt(variance + eps), regions)


def _region_mean(values: Tensor, regions: Regions, groups: tuple[str, int]) -> Tensor:
    """Mean of each region over whatever shares statistics, ``[N or 1, C, K]``; 0 where empty."""
    kind, num_groups = groups
    total = region_sums(values, regions)
    count = regions.counts(values).expand_as(total)
    if kind == "batch":
        total, count = total.sum(0, keepdim=True), count.sum(0, keepdim=True)
    elif kind in ("layer", "group"):
        shape = total.shape
        split = (shape[0], num_groups, shape[1] // num_groups, shape[2])
        total, count = (
            t.view(split).sum(2, keepdim=True).expand(split).reshape(shape) for t in (total, count)
        )
    return total / count.clamp(min=1)


def region_sums(values: Tensor, regions: Regions) -> Tensor:
    """Sum over the pixels of each region: ``[N, C, L]`` -> ``[N, C, K]``."""
    if regions.entries is not None:
        empty = values.new_zeros(*values.shape[:2], math.prod(regions.table))
        sums = empty.scatter_add(2, regions.entries.expand_as(values), values)
        return sums.view(*sums.shape[:2], *regions.table).sum(2)
    return torch.stack(
        [torch.where(inside, values, 0).sum(-1) for inside in regions.inside], dim=-1
    )


def spread(per_region: Tensor, regions: Regions) -> Tensor:
    """Give every pixel its region's value: ``[N or 1, C, K]`` -> ``[N or 1, C, L or 1]``.

    What comes back broadcasts to ``[N, C, L]``.
    """
    if regions.entries is not None:
        table = per_region[:, :, None].expand(-1, -1, regions.table[0], -1).flatten(2)
        samples = len(per_region) if len(regions.entries) == 1 else len(regions.entries)
        entries = regions.entries.expand(samples, per_region.shape[1], -1)
        return table.expand(samples, -1, -1).gather(2, entries)
    spread = per_region[..., :1]
    for region, inside in enumerate(regions.inside[1:], start=1):
        spread = torch.where(inside, per_region[..., region : region + 1], spread)
    return spread


def _finish(result: Tensor, x: Tensor, relu: bool) -> Tensor:
    """Restore shape and dtype and apply the activation."""
    if relu:
        result = torch.relu(result)
    return result.reshape(x.shape).to(x.dtype)
