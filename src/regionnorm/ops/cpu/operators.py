"""The CPU kernels as custom operators, which ``torch.compile`` can trace."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from regionnorm.ops.cpu import launch
from regionnorm.ops.second_order import in_dtype_of

__all__ = ["IMPLEMENTATIONS", "OPERATORS"]

_library: Any = torch.library.Library
LIBRARY = _library("regionnorm", "DEF")  # kept: the operators live as long as it does

OPTIONS = "str kind, int groups, float eps, bool relu"
AFFINE = f"Tensor? weight, Tensor? bias, int regions, {OPTIONS}"
PIXEL = f"Tensor scale, Tensor shift, {OPTIONS}"
LEARNED = "Tensor first, Tensor second, Tensor bias"
LEARNED_OPTIONS = f"float threshold, {OPTIONS}"
SCHEMAS = {
    "region_norm": f"(Tensor x, Tensor labels, {AFFINE}) -> (Tensor, Tensor)",
    "region_norm_backward": f"(Tensor grad, Tensor x, Tensor labels, Tensor stats, {AFFINE})"
    " -> (Tensor, Tensor)",
    "per_pixel": f"(Tensor x, Tensor labels, {PIXEL}) -> (Tensor, Tensor)",
    "per_pixel_backward": f"(Tensor grad, Tensor x, Tensor labels, Tensor stats, {PIXEL})"
    " -> (Tensor, Tensor)",
    "learnable": f"(Tensor x, {LEARNED}, {LEARNED_OPTIONS}) -> (Tensor, Tensor, Tensor, Tensor)",
    "learnable_backward": f"(Tensor grad, Tensor x, {LEARNED}, Tensor stats, Tensor summary, "
    f"Tensor response, {LEARNED_OPTIONS}) -> (Tensor, Tensor, Tensor, Tensor)",
    "mean_max": "(Tensor x) -> Tensor",
    "mean_max_backward": "(Tensor grad, Tensor x, Tensor result) -> Tensor",
}


def _mean_max_backward(grad: Tensor, x: Tensor, result: Tensor) -> Tensor:
    return launch.mean_max_backward(grad, x, result)


IMPLEMENTATIONS: dict[str, Callable[..., Any]] = {
    "region_norm": launch.affine_forward,
    "region_norm_backward": launch.affine_backward,
    "per_pixel": launch.pixel_forward,
    "per_pixel_backward": launch.pixel_backward,
    "learnable": launch.learned_forward,
    "learnable_backward": launch.learned_backward,
    "mean_max": launch.mean_max,
    "mean_max_backward": _mean_max_backward,
}


# --- Shapes of the results, for tracing -----------------------------------------------------------


def _features(x: Tensor) -> Tensor:
    """Channels-last stays as it is; all other formats become contiguous."""
    if x.is_contiguous(memory_format=torch.channels_last):
        return torch.empty_like(x)
    return torch.empty_like(x, memory_format=torch.contiguous_format)


def _maps(x: Tensor, channels: int) -> Tensor:
    return x.new_empty((x.shape[0], channels, *x.shape[2:]), dtype=torch.float32)


def _stats(x: Tensor, regions: int) -> Tensor:
    return x.new_empty((4, x.shape[0], regions, x.shape[1]), dtype=torch.float32)


def _parameter(like: Tensor) -> Tensor:
    # The kernels return contiguous gradients, whatever the layout of the parameter.
    return torch.empty_like(like, dtype=torch.float32, memory_format=torch.contiguous_format)


FAKES: dict[str, Any] = {
    "region_norm": lambda x, labels, weight, bias, regions, *_: (
        _features(x),
        _stats(x, regions),
    ),
    "region_norm_backward": lambda grad, x, labels, stats, weight, bias, regions, *_: (
        _features(x),
        x.new_empty((2, regions, x.shape[1]), dtype=torch.float32),
    ),
    "per_pixel": lambda x, *_: (_features(x), _stats(x, 2)),
    "per_pixel_backward": lambda grad, x, *_: (_features(x), _maps(x, 2)),
    "learnable": lambda x, *_: (_features(x), _stats(x, 2), _maps(x, 2), _maps(x, 1)),
    "learnable_backward": lambda grad, x, *parameters: (
        _features(x),
        *(_parameter(parameter) for parameter in parameters[:3]),
    ),
    "mean_max": lambda x: _maps(x, 2),
    "mean_max_backward": lambda grad, x, result: _features(x),
}


# --- Derivatives ----------------------------------------------------------------------------------


def _save_labelled(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    """Keep x, labels, statistics and two parameters, as the backward operators take them."""
    x, labels, first, second, *ctx.options = inputs
    ctx.save_for_backward(x, labels, output[1], first, second)


def _affine_gradients(ctx: Any, grad: Tensor, _: Any) -> tuple[Tensor | None, ...]:
    saved = ctx.saved_tensors
    dx, affine = OPERATORS["region_norm_backward"](grad, *saved, *ctx.options)
    found = (dx, None, in_dtype_of(affine[0], saved[3]), in_dtype_of(affine[1], saved[4]))
    return *found, *(None for _ in ctx.options)


def _pixel_gradients(ctx: Any, grad: Tensor, _: Any) -> tuple[Tensor | None, ...]:
    saved = ctx.saved_tensors
    dx, maps = OPERATORS["per_pixel_backward"](grad, *saved, *ctx.options)
    found = (dx, None, in_dtype_of(maps[:, :1], saved[3]), in_dtype_of(maps[:, 1:], saved[4]))
    return *found, *(None for _ in ctx.options)


def _save_learned(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    x, first, second, bias, *ctx.options = inputs
    ctx.save_for_backward(x, first, second, bias, *output[1:])


def _learned_gradients(ctx: Any, grad: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
    saved = ctx.saved_tensors
    found = OPERATORS["learnable_backward"](grad, *saved, *ctx.options)
    return *map(in_dtype_of, found, saved[:4]), *(None for _ in ctx.options)


def _save_mean_max(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs, output)


def _mean_max_gradient(ctx: Any, grad: Tensor) -> Tensor:
    result: Tensor = OPERATORS["mean_max_backward"](grad, *ctx.saved_tensors)
    return result


DERIVATIVES: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "region_norm": (_affine_gradients, _save_labelled),
    "per_pixel": (_pixel_gradients, _save_labelled),
    "learnable": (_learned_gradients, _save_learned),
    "mean_max": (_mean_max_gradient, _save_mean_max),
}


def _register() -> dict[str, Any]:
    """Define the operators; the backward ones are operators too, so that they can be traced."""
    for name, schema in SCHEMAS.items():
        LIBRARY.define(name + schema)
        LIBRARY.impl(name, IMPLEMENTATIONS[name], "CPU")
        torch.library.register_fake(f"regionnorm::{name}", FAKES[name], lib=LIBRARY)
    for name, (backward, save) in DERIVATIVES.items():
        torch.library.register_autograd(
            f"regionnorm::{name}", backward, setup_context=save, lib=LIBRARY
        )
    return {name: getattr(torch.ops.regionnorm, name) for name in SCHEMAS}


OPERATORS = _register()
