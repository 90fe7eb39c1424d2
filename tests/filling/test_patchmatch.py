"""The compiled search against plain NumPy, and what must hold for any field of matches."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pytest

from regionnorm.filling import patchmatch
from regionnorm.filling.patchmatch import PATCH_RADIUS, Level, Matches, improve, measure

SIDE = 40
SIZE = 2 * PATCH_RADIUS + 1


@dataclass
class Problem:
    """A square picture whose hole, rows and columns 12 to 23, is to be matched."""

    current: npt.NDArray[np.float32]
    photo: npt.NDArray[np.float32]
    level: Level
    start: Matches

    @property
    def ones(self) -> npt.NDArray[np.float32]:
        return np.ones((SIDE, SIDE), np.float32)


def flat_rows(picture: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    padded = np.pad(picture, ((PATCH_RADIUS,) * 2, (PATCH_RADIUS,) * 2, (0, 0)), mode="edge")
    return np.ascontiguousarray(padded.reshape(len(padded), -1))


def problem(
    rng: np.random.Generator, *, copied: bool = False, guide_weight: float = 0, distance: float = 0
) -> Problem:
    """Noise; with ``copied``, the hole and its surroundings hold what is found 14 px below."""
    photo = rng.random((SIDE, SIDE, 3), dtype=np.float32)
    current = photo.copy()
    if copied:
        current[9:27, 9:27] = photo[19:37, 11:29]
    guide = rng.random((SIDE, SIDE, 3), dtype=np.float32)
    hole = np.zeros((SIDE, SIDE), bool)
    hole[12:24, 12:24] = True
    inside = slice(PATCH_RADIUS, SIDE - PATCH_RADIUS)
    sources = np.zeros_like(hole)
    for row in range(SIDE)[inside]:
        for column in range(SIDE)[inside]:
            around = hole[row - 3 : row + 4, column - 3 : column + 4]
            sources[row, column] = not around.any()
    if copied:
        sources[22:34, 14:26] = True
    rows, columns = (axis.astype(np.int32) for axis in np.nonzero(hole))
    patch_at = np.full(hole.shape, -1, np.int32)
    patch_at[rows, columns] = np.arange(len(rows), dtype=np.int32)
    level = Level(
        flat_rows(current),
        flat_rows(photo),
        guide,
        np.float32(guide_weight),
        np.float32(distance),
        sources,
        rows,
        columns,
        patch_at,
    )
    chosen = rng.choice(np.argwhere(sources), len(rows)).astype(np.int32)
    start = Matches(chosen[:, 0].copy(), chosen[:, 1].copy(), np.zeros(len(rows), np.float32))
    return Problem(current, photo, level, start)


def search(
    case: Problem, passes: int = 8, *, seed: int = 0, threads: int = 1, radius: int = 20
) -> list[Matches]:
    fields = [measure(case.level, case.start, threads)]
    for turn in range(passes):
        options = {"step": (1, 2, 4)[turn % 3], "radius": radius, "seed": seed + turn}
        fields.append(improve(case.level, fields[-1], case.ones, threads=threads, **options))
    return fields


def same(first: Matches, second: Matches) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


def test_cost_is_that_of_the_formula(rng: np.random.Generator) -> None:
    case = problem(rng, guide_weight=5, distance=1e-3)
    found = measure(case.level, case.start, 1)
    for number in range(0, len(found.costs), 7):
        here = (case.level.rows[number], case.level.columns[number])
        there = (found.rows[number], found.columns[number])
        difference = patch(case.current, *here) - patch(case.photo, *there)
        guide = case.level.guide[here] - case.level.guide[there]
        far = (here[0] - there[0]) ** 2 + (here[1] - there[1]) ** 2
        expected = (difference**2).sum() + 5 * (guide**2).sum() + 1e-3 * far
        assert found.costs[number] == pytest.approx(expected, rel=1e-5)


def patch(picture: npt.NDArray[np.float32], row: int, column: int) -> npt.NDArray[np.float32]:
    return picture[row - 3 : row + 4, column - 3 : column + 4]


def test_penalty_is_a_factor_of_the_cost(rng: np.random.Generator) -> None:
    case = problem(rng)
    before = measure(case.level, case.start, 1)
    options = {"step": 1, "radius": 20, "seed": 0, "threads": 1}
    plain = improve(case.level, before, case.ones, **options)
    assert not same(before, plain)
    # What costs four times as much everywhere is chosen in the same way.
    assert same(improve(case.level, before, 4 * case.ones, **options), plain)


def test_a_match_that_is_penalised_loses_to_a_cheaper_one(rng: np.random.Generator) -> None:
    case = problem(rng)
    found = search(case)[-1]
    penalty = case.ones
    penalty[found.rows[0], found.columns[0]] = 100
    other = improve(case.level, found, penalty, step=1, radius=20, seed=99, threads=1)
    assert (other.rows[0], other.columns[0]) != (found.rows[0], found.columns[0])
    assert found.costs[0] < other.costs[0] < 100 * found.costs[0]


def test_a_pass_never_makes_a_match_worse(rng: np.random.Generator) -> None:
    fields = search(problem(rng))
    for before, after in pairwise(fields):
        assert (after.costs <= before.costs).all()
    assert fields[-1].costs.mean() < 0.8 * fields[0].costs.mean()


def test_a_pass_leaves_the_field_before_as_it_is(rng: np.random.Generator) -> None:
    case = problem(rng)
    before = measure(case.level, case.start, 1)
    copy = Matches(before.rows.copy(), before.columns.copy(), before.costs.copy())
    improve(case.level, before, case.ones, step=1, radius=20, seed=0, threads=1)
    assert same(before, copy)


def test_costs_that_a_pass_returns_are_those_of_its_matches(rng: np.random.Generator) -> None:
    case = problem(rng, guide_weight=2, distance=1e-3)
    found = search(case)[-1]
    measured = measure(case.level, found, 1)
    np.testing.assert_allclose(found.costs, measured.costs, rtol=1e-5)


def test_matches_are_always_sources(rng: np.random.Generator) -> None:
    case = problem(rng)
    for found in search(case):
        assert case.level.sources[found.rows, found.columns].all()


def test_a_copy_is_found_wherever_the_search_begins(rng: np.random.Generator) -> None:
    case = problem(rng, copied=True)
    for seed in range(3):
        found = search(case, passes=16, seed=100 * seed)[-1]
        assert np.count_nonzero(found.costs == 0) > 0.95 * len(found.costs)
        right = (found.rows - case.level.rows == 10) & (found.columns - case.level.columns == 2)
        assert right.mean() > 0.95


def test_propagation_alone_spreads_a_good_match(rng: np.random.Generator) -> None:
    case = problem(rng, copied=True)
    middle = case.level.patch_at[18, 18]
    case.start.rows[middle], case.start.columns[middle] = 28, 20
    found = search(case, passes=12, radius=0)[-1]
    assert (found.costs == 0).all()


def test_field_is_the_same_for_any_number_of_threads(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patchmatch, "_MIN_TASK", 8)
    case = problem(rng)
    one = search(case)[-1]
    for threads in (2, 3, 5):
        assert same(one, search(case, threads=threads)[-1])


def test_another_seed_tries_other_places(rng: np.random.Generator) -> None:
    case = problem(rng)
    assert same(search(case, seed=1)[-1], search(case, seed=1)[-1])
    assert not same(search(case, seed=1)[-1], search(case, seed=2)[-1])


def test_penalised_sources_are_avoided(rng: np.random.Generator) -> None:
    case = problem(rng)
    penalty = case.ones
    penalty[:, : SIDE // 2] = 100
    found = measure(case.level, case.start, 1)
    for turn in range(6):
        found = improve(case.level, found, penalty, step=1, radius=20, seed=turn, threads=1)
    assert (found.columns >= SIDE // 2).mean() > 0.95
