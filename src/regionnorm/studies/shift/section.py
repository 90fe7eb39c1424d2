"""The study of Figure 2: the networks of two runs, measured on photos with growing holes."""

from __future__ import annotations

import json

import torch
from torch import Tensor

from regionnorm.checkpoints.weights import load_pretrained
from regionnorm.data import open_source
from regionnorm.files.whole import atomic_path
from regionnorm.imaging import image_to_tensor
from regionnorm.masks import evaluation_masks
from regionnorm.studies.figures import save_figure
from regionnorm.studies.pictures import Context, MissingWeightsError, read_square
from regionnorm.studies.sections import Figure, Table
from regionnorm.studies.shift.measure import measure_shift
from regionnorm.studies.shift.result import PARTS, SEEDS, mean_of, read_seeds
from regionnorm.studies.shift.views import draw_shift, shift_tables

__all__ = ["shift_parts"]

Masks = dict[tuple[float, float], Tensor]

_PHOTOS = 8
_AREAS = ((0.05, 0.1), (0.1, 0.2), (0.2, 0.3), (0.3, 0.4), (0.4, 0.5), (0.5, 0.6))


def shift_parts(context: Context) -> tuple[tuple[Table, ...], tuple[Figure, ...]]:
    """Measure the shift, keep the numbers in ``shift.json``, and make tables and figure."""
    study, size = context.study, context.study.scale.size
    source = open_source(context.data.get("scenes").val)
    count = min(_PHOTOS, len(source))
    images = torch.cat(
        [image_to_tensor(read_square(source, number, size)) for number in range(count)]
    )
    masks = {area: evaluation_masks(range(count), area, size) for area in _AREAS}
    models = {group.label: load_pretrained(context.weights(group)) for group in study.groups}
    result = measure_shift(models, images, masks)
    with atomic_path(context.folder / "shift.json") as temporary:
        temporary.write_text(json.dumps(result.to_json(), indent=1) + "\n", encoding="utf-8")
    save_figure(draw_shift(result), context.folder / "shift.png")
    tables = (*shift_tables(result), _seeds(context, images, {_AREAS[-1]: masks[_AREAS[-1]]}))
    return tables, (Figure("shift.png", _CAPTION),)


def _seeds(context: Context, images: Tensor, masks: Masks) -> Table:
    """The shift under the largest holes in every seed's networks, kept in ``seeds.json`` too.

    Of a seed whose run came without weights, what was kept is shown.
    """
    before = read_seeds(context.folder)
    rows, kept = [], []
    for group in context.study.groups:
        for run in group.runs:
            try:
                means = _means(context.run_weights(run), images, masks)
            except MissingWeightsError:
                if (group.label, run.recipe.seed) not in before:
                    raise
                means = before[group.label, run.recipe.seed]
            shown = ["-" if mean is None else f"{mean:.2f}" for mean in means.values()]
            rows.append((f"{group.label}, seed {run.recipe.seed}", *shown))
            kept.append({"network": group.label, "seed": run.recipe.seed, **means})
    with atomic_path(context.folder / SEEDS) as temporary:
        temporary.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    caption = "Shift of the known pixels by seed, holes of 50 to 60 %, standard deviations"
    return Table(caption, ("", *PARTS), tuple(rows))


def _means(weights: str, images: Tensor, masks: Masks) -> dict[str, float | None]:
    """A network's mean shift by part."""
    cells = measure_shift({"": load_pretrained(weights)}, images, masks).of("")
    return {part: mean_of((c for c in cells if c.part == part), "shift") for part in PARTS}


_CAPTION = (
    "Mean shift and spread of the known pixels after normalisation, in standard deviations, by "
    "hole area and layer; and the error of eq. 3-4 against the measurement."
)
