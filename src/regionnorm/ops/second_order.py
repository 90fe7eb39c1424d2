"""Derivatives of derivatives: the kernels have first ones, plain PyTorch has any number."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["gradients_again", "in_dtype_of"]


def gradients_again(
    compute: Callable[..., Tensor], inputs: tuple[Tensor | None, ...], grad: Tensor
) -> list[Tensor | None]:
    """Gradients that can be differentiated again.

    Args:
        compute: The plain implementation, called with ``inputs``.
        inputs: Those that take no gradient get None.
        grad: Gradient of the result.
    """
    # Other names for the inputs: where one was made of another, as a scale is of the features in
    # RN-L, the way from the one to the other is the outer graph's, and would count twice here.
    named = [tensor if tensor is None else tensor.view_as(tensor) for tensor in inputs]
    wanted = [tensor for tensor in named if tensor is not None and tensor.requires_grad]
    found = iter(torch.autograd.grad(compute(*named), wanted, grad, create_graph=True))
    return [
        next(found) if tensor is not None and tensor.requires_grad else None for tensor in named
    ]


def in_dtype_of(gradient: Tensor, parameter: Tensor | None) -> Tensor | None:
    """A gradient in its parameter's dtype; None where there is no parameter."""
    return None if parameter is None else gradient.to(parameter.dtype)
