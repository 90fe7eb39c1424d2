"""Figures 5, 7, 8 and 9 are drawn from the runs' weights."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from regionnorm.checkpoints.weights import save_weights
from regionnorm.data import open_source
from regionnorm.models import create_model
from regionnorm.studies import Study, conduct, find_photos, get_study, pictures
from regionnorm.studies.photos import StudyData
from regionnorm.studies.pictures import (
    Context,
    MissingWeightsError,
    draw_pictures,
    read_square,
)
from regionnorm.studies.plan import mini_scale
from regionnorm.studies.responses import read_answers, response_table
from regionnorm.studies.results import Result
from regionnorm.studies.runner import Runner

PhotoMaker = Callable[..., Image.Image]


@pytest.fixture
def data(tmp_path: Path, make_photo: PhotoMaker) -> StudyData:
    for folder in ("train", "val", "faces/train", "faces/val"):
        for number in range(2):
            path = tmp_path / "data" / folder / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            make_photo(96, 80, seed=number).save(path)
    return find_photos([tmp_path / "data"], tmp_path)


def untrained(study: Study, runs: Path) -> None:
    """Weights for every run of a study, as training leaves them."""
    for run in study.runs:
        model = create_model(run.recipe.model, **{**run.recipe.options, "width": 4})
        save_weights(model, runs / run.name / "weights.safetensors", half=True)


def draw(
    name: str, data: StudyData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> list[list[Any]]:
    """A figure's pictures in rows of ``(title, pixels)``."""
    study = get_study(name, replace(mini_scale(), size=64))
    untrained(study, tmp_path / "runs")
    drawn = []
    monkeypatch.setattr(pictures, "save_figure", lambda figure, path: drawn.append(figure))
    (figure,) = draw_pictures(Context(study, tmp_path / "runs", data, tmp_path))
    assert figure.file == f"{name}.png"
    axes = [ax for ax in drawn[0].axes if ax.get_label() != "<colorbar>"]
    columns = axes[0].get_subplotspec().get_gridspec().ncols
    cells = [(ax.get_title(), ax.images[0].get_array() if ax.images else None) for ax in axes]
    return [cells[i : i + columns] for i in range(0, len(cells), columns)]


def test_figure_5_shows_input_six_fills_and_the_original(
    data: StudyData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = draw("figure5", data, tmp_path, monkeypatch)
    titles = ["input", "CA", "PC", "GC", "EC", "baseline", "RN", "original"]
    assert [title for title, _ in rows[0]] == titles
    assert len(rows) == 4
    for row in rows:
        shown = {title: pixels for title, (_, pixels) in zip(titles, row, strict=True)}
        hole = (np.asarray(shown["input"]) == 255).all(-1)
        for name in titles[1:-1]:  # known pixels are the photo's, the hole is each network's own
            assert np.array_equal(shown[name][~hole], shown["original"][~hole])
            assert not np.array_equal(shown[name][hole], shown["original"][hole])
    square = (np.asarray(rows[3][0][1]) == 255).all(-1)
    assert square[16:48, 16:48].all()
    assert abs(square.mean() - 0.25) < 0.02


def test_figure_7_shows_each_networks_region(
    data: StudyData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = draw("figure7", data, tmp_path, monkeypatch)
    expected = ["original", "mask", *(f"t = {t}" for t in (0.5, 0.6, 0.7, 0.8, 0.9))]
    assert [title for title, _ in rows[0]] == expected
    for row in rows:
        assert np.asarray(row[1][1]).shape == (64, 64, 3)
        for _, region in row[2:]:
            assert np.asarray(region).shape == (16, 16, 3)
            assert set(np.unique(region)) <= {0, 255}


def test_figure_8_shows_the_papers_layers(
    data: StudyData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = draw("figure8", data, tmp_path, monkeypatch)
    assert [title for title, _ in rows[0]][1:3] == ["R6RN1 response", "R6RN1 mask"]
    assert [title for title, _ in rows[1]][1] == "encoder's result"
    for row in rows:
        for title, pixels in row:
            if title.endswith("response"):
                assert 0 <= pixels.min() <= pixels.max() <= 1
                assert pixels.shape == (32, 32)


def test_figure_9_needs_no_photos_of_the_study(data: StudyData, tmp_path: Path) -> None:
    section = conduct(get_study("figure9"), data, tmp_path)
    assert (tmp_path / "figure9" / section.figures[0].file).stat().st_size > 10_000
    assert "package's weights" in section.facts[0]
    assert "Figure 9" in (tmp_path / "figure9" / "README.md").read_text()


def test_what_responses_know_is_a_row_a_group_and_kept_seed_by_seed(
    data: StudyData, tmp_path: Path
) -> None:
    study = get_study("figure6", mini_scale())
    study = replace(study, groups=tuple(g for g in study.groups if g.label in ("IN", "RN")))
    untrained(study, tmp_path / "runs")
    table = response_table(Context(study, tmp_path / "runs", data, tmp_path))
    assert table is not None
    assert [row[:2] for row in table.rows] == [("RN", "10-20 %"), ("RN", "30-40 %")]
    wide = [answer for answer in read_answers(tmp_path) if answer.hole == "30-40 %"]
    assert [(answer.group, answer.seed) for answer in wide] == [("RN", n) for n in (0, 1, 2)]
    overlaps = [max(layer.overlap for layer in answer.layers) for answer in wide]
    assert all(0.25 < overlap <= 1 for overlap in overlaps)
    assert f"{sum(overlaps) / 3:.2f}" == table.rows[1][4]
    # Runs that came without their weights: what was kept of them.
    shutil.rmtree(tmp_path / "runs")
    assert response_table(Context(study, tmp_path / "runs", data, tmp_path)) == table
    assert response_table(Context(study, tmp_path / "runs", data, tmp_path / "runs")) is None


def test_figure_of_a_result_without_weights_says_what_to_do(
    data: StudyData, tmp_path: Path
) -> None:
    study = get_study("figure8", "small")
    with pytest.raises(FileNotFoundError, match=r"without weights.*delete its result\.json"):
        draw_pictures(Context(study, tmp_path / "runs", data, tmp_path))


@pytest.fixture
def done(
    data: StudyData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], Study]:
    """A small study whose runs have weights and results, untrained."""
    monkeypatch.setattr(Runner, "run_all", lambda runner, runs: None)

    def make(name: str) -> Study:
        study = get_study(name, replace(mini_scale(), size=64))
        untrained(study, tmp_path / "runs")
        for run in study.runs:
            recipe = asdict(run.recipe)
            Result(
                run=run.name,
                seed=run.recipe.seed,
                steps=run.recipe.steps,
                seconds=60.0,
                photos=2,
                fills=2,
                scores={name: {"all": 20.0} for name in ("psnr", "ssim", "l1")},
                curve=((1, 20.0),),
                recipe=recipe,
                data={"size": 64, "masks": ""},
                versions={},
            ).save(tmp_path / "runs" / run.name)
        return study

    return make


def test_what_looks_into_networks_is_kept_where_results_came_without_weights(
    done: Callable[[str], Study], data: StudyData, tmp_path: Path
) -> None:
    study = done("figure7")
    drawn = conduct(study, data, tmp_path)
    picture = tmp_path / "figure7" / drawn.figures[0].file
    pixels = picture.read_bytes()
    for run in study.runs:
        (tmp_path / "runs" / run.name / "weights.safetensors").unlink()
    assert conduct(study, data, tmp_path) == drawn
    assert picture.read_bytes() == pixels
    # Not if other photos are asked for, of other runs, or with its picture gone.
    shutil.copytree(tmp_path / "data" / "val", tmp_path / "shown" / "scenes")
    with pytest.raises(MissingWeightsError):
        conduct(study, data, tmp_path, shown=tmp_path / "shown")
    one = Result.load(tmp_path / "runs" / study.runs[0].name)
    replace(one, seconds=600.0).save(tmp_path / "runs" / one.run)
    with pytest.raises(MissingWeightsError):
        conduct(study, data, tmp_path)
    one.save(tmp_path / "runs" / one.run)
    picture.unlink()
    with pytest.raises(MissingWeightsError):
        conduct(study, data, tmp_path)


def test_the_shift_of_a_seed_whose_weights_are_gone_is_the_one_that_was_kept(
    done: Callable[[str], Study], data: StudyData, tmp_path: Path
) -> None:
    study = done("shift")
    first = conduct(study, data, tmp_path)
    (gone,) = [run for run in study.group("RN").runs if run.recipe.seed == 1]
    (tmp_path / "runs" / gone.name / "weights.safetensors").unlink()
    assert conduct(study, data, tmp_path) == first
    seeds = tmp_path / "shift" / "seeds.json"
    kept = json.loads(seeds.read_text())
    seeds.write_text(json.dumps([row for row in kept if row["seed"] == 0]))
    (tmp_path / "shift" / "section.json").unlink()
    with pytest.raises(MissingWeightsError, match="-seed1"):
        conduct(study, data, tmp_path)
    seeds.write_text("[1]")
    with pytest.raises(ValueError, match=r"seeds\.json is not what a study keeps"):
        conduct(study, data, tmp_path)


def test_networks_without_rn_l_know_nothing(data: StudyData, tmp_path: Path) -> None:
    study = get_study("figure6", mini_scale())
    untrained(study, tmp_path / "runs")
    bare = replace(study, groups=(study.group("IN"),))
    assert response_table(Context(bare, tmp_path / "runs", data, tmp_path)) is None


def test_a_photo_that_cannot_be_read_gives_way_to_the_next(
    tmp_path: Path, make_photo: Callable[..., Image.Image]
) -> None:
    (tmp_path / "a.png").write_bytes(b"no photo")
    make_photo(40, 30).save(tmp_path / "b.png")
    source = open_source(str(tmp_path))
    found = [np.asarray(read_square(source, number, 16)) for number in (0, 1)]
    assert np.array_equal(*found)
