"""The GPU kernels as custom operators, which ``torch.compile`` can trace."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from regionnorm.ops.gpu import launch
from regionnorm.ops.second_order import in_dtype_of

__all__ = ["backward_op", "forward_op", "mean_max_backward_op", "mean_max_op", "split"]

_OPTIONS = "Tensor? weight, Tensor? bias, str kind, float eps, bool relu, bool pixel"

forward_op = torch.library.custom_op(
    "regionnorm::gpu_forward",
    launch.forward,
    mutates_args=(),
    schema=f"(Tensor x, Tensor labels, {_OPTIONS}) -> (Tensor, Tensor)",
)
backward_op = torch.library.custom_op(
    "regionnorm::gpu_backward",
    launch.backward,
    mutates_args=(),
    schema=f"(Tensor grad, Tensor x, Tensor labels, Tensor stats, {_OPTIONS}) -> (Tensor, Tensor)",
)
mean_max_op = torch.library.custom_op(
    "regionnorm::gpu_mean_max", launch.mean_max, mutates_args=(), schema="(Tensor x) -> Tensor"
)
mean_max_backward_op = torch.library.custom_op(
    "regionnorm::gpu_mean_max_backward",
    launch.mean_max_backward,
    mutates_args=(),
    schema="(Tensor grad, Tensor x, Tensor result) -> Tensor",
)


def _like(x: Tensor) -> Tensor:
    return torch.empty_like(launch.arrange(x)[0])


@forward_op.register_fake
def _fake_forward(x: Tensor, labels: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    return _like(x), x.new_empty((4, x.shape[0], 2, x.shape[1]), dtype=torch.float32)


@backward_op.register_fake
def _fake_backward(
    grad: Tensor, x: Tensor, labels: Any, stats: Any, weight: Any, bias: Any, *options: Any
) -> tuple[Tensor, Tensor]:
    shape = (x.shape[0], 2, *x.shape[2:]) if options[3] else (2, 2, x.shape[1])
    return _like(x), x.new_empty(shape, dtype=torch.float32)


@mean_max_op.register_fake
def _fake_mean_max(x: Tensor) -> Tensor:
    return x.new_empty((x.shape[0], 2, *x.shape[2:]), dtype=torch.float32)


@mean_max_backward_op.register_fake
def _fake_mean_max_backward(grad: Tensor, x: Tensor, result: Tensor) -> Tensor:
    return _like(x)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    """Keep what the backward operator takes: x, labels, statistics, two parameters, options."""
    x, labels, weight, bias, *options = inputs
    ctx.save_for_backward(x, labels, output[1], weight, bias)
    ctx.options = options


def _differentiate(ctx: Any, grad: Tensor, _: Any) -> tuple[Any, ...]:
    saved = ctx.saved_tensors
    dx, parameters = backward_op(grad, *saved, *ctx.options)
    of_parameters = split(parameters, saved[3], saved[4], ctx.options)
    return dx, None, *of_parameters, *(None for _ in ctx.options)


def _save_mean_max(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs, output)


def _differentiate_mean_max(ctx: Any, grad: Tensor) -> Any:
    return mean_max_backward_op(grad, *ctx.saved_tensors)


forward_op.register_autograd(_differentiate, setup_context=_save)
mean_max_op.register_autograd(_differentiate_mean_max, setup_context=_save_mean_max)


def split(
    gradients: Tensor, weight: Tensor | None, bias: Tensor | None, options: launch.Options
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients of weight and bias in their types, from those of both."""
    pixel = options[3]
    of_weight, of_bias = (
        (gradients[:, :1], gradients[:, 1:]) if pixel else (gradients[0], gradients[1])
    )
    return in_dtype_of(of_weight, weight), in_dtype_of(of_bias, bias)
