"""Canny's edges in ONNX, for EdgeConnect: the same pixels as scikit-image marks.

Sums are taken in float64 and rounded to float32 where scikit-image's are, because a mark hangs on
which of two neighbours is larger.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from torch import Tensor

from regionnorm.exporting.graph import Graph
from regionnorm.exporting.tracing import Traced, operators

__all__: list[str] = []

_LOW, _HIGH = 0.1, 0.2
_TRUNCATE = 4.0  # standard deviations of the blur's kernel
_STEPS = 8  # of growing along weak edges between two looks at whether anything still grows


@operators("canny_edges")
def _canny_edges(
    graph: Graph, result: Tensor, gray: Traced, hole: Traced, *, sigma: float = 2.0
) -> str:
    known = graph.node("LessOrEqual", hole.symbol, graph.number(0.5))
    share = graph.cast(known, np.float32)
    shown = graph.node("Where", known, gray.symbol, graph.number(0))
    weight = graph.node(
        "Add", _blur(graph, share, sigma), graph.number(float(np.finfo(np.float32).eps))
    )
    smooth = graph.node("Div", _blur(graph, shown, sigma), weight)
    down, right = (_sobel(graph, smooth, axis) for axis in (2, 3))
    squares = (graph.node("Mul", part, part) for part in (down, right))
    strength = graph.node("Sqrt", graph.node("Add", *squares))
    ridge = _on_ridge(graph, down, right, strength)
    # The photo's border counts as a hole's.
    outside = graph.node("Sub", graph.number(1), share)
    outside = graph.node("Pad", outside, _around(graph, 1), graph.number(1))
    near = graph.node("MaxPool", outside, kernel_shape=[3, 3])
    ridge = graph.node("And", ridge, graph.node("Less", near, graph.number(0.5)))
    weak, strong = (
        graph.cast(
            graph.node("And", ridge, graph.node("GreaterOrEqual", strength, graph.number(limit))),
            np.float32,
        )
        for limit in (_LOW, _HIGH)
    )
    return _grown(graph, strong, weak)


def _blur(graph: Graph, x: str, sigma: float) -> str:
    """Gaussian; beyond the border are zeros."""
    radius = int(_TRUNCATE * sigma + 0.5)
    taps = [math.exp(-0.5 * (step / sigma) ** 2) for step in range(radius + 1)]
    total = float(np.sum([*taps[:0:-1], *taps]))
    for axis in (2, 3):
        wide = graph.cast(x, np.float64)
        total_name = graph.node("Mul", wide, graph.number(taps[0] / total, np.float64))
        for step in range(radius, 0, -1):
            pair = graph.node("Add", *(_moved(graph, wide, axis, s) for s in (-step, step)))
            weighted = graph.node("Mul", pair, graph.number(taps[step] / total, np.float64))
            total_name = graph.node("Add", total_name, weighted)
        x = graph.cast(total_name, np.float32)
    return x


def _sobel(graph: Graph, x: str, axis: int) -> str:
    across = 5 - axis
    ahead, behind = (_moved(graph, x, axis, step, "edge") for step in (1, -1))
    slope = graph.node("Sub", ahead, behind)
    wide = graph.cast(slope, np.float64)
    sides = graph.node("Add", *(_moved(graph, wide, across, step, "edge") for step in (-1, 1)))
    middle = graph.node("Mul", wide, graph.number(2, np.float64))
    return graph.cast(graph.node("Add", middle, sides), np.float32)


def _on_ridge(graph: Graph, down: str, right: str, strength: str) -> str:
    """Where the strength is no less than along the gradient on either side, bool.

    Between the two neighbours that the gradient passes on a side, strength is interpolated.
    """
    steep, flat = (graph.node("Abs", part) for part in (down, right))
    upright = graph.node("Greater", steep, flat)
    larger, smaller = graph.node("Max", steep, flat), graph.node("Min", steep, flat)
    # Where there is no gradient at all there is no edge either, whatever the share.
    share = graph.node("Div", smaller, graph.node("Max", larger, graph.number(1e-30)))
    signs = graph.node("Mul", graph.node("Sign", down), graph.node("Sign", right))
    falling = graph.node("GreaterOrEqual", signs, graph.number(0))  # down and right alike

    def at(row: int, column: int) -> str:
        moved = strength
        for axis, step in ((2, row), (3, column)):
            moved = _moved(graph, moved, axis, step) if step else moved
        return moved

    ridge = ""
    for side in (1, -1):
        straight = graph.node("Where", upright, at(side, 0), at(0, side))
        # On the other diagonal, the side ahead is up for upright gradients and right for others.
        other = graph.node("Where", upright, at(side, -side), at(-side, side))
        slanted = graph.node("Where", falling, at(side, side), other)
        rest = graph.node("Sub", graph.number(1), share)
        between = graph.node(
            "Add", graph.node("Mul", slanted, share), graph.node("Mul", straight, rest)
        )
        higher = graph.node("LessOrEqual", between, strength)
        ridge = graph.node("And", ridge, higher) if ridge else higher
    return ridge


def _grown(graph: Graph, strong: str, weak: str) -> str:
    """Weak edges that hang together with a strong one."""
    start = len(graph)
    name = f"{strong}_edges"
    grown = name
    for _ in range(_STEPS):
        wider = graph.node("MaxPool", grown, kernel_shape=[3, 3], pads=[1] * 4)
        grown = graph.node("Mul", wider, weak)
    before, after = (graph.node("ReduceSum", part, keepdims=0) for part in (name, grown))
    more = graph.node("Less", before, after)
    shape: list[Any] = [1, 1, None, None]
    body = graph.body(
        start,
        "grow",
        [
            graph.info(f"{name}_turn", np.int64, []),
            graph.info(f"{name}_on", np.bool_, []),
            graph.info(name, np.float32, shape),
        ],
        [graph.info(more, np.bool_, []), graph.info(grown, np.float32, shape)],
    )
    return graph.node("Loop", "", graph.number(True, np.bool_), strong, body=body)


def _moved(graph: Graph, x: str, axis: int, step: int, mode: str = "constant") -> str:
    """``x[i + step]`` at i along an axis."""
    amounts = [0] * 8
    amounts[axis if step < 0 else 4 + axis] = abs(step)
    padded = graph.node("Pad", x, graph.ints(*amounts), mode=mode)
    most = np.iinfo(np.int64).max
    cut = (step, most) if step > 0 else (0, step)
    return graph.node("Slice", padded, graph.ints(cut[0]), graph.ints(cut[1]), graph.ints(axis))


def _around(graph: Graph, width: int) -> str:
    return graph.ints(0, 0, width, width, 0, 0, width, width)
