"""Mean and variance shift by full-spatial normalisation, measured (section 3.1, Figure 2, eq. 1-7).

The paper argues with a feature map whose hole is constant: normalised over all its pixels, its
known ones end up away from zero mean and unit variance. Here the maps are those of networks at
work, at each of their normalisation layers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from regionnorm.inspecting.layers import LayerRecord, mask_at, region_statistics, visit_layers
from regionnorm.measuring.report import interval_label
from regionnorm.studies.shift.result import PHOTO, Interval, ShiftCell, ShiftResult
from regionnorm.studies.shift.views import draw_shift, shift_tables

__all__ = ["PHOTO", "ShiftCell", "ShiftResult", "draw_shift", "measure_shift", "shift_tables"]

_CONSTANT = 1e-10  # variance of a channel that carries nothing, and has no relative error


def measure_shift(
    models: Mapping[str, nn.Module], images: Tensor, masks: Mapping[Interval, Tensor]
) -> ShiftResult:
    """Measure, at each normalisation layer, what a hole does to the known pixels.

    Each network runs once without a hole and once for each interval; no features are kept.

    Args:
        models: Networks by name, called as ``model(image, mask)``.
        images: Photos ``[B, 3, H, W]`` in [0, 1], on the networks' device.
        masks: For intervals of area ``(low, high)``, masks ``[B, 1, H, W]``, above 0.5 = hole.

    Raises:
        ValueError: There is no network or mask, the name of one is taken, or a mask has another
            shape.
    """
    if not models or not masks:
        raise ValueError(f"got {len(models)} networks and {len(masks)} intervals of masks")
    if PHOTO in models:
        raise ValueError(f"a network is called {PHOTO!r}, which stands for the photo itself")
    expected = (len(images), 1, *images.shape[2:])
    for interval, mask in masks.items():
        if mask.shape != expected:
            raise ValueError(
                f"the masks of {interval_label(interval)} have shape {list(mask.shape)}; "
                f"expected {list(expected)}"
            )
    cells: list[ShiftCell] = []
    for name, model in {PHOTO: _Photo().to(images.device), **models}.items():
        cells += _measure(name, model, images, masks)
    height, width = images.shape[2:]
    return ShiftResult(len(images), (height, width), tuple(cells))


class _Photo(nn.Module):
    """No network: the photo, its hole white, normalised over all its pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.InstanceNorm2d(3)

    def forward(self, image: Tensor, mask: Tensor) -> Tensor:
        """The photo normalised."""
        normalised: Tensor = self.norm(torch.where(mask > 0.5, 1.0, image))
        return normalised


@dataclass(frozen=True)
class _Whole:
    """A layer's features without a hole: of all pixels, and of those known in each interval.

    All ``[B, C]``; ``known`` is means, ``cut`` shares at most 0.
    """

    mean: Tensor
    deviation: Tensor
    known: Mapping[Interval, Tensor]
    cut: Mapping[Interval, Tensor]


def _measure(
    name: str, model: nn.Module, images: Tensor, masks: Mapping[Interval, Tensor]
) -> list[ShiftCell]:
    whole: list[_Whole] = []

    def keep(record: LayerRecord) -> None:
        everywhere = region_statistics(record.before, torch.ones_like(record.mask))
        size = (record.mask.shape[-2], record.mask.shape[-1])
        known = {key: ~mask_at(model, mask, size).cpu() for key, mask in masks.items()}
        whole.append(
            _Whole(
                everywhere.mean,
                everywhere.variance.sqrt(),
                {k: region_statistics(record.before, where).mean for k, where in known.items()},
                {k: _cut(record.after, where) for k, where in known.items()},
            )
        )

    visit_layers(model, images, torch.zeros_like(images[:, :1]), keep)
    cells: list[ShiftCell] = []
    for interval, mask in masks.items():
        area = float((mask > 0.5).float().mean())
        counted = iter(enumerate(whole))

        def compare(
            record: LayerRecord,
            interval: Interval = interval,
            area: float = area,
            counted: Any = counted,
        ) -> None:
            index, without = next(counted)
            values = _compare(record, without, interval)
            cells.append(
                ShiftCell(
                    name,
                    record.layer.removesuffix(".layer"),
                    record.kind,
                    index,
                    interval,
                    area,
                    record.activation == "relu",
                    shift_deviation=_deviation(values["shift"]),
                    **{field: _mean(value) for field, value in values.items()},
                )
            )

        visit_layers(model, images, mask, compare)
    return cells


def _compare(record: LayerRecord, without: _Whole, interval: Interval) -> dict[str, Tensor]:
    """Each quantity of :class:`ShiftCell` ``[B, C]``; NaN where it has no meaning."""
    statistics = record.statistics("before")
    known, hole = statistics["known"], statistics["hole"]
    whole = region_statistics(record.before, torch.ones_like(record.mask))
    deviation = whole.variance.sqrt()
    normalised = record.statistics("normalised")["known"]

    hole_share = (hole.pixels / (hole.pixels + known.pixels))[:, None]
    # No pixels, no contribution: a mean of nothing is NaN, and NaN times 0 too.
    hole_mean, hole_variance = hole.mean.nan_to_num(), hole.variance.nan_to_num()
    mean = (1 - hole_share) * known.mean + hole_share * hole_mean  # eq. 3
    distance = (known.mean - hole_mean).square()
    variance = (1 - hole_share) * known.variance + hole_share * (1 - hole_share) * distance  # eq. 4
    total = variance + hole_share * hole_variance

    live, live_before = whole.variance > _CONSTANT, without.deviation.square() > _CONSTANT

    def share(error: Tensor, of: Tensor, where: Tensor) -> Tensor:
        return torch.where(where, error.abs() / of, torch.nan)

    return {
        "shift": normalised.mean.abs(),
        "spread": normalised.variance.sqrt(),
        "full_shift": share(known.mean - whole.mean, deviation, live),
        "full_spread": share(known.variance.sqrt(), deviation, live),
        "mean_error": share(mean - whole.mean, deviation, live),
        "variance_error": share(variance - whole.variance, whole.variance, live),
        "total_variance_error": share(total - whole.variance, whole.variance, live),
        "known_mean_error": share(known.mean - without.mean, without.deviation, live_before),
        "known_deviation_error": share(
            known.variance.sqrt() - without.deviation, without.deviation, live_before
        ),
        "sampling_mean_error": share(
            without.known[interval] - without.mean, without.deviation, live_before
        ),
        "cut": _cut(record.after, ~record.mask),
        "cut_without_hole": without.cut[interval],
    }


def _cut(features: Tensor, where: Tensor) -> Tensor:
    """Share of a region that is at most zero, ``[B, C]``."""
    return region_statistics((features <= 0).float(), where).mean


def _mean(values: Tensor) -> float | None:
    mean = float(values.nanmean())
    return None if mean != mean else mean


def _deviation(values: Tensor) -> float | None:
    photos = values.nanmean(1)
    photos = photos[~photos.isnan()]
    return float(photos.std(correction=0)) if len(photos) else None
