"""What of the studies is done, under way and left, and how long that takes here."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

from regionnorm.studies.cost import gpu_hours
from regionnorm.studies.plan import Run, Study
from regionnorm.studies.results import Result
from regionnorm.studies.runner import is_locked, last_step
from regionnorm.studies.sections import Table

__all__ = ["status_table"]


def status_table(studies: Sequence[Study], out: Path) -> Table:
    """A row a study, and one for all their runs, each counted once.

    Hours are of one job: what is left of a run, by the time that runs of the same network took
    here, or, where none is done, by its arithmetic against that of runs that are.

    Args:
        studies: Of one scale.
        out: The studies' folder.
    """
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
