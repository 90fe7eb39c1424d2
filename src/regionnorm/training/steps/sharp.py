"""The training step of `default-sharp`: an adversary that looks at the hole and may rest."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from regionnorm.losses import (
    discriminator_loss,
    feature_matching_loss,
    generator_loss,
    gradient_penalty,
)
from regionnorm.models import MatchingDiscriminator
from regionnorm.training.recipe import Recipe
from regionnorm.training.steps.base import Pictures
from regionnorm.training.steps.single_stage import SingleStage

__all__ = ["SharpStep"]


class SharpStep(SingleStage):
    """Any network that paints one picture, judged where its hole is and layer by layer.

    The discriminator sees the mask, and its judgements count by how much of their place is hole:
    elsewhere the composite is the photo. It is kept smooth by R1, the squared slope at photos; the
    network is also told to match its activations, which points it somewhere even while the
    discriminator is sure.

    Raises:
        ValueError: The recipe gives the adversary no weight.
    """

    weighs = (*SingleStage.weighs, "feature_matching")

    def __init__(self, recipe: Recipe) -> None:
        super().__init__(recipe)
        if not recipe.losses.adversarial:
            raise ValueError(
                "losses.adversarial is 0; training_step 'sharp' is for adversarial training, "
                "'single-stage' goes without"
            )

    def discriminators(self) -> dict[str, nn.Module]:
        """One, of picture and mask."""
        return {"discriminator": MatchingDiscriminator(width=self.recipe.discriminator_width)}

    def judged(
        self, name: str, pictures: Pictures, image: Tensor, mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Photo and filled picture; the mask as fourth channel."""
        return torch.cat([image, mask], dim=1), torch.cat([pictures["output"], mask], dim=1)

    def discriminator_loss(
        self,
        name: str,
        discriminator: nn.Module,
        real: Tensor,
        fake: Tensor,
        random: torch.Generator,
    ) -> Tensor:
        """The adversarial loss in the hole, and the slopes at photos."""
        on_real, on_fake = discriminator(real)[-1], discriminator(fake)[-1]
        loss = discriminator_loss(on_real, on_fake, self.losses.gan, _in_hole(on_real, real))
        penalty = gradient_penalty(discriminator(real, slopes=True)[0], wanted=0.0)
        return loss + self.losses.gradient_penalty * penalty

    def adversarial_losses(
        self, name: str, discriminator: nn.Module, real: Tensor, fake: Tensor
    ) -> dict[str, Tensor]:
        """Adversarial in the hole, and feature matching."""
        losses, shown = self.losses, discriminator(fake)
        loss = generator_loss(shown[-1], losses.gan, _in_hole(shown[-1], fake))
        parts = {"adversarial": losses.adversarial * loss}
        if losses.feature_matching:
            with torch.no_grad():
                wanted = discriminator(real)
            # Not the logits, which are the adversarial loss's.
            loss = feature_matching_loss(shown[:-1], wanted[:-1])
            parts["feature_matching"] = losses.feature_matching * loss
        return parts


def _in_hole(logits: Tensor, judged: Tensor) -> Tensor:
    """Share of hole at each logit's place, ``[B, 1, h, w]``."""
    height, width = logits.shape[-2:]
    return F.adaptive_avg_pool2d(judged[:, 3:].float(), (height, width))
