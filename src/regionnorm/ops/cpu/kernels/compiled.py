"""Kernels compiled to plain C functions, and kept for the next process."""

from __future__ import annotations

import functools
import hashlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

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
    stamp = _stamp()
    if stamp is not None:
        # numba keeps what it compiles beside the file that the code is from, until that changes.
        # It looks at this one file; but a kernel is made of parts from all files of this folder.
        function.__code__ = function.__code__.replace(co_filename=str(stamp))
    try:
        compiled = numba.cfunc(signature, cache=stamp is not None, **OPTIONS)(function)
    except (OSError, RuntimeError):  # numba found no place after all
        compiled = numba.cfunc(signature, **OPTIONS)(function)
    return int(compiled.address)


@functools.cache
def _stamp() -> Path | None:
    """A file that is another one for every state of the kernels; None if there is no place."""
    sources = sorted(FOLDER.glob("*.py"))
    state = hashlib.sha256(b"\0".join(source.read_bytes() for source in sources)).hexdigest()
    for place in _places():
        folder = place / f"regionnorm-{state[:16]}"
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
            stamp = folder / "kernels.py"
            if not stamp.exists():  # its time of change counts
                stamp.touch()
        except OSError:  # read-only, full, or no folder
            continue
        return stamp
    return None


def _places() -> Iterator[Path]:
    """Where compiled code may lie: asked for, in the package, in the user's cache, in temp."""
    wanted = os.environ.get("NUMBA_CACHE_DIR")
    if wanted:
        yield Path(wanted)
    yield FOLDER / "__pycache__"
    caches = os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA")
    yield Path(caches or os.path.expanduser("~/.cache"))
    if not hasattr(os, "getuid"):  # where temporary files are each user's own
        yield Path(tempfile.gettempdir())
        return
    shared = Path(tempfile.gettempdir()) / f"regionnorm-{os.getuid()}"
    try:
        shared.mkdir(mode=0o700, exist_ok=True)
        about = shared.lstat()
    except OSError:
        return
    # Code from there will run: nobody else may have put it there.
    if about.st_uid == os.getuid() and not about.st_mode & 0o022:
        yield shared
