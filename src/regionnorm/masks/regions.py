"""Geometry of holes on bool arrays: dilation, connected regions, windows; NumPy alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = [
    "Window",
    "bounding_window",
    "dilate_disk",
    "dilate_square",
    "label_regions",
    "overlapping_spans",
]

Hole = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Window:
    """A rectangle of pixels: rows ``top`` to ``bottom - 1``, columns ``left`` to ``right - 1``."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def height(self) -> int:
        """Rows."""
        return self.bottom - self.top

    @property
    def width(self) -> int:
        """Columns."""
        return self.right - self.left

    @property
    def slices(self) -> tuple[slice, slice]:
        """What cuts the window out of an array ``[H, W, ...]``."""
        return slice(self.top, self.bottom), slice(self.left, self.right)

    def slices_in(self, outer: Window) -> tuple[slice, slice]:
        """What cuts the window out of an array of the pixels of a window around it."""
        return (
            slice(self.top - outer.top, self.bottom - outer.top),
            slice(self.left - outer.left, self.right - outer.left),
        )

    def grow(self, margin: int, height: int, width: int, at_least: int = 0) -> Window:
        """Return the window with a margin, at least so large, inside ``height`` x ``width``."""
        top, bottom = _grow(self.top, self.bottom, margin, at_least, height)
        left, right = _grow(self.left, self.right, margin, at_least, width)
        return Window(top, left, bottom, right)


def _grow(low: int, high: int, margin: int, at_least: int, limit: int) -> tuple[int, int]:
    missing = max(2 * margin, at_least - (high - low))
    low, high = low - missing // 2, high + missing - missing // 2
    # A window that would leave the picture is moved back inside, and cut only if it is too large.
    shift = max(0, -low) - max(0, high - limit)
    if low < 0 and high > limit:
        return 0, limit
    return max(0, low + shift), min(limit, high + shift)


def overlapping_spans(side: int, longest: int, overlap: int) -> list[tuple[int, int]]:
    """Starts and ends of spans that cover a side: as few as can, of one length, evenly spread.

    Args:
        side: In pixels.
        longest: What a span has at most.
        overlap: What two neighbours share at least, but for a pixel of rounding.
    """
    count = max(1, -(-(side - overlap) // (longest - overlap)))
    length = -(-(side + (count - 1) * overlap) // count)
    starts = np.rint(np.linspace(0, side - length, count)).astype(int).tolist()
    return [(start, start + length) for start in starts]


def bounding_window(hole: Hole) -> Window:
    """Return the smallest window that holds all of a hole ``[H, W]``, which must not be empty."""
    rows, columns = np.flatnonzero(hole.any(1)), np.flatnonzero(hole.any(0))
    return Window(int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1)


def dilate_square(hole: Hole, radius: int) -> Hole:
    """Grow a hole ``[H, W]`` by ``radius`` pixels in every direction, corners included."""
    for axis in (0, 1):
        hole = _dilate_along(hole, radius, axis)
    return hole


def _dilate_along(hole: Hole, radius: int, axis: int) -> Hole:
    # Reach doubles with every step, so that the cost is the logarithm of the radius.
    grown: Hole = hole.copy()
    reach = 0
    while reach < radius:
        step = min(reach + 1, radius - reach)
        old = grown.copy()
        for target, source in (
            (slice(step, None), slice(None, -step)),
            (slice(None, -step), slice(step, None)),
        ):
            at = [slice(None)] * 2
            at[axis] = target
            from_ = [slice(None)] * 2
            from_[axis] = source
            grown[tuple(at)] |= old[tuple(from_)]
        reach += step
    return grown


def dilate_disk(hole: Hole, radius: int) -> Hole:
    """Grow a hole ``[H, W]`` to all pixels within ``radius`` pixels of it."""
    result: Hole = hole.copy()
    if radius < 1 or not hole.any():
        return result
    window = bounding_window(hole).grow(radius, *hole.shape)
    inside = hole[window.slices]
    grown = inside.copy()
    rows = window.height
    for down in range(-radius, radius + 1):
        if abs(down) >= rows:
            continue
        across = _dilate_along(inside, int((radius**2 - down**2) ** 0.5), axis=1)
        grown[max(0, down) : rows + min(0, down)] |= across[max(0, -down) : rows + min(0, -down)]
    result[window.slices] = grown
    return result


def label_regions(hole: Hole) -> tuple[npt.NDArray[np.int32], int]:
    """Number the 8-connected regions of a hole ``[H, W]``.

    Returns:
        int32 ``[H, W]``, 0 outside the hole and 1 to ``count`` inside, and ``count``.
    """
    rows, starts, ends = _runs(hole)
    parents = list(range(len(rows)))

    def root(run: int) -> int:
        while parents[run] != run:
            parents[run] = parents[parents[run]]
            run = parents[run]
        return run

    for first, second in _touching(rows, starts, ends):
        a, b = root(first), root(second)
        if a != b:
            parents[max(a, b)] = min(a, b)
    roots = np.array([root(run) for run in range(len(rows))], np.int64)
    names, numbers = np.unique(roots, return_inverse=True)
    # Each run is painted by its two ends: +number at its start, -number behind it, then summed.
    steps = np.zeros((hole.shape[0], hole.shape[1] + 1), np.int32)
    np.add.at(steps, (rows, starts), numbers.astype(np.int32) + 1)
    np.subtract.at(steps, (rows, ends), numbers.astype(np.int32) + 1)
    return np.cumsum(steps, axis=1, dtype=np.int32)[:, :-1], len(names)


def _runs(
    hole: Hole,
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Horizontal runs, row by row: their row, first column and the column behind the last."""
    padded = np.zeros((hole.shape[0], hole.shape[1] + 2), np.int8)
    padded[:, 1:-1] = hole
    change = np.diff(padded, axis=1)
    rows, starts = np.nonzero(change == 1)
    ends = np.nonzero(change == -1)[1]
    return rows, starts, ends


def _touching(
    rows: npt.NDArray[np.intp], starts: npt.NDArray[np.intp], ends: npt.NDArray[np.intp]
) -> list[tuple[int, int]]:
    """Pairs of runs in neighbouring rows that touch, corners included."""
    pairs = []
    row_list, start_list, end_list = rows.tolist(), starts.tolist(), ends.tolist()
    above = 0
    for run, row in enumerate(row_list):
        # Runs are sorted, so the candidates above only ever move on.
        while row_list[above] < row - 1 or (
            row_list[above] == row - 1 and end_list[above] < start_list[run]
        ):
            above += 1
        other = above
        while row_list[other] == row - 1 and start_list[other] <= end_list[run]:
            pairs.append((other, run))
            other += 1
    return pairs
