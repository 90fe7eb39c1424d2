"""Functions compiled by numba: single-threaded, so that results depend on no thread count."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from regionnorm.files.compiled import stamp_of

# Imported by name: what types numba declares do not fit what its compiler takes.
numba: Any = importlib.import_module("numba")

__all__ = ["FOLDER", "is_compiled", "jit"]

FOLDER = Path(__file__).parent


def jit(function: Callable[..., Any]) -> Any:
    """Compile at the first call and keep the code on the disk, where there is a place for it."""
    stamp = stamp_of(FOLDER)
    if stamp is not None:
        # Functions of one file are compiled into those of others.
        function.__code__ = function.__code__.replace(co_filename=str(stamp))
    # Sums may be regrouped, so that they run on all lanes of a vector.
    options = {"nogil": True, "error_model": "numpy", "fastmath": {"reassoc", "contract"}}
    try:
        return numba.njit(cache=stamp is not None, **options)(function)
    except (OSError, RuntimeError):  # numba found no place after all
        return numba.njit(**options)(function)


def is_compiled() -> bool:
    """Whether compiled code of an earlier process is there."""
    stamp = stamp_of(FOLDER)
    return stamp is not None and any(stamp.parent.rglob("*.nbi"))
