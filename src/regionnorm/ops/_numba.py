"""CPU kernels for contiguous features, compiled by numba to plain C functions.

A kernel takes one pointer to a row of 64-bit slots (addresses, sizes and bit patterns of floats) and
works on tasks that it draws from a counter in the first slot until none is left. So any number of
threads may run the same call at once. Which thread gets a task never matters: a task's arithmetic
is fixed, and tasks write to places of their own.

The type of the slot pointer says what the features are: ``float32*`` for float32, ``uint16*`` for
bfloat16. Arithmetic is in float32, and partial sums of a block are combined in float64.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

__all__ = ["compile_kernel"]

Function = TypeVar("Function", bound=Callable[..., Any])

BLOCK = 4096  # pixels of a plane taken at a time: they stay in the first-level cache
NUM_SLOTS = 24

# Slots of a call. Kernels with other needs reuse the slots of what they do not have.
COUNTER, TASKS = 0, 1
SAMPLES, CHANNELS, LENGTH, REGIONS = 2, 3, 4, 5
GROUP, FIRST, STEP = 6, 7, 8  # planes that share statistics, and where they are
EPS, FLOOR = 9, 10  # float64 bit patterns
LABELS, LABEL_STEP = 11, 12
X, OUT, STATS, WEIGHT, BIAS = 13, 14, 15, 16, 17
GRAD, SUMS, SCRATCH, CHUNK = 18, 19, 20, 21


def compile_kernel(name: str, bfloat16: bool) -> int:
    """Compile the kernel ``name``, or load it from numba's cache; return its address."""
    element = types.uint16 if bfloat16 else types.float32
    signature = types.void(types.CPointer(element))
    compiled = numba.cfunc(signature, cache=True, error_model="numpy", fastmath={"contract"})
    return int(compiled(KERNELS[name]).address)


def jit(function: Function) -> Function:
    """Compile for use inside a kernel."""
    compiled = numba.njit(error_model="numpy", fastmath={"contract"}, nogil=True)(function)
    return cast(Function, compiled)


# --- What numba has no words for ------------------------------------------------------------------


@intrinsic  # type: ignore[untyped-decorator]
def pointer(typing: Any, like: Any, address: Any) -> Any:
    """Pointer of the type of ``like`` to an integer address."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[1], context.get_value_type(signature.return_type))

    return like(like, types.int64), generate


@intrinsic  # type: ignore[untyped-decorator]
def pointer_to(typing: Any, kind: Any, address: Any) -> Any:
    """Pointer to values of the type ``kind`` at an integer address."""
    result = types.CPointer(kind.dtype)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[1], context.get_value_type(result))

    return result(kind, types.int64), generate


@intrinsic  # type: ignore[untyped-decorator]
def slots_of(typing: Any, arguments_pointer: Any) -> Any:
    """The kernel's argument as a pointer to its 64-bit slots."""
    result = types.CPointer(types.int64)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], context.get_value_type(result))

    return result(arguments_pointer), generate


@intrinsic  # type: ignore[untyped-decorator]
def load(typing: Any, source: Any, index: Any) -> Any:
    """``source[index]``; bfloat16 (held as uint16) becomes float32, labels become int32."""
    element = source.dtype
    result = {types.uint16: types.float32, types.uint8: types.int32}.get(element, element)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        value = builder.load(builder.gep(arguments[0], [arguments[1]], inbounds=True))
        if element == types.uint16:
            bits = builder.shl(builder.zext(value, ir.IntType(32)), ir.IntType(32)(16))
            return builder.bitcast(bits, ir.FloatType())
        if element == types.uint8:
            return builder.zext(value, ir.IntType(32))
        return value

    return result(source, types.int64), generate


@intrinsic  # type: ignore[untyped-decorator]
def store(typing: Any, target: Any, index: Any, value: Any) -> Any:
    """``target[index] = value``; float32 is rounded to nearest even for bfloat16."""
    element = target.dtype
    given = types.float32 if element == types.uint16 else element

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place = builder.gep(arguments[0], [arguments[1]], inbounds=True)
        value = arguments[2]
        if element == types.uint16:
            word = ir.IntType(32)
            bits = builder.bitcast(value, word)
            odd = builder.and_(builder.lshr(bits, word(16)), word(1))
            rounded = builder.add(bits, builder.add(odd, word(0x7FFF)))
            not_a_number = builder.fcmp_unordered("uno", value, value)
            high = builder.select(not_a_number, word(0x7FC00000), rounded)
            value = builder.trunc(builder.lshr(high, word(16)), ir.IntType(16))
        builder.store(value, place)
        return context.get_dummy_value()

    return types.void(target, types.int64, given), generate


@intrinsic  # type: ignore[untyped-decorator]
def plus(typing: Any, total: Any, value: Any) -> Any:
    """``total + value`` that may be regrouped, so that a sum runs on all lanes of a vector.

    Only the sums say so. Were all arithmetic free to be regrouped, ``total + (x - shift)`` could
    become ``(total + x) - shift`` and lose what the shift is for.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.fadd(*arguments, flags=("reassoc", "nsz", "contract"))

    return types.float32(types.float32, types.float32), generate


@intrinsic  # type: ignore[untyped-decorator]
def as_float(typing: Any, bits: Any) -> Any:
    """The float64 with the given bit pattern."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.DoubleType())

    return types.float64(types.int64), generate


@intrinsic  # type: ignore[untyped-decorator]
def next_task(typing: Any, slots: Any) -> Any:
    """Draw the number of a task that no other thread has drawn."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.atomic_rmw("add", arguments[0], ir.IntType(64)(1), "monotonic")

    return types.int64(slots), generate


f32, f64, u8 = types.float32, types.float64, types.uint8
ZERO, ONE = 0.0, 1.0


# --- Statistics of a plane ------------------------------------------------------------------------


@jit
def merge(moments: Any, at: Any, count: Any, shift: Any, total: Any, squares: Any) -> None:
    """Add a block to (count, mean, sum of squared deviations), all in float64.

    ``total`` and ``squares`` are sums over the block of ``x - shift`` and of its square.
    """
    if count > 0:
        before = load(moments, at)
        mean = load(moments, at + 1)
        block = f64(count)
        offset = f64(total) / block
        deviations = max(f64(squares) - f64(total) * offset, 0.0)
        delta = f64(shift) + offset - mean
        share = block / (before + block)
        store(moments, at, before + block)
        store(moments, at + 1, mean + delta * share)
        between = delta * delta * before * share
        store(moments, at + 2, load(moments, at + 2) + deviations + between)


@jit
def block_means(x: Any, start: Any, labels: Any, offset: Any, length: Any) -> Any:
    """Means of the two regions of a block, in float32: good enough to shift by."""
    total0 = total1 = hole = f32(0)
    for i in range(length):
        value = load(x, start + i)
        inside = load(labels, offset + i) != 0
        total0 = plus(total0, f32(0) if inside else value)
        total1 = plus(total1, value if inside else f32(0))
        hole = plus(hole, f32(1) if inside else f32(0))
    known = f32(length) - hole
    return total0 / max(known, f32(1)), total1 / max(hole, f32(1))


@jit
def pair_moments(x: Any, start: Any, labels: Any, offset: Any, length: Any, moments: Any) -> None:
    """Moments of the regions 0 and 1 of a plane, added to ``moments``.

    Deviations are taken from the region's running mean: the block's own rough mean when there is
    none yet. So squares never cancel, whatever the size of the mean.
    """
    for begin in range(0, length, BLOCK):
        size = min(BLOCK, length - begin)
        shift0, shift1 = f32(load(moments, 1)), f32(load(moments, 4))
        if load(moments, 0) == 0 or load(moments, 3) == 0:
            rough0, rough1 = block_means(x, start + begin, labels, offset + begin, size)
            shift0 = rough0 if load(moments, 0) == 0 else shift0
            shift1 = rough1 if load(moments, 3) == 0 else shift1
        total0 = total1 = squares0 = squares1 = hole = f32(0)
        for i in range(begin, begin + size):
            inside = load(labels, offset + i) != 0
            value = load(x, start + i) - (shift1 if inside else shift0)
            known_value = f32(0) if inside else value
            hole_value = value if inside else f32(0)
            total0 = plus(total0, known_value)
            total1 = plus(total1, hole_value)
            squares0 = plus(squares0, known_value * known_value)
            squares1 = plus(squares1, hole_value * hole_value)
            hole = plus(hole, f32(1) if inside else f32(0))
        merge(moments, 0, f32(size) - hole, shift0, total0, squares0)
        merge(moments, 3, hole, shift1, total1, squares1)


@jit
def many_moments(
    x: Any, start: Any, labels: Any, offset: Any, length: Any, moments: Any, regions: Any
) -> None:
    """Moments of any number of regions of a plane: one pass over a cached block for each."""
    for begin in range(0, length, BLOCK):
        size = min(BLOCK, length - begin)
        for region in range(regions):
            rough = count = f32(0)
            for i in range(begin, begin + size):
                inside = load(labels, offset + i) == region
                rough = plus(rough, load(x, start + i) if inside else f32(0))
                count = plus(count, f32(1) if inside else f32(0))
            if count > 0:
                shift = rough / count
                if load(moments, 3 * region) > 0:
                    shift = f32(load(moments, 3 * region + 1))
                total = squares = f32(0)
                for i in range(begin, begin + size):
                    inside = load(labels, offset + i) == region
                    value = load(x, start + i) - shift if inside else f32(0)
                    total = plus(total, value)
                    squares = plus(squares, value * value)
                merge(moments, 3 * region, count, shift, total, squares)


@jit
def group_statistics(slots: Any, x: Any, task: Any, moments: Any) -> None:
    """Statistics of the planes of a task, written for each plane and region to ``STATS``.

    Kept are the mean as the sum of two float32 (one alone would be off by half a standard deviation
    at a mean of 1e4 and a deviation of 1e-3), 1 / std and the number of values: ``[4, N, K, C]``.
    """
    channels, length, regions = load(slots, CHANNELS), load(slots, LENGTH), load(slots, REGIONS)
    labels = pointer_to(u8, load(slots, LABELS))
    stats = pointer_to(f32, load(slots, STATS))
    for i in range(3 * regions):
        store(moments, i, 0.0)
    first = task * load(slots, FIRST)
    for member in range(load(slots, GROUP)):
        plane = first + member * load(slots, STEP)
        offset = plane // channels * load(slots, LABEL_STEP)
        if regions == 2:
            pair_moments(x, plane * length, labels, offset, length, moments)
        else:
            many_moments(x, plane * length, labels, offset, length, moments, regions)
    stride = load(slots, SAMPLES) * channels * regions
    for member in range(load(slots, GROUP)):
        plane = first + member * load(slots, STEP)
        for region in range(regions):
            count, mean = load(moments, 3 * region), load(moments, 3 * region + 1)
            variance = load(moments, 3 * region + 2) / max(count, 1.0)
            at = (plane // channels * regions + region) * channels + plane % channels
            store(stats, at, f32(mean))
            store(stats, at + stride, f32(mean - f64(f32(mean))))
            store(stats, at + 2 * stride, f32((variance + as_float(load(slots, EPS))) ** -0.5))
            store(stats, at + 3 * stride, f32(count))


# --- Region normalisation with a scale and a shift for each region and channel --------------------


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
    return load(stats, at), slope, bias - low * slope, low, inverse, load(stats, at + 3 * stride)


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


def planes_forward(arguments: Any) -> None:
    """Statistics and result of every group of planes; a task is a group."""
    slots = slots_of(arguments)
    x, y = pointer(arguments, load(slots, X)), pointer(arguments, load(slots, OUT))
    regions = load(slots, REGIONS)
    while True:
        task = next_task(slots)
        if task >= load(slots, TASKS):
            break
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
            g = f32(0) if out <= floor else load(grad, start + i)
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
            g = f32(0) if out <= floor else load(grad, start + i)
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
        g = f32(0) if result <= floor else load(grad, start + i)
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
                    g = f32(0) if result <= floor else load(grad, start + i)
                    store(out, start + i, g * slope + (value * p + q))


def planes_backward(arguments: Any) -> None:
    """Gradient of every group of planes; sums for the affine gradients go to ``SUMS`` [2, N, K, C].

    With g the gated gradient, A the affine weight and means over the region of a group (eq. 9-12):
    ``dx = (A g - mean(A g) - xhat mean(A g xhat)) / std``.
    """
    slots = slots_of(arguments)
    x, grad = pointer(arguments, load(slots, X)), pointer(arguments, load(slots, GRAD))
    out = pointer(arguments, load(slots, OUT))
    sums = pointer_to(f32, load(slots, SUMS))
    channels, regions = load(slots, CHANNELS), load(slots, REGIONS)
    stride = load(slots, SAMPLES) * channels * regions
    while True:
        task = next_task(slots)
        if task >= load(slots, TASKS):
            break
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
                store(scratch, 2 * region + 1, load(scratch, 2 * region + 1) + weight * dot)
        for member in range(load(slots, GROUP)):
            plane = task * load(slots, FIRST) + member * load(slots, STEP)
            if regions == 2:
                pair_gradient(slots, x, grad, out, plane, scratch)
            else:
                many_gradient(slots, x, grad, out, plane, scratch)


# --- Region normalisation with a scale and a shift for each pixel ---------------------------------


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
    start, offset, at = plane * length, sample * load(slots, LABEL_STEP), sample * length
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


def planes_pixel_forward(arguments: Any) -> None:
    """Statistics and result of every group of planes; a task is a group."""
    slots = slots_of(arguments)
    x, y = pointer(arguments, load(slots, X)), pointer(arguments, load(slots, OUT))
    while True:
        task = next_task(slots)
        if task >= load(slots, TASKS):
            break
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
    start, offset, at = plane * length, sample * load(slots, LABEL_STEP), sample * length
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
            g = f32(0) if out <= floor else load(grad, start + i)
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
    start, offset, at = plane * length, sample * load(slots, LABEL_STEP), sample * length
    for i in range(length):
        inside = load(labels, offset + i) != 0
        inverse = inverse1 if inside else inverse0
        value = load(x, start + i) - (mean1 if inside else mean0)
        value = value * inverse + (rest1 if inside else rest0)
        factor = load(scale, at + i)
        result = value * factor + load(shift, at + i)
        g = f32(0) if result <= floor else load(grad, start + i)
        rest = value * (p1 if inside else p0) + (q1 if inside else q0)
        store(out, start + i, (g * factor + rest) * inverse)


def planes_pixel_sums(arguments: Any) -> None:
    """First half of the backward pass: a task is ``CHUNK`` channels of a sample.

    A chunk sums its share of the gradients of scale and shift in a place of its own in ``SCRATCH``
    (float32 [N, chunks, 2, L]). Where a plane has statistics of its own, its gradient with respect
    to x follows at once, while the plane is still in the cache.
    """
    slots = slots_of(arguments)
    x, grad = pointer(arguments, load(slots, X)), pointer(arguments, load(slots, GRAD))
    out = pointer(arguments, load(slots, OUT))
    channels, length, chunk = load(slots, CHANNELS), load(slots, LENGTH), load(slots, CHUNK)
    chunks = (channels + chunk - 1) // chunk
    # A group of one plane reads its sums from the four float64 behind the shares of the pixels.
    behind = load(slots, SCRATCH) + load(slots, SAMPLES) * chunks * 2 * length * 4
    while True:
        task = next_task(slots)
        if task >= load(slots, TASKS):
            break
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


def planes_pixel_gradient(arguments: Any) -> None:
    """Second half of the backward pass for groups of several planes; a task is a group."""
    slots = slots_of(arguments)
    x, grad = pointer(arguments, load(slots, X)), pointer(arguments, load(slots, GRAD))
    out = pointer(arguments, load(slots, OUT))
    while True:
        task = next_task(slots)
        if task >= load(slots, TASKS):
            break
        scratch = pointer_to(f64, load(slots, SCRATCH) + task * 4 * 8)
        group_sums(slots, task, scratch)
        for member in range(load(slots, GROUP)):
            plane = task * load(slots, FIRST) + member * load(slots, STEP)
            pixel_gradient(slots, x, grad, out, plane, scratch)


# --- Mean and maximum over the channels -----------------------------------------------------------


def planes_mean_max(arguments: Any) -> None:
    """Mean and maximum over the channels, ``OUT`` [N, 2, L]; a task is ``CHUNK`` pixels."""
    slots = slots_of(arguments)
    x, out = pointer(arguments, load(slots, X)), pointer(arguments, load(slots, OUT))
    channels, length, chunk = load(slots, CHANNELS), load(slots, LENGTH), load(slots, CHUNK)
    chunks = (length + chunk - 1) // chunk
    share = f32(1) / f32(channels)
    while True:
        task = next_task(slots)
        if task >= load(slots, TASKS):
            break
        sample, first = task // chunks, task % chunks * chunk
        size = min(chunk, length - first)
        totals = pointer_to(f32, load(slots, SCRATCH) + task * 2 * chunk * 4)
        highest = pointer_to(f32, load(slots, SCRATCH) + (task * 2 + 1) * chunk * 4)
        for channel in range(channels):
            at = (sample * channels + channel) * length + first
            if channel == 0:
                for i in range(size):
                    value = load(x, at + i)
                    store(totals, i, value)
                    store(highest, i, value)
            else:
                for i in range(size):
                    value = load(x, at + i)
                    most = load(highest, i)
                    store(totals, i, load(totals, i) + value)
                    store(highest, i, most if value <= most else value)
        at = sample * 2 * length + first
        for i in range(size):
            store(out, at + i, load(totals, i) * share)
        for i in range(size):
            store(out, at + length + i, load(highest, i))


def planes_mean_max_backward(arguments: Any) -> None:
    """Gradient of the mean and the maximum, equal among equal maxima; a task is ``CHUNK`` pixels.

    ``STATS`` is the result of the forward pass, ``GRAD`` its gradient, both [N, 2, L].
    """
    slots = slots_of(arguments)
    x, grad = pointer(arguments, load(slots, X)), pointer(arguments, load(slots, GRAD))
    result, out = pointer(arguments, load(slots, STATS)), pointer(arguments, load(slots, OUT))
    channels, length, chunk = load(slots, CHANNELS), load(slots, LENGTH), load(slots, CHUNK)
    chunks = (length + chunk - 1) // chunk
    share = f32(1) / f32(channels)
    while True:
        task = next_task(slots)
        if task >= load(slots, TASKS):
            break
        sample, first = task // chunks, task % chunks * chunk
        size = min(chunk, length - first)
        counts = pointer_to(f32, load(slots, SCRATCH) + task * chunk * 4)
        top = sample * 2 * length + first
        for i in range(size):
            store(counts, i, f32(0))
        for channel in range(channels):
            at = (sample * channels + channel) * length + first
            for i in range(size):
                equal = load(x, at + i) == load(result, top + length + i)
                store(counts, i, load(counts, i) + (f32(1) if equal else f32(0)))
        for i in range(size):
            each = load(grad, top + length + i) / max(load(counts, i), f32(1))
            store(counts, i, each)
        for channel in range(channels):
            at = (sample * channels + channel) * length + first
            for i in range(size):
                equal = load(x, at + i) == load(result, top + length + i)
                extra = load(counts, i) if equal else f32(0)
                store(out, at + i, load(grad, top + i) * share + extra)


KERNELS: dict[str, Callable[[Any], None]] = {
    function.__name__: function
    for function in (
        planes_forward,
        planes_backward,
        planes_pixel_forward,
        planes_pixel_sums,
        planes_pixel_gradient,
        planes_mean_max,
        planes_mean_max_backward,
    )
}
