"""Train and measure the runs of a study, each in processes of its own; resumable."""

from __future__ import annotations

import json
import os
import platform
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from regionnorm.imaging import atomic_path
from regionnorm.report import Report, interval_label
from regionnorm.studies.photos import StudyData
from regionnorm.studies.plan import Run, Scale
from regionnorm.studies.results import RESULT, Result, read_curve
from regionnorm.training.recipe import recipe_to_json

__all__ = ["RunFailedError", "Runner", "Status"]

_PLAN, _LOG, _CLOCK, _OWNER = "plan.json", "train.log", "seconds.json", "process.json"
_POLL_SECONDS = 0.3
_PACKAGES = ("regionnorm", "torch", "numpy", "lightning", "numba")

Status = Callable[[str, str, int, int], None]
"""``status(run, doing, step, steps)``: doing is ``"training"``, ``"measuring"`` or ``"done"``."""


class RunFailedError(OSError):
    """A run's process ended with an error; the message says where its log is."""


class _StoppedError(Exception):
    """Another run failed, or the user wants to stop."""


@dataclass
class Runner:
    """Brings runs to their results.

    Training and measuring are calls of ``regionnorm train`` and ``regionnorm evaluate``, so that
    Lightning can start as many processes as there are devices, and what one run does to its
    process touches no other.

    Args:
        out: Runs lie in ``out/runs``.
        scale: How they are measured.
        data: What they are trained and measured on.
        jobs: How many at once.
        status: Told what happens.
    """

    out: Path
    scale: Scale
    data: StudyData
    jobs: int = 1
    status: Status = lambda run, doing, step, steps: None
    _stop: threading.Event = field(default_factory=threading.Event, repr=False)

    @property
    def folder(self) -> Path:
        """Where the runs lie."""
        return self.out / "runs"

    def is_done(self, run: Run) -> bool:
        """Whether the run has its result.

        Raises:
            ValueError: Its folder holds a run with other settings.
        """
        self._check(run)
        return (self.folder / run.name / RESULT).is_file()

    def run_all(self, runs: Sequence[Run]) -> None:
        """Bring all to their results; those that have theirs are left alone.

        Ctrl-C and SIGTERM let running steps end and save.

        Raises:
            RunFailedError: A process failed; runs that were under way are saved.
            KeyboardInterrupt: Stopped by the user, likewise.
            ValueError: A run's folder holds another run, or there are no photos for it.
        """
        for run in runs:
            self.data.get(run.photos)
            self._check(run)
        before = signal.getsignal(signal.SIGTERM)
        in_main = threading.current_thread() is threading.main_thread()
        if in_main:
            signal.signal(signal.SIGTERM, _interrupt)
        try:
            with ThreadPoolExecutor(self.jobs) as pool:
                futures = [pool.submit(self._bring, run) for run in runs]
                try:
                    for future in futures:
                        future.result()
                except BaseException:
                    self._stop.set()
                    raise
        except _StoppedError as error:  # the run that failed comes later in the list
            for future in futures:
                cause = future.exception()
                if cause is not None and not isinstance(cause, _StoppedError):
                    raise cause from error
            raise
        finally:
            self._stop.clear()
            if in_main:
                signal.signal(signal.SIGTERM, before)

    # --- one run -----------------------------------------------------------------------------

    def _bring(self, run: Run) -> None:
        if self._stop.is_set():
            raise _StoppedError
        folder = self.folder / run.name
        if self.is_done(run):
            self.status(run.name, "done", run.recipe.steps, run.recipe.steps)
            return
        try:
            self._bring_to_result(run, folder)
        except BaseException:
            self._stop.set()
            raise

    def _bring_to_result(self, run: Run, folder: Path) -> None:
        _take_over(folder)
        self._write_plan(run, folder)
        photos = self.data.get(run.photos)
        train = ["train", str(folder / "recipe.json"), "--resume", "--out", str(folder)]
        train += ["--data", photos.train, "--val", photos.val]
        self._call(run, "training", train)
        measure = ["evaluate", str(folder / "weights.safetensors"), "--data", photos.val]
        measure += ["--size", str(self.scale.size), "--metric", "none", "--report", str(folder)]
        if self.scale.limit is not None:
            measure += ["--limit", str(self.scale.limit)]
        if self.data.masks is not None:
            measure += ["--masks", self.data.masks]
        self._call(run, "measuring", measure)
        self._result(run, folder).save(folder)
        self.status(run.name, "done", run.recipe.steps, run.recipe.steps)

    def _call(self, run: Run, doing: str, arguments: list[str]) -> None:
        """Run a command of this program to its end, or stop it where all are to stop."""
        folder, total = self.folder / run.name, run.recipe.steps
        threads = str(max(1, (os.cpu_count() or 1) // self.jobs))
        environment = os.environ | {"OMP_NUM_THREADS": threads, "NUMBA_NUM_THREADS": threads}
        began = time.monotonic()
        log = folder / _LOG
        with log.open("ab") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "regionnorm", *arguments],
                stdout=output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env=environment,
                # Ctrl-C reaches this process alone, which then stops the others in order.
                start_new_session=True,
            )
        (folder / _OWNER).write_text(json.dumps({"pid": process.pid, "study": os.getpid()}))
        try:
            while process.poll() is None:
                if self._stop.wait(_POLL_SECONDS):
                    raise _StoppedError
                self.status(run.name, doing, _last_step(folder), total)
        finally:
            _end(process)
            (folder / _OWNER).unlink(missing_ok=True)
            _add_seconds(folder, time.monotonic() - began)
        if process.returncode:
            raise RunFailedError(f"{run.name}: {doing} failed: {_last_line(log)} (see {log})")

    def _result(self, run: Run, folder: Path) -> Result:
        report = Report.from_json(json.loads((folder / "report.json").read_text(encoding="utf-8")))
        scores: dict[str, dict[str, float]] = {"psnr": {}, "ssim": {}, "l1": {}}
        for row in report.rows:
            for metric, values in scores.items():
                values[interval_label(row.interval)] = row.get(metric).mean
        return Result(
            run=run.name,
            seed=run.recipe.seed,
            steps=run.recipe.steps,
            seconds=round(_seconds(folder), 1),
            photos=len({case.photo for case in report.cases}),
            fills=len(report.cases),
            scores=scores,
            curve=read_curve(folder),
            recipe=asdict(run.recipe),
            data=self._measured(run),
            versions=_versions(),
        )

    # --- what a folder holds -----------------------------------------------------------------

    def _measured(self, run: Run) -> dict[str, Any]:
        photos = self.data.get(run.photos)
        masks = self.data.masks or "fixed generated set, seed 0"
        return {
            # The last part alone: the same photos may lie elsewhere on another machine.
            "train": "/".join(Path(photos.train).parts[-2:]),
            "val": "/".join(Path(photos.val).parts[-2:]),
            "masks": Path(masks).name,
            "size": self.scale.size,
            "limit": self.scale.limit,
        }

    def _plan(self, run: Run) -> dict[str, Any]:
        return {"recipe": json.loads(recipe_to_json(run.recipe)), "data": self._measured(run)}

    def _write_plan(self, run: Run, folder: Path) -> None:
        for name, content in ((_PLAN, self._plan(run)), ("recipe.json", asdict(run.recipe))):
            if not (folder / name).is_file():
                with atomic_path(folder / name) as temporary:
                    temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")

    def _check(self, run: Run) -> None:
        path = self.folder / run.name / _PLAN
        if not path.is_file():
            return
        there, wanted = json.loads(path.read_text(encoding="utf-8")), self._plan(run)
        for part in ("recipe", "data"):
            for key, value in wanted[part].items():
                if there[part].get(key, value) != value:
                    raise ValueError(
                        f"{path.parent} holds this run with {key} {there[part][key]!r}, not "
                        f"{value!r}; use another --out, or delete that folder"
                    )


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def _end(process: subprocess.Popen[bytes]) -> None:
    """Let a process save and end; a second Ctrl-C does not wait for it."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait()
        except KeyboardInterrupt:
            process.kill()
            raise


def _take_over(folder: Path) -> None:
    """Stop the process that a killed study left behind; it saves first.

    Raises:
        OSError: Another study runs it.
    """
    path = folder / _OWNER
    if not path.is_file():
        return
    try:
        owner = json.loads(path.read_text(encoding="utf-8"))
        process, study = int(owner["pid"]), int(owner["study"])
    except (ValueError, KeyError):  # half written by a machine that went down
        return
    if not _is_ours(process):
        return
    if study != os.getpid() and _is_ours(study):
        raise OSError(
            f"{folder.name} is being run by process {study}; wait for it, or stop it: kill {study}"
        )
    os.kill(process, signal.SIGTERM)
    while _is_ours(process):
        time.sleep(_POLL_SECONDS)


def _is_ours(process: int) -> bool:
    """Whether a process runs and is this program's; process numbers are given out again."""
    try:
        os.kill(process, 0)
        command = Path(f"/proc/{process}/cmdline").read_bytes()
    except FileNotFoundError:  # a system without /proc
        return True
    except OSError:
        return False
    return b"regionnorm" in command  # a zombie's is empty


def _last_step(folder: Path) -> int:
    """The last step that a run has logged."""
    with suppress(OSError, ValueError), (folder / "log.csv").open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - 200))
        lines = file.read().decode("utf-8", "replace").splitlines()
        return int(lines[-1].split(",")[0])
    return 0


def _last_line(path: Path) -> str:
    lines = path.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1] if lines else "without a word"


def _seconds(folder: Path) -> float:
    with suppress(OSError, ValueError):
        return float(json.loads((folder / _CLOCK).read_text(encoding="utf-8")))
    return 0.0


def _add_seconds(folder: Path, more: float) -> None:
    total = _seconds(folder) + more
    with atomic_path(folder / _CLOCK) as temporary:
        temporary.write_text(json.dumps(total), encoding="utf-8")


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    return versions
