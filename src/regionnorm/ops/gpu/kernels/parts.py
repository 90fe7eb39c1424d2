"""What the kernels are made of: tiles, regions, moments, statistics."""

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
def load(at, inside):
    """Values of a tile in float32, 0 where there is nothing."""
    return tl.load(at, mask=inside, other=0.0).to(tl.float32)


@jit
def place_of_chunk(channels, chunk, chunks, BLOCK_C: tl.constexpr):
    """Row of partial results, sample, first pixel and first channel of this program's chunk."""
    blocks = tl.cdiv(channels, BLOCK_C)
    row = tl.program_id(0) // blocks  # sample * chunks + number of the chunk
    return row, row // chunks, row % chunks * chunk, tl.program_id(0) % blocks * BLOCK_C


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
def load_line(
    stats,
    weight,
    bias,
    sample,
    channel,
    samples,
    channels,
    PIXEL: tl.constexpr,
    REGION: tl.constexpr,
):
    """``mean, slope, intercept`` of a region of some channels, and its ``rest, 1 / std, count``."""
    mean, rest, inverse, count = load_statistics(stats, sample, channel, samples, channels, REGION)
    slope, intercept = line(rest, inverse, weight, bias, channel, channels, PIXEL, REGION)
    return mean, slope, intercept, rest, inverse, count


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
