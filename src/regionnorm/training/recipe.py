"""A recipe: every choice of a training run, validated, frozen, saved beside the run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, fields, is_dataclass, replace
from typing import Any, Literal, TypeVar

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from regionnorm.measuring.metrics import METRICS

__all__ = ["Losses", "Recipe", "recipe_from_json", "recipe_to_json", "with_overrides"]

_CONFIG = ConfigDict(extra="forbid", allow_inf_nan=False)
DISCRIMINATOR_SIZE = 24  # three halvings and two more convolutions of size 4 leave one pixel


@dataclass(frozen=True, kw_only=True, config=_CONFIG)
class Losses:
    """Weights and kinds of the generator's losses; a weight of 0 switches a loss off.

    ``on_composite`` judges the composite, whose known pixels are the photo's own, instead of the
    network's whole picture. ``coarse`` is the share that the first of two stages has in ``l1``;
    ``gradient_penalty`` is the weight of the adversary's slopes, where a training step has them.
    """

    l1: float = Field(default=1.0, ge=0)
    reconstruction: Literal["l1", "l1_over_hole_share", "l1_weighted", "l1_discounted"] = (
        "l1_over_hole_share"
    )
    coarse: float = Field(default=1.0, ge=0)
    adversarial: float = Field(default=0.0, ge=0)
    gan: Literal["nsgan", "lsgan", "hinge", "wgan"] = "nsgan"
    gradient_penalty: float = Field(default=10.0, ge=0)
    edge_adversarial: float = Field(default=0.0, ge=0)
    feature_matching: float = Field(default=0.0, ge=0)
    perceptual: float = Field(default=0.0, ge=0)
    perceptual_layers: tuple[str, ...] = (
        "relu1_1",
        "relu2_1",
        "relu3_1",
        "relu4_1",
        "relu5_1",
    )
    feature_distance: float = Field(default=0.0, ge=0)
    style: float = Field(default=0.0, ge=0)
    style_layers: tuple[str, ...] = ("relu2_2", "relu3_4", "relu4_4", "relu5_2")
    total_variation: float = Field(default=0.0, ge=0)
    vgg: str | None = None
    on_composite: bool = True


@dataclass(frozen=True, kw_only=True, config=_CONFIG)
class Recipe:
    """All choices of a training run; see ``docs/training.md`` for what they do.

    Counts are in optimiser steps, sizes in pixels; ``batch`` is for each process.
    """

    name: str
    model: str = "rn"
    options: dict[str, bool | int | float | str] = Field(default_factory=dict)
    init: str | None = None  # weights to start from instead of random ones
    training_step: str = "single-stage"
    losses: Losses = Field(default_factory=Losses)

    # Data
    size: int = Field(default=256, ge=16, le=4096)
    batch: int = Field(default=14, ge=1)
    min_scale: float = Field(default=0.5, gt=0, le=1)
    max_scale: float = Field(default=1.0, gt=0, le=1)
    flip: bool = True
    masks: str = "generated"
    max_area: float = Field(default=0.6, gt=0, le=0.95)
    thin: float = Field(default=0.0, ge=0, le=1)  # share of generated masks that are scratches
    workers: int = Field(default=2, ge=0)
    # Photos decoded once into the device's memory; auto: on CUDA, if they fit.
    resident: Literal["auto", "never", "always"] = "auto"
    resident_gib: float | None = Field(default=None, gt=0)  # None: half of what is free

    # Optimisation
    steps: int = Field(default=225_000, ge=1)
    # Ends the run earlier: saved, validated and done after so many minutes, all parts together.
    minutes: float | None = Field(default=None, gt=0)
    lr: float = Field(default=1e-4, gt=0)
    lr_discriminator: float = Field(default=1e-5, gt=0)
    betas: tuple[float, float] = (0.0, 0.9)
    schedule: Literal["constant", "cosine"] = "constant"
    warmup: int = Field(default=0, ge=0)
    clip: float = Field(default=0.0, ge=0)
    ema: float = Field(default=0.999, ge=0, lt=1)
    discriminator_width: int = Field(default=64, ge=1)
    discriminator_steps: int = Field(default=1, ge=1)
    seed: int = Field(default=0, ge=0)

    # Machine
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    accelerator: str = "auto"
    devices: int | str = "auto"
    nodes: int = Field(default=1, ge=1)
    strategy: str = "auto"
    channels_last: bool = False
    compile: bool = False

    # Reports
    log_every: int = Field(default=20, ge=1)
    sample_every: int = Field(default=500, ge=1)
    val_every: int = Field(default=2000, ge=1)
    val_photos: int = Field(default=24, ge=1)
    val_size: int = Field(default=256, ge=16, le=4096)
    # The measure of the validation by which best.safetensors is the best.
    best_by: Literal["psnr", "ssim", "l1", "feature_distance", "texture_distance"] = "psnr"
    save_every: int = Field(default=1000, ge=1)
    save_minutes: float = Field(default=5.0, gt=0)

    def __post_init__(self) -> None:
        """Refuse what no single field's range can."""
        if self.min_scale > self.max_scale:
            raise ValueError(f"min_scale {self.min_scale} is above max_scale {self.max_scale}")
        if self.needs_discriminator and self.size < DISCRIMINATOR_SIZE:
            raise ValueError(f"the discriminator needs size {DISCRIMINATOR_SIZE} or more")

    @property
    def needs_discriminator(self) -> bool:
        """Whether a discriminator is trained: of pictures, or of edges."""
        return self.losses.adversarial > 0 or self.losses.edge_adversarial > 0

    @property
    def val_metrics(self) -> tuple[str, ...]:
        """What a validation measures: what needs VGG only where the run uses it."""
        used = ["feature_distance"] if self.losses.feature_distance > 0 else []
        return tuple(dict.fromkeys([*METRICS, *used, self.best_by]))

    @property
    def needs_features(self) -> bool:
        """Whether VGG features are needed."""
        losses = self.losses
        return losses.perceptual > 0 or losses.feature_distance > 0 or losses.style > 0


_T = TypeVar("_T")
_ADAPTER: TypeAdapter[Recipe] = TypeAdapter(Recipe)


def recipe_to_json(recipe: Any) -> str:
    """A recipe, of whatever is trained, as indented JSON."""
    return json.dumps(asdict(recipe), indent=2) + "\n"


def recipe_from_json(text: str) -> Recipe:
    """The inverse of :func:`recipe_to_json`.

    Raises:
        ValueError: A field is missing, unknown or out of range.
    """
    return read_recipe(_ADAPTER, text)


def read_recipe(adapter: TypeAdapter[_T], text: str) -> _T:
    """Read JSON as the recipe of an adapter.

    Raises:
        ValueError: A field is missing, unknown or out of range.
    """
    try:
        return adapter.validate_json(text)
    except ValidationError as error:
        raise ValueError(f"not a recipe: {_first(error)}") from error


def with_overrides(recipe: _T, overrides: Mapping[str, str]) -> _T:
    """Replace fields by ``key=value`` pairs as typed on a command line.

    Args:
        recipe: Where to start.
        overrides: Values by field name; ``losses.l1`` and ``options.width`` reach inside.

    Raises:
        ValueError: A field is unknown or a value does not fit it.
    """
    waiting = dict(overrides)
    while waiting:
        refused: dict[str, ValidationError] = {}
        for key, value in waiting.items():
            try:
                recipe = _replaced(recipe, key.split("."), value, key)
            except ValidationError as error:
                refused[key] = error
        # Two that fit together may not fit one after the other; another order may do.
        if len(refused) == len(waiting):
            key, first = next(iter(refused.items()))
            raise ValueError(f"--set {key}={waiting[key]}: {_first(first)}") from first
        waiting = {key: waiting[key] for key in refused}
    return recipe


def _replaced(holder: Any, path: list[str], value: str, key: str) -> Any:
    """``holder`` with the field at ``path`` set; dataclasses validate themselves again."""
    name, rest = path[0], path[1:]
    if isinstance(holder, dict):
        if rest:
            raise ValueError(f"--set {key}={value}: {name!r} has no fields inside")
        if value == "none" and name in holder:  # the network's own default
            return {option: setting for option, setting in holder.items() if option != name}
        return {**holder, name: _scalar(value)}
    known = [field.name for field in fields(holder)]
    if name not in known:
        raise ValueError(f"--set {key}={value}: no field {name!r}; choose from {', '.join(known)}")
    current = getattr(holder, name)
    if rest:
        if not (is_dataclass(current) or isinstance(current, dict)):
            raise ValueError(f"--set {key}={value}: {name!r} has no fields inside")
        return replace(holder, **{name: _replaced(current, rest, value, key)})
    if isinstance(current, tuple):
        return replace(holder, **{name: tuple(value.split(","))})
    return replace(holder, **{name: None if value == "none" else value})


def _scalar(value: str) -> bool | int | float | str:
    if value in ("true", "false"):
        return value == "true"
    for convert in (int, float):
        try:
            return convert(value)
        except ValueError:
            continue
    return value


def _first(error: ValidationError) -> str:
    """The first problem of a validation error, on one line."""
    problem = error.errors()[0]
    where = ".".join(str(part) for part in problem["loc"])
    if not where:  # of several fields together: all of them would be shown
        return problem["msg"].removeprefix("Value error, ")
    return f"{where}: {problem['msg']} (got {problem['input']!r})"
