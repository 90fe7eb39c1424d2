"""What a run left: its scores with all that tells how they came about."""

from __future__ import annotations

import csv
import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from regionnorm.files.whole import atomic_path
from regionnorm.studies.plan import Group
from regionnorm.studies.published import Scores

__all__ = ["RESULT", "Result", "Spread", "read_curves", "spread"]

RESULT = "result.json"

Curve = tuple[tuple[int, float], ...]
"""Values by step."""


@dataclass(frozen=True)
class Result:
    """A trained and measured run.

    Attributes:
        run: Its name.
        seed: Of weights, crops and masks.
        steps: Optimiser steps taken.
        seconds: By the clock, training and measuring, all parts that were not killed.
        photos: Photos measured.
        fills: Fills measured, one a photo and interval.
        scores: Metric to hole interval (``"10-20 %"``, ``"all"``) to the mean over photos.
        curve: Step and PSNR in dB of the validations while it trained.
        recipe: The resolved recipe.
        data: Where its photos and masks came from, and at which size they were measured.
        versions: Of Python and the packages that compute.
        skipped: Photos that could not be measured, each with the reason.
        zeros: Share of zeros behind each norm with a ReLU at the last validation, see
            :class:`~regionnorm.inspecting.activity.Activity`: above 0.98 the layer is dead.
        found: How well each RN-L's region met the hole, by step, likewise.
    """

    run: str
    seed: int
    steps: int
    seconds: float
    photos: int
    fills: int
    scores: Scores
    curve: Curve
    recipe: Mapping[str, Any]
    data: Mapping[str, Any]
    versions: Mapping[str, str]
    skipped: Sequence[str] = ()
    zeros: Mapping[str, float] = field(default_factory=dict)
    found: Mapping[str, Curve] = field(default_factory=dict)

    @property
    def most_zeros(self) -> float:
        """The largest share of zeros of any layer; NaN where it was not measured."""
        return max(self.zeros.values(), default=float("nan"))

    def save(self, folder: Path) -> None:
        """Write ``result.json``."""
        with atomic_path(folder / RESULT) as temporary:
            temporary.write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Result:
        """Read it back.

        Raises:
            FileNotFoundError: The run is not done.
            ValueError: The file is damaged.
        """
        path = folder / RESULT
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            content["curve"] = _curve(content["curve"])
            found = content.get("found", {})
            content["found"] = {layer: _curve(values) for layer, values in found.items()}
            return cls(**content)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path} is no result of a run ({error}); delete it") from error


@dataclass(frozen=True)
class Spread:
    """Mean over seeds with the sample standard deviation, None for a single seed."""

    mean: float
    deviation: float | None
    values: tuple[float, ...]

    def show(self, digits: int) -> str:
        """``"24.31 ± 0.12"``."""
        text = f"{self.mean:.{digits}f}"
        return text if self.deviation is None else f"{text} ± {self.deviation:.{digits}f}"


def spread(values: Sequence[float]) -> Spread:
    """Mean and spread of the values of several seeds."""
    deviation = statistics.stdev(values) if len(values) > 1 else None
    return Spread(statistics.fmean(values), deviation, tuple(values))


class Results:
    """The results of a study's runs by run name."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._loaded: dict[str, Result] = {}

    def get(self, run: str) -> Result:
        """The result of a run, see :meth:`Result.load`."""
        if run not in self._loaded:
            self._loaded[run] = Result.load(self.folder / run)
        return self._loaded[run]

    def score(self, group: Group, metric: str, interval: str) -> Spread:
        """A group's score over its seeds."""
        return spread([self.get(run.name).scores[metric][interval] for run in group.runs])

    def differences(self, group: Group, other: Group, metric: str, interval: str) -> Spread:
        """A group's score minus another's, seed by seed."""
        pairs = zip(group.runs, other.runs, strict=True)
        return spread(
            [
                self.get(a.name).scores[metric][interval]
                - self.get(b.name).scores[metric][interval]
                for a, b in pairs
            ]
        )


def read_curves(folder: Path, prefix: str) -> dict[str, Curve]:
    """Curves from a run's ``log.csv``: those whose names begin with a prefix, without it."""
    with (folder / "log.csv").open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["name"].startswith(prefix)]
    curves: dict[str, list[tuple[int, float]]] = {}
    for row in rows:
        name = row["name"].removeprefix(prefix)
        curves.setdefault(name, []).append((int(row["step"]), float(row["value"])))
    return {name: tuple(values) for name, values in curves.items()}


def _curve(values: Sequence[Sequence[float]]) -> Curve:
    return tuple((int(step), float(value)) for step, value in values)
