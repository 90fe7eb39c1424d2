"""One picture out of many: alpha expansion chooses, for every pixel, which candidate to show.

Boykov, Veksler and Zabih, "Fast approximate energy minimization via graph cuts" (PAMI 2001). A
seam between two candidates costs what they differ by on both of its sides (Kwatra et al.,
"Graphcut textures", SIGGRAPH 2003), so that seams run where nobody sees them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from regionnorm.filling.completion._compiled import jit
from regionnorm.filling.completion.maxflow import minimum_cut

__all__ = ["FORBIDDEN", "choose", "energy", "fuse"]

FORBIDDEN = 1000.0
"""The cost of a candidate at a pixel where it has nothing to show."""

_UNITS = 1000.0  # capacities are integers: costs in thousandths
_SWEEPS = 3


def choose(
    values: npt.NDArray[np.float32],
    costs: npt.NDArray[np.float32],
    neighbours: npt.NDArray[np.int32],
    *,
    potts: float = 0.0,
    start: npt.NDArray[np.int32] | None = None,
    sweeps: int = _SWEEPS,
) -> npt.NDArray[np.int32]:
    """Choose a candidate for every pixel.

    Args:
        values: float32 ``[K, N, C]``: what each of K candidates shows at each of N pixels.
        costs: float32 ``[K, N]``, at most :data:`FORBIDDEN`: what each costs at each pixel.
        neighbours: int32 ``[N, 4]``, see :func:`~.maxflow.neighbours_of`.
        potts: The cost of any seam, whatever it shows.
        start: int32 ``[N]``: the choice to begin with; None for the cheapest at each pixel.
        sweeps: How often candidates are offered to all pixels, at most: first all of them, then
            those that some pixel has.

    Returns:
        int32 ``[N]``: numbers of candidates. Its :func:`energy` is no more than that of ``start``.
    """
    chosen: npt.NDArray[np.int32] = (
        np.argmin(costs, axis=0).astype(np.int32) if start is None else start.copy()
    )
    _expand(values, costs, neighbours, np.float32(potts), chosen, sweeps)
    return chosen


def fuse(
    values: npt.NDArray[np.float32],
    costs: npt.NDArray[np.float32],
    neighbours: npt.NDArray[np.int32],
    first: npt.NDArray[np.int32],
    second: npt.NDArray[np.int32],
    *,
    potts: float = 0.0,
) -> npt.NDArray[np.int32]:
    """Take the better parts of two choices.

    Lempitsky, Rother, Roth and Blake, "Fusion moves for Markov random field optimization" (PAMI
    2010). The arguments are those of :func:`choose`; ``first`` and ``second`` are int32 ``[N]``.

    Returns:
        int32 ``[N]``, of each pixel the first or the second. Its :func:`energy` is no more than
        theirs.
    """
    args = values, costs, neighbours, np.float32(potts)
    energies = [_energy(*args, choice) for choice in (first, second)]
    better, other = (first, second) if energies[0] <= energies[1] else (second, first)
    fused: npt.NDArray[np.int32] = better.copy()
    _take_over(*args, fused, other, min(energies))
    return fused


def energy(
    values: npt.NDArray[np.float32],
    costs: npt.NDArray[np.float32],
    neighbours: npt.NDArray[np.int32],
    chosen: npt.NDArray[np.int32],
    potts: float = 0.0,
) -> float:
    """What a choice costs: candidates and seams."""
    return float(_energy(values, costs, neighbours, np.float32(potts), chosen) / _UNITS)


@jit
def _seam(values: Any, potts: Any, first: Any, second: Any, here: Any, there: Any) -> Any:
    """Cost of candidate ``first`` at pixel ``here`` beside ``second`` at pixel ``there``."""
    if first == second:
        return 0
    total_here = total_there = np.float32(0)
    for channel in range(values.shape[2]):
        difference = values[first, here, channel] - values[second, here, channel]
        total_here += difference * difference
        difference = values[first, there, channel] - values[second, there, channel]
        total_there += difference * difference
    cost = np.sqrt(total_here) + np.sqrt(total_there) + potts
    return np.int32(cost * np.float32(_UNITS))


@jit
def _energy(values: Any, costs: Any, neighbours: Any, potts: Any, chosen: Any) -> Any:
    total = np.int64(0)
    for pixel in range(len(chosen)):
        total += np.int32(costs[chosen[pixel], pixel] * np.float32(_UNITS))
        for way in range(2):
            other = neighbours[pixel, way]
            if other >= 0:
                total += _seam(values, potts, chosen[pixel], chosen[other], pixel, other)
    return total


@jit
def _expand(values: Any, costs: Any, neighbours: Any, potts: Any, chosen: Any, sweeps: Any) -> None:
    labels, count = costs.shape
    best = _energy(values, costs, neighbours, potts, chosen)
    offer = np.empty(count, np.int32)
    used = np.ones(labels, np.bool_)
    for sweep in range(sweeps):
        if sweep > 0:  # who was taken by nobody will hardly be taken now
            used[:] = False
            for pixel in range(count):
                used[chosen[pixel]] = True
        before = best
        for label in range(labels):
            if used[label]:
                offer[:] = label
                best = _take_over(values, costs, neighbours, potts, chosen, offer, best)
        if best == before:
            break


@jit
def _take_over(
    values: Any, costs: Any, neighbours: Any, potts: Any, chosen: Any, offer: Any, best: Any
) -> Any:
    """Let any set of pixels change from ``chosen``, of energy ``best``, to ``offer``."""
    count = len(chosen)
    capacity = np.zeros((count, 4), np.int32)
    terminal = np.empty(count, np.int32)
    for pixel in range(count):
        terminal[pixel] = np.int32(costs[offer[pixel], pixel] * np.float32(_UNITS)) - np.int32(
            costs[chosen[pixel], pixel] * np.float32(_UNITS)
        )
    for pixel in range(count):
        for way in range(2):
            other = neighbours[pixel, way]
            if other < 0:
                continue
            mine, its = chosen[pixel], chosen[other]
            new, new_its = offer[pixel], offer[other]
            keep = _seam(values, potts, mine, its, pixel, other)
            other_changes = _seam(values, potts, mine, new_its, pixel, other)
            this_changes = _seam(values, potts, new, its, pixel, other)
            both_change = _seam(values, potts, new, new_its, pixel, other)
            terminal[pixel] += this_changes - keep
            terminal[other] += both_change - this_changes
            # Below 0, the cost of changing only the other is taken as higher than it is.
            capacity[pixel, way] = max(0, other_changes + this_changes - keep - both_change)
    _, changes = minimum_cut(neighbours, capacity, terminal)
    old = chosen.copy()
    some = False
    for pixel in range(count):
        if changes[pixel] and chosen[pixel] != offer[pixel]:
            chosen[pixel] = offer[pixel]
            some = True
    if not some:
        return best
    now = _energy(values, costs, neighbours, potts, chosen)
    if now >= best:  # it seldom is, but for arcs below 0, which were cut off
        chosen[:] = old
        return best
    return now
