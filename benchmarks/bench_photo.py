"""Time and memory of filling large photos, each in a process of its own.

A 4000x3000 photo with a 200x200 hole is held against a 512x512 photo with the same hole; then a
4000x3000 photo with a hole of a third of its area, whose result is saved to be looked at. Times
are of the process's CPU, which other programs disturb less than the clock. Saves
``out/bench/photo.json`` and ``out/bench/photo.md``.

    python benchmarks/bench_photo.py
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image

from regionnorm.files.whole import atomic_path

# What the figures are held against.
TARGETS = {
    "4000x3000, hole 200x200, peak GB": 1.5,
    "4000x3000 / 512x512, hole 200x200, filling": 3.0,
    "4000x3000 / 512x512, hole 200x200, whole command": 3.0,
}


def make_photo(width: int, height: int) -> Image.Image:
    """A landscape of soft hills with grain, the same at every size."""
    random = np.random.default_rng(0)
    y, x = np.mgrid[0:1:1024j, 0:1:1024j]
    scene = np.stack([150 + 60 * y, 120 + 70 * y, 210 - 120 * y], 2)
    for number in range(12):
        ridge = 0.3 + 0.06 * number + 0.05 * np.sin(x * random.uniform(3, 14) + number)
        scene[y > ridge] = random.uniform(40, 170, 3)
    scene += random.normal(0, 5, scene.shape)
    image = Image.fromarray(scene.clip(0, 255).astype(np.uint8))
    return image.resize((width, height), Image.Resampling.BICUBIC)


def make_hole(width: int, height: int, *, third: bool) -> Image.Image:
    """A square of 200x200 in the middle, or an ellipse over a third of the area."""
    mask = np.zeros((height, width), np.uint8)
    if third:
        y, x = np.mgrid[0:height, 0:width]
        across, down = 0.326 * width, 0.326 * height
        mask[((x - width / 2) / across) ** 2 + ((y - height / 2) / down) ** 2 < 1] = 255
    else:
        mask[height // 2 - 100 : height // 2 + 100, width // 2 - 100 : width // 2 + 100] = 255
    return Image.fromarray(mask)


def fill(photo: Path, mask: Path, out: Path, repeat: int) -> None:
    """Fill in this process, and print CPU seconds of filling and peak memory as JSON."""
    from regionnorm.filling.inpainter import Inpainter
    from regionnorm.masks.check import make_mask
    from regionnorm.photo import read_photo, write_photo

    inpainter = Inpainter()
    seconds = []
    for _ in range(repeat):
        opened = read_photo(photo)
        checked = make_mask(opened, mask)
        start = time.process_time()
        filled = inpainter.fill_photo(opened, checked.hole)
        seconds.append(time.process_time() - start)
        write_photo(filled, out)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(json.dumps({"filling": statistics.median(seconds), "peak GB": peak}))


def measure(photo: Path, mask: Path, out: Path, repeat: int) -> dict[str, float]:
    """Filling and whole command of one photo, in processes of their own."""
    paths = [str(photo), str(mask), str(out)]
    command = [sys.executable, __file__, "--fill", *paths, "--repeat", str(repeat)]
    run = subprocess.run(command, capture_output=True, check=True, text=True)
    figures: dict[str, float] = json.loads(run.stdout.splitlines()[-1])
    command = [sys.executable, "-m", "regionnorm", "inpaint", paths[0], "--mask", paths[1]]
    times = []
    for _ in range(repeat):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([*command, "-o", paths[2], "--overwrite"], capture_output=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return figures | {"whole command": statistics.median(times)}


def main() -> None:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--fill", nargs=3, type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("out/bench"))
    arguments = parser.parse_args()
    if arguments.fill:
        fill(*arguments.fill, arguments.repeat)
        return
    folder = arguments.out / "photo"
    folder.mkdir(parents=True, exist_ok=True)
    figures = {}
    for name, size, third in (
        ("512x512, hole 200x200", (512, 512), False),
        ("4000x3000, hole 200x200", (4000, 3000), False),
        ("4000x3000, hole of a third", (4000, 3000), True),
    ):
        photo, mask = folder / f"{size[0]}.jpg", folder / f"{size[0]}-{third}.png"
        make_photo(*size).save(photo, quality=92)
        make_hole(*size, third=third).save(mask)
        out = folder / f"{size[0]}-{third}.jpg"
        found = measure(photo, mask, out, 1 if third else arguments.repeat)
        figures |= {f"{name}, {key}": value for key, value in found.items()}
    for what in ("filling", "whole command"):
        large, small = (f"{s}, hole 200x200, {what}" for s in ("4000x3000", "512x512"))
        ratio = figures[large] / figures[small]
        figures[f"4000x3000 / 512x512, hole 200x200, {what}"] = ratio
    lines = ["| figure | measured | target |", "| --- | ---: | ---: |"]
    for name, value in figures.items():
        unit = "" if "GB" in name or "/" in name else ", CPU seconds"
        target = f"< {TARGETS[name]:g}" if name in TARGETS else ""
        lines.append(f"| {name}{unit} | {value:.2f} | {target} |")
    table = "\n".join(lines) + "\n"
    for name, text in (("photo.json", json.dumps(figures, indent=2)), ("photo.md", table)):
        with atomic_path(arguments.out / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
    print(table)


if __name__ == "__main__":
    main()
