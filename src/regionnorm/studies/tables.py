"""Tables 1 to 6: our means and spreads with the paper's numbers beside them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from regionnorm.masks import INTERVALS
from regionnorm.measuring.report import interval_label
from regionnorm.studies.plan import Group, Study
from regionnorm.studies.published import ALL
from regionnorm.studies.results import Results
from regionnorm.studies.sections import Table

__all__ = ["METRICS", "make_tables"]

METRICS = {"psnr": ("PSNR, dB", 2), "ssim": ("SSIM", 4), "l1": ("l1, %", 2)}
"""Metric to heading and digits."""

_PAPER_DIGITS = {"psnr": 2, "ssim": 3, "l1": 2}


def make_tables(study: Study, results: Results) -> tuple[Table, ...]:
    """The tables of a study; none for most figures."""
    return _MAKERS[study.name](study, results) if study.name in _MAKERS else ()


def _overall(study: Study, results: Results) -> tuple[Table, ...]:
    """A row a group: every metric over all holes, ours and the paper's, and PSNR's differences."""
    metrics = [m for m in METRICS if any(m in group.published for group in study.groups)]
    header = [""]
    for metric in metrics:
        header += [METRICS[metric][0], "paper"]
    header += ["PSNR - reference, dB", "paper"]
    rows = []
    for group in study.groups:
        row = [group.label]
        for metric in metrics:
            row += [results.score(group, metric, ALL).show(METRICS[metric][1])]
            row += [_published(group, metric, ALL)]
        rows.append((*row, *_difference(study, group, results)))
    references = ", ".join(dict.fromkeys(group.reference for group in study.groups))
    caption = f"All holes of 0 to 60 %; reference: {references}"
    return (Table(caption, tuple(header), tuple(rows)),)


def _by_interval(study: Study, results: Results) -> tuple[Table, ...]:
    """A table a metric: a row an interval, two columns a group."""
    return tuple(_metric_by_interval(study, results, metric) for metric in METRICS)


def _metric_by_interval(study: Study, results: Results, metric: str) -> Table:
    heading, digits = METRICS[metric]
    header = ["hole"]
    for group in study.groups:
        header += [group.label, "paper"]
    rows = []
    for interval in _LABELS:
        row = [interval]
        for group in study.groups:
            row.append(results.score(group, metric, interval).show(digits))
            row.append(_published(group, metric, interval))
        rows.append(tuple(row))
    return Table(heading, tuple(header), tuple(rows))


def _l1_change(study: Study, results: Results) -> tuple[Table, ...]:
    """Table 5: l1 of both and the change, in absolute percent and relative to the baseline."""
    ours = _metric_by_interval(study, results, "l1")
    baseline, rn = study.group("baseline"), study.group("RN")
    rows = []
    for row in ours.rows:
        interval = row[0]
        change = results.differences(rn, baseline, "l1", interval).show(2)
        base = results.score(baseline, "l1", interval).mean
        share = 100 * (results.score(rn, "l1", interval).mean / base - 1)
        theirs, their_base = (group.paper("l1", interval) for group in (rn, baseline))
        known = theirs is not None and their_base is not None
        paper = f"{theirs - their_base:.2f}" if known else ""  # type: ignore[operator]
        rows.append((*row, change, paper, f"{share:+.1f} %"))
    header = (*ours.header, "RN - baseline", "paper", "relative")
    return (Table("l1, %", header, tuple(rows)),)


def _published(group: Group, metric: str, interval: str) -> str:
    value = group.paper(metric, interval)
    return "" if value is None else f"{value:.{_PAPER_DIGITS[metric]}f}"


def _difference(study: Study, group: Group, results: Results) -> tuple[str, str]:
    """PSNR minus the reference group's, seed by seed, and the paper's difference."""
    if group.label == group.reference:
        return "", ""
    reference = study.group(group.reference)
    ours = results.differences(group, reference, "psnr", ALL)
    theirs, base = group.paper("psnr", ALL), reference.paper("psnr", ALL)
    paper = "" if theirs is None or base is None else f"{theirs - base:+.2f}"
    text = ours.show(2)
    return (text if text.startswith("-") else f"+{text}"), paper


_LABELS = [interval_label(interval) for interval in (*INTERVALS, None)]
_MAKERS: dict[str, Callable[[Study, Results], tuple[Table, ...]]] = {
    "table1": _by_interval,
    "table2": _overall,
    "table3": _overall,
    "table4": _overall,
    "table5": _l1_change,
    "table6": _overall,
}


def network_table(groups: Sequence[Group], results: Results) -> Table:
    """Each group's network at its width: parameters, and whether its layers live.

    A run with a layer of next to no output but zeros has collapsed, and is no measure of its norm.
    """
    from regionnorm.models import create_model

    rows = []
    for group in groups:
        recipe = group.runs[0].recipe
        model = create_model(recipe.model, **recipe.options)
        count = sum(parameter.numel() for parameter in model.parameters())
        zeros = max(results.get(run.name).most_zeros for run in group.runs)
        share = "" if math.isnan(zeros) else f"{zeros:.0%}"
        rows.append((group.label, recipe.model, f"{count / 1e6:.2f} M", share))
    header = ("", "name", "parameters", "most zeros behind a norm")
    return Table("Networks", header, tuple(rows))
