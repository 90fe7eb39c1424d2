"""The correction between pieces against a plain sum of equations solved by SciPy."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

pytest.importorskip("numba")

from regionnorm.filling.completion import blend

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int32]
Place = npt.NDArray[np.bool_]


def correction(pixels: Floats, hole: Place, down: Integers, right: Integers, keep: float) -> Floats:
    result = np.zeros_like(pixels)
    result[hole] = blend.correction(pixels, hole, down, right, keep)
    return result


def scene() -> tuple[Floats, Place, Integers, Integers]:
    """A hole that two pieces fill, one from the left and one from the right."""
    rng = np.random.default_rng(0)
    pixels = rng.random((16, 40, 3), dtype=np.float32)
    hole = np.zeros((16, 40), bool)
    hole[5:11, 15:25] = True
    down, right = np.zeros((16, 40), np.int32), np.zeros((16, 40), np.int32)
    right[5:11, 15:20], right[5:11, 20:25] = -11, 12
    down[5:11, 20:25] = 1
    return pixels, hole, down, right


def shown(
    pixels: Floats, hole: Place, offset: tuple[int, int], row: int, column: int
) -> Floats | None:
    to = row + offset[0], column + offset[1]
    if offset == (0, 0):
        return pixels[row, column]
    inside = 0 <= to[0] < hole.shape[0] and 0 <= to[1] < hole.shape[1]
    return pixels[to] if inside and not hole[to] else None


def expected(
    pixels: Floats, hole: Place, down: Integers, right: Integers, keep: float
) -> npt.NDArray[np.float64]:
    """Least squares: for each pair of neighbours one equation for each channel."""
    number = np.full(hole.shape, -1)
    number[hole] = np.arange(hole.sum())
    lines, values = [], []
    for row, column in np.ndindex(hole.shape):
        for next_ in ((row, column + 1), (row + 1, column)):
            here = (row, column)
            if next_[0] >= hole.shape[0] or next_[1] >= hole.shape[1]:
                continue
            if not (hole[here] or hole[next_]):
                continue
            offsets = [(int(down[at]), int(right[at])) for at in (here, next_)]
            line = np.zeros(int(hole.sum()))
            differences = []
            for place, sign, mine, at in ((here, 1, 0, next_), (next_, -1, 1, here)):
                if not hole[place]:
                    continue
                line[number[place]] = sign
                view = shown(pixels, hole, offsets[mine], *at)
                other = shown(pixels, hole, offsets[1 - mine], *at) if hole[at] else pixels[at]
                if view is not None and other is not None:
                    differences.append(sign * (view - other))
            mismatch = np.mean(differences, axis=0) if differences else np.zeros(3)
            lines.append(line)
            values.append(-mismatch * np.exp(-np.square(mismatch / keep).sum()))
    solution = np.linalg.lstsq(np.array(lines), np.array(values), rcond=None)[0]
    result = np.zeros(pixels.shape)
    result[hole] = solution
    return result


@pytest.mark.parametrize("keep", [0.5, 1e3])
def test_the_correction_is_that_of_least_squares(keep: float) -> None:
    pixels, hole, down, right = scene()
    found = correction(pixels, hole, down, right, keep)
    np.testing.assert_allclose(found, expected(pixels, hole, down, right, keep), atol=5e-3)


def test_a_piece_that_is_brighter_all_over_is_darkened() -> None:
    pixels = np.full((20, 40, 3), 0.4, np.float32)
    pixels[:, 25:] = 0.5
    hole = np.zeros((20, 40), bool)
    hole[7:13, 7:13] = True
    right = np.where(hole, 20, 0).astype(np.int32)
    found = correction(pixels, hole, np.zeros_like(right), right, 0.5)
    np.testing.assert_allclose(found[hole], -0.1 * np.exp(-0.03 / 0.25), atol=1e-3)


def test_a_piece_that_does_not_continue_what_is_around_stays_as_it_is() -> None:
    pixels = np.zeros((20, 40, 3), np.float32)
    pixels[:, 25:] = 1
    hole = np.zeros((20, 40), bool)
    hole[7:13, 7:13] = True
    right = np.where(hole, 20, 0).astype(np.int32)
    assert np.abs(correction(pixels, hole, np.zeros_like(right), right, 0.15)).max() < 1e-3


def test_what_is_painted_needs_no_correction() -> None:
    pixels = np.random.default_rng(0).random((12, 12, 3), dtype=np.float32)
    hole = np.zeros((12, 12), bool)
    hole[4:8, 4:8] = True
    nothing = np.zeros((12, 12), np.int32)
    assert (correction(pixels, hole, nothing, nothing, 0.15) == 0).all()
