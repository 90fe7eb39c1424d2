"""What an evaluation found: a table by masked area with bootstrap intervals, as text and JSON."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from regionnorm.files.remote import Place, as_place
from regionnorm.files.whole import atomic_path
from regionnorm.measuring.metrics import METRICS

if TYPE_CHECKING:
    from rich.table import Table

    from regionnorm.masks.generated import Interval

_RESAMPLES, _BLOCK = 1000, 100
_CONFIDENCE = 0.95
_DECIMALS = 6  # of every number that is kept, so that a report read back from JSON is the same
_HEADINGS = {
    "psnr": "PSNR, dB",
    "ssim": "SSIM",
    "l1": "l1, %",
    "feature_distance": "feature distance (not LPIPS)",
    "texture_distance": "texture distance",
    "lpips": "LPIPS",
}
_DIGITS = {"psnr": 2, "ssim": 4, "l1": 2}  # 4 for others
_HIGH_IS_BETTER = ("psnr", "ssim")

_Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A mean and its bootstrap 95 % interval."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Row:
    """One model in one interval of masked area.

    Attributes:
        model: Its name.
        interval: Share of hole pixels, low exclusive, high inclusive; None for all together.
        n: Number of filled photos behind the means.
        psnr: In dB.
        ssim: At most 1.
        l1: In percent.
        difference: PSNR minus the reference's on the same photos and masks, in dB; None for the
            reference itself and when there is none.
        extra: Further measures by name, low = better.
        fid: Frechet inception distance of the whole group; None if it was not asked for, or the
            group is of a single photo.
    """

    model: str
    interval: Interval | None
    n: int
    psnr: Estimate
    ssim: Estimate
    l1: Estimate
    difference: Estimate | None = None
    extra: Mapping[str, Estimate] = field(default_factory=dict)
    fid: float | None = None

    def get(self, metric: str) -> Estimate:
        """The estimate of a metric by its name."""
        found: Estimate = self.extra[metric] if metric in self.extra else getattr(self, metric)
        return found


@dataclass(frozen=True)
class Case:
    """One photo under one mask; every model has filled the same cases.

    Attributes:
        photo: Name of the photo.
        interval: The interval that the mask was drawn for.
        area: The mask's share of hole pixels.
    """

    photo: str
    interval: Interval
    area: float


@dataclass(frozen=True)
class Report:
    """Result of :func:`regionnorm.measuring.evaluate.evaluate`.

    Attributes:
        rows: Interval by interval, then all together; inside each, the models as given.
        cases: What was filled.
        values: Model to metric (``"psnr"``, ``"ssim"``, ``"l1"`` and further ones) to one value
            per case.
        preset: Name of the metric preset, or the definition itself where it has none.
        size: Side of the photos in pixels; None when each kept its own.
        masks: Where the masks came from, in words.
        difference_to: Model that ``Row.difference`` is relative to.
        skipped: Photos that could not be used, each with the reason.
    """

    rows: tuple[Row, ...]
    cases: tuple[Case, ...]
    values: Mapping[str, Mapping[str, tuple[float, ...]]]
    preset: str = "default"
    size: int | None = None
    masks: str = ""
    difference_to: str | None = None
    skipped: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the whole report as plain lists, dicts, strings and numbers."""
        content = dataclasses.asdict(self)
        columns = (field.name for field in dataclasses.fields(Case))
        # By column: a row each would repeat three keys a thousand times.
        content["cases"] = {name: [getattr(case, name) for case in self.cases] for name in columns}
        return content

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Report:
        """Rebuild a report from :meth:`to_json`'s dict, also after a trip through a file.

        Raises:
            ValueError: Something that a report holds is missing or has another form.
        """
        try:
            rows = tuple(_row_from_json(row) for row in content["rows"])
            columns = content["cases"]
            cases = tuple(
                Case(photo, (interval[0], interval[1]), area)
                for photo, interval, area in zip(
                    columns["photo"], columns["interval"], columns["area"], strict=True
                )
            )
            values = {
                model: {name: tuple(column) for name, column in metrics.items()}
                for model, metrics in content["values"].items()
            }
            rest = {key: content[key] for key in ("preset", "size", "masks", "difference_to")}
            return cls(rows, cases, values, **rest, skipped=tuple(content["skipped"]))
        except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
            raise ValueError(
                f"this is no evaluation report ({error!r}); give the content of a report.json"
            ) from error

    def to_markdown(self) -> str:
        """Return the table with a line on how it was measured; the best of a group is bold."""
        headings, groups = _cells(self, _mean_and_bounds)
        lines = ["# Evaluation", "", _summary(self), ""]
        lines += [_markdown_row(headings), "|" + " --- |" * 2 + " ---: |" * (len(headings) - 2)]
        for group in groups:
            lines += [_markdown_row([f"**{c}**" if best else c for c, best in r]) for r in group]
        if self.skipped:
            lines += ["", "Not used:", "", *(f"- {line}" for line in self.skipped)]
        return "\n".join(lines) + "\n"

    def to_table(self) -> Table:
        """Return the table for the terminal; ``±`` is half the width of the interval."""
        from rich import box
        from rich.table import Table
        from rich.text import Text

        headings, groups = _cells(self, _mean_and_half_width)
        # Text, because rich would read square brackets in a path or name as markup.
        caption = Text(_summary(self))
        table = Table(box=box.SIMPLE_HEAD, caption=caption, caption_justify="left")
        for i, heading in enumerate(headings):
            table.add_column(Text(heading), justify="left" if i < 2 else "right", no_wrap=i != 1)
        for group in groups:
            for row in group:
                table.add_row(*(Text(cell, style="bold" if best else "") for cell, best in row))
            table.add_section()
        return table

    def save(self, folder: str | os.PathLike[str]) -> tuple[Place, Place]:
        """Write ``report.md`` and ``report.json``; each appears whole or not at all.

        Args:
            folder: Where to; made when missing.

        Returns:
            The two paths.

        Raises:
            OSError: The place cannot be written to.
        """
        markdown, as_json = (as_place(folder) / name for name in ("report.md", "report.json"))
        # One line for each part, so that the file can be looked through.
        parts = (f"{json.dumps(key)}: {json.dumps(part)}" for key, part in self.to_json().items())
        for path, text in (
            (as_json, "{\n" + ",\n".join(parts) + "\n}\n"),
            (markdown, self.to_markdown()),
        ):
            with atomic_path(path) as temporary:
                temporary.write_text(text, encoding="utf-8")
        return markdown, as_json


def make_report(
    cases: Sequence[Case],
    values: Mapping[str, Mapping[str, Sequence[float]]],
    *,
    difference_to: str | None = None,
    seed: int = 0,
    preset: str = "default",
    size: int | None = None,
    masks: str = "",
    skipped: Sequence[str] = (),
    fid: Mapping[tuple[str, Interval | None], float] | None = None,
) -> Report:
    """Average values per model and interval, with bootstrap 95 % intervals over photos.

    Photos are drawn with replacement, and all cases of a photo come along, because they are not
    independent of each other. All models share the draws.

    Args:
        cases: What was filled, at least one.
        values: Model to metric to one value per case.
        difference_to: Model whose PSNR the others are compared with, case by case.
        seed: Seeds the draws.
        preset: Kept in the report.
        size: Kept in the report.
        masks: Kept in the report.
        skipped: Kept in the report.
        fid: Frechet distances by model and interval, None for all together.
    """
    rounded = {
        model: {name: tuple(round(float(v), _DECIMALS) for v in metrics[name]) for name in metrics}
        for model, metrics in values.items()
    }
    kept = [dataclasses.replace(c, area=round(c.area, _DECIMALS)) for c in cases]
    columns = _columns(rounded, difference_to)
    table = np.array(list(columns.values()), dtype=np.float64).T
    photos = np.unique([case.photo for case in kept], return_inverse=True)[1]

    groups: list[Interval | None] = [*sorted({case.interval for case in kept}), None]
    rows: list[Row] = []
    for interval in groups:
        chosen = np.array([interval is None or c.interval == interval for c in kept])
        estimates = bootstrap_means(table[chosen], photos[chosen], seed=seed)
        by_column = dict(zip(columns, estimates, strict=True))
        for model in rounded:
            metrics = {name: by_column[model, name] for name in METRICS}
            further = {k: by_column[model, k] for k in rounded[model] if k not in METRICS}
            rows.append(
                Row(
                    model,
                    interval,
                    int(chosen.sum()),
                    **metrics,
                    difference=by_column.get((model, "difference")),
                    extra=further,
                    fid=None if fid is None else _finite(fid[model, interval]),
                )
            )
    return Report(
        rows=tuple(rows),
        cases=tuple(kept),
        values=rounded,
        preset=preset,
        size=size,
        masks=masks,
        difference_to=difference_to,
        skipped=tuple(skipped),
    )


def bootstrap_means(
    values: _Array, groups: npt.NDArray[np.integer[Any]] | None = None, *, seed: int = 0
) -> list[Estimate]:
    """Mean of each column with its percentile bootstrap 95 % interval, 1000 resamples.

    Args:
        values: ``[N, M]``, one row per observation.
        groups: ``[N]`` integers; rows of one group are drawn together. None: each for itself.
        seed: Seeds the draws.

    Returns:
        M estimates.
    """
    groups = np.arange(len(values)) if groups is None else np.unique(groups, return_inverse=True)[1]
    count = int(groups.max()) + 1
    # Last column: size of the group, so that a resample's mean is total over size.
    sums = np.zeros((count, values.shape[1] + 1))
    np.add.at(sums, groups, np.column_stack([values, np.ones(len(values))]))

    rng = np.random.default_rng(seed)
    # How often each group is drawn stands in for the draws; in blocks, to bound the memory.
    even = np.full(count, 1 / count)
    totals = np.concatenate(
        [rng.multinomial(count, even, _BLOCK) @ sums for _ in range(_RESAMPLES // _BLOCK)]
    )
    means = totals[:, :-1] / totals[:, -1:]

    tail = 50 * (1 - _CONFIDENCE)
    low, high = np.percentile(means, [tail, 100 - tail], axis=0)
    stacked = np.stack([values.mean(axis=0), low, high], axis=1).round(_DECIMALS)
    return [Estimate(*row) for row in stacked.tolist()]


def interval_label(interval: Interval | None) -> str:
    """Return ``"10-20 %"`` for (0.1, 0.2), ``"all"`` for None."""
    if interval is None:
        return "all"
    return f"{100 * interval[0]:g}-{100 * interval[1]:g} %"


def _columns(
    values: Mapping[str, Mapping[str, Sequence[float]]], difference_to: str | None
) -> dict[tuple[str, str], _Array]:
    columns = {
        (model, name): np.asarray(metrics[name], dtype=np.float64)
        for model, metrics in values.items()
        for name in metrics
    }
    if difference_to is not None:
        for model in values:
            if model != difference_to:
                columns[model, "difference"] = (
                    columns[model, "psnr"] - columns[difference_to, "psnr"]
                )
    return columns


def _row_from_json(row: Mapping[str, Any]) -> Row:
    interval, difference = row["interval"], row["difference"]
    return Row(
        row["model"],
        None if interval is None else (interval[0], interval[1]),
        row["n"],
        **{name: Estimate(**row[name]) for name in METRICS},
        difference=None if difference is None else Estimate(**difference),
        extra={name: Estimate(**estimate) for name, estimate in row["extra"].items()},
        fid=row["fid"],
    )


def _summary(report: Report) -> str:
    photos = len({case.photo for case in report.cases})
    size = "their own size" if report.size is None else f"{report.size}x{report.size} px"
    skipped = f" ({len(report.skipped)} not used)" if report.skipped else ""
    return (
        f"{photos} photos{skipped} at {size}; masks: {report.masks}; metrics: {report.preset}; "
        f"means with bootstrap {100 * _CONFIDENCE:g} % intervals over photos."
    )


def _mean_and_bounds(estimate: Estimate, digits: int, sign: str) -> str:
    low, high = (f"{value:{sign}.{digits}f}" for value in (estimate.low, estimate.high))
    return f"{estimate.mean:{sign}.{digits}f} ({low}, {high})"


def _mean_and_half_width(estimate: Estimate, digits: int, sign: str) -> str:
    half = (estimate.high - estimate.low) / 2
    return f"{estimate.mean:{sign}.{digits}f} ±{half:.{digits}f}"


_Cell = tuple[str, bool]


def _cells(
    report: Report, show: Callable[[Estimate, int, str], str]
) -> tuple[list[str], list[list[list[_Cell]]]]:
    """Return the headings, and per interval the rows of (text, is it the best) cells."""
    first = report.rows[0]
    headings = ["hole", "model", "n"]
    headings += [_HEADINGS.get(name, name) for name in (*METRICS, *first.extra)]
    if _has_fid(report):
        headings.append("FID")
    if report.difference_to is not None:
        headings.append(f"PSNR - {report.difference_to}, dB")
    groups: list[list[list[_Cell]]] = []
    for interval in dict.fromkeys(row.interval for row in report.rows):
        rows = [row for row in report.rows if row.interval == interval]
        groups.append([_row_cells(row, rows, report, show) for row in rows])
    return headings, groups


def _has_fid(report: Report) -> bool:
    return any(row.fid is not None for row in report.rows)


def _finite(distance: float) -> float | None:
    """What JSON can hold: a single photo has no distance."""
    return round(distance, _DECIMALS) if math.isfinite(distance) else None


def _row_cells(
    row: Row, group: Sequence[Row], report: Report, show: Callable[[Estimate, int, str], str]
) -> list[_Cell]:
    cells = [(interval_label(row.interval), False), (row.model, False), (str(row.n), False)]
    for name in (*METRICS, *row.extra):
        means = [other.get(name).mean for other in group]
        best = max(means) if name in _HIGH_IS_BETTER else min(means)
        text = show(row.get(name), _DIGITS.get(name, 4), "")
        cells.append((text, len(group) > 1 and row.get(name).mean == best))
    if _has_fid(report):
        lowest = min((other.fid for other in group if other.fid is not None), default=None)
        text = "-" if row.fid is None else f"{row.fid:.2f}"
        cells.append((text, len(group) > 1 and row.fid == lowest is not None))
    if report.difference_to is not None:
        text = "" if row.difference is None else show(row.difference, 2, "+")
        cells.append((text, False))
    return cells


def _markdown_row(cells: Sequence[str]) -> str:
    # A vertical bar in a model's name would open a new column.
    return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"
