"""A foreign graph while it is being rewritten: nodes in order, constants by name, one image in."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx.checker
from onnx import (
    AttributeProto,
    GraphProto,
    ModelProto,
    NodeProto,
    TensorProto,
    helper,
    numpy_helper,
)

from squeezekit.errors import InputError, UnsupportedError
from squeezekit.interop.onnx_import.source import Array, to_array
from squeezekit.sqz.nodes import opset

OPSET = 21
"""Graphs are rewritten in this operator set; GroupNormalization was another one before."""

NEWER_OPSET, OLDER_OPSET, IR_VERSION = 20, 17, 8
"""What is left of them is written in the second, where that has all operators, else in the first:
other programs read it, and squeezekit's own networks are in it."""


@dataclass
class Draft:
    """A graph being rewritten.

    Attributes:
        nodes: each with a name, and only with inputs that nodes before it made, or constants, or
            the image.
        constants: arrays by the names that nodes use.
        image: the name of the input.
        outputs: by the model's own name of each, the value that it is now.
        version: the version of the operator set that the nodes were written in.
    """

    nodes: list[NodeProto]
    constants: dict[str, Array]
    image: str
    outputs: dict[str, str]
    version: int
    _taken: set[str] = field(default_factory=set, repr=False)

    def __post_init__(self) -> None:
        self._taken |= {name for node in self.nodes for name in node.output}
        self._taken |= {*self.constants, self.image, *self.outputs}

    def copy(self) -> Draft:
        """Another draft of the same graph, which may be rewritten in its stead."""
        nodes = [NodeProto.FromString(node.SerializeToString()) for node in self.nodes]
        constants, outputs = dict(self.constants), dict(self.outputs)
        return Draft(nodes, constants, self.image, outputs, self.version, set(self._taken))

    def constant(self, values: object, dtype: type[np.generic], base: str) -> str:
        """Keep an array, and give the name that it got."""
        name = self.fresh(base)
        self.constants[name] = np.asarray(values, dtype)
        return name

    def fresh(self, base: str) -> str:
        """A name that no value has."""
        name, count = base, 0
        while name in self._taken:
            count += 1
            name = f"{base}.{count}"
        self._taken.add(name)
        return name

    def uses(self) -> Counter[str]:
        """How often each value is used, as an output or by a node."""
        used = (name for node in self.nodes for name in wanted_by(node))
        return Counter([*self.outputs.values(), *used])

    def prune(self) -> None:
        """Drop the nodes and constants that no output needs."""
        needed = set(self.outputs.values())
        kept = []
        for node in reversed(self.nodes):
            if needed.intersection(node.output):
                needed.update(wanted_by(node))
                kept.append(node)
        self.nodes = kept[::-1]
        self.constants = {name: v for name, v in self.constants.items() if name in needed}


def refuse(node: NodeProto, reason: str) -> UnsupportedError:
    """The sentence that names a node and why it stops the import."""
    return UnsupportedError(f"node {node.name!r} ({node.op_type}) {reason}")


def attributes(node: NodeProto) -> dict[str, Any]:
    """A node's attributes as Python has them."""
    return {a.name: helper.get_attribute_value(a) for a in node.attribute}


def new_node(
    op: str,
    inputs: Iterable[str],
    outputs: Iterable[str],
    name: str,
    **settings: Any,  # noqa: ANN401
) -> NodeProto:
    """A node of ONNX's own domain."""
    return helper.make_node(op, list(inputs), list(outputs), name, **settings)


def draft_of(model: ModelProto, image: str) -> Draft:
    """Begin to rewrite a model: nodes sorted and named, constants taken out.

    Args:
        model: with its weights inside and its functions written out.
        image: the input that stays one.

    Raises:
        InputError: if a node uses what nothing makes, two make the same, or a tensor is damaged.
        UnsupportedError: if a constant is not of numbers.
    """
    graph = model.graph
    constants = stored_constants(graph)
    nodes = []
    for i, node in enumerate(graph.node):
        copy = NodeProto()
        copy.CopyFrom(node)
        copy.name = node.name or f"{node.op_type}_{i}"
        copy.doc_string = ""
        copy.ClearField("metadata_props")
        copy.domain = "" if node.domain == "ai.onnx" else node.domain
        require_valid(copy, opset(model))
        if copy.op_type == "Constant" and not copy.domain:
            constants[copy.output[0]] = constant_value(copy)
        else:
            nodes.append(copy)
    made = [name for node in nodes for name in node.output if name]
    if len(set(made)) != len(made):
        raise InputError("two of its nodes have the same output")
    _name_apart(nodes)
    nodes = sort_nodes(nodes, {*constants, image, *(value.name for value in graph.input)})
    return Draft(nodes, constants, image, {v.name: v.name for v in graph.output}, opset(model))


def require_valid(node: NodeProto, version: int) -> None:
    """Refuse a node with other attributes, inputs or outputs than its operator has.

    Raises:
        UnsupportedError: naming the node and what is wrong with it.
    """
    if node.domain or node.op_type == "If":  # of which only one branch has to be valid
        return
    context = onnx.checker.C.CheckerContext()
    context.ir_version, context.opset_imports = IR_VERSION, {"": version}
    try:
        onnx.checker.check_node(node, context)
    except (onnx.checker.ValidationError, RuntimeError, ValueError, TypeError) as error:
        reason = " ".join(str(error).partition("==>")[0].split())
        raise refuse(node, f"is damaged or unknown ({reason})") from None


def stored_constants(graph: GraphProto) -> dict[str, Array]:
    """The initializers of a graph as arrays."""
    for sparse in graph.sparse_initializer:
        raise UnsupportedError(f"its tensor {sparse.values.name!r} is sparse: not supported")
    try:
        return {tensor.name: _numbers(tensor) for tensor in graph.initializer}
    except ValueError as error:
        raise InputError(str(error)) from None


def constant_value(node: NodeProto) -> Array:
    """What a Constant node gives.

    Raises:
        UnsupportedError: if that is no array of numbers.
        InputError: if it is damaged.
    """
    kinds = {
        "value_float": np.float32, "value_floats": np.float32,
        "value_int": np.int64, "value_ints": np.int64,
    }  # fmt: skip
    for attribute in node.attribute:
        if attribute.name == "value" and attribute.type == AttributeProto.TENSOR:
            try:
                return _numbers(attribute.t)
            except ValueError as error:
                raise InputError(str(error)) from None
        if attribute.name in kinds:
            return np.array(helper.get_attribute_value(attribute), kinds[attribute.name])
    raise refuse(node, "is a constant of an unusual type: not supported")


def _numbers(tensor: TensorProto) -> Array:
    if tensor.data_type == TensorProto.STRING:
        raise UnsupportedError(f"its tensor {tensor.name!r} holds text: not supported")
    return to_array(tensor)


def _name_apart(nodes: list[NodeProto]) -> None:
    """Give nodes of one name different ones, so that a sentence about one is about that one."""
    seen: set[str] = set()
    for i, node in enumerate(nodes):
        if node.name in seen:
            node.name = f"{node.name}_{i}"
        seen.add(node.name)


def sort_nodes(nodes: list[NodeProto], known: set[str]) -> list[NodeProto]:
    """Nodes so that each comes behind those that make its inputs; as they are where they do.

    Raises:
        InputError: if an input is made by none, or nodes wait for each other.
    """
    made = known | {""}
    makers = {name for node in nodes for name in node.output}
    for node in nodes:
        for name in wanted_by(node):
            if name not in made and name not in makers:
                raise InputError(f"its node {node.name!r} uses {name!r}, which no node makes")
    users: dict[str, list[int]] = {}
    waiting = []
    for i, node in enumerate(nodes):
        missing = {name for name in wanted_by(node) if name not in made}
        waiting.append(len(missing))
        for name in missing:
            users.setdefault(name, []).append(i)
    ready = [i for i, count in enumerate(waiting) if not count]
    done: list[NodeProto] = []
    while ready:
        i = heapq.heappop(ready)
        done.append(nodes[i])
        for user in (user for name in nodes[i].output for user in users.pop(name, ())):
            waiting[user] -= 1
            if not waiting[user]:
                heapq.heappush(ready, user)
    if len(done) != len(nodes):
        stuck = next(node for node, count in zip(nodes, waiting, strict=True) if count)
        raise InputError(f"its node {stuck.name!r} depends on its own output")
    return done


def wanted_by(node: NodeProto) -> list[str]:
    """The values that a node uses, those of the graphs within it included."""
    names = list(node.input)
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            own = {tensor.name for tensor in graph.initializer} | {v.name for v in graph.input}
            own.update(name for inner in graph.node for name in inner.output)
            names += [name for inner in graph.node for name in wanted_by(inner) if name not in own]
            names += [value.name for value in graph.output if value.name not in own]
    return [name for name in names if name]


def to_model(
    draft: Draft, shape: tuple[int | str, ...], outputs: Mapping[str, tuple[int | str, ...]]
) -> ModelProto:
    """The draft as a model.

    Args:
        draft: in operator set OPSET.
        shape: the shape of the image.
        outputs: their shapes, by name.
    """
    nodes, constants, version = _lowered(draft)
    stored = [numpy_helper.from_array(values, name) for name, values in constants.items()]
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info(draft.image, TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in outputs.items()],
        stored,
    )
    ir_version = IR_VERSION if version == OLDER_OPSET else 9
    opsets = [helper.make_opsetid("", version)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=ir_version)


_NEWER = ("Gelu", "Mish")
"""Operators that OLDER_OPSET lacks."""

_AXES_AS_INPUT = ("ReduceMax", "ReduceMean")
"""Operators whose axes are an input since operator set 18."""


def _lowered(draft: Draft) -> tuple[list[NodeProto], dict[str, Array], int]:
    """Nodes and constants in the older operator set, where that has all operators."""
    if any(node.op_type in _NEWER or node.domain for node in draft.nodes):
        return draft.nodes, draft.constants, NEWER_OPSET
    nodes = []
    for node in draft.nodes:
        copy = NodeProto()
        copy.CopyFrom(node)
        if node.op_type in _AXES_AS_INPUT and len(node.input) > 1:
            if node.input[1] not in draft.constants:
                raise refuse(node, "computes its axes: not supported")
            axes = draft.constants[node.input[1]].tolist()
            del copy.input[1:]
            settings = [a for a in copy.attribute if a.name != "noop_with_empty_axes"]
            copy.ClearField("attribute")
            copy.attribute.extend(settings)
            copy.attribute.append(helper.make_attribute("axes", axes))
        nodes.append(copy)
    used = {name for node in nodes for name in node.input}
    kept = {
        name: v
        for name, v in draft.constants.items()
        if name in used or name in draft.outputs.values()
    }
    return nodes, kept, OLDER_OPSET
