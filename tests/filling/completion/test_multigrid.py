"""Multigrid against a sparse solver of SciPy's."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("numba")

from regionnorm.filling.completion.multigrid import Laplace, solve


def problem(rng: np.random.Generator, height: int, width: int) -> Laplace:
    """A ragged hole whose border is anchored, with uneven weights."""
    hole = np.zeros((height, width), bool)
    hole[1:-1, 1:-1] = True
    hole[height // 3 : height // 2, : width // 2] = False
    weight = 0.5 + rng.random((height, width), dtype=np.float32)
    right, below, anchor = (np.zeros((height, width), np.float32) for _ in range(3))
    right[:, :-1] = weight[:, :-1] * (hole[:, :-1] & hole[:, 1:])
    below[:-1] = weight[:-1] * (hole[:-1] & hole[1:])
    for axis, shift in ((0, 1), (0, -1), (1, 1), (1, -1)):
        anchor += hole & ~np.roll(hole, shift, axis)
    return Laplace(right, below, anchor)


@pytest.mark.parametrize("shape", [(3, 3), (7, 20), (64, 64), (61, 45)])
def test_the_solution_is_that_of_a_sparse_solver(shape: tuple[int, int]) -> None:
    sparse = pytest.importorskip("scipy.sparse")
    linalg = pytest.importorskip("scipy.sparse.linalg")
    rng = np.random.default_rng(0)
    operator = problem(rng, *shape)
    target = rng.standard_normal(shape).astype(np.float32)
    inside = (operator.anchor + operator.right + operator.below) > 0
    inside[:, 1:] |= operator.right[:, :-1] > 0
    inside[1:] |= operator.below[:-1] > 0
    target[~inside] = 0
    count = target.size
    number = np.arange(count).reshape(shape)
    matrix = sparse.lil_array((count, count))
    for weights, step in ((operator.right, 1), (operator.below, shape[1])):
        for node in number[weights > 0]:
            weight = weights.flat[node]
            matrix[node, node] += weight
            matrix[node + step, node + step] += weight
            matrix[node, node + step] -= weight
            matrix[node + step, node] -= weight
    matrix += sparse.diags_array(np.where(inside, operator.anchor, 1).ravel().astype(float))
    expected = linalg.spsolve(matrix.tocsc(), target.ravel().astype(float)).reshape(shape)
    found = solve(operator, target, tolerance=1e-6)
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())


def test_a_large_hole_takes_few_iterations() -> None:
    operator = problem(np.random.default_rng(0), 200, 300)
    target = np.zeros((200, 300), np.float32)
    target[20, 30], target[150, 200] = 1, -1
    few, many = (solve(operator, target, tolerance=0, most=most) for most in (15, 60))
    np.testing.assert_allclose(few, many, atol=2e-3 * np.abs(many).max())


def test_nothing_to_solve_is_nothing() -> None:
    nothing = np.zeros((5, 6), np.float32)
    assert (solve(Laplace(nothing, nothing, nothing), nothing) == 0).all()
