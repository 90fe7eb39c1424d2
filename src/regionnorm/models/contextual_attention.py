"""Generative inpainting with contextual attention (Yu et al., 2018)."""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import Tensor, nn
from torch.nn import functional as F

from regionnorm.models.coarse_to_fine import CoarseToFine
from regionnorm.nn.norm import MaskedNorm

__all__ = ["ContextualAttentionNet"]

GAIN = 1.28  # keeps the mean square of the features through ELU


class ContextualAttentionNet(CoarseToFine):
    """Coarse and refinement network with ELUs and, as published, without any norm.

    Args:
        encoder: Norm of the coarse network's encoder: ``"rn-b"``, ``"rn-l"``, ``"in"``, ``"bn"``
            or ``"none"``.
        later: Norm of the coarse network's later layers.
        width: Channels of the first convolution, even; 32 in the paper.
        stats: What shares statistics in RN-B and RN-L, see :func:`regionnorm.region_norm`.
        threshold: Threshold of RN-L (eq. 15).
        track_running_stats: Running averages in RN-B and RN-L for evaluation, see
            :class:`regionnorm.RegionNorm2d`; with ``stats="batch"``.
    """

    def __init__(
        self,
        encoder: str = "none",
        later: str = "none",
        *,
        width: int = 32,
        stats: str = "instance",
        threshold: float = 0.8,
        track_running_stats: bool = False,
    ) -> None:
        if width < 2 or width % 2:
            raise ValueError(f"width is {width}; expected an even number")
        super().__init__(
            _Convolution,
            _clip,
            refine_channels=5,
            encoder=encoder,
            later=later,
            channels=width,
            stats=stats,
            threshold=threshold,
            track_running_stats=track_running_stats,
        )


class _Convolution(nn.Module):
    """Convolution, norm, activation."""

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
        padding = dilation * (kernel_size // 2)
        self.conv = nn.Conv2d(
            in_channels, out_channels, kernel_size, stride, padding=padding, dilation=dilation
        )
        fan_in = in_channels * kernel_size**2
        nn.init.normal_(self.conv.weight, std=GAIN / math.sqrt(fan_in))
        nn.init.zeros_(self.conv.bias)  # type: ignore[arg-type]
        self.norm = norm
        self.activation = activation

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x = self.conv(x)
        if self.norm is not None:
            x = self.norm(x, mask)
        return self.activation(x)


def _clip(x: Tensor) -> Tensor:
    return x.clamp(-1, 1)
