"""Whether ``torch.compile`` works on this machine."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import torch

__all__ = ["compiler_problem", "without_compiler_errors"]


def compiler_problem(device: torch.device) -> str | None:
    """Compile a small function on a device and say in one line what went wrong, if anything.

    ``torch.compile`` needs a C++ compiler for CPUs, Triton and a C compiler for GPUs, and finds out
    in the first step only.
    """
    # The compiler's own account of a failure is a page of log lines.
    log = logging.getLogger("torch._inductor")
    before = log.level
    log.setLevel(logging.CRITICAL)
    try:
        x = torch.arange(64, dtype=torch.float32, device=device)
        compiled = torch.compile(_probe)
        same = torch.allclose(compiled(x), _probe(x))
    except Exception as error:  # of many kinds: missing programs, headers, modules, rights
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        return lines[0] if lines else type(error).__name__
    finally:
        log.setLevel(before)
    return None if same else "it computes wrong results"


@contextmanager
def without_compiler_errors(active: bool) -> Iterator[None]:
    """Run what cannot be compiled as it is, with a warning by PyTorch, rather than fail.

    Args:
        active: False changes nothing, and does not load the compiler.
    """
    if not active:
        yield
        return
    import torch._dynamo

    with torch._dynamo.config.patch(suppress_errors=True):
        yield


def _probe(x: torch.Tensor) -> torch.Tensor:
    return torch.relu(x * 2 - 1).cumsum(0)
