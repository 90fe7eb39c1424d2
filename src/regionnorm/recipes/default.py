"""The recipe of the weights that come with the package."""

from __future__ import annotations

from regionnorm.training.recipe import Losses, Recipe

__all__ = ["default"]


def default() -> Recipe:
    """The shipped weights': narrow, diffusion prefill, l1 in the hole, bfloat16; fits a CPU."""
    return Recipe(
        name="default",
        options={"width": 32, "prefill": "diffusion"},
        losses=Losses(l1=1.0),
        size=128,
        # Crops at about the photos' own resolution, as the network meets them in use.
        min_scale=0.4,
        max_scale=0.8,
        batch=8,
        steps=12_000,
        lr=5e-4,
        betas=(0.9, 0.99),
        schedule="cosine",
        warmup=100,
        clip=1.0,
        precision="bf16-mixed",
        channels_last=True,
        workers=1,
    )
