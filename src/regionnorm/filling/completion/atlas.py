"""A photo and other views of it side by side: what may be copied from.

Much that stands behind an object is seen elsewhere turned round or at another distance: the other
gable, the other rail, the next row of bricks. Mirrored and smaller copies beside the photo make
them reachable by shifts alone, so that nothing else has to know of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ["Atlas", "View", "make_atlas"]

Floats = npt.NDArray[np.float32]
Place = npt.NDArray[np.bool_]


class View(NamedTuple):
    """How a copy differs from the photo: mirrored left to right or not, and its size."""

    mirrored: bool
    scale: float


class Atlas(NamedTuple):
    """The photo, H x W pixels, at the left of a wider picture, H x V pixels.

    Attributes:
        pixels: float32 ``[H, V, 3]``.
        missing: bool ``[H, V]``: holes of all views, and what lies between them.
        place: bool ``[H, V]``: what is to be filled of the photo's own hole.
    """

    pixels: Floats
    missing: Place
    place: Place


def make_atlas(
    pixels: Floats, hole: Place, place: Place, views: Sequence[View], unit: int
) -> Atlas:
    """Put views beside the photo.

    Args:
        pixels: float32 ``[H, W, 3]``.
        hole: bool ``[H, W]``.
        place: bool ``[H, W]``, the part of it that is to be filled.
        views: None is larger than the photo.
        unit: Views begin at multiples of it, at least so many pixels behind the one before: by so
            much the picture may be reduced without mixing two views.
    """
    if not views:
        return Atlas(pixels, hole, place)  # large photos are tens of megabytes
    height, width = hole.shape
    colours, gaps = [], []
    for number, view in enumerate((View(mirrored=False, scale=1), *views)):
        part, gap = pixels, hole
        if view.mirrored:
            part, gap = part[:, ::-1], gap[:, ::-1]
        if view.scale != 1:
            part, gap = _resized(part, gap, view.scale)
        below, behind = height - len(part), 0
        if number < len(views):
            behind = -(-part.shape[1] // unit) * unit + unit - part.shape[1]
        padding = ((0, below), (0, behind))
        # Edges are repeated so that reduced pixels on an edge keep its colour.
        colours.append(np.pad(part, (*padding, (0, 0)), mode="edge"))
        gaps.append(np.pad(gap, padding, constant_values=True))
    wide, missing = np.concatenate(colours, axis=1), np.concatenate(gaps, axis=1)
    wanted = np.zeros_like(missing)
    wanted[:, :width] = place
    return Atlas(wide, missing, wanted)


def _resized(pixels: Floats, hole: Place, scale: float) -> tuple[Floats, Place]:
    """Interpolated linearly; a pixel is missing where any of those it is made of is."""
    for axis in (0, 1):
        size = pixels.shape[axis]
        to = max(1, int(size * scale))
        at = ((np.arange(to) + 0.5) / scale - 0.5).clip(0, size - 1)
        low = np.floor(at).astype(np.int64)
        high = np.minimum(low + 1, size - 1)
        share = (at - low).astype(np.float32)
        share = share[:, None, None] if axis == 0 else share[:, None]
        first, second = np.take(pixels, low, axis), np.take(pixels, high, axis)
        pixels = first + share * (second - first)
        hole = np.take(hole, low, axis) | np.take(hole, high, axis)
    return pixels, hole
