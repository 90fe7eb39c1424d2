"""Time the GPU kernels against InstanceNorm2d + ReLU and against one copy of the features.

All candidates of a row run in turns in this process; a figure is the median of many device times.
Before each run the second-level cache is overwritten, so features come from memory, and the GPU is
kept busy for a moment, so the time the CPU takes to launch does not count.

Run as ``python benchmarks/bench_gpu.py [--repeats 100] [--out out/bench]``.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from regionnorm import LearnableRegionNorm2d, RegionNorm2d
from regionnorm.ops.backend import backend

SHAPES = {
    "S1": (4, 64, 256, 256),
    "S2": (4, 128, 128, 128),
    "S3": (4, 256, 64, 64),
    "S4": (1, 256, 64, 64),
}
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
FORMATS = {"contiguous": torch.contiguous_format, "channels-last": torch.channels_last}
CACHE_BYTES = 1 << 28  # more than any GPU's second-level cache
SLEEP_CYCLES = 5_000_000  # some milliseconds: longer than it takes to launch a candidate
PEER = "instance norm + relu"

Run = Callable[[], object]


@dataclass(frozen=True)
class Row:
    """Times of one pass over features of one kind, in milliseconds."""

    shape: str
    dtype: str
    memory_format: str
    direction: str
    milliseconds: dict[str, float]
    peak_mebibytes: dict[str, float]

    def ratio(self, name: str, to: str = PEER) -> float:
        """Time of a candidate over that of another."""
        return self.milliseconds[name] / self.milliseconds[to]


def irregular_mask(samples: int, size: int) -> Tensor:
    """Half a hole with a wavy border, ``[N, 1, S, S]``."""
    y, x = torch.meshgrid(torch.linspace(-1, 1, size), torch.linspace(-1, 1, size), indexing="ij")
    holes = [(y + 0.4 * torch.sin(5 * x + i) > 0).float() for i in range(samples)]
    return torch.stack(holes)[:, None]


def candidates(x: Tensor, mask: Tensor) -> dict[str, Callable[[Tensor], Tensor]]:
    """Layers to compare, each called with the features."""
    channels, device, dtype = x.shape[1], x.device, x.dtype
    peer = nn.InstanceNorm2d(channels, affine=True, device=device, dtype=dtype)
    given = RegionNorm2d(channels, activation="relu").to(device)
    found = LearnableRegionNorm2d(channels, activation="relu").to(device, dtype)

    def plain(features: Tensor) -> Tensor:
        with backend("plain"):
            result: Tensor = given(features, mask)
        return result

    return {
        PEER: lambda features: torch.relu(peer(features)),
        "rn-b": lambda features: given(features, mask),
        "rn-l": found,
        "rn-b plain": plain,
        "clone": torch.clone,
    }


def median_times(runs: dict[str, Run], repeats: int) -> dict[str, float]:
    """Median device time of each run in milliseconds, taken in turns."""
    scratch = torch.empty(CACHE_BYTES, dtype=torch.uint8, device="cuda")
    times: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(repeats + 5):
        for name, run in runs.items():
            scratch.zero_()
            torch.cuda._sleep(SLEEP_CYCLES)
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            run()
            end.record()
            torch.cuda.synchronize()
            if turn >= 5:  # the first turns compile and warm up
                times[name].append(start.elapsed_time(end))
    return {name: statistics.median(values) for name, values in times.items()}


def peak_memory(run: Run) -> float:
    """Most memory that a run takes beyond what is there before it, in MiB."""
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    run()
    torch.cuda.synchronize()
    return (torch.cuda.max_memory_allocated() - before) / 2**20


def forward(layer: Callable[[Tensor], Tensor], x: Tensor) -> Run:
    def run() -> Tensor:
        with torch.no_grad():
            return layer(x)

    return run


def forward_backward(layer: Callable[[Tensor], Tensor], x: Tensor, grad: Tensor) -> Run:
    leaf = x.detach().requires_grad_()

    def run() -> None:
        leaf.grad = None
        layer(leaf).backward(grad)

    return run


def measure(shape: str, dtype: str, memory_format: str, repeats: int) -> list[Row]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(SHAPES[shape], generator=generator).to("cuda", DTYPES[dtype])
    x = x.to(memory_format=FORMATS[memory_format])
    mask = irregular_mask(x.shape[0], x.shape[2]).to("cuda")
    layers = candidates(x, mask)
    grad = torch.randn_like(x)
    passes: dict[str, dict[str, Run]] = {
        "forward": {name: forward(layer, x) for name, layer in layers.items()},
        "forward + backward": {
            name: forward_backward(layer, x, grad) for name, layer in layers.items()
        },
    }
    rows = []
    for direction, runs in passes.items():
        times = median_times(runs, repeats)
        memory = {name: peak_memory(run) for name, run in runs.items()}
        rows.append(Row(shape, dtype, memory_format, direction, times, memory))
    return rows


HEADINGS = (
    "| shape | dtype | format | pass | IN + ReLU ms | RN-B / IN | RN-L / IN | RN-B / clone "
    "| RN-B / plain | RN-B memory / IN |\n" + "|---" * 10 + "|"
)


def table_line(row: Row) -> str:
    peer_memory = max(row.peak_mebibytes[PEER], 1e-9)
    figures = (
        f"{row.milliseconds[PEER]:.3f}",
        f"{row.ratio('rn-b'):.2f}",
        f"{row.ratio('rn-l'):.2f}",
        f"{row.ratio('rn-b', 'clone'):.2f}",
        f"{row.ratio('rn-b', 'rn-b plain'):.2f}",
        f"{row.peak_mebibytes['rn-b'] / peer_memory:.2f}",
    )
    return (
        "| " + " | ".join((row.shape, row.dtype, row.memory_format, row.direction, *figures)) + " |"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--repeats", type=int, default=100)
    parser.add_argument("--out", type=Path, default=Path("out/bench"))
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        print("no GPU here (torch.cuda.is_available() is false): nothing was timed")
        return 0
    gpu = f"{torch.cuda.get_device_name()}, PyTorch {torch.__version__}"
    print(gpu)
    print(HEADINGS)
    rows: list[Row] = []
    for shape in SHAPES:
        for dtype in DTYPES:
            for memory_format in FORMATS:
                for row in measure(shape, dtype, memory_format, arguments.repeats):
                    rows.append(row)
                    print(table_line(row), flush=True)
    arguments.out.mkdir(parents=True, exist_ok=True)
    report = {"machine": gpu, "rows": [asdict(row) for row in rows]}
    (arguments.out / "gpu.json").write_text(json.dumps(report, indent=2) + "\n")
    lines = [gpu, "", HEADINGS, *(table_line(row) for row in rows)]
    (arguments.out / "gpu.md").write_text("\n".join(lines) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
