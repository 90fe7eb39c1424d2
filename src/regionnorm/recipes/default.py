"""The recipes of the weights that come with the package."""

from __future__ import annotations

from dataclasses import replace

from regionnorm.training.recipe import Losses, Recipe

__all__ = ["default", "default_features", "default_sharp", "fast"]


# The network of the shipped weights.
_SHIPPED: dict[str, bool | int | float | str] = {
    "width": 32,
    "prefill": "diffusion",
    # Without these, a loss on features makes the decoder draw a grid.
    "upsample": "pixelshuffle-blur",
    "noise": True,
    # How strong the residual has to be depends on the photo's contrast, which statistics of the
    # photo itself take away.
    "stats": "batch",
    "track_running_stats": True,
    "skip": True,
}


def default() -> Recipe:
    """The first part of training: narrow, diffusion prefill, l1, bfloat16; fits a CPU."""
    return Recipe(
        name="default",
        # Without the last two the residual soon dies: the decoder's last ReLU gives zeros alone.
        options={**_SHIPPED, "bound": 0.5, "output_scale": 0.1},
        losses=Losses(l1=1.0),
        size=128,
        # Crops at about the photos' own resolution, as the network meets them in use.
        min_scale=0.4,
        max_scale=0.8,
        thin=0.3,
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


def default_features() -> Recipe:
    """The second part, from the shipped weights: l1 and distance of VGG-19 features."""
    return replace(
        default(),
        name="default-features",
        init="default",
        options=_SHIPPED,
        losses=Losses(l1=1.0, feature_distance=1.5),
        size=160,
        batch=5,
        min_scale=0.5,
        max_scale=0.9,
        steps=4_000,
        lr=3e-4,
        ema=0.998,
        best_by="feature_distance",
    )


def default_sharp() -> Recipe:
    """On from the shipped weights with an adversary: sharper fills, a little less PSNR."""
    return replace(
        default_features(),
        name="default-sharp",
        training_step="sharp",
        losses=Losses(
            l1=1.0,
            feature_distance=1.5,
            adversarial=0.2,
            gan="nsgan",
            # Of slopes that some 200 places add up; 0.001 keeps the discriminator at chance.
            gradient_penalty=2e-5,
            feature_matching=2.0,
        ),
        size=128,
        batch=4,
        lr=2e-4,
        lr_discriminator=4e-4,
        betas=(0.5, 0.99),
        discriminator_width=32,
        best_by="texture_distance",
    )


def fast() -> Recipe:
    """Weights for weak machines and browsers: cut from the default's, half of its time."""
    return replace(
        default_features(),
        name="fast",
        options={**_SHIPPED, "width": 24, "blocks": 2},
        size=128,
        batch=6,
        steps=3_000,
        lr=8e-4,
    )
