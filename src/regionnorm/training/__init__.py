"""Training: recipes in, weights out."""

from regionnorm.training.loop import train
from regionnorm.training.recipe import Losses, Recipe

__all__ = ["Losses", "Recipe", "train"]
