"""Training what finds scratches: learns, stops, resumes exactly, keeps its files whole."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from regionnorm.checkpoints.finder import load_finder
from regionnorm.data.damaged import DamagedBatch, DamagedPhotos
from regionnorm.training.scratches import (
    ScratchRecipe,
    best_scores,
    scratch_recipe_from_json,
    train_scratches,
)

Folder = Callable[..., Path]
LogReader = Callable[[Path], dict[str, list[float]]]
RunCli = Callable[..., tuple[int, str, str]]


def tiny(steps: int, **changes: object) -> ScratchRecipe:
    return ScratchRecipe(
        **{  # type: ignore[arg-type]
            "widths": (4, 4, 8, 8), "size": 32, "batch": 2, "pool": 6, "steps": steps,
            "log_every": 1, "val_every": 2, "val_photos": 2, "val_size": 32,
            "precision": "32-true", **changes,
        }
    )  # fmt: skip


def state(run: Path) -> dict[str, torch.Tensor]:
    return load_finder(run / "weights.safetensors").network.state_dict()


def test_a_run_leaves_weights_log_samples_and_recipe(
    photo_folder: Folder, read_log: LogReader, tmp_path: Path
) -> None:
    photos, run = photo_folder(3), tmp_path / "run"
    assert train_scratches(tiny(4), data=[photos], val=photos, out=run)
    assert scratch_recipe_from_json((run / "recipe.json").read_text()) == tiny(4)
    assert 0 < load_finder(run / "best.safetensors").threshold < 1
    log = read_log(run)
    assert len(log["entropy"]) == 4
    assert len(log["val/f1"]) == 2
    with Image.open(run / "samples" / "0000004.png") as grid:
        assert grid.size == (2 * 32, 3 * 32)
    with pytest.raises(ValueError, match="already holds a run; use --resume"):
        train_scratches(tiny(4), data=[photos], out=run)


def test_a_runs_recipe_is_taken_in_place_of_the_name(
    photo_folder: Folder, run_cli: RunCli, tmp_path: Path
) -> None:
    photos, run, again = photo_folder(3), tmp_path / "run", tmp_path / "again"
    train_scratches(tiny(2), data=[photos], out=run)
    arguments = ("train", run / "recipe.json", "--data", photos, "--out", again)
    assert run_cli(*arguments)[0] == 0
    assert scratch_recipe_from_json((again / "recipe.json").read_text()) == tiny(2)
    assert all(torch.equal(value, state(again)[key]) for key, value in state(run).items())


def test_a_stopped_run_goes_on_as_if_it_had_not_stopped(
    photo_folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = photo_folder(3)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train_scratches(tiny(5), data=[photos], val=photos, out=whole)
    batch = DamagedPhotos.batch

    def stopping(self: DamagedPhotos, positions: range) -> DamagedBatch:
        if positions.start == 4:
            os.kill(os.getpid(), signal.SIGTERM)
        return batch(self, positions)

    monkeypatch.setattr(DamagedPhotos, "batch", stopping)
    assert not train_scratches(tiny(5), data=[photos], val=photos, out=parts)
    monkeypatch.undo()
    assert torch.load(parts / "checkpoint.pt", weights_only=True)["step"] == 3
    assert train_scratches(tiny(5), data=[photos], val=photos, out=parts, resume=True)
    first, second = state(whole), state(parts)
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_a_few_steps_lower_the_loss(
    photo_folder: Folder, read_log: LogReader, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    recipe = tiny(40, pool=2, lr=1e-2, warmup=1, widths=(8, 8, 8, 8))
    train_scratches(recipe, data=[photo_folder(2)], out=run)
    entropy = read_log(run)["entropy"]
    assert sum(entropy[-5:]) < 0.8 * sum(entropy[:5])


def test_the_threshold_is_where_f1_is_best_and_faint_pixels_do_not_count() -> None:
    probability = torch.tensor([[0.9, 0.6, 0.6, 0.3, 0.1, 0.8]]).view(1, 1, 1, 6)
    marks = torch.tensor([[1.0, 1, 1, 0, 0, 0]]).view(1, 1, 1, 6)
    counted = torch.tensor([[1.0, 1, 1, 1, 1, 0]]).view(1, 1, 1, 6)
    scores = best_scores(probability, DamagedBatch(probability, marks, counted))
    assert (scores.f1, scores.recall, scores.precision) == pytest.approx((1, 1, 1))
    assert 0.3 <= scores.threshold < 0.6


def test_a_threshold_of_least_precision_costs_recall() -> None:
    probability = torch.tensor([[0.9, 0.5, 0.5, 0.5, 0.6, 0.1]]).view(1, 1, 1, 6)
    marks = torch.tensor([[1.0, 1, 1, 1, 0, 0]]).view(1, 1, 1, 6)
    truth = DamagedBatch(probability, marks, torch.ones_like(marks))
    assert best_scores(probability, truth).recall == 1
    strict = best_scores(probability, truth, least_precision=0.9)
    assert (strict.precision, strict.recall) == (1, 0.25)


def test_a_run_grows_from_a_smaller_network(photo_folder: Folder, tmp_path: Path) -> None:
    photos = photo_folder(2)
    train_scratches(tiny(1, norm="none"), data=[photos], out=tmp_path / "first")
    first = tmp_path / "first" / "weights.safetensors"
    changes = {"widths": (6, 4, 8, 10), "refine": (0, 1, 0, 0), "init": str(first), "norm": "none"}
    larger = tiny(1, lr=1e-9, scales=(1, 2), **changes)
    train_scratches(larger, data=[photos], out=tmp_path / "second")
    photo = torch.rand(1, 3, 32, 32)
    second = load_finder(tmp_path / "second" / "weights.safetensors").network
    with torch.inference_mode():
        expected = load_finder(first).network(photo)
        assert torch.allclose(second(photo), expected, atol=0.01)
    assert second.options["refine"] == [0, 1, 0, 0]
    small = tiny(1, **changes | {"widths": (2, 4, 8, 8)})
    with pytest.raises(ValueError, match="has no room in the larger one"):
        train_scratches(small, data=[photos], out=tmp_path / "third")


def test_a_run_that_has_grown_goes_on_without_what_it_grew_from(
    photo_folder: Folder, tmp_path: Path
) -> None:
    photos, run = photo_folder(2), tmp_path / "run"
    first = tmp_path / "first" / "weights.safetensors"
    train_scratches(tiny(1, norm="none"), data=[photos], out=first.parent)
    options = {"norm": "none", "init": str(first)}
    train_scratches(tiny(1, **options), data=[photos], out=run)
    first.unlink()
    assert train_scratches(tiny(2, **options), data=[photos], out=run, resume=True)


def test_a_recipe_from_before_residual_units_says_the_same() -> None:
    recipe = scratch_recipe_from_json('{"widths": [4, 4, 8, 8]}')
    assert (recipe.refine, recipe.scales, recipe.init) == ((0, 0, 0, 0), (0.5, 3.0), None)


def test_a_damaged_checkpoint_is_named(photo_folder: Folder, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "checkpoint.pt").write_bytes(b"noise")
    with pytest.raises(ValueError, match=r"checkpoint.pt does not fit this recipe"):
        train_scratches(tiny(2), data=[photo_folder(2)], out=run, resume=True)


def test_the_command_trains_and_resumes_with_its_own_recipe(
    photo_folder: Folder, tmp_path: Path, run_cli: RunCli
) -> None:
    photos, run = photo_folder(2), tmp_path / "run"
    small = ["widths=4,4,8,8", "size=32", "batch=2", "pool=2", "precision=32-true", "steps=2"]
    options = [text for pair in small for text in ("--set", pair)]
    command = ["train", "scratches", "--data", photos, "--out", run]
    code, out, err = run_cli(*command, *options)
    assert (code, out.strip()) == (0, str(run / "weights.safetensors")), err
    assert run_cli(*command)[0] == 2
    code, out, err = run_cli(*command, "--resume", "--set", "steps=3")
    assert code == 0, err
    assert torch.load(run / "checkpoint.pt", weights_only=True)["step"] == 3
    code, _, err = run_cli(*command, "--devices", "2")
    assert code == 2
    assert "no field 'devices'" in err
