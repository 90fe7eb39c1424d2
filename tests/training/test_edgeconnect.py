"""EdgeConnect's training step: what each network is shown."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from regionnorm.checkpoints.weights import load_pretrained
from regionnorm.models import create_model
from regionnorm.nn.edges import canny_edges, luminance
from regionnorm.recipes import get_recipe
from regionnorm.studies import get_study
from regionnorm.studies.plan import mini_scale, small_scale
from regionnorm.training import train
from regionnorm.training.steps import make_step


def example() -> tuple[Tensor, Tensor]:
    image = nn.functional.interpolate(torch.rand(2, 3, 5, 5), size=(32, 32))
    mask = torch.zeros(2, 1, 32, 32)
    mask[:, :, 8:20, 8:20] = 1
    return image, mask


def painted(image: Tensor, mask: Tensor) -> tuple[Any, dict[str, Tensor]]:
    step = make_step(get_recipe("edgeconnect", {"size": "32", "discriminator_width": "4"}))
    generator = step.generator(create_model("edgeconnect", width=4, blocks=1))
    return step, step.paint(generator, image, mask)


def test_training_starts_from_the_edges_of_the_whole_photo() -> None:
    image, mask = example()
    step = make_step(get_recipe("edgeconnect", {"size": "32"}))
    generator = step.generator(create_model("edgeconnect", width=4, blocks=1))
    given: list[Tensor] = []
    model: Any = generator
    model.model.edge_generator.register_forward_pre_hook(
        lambda module, inputs: given.append(inputs[0])
    )
    step.paint(generator, image, mask)
    edges = canny_edges(luminance(image)) * (1 - mask)
    gray = luminance(image) * (1 - mask) + mask
    torch.testing.assert_close(given[0], torch.cat([gray, edges, mask], dim=1))


def test_discriminators_see_whole_pictures_and_edges_beside_gray() -> None:
    image, mask = example()
    step, pictures = painted(image, mask)
    real, fake = step.judged("discriminator", pictures, image, mask)
    assert real is image and fake is pictures["output"]
    real, fake = step.judged("edge_discriminator", pictures, image, mask)
    gray = luminance(image)
    assert torch.equal(real, torch.cat([gray, canny_edges(gray)], dim=1))
    assert torch.equal(fake, torch.cat([gray, pictures["edges"]], dim=1))


def test_edges_are_judged_by_score_and_by_matching_features() -> None:
    image, mask = example()
    step, pictures = painted(image, mask)
    discriminators = step.discriminators()
    shown = step.judged("edge_discriminator", pictures, image, mask)
    name = "edge_discriminator"
    parts = step.adversarial_losses(name, discriminators[name], *shown)
    assert parts.keys() == {"edge_adversarial", "feature_matching"}
    same = step.adversarial_losses(name, discriminators[name].eval(), shown[0], shown[0])
    assert parts["feature_matching"] > 0 and same["feature_matching"] == 0
    sum(parts.values()).backward()


def test_other_sizes_and_networks_are_refused() -> None:
    with pytest.raises(ValueError, match="size is 70; EdgeConnect trains on multiples of 4"):
        make_step(get_recipe("edgeconnect", {"size": "70"}))
    step = make_step(get_recipe("edgeconnect"))
    with pytest.raises(ValueError, match="trains edgeconnect, not 'rn'"):
        step.generator(create_model("rn", width=4, blocks=1))


def test_edges_are_trained_where_pictures_have_no_adversary(
    photo_folder: Callable[..., Path], tmp_path: Path
) -> None:
    small = {"size": "32", "discriminator_width": "4", "options.width": "4", "options.blocks": "1"}
    quiet = {"losses.perceptual": "0", "losses.style": "0", "batch": "1", "workers": "0"}
    recipe = get_recipe("edgeconnect", {**small, **quiet, "losses.adversarial": "0", "lr": "0.01"})
    assert recipe.needs_discriminator
    assert list(make_step(recipe).discriminators()) == ["edge_discriminator"]
    photos, states = photo_folder(1), []
    for steps in (1, 3):
        run = tmp_path / str(steps)
        train(replace(recipe, steps=steps, val_every=100), data=[photos], out=run)
        states.append(load_pretrained(run / "weights.safetensors").state_dict())
    edges = [key for key in states[0] if key.startswith("edge_generator") and "weight" in key]
    assert edges and any(not torch.equal(states[0][key], states[1][key]) for key in edges)
    with pytest.raises(ValueError, match="edges learn from their adversary"):
        make_step(get_recipe("edgeconnect", {**small, "losses.edge_adversarial": "0"}))


def test_studies_train_edges() -> None:
    for scale in (mini_scale, small_scale):
        runs = [
            run for run in get_study("table1", scale()).runs if run.recipe.model == "edgeconnect"
        ]
        assert runs and all(make_step(run.recipe).recipe.needs_discriminator for run in runs)
