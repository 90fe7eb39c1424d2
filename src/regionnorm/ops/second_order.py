"""Derivatives of derivatives: the kernels have first ones, plain PyTorch has any number."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["gradients_again", "in_dtype_of"]


def gradients_again(
    result: Tensor, inputs: tuple[Tensor | None, ...], grad: Tensor
) -> list[Tensor | None]:
    """Gradients that can be differentiated again.

    Args:
        result: What the plain implementation makes of ``inputs``.
        inputs: Those that take no gradient get None.
        grad: Gradient of ``result``.
    """
    wanted = [tensor for tensor in inputs if tensor is not None and tensor.requires_grad]
    found = iter(torch.autograd.grad(result, wanted, grad, create_graph=True))
    return [
        next(found) if tensor is not None and tensor.requires_grad else None for tensor in inputs
    ]


def in_dtype_of(gradient: Tensor, parameter: Tensor | None) -> Tensor | None:
    """A gradient in its parameter's dtype; None where there is no parameter."""
    return None if parameter is None else gradient.to(parameter.dtype)
