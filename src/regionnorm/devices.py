"""The one place that picks a device, and knows what it does well."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

# Parameters of glibc's mallopt(3).
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4


def pick_device(device: str | torch.device | None = None) -> torch.device:
    """Return the device asked for, or the best one present.

    Args:
        device: ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ``"mps"``, in upper or lower case, a
            ``torch.device``, or None to choose.

    Raises:
        ValueError: The device's name is not known, or this machine does not have it.
    """
    if device is None:
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        chosen = torch.device(device.lower() if isinstance(device, str) else device)
        torch.empty(0, device=chosen).tolist()  # which "meta" cannot
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ValueError(
            f"device {str(device)!r} cannot be used on this machine; try 'cpu'"
        ) from error
    return chosen


class _Unfilled(TorchFunctionMode):
    """Leaves out what would give tensors their initial values."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        initial = getattr(func, "__module__", None) == "torch.nn.init"
        if initial or func in (torch.Tensor.normal_, torch.Tensor.uniform_):
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


@contextmanager
def without_memory() -> Iterator[None]:
    """Make networks without memory or values, on the meta device, to load weights into.

    Initial values are left out: on the meta device PyTorch would load its compiler for them,
    which takes a second.
    """
    with torch.device("meta"), _Unfilled():
        yield


def has_native_bfloat16(device: torch.device) -> bool:
    """Whether the device multiplies in bfloat16 itself; where it does not, bfloat16 is slower."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type != "cpu":
        return False
    # Private until PyTorch offers a public query; absent means no.
    queries = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(bool(getattr(torch.cpu, name, lambda: False)()) for name in queries)


def keep_freed_memory() -> bool:
    """Let this process keep the memory that it frees, for its next tensors.

    glibc gives large blocks back at once and fetches new ones, which the system fills with zeros,
    for the next step's tensors of the same sizes: an eighth of a network's time on a CPU, and up
    to a third of a training step's. The process then holds its largest need until it ends.

    Returns:
        Whether the C library does so now; False where it is another than glibc.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # TypeError: Windows has no library None
        return False
    return bool(mallopt(_MMAP_MAX, 0)) and bool(mallopt(_TRIM_THRESHOLD, -1))
