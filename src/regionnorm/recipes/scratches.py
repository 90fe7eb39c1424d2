"""The recipe of the network behind ``auto:scratches``."""

from __future__ import annotations

from regionnorm.training.scratches import ScratchRecipe

__all__ = ["scratches"]


def scratches() -> ScratchRecipe:
    """Finds scratches, dust, hairs and folds (auto:scratches): marks are drawn; fits a CPU."""
    return ScratchRecipe(widths=(32, 48, 64, 96), refine=(1, 4, 3, 0), scales=(1.0, 4.0))
