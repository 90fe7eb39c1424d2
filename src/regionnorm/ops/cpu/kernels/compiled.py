"""Kernels compiled to plain C functions, and kept for the next process."""

from __future__ import annotations

from pathlib import Path

from regionnorm.files.compiled import stamp_of
from regionnorm.ops.cpu.kernels import (
    convolution,
    mean_max,
    planes,
    planes_pixel,
    rows,
    rows_pixel,
)
from regionnorm.ops.cpu.kernels.language import KERNELS, OPTIONS, numba, types

__all__ = ["compile_kernel"]

MODULES = (convolution, mean_max, planes, planes_pixel, rows, rows_pixel)  # they fill KERNELS
FOLDER = Path(__file__).parent


def compile_kernel(name: str, bfloat16: bool) -> int:
    """Compile the kernel ``name``, or load what was compiled before; return its address."""
    function = KERNELS[name]
    element = types.uint16 if bfloat16 else types.float32
    signature = types.void(types.CPointer(element))
    stamp = stamp_of(FOLDER)
    if stamp is not None:
        # A kernel is made of parts from all files of this folder.
        function.__code__ = function.__code__.replace(co_filename=str(stamp))
    try:
        compiled = numba.cfunc(signature, cache=stamp is not None, **OPTIONS)(function)
    except (OSError, RuntimeError):  # numba found no place after all
        compiled = numba.cfunc(signature, **OPTIONS)(function)
    return int(compiled.address)
