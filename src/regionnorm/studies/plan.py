"""What a study consists of: runs of recipes, in groups that the paper compares."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal

from regionnorm.recipes import get_recipe
from regionnorm.studies.published import Scores
from regionnorm.training.recipe import Recipe

__all__ = [
    "Group",
    "PhotoKind",
    "Run",
    "Scale",
    "Study",
    "make_run",
    "mini_scale",
    "paper_scale",
    "small_scale",
]

PhotoKind = Literal["scenes", "faces"]
"""Places2's part or CelebA's part."""


@dataclass(frozen=True)
class Run:
    """One network, trained by a recipe and measured.

    Attributes:
        name: Of its folder; studies that share a run share the folder.
        recipe: All choices of its training, the seed among them.
        photos: What it is trained and measured on.
    """

    name: str
    recipe: Recipe
    photos: PhotoKind = "scenes"


@dataclass(frozen=True)
class Group:
    """A row of a table: the same run from several seeds.

    Attributes:
        label: The row's name in the paper.
        runs: One for each seed.
        published: What the paper reports for it.
        reference: Label of the group that it is compared with, empty for none.
    """

    label: str
    runs: tuple[Run, ...]
    published: Scores = field(default_factory=dict)
    reference: str = ""

    def paper(self, metric: str, interval: str) -> float | None:
        """What the paper reports, None where it reports nothing."""
        return self.published.get(metric, {}).get(interval)


@dataclass(frozen=True)
class Study:
    """A table or figure of the paper.

    Attributes:
        name: As on the command line.
        title: What it shows.
        groups: What is trained for it; several studies may share runs, none may have none.
        scale: How large.
    """

    name: str
    title: str
    groups: tuple[Group, ...]
    scale: Scale

    @property
    def runs(self) -> tuple[Run, ...]:
        """All runs, each once, all groups' first seeds first: half a study is a table, too."""
        most = max((len(group.runs) for group in self.groups), default=0)
        by_seed = [
            group.runs[i] for i in range(most) for group in self.groups if i < len(group.runs)
        ]
        return tuple({run.name: run for run in by_seed}.values())

    def group(self, label: str) -> Group:
        """The group of that label."""
        return next(group for group in self.groups if group.label == label)


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How large the runs are, and how they are measured.

    Attributes:
        name: ``"mini"``, ``"small"`` or ``"paper"``.
        seeds: Of the runs of most studies.
        more_seeds: Of Table 3, whose differences are the paper's claim.
        fewer_seeds: Of Tables 1, 4 and 6, which have the most and the dearest networks.
        adapt: From a recipe as its own paper trains it to the recipe of this scale.
        size: Side in pixels at which photos are measured.
        limit: Photos to measure, None for all.
        spread: Take them evenly from all there are, in training's validations, too, instead of
            the first ones, which may all be of one kind.
        curve_steps: Steps of Figure 6's curves.
        weights: Weights behind Figures 8 and 9: ``"default"``, or None for this scale's own run.
    """

    name: str
    seeds: tuple[int, ...]
    more_seeds: tuple[int, ...]
    fewer_seeds: tuple[int, ...]
    adapt: Callable[[Recipe], Recipe]
    size: int
    limit: int | None
    curve_steps: int
    weights: str | None
    spread: bool = False


def paper_scale() -> Scale:
    """Section 4.1: 256 px, batch 14, 225,000 iterations, all validation photos."""
    return Scale(
        name="paper",
        seeds=(0,),
        more_seeds=(0,),
        fewer_seeds=(0,),
        adapt=_as_in_the_paper,
        size=256,
        limit=None,
        curve_steps=10_000,
        weights=None,
    )


def mini_scale() -> Scale:
    """The same on two cores in minutes: narrow networks, small crops, few steps, several seeds."""
    return Scale(
        name="mini",
        seeds=(0, 1),
        more_seeds=(0, 1, 2),
        fewer_seeds=(0, 1),
        adapt=_mini,
        size=128,
        limit=48,
        curve_steps=10_000,
        weights="default",
    )


def small_scale() -> Scale:
    """Figure 6's 10,000 iterations on two cores in ten hours; photos of all kinds judge."""
    return Scale(
        name="small",
        seeds=(0, 1),
        more_seeds=(0, 1, 2),
        fewer_seeds=(0,),
        adapt=_small,
        size=128,
        limit=96,
        spread=True,
        curve_steps=10_000,
        weights=None,
    )


def _as_in_the_paper(recipe: Recipe) -> Recipe:
    return replace(recipe, batch=14, steps=225_000, val_every=25_000, save_every=2_500, workers=8)


def _mini(recipe: Recipe) -> Recipe:
    """Reconstruction alone: adversaries and VGG features need longer to be of use.

    EdgeConnect keeps its edges' adversary, without which there are no edges.
    """
    losses = replace(recipe.losses, adversarial=0.0, perceptual=0.0, style=0.0)
    options = {**recipe.options, "width": 16}
    if recipe.training_step == "partial-conv":
        # Two pixels are left of a crop at the deepest level, as in its own paper. By the seven
        # levels of 256 px a crop of 64 would be padded to 128, and statistics of each photo would
        # be those of the padding, which pictures of 128 px have not.
        options["levels"] = 5
    return replace(
        recipe,
        options=options,
        losses=losses,
        size=64,
        batch=4,
        # As large in the picture as the photos' details are at the size of measuring.
        min_scale=0.4,
        max_scale=0.8,
        steps=800,
        lr=5e-4,
        lr_discriminator=5e-5,
        betas=(0.9, 0.99),
        warmup=20,
        clip=1.0,
        ema=0.98,
        discriminator_width=16,
        discriminator_steps=1,
        precision="bf16-mixed",
        channels_last=True,
        workers=0,
        log_every=40,
        sample_every=800,
        val_every=80,
        val_photos=8,
        val_size=128,
        save_every=100,
    )


def _small(recipe: Recipe) -> Recipe:
    """The mini scale's choices, trained until the order of the curves has settled."""
    return replace(
        _mini(recipe),
        batch=8,
        steps=10_000,
        lr=3e-4,
        lr_discriminator=3e-5,
        warmup=100,
        ema=0.998,
        log_every=100,
        sample_every=10_000,
        val_every=500,
        val_photos=24,
        save_every=1_000,
    )


def make_run(
    scale: Scale,
    model: str,
    seed: int,
    photos: PhotoKind = "scenes",
    *,
    threshold: float | None = None,
    steps: int | None = None,
    as_released: bool = False,
) -> Run:
    """The run of a network at a scale.

    Args:
        scale: How large.
        model: A network's name; those with a recipe of their own train by it, others as the paper
            trains its own.
        seed: Seeds weights, crops and masks.
        photos: What it is trained and measured on.
        threshold: Of RN-L; None for the paper's 0.8.
        steps: At most so many; None for the scale's.
        as_released: With statistics of each region over the whole batch, and running averages of
            them for evaluation, as batch norm has them.
    """
    name = model
    recipe = get_recipe(_RECIPES.get(model, "paper"))
    recipe = replace(recipe, name=model, model=model, seed=seed)
    if threshold is not None and threshold != _THRESHOLD:
        recipe = replace(recipe, options={**recipe.options, "threshold": threshold})
        name += f"-t{threshold:g}"
    if as_released:
        recipe = replace(recipe, options={**recipe.options, **_AS_RELEASED})
        name += "-batch"
    recipe = scale.adapt(recipe)
    if steps is not None and steps < recipe.steps:
        recipe = replace(recipe, steps=steps, val_every=500)
        name += f"-{steps}"
    return Run(f"{photos}-{name}-seed{seed}", recipe, photos)


_AS_RELEASED: dict[str, str | bool] = {"stats": "batch", "track_running_stats": True}
_THRESHOLD = 0.8  # the default of RN-L, so that t = 0.8 is the very run of other studies
_RECIPES = {
    name: name
    for name in (
        "edgeconnect",
        "contextual-attention",
        "partial-conv",
        "gated-conv",
        "rn-contextual-attention",
        "rn-partial-conv",
        "rn-gated-conv",
    )
}
