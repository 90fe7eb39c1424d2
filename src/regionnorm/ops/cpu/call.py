"""One call of a CPU kernel: its slots filled in, its tasks shared out over threads."""

from __future__ import annotations

import ctypes
import functools
import struct

import torch
from torch import Tensor

from regionnorm.ops.cpu.threads import run_on_threads

__all__ = ["buffer", "float32", "group_planes", "run"]

SERIAL = 1 << 14  # values below which a second thread costs more than it saves

Slots = ctypes.c_int64 * 23


@functools.cache
def _address(name: str, bfloat16: bool) -> int:
    """Address of a kernel. numba is imported here, at the first call, because that takes time."""
    from regionnorm.ops.cpu.kernels.compiled import compile_kernel

    return compile_kernel(name, bfloat16)


@functools.cache
def _float_bits(value: float) -> int:
    bits: int = struct.unpack("<q", struct.pack("<d", value))[0]
    return bits


def _floor_bits(relu: bool) -> int:
    """The least value of a result: no ReLU is a ReLU that starts at minus infinity."""
    return _float_bits(0.0 if relu else -float("inf"))


def run(
    name: str,
    like: Tensor,
    tasks: int,
    *,
    regions: int = 2,
    groups: tuple[int, int, int] = (1, 1, 0),
    eps: float = 0.0,
    relu: bool = False,
    labels: Tensor | None = None,
    x: Tensor | None = None,
    out: Tensor | None = None,
    stats: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    grad: Tensor | None = None,
    sums: Tensor | None = None,
    scratch: Tensor | None = None,
    chunk: int = 0,
    pixel_step: int = 0,
) -> None:
    """Run a kernel over all its tasks. The order of the slots is that of ``kernels.language``.

    ``like`` gives the sizes, the element type and the amount of work.
    """
    samples, channels, height, width = like.shape
    slots = Slots(
        0,
        tasks,
        samples,
        channels,
        height * width,
        regions,
        *groups,
        _float_bits(eps),
        _floor_bits(relu),
        0 if labels is None else labels.data_ptr(),
        0 if labels is None or labels.shape[0] == 1 else height * width,
        *(
            0 if tensor is None else tensor.data_ptr()
            for tensor in (x, out, stats, weight, bias, grad, sums, scratch)
        ),
        chunk,
        pixel_step,
    )
    threads = 1 if like.numel() < SERIAL else min(torch.get_num_threads(), tasks)
    run_on_threads(_address(name, like.dtype == torch.bfloat16), slots, threads)


def group_planes(x: Tensor, kind: str, num_groups: int) -> tuple[int, tuple[int, int, int]]:
    """Number of groups of planes that share statistics; size, first plane and step of a group."""
    samples, channels = x.shape[:2]
    if kind == "instance":
        return samples * channels, (1, 1, 0)
    if kind == "batch":
        return channels, (samples, 1, channels)
    size = channels // num_groups  # one group is "layer"
    return samples * num_groups, (size, size, 1)


def buffer(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Memory for a kernel to write into, whatever dtype and device PyTorch makes tensors of."""
    return torch.empty(shape, dtype=dtype, device="cpu")


def float32(tensor: Tensor | None) -> Tensor | None:
    """The values as the kernels read parameters."""
    return None if tensor is None else tensor.to(torch.float32).contiguous()
