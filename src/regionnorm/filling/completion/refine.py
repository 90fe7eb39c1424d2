"""From a map of shifts on a small copy to one on the photo: doubled, and refined at each level.

Patches around each pixel look nearby for better matches than the doubled offsets lead to, and
the best of them says what the pixel shows. A pixel's own offset is kept rather than a mean of
colours, so that pieces stay sharp.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from regionnorm.filling.completion import patchmatch
from regionnorm.filling.completion._compiled import jit
from regionnorm.filling.completion.pyramid import depth_in
from regionnorm.filling.completion.structure import source_centres
from regionnorm.masks.regions import bounding_window, dilate_square
from regionnorm.stopping import stop_if_asked

__all__ = ["Search", "copied", "doubled", "faded", "refine", "trust_in"]

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int32]
Place = npt.NDArray[np.bool_]

_ROUNDS = 2
_SCANS = 2
_REACH = 4  # pixels: where the search around an offset begins
_TRUST = 1.2  # the vote of a patch weighs less by this factor for each pixel into the hole
_DEEPEST = 64
_MOST = 300_000  # pixels of a hole that are all searched; of larger ones, those near seams
_SEAM_REACH = 8  # pixels
_FADE = 2  # pixels to either side of a seam over which pieces fade into each other


def doubled(offsets: Integers, hole: Place) -> Integers:
    """A map ``[h, w]`` of offsets on the next finer level, 0 outside its hole ``[H, W]``."""
    height, width = hole.shape
    large: Integers = np.repeat(np.repeat(2 * offsets, 2, axis=0), 2, axis=1)[:height, :width]
    large[~hole] = 0
    return large


def copied(pixels: Floats, place: Place, down: Integers, right: Integers) -> Floats:
    """What the offsets of a place's pixels lead to, float32 ``[N, 3]``, row by row."""
    result = np.empty((np.count_nonzero(place), 3), np.float32)
    _copy(pixels, place, down, right, result)
    return result


def faded(
    pixels: Floats,
    hole: Place,
    down: Integers,
    right: Integers,
    *,
    place: Place | None = None,
) -> Floats:
    """As :func:`copied`, but pieces fade into each other over a few pixels at their seams.

    Each pixel is the mean of what it shows by its own offset and by those of its neighbours, so
    that nothing changes inside a piece. ``place`` is the part of the hole that is filled; None
    for all.
    """
    place = hole if place is None else place
    result = np.empty((np.count_nonzero(place), 3), np.float32)
    steps = np.arange(-_FADE, _FADE + 1, dtype=np.float32) / np.float32(_FADE)
    weights = np.exp(-np.square(steps)[:, None] - np.square(steps))
    _fade(pixels, place, hole, down, right, weights.astype(np.float32), result)
    return result


@jit
def _copy(pixels: Any, place: Any, down: Any, right: Any, result: Any) -> None:
    height, width = place.shape
    number = 0
    for row in range(height):
        for column in range(width):
            if place[row, column]:
                to_row = min(max(row + down[row, column], 0), height - 1)
                to_column = min(max(column + right[row, column], 0), width - 1)
                for channel in range(3):
                    result[number, channel] = pixels[to_row, to_column, channel]
                number += 1


@jit
def _fade(
    pixels: Any, place: Any, hole: Any, down: Any, right: Any, weights: Any, result: Any
) -> None:
    height, width = hole.shape
    reach = len(weights) // 2
    number = 0
    for row in range(height):
        for column in range(width):
            if not place[row, column]:
                continue
            total = np.float32(0)
            for channel in range(3):
                result[number, channel] = 0
            for i in range(max(row - reach, 0), min(row + reach + 1, height)):
                for j in range(max(column - reach, 0), min(column + reach + 1, width)):
                    if not place[i, j]:
                        continue
                    to_row, to_column = row + down[i, j], column + right[i, j]
                    if not (0 <= to_row < height and 0 <= to_column < width):
                        continue
                    painted = down[i, j] == 0 and right[i, j] == 0
                    if hole[to_row, to_column] and not painted:
                        continue
                    weight = weights[i - row + reach, j - column + reach]
                    total += weight
                    for channel in range(3):
                        result[number, channel] += weight * pixels[to_row, to_column, channel]
            if total > 0:
                for channel in range(3):
                    result[number, channel] /= total
            else:
                for channel in range(3):
                    result[number, channel] = pixels[row, column, channel]
            number += 1


def refine(
    pixels: Floats,
    hole: Place,
    down: Integers,
    right: Integers,
    *,
    seed: int,
    sharp: bool,
    place: Place | None = None,
) -> None:
    """Improve a map of offsets in place.

    Args:
        pixels: float32 ``[H, W, 3]``; in the hole, the picture that is painted there.
        hole: bool ``[H, W]``: what nobody may copy.
        down: int32 ``[H, W]``: rows to what each pixel shows; where both are 0, what is painted
            stays.
        right: The same, columns.
        seed: 0 or more.
        sharp: Compare with one match for each pixel in the end, and not with means.
        place: bool ``[H, W]``: the part of the hole that is filled; None for all.
    """
    filled = hole if place is None else place
    place = filled & ((down != 0) | (right != 0))
    sources = source_centres(hole)
    if np.count_nonzero(place) > _MOST:
        place &= dilate_square(_seams(filled, down, right), _SEAM_REACH)
    if not sources.any() or not place.any():
        return
    near = dilate_square(place, patchmatch.RADIUS)
    near &= ~hole | (down != 0) | (right != 0)
    patches = patchmatch.patches_at(near, sources)
    # Patches centred outside the hole have no offset yet; the first scans bring them some.
    field = patchmatch.Field(down[near], right[near], np.zeros(len(patches.rows), np.float32))
    trust = trust_in(near, filled)
    # One array for both: large photos are tens of megabytes.
    flat, current = patchmatch.padded_rows(pixels)
    current[filled] = copied(pixels, filled, down, right)
    search = Search(pixels, place, hole, patches, field, trust, flat, current, down, right)
    for turn in range(_ROUNDS):
        last = turn == _ROUNDS - 1
        search.turn(reach=_REACH, apart=0, seed=seed + turn, sharp=sharp and last)


class Search(NamedTuple):
    """Patches that look for matches, and what these say that the pixels of a place show.

    Attributes:
        pixels: float32 ``[H, W, 3]``: where matches are read.
        place: bool ``[H, W]``: the pixels to decide on.
        hole: bool ``[H, W]``: what nobody may show.
        patches: The patches.
        field: Their offsets.
        trust: float32 ``[T]``, see :func:`trust_in`.
        flat: The picture as it is so far, see :func:`~.patchmatch.padded_rows`.
        current: The same memory, ``[H, W, 3]``.
        down: int32 ``[H, W]``: rows to what each pixel of the place shows.
        right: The same, columns.
    """

    pixels: Floats
    place: Place
    hole: Place
    patches: patchmatch.Patches
    field: patchmatch.Field
    trust: Floats
    flat: Floats
    current: Floats
    down: Integers
    right: Integers

    def turn(self, *, reach: int, apart: int, seed: int, sharp: bool) -> None:
        """Improve the field, and then the picture by it.

        Args:
            reach: Pixels: where the random search begins.
            apart: Pixels to a match, at least.
            seed: 0 or more.
            sharp: Show one match for each pixel, and not a mean.
        """
        stop_if_asked()
        patchmatch.repeat_edges(self.flat)
        source = self.pixels.reshape(len(self.pixels), -1)
        patchmatch.measure(self.flat, source, self.patches, self.field)
        patchmatch.improve(self.flat, source, self.patches, self.field, _SCANS, reach, apart, seed)
        patchmatch.vote(
            self.pixels,
            self.place,
            self.hole,
            self.patches,
            self.field,
            self.trust,
            np.float32(_typical(self.field.costs)),
            sharp,
            self.current,
            self.down,
            self.right,
        )


def _seams(hole: Place, down: Integers, right: Integers) -> Place:
    """Pixels that continue neither the one above nor the one to the left."""
    seams = np.zeros_like(hole)
    for values in (hole, down, right):
        seams[1:] |= values[1:] != values[:-1]
        seams[:, 1:] |= values[:, 1:] != values[:, :-1]
    return seams


def trust_in(near: Place, hole: Place) -> Floats:
    """What the vote of each patch centred at ``near`` weighs: less, the deeper in the hole it is.

    Returns:
        float32 ``[T]``, for the pixels of ``near``, bool ``[H, W]``, row by row.
    """
    around = bounding_window(hole).grow(1, *hole.shape).slices
    depth = depth_in(hole[around], _DEEPEST)
    trust = np.ones(np.count_nonzero(near), np.float32)
    trust[hole[near]] = np.float32(_TRUST) ** -depth[near[around] & hole[around]]
    return trust


def _typical(costs: Floats) -> float:
    good = costs[costs < patchmatch.NO_MATCH]
    return max(float(np.percentile(good, 75)), 1e-4) if len(good) else 1.0
