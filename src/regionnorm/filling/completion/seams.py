"""Move the seams of a map of shifts to where nobody sees them, a few pixels at a time.

A seam found on a small copy is a staircase on the photo, in steps as large as the copy's pixels.
So it is laid anew at every finer level: each pixel near a seam may take over the offset of the
pixel a few places to one side, and a graph cut says which of them do (a fusion move: Lempitsky,
Rother, Roth and Blake, "Fusion moves for Markov random field optimization", PAMI 2010). All seams
are move_seams at once, whatever the number of offsets, and nothing but the strips beside them is
looked at: time and memory follow the seams' length.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from regionnorm.filling.completion._compiled import jit
from regionnorm.filling.completion.blend import shown
from regionnorm.filling.completion.maxflow import minimum_cut, neighbours_of

__all__ = ["move_seams"]

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int32]
Place = npt.NDArray[np.bool_]

_STEPS = (4, 4)  # pixels that seams may move by in each direction, in turns
_DIRECTIONS = ((0, 1), (0, -1), (1, 0), (-1, 0))
_POTTS = 0.03  # of any seam
_BLIND = 1.0  # of a seam beside which neither piece shows what the other does
_UNITS = 1000.0  # capacities are integers: costs in thousandths


def move_seams(
    pixels: Floats,
    hole: Place,
    down: Integers,
    right: Integers,
    *,
    painted: float | None,
    place: Place | None = None,
) -> None:
    """Move seams to where the pieces on both sides are alike; their cost does not rise.

    Args:
        pixels: float32 ``[H, W, 3]``; in the hole, the picture that is painted there.
        hole: bool ``[H, W]``: what nobody may copy.
        down: int32 ``[H, W]``: rows to what each hole pixel shows; where both are 0, what is
            painted stays. Changed in place.
        right: The same, columns.
        painted: What a pixel that keeps what is painted costs; None where none that does not yet
            may do so.
        place: bool ``[H, W]``: the part of the hole that is filled; None for all.
    """
    place = hole if place is None else place
    price = np.int32((painted or 0) * _UNITS)
    for step in _STEPS:
        for to_down, to_right in _DIRECTIONS:
            way = (step * to_down, step * to_right)
            _take_over(pixels, place, hole, down, right, way, painted, price)


def _take_over(
    pixels: Floats,
    filled: Place,
    hole: Place,
    down: Integers,
    right: Integers,
    step: tuple[int, int],
    painted: float | None,
    price: np.int32,
) -> None:
    """Offer to each pixel the offset of the one a ``step`` from it; changes ``down``, ``right``."""
    height, width = hole.shape
    here = tuple(
        slice(max(0, -by), size - max(0, by)) for by, size in zip(step, hole.shape, strict=True)
    )
    there = tuple(
        slice(max(0, by), size - max(0, -by)) for by, size in zip(step, hole.shape, strict=True)
    )
    place = np.zeros_like(hole)
    place[here] = (down[here] != down[there]) | (right[here] != right[there])
    place[here] &= filled[here] & filled[there]
    rows, columns = np.nonzero(place)
    new = np.stack([values[rows + step[0], columns + step[1]] for values in (down, right)], axis=1)
    to_rows, to_columns = rows + new[:, 0], columns + new[:, 1]
    good = (to_rows >= 0) & (to_rows < height) & (to_columns >= 0) & (to_columns < width)
    good[good] = ~hole[to_rows[good], to_columns[good]]
    if painted is not None:
        good |= ~new.any(axis=1)
    place[rows, columns] = good
    rows, columns, new = (values[good].astype(np.int32) for values in (rows, columns, new))
    neighbours = neighbours_of(place)
    capacity = np.zeros((len(rows), 4), np.int32)
    terminal = np.zeros(len(rows), np.int32)
    _weigh(
        pixels, filled, hole, down, right, rows, columns, new, neighbours, price, capacity, terminal
    )
    _, changes = minimum_cut(neighbours, capacity, terminal)
    rows, columns, new = rows[changes], columns[changes], new[changes]
    down[rows, columns], right[rows, columns] = new[:, 0], new[:, 1]


@jit
def _seam(
    pixels: Any,
    filled: Any,
    hole: Any,
    offset: Any,
    row: Any,
    column: Any,
    offset2: Any,
    row2: Any,
    column2: Any,
) -> Any:
    """Cost of a piece at one pixel of the hole beside another piece at its neighbour."""
    if offset[0] == offset2[0] and offset[1] == offset2[1]:
        return np.int32(0)
    cost = views = np.float32(0)
    for place in range(2):
        # Only a piece of the hole can be asked what it would show at its neighbour.
        if place == 0 and not filled[row2, column2]:
            continue
        at, at_column = (row, column) if place == 0 else (row2, column2)
        good, r, g, b = shown(pixels, hole, offset[0], offset[1], at, at_column)
        good2, r2, g2, b2 = shown(pixels, hole, offset2[0], offset2[1], at, at_column)
        if good and good2:
            cost += np.sqrt((r - r2) ** 2 + (g - g2) ** 2 + (b - b2) ** 2)
            views += np.float32(1)
    mean = cost / views if views > 0 else np.float32(_BLIND)
    return np.int32((2 * mean + np.float32(_POTTS)) * np.float32(_UNITS))


@jit
def _weigh(
    pixels: Any,
    filled: Any,
    hole: Any,
    down: Any,
    right: Any,
    rows: Any,
    columns: Any,
    new: Any,
    neighbours: Any,
    price: Any,
    capacity: Any,
    terminal: Any,
) -> None:
    """Write the graph in which the pixels on the sink's side take over their new offsets."""
    height, width = hole.shape
    for pixel in range(len(rows)):
        row, column = rows[pixel], columns[pixel]
        old = down[row, column], right[row, column]
        its = new[pixel, 0], new[pixel, 1]
        if its[0] == 0 and its[1] == 0:
            terminal[pixel] += price
        if old[0] == 0 and old[1] == 0:
            terminal[pixel] -= price
        for way in range(4):
            row2 = row + (1 if way == 1 else -1 if way == 3 else 0)
            column2 = column + (1 if way == 0 else -1 if way == 2 else 0)
            if not (0 <= row2 < height and 0 <= column2 < width):
                continue
            if hole[row2, column2] and not filled[row2, column2]:
                continue  # nothing to meet
            old2 = down[row2, column2], right[row2, column2]
            other = neighbours[pixel, way]
            if other >= 0 and way >= 2:
                continue  # seen from the other side
            keep = _seam(pixels, filled, hole, old, row, column, old2, row2, column2)
            this = _seam(pixels, filled, hole, its, row, column, old2, row2, column2)
            terminal[pixel] += this - keep
            if other < 0:
                continue
            its2 = new[other, 0], new[other, 1]
            both = _seam(pixels, filled, hole, its, row, column, its2, row2, column2)
            that = _seam(pixels, filled, hole, old, row, column, its2, row2, column2)
            terminal[other] += both - this
            # Below 0, the cost of changing only the other is taken as higher than it is: what is
            # chosen may then not be the best, but costs no more than to keep all.
            capacity[pixel, way] = max(0, that + this - keep - both)
