"""Which holes pieces of the photo are for, and where each may take them from; no numba needed."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from regionnorm.masks.regions import (
    Window,
    bounding_window,
    dilate_disk,
    dilate_square,
    label_regions,
)

__all__ = [
    "NARROWEST",
    "hole_groups",
    "pieces_fit",
    "stroke_holes",
    "stroke_sections",
    "wide_holes",
]

Place = npt.NDArray[np.bool_]

NARROWEST = 9
"""Pixels: how wide a hole is all along, about, that pieces may fill."""

_CORE = 11  # half the side of a square that fits into wide holes
_BRUSH = NARROWEST // 2  # radius of the thinnest brush that paints strokes and not lines
_PAINTED = 0.9  # share of a stroke that it paints, at least: more than of thin letters
_MARGIN = 96  # known pixels around a hole to copy from, at least
_TOGETHER = 32  # holes nearer to each other are filled together
_LONGEST = 192  # pixels of a stroke's section
_BESIDE = 48  # known pixels around a section to copy from, at least
_MOST_SECTIONS = 64  # of a photo: the largest ones


def wide_holes(mask: Place) -> Place:
    """The separate holes that are wide somewhere: 23 pixels."""
    core = _core(mask)
    if not core.any():
        return core
    parts, count = label_regions(mask)
    wide = np.zeros(count + 1, bool)
    wide[np.unique(parts[core])] = True
    wide[0] = False
    return wide[parts]


def _core(mask: Place) -> Place:
    """Where a square lies in the mask that only wide holes have room for."""
    return ~dilate_square(~mask, _CORE)


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
    stroke[parts[_core(mask)]] = False
    return stroke[parts]


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


def stroke_sections(strokes: Place) -> list[tuple[Place, Window]]:
    """Strokes one by one, long ones cut, each section in a window with what it may copy from.

    Returns:
        bool of the window's size, the section, and the window; the largest ones first, and no more
        than time allows.
    """
    parts, count = label_regions(strokes)
    found = [
        (int(np.count_nonzero(parts[cell.slices] == number)), number, cell)
        for number, box in enumerate(_boxes(parts, count), start=1)
        for cell in _cells(parts, number, box)
    ]
    found.sort(key=lambda section: -section[0])
    return [_section(parts, number, cell) for _, number, cell in found[:_MOST_SECTIONS]]


def _cells(parts: npt.NDArray[np.int32], number: int, box: Window) -> Iterator[Window]:
    """A part's box, cut across its longer side until nothing is too long."""
    inside = parts[box.slices] == number
    if not inside.any():
        return
    tight = bounding_window(inside)
    top, left = box.top + tight.top, box.left + tight.left
    bottom, right = top + tight.height, left + tight.width
    if max(tight.height, tight.width) <= _LONGEST:
        yield Window(top, left, bottom, right)
    elif tight.height > tight.width:
        for start, end in _spans(top, bottom):
            yield from _cells(parts, number, Window(start, left, end, right))
    else:
        for start, end in _spans(left, right):
            yield from _cells(parts, number, Window(top, start, bottom, end))


def _spans(low: int, high: int) -> list[tuple[int, int]]:
    edges = np.linspace(low, high, -(-(high - low) // _LONGEST) + 1).astype(int).tolist()
    return list(pairwise(edges))


def _section(parts: npt.NDArray[np.int32], number: int, cell: Window) -> tuple[Place, Window]:
    window = cell.grow(_BESIDE, *parts.shape)
    section = np.zeros((window.height, window.width), bool)
    section[cell.slices_in(window)] = parts[cell.slices] == number
    return section, window


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
