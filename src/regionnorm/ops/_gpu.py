"""The operations on the GPU kernels: launches, autograd, and custom operators for torch.compile.

Features that are contiguous or channels-last are read and written as they are; others are made
contiguous first. As on the CPU, eager mode calls the kernels directly and ``torch.compile`` sees
custom operators.
"""

from __future__ import annotations

import functools
import warnings
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import torch
from torch import Tensor

from regionnorm.ops import _plain
from regionnorm.ops.backend import constant_when_compiled

__all__ = [
    "channel_mean_max",
    "learnable_region_norm",
    "region_norm",
    "region_norm_per_pixel",
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


# --- Public part ----------------------------------------------------------------------------------


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
        _mean_max(torch.zeros(1, 1, 1, 1, dtype=dtype, device=device))
    except Exception as error:  # of many kinds, from the compiler, the linker and the driver
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        warnings.warn(
            f"the GPU kernels do not run here, plain PyTorch runs instead: {reason}", stacklevel=2
        )
        return False
    return True


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
    """As :func:`regionnorm.ops._plain.region_norm`, for two regions."""
    return _apply(x, labels, weight, bias, (groups[0], eps, relu, False))


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
    """As :func:`regionnorm.ops._plain.region_norm_per_pixel`."""
    return _apply(x, labels, scale, shift, (groups[0], eps, relu, True))


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
    """As :func:`regionnorm.ops._plain.learnable_region_norm`, with cuDNN's convolutions."""
    response = _plain.spatial_response(channel_mean_max(x), response_weight)
    labels = (response.detach() > threshold).flatten(1)
    gamma, beta = _plain.pixel_maps(response, affine_weight, affine_bias)
    return region_norm_per_pixel(x, labels, 1 + gamma, beta, groups=groups, eps=eps, relu=relu)


def channel_mean_max(x: Tensor) -> Tensor:
    """As :func:`regionnorm.ops._plain.channel_mean_max`."""
    if torch.compiler.is_compiling():
        result: Tensor = _mean_max_op(x)
    elif torch.is_grad_enabled() and x.requires_grad:
        result = ChannelMeanMax.apply(x)  # type: ignore[no-untyped-call]
    else:
        result = _mean_max(x)
    return result.to(x.dtype)


def _apply(
    x: Tensor, labels: Tensor, weight: Tensor | None, bias: Tensor | None, options: Options
) -> Tensor:
    labels = labels.view(torch.uint8) if labels.dtype == torch.bool else labels.to(torch.uint8)
    if torch.compiler.is_compiling():
        result: Tensor = _forward_op(x, labels, weight, bias, *options)[0]
        return result
    given = (x, weight, bias)
    if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in given):
        applied: Tensor = RegionNorm.apply(  # type: ignore[no-untyped-call]
            x, labels, weight, bias, options
        )
        return applied
    return _forward(x, labels, weight, bias, *options)[0]


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
    from regionnorm.ops import _triton

    return getattr(_triton, name)


def _run(name: str, programs: int, *arguments: Any, **options: Any) -> None:
    _kernel(name)[(programs,)](*arguments, **options)


def _arrange(x: Tensor) -> tuple[Tensor, bool]:
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
    x, last = _arrange(x)
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


def _forward(
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


def _backward(
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


def _mean_max(x: Tensor) -> Tensor:
    """Mean and maximum in float32 ``[N, 2, H, W]``, in which a maximum stays exact."""
    x, last = _arrange(x)
    samples, channels, length = _sizes(x)
    out = x.new_empty((samples, 2, *x.shape[2:]), dtype=torch.float32)
    tiles = _channel_chunks(samples, channels, length)
    programs = samples * _ceil(length, tiles.pixels)
    with _on_device(x):
        _run("mean_max", programs, x, out, channels, length, **tiles.options(LAST=last))
    return out


def _mean_max_backward(grad: Tensor, x: Tensor, result: Tensor) -> Tensor:
    x, last = _arrange(x)
    samples, channels, length = _sizes(x)
    out = torch.empty_like(x)
    tiles = _channel_chunks(samples, channels, length)
    programs = samples * _ceil(length, tiles.pixels)
    given = (x, result, grad.to(torch.float32).contiguous(), out, channels, length)
    with _on_device(x):
        _run("mean_max_backward", programs, *given, **tiles.options(LAST=last))
    return out


# --- Autograd -------------------------------------------------------------------------------------


class RegionNorm(torch.autograd.Function):
    """Saves its inputs, the labels and the statistics; all else is computed again."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, labels: Tensor, weight: Any, bias: Any, options: Options
    ) -> Tensor:
        """Normalise by regions."""
        out, stats = _forward(x, labels, weight, bias, *options)
        ctx.save_for_backward(x, labels, stats, weight, bias)
        ctx.options = options
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of x, weight and bias; second derivatives come from the plain path."""
        x, labels, stats, weight, bias = ctx.saved_tensors
        if torch.is_grad_enabled():
            result = _plain_result(x, labels, weight, bias, ctx.options)
            dx, dweight, dbias = _gradients(result, (x, weight, bias), grad)
            return dx, None, dweight, dbias, None
        dx, parameters = _backward(grad, x, labels, stats, weight, bias, *ctx.options)
        return dx, None, *_split(parameters, weight, bias, ctx.options), None


def _plain_result(x: Tensor, labels: Tensor, weight: Any, bias: Any, options: Options) -> Tensor:
    kind, eps, relu, pixel = options
    common: dict[str, Any] = {"groups": (kind, 1), "eps": eps, "relu": relu}
    if pixel:
        return _plain.region_norm_per_pixel(x, labels, weight, bias, **common)
    return _plain.region_norm(x, labels, weight, bias, num_regions=2, **common)


def _gradients(
    result: Tensor, inputs: tuple[Tensor | None, ...], grad: Tensor
) -> list[Tensor | None]:
    """Differentiable gradients of ``result``; None for inputs that take none."""
    wanted = [tensor for tensor in inputs if tensor is not None and tensor.requires_grad]
    found = iter(torch.autograd.grad(result, wanted, grad, create_graph=True))
    return [
        next(found) if tensor is not None and tensor.requires_grad else None for tensor in inputs
    ]


def _split(
    gradients: Tensor, weight: Tensor | None, bias: Tensor | None, options: Options
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients of weight and bias in their types, from those of both."""
    pixel = options[3]
    of_weight, of_bias = (
        (gradients[:, :1], gradients[:, 1:]) if pixel else (gradients[0], gradients[1])
    )
    return (
        None if weight is None else of_weight.to(weight.dtype),
        None if bias is None else of_bias.to(bias.dtype),
    )


class ChannelMeanMax(torch.autograd.Function):
    """Saves its input and its result, from which the places of the maxima are found again."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        """Mean and maximum over the channels."""
        result = _mean_max(x)
        ctx.save_for_backward(x, result)
        return result

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor | None:
        """Gradient of x; second derivatives come from the plain path."""
        x, result = ctx.saved_tensors
        if torch.is_grad_enabled():
            return _gradients(_plain.channel_mean_max(x).float(), (x,), grad)[0]
        return _mean_max_backward(grad, x, result)


# --- Custom operators for torch.compile -----------------------------------------------------------

_OPTIONS = "Tensor? weight, Tensor? bias, str kind, float eps, bool relu, bool pixel"

_forward_op = torch.library.custom_op(
    "regionnorm::gpu_forward",
    _forward,
    mutates_args=(),
    schema=f"(Tensor x, Tensor labels, {_OPTIONS}) -> (Tensor, Tensor)",
)
_backward_op = torch.library.custom_op(
    "regionnorm::gpu_backward",
    _backward,
    mutates_args=(),
    schema=f"(Tensor grad, Tensor x, Tensor labels, Tensor stats, {_OPTIONS}) -> (Tensor, Tensor)",
)
_mean_max_op = torch.library.custom_op(
    "regionnorm::gpu_mean_max", _mean_max, mutates_args=(), schema="(Tensor x) -> Tensor"
)
_mean_max_backward_op = torch.library.custom_op(
    "regionnorm::gpu_mean_max_backward",
    _mean_max_backward,
    mutates_args=(),
    schema="(Tensor grad, Tensor x, Tensor result) -> Tensor",
)


def _like(x: Tensor) -> Tensor:
    return torch.empty_like(_arrange(x)[0])


@_forward_op.register_fake
def _fake_forward(x: Tensor, labels: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    return _like(x), x.new_empty((4, x.shape[0], 2, x.shape[1]), dtype=torch.float32)


@_backward_op.register_fake
def _fake_backward(
    grad: Tensor, x: Tensor, labels: Any, stats: Any, weight: Any, bias: Any, *options: Any
) -> tuple[Tensor, Tensor]:
    shape = (x.shape[0], 2, *x.shape[2:]) if options[3] else (2, 2, x.shape[1])
    return _like(x), x.new_empty(shape, dtype=torch.float32)


@_mean_max_op.register_fake
def _fake_mean_max(x: Tensor) -> Tensor:
    return x.new_empty((x.shape[0], 2, *x.shape[2:]), dtype=torch.float32)


@_mean_max_backward_op.register_fake
def _fake_mean_max_backward(grad: Tensor, x: Tensor, result: Tensor) -> Tensor:
    return _like(x)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    """Keep what the backward operator takes: x, labels, statistics, two parameters, options."""
    x, labels, weight, bias, *options = inputs
    ctx.save_for_backward(x, labels, output[1], weight, bias)
    ctx.options = options


def _differentiate(ctx: Any, grad: Tensor, _: Any) -> tuple[Any, ...]:
    saved = ctx.saved_tensors
    dx, parameters = _backward_op(grad, *saved, *ctx.options)
    of_parameters = _split(parameters, saved[3], saved[4], ctx.options)
    return dx, None, *of_parameters, *(None for _ in ctx.options)


def _save_mean_max(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs, output)


def _differentiate_mean_max(ctx: Any, grad: Tensor) -> Any:
    return _mean_max_backward_op(grad, *ctx.saved_tensors)


_forward_op.register_autograd(_differentiate, setup_context=_save)
_mean_max_op.register_autograd(_differentiate_mean_max, setup_context=_save_mean_max)
