"""Gated convolution (Yu et al., 2019): a convolution that learns where to let features through."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from regionnorm.nn.norm import MaskedNorm

__all__ = ["GatedConv2d"]

# Keeps the mean square of the features through ELU and gate: with less, as gates let through half,
# features would vanish over the depth of a network.
GAIN = 2.24


class GatedConv2d(nn.Module):
    """``activation(norm(a)) * sigmoid(b)``, where ``a`` and ``b`` halve one convolution's output.

    Eq. 3 of the paper; its width counts both halves, so that ``out_channels`` here is half of it.
    A norm, which the paper does without, acts on the features and leaves the gate alone.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the result; the convolution computes twice as many.
        kernel_size: Odd; the size stays the same but for ``stride``.
        stride: Of the convolution.
        dilation: Of the convolution.
        norm: Called as ``norm(a, mask)``, or None.
        activation: Of the features.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        stride: int = 1,
        dilation: int = 1,
        norm: MaskedNorm | None = None,
        activation: Callable[[Tensor], Tensor] = F.elu,
    ) -> None:
        super().__init__()
        if kernel_size % 2 == 0:
            raise ValueError(f"kernel_size is {kernel_size}; it should be odd")
        self.conv = nn.Conv2d(
            in_channels,
            2 * out_channels,
            kernel_size,
            stride=stride,
            padding=dilation * (kernel_size // 2),
            dilation=dilation,
        )
        fan_in = in_channels * kernel_size**2
        nn.init.normal_(self.conv.weight, std=GAIN / math.sqrt(fan_in))
        nn.init.zeros_(self.conv.bias)  # type: ignore[arg-type]
        self.norm = norm
        self.activation = activation

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Features ``[N, C, H, W]`` to features; ``mask`` (of the result's size) is the norm's."""
        features, gate = _halves(self.conv(x))
        if self.norm is not None:
            features = self.norm(features, mask)
        gated: Tensor = self.activation(features) * gate.sigmoid()
        return gated


def _halves(x: Tensor) -> tuple[Tensor, Tensor]:
    """Both halves of the channels, each whole in memory.

    Of channels-last features a half is a few channels at each pixel, which a CPU goes through one
    by one: ELU and sigmoid take four to nine times as long there as the copy and they together.
    """
    features, gate = x.chunk(2, dim=1)
    if x.is_contiguous(memory_format=torch.channels_last):
        features = features.contiguous(memory_format=torch.channels_last)
        gate = gate.contiguous(memory_format=torch.channels_last)
    return features, gate
