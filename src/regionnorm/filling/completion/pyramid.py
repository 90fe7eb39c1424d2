"""Coarser copies of a photo with a hole, and smooth continuations into it; NumPy alone."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from regionnorm.masks.regions import dilate_square

__all__ = [
    "blur",
    "busyness",
    "clear_of",
    "coarser_hole",
    "continued",
    "depth_in",
    "enlarged",
    "halve",
]

Floats = npt.NDArray[np.float32]
Place = npt.NDArray[np.bool_]


def halve(pixels: Floats, hole: Place) -> tuple[Floats, Place]:
    """The next coarser level of ``[H, W, C]``: the mean of four; hole where any of them is."""
    height, width = hole.shape
    padding = ((0, height % 2), (0, width % 2))
    if height % 2 or width % 2:  # else it would be a copy
        pixels = np.pad(pixels, (*padding, (0, 0)), mode="edge")
    total = pixels[::2, ::2] + pixels[1::2, ::2]
    total += pixels[::2, 1::2]
    total += pixels[1::2, 1::2]
    total *= np.float32(0.25)
    return total, coarser_hole(hole)


def coarser_hole(hole: Place) -> Place:
    """Half of bool ``[H, W]``: True where any of four pixels is."""
    height, width = hole.shape
    if height % 2 or width % 2:
        hole = np.pad(hole, ((0, height % 2), (0, width % 2)), mode="edge")
    lines = hole[::2] | hole[1::2]
    coarser: Place = lines[:, ::2] | lines[:, 1::2]
    return coarser


def blur(values: Floats, weight: Floats, times: int) -> Floats:
    """Blur ``[H, W, C]`` by a 3x3 binomial filter, pixels weighted by ``weight`` ``[H, W]``."""
    both = np.concatenate([values * weight[..., None], weight[..., None]], axis=2)
    for _ in range(times):
        both = _blurred(_blurred(both).swapaxes(0, 1)).swapaxes(0, 1)
    smooth: Floats = both[..., :-1] / np.maximum(both[..., -1:], 1e-4)
    return smooth


def _blurred(values: Floats) -> Floats:
    padded = np.pad(values, ((1, 1), (0, 0), (0, 0)), mode="edge")
    result: Floats = padded[:-2] + padded[2:]
    result += values
    result += values
    result *= np.float32(0.25)
    return result


def continued(values: Floats, known: Place) -> Floats:
    """Continue the known pixels of ``[H, W, C]`` smoothly into the others (push-pull).

    Each unknown pixel is interpolated from the finest of ever coarser copies that know anything
    there. Where nothing is known anywhere, the values stay.
    """
    height, width = known.shape
    if known.all() or not known.any() or max(height, width) == 1:
        return values
    padding = ((0, height % 2), (0, width % 2), (0, 0))
    weight = known[..., None].astype(np.float32)
    total, count = _sums(np.pad(values * weight, padding)), _sums(np.pad(weight, padding))
    small = continued(total / np.maximum(count, np.float32(1)), count[..., 0] > 0)
    smooth = enlarged(enlarged(small).swapaxes(0, 1)).swapaxes(0, 1)
    return np.ascontiguousarray(np.where(weight > 0, values, smooth[:height, :width]))


def _sums(values: Floats) -> Floats:
    lines = values[::2] + values[1::2]
    total: Floats = lines[:, ::2] + lines[:, 1::2]
    return total


def enlarged(values: Floats) -> Floats:
    """Twice as many rows, interpolated linearly."""
    padded = np.pad(values, ((1, 1), (0, 0), (0, 0)), mode="edge")
    near = np.float32(0.75) * values
    upper, lower = near + np.float32(0.25) * padded[:-2], near + np.float32(0.25) * padded[2:]
    return np.stack([upper, lower], axis=1).reshape(-1, *values.shape[1:])


def busyness(pixels: Floats, hole: Place, levels: int) -> Floats:
    """Mean differences of brightness across and down, on a coarser level: texture that it lost.

    Args:
        pixels: float32 ``[H, W, 3]``.
        hole: bool ``[H, W]``, left out.
        levels: How often to halve.

    Returns:
        float32 ``[h, w, 2]``.
    """
    brightness = pixels.mean(axis=2)
    measured = np.zeros((*brightness.shape, 3), np.float32)
    measured[:, :-1, 0] = np.abs(np.diff(brightness, axis=1))
    measured[:-1, :, 1] = np.abs(np.diff(brightness, axis=0))
    measured[..., 2] = 1
    measured[dilate_square(hole, 1)] = 0
    nothing = np.zeros_like(hole)
    for _ in range(levels):
        measured, nothing = halve(measured, nothing)
    padded = np.pad(measured, ((1, 1), (1, 1), (0, 0)))
    lines = padded[:-2] + padded[1:-1] + padded[2:]
    sums = lines[:, :-2] + lines[:, 1:-1] + lines[:, 2:]
    result: Floats = sums[..., :2] / np.maximum(sums[..., 2:], 1e-3)
    return result


def clear_of(hole: Place, radius: int) -> Place:
    """Pixels of bool ``[H, W]`` further than ``radius`` from its hole and from what is beyond."""
    unknown = np.pad(hole, 1, constant_values=True)  # beyond the border nothing is known
    return np.ascontiguousarray(~dilate_square(unknown, radius)[1:-1, 1:-1])


def depth_in(hole: Place, most: int) -> Floats:
    """How many pixels it is from each pixel of a hole to a known one, corners 1; at most ``most``.

    Returns:
        float32 ``[H, W]``, 0 outside. Beyond the photo's border nothing is known.
    """
    depth = hole.astype(np.float32)
    left = hole
    for _ in range(most - 1):
        left = ~dilate_square(~left, 1)
        if not left.any():
            break
        depth += left
    return depth
