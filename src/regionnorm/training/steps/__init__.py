"""Training steps by name; a recipe's ``training_step`` chooses one."""

from __future__ import annotations

from regionnorm.training.recipe import Recipe
from regionnorm.training.steps.base import Networks, Trained, TrainingStep
from regionnorm.training.steps.contextual_attention import ContextualAttentionStep
from regionnorm.training.steps.edgeconnect import EdgeConnectStep
from regionnorm.training.steps.gated_conv import GatedConvStep
from regionnorm.training.steps.partial_conv import PartialConvStep
from regionnorm.training.steps.sharp import SharpStep
from regionnorm.training.steps.single_stage import SingleStage

__all__ = ["TRAINING_STEPS", "Networks", "Trained", "TrainingStep", "make_step"]

TRAINING_STEPS: dict[str, type[TrainingStep]] = {
    "single-stage": SingleStage,
    "sharp": SharpStep,
    "contextual-attention": ContextualAttentionStep,
    "edgeconnect": EdgeConnectStep,
    "gated-conv": GatedConvStep,
    "partial-conv": PartialConvStep,
}


def make_step(recipe: Recipe) -> TrainingStep:
    """The training step that a recipe names.

    Raises:
        ValueError: There is none by that name, or it cannot do what the recipe asks for.
    """
    if recipe.training_step not in TRAINING_STEPS:
        raise ValueError(
            f"training_step {recipe.training_step!r} is not known; "
            f"choose from {', '.join(TRAINING_STEPS)}"
        )
    return TRAINING_STEPS[recipe.training_step](recipe)
