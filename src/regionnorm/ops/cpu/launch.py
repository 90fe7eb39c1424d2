"""The CPU kernels by layout: tensors in, tensors out, without derivatives.

Contiguous features go to ``planes``, channels-last ones to ``rows``; others become contiguous.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from regionnorm.ops.cpu import planes, rows
from regionnorm.ops.cpu.call import buffer, float32, run
from regionnorm.ops.statistics import give_statistics

__all__ = [
    "affine_backward",
    "affine_forward",
    "affine_given",
    "learned_backward",
    "learned_forward",
    "learned_given",
    "mean_max",
    "mean_max_backward",
    "pixel_backward",
    "pixel_forward",
]

NUM_CHUNKS = 32  # shares in which sums over pixels are cut, whatever the number of threads


def _layout(x: Tensor) -> tuple[Tensor, ModuleType]:
    """``x`` without gaps, and the kernels for it."""
    last = not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last)
    return (x, rows) if last else (x.contiguous(), planes)


def _like(grad: Tensor, layout: ModuleType) -> Tensor:
    """The gradient in the layout of the features."""
    last = layout is rows
    return grad.contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)


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
    x, layout = _layout(x)
    affine = float32(weight), float32(bias)
    found: tuple[Tensor, Tensor] = layout.affine_forward(
        x, labels.contiguous(), *affine, regions, kind, num_groups, eps, relu
    )
    give_statistics(found[1])
    return found


def affine_given(
    x: Tensor,
    labels: Tensor,
    stats: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    relu: bool,
) -> Tensor:
    """Result of ``region_norm`` by given statistics ``[4, N, K, C]``, in channels-last."""
    x = x.contiguous(memory_format=torch.channels_last)
    affine = float32(weight), float32(bias)
    return rows.affine_given(x, labels.contiguous(), stats, *affine, relu)


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
    x, layout = _layout(x)
    grad, affine = _like(grad, layout), (float32(weight), float32(bias))
    dx, sums = layout.affine_backward(
        grad, x, labels.contiguous(), stats, *affine, regions, kind, num_groups, relu
    )
    return dx, sums.sum(1)


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


def _maps(labels: Tensor, scale: Tensor, shift: Tensor, relu: bool) -> dict[str, Any]:
    """What the kernels of each pixel's scale and shift take beside the features."""
    scale, shift, step = _pixel_maps(scale, shift)
    return {
        "labels": labels.contiguous(),
        "weight": scale,
        "bias": shift,
        "pixel_step": step,
        "relu": relu,
    }


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
    x, layout = _layout(x)
    given = _maps(labels, scale, shift, relu)
    found: tuple[Tensor, Tensor] = layout.pixel_forward(x, kind, num_groups, eps, given)
    give_statistics(found[1])
    return found


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
    x, layout = _layout(x)
    given = _maps(labels, scale, shift, relu)
    found: tuple[Tensor, Tensor] = layout.pixel_backward(
        _like(grad, layout), x, stats, kind, num_groups, given
    )
    return found


def mean_max(x: Tensor) -> Tensor:
    """Mean and maximum in float32, in which a maximum of bfloat16 stays exact."""
    x, layout = _layout(x)
    found: Tensor = layout.mean_max(x)
    return found


def mean_max_backward(
    grad: Tensor, x: Tensor, result: Tensor, onto: Tensor | None = None
) -> Tensor:
    """Gradient of x, added to ``onto`` in its place if it is given."""
    x, layout = _layout(x)
    out = torch.empty_like(x) if onto is None else onto
    grad = grad.to(torch.float32).contiguous()
    layout.mean_max_backward(grad, x, result, out, add=onto is not None)
    return out


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
    x, _ = _layout(x)
    summary = mean_max(x)
    response = torch.sigmoid_(_convolve(summary, response_weight, None))
    scale, shift = _scale_and_shift(response, affine_weight, affine_bias)
    out, stats = pixel_forward(
        x, _hole(response, threshold), scale, shift, kind, num_groups, eps, relu
    )
    return out, stats, summary, response


def learned_given(
    x: Tensor,
    stats: Tensor,
    response_weight: Tensor,
    affine_weight: Tensor,
    affine_bias: Tensor,
    threshold: float,
    relu: bool,
) -> Tensor:
    """Result of ``learnable_region_norm`` by given statistics ``[4, N, 2, C]``, channels-last."""
    x = x.contiguous(memory_format=torch.channels_last)
    response = torch.sigmoid_(_convolve(rows.mean_max(x), response_weight, None))
    scale, shift = _scale_and_shift(response, affine_weight, affine_bias)
    return rows.pixel_given(x, stats, _maps(_hole(response, threshold), scale, shift, relu))


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
    x, _ = _layout(x)
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
    out = buffer(samples, outputs, height, width)
    padded = F.pad(x, (size // 2,) * 4)
    run(
        "small_convolution",
        padded,
        samples * height,
        regions=outputs,
        groups=(size, height, width),
        x=padded,
        out=out,
        weight=float32(weight),
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
    out = buffer(tasks, *weight.shape)
    run(
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
