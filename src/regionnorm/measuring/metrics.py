"""How close a filled photo is to the original: PSNR, SSIM and l1, under named definitions.

Published numbers are not comparable unless these details agree, so a :class:`MetricPreset`
writes them down: how the result becomes 8-bit, on which channels, with which window.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import torch
from torch import Tensor

PSNR_CAP = 100.0
"""dB given to a pair whose PSNR would exceed it, identical images included, so means stay finite.

The smallest error that 256x256 8-bit RGB images can have, one value off by one level, is 101.1 dB.
"""

METRICS = ("psnr", "ssim", "l1")
"""The keys of :func:`compute_metrics`; l1 is better when low, the others when high."""

GRAY_WEIGHTS = (0.2125, 0.7154, 0.0721)
"""Rec. 709 luma as scikit-image's ``rgb2gray`` rounds it."""

_K1, _K2 = 0.01, 0.03  # Wang et al. 2004, section III-C

Window = Literal["uniform", "gaussian"]
L1Definition = Literal["mean", "channel-mean", "relative"]


@dataclass(frozen=True)
class MetricPreset:
    """One published way to measure.

    Attributes:
        quantise: How values in [0, 1] become 8-bit levels before anything is measured: ``"round"``
            to the nearest, ``"truncate"`` downwards, ``"none"`` keeps them.
        colour: ``"rgb"``, or ``"gray"`` for luma with :data:`GRAY_WEIGHTS`.
        window: SSIM's window, see :func:`ssim`.
        window_size: Its side in pixels.
        l1: Definition of l1, see :func:`l1_percent`.
    """

    quantise: Literal["round", "truncate", "none"] = "round"
    colour: Literal["rgb", "gray"] = "rgb"
    window: Window = "uniform"
    window_size: int = 11
    l1: L1Definition = "mean"


PRESETS: Mapping[str, MetricPreset] = MappingProxyType(
    {
        "default": MetricPreset(),
        # The evaluation released with Region Normalization: photo and result both times 255, cut.
        "released": MetricPreset(quantise="truncate", l1="channel-mean"),
        # EdgeConnect measures luma of the 8-bit files that it has written.
        "edgeconnect": MetricPreset(
            quantise="truncate", colour="gray", window_size=51, l1="relative"
        ),
        "deepfill": MetricPreset(quantise="truncate", window="gaussian"),
    }
)


def get_preset(preset: str | MetricPreset) -> MetricPreset:
    """Look a preset up by name; a :class:`MetricPreset` is returned as it is.

    Raises:
        ValueError: The name is not in :data:`PRESETS`.
    """
    if isinstance(preset, MetricPreset):
        return preset
    if preset not in PRESETS:
        raise ValueError(f"unknown metric preset {preset!r}; choose one of {', '.join(PRESETS)}")
    return PRESETS[preset]


def compute_metrics(
    output: Tensor, target: Tensor, preset: str | MetricPreset = "default"
) -> dict[str, Tensor]:
    """Measure results against the photos that they stand for.

    Args:
        output: Composited results, float ``[B, 3, H, W]`` in [0, 1].
        target: Original photos, same shape.
        preset: A name from :data:`PRESETS`, or a definition of your own.

    Returns:
        ``{"psnr": dB, "ssim": at most 1, "l1": percent}``, each float64 ``[B]``.

    Raises:
        ValueError: Shapes differ, values are not floating point, there are not three channels,
            the images are smaller than the SSIM window, or the preset is unknown.
    """
    chosen = get_preset(preset)
    _check_pair(output, target)
    if output.shape[1] != 3:
        raise ValueError(f"expected RGB images [B, 3, H, W], got {output.shape[1]} channels")
    # One image at a time: its float64 planes stay in the cache, which halves the time.
    pairs = zip(torch.split(output, 1), torch.split(target, 1), strict=True)
    measured = [_measure_pair(x, y, chosen) for x, y in pairs]
    return {name: torch.cat([row[name] for row in measured]) for name in METRICS}


def _measure_pair(output: Tensor, target: Tensor, preset: MetricPreset) -> dict[str, Tensor]:
    output, target = _prepare(output, preset), _prepare(target, preset)
    return {
        "psnr": psnr(output, target),
        "ssim": ssim(output, target, window=preset.window, window_size=preset.window_size),
        "l1": l1_percent(output, target, definition=preset.l1),
    }


def psnr(output: Tensor, target: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of each pair, over all its channels and pixels.

    Args:
        output: Float ``[B, C, H, W]`` in [0, 1].
        target: Same shape and range.

    Returns:
        dB, float64 ``[B]``, at most :data:`PSNR_CAP`.

    Raises:
        ValueError: Shapes differ, or values are not floating point.
    """
    _check_pair(output, target)
    error = (_float64(output) - _float64(target)).square().mean(dim=(1, 2, 3))
    return (-10 * error.log10()).clamp(max=PSNR_CAP)


def l1_percent(output: Tensor, target: Tensor, *, definition: L1Definition = "mean") -> Tensor:
    """Mean absolute error of each pair, in percent of the full range.

    Args:
        output: Float ``[B, C, H, W]`` in [0, 1].
        target: Same shape and range.
        definition: ``"mean"``: over channels and pixels. ``"channel-mean"``: channels are averaged
            before the absolute value, so errors of opposite sign cancel (released RN code).
            ``"relative"``: sum of differences over sum of both images (EdgeConnect); two black
            images give 0.

    Returns:
        Float64 ``[B]``.

    Raises:
        ValueError: Shapes differ, values are not floating point, or the definition is unknown.
    """
    _check_pair(output, target)
    output, target = _float64(output), _float64(target)
    difference = output - target
    if definition == "mean":
        return 100 * difference.abs().mean(dim=(1, 2, 3))
    if definition == "channel-mean":
        return 100 * difference.mean(dim=1).abs().mean(dim=(1, 2))
    if definition == "relative":
        total = (output + target).sum(dim=(1, 2, 3))
        smallest = torch.finfo(torch.float64).tiny
        return 100 * difference.abs().sum(dim=(1, 2, 3)) / total.clamp(min=smallest)
    raise ValueError(f"unknown l1 definition {definition!r}; choose mean, channel-mean or relative")


def ssim(
    output: Tensor,
    target: Tensor,
    *,
    window: Window = "uniform",
    window_size: int = 11,
    sigma: float = 1.5,
) -> Tensor:
    """Structural similarity of each pair (Wang et al. 2004, eq. 13), averaged over channels.

    Only windows that lie wholly inside the image count. ``"uniform"`` uses the sample covariance
    and equals scikit-image's ``structural_similarity(win_size=window_size)``; ``"gaussian"`` uses
    the weighted population covariance of the paper and equals its ``gaussian_weights=True,
    use_sample_covariance=False`` when size and sigma are 11 and 1.5.

    Args:
        output: Float ``[B, C, H, W]`` in [0, 1].
        target: Same shape and range.
        window: Shape of the window.
        window_size: Its side, odd and at least 3.
        sigma: Standard deviation of the Gaussian in pixels.

    Returns:
        Float64 ``[B]`` in [-1, 1].

    Raises:
        ValueError: Shapes differ, values are not floating point, the image is smaller than the
            window, or the window is not valid.
    """
    _check_pair(output, target)
    _check_window(output, window, window_size, sigma)
    weights = _gaussian(window_size, sigma) if window == "gaussian" else None
    pairs = zip(output, target, strict=True)  # one at a time, as in compute_metrics
    return torch.stack([_ssim_of_pair(x, y, window_size, weights) for x, y in pairs])


def _ssim_of_pair(
    output: Tensor, target: Tensor, size: int, weights: Sequence[float] | None
) -> Tensor:
    """SSIM of two images ``[C, H, W]``; ``weights`` of the separable window, None if uniform."""
    x, y = _float64(output), _float64(target)
    # The index needs only the sum of both variances, hence four filtered planes and not five.
    planes = torch.stack([x, y, x.square() + y.square(), x * y])
    if weights is None:
        mean_x, mean_y, squares, product = _box_mean(planes, size)
        area = size * size
        unbiased = area / (area - 1)
    else:
        mean_x, mean_y, squares, product = _weighted_mean(planes, weights)
        unbiased = 1.0
    mean_squares = mean_x.square() + mean_y.square()
    mean_product = mean_x * mean_y
    variances = unbiased * (squares - mean_squares)
    covariance = unbiased * (product - mean_product)
    c1, c2 = _K1**2, _K2**2  # the dynamic range is 1
    similarity = (2 * mean_product + c1) * (2 * covariance + c2)
    index: Tensor = (similarity / ((mean_squares + c1) * (variances + c2))).mean()
    return index


def _box_mean(x: Tensor, size: int) -> Tensor:
    """Mean over every ``size`` x ``size`` window inside ``[..., H, W]``, by running sums.

    The cost does not grow with the window; float64 keeps the subtraction exact enough (1e-14).
    """
    for dim in (-2, -1):
        total = x.cumsum(dim)
        count = x.shape[dim] - size + 1
        x = total.narrow(dim, size - 1, count).clone()
        x.narrow(dim, 1, count - 1).sub_(total.narrow(dim, 0, count - 1))
    return x.div_(size * size)


def _weighted_mean(x: Tensor, weights: Sequence[float]) -> Tensor:
    """Separable weighted mean over every window inside ``[..., H, W]``.

    Shifted sums: four times as fast in float64 on the CPU as a convolution of one channel.
    """
    for dim in (-2, -1):
        count = x.shape[dim] - len(weights) + 1
        total = x.narrow(dim, 0, count) * weights[0]
        for shift, weight in enumerate(weights[1:], start=1):
            total.add_(x.narrow(dim, shift, count), alpha=weight)
        x = total
    return x


def _gaussian(size: int, sigma: float) -> list[float]:
    """Weights of a 1-d Gaussian window of ``size`` pixels, sum 1."""
    weights = [math.exp(-0.5 * ((i - size // 2) / sigma) ** 2) for i in range(size)]
    return [weight / sum(weights) for weight in weights]


def _prepare(x: Tensor, preset: MetricPreset) -> Tensor:
    """Quantise and convert to gray as the preset says: float64 ``[B, 3 or 1, H, W]``."""
    if preset.quantise != "none":
        # In float32, as published code does: k / 255 * 255 is k again for every 8-bit level.
        levels = x.float().clamp(0, 1) * 255
        levels = levels.round() if preset.quantise == "round" else levels.floor()
        x = _float64(levels) / 255
    x = _float64(x)
    if preset.colour == "gray":
        weights = torch.tensor(GRAY_WEIGHTS, dtype=torch.float64, device=x.device)
        x = (x * weights.view(1, 3, 1, 1)).sum(dim=1, keepdim=True)
    return x


def _float64(x: Tensor) -> Tensor:
    """Cast to float64; Apple's GPU has none, so tensors there move to the CPU."""
    return (x.cpu() if x.device.type == "mps" else x).double()


def _check_pair(output: Tensor, target: Tensor) -> None:
    if output.shape != target.shape or output.dim() != 4:
        raise ValueError(
            f"expected two tensors [B, C, H, W] of one shape,"
            f" got {list(output.shape)} and {list(target.shape)}"
        )
    if not (output.is_floating_point() and target.is_floating_point()):
        raise ValueError(
            f"expected floating point values in [0, 1], got {output.dtype} and {target.dtype};"
            f" divide 8-bit values by 255"
        )


def _check_window(output: Tensor, window: str, size: int, sigma: float) -> None:
    if window not in ("uniform", "gaussian"):
        raise ValueError(f"unknown SSIM window {window!r}; choose uniform or gaussian")
    if size < 3 or size % 2 == 0 or sigma <= 0:
        raise ValueError(
            f"SSIM needs an odd window of at least 3 pixels and a positive sigma,"
            f" got window_size={size}, sigma={sigma}"
        )
    height, width = output.shape[-2:]
    if min(height, width) < size:
        raise ValueError(
            f"SSIM's window of {size} pixels does not fit into an image of {width}x{height};"
            f" use larger images or a smaller window"
        )
