"""Contiguous features: region normalisation, a scale and a shift for each pixel."""

from __future__ import annotations

from typing import Any

from regionnorm.ops.cpu.kernels.language import (
    BIAS,
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
    PIXEL_STEP,
    SAMPLES,
    SCRATCH,
    STATS,
    STEP,
    SUMS,
    WEIGHT,
    X,
    as_float,
    f32,
    f64,
    gate,
    jit,
    kernel,
    load,
    plus,
    pointer,
    pointer_to,
    store,
    u8,
)
from regionnorm.ops.cpu.kernels.statistics import BLOCK, group_statistics

__all__ = ["planes_pixel_forward", "planes_pixel_gradient", "planes_pixel_sums"]


@jit
def pixel_apply(slots: Any, x: Any, y: Any, plane: Any) -> None:
    """Normalise a plane of two regions, then scale and shift its pixels."""
    length = load(slots, LENGTH)
    labels = pointer_to(u8, load(slots, LABELS))
    scale = pointer_to(f32, load(slots, WEIGHT))
    shift = pointer_to(f32, load(slots, BIAS))
    sample = plane // load(slots, CHANNELS)
    floor = f32(as_float(load(slots, FLOOR)))
    mean0, inverse0, rest0, mean1, inverse1, rest1 = pixel_coefficients(slots, plane)
    start, offset = plane * length, sample * load(slots, LABEL_STEP)
    at = sample * load(slots, PIXEL_STEP)
    for i in range(length):
        inside = load(labels, offset + i) != 0
        value = load(x, start + i) - (mean1 if inside else mean0)
        value = value * (inverse1 if inside else inverse0) + (rest1 if inside else rest0)
        value = value * load(scale, at + i) + load(shift, at + i)
        store(y, start + i, floor if value < floor else value)


@jit
def pixel_coefficients(slots: Any, plane: Any) -> Any:
    """Mean, 1 / std and the rest of the mean, of both regions of a plane."""
    channels = load(slots, CHANNELS)
    stats = pointer_to(f32, load(slots, STATS))
    stride = load(slots, SAMPLES) * channels * 2
    at = plane // channels * 2 * channels + plane % channels
    other = at + channels
    inverse0, inverse1 = load(stats, at + 2 * stride), load(stats, other + 2 * stride)
    rest0 = -load(stats, at + stride) * inverse0
    rest1 = -load(stats, other + stride) * inverse1
    return load(stats, at), inverse0, rest0, load(stats, other), inverse1, rest1


@kernel
def planes_pixel_forward(arguments: Any, slots: Any, task: Any) -> None:
    """Statistics and result of every group of planes; a task is a group."""
    x, y = pointer(arguments, load(slots, X)), pointer(arguments, load(slots, OUT))
    moments = pointer_to(f64, load(slots, SCRATCH) + task * 2 * 3 * 8)
    group_statistics(slots, x, task, moments)
    for member in range(load(slots, GROUP)):
        pixel_apply(slots, x, y, task * load(slots, FIRST) + member * load(slots, STEP))


@jit
def pixel_sums(slots: Any, x: Any, grad: Any, plane: Any, into: Any, fresh: Any) -> None:
    """Sums over the regions of a plane of g * scale and of g * scale * xhat, into ``SUMS``.

    The plane's share of the gradients of scale and shift is added to ``into`` [2, L].
    """
    channels, length = load(slots, CHANNELS), load(slots, LENGTH)
    labels = pointer_to(u8, load(slots, LABELS))
    scale = pointer_to(f32, load(slots, WEIGHT))
    shift = pointer_to(f32, load(slots, BIAS))
    sums = pointer_to(f32, load(slots, SUMS))
    sample = plane // channels
    floor = f32(as_float(load(slots, FLOOR)))
    mean0, inverse0, rest0, mean1, inverse1, rest1 = pixel_coefficients(slots, plane)
    start, offset = plane * length, sample * load(slots, LABEL_STEP)
    at = sample * load(slots, PIXEL_STEP)
    sum0 = sum1 = dot0 = dot1 = 0.0
    for begin in range(0, length, BLOCK):
        end = min(begin + BLOCK, length)
        if fresh:
            for i in range(begin, end):
                store(into, i, f32(0))
                store(into, length + i, f32(0))
        part0 = part1 = product0 = product1 = f32(0)
        for i in range(begin, end):
            inside = load(labels, offset + i) != 0
            value = load(x, start + i) - (mean1 if inside else mean0)
            value = value * (inverse1 if inside else inverse0) + (rest1 if inside else rest0)
            factor = load(scale, at + i)
            out = value * factor + load(shift, at + i)
            g = gate(load(grad, start + i), out, floor)
            store(into, i, load(into, i) + g * value)
            store(into, length + i, load(into, length + i) + g)
            g *= factor
            part0 = plus(part0, f32(0) if inside else g)
            part1 = plus(part1, g if inside else f32(0))
            product0 = plus(product0, f32(0) if inside else g * value)
            product1 = plus(product1, g * value if inside else f32(0))
        sum0, sum1 = sum0 + f64(part0), sum1 + f64(part1)
        dot0, dot1 = dot0 + f64(product0), dot1 + f64(product1)
    stride = load(slots, SAMPLES) * channels * 2
    place = sample * 2 * channels + plane % channels
    store(sums, place, f32(dot0))
    store(sums, place + channels, f32(dot1))
    store(sums, place + stride, f32(sum0))
    store(sums, place + stride + channels, f32(sum1))


@jit
def pixel_gradient(slots: Any, x: Any, grad: Any, out: Any, plane: Any, scratch: Any) -> None:
    """Gradient of a plane with respect to x; ``scratch`` holds its group's sums."""
    channels, length = load(slots, CHANNELS), load(slots, LENGTH)
    labels = pointer_to(u8, load(slots, LABELS))
    scale = pointer_to(f32, load(slots, WEIGHT))
    shift = pointer_to(f32, load(slots, BIAS))
    stats = pointer_to(f32, load(slots, STATS))
    sample = plane // channels
    floor = f32(as_float(load(slots, FLOOR)))
    mean0, inverse0, rest0, mean1, inverse1, rest1 = pixel_coefficients(slots, plane)
    place = 3 * load(slots, SAMPLES) * channels * 2 + sample * 2 * channels + plane % channels
    count0 = f64(max(load(stats, place), f32(1)))
    count1 = f64(max(load(stats, place + channels), f32(1)))
    q0, p0 = f32(-load(scratch, 0) / count0), f32(-load(scratch, 1) / count0)
    q1, p1 = f32(-load(scratch, 2) / count1), f32(-load(scratch, 3) / count1)
    start, offset = plane * length, sample * load(slots, LABEL_STEP)
    at = sample * load(slots, PIXEL_STEP)
    for i in range(length):
        inside = load(labels, offset + i) != 0
        inverse = inverse1 if inside else inverse0
        value = load(x, start + i) - (mean1 if inside else mean0)
        value = value * inverse + (rest1 if inside else rest0)
        factor = load(scale, at + i)
        result = value * factor + load(shift, at + i)
        g = gate(load(grad, start + i), result, floor)
        rest = value * (p1 if inside else p0) + (q1 if inside else q0)
        store(out, start + i, (g * factor + rest) * inverse)


@kernel
def planes_pixel_sums(arguments: Any, slots: Any, task: Any) -> None:
    """First half of the backward pass: a task is ``CHUNK`` channels of a sample.

    A chunk sums its share of the gradients of scale and shift in a place of its own in ``SCRATCH``
    (float32 [N, chunks, 2, L]). Where a plane has statistics of its own, its gradient with respect
    to x follows at once, while the plane is still in the cache.
    """
    x, grad = pointer(arguments, load(slots, X)), pointer(arguments, load(slots, GRAD))
    out = pointer(arguments, load(slots, OUT))
    channels, length, chunk = (
        load(slots, CHANNELS),
        load(slots, LENGTH),
        load(slots, CHUNK),
    )
    chunks = (channels + chunk - 1) // chunk
    # A group of one plane reads its sums from the four float64 behind the shares of the pixels.
    behind = load(slots, SCRATCH) + load(slots, SAMPLES) * chunks * 2 * length * 4
    into = pointer_to(f32, load(slots, SCRATCH) + task * 2 * length * 4)
    own = pointer_to(f64, behind + task * 4 * 8)
    first = task % chunks * chunk
    for channel in range(first, min(first + chunk, channels)):
        plane = task // chunks * channels + channel
        pixel_sums(slots, x, grad, plane, into, channel == first)
        if load(slots, GROUP) == 1:
            group_sums(slots, plane, own)
            pixel_gradient(slots, x, grad, out, plane, own)


@jit
def group_sums(slots: Any, task: Any, scratch: Any) -> None:
    """Add up ``SUMS`` over the planes of a group: sum and dot product of both regions."""
    channels = load(slots, CHANNELS)
    sums = pointer_to(f32, load(slots, SUMS))
    stride = load(slots, SAMPLES) * channels * 2
    sum0 = sum1 = dot0 = dot1 = 0.0
    for member in range(load(slots, GROUP)):
        plane = task * load(slots, FIRST) + member * load(slots, STEP)
        place = plane // channels * 2 * channels + plane % channels
        dot0 += f64(load(sums, place))
        dot1 += f64(load(sums, place + channels))
        sum0 += f64(load(sums, place + stride))
        sum1 += f64(load(sums, place + stride + channels))
    store(scratch, 0, sum0)
    store(scratch, 1, dot0)
    store(scratch, 2, sum1)
    store(scratch, 3, dot1)


@kernel
def planes_pixel_gradient(arguments: Any, slots: Any, task: Any) -> None:
    """Second half of the backward pass for groups of several planes; a task is a group."""
    x, grad = pointer(arguments, load(slots, X)), pointer(arguments, load(slots, GRAD))
    out = pointer(arguments, load(slots, OUT))
    scratch = pointer_to(f64, load(slots, SCRATCH) + task * 4 * 8)
    group_sums(slots, task, scratch)
    for member in range(load(slots, GROUP)):
        plane = task * load(slots, FIRST) + member * load(slots, STEP)
        pixel_gradient(slots, x, grad, out, plane, scratch)
