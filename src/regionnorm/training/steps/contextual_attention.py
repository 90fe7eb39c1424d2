"""The training step of contextual attention: WGAN-GP, globally and locally."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from regionnorm.losses import discriminator_loss, generator_loss, gradient_penalty
from regionnorm.models import WassersteinCritic
from regionnorm.training.recipe import Recipe
from regionnorm.training.steps.base import Pictures
from regionnorm.training.steps.coarse_to_fine import CoarseToFineStep

__all__ = ["ContextualAttentionStep", "densest_windows"]


class ContextualAttentionStep(CoarseToFineStep):
    """Two Wasserstein critics: one for whole pictures, one for the window with most of the hole.

    The paper's holes are rectangles and its windows their bounding boxes; here a window has half
    the picture's size wherever it holds most of the hole.

    Raises:
        ValueError: The recipe's adversary is of another kind than critics are.
    """

    def __init__(self, recipe: Recipe) -> None:
        super().__init__(recipe)
        if recipe.losses.adversarial and recipe.losses.gan != "wgan":
            raise ValueError(
                f"losses.gan is {recipe.losses.gan!r}; the critics of contextual-attention are "
                "trained by 'wgan' alone"
            )

    def discriminators(self) -> dict[str, nn.Module]:
        """A critic for whole pictures, and one with more channels for windows."""
        size, width = self.recipe.size, self.recipe.discriminator_width
        return {
            "global_critic": WassersteinCritic(size, [width, 2 * width, 4 * width, 4 * width]),
            "local_critic": WassersteinCritic(size // 2, [width, 2 * width, 4 * width, 8 * width]),
        }

    def judged(
        self, name: str, pictures: Pictures, image: Tensor, mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Photo and composite, or the same window of both; the mask as fourth channel."""
        real, fake = super().judged(name, pictures, image, mask)
        if name == "global_critic":
            return real, fake
        side = self.recipe.size // 2
        corners = densest_windows(mask, side)
        return _crop(real, corners, side), _crop(fake, corners, side)

    def discriminator_loss(
        self,
        name: str,
        discriminator: nn.Module,
        real: Tensor,
        fake: Tensor,
        random: torch.Generator,
    ) -> Tensor:
        """Wasserstein loss, and the penalty between photo and composite inside the hole."""
        real, mask, fake = real[:, :3], real[:, 3:], fake[:, :3]
        loss = discriminator_loss(discriminator(real), discriminator(fake), "wgan")
        share = torch.rand(len(real), 1, 1, 1, generator=random).to(real)
        slopes = discriminator(torch.lerp(real, fake, share), mask)
        # Half, because the loss is the mean of its two terms and not their sum.
        return loss + self.losses.gradient_penalty / 2 * gradient_penalty(slopes)

    def adversarial_losses(
        self, name: str, discriminator: nn.Module, real: Tensor, fake: Tensor
    ) -> dict[str, Tensor]:
        """The critic's score of the composite."""
        loss = generator_loss(discriminator(fake[:, :3]), "wgan")
        return {f"adversarial_{name}": self.losses.adversarial * loss}


def densest_windows(mask: Tensor, side: int) -> list[tuple[int, int]]:
    """Top and left of the window of ``side`` with the most hole, for each mask ``[B, 1, H, W]``."""
    density = F.avg_pool2d(mask.float(), side, stride=1)
    places = density.flatten(1).argmax(dim=1).tolist()
    return [divmod(place, density.shape[-1]) for place in places]


def _crop(x: Tensor, corners: list[tuple[int, int]], side: int) -> Tensor:
    return torch.stack(
        [
            sample[:, top : top + side, left : left + side]
            for sample, (top, left) in zip(x, corners, strict=True)
        ]
    )
