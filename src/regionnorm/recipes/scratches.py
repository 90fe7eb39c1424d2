"""The recipe of the network behind ``auto:scratches``."""

from __future__ import annotations

from regionnorm.training.scratches import ScratchRecipe

__all__ = ["scratches"]


def scratches() -> ScratchRecipe:
    """Finds scratches, dust, hairs and folds (auto:scratches): marks are drawn; fits a CPU."""
    return ScratchRecipe()
