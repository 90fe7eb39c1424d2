"""Weighted Laplace equations on a grid of pixels: conjugate gradients behind multigrid.

The coarser levels join two by two pixels into one (aggregation); their weights are sums of the
finer ones, so that holes of any shape need no special cases.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from regionnorm.filling.completion._compiled import jit

__all__ = ["Laplace", "solve"]

Floats = npt.NDArray[np.float32]

_COARSEST = 4  # pixels of the longer side
_SWEEPS_THERE = 8


class Laplace(NamedTuple):
    """The operator u -> anchor * u + sum over neighbours of weight * (u - u of the neighbour).

    Attributes:
        right: float32 ``[H, W]``: the weight between each pixel and the one to the right; 0 in
            the last column.
        below: The same for the pixel below; 0 in the last row.
        anchor: float32 ``[H, W]``, at least 0: the weight of a pixel's being 0. Pixels without
            any weight are left out and stay 0; every other must be joined to one with an anchor.
    """

    right: Floats
    below: Floats
    anchor: Floats


def solve(operator: Laplace, target: Floats, *, tolerance: float = 1e-3, most: int = 60) -> Floats:
    """Solve ``operator(u) = target``.

    Args:
        operator: The weights.
        target: float32 ``[H, W]``.
        tolerance: Where to stop: the residual's norm as a share of the target's.
        most: Iterations after which to stop in any case.

    Returns:
        float32 ``[H, W]``.
    """
    levels = _levels(operator)
    solution = np.zeros_like(target)
    residual = target.copy()
    limit = tolerance * float(np.sqrt(_dot(target, target)))
    direction = np.zeros_like(target)
    before = 1.0
    image = np.zeros_like(target)
    for number in range(most):
        if float(np.sqrt(_dot(residual, residual))) <= limit:
            break
        better = _cycle(levels, 0, residual)
        now = float(_dot(residual, better))
        direction *= np.float32(0 if number == 0 else now / before)
        direction += better
        before = now
        _apply(operator.right, operator.below, operator.anchor, direction, image)
        step = np.float32(now / max(float(_dot(direction, image)), 1e-30))
        solution += step * direction
        residual -= step * image
    return solution


def _levels(operator: Laplace) -> list[tuple[Laplace, Floats]]:
    """The operator and its coarser ones, each with its diagonal."""
    levels = []
    while True:
        diagonal = np.zeros_like(operator.anchor)
        _diagonal(operator.right, operator.below, operator.anchor, diagonal)
        levels.append((operator, diagonal))
        if max(operator.anchor.shape) <= _COARSEST:
            return levels
        operator = _coarser(operator)


def _coarser(operator: Laplace) -> Laplace:
    height, width = operator.anchor.shape
    shape = ((height + 1) // 2, (width + 1) // 2)
    right, below, anchor = (np.zeros(shape, np.float32) for _ in range(3))
    _join(operator.right, operator.below, operator.anchor, right, below, anchor)
    return Laplace(right, below, anchor)


def _cycle(levels: list[tuple[Laplace, Floats]], depth: int, target: Floats) -> Floats:
    """An approximate solution, by one V-cycle from 0; linear in ``target`` and symmetric."""
    (right, below, anchor), diagonal = levels[depth]
    solution = np.zeros_like(target)
    if depth == len(levels) - 1:
        for _ in range(_SWEEPS_THERE):
            _smooth(right, below, diagonal, target, solution, 0)
            _smooth(right, below, diagonal, target, solution, 1)
        for _ in range(_SWEEPS_THERE):
            _smooth(right, below, diagonal, target, solution, 1)
            _smooth(right, below, diagonal, target, solution, 0)
        return solution
    for colour in (0, 1):
        _smooth(right, below, diagonal, target, solution, colour)
    rest = np.zeros(levels[depth + 1][1].shape, np.float32)
    _restrict(right, below, anchor, target, solution, rest)
    _prolong(_cycle(levels, depth + 1, rest), diagonal, solution)
    for colour in (1, 0):
        _smooth(right, below, diagonal, target, solution, colour)
    return solution


@jit
def _dot(first: Any, second: Any) -> Any:
    # NumPy's own is shared between threads, and so are its roundings.
    height, width = first.shape
    total = 0.0
    for row in range(height):
        for column in range(width):
            total += np.float64(first[row, column]) * np.float64(second[row, column])
    return total


@jit
def _diagonal(right: Any, below: Any, anchor: Any, diagonal: Any) -> None:
    height, width = anchor.shape
    for row in range(height):
        for column in range(width):
            total = anchor[row, column] + right[row, column] + below[row, column]
            if row > 0:
                total += below[row - 1, column]
            if column > 0:
                total += right[row, column - 1]
            diagonal[row, column] = total


@jit
def _join(
    right: Any, below: Any, anchor: Any, to_right: Any, to_below: Any, to_anchor: Any
) -> None:
    # Sums of all weights are too stiff by two: u would have to change within one pixel.
    height, width = anchor.shape
    half = np.float32(0.5)
    for row in range(height):
        for column in range(width):
            to_anchor[row // 2, column // 2] += anchor[row, column]
            if column % 2 == 1:
                to_right[row // 2, column // 2] += half * right[row, column]
            if row % 2 == 1:
                to_below[row // 2, column // 2] += half * below[row, column]


@jit
def _around(right: Any, below: Any, values: Any, row: Any, column: Any) -> Any:
    """The weighted sum of a pixel's neighbours."""
    height, width = values.shape
    total = np.float32(0)
    if column + 1 < width:
        total += right[row, column] * values[row, column + 1]
    if row + 1 < height:
        total += below[row, column] * values[row + 1, column]
    if column > 0:
        total += right[row, column - 1] * values[row, column - 1]
    if row > 0:
        total += below[row - 1, column] * values[row - 1, column]
    return total


@jit
def _apply(right: Any, below: Any, anchor: Any, values: Any, result: Any) -> None:
    height, width = values.shape
    for row in range(height):
        for column in range(width):
            total = anchor[row, column] + right[row, column] + below[row, column]
            if row > 0:
                total += below[row - 1, column]
            if column > 0:
                total += right[row, column - 1]
            if total > 0:
                result[row, column] = total * values[row, column] - _around(
                    right, below, values, row, column
                )


@jit
def _smooth(right: Any, below: Any, diagonal: Any, target: Any, values: Any, colour: Any) -> None:
    """Solve for each pixel of one colour of a chequerboard."""
    height, width = values.shape
    for row in range(height):
        for column in range((row + colour) % 2, width, 2):
            if diagonal[row, column] > 0:
                around = _around(right, below, values, row, column)
                values[row, column] = (target[row, column] + around) / diagonal[row, column]


@jit
def _restrict(right: Any, below: Any, anchor: Any, target: Any, values: Any, rest: Any) -> None:
    height, width = values.shape
    for row in range(height):
        for column in range(width):
            total = anchor[row, column] + right[row, column] + below[row, column]
            if row > 0:
                total += below[row - 1, column]
            if column > 0:
                total += right[row, column - 1]
            if total > 0:
                rest[row // 2, column // 2] += (
                    target[row, column]
                    - total * values[row, column]
                    + _around(right, below, values, row, column)
                )


@jit
def _prolong(coarse: Any, diagonal: Any, values: Any) -> None:
    height, width = values.shape
    for row in range(height):
        for column in range(width):
            if diagonal[row, column] > 0:
                values[row, column] += coarse[row // 2, column // 2]
