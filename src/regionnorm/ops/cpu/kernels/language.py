"""What all CPU kernels are written in: slots, loads and stores, and the loop over tasks.

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
from collections.abc import Callable
from types import FunctionType
from typing import Any

# Imported by name: what types numba declares do not fit what its compiler takes.
numba: Any = importlib.import_module("numba")
ir: Any = importlib.import_module("llvmlite.ir")
llvm: Any = importlib.import_module("llvmlite.binding")
types = numba.types

# Slots of a call. Kernels with other needs reuse the slots of what they do not have.
COUNTER, TASKS = 0, 1
SAMPLES, CHANNELS, LENGTH, REGIONS = 2, 3, 4, 5
GROUP, FIRST, STEP = 6, 7, 8  # planes that share statistics, and where they are
EPS, FLOOR = 9, 10  # float64 bit patterns
LABELS, LABEL_STEP = 11, 12
X, OUT, STATS, WEIGHT, BIAS = 13, 14, 15, 16, 17
GRAD, SUMS, SCRATCH, CHUNK = 18, 19, 20, 21
PIXEL_STEP = 22  # from one sample's scales and shifts of pixels to the next one's

OPTIONS = {"error_model": "numpy", "fastmath": {"contract"}}
KERNELS: dict[str, Callable[[Any], None]] = {}
"""All kernels by name, filled as their modules are imported."""


def jit(function: Callable[..., Any]) -> Any:
    """Compile for use inside a kernel."""
    return numba.njit(**OPTIONS)(function)


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


# --- Kernels --------------------------------------------------------------------------------------


def _run_task(arguments: Any, slots: Any, task: Any) -> None:
    """Stands for the work of a kernel on a task, in the code that all kernels share."""


def _all_tasks(arguments: Any) -> None:
    slots = slots_of(arguments)
    while True:
        task = next_task(slots)
        if task >= load(slots, TASKS):
            break
        _run_task(arguments, slots, task)


def kernel(work: Callable[[Any, Any, Any], None]) -> Any:
    """Make ``work(arguments, slots, task)`` a kernel, which does so for each task that it draws."""
    name = work.__name__
    # No closure: numba keeps compiled closures for the process that compiled them only.
    words = {**globals(), "_run_task": jit(work)}
    whole = FunctionType(_all_tasks.__code__, words, name)
    whole.__qualname__ = name
    KERNELS[name] = whole
    return whole


# --- Parts that kernels share ---------------------------------------------------------------------


@jit
def block_of(slots: Any, task: Any) -> Any:
    """Sample, first pixel and end of the block of ``CHUNK`` pixels that is a task."""
    length, chunk = load(slots, LENGTH), load(slots, CHUNK)
    blocks = (length + chunk - 1) // chunk
    begin = task % blocks * chunk
    return task // blocks, begin, min(begin + chunk, length)


@jit
def gate(grad: Any, out: Any, floor: Any) -> Any:
    """Gradient that passes the ReLU. Loaded in any case: lanes of a vector do not branch."""
    return f32(0) if out <= floor else grad
