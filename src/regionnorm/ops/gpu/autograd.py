"""The operations on the GPU kernels, with their derivatives.

As on the CPU, eager mode calls the kernels directly and ``torch.compile`` sees custom operators.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from regionnorm.ops import plain
from regionnorm.ops.gpu import launch, operators
from regionnorm.ops.second_order import gradients_again

__all__ = ["channel_mean_max", "learnable_region_norm", "region_norm", "region_norm_per_pixel"]


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
    """As :func:`regionnorm.ops.plain.region_norm`, for two regions."""
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
    """As :func:`regionnorm.ops.plain.region_norm_per_pixel`."""
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
    """As :func:`regionnorm.ops.plain.learnable_region_norm`, with cuDNN's convolutions."""
    response = plain.spatial_response(channel_mean_max(x), response_weight)
    labels = (response.detach() > threshold).flatten(1)
    gamma, beta = plain.pixel_maps(response, affine_weight, affine_bias)
    return region_norm_per_pixel(x, labels, 1 + gamma, beta, groups=groups, eps=eps, relu=relu)


def channel_mean_max(x: Tensor) -> Tensor:
    """As :func:`regionnorm.ops.plain.channel_mean_max`."""
    if torch.compiler.is_compiling():
        result: Tensor = operators.mean_max_op(x)
    elif torch.is_grad_enabled() and x.requires_grad:
        result = ChannelMeanMax.apply(x)  # type: ignore[no-untyped-call]
    else:
        result = launch.mean_max(x)
    return result.to(x.dtype)


def _apply(
    x: Tensor, labels: Tensor, weight: Tensor | None, bias: Tensor | None, options: launch.Options
) -> Tensor:
    labels = labels.view(torch.uint8) if labels.dtype == torch.bool else labels.to(torch.uint8)
    if torch.compiler.is_compiling():
        result: Tensor = operators.forward_op(x, labels, weight, bias, *options)[0]
        return result
    given = (x, weight, bias)
    if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in given):
        applied: Tensor = RegionNorm.apply(  # type: ignore[no-untyped-call]
            x, labels, weight, bias, options
        )
        return applied
    return launch.forward(x, labels, weight, bias, *options)[0]


class RegionNorm(torch.autograd.Function):
    """Saves its inputs, the labels and the statistics; all else is computed again."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, labels: Tensor, weight: Any, bias: Any, options: launch.Options
    ) -> Tensor:
        """Normalise by regions."""
        out, stats = launch.forward(x, labels, weight, bias, *options)
        ctx.save_for_backward(x, labels, stats, weight, bias)
        ctx.options = options
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of x, weight and bias; second derivatives come from the plain path."""
        x, labels, stats, weight, bias = ctx.saved_tensors
        if torch.is_grad_enabled():

            def compute(x: Tensor, weight: Any, bias: Any) -> Tensor:
                return _plain_result(x, labels, weight, bias, ctx.options)

            dx, dweight, dbias = gradients_again(compute, (x, weight, bias), grad)
            return dx, None, dweight, dbias, None
        dx, parameters = launch.backward(grad, x, labels, stats, weight, bias, *ctx.options)
        return dx, None, *operators.split(parameters, weight, bias, ctx.options), None


def _plain_result(
    x: Tensor, labels: Tensor, weight: Any, bias: Any, options: launch.Options
) -> Tensor:
    kind, eps, relu, pixel = options
    common: dict[str, Any] = {"groups": (kind, 1), "eps": eps, "relu": relu}
    if pixel:
        return plain.region_norm_per_pixel(x, labels, weight, bias, **common)
    return plain.region_norm(x, labels, weight, bias, num_regions=2, **common)


class ChannelMeanMax(torch.autograd.Function):
    """Saves its input and its result, from which the places of the maxima are found again."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        """Mean and maximum over the channels."""
        result = launch.mean_max(x)
        ctx.save_for_backward(x, result)
        return result

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor | None:
        """Gradient of x; second derivatives come from the plain path."""
        x, result = ctx.saved_tensors
        if torch.is_grad_enabled():

            def compute(x: Tensor) -> Tensor:
                return plain.channel_mean_max(x).float()

            return gradients_again(compute, (x,), grad)[0]
        return launch.mean_max_backward(grad, x, result)
