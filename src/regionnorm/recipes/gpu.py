"""The default network at the paper's width and size, for one large GPU."""

from __future__ import annotations

from dataclasses import replace

from regionnorm.recipes.default import default
from regionnorm.training.recipe import Recipe

__all__ = ["gpu"]


def gpu() -> Recipe:
    """One H200-class GPU for 24 minutes: width 64 at 256 px, photos and masks on the device."""
    recipe = default()
    return replace(
        recipe,
        name="gpu",
        options={**recipe.options, "width": 64},
        size=256,
        # Crops near the scale of whole photos, as evaluation at 256 px shows them.
        min_scale=0.75,
        max_scale=1.0,
        # Enough pixels to fill the device; a larger batch would only mean fewer updates.
        batch=32,
        masks="fields",
        minutes=24.0,
        # No run is expected to get there: the time ends it, and the cosine follows the time.
        steps=100_000,
        warmup=200,
        precision="bf16-mixed",
        channels_last=True,
        compile=True,
        # Photos that do not fit the memory are decoded by so many processes.
        workers=12,
        log_every=50,
        sample_every=1000,
        val_every=1000,
        save_every=1000,
    )
