"""Opens a stranger's `.onnx`: told apart from other files, nothing read outside of its folder."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.checker
import onnx.inliner
from google.protobuf.message import DecodeError
from onnx import FunctionProto, GraphProto, ModelProto, NodeProto, TensorProto

from squeezekit.errors import InputError, UnsupportedError
from squeezekit.files import read_bytes
from squeezekit.interop.file_kinds import require_network
from squeezekit.interop.protobuf_text import is_text_only
from squeezekit.runtime import foreign_onnx
from squeezekit.sqz.nodes import opset

Array = np.ndarray[tuple[Any, ...], np.dtype[Any]]

OLDEST_OPSET = 7
"""Older operator sets broadcast differently; ONNX Runtime does not read them either."""

MOST_EXTERNAL_BYTES = 1 << 30
"""Of weights in files beside the model: as many as a `.sqz` may hold in float32."""


def load(path: Path | str) -> ModelProto:
    """Read an ONNX model with all its weights, and with its functions written out.

    Weights in files beside it are read only where these lie in its folder, and are no links that
    lead out of it. Layers that behave otherwise in training are set to inference.

    Raises:
        InputError: if the file is no ONNX model, or the files with its weights are missing, too
            short, or elsewhere.
        UnsupportedError: if its operator set is too old, or it is larger than any network here.
    """
    model = _parsed(path)
    external_bytes = 0
    for tensor in _tensors(model):
        if tensor.data_location == TensorProto.EXTERNAL:
            external_bytes += _read_external(path, tensor, MOST_EXTERNAL_BYTES - external_bytes)
    if model.functions:
        try:
            model = onnx.inliner.inline_local_functions(model)
        except (RuntimeError, ValueError, onnx.checker.ValidationError) as error:
            raise InputError(f"{path}: its functions cannot be read ({error})") from None
    version = opset(model)
    if version < OLDEST_OPSET:
        raise UnsupportedError(
            f"{path}: uses ONNX operator set {version}; "
            f"export it again with {OLDEST_OPSET} or later"
        )
    _set_to_inference(model.graph)
    return model


def files_beside(path: Path | str) -> list[Path]:
    """The files in which a model's weights lie, beside itself.

    Raises:
        InputError: if the file is no ONNX model.
    """
    return foreign_onnx.check(Path(path), read_bytes(path))


def _parsed(path: Path | str) -> ModelProto:
    data = read_bytes(path)
    require_network(path)
    foreign_onnx.check(Path(path), data)
    model = ModelProto()
    try:
        model.ParseFromString(data)
    except DecodeError:
        raise InputError(f"{path}: is not an ONNX model") from None
    if not model.graph.node or not model.graph.output:
        raise InputError(f"{path}: is not an ONNX model (it has no graph)")
    if not is_text_only(model):
        raise InputError(f"{path}: is damaged (a name in it is not UTF-8)")
    return model


def _nodes(graph: GraphProto | FunctionProto) -> Iterator[NodeProto]:
    """The nodes of a graph and of all graphs within it."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                if inner.node:
                    yield from _nodes(inner)


def _tensors(model: ModelProto) -> Iterator[TensorProto]:
    """Every tensor of a model, wherever it stands."""
    for holder in (model.graph, *model.functions):
        if isinstance(holder, GraphProto):
            yield from _stored(holder)
        for node in _nodes(holder):
            for attribute in node.attribute:
                yield from (attribute.t, *attribute.tensors)
                for inner in (attribute.g, *attribute.graphs):
                    yield from _stored(inner)


def _stored(graph: GraphProto) -> Iterator[TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)


def _read_external(path: Path | str, tensor: TensorProto, most_bytes: int) -> int:
    """Put a tensor's numbers in from the file beside the model that has them; returns the bytes."""
    keys = {entry.key: entry.value for entry in tensor.external_data}
    location = keys.get("location", "")
    beside = Path(path).parent / location  # which was checked before
    try:
        kind = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
        start, length = int(keys.get("offset", 0)), math.prod(tensor.dims) * kind.itemsize
        if kind.hasobject or not 0 <= length <= most_bytes:
            raise ValueError(f"{tensor.name} is of a kind or size that is not supported")
        with beside.open("rb") as file:
            file.seek(start)
            raw = file.read(min(length, beside.stat().st_size))
    except (OSError, ValueError, KeyError, OverflowError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise InputError(
            f"{path}: the file with its weights cannot be read ({location}: {reason})"
        ) from None
    if len(raw) != length or int(keys.get("length", length)) != length:
        raise InputError(
            f"{path}: the file with its weights cannot be read ({location} holds "
            f"{len(raw)} bytes for {tensor.name}, which has {length})"
        )
    tensor.ClearField("external_data")
    tensor.ClearField("data_location")
    tensor.raw_data = raw
    return len(raw)


def _set_to_inference(graph: GraphProto) -> None:
    """Have dropout pass everything on, and batch norms use what they learned."""
    for node in _nodes(graph):
        if node.domain not in ("", "ai.onnx"):
            continue
        if node.op_type == "Dropout":
            del node.input[2:]  # training_mode
        elif node.op_type == "BatchNormalization":
            kept = [a for a in node.attribute if a.name != "training_mode"]
            if len(kept) != len(node.attribute):
                node.ClearField("attribute")
                node.attribute.extend(kept)
            del node.output[1:]  # statistics of the batch


def is_quantised(model: ModelProto) -> NodeProto | None:
    """The first node that computes with integers instead of floats, or None."""
    for node in _nodes(model.graph):
        if "Quantize" in node.op_type or "Integer" in node.op_type or "QLinear" in node.op_type:
            return node
    return None


def to_array(tensor: TensorProto) -> Array:
    """A tensor's numbers.

    Raises:
        ValueError: if it has other numbers than its shape says.
    """
    try:
        return np.asarray(onnx.numpy_helper.to_array(tensor))
    except (ValueError, TypeError, KeyError, OverflowError) as error:
        raise ValueError(f"the tensor {tensor.name!r} is damaged ({error})") from None
