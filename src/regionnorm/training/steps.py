"""One training step: networks and a batch in, losses out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from regionnorm.imaging import composite
from regionnorm.losses import (
    discriminator_loss,
    generator_loss,
    perceptual_loss,
    reconstruction_loss,
    style_loss,
)
from regionnorm.training.recipe import Losses

if TYPE_CHECKING:
    from lightning.fabric import Fabric

__all__ = ["Networks", "train_step"]


@dataclass
class Networks:
    """The networks of a run with their optimisers; without a discriminator both are None."""

    generator: nn.Module
    optimizer: Optimizer
    discriminator: nn.Module | None = None
    discriminator_optimizer: Optimizer | None = None
    features: nn.Module | None = None


def train_step(
    fabric: Fabric, networks: Networks, losses: Losses, image: Tensor, mask: Tensor, clip: float = 0
) -> dict[str, Tensor]:
    """Discriminator step, then generator step.

    Args:
        fabric: Runs the backward passes in the chosen precision.
        networks: Updated in place.
        losses: Which losses, and their weights.
        image: ``[B, 3, H, W]`` in [0, 1].
        mask: ``[B, 1, H, W]``, 1 = hole.
        clip: Largest norm of the generator's gradient; 0 = any.

    Returns:
        Detached values by name, for the log.
    """
    output = networks.generator(image, mask).float()
    if losses.on_composite:
        output = composite(image, output, mask)
    values = {}
    if networks.discriminator is not None and networks.discriminator_optimizer is not None:
        real, fake = networks.discriminator(image), networks.discriminator(output.detach())
        loss = discriminator_loss(real, fake, losses.gan)
        networks.discriminator_optimizer.zero_grad(set_to_none=True)
        fabric.backward(loss)
        networks.discriminator_optimizer.step()
        values["discriminator"] = loss.detach()

    parts = _generator_losses(networks, losses, output, image, mask)
    total = torch.stack(list(parts.values())).sum()
    networks.optimizer.zero_grad(set_to_none=True)
    fabric.backward(total)
    if clip:
        # Not an error: half precision's loss scaling meets infinite gradients and skips the step.
        fabric.clip_gradients(
            networks.generator, networks.optimizer, max_norm=clip, error_if_nonfinite=False
        )
    networks.optimizer.step()
    return values | {name: part.detach() for name, part in parts.items()}


def _generator_losses(
    networks: Networks, losses: Losses, output: Tensor, image: Tensor, mask: Tensor
) -> dict[str, Tensor]:
    """The generator's weighted losses."""
    parts = {"l1": losses.l1 * reconstruction_loss(output, image, mask, kind=losses.reconstruction)}
    if networks.discriminator is not None:
        logits = networks.discriminator(output)
        parts["adversarial"] = losses.adversarial * generator_loss(logits, losses.gan)
    if networks.features is not None and losses.perceptual:
        ours, real = networks.features(output), networks.features(image)
        layers = losses.perceptual_layers
        parts["perceptual"] = losses.perceptual * perceptual_loss(ours, real, layers=layers)
    if networks.features is not None and losses.style:
        # EdgeConnect compares the style of the hole alone.
        ours, real = networks.features(output * mask), networks.features(image * mask)
        layers = losses.style_layers
        parts["style"] = losses.style * style_loss(ours, real, layers=layers)
    return parts
