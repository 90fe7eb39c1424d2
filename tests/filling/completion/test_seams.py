"""Seams between pieces move to where nobody sees them, and never to where they show more."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

pytest.importorskip("numba")

from regionnorm.filling.completion.seams import move_seams

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int32]
Place = npt.NDArray[np.bool_]


def scene(seed: int, height: int = 40, width: int = 60) -> tuple[Floats, Place]:
    pixels = np.random.default_rng(seed).random((height, width, 3), dtype=np.float32)
    hole = np.zeros((height, width), bool)
    hole[10:30, 20:40] = True
    return pixels, hole


def offsets_of(hole: Place, seed: int) -> tuple[Integers, Integers]:
    """Blocks of 5 x 5 pixels, each with one of four offsets that lead out of the hole."""
    choice = np.random.default_rng(seed).integers(4, size=(8, 12)).repeat(5, 0).repeat(5, 1)
    down = np.array([0, 0, -3, 2], np.int32)[choice] * hole
    right = np.array([-20, 20, 20, -20], np.int32)[choice] * hole
    return down.astype(np.int32), right.astype(np.int32)


def moved(
    pixels: Floats, hole: Place, down: Integers, right: Integers, painted: float | None
) -> tuple[Integers, Integers]:
    down, right = down.copy(), right.copy()
    move_seams(pixels, hole, down, right, painted=painted)
    return down, right


def naive_cost(
    pixels: Floats, hole: Place, down: Integers, right: Integers, painted: float = 0
) -> float:
    """What all seams cost, by a plain loop."""

    def shown(at: tuple[int, int], offset: tuple[int, int]) -> Floats | None:
        if offset == (0, 0):
            return pixels[at]
        to = (at[0] + offset[0], at[1] + offset[1])
        inside = 0 <= to[0] < hole.shape[0] and 0 <= to[1] < hole.shape[1]
        return pixels[to] if inside and not hole[to] else None

    def offset(at: tuple[int, int]) -> tuple[int, int]:
        return int(down[at]), int(right[at])

    total = 0.0
    for row, column in np.argwhere(hole).tolist():
        here = (row, column)
        total += painted * (offset(here) == (0, 0))
        for there in ((row + 1, column), (row, column + 1), (row - 1, column), (row, column - 1)):
            if (hole[there] and there < here) or offset(here) == offset(there):
                continue
            pairs = [
                (shown(at, offset(here)), shown(at, offset(there)))
                for at in ((here, there) if hole[there] else (there,))
            ]
            steps = [np.linalg.norm(a - b) for a, b in pairs if a is not None and b is not None]
            total += 2 * (float(np.mean(steps)) if steps else 1.0) + 0.03
    return total


@pytest.mark.parametrize("seed", range(3))
def test_moved_seams_cost_less(seed: int) -> None:
    pixels, hole = scene(seed)
    down, right = offsets_of(hole, seed)
    before = naive_cost(pixels, hole, down, right)
    new_down, new_right = moved(pixels, hole, down, right, None)
    assert naive_cost(pixels, hole, new_down, new_right) < 0.9 * before
    assert not new_down[~hole].any()
    assert not new_right[~hole].any()


def test_no_move_makes_seams_dearer_though_the_cut_may_not_be_the_best() -> None:
    for seed in range(20):
        pixels, hole = scene(seed, 34, 48)
        rng = np.random.default_rng(seed)
        # An offset of its own for each pixel: every second move is one that no cut can weigh.
        down = (rng.integers(-9, 9, hole.shape) * hole).astype(np.int32)
        right = (rng.integers(-19, 8, hole.shape) * hole).astype(np.int32)
        before = naive_cost(pixels, hole, down, right, 0.2)
        new_down, new_right = moved(pixels, hole, down, right, 0.2)
        assert naive_cost(pixels, hole, new_down, new_right, 0.2) <= before + 0.5


def test_a_staircase_becomes_the_line_along_which_both_pieces_are_alike() -> None:
    height, width = 96, 200
    rows, columns = np.mgrid[:height, :width]
    hole = np.zeros((height, width), bool)
    hole[16:80, 68:132] = True
    # Both pieces show noise of their own, and the same along a slanting line.
    pixels = np.random.default_rng(0).random((height, width, 3), dtype=np.float32)
    line = 100 + (rows - 48) // 3
    for near in (-1, 0, 1):
        at = np.arange(16, 80), line[16:80, 0] + near
        pixels[at[0], at[1] - 66] = pixels[at[0], at[1] + 66] = 0.5
    stairs = 100 + 8 * np.round((rows - 48) / 24).astype(int)
    right = (np.where(columns < stairs, -66, 66) * hole).astype(np.int32)
    _, new = moved(pixels, hole, np.zeros_like(right), right, None)
    seam = 68 + np.count_nonzero(new[16:80, 68:132] == -66, axis=1)
    assert np.abs(seam - line[16:80, 0]).max() <= 1
    assert np.abs(stairs[16:80, 0] - line[16:80, 0]).max() >= 4


def test_what_is_painted_is_taken_over_only_where_it_may_be() -> None:
    pixels, hole = scene(0)
    down, right = offsets_of(hole, 0)
    right[:, :30] = down[:, :30] = 0
    copied = hole & ((down != 0) | (right != 0))
    new_down, new_right = moved(pixels, hole, down, right, None)
    assert ((new_down != 0) | (new_right != 0))[copied].all()
    new_down, new_right = moved(pixels, hole, down, right, 0.0)
    assert not ((new_down != 0) | (new_right != 0))[copied].all()


def test_offsets_stay_inside_the_known_part() -> None:
    pixels, hole = scene(1)
    down, right = offsets_of(hole, 1)
    down, right = moved(pixels, hole, down, right, None)
    rows, columns = np.nonzero(hole)
    to = rows + down[hole], columns + right[hole]
    assert not hole[to].any()
