"""A place for compiled code, which is another one for every state of what it is compiled from."""

from __future__ import annotations

import functools
import hashlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

__all__ = ["stamp_of"]


@functools.cache
def stamp_of(folder: Path) -> Path | None:
    """A file to give out as the source of compiled code; None if there is no place to write to.

    numba keeps what it compiles beside the file that the code is from, until that file changes. But
    compiled code is made of parts from several files: this one's path is another one as soon as any
    module of ``folder`` is.
    """
    sources = sorted(folder.glob("*.py"))
    state = hashlib.sha256(b"\0".join(source.read_bytes() for source in sources)).hexdigest()
    for place in _places(folder):
        chosen = place / f"regionnorm-{state[:16]}"
        try:
            chosen.mkdir(mode=0o700, parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=chosen):
                pass
            stamp = chosen / "kernels.py"
            if not stamp.exists():  # its time of change counts
                stamp.touch()
        except OSError:  # read-only, full, or no folder
            continue
        return stamp
    return None


def _places(folder: Path) -> Iterator[Path]:
    """Where compiled code may lie: asked for, in the package, in the user's cache, in temp."""
    wanted = os.environ.get("NUMBA_CACHE_DIR")
    if wanted:
        yield Path(wanted)
    yield folder / "__pycache__"
    caches = os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA")
    cache = Path(caches or os.path.expanduser("~/.cache"))
    if cache.is_absolute():  # a user without a home would get a folder called "~"
        yield cache
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
