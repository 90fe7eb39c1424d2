"""Small-budget search: every candidate trains for the same processor time, then is measured.

    python benchmarks/search.py losses --data 'photos/*.tar' --val val/ --out out/search

A candidate is the `default` recipe with a few values changed. Its steps are chosen so that all
candidates of a group take the same processor seconds; its learning rate falls to zero over just
these steps. What is done already is not done again, so that a stopped search goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from regionnorm.data import open_source
from regionnorm.files.whole import atomic_path
from regionnorm.measuring.evaluate import evaluate, resolve_model
from regionnorm.measuring.perceptual import make_metrics

CALIBRATION = (4, 16)  # steps of two short runs; their difference has no start-up in it

Settings = dict[str, str]

# What a VGG-19 cut off after relu3_1 has.
_LAYERS: Settings = {"losses.perceptual_layers": "relu1_1,relu2_1,relu3_1"}

# Group: what all its candidates share, then what each changes.
GROUPS: dict[str, tuple[Settings, dict[str, Settings]]] = {
    "losses": (
        {"init": "default", "size": "128", "batch": "8", "lr": "2e-4", "ema": "0.98"},
        {
            "l1 alone": {},
            "feature distance 0.1": {"losses.feature_distance": "0.1"},
            "feature distance 0.3": {"losses.feature_distance": "0.3"},
            "feature distance 1": {"losses.feature_distance": "1"},
            "perceptual 0.02": {"losses.perceptual": "0.02", **_LAYERS},
            "perceptual 0.1": {"losses.perceptual": "0.1", **_LAYERS},
            "perceptual 0.1, style 1": {
                "losses.perceptual": "0.1",
                **_LAYERS,
                "losses.style": "1",
                "losses.style_layers": "relu1_1,relu2_1,relu3_1",
            },
            "adversarial 0.01": {"losses.adversarial": "0.01", "lr_discriminator": "2e-4"},
            "adversarial 0.1": {"losses.adversarial": "0.1", "lr_discriminator": "2e-4"},
        },
    ),
    "scratch": (
        {"size": "96", "batch": "8", "ema": "0.98"},
        {
            "width 32, 96 px x 8, lr 5e-4": {},
            "width 16": {"options.width": "16"},
            "width 48": {"options.width": "48"},
            "4 blocks": {"options.blocks": "4"},
            "64 px x 18": {"size": "64", "batch": "18"},
            "128 px x 4": {"size": "128", "batch": "4"},
            "192 px x 2": {"size": "192", "batch": "2"},
            "batch 16": {"batch": "16"},
            "batch 4": {"batch": "4"},
            "lr 2e-4": {"lr": "2e-4"},
            "lr 1e-3": {"lr": "1e-3"},
            "constant lr": {"schedule": "constant"},
            "prefill constant": {"options.prefill": "constant"},
            "stats batch": {"options.stats": "batch"},
            "threshold 0.5": {"options.threshold": "0.5"},
            "RN-B everywhere (arch 3)": {"model": "rn-arch3"},
            "RN-L everywhere (arch 6)": {"model": "rn-arch6"},
            "small holes (max_area 0.3)": {"max_area": "0.3"},
            "l1 unweighted": {"losses.reconstruction": "l1"},
        },
    ),
    # What the default network and its training are made of, one thing changed at a time.
    "choices": (
        {"size": "128", "batch": "6", "ema": "0.98"},
        {
            "default": {},
            "statistics of the photo": {
                "options.stats": "instance",
                "options.track_running_stats": "false",
            },
            "no norm": {"model": "baseline-none"},
            "RN-B everywhere (arch 3)": {"model": "rn-arch3"},
            "no thin masks": {"thin": "0"},
            "thin masks 0.6": {"thin": "0.6"},
            "holes of 30 % at most": {"max_area": "0.3"},
            "96 px x 11": {"size": "96", "batch": "11"},
            "192 px x 3": {"size": "192", "batch": "3"},
            "256 px x 2": {"size": "256", "batch": "2"},
            "prefill constant": {"options.prefill": "constant"},
        },
    ),
    # The paper's network with the paper's four normalisations (Table 3), at a small scale.
    "norms": (
        {
            "size": "96",
            "batch": "8",
            "ema": "0.98",
            "options.width": "16",
            "options.prefill": "constant",
        },
        {
            "RN": {},
            "IN": {"model": "baseline-in"},
            "BN": {"model": "baseline-bn"},
            "none": {"model": "baseline-none"},
        },
    ),
}
INTERVALS = ((0.0, 0.1), (0.1, 0.2), (0.3, 0.4), (0.5, 0.6))
METRICS = ("psnr", "ssim", "l1", "feature_distance")


def main() -> None:
    """Train every candidate of a group, then print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("group", choices=GROUPS)
    parser.add_argument("--data", required=True)
    parser.add_argument("--val", required=True)
    parser.add_argument("--out", type=Path, default=Path("out/search"))
    parser.add_argument("--seconds", type=float, default=240, help="of the processor, a candidate")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--only", nargs="*", help="candidates; by default all of the group")
    parser.add_argument("--limit", type=int, default=32, help="validation photos")
    args = parser.parse_args()
    os.environ |= {"OMP_NUM_THREADS": str(args.threads), "NUMBA_NUM_THREADS": str(args.threads)}
    torch.set_num_threads(args.threads)
    shared, candidates = GROUPS[args.group]
    chosen = {name: value for name, value in candidates.items() if name in (args.only or [name])}
    table = [HEADER]
    for seed in args.seeds:
        for name, changes in chosen.items():
            folder = args.out / args.group / f"{slug(name)}-{seed}"
            train_candidate(name, {**shared, **changes, "seed": str(seed)}, folder, args)
            measure_candidate(folder, args)
    for name in chosen:
        folders = [args.out / args.group / f"{slug(name)}-{seed}" for seed in args.seeds]
        table.append(row(name, [json.loads((f / RECORD).read_text()) for f in folders]))
    text = "\n".join(table) + "\n"
    with atomic_path(args.out / f"{args.group}.md") as temporary:
        temporary.write_text(text, encoding="utf-8")
    print(text)


RECORD = "search.json"
_RANGES = " / ".join(f"{100 * low:.0f}-{100 * high:.0f}" for low, high in INTERVALS)
HEADER = f"""\
| candidate | steps | PSNR, dB {_RANGES} % | all | SSIM | l1, % | feature distance |
| --- | ---: | ---: | ---: | ---: | ---: | ---: |"""


def measure_candidate(folder: Path, args: argparse.Namespace) -> None:
    """Measure a candidate's averaged weights on the validation photos, once."""
    record = folder / RECORD
    content = json.loads(record.read_text())
    if "psnr" in content:
        return
    _, filler = resolve_model(str(folder / "weights.safetensors"), "cpu")
    report = evaluate(
        {"model": filler},
        open_source(args.val),
        intervals=INTERVALS,
        limit=args.limit,
        further=make_metrics(["feature_distance"]),
    )
    for name in METRICS:
        content[name] = [estimate.get(name).mean for estimate in report.rows]
    write_record(record, content)


def row(name: str, records: list[dict[str, Any]]) -> str:
    """A line of the table: means over seeds, and with several seeds their spread."""

    def show(metric: str, position: int, digits: int) -> str:
        values = [record[metric][position] for record in records]
        text = f"{statistics.mean(values):.{digits}f}"
        return text + (f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else "")

    steps = round(statistics.mean(record["steps"] for record in records))
    by_interval = " / ".join(show("psnr", position, 2) for position in range(len(INTERVALS)))
    rest = [show("psnr", -1, 2), show("ssim", -1, 4), show("l1", -1, 2)]
    rest.append(show("feature_distance", -1, 4))
    return f"| {name} | {steps} | {by_interval} | {' | '.join(rest)} |"


def write_record(path: Path, content: dict[str, Any]) -> None:
    """Save what is known of a candidate."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def slug(name: str) -> str:
    """A candidate's name as a folder's."""
    return "".join(c if c.isalnum() or c == "." else "-" for c in name)


def train_candidate(name: str, settings: Settings, folder: Path, args: argparse.Namespace) -> None:
    """Train one candidate, unless its record says that this is done."""
    record = folder / RECORD
    if record.exists():
        return
    short, long = (
        processor_seconds(settings, steps, folder.with_name(f"{folder.name}.calibration"), args)
        for steps in CALIBRATION
    )
    each = (long - short) / (CALIBRATION[1] - CALIBRATION[0])
    steps = max(20, int(args.seconds / each))
    total = processor_seconds(settings, steps, folder, args)
    content = {"name": name, "settings": settings, "steps": steps, "seconds": total - short}
    write_record(record, content)
    print(f"{name}: {steps} steps, {each:.3f} s each", flush=True)


def processor_seconds(
    settings: Settings, steps: int, folder: Path, args: argparse.Namespace
) -> float:
    """Run `regionnorm train` for some steps; processor seconds that it took, start-up included."""
    values = {
        **settings,
        "steps": str(steps),
        "warmup": str(min(50, steps // 4)),
        "workers": "0",
        "save_every": str(steps),
        "sample_every": str(steps),
    }
    command = [sys.executable, "-m", "regionnorm", "train", "default", "--data", args.data]
    command += ["--out", str(folder), *(f"--set={key}={value}" for key, value in values.items())]
    (folder / "checkpoint.pt").unlink(missing_ok=True)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    run = subprocess.run(
        command, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    if run.returncode != 0:
        raise SystemExit(f"{' '.join(command)}\nfailed:\n{run.stderr[-2000:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    main()
