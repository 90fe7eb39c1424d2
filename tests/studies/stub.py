"""Stands for `regionnorm` where a test is about processes, not about what they compute.

It leaves the files that the runner reads, a step every hundredth of a second. As long as a file
named ``hold`` lies in the run's folder, it stays at its first step.

python tests/studies/stub.py train RECIPE --resume --out RUN ...
python tests/studies/stub.py evaluate WEIGHTS --data DATA --limit N --report RUN ...
"""

from __future__ import annotations

import json
import signal
import sys
import time
from itertools import pairwise
from pathlib import Path


def train(recipe_file: str, run: Path) -> None:
    """Go on from the checkpoint to the recipe's last step; SIGTERM saves and ends."""
    recipe = json.loads(Path(recipe_file).read_text())
    if recipe["init"]:
        sys.exit(f"a warning\nError: {recipe['init']}: no such file")
    stopped = []
    signal.signal(signal.SIGTERM, lambda *_: stopped.append(True))
    checkpoint, log = run / "checkpoint.pt", run / "log.csv"
    step = steps_of(run) if checkpoint.exists() else 0
    if not step:
        log.write_text("step,name,value\n")
    while step < recipe["steps"]:
        step += 1
        with log.open("a") as file:
            file.write(f"{step},val/psnr,{20 + step}\n")
        save(checkpoint, {"step": step, "on_signal": False})
        while (run / "hold").exists() and not stopped:
            time.sleep(0.01)
        if stopped:
            time.sleep(1.5)  # who does not wait for the end finds what was saved before
            return save(checkpoint, {"step": step, "on_signal": True})
        time.sleep(0.01)
    (run / "weights.safetensors").write_text(f"of step {step}")


def evaluate(weights: str, photos: Path, limit: int, run: Path) -> None:
    """Report one fill for each photo."""
    assert Path(weights).exists()
    names = sorted(path.name for path in photos.iterdir())[:limit]
    estimate = {"mean": 25.0, "low": 24.0, "high": 26.0}
    row = {"model": "stub", "interval": [0.1, 0.2], "n": len(names), "difference": None}
    row |= {"psnr": estimate, "ssim": estimate, "l1": estimate, "extra": {}, "fid": None}
    cases = {"photo": names, "interval": [[0.1, 0.2]] * len(names), "area": [0.15] * len(names)}
    report = {"rows": [row], "cases": cases, "values": {}, "preset": "default", "size": 48}
    report |= {"masks": "", "difference_to": None, "skipped": []}
    (run / "report.json").write_text(json.dumps(report))


def save(path: Path, content: dict[str, object]) -> None:
    """Replace a file as a whole: tests read it meanwhile."""
    path.with_suffix(".new").write_text(json.dumps(content))
    path.with_suffix(".new").replace(path)


def read(run: Path) -> dict[str, int]:
    """A stub's checkpoint."""
    content: dict[str, int] = json.loads((run / "checkpoint.pt").read_text())
    return content


def steps_of(run: Path) -> int:
    """The step that was saved."""
    return read(run)["step"]


def main(command: str, subject: str, *options: str) -> None:
    """What the command line says."""
    given = dict(pairwise(options))
    if command == "train":
        train(subject, Path(given["--out"]))
    else:
        limit, run = int(given["--limit"]), Path(given["--report"])
        evaluate(subject, Path(given["--data"]), limit, run)


if __name__ == "__main__":
    main(*sys.argv[1:])
