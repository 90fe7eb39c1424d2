"""Runs reach their results, also when they are killed on the way."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
from PIL import Image

from regionnorm.studies import StudyData, find_photos
from regionnorm.studies.plan import make_run
from regionnorm.studies.results import Result
from regionnorm.studies.runner import RunFailedError, Runner

SCRIPT = Path(__file__).with_name("tiny.py")
PhotoMaker = Callable[..., Image.Image]


def load_tiny() -> ModuleType:
    spec = importlib.util.spec_from_file_location("tiny", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


tiny = load_tiny()


@pytest.fixture
def photos(tmp_path: Path, make_photo: PhotoMaker) -> Path:
    for folder in ("train", "val"):
        for number in range(3):
            path = tmp_path / "data" / folder / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            make_photo(64, 64, seed=number).save(path)
    return tmp_path / "data"


def wait_for(condition: Callable[[], bool], seconds: float = 100) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)


def test_a_killed_study_goes_on_and_ends_as_one_that_was_not(tmp_path: Path, photos: Path) -> None:
    data = find_photos([photos], tmp_path)
    scale = tiny.tiny_scale()
    run = make_run(scale, "rn", 0)
    other = make_run(scale, "baseline-bn", 0)

    killed = tmp_path / "killed"
    folder = killed / "runs" / run.name
    study = subprocess.Popen([sys.executable, str(SCRIPT), str(photos), str(killed)])
    # The first step that is logged is also saved.
    wait_for(lambda: (folder / "checkpoint.pt").exists())
    study.kill()
    study.wait()
    assert not (folder / "result.json").exists()

    said: list[tuple[str, str]] = []
    whole = Runner(tmp_path / "whole", scale, data, jobs=2)
    whole.run_all([run, other])
    resumed = Runner(killed, scale, data, status=lambda run, doing, *_: said.append((run, doing)))
    assert not resumed.is_done(run)
    resumed.run_all([run])

    names = ("weights.safetensors", "report.json")
    for name in names:
        assert (folder / name).read_bytes() == (whole.folder / run.name / name).read_bytes()
    ours, theirs = Result.load(folder), Result.load(whole.folder / run.name)
    assert replace(ours, seconds=0) == replace(theirs, seconds=0)
    assert ours.photos == 2
    assert ours.fills == 12
    assert [step for step, _ in ours.curve] == [tiny.STEPS // 2, tiny.STEPS]
    assert ours.recipe["options"]["width"] == 4
    assert {"python", "torch", "regionnorm"} <= set(ours.versions)
    assert (run.name, "training") in said
    assert said[-1] == (run.name, "done")

    # What is done is not done again, and never mistaken for something else.
    said.clear()
    resumed.run_all([run])
    assert said == [(run.name, "done")]
    longer = replace(run, recipe=replace(run.recipe, steps=999))
    with pytest.raises(ValueError, match="steps 16, not 999"):
        resumed.is_done(longer)
    with pytest.raises(ValueError, match="size 48, not 64"):
        Runner(killed, replace(scale, size=64), data).run_all([run])


def test_a_run_that_fails_says_why_and_stops_the_others(tmp_path: Path, photos: Path) -> None:
    data = find_photos([photos], tmp_path)
    scale = tiny.tiny_scale()
    bad = make_run(scale, "rn", 0)
    bad = replace(bad, recipe=replace(bad.recipe, init=str(tmp_path / "none.safetensors")))
    runner = Runner(tmp_path / "out", scale, data)
    with pytest.raises(
        RunFailedError, match=r"training failed: Error: .*none\.safetensors"
    ) as found:
        runner.run_all([bad, make_run(scale, "rn", 1)])
    assert "train.log" in str(found.value)
    assert not (runner.folder / make_run(scale, "rn", 1).name).exists()


def test_missing_photos_are_noticed_before_anything_runs(tmp_path: Path, photos: Path) -> None:
    data = find_photos([photos], tmp_path)
    runner = Runner(tmp_path / "out", tiny.tiny_scale(), data)
    with pytest.raises(ValueError, match="no faces"):
        runner.run_all([make_run(runner.scale, "rn", 0), make_run(runner.scale, "rn", 0, "faces")])
    assert not runner.folder.exists()


def test_a_run_of_another_living_study_is_left_alone(tmp_path: Path, photos: Path) -> None:
    data = StudyData(find_photos([photos], tmp_path).scenes, None)
    scale = tiny.tiny_scale()
    run = make_run(scale, "rn", 0)
    runner = Runner(tmp_path / "out", scale, data)
    # Two sleeping processes stand for the other study and its run: their command lines say so.
    sleep = [sys.executable, "-c", "import time; time.sleep(60)", "regionnorm"]
    others = [subprocess.Popen(sleep) for _ in range(2)]
    try:
        folder = runner.folder / run.name
        folder.mkdir(parents=True)
        owner = {"pid": others[0].pid, "study": others[1].pid}
        (folder / "process.json").write_text(json.dumps(owner))
        with pytest.raises(OSError, match=f"kill {others[1].pid}"):
            runner.run_all([run])
        assert others[0].poll() is None
    finally:
        for other in others:
            other.kill()
            other.wait()
