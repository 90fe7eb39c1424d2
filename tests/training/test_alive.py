"""Layers that a hundred steps leave alive."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import regionnorm as rn
from regionnorm.inspecting.activity import layer_activity
from regionnorm.recipes import get_recipe


def pictures(random: torch.Generator, count: int) -> tuple[Tensor, Tensor]:
    """Waves with grain, and a square hole in each."""
    y, x = torch.meshgrid(torch.linspace(0, 3, 32), torch.linspace(0, 3, 32), indexing="ij")
    a, b = torch.rand(2, count, 3, 2, 1, 1, generator=random) * 6
    waves = torch.sin(x * a[:, :, 0] + b[:, :, 0]) + torch.cos(y * a[:, :, 1] + b[:, :, 1])
    grain = torch.randn(waves.shape, generator=random)
    mask = torch.zeros(count, 1, 32, 32)
    for sample, (top, left) in enumerate(torch.randint(0, 16, (count, 2), generator=random)):
        mask[sample, :, top : top + 14, left : left + 14] = 1
    return (0.5 + 0.2 * waves + 0.1 * grain).clamp(0, 1), mask


def dead_after_a_hundred_steps(**options: float | str | None) -> tuple[str, ...]:
    """Train ten times as fast as the recipe, which asks for trouble, and look."""
    torch.manual_seed(0)
    random = torch.Generator().manual_seed(0)
    recipe = get_recipe("default")
    network = rn.create_model("rn", **{**recipe.options, "width": 8, "blocks": 1, **options})
    adam = torch.optim.Adam(network.parameters(), lr=10 * recipe.lr, betas=recipe.betas)
    for _ in range(100):
        image, mask = pictures(random, 2)
        loss = ((network(image * (1 - mask), mask) - image).abs() * mask).sum() / mask.sum()
        adam.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        adam.step()
    return layer_activity(network, *pictures(random, 8)).dead


@pytest.mark.parametrize("bounded", [True, False])
def test_the_default_recipe_keeps_every_layer_alive(bounded: bool) -> None:
    if bounded:
        assert dead_after_a_hundred_steps() == ()
    else:  # what bound and batch statistics are for
        dead = dead_after_a_hundred_steps(
            bound=None, output_scale=1.0, stats="instance", track_running_stats=False, skip=False
        )
        assert "decoder_norms.1" in dead
