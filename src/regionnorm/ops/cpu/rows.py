"""Kernels over channels-last features, all channels of a pixel side by side.

Functions of the same names as in ``planes``. Work is cut into blocks of pixels, whose partial sums
are combined by a kernel of their own.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from regionnorm.ops.cpu.call import buffer, group_planes, run

__all__ = [
    "affine_backward",
    "affine_forward",
    "affine_given",
    "mean_max",
    "mean_max_backward",
    "pixel_backward",
    "pixel_forward",
    "pixel_given",
]

BLOCK_VALUES = 1 << 14  # values of a block


def affine_forward(
    x: Tensor,
    labels: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    regions: int,
    kind: str,
    num_groups: int,
    eps: float,
    relu: bool,
) -> tuple[Tensor, Tensor]:
    """Result, and the statistics ``[4, N, K, C]``."""
    stats = _statistics(x, labels, regions, kind, num_groups, eps)
    return affine_given(x, labels, stats, weight, bias, relu), stats


def affine_given(
    x: Tensor,
    labels: Tensor,
    stats: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    relu: bool,
) -> Tensor:
    """Result by statistics ``[4, N, K, C]``, of which the last is not read."""
    out = torch.empty_like(x)
    chunk, tasks = _blocks(x)
    run(
        "rows_forward",
        x,
        tasks,
        regions=stats.shape[2],
        relu=relu,
        labels=labels,
        x=x,
        out=out,
        stats=_table(stats, weight, bias),
        chunk=chunk,
    )
    return out


def affine_backward(
    grad: Tensor,
    x: Tensor,
    labels: Tensor,
    stats: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    regions: int,
    kind: str,
    num_groups: int,
    relu: bool,
) -> tuple[Tensor, Tensor]:
    """Gradient of x, and the sums of each plane ``[2, N, K, C]`` for weight and bias."""
    out = torch.empty_like(x)
    chunk, tasks = _blocks(x)
    parts = buffer(tasks, regions, 2, x.shape[1])
    shared: dict[str, Any] = {
        "regions": regions,
        "relu": relu,
        "labels": labels,
        "x": x,
        "stats": _table(stats, weight, bias),
        "grad": grad,
        "chunk": chunk,
    }
    run("rows_sums", x, tasks, scratch=parts, **shared)
    sums, rest = _combine(x, parts, stats, weight, regions, kind, num_groups)
    run("rows_gradient", x, tasks, out=out, sums=rest, **shared)
    return out, sums


def pixel_forward(
    x: Tensor, kind: str, num_groups: int, eps: float, given: dict[str, Any]
) -> tuple[Tensor, Tensor]:
    """Result, and the statistics ``[4, N, 2, C]``. ``given``: labels, maps, step, ReLU."""
    stats = _statistics(x, given["labels"], 2, kind, num_groups, eps)
    return pixel_given(x, stats, given), stats


def pixel_given(x: Tensor, stats: Tensor, given: dict[str, Any]) -> Tensor:
    """Result by statistics ``[4, N, 2, C]``, of which the last is not read."""
    out = torch.empty_like(x)
    chunk, tasks = _blocks(x)
    table = _table(stats, None, None)
    run("rows_pixel_forward", x, tasks, x=x, out=out, stats=table, chunk=chunk, **given)
    return out


def pixel_backward(
    grad: Tensor, x: Tensor, stats: Tensor, kind: str, num_groups: int, given: dict[str, Any]
) -> tuple[Tensor, Tensor]:
    """Gradient of x, and those of both maps together, ``[N, 2, H, W]``."""
    samples, channels, height, width = x.shape
    out, maps = torch.empty_like(x), buffer(samples, 2, height, width)
    chunk, tasks = _blocks(x)
    parts = buffer(tasks, 2, 2, channels)
    shared: dict[str, Any] = {
        **given,
        "x": x,
        "grad": grad,
        "stats": _table(stats, None, None),
        "chunk": chunk,
    }
    run("rows_pixel_sums", x, tasks, out=maps, scratch=parts, **shared)
    _, rest = _combine(x, parts, stats, None, 2, kind, num_groups)
    run("rows_pixel_gradient", x, tasks, out=out, sums=rest, **shared)
    return out, maps


def mean_max(x: Tensor) -> Tensor:
    """Mean and maximum over the channels, float32 ``[N, 2, H, W]``."""
    out = buffer(x.shape[0], 2, *x.shape[2:])
    chunk, tasks = _blocks(x)
    run("rows_mean_max", x, tasks, x=x, out=out, chunk=chunk)
    return out


def mean_max_backward(grad: Tensor, x: Tensor, result: Tensor, out: Tensor, add: bool) -> None:
    """Gradient of x into ``out``, or added to what stands there."""
    chunk, tasks = _blocks(x)
    run(
        "rows_mean_max_backward",
        x,
        tasks,
        x=x,
        out=out,
        stats=result,
        grad=grad,
        sums=out if add else None,
        chunk=chunk,
    )


def _blocks(x: Tensor) -> tuple[int, int]:
    """Pixels of a block, and the number of blocks of all samples."""
    pixels = max(8, BLOCK_VALUES // x.shape[1])
    return pixels, x.shape[0] * -(-x.shape[2] * x.shape[3] // pixels)


def _statistics(
    x: Tensor, labels: Tensor, regions: int, kind: str, num_groups: int, eps: float
) -> Tensor:
    """Statistics ``[4, N, K, C]``."""
    samples, channels = x.shape[:2]
    chunk, blocks = _blocks(x)
    stats = buffer(4, samples, regions, channels)
    tasks, groups = group_planes(x, kind, num_groups)
    shared: dict[str, Any] = {
        "regions": regions,
        "labels": labels,
        "x": x,
        "sums": buffer(samples, regions, channels),
        "weight": buffer(samples, regions),
        "scratch": buffer(blocks, regions, 2, channels),
        "chunk": chunk,
    }
    run("rows_pilot", x, samples, **shared)
    run("rows_moments", x, blocks, **shared)
    run("rows_statistics", x, tasks, groups=groups, eps=eps, stats=stats, **shared)
    return stats


def _table(stats: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    """Mean, slope and intercept of every region and channel, ``[N, K, 3, C]``."""
    mean, low, inverse, _ = stats.unbind()
    slope = inverse if weight is None else inverse * weight
    intercept = -low * slope if bias is None else torch.addcmul(bias, low, slope, value=-1)
    return torch.stack((mean, slope, intercept), 2)


def _combine(
    x: Tensor,
    parts: Tensor,
    stats: Tensor,
    weight: Tensor | None,
    regions: int,
    kind: str,
    num_groups: int,
) -> tuple[Tensor, Tensor]:
    """Sums of planes ``[2, N, K, C]`` from those of blocks, and the table of p and q."""
    samples, channels = x.shape[:2]
    sums = buffer(2, samples, regions, channels)
    rest = buffer(samples, regions, 2, channels)
    tasks, groups = group_planes(x, kind, num_groups)
    run(
        "rows_combine",
        x,
        tasks,
        regions=regions,
        groups=groups,
        stats=stats,
        weight=weight,
        grad=rest,
        sums=sums,
        scratch=parts,
        chunk=_blocks(x)[0],
    )
    return sums, rest
