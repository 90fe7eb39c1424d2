"""The line in which fills wait: one at a time, in the order they came, for as long as wanted.

A fill takes all cores, and the memory of one photo is the bound; so there is one line for the
page's visitors and for programs. Whoever has gone keeps nobody waiting: their fill steps aside at
once, is taken up again if they come back within a while (a page that is loaded anew), and is
forgotten otherwise. A fill stops between two of its steps; the next one does not wait for that.
"""

from __future__ import annotations

import secrets
import statistics
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from regionnorm.stopping import Stopped, stoppable

__all__ = ["Job", "Line", "LineFull", "Place"]

_BLINK = 0.3  # seconds: a connection may break for so long without a consequence
_RETURN = 20.0  # seconds in which a visitor may come back to a fill
_KEPT = 15  # fills that the expected time is taken from
_FIRST_GUESS = 6.0  # seconds for a unit of work, before anything was filled


class LineFull(ValueError):
    """There are as many waiting as there may be."""


@dataclass(frozen=True)
class Place:
    """Where a job is.

    Attributes:
        state: ``"waiting"``, ``"running"``, ``"done"``, ``"failed"`` or ``"cancelled"``.
        ahead: How many come before it.
        done: Share of its own work that is done, by the clock, 0 to 1.
        left: Seconds until it is done, about.
    """

    state: str
    ahead: int = 0
    done: float = 0.0
    left: float = 0.0


@dataclass(eq=False)
class Job:
    """Something to be done for somebody.

    Attributes:
        work: Does it; its result becomes ``result``, what it raises ``error``.
        size: How much work it is, in units that take about the same time.
        owner: Whose it is.
        finish: Called once when it has ended, however that was.
    """

    work: Callable[[], Any]
    size: float
    owner: str
    finish: Callable[[], None] = lambda: None
    number: str = field(default_factory=lambda: secrets.token_urlsafe(9))
    state: str = "waiting"
    result: Any = None
    error: BaseException | None = None
    ended: threading.Event = field(default_factory=threading.Event)
    watchers: int = 0
    seen: float = field(default_factory=time.monotonic)
    started: float = 0.0
    cancelled: bool = False

    def away(self) -> float:
        """Seconds for which nobody has been waiting for it."""
        return 0.0 if self.watchers else time.monotonic() - self.seen


class Line:
    """Does jobs one after the other in a thread of its own.

    Args:
        most: Jobs that may wait; further ones are refused.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._waiting: deque[Job] = deque()
        self._running: Job | None = None
        self._rates: deque[float] = deque(maxlen=_KEPT)
        self._stopping: Job | None = None
        self._change = threading.Condition()
        self._closed = False
        self._threads: list[threading.Thread] = []
        self._begin(self._work)
        self._begin(self._step_aside)

    def join(self, job: Job) -> Job:
        """Put a job at the end.

        Raises:
            LineFull: It cannot wait; the message is for whoever wanted it.
        """
        with self._change:
            if len(self._waiting) >= self._most:
                raise LineFull("many others are waiting just now; try again in a minute")
            self._waiting.append(job)
            self._change.notify_all()
        return job

    def cancel(self, job: Job) -> None:
        """Forget a job; one that runs stops at its next step."""
        with self._change:
            job.cancelled = True
            if job in self._waiting:
                self._waiting.remove(job)
                self._end(job, "cancelled")

    def cancel_all(self, owner: str) -> None:
        """Forget all of somebody's jobs."""
        with self._change:
            for job in self._jobs():
                if job.owner == owner:
                    self.cancel(job)

    @contextmanager
    def watched(self, job: Job) -> Iterator[None]:
        """Inside the with block somebody waits for the job."""
        with self._change:
            job.watchers += 1
            self._change.notify_all()
        try:
            yield
        finally:
            with self._change:
                job.watchers -= 1
                job.seen = time.monotonic()

    def place(self, job: Job) -> Place:
        """Where a job is, and how long it will take, judged by the last ones."""
        with self._change:
            if job.state not in ("waiting", "running"):
                return Place(job.state, done=1.0)
            whole, left = self._seconds(job), 0.0
            if job in (self._running, self._stopping):
                passed = time.monotonic() - job.started
                # Never quite done before it is: after the expected time it slows down.
                done = passed / whole if passed < 0.8 * whole else 1 - 0.16 * whole / passed
                return Place("running", 0, done, max(whole - passed, 0.1 * passed))
            before: list[Job] = []
            for other in self._jobs():
                if other is job:
                    break
                if other is self._running or (
                    other is not self._stopping and other.away() <= _BLINK
                ):
                    before.append(other)
            for other in before:
                passed = time.monotonic() - other.started if other is self._running else 0
                left += max(self._seconds(other) - passed, 0.5)
            return Place("waiting", len(before), 0.0, left + whole)

    def owned(self, owner: str) -> list[Job]:
        """Somebody's jobs that are not done, in their order."""
        with self._change:
            return [job for job in self._jobs() if job.owner == owner]

    def close(self) -> None:
        """Stop what runs and forget the rest."""
        with self._change:
            self._closed = True
            for job in self._jobs():
                self.cancel(job)
            self._change.notify_all()
        for thread in self._threads:
            thread.join(timeout=10)

    def _jobs(self) -> list[Job]:
        begun = [job for job in (self._stopping, self._running) if job is not None]
        return [*begun, *self._waiting]

    def _seconds(self, job: Job) -> float:
        rate = statistics.median(self._rates) if self._rates else _FIRST_GUESS
        return max(0.2, rate * job.size)

    def _end(self, job: Job, state: str) -> None:
        job.state = state
        # What it holds on to, a photo perhaps, can be forgotten.
        job.work = lambda: None
        job.finish()
        job.ended.set()

    # --- threads ---------------------------------------------------------------------------------

    def _begin(self, work: Callable[[], None]) -> None:
        self._threads = [thread for thread in self._threads if thread.is_alive()]
        self._threads.append(threading.Thread(target=work, name="fills", daemon=True))
        self._threads[-1].start()

    def _work(self) -> None:
        """Do one job after the other, until one was passed over while it stopped."""
        passed = False
        while not passed and (job := self._next()) is not None:
            try:
                with stoppable(lambda job=job: self._unwanted(job)):  # type: ignore[misc]
                    job.result = job.work()
                state = "done"
                self._rates.append((time.monotonic() - job.started) / job.size)
            except Stopped:
                state = "cancelled" if job.cancelled else "waiting"
            except BaseException as error:
                job.error, state = _words_alone(error), "failed"
            with self._change:
                passed = job is self._stopping
                if passed:
                    self._stopping = None
                else:
                    self._running = None
                if state == "waiting" and not job.cancelled:
                    job.state = state
                    self._waiting.appendleft(job)
                    self._change.notify_all()
                else:
                    self._end(job, state)

    def _step_aside(self) -> None:
        """Begin the next job while one that nobody wants is still on its way to its next step.

        One at a time may be, so that there are never more than two photos in memory.
        """
        while not self._closed:
            with self._change:
                self._change.wait(_BLINK / 3 if self._running and self._waiting else None)
                job = self._running
                if job is None or self._stopping is not None or not self._unwanted(job):
                    continue
                if any(other.away() <= _BLINK for other in self._waiting):
                    self._stopping, self._running = job, None
                    self._begin(self._work)

    def _next(self) -> Job | None:
        with self._change:
            while not self._closed:
                for job in [job for job in self._waiting if job.away() > _RETURN]:
                    self._waiting.remove(job)
                    self._end(job, "cancelled")
                for job in self._waiting:
                    if job.away() <= _BLINK:
                        self._waiting.remove(job)
                        job.state, job.started, self._running = "running", time.monotonic(), job
                        self._change.notify_all()
                        return job
                self._change.wait(1.0 if self._waiting else None)
            return None

    def _unwanted(self, job: Job) -> bool:
        """Whether to stop a job that runs."""
        # Once another has begun in its place, it stops, even if that other has ended meanwhile.
        if job.cancelled or job is self._stopping:
            return True
        away = job.away()
        if away <= _BLINK:
            return False
        others = any(other.away() <= _BLINK for other in list(self._waiting))
        return others or away > _RETURN


def _words_alone(error: BaseException) -> BaseException:
    """An error without where it came from: those frames hold on to whole photos."""
    error.__cause__ = error.__context__ = None
    return error.with_traceback(None)
