"""What RN-L's response knows of the hole, wherever its threshold lies."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from regionnorm._extras import require
from regionnorm.checkpoints.weights import load_pretrained
from regionnorm.data import open_source
from regionnorm.files.whole import atomic_path
from regionnorm.imaging import image_to_tensor
from regionnorm.inspecting.activity import REGIONS_AT, REGIONS_IN
from regionnorm.inspecting.layers import learned_regions, mask_at, norm_layers
from regionnorm.masks import Interval, evaluation_masks
from regionnorm.measuring.report import interval_label
from regionnorm.studies.pictures import Context, MissingWeightsError, read_square
from regionnorm.studies.plan import Group
from regionnorm.studies.sections import Table

__all__ = [
    "RESPONSES",
    "WIDE",
    "Answer",
    "Knowledge",
    "knowledge",
    "read_answers",
    "response_table",
]

RESPONSES = "responses.json"
WIDE = interval_label(REGIONS_IN)
"""The larger of the two sizes of hole."""

_PHOTOS = 16
_AREAS: tuple[Interval, ...] = ((0.1, 0.2), REGIONS_IN)
_CUTS = 99  # thresholds to try, at even steps of the response's values


@dataclass(frozen=True)
class Knowledge:
    """How well one RN-L layer's response tells the hole from the rest.

    Attributes:
        layer: The layer's name.
        telling: Chance that of a pixel of the hole and a known one of the same photo the response
            ranks the same one higher as it mostly does, 0.5 (knows nothing) to 1: the area under
            the ROC curve, averaged over the photos, of whichever side it is on.
        overlap: Intersection over union with the hole, of all photos together, of the region by
            the layer's own threshold, above or below it, whichever is nearer.
        best_overlap: The same by the threshold that suits the photos best.
        everything: The same of a region of everything, by which any layer may be measured.
    """

    layer: str
    telling: float
    overlap: float
    best_overlap: float
    everything: float


def knowledge(model: torch.nn.Module, image: Tensor, mask: Tensor) -> list[Knowledge]:
    """What the response of each of a network's RN-L layers knows of the hole.

    Args:
        model: As for :func:`regionnorm.inspecting.layers.learned_regions`.
        image: ``[B, 3, H, W]`` in [0, 1]; the hole's pixels are not read.
        mask: ``[B, 1, H, W]``, 1 = hole.

    Returns:
        One for each layer, in the order in which they ran; none for a layer on whose features no
        photo has both hole and known pixels.

    Raises:
        ImportError: SciPy is not installed.
    """
    if all(kind != "rn-l" for _, kind in norm_layers(model)):
        return []  # without running it for nothing
    found = []
    for region in learned_regions(model, image, mask):
        response = region.response[:, 0].numpy()
        size = (response.shape[-2], response.shape[-1])
        hole = mask_at(model, mask, size).expand(len(response), -1, -1, -1)[:, 0].cpu().numpy()
        own = region.region[:, 0].numpy()
        pairs = [(r, h) for r, h in zip(response, hole, strict=True) if h.any() and not h.all()]
        if not pairs:
            continue
        above = fmean(_above(r, h) for r, h in pairs)
        found.append(
            Knowledge(
                region.layer.removesuffix(".layer"),
                max(above, 1 - above),
                max(_overlap(side, hole) for side in (own, ~own)),
                _best_overlap(response, hole),
                float(hole.mean()),
            )
        )
    return found


@dataclass(frozen=True)
class Answer:
    """What the layers of one run know of holes of one size.

    Attributes:
        group: The run's label in its study.
        seed: The run's.
        hole: Its size, ``"30-40 %"``.
        layers: In the order in which they run.
    """

    group: str
    seed: int
    hole: str
    layers: tuple[Knowledge, ...]


def response_table(context: Context) -> Table | None:
    """A row for each group of scenes with RN-L and each size of hole, means over seeds.

    What each layer of each run knows is kept in ``responses.json`` beside the study's section,
    and read from there where runs came without their weights.

    Returns:
        None where no group has any RN-L, or neither weights nor that file are there.
    """
    groups = [group for group in context.study.groups if group.runs[0].photos == "scenes"]
    answers: list[Answer] = []
    if _have_weights(context, groups):
        answers = _ask(context, groups)
        if answers:
            text = json.dumps([asdict(answer) for answer in answers], indent=1)
            with atomic_path(context.folder / RESPONSES) as temporary:
                temporary.write_text(text + "\n", encoding="utf-8")
    else:
        with suppress(FileNotFoundError):
            answers = read_answers(context.folder)
    if not answers:
        return None
    alike: dict[tuple[str, str], list[Answer]] = {}
    for answer in answers:
        alike.setdefault((answer.group, answer.hole), []).append(answer)
    caption = (
        f"RN-L's response and the hole, scenes of {REGIONS_AT} px, means over seeds: how surely it "
        "tells hole from known pixels (50 % = not at all), and the overlap of hole and region in "
        "the layer where it is largest, by the layer's own threshold and by the best"
    )
    header = "|hole|tells, mean of layers|tells, best|overlap|at best|of everything|which, by seed"
    return Table(caption, tuple(header.split("|")), tuple(map(_row, alike.values())))


def read_answers(folder: Path) -> list[Answer]:
    """What the runs of a study know, as :func:`response_table` kept it.

    Raises:
        FileNotFoundError: It has not been made.
        ValueError: The file is damaged.
    """
    path = folder / RESPONSES
    try:
        return [
            Answer(**{**kept, "layers": tuple(Knowledge(**layer) for layer in kept["layers"])})
            for kept in json.loads(path.read_text(encoding="utf-8"))
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is not what a study keeps ({error}); delete it") from error


def _have_weights(context: Context, groups: Sequence[Group]) -> bool:
    with suppress(MissingWeightsError):
        return all(context.run_weights(run) for group in groups for run in group.runs)
    return False


def _ask(context: Context, groups: Sequence[Group]) -> list[Answer]:
    """Ask each run's network; those without RN-L have no answer."""
    source = open_source(context.data.get("scenes").val)
    numbers = (
        np.linspace(0, len(source) - 1, min(_PHOTOS, len(source))).round().astype(int).tolist()
    )
    image = torch.cat([image_to_tensor(read_square(source, i, REGIONS_AT)) for i in numbers])
    masks = {area: evaluation_masks(numbers, area, REGIONS_AT) for area in _AREAS}
    answers = []
    for group in groups:
        for run in group.runs:
            model = load_pretrained(context.run_weights(run))
            for area, mask in masks.items():
                if layers := tuple(knowledge(model, image, mask)):
                    answers.append(
                        Answer(group.label, run.recipe.seed, interval_label(area), layers)
                    )
    return answers


def _row(answers: Sequence[Answer]) -> tuple[str, ...]:
    """A row of the table, from each seed's answer for one size of hole."""
    nearest = [max(answer.layers, key=lambda layer: layer.overlap) for answer in answers]
    return (
        answers[0].group,
        answers[0].hole,
        f"{fmean(layer.telling for answer in answers for layer in answer.layers):.0%}",
        f"{fmean(max(layer.telling for layer in answer.layers) for answer in answers):.0%}",
        f"{fmean(layer.overlap for layer in nearest):.2f}",
        f"{fmean(max(layer.best_overlap for layer in answer.layers) for answer in answers):.2f}",
        f"{fmean(layer.everything for layer in nearest):.2f}",
        ", ".join(layer.layer for layer in nearest),
    )


def _above(response: npt.NDArray[Any], hole: npt.NDArray[Any]) -> float:
    """Share of the pairs of a hole pixel and a known one in which the former's is higher."""
    ranks = require("scipy.stats", extra="eval").rankdata(response)[hole.ravel() > 0]
    known = hole.size - len(ranks)
    higher: float = ranks.sum() - len(ranks) * (len(ranks) + 1) / 2
    return float(higher / (len(ranks) * known))


def _best_overlap(response: npt.NDArray[Any], hole: npt.NDArray[Any]) -> float:
    cuts = np.quantile(response, np.linspace(0, 1, _CUTS))
    return max(_overlap(side, hole) for cut in cuts for side in (response > cut, response <= cut))


def _overlap(region: npt.NDArray[Any], hole: npt.NDArray[Any]) -> float:
    """Intersection over union of bool arrays; 0 where both are empty."""
    return float((region & hole).sum() / max(1, (region | hole).sum()))
