"""What of the studies is done, under way and left, and how long that takes here."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from regionnorm.studies.catalogue import SCALES, get_scale, get_study, list_studies
from regionnorm.studies.cost import gpu_hours
from regionnorm.studies.plan import Run, Scale, Study
from regionnorm.studies.results import RESULT, Result
from regionnorm.studies.runner import is_locked, last_step
from regionnorm.studies.sections import Table
from regionnorm.training.recipe import recipe_to_json

__all__ = ["check_scale", "status_table"]


def check_scale(scale: Scale, out: Path) -> None:
    """Refuse the runs of another of the package's scales, whose names are the same.

    Args:
        scale: Of which the runs under ``out/runs`` should be; others of one's own are not known.
        out: The studies' folder.

    Raises:
        ValueError: A run is of another scale; the message says of which.
    """
    recipes: dict[str, dict[str, Any]] = {scale.name: _recipes(scale)}
    for path in sorted((out / "runs").glob(f"*/{RESULT}")):
        name, recipe = path.parent.name, Result.load(path.parent).recipe
        if _fits(recipe, recipes[scale.name].get(name)):
            continue
        for other in SCALES:
            if other not in recipes:
                recipes[other] = _recipes(get_scale(other))
            if _fits(recipe, recipes[other].get(name)):
                raise ValueError(
                    f"{path.parent} is a run of the {other} scale, not of {scale.name}; choose "
                    f"scale {other}, or another folder"
                )


def _recipes(scale: Scale) -> dict[str, Any]:
    """Every run's recipe as its result keeps it."""
    runs = {run.name: run for name in list_studies() for run in get_study(name, scale).runs}
    return {name: json.loads(recipe_to_json(run.recipe)) for name, run in runs.items()}


def _fits(recipe: Mapping[str, Any], wanted: Mapping[str, Any] | None) -> bool:
    # Fields that came later have their default in older runs.
    return wanted is not None and all(
        recipe.get(key, value) == value for key, value in wanted.items()
    )


def status_table(studies: Sequence[Study], out: Path) -> Table:
    """A row a study, and one for all their runs, each counted once.

    Hours are of one job: what is left of a run, by the time that runs of the same network took
    here, or, where none is done, by its arithmetic against that of runs that are.

    Args:
        studies: Of one scale.
        out: The studies' folder.

    Raises:
        ValueError: The runs there are of another scale.
    """
    check_scale(studies[0].scale, out)
    runs = {run.name: run for study in studies for run in study.runs}
    seconds = {name: _seconds(out / "runs" / name) for name in runs}
    paces = {name: value / gpu_hours(runs[name]) for name, value in seconds.items() if value}
    rows = [_row(study.name, study.runs, out, seconds, paces) for study in studies if study.runs]
    rows.append(_row("all, each run once", tuple(runs.values()), out, seconds, paces))
    header = ("study", "runs", "done", "running", "begun", "to begin", "hours left")
    return Table(f"{studies[0].scale.name} scale, {out}", header, tuple(rows))


def _row(
    name: str,
    runs: Sequence[Run],
    out: Path,
    seconds: dict[str, float | None],
    paces: dict[str, float],
) -> tuple[str, ...]:
    counts = {"done": 0, "running": 0, "begun": 0, "to begin": 0}
    left = 0.0
    for run in runs:
        folder = out / "runs" / run.name
        step = last_step(folder)
        if seconds[run.name] is not None:
            counts["done"] += 1
            continue
        counts["running" if is_locked(folder) else "begun" if step else "to begin"] += 1
        left += _expected(run, paces) * (1 - step / run.recipe.steps)
    hours = f"{left / 3600:.1f}" if paces or counts["done"] == len(runs) else "unknown"
    return (name, str(len(runs)), *map(str, counts.values()), hours)


def _expected(run: Run, paces: dict[str, float]) -> float:
    """Seconds that a whole run takes."""
    stem = run.name.rpartition("-seed")[0]
    same = [pace for name, pace in paces.items() if name.rpartition("-seed")[0] == stem]
    return gpu_hours(run) * statistics.median(same or list(paces.values()) or [0.0])


def _seconds(folder: Path) -> float | None:
    """What a run took, None for one without a result."""
    try:
        return Result.load(folder).seconds
    except FileNotFoundError:
        return None
