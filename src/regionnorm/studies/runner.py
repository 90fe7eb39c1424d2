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
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from regionnorm.files.whole import atomic_path
from regionnorm.measuring.report import Report, interval_label
from regionnorm.studies.photos import StudyData, spread_photos
from regionnorm.studies.plan import PhotoKind, Run, Scale
from regionnorm.studies.results import RESULT, Result, read_curves
from regionnorm.training.recipe import recipe_to_json

fcntl: Any
try:
    import fcntl
except ImportError:  # Windows, where runs are not locked
    fcntl = None

__all__ = ["RunFailedError", "Runner", "Status", "is_locked", "last_step"]

PROGRAM: Sequence[str] = (sys.executable, "-m", "regionnorm")
"""What trains and measures, called with the command line's arguments."""

_PLAN, _LOG, _CLOCK, _LOCK = "plan.json", "train.log", "seconds.json", "lock"
_POLL_SECONDS = 0.3
_PACKAGES = ("regionnorm", "torch", "numpy", "lightning", "numba")

Status = Callable[[str, str, int, int], None]
"""``status(run, doing, step, steps)``: doing is ``"waiting"`` (for another process that
runs it), ``"training"``, ``"measuring"`` or ``"done"``."""


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
    _processes: set[subprocess.Popen[bytes]] = field(default_factory=set, repr=False)

    @property
    def folder(self) -> Path:
        """Where the runs lie."""
        return self.out / "runs"

    def is_done(self, run: Run) -> bool:
        """Whether the run has its result, measured as it should be.

        Raises:
            ValueError: Its folder holds a run with another recipe or other photos.
        """
        self._check(run)
        folder = self.folder / run.name
        return (folder / RESULT).is_file() and self._is_measured(run, Result.load(folder))

    def prepare(self, runs: Sequence[Run]) -> None:
        """Write the runs' ``recipe.json`` alone, for training by other means.

        Raises:
            ValueError: As :meth:`is_done`.
        """
        for run in runs:
            self._check(run)
            self._write_plan(run, self.folder / run.name)

    def run_all(self, runs: Sequence[Run]) -> None:
        """Bring all to their results; those that have theirs are left alone.

        Ctrl-C and SIGTERM let running steps end and save; a second Ctrl-C does not wait for that.

        Raises:
            RunFailedError: A process failed; runs that were under way are saved.
            KeyboardInterrupt: Stopped by the user, likewise.
            ValueError: A run's folder holds another run, or there are no photos for it.
        """
        for run in runs:
            self.data.get(run.photos)
            self._check(run)
        self._stop = threading.Event()
        with _interrupted_by_sigterm(), ThreadPoolExecutor(self.jobs) as pool:
            try:
                futures = [pool.submit(self._bring, run) for run in runs]
                # The first one to fail stops the others, which then say no more than that.
                errors = [future.exception() for future in futures]
            except BaseException:
                self._give_up(pool)
                raise
        causes = [e for e in errors if e is not None and not isinstance(e, _StoppedError)]
        if causes:
            raise causes[0]

    def _give_up(self, pool: ThreadPoolExecutor) -> None:
        self._stop.set()
        try:
            pool.shutdown(wait=True, cancel_futures=True)
        except KeyboardInterrupt:
            for process in list(self._processes):
                process.kill()
            raise

    # --- one run -----------------------------------------------------------------------------

    def _bring(self, run: Run) -> None:
        if self._stop.is_set():
            raise _StoppedError
        folder = self.folder / run.name
        try:
            with self._locked(run, folder) as lock:
                if not self.is_done(run):
                    self._bring_to_result(run, folder, lock)
        except BaseException:
            self._stop.set()
            raise
        self.status(run.name, "done", run.recipe.steps, run.recipe.steps)

    @contextmanager
    def _locked(self, run: Run, folder: Path) -> Iterator[int | None]:
        """Hold a run's lock; its processes inherit it, and so hold it when a study was killed.

        Two studies that need the same run wait for each other, and a study that is started again
        waits for what its killed predecessor has left at work.
        """
        if fcntl is None:
            yield None
            return
        folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            while not _try_lock(lock):
                self.status(run.name, "waiting", last_step(folder), run.recipe.steps)
                if self._stop.wait(_POLL_SECONDS):
                    raise _StoppedError
            yield lock
        finally:
            os.close(lock)

    def _bring_to_result(self, run: Run, folder: Path, lock: int | None) -> None:
        self._write_plan(run, folder)
        photos = self.data.get(run.photos)
        train = ["train", str(folder / "recipe.json"), "--resume", "--out", str(folder)]
        judges = self._judges(run.photos)
        train += ["--data", photos.train, "--val", judges]
        self._call(run, "training", train, lock)
        (folder / "report.json").unlink(missing_ok=True)
        measure = ["evaluate", str(folder / "weights.safetensors"), "--data", judges]
        measure += ["--size", str(self.scale.size), "--metric", "none", "--report", str(folder)]
        if self.scale.limit is not None:
            measure += ["--limit", str(self.scale.limit)]
        if self.data.masks is not None:
            measure += ["--masks", self.data.masks]
        self._call(run, "measuring", measure, lock)
        self._result(run, folder).save(folder)

    def _judges(self, kind: PhotoKind) -> str:
        """The photos to validate and measure on: the scale's choice as a list file, or all."""
        val, limit = self.data.get(kind).val, self.scale.limit
        if not self.scale.spread or limit is None:
            return val
        path = self.out / "lists" / f"{kind}-{limit}.txt"
        names = spread_photos(val, limit)
        with atomic_path(path) as temporary:
            temporary.write_text("\n".join(names) + "\n", encoding="utf-8")
        return str(path)

    def _call(self, run: Run, doing: str, arguments: list[str], lock: int | None) -> None:
        """Run a command of this program to its end, or stop it where all are to stop."""
        folder, began, log = self.folder / run.name, time.monotonic(), self.folder / run.name / _LOG
        with log.open("ab") as output:
            process = subprocess.Popen(
                [*PROGRAM, *arguments],
                stdout=output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env=os.environ | self._threads(),
                # Ctrl-C reaches this process alone, which then stops the others in order.
                start_new_session=True,
                pass_fds=() if lock is None else (lock,),
            )
        self._processes.add(process)
        try:
            while process.poll() is None:
                if self._stop.wait(_POLL_SECONDS):
                    raise _StoppedError
                self.status(run.name, doing, last_step(folder), run.recipe.steps)
        finally:
            if process.poll() is None:
                process.terminate()  # it saves first
                process.wait()
            self._processes.discard(process)
            _add_seconds(folder, time.monotonic() - began)
        # Code 1 with a report: some photos could not be read, and it names them.
        told = doing == "measuring" and (folder / "report.json").is_file()
        if process.returncode and not (process.returncode == 1 and told):
            raise RunFailedError(f"{run.name}: {doing} failed: {_last_line(log)} (see {log})")

    def _threads(self) -> dict[str, str]:
        """Share the processor's cores out among the jobs, unless the user has said how many."""
        affinity = getattr(os, "sched_getaffinity", None)
        cores = len(affinity(0)) if affinity else os.cpu_count() or 1
        count = str(max(1, cores // self.jobs))
        names = ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS")
        return {name: os.environ.get(name, count) for name in names}

    def _result(self, run: Run, folder: Path) -> Result:
        report = Report.from_json(json.loads((folder / "report.json").read_text(encoding="utf-8")))
        scores: dict[str, dict[str, float]] = {"psnr": {}, "ssim": {}, "l1": {}}
        for row in report.rows:
            for metric, values in scores.items():
                values[interval_label(row.interval)] = row.get(metric).mean
        return Result(
            run=run.name,
            seed=run.recipe.seed,
            steps=last_step(folder) or run.recipe.steps,  # a recipe may end by the clock
            seconds=round(_seconds(folder), 1),
            photos=len({case.photo for case in report.cases}),
            fills=len(report.cases),
            scores=scores,
            curve=read_curves(folder, "val/").get("psnr", ()),
            recipe=asdict(run.recipe),
            data=self._measured(run),
            versions=_versions(),
            skipped=report.skipped,
            zeros={name: curve[-1][1] for name, curve in read_curves(folder, "zeros/").items()},
            found=read_curves(folder, "found/"),
        )

    # --- what a folder holds -----------------------------------------------------------------

    def _measured(self, run: Run) -> dict[str, Any]:
        photos = self.data.get(run.photos)
        masks = self.data.masks or "fixed generated set, seed 0"
        return {
            "train": _called(photos.train),
            "val": _called(photos.val),
            "masks": Path(masks).name,
            "size": self.scale.size,
            "limit": self.scale.limit,
            **({"spread": True} if self.scale.spread else {}),
        }

    def _is_measured(self, run: Run, result: Result) -> bool:
        """Whether a result was measured as it should be."""
        there = {**result.data, **{key: _called(result.data[key]) for key in ("train", "val")}}
        return there == self._measured(run)

    def _plan(self, run: Run) -> dict[str, Any]:
        return {"recipe": json.loads(recipe_to_json(run.recipe)), "data": self._measured(run)}

    def _write_plan(self, run: Run, folder: Path) -> None:
        for name, content in ((_PLAN, self._plan(run)), ("recipe.json", asdict(run.recipe))):
            if not (folder / name).is_file():
                with atomic_path(folder / name) as temporary:
                    temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")

    def _check(self, run: Run) -> None:
        """Refuse a folder with another recipe or other training photos, or a result alone."""
        folder = self.folder / run.name
        path = folder / _PLAN
        if not path.is_file():
            return
        there, wanted = json.loads(path.read_text(encoding="utf-8")), self._plan(run)
        values = [(key, there["recipe"].get(key, v), v) for key, v in wanted["recipe"].items()]
        values.append(("photos", _called(there["data"]["train"]), wanted["data"]["train"]))
        for key, found, value in values:
            if found != value:
                raise ValueError(
                    f"{path.parent} holds this run with {key} {found!r}, not {value!r}; use "
                    "another --out, or delete that folder"
                )
        if (folder / RESULT).is_file() and not (folder / "weights.safetensors").is_file():
            measured = Result.load(folder)
            if not self._is_measured(run, measured):
                raise ValueError(
                    f"{folder} holds a result without weights, measured on {measured.data}, and "
                    f"wanted is {wanted['data']}; use another --out, or delete its {RESULT}, and "
                    "the run is trained again"
                )


def _called(photos: str) -> str:
    """The photos' own name: on another machine they may lie elsewhere."""
    path = Path(photos)
    return "/".join(path.parts[-2:]) if "*" in path.name else path.name


@contextmanager
def _interrupted_by_sigterm() -> Iterator[None]:
    """Let SIGTERM do what Ctrl-C does; only the main thread can."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def is_locked(folder: Path) -> bool:
    """Whether some process is at work on a run."""
    if fcntl is None or not (folder / _LOCK).is_file():
        return False
    lock = os.open(folder / _LOCK, os.O_RDWR)
    try:
        return not _try_lock(lock)
    finally:
        os.close(lock)


def _try_lock(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def last_step(folder: Path) -> int:
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
