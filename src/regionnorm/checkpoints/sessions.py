"""ONNX files opened for ONNX Runtime: quietly, with as many threads as PyTorch takes."""

from __future__ import annotations

import os
import threading
from functools import lru_cache
from typing import Any

import torch

from regionnorm._extras import require

__all__ = ["kept_session", "open_session"]

_QUIET = 3  # errors only
_LOCK = threading.Lock()


def open_session(
    path: str | os.PathLike[str], *, extra: str, gpu: bool = False, keep_memory: bool = True
) -> Any:
    """Open a network.

    Args:
        path: The ``.onnx`` file.
        extra: What brings ONNX Runtime, for the command that installs it.
        gpu: Use a GPU where ONNX Runtime was built for one.
        keep_memory: Of the largest picture, for the next; otherwise it is given back.

    Raises:
        ImportError: ONNX Runtime is missing.
        Exception: The file is none; the runtime's own kinds share no base.
    """
    runtime = require("onnxruntime", extra=extra)
    options = runtime.SessionOptions()
    options.log_severity_level = _QUIET
    options.intra_op_num_threads = torch.get_num_threads()
    options.enable_cpu_mem_arena = keep_memory
    wanted = [*(["CUDAExecutionProvider"] if gpu else []), "CPUExecutionProvider"]
    there = runtime.get_available_providers()
    providers = [name for name in wanted if name in there]
    return runtime.InferenceSession(os.fspath(path), options, providers=providers)


def kept_session(path: str | os.PathLike[str], *, extra: str) -> Any:
    """Open a network on the CPU once, for all who ask for it."""
    with _LOCK:  # two visitors at once would load it twice
        return _kept(os.fspath(path), extra, torch.get_num_threads())


@lru_cache(maxsize=4)  # threads of a server may have another number of threads
def _kept(path: str, extra: str, threads: int) -> Any:
    return open_session(path, extra=extra, keep_memory=False)
