"""Calls of the GPU kernels: tensors in, tensors out, without derivatives.

Features that are contiguous or channels-last are read and written as they are; others are made
contiguous first.
"""

from __future__ import annotations

import functools
import warnings
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import torch
from torch import Tensor

from regionnorm.ops.backend import constant_when_compiled
from regionnorm.ops.statistics import give_statistics

__all__ = [
    "Options",
    "arrange",
    "backward",
    "forward",
    "mean_max",
    "mean_max_backward",
    "supports",
    "works",
]

STATS = ("instance", "batch")
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
PLANE_VALUES = 1 << 14  # values of planes that one program holds in registers
TILE_VALUES = 1 << 12  # values of a tile of the kernels that walk through a plane
WARP_VALUES = 1 << 9  # values for each warp: 16 for each thread, four loads of 16 bytes in float32
MAX_WARPS = 16
ENOUGH_PROGRAMS = 1 << 10  # programs that keep the largest GPU busy
MAX_SPAN = (1 << 31) - 1  # values that a tile reaches over: the kernels count them in int32

Options = tuple[str, float, bool, bool]  # kind of statistics, eps, ReLU, parameters of each pixel


def supports(x: Tensor, num_regions: int = 2, kind: str = "instance") -> bool:
    """Whether the kernels are made for such features, regions and statistics."""
    return x.is_cuda and num_regions == 2 and kind in STATS and x.dtype in DTYPES


@constant_when_compiled
def works(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether kernels for such features run on a GPU; tried out at the first question."""
    return _works(device, dtype)


@functools.cache
def _works(device: torch.device, dtype: torch.dtype) -> bool:
    # Triton needs a GPU that is not too old, and a C compiler.
    if torch.cuda.get_device_capability(device) < ((8, 0) if dtype == torch.bfloat16 else (7, 0)):
        return False
    try:
        mean_max(torch.zeros(1, 1, 1, 1, dtype=dtype, device=device))
    except Exception as error:  # of many kinds, from the compiler, the linker and the driver
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        warnings.warn(
            f"the GPU kernels do not run here, plain PyTorch runs instead: {reason}", stacklevel=2
        )
        return False
    return True


# --- Tiles and launches ---------------------------------------------------------------------------


class Tiles(NamedTuple):
    """How the work on features is cut: tiles, and chunks of tiles that a program walks through."""

    channels: int
    pixels: int
    chunk: int = 1
    chunks: int = 1

    def options(self, **flags: bool) -> dict[str, int]:
        """Keyword arguments of a kernel."""
        warps = min(MAX_WARPS, max(1, self.channels * self.pixels // WARP_VALUES))
        return {"BLOCK_C": self.channels, "BLOCK_P": self.pixels, "num_warps": warps, **flags}


def _ceil(number: int, divisor: int) -> int:
    return -(-number // divisor)


def _power(number: int) -> int:
    """Smallest power of two not below ``number``."""
    return 1 << (number - 1).bit_length()


def _plane_tiles(channels: int, length: int, last: bool, inputs: int) -> Tiles | None:
    """Whole planes of some channels; None where ``inputs`` of them do not fit into registers."""
    pixels, limit = _power(length), PLANE_VALUES // inputs
    # Channels-last rows are read in pieces of 64 bytes, small contiguous planes several at once.
    rows = min(_power(channels), 16 if last else max(1, PLANE_VALUES // 8 // pixels))
    return Tiles(rows, pixels) if rows * pixels <= (limit // 2 if last else limit) else None


def _pixel_chunks(samples: int, channels: int, length: int, last: bool) -> Tiles:
    """Tiles for sums over pixels: a program walks along the pixels of some channels."""
    if last:
        rows = min(_power(channels), 64)
        pixels = TILE_VALUES // rows
    else:
        pixels = min(_power(length), TILE_VALUES)
        rows = min(_power(channels), TILE_VALUES // pixels)
    tiles = 16 if last else 4
    while tiles > 1 and samples * _ceil(channels, rows) * _ceil(length, pixels * tiles) < (
        ENOUGH_PROGRAMS
    ):
        tiles //= 2
    return Tiles(rows, pixels, pixels * tiles, _ceil(length, pixels * tiles))


def _channel_chunks(samples: int, channels: int, length: int) -> Tiles:
    """Tiles for sums over channels: a program walks along the channels of some pixels."""
    pixels = 128 if samples * length >= 128 * ENOUGH_PROGRAMS else 32
    span = 1 << ((MAX_SPAN // length).bit_length() - 1)
    rows = min(_power(channels), TILE_VALUES // 2 // pixels, span)
    tiles = _ceil(channels, rows)
    while tiles > 1 and samples * _ceil(length, pixels) * _ceil(channels, rows * tiles) < (
        ENOUGH_PROGRAMS
    ):
        tiles = _ceil(tiles, 2)
    return Tiles(rows, pixels, rows * tiles, _ceil(channels, rows * tiles))


@functools.cache
def _kernel(name: str) -> Any:
    """A kernel. Triton is imported here, at the first call, because that takes time."""
    from regionnorm.ops.gpu import kernels

    return getattr(kernels, name)


def _run(name: str, programs: int, *arguments: Any, **options: Any) -> None:
    _kernel(name)[(programs,)](*arguments, **options)


def arrange(x: Tensor) -> tuple[Tensor, bool]:
    """Dense features, and whether the channels come last."""
    if x.is_contiguous():
        return x, False
    if x.is_contiguous(memory_format=torch.channels_last):
        return x, True
    return x.contiguous(), False


# --- Calling kernels ------------------------------------------------------------------------------


class Inputs(NamedTuple):
    """What forward and backward kernels take, in the layout that they take it in."""

    x: Tensor
    labels: Tensor
    weight: Tensor | None
    bias: Tensor | None
    steps: tuple[int, int, int]  # between samples of labels, weight and bias; 0 where shared
    last: bool  # the channels come last
    pixel: bool  # each pixel has its own weight and bias

    def sizes(self) -> tuple[int, int, int]:
        """Samples, channels and pixels."""
        return _sizes(self.x)

    def new(self, *shape: int) -> Tensor:
        """Float32 for statistics and sums, not filled."""
        return self.x.new_empty(shape, dtype=torch.float32)


def _sizes(x: Tensor) -> tuple[int, int, int]:
    return x.shape[0], x.shape[1], x.shape[2] * x.shape[3]


def _inputs(
    x: Tensor, labels: Tensor, weight: Tensor | None, bias: Tensor | None, pixel: bool
) -> Inputs:
    x, last = arrange(x)
    step = 0 if labels.shape[0] == 1 else labels.shape[1]
    (weight, weight_step), (bias, bias_step) = _dense(weight, pixel), _dense(bias, pixel)
    steps = (step, weight_step, bias_step)
    return Inputs(x, labels.contiguous(), weight, bias, steps, last, pixel)


def _dense(values: Tensor | None, pixel: bool) -> tuple[Tensor | None, int]:
    """Parameters, dense within a sample, and the step between samples of those of each pixel.

    Scale and shift of each pixel may be the two halves of one tensor, and stay where they are.
    """
    if values is None or not pixel:
        return None if values is None else values.contiguous(), 0
    values = values if values[:1].is_contiguous() else values.contiguous()
    return values, values.stride(0)


def forward(
    x: Tensor,
    labels: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    kind: str,
    eps: float,
    relu: bool,
    pixel: bool,
) -> tuple[Tensor, Tensor]:
    """Result, and the statistics ``[4, N, 2, C]`` that the backward pass needs.

    With ``pixel``, ``weight`` and ``bias`` are those of each pixel ``[N, 1, H, W]``, else those of
    each region and channel ``[2, C]``.
    """
    inputs = _inputs(x, labels, weight, bias, pixel)
    samples, channels, length = inputs.sizes()
    out, stats = torch.empty_like(inputs.x), inputs.new(4, samples, 2, channels)
    whole = kind == "instance"
    tiles = _plane_tiles(channels, length, inputs.last, 1 + pixel) if whole else None
    with _on_device(x):
        if tiles is None:
            _chunks_forward(inputs, out, stats, kind == "batch", eps, relu)
        else:
            _run(
                "planes_forward",
                samples * _ceil(channels, tiles.channels),
                *(*inputs[:4], out, stats, *inputs.sizes(), *inputs.steps, eps),
                **tiles.options(PIXEL=pixel, RELU=relu, LAST=inputs.last),
            )
    give_statistics(stats)
    return out, stats


def _chunks_forward(
    inputs: Inputs, out: Tensor, stats: Tensor, batch: bool, eps: float, relu: bool
) -> None:
    """Statistics and result where what shares statistics is too large for one program."""
    samples, channels, length = inputs.sizes()
    tiles = _pixel_chunks(samples, channels, length, inputs.last)
    cut = (tiles.chunk, tiles.chunks)
    programs = samples * tiles.chunks * _ceil(channels, tiles.channels)
    partial = inputs.new(samples * tiles.chunks, 8, channels)
    _run(
        "chunk_moments",
        programs,
        *(inputs.x, inputs.labels, partial, channels, length, inputs.steps[0], *cut),
        **tiles.options(LAST=inputs.last),
    )
    members = samples if batch else 1
    rows = tiles.chunks * members
    given = (partial, stats, samples, channels, rows, members, eps)
    _combine("combine_moments", samples // members, channels, rows, given)
    _run(
        "normalise",
        programs,
        *(*inputs[:4], out, stats, *inputs.sizes(), *inputs.steps, *cut),
        **tiles.options(PIXEL=inputs.pixel, RELU=relu, LAST=inputs.last),
    )


def _combine(name: str, groups: int, channels: int, rows: int, given: tuple[Any, ...]) -> None:
    """Run a kernel that combines ``rows`` partial results of each region and group."""
    block = {"ROWS": min(128, _power(rows)), "BLOCK_C": min(8, _power(channels))}
    _run(name, groups * _ceil(channels, block["BLOCK_C"]) * 2, *given, **block, num_warps=4)


def backward(
    grad: Tensor,
    x: Tensor,
    labels: Tensor,
    stats: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    kind: str,
    eps: float,
    relu: bool,
    pixel: bool,
) -> tuple[Tensor, Tensor]:
    """Gradient of x, and those of weight and bias, float32 ``[2, 2, C]`` or ``[N, 2, H, W]``."""
    inputs = _inputs(x, labels, weight, bias, pixel)
    grad = grad.contiguous(memory_format=_format(inputs.last))
    samples, channels, length = inputs.sizes()
    out = torch.empty_like(inputs.x)
    sums = inputs.new(2, 1 if kind == "batch" else samples, 2, channels)
    whole = kind == "instance" and not pixel
    tiles = _plane_tiles(channels, length, inputs.last, 2) if whole else None
    with _on_device(x):
        if tiles is None:
            shares = _chunks_backward(inputs, grad, out, stats, sums, relu)
            if pixel:
                return out, shares.sum(1).view(samples, 2, *x.shape[2:])
        else:
            _run(
                "planes_backward",
                samples * _ceil(channels, tiles.channels),
                *(*inputs[:4], grad, out, stats, sums, *inputs.sizes(), inputs.steps[0]),
                **tiles.options(RELU=relu, LAST=inputs.last),
            )
    return out, sums.sum(1)


def _chunks_backward(
    inputs: Inputs, grad: Tensor, out: Tensor, stats: Tensor, sums: Tensor, relu: bool
) -> Tensor:
    """Gradient of x and ``sums``; returns shares ``[N, chunks, 2, L]`` of the pixels' gradients."""
    samples, channels, length = inputs.sizes()
    options = {"PIXEL": inputs.pixel, "RELU": relu, "LAST": inputs.last}
    tiles = _pixel_chunks(samples, channels, length, inputs.last)
    partial = inputs.new(samples * tiles.chunks, 4, channels)
    _run(
        "chunk_sums",
        samples * tiles.chunks * _ceil(channels, tiles.channels),
        *(*inputs[:4], grad, stats, partial, *inputs.sizes(), *inputs.steps),
        *(tiles.chunk, tiles.chunks),
        **tiles.options(**options),
    )
    groups = sums.shape[1]
    rows = samples * tiles.chunks // groups
    given = (partial, stats, sums, samples, groups, channels, rows)
    _combine("combine_sums", groups, channels, rows, given)
    if inputs.pixel:
        tiles = _channel_chunks(samples, channels, length)
    else:
        chunks = _ceil(channels, tiles.channels)
        tiles = tiles._replace(chunk=tiles.channels, chunks=chunks)
    shares = inputs.new(samples, tiles.chunks if inputs.pixel else 0, 2, length)
    _run(
        "gradient",
        samples * tiles.chunks * _ceil(length, tiles.pixels),
        *(*inputs[:4], grad, out, stats, sums, shares, samples, groups, channels, length),
        *(*inputs.steps, tiles.chunk, tiles.chunks),
        **tiles.options(**options),
    )
    return shares


def _on_device(x: Tensor) -> AbstractContextManager[Any]:
    """Triton launches on the current device, which need not be that of ``x``."""
    device: AbstractContextManager[Any] = torch.cuda.device_of(x)  # type: ignore[no-untyped-call]
    return device


def _format(last: bool) -> torch.memory_format:
    return torch.channels_last if last else torch.contiguous_format


def mean_max(x: Tensor) -> Tensor:
    """Mean and maximum in float32 ``[N, 2, H, W]``, in which a maximum stays exact."""
    x, last = arrange(x)
    samples, channels, length = _sizes(x)
    out = x.new_empty((samples, 2, *x.shape[2:]), dtype=torch.float32)
    tiles = _channel_chunks(samples, channels, length)
    programs = samples * _ceil(length, tiles.pixels)
    with _on_device(x):
        _run("mean_max", programs, x, out, channels, length, **tiles.options(LAST=last))
    return out


def mean_max_backward(grad: Tensor, x: Tensor, result: Tensor) -> Tensor:
    """Gradient of x, shared equally among equal maxima."""
    x, last = arrange(x)
    samples, channels, length = _sizes(x)
    out = torch.empty_like(x)
    tiles = _channel_chunks(samples, channels, length)
    programs = samples * _ceil(length, tiles.pixels)
    given = (x, result, grad.to(torch.float32).contiguous(), out, channels, length)
    with _on_device(x):
        _run("mean_max_backward", programs, *given, **tiles.options(LAST=last))
    return out
