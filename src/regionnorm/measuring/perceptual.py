"""How alike a filled photo and its original look: measures that need another network's weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import cache
from itertools import pairwise
from typing import Any, Protocol
from weakref import ref

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from regionnorm._extras import require
from regionnorm.losses import FEATURE_DISTANCE_LAYERS, feature_distance
from regionnorm.nn.vgg import find_vgg19, load_vgg19

__all__ = [
    "PERCEPTUAL_METRICS",
    "FeatureDistance",
    "Features",
    "FrechetDistance",
    "PairMetric",
    "SetMetric",
    "TextureDistance",
    "available",
    "make_metrics",
    "texture_distance",
]

PairMetric = Callable[[Tensor, Tensor, Tensor], Tensor]
"""``metric(result, photo, mask)``: two float ``[B, 3, H, W]`` in [0, 1] and the float mask
``[B, 1, H, W]``, 1 = hole, to ``[B]``, low = alike."""

_GRID = 4  # cells of the texture distance along each side of the hole's bounding box
_FULL = 0.7  # share of hole from which on a cell counts
_STABLE = 0.001  # keeps two statistics near zero from being far apart

_Box = tuple[int, int, int, int]  # top, bottom, left, right in pixels


class SetMetric(Protocol):
    """A distance between all results and all photos, low = alike."""

    def update(self, result: Tensor, photo: Tensor) -> None:
        """Take in two batches, float ``[B, 3, H, W]`` in [0, 1]."""

    def compute(self) -> float:
        """The distance of what was taken in."""


class Features:
    """VGG-19's relu1_1, relu2_1 and relu3_1, kept of a picture for as long as it is in use.

    Several measures look at the same fills, and several models are measured against the same
    photos; what they share is computed once.

    Args:
        network: From pictures to activations by name, see :func:`regionnorm.nn.vgg.load_vgg19`.
    """

    def __init__(self, network: nn.Module) -> None:
        self._network = network
        self._kept: list[tuple[ref[Tensor], Mapping[str, Tensor]]] = []

    @classmethod
    def load(cls, weights: str | None = None) -> Features:
        """The network with weights from a file; None as :func:`make_metrics`.

        Raises:
            OSError: Weights are missing.
            ValueError: The file holds no VGG-19, or one that ends too early.
        """
        return cls(load_vgg19(weights, layers=FEATURE_DISTANCE_LAYERS))

    def __call__(self, pictures: Tensor) -> Mapping[str, Tensor]:
        """Activations by name for float ``[B, 3, H, W]`` in [0, 1]."""
        for of, found in self._kept:
            if of() is pictures:
                return found
        self._network.to(pictures.device)
        with torch.inference_mode():
            features: Mapping[str, Tensor] = self._network(pictures)
        self._kept.append((ref(pictures, self._forget), features))
        return features

    def _forget(self, pictures: ref[Tensor]) -> None:
        self._kept = [entry for entry in self._kept if entry[0] is not pictures]


class FeatureDistance:
    """:func:`regionnorm.losses.feature_distance` of VGG-19's relu1_1 to relu3_1. Not LPIPS.

    Args:
        features: The network; measures that are given the same :class:`Features` share them.
    """

    def __init__(self, features: Features | nn.Module) -> None:
        self._features = features if isinstance(features, Features) else Features(features)

    @classmethod
    def load(cls, weights: str | None = None) -> FeatureDistance:
        """The measure with VGG-19's weights from a file; as :meth:`Features.load`."""
        return cls(Features.load(weights))

    def __call__(self, result: Tensor, photo: Tensor, mask: Tensor | None = None) -> Tensor:
        """Distance of each pair, float32 ``[B]``, over the whole picture; no mask is needed."""
        with torch.inference_mode():
            return feature_distance(self._features(result), self._features(photo))


class TextureDistance:
    """:func:`texture_distance` of VGG-19's relu1_1 to relu3_1.

    Args:
        features: The network; measures that are given the same :class:`Features` share them.
    """

    def __init__(self, features: Features | nn.Module) -> None:
        self._features = features if isinstance(features, Features) else Features(features)

    @classmethod
    def load(cls, weights: str | None = None) -> TextureDistance:
        """The measure with VGG-19's weights from a file; as :meth:`Features.load`."""
        return cls(Features.load(weights))

    def __call__(self, result: Tensor, photo: Tensor, mask: Tensor) -> Tensor:
        """Distance of each pair inside its hole, float32 ``[B]``."""
        with torch.inference_mode():
            return texture_distance(self._features(result), self._features(photo), mask)


def texture_distance(
    features_a: Mapping[str, Tensor], features_b: Mapping[str, Tensor], mask: Tensor
) -> Tensor:
    """How different the textures of two fills are, wherever their details lie: 0 to 1.

    The hole's bounding box is cut into 4x4 cells, and those that are at least 70 % hole are
    compared by the mean and the standard deviation that each channel has over their part of the
    hole: 1 - the mean of ``(2ab + 0.001) / (a^2 + b^2 + 0.001)`` over both statistics, channels,
    cells and layers. It punishes blur, but not another plausible piece of the same texture. Of a
    hole without a cell that is so full, as a thin stroke is, the fullest ones count; without any
    hole there is nothing to tell apart, and the distance is 0. Numbers compare only among runs
    with the same VGG weights.

    Args:
        features_a: ``{layer: float [B, C, H / s, W / s]}`` after ReLUs, s a power of 2; a pixel of
            theirs counts by the share of hole under it.
        features_b: The same for the other picture.
        mask: ``[B, 1, H, W]``, 1 = hole.

    Returns:
        float32 ``[B]``.
    """
    distances = []
    for sample, hole in enumerate(mask[:, 0] > 0.5):
        likeness = [
            _likeness(a[sample], features_b[name][sample], hole, box)
            for box in _full_cells(hole)
            for name, a in features_a.items()
        ]
        # A last row that a pooling leaves out is no part of the deeper layers.
        found = [value for value in likeness if value is not None]
        distances.append(1 - torch.stack(found).mean() if found else mask.new_zeros(()))
    return torch.stack(distances).float()


def _full_cells(hole: Tensor) -> list[_Box]:
    """Cells of a bool ``[H, W]`` hole that are full enough, or the fullest ones."""
    rows, columns = (hole.any(dim=d).nonzero().flatten().tolist() for d in (1, 0))
    if not rows:
        return []
    tops = _edges(rows[0], rows[-1] + 1)
    lefts = _edges(columns[0], columns[-1] + 1)
    boxes = [(top, bottom, left, right) for top, bottom in tops for left, right in lefts]
    shares = [float(hole[t:b, le:r].double().mean()) for t, b, le, r in boxes]
    least = min(_FULL, max(shares))
    return [box for box, share in zip(boxes, shares, strict=True) if share >= least]


def _edges(first: int, end: int) -> list[tuple[int, int]]:
    """Beginning and end of each part of ``first`` to ``end`` that has a pixel."""
    edges = [first + round(i * (end - first) / _GRID) for i in range(_GRID + 1)]
    return [(a, b) for a, b in pairwise(edges) if a < b]


def _likeness(a: Tensor, b: Tensor, hole: Tensor, box: _Box) -> Tensor | None:
    """Of two layers ``[C, h, w]`` in a cell of a bool ``[H, W]`` hole; None if it has no pixel."""
    # Poolings by 2, each of which may have left a row out.
    stride = 1 << ((len(hole) // a.shape[1]).bit_length() - 1)
    (top, bottom), (left, right) = (
        (low // stride, min(-(-high // stride), size))
        for low, high, size in ((*box[:2], a.shape[1]), (*box[2:], a.shape[2]))
    )
    if top >= bottom or left >= right:
        return None
    inside = torch.zeros_like(hole, dtype=torch.float32)
    inside[box[0] : box[1], box[2] : box[3]] = hole[box[0] : box[1], box[2] : box[3]]
    near = inside[None, top * stride : bottom * stride, left * stride : right * stride]
    share = F.avg_pool2d(near, stride)[0]
    total = share.sum()
    if total == 0:
        return None
    p, q = (_statistics(x[:, top:bottom, left:right].float(), share / total) for x in (a, b))
    return ((2 * p * q + _STABLE) / (p.square() + q.square() + _STABLE)).mean()


def _statistics(values: Tensor, weights: Tensor) -> Tensor:
    """Mean and deviation of each channel of ``[C, h, w]``, ``[2, C]``; weights sum to 1."""
    mean = (values * weights).sum(dim=(1, 2))
    variance = ((values - mean[:, None, None]).square() * weights).sum(dim=(1, 2))
    return torch.stack([mean, variance.sqrt()])


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


def make_metrics(names: Iterable[str], vgg: str | None = None) -> dict[str, PairMetric]:
    """Load what the named measures need.

    ``feature_distance`` and ``texture_distance`` share VGG-19, with weights from
    ``$REGIONNORM_VGG`` or torchvision's official file; ``lpips`` (Zhang et al. 2018, AlexNet) is
    torchmetrics', with torchvision's weights.

    Args:
        names: Some of :data:`PERCEPTUAL_METRICS`.
        vgg: A file of VGG-19 weights instead of those.

    Raises:
        ValueError: A name is not known.
        ImportError: A package is missing.
        OSError: Weights are missing.
    """
    metrics, features = {}, cache(lambda: Features.load(vgg))
    for name in names:
        if name not in PERCEPTUAL_METRICS:
            known = ", ".join(PERCEPTUAL_METRICS)
            raise ValueError(f"metric {name!r} is not known; choose from {known}")
        metrics[name] = PERCEPTUAL_METRICS[name](features)
    return metrics


def available() -> list[str]:
    """Measures that need no download: those of VGG-19 if its weights are on this machine."""
    return ["feature_distance", "texture_distance"] if find_vgg19() is not None else []


def _lpips() -> PairMetric:
    require("torchvision", extra="lpips")
    functional: Any = require("torchmetrics.functional.image", extra="lpips")

    def measure(result: Tensor, photo: Tensor, mask: Tensor) -> Tensor:
        distance: Tensor = functional.learned_perceptual_image_patch_similarity(
            result, photo, net_type="alex", reduction="none", normalize=True
        )
        return distance.flatten()

    return measure


#: Name to a function that makes the measure, given what loads VGG-19.
PERCEPTUAL_METRICS: dict[str, Callable[[Callable[[], Features]], PairMetric]] = {
    "feature_distance": lambda features: FeatureDistance(features()),
    "texture_distance": lambda features: TextureDistance(features()),
    "lpips": lambda features: _lpips(),
}
