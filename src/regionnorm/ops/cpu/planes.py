"""Kernels over contiguous features, a plane of pixels after the other.

Functions of the same names as in ``rows``: what one kernel does here in one walk through a plane
takes several there.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from regionnorm.ops.cpu.call import buffer, group_planes, run

__all__ = [
    "affine_backward",
    "affine_forward",
    "mean_max",
    "mean_max_backward",
    "pixel_backward",
    "pixel_forward",
]

NUM_CHUNKS = 32  # shares in which sums over channels are cut, whatever the number of threads
MEAN_MAX_PIXELS = 1024


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
    out, stats = torch.empty_like(x), buffer(4, x.shape[0], regions, x.shape[1])
    tasks, groups = group_planes(x, kind, num_groups)
    run(
        "planes_forward",
        x,
        tasks,
        regions=regions,
        groups=groups,
        eps=eps,
        relu=relu,
        labels=labels,
        x=x,
        out=out,
        stats=stats,
        weight=weight,
        bias=bias,
        scratch=buffer(tasks * regions * 3, dtype=torch.float64),
    )
    return out, stats


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
    out, sums = torch.empty_like(x), buffer(2, x.shape[0], regions, x.shape[1])
    tasks, groups = group_planes(x, kind, num_groups)
    run(
        "planes_backward",
        x,
        tasks,
        regions=regions,
        groups=groups,
        relu=relu,
        labels=labels,
        x=x,
        out=out,
        stats=stats,
        weight=weight,
        bias=bias,
        grad=grad,
        sums=sums,
        scratch=buffer(tasks * regions * 2, dtype=torch.float64),
    )
    return out, sums


def pixel_forward(
    x: Tensor, kind: str, num_groups: int, eps: float, given: dict[str, Any]
) -> tuple[Tensor, Tensor]:
    """Result, and the statistics ``[4, N, 2, C]``. ``given``: labels, maps, step, ReLU."""
    out, stats = torch.empty_like(x), buffer(4, x.shape[0], 2, x.shape[1])
    tasks, groups = group_planes(x, kind, num_groups)
    run(
        "planes_pixel_forward",
        x,
        tasks,
        groups=groups,
        eps=eps,
        x=x,
        out=out,
        stats=stats,
        scratch=buffer(tasks * 2 * 3, dtype=torch.float64),
        **given,
    )
    return out, stats


def pixel_backward(
    grad: Tensor, x: Tensor, stats: Tensor, kind: str, num_groups: int, given: dict[str, Any]
) -> tuple[Tensor, Tensor]:
    """Gradient of x, and those of both maps together, ``[N, 2, H, W]``."""
    samples, channels, height, width = x.shape
    out = torch.empty_like(x)
    chunk = max(1, -(-samples * channels // NUM_CHUNKS))
    chunks = -(-channels // chunk)
    tasks, groups = group_planes(x, kind, num_groups)
    shares = samples * chunks * 2 * height * width
    scratch = buffer(shares + samples * chunks * 8)
    shared: dict[str, Any] = {
        **given,
        "groups": groups,
        "x": x,
        "grad": grad,
        "out": out,
        "stats": stats,
        "sums": buffer(2, samples, 2, channels),
        "chunk": chunk,
    }
    run("planes_pixel_sums", x, samples * chunks, scratch=scratch, **shared)
    if groups[0] != 1:
        again = buffer(tasks * 4, dtype=torch.float64)
        run("planes_pixel_gradient", x, tasks, scratch=again, **shared)
    return out, scratch[:shares].view(samples, chunks, 2, height, width).sum(1)


def mean_max(x: Tensor) -> Tensor:
    """Mean and maximum over the channels, float32 ``[N, 2, H, W]``."""
    out = buffer(x.shape[0], 2, *x.shape[2:])
    run("planes_mean_max", x, _mean_max_tasks(x), x=x, out=out, chunk=MEAN_MAX_PIXELS)
    return out


def mean_max_backward(grad: Tensor, x: Tensor, result: Tensor, out: Tensor, add: bool) -> None:
    """Gradient of x into ``out``, or added to what stands there."""
    tasks = _mean_max_tasks(x)
    run(
        "planes_mean_max_backward",
        x,
        tasks,
        x=x,
        out=out,
        stats=result,
        grad=grad,
        sums=out if add else None,
        scratch=buffer(tasks * MEAN_MAX_PIXELS),
        chunk=MEAN_MAX_PIXELS,
    )


def _mean_max_tasks(x: Tensor) -> int:
    return x.shape[0] * -(-x.shape[2] * x.shape[3] // MEAN_MAX_PIXELS)
