"""From a map of shifts on a small copy to one on the photo: doubled, and refined at each level.

Patches around each pixel look nearby for better matches than the doubled offsets lead to, and
the best of them says what the pixel shows. A pixel's own offset is kept rather than a mean of
colours, so that pieces stay sharp.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from regionnorm.filling.completion import patchmatch
from regionnorm.filling.completion.pyramid import depth_in
from regionnorm.filling.completion.structure import source_centres
from regionnorm.masks.regions import dilate_square

__all__ = ["doubled", "faded", "pasted", "refined"]

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int32]
Place = npt.NDArray[np.bool_]

_ROUNDS = 2
_SCANS = 2
_REACH = 4  # pixels: where the search around an offset begins
_TRUST = 1.2  # the vote of a patch weighs less by this factor for each pixel into the hole
_DEEPEST = 64
_FADE = 2  # pixels to either side of a seam over which pieces fade into each other
_MOST = 300_000  # pixels of a hole that are all searched; of larger ones, those near seams
_SEAM_REACH = 8  # pixels


def doubled(offsets: Integers, hole: Place) -> Integers:
    """A map ``[h, w]`` of offsets on the next finer level, 0 outside its hole ``[H, W]``."""
    height, width = hole.shape
    large: Integers = np.repeat(np.repeat(2 * offsets, 2, axis=0), 2, axis=1)[:height, :width]
    large[~hole] = 0
    return large


def pasted(pixels: Floats, hole: Place, down: Integers, right: Integers) -> Floats:
    """Put what the offsets lead to in the place of every hole pixel, ``[H, W, 3]``."""
    result: Floats = pixels.copy()
    rows, columns = np.nonzero(hole)
    to_rows = (rows + down[hole]).clip(0, hole.shape[0] - 1)
    to_columns = (columns + right[hole]).clip(0, hole.shape[1] - 1)
    result[rows, columns] = pixels[to_rows, to_columns]
    return result


def faded(pixels: Floats, hole: Place, down: Integers, right: Integers) -> Floats:
    """As :func:`pasted`, but pieces fade into each other over a few pixels at their seams.

    Each pixel is the mean of what it shows by its own offset and by those of its neighbours, so
    that nothing changes inside a piece.
    """
    sums = np.zeros((*hole.shape, 3), np.float32)
    weights = np.zeros((*hole.shape, 1), np.float32)
    rows, columns = np.nonzero(hole & dilate_square(_seams(hole, down, right), _FADE))
    for step_down in range(-_FADE, _FADE + 1):
        for step_right in range(-_FADE, _FADE + 1):
            from_rows = (rows + step_down).clip(0, hole.shape[0] - 1)
            from_columns = (columns + step_right).clip(0, hole.shape[1] - 1)
            to_rows = rows + down[from_rows, from_columns]
            to_columns = columns + right[from_rows, from_columns]
            inside = (to_rows >= 0) & (to_rows < len(hole))
            inside &= (to_columns >= 0) & (to_columns < len(hole[0]))
            to_rows = to_rows.clip(0, len(hole) - 1)
            to_columns = to_columns.clip(0, len(hole[0]) - 1)
            copied = (to_rows != rows) | (to_columns != columns)
            good = hole[from_rows, from_columns] & inside & (~copied | ~hole[to_rows, to_columns])
            weight = np.float32(math.exp(-(step_down**2 + step_right**2) / _FADE**2)) * good
            sums[rows, columns] += weight[:, None] * pixels[to_rows, to_columns]
            weights[rows, columns] += weight[:, None]
    result = pasted(pixels, hole, down, right)
    mixed = weights[..., 0] > 0
    result[mixed] = sums[mixed] / weights[mixed]
    return result


def refined(
    pixels: Floats, hole: Place, down: Integers, right: Integers, *, seed: int, sharp: bool
) -> tuple[Integers, Integers]:
    """Improve a map of offsets.

    Args:
        pixels: float32 ``[H, W, 3]``; in the hole, the picture that is painted there.
        hole: bool ``[H, W]``.
        down: int32 ``[H, W]``: rows to what each pixel shows; where both are 0, what is painted
            stays.
        right: The same, columns.
        seed: 0 or more.
        sharp: Compare with one match for each pixel in the end, and not with means.

    Returns:
        ``down`` and ``right`` anew.
    """
    copied = hole & ((down != 0) | (right != 0))
    sources = source_centres(hole)
    if np.count_nonzero(copied) > _MOST:
        copied &= dilate_square(_seams(hole, down, right), _SEAM_REACH)
    if not sources.any() or not copied.any():
        return down, right
    near = dilate_square(copied, patchmatch.RADIUS)
    near &= ~hole | (down != 0) | (right != 0)
    rows, columns = (axis.astype(np.int32) for axis in np.nonzero(near))
    number_at = np.full(hole.shape, -1, np.int32)
    number_at[near] = np.arange(len(rows), dtype=np.int32)
    patches = patchmatch.Patches(rows, columns, number_at, sources)
    # Patches centred outside the hole have no offset yet; the first scans bring them some.
    field = patchmatch.Field(down[near], right[near], np.zeros(len(rows), np.float32))
    trust = np.float32(_TRUST) ** -depth_in(hole, _DEEPEST)[near]
    source = pixels.reshape(len(pixels), -1)
    current = pasted(pixels, hole, down, right)
    down, right = down.copy(), right.copy()
    for turn in range(_ROUNDS):
        flat = patchmatch.padded_rows(current)
        patchmatch.measure(flat, source, patches, field)
        patchmatch.improve(flat, source, patches, field, _SCANS, _REACH, 0, seed + turn)
        scale = np.float32(_typical(field.costs))
        best_only = sharp and turn == _ROUNDS - 1
        patchmatch.vote(
            pixels, copied, hole, patches, field, trust, scale, best_only, current, down, right
        )
    return down, right


def _seams(hole: Place, down: Integers, right: Integers) -> Place:
    """Pixels that continue neither the one above nor the one to the left."""
    seams = np.zeros_like(hole)
    for values in (hole, down, right):
        seams[1:] |= values[1:] != values[:-1]
        seams[:, 1:] |= values[:, 1:] != values[:, :-1]
    return seams


def _typical(costs: Floats) -> float:
    good = costs[costs < patchmatch.NO_MATCH]
    return max(float(np.percentile(good, 75)), 1e-4) if len(good) else 1.0
