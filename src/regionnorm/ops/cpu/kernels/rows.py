"""Channels-last features: region normalisation, a scale and a shift for each region and channel.

Here a pixel's channels lie side by side, so that the innermost loop runs over them, and a task is
a block of ``CHUNK`` pixels of a sample. Statistics need a pass of their own over all blocks. Sums
of blocks are ``[N, blocks, K, 2, C]`` in ``SCRATCH``. Later passes take the blocks from the last
to the first: what was read last is still in the cache. They find the coefficients ready in
``STATS`` [N, K, 3, C]: mean, slope and intercept.
"""

from __future__ import annotations

from typing import Any

from regionnorm.ops.cpu.kernels.language import (
    CHANNELS,
    CHUNK,
    FIRST,
    FLOOR,
    GRAD,
    GROUP,
    LABEL_STEP,
    LABELS,
    LENGTH,
    OUT,
    REGIONS,
    SAMPLES,
    SCRATCH,
    STATS,
    STEP,
    SUMS,
    TASKS,
    WEIGHT,
    X,
    as_float,
    block_of,
    f32,
    f64,
    fixed,
    gate,
    i64,
    jit,
    kernel,
    load,
    plus,
    pointer,
    pointer_to,
    store,
    u8,
)
from regionnorm.ops.cpu.kernels.statistics import write_statistics

__all__ = [
    "region_of",
    "rows_combine",
    "rows_forward",
    "rows_gradient",
    "rows_moments",
    "rows_pilot",
    "rows_statistics",
    "rows_sums",
]


PILOTS = 32  # pixels of a sample that make the rough mean from which deviations are taken


@jit
def region_of(slots: Any, labels: Any, at: Any) -> Any:
    """Label of a pixel, kept in range whatever the map holds."""
    return min(i64(fixed(labels, at)), load(slots, REGIONS) - 1)


@kernel
def rows_pilot(arguments: Any, slots: Any, task: Any) -> None:
    """Rough mean of every region in ``SUMS`` [N, K, C] and its size in ``WEIGHT`` [N, K]."""
    x, labels = pointer(arguments, load(slots, X)), pointer_to(u8, load(slots, LABELS))
    channels, length, regions = load(slots, CHANNELS), load(slots, LENGTH), load(slots, REGIONS)
    sample = task
    rough = pointer_to(f32, load(slots, SUMS) + sample * regions * channels * 4)
    counts = pointer_to(f32, load(slots, WEIGHT) + sample * regions * 4)
    offset, start = sample * load(slots, LABEL_STEP), sample * length * channels
    for i in range(regions * channels):
        store(rough, i, f32(0))
    step = max(length // PILOTS, 1)
    for region in range(regions):
        taken = count = f32(0)
        for i in range(length):
            count = plus(count, f32(1) if fixed(labels, offset + i) == region else f32(0))
        if count == 0:
            store(counts, region, count)
            continue
        for i in range(0, length, step):
            if fixed(labels, offset + i) == region:
                taken += f32(1)
                for c in range(channels):
                    value = load(rough, region * channels + c)
                    value += fixed(x, start + i * channels + c)
                    store(rough, region * channels + c, value)
        if taken == 0:
            i = 0
            while fixed(labels, offset + i) != region:
                i += 1
            taken = f32(1)
            for c in range(channels):
                store(rough, region * channels + c, fixed(x, start + i * channels + c))
        for c in range(channels):
            at = region * channels + c
            store(rough, at, load(rough, at) / taken)
        store(counts, region, count)


@kernel
def rows_moments(arguments: Any, slots: Any, task: Any) -> None:
    """Sums over blocks of x - rough mean and of its square."""
    x, labels = pointer(arguments, load(slots, X)), pointer_to(u8, load(slots, LABELS))
    channels, length, regions = load(slots, CHANNELS), load(slots, LENGTH), load(slots, REGIONS)
    sample, begin, end = block_of(slots, task)
    rough = pointer_to(f32, load(slots, SUMS) + sample * regions * channels * 4)
    sums = pointer_to(f32, load(slots, SCRATCH) + task * regions * 2 * channels * 4)
    offset = sample * load(slots, LABEL_STEP)
    for i in range(regions * 2 * channels):
        store(sums, i, f32(0))
    for i in range(begin, end):
        region = region_of(slots, labels, offset + i)
        start, at = (sample * length + i) * channels, region * 2 * channels
        for c in range(channels):
            value = fixed(x, start + c) - fixed(rough, region * channels + c)
            store(sums, at + c, load(sums, at + c) + value)
            square = load(sums, at + channels + c) + value * value
            store(sums, at + channels + c, square)


@kernel
def rows_statistics(arguments: Any, slots: Any, task: Any) -> None:
    """Combine blocks to the statistics of groups, ``STATS`` [4, N, K, C]; a task is a group."""
    channels, length, regions = load(slots, CHANNELS), load(slots, LENGTH), load(slots, REGIONS)
    chunk = load(slots, CHUNK)
    blocks = (length + chunk - 1) // chunk
    counts, rough = pointer_to(f32, load(slots, WEIGHT)), pointer_to(f32, load(slots, SUMS))
    sums = pointer_to(f32, load(slots, SCRATCH))
    for region in range(regions):
        count = mean = deviations = 0.0
        for member in range(load(slots, GROUP)):
            plane = task * load(slots, FIRST) + member * load(slots, STEP)
            sample, channel = plane // channels, plane % channels
            size = f64(load(counts, sample * regions + region))
            total = squares = 0.0
            for block in range(blocks):
                at = ((sample * blocks + block) * regions + region) * 2 * channels + channel
                total += f64(load(sums, at))
                squares += f64(load(sums, at + channels))
            if size > 0:
                offset = total / size
                shift = f64(load(rough, (sample * regions + region) * channels + channel))
                delta = shift + offset - mean
                share = size / (count + size)
                deviations += max(squares - total * offset, 0.0)
                deviations += delta * delta * count * share
                mean += delta * share
                count += size
        for member in range(load(slots, GROUP)):
            plane = task * load(slots, FIRST) + member * load(slots, STEP)
            write_statistics(slots, plane, region, count, mean, deviations)


@kernel
def rows_forward(arguments: Any, slots: Any, task: Any) -> None:
    """Result of ``region_norm``."""
    x, y = pointer(arguments, load(slots, X)), pointer(arguments, load(slots, OUT))
    labels, table = pointer_to(u8, load(slots, LABELS)), pointer_to(f32, load(slots, STATS))
    channels, length = load(slots, CHANNELS), load(slots, LENGTH)
    floor = f32(as_float(load(slots, FLOOR)))
    sample, begin, end = block_of(slots, load(slots, TASKS) - 1 - task)
    offset = sample * load(slots, LABEL_STEP)
    for i in range(begin, end):
        start = (sample * length + i) * channels
        region = region_of(slots, labels, offset + i)
        at = (sample * load(slots, REGIONS) + region) * 3 * channels
        for c in range(channels):
            value = fixed(x, start + c) - fixed(table, at + c)
            value *= fixed(table, at + channels + c)
            value += fixed(table, at + 2 * channels + c)
            store(y, start + c, floor if value < floor else value)


@kernel
def rows_sums(arguments: Any, slots: Any, task: Any) -> None:
    """Sums over blocks of g and of g * (x - mean), with g gated by the ReLU."""
    x, grad = pointer(arguments, load(slots, X)), pointer(arguments, load(slots, GRAD))
    labels, table = pointer_to(u8, load(slots, LABELS)), pointer_to(f32, load(slots, STATS))
    channels, length, regions = load(slots, CHANNELS), load(slots, LENGTH), load(slots, REGIONS)
    floor = f32(as_float(load(slots, FLOOR)))
    sample, begin, end = block_of(slots, task)
    sums = pointer_to(f32, load(slots, SCRATCH) + task * regions * 2 * channels * 4)
    offset = sample * load(slots, LABEL_STEP)
    for i in range(regions * 2 * channels):
        store(sums, i, f32(0))
    for i in range(begin, end):
        start = (sample * length + i) * channels
        region = region_of(slots, labels, offset + i)
        at, into = (sample * regions + region) * 3 * channels, region * 2 * channels
        for c in range(channels):
            value = fixed(x, start + c) - fixed(table, at + c)
            out = value * fixed(table, at + channels + c)
            out += fixed(table, at + 2 * channels + c)
            g = gate(fixed(grad, start + c), out, floor)
            store(sums, into + c, load(sums, into + c) + g)
            product = load(sums, into + channels + c) + g * value
            store(sums, into + channels + c, product)


@kernel
def rows_combine(arguments: Any, slots: Any, task: Any) -> None:
    """Combine the sums of blocks; a task is a group.

    ``SUMS`` [2, N, K, C] gets the sums of g * xhat and of g, ``GRAD`` [N, K, 2, C] the p and q of
    the gradient ``slope * g + p * (x - mean) + q``.
    """
    channels, length, regions = load(slots, CHANNELS), load(slots, LENGTH), load(slots, REGIONS)
    blocks = (length + load(slots, CHUNK) - 1) // load(slots, CHUNK)
    parts, sums = pointer_to(f32, load(slots, SCRATCH)), pointer_to(f32, load(slots, SUMS))
    stats, table = pointer_to(f32, load(slots, STATS)), pointer_to(f32, load(slots, GRAD))
    weights = pointer_to(f32, load(slots, WEIGHT))
    stride = load(slots, SAMPLES) * channels * regions
    for region in range(regions):
        group_total = group_dot = 0.0
        for member in range(load(slots, GROUP)):
            plane = task * load(slots, FIRST) + member * load(slots, STEP)
            sample, channel = plane // channels, plane % channels
            total = dot = 0.0
            for block in range(blocks):
                at = ((sample * blocks + block) * regions + region) * 2 * channels + channel
                total += f64(load(parts, at))
                dot += f64(load(parts, at + channels))
            at = (sample * regions + region) * channels + channel
            dot = dot - f64(load(stats, at + stride)) * total
            dot *= f64(load(stats, at + 2 * stride))
            store(sums, at, f32(dot))
            store(sums, at + stride, f32(total))
            weight = 1.0
            if load(slots, WEIGHT) != 0:
                weight = f64(load(weights, region * channels + channel))
            group_total += weight * total
            group_dot += weight * dot
        for member in range(load(slots, GROUP)):
            plane = task * load(slots, FIRST) + member * load(slots, STEP)
            sample, channel = plane // channels, plane % channels
            at = (sample * regions + region) * channels + channel
            inverse = f64(load(stats, at + 2 * stride))
            count = max(f64(load(stats, at + 3 * stride)), 1.0)
            p = -group_dot / count * inverse * inverse
            q = -group_total / count * inverse - p * f64(load(stats, at + stride))
            into = (sample * regions + region) * 2 * channels + channel
            store(table, into, f32(p))
            store(table, into + channels, f32(q))


@kernel
def rows_gradient(arguments: Any, slots: Any, task: Any) -> None:
    """Gradient of x; ``SUMS`` is the table of p and q."""
    x, grad = pointer(arguments, load(slots, X)), pointer(arguments, load(slots, GRAD))
    out = pointer(arguments, load(slots, OUT))
    labels, table = pointer_to(u8, load(slots, LABELS)), pointer_to(f32, load(slots, STATS))
    rest = pointer_to(f32, load(slots, SUMS))
    channels, length = load(slots, CHANNELS), load(slots, LENGTH)
    floor = f32(as_float(load(slots, FLOOR)))
    sample, begin, end = block_of(slots, load(slots, TASKS) - 1 - task)
    offset = sample * load(slots, LABEL_STEP)
    for i in range(begin, end):
        start = (sample * length + i) * channels
        region = region_of(slots, labels, offset + i)
        row = sample * load(slots, REGIONS) + region
        at, pq = row * 3 * channels, row * 2 * channels
        for c in range(channels):
            value = fixed(x, start + c) - fixed(table, at + c)
            slope = fixed(table, at + channels + c)
            result = value * slope + fixed(table, at + 2 * channels + c)
            g = gate(fixed(grad, start + c), result, floor)
            tail = value * fixed(rest, pq + c) + fixed(rest, pq + channels + c)
            store(out, start + c, g * slope + tail)
