"""The minimum cut against SciPy's maximum flow and against every cut there is."""

from __future__ import annotations

from itertools import product

import numpy as np
import numpy.typing as npt
import pytest

pytest.importorskip("numba")

from regionnorm.filling.completion.maxflow import minimum_cut, neighbours_of

Integers = npt.NDArray[np.int32]


def problem(rng: np.random.Generator, place: npt.NDArray[np.bool_]) -> tuple[Integers, ...]:
    neighbours = neighbours_of(place)
    capacity = rng.integers(0, 30, neighbours.shape).astype(np.int32)
    capacity[rng.random(capacity.shape) < 0.2] = 0
    capacity[neighbours < 0] = 0
    terminal = rng.integers(-60, 60, len(neighbours)).astype(np.int32)
    return neighbours, capacity, terminal


def cost(neighbours: Integers, capacity: Integers, terminal: Integers, sink: list[bool]) -> int:
    """What a cut cuts: from the source's side to the sink's."""
    total = 0
    for node, far in enumerate(sink):
        total += max(int(terminal[node]), 0) if far else max(-int(terminal[node]), 0)
        for way, other in enumerate(neighbours[node]):
            if other >= 0 and not far and sink[other]:
                total += int(capacity[node, way])
    return total


def test_neighbours_are_numbered_row_by_row() -> None:
    place = np.array([[1, 1, 0], [0, 1, 1]], bool)
    expected = [[1, -1, -1, -1], [-1, 2, 0, -1], [3, -1, -1, 1], [-1, -1, 2, -1]]
    assert neighbours_of(place).tolist() == expected


@pytest.mark.parametrize("seed", range(8))
def test_no_cut_of_a_tiny_grid_is_cheaper(seed: int) -> None:
    rng = np.random.default_rng(seed)
    neighbours, capacity, terminal = problem(rng, np.ones((3, 3), bool))
    flow, sink = minimum_cut(neighbours, capacity.copy(), terminal.copy())
    least = min(
        cost(neighbours, capacity, terminal, list(sides))
        for sides in product([False, True], repeat=9)
    )
    assert flow == least == cost(neighbours, capacity, terminal, sink.tolist())


@pytest.mark.parametrize("seed", range(4))
def test_the_flow_is_scipys(seed: int) -> None:
    sparse = pytest.importorskip("scipy.sparse")
    graph = pytest.importorskip("scipy.sparse.csgraph")
    rng = np.random.default_rng(seed)
    neighbours, capacity, terminal = problem(rng, rng.random((23, 31)) < 0.85)
    count = len(terminal)
    node, way = np.nonzero(neighbours >= 0)
    fed, drained = np.flatnonzero(terminal > 0), np.flatnonzero(terminal < 0)
    start = np.concatenate([node, np.full(len(fed), count), drained])
    end = np.concatenate([neighbours[node, way], fed, np.full(len(drained), count + 1)])
    room = np.concatenate([capacity[node, way], terminal[fed], -terminal[drained]])
    matrix = sparse.csr_array((room, (start, end)), shape=(count + 2, count + 2))
    expected = graph.maximum_flow(matrix.astype(np.int32), count, count + 1).flow_value
    flow, sink = minimum_cut(neighbours, capacity.copy(), terminal.copy())
    assert flow == expected == cost(neighbours, capacity, terminal, sink.tolist())


def test_a_graph_without_terminals_has_no_flow() -> None:
    neighbours = neighbours_of(np.ones((2, 2), bool))
    flow, sink = minimum_cut(neighbours, np.ones((4, 4), np.int32), np.zeros(4, np.int32))
    assert flow == 0
    assert not sink.any()
