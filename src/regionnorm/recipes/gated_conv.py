"""Gated convolution as its paper trains it, and with region normalisation."""

from __future__ import annotations

from dataclasses import replace

from regionnorm.training.recipe import Losses, Recipe

__all__ = ["gated_conv", "rn_gated_conv"]


def gated_conv() -> Recipe:
    """Gated convolution (Yu et al., 2019): l1 of both stages and SN-PatchGAN."""
    return Recipe(
        name="gated-conv",
        model="gated-conv",
        training_step="gated-conv",
        # The paper's pictures are in [-1, 1]: errors in [0, 1] are half of its errors.
        losses=Losses(
            l1=2.0, reconstruction="l1", adversarial=1.0, gan="hinge", on_composite=False
        ),
        size=256,
        batch=16,
        lr=1e-4,
        lr_discriminator=1e-4,
        betas=(0.5, 0.999),
    )


def rn_gated_conv() -> Recipe:
    """The same with RN-B and RN-L in the coarse network (Table 6)."""
    return replace(gated_conv(), name="rn-gated-conv", model="rn-gated-conv")
