"""Convolutions between maps of one or two channels.

Libraries of convolutions are built for many channels; on two they take ten times what is needed.
"""

from __future__ import annotations

from typing import Any

from regionnorm.ops.cpu.kernels.language import (
    BIAS,
    CHANNELS,
    CHUNK,
    FIRST,
    GRAD,
    GROUP,
    OUT,
    REGIONS,
    SAMPLES,
    STEP,
    WEIGHT,
    X,
    f32,
    jit,
    kernel,
    load,
    plus,
    pointer,
    store,
)

__all__ = ["small_convolution", "small_convolution_weights"]


@jit
def add_row(
    out: Any, at: Any, x: Any, source: Any, width: Any, taps: Any, tap: Any, k: Any
) -> None:
    """Add to a row of ``out`` the correlation of a row of ``x`` with a row of ``k`` taps."""
    if k == 7:  # the paper's size: the taps stay in registers
        t0, t1, t2 = load(taps, tap), load(taps, tap + 1), load(taps, tap + 2)
        t3, t4, t5 = load(taps, tap + 3), load(taps, tap + 4), load(taps, tap + 5)
        t6 = load(taps, tap + 6)
        for i in range(width):
            j = source + i
            left = load(x, j) * t0 + load(x, j + 1) * t1 + load(x, j + 2) * t2
            right = load(x, j + 4) * t4 + load(x, j + 5) * t5 + load(x, j + 6) * t6
            store(out, at + i, load(out, at + i) + (left + (right + load(x, j + 3) * t3)))
    else:
        for column in range(k):
            t = load(taps, tap + column)
            for i in range(width):
                store(out, at + i, load(out, at + i) + load(x, source + i + column) * t)


@kernel
def small_convolution(arguments: Any, slots: Any, task: Any) -> None:
    """Correlation of ``X`` [N, I, H + k - 1, W + k - 1] with ``WEIGHT`` [O, I, k, k].

    ``CHANNELS`` is I, ``REGIONS`` O, ``FIRST`` H, ``STEP`` W, ``GROUP`` k; values are float32. A
    task is a row of the result in all its channels.
    """
    x, out = pointer(arguments, load(slots, X)), pointer(arguments, load(slots, OUT))
    weight, bias = (
        pointer(arguments, load(slots, WEIGHT)),
        pointer(arguments, load(slots, BIAS)),
    )
    inputs, outputs, k = load(slots, CHANNELS), load(slots, REGIONS), load(slots, GROUP)
    height, width = load(slots, FIRST), load(slots, STEP)
    sample, row = task // height, task % height
    for output in range(outputs):
        at = ((sample * outputs + output) * height + row) * width
        start = f32(0) if load(slots, BIAS) == 0 else load(bias, output)
        for i in range(width):
            store(out, at + i, start)
        for channel in range(inputs):
            for line in range(k):
                source = (sample * inputs + channel) * (height + k - 1) + row + line
                tap = ((output * inputs + channel) * k + line) * k
                add_row(out, at, x, source * (width + k - 1), width, weight, tap, k)


@jit
def add_products(
    into: Any, at: Any, grad: Any, start: Any, x: Any, source: Any, n: Any, k: Any
) -> None:
    """Add to ``k`` places of ``into`` the products of rows of ``grad`` and ``x``, shifted."""
    if k == 7:
        s0 = s1 = s2 = s3 = s4 = s5 = s6 = f32(0)
        for i in range(n):
            g, j = load(grad, start + i), source + i
            s0, s1 = plus(s0, g * load(x, j)), plus(s1, g * load(x, j + 1))
            s2, s3 = plus(s2, g * load(x, j + 2)), plus(s3, g * load(x, j + 3))
            s4, s5 = plus(s4, g * load(x, j + 4)), plus(s5, g * load(x, j + 5))
            s6 = plus(s6, g * load(x, j + 6))
        store(into, at, load(into, at) + s0)
        store(into, at + 1, load(into, at + 1) + s1)
        store(into, at + 2, load(into, at + 2) + s2)
        store(into, at + 3, load(into, at + 3) + s3)
        store(into, at + 4, load(into, at + 4) + s4)
        store(into, at + 5, load(into, at + 5) + s5)
        store(into, at + 6, load(into, at + 6) + s6)
    else:
        for column in range(k):
            total = f32(0)
            for i in range(n):
                total = plus(total, load(grad, start + i) * load(x, source + column + i))
            store(into, at + column, load(into, at + column) + total)


@kernel
def small_convolution_weights(arguments: Any, slots: Any, task: Any) -> None:
    """Gradient of the weights of ``small_convolution``; ``GRAD`` is [N, O, H, W].

    A task is ``CHUNK`` rows of the batch, whose share goes to a place of its own in ``OUT``
    [tasks, O, I, k, k].
    """
    x, grad = pointer(arguments, load(slots, X)), pointer(arguments, load(slots, GRAD))
    inputs, outputs, k = load(slots, CHANNELS), load(slots, REGIONS), load(slots, GROUP)
    height, width, chunk = load(slots, FIRST), load(slots, STEP), load(slots, CHUNK)
    weights = outputs * inputs * k * k
    into = pointer(arguments, load(slots, OUT) + task * weights * 4)
    for i in range(weights):
        store(into, i, f32(0))
    last = min((task + 1) * chunk, load(slots, SAMPLES) * height)
    for place in range(task * chunk, last):
        sample, row = place // height, place % height
        for output in range(outputs):
            start = ((sample * outputs + output) * height + row) * width
            for channel in range(inputs):
                for line in range(k):
                    source = (sample * inputs + channel) * (height + k - 1) + row + line
                    source *= width + k - 1
                    at = ((output * inputs + channel) * k + line) * k
                    add_products(into, at, grad, start, x, source, width, k)
