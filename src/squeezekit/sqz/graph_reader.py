"""The reading of a `.sqz`'s graph: strict, bounded, and without the onnx package.

What docs/format.md does not list makes a graph invalid: weights in other files, graphs within
graphs, functions, operators of other domains, metadata, training, sparse tensors, texts.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from squeezekit.errors import GraphError, OperatorError
from squeezekit.sqz import operators
from squeezekit.sqz.nodes import Node
from squeezekit.sqz.operators import MOST_INPUTS, OPERATORS
from squeezekit.sqz.protobuf import (
    BYTES,
    FIXED32,
    VARINT,
    Field,
    Message,
    MessageError,
    read_varint,
    signed,
)

MOST_NODES = 4096
MOST_SETTING = 1 << 16
"""Numbers in an initializer of the graph."""

_MOST_AXES = 8
_MOST_INTS = 64
"""Numbers in an attribute."""

Setting = np.ndarray[tuple[Any, ...], np.dtype[Any]]


@dataclass(frozen=True)
class Value:
    """The graph's input or output.

    Attributes:
        name: in the graph.
        shape: as stated, None if an axis is left open; None as a whole where none is stated.
    """

    name: str
    shape: tuple[int | None, ...] | None


@dataclass(frozen=True)
class Graph:
    """A graph that has been read: nothing in it is outside of the closed list.

    Attributes:
        opset: version of ONNX's operator set.
        nodes: in an order in which they can run.
        input, output: the images, and what is made of them.
        settings: the initializers that the graph keeps: shapes, axes, bounds; by name.
    """

    opset: int
    nodes: tuple[Node, ...]
    input: Value
    output: Value
    settings: Mapping[str, Setting]


def read_graph(data: bytes, tensors: Mapping[str, object]) -> Graph:
    """Read a graph and check that it is closed: operators, names, order.

    Args:
        data: a serialized ModelProto without the weights.
        tensors: by the names of the weights that lie outside of it.

    Raises:
        GraphError: if the bytes are no graph that a `.sqz` may have.
        OperatorError: if an operator, or an attribute of one, is not in the closed list.
    """
    try:
        graph = _model(Message.whole(data))
    except MessageError as error:
        raise GraphError(f"the graph is not an ONNX model ({error})") from None
    except UnicodeDecodeError:
        raise GraphError("a text in the graph is not UTF-8") from None
    _check_names(graph, tensors)
    return graph


# ---------------------------------------------------------------------------------------- fields

_Reading = Callable[[Message, Field], Any]


def _text(message: Message, field: Field) -> str:
    return message.bytes(field).decode()


def _raw(message: Message, field: Field) -> bytes:
    return message.bytes(field)


def _part(message: Message, field: Field) -> Message:
    return message.part(field)


def _int(message: Message, field: Field) -> int:
    return signed(field[2])


def _float(message: Message, field: Field) -> float:
    return float(struct.unpack_from("<f", message.data, field[2])[0])


_KINDS: dict[_Reading, int] = {
    _text: BYTES, _raw: BYTES, _part: BYTES, _int: VARINT, _float: FIXED32,
}  # fmt: skip

_Schema = Mapping[int, tuple[str, _Reading]]
"""By the number of a field that stands at most once: what it is called and how it is read."""


_FORBIDDEN = {
    ("the model", 14): "metadata",
    ("the model", 20): "training_info",
    ("the model", 25): "functions",
    ("the graph", 13): "value_info",
    ("the graph", 14): "quantization_annotation",
    ("the graph", 15): "sparse_initializer",
    ("the graph", 16): "metadata",
    ("a node", 9): "metadata",
    ("an attribute", 5): "a tensor",
    ("an attribute", 6): "a graph",
    ("an initializer", 6): "string_data",
    ("an initializer", 13): "external_data (weights in another file)",
    ("an initializer", 14): "data_location (weights in another file)",
}
"""Fields of ONNX's messages that people will ask about; all others are as invalid."""


def _read(
    message: Message,
    what: str,
    once: _Schema,
    repeated: Mapping[int, tuple[str, _Reading, int]] | None = None,
) -> dict[str, Any]:
    """The fields of a message; anything that is not expected makes it invalid.

    Args:
        message: the message to read.
        what: it is, for sentences.
        once: fields that stand at most once.
        repeated: name, reading and the most of the others. Numbers may be packed.
    """
    repeated = repeated or {}
    found: dict[str, Any] = {name: [] for name, _, _ in repeated.values()}
    for field in message.fields():
        number, kind = field[0], field[1]
        if number in once:
            name, reading = once[number]
            if kind != _KINDS[reading]:
                raise MessageError(f"{name} of {what} has the wrong kind")
            if name in found:
                raise GraphError(f"{what} has two of its field {name}")
            found[name] = reading(message, field)
        elif number in repeated:
            name, reading, most = repeated[number]
            values = found[name]
            if kind == _KINDS[reading]:
                values.append(reading(message, field))
            elif kind == BYTES and reading in (_int, _float):
                values += _packed(message.part(field), reading, most - len(values))
            else:
                raise MessageError(f"{name} of {what} has the wrong kind")
            if len(values) > most:
                raise GraphError(f"{what} has more than {most} of its field {name}")
        else:
            forbidden = _FORBIDDEN.get((what, number), f"the field {number}")
            raise GraphError(f"{what} has {forbidden}, which no .sqz may have")
    return found


def _packed(message: Message, reading: _Reading, most: int) -> list[Any]:
    """Numbers one behind the other, without the number of their field; one more than `most`."""
    size = message.end - message.start
    if reading is _float:
        if size % 4:
            raise MessageError("packed numbers are cut")
        count = min(size // 4, most + 1)
        return list(struct.unpack_from(f"<{count}f", message.data, message.start))
    values: list[Any] = []
    at = message.start
    while at < message.end and len(values) <= most:
        value, at = read_varint(message.data, at, message.end)
        values.append(signed(value))
    return values


# -------------------------------------------------------------------------------------- messages

_MODEL: _Schema = {
    1: ("ir_version", _int), 2: ("producer_name", _text), 3: ("producer_version", _text),
    4: ("domain", _text), 5: ("model_version", _int), 6: ("doc_string", _text), 7: ("graph", _part),
}  # fmt: skip
_OPSET: _Schema = {1: ("domain", _text), 2: ("version", _int)}
_GRAPH: _Schema = {2: ("name", _text), 10: ("doc_string", _text)}
_VALUE: _Schema = {1: ("name", _text), 2: ("type", _part), 3: ("doc_string", _text)}
_TYPE: _Schema = {1: ("tensor_type", _part)}
_TENSOR_TYPE: _Schema = {1: ("elem_type", _int), 2: ("shape", _part)}
_DIM: _Schema = {1: ("dim_value", _int), 2: ("dim_param", _text)}
_NODE: _Schema = {
    3: ("name", _text), 4: ("op_type", _text), 6: ("doc_string", _text), 7: ("domain", _text),
}  # fmt: skip
_ATTRIBUTE: _Schema = {
    1: ("name", _text), 2: ("f", _float), 3: ("i", _int), 4: ("s", _raw), 13: ("doc_string", _text),
    20: ("type", _int),
}  # fmt: skip
_TENSOR: _Schema = {
    2: ("data_type", _int), 8: ("name", _text), 9: ("raw_data", _raw), 12: ("doc_string", _text),
}  # fmt: skip

_FLOAT, _INT32, _INT64, _BOOL = 1, 6, 7, 9
_DTYPES: dict[int, tuple[str, str]] = {
    _FLOAT: ("<f4", "float_data"),
    _INT32: ("<i4", "int32_data"),
    _INT64: ("<i8", "int64_data"),
    _BOOL: ("?", "int32_data"),
}
"""By the number of a type: how it is stored, and the field where it is no raw bytes."""

_ATTRIBUTE_KINDS: dict[int, tuple[operators.Kind, str]] = {
    1: ("float", "f"), 2: ("int", "i"), 3: ("text", "s"), 7: ("ints", "ints"),
}  # fmt: skip
"""By AttributeProto.type: the kind, and the field in which such a value stands."""


def _model(model: Message) -> Graph:
    fields = _read(model, "the model", _MODEL, {8: ("opset_import", _part, 1)})
    if "graph" not in fields:
        raise GraphError("the model has no graph")
    if not fields["opset_import"]:
        raise GraphError("the model names no operator set")
    opset = _read(fields["opset_import"][0], "an operator set", _OPSET)
    if opset.get("domain", "") not in ("", "ai.onnx"):
        raise OperatorError(f"the graph uses operators of the domain {opset['domain']}")
    version = opset.get("version", 1)
    if not operators.OLDEST_OPSET <= version <= operators.NEWEST_OPSET:
        raise OperatorError(
            f"the graph uses ONNX operator set {version}, not one from "
            f"{operators.OLDEST_OPSET} to {operators.NEWEST_OPSET}"
        )
    return _graph(fields["graph"], version)


def _graph(graph: Message, version: int) -> Graph:
    fields = _read(
        graph,
        "the graph",
        _GRAPH,
        {
            1: ("node", _part, MOST_NODES),
            5: ("initializer", _part, MOST_NODES),
            11: ("input", _part, 1),
            12: ("output", _part, 1),
        },
    )
    if not fields["node"]:
        raise GraphError("the graph has no nodes")
    if not fields["input"] or not fields["output"]:
        raise GraphError("the graph does not have one input and one output")
    left = MOST_INPUTS
    nodes = []
    for i, message in enumerate(fields["node"]):
        nodes.append(_node(message, i, version, left))
        left -= len(nodes[-1].inputs)
    settings: dict[str, Setting] = {}
    for message in fields["initializer"]:
        name, values = _tensor(message)
        if name in settings:
            raise GraphError(f"two initializers are named {name}")
        settings[name] = values
    return Graph(
        version, tuple(nodes), _value(fields["input"][0]), _value(fields["output"][0]), settings
    )


def _value(message: Message) -> Value:
    fields = _read(message, "an input or output", _VALUE)
    name = fields.get("name", "")
    if not name or "type" not in fields:
        raise GraphError("an input or output of the graph has no name, or no type")
    kind = _read(fields["type"], "a type", _TYPE)
    tensor = _read(kind["tensor_type"], "a type", _TENSOR_TYPE) if "tensor_type" in kind else {}
    if tensor.get("elem_type") != _FLOAT:
        raise GraphError(f"{name} is not stated to be float32")
    if "shape" not in tensor:
        return Value(name, None)
    dims = _read(tensor["shape"], "a shape", {}, {1: ("dim", _part, _MOST_AXES)})["dim"]
    shape = []
    for dim in dims:
        found = _read(dim, "an axis", _DIM)
        size = found.get("dim_value")
        if size is not None and ("dim_param" in found or size < 1):
            raise GraphError(f"an axis of {name} is stated to be {size}")
        shape.append(size)
    return Value(name, tuple(shape))


def _node(message: Message, i: int, version: int, most_inputs: int) -> Node:
    fields = _read(
        message,
        "a node",
        _NODE,
        {
            1: ("input", _text, most_inputs),
            2: ("output", _text, MOST_INPUTS),
            5: ("attribute", _part, _MOST_INTS),
        },
    )
    op = fields.get("op_type", "")
    name = fields.get("name") or f"{op}_{i}"
    operator = OPERATORS.get(op)
    if operator is None or fields.get("domain", "") not in ("", "ai.onnx"):
        raise OperatorError(f"the operator {op} (node {name!r}) is not supported")
    inputs, outputs = fields["input"], fields["output"]
    while inputs and not inputs[-1]:  # as good as left out
        inputs.pop()
    while outputs and not outputs[-1]:
        outputs.pop()
    if not operator.least <= len(inputs) <= operator.most:
        raise OperatorError(f"node {name!r} ({op}) has {len(inputs)} inputs: not supported")
    if not 1 <= len(outputs) <= operator.outputs:
        raise OperatorError(f"node {name!r} ({op}) has {len(outputs)} outputs: not supported")
    for position, given in enumerate(inputs):
        if not given and position not in operator.optional:
            raise GraphError(f"node {name!r} ({op}) lacks an input")
    attributes: dict[str, Any] = {}
    for part in fields["attribute"]:
        key, kind, value = _attribute(part, name)
        known = operator.attributes.get(key)
        if known is None or known.kind != kind or not known.takes(value):
            raise OperatorError(f"node {name!r} ({op}) uses its attribute {key}: not supported")
        if key in attributes:
            raise GraphError(f"node {name!r} ({op}) has two attributes {key}")
        attributes[key] = value
    return Node(name, op, tuple(inputs), tuple(outputs), attributes, version)


def _attribute(message: Message, node: str) -> tuple[str, operators.Kind, Any]:
    fields = _read(message, "an attribute", _ATTRIBUTE, {8: ("ints", _int, _MOST_INTS)})
    key = fields.get("name", "")
    kind, place = _ATTRIBUTE_KINDS.get(fields.get("type", 0), (None, ""))
    values = {name for name in ("f", "i", "s", "ints") if fields.get(name, []) != []}
    if kind is None or not values <= {place}:
        raise GraphError(f"attribute {key!r} of node {node!r} is not what its type says")
    empty: dict[operators.Kind, Any] = {"float": 0.0, "int": 0, "text": b"", "ints": []}
    return key, kind, fields.get(place, empty[kind])


def _tensor(message: Message) -> tuple[str, Setting]:
    fields = _read(
        message,
        "an initializer",
        _TENSOR,
        {
            1: ("dims", _int, _MOST_AXES),
            4: ("float_data", _float, MOST_SETTING),
            5: ("int32_data", _int, MOST_SETTING),
            7: ("int64_data", _int, MOST_SETTING),
        },
    )
    name, kind = fields.get("name", ""), fields.get("data_type", 0)
    dims = fields["dims"]
    if not name or kind not in _DTYPES:
        raise GraphError(f"initializer {name!r} has no name, or a type that no .sqz may have")
    dtype, place = _DTYPES[kind]
    if any(size < 0 for size in dims) or math.prod(dims) > MOST_SETTING:
        raise GraphError(f"initializer {name!r} is too large for a setting: {dims}")
    given = [key for key in ("float_data", "int32_data", "int64_data") if fields[key]]
    if "raw_data" in fields:
        raw = fields["raw_data"]
        if given or len(raw) != math.prod(dims) * np.dtype(dtype).itemsize:
            raise GraphError(f"initializer {name!r} does not have the numbers that its shape says")
        values = np.frombuffer(raw, dtype)
    else:
        numbers = fields[place]
        if set(given) - {place} or len(numbers) != math.prod(dims):
            raise GraphError(f"initializer {name!r} does not have the numbers that its shape says")
        try:
            values = np.array(numbers, dtype)
        except OverflowError:
            raise GraphError(
                f"initializer {name!r} has a number that its type cannot hold"
            ) from None
    return name, values.reshape(dims)


# ----------------------------------------------------------------------------------------- names


def _check_names(graph: Graph, tensors: Mapping[str, object]) -> None:
    """Every name has one meaning, is known before it is used, and every tensor is used."""
    known = {graph.input.name}
    for name in (*graph.settings, *tensors):
        if name in known or not name:
            raise GraphError(f"two values are named {name!r}")
        known.add(name)
    used = {graph.output.name}
    for node in graph.nodes:
        for name in node.inputs:
            if name and name not in known:
                raise GraphError(
                    f"node {node.name!r} ({node.op}) wants {name!r}, which is neither a tensor of "
                    "the file nor made before"
                )
        used.update(node.inputs)
        for name in node.outputs:
            if name in known:
                raise GraphError(f"two values are named {name!r}")
            if name:
                known.add(name)
    made = {name for node in graph.nodes for name in node.outputs}
    if graph.output.name not in made:
        raise GraphError(f"no node makes the output {graph.output.name!r}")
    for name in (*graph.settings, *tensors):
        if name not in used:
            raise GraphError(f"the graph does not use the tensor {name!r}")
