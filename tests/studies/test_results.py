"""Tables and pages hold the runs' numbers and the paper's, and nothing else."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from regionnorm.masks import INTERVALS
from regionnorm.measuring.report import interval_label
from regionnorm.studies import Section, figures, get_study, write_report
from regionnorm.studies.figures import plot
from regionnorm.studies.plan import Study
from regionnorm.studies.published import ALL
from regionnorm.studies.results import Result, Results, spread
from regionnorm.studies.sections import Figure, Table
from regionnorm.studies.tables import make_tables

LABELS = [interval_label(interval) for interval in (*INTERVALS, None)]
TABLES = ("table1", "table2", "table3", "table4", "table5", "table6")


def fake_results(
    study: Study, folder: Path, found: dict[str, tuple[tuple[int, float], ...]] | None = None
) -> Results:
    """A PSNR of 20 + the group's position + a tenth of the seed, minus the interval's position."""
    for position, group in enumerate(study.groups):
        for run in group.runs:
            seed = run.recipe.seed
            psnr = {label: 20 + position + seed / 10 - i for i, label in enumerate(LABELS)}
            scores = {
                "psnr": psnr,
                "ssim": dict.fromkeys(LABELS, 0.8 + position / 100),
                "l1": dict.fromkeys(LABELS, 3.0 - position / 10 - seed / 100),
            }
            Result(
                run=run.name,
                seed=seed,
                steps=run.recipe.steps,
                seconds=60.0,
                photos=4,
                fills=24,
                scores=scores,
                curve=((80, 18.0 + seed), (160, 19.0 + seed)),
                recipe=asdict(run.recipe),
                data={"size": 128, "masks": "fixed"},
                versions={"python": "3"},
                found=found or {},
            ).save(folder / run.name)
    return Results(folder)


def test_spread_is_mean_and_sample_deviation() -> None:
    assert spread([1.0, 3.0]).show(2) == "2.00 ± 1.41"
    assert spread([1.0]).show(1) == "1.0"


def test_a_result_survives_its_file(tmp_path: Path) -> None:
    study = get_study("shift")
    results = fake_results(study, tmp_path)
    name = study.runs[0].name
    assert Result.load(tmp_path / name) == results.get(name)
    (tmp_path / name / "result.json").write_text("{}")
    with pytest.raises(ValueError, match="delete it"):
        Result.load(tmp_path / name)
    with pytest.raises(FileNotFoundError):
        Result.load(tmp_path / "none")


def test_table_2_has_ours_the_papers_and_both_differences(tmp_path: Path) -> None:
    study = get_study("table2")
    (table,) = make_tables(study, fake_results(study, tmp_path))
    rows = {row[0]: row for row in table.rows}
    # Position 1 of the groups, seeds 0 and 1, the last of seven labels.
    assert rows["Arch. 1"][1:3] == ("15.05 ± 0.07", "24.88")
    assert rows["Arch. 1"][-2:] == ("+1.00 ± 0.00", "+0.51")
    assert rows["baseline"][-2:] == ("", "")
    assert rows["Arch. 5 (RN)"][3:5] == ("0.8500 ± 0.0000", "0.823")


def test_table_1_goes_by_interval_and_leaves_gaps_where_the_paper_does(tmp_path: Path) -> None:
    study = get_study("table1")
    psnr, ssim, l1 = make_tables(study, fake_results(study, tmp_path))
    assert [row[0] for row in psnr.rows] == LABELS
    column = psnr.header.index("RN")
    rows = {row[0]: row for row in psnr.rows}
    assert rows["10-20 %"][column + 1] == "28.16"
    assert rows["50-60 %"][column + 1] == ""
    assert rows["10-20 %"][column] == "24.05 ± 0.07"
    assert (ssim.caption, l1.caption) == ("SSIM", "l1, %")


def test_table_5_subtracts_the_baseline(tmp_path: Path) -> None:
    study = get_study("table5")
    (table,) = make_tables(study, fake_results(study, tmp_path))
    rows = {row[0]: row for row in table.rows}
    assert rows["0-10 %"][-3:] == ("-0.10 ± 0.00", "-0.03", "-3.3 %")
    assert rows["50-60 %"][-2] == "-0.31"


@pytest.mark.parametrize("name", [*TABLES, "figure6"])
def test_every_table_has_a_plot_with_the_papers_values_dashed(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = get_study(name)
    drawn = []
    monkeypatch.setattr(figures, "save_figure", lambda figure, path: drawn.append(figure))
    (made,) = plot(study, fake_results(study, tmp_path / "runs"), tmp_path)
    assert made.caption
    dashed = [
        line.get_xydata()
        for axes in drawn[0].axes
        for line in axes.lines
        if line.get_linestyle() == "--"
    ]
    shown = {round(float(value), 2) for line in dashed for value in line.flatten()}
    assert DASHED[name] <= shown
    assert all(axes.get_xlabel() for axes in drawn[0].axes)


# Some of what the paper reports, as the plot shows it: values, or differences to the reference.
DASHED = {
    "table1": {28.16, 21.21, 24.45},
    "table2": {0.51, 0.73, 0.16},
    "table3": {0.10, -0.13, 0.73},
    "table4": {23.85, 25.10, 23.73},
    "table5": {-0.03, -0.31},
    "table6": {2.52, 0.50, 0.02},
    "figure6": {24.47, 24.37, 24.24, 25.10},
}


def test_figure_6_shows_where_rn_l_looks_if_the_runs_tell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study, drawn = get_study("figure6"), []
    monkeypatch.setattr(figures, "save_figure", lambda figure, path: drawn.append(figure))
    found = {"a": ((80, 0.2), (160, 0.9)), "b": ((80, 0.2), (160, 0.1))}
    _, made = plot(study, fake_results(study, tmp_path / "runs", found), tmp_path)
    assert made.file == "figure6-regions.png"
    assert [axes.get_title() for axes in drawn[1].axes] == [group.label for group in study.groups]
    lines = [tuple(line.get_ydata()) for line in drawn[1].axes[0].lines]
    assert lines == [(0.2, 0.9), (0.2, 0.1)] * len(study.groups[0].runs)


def test_a_plot_is_saved_as_png(tmp_path: Path) -> None:
    study = get_study("table2")
    (made,) = plot(study, fake_results(study, tmp_path / "runs"), tmp_path)
    assert (tmp_path / made.file).read_bytes().startswith(b"\x89PNG")


def test_differences_pair_seeds(tmp_path: Path) -> None:
    study = get_study("table3")
    results = fake_results(study, tmp_path)
    found = results.differences(study.group("RN"), study.group("IN"), "psnr", ALL)
    assert found.values == pytest.approx((2.0, 2.0, 2.0))


# --- pages ---------------------------------------------------------------------------------------


@pytest.fixture
def section(tmp_path: Path) -> tuple[Path, Section]:
    folder = tmp_path / "table2"
    folder.mkdir()
    (folder / "a.png").write_bytes(b"\x89PNG")
    table = Table("Caption", ("", "PSNR"), (("a | b <c>", "1.0"),))
    made = Section("table2", "Title & more", ("fact",), (table,), (Figure("a.png", "seen"),))
    made.save(folder)
    return folder, made


def test_a_section_survives_its_file(section: tuple[Path, Section]) -> None:
    folder, made = section
    assert Section.load(folder) == made
    (folder / "section.json").write_text("[]")
    with pytest.raises(ValueError, match="delete it"):
        Section.load(folder)


def test_markdown_keeps_bars_inside_cells_and_takes_notes_in(
    section: tuple[Path, Section],
) -> None:
    folder, made = section
    (folder / "notes.md").write_text("What agreed.\n\nWhat did not.\n")
    text = made.to_markdown(folder, pictures="table2/")
    assert r"a \| b <c>" in text
    assert "![seen](table2/a.png)" in text
    assert "What agreed." in text


def test_the_page_holds_everything_and_escapes_it(
    tmp_path: Path, section: tuple[Path, Section]
) -> None:
    (section[0] / "notes.md").write_text("**Agreed:** 1 < 2")
    html, markdown, count = write_report(tmp_path, ["table1", "table2"])
    page = html.read_text()
    assert count == 1
    assert "data:image/png;base64,iVBORw==" in page
    assert "a | b &lt;c&gt;" in page
    assert "<strong>Agreed:</strong> 1 &lt; 2" in page
    assert "Title &amp; more" in page
    assert "src=" in page
    assert 'src="http' not in page  # nothing from elsewhere
    assert "table2/a.png" in markdown.read_text()


def test_a_report_of_nothing_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="regionnorm study table2"):
        write_report(tmp_path, ["table2"])


def test_section_json_is_plain(section: tuple[Path, Section]) -> None:
    content = json.loads((section[0] / "section.json").read_text())
    assert content["tables"][0]["rows"] == [["a | b <c>", "1.0"]]
