"""Shifts within a plane that is seen at an angle: a floor's, a facade's, a railway's.

Such a shift makes things smaller towards the plane's vanishing line. In the picture it is a
projective map (an elation) whose axis is that line, and where it takes one pixel says what it does
to all others; so a plane has one for every shift of the hole's middle, and those that fit what
is around the hole are found as other shifts are. That planes should guide what is copied is
an idea of Huang et al., "Image completion using planar structure guidance" (SIGGRAPH 2014).
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from regionnorm.filling.completion._compiled import jit
from regionnorm.filling.completion.offsets import arcs_of, peaks, whole_ring

__all__ = ["PlaneShift", "plane_match", "plane_shift", "plane_shifts"]

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int32]
Place = npt.NDArray[np.bool_]
Places = npt.NDArray[np.intp]

_PLANES = 4  # those that fit best
_RATED = 2  # every so many shifts say how well a plane fits
_ARCS = 8
_WHOLE_PEAKS, _ARC_PEAKS = 8, 4
_APART = 3  # pixels between shifts of the middle
_MOST_INSIDE = 100  # pixels of a hole that are asked what they would be shown
# What is added to the difference of the whole ring, and of an arc, where nothing is shown: small
# shifts always fit, and most of what they lead to is hole.
_UNSHOWN, _ARC_UNSHOWN = 0.5, 0.1

_LEAST_SIZE, _MOST_SIZE = 0.8, 2.0  # of what is copied, over that of its copy in the middle
_LEAST_ANYWHERE, _MOST_ANYWHERE = 0.65, 2.5


class PlaneShift(NamedTuple):
    """A projective map: p + (line . p) * way, of p = (column, row, 1), middles of pixels.

    Attributes:
        line: float64 ``[3]``: the plane's vanishing line.
        way: float64 ``[3]``: the point of that line from which the shift leads away.
        width: Columns of the picture that shows the plane.
    """

    line: Doubles
    way: Doubles
    width: float = math.inf

    def moved(self, rows: Places, columns: Places) -> tuple[Places, Places]:
        """Where pixels are shown from, int ``[N]`` twice; -1 where the plane has nothing."""
        rows, columns = np.ascontiguousarray(rows), np.ascontiguousarray(columns)
        to_rows, to_columns = np.empty_like(rows), np.empty_like(columns)
        _move(self.line, self.way, float(self.width), rows, columns, to_rows, to_columns)
        return to_rows, to_columns


def plane_shift(
    line: Doubles, middle: Doubles, down: int, right: int, width: float = math.inf
) -> PlaneShift:
    """The shift within a plane that takes one point ``down`` and ``right``.

    Args:
        line: float64 ``[3]``, the plane's vanishing line, scaled to be 1 at ``middle``.
        middle: float64 ``[2]``: the point's column and row.
        down: Rows, and not as far as to the line.
        right: Columns.
        width: Columns of the picture that shows the plane.
    """
    there = np.array([middle[0] + right, middle[1] + down, 1.0])
    way = there / (line @ there) - np.array([middle[0], middle[1], 1.0])
    return PlaneShift(line, way, width)


def plane_shifts(
    features: Floats, known: Place, place: Place, ring: Place, lines: Doubles, most: float
) -> list[PlaneShift]:
    """The shifts at which what is around a hole fits best, in the planes that fit best.

    Args:
        features: float32 ``[H, W, C]``; what is not known is not read.
        known: bool ``[H, W]``.
        place: bool ``[H, W]``, the hole.
        ring: bool ``[H, W]``, known pixels around it.
        lines: float64 ``[K, 3]``, vanishing lines.
        most: The most that a pixel's difference counts.
    """
    rows, columns = np.nonzero(place)
    middle = np.floor([np.median(columns), np.median(rows)]) + 0.5
    arc = arcs_of(ring, _ARCS)
    inside = np.argwhere(place)[:: len(rows) // _MOST_INSIDE + 1].astype(np.int32)

    def match(line: Doubles, step: int) -> tuple[Floats, Floats]:
        scores, shown = plane_match(
            features, known, ring, arc, _ARCS, inside, line, middle, most, step
        )
        hidden = 1 - shown
        whole = whole_ring(scores, arc) + np.float32(_UNSHOWN) * hidden
        scores += np.float32(_ARC_UNSHOWN) * hidden
        return whole, scores

    there = lines @ np.array([*middle, 1])
    scaled = [line / at for line, at in zip(lines, there, strict=True) if at]
    shifts: list[PlaneShift] = []
    for line in sorted(scaled, key=lambda line: float(match(line, _RATED)[0].min()))[:_PLANES]:
        whole, scores = match(line, 1)
        found = [peaks(whole, _WHOLE_PEAKS, apart=_APART, least=_APART)]
        found += [peaks(one, _ARC_PEAKS, apart=_APART, least=_APART) for one in scores]
        wanted = dict.fromkeys((int(down), int(right)) for down, right in np.concatenate(found))
        width = known.shape[1]
        shifts += [plane_shift(line, middle, down, right, width) for down, right in wanted]
    return shifts


def plane_match(
    features: Floats,
    known: Place,
    ring: Place,
    arc: Integers,
    arcs: int,
    inside: Integers,
    line: Doubles,
    middle: Doubles,
    most: float,
    step: int = 1,
) -> tuple[Floats, Floats]:
    """Compare a ring with itself shifted within a plane, as :func:`~.offsets.ring_match` does.

    Args:
        features: float32 ``[H, W, C]``; what is not known is not read.
        known: bool ``[H, W]``.
        ring: bool ``[H, W]``, known pixels around a hole.
        arc: int32: the number of the arc of each of them.
        arcs: How many arcs there are.
        inside: int32 ``[M, 2]``: rows and columns of pixels of the hole.
        line: float64 ``[3]``, the plane's vanishing line, 1 at ``middle``.
        middle: float64 ``[2]``: column and row of the middle of the pixel that shifts are told of.
        most: The most that a pixel's difference counts, and what an unknown partner counts.
        step: Only every so many shifts are looked at, in either direction.

    Returns:
        float32 ``[arcs, 2 * H - 1, 2 * W - 1]``: the mean difference of each arc by the shift of
        the middle, which stays in the picture and at about its size; ``most`` for all others. And
        float32 ``[2 * H - 1, 2 * W - 1]``: the share of ``inside`` that is shown something.
    """
    rows, columns = (axis.astype(np.int32) for axis in np.nonzero(ring))
    scores, shown = _plane_match(
        features, known, rows, columns, arc, arcs, inside, line, middle, np.float32(most), step
    )
    return scores, shown


@jit
def _from(line: Any, way0: Any, way1: Any, way2: Any, row: Any, column: Any) -> Any:
    """Where one pixel is shown from."""
    x, y = column + 0.5, row + 0.5
    near = line[0] * x + line[1] * y + line[2]
    last = 1 + near * way2
    if near <= 0 or last * _MOST_ANYWHERE <= 1 or last * _LEAST_ANYWHERE >= 1:
        return -1, -1
    return int(np.floor((y + near * way1) / last)), int(np.floor((x + near * way0) / last))


@jit
def _move(
    line: Any, way: Any, width: Any, rows: Any, columns: Any, to_rows: Any, to_columns: Any
) -> None:
    for pixel in range(len(rows)):
        row, column = _from(line, way[0], way[1], way[2], rows[pixel], columns[pixel])
        to_rows[pixel] = row if column < width else -1
        to_columns[pixel] = column if column < width else -1


@jit
def _plane_match(
    features: Any,
    known: Any,
    rows: Any,
    columns: Any,
    arc: Any,
    arcs: Any,
    inside: Any,
    line: Any,
    middle: Any,
    most: Any,
    step: Any,
) -> Any:
    height, width, channels = features.shape
    scores = np.full((arcs, 2 * height - 1, 2 * width - 1), most, np.float32)
    shown = np.zeros((2 * height - 1, 2 * width - 1), np.float32)
    count, total = np.zeros(arcs, np.float32), np.zeros(arcs, np.float32)
    for pixel in range(len(rows)):
        count[arc[pixel]] += 1
    top, left = int(middle[1]), int(middle[0])
    for to_row in range(top % step, height, step):
        for to_column in range(left % step, width, step):
            x, y = to_column + 0.5, to_row + 0.5
            size = line[0] * x + line[1] * y + line[2]
            if size < _LEAST_SIZE or size > _MOST_SIZE:
                continue
            way0, way1, way2 = x / size - middle[0], y / size - middle[1], 1 / size - 1
            down, right = to_row - top + height - 1, to_column - left + width - 1
            for pixel in range(len(inside)):
                row, column = _from(line, way0, way1, way2, inside[pixel, 0], inside[pixel, 1])
                if 0 <= row < height and 0 <= column < width and known[row, column]:
                    shown[down, right] += 1
            total[:] = 0
            for pixel in range(len(rows)):
                row, column = _from(line, way0, way1, way2, rows[pixel], columns[pixel])
                if not (0 <= row < height and 0 <= column < width) or not known[row, column]:
                    continue
                square = np.float32(0)
                for channel in range(channels):
                    difference = (
                        features[rows[pixel], columns[pixel], channel]
                        - features[row, column, channel]
                    )
                    square += difference * difference
                if square < most * most:
                    total[arc[pixel]] += np.sqrt(square) - most
            for part in range(arcs):
                mean = total[part] / max(count[part], np.float32(1))
                scores[part, down, right] = most + mean
    shown /= max(len(inside), 1)
    return scores, shown
