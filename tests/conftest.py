"""Fixtures that tests of several modules share."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

RunCli = Callable[..., tuple[int, str, str]]
PhotoMaker = Callable[..., Image.Image]
FolderMaker = Callable[..., Path]
LogReader = Callable[[Path], dict[str, list[float]]]


# `make test` gives each processor a process, in which more threads would stand in each other's
# way, and in the processes that tests start. Who sets these variables decides otherwise.
if "OMP_NUM_THREADS" not in os.environ:
    torch.set_num_threads(1)
for _variable in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")

MOST_PROCESSES = 8  # each takes a gigabyte


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """One process for each processor that this one may use; containers often may use fewer."""
    affinity = getattr(os, "sched_getaffinity", None)
    return min(MOST_PROCESSES, len(affinity(0)) if affinity else os.cpu_count() or 1)


@pytest.fixture(autouse=True, scope="session")
def freed_memory_goes_back() -> Iterator[None]:
    """Commands keep what they free until their process ends, which here lives on.

    Buffers for half of the memory would pile up until the system refuses to fork.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("regionnorm.devices.ctypes", SimpleNamespace(CDLL=lambda _: None))
        yield


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Each test draws the same numbers, whichever tests ran before it."""
    torch.manual_seed(0)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture
def read_log() -> LogReader:
    """``read_log(run)``: what a training run's ``log.csv`` says, all values of each name."""

    def read(run: Path) -> dict[str, list[float]]:
        values: dict[str, list[float]] = {}
        with (run / "log.csv").open(newline="") as file:
            for row in csv.DictReader(file):
                values.setdefault(row["name"], []).append(float(row["value"]))
        return values

    return read


@pytest.fixture
def make_photo() -> PhotoMaker:
    """``make_photo(width, height, mode="RGB", seed=0)``: gradients, shapes and grain."""

    def make(width: int, height: int, mode: str = "RGB", seed: int = 0) -> Image.Image:
        random = np.random.default_rng(seed)
        y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
        corners = random.uniform(30, 220, (3, 3))
        ramp = corners[0] + x[..., None] * corners[1] / 3 + y[..., None] * corners[2] / 3
        photo = Image.fromarray(ramp.clip(0, 255).astype(np.uint8))
        draw = ImageDraw.Draw(photo)
        for _ in range(4):
            left, top = random.uniform(0, 0.8, 2) * (width, height)
            box = (left, top, left + width / 5, top + height / 5)
            draw.ellipse(box, fill=tuple(int(c) for c in random.integers(0, 256, 3)))
        grain = random.normal(0, 4, (height, width, 3))
        pixels = (np.asarray(photo) + grain).clip(0, 255).astype(np.uint8)
        return Image.fromarray(pixels).convert(mode)

    return make


@pytest.fixture
def make_mask() -> PhotoMaker:
    """``make_mask(width, height)``: a mode L mask with a white box in the middle."""

    def make(width: int, height: int, share: float = 0.4) -> Image.Image:
        mask = Image.new("L", (width, height))
        left, top = round(width * (1 - share) / 2), round(height * (1 - share) / 2)
        box = (left, top, width - left - 1, height - top - 1)
        ImageDraw.Draw(mask).rectangle(box, fill=255)
        return mask

    return make


@pytest.fixture
def photo_folder(tmp_path: Path, make_photo: PhotoMaker) -> FolderMaker:
    """``photo_folder(count, width=64, height=64)``: a folder of PNG photos ``photo-0.png`` ..."""

    def make(count: int, width: int = 64, height: int = 64, name: str = "photos") -> Path:
        folder = tmp_path / name
        folder.mkdir()
        for index in range(count):
            make_photo(width, height, seed=index).save(folder / f"photo-{index}.png")
        return folder

    return make


@pytest.fixture(scope="session")
def small_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a small untrained network, which fills holes from their surroundings."""
    from regionnorm.checkpoints.weights import save_weights
    from regionnorm.models import create_model

    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    save_weights(create_model("rn", width=4, blocks=1, prefill="diffusion"), path)
    return path


@pytest.fixture
def run_cli(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> RunCli:
    """``run_cli("masks", "--count", 2)``: exit code, standard output, standard error."""
    from regionnorm.cli import console, main

    # Progress is told every ten seconds: on a busy machine some test would take that long.
    monkeypatch.setattr(console, "LINE_SECONDS", float("inf"))

    def run(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """``s3://...``: an empty bucket of a server on this machine."""
    pytest.importorskip("s3fs")
    server_module = pytest.importorskip("moto.server")
    import fsspec

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    server = server_module.ThreadedMotoServer(port=0, verbose=False)
    server.start()
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://{}:{}".format(*server.get_host_and_port()))
    fsspec.filesystem("s3").clear_instance_cache()
    fsspec.filesystem("s3").mkdir("bucket")
    try:
        yield "s3://bucket"
    finally:
        fsspec.filesystem("s3").clear_instance_cache()
        server.stop()
