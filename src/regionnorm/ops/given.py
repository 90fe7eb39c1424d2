"""Normalising by statistics that are given, such as running averages, where kernels can.

They compute no derivatives and no statistics; who gets None takes the way of ``ops.moments``.
"""

from __future__ import annotations

import torch
from torch import Tensor

from regionnorm.ops.cpu import autograd, launch
from regionnorm.ops.region_norm import region_labels, uses_cpu_kernels

__all__ = ["learnable_region_norm_by", "region_norm_by"]


def region_norm_by(
    x: Tensor,
    mask: Tensor,
    mean: Tensor,
    variance: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    *,
    eps: float,
    relu: bool,
) -> Tensor | None:
    """:func:`regionnorm.region_norm` by ``mean`` and ``variance``, ``[K, C]`` each.

    Returns:
        Features of the shape and dtype of ``x``, channels-last; None where no kernel fits.
    """
    if not _fits(mean.shape[0], x, mask, mean, variance, weight, bias):
        return None
    labels = region_labels(x, mask, mean.shape[0])
    stats = _table(mean, variance, eps, x.shape[0])
    return launch.affine_given(x, autograd.as_bytes(labels), stats, weight, bias, relu)


def learnable_region_norm_by(
    x: Tensor,
    mean: Tensor,
    variance: Tensor,
    response_weight: Tensor,
    affine_weight: Tensor,
    affine_bias: Tensor,
    *,
    threshold: float,
    eps: float,
    relu: bool,
) -> Tensor | None:
    """:func:`regionnorm.learnable_region_norm` by ``mean`` and ``variance``, ``[2, C]`` each.

    Returns:
        Features of the shape and dtype of ``x``, channels-last; None where no kernel fits.
    """
    weights = (response_weight, affine_weight, affine_bias)
    if not _fits(2, x, mean, variance, *weights):
        return None
    stats = _table(mean, variance, eps, x.shape[0])
    return launch.learned_given(x, stats, *weights, threshold, relu)


def _fits(regions: int, x: Tensor, *others: Tensor | None) -> bool:
    given = [x, *(other for other in others if other is not None)]
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in given):
        return False
    return not torch.compiler.is_compiling() and uses_cpu_kernels(regions, *given)


def _table(mean: Tensor, variance: Tensor, eps: float, samples: int) -> Tensor:
    """What the kernels take as statistics, ``[4, N, K, C]``: the mean, its rest, 1 / std."""
    mean, variance = mean.to(torch.float32), variance.to(torch.float32)
    nothing = torch.zeros_like(mean)
    table = torch.stack([mean, nothing, torch.rsqrt(variance + eps), nothing])
    return table[:, None].expand(-1, samples, -1, -1)
