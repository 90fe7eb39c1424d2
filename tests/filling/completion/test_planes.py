"""Shifts within planes: their maps, the match against a plain loop, and what they are good for."""

from __future__ import annotations

from pathlib import Path
from runpy import run_path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

pytest.importorskip("numba")

from regionnorm.filling.completion import complete as completion
from regionnorm.filling.completion.offsets import arcs_of
from regionnorm.filling.completion.planes import (
    PlaneShift,
    plane_match,
    plane_shift,
    plane_shifts,
)
from regionnorm.masks.regions import dilate_square

floor: Any = run_path(str(Path(__file__).with_name("floors.py")))["floor"]
Floats = npt.NDArray[np.float32]
Place = npt.NDArray[np.bool_]


def horizontal(row: float, middle: tuple[float, float]) -> npt.NDArray[np.float64]:
    """The line of a row, scaled to 1 at ``middle``, a column and a row."""
    return np.array([0, 1, -row]) / (middle[1] - row)


def exact(shift: PlaneShift, x: float, y: float) -> tuple[float, float]:
    """The map as projective geometry has it, as a matrix."""
    matrix = np.eye(3) + np.outer(shift.way, shift.line)
    to = matrix @ [x, y, 1]
    return float(to[0] / to[2]), float(to[1] / to[2])


def test_the_middle_goes_where_it_is_told() -> None:
    shift = plane_shift(horizontal(-30, (20.5, 40.5)), np.array([20.5, 40.5]), 7, -9)
    rows, columns = shift.moved(np.array([40]), np.array([20]))
    assert (rows[0], columns[0]) == (47, 11)


def test_the_horizon_stays_and_straight_lines_stay_straight() -> None:
    shift = plane_shift(horizontal(-30, (20.5, 40.5)), np.array([20.5, 40.5]), 12, 5)
    for column in (-100.0, 3.0, 77.0):
        assert exact(shift, column, -30) == pytest.approx((column, -30))
    a, b, c = (exact(shift, 10 + 4 * t, 20 + 9 * t) for t in (0, 1, 5))
    cross = (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])
    assert cross == pytest.approx(0, abs=1e-9)
    rows, columns = shift.moved(np.array([20, 33]), np.array([10, 50]))
    for row, column, (y, x) in zip(rows, columns, ((20.5, 10.5), (33.5, 50.5)), strict=True):
        assert (column, row) == tuple(int(value) for value in exact(shift, x, y))


def test_two_shifts_are_a_shift() -> None:
    line = horizontal(-30, (20.5, 40.5))
    one = plane_shift(line, np.array([20.5, 40.5]), 12, 5)
    x, y = exact(one, 20.5, 40.5)
    # A line is scaled to be 1 at the point that a shift is told of.
    other = plane_shift(line / (line @ [x, y, 1]), np.array([x, y]), -4, 8)
    both = plane_shift(line, np.array([20.5, 40.5]), 8, 13)
    for point in ((3.0, 9.0), (50.0, 60.0)):
        assert exact(other, *exact(one, *point)) == pytest.approx(exact(both, *point))


def test_beyond_the_horizon_there_is_nothing() -> None:
    shift = plane_shift(horizontal(10, (20.5, 40.5)), np.array([20.5, 40.5]), 5, 0)
    rows, columns = shift.moved(np.array([2, 9, 10, 40]), np.array([20, 20, 20, 20]))
    assert rows[:2].tolist() == columns[:2].tolist() == [-1, -1]
    assert rows[3] == 45


def scene() -> tuple[Floats, Place, Place]:
    features = np.random.default_rng(0).random((15, 18, 4), dtype=np.float32)
    hole = np.zeros((15, 18), bool)
    hole[6:10, 7:12] = True
    return features, hole, dilate_square(hole, 2) & ~hole


def naive(
    features: Floats, hole: Place, ring: Place, shift: PlaneShift
) -> tuple[npt.NDArray[np.float64], float]:
    """Differences of the ring's pixels, and the share of the hole that is shown something."""

    def source(row: int, column: int) -> tuple[int, int] | None:
        rows, columns = shift.moved(np.array([row]), np.array([column]))
        to = int(rows[0]), int(columns[0])
        inside = 0 <= to[0] < hole.shape[0] and 0 <= to[1] < hole.shape[1]
        return to if inside and not hole[to] else None

    differences = []
    for row, column in np.argwhere(ring):
        to = source(row, column)
        there = 0.8 if to is None else np.linalg.norm(features[row, column] - features[to])
        differences.append(min(0.8, float(there)))
    places = np.argwhere(hole)
    shown = sum(source(row, column) is not None for row, column in places)
    return np.array(differences), shown / len(places)


def test_every_shift_scores_as_in_a_plain_loop() -> None:
    features, hole, ring = scene()
    middle = np.array([9.5, 8.5])
    line = np.array([0.02, 0.05, 1.0])
    line /= line @ [*middle, 1]
    arc = arcs_of(ring, 4)
    inside = np.argwhere(hole).astype(np.int32)
    scores, shown = plane_match(features, ~hole, ring, arc, 4, inside, line, middle, 0.8)
    seen = 0
    for to_row in range(15):
        for to_column in range(18):
            down, right = to_row - 8, to_column - 9
            at = down + 14, right + 17
            shift = plane_shift(line, middle, down, right)
            size = 1 / (1 + shift.way[2])
            if not 0.8 <= size <= 2:
                assert (scores[:, at[0], at[1]] == np.float32(0.8)).all()
                continue
            differences, share = naive(features, hole, ring, shift)
            expected = [differences[arc == number].mean() for number in range(4)]
            np.testing.assert_allclose(scores[:, at[0], at[1]], expected, atol=1e-5)
            assert shown[at] == pytest.approx(share, abs=1e-6)
            seen += 1
    assert seen > 100
    halved, _ = plane_match(features, ~hole, ring, arc, 4, inside, line, middle, 0.8, 2)
    assert np.array_equal(halved[:, 14::2, 17::2], scores[:, 14::2, 17::2])
    assert (halved[:, 15::2] == np.float32(0.8)).all()


def hidden_floor() -> tuple[Floats, Place]:
    pixels = floor(144, 300, horizon=-60, tile=64, column=30)
    hole = np.zeros((144, 300), bool)
    hole[40:80, 70:130] = True
    return pixels, hole


def test_the_best_shift_of_a_floor_shows_the_same_floor() -> None:
    pixels, hole = hidden_floor()
    ring = dilate_square(hole, 4) & ~hole
    lines = np.array([[1, 0.2, -400.0], [0, 1, 60.0]])  # some line, and the horizon
    known = np.where(hole[..., None], np.float32(np.nan), pixels)
    rows, columns = np.nonzero(hole)
    shift = plane_shifts(known, ~hole, hole, ring, lines, 0.8)[0]
    assert shift.line[0] == 0, "the plane that fits comes first"
    to_rows, to_columns = shift.moved(rows, columns)
    assert ((to_rows >= 0) & (to_rows < 144) & (to_columns >= 0) & (to_columns < 300)).all()
    error = np.abs(pixels[to_rows, to_columns] - pixels[rows, columns]).mean()
    unmoved = min(
        np.abs(pixels[rows + down, columns + right] - pixels[rows, columns]).mean()
        for down in range(-40, 64)
        for right in range(-70, 170)
        if abs(down) >= 40 or abs(right) >= 60
    )
    assert error < 0.6 * unmoved


@pytest.mark.parametrize("lines", [np.zeros((0, 3)), np.array([[0, 1, -45.0]])])
def test_lines_that_say_nothing_give_nothing_or_something_that_fits(
    lines: npt.NDArray[np.float64],
) -> None:
    pixels, hole = hidden_floor()  # the second line runs through the hole's middle
    ring = dilate_square(hole, 4) & ~hole
    for shift in plane_shifts(pixels, ~hole, hole, ring, lines, 0.8):
        assert np.isfinite(shift.line).all()
        assert np.isfinite(shift.way).all()


def test_a_floor_is_completed_better_with_its_plane(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = floor(192, 256, horizon=-80, tile=60, column=40)
    hole = np.zeros((192, 256), bool)
    hole[60:120, 100:180] = True
    image = np.where(hole[..., None], np.float32(np.nan), pixels)

    def error() -> float:
        filled = completion.complete(image, hole, method="exemplar")
        assert np.array_equal(filled[~hole], pixels[~hole])
        return float(np.square(filled - pixels)[hole].mean())

    with_plane = error()
    monkeypatch.setattr(completion, "_vanishing_lines", lambda *_: np.zeros((0, 3)))
    assert with_plane < 0.8 * error()
