"""ONNX graphs without weights: taking the weights out, and putting them back without a library."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from squeezekit.errors import GraphError
from squeezekit.sqz.tensors import Floats
from squeezekit.sqz.varint import varint

if TYPE_CHECKING:
    import onnx

FLOAT = 1
"""onnx.TensorProto.FLOAT."""

# Inputs of these operators, by position, are settings and stay in the graph whatever their type.
_SETTINGS = {"Resize": (1, 2, 3), "Clip": (1, 2), "Pad": (1, 2, 3), "Dropout": (1, 2)}


def split(model: onnx.ModelProto) -> tuple[bytes, dict[str, Floats]]:
    """Take the float32 weights out of an ONNX model.

    Returns:
        The serialized model without them, and the weights by name. Integer initializers (shapes,
        axes) and settings (a Clip's bounds) stay in the graph.
    """
    import onnx
    from onnx import numpy_helper

    settings = {
        node.input[i]
        for node in model.graph.node
        for i in _SETTINGS.get(node.op_type, ())
        if i < len(node.input)
    }
    used = {name for node in model.graph.node for name in node.input}
    skeleton = onnx.ModelProto()
    skeleton.CopyFrom(model)
    del skeleton.graph.initializer[:]
    tensors: dict[str, Floats] = {}
    for tensor in model.graph.initializer:
        if tensor.name not in used:
            continue
        if tensor.data_type == FLOAT and tensor.dims and tensor.name not in settings:
            tensors[tensor.name] = np.ascontiguousarray(numpy_helper.to_array(tensor), np.float32)
        else:
            skeleton.graph.initializer.append(tensor)
    # Old exporters list weights among the inputs too; a skeleton must have only the image there.
    inputs = [value for value in model.graph.input if value.name not in tensors]
    del skeleton.graph.input[:]
    skeleton.graph.input.extend(inputs)
    return skeleton.SerializeToString(deterministic=True), tensors


def attach(graph: bytes, tensors: Mapping[str, Floats]) -> bytes:
    """Serialize an ONNX model with its weights put back.

    Protocol buffers merge when concatenated: appending a ModelProto that holds nothing but a
    GraphProto with initializers adds them to the graph. So this needs no protobuf library, and
    the way from a `.sqz` to a session stays short.
    """
    parts: list[bytes | memoryview] = []  # joined once: every copy of the weights takes its time
    for name, values in tensors.items():
        raw = np.ascontiguousarray(values, "<f4").reshape(-1).view(np.uint8)
        tensor = (
            _field(1, b"".join(varint(d) for d in values.shape))
            + bytes([2 << 3, FLOAT])
            + _field(8, name.encode())
            + _start(9, len(raw))
        )
        parts += [_start(5, len(tensor) + len(raw)), tensor, raw.data]  # GraphProto.initializer
    return b"".join([graph, _start(7, sum(map(len, parts))), *parts])  # ModelProto.graph


def _field(number: int, payload: bytes) -> bytes:
    return _start(number, len(payload)) + payload


def _start(number: int, size: int) -> bytes:
    """The bytes before a field's payload of this size."""
    return varint(number << 3 | 2) + varint(size)


def parse(graph: bytes) -> onnx.ModelProto:
    """Read a serialized ONNX model.

    Raises:
        GraphError: if the bytes are none.
    """
    import onnx
    from google.protobuf.message import DecodeError

    model = onnx.ModelProto()
    try:
        model.ParseFromString(graph)
    except DecodeError as error:
        raise GraphError(f"the graph is not an ONNX model ({error})") from None
    if not model.graph.node:
        raise GraphError("the graph has no nodes")
    return model


def stated_outputs(graph: bytes) -> int | None:
    """The number of classes by the shape that a graph states for its first output.

    Returns:
        The product of all axes but the batch's; None if the graph leaves one open.

    Raises:
        GraphError: if the bytes are no graph.
    """
    (output, *_) = parse(graph).graph.output
    if not output.type.tensor_type.HasField("shape"):
        return None
    (_, *sizes) = [dim.dim_value for dim in output.type.tensor_type.shape.dim] or [0]
    return math.prod(sizes) or None if sizes else None
