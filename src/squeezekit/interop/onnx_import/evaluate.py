"""Types of values node by node, and nodes whose inputs are all known computed by ONNX Runtime."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from onnx import NodeProto, TypeProto, helper, numpy_helper
from onnx.checker import ValidationError
from onnx.defs import SchemaError
from onnx.shape_inference import InferenceError, infer_node_outputs

from squeezekit.interop.onnx_import.draft import OPSET
from squeezekit.interop.onnx_import.source import Array

MOST_NUMBERS = 1 << 28
"""In a constant: as many as a `.sqz` may hold."""

MOST_IN_SHAPES = 1024
"""So many numbers of an input at most can be the shape, axes or the like that a type hangs on."""

FOLDABLE = frozenset({
    "Abs", "Add", "And", "Cast", "CastLike", "Ceil", "Concat", "ConstantOfShape", "Conv", "Div",
    "Equal", "Exp", "Expand", "Flatten", "Floor", "Gather", "GatherElements", "GatherND", "Gemm",
    "Greater", "GreaterOrEqual", "Identity", "Less", "LessOrEqual", "Log", "MatMul", "Max", "Min",
    "Mod", "Mul", "Neg", "Not", "Or", "Pad", "Pow", "Range", "Reciprocal", "ReduceMax",
    "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum", "Relu", "Reshape", "Round", "ScatterND",
    "Shape", "Sign", "Size", "Slice", "Sqrt", "Squeeze", "Sub", "Sum", "Tanh", "Tile", "Transpose",
    "Trilu", "Unsqueeze", "Where",
})  # fmt: skip
"""Operators that are computed where all their inputs are constants. What draws random numbers, runs
a graph of its own or computes with integers for floats is not among them."""


def type_of(array: Array) -> TypeProto:
    """The type of an array."""
    return helper.make_tensor_type_proto(helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)


def shape_in(kind: TypeProto) -> tuple[int, ...] | None:
    """The sizes in a type, or None if one is not known."""
    tensor = kind.tensor_type
    if not tensor.HasField("shape") or not all(d.HasField("dim_value") for d in tensor.shape.dim):
        return None
    return tuple(dim.dim_value for dim in tensor.shape.dim)


def inferred(
    node: NodeProto, types: Mapping[str, TypeProto], known: Mapping[str, Array]
) -> dict[str, TypeProto]:
    """The types of a node's outputs, where those of its inputs are known; else none.

    Raises:
        InferenceError: if its inputs do not fit each other.
        SchemaError: if there is no such operator, or no longer.
    """
    schema = onnx.defs.get_schema(node.op_type, OPSET, node.domain)
    if schema.deprecated:
        raise SchemaError(f"{node.op_type} is deprecated")
    names = [name for name in node.input if name]
    if not all(name in types for name in names):
        return {}
    data = {
        name: numpy_helper.from_array(np.asarray(known[name]), name)
        for name in names
        if name in known and known[name].size <= MOST_IN_SHAPES
    }
    try:
        found: dict[str, TypeProto] = infer_node_outputs(
            schema,
            node,
            {name: types[name] for name in names},
            data,
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=10,
        )
    except InferenceError:
        raise
    except (ValidationError, RuntimeError, ValueError, KeyError, TypeError) as error:
        raise InferenceError(str(error)) from None  # attributes that it does not have, and the like
    if node.op_type == "GroupNormalization":  # of which ONNX does not tell
        found[node.output[0]] = types[node.input[0]]
    return found


def computed(
    node: NodeProto, inputs: Sequence[Array | None], most: int = MOST_NUMBERS
) -> list[Array] | None:
    """What a node gives for known inputs; None if that is not computed, or would be too large.

    Args:
        node: in operator set OPSET.
        inputs: an array for each of its inputs, None for those that are left out.
        most: numbers in a result.
    """
    if node.domain or node.op_type not in FOLDABLE:
        return None
    known = {n: a for n, a in zip(node.input, inputs, strict=True) if a is not None}
    try:
        types = inferred(node, {name: type_of(array) for name, array in known.items()}, known)
    except (InferenceError, SchemaError):
        return None
    for name in node.output:
        shape = shape_in(types[name]) if name in types else None
        if shape is None or math.prod(shape) > most:
            return None
    from onnxruntime import InferenceSession, SessionOptions

    values = [helper.make_value_info(name, type_of(array)) for name, array in known.items()]
    results = [helper.make_value_info(name, types[name]) for name in node.output]
    graph = helper.make_graph([node], "constant", values, results)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)
    options = SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    try:
        session = InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        return [np.asarray(result) for result in session.run(None, known)]
    except Exception:  # ONNX Runtime has no common base class of its errors
        return None
