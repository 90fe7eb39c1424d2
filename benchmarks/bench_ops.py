"""Speed and memory of the normalisation layers on the CPU, as ratios to PyTorch's own.

All candidates of a shape are measured in turns in one process; a figure is the ratio of medians.
Saves ``out/bench/ops.json`` and ``out/bench/ops.md``.

    python benchmarks/bench_ops.py
    python benchmarks/bench_ops.py --dtype bfloat16 --layout channels_last --threads 1
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from regionnorm import ops
from regionnorm.nn.region_norm import LearnableRegionNorm2d, RegionNorm2d

SHAPES = {
    "S1": (4, 64, 256, 256),
    "S2": (4, 128, 128, 128),
    "S3": (4, 256, 64, 64),
    "S4": (1, 256, 64, 64),
}
LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
# What the figures are held against: (direction, shape, candidate, peer) -> the most it may be.
TARGETS = {
    **{("forward", shape, "RN-B", "InstanceNorm"): 0.6 for shape in SHAPES},
    ("forward", "S1", "RN-B", "clone"): 1.4,
    **{("both", shape, "RN-B", "InstanceNorm"): 0.8 for shape in ("S1", "S2", "S3")},
    **{("forward", shape, "RN-L", "InstanceNorm"): 1.0 for shape in ("S1", "S2", "S3")},
    ("memory", "S1", "RN-B", "InstanceNorm"): 1.1,
}
Row = dict[str, Any]


def irregular_mask(samples: int, height: int, width: int) -> Tensor:
    """About half hole, with a wavy border: bool ``[N, 1, H, W]``."""
    y, x = torch.meshgrid(torch.linspace(0, 9, height), torch.linspace(0, 9, width), indexing="ij")
    waves = torch.stack([torch.sin(x * 1.3 + n) + torch.cos(y * 1.7 - n) for n in range(samples)])
    return (waves > waves.median())[:, None]


def two_batch_norms(x: Tensor, mask: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """RN-B the straightforward way: each region's map, filled with its mean, through a norm."""
    result = torch.zeros_like(x)
    for k, region in enumerate((~mask, mask)):
        inside = region.to(x.dtype)
        share = inside.sum((0, 2, 3), keepdim=True) / (inside.numel())
        mean = (x * inside).mean((0, 2, 3), keepdim=True) / share.clamp(min=1e-6)
        filled = x * inside + mean * (1 - inside)
        normal = nn.functional.batch_norm(filled, None, None, training=True)
        normal = normal * share.sqrt() * inside
        scale, shift = (p[k].view(1, -1, 1, 1).to(x.dtype) for p in (weight, bias))
        result = result + (normal * scale + shift) * inside
    return result.relu()


def candidates(name: str, dtype: torch.dtype, layout: str) -> tuple[Tensor, dict[str, Any]]:
    """Features of a named shape, and the functions that normalise them."""
    shape = SHAPES[name]
    torch.manual_seed(0)
    x = torch.randn(shape, dtype=dtype).to(memory_format=LAYOUTS[layout])
    mask = irregular_mask(shape[0], *shape[2:])
    instance = nn.Sequential(nn.InstanceNorm2d(shape[1], affine=True), nn.ReLU()).to(dtype)
    rn_b = RegionNorm2d(shape[1], activation="relu")
    rn_l = LearnableRegionNorm2d(shape[1], activation="relu")
    assert rn_b.weight is not None and rn_b.bias is not None
    weight, bias = rn_b.weight, rn_b.bias
    functions: dict[str, Callable[[Tensor], Tensor]] = {
        "clone": lambda x: x.clone(),
        "InstanceNorm": instance,
        "RN-B": lambda x: rn_b(x, mask),
        "RN-L": rn_l,
        "two batch norms": lambda x: two_batch_norms(x, mask, weight, bias),
        "channel_mean_max": ops.channel_mean_max,
    }
    return x, functions


def medians(functions: dict[str, Callable[[], Any]], repeat: int) -> dict[str, float]:
    """Median seconds of each function; they run in turns, so that all see the same machine."""
    times: dict[str, list[float]] = {name: [] for name in functions}
    gc.collect()
    gc.disable()
    for turn in range(repeat + 2):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            if turn >= 2:  # the first turns compile kernels and fill caches
                times[name].append(time.perf_counter() - start)
    gc.enable()
    return {name: statistics.median(values) for name, values in times.items()}


def forward_times(name: str, dtype: torch.dtype, layout: str, repeat: int) -> dict[str, float]:
    x, functions = candidates(name, dtype, layout)

    def call(function: Callable[[Tensor], Tensor]) -> Callable[[], Tensor]:
        return torch.no_grad()(lambda: function(x))

    return medians({key: call(function) for key, function in functions.items()}, repeat)


def both_times(name: str, dtype: torch.dtype, layout: str, repeat: int) -> dict[str, float]:
    x, functions = candidates(name, dtype, layout)
    x.requires_grad_()
    grad = torch.randn_like(x)

    def call(function: Callable[[Tensor], Tensor]) -> Callable[[], None]:
        def run() -> None:
            function(x).backward(grad)
            x.grad = None

        return run

    names = ("InstanceNorm", "RN-B", "RN-L", "two batch norms")
    return medians({key: call(functions[key]) for key in names}, repeat)


def peak_memory(name: str, candidate: str, dtype: str, layout: str) -> float:
    """Bytes by which a forward and a backward pass raise the peak of a fresh process."""
    command = [sys.executable, __file__, "--peak", f"{name},{candidate}"]
    command += ["--dtype", dtype, "--layout", layout]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def report_peak(name: str, candidate: str, dtype: torch.dtype, layout: str) -> None:
    """The other side of ``peak_memory``. A small call first pays for code and threads."""
    shape = SHAPES[name]
    SHAPES[name] = (1, shape[1], 16, 16)
    x, functions = candidates(name, dtype, layout)
    functions[candidate](x.requires_grad_()).sum().backward()
    SHAPES[name] = shape
    x, functions = candidates(name, dtype, layout)
    x.requires_grad_()
    grad = torch.randn_like(x)
    before = high_water()
    functions[candidate](x).backward(grad)
    print(high_water() - before)


def high_water() -> int:
    """Most bytes this process ever held (Linux; ``ru_maxrss`` would include its parent's)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise OSError("/proc/self/status has no VmHWM; peak memory needs Linux")


def rows_of(direction: str, name: str, times: dict[str, float]) -> list[Row]:
    """Ratios of the own layers to the peers."""
    rows = []
    for candidate in ("RN-B", "RN-L", "channel_mean_max"):
        for peer in ("InstanceNorm", "clone", "two batch norms"):
            if candidate in times and peer in times:
                ratio = times[candidate] / times[peer]
                target = TARGETS.get((direction, name, candidate, peer))
                rows.append(
                    {
                        "direction": direction,
                        "shape": name,
                        "candidate": candidate,
                        "peer": peer,
                        "ratio": round(ratio, 3),
                        "target": target,
                        "met": None if target is None else ratio <= target,
                        "candidate_ms": round(times[candidate] * 1e3, 3),
                        "peer_ms": round(times[peer] * 1e3, 3),
                    }
                )
    return rows


def measure(arguments: argparse.Namespace) -> list[Row]:
    dtype, layout = getattr(torch, arguments.dtype), arguments.layout
    rows: list[Row] = []
    for name in arguments.shapes.split(","):
        for direction, times in (("forward", forward_times), ("both", both_times)):
            rows += rows_of(direction, name, times(name, dtype, layout, arguments.repeat))
            print_rows(rows[-9:], direction, name)
    peaks = {
        candidate: peak_memory("S1", candidate, arguments.dtype, layout)
        for candidate in ("InstanceNorm", "RN-B", "RN-L")
    }
    for row in rows_of("memory", "S1", peaks):
        row["candidate_mb"] = round(row.pop("candidate_ms") / 1e9, 1)
        row["peer_mb"] = round(row.pop("peer_ms") / 1e9, 1)
        rows.append(row)
    print_rows(rows, "memory", "S1")
    return rows


def print_rows(rows: list[Row], direction: str, name: str) -> None:
    for row in rows:
        if row["direction"] == direction and row["shape"] == name:
            print("  ".join(cells(row)), flush=True)


def cells(row: Row) -> list[str]:
    verdict = {None: "", True: "met", False: "MISSED"}[row["met"]]
    target = "" if row["target"] is None else f"<= {row['target']}"
    label = {"forward": "forward", "both": "forward + backward", "memory": "peak memory"}
    return [
        f"{label[row['direction']]:18}",
        row["shape"],
        f"{row['candidate']:16}",
        f"/ {row['peer']:15}",
        f"{row['ratio']:6.2f}",
        f"{target:6}",
        verdict,
    ]


def machine() -> dict[str, Any]:
    model = platform.processor()
    for line in Path("/proc/cpuinfo").read_text().splitlines() if os.name == "posix" else ():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    return {"processor": model, "threads": torch.get_num_threads(), "torch": torch.__version__}


def save(rows: list[Row], arguments: argparse.Namespace) -> None:
    about = {**machine(), "dtype": arguments.dtype, "layout": arguments.layout}
    suffix = (
        ""
        if (arguments.dtype, arguments.layout) == ("float32", "contiguous")
        else (f"-{arguments.dtype}-{arguments.layout}")
    )
    folder = arguments.out
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"ops{suffix}.json").write_text(json.dumps({"about": about, "rows": rows}, indent=1))
    lines = [", ".join(f"{key} {value}" for key, value in about.items()), ""]
    lines += ["| what | shape | layer | to | ratio | target | |", "|---|---|---|---|---|---|---|"]
    lines += ["| " + " | ".join(cell.strip() for cell in cells(row)) + " |" for row in rows]
    (folder / f"ops{suffix}.md").write_text("\n".join(lines) + "\n")
    print(f"saved {folder / f'ops{suffix}.md'}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--layout", default="contiguous", choices=list(LAYOUTS))
    parser.add_argument("--shapes", default=",".join(SHAPES))
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeat", type=int, default=15)
    parser.add_argument("--out", type=Path, default=Path("out/bench"))
    parser.add_argument("--peak", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.peak:
        name, candidate = arguments.peak.split(",")
        report_peak(name, candidate, getattr(torch, arguments.dtype), arguments.layout)
        return
    print(", ".join(f"{key} {value}" for key, value in machine().items()), arguments.dtype)
    save(measure(arguments), arguments)


if __name__ == "__main__":
    main()
