"""Recipes: validated, overridden from text, saved and read back."""

from __future__ import annotations

import dataclasses
import json

import pytest

from regionnorm.recipes import get_recipe, get_scratch_recipe, list_recipes
from regionnorm.training.recipe import recipe_from_json, recipe_to_json
from regionnorm.training.scratches import scratch_recipe_from_json

FILLING = [name for name in list_recipes() if name != "scratches"]


@pytest.mark.parametrize("name", FILLING)
def test_every_recipe_is_listed_and_survives_json(name: str) -> None:
    assert list_recipes()[name]
    recipe = get_recipe(name)
    assert recipe.name == name
    assert recipe_from_json(recipe_to_json(recipe)) == recipe


def test_an_option_of_none_is_the_networks_own() -> None:
    recipe = get_recipe("default")
    assert {"bound", "output_scale"} <= set(recipe.options)
    none = {"options.bound": "none", "options.output_scale": "none"}
    plain = get_recipe("default", none)
    assert set(recipe.options) - set(plain.options) == {"bound", "output_scale"}


def test_overrides_are_converted_and_reach_inside() -> None:
    recipe = get_recipe(
        "paper",
        {
            "batch": "3",
            "lr": "1e-3",
            "flip": "false",
            "options.width": "16",
            "options.stats": "batch",
            "losses.style": "0",
            "losses.style_layers": "relu1_1,relu2_1",
            "losses.vgg": "vgg.pth",
        },
    )
    assert (recipe.batch, recipe.lr, recipe.flip) == (3, 1e-3, False)
    assert recipe.options == {"width": 16, "stats": "batch"}
    assert recipe.losses.style == 0
    assert recipe.losses.style_layers == ("relu1_1", "relu2_1")
    assert recipe.losses.vgg == "vgg.pth"


def test_options_take_true_and_false() -> None:
    recipe = get_recipe("partial-conv", {"options.frozen_encoder_norm": "true", "lr": "5e-5"})
    assert recipe.options == {"frozen_encoder_norm": True}
    assert recipe_from_json(recipe_to_json(recipe)).options["frozen_encoder_norm"] is True


@pytest.mark.parametrize("name", ["contextual-attention", "partial-conv", "gated-conv"])
def test_the_rn_recipe_differs_in_the_network_alone(name: str) -> None:
    plain, ours = get_recipe(name), get_recipe(f"rn-{name}")
    assert (plain.model, ours.model) == (name, f"rn-{name}")
    assert dataclasses.replace(ours, name=plain.name, model=plain.model) == plain
    assert (plain.training_step, plain.losses.on_composite) == (name, False)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("batch", "0", "greater than or equal to 1"),
        ("batch", "many", "batch"),
        ("colour", "red", "no field 'colour'"),
        ("losses.colour", "1", "no field 'colour'"),
        ("batch.x", "1", "no fields inside"),
        ("options.width.x", "4", "'width' has no fields inside"),
        ("lr", "inf", "finite"),
        ("losses.l1", "nan", "finite"),
        ("resident_gib", "inf", "finite"),
        ("precision", "64", "precision"),
        ("min_scale", "0.95", "above max_scale"),
        ("size", "16", "discriminator needs"),
    ],
)
def test_wrong_overrides_are_named_in_one_line(key: str, value: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        get_recipe("paper", {"max_scale": "0.9", key: value})
    assert "\n" not in str(caught.value)
    assert value in str(caught.value)


@pytest.mark.parametrize("back", [False, True])
def test_overrides_that_fit_together_are_taken_in_any_order(back: bool) -> None:
    pairs = [
        ("min_scale", "0.95"),
        ("max_scale", "1.0"),
        ("size", "16"),
        ("losses.adversarial", "0"),
    ]
    recipe = get_recipe("paper", {"max_scale": "0.9"} | dict(pairs[::-1] if back else pairs))
    assert (recipe.min_scale, recipe.max_scale, recipe.size) == (0.95, 1.0, 16)
    with pytest.raises(ValueError, match="above max_scale") as caught:
        get_recipe("paper", {"min_scale": "0.9", "max_scale": "0.8"})
    assert len(str(caught.value)) < 120


def test_unknown_recipe_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match="default, .*paper, released, .*rn-gated-conv"):
        get_recipe("nonsense")


def test_recipes_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        get_recipe("paper").batch = 3  # type: ignore[misc]


def test_json_with_an_unknown_field_is_refused() -> None:
    text = recipe_to_json(get_recipe("paper")).replace('"batch"', '"bunch"')
    with pytest.raises(ValueError, match="bunch"):
        recipe_from_json(text)


def test_the_papers_losses_and_schedule() -> None:
    paper, released = get_recipe("paper"), get_recipe("released")
    assert (paper.batch, paper.size, paper.betas) == (14, 256, (0.0, 0.9))
    assert (paper.lr, paper.lr_discriminator) == (1e-4, 1e-5)
    losses = paper.losses
    assert (losses.l1, losses.adversarial, losses.perceptual, losses.style) == (1, 0.1, 0.1, 250)
    assert (released.losses.perceptual, released.losses.style) == (0, 0)
    assert released.losses.on_composite


def test_the_recipe_of_scratches_is_checked_and_survives_json() -> None:
    recipe = get_scratch_recipe({"batch": "3", "minutes": "2", "widths": "4,4,8,8"})
    assert (recipe.batch, recipe.minutes, recipe.widths) == (3, 2.0, (4, 4, 8, 8))
    assert scratch_recipe_from_json(json.dumps(dataclasses.asdict(recipe))) == recipe
    with pytest.raises(ValueError, match="no field 'model'"):
        get_scratch_recipe({"model": "rn"})
    with pytest.raises(ValueError, match="size"):
        get_scratch_recipe({"size": "100"})
    with pytest.raises(ValueError, match="not a recipe: bunch"):
        scratch_recipe_from_json('{"bunch": 3}')
