"""Statistics and results: whole planes at once, or chunk by chunk."""

# Triton gives parameters their types at each call, and would read an annotation as a value.
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls

from __future__ import annotations

import triton.language as tl

from regionnorm.ops.gpu.kernels.parts import (
    finish,
    in_hole,
    inverse_deviation,
    jit,
    line,
    load,
    load_line,
    pick,
    place_of_chunk,
    store_statistics,
    tile,
    tile_moments,
)


@jit
def planes_forward(
    x,
    labels,
    weight,
    bias,
    out,
    stats,
    samples,
    channels,
    length,
    label_step,
    weight_step,
    bias_step,
    eps,
    PIXEL: tl.constexpr,
    RELU: tl.constexpr,
    LAST: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_P: tl.constexpr,
):
    """Statistics and result of whole planes, which stay in registers."""
    blocks = tl.cdiv(channels, BLOCK_C)
    sample = tl.program_id(0) // blocks
    first = tl.program_id(0) % blocks * BLOCK_C
    start, offsets, inside, channel, pixel = tile(
        sample, first, 0, channels, length, LAST, BLOCK_C, BLOCK_P
    )
    hole = in_hole(labels, sample, label_step, pixel, length)
    values = load(x + start + offsets, inside)
    exists = (pixel < length)[None, :]
    apart, count0, mean0, rest0, squares0, count1, mean1, rest1, squares1 = tile_moments(
        values, hole, exists, length
    )
    inverse0 = inverse_deviation(squares0, count0, eps)
    inverse1 = inverse_deviation(squares1, count1, eps)
    store_statistics(stats, sample, channel, samples, channels, mean0, rest0, inverse0, count0, 0)
    store_statistics(stats, sample, channel, samples, channels, mean1, rest1, inverse1, count1, 1)
    slope0, intercept0 = line(rest0, inverse0, weight, bias, channel, channels, PIXEL, 0)
    slope1, intercept1 = line(rest1, inverse1, weight, bias, channel, channels, PIXEL, 1)
    result = apart * pick(hole, slope0, slope1) + pick(hole, intercept0, intercept1)
    result = finish(
        result, weight, bias, weight_step, bias_step, sample, pixel, length, PIXEL, RELU
    )
    tl.store(out + start + offsets, result.to(out.dtype.element_ty), mask=inside)


@jit
def merge(count, mean, rest, squares, n, tile_mean, tile_rest, tile_squares):
    """Moments of a region with those of another tile. The first tile's mean stays the main part."""
    mean = tl.where(count > 0, mean, tile_mean)
    away = (tile_mean - mean) + (tile_rest - rest)
    share = n / tl.maximum(count + n, 1.0)
    squares += tile_squares + away * away * count * share
    return count + n, mean, rest + away * share, squares


@jit
def chunk_moments(
    x,
    labels,
    partial,
    channels,
    length,
    label_step,
    chunk,
    chunks,
    LAST: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_P: tl.constexpr,
):
    """Moments of the regions of a chunk of pixels, to ``partial`` ``[N, chunks, 4, 2, C]``."""
    row, sample, begin, first = place_of_chunk(channels, chunk, chunks, BLOCK_C)
    none, zero = tl.zeros([1], tl.float32), tl.zeros([BLOCK_C], tl.float32)
    count0, mean0, rest0, squares0 = none, zero, zero, zero
    count1, mean1, rest1, squares1 = none, zero, zero, zero
    for first_pixel in range(begin, tl.minimum(begin + chunk, length), BLOCK_P):
        start, offsets, inside, _channel, pixel = tile(
            sample, first, first_pixel, channels, length, LAST, BLOCK_C, BLOCK_P
        )
        hole = in_hole(labels, sample, label_step, pixel, length)
        values = load(x + start + offsets, inside)
        exists = (pixel < length)[None, :]
        size = tl.minimum(length - first_pixel, BLOCK_P)
        _apart, n0, m0, r0, s0, n1, m1, r1, s1 = tile_moments(values, hole, exists, size)
        count0, mean0, rest0, squares0 = merge(count0, mean0, rest0, squares0, n0, m0, r0, s0)
        count1, mean1, rest1, squares1 = merge(count1, mean1, rest1, squares1, n1, m1, r1, s1)
    channel = first + tl.arange(0, BLOCK_C)
    at = partial + row.to(tl.int64) * 8 * channels + channel
    store_moments(at, channel, channels, count0, mean0, rest0, squares0)
    store_moments(at + channels, channel, channels, count1, mean1, rest1, squares1)


@jit
def store_moments(at, channel, channels, count, mean, rest, squares):
    """Write moments of a region to a row of partial results."""
    exists = channel < channels
    tl.store(at, count + tl.zeros_like(mean), mask=exists)
    tl.store(at + 2 * channels, mean, mask=exists)
    tl.store(at + 4 * channels, rest, mask=exists)
    tl.store(at + 6 * channels, squares, mask=exists)


@jit
def combine_moments(
    partial, stats, samples, channels, rows, members, eps, ROWS: tl.constexpr, BLOCK_C: tl.constexpr
):
    """Statistics of a group of ``members`` samples from its ``rows`` partial moments.

    In float64, of which there is little to do: a mean times a count would lose digits in float32.
    """
    blocks = tl.cdiv(channels, BLOCK_C)
    region = tl.program_id(0) % 2
    first = tl.program_id(0) // 2 % blocks * BLOCK_C
    group = tl.program_id(0) // (2 * blocks)
    channel = first + tl.arange(0, BLOCK_C)
    row = tl.arange(0, ROWS)
    partial += group.to(tl.int64) * rows * 8 * channels + region * channels
    count = tl.zeros([BLOCK_C], tl.float64)
    total = tl.zeros([BLOCK_C], tl.float64)
    for begin in range(0, rows, ROWS):
        at = partial + (begin + row).to(tl.int64)[:, None] * (8 * channels) + channel[None, :]
        exists = (begin + row < rows)[:, None] & (channel < channels)[None, :]
        n = tl.load(at, mask=exists, other=0.0).to(tl.float64)
        mean = tl.load(at + 2 * channels, mask=exists, other=0.0).to(tl.float64)
        mean += tl.load(at + 4 * channels, mask=exists, other=0.0).to(tl.float64)
        count += tl.sum(n, 0)
        total += tl.sum(n * mean, 0)
    centre = total / tl.maximum(count, 1.0)
    squares = tl.zeros([BLOCK_C], tl.float64)
    for begin in range(0, rows, ROWS):
        at = partial + (begin + row).to(tl.int64)[:, None] * (8 * channels) + channel[None, :]
        exists = (begin + row < rows)[:, None] & (channel < channels)[None, :]
        n = tl.load(at, mask=exists, other=0.0).to(tl.float64)
        away = tl.load(at + 2 * channels, mask=exists, other=0.0).to(tl.float64) - centre[None, :]
        away += tl.load(at + 4 * channels, mask=exists, other=0.0).to(tl.float64)
        more = tl.load(at + 6 * channels, mask=exists, other=0.0).to(tl.float64)
        squares += tl.sum(more + n * away * away, 0)
    main = centre.to(tl.float32)
    rest = (centre - main.to(tl.float64)).to(tl.float32)
    inverse = inverse_deviation(squares, count, eps)
    count_single = count.to(tl.float32)
    for member in range(group * members, group * members + members):
        store_statistics(
            stats + region * channels,
            member,
            channel,
            samples,
            channels,
            main,
            rest,
            inverse,
            count_single,
            0,
        )


@jit
def normalise(
    x,
    labels,
    weight,
    bias,
    out,
    stats,
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
    """Result of a chunk of pixels, with the statistics known."""
    _row, sample, begin, first = place_of_chunk(channels, chunk, chunks, BLOCK_C)
    channel = first + tl.arange(0, BLOCK_C)
    mean0, slope0, intercept0, _rest0, _inverse0, _count0 = load_line(
        stats, weight, bias, sample, channel, samples, channels, PIXEL, 0
    )
    mean1, slope1, intercept1, _rest1, _inverse1, _count1 = load_line(
        stats, weight, bias, sample, channel, samples, channels, PIXEL, 1
    )
    for first_pixel in range(begin, tl.minimum(begin + chunk, length), BLOCK_P):
        start, offsets, inside, _channels_here, pixel = tile(
            sample, first, first_pixel, channels, length, LAST, BLOCK_C, BLOCK_P
        )
        hole = in_hole(labels, sample, label_step, pixel, length)
        values = load(x + start + offsets, inside)
        result = values - pick(hole, mean0, mean1)
        result = result * pick(hole, slope0, slope1) + pick(hole, intercept0, intercept1)
        result = finish(
            result, weight, bias, weight_step, bias_step, sample, pixel, length, PIXEL, RELU
        )
        tl.store(out + start + offsets, result.to(out.dtype.element_ty), mask=inside)
