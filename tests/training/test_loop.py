"""The training loop: learns, stops, resumes exactly, keeps its files whole."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from PIL import Image
from torch import nn

from regionnorm.checkpoints.weights import load_pretrained, read_metadata, save_weights
from regionnorm.inspecting.activity import Activity
from regionnorm.models import InpaintingModel, create_model
from regionnorm.models.narrowing import narrow
from regionnorm.recipes import get_recipe
from regionnorm.training import Losses, Recipe, loop, train
from regionnorm.training.loop import learning_rate

Folder = Callable[..., Path]
LogReader = Callable[[Path], dict[str, list[float]]]


def tiny(steps: int, **changes: object) -> Recipe:
    recipe = Recipe(
        name="tiny",
        options={"width": 4, "blocks": 1, "prefill": "diffusion"},
        losses=Losses(adversarial=0.1),
        discriminator_width=4,
        size=32,
        batch=2,
        steps=steps,
        lr=1e-3,
        workers=0,
        log_every=1,
        sample_every=100,
        val_every=100,
        val_photos=2,
        save_every=5,
        accelerator="cpu",
        devices=1,
    )
    return replace(recipe, **changes)  # type: ignore[arg-type]


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_pretrained(run / "weights.safetensors").state_dict()


def equal(first: Path, second: Path) -> bool:
    a, b = (
        torch.load(run / "checkpoint.pt", map_location="cpu", weights_only=True)
        for run in (first, second)
    )
    return _same(a, b)


def _same(a: object, b: object) -> bool:
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and torch.equal(a, b)
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(map(_same, a, b))
    return a == b


def test_a_run_leaves_weights_log_samples_and_recipe(
    photo_folder: Folder, read_log: LogReader, tmp_path: Path
) -> None:
    photos = photo_folder(4)
    run = tmp_path / "run"
    assert train(tiny(4, val_every=2), data=[photos], val=photos, out=run)
    assert load_pretrained(run).name == "rn"
    assert read_metadata(run / "best.safetensors")["recipe"] == "tiny"
    with Image.open(run / "samples" / "0000004.png") as grid:
        assert grid.size == (96, 32 * 6)
    names = {"l1", "adversarial", "discriminator", "images/s", "val/psnr"}
    assert names <= read_log(run).keys()
    assert '"name": "tiny"' in (run / "recipe.json").read_text()
    assert not list(run.glob("*.tmp*"))


@pytest.mark.parametrize(("model", "sizes"), [("rn", [32, 256]), ("baseline-in", [32])])
def test_regions_are_compared_with_holes_that_they_can_meet(
    model: str,
    sizes: list[int],
    photo_folder: Folder,
    read_log: LogReader,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answers = {32: ({"a": 0.25}, 0.125), 256: ({"a": 0.5}, 0.75)}
    asked = []

    def fake(network: nn.Module, image: torch.Tensor, mask: torch.Tensor) -> Activity:
        asked.append(image.shape[-1])
        assert image.shape[-2:] == mask.shape[-2:]
        if image.shape[-1] == 256:
            assert all(0.3 <= share <= 0.4 for share in mask.mean((1, 2, 3)))
        zeros, overlap = answers[image.shape[-1]]
        return Activity(zeros, {"b": overlap} if model == "rn" else {})

    monkeypatch.setattr(loop, "layer_activity", fake)
    photos = photo_folder(2)
    recipe = tiny(1, val_every=1, model=model)
    train(recipe, data=[photos], val=photos, out=tmp_path / "run")
    assert asked == sizes
    log = read_log(tmp_path / "run")
    assert log["zeros/a"] == [0.25]
    assert log.get("found/b", []) == ([0.75] if model == "rn" else [])


def test_training_lowers_the_loss(
    photo_folder: Folder, read_log: LogReader, tmp_path: Path
) -> None:
    options = {"width": 8, "blocks": 1}
    recipe = tiny(40, losses=Losses(), options=options, masks="center", flip=False, lr=3e-3)
    train(recipe, data=[photo_folder(2)], out=tmp_path / "run")
    losses = read_log(tmp_path / "run")["l1"]
    assert sum(losses[-8:]) < 0.7 * sum(losses[:8])


def test_a_stopped_run_resumes_bit_for_bit(photo_folder: Folder, tmp_path: Path) -> None:
    photos = photo_folder(5)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train(tiny(8), data=[photos], out=whole)
    train(tiny(5), data=[photos], out=parts)
    assert train(tiny(8), data=[photos], out=parts, resume=True)
    assert equal(whole, parts)


SCRIPT = """
import sys
sys.path.insert(0, {folder!r})
from test_loop import tiny
from regionnorm.training import train
train(tiny({steps}, save_every=20, workers={workers}), data=[{photos!r}], out={run!r}, resume=True)
"""


def start(
    photos: Path, run: Path, steps: int, workers: int = 0, **options: Any
) -> subprocess.Popen[bytes]:
    folder = str(Path(__file__).parent)
    code = SCRIPT.format(
        folder=folder, photos=str(photos), run=str(run), steps=steps, workers=workers
    )
    return subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL, **options)


def wait_for_step(run: Path, step: int, process: subprocess.Popen[bytes]) -> None:
    log = run / "log.csv"
    while process.poll() is None:
        if log.exists() and f"\n{step},l1" in log.read_text():
            return
        time.sleep(0.01)
    raise AssertionError(f"the run ended before step {step}")


def test_a_killed_run_resumes_bit_for_bit(photo_folder: Folder, tmp_path: Path) -> None:
    photos = photo_folder(5)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    train(tiny(60, save_every=20), data=[photos], out=whole)
    process = start(photos, killed, 60)
    wait_for_step(killed, 33, process)
    process.kill()
    process.wait()
    saved = torch.load(killed / "checkpoint.pt", weights_only=True)
    assert 20 <= saved["step"] < 60
    assert start(photos, killed, 60).wait() == 0
    assert equal(whole, killed)
    steps = [int(line.split(",")[0]) for line in (killed / "log.csv").read_text().split()[1:]]
    assert steps == sorted(steps)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_before_stopping(number: int, photo_folder: Folder, tmp_path: Path) -> None:
    run = tmp_path / "run"
    process = start(photo_folder(3), run, 100_000)
    wait_for_step(run, 7, process)
    os.kill(process.pid, number)
    assert process.wait(timeout=60) == 0
    state = torch.load(run / "checkpoint.pt", weights_only=True)
    assert state["step"] >= 7
    last = (run / "log.csv").read_text().split()[-1]
    assert int(last.split(",")[0]) == state["step"]


def test_signals_to_a_whole_group_save_too(photo_folder: Folder, tmp_path: Path) -> None:
    run = tmp_path / "run"
    process = start(photo_folder(3), run, 100_000, workers=2, start_new_session=True)
    wait_for_step(run, 7, process)
    for _ in range(2):  # as `timeout` does: to the command, and to its group
        os.killpg(process.pid, signal.SIGTERM)
    assert process.wait(timeout=60) == 0
    assert torch.load(run / "checkpoint.pt", weights_only=True)["step"] >= 7


def test_momenta_of_a_resumed_run_are_those_that_are_asked_for(
    photo_folder: Folder, tmp_path: Path
) -> None:
    photos, run = photo_folder(2), tmp_path / "run"
    train(tiny(2), data=[photos], out=run)
    train(tiny(3, betas=(0.5, 0.75)), data=[photos], out=run, resume=True)
    state = torch.load(run / "checkpoint.pt", weights_only=True)
    found = [
        group["betas"]
        for part in state.values()
        if isinstance(part, dict)
        for group in part.get("param_groups", [])
    ]
    assert found and all(tuple(betas) == (0.5, 0.75) for betas in found)


def test_a_finished_run_stays_as_it_is(photo_folder: Folder, tmp_path: Path) -> None:
    photos, run = photo_folder(2), tmp_path / "run"
    train(tiny(2), data=[photos], out=run)
    files = {name: (run / name).read_bytes() for name in ("weights.safetensors", "log.csv")}
    assert train(tiny(2), data=[photos], out=run, resume=True)
    assert files == {name: (run / name).read_bytes() for name in files}


def test_weights_to_start_from_that_are_missing_are_named_in_one_line(
    photo_folder: Folder, tmp_path: Path
) -> None:
    recipe = tiny(1, init=str(tmp_path / "none.safetensors"))
    with pytest.raises(ValueError, match=r"none\.safetensors") as caught:
        train(recipe, data=[photo_folder(1)], out=tmp_path / "run")
    assert "\n" not in str(caught.value)


def test_a_run_starts_from_the_strongest_channels_of_a_wider_network(
    photo_folder: Folder, tmp_path: Path
) -> None:
    photos, wider = photo_folder(2), tmp_path / "wider.safetensors"
    torch.manual_seed(1)
    save_weights(create_model("rn", width=8, blocks=2), wider)
    options: dict[str, bool | int | float | str] = {"width": 4, "blocks": 1}
    expected = create_model("rn", **options)
    narrow(expected, cast(InpaintingModel, load_pretrained(wider)))
    train(tiny(1, init=str(wider), options=options, lr=1e-12), data=[photos], out=tmp_path / "run")
    for name, value in weights(tmp_path / "run").items():
        if "running" not in name and value.is_floating_point():  # else a step moves them
            torch.testing.assert_close(
                value.float(), expected.state_dict()[name], atol=1e-3, rtol=0
            )
    sets = r"set options\.blocks=2 options\.width=8 options\.bound=none, or a smaller width"
    with pytest.raises(ValueError, match=sets):
        other = {"width": 9, "bound": 0.5}
        train(tiny(1, init=str(wider), options=other), data=[photos], out=tmp_path / "no")


def test_devices_that_cannot_be_meant_are_refused_in_one_line(
    photo_folder: Folder, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="devices is 'foo', which cpu does not take"):
        train(
            tiny(1, devices="foo", accelerator="cpu"), data=[photo_folder(1)], out=tmp_path / "run"
        )


def test_a_run_goes_on_without_the_weights_that_it_started_from(
    photo_folder: Folder, tmp_path: Path
) -> None:
    photos, run, first = photo_folder(2), tmp_path / "run", tmp_path / "first.safetensors"
    save_weights(create_model("rn", **tiny(1).options), first)
    train(tiny(1, init=str(first)), data=[photos], out=run)
    first.unlink()
    assert train(tiny(2, init=str(first)), data=[photos], out=run, resume=True)


def test_a_run_is_not_overwritten(photo_folder: Folder, tmp_path: Path) -> None:
    photos = photo_folder(2)
    train(tiny(1), data=[photos], out=tmp_path / "run")
    with pytest.raises(ValueError, match="--resume"):
        train(tiny(1), data=[photos], out=tmp_path / "run")


@pytest.mark.parametrize("damage", [b"", b"not a checkpoint"])
def test_a_damaged_checkpoint_is_refused_in_one_line(
    damage: bytes, photo_folder: Folder, tmp_path: Path
) -> None:
    photos, run = photo_folder(2), tmp_path / "run"
    train(tiny(1), data=[photos], out=run)
    (run / "checkpoint.pt").write_bytes(damage)
    with pytest.raises(ValueError, match=r"checkpoint\.pt") as caught:
        train(tiny(2), data=[photos], out=run, resume=True)
    assert "\n" not in str(caught.value)


def test_a_run_that_diverges_keeps_its_last_good_checkpoint(
    photo_folder: Folder, tmp_path: Path
) -> None:
    photos, run = photo_folder(2), tmp_path / "run"
    train(tiny(2), data=[photos], out=run)
    good = (run / "checkpoint.pt").read_bytes()
    with pytest.raises(ValueError, match="NaN or infinity"):
        train(tiny(8, lr=1e38, losses=Losses()), data=[photos], out=run, resume=True)
    assert (run / "checkpoint.pt").read_bytes() == good


def test_two_processes_share_a_run(photo_folder: Folder, tmp_path: Path) -> None:
    code = SCRIPT.replace("save_every=20", "save_every=2, devices=2, strategy='ddp'").format(
        folder=str(Path(__file__).parent),
        photos=str(photo_folder(3)),
        run=str(tmp_path / "run"),
        steps=4,
        workers=0,
    )
    script = tmp_path / "two.py"
    script.write_text(code)
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    state = torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)
    assert state["step"] == 4
    assert load_pretrained(tmp_path / "run").name == "rn"


def test_resuming_another_network_is_refused_in_one_line(
    photo_folder: Folder, tmp_path: Path
) -> None:
    photos = photo_folder(2)
    train(tiny(1), data=[photos], out=tmp_path / "run")
    other = tiny(2, options={"width": 8, "blocks": 1, "prefill": "diffusion"})
    with pytest.raises(ValueError, match="does not fit this recipe") as caught:
        train(other, data=[photos], out=tmp_path / "run", resume=True)
    assert "\n" not in str(caught.value)


def test_corrupt_photos_are_skipped_and_counted(photo_folder: Folder, tmp_path: Path) -> None:
    photos = photo_folder(3)
    (photos / "broken.png").write_bytes(b"not a picture")
    train(tiny(4), data=[photos], out=tmp_path / "run")
    state = torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)
    assert state["skipped"] >= 2


def test_workers_do_not_change_the_weights(photo_folder: Folder, tmp_path: Path) -> None:
    photos = photo_folder(4)
    for workers in (0, 2):
        train(tiny(3, workers=workers), data=[photos], out=tmp_path / str(workers))
    assert equal(tmp_path / "0", tmp_path / "2")


@pytest.fixture
def untrained_vgg(monkeypatch: pytest.MonkeyPatch) -> None:
    """VGG-19 with random weights wherever a run loads it."""
    from regionnorm.measuring import perceptual
    from regionnorm.nn.vgg import VGGFeatures
    from regionnorm.training import state

    def untrained(path: str | None, *, layers: Sequence[str]) -> VGGFeatures:
        torch.manual_seed(0)
        return VGGFeatures(layers)

    for module in (state, perceptual):
        monkeypatch.setattr(module, "load_vgg19", untrained)


@pytest.mark.usefixtures("untrained_vgg")
def test_perceptual_and_style_losses_take_part(photo_folder: Folder, tmp_path: Path) -> None:
    losses = Losses(
        perceptual=0.1,
        style=250,
        perceptual_layers=("relu1_1", "relu2_1"),
        style_layers=("relu2_2",),
    )
    train(tiny(2, losses=losses), data=[photo_folder(2)], out=tmp_path / "run")
    text = (tmp_path / "run" / "log.csv").read_text()
    assert "perceptual" in text
    assert "style" in text


@pytest.mark.usefixtures("untrained_vgg")
@pytest.mark.parametrize("measure", ["psnr", "feature_distance", "texture_distance"])
def test_the_best_weights_are_best_by_the_recipes_measure(
    measure: str, photo_folder: Folder, read_log: LogReader, tmp_path: Path
) -> None:
    photos, run = photo_folder(3), tmp_path / "run"
    recipe = tiny(6, best_by=measure, val_every=2, val_size=32, lr=0.05, warmup=0)
    train(recipe, data=[photos], val=photos, out=run)
    values = read_log(run)
    scores = values[f"val/{measure}"]
    assert len(scores) == 3
    best = max(scores) if measure == "psnr" else min(scores)
    assert float(read_metadata(run / "best.safetensors")[measure]) == pytest.approx(best, rel=1e-3)
    for of_vgg in ("feature_distance", "texture_distance"):
        assert (f"val/{of_vgg}" in values) is (measure == of_vgg)


@pytest.mark.usefixtures("untrained_vgg")
def test_another_measure_of_the_best_starts_from_nothing(
    photo_folder: Folder, tmp_path: Path
) -> None:
    photos, run = photo_folder(2), tmp_path / "run"
    recipe = tiny(2, val_every=2, val_size=32)
    train(recipe, data=[photos], val=photos, out=run)
    assert "psnr" in read_metadata(run / "best.safetensors")
    changed = replace(recipe, steps=4, best_by="l1")
    train(changed, data=[photos], val=photos, out=run, resume=True)
    assert "l1" in read_metadata(run / "best.safetensors")


def test_ema_differs_from_the_weights_and_can_be_switched_off(
    photo_folder: Folder, tmp_path: Path
) -> None:
    photos = photo_folder(2)
    for ema in (0.9, 0.0):
        train(tiny(5, ema=ema), data=[photos], out=tmp_path / str(ema))
    averaged, plain = weights(tmp_path / "0.9"), weights(tmp_path / "0.0")
    assert any(not torch.equal(averaged[key], plain[key]) for key in plain)


def test_the_averages_counts_are_the_networks(photo_folder: Folder, tmp_path: Path) -> None:
    options = {"width": 4, "blocks": 0}
    recipe = tiny(5, model="baseline-bn", options=options, losses=Losses(), ema=0.999)
    train(recipe, data=[photo_folder(2)], out=tmp_path / "run")
    counts = [v for key, v in weights(tmp_path / "run").items() if "num_batches" in key]
    assert counts and all(int(count) == 5 for count in counts)


def test_training_runs_in_another_thread(photo_folder: Folder, tmp_path: Path) -> None:
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(train, tiny(1), data=[photo_folder(2)], out=tmp_path / "run").result()


def test_learning_rate_warms_up_and_falls_to_zero() -> None:
    recipe = replace(get_recipe("default"), warmup=10, steps=110, schedule="cosine")
    factors = [learning_rate(recipe, step) for step in range(111)]
    assert factors[0] == pytest.approx(0.1)
    assert factors[10] == 1
    assert factors[60] == pytest.approx(0.5)
    assert factors[110] == pytest.approx(0)
    assert learning_rate(replace(recipe, schedule="constant"), 100) == 1
