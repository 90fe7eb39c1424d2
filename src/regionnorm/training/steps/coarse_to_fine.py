"""What the training steps of two-stage networks share."""

from __future__ import annotations

import torch
from torch import Tensor

from regionnorm.imaging import composite
from regionnorm.losses import reconstruction_loss
from regionnorm.training.steps.base import Pictures, TrainingStep

__all__ = ["CoarseToFineStep"]


class CoarseToFineStep(TrainingStep):
    """Both whole pictures against the photo; the discriminators see the composite."""

    def judged(
        self, name: str, pictures: Pictures, image: Tensor, mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The photo and the composite, each with the mask as fourth channel."""
        filled = composite(image, pictures["output"], mask)
        return torch.cat([image, mask], dim=1), torch.cat([filled, mask], dim=1)

    def reconstruction_losses(
        self, pictures: Pictures, image: Tensor, mask: Tensor
    ) -> dict[str, Tensor]:
        """The recipe's reconstruction loss of both stages."""
        losses = self.losses
        shares = {"l1": ("output", 1.0), "l1_coarse": ("coarse", losses.coarse)}
        return {
            part: losses.l1
            * share
            * reconstruction_loss(pictures[stage], image, mask, kind=losses.reconstruction)
            for part, (stage, share) in shares.items()
        }
