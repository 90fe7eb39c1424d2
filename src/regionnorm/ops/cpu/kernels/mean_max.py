"""Mean and maximum over the channels, of features in either layout."""

from __future__ import annotations

from typing import Any

from regionnorm.ops.cpu.kernels.language import (
    CHANNELS,
    CHUNK,
    GRAD,
    LENGTH,
    OUT,
    SCRATCH,
    STATS,
    SUMS,
    X,
    block_of,
    f32,
    fixed,
    jit,
    kernel,
    larger,
    load,
    plus,
    pointer,
    pointer_to,
    store,
)

__all__ = ["planes_mean_max", "planes_mean_max_backward", "rows_mean_max", "rows_mean_max_backward"]


@kernel
def planes_mean_max(arguments: Any, slots: Any, task: Any) -> None:
    """Mean and maximum over the channels, ``OUT`` float32 [N, 2, L]; a task is ``CHUNK`` pixels."""
    x, out = pointer(arguments, load(slots, X)), pointer_to(f32, load(slots, OUT))
    channels, length = load(slots, CHANNELS), load(slots, LENGTH)
    share = f32(1) / f32(channels)
    sample, first, end = block_of(slots, task)
    size = end - first
    mean = sample * 2 * length + first
    highest = mean + length
    for channel in range(channels):
        at = (sample * channels + channel) * length + first
        if channel == 0:
            for i in range(size):
                value = load(x, at + i)
                store(out, mean + i, value)
                store(out, highest + i, value)
        else:
            for i in range(size):
                value = load(x, at + i)
                most = load(out, highest + i)
                store(out, mean + i, load(out, mean + i) + value)
                store(out, highest + i, most if value <= most else value)
    bad = f32(0)
    for i in range(size):
        average = load(out, mean + i) * share
        store(out, mean + i, average)
        bad = plus(bad, f32(1) if average != average else f32(0))
    if bad > 0:
        for i in range(size):
            at = sample * channels * length + first + i
            keep_nan(out, mean + i, highest + i, x, at, length, channels)


@jit
def keep_nan(
    out: Any, mean: Any, highest: Any, x: Any, start: Any, step: Any, channels: Any
) -> None:
    """Let a maximum be NaN if a channel is. Maxima are found without, because that is quicker.

    A mean that is NaN gives it away, but infinities of both signs have such a mean too.
    """
    if load(out, mean) != load(out, mean):
        for channel in range(channels):
            value = load(x, start + channel * step)
            if value != value:
                store(out, highest, value)


@kernel
def planes_mean_max_backward(arguments: Any, slots: Any, task: Any) -> None:
    """Gradient of the mean and the maximum, equal among equal maxima; a task is ``CHUNK`` pixels.

    ``STATS`` is the result of the forward pass, ``GRAD`` its gradient, both float32 [N, 2, L]. With
    ``SUMS`` the gradient is added to what ``OUT`` holds.
    """
    x, out = pointer(arguments, load(slots, X)), pointer(arguments, load(slots, OUT))
    result, grad = (
        pointer_to(f32, load(slots, STATS)),
        pointer_to(f32, load(slots, GRAD)),
    )
    channels, length = load(slots, CHANNELS), load(slots, LENGTH)
    share = f32(1) / f32(channels)
    sample, first, end = block_of(slots, task)
    size = end - first
    each = pointer_to(f32, load(slots, SCRATCH) + task * load(slots, CHUNK) * 4)
    mean = sample * 2 * length + first
    highest = mean + length
    for i in range(size):
        store(each, i, f32(0))
    for channel in range(channels):
        at = (sample * channels + channel) * length + first
        for i in range(size):
            equal = load(x, at + i) == load(result, highest + i)
            store(each, i, load(each, i) + (f32(1) if equal else f32(0)))
    for i in range(size):
        store(each, i, load(grad, highest + i) / max(load(each, i), f32(1)))
    for channel in range(channels):
        at = (sample * channels + channel) * length + first
        if load(slots, SUMS) == 0:
            for i in range(size):
                extra = load(each, i)
                extra = extra if load(x, at + i) == load(result, highest + i) else f32(0)
                store(out, at + i, load(grad, mean + i) * share + extra)
        else:
            for i in range(size):
                extra = load(each, i)
                extra = extra if load(x, at + i) == load(result, highest + i) else f32(0)
                extra += load(out, at + i)
                store(out, at + i, load(grad, mean + i) * share + extra)


@kernel
def rows_mean_max(arguments: Any, slots: Any, task: Any) -> None:
    """Mean and maximum over the channels, ``OUT`` float32 [N, 2, L]."""
    x, out = pointer(arguments, load(slots, X)), pointer_to(f32, load(slots, OUT))
    channels, length = load(slots, CHANNELS), load(slots, LENGTH)
    share = f32(1) / f32(channels)
    sample, begin, end = block_of(slots, task)
    bad = f32(0)
    for i in range(begin, end):
        start = (sample * length + i) * channels
        total, most = f32(0), fixed(x, start)
        for c in range(channels):
            value = fixed(x, start + c)
            total, most = plus(total, value), larger(most, value)
        average = total * share
        store(out, sample * 2 * length + i, average)
        store(out, (sample * 2 + 1) * length + i, most)
        bad = plus(bad, f32(1) if average != average else f32(0))
    if bad > 0:
        for i in range(begin, end):
            mean, start = sample * 2 * length + i, (sample * length + i) * channels
            keep_nan(out, mean, mean + length, x, start, 1, channels)


@kernel
def rows_mean_max_backward(arguments: Any, slots: Any, task: Any) -> None:
    """As ``planes_mean_max_backward``."""
    x, out = pointer(arguments, load(slots, X)), pointer(arguments, load(slots, OUT))
    result, grad = pointer_to(f32, load(slots, STATS)), pointer_to(f32, load(slots, GRAD))
    channels, length = load(slots, CHANNELS), load(slots, LENGTH)
    share = f32(1) / f32(channels)
    sample, begin, end = block_of(slots, task)
    for i in range(begin, end):
        start = (sample * length + i) * channels
        most = fixed(result, (sample * 2 + 1) * length + i)
        count = f32(0)
        for c in range(channels):
            count = plus(count, f32(1) if fixed(x, start + c) == most else f32(0))
        mean = fixed(grad, sample * 2 * length + i) * share
        each = fixed(grad, (sample * 2 + 1) * length + i) / max(count, f32(1))
        if load(slots, SUMS) == 0:
            for c in range(channels):
                extra = each if fixed(x, start + c) == most else f32(0)
                store(out, start + c, mean + extra)
        else:
            for c in range(channels):
                extra = each if fixed(x, start + c) == most else f32(0)
                store(out, start + c, load(out, start + c) + (mean + extra))
