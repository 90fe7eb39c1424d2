"""Contiguous features: region normalisation, a scale and a shift for each region and channel."""

from __future__ import annotations

from typing import Any

from regionnorm.ops.cpu.kernels.language import (
    BIAS,
    CHANNELS,
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

__all__ = ["planes_backward", "planes_forward"]


@jit
def coefficients(slots: Any, plane: Any, region: Any) -> Any:
    """``mean, slope, intercept, low mean, 1 / std, count`` of a region of a plane.

    The result is ``(x - mean) * slope + intercept``: the low part of the mean is in the intercept.
    """
    channels, regions = load(slots, CHANNELS), load(slots, REGIONS)
    stats = pointer_to(f32, load(slots, STATS))
    stride = load(slots, SAMPLES) * channels * regions
    channel = plane % channels
    at = (plane // channels * regions + region) * channels + channel
    low, inverse = load(stats, at + stride), load(stats, at + 2 * stride)
    weight, bias = f32(1), f32(0)
    if load(slots, WEIGHT) != 0:
        weight = load(pointer_to(f32, load(slots, WEIGHT)), region * channels + channel)
    if load(slots, BIAS) != 0:
        bias = load(pointer_to(f32, load(slots, BIAS)), region * channels + channel)
    slope = inverse * weight
    return (
        load(stats, at),
        slope,
        bias - low * slope,
        low,
        inverse,
        load(stats, at + 3 * stride),
    )


@jit
def pair_apply(slots: Any, x: Any, y: Any, plane: Any) -> None:
    """Normalise a plane of two regions."""
    length = load(slots, LENGTH)
    labels = pointer_to(u8, load(slots, LABELS))
    offset = plane // load(slots, CHANNELS) * load(slots, LABEL_STEP)
    floor = f32(as_float(load(slots, FLOOR)))
    mean0, slope0, intercept0, _, _, _ = coefficients(slots, plane, 0)
    mean1, slope1, intercept1, _, _, _ = coefficients(slots, plane, 1)
    start = plane * length
    for i in range(length):
        inside = load(labels, offset + i) != 0
        value = load(x, start + i) - (mean1 if inside else mean0)
        value = value * (slope1 if inside else slope0) + (intercept1 if inside else intercept0)
        store(y, start + i, floor if value < floor else value)


@jit
def many_apply(slots: Any, x: Any, y: Any, plane: Any) -> None:
    """Normalise a plane of any number of regions."""
    length = load(slots, LENGTH)
    labels = pointer_to(u8, load(slots, LABELS))
    offset = plane // load(slots, CHANNELS) * load(slots, LABEL_STEP)
    floor = f32(as_float(load(slots, FLOOR)))
    start = plane * length
    for begin in range(0, length, BLOCK):
        for region in range(load(slots, REGIONS)):
            mean, slope, intercept, _, _, _ = coefficients(slots, plane, region)
            for i in range(begin, min(begin + BLOCK, length)):
                if load(labels, offset + i) == region:
                    value = (load(x, start + i) - mean) * slope + intercept
                    store(y, start + i, floor if value < floor else value)


@kernel
def planes_forward(arguments: Any, slots: Any, task: Any) -> None:
    """Statistics and result of every group of planes; a task is a group."""
    x, y = pointer(arguments, load(slots, X)), pointer(arguments, load(slots, OUT))
    regions = load(slots, REGIONS)
    moments = pointer_to(f64, load(slots, SCRATCH) + task * regions * 3 * 8)
    group_statistics(slots, x, task, moments)
    for member in range(load(slots, GROUP)):
        plane = task * load(slots, FIRST) + member * load(slots, STEP)
        if regions == 2:
            pair_apply(slots, x, y, plane)
        else:
            many_apply(slots, x, y, plane)


@jit
def pair_sums(slots: Any, x: Any, grad: Any, plane: Any) -> Any:
    """Sums over each region of a plane of g and of g * xhat, with g gated by the ReLU."""
    length = load(slots, LENGTH)
    labels = pointer_to(u8, load(slots, LABELS))
    offset = plane // load(slots, CHANNELS) * load(slots, LABEL_STEP)
    floor = f32(as_float(load(slots, FLOOR)))
    mean0, slope0, intercept0, low0, inverse0, _ = coefficients(slots, plane, 0)
    mean1, slope1, intercept1, low1, inverse1, _ = coefficients(slots, plane, 1)
    start = plane * length
    sum0 = sum1 = dot0 = dot1 = 0.0
    for begin in range(0, length, BLOCK):
        part0 = part1 = product0 = product1 = f32(0)
        for i in range(begin, min(begin + BLOCK, length)):
            inside = load(labels, offset + i) != 0
            value = load(x, start + i) - (mean1 if inside else mean0)
            out = value * (slope1 if inside else slope0) + (intercept1 if inside else intercept0)
            g = gate(load(grad, start + i), out, floor)
            g0 = f32(0) if inside else g
            g1 = g if inside else f32(0)
            part0 = plus(part0, g0)
            part1 = plus(part1, g1)
            product0 = plus(product0, f32(0) if inside else g0 * value)
            product1 = plus(product1, g1 * value if inside else f32(0))
        sum0, sum1 = sum0 + f64(part0), sum1 + f64(part1)
        dot0, dot1 = dot0 + f64(product0), dot1 + f64(product1)
    dot0 = (dot0 - f64(low0) * sum0) * f64(inverse0)
    dot1 = (dot1 - f64(low1) * sum1) * f64(inverse1)
    return sum0, dot0, sum1, dot1


@jit
def many_sums(slots: Any, x: Any, grad: Any, plane: Any, region: Any) -> Any:
    """As ``pair_sums``, for one of any number of regions."""
    length = load(slots, LENGTH)
    labels = pointer_to(u8, load(slots, LABELS))
    offset = plane // load(slots, CHANNELS) * load(slots, LABEL_STEP)
    floor = f32(as_float(load(slots, FLOOR)))
    mean, slope, intercept, low, inverse, _ = coefficients(slots, plane, region)
    start = plane * length
    total = dot = 0.0
    for begin in range(0, length, BLOCK):
        part = product = f32(0)
        for i in range(begin, min(begin + BLOCK, length)):
            inside = load(labels, offset + i) == region
            value = load(x, start + i) - mean
            out = value * slope + intercept
            g = gate(load(grad, start + i), out, floor)
            part = plus(part, g if inside else f32(0))
            product = plus(product, g * value if inside else f32(0))
        total += f64(part)
        dot += f64(product)
    return total, (dot - f64(low) * total) * f64(inverse)


@jit
def backward_coefficients(slots: Any, plane: Any, region: Any, scratch: Any) -> Any:
    """``mean, slope, intercept, p, q``: the gradient is ``slope * g + p * (x - mean) + q``."""
    mean, slope, intercept, low, inverse, count = coefficients(slots, plane, region)
    count = max(count, f32(1))
    mean_g = f32(load(scratch, 2 * region) / f64(count)) * inverse
    mean_product = f32(load(scratch, 2 * region + 1) / f64(count)) * inverse
    p = -mean_product * inverse
    return mean, slope, intercept, p, -mean_g - p * low


@jit
def pair_gradient(slots: Any, x: Any, grad: Any, out: Any, plane: Any, scratch: Any) -> None:
    """Gradient of a plane of two regions with respect to x."""
    length = load(slots, LENGTH)
    labels = pointer_to(u8, load(slots, LABELS))
    offset = plane // load(slots, CHANNELS) * load(slots, LABEL_STEP)
    floor = f32(as_float(load(slots, FLOOR)))
    mean0, slope0, intercept0, p0, q0 = backward_coefficients(slots, plane, 0, scratch)
    mean1, slope1, intercept1, p1, q1 = backward_coefficients(slots, plane, 1, scratch)
    start = plane * length
    for i in range(length):
        inside = load(labels, offset + i) != 0
        slope = slope1 if inside else slope0
        value = load(x, start + i) - (mean1 if inside else mean0)
        result = value * slope + (intercept1 if inside else intercept0)
        g = gate(load(grad, start + i), result, floor)
        rest = value * (p1 if inside else p0) + (q1 if inside else q0)
        store(out, start + i, g * slope + rest)


@jit
def many_gradient(slots: Any, x: Any, grad: Any, out: Any, plane: Any, scratch: Any) -> None:
    """Gradient of a plane of any number of regions with respect to x."""
    length = load(slots, LENGTH)
    labels = pointer_to(u8, load(slots, LABELS))
    offset = plane // load(slots, CHANNELS) * load(slots, LABEL_STEP)
    floor = f32(as_float(load(slots, FLOOR)))
    start = plane * length
    for begin in range(0, length, BLOCK):
        for region in range(load(slots, REGIONS)):
            mean, slope, intercept, p, q = backward_coefficients(slots, plane, region, scratch)
            for i in range(begin, min(begin + BLOCK, length)):
                if load(labels, offset + i) == region:
                    value = load(x, start + i) - mean
                    result = value * slope + intercept
                    g = gate(load(grad, start + i), result, floor)
                    store(out, start + i, g * slope + (value * p + q))


@kernel
def planes_backward(arguments: Any, slots: Any, task: Any) -> None:
    """Gradient of every group of planes; sums for the affine gradients go to ``SUMS`` [2, N, K, C].

    With g the gated gradient, A the affine weight and means over the region of a group (eq. 9-12):
    ``dx = (A g - mean(A g) - xhat mean(A g xhat)) / std``.
    """
    x, grad = pointer(arguments, load(slots, X)), pointer(arguments, load(slots, GRAD))
    out = pointer(arguments, load(slots, OUT))
    sums = pointer_to(f32, load(slots, SUMS))
    channels, regions = load(slots, CHANNELS), load(slots, REGIONS)
    stride = load(slots, SAMPLES) * channels * regions
    scratch = pointer_to(f64, load(slots, SCRATCH) + task * regions * 2 * 8)
    for i in range(2 * regions):
        store(scratch, i, 0.0)
    sum1 = dot1 = 0.0
    for member in range(load(slots, GROUP)):
        plane = task * load(slots, FIRST) + member * load(slots, STEP)
        for region in range(regions):
            if regions != 2:
                total, dot = many_sums(slots, x, grad, plane, region)
            elif region == 0:
                total, dot, sum1, dot1 = pair_sums(slots, x, grad, plane)
            else:
                total, dot = sum1, dot1
            at = (plane // channels * regions + region) * channels + plane % channels
            store(sums, at, f32(dot))
            store(sums, at + stride, f32(total))
            weight = 1.0
            if load(slots, WEIGHT) != 0:
                weights = pointer_to(f32, load(slots, WEIGHT))
                weight = f64(load(weights, region * channels + plane % channels))
            store(scratch, 2 * region, load(scratch, 2 * region) + weight * total)
            store(
                scratch,
                2 * region + 1,
                load(scratch, 2 * region + 1) + weight * dot,
            )
    for member in range(load(slots, GROUP)):
        plane = task * load(slots, FIRST) + member * load(slots, STEP)
        if regions == 2:
            pair_gradient(slots, x, grad, out, plane, scratch)
        else:
            many_gradient(slots, x, grad, out, plane, scratch)
