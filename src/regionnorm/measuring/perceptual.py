"""How alike a filled photo and its original look: measures that need another network's weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from regionnorm._extras import require
from regionnorm.losses import FEATURE_DISTANCE_LAYERS, feature_distance
from regionnorm.nn.vgg import find_vgg19, load_vgg19

__all__ = [
    "PERCEPTUAL_METRICS",
    "FeatureDistance",
    "FrechetDistance",
    "PairMetric",
    "SetMetric",
    "available",
    "make_metrics",
]

PairMetric = Callable[[Tensor, Tensor], Tensor]
"""``metric(result, photo)``: two float ``[B, 3, H, W]`` in [0, 1] to ``[B]``, low = alike."""


class SetMetric(Protocol):
    """A distance between all results and all photos, low = alike."""

    def update(self, result: Tensor, photo: Tensor) -> None:
        """Take in two batches, float ``[B, 3, H, W]`` in [0, 1]."""

    def compute(self) -> float:
        """The distance of what was taken in."""


@dataclass
class FeatureDistance:
    """:func:`regionnorm.losses.feature_distance` of VGG-19's relu1_1 to relu3_1. Not LPIPS.

    Args:
        features: The network, see :func:`regionnorm.nn.vgg.load_vgg19`.
    """

    features: nn.Module
    _photo: Tensor | None = field(default=None, repr=False)
    _expected: dict[str, Tensor] = field(default_factory=dict, repr=False)

    @classmethod
    def load(cls, weights: str | None = None) -> FeatureDistance:
        """The measure with VGG-19's weights from a file; None as :func:`make_metrics`.

        Raises:
            OSError: Weights are missing.
            ValueError: The file holds no VGG-19, or one that ends too early.
        """
        return cls(load_vgg19(weights, layers=FEATURE_DISTANCE_LAYERS))

    def __call__(self, result: Tensor, photo: Tensor) -> Tensor:
        """Distance of each pair, float32 ``[B]``."""
        self.features.to(result.device)
        with torch.inference_mode():
            if photo is not self._photo:  # models are measured against the same photos in turn
                self._photo, self._expected = photo, self.features(photo)
            return feature_distance(self.features(result), self._expected)


class FrechetDistance:
    """Frechet inception distance (Heusel et al. 2017) as torchmetrics computes it.

    It needs many photos, thousands rather than hundreds, before its value settles.

    Args:
        features: Network from uint8 pictures ``[B, 3, H, W]`` to ``[B, D]``; None takes
            torch-fidelity's Inception-v3, whose weights are downloaded once.

    Raises:
        ImportError: torchmetrics or torch-fidelity is missing.
    """

    def __init__(self, features: nn.Module | None = None) -> None:
        if features is None:
            require("torch_fidelity", extra="lpips")
        fid: Any = require("torchmetrics.image.fid", extra="lpips")
        self._metric = fid.FrechetInceptionDistance(
            feature=2048 if features is None else features, normalize=True
        )

    def update(self, result: Tensor, photo: Tensor) -> None:
        """Take in two batches, float ``[B, 3, H, W]`` in [0, 1]."""
        self._metric.to(result.device)
        self._metric.update(photo, real=True)
        self._metric.update(result, real=False)

    def compute(self) -> float:
        """The distance; ``nan`` for fewer than two photos."""
        if self._metric.real_features_num_samples < 2:
            return float("nan")
        return float(self._metric.compute())


def make_metrics(names: Iterable[str]) -> dict[str, PairMetric]:
    """Load what the named measures need.

    ``feature_distance`` takes VGG-19's weights from ``$REGIONNORM_VGG`` or torchvision's official
    file; ``lpips`` (Zhang et al. 2018, AlexNet) is torchmetrics', with torchvision's weights.

    Args:
        names: Some of :data:`PERCEPTUAL_METRICS`.

    Raises:
        ValueError: A name is not known.
        ImportError: A package is missing.
        OSError: Weights are missing.
    """
    metrics = {}
    for name in names:
        if name not in PERCEPTUAL_METRICS:
            known = ", ".join(PERCEPTUAL_METRICS)
            raise ValueError(f"metric {name!r} is not known; choose from {known}")
        metrics[name] = PERCEPTUAL_METRICS[name]()
    return metrics


def available() -> list[str]:
    """Measures that need no download: ``feature_distance`` if its weights are on this machine."""
    return ["feature_distance"] if find_vgg19() is not None else []


def _lpips() -> PairMetric:
    require("torchvision", extra="lpips")
    functional: Any = require("torchmetrics.functional.image", extra="lpips")

    def measure(result: Tensor, photo: Tensor) -> Tensor:
        distance: Tensor = functional.learned_perceptual_image_patch_similarity(
            result, photo, net_type="alex", reduction="none", normalize=True
        )
        return distance.flatten()

    return measure


#: Name to a function that loads the measure.
PERCEPTUAL_METRICS: dict[str, Callable[[], PairMetric]] = {
    "feature_distance": FeatureDistance.load,
    "lpips": _lpips,
}
