"""Partial convolution (Liu et al., 2018): convolve known pixels only, and grow what is known."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["PartialConv2d", "partial_conv2d"]


def partial_conv2d(
    x: Tensor,
    known: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    stride: int = 1,
    padding: int = 0,
    dilation: int = 1,
) -> tuple[Tensor, Tensor]:
    """Convolve what is known and renormalise by how much that is (eq. 1 and 2 of the paper).

    Where a window holds anything known, ``W * (x known) * window / sum(known) + bias``, with
    ``window`` the number of elements of the window; elsewhere 0. Then all of it counts as known.

    Args:
        x: float ``[N, C, H, W]``. What is not known is never read, not even a NaN.
        known: 0/1, any dtype, ``[N, C, H, W]`` or, for all channels alike, ``[N, 1, H, W]``. The
            latter may also be the share of a pixel's channels that is known, if the others are 0.
        weight: ``[O, C, K, L]``.
        bias: ``[O]`` or None.
        stride: As for :func:`torch.nn.functional.conv2d`.
        padding: Likewise; what lies beyond the edge is not known.
        dilation: Likewise.

    Returns:
        Features ``[N, O, H', W']`` and what is known of them, float32 0/1 ``[N, 1, H', W']``.

    Raises:
        ValueError: ``known`` does not fit ``x``.
    """
    if known.shape[0] != x.shape[0] or known.shape[1] not in (1, x.shape[1]):
        raise ValueError(_misfit(x, known))
    if known.shape[2:] != x.shape[2:]:
        raise ValueError(_misfit(x, known))
    # Counts of up to thousands: exact in float32, not in half precision.
    with torch.no_grad(), torch.autocast(x.device.type, enabled=False):
        count = known.float().sum(dim=1, keepdim=True) * (x.shape[1] // known.shape[1])
        ones = torch.ones(1, 1, *weight.shape[2:], dtype=count.dtype, device=x.device)
        count = F.conv2d(count, ones, None, stride, padding, dilation)
        reached = count > 0
        ratio = torch.where(reached, weight[0].numel() / count.clamp(min=1), 0.0)
    out = F.conv2d(torch.where(known > 0, x, 0.0), weight, None, stride, padding, dilation)
    # In the features' own dtype, so that half precision stays half.
    out = out * ratio.to(out.dtype)
    if bias is not None:
        out = out + bias.to(out.dtype)[:, None, None] * reached.to(out.dtype)
    return out, reached.float()


class PartialConv2d(nn.Conv2d):
    """``nn.Conv2d`` that takes and returns what is known; see :func:`partial_conv2d`.

    Called as ``conv(x, known) -> (features, known)``. Parameters, their names and the arguments
    are ``nn.Conv2d``'s, with one number for each of stride, padding and dilation, zero padding
    and no groups.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        stride: int = 1,
        padding: int = 0,
        dilation: int = 1,
        bias: bool = True,
    ) -> None:
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride=stride,
            padding=padding,
            dilation=dilation,
            bias=bias,
        )
        self.geometry = {"stride": stride, "padding": padding, "dilation": dilation}

    def forward(self, x: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """See :func:`partial_conv2d`."""
        return partial_conv2d(x, known, self.weight, self.bias, **self.geometry)


def _misfit(x: Tensor, known: Tensor) -> str:
    return (
        f"known has shape {list(known.shape)}; features {list(x.shape)} need "
        f"{list(x.shape)} or {[x.shape[0], 1, *x.shape[2:]]}"
    )
