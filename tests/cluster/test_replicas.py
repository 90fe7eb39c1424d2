"""What Ray Serve is told to run."""

from __future__ import annotations

from typing import Any

import pytest

from regionnorm.cluster import replicas
from regionnorm.serving.service import ServiceOptions


def test_arguments_reach_inpainter_limits_and_replicas(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(replicas, "deployment", lambda *a, **k: seen.extend([*a, k]))
    # A command line gives text, a configuration file numbers.
    replicas.app({"replicas": "2", "num_gpus": 0.5, "method": "network", "max_queue": "3"})
    expected = {"replicas": 2, "num_gpus": 0.5}
    assert seen == [{"method": "network"}, ServiceOptions(max_queue=3), expected]


def test_arguments_that_are_none_are_named() -> None:
    with pytest.raises(ValueError, match="'replica' is not known; known are model, device"):
        replicas.app({"replica": "2"})
