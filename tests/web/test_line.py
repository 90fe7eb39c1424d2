"""Fills wait in a line: one at a time, in order, and none for somebody who has gone."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import ExitStack
from types import SimpleNamespace
from typing import cast

import pytest
import torch
from torch import nn

from regionnorm.stopping import Stopped, stop_between_layers, stop_if_asked, stoppable
from regionnorm.web.api import PageApi
from regionnorm.web.line import Job, Line, LineFull

PATIENCE = 60


@pytest.fixture
def line() -> Iterator[Line]:
    made = Line(most=8)
    yield made
    made.close()


class Endless:
    """Work that goes on until it is stopped, or told to end."""

    def __init__(self) -> None:
        self.started, self.go_on, self.times = threading.Event(), threading.Event(), 0

    def __call__(self) -> str:
        self.times += 1
        self.started.set()
        while not self.go_on.wait(0.01):
            stop_if_asked()
        return "done"


def joined(line: Line, work: object, owner: str = "somebody") -> Job:
    return line.join(Job(work, 1.0, owner))  # type: ignore[arg-type]


def test_jobs_are_done_one_at_a_time_in_their_order(line: Line) -> None:
    first, order = Endless(), list[int]()
    jobs = [joined(line, first)]
    jobs += [joined(line, lambda n=n: order.append(n)) for n in range(3)]  # type: ignore[misc]
    with ExitStack() as watching:
        for job in jobs:
            watching.enter_context(line.watched(job))
        assert first.started.wait(PATIENCE)
        assert [line.place(job).ahead for job in jobs] == [0, 1, 2, 3]
        assert [line.place(job).state for job in jobs] == ["running", *["waiting"] * 3]
        left = [line.place(job).left for job in jobs]
        assert left == sorted(left) and left[0] > 0
        first.go_on.set()
        assert all(job.ended.wait(PATIENCE) for job in jobs)
    assert order == [0, 1, 2]
    assert [line.place(job).state for job in jobs] == ["done"] * 4


def test_cancelled_job_stops_and_lets_the_next_one_begin(line: Line) -> None:
    endless, ended = Endless(), list[str]()
    one = line.join(Job(endless, 1.0, "one", finish=lambda: ended.append("one")))
    two, three = joined(line, Endless(), "two"), joined(line, lambda: "done", "three")
    with line.watched(one), line.watched(two), line.watched(three):
        assert endless.started.wait(PATIENCE)
        line.cancel_all("two")
        line.cancel(one)
        assert three.ended.wait(PATIENCE)
        assert one.ended.wait(PATIENCE) and two.ended.wait(PATIENCE)
    assert [job.state for job in (one, two, three)] == ["cancelled", "cancelled", "done"]
    assert ended == ["one"]


def test_fill_of_somebody_who_has_gone_keeps_nobody_waiting_a_second(line: Line) -> None:
    endless = Endless()
    gone, waiting = joined(line, endless), Job(lambda: "done", 1.0, "other")
    with line.watched(gone):
        assert endless.started.wait(PATIENCE)
    line.join(waiting)
    began = time.monotonic()
    with line.watched(waiting):
        assert waiting.ended.wait(PATIENCE)
    assert time.monotonic() - began < 1
    while gone.state != "waiting":
        time.sleep(0.01)


def test_nobody_waits_for_the_next_step_of_a_fill_that_is_not_wanted_any_more(
    line: Line,
) -> None:
    """Some steps of large photos take seconds; two fills at most are in memory meanwhile."""
    first, second = (threading.Event() for _ in range(2))
    started = threading.Semaphore(0)

    def long_step(ended: threading.Event) -> None:
        started.release()
        assert ended.wait(PATIENCE)
        stop_if_asked()

    gone = [
        joined(line, lambda: long_step(first), "a"),
        joined(line, lambda: long_step(second), "b"),
    ]
    third = joined(line, lambda: "done", "c")
    with line.watched(third):
        with line.watched(gone[1]):
            with line.watched(gone[0]):
                assert started.acquire(timeout=PATIENCE)
            assert started.acquire(timeout=PATIENCE)  # the second has begun
        assert not third.ended.wait(0.6)  # no third one beside these two
        second.set()
        assert third.ended.wait(PATIENCE)
        first.set()
    line.cancel_all("a")
    line.cancel_all("b")
    assert all(job.ended.wait(PATIENCE) for job in gone)


def test_who_comes_back_soon_finds_their_fill_waiting(line: Line) -> None:
    endless = Endless()
    job, other = joined(line, endless), Job(lambda: "done", 1.0, "other")
    with line.watched(job):
        assert endless.started.wait(PATIENCE)
    line.join(other)
    with line.watched(other):
        assert other.ended.wait(PATIENCE)
    while job.state != "waiting":
        time.sleep(0.01)
    endless.go_on.set()
    with line.watched(job):
        assert job.ended.wait(PATIENCE)
    assert (job.state, job.result, endless.times) == ("done", "done", 2)


def test_who_does_not_come_back_is_forgotten(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("regionnorm.web.line._RETURN", 0.1)
    endless = Endless()
    running = joined(line, endless)
    assert endless.started.wait(PATIENCE)
    assert running.ended.wait(PATIENCE)
    assert running.state == "cancelled"


def test_what_goes_wrong_is_kept_and_the_line_goes_on(line: Line) -> None:
    def fail() -> None:
        raise ValueError("no")

    jobs = [joined(line, fail), joined(line, lambda: "done")]
    with line.watched(jobs[0]), line.watched(jobs[1]):
        assert all(job.ended.wait(PATIENCE) for job in jobs)
    assert (jobs[0].state, str(jobs[0].error), jobs[1].result) == ("failed", "no", "done")


def test_of_what_went_wrong_the_words_are_kept_and_no_photo(line: Line) -> None:
    class Photo:
        pass

    seen: list[weakref.ref[Photo]] = []

    def fail() -> None:
        photo = Photo()
        seen.append(weakref.ref(photo))
        try:
            raise KeyError("inside")
        except KeyError as error:
            raise ValueError("no") from error

    job = joined(line, fail)
    with line.watched(job):
        assert job.ended.wait(PATIENCE)
    gc.collect()
    assert str(job.error) == "no" and seen[0]() is None


def test_what_came_of_a_job_is_not_told_before_it_is_known(line: Line) -> None:
    async def places() -> list[str]:
        job = joined(line, lambda: "done")
        # It has ended, but for what is done at its end, when the page looks once more.
        job.finish = lambda: time.sleep(0.5)
        api = cast(PageApi, SimpleNamespace(line=line))
        return [place["state"] async for place in PageApi.places(api, job)]

    assert set(asyncio.run(places())) <= {"waiting", "running"}


def test_full_line_sends_away_politely() -> None:
    line, endless = Line(most=1), Endless()
    try:
        with line.watched(joined(line, endless)):
            assert endless.started.wait(PATIENCE)
            joined(line, endless)
            with pytest.raises(LineFull, match="try again"):
                joined(line, endless)
    finally:
        line.close()


def test_network_stops_between_its_layers() -> None:
    seen: list[int] = []

    class Count(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append(1)
            return x

    net = nn.Sequential(*(Count() for _ in range(5)))
    with stop_between_layers(net):
        net(torch.zeros(1))
        with stoppable(lambda: len(seen) >= 7), pytest.raises(Stopped):
            net(torch.zeros(1))
        assert len(seen) == 7
    with stop_between_layers(None), stoppable(lambda: True):
        net(torch.zeros(1))
