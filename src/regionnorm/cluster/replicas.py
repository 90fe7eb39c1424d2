"""The service of :mod:`regionnorm.serving` as replicas under Ray Serve."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from regionnorm._extras import require
from regionnorm.filling.inpainter import Inpainter
from regionnorm.serving.service import ServiceOptions, build_service

__all__ = ["app", "deployment"]

_INPAINTER = ("model", "device", "precision", "strategy", "feather", "method")
_OPTIONS = ("jobs", "max_queue", "max_open", "max_megapixels", "patience")
_WHERE = ("replicas", "num_cpus", "num_gpus")


def app(arguments: dict[str, Any]) -> Any:
    """What ``serve run`` and a configuration file of Ray Serve name.

    ``serve run regionnorm.cluster.replicas:app replicas=4 num_gpus=1 method=network``

    Args:
        arguments: Options of :class:`~regionnorm.filling.inpainter.Inpainter` and
            :class:`~regionnorm.serving.ServiceOptions`, and ``replicas``, ``num_cpus`` and
            ``num_gpus`` of each.

    Raises:
        ValueError: An argument is not known.
    """
    kinds: dict[str, Callable[[str], Any]] = dict.fromkeys(_INPAINTER, str)
    kinds |= dict.fromkeys((*_OPTIONS[:3], "feather", "replicas"), int)
    kinds |= dict.fromkeys((*_OPTIONS[3:], "num_cpus", "num_gpus"), float)
    given: dict[str, Any] = {}
    for key, value in arguments.items():
        if key not in kinds:
            raise ValueError(f"{key!r} is not known; known are {', '.join(kinds)}")
        given[key] = kinds[key](value)
    return deployment(
        {key: given[key] for key in _INPAINTER if key in given},
        ServiceOptions(**{key: given[key] for key in _OPTIONS if key in given}),
        **{key: given[key] for key in _WHERE if key in given},
    )


def deployment(
    inpainter: dict[str, Any],
    options: ServiceOptions,
    *,
    replicas: int = 1,
    num_cpus: float = 1,
    num_gpus: float = 0,
) -> Any:
    """The service as an application of Ray Serve, each replica with limits of its own.

    Args:
        inpainter: Options of :class:`~regionnorm.filling.inpainter.Inpainter`, which each replica
            makes for itself.
        options: Limits of each replica.
        replicas: How many.
        num_cpus: Processors of each.
        num_gpus: GPUs of each.
    """
    serve: Any = require("ray.serve", extra="cluster")

    def build() -> Any:
        return build_service(Inpainter(**inpainter), options)

    return serve.deployment(
        name="regionnorm",
        num_replicas=replicas,
        # One more than a replica takes, which is told to come back; beyond, Ray says 503.
        max_ongoing_requests=options.max_open + 1,
        max_queued_requests=options.max_open,
        graceful_shutdown_timeout_s=300,
        ray_actor_options={"num_cpus": num_cpus, "num_gpus": num_gpus},
    )(serve.ingress(build)()).bind()
