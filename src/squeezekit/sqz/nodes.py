"""Reads a network's graph: its nodes, which nodes use a value, which tensors are weights."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from squeezekit.errors import UnsupportedError
from squeezekit.sqz.graph import parse
from squeezekit.sqz.network import Network, Tensor
from squeezekit.sqz.padding import same_padding

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


Pads = list[tuple[int, int]]


def pads_of(node: Node, size: Sequence[int], window: Sequence[int], stride: Sequence[int]) -> Pads:
    """Padding (head, tail) for each spatial axis, of a window that covers `window` pixels."""
    auto = node.get("auto_pad", b"NOTSET")
    if auto == b"VALID":
        return [(0, 0) for _ in size]
    if auto in (b"SAME_UPPER", b"SAME_LOWER"):
        return same_padding(size, window, stride, lower=auto == b"SAME_LOWER")
    flat = node.get("pads", [0] * (2 * len(size)))
    return list(zip(flat[: len(size)], flat[len(size) :], strict=True))


def opset(model: onnx.ModelProto) -> int:
    """The version of ONNX's operator set that a model uses; 1 where it states none."""
    return next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 1)


def read_nodes(model: onnx.ModelProto) -> list[Node]:
    """The nodes of a model, in its order.

    Raises:
        UnsupportedError: if one is of another domain than ONNX's own.
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


class Shaped(Protocol):
    """A tensor of any kind: numpy's, torch's, shared."""

    @property
    def shape(self) -> Sequence[int]:
        """Its size along each axis."""


@dataclass(frozen=True)
class WeightedNode:
    """A convolution or a matrix product that multiplies by a tensor of the network.

    Attributes:
        node: the node of the graph.
        weight, bias: names of its tensors; "" for no bias.
        alone: whether nothing else uses them; a bias that is computed is not alone.
    """

    node: Node
    weight: str
    bias: str
    alone: bool

    @property
    def transposed(self) -> bool:
        """Whether the weight is stored as (in, out); a convolution's never is."""
        return self.node.op != "Conv" and not self.node.get("transB", 0)

    @property
    def out_axis(self) -> int:
        """The axis of the weight that counts the layer's outputs."""
        return 1 if self.transposed else 0

    @property
    def groups(self) -> int:
        """Of a convolution; 1 for a matrix product."""
        return int(self.node.get("group", 1))

    @property
    def plain(self) -> bool:
        """Whether it is y = W x + b: neither side is scaled, and the input not transposed."""
        scales = (self.node.get("alpha", 1.0), self.node.get("beta", 1.0))
        return scales == (1.0, 1.0) and not self.node.get("transA", 0)


def weighted_nodes(nodes: Sequence[Node], tensors: Mapping[str, Shaped]) -> list[WeightedNode]:
    """The layers whose weight is a tensor of the network by itself, in the graph's order."""
    used = Counter(name for node in nodes for name in node.inputs)
    found = []
    for node in nodes:
        stored = node.inputs[1] if node.op in _WEIGHT_INPUTS else ""
        if stored not in tensors or len(tensors[stored].shape) < 2 or node.inputs[0] in tensors:
            continue
        named = node.inputs[2] if len(node.inputs) > 2 else ""
        alone = used[stored] == 1 and (not named or (named in tensors and used[named] == 1))
        found.append(WeightedNode(node, stored, named if named in tensors else "", alone))
    return found


def weight_names(network: Network) -> tuple[str, ...]:
    """Names of the tensors that a convolution or a matrix product multiplies by, in graph order.

    These are the tensors that Deep Compression prunes and shares; biases and the tensors of a
    batch norm are not among them. A weight may be transposed on its way.
    """
    nodes = read_nodes(parse(network.graph))
    return tuple(
        name
        for name in _factors(nodes)
        if name in network.tensors and len(network.tensors[name].shape) >= 2
    )


# Where each operator that multiplies by a weight takes it: positions among the node's inputs.
_WEIGHT_INPUTS = {"Conv": (1,), "Gemm": (1,), "MatMul": (0, 1)}


def _factors(nodes: Sequence[Node]) -> list[str]:
    """What these operators multiply by, seen through Identity and Transpose nodes."""
    source = {node.output: node.inputs[0] for node in nodes if node.op in ("Identity", "Transpose")}
    names: dict[str, None] = {}
    for node in nodes:
        for position in _WEIGHT_INPUTS.get(node.op, ()):
            name = node.inputs[position]
            while name in source:
                name = source[name]
            names[name] = None
    return list(names)


def trainable_names(nodes: Sequence[Node], tensors: Mapping[str, Tensor]) -> set[str]:
    """The tensors that training may change: weights, biases, a batch norm's scale and shift."""
    roles = {"Conv": (2,), "Gemm": (2,), "BatchNormalization": (1, 2), "PRelu": (1,), "Add": (0, 1)}
    names = set(_factors(nodes))
    for node in nodes:
        for name in [node.inputs[p] for p in roles.get(node.op, ()) if p < len(node.inputs)]:
            # A single number that is added is part of a formula (as x + 3 of a hard swish).
            if name in tensors and (node.op != "Add" or tensors[name].size > 1):
                names.add(name)
    return names
