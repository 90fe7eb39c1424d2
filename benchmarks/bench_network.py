"""Speed of the generator, of a training step, of the weights and of a cold start, as ratios.

Both sides of a ratio are measured in turns in one process; a figure is the ratio of medians. Saves
``out/bench/network.json`` and ``out/bench/network.md``. Figures in bfloat16 are left out on
processors without instructions for it, where they would take an hour.

    python benchmarks/bench_network.py
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from regionnorm.devices import has_native_bfloat16
from regionnorm.files.whole import atomic_path
from regionnorm.filling.inpainter import Inpainter
from regionnorm.models import create_model
from regionnorm.nn.precision import cast_convolutions

HALF = has_native_bfloat16(torch.device("cpu"))
# What the figures are held against.
TARGETS = {
    "generator float32, rn / baseline-in": 1.0,
    "generator rn, bfloat16 / float32": 0.5,
    "training step float32, rn / baseline-in": 1.2,
    "second start / (2 x import torch + forward)": 1.0,
    "fill at 512x512 float32, fast / default": 0.5,
}


def photo_and_mask(size: int, batch: int = 1) -> tuple[Tensor, Tensor]:
    """Noise with an irregular hole."""
    random = torch.Generator().manual_seed(0)
    coarse = torch.rand(batch, 1, 9, 9, generator=random)
    mask = torch.nn.functional.interpolate(coarse, size=(size, size), mode="bilinear")
    return torch.rand(batch, 3, size, size, generator=random), (mask > mask.median()).float()


def in_turns(candidates: dict[str, Callable[[], object]], repeat: int) -> dict[str, float]:
    """Median seconds of each candidate; one warm-up each, then rounds over all."""
    for run in candidates.values():
        run()
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(repeat):
        for name, run in candidates.items():
            start = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def generator(width: int, repeat: int) -> dict[str, float]:
    """One 256x256 photo, no gradient: the networks as they are made, and as `Inpainter` has them.

    `Inpainter` runs channels-last and, in bfloat16, with convolutions cast beforehand.
    """
    image, mask = photo_and_mask(256)

    def forward(name: str, half: bool, prepared: bool) -> Callable[[], object]:
        network = create_model(name, width=width).eval()
        if prepared:
            network.to(memory_format=torch.channels_last)
        if prepared and half:
            cast_convolutions(network, torch.bfloat16)

        def run() -> object:
            with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=half):
                return network(image, mask)

        return run

    tasks = {
        "rn": forward("rn", False, False),
        "in": forward("baseline-in", False, False),
        "rn channels-last": forward("rn", False, True),
    }
    if HALF:
        tasks["rn bf16"] = forward("rn", True, True)
        tasks["in bf16"] = forward("baseline-in", True, True)
    seconds = in_turns(tasks, repeat)
    figures = {
        "generator float32, rn / baseline-in": seconds["rn"] / seconds["in"],
        "generator float32, rn, seconds": seconds["rn"],
    }
    if not HALF:
        return figures
    return figures | {
        "generator bfloat16, rn / baseline-in": seconds["rn bf16"] / seconds["in bf16"],
        "generator rn, bfloat16 / float32": seconds["rn bf16"] / seconds["rn"],
        "generator rn, bfloat16 / float32 channels-last": seconds["rn bf16"]
        / seconds["rn channels-last"],
    }


def training_step(repeat: int) -> dict[str, float]:
    """Forward, backward and Adam at width 32, 128 px, batch 8."""
    image, mask = photo_and_mask(128, batch=8)

    def step(name: str, half: bool) -> Callable[[], object]:
        network = create_model(name, width=32)
        optimizer = torch.optim.Adam(network.parameters())

        def run() -> None:
            with torch.autocast("cpu", torch.bfloat16, enabled=half):
                output = network(image, mask)
            (output - image).abs().mean().backward()
            optimizer.step()
            optimizer.zero_grad()

        return run

    words = {"float32": False} | ({"bfloat16": True} if HALF else {})
    seconds = in_turns(
        {
            f"{n} {word}": step(n, half)
            for n in ("rn", "baseline-in")
            for word, half in words.items()
        },
        repeat,
    )
    return {
        f"training step {word}, rn / baseline-in": seconds[f"rn {word}"]
        / seconds[f"baseline-in {word}"]
        for word in words
    }


def shipped(repeat: int) -> dict[str, float]:
    """A 512x512 photo filled by the network alone, with the light weights and the default ones."""
    image, mask = photo_and_mask(512)
    photo = Image.fromarray((image[0].permute(1, 2, 0) * 255).byte().numpy())
    hole = Image.fromarray(np.uint8(mask[0, 0] * 255))

    def fill(name: str, precision: str) -> Callable[[], object]:
        inpainter = Inpainter(name, method="network", precision=precision)
        return lambda: inpainter(photo, hole)

    words = {"float32": "fp32"} | ({"bfloat16": "bf16"} if HALF else {})
    seconds = in_turns(
        {
            f"{name} {word}": fill(name, words[word])
            for name in ("fast", "default")
            for word in words
        },
        repeat,
    )
    return {
        f"fill at 512x512 {word}, fast / default": seconds[f"fast {word}"]
        / seconds[f"default {word}"]
        for word in words
    }


def cold_start(repeat: int) -> dict[str, float]:
    """``regionnorm inpaint`` of one 512x512 photo, after a first start that compiles kernels."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        image, mask = photo_and_mask(512)
        pixels = (image[0].permute(1, 2, 0) * 255).byte().numpy()
        photo, hole = Image.fromarray(pixels), Image.fromarray(np.uint8(mask[0, 0] * 255))
        photo.save(folder / "photo.png")
        hole.save(folder / "mask.png")
        command = [sys.executable, "-m", "regionnorm", "inpaint", str(folder / "photo.png")]
        command += ["--mask", str(folder / "mask.png"), "-o", str(folder / "o.png"), "--overwrite"]

        def start(*arguments: str) -> Callable[[], object]:
            return lambda: subprocess.run(arguments, check=True, capture_output=True)

        # The target is the network's; what the completion adds is shown beside it.
        inpainter = Inpainter(method="network")
        seconds = in_turns(
            {
                "start": start(*command, "--method", "network"),
                "completed": start(*command),
                "torch": start(sys.executable, "-c", "import torch"),
                "fill": lambda: inpainter(photo, hole),
            },
            repeat,
        )
    allowed = 2 * seconds["torch"] + seconds["fill"]
    return {
        "second start / (2 x import torch + forward)": seconds["start"] / allowed,
        "second start, seconds": seconds["start"],
        "second start with wide holes completed, seconds": seconds["completed"],
        "import torch, seconds": seconds["torch"],
        "forward at 512x512, seconds": seconds["fill"],
    }


def to_markdown(figures: dict[str, float]) -> str:
    """A table of figures with their targets."""
    machine = f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads"
    lines = [f"PyTorch {torch.__version__}, {machine}", "", "| figure | measured | target |"]
    lines.append("| --- | ---: | ---: |")
    for name, value in figures.items():
        target = f"<= {TARGETS[name]:g}" if name in TARGETS else ""
        lines.append(f"| {name} | {value:.2f} | {target} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--width", type=int, default=64, help="of the generator")
    parser.add_argument("--repeat", type=int, default=7)
    parser.add_argument("--out", type=Path, default=Path("out/bench"))
    arguments = parser.parse_args()

    figures = generator(arguments.width, arguments.repeat)
    figures |= training_step(max(3, arguments.repeat // 2))
    figures |= shipped(arguments.repeat)
    figures |= cold_start(max(3, arguments.repeat // 2))
    table = to_markdown(figures)
    for name, text in (("network.json", json.dumps(figures, indent=2)), ("network.md", table)):
        with atomic_path(arguments.out / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
    print(table)


if __name__ == "__main__":
    main()
