"""Which implementation the operations run on."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any, TypeVar

__all__ = ["BACKENDS", "backend", "current_backend", "set_backend"]

Answer = TypeVar("Answer", bound=Callable[..., Any])

BACKENDS = ("auto", "plain", "numba", "triton")
ENVIRONMENT = "REGIONNORM_BACKEND"
HAS_NUMBA = importlib.util.find_spec("numba") is not None  # found, but not imported yet
HAS_TRITON = importlib.util.find_spec("triton") is not None

_numba_imports: bool | None = None
_chosen = os.environ.get(ENVIRONMENT, "auto")


def set_backend(name: str) -> None:
    """Choose the backend of all operations of this process.

    Args:
        name: ``"auto"`` (the fastest that fits the arguments), ``"plain"`` (PyTorch only),
            ``"numba"`` or ``"triton"`` (as auto, but an error when it is missing). The environment
            variable ``REGIONNORM_BACKEND`` sets it at the start.

    Raises:
        ValueError: The name is not known.
        ImportError: numba or triton was asked for and is not installed, or numba fails to import.
    """
    global _chosen
    _check(name)
    _chosen = name


@contextmanager
def backend(name: str) -> Iterator[None]:
    """Use a backend inside a ``with`` block; see :func:`set_backend`."""
    before = _chosen
    set_backend(name)
    try:
        yield
    finally:
        set_backend(before)


def current_backend() -> str:
    """What :func:`set_backend` or the environment chose."""
    return _chosen


def constant_when_compiled(function: Answer) -> Answer:
    """Let ``torch.compile`` ask once while it traces, instead of tracing the function itself.

    What ``torch.compiler.assume_constant_result`` does, which would import the whole compiler.
    """
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function


@constant_when_compiled
def numba_works() -> bool:
    """Whether numba is there and can be imported; it is, at the first question."""
    global _numba_imports
    if _numba_imports is None:
        _numba_imports = HAS_NUMBA
        if HAS_NUMBA:
            try:
                importlib.import_module("numba")
                _wake_numba()
            except Exception as error:  # numba refuses a NumPy that is newer than itself, e.g.
                warnings.warn(f"regionnorm runs without numba: {error}", stacklevel=2)
                _numba_imports = False
    return _numba_imports


def _wake_numba() -> None:
    """Let numba load what it compiles NumPy's functions to, without SciPy.

    Half of its start goes into importing ``scipy.linalg``, only to learn whether it is there. No
    kernel here needs it; code of others that does imports it when it is compiled.
    """
    name = "scipy.linalg.cython_blas"
    if name in sys.modules or importlib.util.find_spec("scipy") is None:
        return
    sys.modules[name] = ModuleType(name)
    try:
        importlib.import_module("numba.np.arraymath")
    except ImportError:  # another version keeps them elsewhere
        pass
    finally:
        del sys.modules[name]


def _check(name: str) -> None:
    if name not in BACKENDS:
        raise ValueError(f"backend is {name!r}; expected one of {', '.join(BACKENDS)}")
    if name == "numba" and not HAS_NUMBA:
        raise ImportError("backend 'numba' needs numba; run: pip install 'regionnorm[fast]'")
    if name == "numba" and not numba_works():
        raise ImportError("backend 'numba' needs numba, which fails to import; run: import numba")
    if name == "triton" and not HAS_TRITON:
        raise ImportError("backend 'triton' needs triton; run: pip install 'regionnorm[gpu]'")


_check(_chosen)
