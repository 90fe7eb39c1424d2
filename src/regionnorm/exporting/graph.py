"""An ONNX graph while it grows: nodes, constants, names."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from regionnorm._extras import require

__all__ = ["IR_VERSION", "OPSET", "Graph"]

OPSET = 18
"""Of 2022, the first with the operators that are needed here; every later runtime takes it."""
IR_VERSION = 8

_HALF_FROM = 16  # elements of a constant that is worth a cast

Array = npt.NDArray[Any]


class Graph:
    """Nodes in the order of their making. Values are known by their names.

    Args:
        half: Keep large floating constants in half precision, each with a cast behind it, so that
            the file is half as large and computes in float32 all the same.
    """

    def __init__(self, *, half: bool = False) -> None:
        self._onnx = require("onnx", extra="export")
        self._half = half
        self._nodes: list[Any] = []
        self._constants: dict[tuple[str, tuple[int, ...], bytes], str] = {}
        self._stored: dict[str, Array] = {}
        self._count = 0

    def node(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Add a node with one output, and return the output's name; ``""`` is an input left out."""
        return self.nodes(kind, *inputs, outputs=1, **attributes)[0]

    def nodes(self, kind: str, *inputs: str, outputs: int, **attributes: Any) -> list[str]:
        """Add a node, and return the names of its outputs."""
        names = [self._name(kind) for _ in range(outputs)]
        # With a name: older runtimes make new names of nodes', and refuse two that are alike.
        node = self._onnx.helper.make_node(kind, list(inputs), names, names[0], **attributes)
        self._nodes.append(node)
        return names

    def constant(self, value: Array) -> str:
        """The name of a constant; equal ones are kept once."""
        value = np.ascontiguousarray(value).reshape(value.shape)
        key = (value.dtype.str, value.shape, value.tobytes())
        if key not in self._constants:
            self._constants[key] = self._keep(value)
        return self._constants[key]

    def ints(self, *values: int) -> str:
        """The name of a constant list of int64."""
        return self.constant(np.array(values, np.int64))

    def floats(self, *values: float) -> str:
        """The name of a constant list of float32."""
        return self.constant(np.array(values, np.float32))

    def number(self, value: float, dtype: Any = np.float32) -> str:
        """The name of a constant scalar."""
        return self.constant(np.array(value, dtype))

    def cast(self, value: str, dtype: Any) -> str:
        """A value as another type."""
        return self.node("Cast", value, to=self._type(dtype))

    def body(self, nodes_from: int, name: str, inputs: list[Any], outputs: list[Any]) -> Any:
        """Take the nodes since ``nodes_from`` out, as the body of a loop."""
        nodes, self._nodes = self._nodes[nodes_from:], self._nodes[:nodes_from]
        return self._onnx.helper.make_graph(nodes, name, inputs, outputs)

    def __len__(self) -> int:
        return len(self._nodes)

    def info(self, name: str, dtype: Any, shape: list[int | str | None] | None) -> Any:
        """What a value is, for the graph's own inputs and outputs."""
        return self._onnx.helper.make_tensor_value_info(name, self._type(dtype), shape)

    def model(self, inputs: list[Any], outputs: dict[str, str], infos: list[Any], text: str) -> Any:
        """The finished ``ModelProto``.

        Args:
            inputs: Descriptions by :meth:`info`.
            outputs: Names to give to values: name -> value.
            infos: Descriptions of the outputs.
            text: What the model is.
        """
        helper = self._onnx.helper
        for name, value in outputs.items():
            self._nodes.append(helper.make_node("Identity", [value], [name], name))
        nodes = self._needed(set(outputs))
        used = {name for node in nodes for name in _inputs(node)}
        stored = [
            self._onnx.numpy_helper.from_array(value, name)
            for name, value in self._stored.items()
            if name in used
        ]
        graph = helper.make_graph(nodes, "regionnorm", inputs, infos, stored)
        opset = helper.make_opsetid("", OPSET)
        return helper.make_model(
            graph, opset_imports=[opset], ir_version=IR_VERSION, doc_string=text
        )

    def _needed(self, wanted: set[str]) -> list[Any]:
        """The nodes that lead to what is wanted: tracing leaves many sizes that nobody asks for."""
        kept = []
        for node in reversed(self._nodes):
            if wanted.intersection(node.output):
                wanted.update(_inputs(node))
                kept.append(node)
        return kept[::-1]

    def _keep(self, value: Array) -> str:
        name = self._name("constant")
        if self._half and value.dtype == np.float32 and value.size >= _HALF_FROM:
            half = np.clip(value, -65504, 65504).astype(np.float16)
            if np.array_equal(half, value) or np.abs(value).max() <= 65504:
                self._stored[name] = half
                return self.cast(name, np.float32)
        self._stored[name] = value
        return name

    def _name(self, kind: str) -> str:
        self._count += 1
        return f"{kind.lower()}_{self._count}"

    def _type(self, dtype: Any) -> int:
        return int(self._onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))


def _inputs(node: Any) -> list[str]:
    """What a node reads, the bodies of loops included."""
    names = list(node.input)
    for attribute in node.attribute:
        for inner in attribute.g.node:
            names += _inputs(inner)
    return names
