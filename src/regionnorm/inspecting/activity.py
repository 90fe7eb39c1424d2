"""How alive a network's layers are: zeros behind its ReLUs, and what RN-L's regions have found."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from regionnorm.inspecting.layers import evaluating, learned_regions, mask_at
from regionnorm.nn.norm import MaskedNorm

__all__ = ["DEAD", "REGIONS_AT", "REGIONS_IN", "Activity", "layer_activity"]

REGIONS_AT, REGIONS_IN = 256, (0.3, 0.4)
"""Side of photos in which RN-L's regions can meet the hole, and the hole's share of the area.

A narrower hole is a few of a layer's pixels wide, and the response's 7x7 kernels hardly see it.
"""

DEAD = 0.98
"""A layer with a larger share of zeros has next to nothing left to say or to learn by."""


@dataclass(frozen=True)
class Activity:
    """What a network's layers do with some photos.

    Attributes:
        zeros: Share of zeros behind each norm that a ReLU follows, 0 to 1, by the layer's name.
        found: How well the region of each RN-L meets the hole: intersection over union, of the
            region or of what it leaves, whichever is larger. Which side of the threshold a hole
            falls on is the network's choice.
    """

    zeros: Mapping[str, float]
    found: Mapping[str, float]

    @property
    def dead(self) -> tuple[str, ...]:
        """Names of the layers with a share of zeros above :data:`DEAD`."""
        return tuple(name for name, share in self.zeros.items() if share > DEAD)


def layer_activity(model: nn.Module, image: Tensor, mask: Tensor) -> Activity:
    """Run a network on photos and measure how alive its layers are.

    Args:
        model: A network called as ``model(image, mask)``. It runs in evaluation mode, and is left
            as it was. Norms count where they are a :class:`~regionnorm.nn.norm.MaskedNorm`, as in
            all networks of this package.
        image: ``[B, 3, H, W]`` in [0, 1], on the model's device.
        mask: ``[B, 1, H, W]``, 1 = hole.
    """
    zeros: dict[str, float] = {}
    with torch.no_grad(), evaluating(model), ExitStack() as stack:
        for name, module in model.named_modules():
            if isinstance(module, MaskedNorm) and _has_relu(module):
                stack.callback(module.register_forward_hook(_counter(name, zeros)).remove)
        regions = learned_regions(model, image, mask)
    found = {}
    for region in regions:
        hole = mask_at(model, mask, (region.region.shape[-2], region.region.shape[-1])).cpu()
        found[region.layer.removesuffix(".layer")] = max(
            _overlap(region.region, hole), _overlap(~region.region, hole)
        )
    return Activity(zeros, found)


def _has_relu(norm: MaskedNorm) -> bool:
    # RN layers apply it themselves, in the same pass over the features.
    return "relu" in (norm.activation, getattr(norm.layer, "activation", None))


def _counter(name: str, zeros: dict[str, float]) -> Any:
    def count(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
        zeros[name] = float((output == 0).float().mean())

    return count


def _overlap(region: Tensor, hole: Tensor) -> float:
    """Mean intersection over union of bool ``[B, 1, H, W]``; 0 where both are empty."""
    both = (region & hole).sum((1, 2, 3)).float()
    either = (region | hole).sum((1, 2, 3)).float()
    return float((both / either.clamp(min=1)).mean())
