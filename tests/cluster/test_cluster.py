"""A cluster gives what one process gives. One test starts Ray: it takes long."""

from __future__ import annotations

import csv
import json
import os
import pickle
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from PIL import Image

from regionnorm.cluster import Cluster, connect, evaluating, filling
from regionnorm.data import open_source
from regionnorm.filling.batch import Fill, inpaint_path
from regionnorm.filling.inpainter import Inpainter
from regionnorm.measuring.evaluate import evaluate, resolve_models

Maker = Callable[..., Image.Image]


def killed_once(weights: Path, marker: Path) -> Fill:
    """An inpainter whose process is killed at its first photo of 41 pixels' width."""
    inpainter = Inpainter(weights, device="cpu")

    def fill(photo: Image.Image, hole: np.ndarray) -> Image.Image:
        if photo.width == 41 and not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return inpainter(photo, hole)

    return fill


def rows(path: Path, *, out: Path) -> list[tuple[str, ...]]:
    with path.open(newline="", encoding="utf-8") as file:
        return sorted(
            tuple(str(v).replace(str(out), "OUT") for k, v in row.items() if k != "seconds")
            for row in csv.DictReader(file)
        )


def test_a_cluster_does_what_one_process_does(
    tmp_path: Path,
    small_weights: Path,
    make_photo: Maker,
    make_mask: Maker,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("ray")
    monkeypatch.setenv("RAY_worker_niceness", "0")
    from ray import cloudpickle

    # The workers do not know this file.
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    photos, masks = tmp_path / "photos", tmp_path / "masks"
    photos.mkdir()
    masks.mkdir()
    for number in range(6):
        make_photo(40 + number, 30, seed=number).save(photos / f"{number}.png")
        make_mask(40 + number, 30).save(masks / f"{number}.png")
    (masks / "4.png").unlink()
    (photos / "5.png").write_bytes(b"no photo")
    (photos / "notes.txt").touch()

    def fill(out: Path, **more: object) -> tuple[object, ...]:
        report = tmp_path / f"{out.name}.csv"
        made = inpaint_path(
            *(Inpainter(small_weights, device="cpu"), photos, masks, out),
            **{"report": report, "preview": tmp_path / f"{out.name}-seen", **more},
        )
        names = [path.name for path in made.done]
        return names, made.failed, made.left_out, rows(report, out=out)

    one, many = tmp_path / "one", tmp_path / "many"
    with connect("local", workers=1) as cluster:
        work = filling(cluster, partial(killed_once, small_weights, tmp_path / "killed"))
        assert fill(many, work=work) == fill(one)
        assert (tmp_path / "killed").exists()
        for path in one.iterdir():
            assert path.read_bytes() == (many / path.name).read_bytes()
        again = inpaint_path(_fails, photos, masks, many, work=work)
        assert [path.name for path in again.skipped] == ["0.png", "1.png", "2.png", "3.png"]
        assert again.done == []


class InTurn:
    """A cluster of one worker, here; what goes there and back is pickled as on the way to one."""

    def each(self, make: Any, tasks: Iterable[Any]) -> Iterator[tuple[Any, Any]]:
        work = pickle.loads(pickle.dumps(make))()
        for task in reversed(list(tasks)):
            yield task, pickle.loads(pickle.dumps(work(pickle.loads(pickle.dumps(task)), False)))


def test_evaluation_by_workers_gives_the_same_figures_to_the_last_digit(
    photo_folder: Callable[..., Path], small_weights: Path
) -> None:
    photos = photo_folder(11, 40, 36)
    (photos / "photo-2.png").write_bytes(b"no photo")
    source, models = open_source(photos), partial(resolve_models, [str(small_weights), "ns"])
    work = evaluating(cast(Cluster, InTurn()), models, dict)
    alone = evaluate(models(), source, size=32)
    together = evaluate(models(), source, size=32, work=work)
    assert json.dumps(together.to_json()) == json.dumps(alone.to_json())
    assert len(alone.skipped) == 1
    with pytest.raises(ValueError, match="fid looks at all photos together"):
        evaluate(models(), source, size=32, work=work, fid=lambda: None)


def _fails(photo: Image.Image, hole: np.ndarray) -> Image.Image:
    raise AssertionError


def test_workers_replace_none_of_the_users_masks(
    tmp_path: Path, small_weights: Path, make_photo: Maker, make_mask: Maker
) -> None:
    photos, masks = tmp_path / "photos", tmp_path / "masks"
    photos.mkdir()
    masks.mkdir()
    for name in ("a.jpg", "a.png"):
        make_photo(40, 30).save(photos / name)
        make_mask(40, 30).save(masks / f"{name}.png")
    before = {path.name: path.read_bytes() for path in masks.iterdir()}
    work = filling(cast(Cluster, InTurn()), partial(Inpainter, small_weights, device="cpu"))
    report = inpaint_path(_fails, photos, masks, tmp_path / "out", save_mask=masks, work=work)
    assert len(report.failed) == 2
    assert {path.name: path.read_bytes() for path in masks.iterdir()} == before
