"""What the service counts, in Prometheus's format."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from regionnorm._extras import require

__all__ = ["Metrics"]

_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Metrics:
    """Counters of one process, in a registry of their own.

    Args:
        gauges: Name and description to what is to be read when asked.
    """

    def __init__(self, gauges: Mapping[tuple[str, str], Callable[[], float]]) -> None:
        client: Any = require("prometheus_client", extra="serve")
        self._client = client
        self.registry = client.CollectorRegistry()
        client.ProcessCollector(registry=self.registry)  # memory, processor time
        self._answers = client.Counter(
            "regionnorm_requests",
            "Requests with a photo, by the status of the answer.",
            ["code"],
            registry=self.registry,
        )
        self._seconds = client.Histogram(
            "regionnorm_fill_seconds",
            "Seconds from the start of a photo's decoding to its written result.",
            buckets=_SECONDS,
            registry=self.registry,
        )
        for (name, description), value in gauges.items():
            gauge = client.Gauge(f"regionnorm_{name}", description, registry=self.registry)
            gauge.set_function(value)

    def answered(self, code: int) -> None:
        """Count an answer."""
        self._answers.labels(str(code)).inc()

    def filled(self, seconds: float) -> None:
        """Count a photo that was filled."""
        self._seconds.observe(seconds)

    def text(self) -> tuple[bytes, str]:
        """All values and their content type."""
        return bytes(self._client.generate_latest(self.registry)), str(
            self._client.CONTENT_TYPE_LATEST
        )
