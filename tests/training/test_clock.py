"""The time of a run: used up in good time for what comes after the last step."""

from __future__ import annotations

import math

import pytest

from regionnorm.training.clock import Clock


class Seconds:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_unlimited_time_is_never_used() -> None:
    seconds = Seconds()
    clock = Clock(None, now=seconds)
    seconds.now += 1e6
    assert (clock.limited, clock.used, clock.elapsed, clock.minutes_left) == (False, 0, 0, None)


def test_time_counts_from_the_start_and_over_earlier_parts() -> None:
    seconds = Seconds()
    clock = Clock(10, {"elapsed": 120.0}, now=seconds)
    seconds.now += 60
    assert clock.elapsed == pytest.approx(180)
    assert clock.minutes_left == pytest.approx(7)
    assert clock.used == pytest.approx(180 / (600 - 2))


def test_time_for_the_endings_is_set_aside() -> None:
    seconds = Seconds()
    clock = Clock(10, now=seconds)
    for name, duration in (("saving", 5), ("validation", 30), ("saving", 1)):
        with clock.ending(name):
            seconds.now += duration
    assert clock.measured("validation")
    assert not clock.measured("sample")
    seconds.now = 100 + 600 - 2 - 1.3 * 35
    assert clock.used == pytest.approx(1)


def test_the_next_part_knows_what_the_one_before_measured() -> None:
    seconds = Seconds()
    clock = Clock(10, now=seconds)
    with clock.ending("validation"):
        seconds.now += 30
    later = Clock(10, clock.record, now=seconds)
    assert later.measured("validation")
    assert later.used == pytest.approx(clock.used)
    assert Clock(None, now=seconds).record == {}


def test_endings_longer_than_the_run_end_it() -> None:
    seconds = Seconds()
    clock = Clock(1, now=seconds)
    with clock.ending("validation"):
        seconds.now += 59
    assert clock.used > 1
    assert math.isfinite(clock.used)
