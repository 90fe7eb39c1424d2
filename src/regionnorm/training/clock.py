"""The time that a run has, over all its parts."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

__all__ = ["Clock"]

_ELAPSED = "elapsed"
_SLACK = 1.3  # the last validation may take this much longer than the longest before
_SPARE_SECONDS = 2.0  # for the step under way, leaving the loop and closing files


class Clock:
    """Says how much of a run's time is used, keeping enough for what comes after the last step.

    Args:
        minutes: What the run may take in all; None for any time.
        before: What :attr:`record` was at the end of the part before; empty for the first.
        began: When this part began; None is now.
        now: Seconds of a clock that never goes back.
    """

    def __init__(
        self,
        minutes: float | None,
        before: Mapping[str, float] | None = None,
        *,
        began: float | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._budget = None if minutes is None else 60 * minutes
        self._now = now
        self._longest = dict(before or {})
        self._began = (now() if began is None else began) - self._longest.pop(_ELAPSED, 0.0)

    @property
    def limited(self) -> bool:
        """Whether the run's time is limited."""
        return self._budget is not None

    @property
    def elapsed(self) -> float:
        """Seconds that the run has taken, earlier parts included; 0 if its time is unlimited."""
        return self._now() - self._began if self.limited else 0.0

    @property
    def used(self) -> float:
        """Share of the time for steps that is used; 1 or more: end now. 0 if it is unlimited."""
        if self._budget is None:
            return 0.0
        reserve = _SLACK * sum(self._longest.values()) + min(_SPARE_SECONDS, 0.02 * self._budget)
        return self.elapsed / max(self._budget - reserve, 1e-9)

    @property
    def minutes_left(self) -> float | None:
        """Minutes to the end of the run, None if its time is unlimited."""
        return None if self._budget is None else max(0.0, self._budget - self.elapsed) / 60

    @property
    def record(self) -> dict[str, float]:
        """Seconds so far and seconds of each ending, to go on from; empty if time is unlimited."""
        return {_ELAPSED: self.elapsed, **self._longest} if self.limited else {}

    def measured(self, ending: str) -> bool:
        """Whether it is known how long something takes that comes after the last step."""
        return ending in self._longest

    @contextmanager
    def ending(self, name: str) -> Iterator[None]:
        """Measure something that comes after the last step, such as saving."""
        start = self._now()
        yield
        self._longest[name] = max(self._longest.get(name, 0.0), self._now() - start)
