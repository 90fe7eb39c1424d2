"""PatchMatch: for every patch a similar patch that is wholly known.

Barnes, Shechtman, Finkelstein and Goldman, "PatchMatch" (SIGGRAPH 2009): a field of offsets is
improved by taking over the neighbours' ones and by trying random places around the best one so
far at shrinking distances. Patches are scanned in order, back and forth, by one thread: a good
match runs through a whole row in one pass, and the result depends on the seed alone.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from regionnorm.filling.completion._compiled import jit

__all__ = [
    "NO_MATCH",
    "RADIUS",
    "Field",
    "Patches",
    "improve",
    "measure",
    "padded_rows",
    "patches_at",
    "repeat_edges",
    "vote",
]

RADIUS = 3
"""Patches are squares of 7x7 pixels."""

NO_MATCH = np.float32(1e30)
"""The cost of an offset that leads to no match."""

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int32]


class Patches(NamedTuple):
    """The patches to match, and where: H x W pixels.

    Attributes:
        rows: int32 ``[T]``: the rows of the centres of the patches, in scanning order.
        columns: int32 ``[T]``: their columns.
        number_at: int32 ``[H, W]``: the number of the patch centred at each pixel, or -1.
        sources: bool ``[H, W]``: centres of patches that may be matches.
    """

    rows: Integers
    columns: Integers
    number_at: Integers
    sources: npt.NDArray[np.bool_]


def patches_at(place: npt.NDArray[np.bool_], sources: npt.NDArray[np.bool_]) -> Patches:
    """The patches that are centred at a place's pixels, row by row."""
    rows, columns = (axis.astype(np.int32) for axis in np.nonzero(place))
    number_at = np.full(place.shape, -1, np.int32)
    number_at[place] = np.arange(len(rows), dtype=np.int32)
    return Patches(rows, columns, number_at, sources)


class Field(NamedTuple):
    """Of each patch the offset to its match, and what the match costs.

    An offset that leads to no match costs :data:`NO_MATCH`.
    """

    down: Integers
    right: Integers
    costs: Floats


def padded_rows(pixels: Floats) -> tuple[Floats, Floats]:
    """A copy of ``[H, W, 3]`` with its edges repeated: a patch's row is one run of memory.

    Returns:
        ``[H + 6, (W + 6) * 3]``, and the picture in it, ``[H, W, 3]``: after a change there,
        :func:`repeat_edges`.
    """
    height, width, channels = pixels.shape
    padded = np.empty((height + 2 * RADIUS, width + 2 * RADIUS, channels), np.float32)
    inner = padded[RADIUS:-RADIUS, RADIUS:-RADIUS]
    inner[...] = pixels
    flat = padded.reshape(len(padded), -1)
    repeat_edges(flat)
    return flat, inner


def repeat_edges(flat: Floats) -> None:
    """Write the margins of what :func:`padded_rows` returns anew."""
    padded = flat.reshape(len(flat), -1, 3)
    padded[:, :RADIUS] = padded[:, RADIUS : RADIUS + 1]
    padded[:, -RADIUS:] = padded[:, -RADIUS - 1 : -RADIUS]
    padded[:RADIUS] = padded[RADIUS]
    padded[-RADIUS:] = padded[-RADIUS - 1]


@jit
def _cost(
    current: Any, source: Any, row: Any, column: Any, down: Any, right: Any, limit: Any
) -> Any:
    """Squared differences of two patches; cut short above ``limit``."""
    total = np.float32(0)
    at, to = 3 * column, 3 * (column + right - RADIUS)
    for line in range(7):
        here = current[row + line]
        there = source[row + down + line - RADIUS]
        squares = np.float32(0)
        for value in range(21):
            difference = here[at + value] - there[to + value]
            squares += difference * difference
        total += squares
        if total >= limit:
            break
    return total


@jit
def measure(current: Any, source: Any, patches: Any, field: Any) -> None:
    """Write into ``field`` what its offsets cost.

    Args:
        current: float32, see :func:`padded_rows`: where the patches are read.
        source: float32 ``[H, W * 3]``: where their matches are read, which lie wholly inside.
        patches: :class:`Patches`.
        field: :class:`Field`.
    """
    height, width = patches.sources.shape
    for number in range(len(patches.rows)):
        row, column = patches.rows[number], patches.columns[number]
        down, right = field.down[number], field.right[number]
        to_row, to_column = row + down, column + right
        if 0 <= to_row < height and 0 <= to_column < width and patches.sources[to_row, to_column]:
            field.costs[number] = _cost(current, source, row, column, down, right, NO_MATCH)
        else:
            field.costs[number] = NO_MATCH


@jit
def _random(state: Any) -> Any:
    """The next of a row of 32-bit numbers (xorshift), never 0."""
    state ^= (state << np.uint64(13)) & np.uint64(0xFFFFFFFF)
    state ^= state >> np.uint64(17)
    state ^= (state << np.uint64(5)) & np.uint64(0xFFFFFFFF)
    return state


@jit
def improve(
    current: Any,
    source: Any,
    patches: Any,
    field: Any,
    rounds: Any,
    radius: Any,
    apart: Any,
    seed: Any,
) -> None:
    """Improve a measured field in place.

    Args:
        current: float32, see :func:`padded_rows`: where the patches are read.
        source: float32 ``[H, W * 3]``: where their matches are read, which lie wholly inside.
        patches: :class:`Patches`.
        field: :class:`Field`; no cost rises.
        rounds: Scans; every other one goes backwards.
        radius: Where the random search begins, in pixels; it is halved down to 1. 0 for none.
        apart: How far a match is at least, in rows or columns; 0 for anywhere.
        seed: 0 or more.
    """
    height, width = patches.sources.shape
    count = len(patches.rows)
    state = np.uint64((seed * 2654435761 + 88172645463325252) & 0xFFFFFFFF) | np.uint64(1)
    for turn in range(rounds):
        way = 1 if turn % 2 == 0 else -1
        for index in range(count):
            number = index if way == 1 else count - 1 - index
            row, column = patches.rows[number], patches.columns[number]
            best_down, best_right = field.down[number], field.right[number]
            best = field.costs[number]
            reach, step = radius, 0
            while step < 2 or reach >= 1:
                if step < 2:
                    near_row = row - way if step == 0 else row
                    near_column = column if step == 0 else column - way
                    step += 1
                    if not (0 <= near_row < height and 0 <= near_column < width):
                        continue
                    near = patches.number_at[near_row, near_column]
                    if near < 0:
                        continue
                    down, right = field.down[near], field.right[near]
                else:
                    state = _random(state)
                    span = 2 * reach + 1
                    down = best_down - reach + np.int64(state & np.uint64(0xFFFF)) * span // 65536
                    right = best_right - reach + np.int64(state >> np.uint64(16)) * span // 65536
                    reach //= 2
                if down == best_down and right == best_right:
                    continue
                if abs(down) < apart and abs(right) < apart:
                    continue
                to_row, to_column = row + down, column + right
                if not (0 <= to_row < height and 0 <= to_column < width):
                    continue
                if not patches.sources[to_row, to_column]:
                    continue
                cost = _cost(current, source, row, column, down, right, best)
                if cost < best:
                    best, best_down, best_right = cost, down, right
            field.down[number], field.right[number] = best_down, best_right
            field.costs[number] = best


@jit
def vote(
    photo: Any,
    place: Any,
    hole: Any,
    patches: Any,
    field: Any,
    trust: Any,
    scale: Any,
    best_only: Any,
    result: Any,
    down: Any,
    right: Any,
) -> None:
    """Let the matches of all patches around each pixel say what it shows.

    Args:
        photo: float32 ``[H, W, 3]``.
        place: bool ``[H, W]``: the pixels to decide on.
        hole: bool ``[H, W]``: what nobody may show.
        patches: :class:`Patches`.
        field: :class:`Field`.
        trust: float32 ``[T]``: what the vote of each patch weighs, beside its match's cost.
        scale: The cost that takes a vote's weight down to 1 / e.
        best_only: Take the heaviest vote alone, and not the mean.
        result: float32 ``[H, W, 3]``, written at ``place``.
        down: int32 ``[H, W]``: the heaviest vote's offset, written at ``place``.
        right: The same, columns.
    """
    height, width = hole.shape
    for row in range(height):
        for column in range(width):
            if not place[row, column]:
                continue
            total = np.float32(0)
            most = np.float32(-1)
            colour = np.zeros(3, np.float32)
            for near_row in range(max(0, row - 3), min(height, row + 4)):
                for near_column in range(max(0, column - 3), min(width, column + 4)):
                    number = patches.number_at[near_row, near_column]
                    if number < 0 or field.costs[number] >= NO_MATCH:
                        continue
                    weight = trust[number] * np.exp(-field.costs[number] / scale) + np.float32(
                        1e-12
                    )
                    to_row = row + field.down[number]
                    to_column = column + field.right[number]
                    if not (0 <= to_row < height and 0 <= to_column < width):
                        continue  # of a patch that reaches over the border
                    if hole[to_row, to_column]:
                        continue
                    if weight > most:
                        most = weight
                        down[row, column] = field.down[number]
                        right[row, column] = field.right[number]
                    total += weight
                    for channel in range(3):
                        colour[channel] += weight * photo[to_row, to_column, channel]
            if total <= 0:
                continue
            for channel in range(3):
                if best_only:
                    result[row, column, channel] = photo[
                        row + down[row, column], column + right[row, column], channel
                    ]
                else:
                    result[row, column, channel] = colour[channel] / total
