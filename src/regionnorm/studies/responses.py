"""What RN-L's response knows of the hole, wherever its threshold lies."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from regionnorm._extras import require
from regionnorm.checkpoints.weights import load_pretrained
from regionnorm.data import open_source
from regionnorm.imaging import image_to_tensor, mask_to_tensor
from regionnorm.inspecting.layers import learned_regions, mask_at
from regionnorm.masks import Interval, evaluation_mask
from regionnorm.studies.pictures import Context, read_square
from regionnorm.studies.sections import Table

__all__ = ["Knowledge", "knowledge", "response_table"]

_PHOTOS = 16
_AREAS: tuple[Interval, ...] = ((0.1, 0.2), (0.3, 0.4))
_CUTS = 99  # thresholds to try, at even steps of the response's values


@dataclass(frozen=True)
class Knowledge:
    """How well one RN-L layer's response tells the hole from the rest.

    Attributes:
        layer: The layer's name.
        telling: Chance that of a pixel of the hole and a known one of the same photo the response
            ranks the same one higher as it mostly does, 0.5 (knows nothing) to 1: the area under
            the ROC curve, averaged over the photos, of whichever side it is on.
        overlap: Intersection over union with the hole of the region by the threshold that suits
            all photos best, above or below it.
        everything: The same of a region of everything, by which any layer may be measured.
    """

    layer: str
    telling: float
    overlap: float
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
    found = []
    for region in learned_regions(model, image, mask):
        response = region.response[:, 0].numpy()
        size = (response.shape[-2], response.shape[-1])
        hole = mask_at(model, mask, size).expand(len(response), -1, -1, -1)[:, 0].cpu().numpy()
        pairs = [(r, h) for r, h in zip(response, hole, strict=True) if h.any() and not h.all()]
        if not pairs:
            continue
        above = statistics.fmean(_above(r, h) for r, h in pairs)
        found.append(
            Knowledge(
                region.layer.removesuffix(".layer"),
                max(above, 1 - above),
                _best_overlap(response, hole),
                float(hole.mean()),
            )
        )
    return found


def response_table(context: Context) -> Table | None:
    """A row for each group with RN-L and each size of hole; None where no group has any."""
    size = context.study.scale.size
    source = open_source(context.data.get("scenes").val)
    numbers = np.linspace(0, len(source) - 1, min(_PHOTOS, len(source))).round().astype(int)
    image = torch.cat([image_to_tensor(read_square(source, int(i), size)) for i in numbers])
    rows = []
    for group in context.study.groups:
        if group.runs[0].photos != "scenes":
            continue
        model = load_pretrained(context.weights(group))
        for area in _AREAS:
            mask = torch.cat([mask_to_tensor(evaluation_mask(int(i), area, size)) for i in numbers])
            if layers := knowledge(model, image, mask):
                rows.append((group.label, f"{area[0]:.0%} to {area[1]:.0%}", *_cells(layers)))
    if not rows:
        return None
    caption = (
        f"RN-L's response and the hole, {len(numbers)} scenes, first seed: how surely it tells "
        "hole from known pixels (50 % = not at all), and how far the region by the best of all "
        "thresholds overlaps the hole"
    )
    header = ("", "hole", "tells, mean", "tells, best", "overlap, mean", "overlap, best")
    return Table(caption, (*header, "overlap of everything"), tuple(rows))


def _cells(layers: Sequence[Knowledge]) -> list[str]:
    telling, overlap = [x.telling for x in layers], [x.overlap for x in layers]
    return [
        f"{statistics.fmean(telling):.0%}",
        f"{max(telling):.0%}",
        f"{statistics.fmean(overlap):.2f}",
        f"{max(overlap):.2f}",
        f"{statistics.fmean(x.everything for x in layers):.2f}",
    ]


def _above(response: npt.NDArray[Any], hole: npt.NDArray[Any]) -> float:
    """Share of the pairs of a hole pixel and a known one in which the former's is higher."""
    ranks = require("scipy.stats", extra="eval").rankdata(response)[hole.ravel() > 0]
    known = hole.size - len(ranks)
    higher: float = ranks.sum() - len(ranks) * (len(ranks) + 1) / 2
    return float(higher / (len(ranks) * known))


def _best_overlap(response: npt.NDArray[Any], hole: npt.NDArray[Any]) -> float:
    hole = hole > 0
    cuts = np.quantile(response, np.linspace(0, 1, _CUTS))
    return max(
        float((side & hole).sum() / max(1, (side | hole).sum()))
        for cut in cuts
        for side in (response > cut, response <= cut)
    )
