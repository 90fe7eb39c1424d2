"""EdgeConnect as its paper trains it."""

from __future__ import annotations

from regionnorm.training.recipe import Losses, Recipe

__all__ = ["edgeconnect"]


def edgeconnect() -> Recipe:
    """EdgeConnect (Nazeri et al., 2019): edges, then the picture; both stages at once."""
    return Recipe(
        name="edgeconnect",
        model="edgeconnect",
        training_step="edgeconnect",
        losses=Losses(
            l1=1.0,
            adversarial=0.1,
            perceptual=0.1,
            style=250.0,
            edge_adversarial=1.0,
            feature_matching=10.0,
            on_composite=False,
        ),
        size=256,
        batch=8,
        steps=2_000_000,
        lr=1e-4,
        lr_discriminator=1e-5,
        betas=(0.0, 0.9),
    )
