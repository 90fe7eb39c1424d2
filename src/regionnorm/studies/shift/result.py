"""What the study of Figure 2 measures: a cell for each layer and hole area."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

__all__ = [
    "PARTS",
    "PHOTO",
    "SEEDS",
    "Interval",
    "ShiftCell",
    "ShiftResult",
    "mean_of",
    "read_seeds",
]

PHOTO = "photo"
"""Beside the networks: the photo itself, its hole white as in eq. 2, normalised like IN."""

PARTS = ("encoder", "middle", "decoder")

SEEDS = "seeds.json"
"""Each seed's shift under the largest holes, by part of the network."""

Interval = tuple[float, float]


@dataclass(frozen=True)
class ShiftCell:
    """One layer of one network under holes of one size: means over channels and photos.

    Means and spreads after normalisation are before gamma and beta, in standard deviations: where
    nothing shifts, the mean is 0 and the spread 1. A value is None where no photo has any, such as
    a layer so small that no known pixel is left.

    Attributes:
        model: The network's name.
        layer: The layer's.
        kind: ``"rn-b"``, ``"rn-l"``, ``"in"`` or ``"bn"``.
        index: When it runs, from 0.
        interval: The interval of hole areas.
        area: Measured share of hole in the photos, 0 to 1.
        relu: Whether a ReLU follows (eq. 7), as far as is known.
        shift: ``|mean|`` of the known pixels after the layer's own normalisation (eq. 5, 11).
        shift_deviation: Standard deviation of the same over the photos, of the channels' means.
        spread: Their standard deviation after it.
        full_shift: The shift if the layer normalised the same features over all pixels, as IN.
        full_spread: The spread likewise.
        mean_error: Eq. 3 against the measured mean of the whole map, over the map's standard
            deviation.
        variance_error: Eq. 4, which leaves out the hole's own variance (eq. 2: it is 0), against
            the measured variance of the whole map, relative.
        total_variance_error: The same with the hole's variance, weighted by its area.
        known_mean_error: Eq. 1: mean of the known pixels against that of the whole map without
            any hole, over the latter's standard deviation.
        known_deviation_error: Eq. 1: their standard deviations, relative.
        sampling_mean_error: The part of ``known_mean_error`` that no network can avoid: the same
            pixels of the map without a hole against all of that map.
        cut: Share of the known pixels' outputs, with gamma and beta, that a ReLU cuts to zero.
        cut_without_hole: The same for the same pixels when the photo has no hole.
    """

    model: str
    layer: str
    kind: str
    index: int
    interval: Interval
    area: float
    relu: bool
    shift: float | None
    shift_deviation: float | None
    spread: float | None
    full_shift: float | None
    full_spread: float | None
    mean_error: float | None
    variance_error: float | None
    total_variance_error: float | None
    known_mean_error: float | None
    known_deviation_error: float | None
    sampling_mean_error: float | None
    cut: float | None
    cut_without_hole: float | None

    @property
    def part(self) -> str:
        """``"encoder"``, ``"decoder"``, or ``"middle"`` for all else, by the layer's name."""
        return next((part for part in ("encoder", "decoder") if part in self.layer), "middle")


@dataclass(frozen=True)
class ShiftResult:
    """What :func:`~regionnorm.studies.shift.measure.measure_shift` found.

    Attributes:
        photos: How many.
        size: Their height and width in pixels.
        cells: By network, interval and layer, in the order of running.
    """

    photos: int
    size: tuple[int, int]
    cells: tuple[ShiftCell, ...]

    @property
    def models(self) -> list[str]:
        """The networks' names, without :data:`PHOTO`."""
        return [name for name in dict.fromkeys(c.model for c in self.cells) if name != PHOTO]

    @property
    def intervals(self) -> list[Interval]:
        """From the smallest to the largest."""
        return sorted({cell.interval for cell in self.cells})

    def of(
        self, model: str, interval: Interval | None = None, part: str | None = None
    ) -> list[ShiftCell]:
        """A network's cells; of one interval, of one of :data:`PARTS`."""
        return [
            cell
            for cell in self.cells
            if cell.model == model
            and interval in (None, cell.interval)
            and part in (None, cell.part)
        ]

    def to_json(self) -> dict[str, Any]:
        """As what ``json`` writes; read back by :meth:`from_json`."""
        return {
            "photos": self.photos,
            "size": list(self.size),
            "cells": [asdict(cell) | {"interval": list(cell.interval)} for cell in self.cells],
        }

    @classmethod
    def from_json(cls, content: Any) -> ShiftResult:
        """Read back what :meth:`to_json` made.

        Raises:
            ValueError: It is something else.
        """
        try:
            names = {field.name for field in fields(ShiftCell)}
            cells = tuple(
                ShiftCell(**{**cell, "interval": tuple(cell["interval"])})
                for cell in content["cells"]
                if set(cell) == names
            )
            height, width = content["size"]
            result = cls(int(content["photos"]), (height, width), cells)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"this is no result of a shift study: {error}") from error
        if len(cells) != len(content["cells"]):
            raise ValueError("this is no result of a shift study: its cells have other fields")
        return result


def mean_of(cells: Iterable[ShiftCell], field: str) -> float | None:
    """A field's mean over layers, without those that have none."""
    values = [value for cell in cells if (value := getattr(cell, field)) is not None]
    return sum(values) / len(values) if values else None


def read_seeds(folder: Path) -> dict[tuple[str, int], dict[str, float | None]]:
    """Each seed's shift by part, as the study kept it in its folder; empty if it has not.

    Returns:
        By network and seed.

    Raises:
        ValueError: The file is damaged.
    """
    path = folder / SEEDS
    if not path.is_file():
        return {}
    try:
        return {
            (row["network"], row["seed"]): {part: row[part] for part in PARTS}
            for row in json.loads(path.read_text(encoding="utf-8"))
        }
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is not what a study keeps ({error}); delete it") from error
