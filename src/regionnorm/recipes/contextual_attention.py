"""Contextual attention as its paper trains it, and with region normalisation."""

from __future__ import annotations

from dataclasses import replace

from regionnorm.training.recipe import Losses, Recipe

__all__ = ["contextual_attention", "rn_contextual_attention"]


def contextual_attention() -> Recipe:
    """Contextual attention (Yu et al., 2018): discounted l1 of both stages and WGAN-GP."""
    return Recipe(
        name="contextual-attention",
        model="contextual-attention",
        training_step="contextual-attention",
        # The paper's pictures are in [-1, 1]: errors in [0, 1] are half of its errors, and the
        # scores of a critic of slope 1 lie half as far apart. So 1.2 and 0.001 are doubled.
        losses=Losses(
            l1=2.4,
            coarse=1.2,
            reconstruction="l1_discounted",
            adversarial=0.002,
            gan="wgan",
            gradient_penalty=10.0,
            on_composite=False,
        ),
        size=256,
        batch=16,
        lr=1e-4,
        lr_discriminator=1e-4,
        betas=(0.5, 0.9),
        discriminator_steps=5,
    )


def rn_contextual_attention() -> Recipe:
    """The same with RN-B and RN-L in the coarse network (Table 6)."""
    return replace(
        contextual_attention(), name="rn-contextual-attention", model="rn-contextual-attention"
    )
