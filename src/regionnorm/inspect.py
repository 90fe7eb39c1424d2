"""Look inside a network: the regions that its RN-L layers find."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from regionnorm.nn import LearnableRegionNorm2d

__all__ = ["LearnedRegion", "learned_regions"]

_HALF = (torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class LearnedRegion:
    """What one RN-L layer made of its input.

    Attributes:
        layer: The layer's name in the network, such as ``"decoder.0.norm"``.
        response: The spatial response (eq. 14), float32 ``[B, 1, h, w]`` in (0, 1), on the CPU;
            ``h`` and ``w`` are those of the layer's features.
        region: Where the response exceeds the layer's threshold (eq. 15), bool ``[B, 1, h, w]``.
    """

    layer: str
    response: Tensor
    region: Tensor

    @property
    def share(self) -> float:
        """The region's share of the area, 0 to 1."""
        return float(self.region.float().mean())


@torch.inference_mode()
def learned_regions(model: nn.Module, image: Tensor, mask: Tensor) -> list[LearnedRegion]:
    """Run a network once and collect the regions that its RN-L layers find on the way.

    Args:
        model: A network called as ``model(image, mask)``; without RN-L layers the list is empty.
            Nothing else may run it at the same time.
        image: ``[B, 3, H, W]`` in [0, 1], on the model's device; the hole's pixels are not read.
        mask: ``[B, 1, H, W]``, 1 = hole.

    Returns:
        One entry for each RN-L layer, in the order in which they ran.

    Example:
        >>> for found in learned_regions(rn.load_pretrained(), image, mask):
        ...     print(found.layer, f"{found.share:.0%}")
    """
    # Weights that are stored in half precision are meant to run under autocast.
    half = next((p.dtype for p in model.parameters() if p.dtype in _HALF), None)
    found: list[LearnedRegion] = []
    with (
        _listening(model, found),
        torch.autocast(image.device.type, dtype=half, enabled=half is not None),
    ):
        model(image * (1 - mask), mask)
    return found


@contextmanager
def _listening(model: nn.Module, found: list[LearnedRegion]) -> Iterator[None]:
    layers = [
        (name, layer)
        for name, layer in model.named_modules()
        if isinstance(layer, LearnableRegionNorm2d)
    ]
    handles = [layer.register_forward_pre_hook(_recorder(name, found)) for name, layer in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _recorder(name: str, found: list[LearnedRegion]) -> Any:
    # Before the layer, not after: fused layers do not hand out the response that they compute.
    def record(layer: LearnableRegionNorm2d, inputs: tuple[Tensor, ...]) -> None:
        response = layer.spatial_response(inputs[0])
        region = layer.region_mask(response)
        found.append(LearnedRegion(name, response.float().cpu(), region.cpu()))

    return record
