"""Watch a network compute one picture, and write down what it does as an ONNX graph.

A tensor that is watched is an ordinary one that also knows its value's name in the graph; PyTorch
hands every function that is called with it to :meth:`Traced.__torch_function__`, and so do this
package's own operations. Sizes that follow the picture's are integers that know their value's name.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from regionnorm.exporting.graph import Graph

__all__ = ["Operator", "Size", "Traced", "name_of", "operators", "sizes", "traced"]

Operator = Callable[..., Any]

# Answers that are the same for every size of picture.
_FIXED = frozenset(
    "dtype device is_contiguous is_cuda is_floating_point is_meta layout dim ndim numel "
    "requires_grad".split()
)
_table: dict[str, Operator] = {}


class Size(int):
    """An integer that depends on the size of the picture, and its name in the graph."""

    graph: Graph
    name: str

    @classmethod
    def of(cls, value: int, name: str, graph: Graph) -> Size:
        """An integer with a name: a list of one int64 in the graph."""
        size = cls(value)
        size.graph, size.name = graph, name
        return size

    def _combine(self, kind: str, value: int, first: Any, second: Any) -> Any:
        names = [
            part.name if isinstance(part, Size) else self.graph.ints(part)
            for part in (first, second)
        ]
        return Size.of(value, self.graph.node(kind, *names), self.graph)

    def __neg__(self) -> Any:
        return self._combine("Sub", -int(self), 0, self)

    def __add__(self, other: Any) -> Any:
        return self._combine("Add", int(self) + int(other), self, other)

    __radd__ = __add__

    def __sub__(self, other: Any) -> Any:
        return self._combine("Sub", int(self) - int(other), self, other)

    def __rsub__(self, other: Any) -> Any:
        return self._combine("Sub", int(other) - int(self), other, self)

    def __mul__(self, other: Any) -> Any:
        return self._combine("Mul", int(self) * int(other), self, other)

    __rmul__ = __mul__

    def __mod__(self, other: Any) -> Any:
        return self._combine("Mod", int(self) % int(other), self, other)

    def __floordiv__(self, other: Any) -> Any:
        # ONNX divides towards zero, Python downwards.
        rest = self - self % other
        return self._combine("Div", int(self) // int(other), rest, other)


class Traced(Tensor):
    """A tensor that is watched."""

    graph: Graph
    symbol: str

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Compute, and write down what was computed."""
        kwargs = kwargs or {}
        name = _called(func)
        with torch._C.DisableTorchFunctionSubclass():
            result = func(*_plain(args), **_plain(kwargs))
        if name in _FIXED:
            return result
        graph = _graph_of((args, kwargs))
        if name in ("shape", "size"):
            sides = sizes(args[0])
            return sides[args[1]] if len(args) > 1 else sides
        if name not in _table:
            raise ValueError(
                f"the network calls {name}, for which this exporter knows no ONNX operator"
            )
        with torch._C.DisableTorchFunctionSubclass():
            try:
                names = _table[name](graph, result, *args, **kwargs)
            except (AttributeError, IndexError, KeyError, TypeError) as error:
                raise ValueError(
                    f"the network calls {name} in a way that this exporter does not know: {error}"
                ) from error
        if isinstance(result, Tensor):
            return traced(result, names, graph)
        return type(result)(traced(part, n, graph) for part, n in zip(result, names, strict=True))


def traced(value: Tensor, name: str, graph: Graph) -> Traced:
    """Watch a tensor from here on."""
    watched = value.detach().as_subclass(Traced)
    watched.graph, watched.symbol = graph, name
    return watched


def sizes(value: Any) -> tuple[int, ...]:
    """The shape of a traced tensor: batch and channels are fixed, what comes behind them is not."""
    with torch._C.DisableTorchFunctionSubclass():
        shape = tuple(value.shape)
    graph: Graph = value.graph

    def side(axis: int) -> Size:
        length = graph.node("Shape", value.symbol, start=axis, end=axis + 1)
        return Size.of(shape[axis], length, graph)

    return (*shape[:2], *(side(axis) for axis in range(2, len(shape))))


def name_of(graph: Graph, value: Any, like: Tensor | None = None) -> str:
    """The name of anything that an operation may be called with.

    Args:
        graph: Where it is looked for.
        value: A traced tensor, a tensor that is the same for every picture, or a number.
        like: Gives the type of a number.
    """
    if isinstance(value, Traced):
        return value.symbol
    if isinstance(value, Tensor):
        return graph.constant(value.detach().cpu().numpy())
    dtype = np.float32 if like is None else torch.empty(0, dtype=like.dtype).numpy().dtype
    return graph.number(value, dtype)


def operators(*names: str) -> Callable[[Operator], Operator]:
    """Register how functions of these names are written down.

    The function is called as ``operator(graph, result, *arguments)`` with what PyTorch computed
    for the picture at hand, and returns the name of the result in the graph.
    """

    def register(operator: Operator) -> Operator:
        for name in names:
            _table[name] = operator
        return operator

    return register


def _called(func: Any) -> str:
    """``add`` for ``Tensor.add``, ``__add__`` and ``__iadd__``; ``rsub`` for ``__rsub__``."""
    name: str = func.__name__
    if name == "__get__":
        return str(func.__self__.__name__)
    return name.strip("_")


def _plain(value: Any) -> Any:
    if isinstance(value, Traced):
        return value.as_subclass(Tensor)
    if isinstance(value, Size):
        return int(value)
    if isinstance(value, slice):
        return slice(_plain(value.start), _plain(value.stop), _plain(value.step))
    if isinstance(value, (tuple, list)):
        return type(value)(_plain(part) for part in value)
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    return value


def _graph_of(value: Any) -> Any:
    if isinstance(value, Traced):
        return value.graph
    parts = value.values() if isinstance(value, dict) else value
    if not isinstance(value, (tuple, list, dict)):
        return None
    return next((graph for part in parts if (graph := _graph_of(part)) is not None), None)
