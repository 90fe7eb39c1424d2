"""Who fills: this package, and other programs that happen to be installed.

A filler takes cases and a folder, writes a PNG of each case's name there, and yields the seconds
that each took, start-up left out. Other programs run in processes of their own.
"""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image
from removal.cases import Case

import regionnorm as rn
from regionnorm.files.whole import atomic_path
from regionnorm.filling.classical import classical_filler
from regionnorm.imaging import (
    image_to_tensor,
    mask_to_tensor,
    tensor_to_image,
    write_image,
)

Fill = Callable[[Sequence[Case], Path], Iterator[float]]
OURS = "ours"
_HERE = Path(__file__).parent
_TIMEOUT = 600  # seconds that another program may take for one case


def fillers(model: str | None, peers_python: Path | None) -> dict[str, Fill]:
    """Name to filler: those of this package, then each other program that is found."""
    found: dict[str, Fill] = {
        OURS: partial(_fill_ours, rn.Inpainter(model)),
        "network": partial(_fill_ours, rn.Inpainter(model, method="network")),
        "ns": _fill_ns,
    }
    if peers_python is not None:
        found["pypatchmatch"] = partial(_fill_pypatchmatch, peers_python)
    if shutil.which("gmic"):
        found["gmic"] = _fill_gmic
    if shutil.which("gimp-console") and _gimp_knows("plug-in-resynthesizer"):
        found["resynthesizer"] = _fill_resynthesizer
    return found


def fill_missing(name: str, fill: Fill, cases: Sequence[Case], folder: Path) -> dict[str, float]:
    """Fill what ``folder`` does not hold yet; seconds by case, those of earlier runs too."""
    folder.mkdir(parents=True, exist_ok=True)
    record = folder / "seconds.json"
    seconds: dict[str, float] = json.loads(record.read_text("utf-8")) if record.is_file() else {}
    missing = [c for c in cases if c.name not in seconds or not target(folder, c).is_file()]
    for case, taken in zip(missing, fill(missing, folder) if missing else (), strict=True):
        file = target(folder, case)
        write_image(Image.fromarray(case.filled(file)), file)
        seconds[case.name] = round(taken, 4)
        with atomic_path(record) as temporary:
            temporary.write_text(json.dumps(seconds, indent=0), encoding="utf-8")
        print(f"{name} {case.name}: {taken:.2f} s", flush=True)
    return seconds


def target(folder: Path, case: Case) -> Path:
    """Where a case's fill lies."""
    return folder / f"{case.name}.png"


# --- this package ---------------------------------------------------------------------------------


def _fill_ours(inpainter: rn.Inpainter, cases: Sequence[Case], folder: Path) -> Iterator[float]:
    _warm_up(inpainter)
    for case in cases:
        shown, mask = Image.open(case.shown), Image.open(case.mask)
        shown.load(), mask.load()
        start = time.perf_counter()
        filled = inpainter(shown, mask)
        seconds = time.perf_counter() - start
        write_image(filled, target(folder, case))
        yield seconds


def _warm_up(inpainter: rn.Inpainter) -> None:
    """What only the first call does, as compiling, is start-up."""
    noise = np.random.default_rng(0).integers(0, 255, (256, 256, 3), dtype=np.uint8)
    hole = np.zeros((256, 256), bool)
    hole[96:160, 96:160] = True
    inpainter(noise, hole)


def _fill_ns(cases: Sequence[Case], folder: Path) -> Iterator[float]:
    filler = classical_filler("ns")
    for case in cases:
        shown, mask = image_to_tensor(Image.open(case.shown)), mask_to_tensor(case.hole())
        start = time.perf_counter()
        filled = filler(shown, mask)
        seconds = time.perf_counter() - start
        write_image(tensor_to_image(filled), target(folder, case))
        yield seconds


# --- other programs -------------------------------------------------------------------------------


def _fill_pypatchmatch(python: Path, cases: Sequence[Case], folder: Path) -> Iterator[float]:
    jobs = [[str(c.shown), str(c.mask), str(target(folder, c))] for c in cases]
    with tempfile.TemporaryDirectory() as place:
        file = Path(place) / "jobs.json"
        file.write_text(json.dumps(jobs), encoding="utf-8")
        yield from _answers([str(python), str(_HERE / "pypatchmatch_worker.py"), str(file)], "")


def _fill_gmic(cases: Sequence[Case], folder: Path) -> Iterator[float]:
    """Its multi-scale patch matching, as it comes; reading and writing alone is taken off."""
    for case in cases:
        read = ["gmic", str(case.shown), str(case.mask)]
        write = str(target(folder, case))
        idle = statistics.median(
            _seconds([*read, "+mul[0]", "1", "-output[2]", write]) for _ in range(3)
        )
        yield _seconds([*read, "+inpaint_matchpatch[0]", "[1]", "-output[2]", write]) - idle


def _fill_resynthesizer(cases: Sequence[Case], folder: Path) -> Iterator[float]:
    """Through GIMP, whose environment names the folder of the plug-in (``GIMP2_DIRECTORY``)."""
    calls = [
        f"(heal {_quoted(c.shown)} {_quoted(c.mask)} {_quoted(target(folder, c))})" for c in cases
    ]
    script = (_HERE / "resynthesizer.scm").read_text(encoding="utf-8")
    script = "\n".join([script, *calls, "(gimp-quit 0)\n"])
    yield from _answers(_GIMP, script)


_GIMP = ["gimp-console", "-i", "-d", "-f", "-s", "-b", "-"]


def _gimp_knows(procedure: str) -> bool:
    done = _run([*_GIMP[:-1], procedure, "-b", "(gimp-quit 0)"])
    return done.returncode == 0 and "unbound variable" not in done.stdout + done.stderr


def _quoted(path: Path) -> str:
    return json.dumps(str(path.resolve()))


def _answers(command: Sequence[str], script: str) -> Iterator[float]:
    """Seconds that a program prints, a line for each case.

    Raises:
        RuntimeError: It ends with an error.
    """
    with tempfile.TemporaryFile("w+", encoding="utf-8") as errors:
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True
        ) as process:
            assert process.stdin is not None and process.stdout is not None
            process.stdin.write(script)
            process.stdin.close()
            for line in process.stdout:
                try:
                    yield float(line.removeprefix("seconds "))
                except ValueError:
                    continue  # what the program says besides
        if process.returncode:
            errors.seek(0)
            said = errors.read().strip().splitlines() or ["nothing said"]
            raise RuntimeError(f"{command[0]} ended with {process.returncode}: {said[-1]}")


def _seconds(command: Sequence[str]) -> float:
    start = time.perf_counter()
    done = _run(command)
    if done.returncode:
        raise RuntimeError(f"{command[0]} ended with {done.returncode}: {done.stderr[-300:]}")
    return time.perf_counter() - start


def _run(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_TIMEOUT,
        check=False,
    )
