"""The one reading of a network's graph: its nodes, who uses a value, which tensors are weights."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from squeezekit.errors import UnsupportedError
from squeezekit.sqz.network import Tensor

if TYPE_CHECKING:
    import onnx

RESHAPING = ("Identity", "Flatten", "Reshape", "Squeeze", "Unsqueeze", "Transpose")
"""Operators that pass their first input on unchanged, apart from its shape."""


@dataclass(frozen=True)
class Node:
    """A node of the graph, its attributes as Python values.

    Attributes:
        name: for error messages.
        op: ONNX operator.
        inputs: names of values; "" where an optional one is left out.
        outputs: names of what it gives.
        attributes: by name.
        opset: version of the operator set.
    """

    name: str
    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]
    opset: int

    @property
    def output(self) -> str:
        """The first of its outputs, which for most operators is the only one."""
        return self.outputs[0]

    def get(self, name: str, default: Any) -> Any:  # noqa: ANN401
        """An attribute, or its default."""
        return self.attributes.get(name, default)

    def unsupported(self, what: str) -> UnsupportedError:
        """The error to raise where this node asks for something that is not supported."""
        return UnsupportedError(f"node {self.name!r} ({self.op}) uses {what}: not supported")


def opset(model: onnx.ModelProto) -> int:
    """The version of ONNX's operator set that a model uses; 1 where it states none."""
    return next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 1)


def read_nodes(model: onnx.ModelProto) -> list[Node]:
    """The nodes of a model, in its order.

    Raises:
        UnsupportedError: where one is of another domain than ONNX's own.
    """
    from onnx import helper

    version = opset(model)
    nodes = []
    for i, proto in enumerate(model.graph.node):
        name = proto.name or f"{proto.op_type}_{i}"
        if proto.domain not in ("", "ai.onnx"):
            raise UnsupportedError(f"the operator {proto.op_type} (node {name!r}) is not supported")
        attributes = {a.name: helper.get_attribute_value(a) for a in proto.attribute}
        nodes.append(
            Node(name, proto.op_type, tuple(proto.input), tuple(proto.output), attributes, version)
        )
    return nodes


def uses(nodes: Sequence[Node], output: str) -> Counter[str]:
    """How often each value is wanted, as the network's output or by a node."""
    return Counter([output, *(name for node in nodes for name in node.inputs)])


def weight_names(nodes: Sequence[Node]) -> list[str]:
    """What Conv, Gemm and MatMul multiply by, seen through Identity and Transpose nodes."""
    source = {node.output: node.inputs[0] for node in nodes if node.op in ("Identity", "Transpose")}
    names: dict[str, None] = {}
    for node in nodes:
        positions = {"Conv": (1,), "Gemm": (1,), "MatMul": (0, 1)}.get(node.op, ())
        for position in positions:
            name = node.inputs[position]
            while name in source:
                name = source[name]
            names[name] = None
    return list(names)


def trainable_names(nodes: Sequence[Node], tensors: Mapping[str, Tensor]) -> set[str]:
    """The tensors that training may change: weights, biases, a batch norm's scale and shift."""
    roles = {"Conv": (2,), "Gemm": (2,), "BatchNormalization": (1, 2), "PRelu": (1,), "Add": (0, 1)}
    names = set(weight_names(nodes))
    for node in nodes:
        for name in [node.inputs[p] for p in roles.get(node.op, ()) if p < len(node.inputs)]:
            # A single number that is added is part of a formula (as x + 3 of a hard swish).
            if name in tensors and (node.op != "Add" or tensors[name].size > 1):
                names.add(name)
    return names
