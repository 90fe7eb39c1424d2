"""GPU kernels for two regions, in Triton.

Features are seen as ``[N, C, L]`` with L = H * W pixels, and a program works on tiles of some
channels and some pixels of one sample. So the same kernels read contiguous and channels-last
(``LAST``) features. Arithmetic is in float32 and every sum has a fixed order: results are the same
each time.

Where a plane fits into the registers of a program, one kernel does all. Else the pixels are shared
out in chunks: partial results go to a small buffer, a second kernel combines them, and a third one
walks through the features again.

The statistics of an operation are float32 ``[4, N, 2, C]``: the mean as a sum of two numbers (one
alone would be off by half a thousandth at a mean of 1e4), 1 / std, and the number of values.
"""

# Triton gives parameters their types at each call, and would read an annotation as a value.
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import triton
import triton.language as tl

Function = TypeVar("Function", bound=Callable[..., Any])


def jit(function: Function) -> Function:
    """Compile at the first call; under ``TRITON_INTERPRET=1`` run on the CPU."""
    return cast(Function, triton.jit(function))


# --- Parts ----------------------------------------------------------------------------------------


@jit
def tile(
    sample,
    first_channel,
    first_pixel,
    channels,
    length,
    LAST: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_P: tl.constexpr,
):
    """Start of a tile, offsets in it ``[BLOCK_C, BLOCK_P]``, its places that exist, its indices.

    Only the start takes 64 bits: the host chooses tiles that span less than 2**31 values.
    """
    row, column = tl.arange(0, BLOCK_C)[:, None], tl.arange(0, BLOCK_P)[None, :]
    start = sample.to(tl.int64) * channels * length
    if LAST:
        start += tl.cast(first_pixel, tl.int64) * channels + first_channel
        offsets = column * channels + row
    else:
        start += tl.cast(first_channel, tl.int64) * length + first_pixel
        offsets = row * length + column
    channel = first_channel + tl.arange(0, BLOCK_C)
    pixel = first_pixel + tl.arange(0, BLOCK_P)
    inside = (channel < channels)[:, None] & (pixel < length)[None, :]
    return start, offsets, inside, channel, pixel


@jit
def in_hole(labels, sample, label_step, pixel, length):
    """Which pixels of a tile are in the hole ``[1, BLOCK_P]``."""
    at = labels + sample.to(tl.int64) * label_step + pixel
    return (tl.load(at, mask=pixel < length, other=0) != 0)[None, :]


@jit
def pick(hole, of_known, of_hole):
    """Give every pixel its region's value: two ``[BLOCK_C]`` -> ``[BLOCK_C, BLOCK_P]``."""
    return tl.where(hole, of_hole[:, None], of_known[:, None])


@jit
def region_sums(values, hole):
    """Sums over the known pixels and over the hole of a tile that is 0 beyond the end."""
    return tl.sum(tl.where(hole, 0.0, values), 1), tl.sum(tl.where(hole, values, 0.0), 1)


@jit
def tile_moments(values, hole, exists, size):
    """Moments of both regions of a tile for each channel, and the deviations from the main means.

    Moments are the count ``[1]``, the mean in two parts and the sum of squared deviations. These
    are taken from the mean as rounded, so squares never cancel, whatever the size of the mean.
    """
    count1 = tl.sum(hole.to(tl.float32), 1)
    count0 = size - count1
    share0 = 1.0 / tl.maximum(count0, 1.0)
    share1 = 1.0 / tl.maximum(count1, 1.0)
    sum0, sum1 = region_sums(values, hole)
    mean0, mean1 = sum0 * share0, sum1 * share1
    apart = tl.where(exists, values - pick(hole, mean0, mean1), 0.0)
    sum0, sum1 = region_sums(apart, hole)
    rest0, rest1 = sum0 * share0, sum1 * share1
    squares0, squares1 = region_sums(apart * apart, hole)
    squares0 = tl.maximum(squares0 - sum0 * rest0, 0.0)
    squares1 = tl.maximum(squares1 - sum1 * rest1, 0.0)
    return apart, count0, mean0, rest0, squares0, count1, mean1, rest1, squares1


@jit
def inverse_deviation(squares, count, eps):
    """1 / std (eq. 10), and 0 for a region without pixels."""
    variance = squares / tl.maximum(count, 1.0)
    return tl.where(count > 0, tl.rsqrt(variance.to(tl.float32) + eps), 0.0)


@jit
def store_statistics(
    stats, sample, channel, samples, channels, mean, rest, inverse, count, REGION: tl.constexpr
):
    """Write the statistics of a region of some channels."""
    at = stats + (sample * 2 + REGION) * channels + channel
    step = samples * 2 * channels
    exists = channel < channels
    tl.store(at, mean, mask=exists)
    tl.store(at + step, rest, mask=exists)
    tl.store(at + 2 * step, inverse, mask=exists)
    tl.store(at + 3 * step, count + tl.zeros_like(mean), mask=exists)


@jit
def load_statistics(stats, sample, channel, samples, channels, REGION: tl.constexpr):
    """Mean, rest of the mean, 1 / std and count of a region of some channels."""
    at = stats + (sample * 2 + REGION) * channels + channel
    step = samples * 2 * channels
    exists = channel < channels
    mean = tl.load(at, mask=exists, other=0.0)
    rest = tl.load(at + step, mask=exists, other=0.0)
    inverse = tl.load(at + 2 * step, mask=exists, other=0.0)
    return mean, rest, inverse, tl.load(at + 3 * step, mask=exists, other=0.0)


@jit
def load_scale(weight, channel, channels, PIXEL: tl.constexpr, REGION: tl.constexpr):
    """Scale of a region of some channels; 1 where there is none or each pixel has its own."""
    scale = tl.full(channel.shape, 1.0, tl.float32)
    if weight is not None and not PIXEL:
        at = weight + REGION * channels + channel
        scale = tl.load(at, mask=channel < channels, other=0.0).to(tl.float32)
    return scale


@jit
def line(rest, inverse, weight, bias, channel, channels, PIXEL: tl.constexpr, REGION: tl.constexpr):
    """Slope and intercept: the result is ``(x - mean) * slope + intercept``."""
    slope = inverse * load_scale(weight, channel, channels, PIXEL, REGION)
    intercept = -rest * slope
    if bias is not None and not PIXEL:
        at = bias + REGION * channels + channel
        intercept += tl.load(at, mask=channel < channels, other=0.0).to(tl.float32)
    return slope, intercept


@jit
def load_pixels(values, sample, step, pixel, length):
    """Scale or shift of the pixels of a tile ``[1, BLOCK_P]``."""
    at = values + sample.to(tl.int64) * step + pixel
    return tl.load(at, mask=pixel < length, other=0.0).to(tl.float32)[None, :]


@jit
def finish(
    result,
    weight,
    bias,
    weight_step,
    bias_step,
    sample,
    pixel,
    length,
    PIXEL: tl.constexpr,
    RELU: tl.constexpr,
):
    """Scale and shift of each pixel, and the ReLU, where asked for."""
    if PIXEL:
        result *= load_pixels(weight, sample, weight_step, pixel, length)
        result += load_pixels(bias, sample, bias_step, pixel, length)
    if RELU:
        result = tl.where(result < 0, 0.0, result)  # keeps NaN, as a ReLU does
    return result


@jit
def gradient_line(slope_sum, slope_dot, scale, rest, inverse, count):
    """What the statistics add to the gradient of x, ``(x - mean) * p + q``, for one region.

    ``slope_sum`` and ``slope_dot`` are sums of g and of g * xhat over all that shares statistics.
    """
    share = inverse * scale / tl.maximum(count, 1.0)
    p = -inverse * share * slope_dot
    return p, -share * slope_sum - p * rest


# --- Forward --------------------------------------------------------------------------------------


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
    values = tl.load(x + start + offsets, mask=inside, other=0.0).to(tl.float32)
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
    blocks = tl.cdiv(channels, BLOCK_C)
    row = tl.program_id(0) // blocks  # sample * chunks + number of the chunk
    first = tl.program_id(0) % blocks * BLOCK_C
    sample, begin = row // chunks, row % chunks * chunk
    none, zero = tl.zeros([1], tl.float32), tl.zeros([BLOCK_C], tl.float32)
    count0, mean0, rest0, squares0 = none, zero, zero, zero
    count1, mean1, rest1, squares1 = none, zero, zero, zero
    for first_pixel in range(begin, tl.minimum(begin + chunk, length), BLOCK_P):
        start, offsets, inside, _channel, pixel = tile(
            sample, first, first_pixel, channels, length, LAST, BLOCK_C, BLOCK_P
        )
        hole = in_hole(labels, sample, label_step, pixel, length)
        values = tl.load(x + start + offsets, mask=inside, other=0.0).to(tl.float32)
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
    blocks = tl.cdiv(channels, BLOCK_C)
    row = tl.program_id(0) // blocks
    first = tl.program_id(0) % blocks * BLOCK_C
    sample, begin = row // chunks, row % chunks * chunk
    channel = first + tl.arange(0, BLOCK_C)
    mean0, rest0, inverse0, _count0 = load_statistics(stats, sample, channel, samples, channels, 0)
    mean1, rest1, inverse1, _count1 = load_statistics(stats, sample, channel, samples, channels, 1)
    slope0, intercept0 = line(rest0, inverse0, weight, bias, channel, channels, PIXEL, 0)
    slope1, intercept1 = line(rest1, inverse1, weight, bias, channel, channels, PIXEL, 1)
    for first_pixel in range(begin, tl.minimum(begin + chunk, length), BLOCK_P):
        start, offsets, inside, _channels_here, pixel = tile(
            sample, first, first_pixel, channels, length, LAST, BLOCK_C, BLOCK_P
        )
        hole = in_hole(labels, sample, label_step, pixel, length)
        values = tl.load(x + start + offsets, mask=inside, other=0.0).to(tl.float32)
        result = values - pick(hole, mean0, mean1)
        result = result * pick(hole, slope0, slope1) + pick(hole, intercept0, intercept1)
        result = finish(
            result, weight, bias, weight_step, bias_step, sample, pixel, length, PIXEL, RELU
        )
        tl.store(out + start + offsets, result.to(out.dtype.element_ty), mask=inside)


# --- Backward -------------------------------------------------------------------------------------
#
# With g the gradient behind the ReLU, A the scale and means over whatever shares statistics
# (eq. 9-12): dx = (A g - mean(A g) - xhat mean(A g xhat)) / std. A pixel's own scale is part of g.


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
    mean0, rest0, inverse0, count0 = load_statistics(stats, sample, channel, samples, channels, 0)
    mean1, rest1, inverse1, count1 = load_statistics(stats, sample, channel, samples, channels, 1)
    slope0, intercept0 = line(rest0, inverse0, weight, bias, channel, channels, False, 0)
    slope1, intercept1 = line(rest1, inverse1, weight, bias, channel, channels, False, 1)
    apart = tl.load(x + start + offsets, mask=inside, other=0.0).to(tl.float32)
    apart -= pick(hole, mean0, mean1)
    g = tl.load(grad + start + offsets, mask=inside, other=0.0).to(tl.float32)
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
    blocks = tl.cdiv(channels, BLOCK_C)
    row = tl.program_id(0) // blocks
    first = tl.program_id(0) % blocks * BLOCK_C
    sample, begin = row // chunks, row % chunks * chunk
    channel = first + tl.arange(0, BLOCK_C)
    mean0, rest0, inverse0, _count0 = load_statistics(stats, sample, channel, samples, channels, 0)
    mean1, rest1, inverse1, _count1 = load_statistics(stats, sample, channel, samples, channels, 1)
    slope0, intercept0 = line(rest0, inverse0, weight, bias, channel, channels, PIXEL, 0)
    slope1, intercept1 = line(rest1, inverse1, weight, bias, channel, channels, PIXEL, 1)
    zero = tl.zeros([BLOCK_C], tl.float32)
    sum0, sum1, dot0, dot1 = zero, zero, zero, zero
    for first_pixel in range(begin, tl.minimum(begin + chunk, length), BLOCK_P):
        start, offsets, inside, _channels_here, pixel = tile(
            sample, first, first_pixel, channels, length, LAST, BLOCK_C, BLOCK_P
        )
        hole = in_hole(labels, sample, label_step, pixel, length)
        apart = tl.load(x + start + offsets, mask=inside, other=0.0).to(tl.float32)
        apart -= pick(hole, mean0, mean1)
        g = tl.load(grad + start + offsets, mask=inside, other=0.0).to(tl.float32)
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
        apart = tl.load(x + start + offsets, mask=inside, other=0.0).to(tl.float32)
        apart -= pick(hole, mean0, mean1)
        g = tl.load(grad + start + offsets, mask=inside, other=0.0).to(tl.float32)
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
    mean, rest, inverse, count = load_statistics(stats, sample, channel, samples, channels, REGION)
    slope, intercept = line(rest, inverse, weight, bias, channel, channels, PIXEL, REGION)
    at = sums + (group * 2 + REGION) * channels + channel
    dot = tl.load(at, mask=channel < channels, other=0.0)
    total = tl.load(at + groups * 2 * channels, mask=channel < channels, other=0.0)
    scale = load_scale(weight, channel, channels, PIXEL, REGION)
    p, q = gradient_line(total, dot, scale, rest, inverse, count)
    return mean, slope, intercept, p, q


# --- Mean and maximum over the channels -----------------------------------------------------------


@jit
def mean_max(
    x, out, channels, length, LAST: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_P: tl.constexpr
):
    """Mean and maximum over the channels of some pixels, to ``out`` ``[N, 2, L]``."""
    blocks = tl.cdiv(length, BLOCK_P)
    sample = tl.program_id(0) // blocks
    first_pixel = tl.program_id(0) % blocks * BLOCK_P
    total = tl.zeros([BLOCK_C, BLOCK_P], tl.float32)
    highest = tl.full([BLOCK_C, BLOCK_P], float("-inf"), tl.float32)
    bad = tl.zeros([BLOCK_C, BLOCK_P], tl.float32)  # how many are NaN, which maxima lose
    for first in range(0, channels, BLOCK_C):
        start, offsets, inside, _channel, pixel = tile(
            sample, first, first_pixel, channels, length, LAST, BLOCK_C, BLOCK_P
        )
        values = tl.load(x + start + offsets, mask=inside, other=0.0).to(tl.float32)
        total += values
        highest = tl.maximum(highest, tl.where(inside, values, float("-inf")))
        bad += (values != values).to(tl.float32)
    most = tl.where(tl.sum(bad, 0) > 0, float("nan"), tl.max(highest, 0))
    pixel = first_pixel + tl.arange(0, BLOCK_P)
    at = out + sample.to(tl.int64) * 2 * length + pixel
    tl.store(at, tl.sum(total, 0) / channels, mask=pixel < length)
    tl.store(at + length, most, mask=pixel < length)


@jit
def mean_max_backward(
    x,
    result,
    grad,
    out,
    channels,
    length,
    LAST: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_P: tl.constexpr,
):
    """Gradient of the mean and the maximum, shared equally among equal maxima."""
    blocks = tl.cdiv(length, BLOCK_P)
    sample = tl.program_id(0) // blocks
    first_pixel = tl.program_id(0) % blocks * BLOCK_P
    pixel = first_pixel + tl.arange(0, BLOCK_P)
    at = sample.to(tl.int64) * 2 * length + pixel
    highest = tl.load(result + at + length, mask=pixel < length, other=0.0)[None, :]
    ties = tl.zeros([BLOCK_C, BLOCK_P], tl.float32)
    for first in range(0, channels, BLOCK_C):
        start, offsets, inside, _channel, _pixel = tile(
            sample, first, first_pixel, channels, length, LAST, BLOCK_C, BLOCK_P
        )
        values = tl.load(x + start + offsets, mask=inside, other=0.0).to(tl.float32)
        ties += (inside & (values == highest)).to(tl.float32)
    to_all = tl.load(grad + at, mask=pixel < length, other=0.0) / channels
    to_highest = tl.load(grad + at + length, mask=pixel < length, other=0.0)
    to_highest /= tl.maximum(tl.sum(ties, 0), 1.0)
    for first in range(0, channels, BLOCK_C):
        start, offsets, inside, _channel, pixel = tile(
            sample, first, first_pixel, channels, length, LAST, BLOCK_C, BLOCK_P
        )
        values = tl.load(x + start + offsets, mask=inside, other=0.0).to(tl.float32)
        extra = tl.where(values == highest, to_highest[None, :], 0.0)
        result_tile = (to_all[None, :] + extra).to(out.dtype.element_ty)
        tl.store(out + start + offsets, result_tile, mask=inside)
