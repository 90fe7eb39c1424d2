"""Partial convolution as its paper trains it, and with region normalisation."""

from __future__ import annotations

from dataclasses import replace

from regionnorm.training.recipe import Losses, Recipe

__all__ = ["partial_conv", "rn_partial_conv"]


def partial_conv() -> Recipe:
    """Partial convolution (Liu et al., 2018): valid and hole l1, VGG, total variation; no GAN."""
    # The paper compares VGG-16 after its first three pools; these are the nearest of VGG-19.
    layers = ("relu1_2", "relu2_2", "relu3_4")
    return Recipe(
        name="partial-conv",
        model="partial-conv",
        training_step="partial-conv",
        losses=Losses(
            reconstruction="l1_weighted",
            perceptual=0.05,
            perceptual_layers=layers,
            style=120.0,
            style_layers=layers,
            total_variation=0.1,
            on_composite=False,
        ),
        size=256,
        batch=6,
        lr=2e-4,
        betas=(0.9, 0.999),
    )


def rn_partial_conv() -> Recipe:
    """The same with RN-B in the encoder and RN-L in the decoder (Table 6)."""
    return replace(partial_conv(), name="rn-partial-conv", model="rn-partial-conv")
