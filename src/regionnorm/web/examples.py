"""Photos to try the app with: scikit-image's where it is installed, drawn ones otherwise."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from regionnorm.imaging import write_image

__all__ = ["write_examples"]

# Files inside scikit-image's own package: nothing is fetched from the network.
_SAMPLES = ("coffee", "astronaut", "chelsea", "rocket")


def write_examples(folder: Path) -> list[Path]:
    """Write the example photos, each to a folder of its own, and return their paths."""
    return _bundled(folder) or _drawn(folder)


def _bundled(folder: Path) -> list[Path]:
    try:
        from skimage import data

        photos = {name: Image.fromarray(getattr(data, name)()) for name in _SAMPLES}
    except Exception:  # not installed, or installed without its samples
        return []
    paths = []
    for name, photo in photos.items():
        paths.append(folder / name / f"{name}.png")
        write_image(photo, paths[-1])
    return paths


def _drawn(folder: Path) -> list[Path]:
    paths = []
    for name, seed in (("hills", 1), ("evening", 2), ("meadow", 3)):
        paths.append(folder / name / f"{name}.png")
        write_image(_landscape(600, 400, np.random.default_rng(seed)), paths[-1])
    return paths


def _landscape(width: int, height: int, rng: np.random.Generator) -> Image.Image:
    """A sky with a sun above three rows of hills, with some grain."""
    top, bottom = rng.uniform(90, 250, (2, 3))
    rise = np.linspace(0, 1, height)[:, None, None]
    picture = Image.fromarray(
        np.broadcast_to(top + (bottom - top) * rise, (height, width, 3)).astype(np.uint8)
    )
    draw = ImageDraw.Draw(picture)
    left, up = rng.uniform(0.1, 0.8) * width, rng.uniform(0.05, 0.25) * height
    draw.ellipse((left, up, left + 60, up + 60), fill=(255, 240, 200))
    x = np.arange(0, width + 4, 4)
    for row in range(3):
        y = np.full(len(x), height * (0.45 + 0.18 * row))
        for _ in range(3):
            y += 18 * np.sin(x / rng.uniform(20, 90) + rng.uniform(0, 6))
        colour = tuple(int(level) for level in rng.uniform(40, 170, 3) * (1 - 0.2 * row))
        outline = [*zip(x.tolist(), y.tolist(), strict=True), (width, height), (0, height)]
        draw.polygon(outline, fill=colour)
    grain = rng.normal(0, 3, (height, width, 3))
    return Image.fromarray((np.asarray(picture) + grain).clip(0, 255).astype(np.uint8))
