"""PyTorch's functions as ONNX operators: those that the networks call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from regionnorm.exporting.graph import Graph
from regionnorm.exporting.tracing import Size, Traced, name_of, operators

__all__: list[str] = []

_BINARY = {
    "add": "Add", "sub": "Sub", "mul": "Mul", "div": "Div", "truediv": "Div",
    "gt": "Greater", "lt": "Less", "le": "LessOrEqual", "ge": "GreaterOrEqual", "eq": "Equal",
    "maximum": "Max", "and": "And",
}  # fmt: skip
_UNARY = {
    "relu": "Relu", "tanh": "Tanh", "sigmoid": "Sigmoid", "neg": "Neg", "sqrt": "Sqrt",
    "invert": "Not", "exp": "Exp",
}  # fmt: skip


def _binary(kind: str, turned: bool = False) -> Any:
    def emit(graph: Graph, result: Tensor, first: Any, second: Any) -> str:
        dtype = torch.result_type(*_untraced(first, second))
        names = []
        for part in (first, second):
            name = name_of(graph, part, like=torch.empty(0, dtype=dtype))
            if isinstance(part, Tensor) and part.dtype != dtype:
                name = graph.cast(name, _numpy(dtype))
            names.append(name)
        return graph.node(kind, *(names[::-1] if turned else names))

    return emit


def _unary(kind: str) -> Any:
    def emit(graph: Graph, result: Tensor, x: Traced, *, inplace: bool = False) -> str:
        return graph.node(kind, x.symbol)

    return emit


for _name, _kind in _BINARY.items():
    operators(_name, f"i{_name}")(_binary(_kind))
for _name in ("sub", "div", "truediv"):
    operators(f"r{_name}")(_binary(_BINARY[_name], turned=True))
operators("radd")(_binary("Add"))
operators("rmul")(_binary("Mul"))
for _name, _kind in _UNARY.items():
    operators(_name)(_unary(_kind))


@operators("square")
def _square(graph: Graph, result: Tensor, x: Traced) -> str:
    return graph.node("Mul", x.symbol, x.symbol)


@operators("rsqrt")
def _rsqrt(graph: Graph, result: Tensor, x: Traced) -> str:
    return graph.node("Reciprocal", graph.node("Sqrt", x.symbol))


@operators("elu")
def _elu(graph: Graph, result: Tensor, x: Traced, alpha: float = 1.0, inplace: bool = False) -> str:
    return graph.node("Elu", x.symbol, alpha=alpha)


@operators("leaky_relu")
def _leaky_relu(
    graph: Graph, result: Tensor, x: Traced, negative_slope: float = 0.01, inplace: bool = False
) -> str:
    return graph.node("LeakyRelu", x.symbol, alpha=negative_slope)


@operators("clamp")
def _clamp(graph: Graph, result: Tensor, x: Traced, min: Any = None, max: Any = None) -> str:
    limits = ["" if limit is None else name_of(graph, limit, like=x) for limit in (min, max)]
    return graph.node("Clip", x.symbol, *limits)


@operators("where")
def _where(graph: Graph, result: Tensor, condition: Any, first: Any, second: Any) -> str:
    parts = [name_of(graph, part, like=result) for part in (first, second)]
    return graph.node("Where", name_of(graph, condition), *parts)


@operators("masked_fill")
def _masked_fill(graph: Graph, result: Tensor, x: Traced, mask: Any, value: Any) -> str:
    return graph.node("Where", name_of(graph, mask), name_of(graph, value, like=x), x.symbol)


@operators("to", "type", "float", "bool", "long")
def _to(graph: Graph, result: Tensor, x: Traced, *_: Any, **__: Any) -> str:
    return x.symbol if result.dtype == x.dtype else graph.cast(x.symbol, _numpy(result.dtype))


@operators("detach", "contiguous", "clone")
def _same(graph: Graph, result: Tensor, x: Traced, *_: Any, **__: Any) -> str:
    return x.symbol


@operators("ones_like", "zeros_like")
def _filled(graph: Graph, result: Tensor, x: Traced) -> str:
    value = graph.number(float(result.flatten()[0]), _numpy(result.dtype))
    return graph.node("Expand", value, graph.node("Shape", x.symbol))


# --- shapes --------------------------------------------------------------------------------------


@operators("cat")
def _cat(graph: Graph, result: Tensor, tensors: Sequence[Any], dim: int = 0) -> str:
    return graph.node("Concat", *(name_of(graph, part) for part in tensors), axis=dim)


@operators("stack")
def _stack(graph: Graph, result: Tensor, tensors: Sequence[Any], dim: int = 0) -> str:
    axis = graph.ints(dim)
    parts = [graph.node("Unsqueeze", name_of(graph, part), axis) for part in tensors]
    return graph.node("Concat", *parts, axis=dim)


@operators("chunk")
def _chunk(graph: Graph, result: Any, x: Traced, chunks: int, dim: int = 0) -> list[str]:
    widths = graph.ints(*(part.shape[dim] for part in result))
    return graph.nodes("Split", x.symbol, widths, outputs=len(result), axis=dim)


@operators("flatten")
def _flatten(graph: Graph, result: Tensor, x: Traced, start_dim: int = 0, end_dim: int = -1) -> str:
    if end_dim % x.ndim != x.ndim - 1:
        raise TypeError("only the last axes are flattened")
    return graph.node("Reshape", x.symbol, graph.ints(*[0] * (start_dim % x.ndim), -1))


@operators("view", "reshape")
def _reshape(graph: Graph, result: Tensor, x: Traced, *shape: Any) -> str:
    wanted = shape[0] if isinstance(shape[0], (tuple, list)) else shape
    return graph.node("Reshape", x.symbol, _ints(graph, wanted))


@operators("expand", "expand_as")
def _expand(graph: Graph, result: Tensor, x: Traced, *shape: Any) -> str:
    if isinstance(shape[0], Traced):
        return graph.node("Expand", x.symbol, graph.node("Shape", shape[0].symbol))
    wanted = shape[0] if isinstance(shape[0], (tuple, list)) else shape
    # ONNX broadcasts both ways: 1 leaves a side as it is.
    whole = [1 if not isinstance(side, Size) and side == -1 else side for side in wanted]
    return graph.node("Expand", x.symbol, _ints(graph, whole))


@operators("getitem")
def _getitem(graph: Graph, result: Tensor, x: Traced, index: Any) -> str:
    parts = list(index) if isinstance(index, tuple) else [index]
    if Ellipsis in parts:
        at = parts.index(Ellipsis)
        missing = x.ndim - sum(part is not None for part in parts) + 1
        parts[at : at + 1] = [slice(None)] * missing
    cuts: list[tuple[Any, Any, int, Any]] = []
    added: list[int] = []
    dropped: list[int] = []
    axis = 0
    for position, part in enumerate(parts):
        if part is None:
            added.append(position - len(dropped))
            continue
        if isinstance(part, slice):
            if part != slice(None):
                start = 0 if part.start is None else part.start
                stop = np.iinfo(np.int64).max if part.stop is None else part.stop
                cuts.append((start, stop, axis, part.step or 1))
        else:
            cuts.append((part, part + 1 if part != -1 else np.iinfo(np.int64).max, axis, 1))
            dropped.append(axis)
        axis += 1
    name = x.symbol
    if cuts:
        starts, stops, axes, steps = (_ints(graph, column) for column in zip(*cuts, strict=True))
        name = graph.node("Slice", name, starts, stops, axes, steps)
    if dropped:
        name = graph.node("Squeeze", name, graph.ints(*dropped))
    return graph.node("Unsqueeze", name, graph.ints(*added)) if added else name


@operators("pad")
def _pad(
    graph: Graph,
    result: Tensor,
    x: Traced,
    pad: Sequence[int],
    mode: str = "constant",
    value: float | None = None,
) -> str:
    pairs = list(zip(pad[::2], pad[1::2], strict=True))[::-1]
    pairs = [(0, 0)] * (x.ndim - len(pairs)) + pairs
    amounts = _ints(graph, [pair[side] for side in (0, 1) for pair in pairs])
    kind = {"constant": "constant", "reflect": "reflect", "replicate": "edge"}[mode]
    filling = [graph.number(value)] if value else []
    return graph.node("Pad", x.symbol, amounts, *filling, mode=kind)


# --- sums ----------------------------------------------------------------------------------------


def _reduction(kind: str) -> Any:
    def emit(graph: Graph, result: Tensor, x: Traced, dim: Any, keepdim: bool = False) -> str:
        axes = [dim] if isinstance(dim, int) else list(dim)
        name = x.symbol
        if x.dtype == torch.bool:
            name = graph.cast(name, np.int64)
        return graph.node(kind, name, graph.ints(*axes), keepdims=int(keepdim))

    return emit


for _name, _kind in {"sum": "ReduceSum", "mean": "ReduceMean", "amax": "ReduceMax"}.items():
    operators(_name)(_reduction(_kind))


# --- layers --------------------------------------------------------------------------------------


@operators("conv2d")
def _conv2d(
    graph: Graph,
    result: Tensor,
    x: Traced,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> str:
    return _convolution("Conv", graph, x, weight, bias, stride, padding, dilation, groups)


@operators("conv_transpose2d")
def _conv_transpose2d(
    graph: Graph,
    result: Tensor,
    x: Traced,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> str:
    given = (x, weight, bias, stride, padding, dilation, groups)
    return _convolution("ConvTranspose", graph, *given, output_padding=_pair(output_padding))


def _convolution(
    kind: str,
    graph: Graph,
    x: Traced,
    weight: Tensor,
    bias: Tensor | None,
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: int,
    **more: list[int],
) -> str:
    return graph.node(
        kind,
        *(x.symbol, name_of(graph, weight), *([] if bias is None else [name_of(graph, bias)])),
        kernel_shape=list(weight.shape[2:]),
        strides=_pair(stride),
        pads=_pads(padding, weight, dilation),
        dilations=_pair(dilation),
        group=groups,
        **more,
    )


def _pads(padding: Any, weight: Tensor, dilation: Any) -> list[int]:
    """Pixels above, left, below and right."""
    if padding == "valid":
        return [0] * 4
    if padding != "same":
        return _pair(padding) * 2
    spans = [d * (k - 1) for d, k in zip(_pair(dilation), weight.shape[2:], strict=True)]
    return [span // 2 for span in spans] + [span - span // 2 for span in spans]


@operators("avg_pool2d")
def _avg_pool2d(
    graph: Graph,
    result: Tensor,
    x: Traced,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> str:
    if ceil_mode or divisor_override is not None:
        raise TypeError("neither ceil_mode nor divisor_override is exported")
    size = _pair(kernel_size)
    return graph.node(
        "AveragePool",
        x.symbol,
        kernel_shape=size,
        strides=size if stride is None else _pair(stride),
        pads=_pair(padding) * 2,
        count_include_pad=int(count_include_pad),
    )


@operators("pixel_shuffle")
def _pixel_shuffle(graph: Graph, result: Tensor, x: Traced, upscale_factor: int) -> str:
    return graph.node("DepthToSpace", x.symbol, blocksize=upscale_factor, mode="CRD")


@operators("interpolate")
def _interpolate(
    graph: Graph,
    result: Tensor,
    x: Traced,
    size: Any = None,
    scale_factor: Any = None,
    mode: str = "nearest",
    **_: Any,
) -> str:
    if mode != "nearest":
        raise ValueError(f"interpolation {mode!r} is not exported")
    how = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric"}
    how["nearest_mode"] = "floor"
    if size is None:
        factors = [scale_factor] * 2 if isinstance(scale_factor, (int, float)) else scale_factor
        scales = graph.floats(1, 1, *factors)
        return graph.node("Resize", x.symbol, "", scales, **how)
    sides = [size] * 2 if isinstance(size, int) else size
    whole = _ints(graph, [*x.shape[:2], *sides])
    return graph.node("Resize", x.symbol, "", "", whole, **how)


@operators("batch_norm")
def _batch_norm(
    graph: Graph,
    result: Tensor,
    x: Traced,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> str:
    affine = _scale_and_shift(graph, x, weight, bias)
    if training or running_mean is None:  # of the batch, which is one picture
        return graph.node("InstanceNormalization", x.symbol, *affine, epsilon=eps)
    averages = (name_of(graph, part) for part in (running_mean, running_var))
    return graph.node("BatchNormalization", x.symbol, *affine, *averages, epsilon=eps)


@operators("instance_norm")
def _instance_norm(
    graph: Graph,
    result: Tensor,
    x: Traced,
    running_mean: Any = None,
    running_var: Any = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> str:
    statistics = (running_mean, running_var, weight, bias)
    name: str = _batch_norm(graph, result, x, *statistics, use_input_stats, momentum, eps)
    return name


def _scale_and_shift(
    graph: Graph, x: Traced, weight: Tensor | None, bias: Tensor | None
) -> tuple[str, str]:
    channels = x.shape[1]
    scale = np.ones(channels, np.float32) if weight is None else weight.detach().numpy()
    shift = np.zeros(channels, np.float32) if bias is None else bias.detach().numpy()
    return graph.constant(scale), graph.constant(shift)


def _ints(graph: Graph, values: Sequence[Any]) -> str:
    """A list of int64, some of which may follow the picture's size."""
    if not any(isinstance(value, Size) for value in values):
        return graph.ints(*values)
    parts = [v.name if isinstance(v, Size) else graph.ints(v) for v in values]
    return graph.node("Concat", *parts, axis=0)


def _pair(value: Any) -> list[int]:
    return [int(value)] * 2 if isinstance(value, int) else [int(side) for side in value]


def _numpy(dtype: torch.dtype) -> Any:
    return torch.empty(0, dtype=dtype).numpy().dtype


def _untraced(*values: Any) -> list[Any]:
    return [value.as_subclass(Tensor) if isinstance(value, Traced) else value for value in values]
