"""``regionnorm study`` on the command line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from regionnorm.studies import MissingWeightsError, Section, Study

RunCli = Callable[..., tuple[int, str, str]]


def test_the_list_names_all_studies(run_cli: RunCli) -> None:
    code, out, _ = run_cli("study", "--list")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()] == (
        "shift table1 figure5 table2 table3 figure6 table4 figure7 table5 table6 figure8 figure9 "
        "all status claims report"
    ).split()


def test_a_dry_run_names_runs_and_hours_and_writes_nothing(run_cli: RunCli, tmp_path: Path) -> None:
    out_folder = tmp_path / "out"
    code, out, _ = run_cli(
        "study", "figure7", "--scale", "paper", "--dry-run", "--out", str(out_folder)
    )
    assert code == 0
    assert "scenes-rn-t0.5-seed0" in out
    assert "225,000" in out
    assert "GPU-hours" in out
    assert not out_folder.exists()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("study", "table9"), "choose from shift, table1"),
        (("study", "table2"), "--data is missing"),
        (("study", "table2", "--scale", "big"), "choose from mini, small, paper"),
        (("study", "table2", "--data", "/nowhere/at/all"), "no such folder"),
        (("study", "report", "--out", "/nowhere/at/all"), "run one first"),
        (("study", "table2", "--set", "stepps=3"), "no field 'stepps'"),
    ],
)
def test_mistakes_get_one_line(run_cli: RunCli, arguments: tuple[str, ...], expected: str) -> None:
    code, _, err = run_cli(*arguments)
    assert code == 2
    assert expected in err
    assert len(err.strip().splitlines()) == 1


def test_a_recipe_file_can_be_trained_again(run_cli: RunCli, tmp_path: Path) -> None:
    damaged = tmp_path / "recipe.json"
    damaged.write_text('{"name": "x", "stepps": 3}')
    code, _, err = run_cli(
        "train", str(damaged), "--data", str(tmp_path), "--out", str(tmp_path / "run")
    )
    assert code == 2
    assert "recipe.json: not a recipe: stepps" in err


def test_studies_without_their_photos_are_left_out_of_all(
    run_cli: RunCli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = []

    def conduct(study: Study, *_: object, **__: object) -> Section:
        if study.name == "table2":
            raise MissingWeightsError("its weights are gone")
        done.append(study.name)
        return Section(study.name, "", (), (), ())

    monkeypatch.setattr("regionnorm.studies.conduct", conduct)
    for folder in ("train", "val"):
        (tmp_path / folder).mkdir()
        Image.new("RGB", (64, 64)).save(tmp_path / folder / "a.png")
    code, _, err = run_cli("study", "all", "--data", str(tmp_path), "--out", str(tmp_path / "out"))
    assert code == 0
    assert "table5 is left out: no faces under --data" in " ".join(err.split())
    # As are those whose networks came without weights.
    assert "table2 is left out: its weights are gone" in " ".join(err.split())
    assert "table6" in done and not {"table2", "table5"} & set(done)
    code, _, err = run_cli("study", "table2", "--data", str(tmp_path), "--out", str(tmp_path))
    assert (code, "its weights are gone" in err) == (2, True)


def test_what_would_stop_a_study_at_its_end_is_told_before_it_begins(
    run_cli: RunCli, tmp_path: Path
) -> None:
    for folder in ("train", "val", "masks"):
        (tmp_path / folder).mkdir()
        Image.new("RGB", (64, 64)).save(tmp_path / folder / "a.png")
    mask = Image.new("L", (64, 64))
    mask.paste(255, (0, 0, 64, 8))
    mask.save(tmp_path / "masks" / "a.png")
    given = ("study", "table3", "--data", str(tmp_path), "--out", str(tmp_path / "out"))
    code, _, err = run_cli(*given, "--masks", str(tmp_path / "masks"))
    assert code == 2
    assert "no mask has an area inside 0-10 %, 20-30 %" in " ".join(err.split())
    code, _, err = run_cli("study", "figure8", *given[2:], "--scale", "small", "--show", "typo")
    assert code == 2
    assert "typo" in err
    assert not (tmp_path / "out" / "runs").exists()
