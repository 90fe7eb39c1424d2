"""The contract that every network keeps: ``model(image, mask) -> image``."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["InpaintingModel", "at_least_float32"]

MIN_SIZE = 16


class InpaintingModel(nn.Module):
    """Base of all networks: checks, hides the hole, pads to the stride, crops and clamps.

    A subclass implements :meth:`fill` or, if it paints in stages, :meth:`fill_stages`; either may
    rely on sides that are multiples of :attr:`stride` and on a hole of zeros.
    """

    stride: int = 1

    def __init__(self) -> None:
        super().__init__()
        # Set by create_model, so that saved weights say how to build the network again.
        self.name = ""
        self.options: dict[str, Any] = {}

    def forward(self, image: Tensor, mask: Tensor) -> Tensor:
        """Fill the hole.

        Args:
            image: RGB in [0, 1], ``[B, 3, H, W]``, both sides at least 16. What stands under the
                hole is never read.
            mask: ``[B, 1, H, W]``, above 0.5 = hole.

        Returns:
            The network's whole picture in [0, 1], ``[B, 3, H, W]``; it is not composited with the
            known pixels.

        Raises:
            ValueError: The shapes do not fit.
        """
        if not image.numel():  # PyTorch's norms and convolutions do not all take an empty batch
            check_inputs(image, mask)
            return image
        return self.forward_stages(image, mask)["output"].clamp(0, 1)

    def forward_stages(self, image: Tensor, mask: Tensor) -> dict[str, Tensor]:
        """Fill the hole and tell what was painted on the way, for training.

        Args:
            image: As for :meth:`forward`.
            mask: As for :meth:`forward`.

        Returns:
            ``[B, C, H, W]`` by name: ``"output"``, the picture that :meth:`forward` returns but
            not clamped to [0, 1], so that gradients flow, and what a family adds, such as
            ``"coarse"``.

        Raises:
            ValueError: The shapes do not fit.
        """
        check_inputs(image, mask)
        height, width = image.shape[-2:]
        hole = (mask > 0.5).to(image.dtype)
        known = torch.where(hole > 0, 0.0, image)
        padding = (0, -width % self.stride, 0, -height % self.stride)
        if any(padding):
            known = F.pad(known, padding, mode="replicate")
            hole = F.pad(hole, padding, mode="replicate")
        stages = self.fill_stages(known, hole)
        return {name: stage[..., :height, :width] for name, stage in stages.items()}

    def fill(self, image: Tensor, mask: Tensor) -> Tensor:
        """Predict the whole picture; ``image`` is zero where ``mask`` (0/1) is one."""
        raise NotImplementedError

    def fill_stages(self, image: Tensor, mask: Tensor) -> dict[str, Tensor]:
        """Predict the whole picture as ``"output"``, and what else a family has to tell."""
        return {"output": self.fill(image, mask)}


def at_least_float32(x: Tensor) -> Tensor:
    """Half precision as float32, in which a picture is limited to its range; others as they are."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def check_inputs(image: Tensor, mask: Tensor) -> None:
    """Raise ValueError where a picture and its mask are nothing a network takes."""
    if image.dim() != 4 or image.shape[1] != 3:
        raise ValueError(f"image has shape {list(image.shape)}; expected [B, 3, H, W]")
    if mask.shape != (image.shape[0], 1, *image.shape[2:]):
        raise ValueError(
            f"mask has shape {list(mask.shape)}; for image {list(image.shape)} it should be "
            f"{[image.shape[0], 1, *image.shape[2:]]}"
        )
    if min(image.shape[-2:]) < MIN_SIZE:
        raise ValueError(
            f"image is {image.shape[-1]}x{image.shape[-2]}; both sides should be {MIN_SIZE} or more"
        )
