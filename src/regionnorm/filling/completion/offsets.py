"""By how much to shift a photo over its own hole: the offsets that are worth offering.

He and Sun, "Statistics of patch offsets for image completion" (ECCV 2012), take those at which
the known part repeats itself. Another kind matters more: those at which what is around the hole
meets the same again, so that what is inside fits without a seam. Arcs of the surroundings may
each meet theirs, since the hole need not be filled with one piece.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from regionnorm.filling.completion._compiled import jit

__all__ = ["arcs_of", "peaks", "repetitions", "ring_match", "whole_ring"]

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int32]
Place = npt.NDArray[np.bool_]


def arcs_of(ring: Place, count: int) -> Integers:
    """Number the pixels of a ring ``[H, W]`` by ``count`` equal angles around its middle.

    Returns:
        int32 ``[N]``, 0 to ``count`` - 1, of the pixels row by row.
    """
    rows, columns = np.nonzero(ring)
    angle = np.arctan2(rows - rows.mean(), columns - columns.mean())
    arc: Integers = np.minimum((angle + np.pi) / (2 * np.pi) * count, count - 1).astype(np.int32)
    return arc


def ring_match(
    features: Floats, known: Place, ring: Place, arc: Integers, arcs: int, most: float
) -> Floats:
    """Compare a ring with itself shifted by every offset.

    Args:
        features: float32 ``[H, W, C]``; what is not known is not read.
        known: bool ``[H, W]``.
        ring: bool ``[H, W]``, known pixels around a hole.
        arc: int32: the number of the arc of each of the ring's pixels, see :func:`arcs_of`.
        arcs: How many arcs there are.
        most: The most that a pixel's difference counts, and what an unknown partner counts.

    Returns:
        float32 ``[arcs, 2 * H - 1, 2 * W - 1]``: the mean difference (L2 over channels) of each
        arc at offset (row - H + 1, column - W + 1); ``most`` for an arc without pixels.
    """
    rows, columns = (axis.astype(np.int32) for axis in np.nonzero(ring))
    return np.asarray(_ring_match(features, known, rows, columns, arc, arcs, np.float32(most)))


@jit
def _ring_match(
    features: Any, known: Any, rows: Any, columns: Any, arc: Any, arcs: Any, most: Any
) -> Any:
    height, width, channels = features.shape
    total = np.zeros((arcs, 2 * height - 1, 2 * width - 1), np.float32)
    count = np.zeros(arcs, np.float32)
    for pixel in range(len(rows)):
        row, column, part = rows[pixel], columns[pixel], arc[pixel]
        count[part] += 1
        # Every known pixel says by how much less than `most` it differs.
        for to_row in range(height):
            line = total[part, to_row - row + height - 1]
            for to_column in range(width):
                if not known[to_row, to_column]:
                    continue
                square = np.float32(0)
                for channel in range(channels):
                    difference = (
                        features[row, column, channel] - features[to_row, to_column, channel]
                    )
                    square += difference * difference
                if square < most * most:
                    line[to_column - column + width - 1] += np.sqrt(square) - most
    for part in range(arcs):
        total[part] = most + total[part] / max(count[part], np.float32(1))
    return total


def whole_ring(scores: Floats, arc: Integers) -> Floats:
    """The score of a ring ``[...]`` from those of its arcs ``[arcs, ...]``, by their pixels."""
    shares = np.bincount(arc, minlength=len(scores)).astype(np.float32) / np.float32(len(arc))
    whole: Floats = np.zeros_like(scores[0])
    for share, score in zip(shares, scores, strict=True):
        whole += share * score
    return whole


def peaks(score: Floats, count: int, *, apart: int, least: int) -> Integers:
    """Offsets of the lowest scores.

    Args:
        score: float32 ``[2 * H - 1, 2 * W - 1]``, as of one arc of :func:`ring_match`.
        count: How many offsets, at most.
        apart: How far two of them differ at least, in rows or columns.
        least: How far an offset reaches at least, in rows or columns.

    Returns:
        int32 ``[count or less, 2]``, rows and columns, the best first.
    """
    middle = (score.shape[0] // 2, score.shape[1] // 2)
    score = score.copy()
    worst = score.max()
    _close(score, *middle, least, worst)
    found = []
    for _ in range(count):
        at = int(np.argmin(score))
        row, column = divmod(at, score.shape[1])
        if score[row, column] >= worst:
            break
        found.append((row - middle[0], column - middle[1]))
        _close(score, row, column, apart, worst)
    return np.array(found, np.int32).reshape(-1, 2)


def _close(score: Floats, row: int, column: int, reach: int, value: float) -> None:
    rows = slice(max(0, row - reach + 1), row + reach)
    score[rows, max(0, column - reach + 1) : column + reach] = value


def repetitions(rows: Integers, columns: Integers, shape: tuple[int, int]) -> Floats:
    """How often each offset occurs, as a score like :func:`ring_match`'s: low is often.

    Args:
        rows: int32 ``[N]``: offsets' rows.
        columns: int32 ``[N]``: their columns.
        shape: H and W of the picture.
    """
    height, width = shape
    score = np.zeros((2 * height - 1, 2 * width - 1), np.float32)
    np.add.at(score, (rows + height - 1, columns + width - 1), -1)
    padded = np.pad(score, 1)
    # Offsets of one repetition scatter by a pixel.
    lines = padded[:-2] + 2 * padded[1:-1] + padded[2:]
    smooth: Floats = lines[:, :-2] + 2 * lines[:, 1:-1] + lines[:, 2:]
    return smooth
