"""Weights in the precision that they are computed in."""

from __future__ import annotations

import torch
from torch import nn

from regionnorm.nn.region_norm import LearnableRegionNorm2d

__all__ = ["cast_convolutions"]


def cast_convolutions(module: nn.Module, dtype: torch.dtype) -> None:
    """Store the weights of a module's convolutions in half precision, in place.

    Autocast would cast them again at every forward; the picture is the same. Norms keep their
    float32 affine weights, and so do the small convolutions inside RN-L, whose kernel takes them
    as they are. Run the module under autocast of the same type afterwards.

    Args:
        module: A network in evaluation mode; its gradients would suffer.
        dtype: ``torch.bfloat16`` or ``torch.float16``.
    """
    if isinstance(module, LearnableRegionNorm2d):
        return
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        module.to(dtype)
    for child in module.children():
        cast_convolutions(child, dtype)
