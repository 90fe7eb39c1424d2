"""Alpha expansion against every labelling there is, and what it promises."""

from __future__ import annotations

from itertools import product

import numpy as np
import numpy.typing as npt
import pytest

pytest.importorskip("numba")

from regionnorm.filling.completion.graph_cut import FORBIDDEN, choose, energy, fuse
from regionnorm.filling.completion.maxflow import neighbours_of

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int32]


def problem(seed: int, labels: int, shape: tuple[int, int]) -> tuple[Floats, Floats, Integers]:
    rng = np.random.default_rng(seed)
    neighbours = neighbours_of(np.ones(shape, bool))
    values = rng.random((labels, len(neighbours), 4), dtype=np.float32)
    costs = 2 * rng.random((labels, len(neighbours)), dtype=np.float32)
    return values, costs, neighbours


def naive_energy(
    values: Floats, costs: Floats, neighbours: Integers, chosen: Integers, potts: float
) -> float:
    total = 0.0
    for pixel, label in enumerate(chosen):
        total += costs[label, pixel]
        for other in neighbours[pixel, :2]:
            if other >= 0 and chosen[other] != label:
                seam = values[label] - values[chosen[other]]
                total += np.linalg.norm(seam[pixel]) + np.linalg.norm(seam[other]) + potts
    return float(total)


def test_the_energy_is_that_of_a_plain_loop() -> None:
    values, costs, neighbours = problem(0, 5, (6, 7))
    chosen = np.random.default_rng(1).integers(5, size=42).astype(np.int32)
    expected = naive_energy(values, costs, neighbours, chosen, 0.1)
    assert energy(values, costs, neighbours, chosen, 0.1) == pytest.approx(expected, abs=0.2)


@pytest.mark.parametrize("seed", range(6))
def test_two_candidates_are_chosen_as_well_as_can_be(seed: int) -> None:
    values, costs, neighbours = problem(seed, 2, (3, 4))
    chosen = choose(values, costs, neighbours, potts=0.05)
    least = min(
        energy(values, costs, neighbours, np.array(labels, np.int32), 0.05)
        for labels in product(range(2), repeat=12)
    )
    assert energy(values, costs, neighbours, chosen, 0.05) == pytest.approx(least)


@pytest.mark.parametrize("seed", range(4))
def test_three_candidates_are_chosen_nearly_as_well(seed: int) -> None:
    values, costs, neighbours = problem(seed, 3, (2, 4))
    chosen = choose(values, costs, neighbours)
    least = min(
        energy(values, costs, neighbours, np.array(labels, np.int32))
        for labels in product(range(3), repeat=8)
    )
    assert energy(values, costs, neighbours, chosen) <= 1.05 * least


def test_no_choice_is_worse_than_the_one_to_begin_with() -> None:
    values, costs, neighbours = problem(7, 6, (12, 9))
    start = np.random.default_rng(0).integers(6, size=108).astype(np.int32)
    before = energy(values, costs, neighbours, start)
    kept = start.copy()
    chosen = choose(values, costs, neighbours, start=start)
    assert energy(values, costs, neighbours, chosen) < before
    assert (start == kept).all()


def test_what_is_forbidden_is_not_chosen() -> None:
    values, costs, neighbours = problem(3, 3, (8, 8))
    costs[0, ::2] = FORBIDDEN
    costs[1, 1::2] = FORBIDDEN
    chosen = choose(values, costs, neighbours)
    assert (costs[chosen, np.arange(64)] < FORBIDDEN).all()


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("constant", [True, False])
def test_two_choices_are_fused(seed: int, constant: bool) -> None:
    values, costs, neighbours = problem(seed, 4, (3, 4))
    values /= 16  # so that mixtures are worth their seams
    rng = np.random.default_rng(seed)
    first, second = (rng.integers(4, size=12).astype(np.int32) for _ in range(2))
    if constant:
        second[:] = 1
    fused = fuse(values, costs, neighbours, first, second, potts=0.05)
    assert ((fused == first) | (fused == second)).all()
    found = energy(values, costs, neighbours, fused, 0.05)
    before = [energy(values, costs, neighbours, choice, 0.05) for choice in (first, second)]
    assert found < min(before)
    if constant:  # as well as can be; else what changing one side alone costs is cut off at 0
        mixtures = (np.where(take, first, second) for take in product((False, True), repeat=12))
        least = min(energy(values, costs, neighbours, mixture, 0.05) for mixture in mixtures)
        assert found == pytest.approx(least)


def test_each_choice_gives_the_half_that_is_right() -> None:
    neighbours = neighbours_of(np.ones((4, 10), bool))
    left = np.tile(np.arange(10) < 5, 4)
    costs = np.stack([np.where(left, 0, 1), np.where(left, 1, 0), np.full(40, 0.9)])
    values = np.zeros((3, 40, 3), np.float32)
    first = np.where(left, 0, 2).astype(np.int32)
    second = np.where(left, 2, 1).astype(np.int32)
    fused = fuse(values, costs.astype(np.float32), neighbours, first, second)
    assert fused.tolist() == np.where(left, 0, 1).tolist()
