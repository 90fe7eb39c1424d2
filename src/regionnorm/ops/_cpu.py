"""The operations on the CPU kernels: autograd functions, and custom operators for torch.compile.

In eager mode an ``autograd.Function`` calls the kernels directly, because a custom operator costs
several times as much for each call. ``torch.compile`` sees custom operators, which do the same.
"""

from __future__ import annotations

import ctypes
import functools
import struct
from typing import Any

import torch
from torch import Tensor

from regionnorm.ops import _plain
from regionnorm.ops._threads import run_on_threads

__all__ = ["channel_mean_max", "region_norm", "region_norm_per_pixel"]

MAX_REGIONS = 255
SERIAL = 1 << 14  # values below which a second thread costs more than it saves
NUM_CHUNKS = 32  # shares in which the sums over channels are cut, whatever the number of threads
MEAN_MAX_PIXELS = 1024

Groups = tuple[str, int]


# --- Public part ----------------------------------------------------------------------------------


def region_norm(
    x: Tensor,
    labels: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    *,
    num_regions: int,
    groups: Groups,
    eps: float,
    relu: bool,
) -> Tensor:
    """As :func:`regionnorm.ops._plain.region_norm`; ``labels`` are bool or uint8."""
    labels = labels.view(torch.uint8) if labels.dtype == torch.bool else labels
    options = (num_regions, *groups, eps, relu)
    if torch.compiler.is_compiling():
        result: Tensor = torch.ops.regionnorm.region_norm(x, labels, weight, bias, *options)[0]
        return result
    if torch.is_grad_enabled() and _requires_grad(x, weight, bias):
        applied: Tensor = RegionNorm.apply(x, labels, weight, bias, options)
        return applied
    return _forward(x, labels, weight, bias, *options)[0]


def region_norm_per_pixel(
    x: Tensor,
    labels: Tensor,
    scale: Tensor,
    shift: Tensor,
    *,
    groups: Groups,
    eps: float,
    relu: bool,
) -> Tensor:
    """As :func:`regionnorm.ops._plain.region_norm_per_pixel`; ``labels`` are bool or uint8."""
    labels = labels.view(torch.uint8) if labels.dtype == torch.bool else labels
    options = (*groups, eps, relu)
    if torch.compiler.is_compiling():
        result: Tensor = torch.ops.regionnorm.per_pixel(x, labels, scale, shift, *options)[0]
        return result
    if torch.is_grad_enabled() and _requires_grad(x, scale, shift):
        applied: Tensor = RegionNormPerPixel.apply(x, labels, scale, shift, options)
        return applied
    return _pixel_forward(x, labels, scale, shift, *options)[0]


def channel_mean_max(x: Tensor) -> Tensor:
    """As :func:`regionnorm.ops._plain.channel_mean_max`."""
    if torch.compiler.is_compiling():
        result: Tensor = torch.ops.regionnorm.mean_max(x)
        return result
    if torch.is_grad_enabled() and x.requires_grad:
        applied: Tensor = ChannelMeanMax.apply(x)
        return applied
    return _mean_max(x)


def _requires_grad(*tensors: Tensor | None) -> bool:
    return any(tensor is not None and tensor.requires_grad for tensor in tensors)


# --- Calling kernels ------------------------------------------------------------------------------

NUM_SLOTS = 24
Slots = ctypes.c_int64 * NUM_SLOTS


@functools.cache
def _address(name: str, bfloat16: bool) -> int:
    """Address of a kernel. numba is imported here, at the first call, because that takes time."""
    from regionnorm.ops import _numba

    return _numba.compile_kernel(name, bfloat16)


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
    sizes: tuple[int, int, int] | None = None,
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
) -> None:
    """Run a kernel over all its tasks. The order of the slots is that of ``_numba``."""
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


# --- Affine parameters for each region and channel ------------------------------------------------


def _forward(
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
    """Result, and the statistics ``[4, N, K, C]`` that the backward pass needs."""
    x = x.contiguous()
    out = torch.empty_like(x)
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
        labels=labels.contiguous(),
        x=x,
        out=out,
        stats=stats,
        weight=_float32(weight),
        bias=_float32(bias),
        scratch=torch.empty(tasks * regions * 3, dtype=torch.float64),
    )
    return out, stats


def _backward(
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
    x = x.contiguous()
    out = torch.empty_like(x)
    sums = torch.empty(2, x.shape[0], regions, x.shape[1])
    tasks, groups = _group_planes(x, kind, num_groups)
    _run(
        "planes_backward",
        x,
        tasks,
        regions=regions,
        groups=groups,
        eps=eps,
        relu=relu,
        labels=labels.contiguous(),
        x=x,
        out=out,
        stats=stats,
        weight=_float32(weight),
        bias=_float32(bias),
        grad=grad.contiguous(),
        sums=sums,
        scratch=torch.empty(tasks * regions * 2, dtype=torch.float64),
    )
    return out, sums.sum(1)


class RegionNorm(torch.autograd.Function):
    """Saves its input, the labels and the statistics; all else is computed again."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, labels: Tensor, weight: Any, bias: Any, options: tuple[Any, ...]
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
            regions, kind, num_groups, eps, relu = ctx.options
            result = _plain.region_norm(
                x,
                labels.flatten(1),
                weight,
                bias,
                num_regions=regions,
                groups=(kind, num_groups),
                eps=eps,
                relu=relu,
            )
            dx, dweight, dbias = _gradients(result, (x, weight, bias), grad)
            return dx, None, dweight, dbias, None
        dx, affine = _backward(grad, x, labels, stats, weight, bias, *ctx.options)
        return dx, None, _like(affine[0], weight), _like(affine[1], bias), None


def _like(gradient: Tensor, parameter: Tensor | None) -> Tensor | None:
    return None if parameter is None else gradient.to(parameter.dtype)


def _gradients(
    result: Tensor, inputs: tuple[Tensor | None, ...], grad: Tensor
) -> list[Tensor | None]:
    """Differentiable gradients of ``result``; None for inputs that take none."""
    wanted = [tensor for tensor in inputs if tensor is not None and tensor.requires_grad]
    found = iter(torch.autograd.grad(result, wanted, grad, create_graph=True))
    return [
        next(found) if tensor is not None and tensor.requires_grad else None for tensor in inputs
    ]


# --- Scale and shift for each pixel ---------------------------------------------------------------


def _pixel_forward(
    x: Tensor,
    labels: Tensor,
    scale: Tensor,
    shift: Tensor,
    kind: str,
    num_groups: int,
    eps: float,
    relu: bool,
) -> tuple[Tensor, Tensor]:
    """Result, and the statistics ``[4, N, 2, C]`` that the backward pass needs."""
    x = x.contiguous()
    out = torch.empty_like(x)
    stats = torch.empty(4, x.shape[0], 2, x.shape[1])
    tasks, groups = _group_planes(x, kind, num_groups)
    _run(
        "planes_pixel_forward",
        x,
        tasks,
        groups=groups,
        eps=eps,
        relu=relu,
        labels=labels.contiguous(),
        x=x,
        out=out,
        stats=stats,
        weight=_float32(scale),
        bias=_float32(shift),
        scratch=torch.empty(tasks * 2 * 3, dtype=torch.float64),
    )
    return out, stats


def _pixel_backward(
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
    x = x.contiguous()
    samples, channels, height, width = x.shape
    out = torch.empty_like(x)
    chunk = max(1, -(-samples * channels // NUM_CHUNKS))
    chunks = -(-channels // chunk)
    tasks, groups = _group_planes(x, kind, num_groups)
    shares = samples * chunks * 2 * height * width
    scratch = torch.empty(max(shares + samples * chunks * 8, tasks * 8))
    arguments: dict[str, Any] = {
        "groups": groups,
        "relu": relu,
        "labels": labels.contiguous(),
        "x": x,
        "out": out,
        "stats": stats,
        "weight": _float32(scale),
        "bias": _float32(shift),
        "grad": grad.contiguous(),
        "sums": torch.empty(2, samples, 2, channels),
        "chunk": chunk,
    }
    _run("planes_pixel_sums", x, samples * chunks, scratch=scratch, **arguments)
    pixels = scratch[:shares].view(samples, chunks, 2, height, width).sum(1)
    if groups[0] != 1:
        again = torch.empty(tasks * 4, dtype=torch.float64)
        _run("planes_pixel_gradient", x, tasks, scratch=again, **arguments)
    return out, pixels


class RegionNormPerPixel(torch.autograd.Function):
    """Saves its inputs, the labels and the statistics; all else is computed again."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, labels: Tensor, scale: Tensor, shift: Tensor, options: tuple[Any, ...]
    ) -> Tensor:
        """Normalise by regions, then scale and shift pixels."""
        out, stats = _pixel_forward(x, labels, scale, shift, *options)
        ctx.save_for_backward(x, labels, stats, scale, shift)
        ctx.options = options
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of x, scale and shift; second derivatives come from the plain path."""
        x, labels, stats, scale, shift = ctx.saved_tensors
        if torch.is_grad_enabled():
            kind, num_groups, eps, relu = ctx.options
            result = _plain.region_norm_per_pixel(
                x,
                labels.flatten(1),
                scale,
                shift,
                groups=(kind, num_groups),
                eps=eps,
                relu=relu,
            )
            dx, dscale, dshift = _gradients(result, (x, scale, shift), grad)
            return dx, None, dscale, dshift, None
        dx, pixels = _pixel_backward(grad, x, labels, stats, scale, shift, *ctx.options)
        return dx, None, _like(pixels[:, :1], scale), _like(pixels[:, 1:], shift), None


# --- Mean and maximum over the channels -----------------------------------------------------------


def _mean_max(x: Tensor) -> Tensor:
    x = x.contiguous()
    samples, _, height, width = x.shape
    out = x.new_empty((samples, 2, height, width))
    tasks = samples * -(-height * width // MEAN_MAX_PIXELS)
    scratch = torch.empty(tasks * 2 * MEAN_MAX_PIXELS)
    _run("planes_mean_max", x, tasks, x=x, out=out, scratch=scratch, chunk=MEAN_MAX_PIXELS)
    return out


def _mean_max_backward(grad: Tensor, x: Tensor, result: Tensor) -> Tensor:
    x = x.contiguous()
    out = torch.empty_like(x)
    tasks = x.shape[0] * -(-x.shape[2] * x.shape[3] // MEAN_MAX_PIXELS)
    _run(
        "planes_mean_max_backward",
        x,
        tasks,
        x=x,
        out=out,
        stats=result,
        grad=grad.contiguous(),
        scratch=torch.empty(tasks * MEAN_MAX_PIXELS),
        chunk=MEAN_MAX_PIXELS,
    )
    return out


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
            return _gradients(_plain.channel_mean_max(x), (x,), grad)[0]
        return _mean_max_backward(grad, x, result)


# --- Custom operators for torch.compile -----------------------------------------------------------

_LIBRARY = torch.library.Library("regionnorm", "DEF")
_OPTIONS = "str kind, int groups, float eps, bool relu"
_AFFINE = f"Tensor? weight, Tensor? bias, int regions, {_OPTIONS}"
_PIXEL = f"Tensor scale, Tensor shift, {_OPTIONS}"
_PAIR = "(Tensor, Tensor)"


def _like_x(x: Tensor) -> Tensor:
    return torch.empty_like(x.contiguous())


def _fake_forward(
    x: Tensor, labels: Tensor, weight: Any, bias: Any, regions: int, *_: Any
) -> tuple[Tensor, Tensor]:
    size = (4, x.shape[0], regions, x.shape[1])
    return _like_x(x), x.new_empty(size, dtype=torch.float32)


def _fake_backward(
    grad: Tensor, x: Tensor, labels: Any, stats: Any, weight: Any, bias: Any, regions: int, *_: Any
) -> tuple[Tensor, Tensor]:
    return _like_x(x), x.new_empty((2, regions, x.shape[1]), dtype=torch.float32)


def _fake_pixel_forward(x: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    return _fake_forward(x, x, None, None, 2)


def _fake_pixel_backward(grad: Tensor, x: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    size = (x.shape[0], 2, *x.shape[2:])
    return _like_x(x), x.new_empty(size, dtype=torch.float32)


def _fake_mean_max(x: Tensor) -> Tensor:
    return x.new_empty((x.shape[0], 2, *x.shape[2:]))


def _fake_mean_max_backward(grad: Tensor, x: Tensor, result: Tensor) -> Tensor:
    return _like_x(x)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    """Keep what the backward operator takes: x, labels, statistics, two parameters, options."""
    x, labels, first, second, *options = inputs
    ctx.save_for_backward(x, labels, output[1], first, second)
    ctx.options = options


def _affine_gradients(ctx: Any, grad: Tensor, _: Any) -> tuple[Any, ...]:
    saved = ctx.saved_tensors
    dx, affine = torch.ops.regionnorm.region_norm_backward(grad, *saved, *ctx.options)
    parameters = (_like(affine[0], saved[3]), _like(affine[1], saved[4]))
    return dx, None, *parameters, *(None for _ in ctx.options)


def _pixel_gradients(ctx: Any, grad: Tensor, _: Any) -> tuple[Any, ...]:
    saved = ctx.saved_tensors
    dx, pixels = torch.ops.regionnorm.per_pixel_backward(grad, *saved, *ctx.options)
    parameters = (_like(pixels[:, :1], saved[3]), _like(pixels[:, 1:], saved[4]))
    return dx, None, *parameters, *(None for _ in ctx.options)


def _save_mean_max(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs, output)


def _mean_max_gradient(ctx: Any, grad: Tensor) -> Any:
    return torch.ops.regionnorm.mean_max_backward(grad, *ctx.saved_tensors)


def _register() -> None:
    """Define the operators; the backward ones are operators too, so that they can be traced."""
    for name, schema, function, fake in (
        ("region_norm", f"(Tensor x, Tensor labels, {_AFFINE}) -> {_PAIR}", _forward, _fake_forward),
        (
            "region_norm_backward",
            f"(Tensor grad, Tensor x, Tensor labels, Tensor stats, {_AFFINE}) -> {_PAIR}",
            _backward,
            _fake_backward,
        ),
        (
            "per_pixel",
            f"(Tensor x, Tensor labels, {_PIXEL}) -> {_PAIR}",
            _pixel_forward,
            _fake_pixel_forward,
        ),
        (
            "per_pixel_backward",
            f"(Tensor grad, Tensor x, Tensor labels, Tensor stats, {_PIXEL}) -> {_PAIR}",
            _pixel_backward,
            _fake_pixel_backward,
        ),
        ("mean_max", "(Tensor x) -> Tensor", _mean_max, _fake_mean_max),
        (
            "mean_max_backward",
            "(Tensor grad, Tensor x, Tensor result) -> Tensor",
            _mean_max_backward,
            _fake_mean_max_backward,
        ),
    ):
        _LIBRARY.define(name + schema)
        _LIBRARY.impl(name, function, "CPU")
        torch.library.register_fake(f"regionnorm::{name}", fake, lib=_LIBRARY)
    for name, backward, save in (
        ("region_norm", _affine_gradients, _save),
        ("per_pixel", _pixel_gradients, _save),
        ("mean_max", _mean_max_gradient, _save_mean_max),
    ):
        torch.library.register_autograd(
            f"regionnorm::{name}", backward, setup_context=save, lib=_LIBRARY
        )


_register()
