"""Gradients: whole planes at once, or chunk by chunk.

With g the gradient behind the ReLU, A the scale and means over whatever shares statistics
(eq. 9-12): dx = (A g - mean(A g) - xhat mean(A g xhat)) / std. A pixel's own scale is part of g.
"""

# Triton gives parameters their types at each call, and would read an annotation as a value.
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls

from __future__ import annotations

import triton.language as tl

from regionnorm.ops.gpu.kernels.parts import (
    finish,
    in_hole,
    jit,
    load,
    load_line,
    load_pixels,
    load_scale,
    load_statistics,
    pick,
    place_of_chunk,
    region_sums,
    tile,
)


@jit
def gradient_line(slope_sum, slope_dot, scale, rest, inverse, count):
    """What the statistics add to the gradient of x, ``(x - mean) * p + q``, for one region.

    ``slope_sum`` and ``slope_dot`` are sums of g and of g * xhat over all that shares statistics.
    """
    share = inverse * scale / tl.maximum(count, 1.0)
    p = -inverse * share * slope_dot
    return p, -share * slope_sum - p * rest


@jit
def planes_backward(
    x,
    labels,
    weight,
    bias,
    grad,
    out,
    stats,
    sums,
    samples,
    channels,
    length,
    label_step,
    RELU: tl.constexpr,
    LAST: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_P: tl.constexpr,
):
    """Gradient of whole planes, and sums of g * xhat and of g to ``sums`` ``[2, N, 2, C]``."""
    blocks = tl.cdiv(channels, BLOCK_C)
    sample = tl.program_id(0) // blocks
    first = tl.program_id(0) % blocks * BLOCK_C
    start, offsets, inside, channel, pixel = tile(
        sample, first, 0, channels, length, LAST, BLOCK_C, BLOCK_P
    )
    hole = in_hole(labels, sample, label_step, pixel, length)
    mean0, slope0, intercept0, rest0, inverse0, count0 = load_line(
        stats, weight, bias, sample, channel, samples, channels, False, 0
    )
    mean1, slope1, intercept1, rest1, inverse1, count1 = load_line(
        stats, weight, bias, sample, channel, samples, channels, False, 1
    )
    apart = load(x + start + offsets, inside)
    apart -= pick(hole, mean0, mean1)
    g = load(grad + start + offsets, inside)
    if RELU:
        result = apart * pick(hole, slope0, slope1) + pick(hole, intercept0, intercept1)
        g = tl.where(result > 0, g, 0.0)
    sum0, sum1 = region_sums(g, hole)
    dot0, dot1 = region_sums(g * apart, hole)
    dot0 = (dot0 - rest0 * sum0) * inverse0
    dot1 = (dot1 - rest1 * sum1) * inverse1
    store_sums(sums, sample, channel, samples, channels, dot0, sum0, 0)
    store_sums(sums, sample, channel, samples, channels, dot1, sum1, 1)
    scale0 = load_scale(weight, channel, channels, False, 0)
    scale1 = load_scale(weight, channel, channels, False, 1)
    p0, q0 = gradient_line(sum0, dot0, scale0, rest0, inverse0, count0)
    p1, q1 = gradient_line(sum1, dot1, scale1, rest1, inverse1, count1)
    result = g * pick(hole, slope0, slope1) + (apart * pick(hole, p0, p1) + pick(hole, q0, q1))
    tl.store(out + start + offsets, result.to(out.dtype.element_ty), mask=inside)


@jit
def store_sums(sums, group, channel, groups, channels, dot, total, REGION: tl.constexpr):
    """Write sums of g * xhat and of g of a region of some channels to ``[2, groups, 2, C]``."""
    at = sums + (group * 2 + REGION) * channels + channel
    tl.store(at, dot, mask=channel < channels)
    tl.store(at + groups * 2 * channels, total, mask=channel < channels)


@jit
def chunk_sums(
    x,
    labels,
    weight,
    bias,
    grad,
    stats,
    partial,
    samples,
    channels,
    length,
    label_step,
    weight_step,
    bias_step,
    chunk,
    chunks,
    PIXEL: tl.constexpr,
    RELU: tl.constexpr,
    LAST: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_P: tl.constexpr,
):
    """Sums of g * (x - mean) and of g over a chunk, to ``partial`` ``[N, chunks, 2, 2, C]``."""
    row, sample, begin, first = place_of_chunk(channels, chunk, chunks, BLOCK_C)
    channel = first + tl.arange(0, BLOCK_C)
    mean0, slope0, intercept0, _rest0, _inverse0, _count0 = load_line(
        stats, weight, bias, sample, channel, samples, channels, PIXEL, 0
    )
    mean1, slope1, intercept1, _rest1, _inverse1, _count1 = load_line(
        stats, weight, bias, sample, channel, samples, channels, PIXEL, 1
    )
    zero = tl.zeros([BLOCK_C], tl.float32)
    sum0, sum1, dot0, dot1 = zero, zero, zero, zero
    for first_pixel in range(begin, tl.minimum(begin + chunk, length), BLOCK_P):
        start, offsets, inside, _channels_here, pixel = tile(
            sample, first, first_pixel, channels, length, LAST, BLOCK_C, BLOCK_P
        )
        hole = in_hole(labels, sample, label_step, pixel, length)
        apart = load(x + start + offsets, inside)
        apart -= pick(hole, mean0, mean1)
        g = load(grad + start + offsets, inside)
        if RELU:
            result = apart * pick(hole, slope0, slope1) + pick(hole, intercept0, intercept1)
            result = finish(
                result, weight, bias, weight_step, bias_step, sample, pixel, length, PIXEL, False
            )
            g = tl.where(result > 0, g, 0.0)
        if PIXEL:
            g *= load_pixels(weight, sample, weight_step, pixel, length)
        more0, more1 = region_sums(g, hole)
        sum0, sum1 = sum0 + more0, sum1 + more1
        more0, more1 = region_sums(g * apart, hole)
        dot0, dot1 = dot0 + more0, dot1 + more1
    at = partial + row.to(tl.int64) * 4 * channels + channel
    tl.store(at, dot0, mask=channel < channels)
    tl.store(at + channels, dot1, mask=channel < channels)
    tl.store(at + 2 * channels, sum0, mask=channel < channels)
    tl.store(at + 3 * channels, sum1, mask=channel < channels)


@jit
def combine_sums(
    partial, stats, sums, samples, groups, channels, rows, ROWS: tl.constexpr, BLOCK_C: tl.constexpr
):
    """Sums of g * xhat and of g of a group from its ``rows`` partial sums."""
    blocks = tl.cdiv(channels, BLOCK_C)
    region = tl.program_id(0) % 2
    first = tl.program_id(0) // 2 % blocks * BLOCK_C
    group = tl.program_id(0) // (2 * blocks)
    channel = first + tl.arange(0, BLOCK_C)
    row = tl.arange(0, ROWS)
    partial += group.to(tl.int64) * rows * 4 * channels + region * channels
    dot = tl.zeros([BLOCK_C], tl.float32)
    total = tl.zeros([BLOCK_C], tl.float32)
    for begin in range(0, rows, ROWS):
        at = partial + (begin + row).to(tl.int64)[:, None] * (4 * channels) + channel[None, :]
        exists = (begin + row < rows)[:, None] & (channel < channels)[None, :]
        dot += tl.sum(tl.load(at, mask=exists, other=0.0), 0)
        total += tl.sum(tl.load(at + 2 * channels, mask=exists, other=0.0), 0)
    # One group is the whole batch, whose samples all have the statistics of the first.
    shift = region * channels
    _mean, rest, inverse, _count = load_statistics(
        stats + shift, group, channel, samples, channels, 0
    )
    dot = (dot - rest * total) * inverse
    store_sums(sums + shift, group, channel, groups, channels, dot, total, 0)


@jit
def gradient(
    x,
    labels,
    weight,
    bias,
    grad,
    out,
    stats,
    sums,
    shares,
    samples,
    groups,
    channels,
    length,
    label_step,
    weight_step,
    bias_step,
    chunk,
    chunks,
    PIXEL: tl.constexpr,
    RELU: tl.constexpr,
    LAST: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_P: tl.constexpr,
):
    """Gradient of some pixels in a chunk of channels, with the sums known.

    A chunk's shares of the gradients of each pixel's scale and shift go to ``shares``
    ``[N, chunks, 2, L]``.
    """
    blocks = tl.cdiv(length, BLOCK_P)
    row = tl.program_id(0) // blocks
    first_pixel = tl.program_id(0) % blocks * BLOCK_P
    sample, begin = row // chunks, row % chunks * chunk
    pixel = first_pixel + tl.arange(0, BLOCK_P)
    group = tl.minimum(sample, groups - 1)
    hole = in_hole(labels, sample, label_step, pixel, length)
    if PIXEL:
        scale = load_pixels(weight, sample, weight_step, pixel, length)
        shift = load_pixels(bias, sample, bias_step, pixel, length)
        scale_share = tl.zeros([BLOCK_C, BLOCK_P], tl.float32)
        shift_share = tl.zeros([BLOCK_C, BLOCK_P], tl.float32)
    for first in range(begin, tl.minimum(begin + chunk, channels), BLOCK_C):
        start, offsets, inside, channel, _pixels_here = tile(
            sample, first, first_pixel, channels, length, LAST, BLOCK_C, BLOCK_P
        )
        mean0, slope0, intercept0, p0, q0 = gradient_coefficients(
            stats, sums, weight, bias, sample, group, channel, samples, groups, channels, PIXEL, 0
        )
        mean1, slope1, intercept1, p1, q1 = gradient_coefficients(
            stats, sums, weight, bias, sample, group, channel, samples, groups, channels, PIXEL, 1
        )
        apart = load(x + start + offsets, inside)
        apart -= pick(hole, mean0, mean1)
        g = load(grad + start + offsets, inside)
        slope = pick(hole, slope0, slope1)
        result = apart * slope + pick(hole, intercept0, intercept1)
        if PIXEL:
            if RELU:
                g = tl.where(result * scale + shift > 0, g, 0.0)
            scale_share += g * result
            shift_share += g
            g *= scale
        elif RELU:
            g = tl.where(result > 0, g, 0.0)
        result = g * slope + (apart * pick(hole, p0, p1) + pick(hole, q0, q1))
        tl.store(out + start + offsets, result.to(out.dtype.element_ty), mask=inside)
    if PIXEL:
        at = shares + row.to(tl.int64) * 2 * length + pixel
        tl.store(at, tl.sum(scale_share, 0), mask=pixel < length)
        tl.store(at + length, tl.sum(shift_share, 0), mask=pixel < length)


@jit
def gradient_coefficients(
    stats,
    sums,
    weight,
    bias,
    sample,
    group,
    channel,
    samples,
    groups,
    channels,
    PIXEL: tl.constexpr,
    REGION: tl.constexpr,
):
    """``mean, slope, intercept, p, q``: the gradient is ``slope * g + p * (x - mean) + q``."""
    mean, slope, intercept, rest, inverse, count = load_line(
        stats, weight, bias, sample, channel, samples, channels, PIXEL, REGION
    )
    at = sums + (group * 2 + REGION) * channels + channel
    dot = tl.load(at, mask=channel < channels, other=0.0)
    total = tl.load(at + groups * 2 * channels, mask=channel < channels, other=0.0)
    scale = load_scale(weight, channel, channels, PIXEL, REGION)
    p, q = gradient_line(total, dot, scale, rest, inverse, count)
    return mean, slope, intercept, p, q
