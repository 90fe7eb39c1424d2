"""Mean and maximum over the channels, and their gradient."""

# Triton gives parameters their types at each call, and would read an annotation as a value.
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls

from __future__ import annotations

import triton.language as tl

from regionnorm.ops.gpu.kernels.parts import (
    jit,
    load,
    tile,
)


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
        values = load(x + start + offsets, inside)
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
        values = load(x + start + offsets, inside)
        ties += (inside & (values == highest)).to(tl.float32)
    to_all = tl.load(grad + at, mask=pixel < length, other=0.0) / channels
    to_highest = tl.load(grad + at + length, mask=pixel < length, other=0.0)
    to_highest /= tl.maximum(tl.sum(ties, 0), 1.0)
    for first in range(0, channels, BLOCK_C):
        start, offsets, inside, _channel, pixel = tile(
            sample, first, first_pixel, channels, length, LAST, BLOCK_C, BLOCK_P
        )
        values = load(x + start + offsets, inside)
        extra = tl.where(values == highest, to_highest[None, :], 0.0)
        result_tile = (to_all[None, :] + extra).to(out.dtype.element_ty)
        tl.store(out + start + offsets, result_tile, mask=inside)
