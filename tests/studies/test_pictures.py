"""Figures 5, 7, 8 and 9 are drawn from the runs' weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from regionnorm.checkpoints import save_weights
from regionnorm.models import create_model
from regionnorm.studies import Study, conduct, find_photos, get_study
from regionnorm.studies.photos import StudyData
from regionnorm.studies.pictures import Context, draw_pictures
from regionnorm.studies.plan import mini_scale

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


def draw(name: str, data: StudyData, tmp_path: Path) -> np.ndarray:
    study = get_study(name, replace(mini_scale(), size=64))
    untrained(study, tmp_path / "runs")
    (figure,) = draw_pictures(Context(study, tmp_path / "runs", data, tmp_path))
    assert figure.file == f"{name}.png"
    with Image.open(tmp_path / figure.file) as picture:
        return np.asarray(picture.convert("RGB"))


def test_figure_5_has_four_rows_of_eight(data: StudyData, tmp_path: Path) -> None:
    picture = draw("figure5", data, tmp_path)
    height, width = picture.shape[:2]
    assert width / height == pytest.approx(12.7 / 6.8, rel=0.02)


def test_figure_7_shows_a_region_for_each_threshold(data: StudyData, tmp_path: Path) -> None:
    picture = draw("figure7", data, tmp_path)
    assert picture.std() > 10


def test_figure_8_is_drawn_from_the_packages_weights(data: StudyData, tmp_path: Path) -> None:
    picture = draw("figure8", data, tmp_path)
    assert picture.std() > 10


def test_figure_9_needs_no_photos_of_the_study(data: StudyData, tmp_path: Path) -> None:
    section = conduct(get_study("figure9"), data, tmp_path)
    assert (tmp_path / "figure9" / section.figures[0].file).stat().st_size > 10_000
    assert "package's weights" in section.facts[0]
    assert "Figure 9" in (tmp_path / "figure9" / "README.md").read_text()
