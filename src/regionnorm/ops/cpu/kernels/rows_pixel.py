"""Channels-last features: region normalisation, a scale and a shift for each pixel."""

from __future__ import annotations

from typing import Any

from regionnorm.ops.cpu.kernels.language import (
    BIAS,
    CHANNELS,
    FLOOR,
    GRAD,
    LABEL_STEP,
    LABELS,
    LENGTH,
    OUT,
    PIXEL_STEP,
    SCRATCH,
    STATS,
    SUMS,
    TASKS,
    WEIGHT,
    X,
    as_float,
    block_of,
    f32,
    fixed,
    gate,
    kernel,
    load,
    plus,
    pointer,
    pointer_to,
    store,
    u8,
)
from regionnorm.ops.cpu.kernels.rows import region_of

__all__ = ["rows_pixel_forward", "rows_pixel_gradient", "rows_pixel_sums"]


@kernel
def rows_pixel_forward(arguments: Any, slots: Any, task: Any) -> None:
    """Result of ``region_norm_per_pixel``."""
    x, y = pointer(arguments, load(slots, X)), pointer(arguments, load(slots, OUT))
    labels, table = pointer_to(u8, load(slots, LABELS)), pointer_to(f32, load(slots, STATS))
    scales, shifts = pointer_to(f32, load(slots, WEIGHT)), pointer_to(f32, load(slots, BIAS))
    channels, length = load(slots, CHANNELS), load(slots, LENGTH)
    floor = f32(as_float(load(slots, FLOOR)))
    sample, begin, end = block_of(slots, load(slots, TASKS) - 1 - task)
    offset, pixels = sample * load(slots, LABEL_STEP), sample * load(slots, PIXEL_STEP)
    for i in range(begin, end):
        start = (sample * length + i) * channels
        at = (sample * 2 + region_of(slots, labels, offset + i)) * 3 * channels
        scale, shift = fixed(scales, pixels + i), fixed(shifts, pixels + i)
        for c in range(channels):
            value = fixed(x, start + c) - fixed(table, at + c)
            value *= fixed(table, at + channels + c)
            value += fixed(table, at + 2 * channels + c)
            value = value * scale + shift
            store(y, start + c, floor if value < floor else value)


@kernel
def rows_pixel_sums(arguments: Any, slots: Any, task: Any) -> None:
    """As ``rows_sums`` with g * scale for g; gradients of scale and shift in ``OUT`` [N, 2, L]."""
    x, grad = pointer(arguments, load(slots, X)), pointer(arguments, load(slots, GRAD))
    maps = pointer_to(f32, load(slots, OUT))
    labels, table = pointer_to(u8, load(slots, LABELS)), pointer_to(f32, load(slots, STATS))
    scales, shifts = pointer_to(f32, load(slots, WEIGHT)), pointer_to(f32, load(slots, BIAS))
    channels, length = load(slots, CHANNELS), load(slots, LENGTH)
    floor = f32(as_float(load(slots, FLOOR)))
    sample, begin, end = block_of(slots, task)
    sums = pointer_to(f32, load(slots, SCRATCH) + task * 2 * 2 * channels * 4)
    offset, pixels = sample * load(slots, LABEL_STEP), sample * load(slots, PIXEL_STEP)
    for i in range(2 * 2 * channels):
        store(sums, i, f32(0))
    for i in range(begin, end):
        start = (sample * length + i) * channels
        region = region_of(slots, labels, offset + i)
        at, into = (sample * 2 + region) * 3 * channels, region * 2 * channels
        scale, shift = fixed(scales, pixels + i), fixed(shifts, pixels + i)
        of_scale = of_shift = f32(0)
        for c in range(channels):
            value = fixed(x, start + c) - fixed(table, at + c)
            normal = value * fixed(table, at + channels + c)
            normal += fixed(table, at + 2 * channels + c)
            g = gate(fixed(grad, start + c), normal * scale + shift, floor)
            of_scale, of_shift = plus(of_scale, g * normal), plus(of_shift, g)
            g *= scale
            store(sums, into + c, load(sums, into + c) + g)
            product = load(sums, into + channels + c) + g * value
            store(sums, into + channels + c, product)
        store(maps, sample * 2 * length + i, of_scale)
        store(maps, (sample * 2 + 1) * length + i, of_shift)


@kernel
def rows_pixel_gradient(arguments: Any, slots: Any, task: Any) -> None:
    """Gradient of x; ``SUMS`` is the table of p and q."""
    x, grad = pointer(arguments, load(slots, X)), pointer(arguments, load(slots, GRAD))
    out = pointer(arguments, load(slots, OUT))
    labels, table = pointer_to(u8, load(slots, LABELS)), pointer_to(f32, load(slots, STATS))
    scales, shifts = pointer_to(f32, load(slots, WEIGHT)), pointer_to(f32, load(slots, BIAS))
    rest = pointer_to(f32, load(slots, SUMS))
    channels, length = load(slots, CHANNELS), load(slots, LENGTH)
    floor = f32(as_float(load(slots, FLOOR)))
    sample, begin, end = block_of(slots, load(slots, TASKS) - 1 - task)
    offset, pixels = sample * load(slots, LABEL_STEP), sample * load(slots, PIXEL_STEP)
    for i in range(begin, end):
        start = (sample * length + i) * channels
        row = sample * 2 + region_of(slots, labels, offset + i)
        at, pq = row * 3 * channels, row * 2 * channels
        scale, shift = fixed(scales, pixels + i), fixed(shifts, pixels + i)
        for c in range(channels):
            value = fixed(x, start + c) - fixed(table, at + c)
            slope = fixed(table, at + channels + c)
            normal = value * slope + fixed(table, at + 2 * channels + c)
            g = gate(fixed(grad, start + c), normal * scale + shift, floor)
            tail = value * fixed(rest, pq + c) + fixed(rest, pq + channels + c)
            store(out, start + c, g * scale * slope + tail)
