"""Every network as an ONNX file: how near its pictures are, and its time beside PyTorch's.

Published widths and random weights, and the weights that come with the package; one thread, CPU
seconds at 256x256, both sides in turns, the fastest of a few. Saves ``out/bench/export.json`` and
``out/bench/export.md``.

    python benchmarks/bench_export.py
    python benchmarks/bench_export.py default rn --repeat 5
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from regionnorm.checkpoints.onnx import load_onnx
from regionnorm.exporting.onnx import CHECKED, export, find_network
from regionnorm.files.whole import atomic_path
from regionnorm.models import list_models

SIDE = 256


def measure(name: str, folder: Path, repeat: int) -> dict[str, object]:
    """Export one network, hold it against the original, and time both."""
    torch.manual_seed(0)
    network = find_network(name)
    exported = export(network, folder / f"{name}.onnx")
    twin = load_onnx(exported.path)
    image, mask = torch.rand(1, 3, SIDE, SIDE), torch.zeros(1, 1, SIDE, SIDE)
    mask[..., 60:150, 80:200] = 1
    network.to(memory_format=torch.channels_last)
    seconds = {"PyTorch": [], "ONNX Runtime": []}
    with torch.inference_mode():
        for _ in range(repeat + 1):
            seconds["PyTorch"].append(timed(network, image, mask))
            seconds["ONNX Runtime"].append(timed(twin, image, mask))
    times = {key: min(values[1:]) for key, values in seconds.items()}
    return {
        "name": name,
        "differences": {f"{w}x{h}": d for (h, w), d in exported.differences.items()},
        "MB": exported.path.stat().st_size / 1e6,
        "seconds": times,
        "ratio": times["ONNX Runtime"] / times["PyTorch"],
    }


def timed(network: Callable[[Tensor, Tensor], Tensor], image: Tensor, mask: Tensor) -> float:
    start = time.process_time()
    network(image, mask)
    return time.process_time() - start


def table(rows: list[dict[str, object]]) -> str:
    sizes = [f"{width}x{height}" for height, width in CHECKED]
    lines = [
        f"| network | {' | '.join(sizes)} | MB | PyTorch, s | ONNX Runtime / PyTorch |",
        f"| --- |{' ---: |' * (len(sizes) + 3)}",
    ]
    for row in rows:
        found = " | ".join(f"{row['differences'][size]:.1e}" for size in sizes)
        seconds = row["seconds"]["PyTorch"]
        lines.append(
            f"| `{row['name']}` | {found} | {row['MB']:.1f} | {seconds:.2f} | {row['ratio']:.2f} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=["default", *list_models()])
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("out/bench"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name in arguments.names:
            rows.append(measure(name, Path(folder), arguments.repeat))
            print(table(rows).splitlines()[-1], flush=True)
            (Path(folder) / f"{name}.onnx").unlink()
    for suffix, text in (("json", json.dumps(rows, indent=2)), ("md", table(rows))):
        with atomic_path(arguments.out / f"export.{suffix}") as temporary:
            temporary.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
