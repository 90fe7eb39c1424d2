"""What is drawn of a network at work."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from regionnorm.inspecting.layers import Kind, RegionStatistics, Stage

__all__ = ["Inside", "LayerView"]


@dataclass(frozen=True)
class LayerView:
    """What is drawn of one layer. Maps are without the margin that a network pads pictures by.

    Attributes:
        layer: The layer's name in the network.
        kind: ``"rn-b"``, ``"rn-l"``, ``"in"`` or ``"bn"``.
        mask: The hole at the layer's size, bool ``[h, w]``.
        region: What the layer splits by ``[h, w]``: bool, or labels; None if it does not.
        response: RN-L's spatial response in (0, 1), float32 ``[h, w]``; None for others.
        threshold: RN-L's threshold; None for others.
        gamma: RN-L: ``[h, w]``; others ``[K, C]``; None without one.
        beta: Likewise.
        statistics: Of the features of each stage, by region; see :meth:`LayerRecord.statistics`.
    """

    layer: str
    kind: Kind
    mask: Tensor
    region: Tensor | None
    response: Tensor | None
    threshold: float | None
    gamma: Tensor | None
    beta: Tensor | None
    statistics: Mapping[Stage, Mapping[str, RegionStatistics]]

    @property
    def overlap(self) -> tuple[float, float]:
        """Share of the hole and share of the known pixels that lie in the region; NaN of nothing.

        A region that finds the hole has 1 and 0, or 0 and 1: which side of the threshold the hole
        falls on is the network's choice.
        """
        if self.region is None:
            return float("nan"), float("nan")
        inside = self.region.bool().float()
        return float(inside[self.mask].mean()), float(inside[~self.mask].mean())


@dataclass(frozen=True)
class Inside:
    """What is drawn of a network at work.

    Attributes:
        image: float32 ``[1, 3, H, W]`` in [0, 1].
        mask: float32 0/1 ``[1, 1, H, W]``.
        encoded: The encoder's result, float32 ``[C, h, w]``; None where no module is called
            encoder.
        fill: The network's picture in the hole, the photo elsewhere, float32 ``[1, 3, H, W]``.
        layers: In the order in which they ran.
    """

    image: Tensor
    mask: Tensor
    encoded: Tensor | None
    fill: Tensor
    layers: tuple[LayerView, ...]
