"""The study of Figure 2 as tables and a figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from regionnorm.measuring.report import interval_label
from regionnorm.studies.figures import COLOURS, new_figure
from regionnorm.studies.sections import Table
from regionnorm.studies.shift.result import PARTS, PHOTO, ShiftCell, ShiftResult, mean_of

__all__ = ["draw_shift", "shift_tables"]


def shift_tables(result: ShiftResult) -> tuple[Table, ...]:
    """The measurements as tables: known pixels by area, and the equations by area."""
    return _known_table(result), _equation_table(result)


def _known_table(result: ShiftResult) -> Table:
    rows = []
    for model in (PHOTO, *result.models):
        for part in PARTS:
            for interval in result.intervals:
                cells = result.of(model, interval, part)
                if cells:
                    names = ("shift", "spread", "full_shift")
                    numbers = [_number(mean_of(cells, name), 2) for name in names]
                    before_relu = [cell for cell in cells if cell.relu]
                    cuts = [mean_of(before_relu, n) for n in ("cut", "cut_without_hole")]
                    where = f"{model}, {part}" if model != PHOTO else "photo, white hole"
                    shares = ["–" if cut is None else f"{cut:.1%}" for cut in cuts]
                    rows.append((where, interval_label(interval), *numbers, *shares))
    header = ("layers", "hole", "shift", "spread", "shift, if IN", "cut by ReLU", "without hole")
    caption = (
        f"Known pixels after normalisation, {result.photos} photos: |mean| (0 = no shift) and "
        "standard deviation (1 = none), the |mean| if the layer normalised over all pixels, and "
        "the share of known activations that a ReLU cuts, with the hole and without (eq. 5-7)"
    )
    return Table(caption, header, tuple(rows))


def _equation_table(result: ShiftResult) -> Table:
    names = (
        "known_mean_error",
        "sampling_mean_error",
        "known_deviation_error",
        "mean_error",
        "variance_error",
        "total_variance_error",
    )
    rows = []
    for model in (PHOTO, *result.models):
        for interval in result.intervals:
            cells = result.of(model, interval)
            errors = [_percent(mean_of(cells, name)) for name in names]
            rows.append((model, interval_label(interval), *errors))
    header = (
        "features of",
        "hole",
        "eq. 1, mean",
        "of which sampling",
        "eq. 1, deviation",
        "eq. 3",
        "eq. 4",
        "eq. 4 with the hole's variance",
    )
    caption = (
        "Eq. 1-4 against the measurement, mean error over layers: means in percent of a standard "
        "deviation, deviations and variances in percent of themselves"
    )
    return Table(caption, header, tuple(rows))


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _percent(value: float | None) -> str:
    if value is None:
        return "–"
    return "< 0.1 %" if value < 0.001 else f"{100 * value:.1f} %"


def draw_shift(result: ShiftResult) -> Any:
    """Four panels: shift by area, shift by layer, eq. 3-4 by layer, and what ReLU cuts.

    Returns:
        A matplotlib figure.

    Raises:
        ImportError: Without the ``study`` extra.
    """
    figure = new_figure((12, 8.4))
    panels = figure.subplots(2, 2).flat
    _draw_by_area(panels[0], result)
    _draw_by_layer(panels[1], result)
    _draw_equations(panels[2], result)
    _draw_cut(panels[3], result)
    return figure


_LINES: Mapping[str, Any] = {"encoder": "-", "middle": (0, (6, 2)), "decoder": (0, (1.2, 1.2))}


def _draw_by_area(ax: Any, result: ShiftResult) -> None:
    photo = result.of(PHOTO)
    ax.plot([100 * c.area for c in photo], [c.shift for c in photo], "k-", lw=1, label="white hole")
    for colour, model in zip(COLOURS, result.models, strict=False):
        for part in PARTS:
            groups = [result.of(model, interval, part) for interval in result.intervals]
            groups = [group for group in groups if group]
            if groups:
                areas = [100 * group[0].area for group in groups]
                shifts = [mean_of(group, "shift") for group in groups]
                label = f"{model}, {part}"
                ax.plot(areas, shifts, color=colour, ls=_LINES[part], marker="o", ms=3, label=label)
    ax.set_xlabel("hole, % of the photo")
    ax.set_ylabel("|mean| of known pixels, standard deviations")
    ax.set_title("Shift of the known pixels by normalisation")
    ax.set_ylim(bottom=-0.02)
    ax.legend(fontsize=8)


def _draw_by_layer(ax: Any, result: ShiftResult) -> None:
    largest = result.intervals[-1]
    for colour, model in zip(COLOURS, result.models, strict=False):
        cells = result.of(model, largest)
        places = [cell.index for cell in cells]
        ax.plot(
            places,
            [c.shift for c in cells],
            color=colour,
            marker="o",
            ms=3,
            label=f"{model}: |mean|",
        )
        label = f"{model}: spread"
        ax.plot(places, [c.spread for c in cells], color=colour, ls=":", lw=1.2, label=label)
    ax.axhline(1, color="0.7", lw=0.8, zorder=0)
    ax.set_ylabel("known pixels, standard deviations")
    ax.set_ylim(bottom=-0.02)
    ax.set_title(f"By layer, holes of {interval_label(largest)}")
    _name_layers(ax, result.of(result.models[0], largest))
    ax.legend(fontsize=8)


def _draw_equations(ax: Any, result: ShiftResult) -> None:
    largest = result.intervals[-1]
    styles = {
        "mean_error": (":", "eq. 3"),
        "variance_error": ("-", "eq. 4"),
        "total_variance_error": ("--", "eq. 4 + hole's variance"),
    }
    for colour, model in zip(COLOURS, result.models, strict=False):
        cells = result.of(model, largest)
        for field, (line, text) in styles.items():
            # Rounding may leave nothing at all, which has no place on a logarithmic axis.
            errors = [100 * max(getattr(cell, field) or 0.0, 1e-8) for cell in cells]
            places = [cell.index for cell in cells]
            ax.plot(places, errors, color=colour, ls=line, lw=1.4, label=f"{model}: {text}")
    ax.set_yscale("log")
    ax.set_ylabel("error, %")
    ax.set_title(f"Eq. 3-4 against the measurement, holes of {interval_label(largest)}")
    _name_layers(ax, result.of(result.models[0], largest))
    ax.legend(fontsize=7, ncols=2)


def _draw_cut(ax: Any, result: ShiftResult) -> None:
    largest = result.intervals[-1]
    for colour, model in zip(COLOURS, result.models, strict=False):
        cells = [cell for cell in result.of(model, largest) if cell.relu and cell.cut is not None]
        places = [cell.index for cell in cells]
        for field, line, text in (("cut", "-", "hole"), ("cut_without_hole", ":", "no hole")):
            shares = [100 * (getattr(cell, field) or 0.0) for cell in cells]
            label = f"{model}, {text}"
            ax.plot(places, shares, color=colour, ls=line, marker="o", ms=3, label=label)
    ax.set_ylabel("known activations cut by ReLU, %")
    ax.set_title(f"Eq. 5-7 at layers with a ReLU, holes of {interval_label(largest)}")
    _name_layers(ax, result.of(result.models[0], largest))
    ax.legend(fontsize=8)


def _name_layers(ax: Any, cells: Sequence[ShiftCell]) -> None:
    """Name the layers below the axis; every second one of long networks."""
    shown = cells[:: 1 if len(cells) < 12 else 2]
    ax.set_xticks(
        [cell.index for cell in shown],
        [cell.layer for cell in shown],
        rotation=60,
        ha="right",
        rotation_mode="anchor",
        fontsize=7,
    )
