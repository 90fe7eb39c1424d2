"""Named recipes: functions that return a :class:`regionnorm.training.Recipe`."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from regionnorm.recipes.contextual_attention import (
    contextual_attention,
    rn_contextual_attention,
)
from regionnorm.recipes.default import default, default_features, default_sharp, fast
from regionnorm.recipes.edgeconnect import edgeconnect
from regionnorm.recipes.gated_conv import gated_conv, rn_gated_conv
from regionnorm.recipes.gpu import gpu
from regionnorm.recipes.paper import paper, released
from regionnorm.recipes.partial_conv import partial_conv, rn_partial_conv
from regionnorm.recipes.scratches import scratches
from regionnorm.training.recipe import Recipe, with_overrides
from regionnorm.training.scratches import ScratchRecipe

__all__ = ["get_recipe", "get_scratch_recipe", "list_recipes"]

_RECIPES: dict[str, Callable[[], Recipe]] = {
    "default": default,
    "default-features": default_features,
    "default-sharp": default_sharp,
    "fast": fast,
    "gpu": gpu,
    "paper": paper,
    "released": released,
    "contextual-attention": contextual_attention,
    "rn-contextual-attention": rn_contextual_attention,
    "edgeconnect": edgeconnect,
    "partial-conv": partial_conv,
    "rn-partial-conv": rn_partial_conv,
    "gated-conv": gated_conv,
    "rn-gated-conv": rn_gated_conv,
}


def list_recipes() -> dict[str, str]:
    """Names of the recipes with the first line of what each says about itself."""
    makers: dict[str, Callable[[], object]] = {**_RECIPES, "scratches": scratches}
    return {name: (make.__doc__ or "").strip().splitlines()[0] for name, make in makers.items()}


def get_recipe(name: str, overrides: Mapping[str, str] | None = None) -> Recipe:
    """Make the recipe of a network that fills, and replace some of its fields.

    Args:
        name: One of :func:`list_recipes` but ``scratches``.
        overrides: Values by field, as typed: ``{"options.width": "32", "batch": "8"}``.

    Raises:
        ValueError: The name or a field is not known, or a value does not fit.
    """
    if name not in _RECIPES:
        raise ValueError(f"recipe {name!r} is not known; choose from {', '.join(_RECIPES)}")
    return with_overrides(_RECIPES[name](), overrides or {})


def get_scratch_recipe(overrides: Mapping[str, str] | None = None) -> ScratchRecipe:
    """Make the recipe ``scratches`` and replace some of its fields.

    Raises:
        ValueError: A field is not known, or a value does not fit.
    """
    return with_overrides(scratches(), overrides or {})
