"""Plots of the tables and of Figure 6. Published values are dashed lines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from regionnorm._extras import require
from regionnorm.files.whole import atomic_path
from regionnorm.masks import INTERVALS
from regionnorm.measuring.report import interval_label
from regionnorm.studies.plan import Group, Study
from regionnorm.studies.published import ALL
from regionnorm.studies.results import Results, Spread, spread
from regionnorm.studies.sections import Figure

__all__ = ["COLOURS", "new_figure", "plot", "save_figure"]

# Okabe and Ito's eight colours, which readers with any kind of colour vision tell apart.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_MARKERS = "osD^vP*"
_DPI = 110
_Pixels = tuple[float, float]


def new_figure(inches: tuple[float, float]) -> Any:
    """An empty figure that belongs to no window."""
    return require("matplotlib.figure", extra="study").Figure(figsize=inches, layout="constrained")


def save_figure(figure: Any, path: Path) -> None:
    """Write a figure as PNG, whole or not at all."""
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=_DPI, format="png", facecolor="white")


def plot(study: Study, results: Results, folder: Path) -> tuple[Figure, ...]:
    """Draw a study's plots into its folder; none for studies of pictures."""
    figures = []
    for stem, (draw, caption) in _PLOTS.items():
        if stem.partition("-")[0] != study.name:
            continue
        drawing = draw(study, results)
        if drawing is not None:
            save_figure(drawing, folder / f"{stem}.png")
            figures.append(Figure(f"{stem}.png", caption))
    return tuple(figures)


def _differences(study: Study, results: Results) -> Any:
    """PSNR minus the reference's, a row a group: a dot a seed, the paper's as a dashed line."""
    groups = [group for group in study.groups if group.label != group.reference]
    figure = new_figure((7, 0.9 + 0.42 * len(groups)))
    axes = figure.subplots()
    axes.axvline(0, color="0.7", linewidth=1)
    for row, group in enumerate(reversed(groups)):
        reference = study.group(group.reference)
        ours = results.differences(group, reference, "psnr", ALL)
        axes.plot(ours.values, [row] * len(ours.values), "o", color=COLOURS[0], alpha=0.6)
        axes.plot([ours.mean], [row], "|", color=COLOURS[0], markersize=16, markeredgewidth=2)
        theirs, base = group.paper("psnr", ALL), reference.paper("psnr", ALL)
        if theirs is not None and base is not None:
            axes.plot([theirs - base] * 2, [row - 0.4, row + 0.4], "--", color=COLOURS[1])
    axes.set_yticks(range(len(groups)), [group.label for group in reversed(groups)])
    references = " or ".join(dict.fromkeys(group.reference for group in study.groups))
    axes.set_xlabel(f"PSNR minus that of {references}, dB (all holes)")
    axes.legend(handles=_legend(), loc="best", fontsize=8)
    return figure


def _legend() -> list[Any]:
    line = require("matplotlib.lines", extra="study").Line2D
    return [
        line([], [], color=COLOURS[0], marker="o", linestyle="", alpha=0.6, label="ours, a seed"),
        line([], [], color=COLOURS[0], marker="|", linestyle="", markersize=12, label="mean"),
        line([], [], color=COLOURS[1], linestyle="--", label="paper"),
    ]


def _by_interval(study: Study, results: Results) -> Any:
    """PSNR by hole area, a line a group."""
    figure = new_figure((8, 4.2))
    axes = figure.subplots()
    labels = [interval_label(interval) for interval in INTERVALS]
    for i, group in enumerate(study.groups):
        spreads = [results.score(group, "psnr", label) for label in labels]
        style = {"color": COLOURS[i], "marker": _MARKERS[i]}
        axes.errorbar(
            range(len(labels)),
            [s.mean for s in spreads],
            [s.deviation or 0 for s in spreads],
            label=group.label,
            capsize=3,
            **style,
        )
        published = group.published.get("psnr", {})
        there = [(j, published[label]) for j, label in enumerate(labels) if label in published]
        axes.plot(*zip(*there, strict=True), "--", color=COLOURS[i], linewidth=1)
    axes.set_xticks(range(len(labels)), labels)
    axes.set_xlabel("hole, share of the area")
    axes.set_ylabel("PSNR, dB")
    axes.legend(title="dashed: the paper's, on Places2", fontsize=8, title_fontsize=8)
    return figure


def _l1_change(study: Study, results: Results) -> Any:
    """l1 of RN minus the baseline's by hole area."""
    figure = new_figure((7, 3.6))
    axes = figure.subplots()
    labels = [interval_label(interval) for interval in INTERVALS]
    rn, baseline = study.group("RN"), study.group("baseline")
    ours = [results.differences(rn, baseline, "l1", label) for label in labels]
    paper = [rn.published["l1"][label] - baseline.published["l1"][label] for label in labels]
    x = range(len(labels))
    axes.axhline(0, color="0.7", linewidth=1)
    _beside_the_paper(axes, x, ours, paper, "CelebA")
    axes.set_xticks(x, labels)
    axes.set_xlabel("hole, share of the area")
    axes.set_ylabel("l1 of RN minus baseline's, %")
    axes.legend(fontsize=8)
    return figure


def _thresholds(study: Study, results: Results) -> Any:
    """PSNR by threshold, scenes and faces side by side, each with the paper's dashed."""
    figure = new_figure((9, 3.6))
    for axes, kind in zip(figure.subplots(1, 2), ("Places2", "CelebA"), strict=True):
        groups = [group for group in study.groups if group.label.startswith(kind)]
        t = [float(group.label.rpartition(" ")[2]) for group in groups]
        ours = [results.score(group, "psnr", ALL) for group in groups]
        paper = [group.published["psnr"][ALL] for group in groups]
        _beside_the_paper(axes, t, ours, paper, kind)
        axes.set_title("scenes" if kind == "Places2" else "faces")
        axes.set_xlabel("threshold t")
        axes.set_ylabel("PSNR, dB (all holes)")
        axes.legend(fontsize=8)
    return figure


def _beside_the_paper(
    axes: Any, x: Sequence[float], ours: Sequence[Spread], paper: Sequence[float], photos: str
) -> None:
    """Our means with their deviations, and the paper's values, on ``photos``, dashed."""
    means, deviations = [s.mean for s in ours], [s.deviation or 0 for s in ours]
    axes.errorbar(x, means, deviations, color=COLOURS[0], marker="o", capsize=3, label="ours")
    axes.plot(x, paper, "--", color=COLOURS[1], marker="s", label=f"paper, on {photos}")


def _curves(study: Study, results: Results) -> Any:
    """Validation PSNR against iteration: mean and range over seeds."""
    figure = new_figure((8, 4.2))
    axes = figure.subplots()
    for i, group in enumerate(study.groups):
        steps, means, low, high = _curve(group, results)
        axes.plot(steps, means, color=COLOURS[i], marker=_MARKERS[i], label=group.label)
        axes.fill_between(steps, low, high, color=COLOURS[i], alpha=0.15, linewidth=0)
        paper = group.paper("psnr", ALL)
        if paper is not None:
            axes.axhline(paper, color=COLOURS[i], linestyle="--", linewidth=1)
    axes.set_xlabel("iteration")
    axes.set_ylabel("PSNR of the validation photos, dB")
    axes.legend(title="dashed: the paper's after 225,000", fontsize=8, title_fontsize=8)
    return figure


def _curve(
    group: Group, results: Results
) -> tuple[list[int], list[float], list[float], list[float]]:
    curves = [dict(results.get(run.name).curve) for run in group.runs]
    # Those that all runs came to: some may have ended by the clock.
    steps = sorted(set(curves[0]).intersection(*curves[1:]))
    columns = [[curve[step] for curve in curves] for step in steps]
    return (
        steps,
        [spread(column).mean for column in columns],
        [min(column) for column in columns],
        [max(column) for column in columns],
    )


def _regions(study: Study, results: Results) -> Any:
    """How well each RN-L's region meets the hole while training, a panel a group, a line a layer.

    None where no run tells.
    """
    groups = [g for g in study.groups if results.get(g.runs[0].name).found]
    if not groups:
        return None
    figure = new_figure((4.6 * len(groups), 3.8))
    panels = figure.subplots(1, len(groups), sharey=True, squeeze=False)[0]
    for axes, group in zip(panels, groups, strict=True):
        for run in group.runs:
            found = results.get(run.name).found
            for i, curve in enumerate(found.values()):
                shade = 0.15 + 0.7 * i / max(1, len(found) - 1)
                axes.plot(*zip(*curve, strict=True), color=str(1 - shade), linewidth=1)
        axes.set_ylim(0, 1)
        axes.set_title(group.label, fontsize=10)
        axes.set_xlabel("iteration")
    panels[0].set_ylabel("overlap of region and hole (IoU)")
    return figure


_AGAINST = "PSNR differences to the reference: a dot a seed, the paper's value dashed."
_FOUND = (
    "Where RN-L looks: overlap of its region and the hole while training, a line a layer and seed, "
    "deeper layers darker. 1 is the hole itself; a region of everything has the hole's share of "
    "the area."
)
# By the file's stem: a study's name, and what else it shows.
_PLOTS: dict[str, tuple[Callable[[Study, Results], Any], str]] = {
    "table1": (_by_interval, "PSNR by hole area, with the standard deviation over seeds."),
    "table2": (_differences, _AGAINST),
    "table3": (_differences, _AGAINST),
    "table4": (_thresholds, "PSNR by threshold, with the standard deviation over seeds."),
    "table5": (_l1_change, "l1 of RN minus the baseline's, with the deviation over seeds."),
    "table6": (_differences, _AGAINST),
    "figure6": (_curves, "PSNR while training; the band is the range over seeds."),
    "figure6-regions": (_regions, _FOUND),
}
