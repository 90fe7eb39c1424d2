"""Training losses: tensors in, a scalar tensor out.

Images are float ``[B, 3, H, W]`` in [0, 1], masks ``[B, 1, H, W]`` with 1 = hole. Every loss is
computed in float32 at least, whatever the input's dtype and also under autocast, and its gradient
is finite wherever its inputs are, e.g. for equal images, black features and empty masks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = [
    "FEATURE_DISTANCE_LAYERS",
    "AdversarialKind",
    "ReconstructionKind",
    "discriminator_loss",
    "feature_distance",
    "feature_matching_loss",
    "generator_loss",
    "gradient_penalty",
    "gram_matrix",
    "perceptual_loss",
    "reconstruction_loss",
    "spatial_discount",
    "style_loss",
    "total_variation_loss",
]

AdversarialKind = Literal["nsgan", "lsgan", "hinge", "wgan"]
ReconstructionKind = Literal["l1", "l1_over_hole_share", "l1_weighted", "l1_discounted"]

#: Layers that :func:`feature_distance` compares unless told otherwise.
FEATURE_DISTANCE_LAYERS = ("relu1_1", "relu2_1", "relu3_1")


def reconstruction_loss(
    output: Tensor,
    target: Tensor,
    mask: Tensor,
    *,
    kind: ReconstructionKind = "l1_over_hole_share",
    hole_weight: float = 6.0,
    valid_weight: float = 1.0,
) -> Tensor:
    """Mean absolute error, in one of four weightings.

    - ``"l1"``: the mean over all elements; the mask is not used.
    - ``"l1_over_hole_share"``: the same divided by ``mean(mask)`` over the batch (the paper's,
      after EdgeConnect). A batch without any hole is not divided.
    - ``"l1_weighted"``: ``hole_weight * mean(|d| * mask) + valid_weight * mean(|d| * (1 - mask))``
      (partial convolution; both means are over all elements).
    - ``"l1_discounted"``: ``mean(|d| * discount * mask) + mean(|d| * (1 - mask)) / mean(1 - mask)``
      with :func:`spatial_discount` (contextual attention). A batch of full holes is not divided.

    Whether ``output`` is the network's own or the composite is the caller's choice.

    Args:
        output: float ``[B, C, H, W]``.
        target: Same shape as ``output``.
        mask: 0/1, float or bool ``[B, 1, H, W]``.
        kind: One of the four above.
        hole_weight: Only for ``"l1_weighted"``.
        valid_weight: Only for ``"l1_weighted"``.

    Raises:
        ValueError: The shapes do not fit, or ``kind`` is unknown.
    """
    _check_same_shape(output, target)
    _check_mask(mask, output)
    difference = (_wide(output) - _wide(target)).abs()
    if kind == "l1":
        return difference.mean()
    hole = mask.to(difference.dtype)
    if kind == "l1_over_hole_share":
        share = hole.mean()
        return difference.mean() / torch.where(share > 0, share, torch.ones_like(share))
    if kind == "l1_weighted":
        return (difference * (valid_weight + (hole_weight - valid_weight) * hole)).mean()
    if kind == "l1_discounted":
        inside = (difference * spatial_discount(hole) * hole).mean()
        share = 1 - hole.mean()
        share = torch.where(share > 0, share, torch.ones_like(share))
        return inside + (difference * (1 - hole)).mean() / share
    raise ValueError(
        f"kind is {kind!r}; choose 'l1', 'l1_over_hole_share', 'l1_weighted' or 'l1_discounted'"
    )


def spatial_discount(mask: Tensor, gamma: float = 0.99) -> Tensor:
    """``gamma ** d`` with ``d`` a hole pixel's distance to the known ones (Yu et al., 2018).

    What lies deep inside a hole can be filled in many ways, so that its error counts less. ``d``
    is the chessboard distance, counted from 0 at the hole's rim; for a rectangle it is the
    distance to the nearest side, as in the paper.

    Args:
        mask: 0/1 ``[B, 1, H, W]``.
        gamma: 0.99 in the paper.

    Returns:
        float ``[B, 1, H, W]``; 1 outside the hole and where nothing is known.
    """
    hole = _wide(mask) if mask.is_floating_point() else mask.float()
    # A picture without any known pixel has no rim to count from.
    nothing_known = hole.amin(dim=(1, 2, 3), keepdim=True) > 0
    depth, inner = torch.zeros_like(hole), torch.where(nothing_known, 0.0, hole)
    for _ in range(max(hole.shape[-2:])):
        inner = _eroded(inner)
        if not inner.any():
            break
        depth = depth + inner
    discount: Tensor = gamma**depth
    return discount


def _eroded(mask: Tensor) -> Tensor:
    """0/1 ``[B, 1, H, W]`` without the pixels that touch a 0; beyond the edge there is none.

    By shifted products: on a CPU a ninth of the time of a maximum over windows.
    """
    for axis in (-2, -1):
        least, rest = mask.clone(), mask.shape[axis] - 1
        least.narrow(axis, 1, rest).mul_(mask.narrow(axis, 0, rest))
        least.narrow(axis, 0, rest).mul_(mask.narrow(axis, 1, rest))
        mask = least
    return mask


def gradient_penalty(slopes: Tensor, wanted: float = 1.0) -> Tensor:
    """Mean of ``(slope - wanted)^2``: how far an adversary is from being as steep as wanted.

    With 1 it keeps a Wasserstein critic 1-Lipschitz; with 0, at photos alone, it is R1, which
    lets a discriminator rest once it cannot tell (Mescheder et al., 2018).

    Args:
        slopes: float ``[B]``, lengths of the adversary's gradients, as of ``WassersteinCritic``
            and ``MatchingDiscriminator``.
        wanted: The length that costs nothing.
    """
    return (_wide(slopes) - wanted).square().mean()


def discriminator_loss(
    real_logits: Tensor,
    fake_logits: Tensor,
    kind: AdversarialKind = "nsgan",
    weight: Tensor | None = None,
) -> Tensor:
    """The discriminator's loss: the mean of its loss on real and its loss on filled images.

    - ``"nsgan"``: binary cross-entropy, ``-log sigmoid(real)`` and ``-log sigmoid(-fake)``.
    - ``"lsgan"``: ``(real - 1)^2`` and ``fake^2``.
    - ``"hinge"``: ``max(0, 1 - real)`` and ``max(0, 1 + fake)``.
    - ``"wgan"``: ``-real`` and ``fake``, to go with a :func:`gradient_penalty`.

    Args:
        real_logits: float, any shape, before any sigmoid.
        fake_logits: float, any shape; computed on detached outputs of the generator.
        kind: One of the four above.
        weight: What each logit counts, float >= 0 of the logits' shape; None: all the same.

    Raises:
        ValueError: ``kind`` is unknown, or the weights' shape is another one.
    """
    on_real, on_fake, _ = _adversarial(kind)
    real = _mean(on_real(_wide(real_logits)), weight)
    return (real + _mean(on_fake(_wide(fake_logits)), weight)) / 2


def generator_loss(
    fake_logits: Tensor, kind: AdversarialKind = "nsgan", weight: Tensor | None = None
) -> Tensor:
    """The generator's adversarial loss.

    ``"nsgan"``: ``-log sigmoid(fake)`` (non-saturating); ``"lsgan"``: ``(fake - 1)^2``;
    ``"hinge"`` and ``"wgan"``: ``-fake``; each averaged over all elements.

    Args:
        fake_logits: float, any shape, before any sigmoid.
        kind: One of the four above.
        weight: What each logit counts, float >= 0 of the logits' shape; None: all the same.

    Raises:
        ValueError: ``kind`` is unknown, or the weights' shape is another one.
    """
    return _mean(_adversarial(kind)[2](_wide(fake_logits)), weight)


def perceptual_loss(
    output_features: Mapping[str, Tensor],
    target_features: Mapping[str, Tensor],
    *,
    layers: Sequence[str] | None = None,
) -> Tensor:
    """Sum over layers of the mean absolute difference of activations.

    Args:
        output_features: ``{layer: float [B, C, H, W]}``, e.g. from ``nn.vgg.VGGFeatures``.
        target_features: The same for the target.
        layers: Layers to compare; None for all of ``output_features``.

    Raises:
        ValueError: A layer is missing, or its two shapes differ.
    """
    pairs = _pairs(output_features, target_features, layers)
    return torch.stack([F.l1_loss(_wide(a), _wide(b)) for a, b in pairs]).sum()


def gram_matrix(features: Tensor) -> Tensor:
    """``F F^T / (C * H * W)`` of each sample's features, flattened over space.

    Args:
        features: float ``[B, C, H, W]``.

    Returns:
        float32 (float64 for float64) ``[B, C, C]``.
    """
    channels, height, width = features.shape[1:]
    # Autocast would run the product in half precision, where its sums overflow.
    with torch.autocast(features.device.type, enabled=False):
        flat = _wide(features).flatten(2)
        return flat @ flat.transpose(1, 2) / (channels * height * width)


def style_loss(
    output_features: Mapping[str, Tensor],
    target_features: Mapping[str, Tensor],
    *,
    layers: Sequence[str] | None = None,
) -> Tensor:
    """Sum over layers of the mean absolute difference of Gram matrices.

    The features may be those of images multiplied by the mask, as in EdgeConnect; that is the
    caller's choice.

    Args:
        output_features: ``{layer: float [B, C, H, W]}``, e.g. from ``nn.vgg.VGGFeatures``.
        target_features: The same for the target.
        layers: Layers to compare; None for all of ``output_features``.

    Raises:
        ValueError: A layer is missing, or its two shapes differ.
    """
    pairs = _pairs(output_features, target_features, layers)
    return torch.stack([F.l1_loss(gram_matrix(a), gram_matrix(b)) for a, b in pairs]).sum()


def feature_matching_loss(
    fake_features: Sequence[Tensor], real_features: Sequence[Tensor]
) -> Tensor:
    """Sum over a discriminator's layers of the mean absolute difference of its features.

    No gradient flows through ``real_features``.

    Args:
        fake_features: Activations for the generator's output, one float tensor per layer.
        real_features: The same for real images.

    Raises:
        ValueError: The numbers of layers differ, are 0, or the shapes of a layer differ.
    """
    if len(fake_features) != len(real_features) or not fake_features:
        raise ValueError(
            f"got {len(fake_features)} fake and {len(real_features)} real layers; "
            "give the same number, at least one"
        )
    for fake, real in zip(fake_features, real_features, strict=True):
        _check_same_shape(fake, real)
    return torch.stack(
        [
            F.l1_loss(_wide(fake), _wide(real.detach()))
            for fake, real in zip(fake_features, real_features, strict=True)
        ]
    ).sum()


def total_variation_loss(image: Tensor, mask: Tensor | None = None) -> Tensor:
    """Sum of absolute differences of vertical and horizontal neighbours, over ``image.numel()``.

    With a mask, only pairs that lie in the hole dilated by one pixel (8 neighbours) count, so that
    the step from the hole into the known pixels is smoothed too (partial convolution's).

    Args:
        image: float ``[B, C, H, W]``.
        mask: 0/1, float or bool ``[B, 1, H, W]``, or None for the whole image.

    Raises:
        ValueError: The shapes do not fit.
    """
    x = _wide(image)
    vertical = (x[..., 1:, :] - x[..., :-1, :]).abs()
    horizontal = (x[..., :, 1:] - x[..., :, :-1]).abs()
    if mask is not None:
        _check_mask(mask, image)
        hole = F.max_pool2d(mask.to(x.dtype), 3, stride=1, padding=1)
        vertical = vertical * (hole[..., 1:, :] * hole[..., :-1, :])
        horizontal = horizontal * (hole[..., :, 1:] * hole[..., :, :-1])
    return (vertical.sum() + horizontal.sum()) / image.numel()


def feature_distance(
    features_a: Mapping[str, Tensor],
    features_b: Mapping[str, Tensor],
    *,
    layers: Sequence[str] | None = FEATURE_DISTANCE_LAYERS,
    eps: float = 1e-10,
) -> Tensor:
    """How different two images look to VGG-19: 0 for equal features, at most 2 after ReLUs.

    At each pixel both feature vectors are scaled to unit length across channels and their squared
    Euclidean distance is taken; it is averaged over pixels, then over layers. This is **not
    LPIPS**: it has no learned channel weights, and other layers and weights of the network.
    Numbers compare only among runs with the same VGG weights.

    Args:
        features_a: ``{layer: float [B, C, H, W]}``, e.g. from ``nn.vgg.VGGFeatures``.
        features_b: The same for the other image.
        layers: Layers to compare; None for all of ``features_a``.
        eps: Added to the squared length, so that a black pixel has a finite gradient.

    Returns:
        float32 (float64 for float64) ``[B]``.

    Raises:
        ValueError: A layer is missing, or its two shapes differ.
    """
    distances = []
    for a, b in _pairs(features_a, features_b, layers):
        distances.append(_unit_distance(_wide(a), _wide(b), eps).mean(dim=(1, 2)))
    return torch.stack(distances).mean(dim=0)


def _unit_distance(a: Tensor, b: Tensor, eps: float) -> Tensor:
    """Squared distance of ``[B, C, H, W]`` scaled to unit length across channels, ``[B, H, W]``.

    From three inner products: a third of the memory traffic of making the unit vectors.
    """
    square_a, square_b = (x.square().sum(dim=1) for x in (a, b))
    length_a, length_b = square_a + eps, square_b + eps
    product = (a * b).sum(dim=1) / (length_a * length_b).sqrt()
    # Equal vectors have three equal quotients, so that their distance is exactly 0.
    return (square_a / length_a + square_b / length_b - 2 * product).clamp(min=0)


_Term = Callable[[Tensor], Tensor]
# kind -> the discriminator's loss on real and on fake logits, the generator's on fake ones
_ADVERSARIAL: dict[str, tuple[_Term, _Term, _Term]] = {
    "nsgan": (
        lambda real: -F.logsigmoid(real),
        lambda fake: -F.logsigmoid(-fake),
        lambda fake: -F.logsigmoid(fake),
    ),
    "lsgan": (
        lambda real: (real - 1).square(),
        lambda fake: fake.square(),
        lambda fake: (fake - 1).square(),
    ),
    "hinge": (
        lambda real: F.relu(1 - real),
        lambda fake: F.relu(1 + fake),
        lambda fake: -fake,
    ),
    "wgan": (lambda real: -real, lambda fake: fake, lambda fake: -fake),
}


def _adversarial(kind: str) -> tuple[_Term, _Term, _Term]:
    if kind not in _ADVERSARIAL:
        raise ValueError(f"kind is {kind!r}; choose 'nsgan', 'lsgan', 'hinge' or 'wgan'")
    return _ADVERSARIAL[kind]


def _mean(x: Tensor, weight: Tensor | None) -> Tensor:
    """Mean of ``x``, weighted; 0 where nothing has weight."""
    if weight is None:
        return x.mean()
    _check_same_shape(x, weight)
    total = weight.sum()
    return (x * weight).sum() / torch.where(total > 0, total, torch.ones_like(total))


def _wide(x: Tensor) -> Tensor:
    """Half-precision tensors as float32, others as they are."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def _pairs(
    features_a: Mapping[str, Tensor], features_b: Mapping[str, Tensor], layers: Sequence[str] | None
) -> list[tuple[Tensor, Tensor]]:
    names = list(features_a) if layers is None else list(layers)
    missing = [name for name in names if name not in features_a or name not in features_b]
    if missing or not names:
        raise ValueError(
            f"asked to compare layers {names}, but the features hold {sorted(features_a)} and "
            f"{sorted(features_b)}; ask for one or more that both hold"
        )
    for name in names:
        _check_same_shape(features_a[name], features_b[name])
    return [(features_a[name], features_b[name]) for name in names]


def _check_same_shape(a: Tensor, b: Tensor) -> None:
    # Broadcasting would silently compare every pixel with the wrong ones.
    if a.shape != b.shape:
        raise ValueError(
            f"tensors to compare have shapes {list(a.shape)} and {list(b.shape)}; "
            "give two of the same shape"
        )


def _check_mask(mask: Tensor, image: Tensor) -> None:
    expected = [image.shape[0], 1, *image.shape[2:]]
    if list(mask.shape) != expected:
        raise ValueError(
            f"mask has shape {list(mask.shape)}; an image of shape {list(image.shape)} "
            f"needs {expected}"
        )
