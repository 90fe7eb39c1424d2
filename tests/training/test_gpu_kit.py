"""Runs with photos in memory, limited time and compilation, on the CPU with the GPU's code."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from regionnorm.recipes import get_recipe
from regionnorm.training import Losses, Recipe, compiler, loop, train
from regionnorm.training.loop import learning_rate

Folder = Callable[..., Path]
LogReader = Callable[[Path], dict[str, list[float]]]


def tiny(**changes: object) -> Recipe:
    recipe = Recipe(
        name="tiny",
        options={"width": 2, "blocks": 0, "prefill": "diffusion"},
        losses=Losses(),
        size=32,
        batch=2,
        steps=6,
        lr=1e-3,
        masks="fields",
        resident="always",
        workers=0,
        log_every=1,
        sample_every=1000,
        val_every=1000,
        val_photos=1,
        accelerator="cpu",
        devices=1,
    )
    return replace(recipe, **changes)  # type: ignore[arg-type]


def state(run: Path) -> dict[str, object]:
    loaded: dict[str, object] = torch.load(run / "checkpoint.pt", weights_only=True)
    return loaded


def test_a_resident_run_resumes_bit_for_bit(
    photo_folder: Folder, read_log: LogReader, tmp_path: Path
) -> None:
    photos = photo_folder(3, 40, 40)
    train(tiny(), data=[photos], out=tmp_path / "whole")
    train(tiny(steps=4), data=[photos], out=tmp_path / "parts")
    train(tiny(), data=[photos], out=tmp_path / "parts", resume=True)
    whole, parts = state(tmp_path / "whole"), state(tmp_path / "parts")
    for key, value in whole["generator"].items():  # type: ignore[attr-defined]
        assert torch.equal(value, parts["generator"][key]), key  # type: ignore[index]
    assert whole["step"] == parts["step"] == 6
    assert read_log(tmp_path / "whole")["l1"] == read_log(tmp_path / "parts")["l1"]


def test_a_run_ends_validated_and_saved_before_its_minutes_are_over(
    photo_folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passing = _Passing(monkeypatch, step=2.0, validation=5.0)
    recipe = tiny(steps=1000, minutes=1.0, schedule="cosine")
    photos, run = photo_folder(2, 40, 40), tmp_path / "run"
    assert train(recipe, data=[photos], val=photos, out=run)
    taken = state(run)["step"]
    # 60 s less 1.3 times the validation and 1.2 s spare; one validation on the way.
    assert 20 <= taken <= 27  # type: ignore[operator]
    assert passing.now < 60
    assert len(passing.validated) == 2
    assert passing.validated[1] == taken
    assert passing.factors[-1] < 0.03
    assert all(a >= b for a, b in zip(passing.factors, passing.factors[1:], strict=False))
    # Resumed, it has nothing left to do; with more minutes, it goes on.
    assert train(recipe, data=[photos], val=photos, out=run, resume=True)
    assert state(run)["step"] == taken
    assert train(replace(recipe, minutes=1.5), data=[photos], val=photos, out=run, resume=True)
    assert state(run)["step"] > taken  # type: ignore[operator]


class _Passing:
    """Time in which a step and a validation take as long as is said, and all else nothing."""

    def __init__(self, patch: pytest.MonkeyPatch, step: float, validation: float) -> None:
        self.now = 0.0
        self.factors: list[float] = []
        self.validated: list[int] = []
        take = loop._Run._step

        def timed_step(run, image, mask, used):  # type: ignore[no-untyped-def]
            self.now += step
            self.factors.append(learning_rate(run.recipe, run.state.step, used))
            return take(run, image, mask, used)

        def timed_score(run, judge):  # type: ignore[no-untyped-def]
            self.now += validation
            self.validated.append(run.state.step)

        def clock(minutes: float | None, before: dict[str, float], began: float) -> object:
            return real(minutes, before, now=lambda: self.now)

        real = loop.Clock
        patch.setattr(loop, "Clock", clock)
        patch.setattr(loop._Run, "_step", timed_step)
        patch.setattr(loop._Run, "_score", timed_score)


def test_the_cosine_follows_steps_or_time_whichever_is_nearer_the_end() -> None:
    recipe = tiny(steps=100, schedule="cosine")
    assert learning_rate(recipe, 0, 0.5) == pytest.approx(0.5)
    assert learning_rate(recipe, 50, 0.1) == pytest.approx(0.5)
    assert learning_rate(recipe, 10, 1.2) == pytest.approx(0)
    assert learning_rate(replace(recipe, schedule="constant"), 10, 0.9) == 1


def test_the_gpu_recipe_is_the_default_one_made_large() -> None:
    gpu, default = get_recipe("gpu"), get_recipe("default")
    assert gpu.losses == default.losses
    assert gpu.options == {**default.options, "width": 64}
    assert (gpu.size, gpu.precision, gpu.channels_last, gpu.compile) == (
        256,
        "bf16-mixed",
        True,
        True,
    )
    assert (gpu.masks, gpu.resident, gpu.minutes) == ("fields", "auto", 24)


def test_the_commands_for_gpus_in_the_documentation_name_recipes_and_fields() -> None:
    page = (Path(__file__).parents[2] / "docs" / "training.md").read_text(encoding="utf-8")
    text = page[page.index("## One large GPU") :].replace("\\\n", " ")
    commands = re.findall(r"regionnorm train (\S+)([^\n`]*)", text)
    assert {name for name, _ in commands} == {"gpu", "paper"}
    for name, options in commands:
        get_recipe(name, dict(re.findall(r"--set (\S+?)=(\S+)", options)))


def test_without_a_compiler_training_goes_on_with_a_notice(
    photo_folder: Folder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def broken(function: object) -> object:
        raise RuntimeError("No working C++ compiler found\nand much more")

    monkeypatch.setattr(torch, "compile", broken)
    assert compiler.compiler_problem(torch.device("cpu")) == "No working C++ compiler found"
    run = tmp_path / "run"
    assert train(tiny(steps=1, compile=True), data=[photo_folder(2, 40, 40)], out=run)
    assert '"compile": true' in (run / "recipe.json").read_text()
    assert "torch.compile does not work here (No working C++" in capsys.readouterr().err
