"""One factory for the normalisation layers that the networks can choose between."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from regionnorm.nn.region_norm import LearnableRegionNorm2d, RegionNorm2d, check_threshold
from regionnorm.ops.region_norm import check_activation, parse_stats

__all__ = ["NORMS", "MaskedNorm", "make_norm"]

NORMS = ("rn-b", "rn-l", "in", "bn", "none")


class MaskedNorm(nn.Module):
    """A normalisation layer called as ``norm(x, mask)``, whether or not it uses the mask."""

    def __init__(self, layer: nn.Module, activation: str | None = None) -> None:
        super().__init__()
        check_activation(activation)
        self.layer = layer
        self.activation = activation

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Normalise ``x`` ``[N, C, H, W]``; ``mask`` ``[N, 1, H, W]`` has its size."""
        x = self.layer(x, mask) if isinstance(self.layer, RegionNorm2d) else self.layer(x)
        return torch.relu(x) if self.activation == "relu" else x


def make_norm(
    kind: str,
    channels: int,
    *,
    stats: str = "instance",
    threshold: float = 0.8,
    activation: str | None = None,
    bound: float | None = None,
    **statistics: Any,
) -> MaskedNorm:
    """Make a layer called as ``norm(x, mask)``.

    Args:
        kind: ``"rn-b"``, ``"rn-l"``, ``"in"``, ``"bn"`` or ``"none"``.
        channels: Channels of the features.
        stats: Statistics of RN-B and RN-L.
        threshold: Threshold of RN-L.
        activation: ``"relu"`` to apply a ReLU after normalising, or None.
        bound: Most that gamma and beta of RN-L may reach, or None.
        **statistics: More options of RN-B and RN-L: ``eps_on``, ``track_running_stats``.

    Raises:
        ValueError: ``kind``, ``stats``, ``threshold`` or ``activation`` is not known.
    """
    # Also where they are of no consequence, so that no typing error goes unnoticed; whether groups
    # divide the channels matters only to the layers that have some.
    parse_stats(stats, 0)
    check_threshold(threshold)
    regional: dict[str, Any] = {"stats": stats, "activation": activation, **statistics}
    # The region layers apply the activation themselves, in the same pass over the features.
    if kind == "rn-b":
        return MaskedNorm(RegionNorm2d(channels, **regional))
    if kind == "rn-l":
        return MaskedNorm(
            LearnableRegionNorm2d(channels, threshold=threshold, bound=bound, **regional)
        )
    if kind == "in":
        return MaskedNorm(nn.InstanceNorm2d(channels, affine=True), activation)
    if kind == "bn":
        return MaskedNorm(nn.BatchNorm2d(channels), activation)
    if kind == "none":
        return MaskedNorm(nn.Identity(), activation)
    raise ValueError(f"norm is {kind!r}; expected one of {', '.join(NORMS)}")
