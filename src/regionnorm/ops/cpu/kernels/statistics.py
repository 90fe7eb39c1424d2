"""Statistics of contiguous features, a group of planes at a time."""

from __future__ import annotations

import math
from typing import Any

from regionnorm.ops.cpu.kernels.language import (
    CHANNELS,
    EPS,
    FIRST,
    GROUP,
    LABEL_STEP,
    LABELS,
    LENGTH,
    REGIONS,
    SAMPLES,
    STATS,
    STEP,
    as_float,
    f32,
    f64,
    jit,
    load,
    plus,
    pointer_to,
    store,
    u8,
)

__all__ = ["BLOCK", "group_statistics", "write_statistics"]


BLOCK = 4096  # pixels of a plane taken at a time: they stay in the first-level cache
PILOT, ENOUGH = 256, 8  # pixels looked at for a rough mean, and how many of a region will do


@jit
def merge(moments: Any, at: Any, count: Any, shift: Any, total: Any, squares: Any) -> None:
    """Add a block to (count, mean, sum of squared deviations), all in float64.

    ``total`` and ``squares`` are sums over the block of ``x - shift`` and of its square.
    """
    if count > 0:
        before = load(moments, at)
        mean = load(moments, at + 1)
        block = f64(count)
        offset = f64(total) / block
        deviations = max(f64(squares) - f64(total) * offset, 0.0)
        delta = f64(shift) + offset - mean
        share = block / (before + block)
        store(moments, at, before + block)
        store(moments, at + 1, mean + delta * share)
        between = delta * delta * before * share
        store(moments, at + 2, load(moments, at + 2) + deviations + between)


@jit
def block_means(x: Any, start: Any, labels: Any, offset: Any, length: Any) -> Any:
    """Means of the two regions of a block, in float32: good enough to shift by."""
    total0 = total1 = hole = f32(0)
    for i in range(length):
        value = load(x, start + i)
        inside = load(labels, offset + i) != 0
        total0 = plus(total0, f32(0) if inside else value)
        total1 = plus(total1, value if inside else f32(0))
        hole = plus(hole, f32(1) if inside else f32(0))
    known = f32(length) - hole
    return total0 / max(known, f32(1)), total1 / max(hole, f32(1)), known, hole


@jit
def rough_means(x: Any, start: Any, labels: Any, offset: Any, length: Any) -> Any:
    """As ``block_means``, from the first pixels alone where they show enough of both regions."""
    size = min(length, PILOT)
    rough0, rough1, known, hole = block_means(x, start, labels, offset, size)
    if size < length and (known < ENOUGH or hole < ENOUGH):
        rough0, rough1, known, hole = block_means(x, start, labels, offset, length)
    return rough0, rough1


@jit
def pair_moments(x: Any, start: Any, labels: Any, offset: Any, length: Any, moments: Any) -> None:
    """Moments of the regions 0 and 1 of a plane, added to ``moments``.

    Deviations are taken from the region's running mean: the block's own rough mean when there is
    none yet. So squares never cancel, whatever the size of the mean.
    """
    for begin in range(0, length, BLOCK):
        size = min(BLOCK, length - begin)
        shift0, shift1 = f32(load(moments, 1)), f32(load(moments, 4))
        if load(moments, 0) == 0 or load(moments, 3) == 0:
            rough0, rough1 = rough_means(x, start + begin, labels, offset + begin, size)
            shift0 = rough0 if load(moments, 0) == 0 else shift0
            shift1 = rough1 if load(moments, 3) == 0 else shift1
        total0 = total1 = squares0 = squares1 = hole = f32(0)
        for i in range(begin, begin + size):
            inside = load(labels, offset + i) != 0
            value = load(x, start + i) - (shift1 if inside else shift0)
            known_value = f32(0) if inside else value
            hole_value = value if inside else f32(0)
            total0 = plus(total0, known_value)
            total1 = plus(total1, hole_value)
            squares0 = plus(squares0, known_value * known_value)
            squares1 = plus(squares1, hole_value * hole_value)
            hole = plus(hole, f32(1) if inside else f32(0))
        merge(moments, 0, f32(size) - hole, shift0, total0, squares0)
        merge(moments, 3, hole, shift1, total1, squares1)


@jit
def many_moments(
    x: Any,
    start: Any,
    labels: Any,
    offset: Any,
    length: Any,
    moments: Any,
    regions: Any,
) -> None:
    """Moments of any number of regions of a plane: one pass over a cached block for each."""
    for begin in range(0, length, BLOCK):
        size = min(BLOCK, length - begin)
        for region in range(regions):
            rough = count = f32(0)
            for i in range(begin, begin + size):
                inside = load(labels, offset + i) == region
                rough = plus(rough, load(x, start + i) if inside else f32(0))
                count = plus(count, f32(1) if inside else f32(0))
            if count > 0:
                shift = rough / count
                if load(moments, 3 * region) > 0:
                    shift = f32(load(moments, 3 * region + 1))
                total = squares = f32(0)
                for i in range(begin, begin + size):
                    inside = load(labels, offset + i) == region
                    value = load(x, start + i) - shift if inside else f32(0)
                    total = plus(total, value)
                    squares = plus(squares, value * value)
                merge(moments, 3 * region, count, shift, total, squares)


@jit
def group_statistics(slots: Any, x: Any, task: Any, moments: Any) -> None:
    """Statistics of the planes of a task, written for each plane and region to ``STATS``.

    Kept are the mean as the sum of two float32 (one alone would be off by half a standard deviation
    at a mean of 1e4 and a deviation of 1e-3), 1 / std and the number of values: ``[4, N, K, C]``.
    """
    channels, length, regions = (
        load(slots, CHANNELS),
        load(slots, LENGTH),
        load(slots, REGIONS),
    )
    labels = pointer_to(u8, load(slots, LABELS))
    for i in range(3 * regions):
        store(moments, i, 0.0)
    first = task * load(slots, FIRST)
    for member in range(load(slots, GROUP)):
        plane = first + member * load(slots, STEP)
        offset = plane // channels * load(slots, LABEL_STEP)
        if regions == 2:
            pair_moments(x, plane * length, labels, offset, length, moments)
        else:
            many_moments(x, plane * length, labels, offset, length, moments, regions)
    for member in range(load(slots, GROUP)):
        plane = first + member * load(slots, STEP)
        for region in range(regions):
            count, mean = load(moments, 3 * region), load(moments, 3 * region + 1)
            write_statistics(slots, plane, region, count, mean, load(moments, 3 * region + 2))


@jit
def write_statistics(
    slots: Any, plane: Any, region: Any, count: Any, mean: Any, deviations: Any
) -> None:
    """Store the statistics of a region of a plane in ``STATS``."""
    channels, regions = load(slots, CHANNELS), load(slots, REGIONS)
    stats = pointer_to(f32, load(slots, STATS))
    stride = load(slots, SAMPLES) * channels * regions
    variance = deviations / max(count, 1.0)
    at = (plane // channels * regions + region) * channels + plane % channels
    store(stats, at, f32(mean))
    store(stats, at + stride, f32(mean - f64(f32(mean))))
    store(stats, at + 2 * stride, f32(1.0 / math.sqrt(variance + as_float(load(slots, EPS)))))
    store(stats, at + 3 * stride, f32(count))
