"""The operations in plain PyTorch: every device and dtype, any number of derivatives."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = [
    "channel_mean_max",
    "full_precision",
    "learnable_region_norm",
    "region_norm",
    "region_norm_per_pixel",
    "spread",
]


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
    normalised, one_hot = _normalise(x, labels, num_regions, groups, eps)
    if weight is not None:
        normalised = normalised * spread(weight.to(normalised.dtype).t()[None], one_hot)
    if bias is not None:
        normalised = normalised + spread(bias.to(normalised.dtype).t()[None], one_hot)
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
    normalised, _ = _normalise(x, labels, 2, groups, eps)
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
    padding = response_weight.shape[2] // 2
    response = F.conv2d(channel_mean_max(x), response_weight, padding=padding).sigmoid()
    labels = (response.detach() > threshold).flatten(1)
    gamma, beta = F.conv2d(response, affine_weight, affine_bias, padding=padding).chunk(2, dim=1)
    return region_norm_per_pixel(x, labels, 1 + gamma, beta, groups=groups, eps=eps, relu=relu)


def _normalise(
    x: Tensor, labels: Tensor, num_regions: int, groups: tuple[str, int], eps: float
) -> tuple[Tensor, Tensor]:
    """Eq. 9-12 on flattened features: ``[N, C, L]`` in the dtype of the statistics.

    The mean is taken twice. The second pass, over values already centred, removes the rounding
    error of the first, which matters when the mean is much larger than the deviation; gradients
    flow through the second only, because ``x - mean(x)`` does not depend on a constant shift.
    """
    values = x.flatten(2).to(torch.promote_types(x.dtype, torch.float32))
    one_hot = F.one_hot(labels.to(torch.int64), num_regions).to(values.dtype)
    one_hot = one_hot.expand(values.shape[0], -1, -1)
    with torch.no_grad():
        rough = spread(_region_mean(values, one_hot, groups), one_hot)
    centred = values - rough
    centred = centred - spread(_region_mean(centred, one_hot, groups), one_hot)
    variance = _region_mean(centred.square(), one_hot, groups)
    return centred * spread(torch.rsqrt(variance + eps), one_hot), one_hot


def _region_mean(values: Tensor, one_hot: Tensor, groups: tuple[str, int]) -> Tensor:
    """Mean of each region over whatever shares statistics, ``[N or 1, C, K]``; 0 where empty."""
    kind, num_groups = groups
    with full_precision(values):
        total = torch.matmul(values, one_hot)
    count = one_hot.sum(1, keepdim=True).expand_as(total)
    if kind == "batch":
        total, count = total.sum(0, keepdim=True), count.sum(0, keepdim=True)
    elif kind in ("layer", "group"):
        split = (total.shape[0], num_groups, -1, total.shape[2])
        shape = total.shape
        total, count = (
            t.reshape(split).sum(2, keepdim=True).expand(t.reshape(split).shape).reshape(shape)
            for t in (total, count)
        )
    return total / count.clamp(min=1)


def spread(per_region: Tensor, one_hot: Tensor) -> Tensor:
    """Give every pixel its region's value: ``[N or 1, C, K]`` -> ``[N, C, L]``."""
    expanded = per_region.expand(one_hot.shape[0], -1, -1)
    with full_precision(one_hot):
        return torch.matmul(expanded, one_hot.transpose(1, 2))


def full_precision(x: Tensor) -> AbstractContextManager[Any]:
    """Keep autocast away from matrix products of statistics."""
    return nullcontext() if x.is_meta else torch.autocast(x.device.type, enabled=False)


def _finish(result: Tensor, x: Tensor, relu: bool) -> Tensor:
    """Restore shape and dtype and apply the activation."""
    if relu:
        result = torch.relu(result)
    return result.reshape(x.shape).to(x.dtype)
