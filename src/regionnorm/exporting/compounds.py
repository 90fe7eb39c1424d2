"""Our own operations in ONNX: region norms, the fill by diffusion, noise, attention.

Written anew rather than watched step by step: a matrix product with the regions' indicators sums
over them, which takes a third of the time of choosing each region's pixels one after the other.
Pictures come one at a time, so that statistics over the batch are those of the picture.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from regionnorm.exporting.graph import Graph
from regionnorm.exporting.tracing import Traced, name_of, operators
from regionnorm.ops.region_norm import parse_stats

__all__ = ["LARGEST_SIDE"]

_LEVELS = 13
LARGEST_SIDE = 2**_LEVELS
"""Pixels of a side up to which the fill by diffusion reaches the middle of every hole."""

# --- region norms ---------------------------------------------------------------------------------


@operators("region_norm")
def _region_norm(
    graph: Graph,
    result: Tensor,
    x: Traced,
    mask: Any,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    num_regions: int | None = None,
    stats: str = "instance",
    eps: float = 1e-5,
    activation: str | None = None,
) -> str:
    if mask is None or not (mask.dtype == torch.bool or mask.is_floating_point()):
        raise ValueError("only region norms of two regions, known and hole, are exported")
    regions = _indicators(graph, mask)
    centred, scale = _normalised(graph, x, regions, stats, eps)
    if weight is not None:
        scale = graph.node("Mul", scale, graph.constant(weight.detach().numpy().T))
    value = graph.node("Mul", centred, graph.node("MatMul", scale, regions))
    if bias is not None:
        shift = graph.constant(bias.detach().numpy().T)
        value = graph.node("Add", value, graph.node("MatMul", shift, regions))
    return _finished(graph, value, x, activation)


@operators("learnable_region_norm")
def _learnable_region_norm(
    graph: Graph,
    result: Tensor,
    x: Traced,
    response_weight: Tensor,
    affine_weight: Tensor,
    affine_bias: Tensor,
    *,
    threshold: float = 0.8,
    stats: str = "instance",
    eps: float = 1e-5,
    activation: str | None = None,
) -> str:
    # On flat features both are several times faster than along the channels' own axis.
    channels, half = x.shape[1], response_weight.shape[-1] // 2
    flat = graph.node("Reshape", x.symbol, graph.ints(channels, -1))
    share = graph.constant(np.full((1, channels), 1 / channels, np.float32))
    mean, most = graph.node("MatMul", share, flat), graph.node("ReduceMax", flat, graph.ints(0))
    size = graph.node("Concat", graph.ints(1, 2), _sides(graph, x.symbol), axis=0)
    summary = graph.node("Reshape", graph.node("Concat", mean, most, axis=0), size)
    weights = [name_of(graph, part) for part in (response_weight, affine_weight, affine_bias)]
    response = graph.node("Sigmoid", graph.node("Conv", summary, weights[0], pads=[half] * 4))
    found = graph.node("Greater", response, graph.number(threshold))
    regions = _two(graph, graph.node("Reshape", found, graph.ints(1, -1)))
    maps = graph.node("Conv", response, *weights[1:], pads=[half] * 4)
    flat = graph.node("Reshape", maps, graph.ints(2, -1))
    gamma, beta = graph.nodes("Split", flat, graph.ints(1, 1), outputs=2, axis=0)
    centred, scale = _normalised(graph, x, regions, stats, eps)
    gain = graph.node("Mul", regions, graph.node("Add", gamma, graph.number(1)))
    value = graph.node("Mul", centred, graph.node("MatMul", scale, gain))
    return _finished(graph, graph.node("Add", value, beta), x, activation)


def _sides(graph: Graph, x: str) -> str:
    """Height and width."""
    return graph.node("Shape", x, start=2)


def _indicators(graph: Graph, mask: Any) -> str:
    """Of two regions ``[2, L]``, 0/1, the known part first."""
    flat = graph.node("Reshape", name_of(graph, mask), graph.ints(1, -1))
    if mask.dtype != torch.bool:
        flat = graph.node("Greater", flat, graph.number(0.5))
    return _two(graph, flat)


def _two(graph: Graph, second: str) -> str:
    inside = [graph.cast(part, np.float32) for part in (graph.node("Not", second), second)]
    return graph.node("Concat", *inside, axis=0)


def _normalised(graph: Graph, x: Traced, regions: str, stats: str, eps: float) -> tuple[str, str]:
    """Features less their region's mean ``[C, L]``, and one over its deviation ``[C, K]``."""
    channels = x.shape[1]
    flat = graph.node("Reshape", x.symbol, graph.ints(channels, -1))
    count = graph.node("ReduceSum", regions, graph.ints(1), keepdims=0)
    count = graph.node("Max", count, graph.number(1))

    def mean(values: str) -> str:
        sums = graph.node("Gemm", values, regions, transB=1)
        return _shared(graph, graph.node("Div", sums, count), channels, stats)

    centred = graph.node("Sub", flat, graph.node("MatMul", mean(flat), regions))
    centred = graph.node("Sub", centred, graph.node("MatMul", mean(centred), regions))
    variance = mean(graph.node("Mul", centred, centred))
    deviation = graph.node("Sqrt", graph.node("Add", variance, graph.number(eps)))
    return centred, graph.node("Reciprocal", deviation)


def _shared(graph: Graph, means: str, channels: int, stats: str) -> str:
    """Means ``[C, K]`` of single channels as those of all channels that share statistics."""
    kind, groups = parse_stats(stats, channels)
    if kind in ("instance", "batch"):
        return means
    split = graph.node("Reshape", means, graph.ints(groups, channels // groups, -1))
    shared = graph.node("ReduceMean", split, graph.ints(1))
    spread = graph.node("Expand", shared, graph.ints(1, channels // groups, 1))
    return graph.node("Reshape", spread, graph.ints(channels, -1))


def _finished(graph: Graph, value: str, x: Traced, activation: str | None) -> str:
    if activation == "relu":
        value = graph.node("Relu", value)
    return graph.node("Reshape", value, graph.node("Shape", x.symbol))


# --- what is added before and inside -------------------------------------------------------------


@operators("push_pull")
def _push_pull(
    graph: Graph, result: Tensor, image: Traced, mask: Traced, *, smoothing: int = 4
) -> str:
    """Always as many levels: those beyond a single pixel change nothing."""
    hole = graph.node("Greater", mask.symbol, graph.number(0.5))
    weight = graph.cast(graph.node("Not", hole), np.float32)
    known = graph.node("Where", hole, graph.number(0), image.symbol)
    colour = graph.node("Transpose", known, perm=[1, 0, 2, 3])  # channels alike, as a batch
    levels = [(colour, weight)]
    for _ in range(_LEVELS):
        levels.append(_push(graph, *levels[-1]))
    colour, weight = levels.pop()
    gap = graph.node("Sub", graph.number(1), weight)
    filled = graph.node("Add", colour, graph.node("Mul", gap, graph.number(0.5)))
    for colour, weight in reversed(levels):
        filled = _pull(graph, filled, colour, weight, smoothing)
    return graph.node("Transpose", filled, perm=[1, 0, 2, 3])


def _push(graph: Graph, colour: str, weight: str) -> tuple[str, str]:
    odd = graph.node("Mod", _sides(graph, colour), graph.ints(2))
    amounts = graph.node("Concat", graph.ints(0, 0, 0, 0, 0, 0), odd, axis=0)
    colour, weight = (
        graph.node(
            "AveragePool", graph.node("Pad", part, amounts), kernel_shape=[2, 2], strides=[2, 2]
        )
        for part in (colour, weight)
    )
    present = graph.cast(graph.node("Greater", weight, graph.number(0)), np.float32)
    share = graph.node("Max", weight, graph.number(1e-3))
    return graph.node("Div", colour, share), present


def _pull(graph: Graph, coarse: str, colour: str, weight: str, smoothing: int) -> str:
    gap = graph.node("Sub", graph.number(1), weight)
    size = _sides(graph, colour)
    around = graph.node("Resize", coarse, "", graph.floats(1, 1, 2, 2), mode="linear")
    around = graph.node("Slice", around, graph.ints(0, 0), size, graph.ints(2, 3))
    filled = graph.node("Add", colour, graph.node("Mul", gap, around))
    cross = np.array([[0, 1, 0], [1, 0, 1], [0, 1, 0]], np.float32)[None, None] / 4
    for _ in range(smoothing):
        padded = graph.node("Pad", filled, graph.ints(0, 0, 1, 1, 0, 0, 1, 1), mode="edge")
        around = graph.node("Conv", padded, graph.constant(cross))
        filled = graph.node("Add", colour, graph.node("Mul", gap, around))
    return filled


@operators("add_noise")
def _add_noise(graph: Graph, result: Tensor, x: Traced, noise: Tensor, strength: Tensor) -> str:
    size, period = _sides(graph, x.symbol), noise.shape[-1]
    times = graph.node("Add", size, graph.ints(period - 1))
    times = graph.node("Div", times, graph.ints(period))
    times = graph.node("Concat", graph.ints(1, 1), times, axis=0)
    tiled = graph.node("Tile", graph.constant(noise.numpy()), times)
    tiled = graph.node("Slice", tiled, graph.ints(0, 0), size, graph.ints(2, 3))
    strengths = graph.constant(strength.detach().float().numpy()[:, None, None])
    return graph.node("Add", x.symbol, graph.node("Mul", tiled, strengths))


# --- contextual attention ------------------------------------------------------------------------


@operators("contextual_attention")
def _contextual_attention(
    graph: Graph,
    result: Tensor,
    foreground: Traced,
    background: Traced,
    mask: Traced,
    *,
    kernel_size: int = 3,
    rate: int = 2,
    scale: float = 10.0,
    fuse: bool = True,
    **_: Any,
) -> str:
    """All scores at once; sides are multiples of ``rate``."""
    half, channels = kernel_size // 2, background.shape[1]
    sampled = [_every(graph, part.symbol, rate) for part in (foreground, background, mask)]
    size = _sides(graph, sampled[0])
    flat = graph.ints(channels * kernel_size**2, -1)
    queries, keys = (
        graph.node("Reshape", _unfolded(graph, part, size, kernel_size, half, 1), flat)
        for part in sampled[:2]
    )
    length = graph.node("ReduceL2", keys, graph.ints(0))
    keys = graph.node("Div", keys, graph.node("Max", length, graph.number(1e-4)))
    scores = graph.node("MatMul", graph.node("Transpose", queries, perm=[1, 0]), keys)
    if fuse:
        scores = _fused(graph, scores, size)
    near = graph.node("MaxPool", sampled[2], kernel_shape=[kernel_size] * 2, pads=[half] * 4)
    near = graph.node("Reshape", near, graph.ints(1, -1))
    wide = {"kernel_shape": [2 * rate] * 2, "strides": [rate] * 2, "pads": [rate // 2] * 4}
    pasted = graph.node("Reshape", graph.node("MaxPool", mask.symbol, **wide), graph.ints(1, -1))
    near = graph.node("Max", near, pasted)
    usable = graph.cast(graph.node("Equal", near, graph.number(0)), np.float32)
    lowest = graph.number(float(np.finfo(np.float32).min))
    scores = graph.node("Mul", scores, graph.number(scale))
    scores = graph.node("Where", graph.cast(usable, np.bool_), scores, lowest)
    weights = graph.node("Mul", graph.node("Softmax", scores, axis=1), usable)
    patches = _unfolded(graph, background.symbol, size, 2 * rate, rate // 2, rate)
    patches = graph.node("Reshape", patches, graph.ints(channels * 4 * rate**2, -1))
    taken = graph.node("MatMul", patches, graph.node("Transpose", weights, perm=[1, 0]))
    pasted = graph.node(
        "Col2Im",
        graph.node("Unsqueeze", taken, graph.ints(0)),
        _sides(graph, background.symbol),
        graph.ints(2 * rate, 2 * rate),
        strides=[rate] * 2,
        pads=[rate // 2] * 4,
    )
    return graph.node("Div", pasted, graph.number(4))


def _every(graph: Graph, x: str, rate: int) -> str:
    most = np.iinfo(np.int64).max
    cuts = (graph.ints(0, 0), graph.ints(most, most), graph.ints(2, 3), graph.ints(rate, rate))
    return graph.node("Slice", x, *cuts)


def _unfolded(graph: Graph, x: str, size: str, kernel: int, padding: int, step: int) -> str:
    """Patches around every ``step``-th pixel, ``[1, C, kernel^2, h, w]``; ``size`` is h and w."""
    amounts = graph.ints(0, 0, padding, padding, 0, 0, padding, padding)
    padded, parts = graph.node("Pad", x, amounts), []
    span = graph.node("Mul", size, graph.ints(step))
    for row in range(kernel):
        for column in range(kernel):
            start = graph.ints(row, column)
            stop = graph.node("Add", start, span)
            part = graph.node(
                "Slice", padded, start, stop, graph.ints(2, 3), graph.ints(step, step)
            )
            parts.append(graph.node("Unsqueeze", part, graph.ints(2)))
    return graph.node("Concat", *parts, axis=2)


def _fused(graph: Graph, scores: str, size: str) -> str:
    """Sum the scores of pairs moved alike by up to one column, then by up to one row."""
    flat = graph.node("Shape", scores)
    scores = graph.node("Reshape", scores, graph.node("Concat", size, size, axis=0))
    for axes in ((1, 3), (0, 2)):
        moved = []
        for forward in (True, False):
            cut = (1, np.iinfo(np.int64).max) if forward else (0, -1)
            part = graph.node(
                "Slice", scores, graph.ints(cut[0], cut[0]), graph.ints(cut[1], cut[1]),
                graph.ints(*axes),
            )  # fmt: skip
            sides = [int(axis in axes) for axis in range(4)]
            amounts = [0] * 4 + sides if forward else sides + [0] * 4
            moved.append(graph.node("Pad", part, graph.ints(*amounts)))
        scores = graph.node("Add", graph.node("Add", scores, moved[0]), moved[1])
    return graph.node("Reshape", scores, flat)
