"""Run a compiled kernel on several threads."""

from __future__ import annotations

import ctypes
import functools
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

__all__ = ["run_on_threads"]


def run_on_threads(address: int, slots: ctypes.Array[ctypes.c_int64], threads: int) -> None:
    """Call ``void kernel(void* slots)`` on ``threads`` threads at once and wait for all.

    The threads are those of PyTorch's own OpenMP pool where there is one. A pool beside it would
    fight with it for the cores: an OpenMP thread that is out of work keeps its core busy for some
    milliseconds to be ready for more.
    """
    if threads <= 1:
        _kernel(address)(slots)
        return
    openmp = _openmp_parallel()
    if openmp is not None:
        openmp(address, slots, threads, 0)
        return
    kernel = _kernel(address)
    others = [_pool(os.getpid(), threads).submit(kernel, slots) for _ in range(threads - 1)]
    kernel(slots)
    for other in others:
        other.result()


@functools.cache
def _kernel(address: int) -> Any:
    return ctypes.CFUNCTYPE(None, ctypes.c_void_p)(address)


@functools.cache
def _openmp_parallel() -> Any:
    """``GOMP_parallel(function, data, threads, flags)`` of the library PyTorch itself uses.

    GNU's and, on Linux, LLVM's and Intel's OpenMP have it. None where it is not found.
    """
    library = Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"
    try:
        function = ctypes.CDLL(str(library)).GOMP_parallel
    except (OSError, AttributeError):
        return None
    function.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
    function.restype = None
    return function


@functools.cache
def _pool(process: int, threads: int) -> ThreadPoolExecutor:
    """Threads of this process; a forked child has a process number, and so a pool, of its own."""
    return ThreadPoolExecutor(threads - 1, thread_name_prefix="regionnorm")
