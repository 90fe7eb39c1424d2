"""Images a second of training with photos in the device's memory and with photo files.

Both are held against steps on one batch that is there already, so that the difference is the time
that the network waits for its data: decoding, crops, masks and their way to the device.

Run as ``python benchmarks/bench_training.py [--data photos/] [--set options.width=32] ...``. By
default the photos are generated JPEG files, and the recipe is ``gpu`` on a CUDA device and
``default`` elsewhere.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from lightning.fabric import Fabric
from PIL import Image

from regionnorm.data import ImageSource, open_source
from regionnorm.devices import pick_device
from regionnorm.files.whole import atomic_path
from regionnorm.recipes import get_recipe
from regionnorm.training import Recipe
from regionnorm.training.batches import Batch, Batches
from regionnorm.training.state import TrainingState

WARM_UP = 3  # steps; the first one compiles


def write_photos(folder: Path, count: int, width: int, height: int) -> None:
    """Smooth gradients with grain as JPEG files, about as hard to decode as photos."""
    rng = np.random.default_rng(0)
    for index in range(count):
        small = Image.fromarray(rng.integers(0, 256, (12, 16, 3), np.uint8))
        smooth = np.asarray(small.resize((width, height), Image.Resampling.BICUBIC))
        pixels = smooth + rng.normal(0, 8, smooth.shape)
        photo = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
        photo.save(folder / f"{index:05d}.jpg", quality=90)


def feeds(recipe: Recipe, source: ImageSource, device: torch.device) -> dict[str, Iterator[Batch]]:
    """Where batches come from, by name; the first is there already."""
    kept = Batches(replace(recipe, resident="always", masks="fields"), source, device, say=print)
    files = Batches(replace(recipe, resident="never", masks="generated"), source, device)
    return {
        "one batch again and again": itertools.repeat(next(kept.from_step(0))),
        "photos and masks on the device": kept.from_step(0),
        f"photo files, {recipe.workers} workers": files.from_step(0),
    }


def seconds(fabric: Fabric, state: TrainingState, batches: Iterator[Batch], steps: int) -> float:
    """Time of one step, over ``steps`` of them."""
    random = torch.Generator().manual_seed(0)
    values: dict[str, torch.Tensor] = {}
    began = 0.0
    for number, (image, mask, _) in enumerate(itertools.islice(batches, WARM_UP + steps)):
        if number == WARM_UP:
            wait(values)
            began = time.perf_counter()
        values = state.train_step(fabric, state.networks, image, mask, random)
        state.after_step(0)
    wait(values)
    return (time.perf_counter() - began) / steps


def wait(values: dict[str, torch.Tensor]) -> None:
    """Until the device has computed them."""
    for value in values.values():
        value.item()


def measure(recipe: Recipe, source: ImageSource, steps: int) -> dict[str, dict[str, float]]:
    """Images a second and the share of the time spent waiting for data, for each feed."""
    device = pick_device()
    fabric = Fabric(accelerator=device.type, devices=1, precision=recipe.precision)
    fabric.launch()
    state = TrainingState(fabric, recipe)
    figures: dict[str, dict[str, float]] = {}
    ready = 0.0
    for name, batches in feeds(recipe, source, fabric.device).items():
        taken = seconds(fabric, state, batches, steps)
        ready = ready or taken
        figures[name] = {"images/s": recipe.batch / taken, "waiting": max(0.0, 1 - ready / taken)}
    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated() / 2**30
        print(f"most memory allocated: {peak:.1f} GiB")
    return figures


def to_markdown(recipe: Recipe, figures: dict[str, dict[str, float]]) -> str:
    """A table of the figures below what they were measured with."""
    device = pick_device()
    named = torch.cuda.get_device_name() if device.type == "cuda" else platform.processor() or "CPU"
    lines = [
        f"{named}, {os.cpu_count()} cores, PyTorch {torch.__version__}; recipe {recipe.name}: "
        f"{recipe.options}, {recipe.size} px, batch {recipe.batch}, {recipe.precision}",
        "",
        "| batches from | images/s | share of time waiting for data |",
        "| --- | ---: | ---: |",
    ]
    for name, row in figures.items():
        lines.append(f"| {name} | {row['images/s']:.1f} | {row['waiting']:.0%} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, print and save."""
    on_cuda = torch.cuda.is_available()
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--recipe", default="gpu" if on_cuda else "default")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--data", help="photos; by default generated ones")
    parser.add_argument("--photos", type=int, default=2000 if on_cuda else 60)
    parser.add_argument("--steps", type=int, default=100 if on_cuda else 6)
    parser.add_argument("--out", type=Path, default=Path("out/bench"))
    arguments = parser.parse_args()
    overrides = dict(pair.split("=", 1) for pair in arguments.set)
    recipe = get_recipe(arguments.recipe, overrides)

    with tempfile.TemporaryDirectory() as name:
        if arguments.data is None:
            write_photos(Path(name), arguments.photos, 640, 480)
        source = open_source(arguments.data or name)
        figures = measure(recipe, source, arguments.steps)
    table = to_markdown(recipe, figures)
    for file, text in (("training.json", json.dumps(figures, indent=2)), ("training.md", table)):
        with atomic_path(arguments.out / file) as temporary:
            temporary.write_text(text, encoding="utf-8")
    print(table)


if __name__ == "__main__":
    main()
