"""Training from shards in a bucket by two processes, one of which is killed on the way.

    python benchmarks/bench_bucket_training.py

``torchrun`` starts two processes that train on shards of an S3 server on this machine. The second
time one of them is killed with SIGKILL, torchrun starts both again, and they go on from the
checkpoint. Both runs have to end with the same numbers, to the last bit. Saves
``out/bench/bucket-training.json``.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from bench_cluster import descendants
from buckets import BUCKET, bucket, write_shards

from regionnorm.files.whole import atomic_path

TINY = {
    "options.width": 4,
    "options.blocks": 1,
    "size": 32,
    "batch": 2,
    "workers": 1,
    "save_every": 10,
    "log_every": 1,
    "sample_every": 1000,
    "accelerator": "cpu",
    "strategy": "ddp",
    "devices": 2,
    "losses.perceptual": 0,
    "losses.style": 0,
    "losses.feature_distance": 0,
}


def main() -> int:
    """Train twice, compare and save; 1 if the runs differ."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--out", type=Path, default=Path("out/bench/bucket-training.json"))
    arguments = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    with bucket(), tempfile.TemporaryDirectory() as folder:
        write_shards(64, shards=4)
        whole, killed = Path(folder, "whole"), Path(folder, "killed")
        figures: dict[str, Any] = {"steps": arguments.steps}
        figures["uninterrupted: seconds"] = run(whole, arguments.steps)
        figures["killed: seconds"] = run(killed, arguments.steps, kill_at=arguments.steps * 6 // 10)
        figures["starts of the killed run"] = len(starts(killed))
        figures["same to the last bit"] = same(whole, killed)
    for name, value in figures.items():
        print(f"{name:<28} {value}")
    with atomic_path(arguments.out) as temporary:
        temporary.write_text(json.dumps(figures, indent=2), encoding="utf-8")
    return int(not figures["same to the last bit"] or figures["starts of the killed run"] < 2)


def run(out: Path, steps: int, kill_at: int | None = None) -> float:
    """Seconds that a run takes, one of whose processes is killed once a step is reached."""
    settings = {**TINY, "steps": steps}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command += ["--max-restarts=2", "-m", "regionnorm", "train", "default", "--resume"]
    command += ["--data", f"{BUCKET}/shards", "--out", str(out)]
    command += [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    start = time.monotonic()
    out.mkdir()
    with (
        (out / "output.txt").open("wb") as log,
        subprocess.Popen(command, stdout=log, stderr=log) as process,
    ):
        while kill_at is not None and reached(out) < kill_at:
            if process.poll() is not None:
                break
            time.sleep(0.05)
        if kill_at is not None and process.poll() is None:
            os.kill(trainer(process.pid), signal.SIGKILL)
        code = process.wait()
    if code:
        raise RuntimeError((out / "output.txt").read_text()[-3000:])
    return round(time.monotonic() - start, 1)


def reached(out: Path) -> int:
    """The last step that the log knows."""
    log = out / "log.csv"
    lines = log.read_text().split() if log.exists() else []
    steps = [line.split(",")[0] for line in lines]
    return max((int(step) for step in steps if step.isdigit()), default=0)


def trainer(root: int) -> int:
    """One of the two processes that train, not the one that logs."""
    for pid in descendants(root):
        environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        if b"LOCAL_RANK=1" in environment:
            return pid
    raise RuntimeError("there is no second process")


def starts(out: Path) -> list[str]:
    """What the run said at each of its starts."""
    text = (out / "output.txt").read_text()
    return [line for line in text.splitlines() if "photos to train on" in line]


def same(one: Path, other: Path) -> bool:
    """Whether two runs' checkpoints hold the same numbers."""
    states = [torch.load(out / "checkpoint.pt", weights_only=True) for out in (one, other)]
    for state in states:
        state.pop("time")
    return equal(*states)


def equal(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(equal, one, other))
    return bool(one == other)


if __name__ == "__main__":
    sys.exit(main())
