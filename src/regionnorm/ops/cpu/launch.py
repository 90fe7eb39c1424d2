"""Calls of the CPU kernels: tensors in, tensors out, without derivatives."""

from __future__ import annotations

import ctypes
import functools
import struct
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from regionnorm.ops.cpu.threads import run_on_threads

__all__ = [
    "affine_backward",
    "affine_forward",
    "learned_backward",
    "learned_forward",
    "mean_max",
    "mean_max_backward",
    "pixel_backward",
    "pixel_forward",
]

SERIAL = 1 << 14  # values below which a second thread costs more than it saves
NUM_CHUNKS = 32  # shares in which long sums are cut, whatever the number of threads
MEAN_MAX_PIXELS = 1024
ROW_VALUES = 1 << 14  # values of a block of channels-last features

Slots = ctypes.c_int64 * 23


@functools.cache
def _address(name: str, bfloat16: bool) -> int:
    """Address of a kernel. numba is imported here, at the first call, because that takes time."""
    from regionnorm.ops.cpu.kernels.compiled import compile_kernel

    return compile_kernel(name, bfloat16)


@functools.cache
def _float_bits(value: float) -> int:
    bits: int = struct.unpack("<q", struct.pack("<d", value))[0]
    return bits


def _floor_bits(relu: bool) -> int:
    """The least value of a result: no ReLU is a ReLU that starts at minus infinity."""
    return _float_bits(0.0 if relu else -float("inf"))


def _run(
    name: str,
    like: Tensor,
    tasks: int,
    *,
    regions: int = 2,
    groups: tuple[int, int, int] = (1, 1, 0),
    eps: float = 0.0,
    relu: bool = False,
    labels: Tensor | None = None,
    x: Tensor | None = None,
    out: Tensor | None = None,
    stats: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    grad: Tensor | None = None,
    sums: Tensor | None = None,
    scratch: Tensor | None = None,
    chunk: int = 0,
    pixel_step: int = 0,
) -> None:
    """Run a kernel over all its tasks. The order of the slots is that of ``kernels.language``.

    ``like`` gives the sizes, the element type and the amount of work.
    """
    samples, channels, height, width = like.shape
    slots = Slots(
        0,
        tasks,
        samples,
        channels,
        height * width,
        regions,
        *groups,
        _float_bits(eps),
        _floor_bits(relu),
        0 if labels is None else labels.data_ptr(),
        0 if labels is None or labels.shape[0] == 1 else height * width,
        *(
            0 if tensor is None else tensor.data_ptr()
            for tensor in (x, out, stats, weight, bias, grad, sums, scratch)
        ),
        chunk,
        pixel_step,
    )
    threads = 1 if like.numel() < SERIAL else min(torch.get_num_threads(), tasks)
    run_on_threads(_address(name, like.dtype == torch.bfloat16), slots, threads)


def _group_planes(x: Tensor, kind: str, num_groups: int) -> tuple[int, tuple[int, int, int]]:
    """Number of groups of planes that share statistics; size, first plane and step of a group."""
    samples, channels = x.shape[:2]
    if kind == "instance":
        return samples * channels, (1, 1, 0)
    if kind == "batch":
        return channels, (samples, 1, channels)
    size = channels // num_groups  # one group is "layer"
    return samples * num_groups, (size, size, 1)


def _float32(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.to(torch.float32).contiguous()


def _dense(x: Tensor) -> tuple[Tensor, bool]:
    """``x`` without gaps, and whether it is channels-last; other formats become contiguous."""
    rows = not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last)
    return (x if rows else x.contiguous()), rows


def _same_format(grad: Tensor, rows: bool) -> Tensor:
    return grad.contiguous(memory_format=torch.channels_last if rows else torch.contiguous_format)


def _blocks(x: Tensor) -> tuple[int, int]:
    """Pixels of a block of channels-last features, and the number of blocks of a sample."""
    pixels = max(8, ROW_VALUES // x.shape[1])
    return pixels, -(-x.shape[2] * x.shape[3] // pixels)


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
    """Result of ``region_norm``, and the statistics ``[4, N, K, C]`` for the backward pass."""
    x, rows = _dense(x)
    labels, weight, bias = labels.contiguous(), _float32(weight), _float32(bias)
    out = torch.empty_like(x)
    if rows:
        stats = _row_statistics(x, labels, regions, kind, num_groups, eps)
        chunk, blocks = _blocks(x)
        _run(
            "rows_forward",
            x,
            x.shape[0] * blocks,
            regions=regions,
            relu=relu,
            labels=labels,
            x=x,
            out=out,
            stats=_row_table(stats, weight, bias),
            chunk=chunk,
        )
        return out, stats
    stats = torch.empty(4, x.shape[0], regions, x.shape[1])
    tasks, groups = _group_planes(x, kind, num_groups)
    _run(
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
        scratch=torch.empty(tasks * regions * 3, dtype=torch.float64),
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
    eps: float,
    relu: bool,
) -> tuple[Tensor, Tensor]:
    """Gradient of x, and those of weight and bias together, ``[2, K, C]``."""
    x, rows = _dense(x)
    grad, labels = _same_format(grad, rows), labels.contiguous()
    weight, bias = _float32(weight), _float32(bias)
    out = torch.empty_like(x)
    if rows:
        table = _row_table(stats, weight, bias)
        chunk, blocks = _blocks(x)
        tasks = x.shape[0] * blocks
        parts = torch.empty(tasks, regions, 2, x.shape[1])
        shared: dict[str, Any] = {
            "regions": regions,
            "relu": relu,
            "labels": labels,
            "x": x,
            "stats": table,
            "grad": grad,
            "chunk": chunk,
        }
        _run("rows_sums", x, tasks, scratch=parts, **shared)
        sums, rest = _combine_rows(x, parts, stats, weight, regions, kind, num_groups)
        _run("rows_gradient", x, tasks, out=out, sums=rest, **shared)
        return out, sums.sum(1)
    sums = torch.empty(2, x.shape[0], regions, x.shape[1])
    tasks, groups = _group_planes(x, kind, num_groups)
    _run(
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
        scratch=torch.empty(tasks * regions * 2, dtype=torch.float64),
    )
    return out, sums.sum(1)


def _row_statistics(
    x: Tensor, labels: Tensor, regions: int, kind: str, num_groups: int, eps: float
) -> Tensor:
    """Statistics ``[4, N, K, C]`` of channels-last features."""
    samples, channels = x.shape[:2]
    chunk, blocks = _blocks(x)
    stats = torch.empty(4, samples, regions, channels)
    tasks, groups = _group_planes(x, kind, num_groups)
    arguments: dict[str, Any] = {
        "regions": regions,
        "labels": labels,
        "x": x,
        "sums": torch.empty(samples, regions, channels),
        "weight": torch.empty(samples, regions),
        "scratch": torch.empty(samples * blocks, regions, 2, channels),
        "chunk": chunk,
    }
    _run("rows_pilot", x, samples, **arguments)
    _run("rows_moments", x, samples * blocks, **arguments)
    _run("rows_statistics", x, tasks, groups=groups, eps=eps, stats=stats, **arguments)
    return stats


def _row_table(stats: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    """Mean, slope and intercept of every region and channel, ``[N, K, 3, C]``."""
    mean, low, inverse, _ = stats.unbind()
    slope = inverse if weight is None else inverse * weight
    intercept = -low * slope if bias is None else torch.addcmul(bias, low, slope, value=-1)
    return torch.stack((mean, slope, intercept), 2)


def _combine_rows(
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
    sums = torch.empty(2, samples, regions, channels)
    rest = torch.empty(samples, regions, 2, channels)
    tasks, groups = _group_planes(x, kind, num_groups)
    _run(
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


def _pixel_maps(scale: Tensor, shift: Tensor) -> tuple[Tensor, Tensor, int]:
    """Scale and shift as float32 with dense samples, and the step from sample to sample.

    The two halves of one tensor ``[N, 2, H, W]`` stay where they are.
    """
    height, width = scale.shape[2:]
    if (
        scale.dtype == shift.dtype == torch.float32
        and scale.stride()[2:] == shift.stride()[2:] == (width, 1)
        and scale.stride(0) == shift.stride(0)
    ):
        return scale, shift, scale.stride(0)
    scale, shift = (map_.to(torch.float32).contiguous() for map_ in (scale, shift))
    return scale, shift, height * width


def pixel_forward(
    x: Tensor,
    labels: Tensor,
    scale: Tensor,
    shift: Tensor,
    kind: str,
    num_groups: int,
    eps: float,
    relu: bool,
) -> tuple[Tensor, Tensor]:
    """Result of ``region_norm_per_pixel``, and the statistics ``[4, N, 2, C]``."""
    x, rows = _dense(x)
    out = torch.empty_like(x)
    labels = labels.contiguous()
    scale, shift, step = _pixel_maps(scale, shift)
    shared: dict[str, Any] = {
        "relu": relu,
        "labels": labels,
        "x": x,
        "out": out,
        "weight": scale,
        "bias": shift,
        "pixel_step": step,
    }
    if rows:
        stats = _row_statistics(x, labels, 2, kind, num_groups, eps)
        table = _row_table(stats, None, None)
        chunk, blocks = _blocks(x)
        _run("rows_pixel_forward", x, x.shape[0] * blocks, stats=table, chunk=chunk, **shared)
        return out, stats
    stats = torch.empty(4, x.shape[0], 2, x.shape[1])
    tasks, groups = _group_planes(x, kind, num_groups)
    scratch = torch.empty(tasks * 2 * 3, dtype=torch.float64)
    _run(
        "planes_pixel_forward",
        x,
        tasks,
        groups=groups,
        eps=eps,
        stats=stats,
        scratch=scratch,
        **shared,
    )
    return out, stats


def pixel_backward(
    grad: Tensor,
    x: Tensor,
    labels: Tensor,
    stats: Tensor,
    scale: Tensor,
    shift: Tensor,
    kind: str,
    num_groups: int,
    eps: float,
    relu: bool,
) -> tuple[Tensor, Tensor]:
    """Gradient of x, and those of scale and shift together, ``[N, 2, H, W]``."""
    x, rows = _dense(x)
    samples, channels, height, width = x.shape
    out = torch.empty_like(x)
    scale, shift, step = _pixel_maps(scale, shift)
    shared: dict[str, Any] = {
        "relu": relu,
        "labels": labels.contiguous(),
        "x": x,
        "weight": scale,
        "bias": shift,
        "pixel_step": step,
        "grad": _same_format(grad, rows),
    }
    if rows:
        shared["chunk"], blocks = _blocks(x)
        shared["stats"] = _row_table(stats, None, None)
        maps = torch.empty(samples, 2, height, width)
        parts = torch.empty(samples * blocks, 2, 2, channels)
        _run("rows_pixel_sums", x, samples * blocks, out=maps, scratch=parts, **shared)
        _, rest = _combine_rows(x, parts, stats, None, 2, kind, num_groups)
        _run("rows_pixel_gradient", x, samples * blocks, out=out, sums=rest, **shared)
        return out, maps
    chunk = max(1, -(-samples * channels // NUM_CHUNKS))
    chunks = -(-channels // chunk)
    tasks, groups = _group_planes(x, kind, num_groups)
    shares = samples * chunks * 2 * height * width
    scratch = torch.empty(shares + samples * chunks * 8)
    shared.update(
        groups=groups,
        out=out,
        stats=stats,
        sums=torch.empty(2, samples, 2, channels),
        chunk=chunk,
    )
    _run("planes_pixel_sums", x, samples * chunks, scratch=scratch, **shared)
    if groups[0] != 1:
        again = torch.empty(tasks * 4, dtype=torch.float64)
        _run("planes_pixel_gradient", x, tasks, scratch=again, **shared)
    return out, scratch[:shares].view(samples, chunks, 2, height, width).sum(1)


def mean_max(x: Tensor) -> Tensor:
    """Mean and maximum in float32, in which a maximum of bfloat16 stays exact."""
    x, rows = _dense(x)
    samples, _, height, width = x.shape
    out = torch.empty(samples, 2, height, width)
    name = "rows_mean_max" if rows else "planes_mean_max"
    chunk, blocks = _mean_max_blocks(x, rows)
    _run(name, x, samples * blocks, x=x, out=out, chunk=chunk)
    return out


def mean_max_backward(
    grad: Tensor, x: Tensor, result: Tensor, onto: Tensor | None = None
) -> Tensor:
    """Gradient of x, added to ``onto`` in its place if it is given."""
    x, rows = _dense(x)
    out = torch.empty_like(x) if onto is None else onto
    chunk, blocks = _mean_max_blocks(x, rows)
    tasks = x.shape[0] * blocks
    _run(
        "rows_mean_max_backward" if rows else "planes_mean_max_backward",
        x,
        tasks,
        x=x,
        out=out,
        stats=result,
        grad=grad.to(torch.float32).contiguous(),
        sums=onto,
        scratch=None if rows else torch.empty(tasks * chunk),
        chunk=chunk,
    )
    return out


def _mean_max_blocks(x: Tensor, rows: bool) -> tuple[int, int]:
    """Pixels of a block, and the number of blocks of a sample."""
    if rows:
        return _blocks(x)
    return MEAN_MAX_PIXELS, -(-x.shape[2] * x.shape[3] // MEAN_MAX_PIXELS)


def learned_forward(
    x: Tensor,
    response_weight: Tensor,
    affine_weight: Tensor,
    affine_bias: Tensor,
    threshold: float,
    kind: str,
    num_groups: int,
    eps: float,
    relu: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Result of ``learnable_region_norm``; statistics, mean and maximum, and response."""
    x, _ = _dense(x)
    summary = mean_max(x)
    response = torch.sigmoid_(_convolve(summary, response_weight, None))
    scale, shift = _scale_and_shift(response, affine_weight, affine_bias)
    out, stats = pixel_forward(
        x, _hole(response, threshold), scale, shift, kind, num_groups, eps, relu
    )
    return out, stats, summary, response


def learned_backward(
    grad: Tensor,
    x: Tensor,
    response_weight: Tensor,
    affine_weight: Tensor,
    affine_bias: Tensor,
    stats: Tensor,
    summary: Tensor,
    response: Tensor,
    threshold: float,
    kind: str,
    num_groups: int,
    eps: float,
    relu: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of x and of the three parameters, in float32 but for that of x."""
    x, _ = _dense(x)
    scale, shift = _scale_and_shift(response, affine_weight, affine_bias)
    labels = _hole(response, threshold)
    dx, maps = pixel_backward(grad, x, labels, stats, scale, shift, kind, num_groups, eps, relu)
    into_response = torch.ops.aten.sigmoid_backward(_convolve_back(maps, affine_weight), response)
    into_summary = _convolve_back(into_response, response_weight)
    mean_max_backward(into_summary, x, summary, onto=dx)
    return (
        dx,
        _weight_gradient(summary, into_response, response_weight),
        _weight_gradient(response, maps, affine_weight),
        maps.sum((0, 2, 3)),
    )


def _hole(response: Tensor, threshold: float) -> Tensor:
    """Labels of the regions of eq. 15."""
    return (response > threshold).flatten(1).view(torch.uint8)


def _scale_and_shift(response: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Scale 1 + gamma and shift beta of eq. 16."""
    start = bias.to(torch.float32) + bias.new_tensor([1, 0], dtype=torch.float32)
    maps = _convolve(response, weight, start)
    return maps[:, :1], maps[:, 1:]


def _convolve(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Convolution of few channels with padding to the same size, in float32."""
    samples, _, height, width = x.shape
    outputs, size = weight.shape[0], weight.shape[2]
    out = torch.empty(samples, outputs, height, width)
    padded = F.pad(x, (size // 2,) * 4)
    _run(
        "small_convolution",
        padded,
        samples * height,
        regions=outputs,
        groups=(size, height, width),
        x=padded,
        out=out,
        weight=_float32(weight),
        bias=bias,
    )
    return out


def _convolve_back(grad: Tensor, weight: Tensor) -> Tensor:
    """Gradient of the input of ``_convolve``."""
    return _convolve(grad, weight.transpose(0, 1).flip(2, 3), None)


def _weight_gradient(x: Tensor, grad: Tensor, weight: Tensor) -> Tensor:
    """Gradient of the weight of ``_convolve``."""
    samples, _, height, width = x.shape
    size = weight.shape[2]
    padded = F.pad(x, (size // 2,) * 4)
    chunk = -(-samples * height // NUM_CHUNKS)
    tasks = -(-samples * height // chunk)
    out = torch.empty(tasks, *weight.shape)
    _run(
        "small_convolution_weights",
        padded,
        tasks,
        regions=weight.shape[0],
        groups=(size, height, width),
        x=padded,
        out=out,
        grad=grad,
        chunk=chunk,
    )
    return out.sum(0)
