"""Functions compiled by numba: single-threaded, so that results depend on no thread count."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

# Imported by name: what types numba declares do not fit what its compiler takes.
numba: Any = importlib.import_module("numba")

__all__ = ["jit"]


def jit(function: Callable[..., Any]) -> Any:
    """Compile at the first call and keep the code on the disk, where there is a place for it."""
    # Sums may be regrouped, so that they run on all lanes of a vector.
    options = {"nogil": True, "error_model": "numpy", "fastmath": {"reassoc", "contract"}}
    try:
        return numba.njit(cache=True, **options)(function)
    except RuntimeError:  # there is no folder to keep compiled code in
        return numba.njit(**options)(function)
