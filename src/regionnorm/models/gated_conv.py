"""Free-form inpainting with gated convolution (Yu et al., 2019)."""

from __future__ import annotations

import torch

from regionnorm.models.coarse_to_fine import CoarseToFine
from regionnorm.nn.gated_conv import GatedConv2d

__all__ = ["GatedConvNet"]


class GatedConvNet(CoarseToFine):
    """The two networks of contextual attention, made of gated convolutions; no norm as published.

    Args:
        encoder: Norm of the coarse network's encoder: ``"rn-b"``, ``"rn-l"``, ``"in"``, ``"bn"``
            or ``"none"``. It acts on the features and leaves the gates alone.
        later: Norm of the coarse network's later layers.
        width: Channels that the first convolution computes, features and gates together; a
            multiple of 4, 48 in the paper.
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
        width: int = 48,
        stats: str = "instance",
        threshold: float = 0.8,
        track_running_stats: bool = False,
    ) -> None:
        if width < 4 or width % 4:
            raise ValueError(f"width is {width}; expected a multiple of 4")
        super().__init__(
            GatedConv2d,
            torch.tanh,
            refine_channels=3,
            encoder=encoder,
            later=later,
            channels=width // 2,
            stats=stats,
            threshold=threshold,
            track_running_stats=track_running_stats,
        )
