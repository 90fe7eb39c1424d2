"""PatchMatch on the CPU: for every patch of a hole a similar patch that is wholly known.

Barnes, Shechtman, Finkelstein and Goldman, "PatchMatch" (SIGGRAPH 2009): a random field of
correspondences is improved by taking over the neighbours' ones (propagation) and by trying random
places around the best one so far at shrinking distances (random search).

The paper scans the pixels in order, so that a good match runs through a whole row in one pass.
Here every pass reads the field of the pass before and writes a new one. A patch's result then
depends on no other patch of the same pass, and the field is the same for any number of threads;
passes with steps of several pixels make up for the slower spread. Random numbers are a hash of
seed, pass and patch, for the same reason.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

# Imported by name: what types numba declares do not fit what its compiler takes.
numba: Any = importlib.import_module("numba")
u32, f32 = np.uint32, np.float32

__all__ = ["PATCH_RADIUS", "Level", "Matches", "improve", "measure"]

PATCH_RADIUS = 3
"""Patches are squares of 7x7 pixels."""

_NO_LIMIT = f32(1e30)  # above any cost
_MIN_TASK = 2048  # patches for which another thread pays

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int32]


class Level(NamedTuple):
    """One level of the pyramid, H x W pixels.

    Attributes:
        current: float32 ``[H + 6, (W + 6) * 3]``: the picture as filled so far, padded by the
            patch radius; the patches to match are read from it.
        source: float32, the same for the photo; their matches are read from it.
        guide: float32 ``[H, W, 3]``: the low band of the picture, compared at the centres.
        guide_weight: What a squared difference of the guide counts, a pixel's being 1.
        distance_weight: What a squared pixel of distance between a patch and its match counts.
        sources: bool ``[H, W]``: centres of wholly known patches.
        rows: int32 ``[T]``: the rows of the centres of the patches to match.
        columns: int32 ``[T]``: their columns.
        patch_at: int32 ``[H, W]``: number of the patch centred at each pixel, or -1.
    """

    current: Floats
    source: Floats
    guide: Floats
    guide_weight: np.float32
    distance_weight: np.float32
    sources: npt.NDArray[np.bool_]
    rows: Integers
    columns: Integers
    patch_at: Integers


class Matches(NamedTuple):
    """A nearest-neighbour field: the centre of the match of each patch, and what it costs.

    Costs are without any penalty, and stay right as long as the level does.
    """

    rows: Integers
    columns: Integers
    costs: Floats


def measure(level: Level, matches: Matches, threads: int) -> Matches:
    """Return the matches with the costs that they have on this level."""
    costs = np.empty_like(matches.costs)

    def task(begin: int, end: int) -> None:
        _measure(level, matches.rows, matches.columns, costs, begin, end)

    _on_threads(task, len(costs), threads)
    return matches._replace(costs=costs)


def improve(
    level: Level,
    matches: Matches,
    penalty: Floats,
    *,
    step: int,
    radius: int,
    seed: int,
    threads: int,
) -> Matches:
    """One pass of propagation and random search.

    Args:
        level: Where to search.
        matches: A field with valid matches and their costs on this level; it stays as it is.
        penalty: float32 ``[H, W]``, at least 1: the factor of the cost of a match centred there.
        step: How far away the four neighbours are whose matches are tried, in pixels.
        radius: Where the random search begins, in pixels; it is halved down to 1. 0 for none.
        seed: 0 to 2**32 - 1; another one for each pass.
        threads: How many share the work; the result does not depend on it.

    Returns:
        Matches that are nowhere worse under the penalty.
    """
    new = Matches(
        np.empty_like(matches.rows), np.empty_like(matches.columns), np.empty_like(matches.costs)
    )

    def task(begin: int, end: int) -> None:
        _improve(level, matches, new, penalty, step, radius, u32(seed), begin, end)

    _on_threads(task, len(matches.rows), threads)
    return new


def _on_threads(task: Callable[[int, int], None], count: int, threads: int) -> None:
    """Call ``task(begin, end)`` for ranges that make up ``range(count)``.

    Plain threads around kernels that let go of the interpreter: two callers at once are safe,
    which not every threading layer of numba's own parallel loops allows.
    """
    parts = max(1, min(threads, count // _MIN_TASK))
    edges = [count * part // parts for part in range(parts + 1)]
    if parts == 1:
        task(0, count)
        return
    with ThreadPoolExecutor(parts, thread_name_prefix="regionnorm") as pool:
        for future in [pool.submit(task, *edges[part : part + 2]) for part in range(parts)]:
            future.result()


def _jit(function: Callable[..., Any]) -> Any:
    # Sums may be regrouped, so that they run on all lanes of a vector.
    options = {"nogil": True, "error_model": "numpy", "fastmath": {"reassoc", "contract"}}
    try:
        return numba.njit(cache=True, **options)(function)
    except RuntimeError:  # there is no folder to keep compiled code in
        return numba.njit(**options)(function)


@_jit
def _random(seed: Any, patch: Any, number: Any) -> Any:
    """A 32-bit hash; multiply and shift until every bit depends on every other.

    Products of 32-bit numbers are 64-bit ones to the compiler, hence the cuts back to 32.
    """
    x = u32(seed ^ u32(patch * 0x9E3779B1) ^ u32(number * 0x85EBCA77))
    x = u32((x ^ (x >> u32(16))) * u32(0x7FEB352D))
    x = u32((x ^ (x >> u32(15))) * u32(0x846CA68B))
    return u32(x ^ (x >> u32(16)))


@_jit
def _cost(level: Any, row: Any, column: Any, to_row: Any, to_column: Any, limit: Any) -> Any:
    """Squared differences of two patches, their guides and places; cut short above ``limit``."""
    total = f32(0)
    for channel in range(3):
        difference = level.guide[row, column, channel] - level.guide[to_row, to_column, channel]
        total += difference * difference
    total *= level.guide_weight
    down, right = f32(to_row - row), f32(to_column - column)
    total += level.distance_weight * (down * down + right * right)
    for line in range(2 * PATCH_RADIUS + 1):
        here = level.current[row + line]
        there = level.source[to_row + line]
        squares = f32(0)
        for value in range(3 * (2 * PATCH_RADIUS + 1)):
            difference = here[3 * column + value] - there[3 * to_column + value]
            squares += difference * difference
        total += squares
        if total >= limit:
            break
    return total


@_jit
def _measure(level: Any, rows: Any, columns: Any, costs: Any, begin: Any, end: Any) -> None:
    for patch in range(begin, end):
        row, column = level.rows[patch], level.columns[patch]
        costs[patch] = _cost(level, row, column, rows[patch], columns[patch], _NO_LIMIT)


@_jit
def _improve(
    level: Any,
    old: Any,
    new: Any,
    penalty: Any,
    step: Any,
    radius: Any,
    seed: Any,
    begin: Any,
    end: Any,
) -> None:
    height, width = level.patch_at.shape
    for patch in range(begin, end):
        row, column = level.rows[patch], level.columns[patch]
        best_row, best_column, best_cost = old.rows[patch], old.columns[patch], old.costs[patch]
        best = best_cost * penalty[best_row, best_column]
        reach, number = radius, 0
        while number < 4 or reach >= 1:
            if number < 4:  # a neighbour's match, moved back by as much
                down = step if number == 0 else (-step if number == 1 else 0)
                right = step if number == 2 else (-step if number == 3 else 0)
                number += 1
                if not (0 <= row + down < height and 0 <= column + right < width):
                    continue
                neighbour = level.patch_at[row + down, column + right]
                if neighbour < 0:
                    continue
                to_row = old.rows[neighbour] - down
                to_column = old.columns[neighbour] - right
            else:
                bits = _random(seed, patch, number)
                span = 2 * reach + 1
                to_row = best_row - reach + (np.int64(bits & u32(0xFFFF)) * span >> 16)
                to_column = best_column - reach + (np.int64(bits >> u32(16)) * span >> 16)
                number += 1
                reach //= 2
            if not (0 <= to_row < height and 0 <= to_column < width):
                continue
            if not level.sources[to_row, to_column]:
                continue
            if to_row == best_row and to_column == best_column:
                continue  # as most neighbours of one copied piece say
            factor = penalty[to_row, to_column]
            cost = _cost(level, row, column, to_row, to_column, best / factor)
            if cost * factor < best:
                best_row, best_column, best_cost = to_row, to_column, cost
                best = cost * factor
        new.rows[patch], new.columns[patch] = best_row, best_column
        new.costs[patch] = best_cost
