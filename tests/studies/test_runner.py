"""Runs reach their results, also when they are killed on the way.

One study is a real one; where a test is about processes alone, ``stub.py`` trains and measures.
"""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import torch
from PIL import Image

from regionnorm.studies import StudyData, find_photos, runner
from regionnorm.studies.plan import make_run
from regionnorm.studies.results import Result
from regionnorm.studies.runner import RunFailedError, Runner
from regionnorm.training.recipe import recipe_from_json

FOLDER = Path(__file__).parent
SCRIPT, STUB = FOLDER / "tiny.py", FOLDER / "stub.py"
PhotoMaker = Callable[..., Image.Image]


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


tiny, stub = load(SCRIPT), load(STUB)


@pytest.fixture
def stubbed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stub trains and measures for the runners of this process."""
    monkeypatch.setattr(runner, "PROGRAM", (sys.executable, str(STUB)))


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


def steps_of(folder: Path) -> int:
    state = torch.load(folder / "checkpoint.pt", map_location="cpu", weights_only=True)
    return int(state["step"])


def children(process: int) -> list[int]:
    lists = Path(f"/proc/{process}/task").glob("*/children")  # of each thread
    return [int(number) for path in lists for number in path.read_text().split()]


def start(photos: Path, out: Path, folder: Path, *program: Path) -> subprocess.Popen[bytes]:
    """Start a study in a process of its own and wait for its first checkpoint."""
    study = subprocess.Popen([sys.executable, SCRIPT, photos, out, *program])
    wait_for(lambda: (folder / "checkpoint.pt").exists())
    return study


def start_stub(photos: Path, out: Path, folder: Path) -> tuple[subprocess.Popen[bytes], int]:
    """A study that trains with the stub and is held at the first step, and the stub's number."""
    folder.mkdir(parents=True)
    (folder / "hold").touch()
    study = start(photos, out, folder, STUB)
    (child,) = children(study.pid)
    return study, child


def test_a_killed_study_goes_on_and_ends_as_one_that_was_not(tmp_path: Path, photos: Path) -> None:
    data = find_photos([photos], tmp_path)
    scale = tiny.tiny_scale()
    run = make_run(scale, "rn", 0)
    killed = tmp_path / "killed"
    folder = killed / "runs" / run.name
    study = start(photos, killed, folder)
    for process in (*children(study.pid), study.pid):
        os.kill(process, signal.SIGKILL)
    study.wait()
    assert 0 < steps_of(folder) < tiny.STEPS
    assert not (folder / "result.json").exists()

    said: list[tuple[str, str]] = []
    whole = Runner(tmp_path / "whole", scale, data)
    whole.run_all([run])
    resumed = Runner(killed, scale, data, status=lambda run, doing, *_: said.append((run, doing)))
    assert not resumed.is_done(run)
    resumed.run_all([run])

    for name in ("weights.safetensors", "report.json"):
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
    with pytest.raises(ValueError, match=f"steps {tiny.STEPS}, not 999"):
        resumed.is_done(longer)


@pytest.mark.usefixtures("stubbed")
def test_what_is_to_be_measured_otherwise_is_measured_again_not_trained_again(
    tmp_path: Path, photos: Path
) -> None:
    data, scale = find_photos([photos], tmp_path), tiny.tiny_scale()
    run = make_run(scale, "rn", 0)
    folder = tmp_path / "runs" / run.name
    Runner(tmp_path, scale, data).run_all([run])
    assert Result.load(folder).photos == 2
    trained = {name: (folder / name).read_bytes() for name in ("weights.safetensors", "log.csv")}
    other = Runner(tmp_path, replace(scale, limit=1), data)
    assert not other.is_done(run)
    other.run_all([run])
    assert Result.load(folder).photos == 1
    assert trained == {name: (folder / name).read_bytes() for name in trained}


@pytest.mark.usefixtures("stubbed")
def test_what_a_killed_study_left_at_work_is_waited_for(tmp_path: Path, photos: Path) -> None:
    data, scale = find_photos([photos], tmp_path), tiny.tiny_scale()
    run = make_run(scale, "rn", 0)
    folder = tmp_path / "out" / "runs" / run.name
    study, left = start_stub(photos, tmp_path / "out", folder)
    study.kill()
    study.wait()
    os.kill(left, 0)  # it works on, and holds the run's lock

    said: list[str] = []

    def status(run: str, doing: str, *_: int) -> None:
        said.append(doing)
        if len(said) == 3:
            (folder / "hold").unlink()

    Runner(tmp_path / "out", scale, data, status=status).run_all([run])
    assert said[:3] == ["waiting"] * 3
    assert said[-1] == "done"
    assert Result.load(folder).steps == stub.steps_of(folder) == tiny.STEPS
    # Two that train at once would log each step twice.
    steps = [line.split(",")[0] for line in (folder / "log.csv").read_text().splitlines()[1:]]
    assert steps == [str(step) for step in range(1, tiny.STEPS + 1)]


def test_sigterm_saves_and_leaves_nothing_running(tmp_path: Path, photos: Path) -> None:
    folder = tmp_path / "out" / "runs" / make_run(tiny.tiny_scale(), "rn", 0).name
    study, child = start_stub(photos, tmp_path / "out", folder)
    study.send_signal(signal.SIGTERM)
    assert study.wait(timeout=60) != 0
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)
    assert stub.read(folder) == {"step": 1, "on_signal": True}


@pytest.mark.usefixtures("stubbed")
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


def test_recipes_can_be_written_without_training(tmp_path: Path, photos: Path) -> None:
    data = StudyData(find_photos([photos], tmp_path).scenes, None)
    run = make_run(tiny.tiny_scale(), "rn", 0)
    runner = Runner(tmp_path / "out", tiny.tiny_scale(), data)
    runner.prepare([run])
    written = (runner.folder / run.name / "recipe.json").read_text()
    assert recipe_from_json(written) == run.recipe
    assert not runner.is_done(run)


def keep_results_alone(folder: Path) -> None:
    for path in folder.iterdir():
        if path.name not in ("plan.json", "recipe.json", "result.json"):
            path.unlink()


@pytest.mark.usefixtures("stubbed")
def test_kept_results_are_done_wherever_the_photos_lie(tmp_path: Path, photos: Path) -> None:
    scale = tiny.tiny_scale()
    run = make_run(scale, "rn", 0)
    Runner(tmp_path / "out", scale, find_photos([photos], tmp_path)).run_all([run])
    keep_results_alone(tmp_path / "out" / "runs" / run.name)
    moved = photos.rename(tmp_path / "elsewhere")
    assert Runner(tmp_path / "out", scale, find_photos([moved], tmp_path)).is_done(run)


@pytest.mark.usefixtures("stubbed")
def test_a_result_alone_is_not_thrown_away(tmp_path: Path, photos: Path) -> None:
    data, scale = find_photos([photos], tmp_path), tiny.tiny_scale()
    run = make_run(scale, "rn", 0)
    Runner(tmp_path, scale, data).run_all([run])
    folder = tmp_path / "runs" / run.name
    keep_results_alone(folder)
    before = (folder / "result.json").read_bytes()
    with pytest.raises(ValueError, match="a result without weights, measured on .*'limit': 2"):
        Runner(tmp_path, replace(scale, limit=1), data).run_all([run])
    assert (folder / "result.json").read_bytes() == before
    assert not (folder / "checkpoint.pt").exists()


@pytest.mark.usefixtures("stubbed")
def test_an_old_report_does_not_end_a_training_that_failed(tmp_path: Path, photos: Path) -> None:
    data, scale = find_photos([photos], tmp_path), tiny.tiny_scale()
    bad = make_run(scale, "rn", 0)
    bad = replace(bad, recipe=replace(bad.recipe, init="none.safetensors"))
    (tmp_path / "runs" / bad.name).mkdir(parents=True)
    (tmp_path / "runs" / bad.name / "report.json").write_text("{}")
    with pytest.raises(RunFailedError, match="training failed"):
        Runner(tmp_path, scale, data).run_all([bad])
