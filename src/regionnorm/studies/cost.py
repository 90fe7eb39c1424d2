"""What a run would cost on a GPU: an estimate from its network's arithmetic."""

from __future__ import annotations

from functools import cache

import torch
from torch.utils.flop_counter import FlopCounterMode

from regionnorm.models import create_model
from regionnorm.studies.plan import Run

__all__ = ["ASSUMED_TFLOPS", "gpu_hours"]

ASSUMED_TFLOPS = 100.0
"""What a data-centre GPU is taken to sustain in mixed precision; none was measured."""

_SIDE = 128  # where the arithmetic is counted; convolutions grow with the area
_BACKWARD = 3.0  # forward and backward against forward alone
# The paper's losses compare features of VGG-19 and train a discriminator: counted for its recipe
# at width 64, these double the arithmetic of a step.
_JUDGES = 2.0


def gpu_hours(run: Run) -> float:
    """Hours of one GPU for a run's training, see :data:`ASSUMED_TFLOPS`."""
    recipe = run.recipe
    options = tuple(sorted(recipe.options.items()))
    forward = _forward_flops(recipe.model, options) * (recipe.size / _SIDE) ** 2
    judged = recipe.needs_discriminator or recipe.needs_features
    step = forward * _BACKWARD * (_JUDGES if judged else 1.0) * recipe.batch
    return step * recipe.steps / (ASSUMED_TFLOPS * 1e12) / 3600


@cache
def _forward_flops(model: str, options: tuple[tuple[str, bool | int | float | str], ...]) -> float:
    """Multiplications and additions of one photo of ``_SIDE`` px, counted by PyTorch."""
    network = create_model(model, **dict(options)).eval()
    image, mask = torch.zeros(1, 3, _SIDE, _SIDE), torch.zeros(1, 1, _SIDE, _SIDE)
    mask[..., _SIDE // 4 : _SIDE // 2, _SIDE // 4 : _SIDE // 2] = 1
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(image, mask)
    return float(counter.get_total_flops())
