"""Many requests at once to the web app: all answered, none mixed up, and the memory it takes.

    python benchmarks/load_app.py --requests 50

The app runs in a process of its own. Every request brings a photo and a mask that no other has, and
every answer is compared with what the library makes of that photo. Saves ``out/bench/load.json``.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from gradio_client import Client, handle_file
from PIL import Image

import regionnorm as rn
from regionnorm.files.whole import atomic_path
from regionnorm.imaging import read_image, read_mask, write_image


def main() -> int:
    """Measure, print and save; 1 if an answer is wrong or missing."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--requests", type=int, default=50)
    parser.add_argument("--max-queue", type=int, default=64)
    parser.add_argument("--side", type=int, default=256, help="of the photos, in pixels")
    parser.add_argument("--model", default="default")
    parser.add_argument("--out", type=Path, default=Path("out/bench/load.json"))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(arguments, Path(folder))
    for name, value in figures.items():
        print(f"{name:<28} {value}")
    with atomic_path(arguments.out) as temporary:
        temporary.write_text(json.dumps(figures, indent=2), encoding="utf-8")
    return int(figures["mixed up or wrong"] + figures["failed"] > 0)


def measure(arguments: argparse.Namespace, folder: Path) -> dict[str, float]:
    """Send all requests at once and look at what comes back."""
    pairs = [make_pair(folder, index, arguments.side) for index in range(arguments.requests)]
    with app(arguments.model, arguments.max_queue) as (address, memory):
        client = Client(
            address,
            verbose=False,
            download_files=folder / "got",
            max_workers=arguments.requests,
            httpx_kwargs={"timeout": 600},
        )
        warm_up(client, pairs[0])
        idle = memory.now()
        start = time.perf_counter()
        jobs = [
            client.submit(handle_file(photo), handle_file(mask), api_name="/inpaint")
            for photo, mask in pairs
        ]
        answers = [outcome(job) for job in jobs]
        seconds = time.perf_counter() - start
        client.close()
    return judge(pairs, answers, arguments.model) | {
        "seconds": round(seconds, 1),
        "memory when idle, MB": round(idle),
        "largest memory, MB": round(memory.largest),
    }


def make_pair(folder: Path, index: int, side: int) -> tuple[Path, Path]:
    """A photo and a mask of sizes and contents that no other request has."""
    rng = np.random.default_rng(index)
    width, height = side + index, side + 2 * index
    coarse = Image.fromarray(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8))
    mask = Image.new("L", (width, height))
    left, top = (int(value) for value in rng.integers(side // 8, side // 2, 2))
    mask.paste(255, (left, top, left + side // 4, top + side // 3))
    photo, hole = folder / f"photo-{index}.png", folder / f"mask-{index}.png"
    write_image(coarse.resize((width, height), Image.Resampling.BICUBIC), photo)
    write_image(mask, hole)
    return photo, hole


def warm_up(client: Client, pair: tuple[Path, Path]) -> None:
    """The first fill compiles and allocates."""
    client.predict(*(handle_file(path) for path in pair), api_name="/inpaint")


def outcome(job: object) -> Path | str:
    """The file that came back, or what was said instead."""
    try:
        return Path(job.result(timeout=1800))
    except Exception as error:
        return str(error)


def judge(
    pairs: Sequence[tuple[Path, Path]], answers: Sequence[Path | str], model: str
) -> dict[str, float]:
    """Compare every answer with the library's own."""
    inpainter = rn.Inpainter(model)
    right = wrong = away = failed = 0
    for (photo, mask), answer in zip(pairs, answers, strict=True):
        if isinstance(answer, Path):
            expected = np.asarray(inpainter(read_image(photo), read_mask(mask)))
            same = np.array_equal(np.asarray(read_image(answer)), expected)
            right, wrong = right + same, wrong + (not same)
        elif "Queue is full" in answer:
            away += 1
        else:
            print(answer, file=sys.stderr)
            failed += 1
    return {
        "requests": len(pairs),
        "answered": right,
        "sent away politely": away,
        "failed": failed,
        "mixed up or wrong": wrong,
    }


@dataclass
class Memory:
    """Watches the memory of a process while a with block runs (Linux)."""

    process: int
    largest: float = 0
    stop: threading.Event = field(default_factory=threading.Event)

    def now(self) -> float:
        """Megabytes resident."""
        status = Path(f"/proc/{self.process}/statm").read_text(encoding="ascii")
        return int(status.split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6

    def watch(self) -> None:
        """Look ten times a second."""
        while not self.stop.wait(0.1):
            self.largest = max(self.largest, self.now())


@contextmanager
def app(model: str, max_queue: int) -> Iterator[tuple[str, Memory]]:
    """Run ``regionnorm app``; yields its address and its memory."""
    command = [sys.executable, "-u", "-m", "regionnorm", "app", "--port", "0", "--model", model]
    command += ["--max-queue", str(max_queue)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        line = process.stdout.readline() if process.stdout else ""
        found = re.search(r"http://\S+", line)
        if found is None:
            raise OSError(f"the app did not start: {line}")
        memory = Memory(process.pid)
        watcher = threading.Thread(target=memory.watch, daemon=True)
        watcher.start()
        try:
            yield found[0], memory
        finally:
            memory.stop.set()
            watcher.join()
            process.terminate()


if __name__ == "__main__":
    sys.exit(main())
