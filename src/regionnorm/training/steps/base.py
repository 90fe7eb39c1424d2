"""What all training steps share: the networks they update, and adversarial training itself."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from regionnorm.losses import (
    FEATURE_DISTANCE_LAYERS,
    discriminator_loss,
    feature_distance,
    generator_loss,
    perceptual_loss,
    reconstruction_loss,
    style_loss,
)
from regionnorm.models import InpaintingModel
from regionnorm.training.recipe import Recipe

if TYPE_CHECKING:
    from lightning.fabric import Fabric

__all__ = ["Networks", "Pictures", "StagedModel", "Trained", "TrainingStep", "update"]

POOLED = 4  # pixels under one of relu3's

OPTIONAL_LOSSES = (
    "adversarial",
    "edge_adversarial",
    "feature_matching",
    "perceptual",
    "style",
    "feature_distance",
    "total_variation",
)
"""Losses that count only where a recipe gives them weight."""

Pictures: TypeAlias = dict[str, Tensor]
"""What a generator paints in training, by name; ``"output"`` is its final picture."""


@dataclass
class Trained:
    """A network with the optimiser that trains it."""

    network: nn.Module
    optimizer: Optimizer


@dataclass
class Networks:
    """The networks of a run; discriminators by name, none without adversarial training."""

    generator: Trained
    discriminators: dict[str, Trained] = field(default_factory=dict)
    features: nn.Module | None = None


class StagedModel(nn.Module):
    """A network called for all of its stages: ``forward(image, mask) -> {stage: picture}``.

    A module of its own, because distributed training, mixed precision and compilation take hold
    of a module's ``forward`` and of nothing else.
    """

    def __init__(self, model: InpaintingModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor, mask: Tensor) -> Pictures:
        """See :meth:`InpaintingModel.forward_stages`."""
        return self.model.forward_stages(image, mask)


class TrainingStep:
    """Discriminator updates, then one generator update, on one batch.

    A family overrides what differs: the module that is trained, its discriminators, the pictures,
    what the discriminators are shown, and the losses.

    Args:
        recipe: All choices of the run.

    Raises:
        ValueError: The recipe gives weight to a loss that the family does not have.
    """

    weighs: tuple[str, ...] = ("l1", "adversarial", "perceptual", "style", "feature_distance")
    """The losses that a recipe may give weight to."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe, self.losses = recipe, recipe.losses
        for loss in OPTIONAL_LOSSES:
            if getattr(recipe.losses, loss) and loss not in self.weighs:
                raise ValueError(
                    f"losses.{loss} is no loss of training_step {recipe.training_step!r}, which "
                    f"weighs {', '.join(self.weighs)}"
                )

    # --- what a family overrides -----------------------------------------------------------------

    def generator(self, model: InpaintingModel) -> nn.Module:
        """The module to call and to optimise; it holds ``model``, which is what is saved."""
        return StagedModel(model)

    def discriminators(self) -> dict[str, nn.Module]:
        """New discriminators by name; asked for only where the recipe trains them."""
        return {}

    def paint(self, generator: nn.Module, image: Tensor, mask: Tensor) -> Pictures:
        """Call the generator on a batch; float32 pictures, ``"output"`` among them."""
        return {name: stage.float() for name, stage in generator(image, mask).items()}

    def judged(
        self, name: str, pictures: Pictures, image: Tensor, mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """What the discriminator ``name`` is shown: its real and its painted input."""
        return image, pictures["output"]

    def discriminator_loss(
        self,
        name: str,
        discriminator: nn.Module,
        real: Tensor,
        fake: Tensor,
        random: torch.Generator,
    ) -> Tensor:
        """A discriminator's loss on its real and its (detached) painted input."""
        return discriminator_loss(discriminator(real), discriminator(fake), self.losses.gan)

    def adversarial_losses(
        self, name: str, discriminator: nn.Module, real: Tensor, fake: Tensor
    ) -> dict[str, Tensor]:
        """The generator's weighted losses by the discriminator ``name``."""
        loss = generator_loss(discriminator(fake), self.losses.gan)
        return {"adversarial": self.losses.adversarial * loss}

    def reconstruction_losses(
        self, pictures: Pictures, image: Tensor, mask: Tensor
    ) -> dict[str, Tensor]:
        """The generator's weighted losses that need nothing but the photo; at least one."""
        losses = self.losses
        loss = reconstruction_loss(pictures["output"], image, mask, kind=losses.reconstruction)
        return {"l1": losses.l1 * loss}

    def perceptual_losses(
        self, fabric: Fabric, features: nn.Module, pictures: Pictures, image: Tensor, mask: Tensor
    ) -> dict[str, Tensor]:
        """The generator's weighted losses on VGG features."""
        losses, output, parts = self.losses, pictures["output"], {}
        if losses.perceptual or losses.feature_distance:
            ours, real = feature_pair(fabric, features, output, image)
            if losses.perceptual:
                loss = perceptual_loss(ours, real, layers=losses.perceptual_layers)
                parts["perceptual"] = losses.perceptual * loss
            if losses.feature_distance:
                loss = feature_distance(ours, real).mean()
                parts["feature_distance"] = losses.feature_distance * loss
        if losses.style:
            # EdgeConnect compares the style of the hole alone.
            ours, real = feature_pair(fabric, features, output * mask, image * mask)
            parts["style"] = losses.style * style_loss(ours, real, layers=losses.style_layers)
        return parts

    # --- the step --------------------------------------------------------------------------------

    def feature_layers(self) -> list[str]:
        """VGG activations that the losses compare."""
        losses = self.losses
        return [
            *(losses.perceptual_layers if losses.perceptual else ()),
            *(FEATURE_DISTANCE_LAYERS if losses.feature_distance else ()),
            *(losses.style_layers if losses.style else ()),
        ]

    def __call__(
        self,
        fabric: Fabric,
        networks: Networks,
        image: Tensor,
        mask: Tensor,
        random: torch.Generator,
    ) -> dict[str, Tensor]:
        """Take one step.

        Args:
            fabric: Runs the backward passes in the chosen precision.
            networks: Updated in place.
            image: ``[B, 3, H, W]`` in [0, 1].
            mask: ``[B, 1, H, W]``, 1 = hole.
            random: On the CPU; draws what the step leaves to chance.

        Returns:
            Detached values by name, for the log.
        """
        pictures = self.paint(networks.generator.network, image, mask)
        shown = {name: self.judged(name, pictures, image, mask) for name in networks.discriminators}
        values, parts = {}, self.reconstruction_losses(pictures, image, mask)
        for name, trained in networks.discriminators.items():
            real, fake = shown[name]
            for _ in range(self.recipe.discriminator_steps):
                loss = self.discriminator_loss(name, trained.network, real, fake.detach(), random)
                update(fabric, trained, loss)
            values[name] = loss.detach()
        for name, trained in networks.discriminators.items():
            parts |= self.adversarial_losses(name, trained.network, *shown[name])
        if networks.features is not None:
            parts |= self.perceptual_losses(fabric, networks.features, pictures, image, mask)
        total = torch.stack(list(parts.values())).sum()
        update(fabric, networks.generator, total, self.recipe.clip)
        return values | {name: part.detach() for name, part in parts.items()}


def update(fabric: Fabric, trained: Trained, loss: Tensor, clip: float = 0.0) -> None:
    """One optimiser step on a loss; ``clip`` is the largest norm of the gradient, 0 = any."""
    trained.optimizer.zero_grad(set_to_none=True)
    fabric.backward(loss)
    if clip:
        # Not an error: half precision's loss scaling meets infinite gradients and skips the step.
        fabric.clip_gradients(
            trained.network, trained.optimizer, max_norm=clip, error_if_nonfinite=False
        )
    trained.optimizer.step()


def feature_pair(
    fabric: Fabric, features: nn.Module, ours: Tensor, real: Tensor
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """VGG features of two pictures; their convolutions run in the run's precision.

    Both are cut by the same 0 to 3 pixels at the top and the left. Otherwise the pools of VGG would
    meet the picture's pixels always in the same places, and the network would learn to draw a grid
    that pleases them.
    """
    top, left = torch.randint(POOLED, (2,)).tolist()
    ours, real = ours[..., top:, left:], real[..., top:, left:]
    with fabric.autocast():
        with torch.no_grad():
            target = features(real)
        return features(ours), target
