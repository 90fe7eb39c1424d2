"""The training step of partial convolution: no adversary, perceptual and style losses."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

from regionnorm.imaging import composite
from regionnorm.losses import perceptual_loss, style_loss, total_variation_loss
from regionnorm.training.steps.base import Pictures, TrainingStep, feature_pair

if TYPE_CHECKING:
    from lightning.fabric import Fabric

__all__ = ["PartialConvStep"]


class PartialConvStep(TrainingStep):
    """VGG judges the picture and the composite; total variation smooths the seam."""

    weighs = ("l1", "perceptual", "style", "total_variation")

    def reconstruction_losses(
        self, pictures: Pictures, image: Tensor, mask: Tensor
    ) -> dict[str, Tensor]:
        """Error of the whole picture, and the composite's total variation in and at the hole."""
        parts = super().reconstruction_losses(pictures, image, mask)
        weight = self.losses.total_variation
        if weight:
            filled = composite(image, pictures["output"], mask)
            parts["total_variation"] = weight * total_variation_loss(filled, mask)
        return parts

    def perceptual_losses(
        self, fabric: Fabric, features: nn.Module, pictures: Pictures, image: Tensor, mask: Tensor
    ) -> dict[str, Tensor]:
        """Perceptual and style loss of the picture plus those of the composite."""
        losses, output = self.losses, pictures["output"]
        filled = composite(image, output, mask)
        parts: dict[str, Tensor] = {}
        for name, picture in (("", output), ("_composite", filled)):
            ours, real = feature_pair(fabric, features, picture, image)
            if losses.perceptual:
                loss = perceptual_loss(ours, real, layers=losses.perceptual_layers)
                parts[f"perceptual{name}"] = losses.perceptual * loss
            if losses.style:
                loss = style_loss(ours, real, layers=losses.style_layers)
                parts[f"style{name}"] = losses.style * loss
        return parts
