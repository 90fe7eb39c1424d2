"""A process of its own for the GPU kernels: Triton reads its settings once, when it is imported.

Run as ``python triton_worker.py DEVICE``. It answers pickled calls ``(function, arguments)`` from
standard input, one at a time, with ``(result, error)`` on standard output. DEVICE is "cuda",
"interpreter" (with ``TRITON_INTERPRET=1``: kernels run on the CPU) or "none" (kernels are compiled
and not run).
"""

from __future__ import annotations

import os
import pickle
import sys
import traceback
from collections.abc import Callable
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from regionnorm.ops import region_norm
from regionnorm.ops.gpu import autograd, launch, operators

DEVICE = sys.argv[1]


def differentiate(
    operation: str,
    tensors: tuple[Tensor | None, ...],
    fixed: int,
    options: dict[str, Any],
    grad: Tensor,
    limits: dict[str, int],
) -> tuple[list[Tensor | None], list[int]]:
    """Result and gradients of an operation of ``autograd``, and the sizes of what it saves.

    Tensors differentiated are all but the one at ``fixed`` (the labels).
    """
    device = "cuda" if DEVICE == "cuda" else "cpu"
    moved = [None if tensor is None else tensor.to(device) for tensor in tensors]
    inputs = [
        tensor.requires_grad_()
        for i, tensor in enumerate(moved)
        if tensor is not None and i != fixed
    ]
    saved: list[int] = []

    def save(tensor: Tensor) -> Tensor:
        saved.append(0 if any(tensor is other for other in inputs) else tensor.numel())
        return tensor

    with mock.patch.dict(vars(launch), limits):
        with torch.autograd.graph.saved_tensors_hooks(save, lambda tensor: tensor):
            result = getattr(autograd, operation)(*moved, **options)
        result.backward(grad.to(device))
    found = [result.detach(), *(tensor.grad for tensor in inputs)]
    return [None if tensor is None else tensor.cpu() for tensor in found], saved


def second_derivative(tensors: tuple[Tensor, ...], options: dict[str, Any]) -> Tensor:
    """Gradient of a sum of squared gradients of the cube of ``region_norm``."""
    device = "cuda" if DEVICE == "cuda" else "cpu"
    x, labels, weight, bias = (tensor.to(device) for tensor in tensors)
    x.requires_grad_()
    result = autograd.region_norm(x, labels, weight, bias, **options)
    (first,) = torch.autograd.grad(result.pow(3).sum(), x, create_graph=True)
    return torch.autograd.grad(first.square().sum(), x)[0].cpu()


def check_operators(tensors: tuple[Tensor, ...]) -> dict[str, str]:
    """What PyTorch's own check says of the custom operators that torch.compile sees."""
    x, labels, weight, bias = tensors
    stats = launch.forward(x, labels, weight, bias, "instance", 1e-5, True, False)[1]
    result = launch.mean_max(x)
    options = ("instance", 1e-5, True, False)
    leaf = x.clone().requires_grad_()
    found: dict[str, str] = {}
    for operator, arguments in (
        (operators.forward_op, (leaf, labels, weight, bias, *options)),
        (operators.backward_op, (x, x, labels, stats, weight, bias, *options)),
        (operators.mean_max_op, (leaf,)),
        (operators.mean_max_backward_op, (result, x, result)),
    ):
        found |= {
            f"{operator}: {check}": answer
            for check, answer in torch.library.opcheck(operator, arguments).items()
        }
    return found


def through_public_function(x: Tensor, mask: Tensor) -> tuple[Tensor, list[str]]:
    """Result of ``region_norm`` as users call it, and the names of the kernels that ran."""
    names: list[str] = []
    run = launch._run

    def note(name: str, *arguments: Any, **options: Any) -> None:
        names.append(name)
        run(name, *arguments, **options)

    with mock.patch.object(launch, "_run", note):
        return region_norm(x.cuda(), mask.cuda()).cpu(), names


def compile_kernels(capability: int, dtype: torch.dtype) -> set[str]:
    """Compile every kernel for a GPU that need not be there; return the names of those compiled."""
    from triton.backends.compiler import GPUTarget
    from triton.runtime import driver
    from triton.runtime.jit import JITFunction

    pretended = mock.Mock()
    pretended.get_current_device.return_value = capability  # a number of its own for each
    pretended.get_current_target.return_value = GPUTarget("cuda", capability, 32)
    driver.set_active(pretended)
    run, compiled = JITFunction.run, set()

    def only_compile(self: Any, *arguments: Any, grid: Any, warmup: bool, **options: Any) -> None:
        if run(self, *arguments, grid=grid, warmup=True, **options).asm["cubin"]:
            compiled.add(self.fn.__name__)

    small = mock.patch.dict(vars(launch), {"PLANE_VALUES": 256, "TILE_VALUES": 128})
    with small, mock.patch.object(JITFunction, "run", only_compile):
        for size, last, kind, pixel in (
            (4, False, "instance", False),
            (16, False, "instance", True),
            (16, True, "batch", False),
        ):
            x = torch.zeros(2, 16, size, size, dtype=dtype)
            x = x.to(memory_format=torch.channels_last) if last else x
            labels = torch.zeros(2, size * size, dtype=torch.uint8)
            weight = torch.zeros((2, 1, size, size) if pixel else (2, 16))
            given = (weight, weight, kind, 1e-5, True, pixel)
            _, stats = launch.forward(x, labels, *given)
            launch.backward(x, x, labels, stats, *given)
        result = launch.mean_max(x)
        launch.mean_max_backward(result, x, result)
    return compiled


def main() -> None:
    """Answer calls until the other side closes the pipe."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    sys.stdout = sys.stderr
    functions: dict[str, Callable[..., Any]] = {
        function.__name__: function
        for function in (
            differentiate,
            second_derivative,
            check_operators,
            through_public_function,
            compile_kernels,
        )
    }
    while True:
        try:
            name, arguments = pickle.load(sys.stdin.buffer)
        except EOFError:
            os._exit(0)  # at once: an orderly end of Triton takes seconds
        try:
            answer = functions[name](*arguments), None
        except Exception:
            answer = None, traceback.format_exc()
        pickle.dump(answer, answers)
        answers.flush()


if __name__ == "__main__":
    main()
