"""The table: means, bootstrap intervals, text and JSON."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from regionnorm.measuring.metrics import METRICS
from regionnorm.measuring.report import (
    Case,
    Estimate,
    Report,
    Row,
    bootstrap_means,
    interval_label,
    make_report,
)

SMALL, LARGE = (0.0, 0.1), (0.5, 0.6)


@pytest.fixture
def report(rng: np.random.Generator) -> Report:
    """Models ``good`` and ``poor`` on 12 photos in two intervals."""
    cases = [Case(f"photo-{i}", k, k[1] - 0.05) for i in range(12) for k in (SMALL, LARGE)]
    base = np.array([30.0 if case.interval == SMALL else 20.0 for case in cases])
    base += rng.normal(0, 2, len(cases))
    values = {
        "poor": {"psnr": base, "ssim": base / 50, "l1": 40 - base},
        "good": {"psnr": base + 1, "ssim": base / 50 + 0.1, "l1": 39 - base},
    }
    return make_report(
        cases,
        values,
        difference_to="poor",
        size=64,
        masks="fixed set, seed 0",
        skipped=["broken.png: cannot be read"],
    )


def row_of(report: Report, model: str, interval: tuple[float, float] | None) -> Row:
    (row,) = (r for r in report.rows if (r.model, r.interval) == (model, interval))
    return row


def test_bootstrap_interval_contains_the_mean(rng: np.random.Generator) -> None:
    values = rng.gamma(2, size=(50, 4))
    for estimate, mean in zip(bootstrap_means(values), values.mean(axis=0), strict=True):
        assert estimate.mean == pytest.approx(mean, abs=1e-6)
        assert estimate.low < estimate.mean < estimate.high


def test_bootstrap_interval_shrinks_with_the_root_of_n(rng: np.random.Generator) -> None:
    widths = []
    for count in (25, 400):
        (estimate,) = bootstrap_means(rng.normal(size=(count, 1)))
        widths.append(estimate.high - estimate.low)
    assert widths[0] / widths[1] == pytest.approx(4, rel=0.4)


def test_bootstrap_interval_has_the_width_of_the_normal_approximation(
    rng: np.random.Generator,
) -> None:
    values = rng.normal(size=(500, 1))
    (estimate,) = bootstrap_means(values)
    expected = 2 * 1.96 * values.std() / np.sqrt(500)
    assert estimate.high - estimate.low == pytest.approx(expected, rel=0.1)


def test_bootstrap_covers_the_true_mean_about_95_times_in_100(rng: np.random.Generator) -> None:
    columns = rng.normal(size=(60, 400))
    covered = [e.low <= 0 <= e.high for e in bootstrap_means(columns)]
    assert 0.90 < np.mean(covered) < 0.98


def test_repeating_every_photo_does_not_narrow_the_interval(rng: np.random.Generator) -> None:
    values = rng.normal(size=(30, 1))
    photos = np.arange(30)
    once = bootstrap_means(values, photos)
    assert bootstrap_means(values.repeat(6, axis=0), photos.repeat(6)) == once
    (naive,) = bootstrap_means(values.repeat(6, axis=0))
    assert naive.high - naive.low < 0.6 * (once[0].high - once[0].low)


def test_one_observation_is_its_own_interval() -> None:
    assert bootstrap_means(np.array([[7.0]])) == [Estimate(7.0, 7.0, 7.0)]


def test_rows_are_grouped_by_interval_and_end_with_all(report: Report) -> None:
    groups = [(row.interval, row.model, row.n) for row in report.rows]
    assert groups == [
        (SMALL, "poor", 12),
        (SMALL, "good", 12),
        (LARGE, "poor", 12),
        (LARGE, "good", 12),
        (None, "poor", 24),
        (None, "good", 24),
    ]


def test_means_are_plain_averages_of_the_kept_values(report: Report) -> None:
    for row in report.rows:
        for name in METRICS:
            values = [
                value
                for value, case in zip(report.values[row.model][name], report.cases, strict=True)
                if row.interval in (None, case.interval)
            ]
            assert getattr(row, name).mean == pytest.approx(np.mean(values), abs=1e-6)


def test_a_constant_gain_has_a_paired_difference_without_spread(report: Report) -> None:
    # The models' own intervals are decibels wide; pairing removes what the photos contribute.
    row = row_of(report, "good", None)
    assert row.psnr.high - row.psnr.low > 0.5
    assert row.difference is not None
    assert (row.difference.low, row.difference.mean, row.difference.high) == pytest.approx(
        (1, 1, 1), abs=2e-6
    )
    assert row_of(report, "poor", None).difference is None


def test_json_round_trip_keeps_everything(report: Report) -> None:
    assert Report.from_json(json.loads(json.dumps(report.to_json()))) == report


def test_saved_files_hold_the_table_and_every_value(report: Report, tmp_path: Path) -> None:
    markdown, as_json = report.save(tmp_path / "new" / "folder")
    assert sorted(path.name for path in markdown.parent.iterdir()) == ["report.json", "report.md"]
    assert markdown.read_text(encoding="utf-8") == report.to_markdown()
    assert Report.from_json(json.loads(as_json.read_text(encoding="utf-8"))) == report


def test_something_else_than_a_report_is_refused_in_one_line() -> None:
    uneven = {"photo": ["a"], "interval": [], "area": []}
    for content in ({}, {"rows": [1]}, {"rows": [], "cases": uneven}):
        with pytest.raises(ValueError, match="no evaluation report") as caught:
            Report.from_json(content)
        assert "\n" not in str(caught.value)


def test_markdown_has_one_line_for_each_row_and_marks_the_best(report: Report) -> None:
    lines = report.to_markdown().splitlines()
    table = [line for line in lines if line.startswith("|")]
    assert len(table) == 2 + len(report.rows)
    assert len({line.count("|") for line in table}) == 1
    assert all(line.count("**") == (6 if "| good |" in line else 0) for line in table[2:])
    row = row_of(report, "good", SMALL)
    assert f"{row.psnr.mean:.2f} ({row.psnr.low:.2f}, {row.psnr.high:.2f})" in table[3]
    assert "+1.00 (+1.00, +1.00)" in table[3]


def test_markdown_says_how_it_was_measured_and_what_is_missing(report: Report) -> None:
    text = report.to_markdown()
    assert "12 photos (1 not used) at 64x64 px" in text
    assert "fixed set, seed 0" in text
    assert "- broken.png: cannot be read" in text


def test_a_bar_in_a_model_name_does_not_open_a_column() -> None:
    values = {"a|b": {name: [1.0] for name in METRICS}}
    table = make_report([Case("p", SMALL, 0.05)], values).to_markdown()
    assert r"| a\|b |" in table


def test_terminal_table_fits_100_columns_and_names_each_model(report: Report) -> None:
    console = Console(width=100, file=io.StringIO())
    with console.capture() as captured:
        console.print(report.to_table())
    rows = [line for line in captured.get().splitlines() if " good " in line or " poor " in line]
    assert len(rows) == len(report.rows)
    assert all("±" in line for line in rows)


def test_square_brackets_in_names_are_printed_as_they_are() -> None:
    values = {name: {metric: [1.0] for metric in METRICS} for name in ("[bold]", "b")}
    report = make_report(
        [Case("p", SMALL, 0.05)], values, difference_to="[bold]", masks="files in [red]masks"
    )
    console = Console(width=120, file=io.StringIO())
    with console.capture() as captured:
        console.print(report.to_table())
    assert "files in [red]masks" in captured.get()
    assert "PSNR - [bold], dB" in captured.get()


@pytest.mark.parametrize(
    ("interval", "label"), [((0.0, 0.1), "0-10 %"), ((0.2, 0.3), "20-30 %"), (None, "all")]
)
def test_intervals_are_labelled_in_percent(
    interval: tuple[float, float] | None, label: str
) -> None:
    assert interval_label(interval) == label
