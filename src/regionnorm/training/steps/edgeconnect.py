"""The training step of EdgeConnect: both stages at once, each with its own discriminator."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from regionnorm.losses import discriminator_loss, feature_matching_loss, generator_loss
from regionnorm.models import EdgeConnect, EdgeDiscriminator, InpaintingModel, PatchDiscriminator
from regionnorm.nn.edges import canny_edges, luminance
from regionnorm.training.recipe import Recipe
from regionnorm.training.steps.base import Pictures, TrainingStep

__all__ = ["EdgeConnectStep"]


class EdgeConnectStep(TrainingStep):
    """The edge generator learns the photo's edges, the image generator follows what it draws.

    One optimiser holds both: no gradient flows from one stage to the other. The photo's edges are
    found on the CPU in each step.

    Raises:
        ValueError: The recipe's size is no multiple of 4, or its edges no adversary.
    """

    weighs = (*TrainingStep.weighs, "edge_adversarial", "feature_matching")

    def __init__(self, recipe: Recipe) -> None:
        super().__init__(recipe)
        if recipe.size % EdgeConnect.stride:
            raise ValueError(f"size is {recipe.size}; EdgeConnect trains on multiples of 4")
        if not recipe.losses.edge_adversarial:
            raise ValueError("losses.edge_adversarial is 0; edges learn from their adversary alone")
        self.sigma = 2.0

    def generator(self, model: InpaintingModel) -> nn.Module:
        """Both stages, told the photo's edges outside the hole."""
        if not isinstance(model, EdgeConnect):
            raise ValueError(f"training_step 'edgeconnect' trains edgeconnect, not {model.name!r}")
        self.sigma = model.sigma
        return _GivenEdges(model)

    def discriminators(self) -> dict[str, nn.Module]:
        """One for edges, and one for pictures where that counts."""
        width = self.recipe.discriminator_width
        chosen: dict[str, nn.Module] = {"edge_discriminator": EdgeDiscriminator(width)}
        if self.losses.adversarial:
            chosen["discriminator"] = PatchDiscriminator(width=width)
        return chosen

    def paint(self, generator: nn.Module, image: Tensor, mask: Tensor) -> Pictures:
        """Both stages' pictures beside the photo's gray and edges; nothing is composited."""
        gray = luminance(image)
        edges = canny_edges(gray, sigma=self.sigma)
        stages = {name: stage.float() for name, stage in generator(image, mask, edges).items()}
        return stages | {"photo_gray": gray, "photo_edges": edges}

    def judged(
        self, name: str, pictures: Pictures, image: Tensor, mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Whole pictures; edges together with the gray photo."""
        if name == "discriminator":
            return super().judged(name, pictures, image, mask)
        gray = pictures["photo_gray"]
        real, fake = pictures["photo_edges"], pictures["edges"]
        return torch.cat([gray, real], dim=1), torch.cat([gray, fake], dim=1)

    def discriminator_loss(
        self,
        name: str,
        discriminator: nn.Module,
        real: Tensor,
        fake: Tensor,
        random: torch.Generator,
    ) -> Tensor:
        """The same loss for both."""
        if name == "discriminator":
            return super().discriminator_loss(name, discriminator, real, fake, random)
        return discriminator_loss(discriminator(real)[-1], discriminator(fake)[-1], self.losses.gan)

    def adversarial_losses(
        self, name: str, discriminator: nn.Module, real: Tensor, fake: Tensor
    ) -> dict[str, Tensor]:
        """The edges' are adversarial and feature matching."""
        if name == "discriminator":
            return super().adversarial_losses(name, discriminator, real, fake)
        losses, shown = self.losses, discriminator(fake)
        parts = {
            "edge_adversarial": losses.edge_adversarial * generator_loss(shown[-1], losses.gan)
        }
        if losses.feature_matching:
            with torch.no_grad():
                wanted = discriminator(real)
            parts["feature_matching"] = losses.feature_matching * feature_matching_loss(
                shown, wanted
            )
        return parts


class _GivenEdges(nn.Module):
    """Both stages with the photo's edges as an input, which the whole photo gives better."""

    def __init__(self, model: EdgeConnect) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor, mask: Tensor, edges: Tensor) -> Pictures:
        """``[B, 3, H, W]``, ``[B, 1, H, W]`` twice, to the stages' pictures."""
        known = 1 - mask
        return self.model.fill_stages(image * known, mask, edges * known)
