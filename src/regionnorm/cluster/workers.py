"""Ray's workers: each makes what it works with once, and takes tasks until none is left."""

from __future__ import annotations

import itertools
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from regionnorm import __version__
from regionnorm._extras import require

__all__ = ["Cluster", "Make", "connect"]

Task = TypeVar("Task")
Result = TypeVar("Result")
Make = Callable[[], Callable[[Task, bool], Result]]
"""Makes, on a worker, what does a task; the task may have been begun by another that died."""

_AHEAD = 2  # tasks that a worker has been given, so that it need not wait for the next
_TRIES = 3  # workers that may die of one task
_PAUSE = 1.0  # seconds before a worker that did not get ready is asked again
_PATIENCE = 120.0  # seconds without a sign of life after which none is expected


class _Worker:
    """What runs on the cluster, in a process of its own.

    It is made of nothing: what Ray keeps to make one again, others have lost by then.
    """

    def ready(self, make: Make[Any, Any], folder: str) -> str:
        """Get ready; says which version this is."""
        with suppress(OSError):  # where paths of this machine mean nothing, they are told so
            os.chdir(folder)
        self.work = make()
        return __version__

    def do(self, task: Any, again: bool) -> Any:
        """Do a task."""
        return self.work(task, again)


@dataclass
class _Queue(Generic[Task]):
    """Tasks to be given out, and those whose workers died, with how many."""

    new: Iterator[Task]
    lost: deque[tuple[Task, int]] = field(default_factory=deque)

    def more(self) -> bool:
        """Whether there is another task."""
        for task in self.new:
            self.new = itertools.chain([task], self.new)
            return True
        return bool(self.lost)

    def take(self, idle: bool) -> tuple[Task, int] | None:
        """The next task for a worker; what may have killed one goes to an idle one, by itself."""
        for task in self.new:
            return task, 0
        return self.lost.popleft() if self.lost and idle else None


class Cluster:
    """A Ray cluster that this process talks to; see :func:`connect`."""

    def __init__(self, ray: Any, workers: int, gpu: float = 0) -> None:
        self.ray, self.workers, self.gpu = ray, workers, gpu

    def each(
        self, make: Make[Task, Result], tasks: Iterable[Task]
    ) -> Iterator[tuple[Task, Result | None]]:
        """Do every task on some worker.

        A worker that dies is started again by Ray, where there is room; its tasks are done by
        others. A task of which three workers died is given up.

        Args:
            make: Called once on each worker.
            tasks: Drawn from as workers get free.

        Yields:
            Task and result in the order in which they get done; None for one that was given up.

        Raises:
            ValueError: Workers have another version of this package.
            Exception: What ``make`` or a task raised.
        """
        queue = _Queue(iter(tasks))
        if not queue.more():
            return
        run = _Round(self, make, queue)
        try:
            yield from run.results()
        finally:
            run.end()

    def start(self) -> list[Any]:
        """Start the workers."""
        needs = {"num_gpus": self.gpu, "num_cpus": 1}
        kind = self.ray.remote(max_restarts=-1, max_task_retries=0, **needs)(_Worker)
        return [kind.remote() for _ in range(self.workers)]


class _Round(Generic[Task, Result]):
    """One pass over tasks."""

    def __init__(self, cluster: Cluster, make: Make[Task, Result], queue: _Queue[Task]) -> None:
        self.ray = cluster.ray
        self.errors: Any = require("ray.exceptions", extra="cluster")
        self.queue = queue
        self.packed = self.ray.put(make)  # once, however many workers read it
        self.actors = cluster.start()
        self.rising: dict[Any, Any] = {}
        self.resting = [(0.0, actor) for actor in self.actors]  # not asked before this time
        self.doing: dict[Any, tuple[Any, Task, int]] = {}
        self.failures, self.alive = 0, time.monotonic()

    def results(self) -> Iterator[tuple[Task, Result | None]]:
        """Give out tasks and take results until nothing is left."""
        while self.doing or self.queue.more():
            self._ask()
            waiting = [*self.doing, *self.rising]
            if not waiting:
                time.sleep(_PAUSE)
                continue
            done, _ = self.ray.wait(
                waiting, num_returns=1, timeout=_PAUSE if self.resting else None
            )
            for reference in done:
                if reference in self.rising:
                    self._risen(reference)
                else:
                    yield from self._finished(reference)

    def _ask(self) -> None:
        """Ask workers whether they are ready, those that were not some time ago again."""
        now = time.monotonic()
        for due, actor in self.resting:
            if due <= now:
                self.rising[actor.ready.remote(self.packed, os.getcwd())] = actor
        self.resting = [entry for entry in self.resting if entry[0] > now]

    def end(self) -> None:
        """Give all workers up."""
        for actor in self.actors:
            with suppress(Exception):  # the cluster may be gone
                self.ray.kill(actor, no_restart=True)

    def _risen(self, reference: Any) -> None:
        """A worker says that it is ready, or has died before."""
        actor = self.rising.pop(reference)
        version = self._get(reference)
        if version is None:
            self.failures += 1
            # One that is just being started again cannot be asked either.
            late = time.monotonic() - self.alive > _PATIENCE
            if late and self.failures > _TRIES * len(self.actors):
                raise OSError("workers die before they are ready; look at Ray's logs for why")
            self.resting.append((time.monotonic() + _PAUSE, actor))
            return
        self.failures, self.alive = 0, time.monotonic()
        if version != __version__:
            raise ValueError(f"workers have regionnorm {version}, this is {__version__}")
        self._give(actor)

    def _finished(self, reference: Any) -> Iterator[tuple[Task, Result | None]]:
        actor, task, tries = self.doing.pop(reference)
        result = self._get(reference)
        if result is not None:
            yield task, result
        elif tries + 1 < _TRIES:
            self.queue.lost.append((task, tries + 1))
        else:
            yield task, None
        if result is not None:
            self.alive = time.monotonic()
        elif actor in self._free():
            # Ray starts it again, when and where it can; until then it is given nothing.
            self.resting.append((0.0, actor))
        for free in self._free():
            self._give(free)

    def _free(self) -> list[Any]:
        rising = [*self.rising.values(), *(actor for _, actor in self.resting)]
        return [actor for actor in self.actors if actor not in rising]

    def _give(self, actor: Any) -> None:
        own = [tries for at, _, tries in self.doing.values() if at is actor]
        while len(own) < _AHEAD and not any(own):
            taken = self.queue.take(idle=not own)
            if taken is None:
                return
            task, tries = taken
            self.doing[actor.do.remote(task, tries > 0)] = (actor, task, tries)
            own.append(tries)

    def _get(self, reference: Any) -> Any:
        """A result; None if its worker has died. What the work itself raised is raised."""
        try:
            return self.ray.get(reference)
        except self.errors.RayTaskError as error:
            raise getattr(error, "cause", None) or error from None
        except self.errors.RayError:
            return None


@contextmanager
def connect(
    address: str, *, workers: int | None = None, gpu: bool | None = None
) -> Iterator[Cluster]:
    """Talk to a Ray cluster.

    Args:
        address: ``"local"`` starts one on this machine and ends it; ``"ray://host:10001"``,
            ``"host:6379"`` and ``"auto"`` (this machine's) are there already.
        workers: How many; None takes one for each GPU, or for each processor where there is none.
            More than there are GPUs share them.
        gpu: Whether workers need a GPU; None: if the cluster has some.

    Raises:
        ImportError: Ray is not installed; the message is the command that installs it.
        OSError: There is no cluster at this address.
        ValueError: The address or the number is none.
    """
    if workers is not None and workers < 1:
        raise ValueError(f"workers is {workers}; give 1 or more")
    ray: Any = require("ray", extra="cluster")
    arguments = _arguments(address, workers)
    try:
        ray.init(**arguments)
    except Exception as error:  # of many kinds, by the way that is taken to the cluster
        reason = " ".join(str(error.__cause__ or error).split())
        raise OSError(f"cannot reach a Ray cluster at {address}: {reason:.300}") from error
    try:
        there = ray.cluster_resources()
        gpu = there.get("GPU", 0) >= 1 if gpu is None else gpu
        room = int(there.get("GPU" if gpu else "CPU", 0))
        if not room:
            raise ValueError(f"the cluster at {address} has no {'GPU' if gpu else 'processor'}")
        count = workers or room
        # Rounded down: so many hundredths of a hundredth fit for certain.
        yield Cluster(ray, count, min(1.0, 10_000 * room // count / 10_000) if gpu else 0)
    finally:
        ray.shutdown()


def _arguments(address: str, workers: int | None) -> dict[str, Any]:
    if address == "local":
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # no calls home
        return {
            "address": "local",
            "num_cpus": workers,
            "include_dashboard": False,
            "logging_level": "error",
            "log_to_driver": False,
        }
    if address != "auto" and ":" not in address:
        raise ValueError(f"{address!r} is no cluster; give local, ray://host:10001 or host:6379")
    return {"address": address, "logging_level": "error", "log_to_driver": False}
