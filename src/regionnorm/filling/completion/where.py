"""Which holes pieces of the photo are for, and where each may take them from; no numba needed."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from regionnorm.masks.regions import (
    Window,
    bounding_window,
    dilate_disk,
    dilate_square,
    label_regions,
)

__all__ = ["NARROWEST", "hole_groups", "pieces_fit", "stroke_holes", "wide_holes"]

Place = npt.NDArray[np.bool_]

NARROWEST = 9
"""Pixels: how wide a hole is, at least, that pieces may fill."""

_CORE = 11  # half the side of a square that fits into wide holes
_BRUSH = NARROWEST // 2  # radius of the thinnest brush that paints strokes and not lines
_PAINTED = 0.9  # share of a stroke that it paints, at least: more than of thin letters
_MARGIN = 96  # known pixels around a hole to copy from, at least
_TOGETHER = 32  # holes nearer to each other are filled together


def wide_holes(mask: Place) -> Place:
    """The separate holes that are wide somewhere: 23 pixels."""
    core = ~dilate_square(~mask, _CORE)
    if not core.any():
        return core
    parts, count = label_regions(mask)
    wide = np.zeros(count + 1, bool)
    wide[np.unique(parts[core])] = True
    wide[0] = False
    return wide[parts]


def stroke_holes(mask: Place) -> Place:
    """The other separate holes that are wide all along: 9 pixels, as bold letters are."""
    strokes = np.zeros_like(mask)
    if mask.any():
        near = bounding_window(mask).grow(1, *mask.shape).slices
        strokes[near] = _strokes(mask[near])
    return strokes


def _strokes(mask: Place) -> Place:
    brush = ~dilate_disk(~mask, _BRUSH)
    if not brush.any():
        return brush
    parts, count = label_regions(mask)
    area = np.bincount(parts.ravel(), minlength=count + 1)
    painted = np.bincount(parts[dilate_disk(brush, _BRUSH)], minlength=count + 1)
    stroke = painted >= _PAINTED * area
    stroke[0] = False
    return stroke[parts] & ~wide_holes(mask)


def pieces_fit(mask: Place) -> bool:
    """Whether there is a hole that may be filled with pieces."""
    return bool(wide_holes(mask).any() or stroke_holes(mask).any())


def hole_groups(hole: Place) -> list[tuple[Place, Window]]:
    """Holes near to each other, each group in a window with what it may copy from.

    Returns:
        bool of the window's size, the group's holes, and the window.
    """
    height, width = hole.shape
    parts, count = label_regions(dilate_square(hole, _TOGETHER // 2))
    parts[~hole] = 0
    found = []
    for number, box in enumerate(_boxes(parts, count), start=1):
        window = box.grow(max(_MARGIN, box.height, box.width), height, width)
        found.append((parts[window.slices] == number, window))
    return found


def _boxes(parts: npt.NDArray[np.int32], count: int) -> list[Window]:
    rows, columns = np.nonzero(parts)
    number = parts[rows, columns]
    top, left = np.full(count + 1, parts.shape[0]), np.full(count + 1, parts.shape[1])
    bottom, right = np.zeros(count + 1, np.int64), np.zeros(count + 1, np.int64)
    np.minimum.at(top, number, rows)
    np.minimum.at(left, number, columns)
    np.maximum.at(bottom, number, rows + 1)
    np.maximum.at(right, number, columns + 1)
    sides = (top, left, bottom, right)
    return [Window(*(int(side[part]) for side in sides)) for part in range(1, count + 1)]
