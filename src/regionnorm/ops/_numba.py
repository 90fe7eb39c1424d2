"""CPU kernels for contiguous features, compiled by numba to plain C functions.

A kernel takes one pointer to a row of 64-bit slots (addresses, sizes and bit patterns of floats)
and works on tasks that it draws from a counter in the first slot until none is left. So any number
of threads may run the same call at once. Which thread gets a task never matters: the arithmetic of
a task is fixed, and tasks write to places of their own.

The type of the slot pointer says what the features are: ``float32*`` for float32, ``uint16*`` for
bfloat16. Arithmetic is in float32, and partial sums of a block are combined in float64.
"""

from __future__ import annotations

import functools
import importlib
import math
from collections.abc import Callable
from typing import Any

# Imported by name: what types numba declares do not fit what its compiler takes.
numba: Any = importlib.import_module("numba")
ir: Any = importlib.import_module("llvmlite.ir")
llvm: Any = importlib.import_module("llvmlite.binding")
types = numba.types

__all__ = ["compile_kernel"]

BLOCK = 4096  # pixels of a plane taken at a time: they stay in the first-level cache
PILOT, ENOUGH = 256, 8  # pixels looked at for a rough mean, and how many of a region will do
NUM_SLOTS = 24

# Slots of a call. Kernels with other needs reuse the slots of what they do not have.
COUNTER, TASKS = 0, 1
SAMPLES, CHANNELS, LENGTH, REGIONS = 2, 3, 4, 5
GROUP, FIRST, STEP = 6, 7, 8  # planes that share statistics, and where they are
EPS, FLOOR = 9, 10  # float64 bit patterns
LABELS, LABEL_STEP = 11, 12
X, OUT, STATS, WEIGHT, BIAS = 13, 14, 15, 16, 17
GRAD, SUMS, SCRATCH, CHUNK = 18, 19, 20, 21
PIXEL_STEP = 22  # from one sample's scales and shifts of pixels to the next one's


def compile_kernel(name: str, bfloat16: bool) -> int:
    """Compile the kernel ``name``, or load it from numba's cache; return its address."""
    element = types.uint16 if bfloat16 else types.float32
    signature = types.void(types.CPointer(element))
    options = {"error_model": "numpy", "fastmath": {"contract"}}
    try:
        compiled = numba.cfunc(signature, cache=True, **options)(KERNELS[name])
    except RuntimeError:  # there is no folder to keep compiled code in
        compiled = numba.cfunc(signature, **options)(KERNELS[name])
    return int(compiled.address)


def jit(function: Callable[..., Any]) -> Any:
    """Compile for use inside a kernel."""
    return numba.njit(error_model="numpy", fastmath={"contract"})(function)


def intrinsic(function: Callable[..., Any]) -> Any:
    """A function that writes the compiler's instructions itself."""
    return numba.extending.intrinsic(function)


# --- What numba has no words for ------------------------------------------------------------------


@intrinsic
def pointer(typing: Any, like: Any, address: Any) -> Any:
    """Pointer of the type of ``like`` to an integer address."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[1], context.get_value_type(signature.return_type))

    return like(like, types.int64), generate


@intrinsic
def pointer_to(typing: Any, kind: Any, address: Any) -> Any:
    """Pointer to values of the type ``kind`` at an integer address."""
    result = types.CPointer(kind.dtype)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[1], context.get_value_type(result))

    return result(kind, types.int64), generate


@intrinsic
def slots_of(typing: Any, arguments_pointer: Any) -> Any:
    """The kernel's argument as a pointer to its 64-bit slots."""
    result = types.CPointer(types.int64)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], context.get_value_type(result))

    return result(arguments_pointer), generate


@intrinsic
def load(typing: Any, source: Any, index: Any) -> Any:
    """``source[index]``; bfloat16 (held as uint16) becomes float32, labels become int32."""
    return read(source, constant=False)


@intrinsic
def fixed(typing: Any, source: Any, index: Any) -> Any:
    """As ``load``, from memory that nothing writes to during the call.

    The compiler needs no check then that stores leave it alone, which short loops would feel.
    """
    return read(source, constant=True)


def read(source: Any, constant: bool) -> Any:
    """Signature and code of ``load`` and ``fixed``."""
    element = source.dtype
    result = {types.uint16: types.float32, types.uint8: types.int32}.get(element, element)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        value = builder.load(builder.gep(arguments[0], [arguments[1]], inbounds=True))
        if constant:
            value.set_metadata("invariant.load", builder.module.add_metadata([]))
        if element == types.uint16:
            bits = builder.shl(builder.zext(value, ir.IntType(32)), ir.IntType(32)(16))
            return builder.bitcast(bits, ir.FloatType())
        if element == types.uint8:
            return builder.zext(value, ir.IntType(32))
        return value

    return result(source, types.int64), generate


class BFloat(ir.Type):  # type: ignore[misc]
    """The compiler's own bfloat16, which llvmlite has no name for."""

    def _to_string(self) -> str:
        return "bfloat"


FIRST_TO_ASK = 20  # older versions of LLVM end the process where they cannot round
QUESTION = """
define bfloat @round(float %x) {
  %y = fptrunc float %x to bfloat
  ret bfloat %y
}
"""


@functools.cache
def has_rounding() -> bool:
    """Whether the compiler itself rounds to bfloat16 on the processor that it compiles for.

    Else it would call a function of a library that is not there, and the process would end. The
    processor may have instructions that numba is told not to use (``NUMBA_CPU_NAME``).
    """
    if llvm.llvm_version_info[0] < FIRST_TO_ASK:
        return False
    codegen = numba.core.registry.cpu_target.target_context.codegen()
    machine = getattr(codegen, "_tm", None)
    if machine is None:
        return False
    module = llvm.parse_assembly(QUESTION)
    module.triple = machine.triple
    return "__truncsfbf2" not in machine.emit_assembly(module)


def round_to_bfloat16(builder: Any, value: Any) -> Any:
    """The upper half of a float32, rounded to nearest even."""
    if has_rounding():
        return builder.bitcast(builder.fptrunc(value, BFloat()), ir.IntType(16))
    word = ir.IntType(32)
    bits = builder.bitcast(value, word)
    odd = builder.and_(builder.lshr(bits, word(16)), word(1))
    rounded = builder.add(bits, builder.add(odd, word(0x7FFF)))
    not_a_number = builder.fcmp_unordered("uno", value, value)
    high = builder.select(not_a_number, word(0x7FC00000), rounded)
    return builder.trunc(builder.lshr(high, word(16)), ir.IntType(16))


@intrinsic
def store(typing: Any, target: Any, index: Any, value: Any) -> Any:
    """``target[index] = value``; float32 is rounded to nearest even for bfloat16."""
    element = target.dtype
    given = types.float32 if element == types.uint16 else element

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place = builder.gep(arguments[0], [arguments[1]], inbounds=True)
        value = arguments[2]
        if element == types.uint16:
            value = round_to_bfloat16(builder, value)
        builder.store(value, place)
        return context.get_dummy_value()

    return types.void(target, types.int64, given), generate


@intrinsic
def plus(typing: Any, total: Any, value: Any) -> Any:
    """``total + value`` that may be regrouped, so that a sum runs on all lanes of a vector.

    Only the sums say so. Were all arithmetic free to be regrouped, ``total + (x - shift)`` could
    become ``(total + x) - shift`` and lose what the shift is for.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.fadd(*arguments, flags=("reassoc", "contract"))

    return types.float32(types.float32, types.float32), generate


@intrinsic
def larger(typing: Any, most: Any, value: Any) -> Any:
    """The larger of two numbers, in a form that runs on all lanes of a vector; NaN is lost."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        flags = ("nnan", "nsz")
        above = builder.fcmp_ordered(">", arguments[0], arguments[1], flags=flags)
        return builder.select(above, arguments[0], arguments[1], flags=flags)

    return types.float32(types.float32, types.float32), generate


@intrinsic
def as_float(typing: Any, bits: Any) -> Any:
    """The float64 with the given bit pattern."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.DoubleType())

    return types.float64(types.int64), generate


@intrinsic
def next_task(typing: Any, slots: Any) -> Any:
    """Draw the number of a task that no other thread has drawn."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.atomic_rmw("add", arguments[0], ir.IntType(64)(1), "monotonic")

    return types.int64(slots), generate


f32, f64, u8, i64 = types.float32, types.float64, types.uint8, types.int64


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
    return total0 / max(known, f32(1)), total1 / max(hole, f32(1)), known, hole


@jit
def rough_means(x: Any, start: Any, labels: Any, offset: Any, length: Any) -> Any:
    """As ``block_means``, from the first pixels alone where they show enough of both regions."""
    size = min(length, PILOT)
    rough0, rough1, known, hole = block_means(x, start, labels, offset, size)
    if size < length and (known < ENOUGH or hole < ENOUGH):
        rough0, rough1, known, hole = block_means(x, start, labels, offset, length)
    return rough0, rough1


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
            rough0, rough1 = rough_means(x, start + begin, labels, offset + begin, size)
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
    x: Any,
    start: Any,
    labels: Any,
    offset: Any,
    length: Any,
    moments: Any,
    regions: Any,
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
    channels, length, regions = (
        load(slots, CHANNELS),
        load(slots, LENGTH),
        load(slots, REGIONS),
    )
    labels = pointer_to(u8, load(slots, LABELS))
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
    for member in range(load(slots, GROUP)):
        plane = first + member * load(slots, STEP)
        for region in range(regions):
            count, mean = load(moments, 3 * region), load(moments, 3 * region + 1)
            write_statistics(slots, plane, region, count, mean, load(moments, 3 * region + 2))


@jit
def write_statistics(
    slots: Any, plane: Any, region: Any, count: Any, mean: Any, deviations: Any
) -> None:
    """Store the statistics of a region of a plane in ``STATS``."""
    channels, regions = load(slots, CHANNELS), load(slots, REGIONS)
    stats = pointer_to(f32, load(slots, STATS))
    stride = load(slots, SAMPLES) * channels * regions
    variance = deviations / max(count, 1.0)
    at = (plane // channels * regions + region) * channels + plane % channels
    store(stats, at, f32(mean))
    store(stats, at + stride, f32(mean - f64(f32(mean))))
    store(stats, at + 2 * stride, f32(1.0 / math.sqrt(variance + as_float(load(slots, EPS)))))
    store(stats, at + 3 * stride, f32(count))


@jit
def gate(grad: Any, out: Any, floor: Any) -> Any:
    """Gradient that passes the ReLU. Loaded in any case: lanes of a vector do not branch."""
    return f32(0) if out <= floor else grad


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


def planes_pixel_sums(arguments: Any) -> None:
    """First half of the backward pass: a task is ``CHUNK`` channels of a sample.

    A chunk sums its share of the gradients of scale and shift in a place of its own in ``SCRATCH``
    (float32 [N, chunks, 2, L]). Where a plane has statistics of its own, its gradient with respect
    to x follows at once, while the plane is still in the cache.
    """
    slots = slots_of(arguments)
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
    """Mean and maximum over the channels, ``OUT`` float32 [N, 2, L]; a task is ``CHUNK`` pixels."""
    slots = slots_of(arguments)
    x, out = pointer(arguments, load(slots, X)), pointer_to(f32, load(slots, OUT))
    channels, length, chunk = (
        load(slots, CHANNELS),
        load(slots, LENGTH),
        load(slots, CHUNK),
    )
    chunks = (length + chunk - 1) // chunk
    share = f32(1) / f32(channels)
    while True:
        task = next_task(slots)
        if task >= load(slots, TASKS):
            break
        sample, first = task // chunks, task % chunks * chunk
        size = min(chunk, length - first)
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


def planes_mean_max_backward(arguments: Any) -> None:
    """Gradient of the mean and the maximum, equal among equal maxima; a task is ``CHUNK`` pixels.

    ``STATS`` is the result of the forward pass, ``GRAD`` its gradient, both float32 [N, 2, L]. With
    ``SUMS`` the gradient is added to what ``OUT`` holds.
    """
    slots = slots_of(arguments)
    x, out = pointer(arguments, load(slots, X)), pointer(arguments, load(slots, OUT))
    result, grad = (
        pointer_to(f32, load(slots, STATS)),
        pointer_to(f32, load(slots, GRAD)),
    )
    channels, length, chunk = (
        load(slots, CHANNELS),
        load(slots, LENGTH),
        load(slots, CHUNK),
    )
    chunks = (length + chunk - 1) // chunk
    share = f32(1) / f32(channels)
    while True:
        task = next_task(slots)
        if task >= load(slots, TASKS):
            break
        sample, first = task // chunks, task % chunks * chunk
        size = min(chunk, length - first)
        each = pointer_to(f32, load(slots, SCRATCH) + task * chunk * 4)
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


# --- Channels-last features -----------------------------------------------------------------------
#
# Here a pixel's channels lie side by side, so that the innermost loop runs over them, and a task is
# a block of ``CHUNK`` pixels of a sample. Statistics need a pass of their own over all blocks. Sums
# of blocks are ``[N, blocks, K, 2, C]`` in ``SCRATCH``. Later passes take the blocks from the last
# to the first: what was read last is still in the cache. They find the coefficients ready in
# ``STATS`` [N, K, 3, C]: mean, slope and intercept.

PILOTS = 32  # pixels of a sample that make the rough mean from which deviations are taken


@jit
def region_of(slots: Any, labels: Any, at: Any) -> Any:
    """Label of a pixel, kept in range whatever the map holds."""
    return min(i64(fixed(labels, at)), load(slots, REGIONS) - 1)


def rows_pilot(arguments: Any) -> None:
    """Rough mean of every region in ``SUMS`` [N, K, C] and its size in ``WEIGHT`` [N, K]."""
    slots = slots_of(arguments)
    x, labels = pointer(arguments, load(slots, X)), pointer_to(u8, load(slots, LABELS))
    channels, length, regions = load(slots, CHANNELS), load(slots, LENGTH), load(slots, REGIONS)
    while True:
        sample = next_task(slots)
        if sample >= load(slots, TASKS):
            break
        rough = pointer_to(f32, load(slots, SUMS) + sample * regions * channels * 4)
        counts = pointer_to(f32, load(slots, WEIGHT) + sample * regions * 4)
        offset, start = sample * load(slots, LABEL_STEP), sample * length * channels
        for i in range(regions * channels):
            store(rough, i, f32(0))
        step = max(length // PILOTS, 1)
        for region in range(regions):
            taken = count = f32(0)
            for i in range(length):
                count = plus(count, f32(1) if fixed(labels, offset + i) == region else f32(0))
            if count == 0:
                store(counts, region, count)
                continue
            for i in range(0, length, step):
                if fixed(labels, offset + i) == region:
                    taken += f32(1)
                    for c in range(channels):
                        value = load(rough, region * channels + c)
                        value += fixed(x, start + i * channels + c)
                        store(rough, region * channels + c, value)
            if taken == 0:
                i = 0
                while fixed(labels, offset + i) != region:
                    i += 1
                taken = f32(1)
                for c in range(channels):
                    store(rough, region * channels + c, fixed(x, start + i * channels + c))
            for c in range(channels):
                at = region * channels + c
                store(rough, at, load(rough, at) / taken)
            store(counts, region, count)


def rows_moments(arguments: Any) -> None:
    """Sums over blocks of x - rough mean and of its square."""
    slots = slots_of(arguments)
    x, labels = pointer(arguments, load(slots, X)), pointer_to(u8, load(slots, LABELS))
    channels, length, regions = load(slots, CHANNELS), load(slots, LENGTH), load(slots, REGIONS)
    chunk = load(slots, CHUNK)
    blocks = (length + chunk - 1) // chunk
    while True:
        task = next_task(slots)
        if task >= load(slots, TASKS):
            break
        sample, begin = task // blocks, task % blocks * chunk
        rough = pointer_to(f32, load(slots, SUMS) + sample * regions * channels * 4)
        sums = pointer_to(f32, load(slots, SCRATCH) + task * regions * 2 * channels * 4)
        offset = sample * load(slots, LABEL_STEP)
        for i in range(regions * 2 * channels):
            store(sums, i, f32(0))
        for i in range(begin, min(begin + chunk, length)):
            region = region_of(slots, labels, offset + i)
            start, at = (sample * length + i) * channels, region * 2 * channels
            for c in range(channels):
                value = fixed(x, start + c) - fixed(rough, region * channels + c)
                store(sums, at + c, load(sums, at + c) + value)
                square = load(sums, at + channels + c) + value * value
                store(sums, at + channels + c, square)


def rows_statistics(arguments: Any) -> None:
    """Combine blocks to the statistics of groups, ``STATS`` [4, N, K, C]; a task is a group."""
    slots = slots_of(arguments)
    channels, length, regions = load(slots, CHANNELS), load(slots, LENGTH), load(slots, REGIONS)
    chunk = load(slots, CHUNK)
    blocks = (length + chunk - 1) // chunk
    counts, rough = pointer_to(f32, load(slots, WEIGHT)), pointer_to(f32, load(slots, SUMS))
    sums = pointer_to(f32, load(slots, SCRATCH))
    while True:
        task = next_task(slots)
        if task >= load(slots, TASKS):
            break
        for region in range(regions):
            count = mean = deviations = 0.0
            for member in range(load(slots, GROUP)):
                plane = task * load(slots, FIRST) + member * load(slots, STEP)
                sample, channel = plane // channels, plane % channels
                size = f64(load(counts, sample * regions + region))
                total = squares = 0.0
                for block in range(blocks):
                    at = ((sample * blocks + block) * regions + region) * 2 * channels + channel
                    total += f64(load(sums, at))
                    squares += f64(load(sums, at + channels))
                if size > 0:
                    offset = total / size
                    shift = f64(load(rough, (sample * regions + region) * channels + channel))
                    delta = shift + offset - mean
                    share = size / (count + size)
                    deviations += max(squares - total * offset, 0.0)
                    deviations += delta * delta * count * share
                    mean += delta * share
                    count += size
            for member in range(load(slots, GROUP)):
                plane = task * load(slots, FIRST) + member * load(slots, STEP)
                write_statistics(slots, plane, region, count, mean, deviations)


def rows_forward(arguments: Any) -> None:
    """Result of ``region_norm``."""
    slots = slots_of(arguments)
    x, y = pointer(arguments, load(slots, X)), pointer(arguments, load(slots, OUT))
    labels, table = pointer_to(u8, load(slots, LABELS)), pointer_to(f32, load(slots, STATS))
    channels, length, chunk = load(slots, CHANNELS), load(slots, LENGTH), load(slots, CHUNK)
    blocks = (length + chunk - 1) // chunk
    floor = f32(as_float(load(slots, FLOOR)))
    while True:
        task = load(slots, TASKS) - 1 - next_task(slots)
        if task < 0:
            break
        sample, begin = task // blocks, task % blocks * chunk
        offset = sample * load(slots, LABEL_STEP)
        for i in range(begin, min(begin + chunk, length)):
            start = (sample * length + i) * channels
            region = region_of(slots, labels, offset + i)
            at = (sample * load(slots, REGIONS) + region) * 3 * channels
            for c in range(channels):
                value = fixed(x, start + c) - fixed(table, at + c)
                value *= fixed(table, at + channels + c)
                value += fixed(table, at + 2 * channels + c)
                store(y, start + c, floor if value < floor else value)


def rows_sums(arguments: Any) -> None:
    """Sums over blocks of g and of g * (x - mean), with g gated by the ReLU."""
    slots = slots_of(arguments)
    x, grad = pointer(arguments, load(slots, X)), pointer(arguments, load(slots, GRAD))
    labels, table = pointer_to(u8, load(slots, LABELS)), pointer_to(f32, load(slots, STATS))
    channels, length, regions = load(slots, CHANNELS), load(slots, LENGTH), load(slots, REGIONS)
    chunk = load(slots, CHUNK)
    blocks = (length + chunk - 1) // chunk
    floor = f32(as_float(load(slots, FLOOR)))
    while True:
        task = next_task(slots)
        if task >= load(slots, TASKS):
            break
        sample, begin = task // blocks, task % blocks * chunk
        sums = pointer_to(f32, load(slots, SCRATCH) + task * regions * 2 * channels * 4)
        offset = sample * load(slots, LABEL_STEP)
        for i in range(regions * 2 * channels):
            store(sums, i, f32(0))
        for i in range(begin, min(begin + chunk, length)):
            start = (sample * length + i) * channels
            region = region_of(slots, labels, offset + i)
            at, into = (sample * regions + region) * 3 * channels, region * 2 * channels
            for c in range(channels):
                value = fixed(x, start + c) - fixed(table, at + c)
                out = value * fixed(table, at + channels + c)
                out += fixed(table, at + 2 * channels + c)
                g = gate(fixed(grad, start + c), out, floor)
                store(sums, into + c, load(sums, into + c) + g)
                product = load(sums, into + channels + c) + g * value
                store(sums, into + channels + c, product)


def rows_combine(arguments: Any) -> None:
    """Combine the sums of blocks; a task is a group.

    ``SUMS`` [2, N, K, C] gets the sums of g * xhat and of g, ``GRAD`` [N, K, 2, C] the p and q of
    the gradient ``slope * g + p * (x - mean) + q``.
    """
    slots = slots_of(arguments)
    channels, length, regions = load(slots, CHANNELS), load(slots, LENGTH), load(slots, REGIONS)
    blocks = (length + load(slots, CHUNK) - 1) // load(slots, CHUNK)
    parts, sums = pointer_to(f32, load(slots, SCRATCH)), pointer_to(f32, load(slots, SUMS))
    stats, table = pointer_to(f32, load(slots, STATS)), pointer_to(f32, load(slots, GRAD))
    weights = pointer_to(f32, load(slots, WEIGHT))
    stride = load(slots, SAMPLES) * channels * regions
    while True:
        task = next_task(slots)
        if task >= load(slots, TASKS):
            break
        for region in range(regions):
            group_total = group_dot = 0.0
            for member in range(load(slots, GROUP)):
                plane = task * load(slots, FIRST) + member * load(slots, STEP)
                sample, channel = plane // channels, plane % channels
                total = dot = 0.0
                for block in range(blocks):
                    at = ((sample * blocks + block) * regions + region) * 2 * channels + channel
                    total += f64(load(parts, at))
                    dot += f64(load(parts, at + channels))
                at = (sample * regions + region) * channels + channel
                dot = dot - f64(load(stats, at + stride)) * total
                dot *= f64(load(stats, at + 2 * stride))
                store(sums, at, f32(dot))
                store(sums, at + stride, f32(total))
                weight = 1.0
                if load(slots, WEIGHT) != 0:
                    weight = f64(load(weights, region * channels + channel))
                group_total += weight * total
                group_dot += weight * dot
            for member in range(load(slots, GROUP)):
                plane = task * load(slots, FIRST) + member * load(slots, STEP)
                sample, channel = plane // channels, plane % channels
                at = (sample * regions + region) * channels + channel
                inverse = f64(load(stats, at + 2 * stride))
                count = max(f64(load(stats, at + 3 * stride)), 1.0)
                p = -group_dot / count * inverse * inverse
                q = -group_total / count * inverse - p * f64(load(stats, at + stride))
                into = (sample * regions + region) * 2 * channels + channel
                store(table, into, f32(p))
                store(table, into + channels, f32(q))


def rows_gradient(arguments: Any) -> None:
    """Gradient of x; ``SUMS`` is the table of p and q."""
    slots = slots_of(arguments)
    x, grad = pointer(arguments, load(slots, X)), pointer(arguments, load(slots, GRAD))
    out = pointer(arguments, load(slots, OUT))
    labels, table = pointer_to(u8, load(slots, LABELS)), pointer_to(f32, load(slots, STATS))
    rest = pointer_to(f32, load(slots, SUMS))
    channels, length, chunk = load(slots, CHANNELS), load(slots, LENGTH), load(slots, CHUNK)
    blocks = (length + chunk - 1) // chunk
    floor = f32(as_float(load(slots, FLOOR)))
    while True:
        task = load(slots, TASKS) - 1 - next_task(slots)
        if task < 0:
            break
        sample, begin = task // blocks, task % blocks * chunk
        offset = sample * load(slots, LABEL_STEP)
        for i in range(begin, min(begin + chunk, length)):
            start = (sample * length + i) * channels
            region = region_of(slots, labels, offset + i)
            row = sample * load(slots, REGIONS) + region
            at, pq = row * 3 * channels, row * 2 * channels
            for c in range(channels):
                value = fixed(x, start + c) - fixed(table, at + c)
                slope = fixed(table, at + channels + c)
                result = value * slope + fixed(table, at + 2 * channels + c)
                g = gate(fixed(grad, start + c), result, floor)
                tail = value * fixed(rest, pq + c) + fixed(rest, pq + channels + c)
                store(out, start + c, g * slope + tail)


def rows_pixel_forward(arguments: Any) -> None:
    """Result of ``region_norm_per_pixel``."""
    slots = slots_of(arguments)
    x, y = pointer(arguments, load(slots, X)), pointer(arguments, load(slots, OUT))
    labels, table = pointer_to(u8, load(slots, LABELS)), pointer_to(f32, load(slots, STATS))
    scales, shifts = pointer_to(f32, load(slots, WEIGHT)), pointer_to(f32, load(slots, BIAS))
    channels, length, chunk = load(slots, CHANNELS), load(slots, LENGTH), load(slots, CHUNK)
    blocks = (length + chunk - 1) // chunk
    floor = f32(as_float(load(slots, FLOOR)))
    while True:
        task = load(slots, TASKS) - 1 - next_task(slots)
        if task < 0:
            break
        sample, begin = task // blocks, task % blocks * chunk
        offset, pixels = sample * load(slots, LABEL_STEP), sample * load(slots, PIXEL_STEP)
        for i in range(begin, min(begin + chunk, length)):
            start = (sample * length + i) * channels
            at = (sample * 2 + region_of(slots, labels, offset + i)) * 3 * channels
            scale, shift = fixed(scales, pixels + i), fixed(shifts, pixels + i)
            for c in range(channels):
                value = fixed(x, start + c) - fixed(table, at + c)
                value *= fixed(table, at + channels + c)
                value += fixed(table, at + 2 * channels + c)
                value = value * scale + shift
                store(y, start + c, floor if value < floor else value)


def rows_pixel_sums(arguments: Any) -> None:
    """As ``rows_sums`` with g * scale for g; gradients of scale and shift in ``OUT`` [N, 2, L]."""
    slots = slots_of(arguments)
    x, grad = pointer(arguments, load(slots, X)), pointer(arguments, load(slots, GRAD))
    maps = pointer_to(f32, load(slots, OUT))
    labels, table = pointer_to(u8, load(slots, LABELS)), pointer_to(f32, load(slots, STATS))
    scales, shifts = pointer_to(f32, load(slots, WEIGHT)), pointer_to(f32, load(slots, BIAS))
    channels, length, chunk = load(slots, CHANNELS), load(slots, LENGTH), load(slots, CHUNK)
    blocks = (length + chunk - 1) // chunk
    floor = f32(as_float(load(slots, FLOOR)))
    while True:
        task = next_task(slots)
        if task >= load(slots, TASKS):
            break
        sample, begin = task // blocks, task % blocks * chunk
        sums = pointer_to(f32, load(slots, SCRATCH) + task * 2 * 2 * channels * 4)
        offset, pixels = sample * load(slots, LABEL_STEP), sample * load(slots, PIXEL_STEP)
        for i in range(2 * 2 * channels):
            store(sums, i, f32(0))
        for i in range(begin, min(begin + chunk, length)):
            start = (sample * length + i) * channels
            region = region_of(slots, labels, offset + i)
            at, into = (sample * 2 + region) * 3 * channels, region * 2 * channels
            scale, shift = fixed(scales, pixels + i), fixed(shifts, pixels + i)
            of_scale = of_shift = f32(0)
            for c in range(channels):
                value = fixed(x, start + c) - fixed(table, at + c)
                normal = value * fixed(table, at + channels + c)
                normal += fixed(table, at + 2 * channels + c)
                g = gate(fixed(grad, start + c), normal * scale + shift, floor)
                of_scale, of_shift = plus(of_scale, g * normal), plus(of_shift, g)
                g *= scale
                store(sums, into + c, load(sums, into + c) + g)
                product = load(sums, into + channels + c) + g * value
                store(sums, into + channels + c, product)
            store(maps, sample * 2 * length + i, of_scale)
            store(maps, (sample * 2 + 1) * length + i, of_shift)


def rows_pixel_gradient(arguments: Any) -> None:
    """Gradient of x; ``SUMS`` is the table of p and q."""
    slots = slots_of(arguments)
    x, grad = pointer(arguments, load(slots, X)), pointer(arguments, load(slots, GRAD))
    out = pointer(arguments, load(slots, OUT))
    labels, table = pointer_to(u8, load(slots, LABELS)), pointer_to(f32, load(slots, STATS))
    scales, shifts = pointer_to(f32, load(slots, WEIGHT)), pointer_to(f32, load(slots, BIAS))
    rest = pointer_to(f32, load(slots, SUMS))
    channels, length, chunk = load(slots, CHANNELS), load(slots, LENGTH), load(slots, CHUNK)
    blocks = (length + chunk - 1) // chunk
    floor = f32(as_float(load(slots, FLOOR)))
    while True:
        task = load(slots, TASKS) - 1 - next_task(slots)
        if task < 0:
            break
        sample, begin = task // blocks, task % blocks * chunk
        offset, pixels = sample * load(slots, LABEL_STEP), sample * load(slots, PIXEL_STEP)
        for i in range(begin, min(begin + chunk, length)):
            start = (sample * length + i) * channels
            row = sample * 2 + region_of(slots, labels, offset + i)
            at, pq = row * 3 * channels, row * 2 * channels
            scale, shift = fixed(scales, pixels + i), fixed(shifts, pixels + i)
            for c in range(channels):
                value = fixed(x, start + c) - fixed(table, at + c)
                slope = fixed(table, at + channels + c)
                normal = value * slope + fixed(table, at + 2 * channels + c)
                g = gate(fixed(grad, start + c), normal * scale + shift, floor)
                tail = value * fixed(rest, pq + c) + fixed(rest, pq + channels + c)
                store(out, start + c, g * scale * slope + tail)


def rows_mean_max(arguments: Any) -> None:
    """Mean and maximum over the channels, ``OUT`` float32 [N, 2, L]."""
    slots = slots_of(arguments)
    x, out = pointer(arguments, load(slots, X)), pointer_to(f32, load(slots, OUT))
    channels, length, chunk = load(slots, CHANNELS), load(slots, LENGTH), load(slots, CHUNK)
    blocks = (length + chunk - 1) // chunk
    share = f32(1) / f32(channels)
    while True:
        task = next_task(slots)
        if task >= load(slots, TASKS):
            break
        sample, begin = task // blocks, task % blocks * chunk
        for i in range(begin, min(begin + chunk, length)):
            start = (sample * length + i) * channels
            total, most = f32(0), fixed(x, start)
            for c in range(channels):
                value = fixed(x, start + c)
                total, most = plus(total, value), larger(most, value)
            mean, highest = sample * 2 * length + i, (sample * 2 + 1) * length + i
            store(out, mean, total * share)
            store(out, highest, most)
            keep_nan(out, mean, highest, x, start, 1, channels)


def rows_mean_max_backward(arguments: Any) -> None:
    """As ``planes_mean_max_backward``."""
    slots = slots_of(arguments)
    x, out = pointer(arguments, load(slots, X)), pointer(arguments, load(slots, OUT))
    result, grad = pointer_to(f32, load(slots, STATS)), pointer_to(f32, load(slots, GRAD))
    channels, length, chunk = load(slots, CHANNELS), load(slots, LENGTH), load(slots, CHUNK)
    blocks = (length + chunk - 1) // chunk
    share = f32(1) / f32(channels)
    while True:
        task = next_task(slots)
        if task >= load(slots, TASKS):
            break
        sample, begin = task // blocks, task % blocks * chunk
        for i in range(begin, min(begin + chunk, length)):
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


# --- Convolutions between maps of one or two channels ---------------------------------------------
#
# Libraries of convolutions are built for many channels; on two they take ten times what is needed.


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


def small_convolution(arguments: Any) -> None:
    """Correlation of ``X`` [N, I, H + k - 1, W + k - 1] with ``WEIGHT`` [O, I, k, k].

    ``CHANNELS`` is I, ``REGIONS`` O, ``FIRST`` H, ``STEP`` W, ``GROUP`` k; values are float32. A
    task is a row of the result in all its channels.
    """
    slots = slots_of(arguments)
    x, out = pointer(arguments, load(slots, X)), pointer(arguments, load(slots, OUT))
    weight, bias = (
        pointer(arguments, load(slots, WEIGHT)),
        pointer(arguments, load(slots, BIAS)),
    )
    inputs, outputs, k = load(slots, CHANNELS), load(slots, REGIONS), load(slots, GROUP)
    height, width = load(slots, FIRST), load(slots, STEP)
    while True:
        task = next_task(slots)
        if task >= load(slots, TASKS):
            break
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


def small_convolution_weights(arguments: Any) -> None:
    """Gradient of the weights of ``small_convolution``; ``GRAD`` is [N, O, H, W].

    A task is ``CHUNK`` rows of the batch, whose share goes to a place of its own in ``OUT``
    [tasks, O, I, k, k].
    """
    slots = slots_of(arguments)
    x, grad = pointer(arguments, load(slots, X)), pointer(arguments, load(slots, GRAD))
    inputs, outputs, k = load(slots, CHANNELS), load(slots, REGIONS), load(slots, GROUP)
    height, width, chunk = load(slots, FIRST), load(slots, STEP), load(slots, CHUNK)
    weights = outputs * inputs * k * k
    while True:
        task = next_task(slots)
        if task >= load(slots, TASKS):
            break
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
        rows_pilot,
        rows_moments,
        rows_statistics,
        rows_forward,
        rows_sums,
        rows_combine,
        rows_gradient,
        rows_pixel_forward,
        rows_pixel_sums,
        rows_pixel_gradient,
        rows_mean_max,
        rows_mean_max_backward,
        small_convolution,
        small_convolution_weights,
    )
}
