"""The operations on the CPU kernels, with their derivatives.

In eager mode an ``autograd.Function`` calls the kernels directly, because a custom operator costs
several times as much for each call. ``torch.compile`` sees custom operators that do the same.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor

from regionnorm.ops import plain
from regionnorm.ops.cpu import launch, operators
from regionnorm.ops.second_order import gradients_again, in_dtype_of

__all__ = [
    "MAX_REGIONS",
    "as_bytes",
    "channel_mean_max",
    "learnable_region_norm",
    "region_norm",
    "region_norm_per_pixel",
]

MAX_REGIONS = 255
Groups = tuple[str, int]


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
    """As :func:`regionnorm.ops.plain.region_norm`."""
    tensors = (x, as_bytes(labels), weight, bias)
    return _call("region_norm", tensors, (num_regions, *groups, eps, relu))


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
    """As :func:`regionnorm.ops.plain.region_norm_per_pixel`."""
    tensors = (x, as_bytes(labels), scale, shift)
    return _call("per_pixel", tensors, (*groups, eps, relu))


def learnable_region_norm(
    x: Tensor,
    response_weight: Tensor,
    affine_weight: Tensor,
    affine_bias: Tensor,
    *,
    threshold: float,
    groups: Groups,
    eps: float,
    relu: bool,
) -> Tensor:
    """As :func:`regionnorm.ops.plain.learnable_region_norm`."""
    tensors = (x, response_weight, affine_weight, affine_bias)
    options = (threshold, *groups, eps, relu)
    return _call("learnable", tensors, options)


def channel_mean_max(x: Tensor) -> Tensor:
    """As :func:`regionnorm.ops.plain.channel_mean_max`."""
    return _call("mean_max", (x,), ()).to(x.dtype)


def as_bytes(labels: Tensor) -> Tensor:
    """Labels as the kernels read them."""
    return labels.view(torch.uint8) if labels.dtype == torch.bool else labels.to(torch.uint8)


def _call(name: str, tensors: tuple[Tensor | None, ...], options: tuple[Any, ...]) -> Tensor:
    """Run the custom operator, the autograd function, or the bare kernels."""
    if torch.compiler.is_compiling():
        outputs = operators.OPERATORS[name](*tensors, *options)
    elif torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors):
        outputs = FUNCTIONS[name].apply(*tensors, options)
    else:
        outputs = operators.IMPLEMENTATIONS[name](*tensors, *options)
    result: Tensor = outputs if isinstance(outputs, Tensor) else outputs[0]
    return result


class RegionNorm(torch.autograd.Function):
    """Saves its inputs and the statistics; all else is computed again."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        labels: Tensor,
        weight: Any,
        bias: Any,
        options: tuple[Any, ...],
    ) -> Tensor:
        """Normalise by regions."""
        out, stats = launch.affine_forward(x, labels, weight, bias, *options)
        ctx.save_for_backward(x, labels, weight, bias, stats)
        ctx.options = options
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of x, weight and bias."""
        x, labels, weight, bias, stats = ctx.saved_tensors
        if torch.is_grad_enabled():
            regions, kind, num_groups, eps, relu = ctx.options

            def compute(x: Tensor, weight: Any, bias: Any) -> Tensor:
                return plain.region_norm(
                    x,
                    labels,
                    weight,
                    bias,
                    num_regions=regions,
                    groups=(kind, num_groups),
                    eps=eps,
                    relu=relu,
                )

            dx, dweight, dbias = gradients_again(compute, (x, weight, bias), grad)
            return dx, None, dweight, dbias, None
        dx, affine = launch.affine_backward(grad, x, labels, stats, weight, bias, *ctx.options)
        return dx, None, in_dtype_of(affine[0], weight), in_dtype_of(affine[1], bias), None


class RegionNormPerPixel(torch.autograd.Function):
    """Saves its inputs and the statistics; all else is computed again."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        labels: Tensor,
        scale: Tensor,
        shift: Tensor,
        options: tuple[Any, ...],
    ) -> Tensor:
        """Normalise by regions, then scale and shift pixels."""
        out, stats = launch.pixel_forward(x, labels, scale, shift, *options)
        ctx.save_for_backward(x, labels, scale, shift, stats)
        ctx.options = options
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of x, scale and shift."""
        x, labels, scale, shift, stats = ctx.saved_tensors
        if torch.is_grad_enabled():
            kind, num_groups, eps, relu = ctx.options

            def compute(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
                return plain.region_norm_per_pixel(
                    x, labels, scale, shift, groups=(kind, num_groups), eps=eps, relu=relu
                )

            dx, dscale, dshift = gradients_again(compute, (x, scale, shift), grad)
            return dx, None, dscale, dshift, None
        dx, maps = launch.pixel_backward(grad, x, labels, stats, scale, shift, *ctx.options)
        return dx, None, in_dtype_of(maps[:, :1], scale), in_dtype_of(maps[:, 1:], shift), None


class LearnableRegionNorm(torch.autograd.Function):
    """Saves its inputs, the statistics and the maps of one or two channels before the affine."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        first: Tensor,
        second: Tensor,
        bias: Tensor,
        options: tuple[Any, ...],
    ) -> Tensor:
        """Find the regions, normalise by them, then scale and shift pixels."""
        out, *saved = launch.learned_forward(x, first, second, bias, *options)
        ctx.save_for_backward(x, first, second, bias, *saved)
        ctx.options = options
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of x and of the parameters."""
        saved = ctx.saved_tensors  # asked for once: a checkpoint computes them again each time
        inputs = saved[:4]
        if torch.is_grad_enabled():
            threshold, kind, num_groups, eps, relu = ctx.options
            compute = functools.partial(
                plain.learnable_region_norm,
                threshold=threshold,
                groups=(kind, num_groups),
                eps=eps,
                relu=relu,
            )
            return *gradients_again(compute, inputs, grad), None
        found = launch.learned_backward(grad, *saved, *ctx.options)
        return *map(in_dtype_of, found, inputs), None


class ChannelMeanMax(torch.autograd.Function):
    """Saves its input and its result, from which the places of the maxima are found again."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, options: tuple[Any, ...]) -> Tensor:
        """Mean and maximum over the channels, in float32."""
        result = launch.mean_max(x)
        ctx.save_for_backward(x, result)
        return result

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Gradient of x."""
        x, result = ctx.saved_tensors
        if torch.is_grad_enabled():

            def compute(x: Tensor) -> Tensor:
                return plain.channel_mean_max(x).to(grad.dtype)

            return *gradients_again(compute, (x,), grad), None
        return launch.mean_max_backward(grad, x, result), None


FUNCTIONS: dict[str, Any] = {
    "region_norm": RegionNorm,
    "per_pixel": RegionNormPerPixel,
    "learnable": LearnableRegionNorm,
    "mean_max": ChannelMeanMax,
}
