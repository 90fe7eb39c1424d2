"""The two recipes that the paper and its released code describe (section 3.4 and 4.1)."""

from __future__ import annotations

from dataclasses import replace

from regionnorm.training.recipe import Losses, Recipe

__all__ = ["paper", "released"]


def released() -> Recipe:
    """As the released code trains: l1 on the composite and 0.1 adversarial."""
    return Recipe(
        name="released",
        options={"stats": "batch"},
        losses=Losses(l1=1.0, adversarial=0.1),
        size=256,
        batch=14,
        steps=225_000,
        lr=1e-4,
        lr_discriminator=1e-5,
        betas=(0.0, 0.9),
    )


def paper() -> Recipe:
    """As the paper says: l1, adversarial, perceptual and style, with EdgeConnect's weights."""
    losses = Losses(l1=1.0, adversarial=0.1, perceptual=0.1, style=250.0, on_composite=False)
    return replace(released(), name="paper", options={}, losses=losses)
