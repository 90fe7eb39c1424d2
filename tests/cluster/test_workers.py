"""Which worker is given what, and what becomes of a worker's tasks when it dies."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from types import SimpleNamespace
from typing import Any

import pytest

from regionnorm.cluster import workers
from regionnorm.cluster.workers import Cluster, connect

pytest.importorskip("ray")
Die = type("Die", (BaseException,), {})


class StandIn:
    """As much of Ray as is used, in one thread; workers are slower the higher their number."""

    def __init__(self) -> None:
        self.errors = pytest.importorskip("ray.exceptions")
        self.waiting: list[tuple[Any, Callable[[], Any]]] = []
        self.done: dict[Any, Any] = {}
        self.killed: list[int] = []
        self.needs: tuple[float, float] = (0, 0)

    def remote(self, **options: Any) -> Callable[[type], Any]:
        assert options["max_restarts"] == -1 and options["max_task_retries"] == 0
        self.needs = options["num_cpus"], options["num_gpus"]
        return lambda kind: SimpleNamespace(remote=lambda *a: _Actor(self, kind(*a)))

    def put(self, value: Any) -> Any:
        return value

    def wait(
        self, references: list[Any], num_returns: int, timeout: float | None
    ) -> tuple[list[Any], list[Any]]:
        reference, call = next(entry for entry in self.waiting if entry[0] in references)
        self.waiting.remove((reference, call))
        try:
            self.done[reference] = call()
        except Die:
            reference.actor.die()
            self.done[reference] = self.errors.ActorDiedError()
        except Exception as error:
            self.done[reference] = self.errors.RayTaskError("do", str(error), error)
        return [reference], [other for other in references if other is not reference]

    def get(self, reference: Any) -> Any:
        value = self.done[reference]
        if isinstance(value, BaseException):
            raise value
        return value

    def kill(self, actor: Any, no_restart: bool) -> None:
        assert no_restart
        self.killed.append(actor.number)


class _Actor:
    count = 0

    def __init__(self, ray: StandIn, worker: Any) -> None:
        self.ray, self.worker, self.number = ray, worker, _Actor.count
        _Actor.count += 1
        self.ready = SimpleNamespace(remote=lambda *a: self._later(lambda: worker.ready(*a)))
        self.do = SimpleNamespace(remote=lambda *task: self._later(lambda: worker.do(*task)))

    def _later(self, call: Callable[[], Any]) -> Any:
        reference = _Reference(self)
        self.ray.waiting.append((reference, call))
        return reference

    def die(self) -> None:
        """What it had been given is lost with it."""
        for entry in [entry for entry in self.ray.waiting if entry[0].actor is self]:
            self.ray.waiting.remove(entry)
            self.ray.waiting.append((entry[0], _raise_died))


class _Reference:
    def __init__(self, actor: _Actor) -> None:
        self.actor = actor


def _raise_died() -> None:
    raise Die


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    monkeypatch.setattr(workers, "_PAUSE", 0)
    monkeypatch.setattr(workers, "_PATIENCE", -1)
    return StandIn()


def run(
    ray: StandIn, work: Callable[[Any, bool], Any], tasks: Iterable[Any], count: int = 2
) -> list[tuple[Any, Any]]:
    return list(
        Cluster(
            ray,
            count,
        ).each(lambda: work, tasks)
    )


def test_every_task_is_done_once_and_the_workers_end(ray: StandIn) -> None:
    did = Counter[int]()

    def work(task: int, again: bool) -> int:
        did[task] += 1
        assert not again
        return task * task

    assert dict(run(ray, work, range(20), count=3)) == {n: n * n for n in range(20)}
    assert set(did.values()) == {1}
    assert len(ray.killed) == 3


@pytest.mark.parametrize(
    ("count", "gpu", "needs"),
    [(None, None, (4, 1)), (2, None, (2, 1)), (12, True, (12, 0.3333)), (None, False, (9, 0))],
)
def test_workers_beyond_the_gpus_share_them(
    ray: StandIn,
    monkeypatch: pytest.MonkeyPatch,
    count: int | None,
    gpu: bool | None,
    needs: tuple[int, float],
) -> None:
    connection = SimpleNamespace(
        init=lambda **_: None,
        shutdown=lambda: None,
        cluster_resources=lambda: {"CPU": 9.0, "GPU": 4.0},
    )
    monkeypatch.setattr(workers, "require", lambda module, extra: connection)
    with connect("host:6379", workers=count, gpu=gpu) as cluster:
        cluster.ray = ray
        assert (len(cluster.start()), ray.needs[1]) == needs


def test_no_worker_is_started_for_no_tasks(ray: StandIn) -> None:
    assert run(ray, lambda task, again: task, []) == []
    assert ray.killed == []


def test_tasks_of_a_worker_that_dies_are_done_again(ray: StandIn) -> None:
    seen: list[tuple[int, bool]] = []

    def work(task: int, again: bool) -> int:
        seen.append((task, again))
        if task == 3 and not again:
            raise Die
        return task

    assert sorted(run(ray, work, range(9))) == [(n, n) for n in range(9)]
    assert (3, False) in seen and (3, True) in seen
    assert sum(task == 3 for task, _ in seen) == 2


def test_a_task_that_kills_is_given_up_and_takes_no_other_with_it(ray: StandIn) -> None:
    tried = Counter[int]()

    def work(task: int, again: bool) -> int:
        tried[task] += 1
        if task == 4:
            raise Die
        return task

    done = dict(run(ray, work, range(12), count=3))
    assert done == {n: None if n == 4 else n for n in range(12)}
    assert tried[4] == 3


def test_what_the_work_raises_is_raised_here(ray: StandIn) -> None:
    def work(task: int, again: bool) -> int:
        raise ValueError("weights are damaged")

    with pytest.raises(ValueError, match="^weights are damaged$"):
        run(ray, work, range(3))
    assert len(ray.killed) == 2


def test_workers_that_never_get_ready_are_told(ray: StandIn) -> None:
    def make() -> Any:
        raise Die

    with pytest.raises(OSError, match="die before they are ready"):
        list(
            Cluster(
                ray,
                2,
            ).each(make, range(3))
        )


def test_workers_that_are_late_are_waited_for(
    ray: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "_PATIENCE", 60)
    asked: list[None] = []

    def make() -> Any:
        asked.append(None)
        if len(asked) < 30:
            raise Die
        return lambda task, again: task

    assert len(list(Cluster(ray, 1).each(make, range(3)))) == 3


def test_workers_of_another_version_are_refused(
    ray: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers._Worker, "ready", lambda self, make, folder: "0.0.1")
    with pytest.raises(ValueError, match=r"workers have regionnorm 0\.0\.1, this is"):
        run(ray, lambda task, again: task, range(3))


@pytest.mark.parametrize("address", ["here", "head"])
def test_an_address_that_is_none_says_what_would_be(address: str) -> None:
    words = f"'{address}' is no cluster; give local, ray://"
    with pytest.raises(ValueError, match=words), connect(address):
        pass
