"""Convolutions that compute the same numbers as PyTorch's, in less time on a CPU."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["NarrowConv2d", "PaddedConv2d"]


class PaddedConv2d(nn.Conv2d):
    """``nn.Conv2d`` whose padding stays in half precision under autocast.

    On a CPU autocast pads by reflection in float32, so that features would be cast there and back.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Features ``[N, C, H, W]`` to ``[N, out_channels, H', W']``, as ``nn.Conv2d``."""
        padded = _pad(self, input)
        return F.conv2d(padded, self.weight, self.bias, self.stride, 0, self.dilation, self.groups)


class NarrowConv2d(nn.Conv2d):
    """``nn.Conv2d`` for very few output channels, such as a network's last: thrice as fast.

    Convolution kernels compute 16 output channels at once, so that three of them cost as much.
    Here a convolution with kernels of one row gives all rows of all kernels as channels (7 x 3 of
    them for 7x7 kernels and RGB), and their sum, shifted row by row, is the convolution. Half
    precision is summed, and returned, in float32.

    Parameters, their names and the arguments are ``nn.Conv2d``'s; stride and dilation stay 1.

    Raises:
        ValueError: A stride, a dilation or groups were asked for.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Features ``[N, C, H, W]`` to ``[N, out_channels, H', W']``, H' and W' as usual."""
        if (*self.stride, *self.dilation, self.groups) != (1, 1, 1, 1, 1):
            raise ValueError(
                f"stride is {self.stride}, dilation {self.dilation} and groups {self.groups}; "
                "NarrowConv2d takes 1 for each"
            )
        out, channels, height, width = self.weight.shape
        rows = self.weight.permute(2, 0, 1, 3).reshape(height * out, channels, 1, width)
        padded = _pad(self, input)
        total: Tensor = _ShiftedSum.apply(F.conv2d(padded, rows), out, height)  # type: ignore[no-untyped-call]
        return total if self.bias is None else total + self.bias[:, None, None]


class _ShiftedSum(torch.autograd.Function):
    """Sum of groups of channels, each a row further down than the one before.

    ``[N, rows * out, H + rows - 1, W]`` to ``[N, out, H, W]``. Autograd by itself would fill and
    add a map of all channels for each group.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(partial: Tensor, out: int, rows: int) -> Tensor:
        """Add the groups, half precision in float32."""
        size = partial.shape[-2] - rows + 1
        half = partial.dtype in (torch.float16, torch.bfloat16)
        total = partial[:, :out, :size].to(torch.float32 if half else partial.dtype, copy=True)
        for row in range(1, rows):
            total += partial[:, row * out : (row + 1) * out, row : row + size]
        return total

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, int, int], output: Tensor) -> None:
        """Keep what the gradient is made with; apart from forward, as torch.func asks."""
        ctx.dtype, ctx.rows = inputs[0].dtype, inputs[2]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        """Give every group the gradient of the sum, where it was taken from."""
        grad = grad.to(ctx.dtype).contiguous()
        padded = [F.pad(grad, (0, 0, row, ctx.rows - 1 - row)) for row in range(ctx.rows)]
        return torch.cat(padded, 1), None, None


def _pad(layer: nn.Conv2d, x: Tensor) -> Tensor:
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    with torch.autocast(x.device.type, enabled=False):
        return F.pad(x, layer._reversed_padding_repeated_twice, mode=mode)
