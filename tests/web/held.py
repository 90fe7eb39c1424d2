"""What fills in tests of the page, and may be held back by them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from regionnorm.stopping import stop_if_asked


class Held:
    """Goes on at once, unless a test holds it back."""

    def __init__(self) -> None:
        self.go_on = threading.Event()
        self.go_on.set()

    def wait(self) -> None:
        while not self.go_on.wait(0.01):
            stop_if_asked()

    @contextmanager
    def held(self) -> Iterator[None]:
        self.go_on.clear()
        try:
            yield
        finally:
            self.go_on.set()
