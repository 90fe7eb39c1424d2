"""Vanishing lines: how the planes of a photo, floors and facades, recede from the viewer.

Straight edges that are parallel in the world meet in a vanishing point, and the points of two
directions of a plane lie on its vanishing line. What stands on a plane gets smaller towards it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from regionnorm.filling.completion._compiled import jit
from regionnorm.filling.completion.pyramid import blur, clear_of

__all__ = ["Edges", "edges_of", "vanishing_lines", "vanishing_points"]

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Place = npt.NDArray[np.bool_]

_SMOOTH = 8  # blurs of the structure tensor
_COHERENT = 0.9  # least share of the gradients around an edge that point one way
_STRONG = 0.03  # least mean difference of brightness along them
_MOST_EDGES = 1500

_POINTS = 5
_GUESSES = 1500
_ANGLE = 0.035  # sine of the angle by which an edge may miss its point
# How many of the most edges have to lead to the first point, how many to each of the others, and
# which share of those that are left: some point has the edges of any thicket.
_LEAST_FIRST, _LEAST, _LEAST_SHARE = 225, 75, 0.08
_POLISHES = 4

_APART = 0.03  # sine, about, of the angle between two points' directions that fix a line
_SLOPE = 0.2  # least change of size across the photo that is perspective
_ALIKE = 0.15  # difference of such changes of two lines


class Edges(NamedTuple):
    """Places of straight edges.

    Attributes:
        at: float64 ``[N, 2]``: columns and rows of pixels' middles.
        along: float64 ``[N, 2]``: unit vectors along the edges.
    """

    at: Doubles
    along: Doubles


def vanishing_lines(pixels: Floats, hole: Place) -> Doubles:
    """Lines towards which planes of a photo may recede, the likeliest first.

    Those through two vanishing points each, and the horizontal and the vertical one through each.

    Args:
        pixels: float32 ``[H, W, 3]``.
        hole: bool ``[H, W]``, not looked at.

    Returns:
        float64 ``[K, 3]``: (a, b, c) with a * column + b * row + c = 0 on the line, in pixels whose
        middles lie at halves; 1 in the middle of the hole, and larger further away from the line.
    """
    size = max(hole.shape)
    unit = np.array([1 / size, 1 / size, 1])  # the photo is about as large as 1
    points = vanishing_points(edges_of(pixels, hole), hole.shape) * unit
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    pairs = [(one, other) for i, one in enumerate(points) for other in points[:i]]
    pairs += [(point, axis) for point in points for axis in np.eye(3)[:2]]
    rows, columns = np.nonzero(hole)
    middle = np.array([np.median(columns) + 0.5, np.median(rows) + 0.5, 1]) if len(rows) else unit
    lines: list[Doubles] = []
    for one, other in pairs:
        line = np.cross(one, other)
        there = line @ (middle * unit)
        slope = np.hypot(line[0], line[1])
        if np.linalg.norm(line) < _APART or abs(there) < 1e-3 or slope < _SLOPE * abs(there):
            continue
        line = line / there
        if all(np.hypot(*(line - before)[:2]) > _ALIKE for before in lines):
            lines.append(line)
    lines = [line * unit for line in lines]
    return np.array(lines).reshape(-1, 3)


def edges_of(pixels: Floats, hole: Place) -> Edges:
    """The strongest straight edges of ``[H, W, 3]`` beside its hole, evenly chosen."""
    brightness = pixels.mean(axis=2)
    known = clear_of(hole, 1)
    down = _slope(brightness)
    right = _slope(brightness.T).T
    tensor = np.stack([right * right, down * down, right * down], axis=2)
    tensor = blur(tensor, known.astype(np.float32), _SMOOTH)
    across, along, mixed = np.moveaxis(tensor, 2, 0)
    total = across + along
    spread = np.hypot(across - along, 2 * mixed)
    good = known & (total > _STRONG**2) & (spread > _COHERENT * total)
    # On the crest alone: else thick edges would count more than fine ones.
    good &= np.square(right) + np.square(down) >= total
    rows, columns = np.nonzero(good)
    if len(rows) > _MOST_EDGES:
        chosen = np.random.default_rng(0).permutation(len(rows))[:_MOST_EDGES]
        rows, columns = rows[chosen], columns[chosen]
    angle = np.arctan2(2 * mixed, across - along)[rows, columns] / 2 + np.pi / 2
    at = np.stack([columns + 0.5, rows + 0.5], axis=1)
    return Edges(at, np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float64))


def _slope(values: Floats) -> Floats:
    """Change from row to row by Scharr's filter, which is nearly the same in all directions."""
    padded = np.pad(values, 1, mode="edge")
    steps = (padded[2:] - padded[:-2]) / np.float32(32)
    slope: Floats = 3 * (steps[:, :-2] + steps[:, 2:]) + 10 * steps[:, 1:-1]
    return slope


def vanishing_points(edges: Edges, shape: tuple[int, int]) -> Doubles:
    """Points that many edges lead to, the one of most edges first.

    Returns:
        float64 ``[K, 3]``: homogeneous (column, row, 1), the last 0 for a direction.
    """
    height, width = shape
    scale = max(shape) / 2
    middle = np.array([width, height]) / 2
    at, along = (edges.at - middle) / scale, edges.along
    found: list[Doubles] = []
    while len(found) < _POINTS and len(at) >= _LEAST:
        guesses = np.random.default_rng(len(found)).integers(len(at), size=(_GUESSES, 2))
        lines = _lines(at, along)
        points = np.cross(lines[guesses[:, 0]], lines[guesses[:, 1]])
        points = points[np.linalg.norm(points, axis=1) > 1e-6]
        if len(points) == 0:  # all on one line
            break
        point = points[np.argmax(_support(points, at, along, _ANGLE))]
        for _ in range(_POLISHES):
            close = _missed(point, at, along) < _ANGLE
            if np.count_nonzero(close) >= 2:
                point = np.linalg.svd(lines[close], full_matrices=False)[2][-1]
        close = _missed(point, at, along) < _ANGLE
        least = _LEAST if found else _LEAST_FIRST
        if np.count_nonzero(close) < max(least, _LEAST_SHARE * len(at)):
            break
        found.append(point)
        left = _missed(point, at, along) > 2 * _ANGLE
        at, along = at[left], along[left]
    back = np.array([[scale, 0, middle[0]], [0, scale, middle[1]], [0, 0, 1]])
    return np.array([back @ point for point in found]).reshape(-1, 3)


def _lines(at: Doubles, along: Doubles) -> Doubles:
    """Homogeneous lines through places, with unit normals, ``[N, 3]``."""
    normal = np.stack([-along[:, 1], along[:, 0]], axis=1)
    return np.concatenate([normal, -(normal * at).sum(axis=1, keepdims=True)], axis=1)


def _missed(point: Doubles, at: Doubles, along: Doubles) -> Doubles:
    """Sine of the angle between each edge and the way to a point."""
    way = point[:2] - point[2] * at
    missed: Doubles = np.abs(way[:, 0] * along[:, 1] - way[:, 1] * along[:, 0])
    missed /= np.maximum(np.hypot(way[:, 0], way[:, 1]), 1e-9)
    return missed


@jit
def _support(points: Any, at: Any, along: Any, most: Any) -> Any:
    """How many edges lead to each point, those that lead there better counting more."""
    result = np.zeros(len(points))
    for number in range(len(points)):
        for edge in range(len(at)):
            x = points[number, 0] - points[number, 2] * at[edge, 0]
            y = points[number, 1] - points[number, 2] * at[edge, 1]
            cross = x * along[edge, 1] - y * along[edge, 0]
            square = cross * cross / (x * x + y * y + 1e-18)
            if square < most * most:
                result[number] += 1 - square / (most * most)
    return result
