"""What tests of the page and of its server share."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest

from regionnorm.masks.check import CheckedMask
from regionnorm.photo import Photo
from regionnorm.stopping import Stopped, stop_if_asked


class Search:
    """What finds marks, held back until it is let go; counts whose photos it has seen."""

    def __init__(self) -> None:
        self.sizes: list[tuple[int, int]] = []
        self.go_on = threading.Event()
        self.stopped = threading.Event()

    def __call__(self, photo: Photo, rule: str) -> CheckedMask:
        self.sizes.append(photo.size)
        for _ in range(3000):
            if self.go_on.wait(0.02):
                break
            try:
                stop_if_asked()
            except Stopped:
                self.stopped.set()
                raise
        assert self.go_on.is_set()
        hole = np.zeros(photo.size[::-1], bool)
        hole[10:20, 10:20] = True
        return CheckedMask(hole)

    def seen(self, count: int) -> None:
        """Wait until so many are at work."""
        began = time.monotonic()
        while len(self.sizes) < count:
            assert time.monotonic() - began < 20
            time.sleep(0.01)


@pytest.fixture
def search(monkeypatch: pytest.MonkeyPatch) -> Iterator[Search]:
    made = Search()
    monkeypatch.setattr("regionnorm.web.handlers.make_mask", made)
    yield made
    made.go_on.set()
