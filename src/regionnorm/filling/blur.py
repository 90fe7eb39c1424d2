"""Gaussian blur on the CPU, compiled: what the texture pass does most."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

# Imported by name: what types numba declares do not fit what its compiler takes.
numba: Any = importlib.import_module("numba")

__all__ = ["gaussian_blur"]


def gaussian_blur(x: Tensor, sigma: float) -> Tensor:
    """Gaussian of ``[C, H, W]`` up to 3 sigma, the border repeated; float32.

    Every pixel is added up in the same order whatever the number of threads, and a row at a time,
    so that the sums stay in the first-level cache.
    """
    reach = math.ceil(3 * sigma)
    shifts = np.arange(-reach, reach + 1)
    weights = np.exp(-0.5 * (shifts / sigma) ** 2)
    source = np.ascontiguousarray(x.numpy(), np.float32)
    result = np.empty_like(source)
    _blur(source, (weights / weights.sum()).astype(np.float32), result)
    return torch.from_numpy(result)


def _jit(function: Callable[..., Any]) -> Any:
    options = {"nogil": True, "error_model": "numpy", "fastmath": {"contract"}}
    try:
        return numba.njit(cache=True, **options)(function)
    except RuntimeError:  # there is no folder to keep compiled code in
        return numba.njit(**options)(function)


@_jit
def _blur(source: Any, weights: Any, result: Any) -> None:
    channels, height, width = source.shape
    reach = len(weights) // 2
    row = np.empty(width + 2 * reach, np.float32)
    for channel in range(channels):
        for y in range(height):
            row[:] = 0
            middle = row[reach : reach + width]
            for shift in range(len(weights)):
                weight = weights[shift]
                other = source[channel, min(max(y + shift - reach, 0), height - 1)]
                for i in range(width):
                    middle[i] += weight * other[i]
            row[:reach] = middle[0]
            row[reach + width :] = middle[width - 1]
            out = result[channel, y]
            out[:] = 0
            for shift in range(len(weights)):
                weight = weights[shift]
                part = row[shift : shift + width]
                for i in range(width):
                    out[i] += weight * part[i]
