"""Writes TensorFlow Lite files, of floats or in int8, with labels and preprocessing inside.

Schema: tensorflow/lite/schema/schema.fbs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from squeezekit.errors import UnsupportedError
from squeezekit.files import write_whole
from squeezekit.interop import tflite_about
from squeezekit.interop.tflite_about import IDENTIFIER
from squeezekit.interop.tflite_graph import package
from squeezekit.interop.tflite_lowering import Array, Lowered, Lowering, Operator, Tensor
from squeezekit.interop.tflite_operators import OPERATORS
from squeezekit.models.fold import fold_batch_norm
from squeezekit.runtime.int8 import int8_model
from squeezekit.sqz.graph import attach, parse
from squeezekit.sqz.graph_reader import read_graph
from squeezekit.sqz.network import Metadata, Network
from squeezekit.sqz.nodes import read_nodes
from squeezekit.sqz.shapes import cost

_MOST_BYTES = 2**31 - 1  # an offset has 32 bits


def write(network: Network, path: Path | str, *, int8: bool = False) -> None:
    """Write a network as a TensorFlow Lite file.

    It takes one prepared image (1, H, W, C), channels in the order RGB, and gives the network's
    outputs (1, classes), both float32. How images are prepared and the names of the classes are
    inside, where TensorFlow Lite's own tools look for them.

    Args:
        network: any; its batch norms are folded.
        path: the path of the `.tflite`.
        int8: compute in int8 between the first layer and the last, by the ranges in
            `metadata.activations`.

    Raises:
        InputError: if the package tflite is missing, the file cannot be written, or the network has
            no ranges for int8.
        UnsupportedError: if a node has no counterpart in TensorFlow Lite, naming it.
    """
    tflite = package(path)
    network = fold_batch_norm(network)
    try:
        graph = _lowered(network, int8=int8)
    except UnsupportedError as error:
        raise UnsupportedError(f"{path}: {error}") from None
    write_whole(path, _Writer(tflite).file(graph, network.metadata))


def _lowered(network: Network, *, int8: bool) -> Lowered:
    """Write a network's graph in TensorFlow Lite's operators.

    It takes one prepared image of (1, H, W, C) in float32, its channels in the order RGB or grey,
    and gives the network's outputs (1, classes) in float32.

    Args:
        network: has its batch norms folded; has ranges of activations, for int8.
        int8: compute in int8 between the first layer and the last, as `runtime.int8` does.

    Raises:
        UnsupportedError: if a node has no counterpart, naming it.
    """
    network = _red_first(network)
    preprocessing = network.metadata.preprocessing
    image = (1, preprocessing.channels, preprocessing.crop, preprocessing.crop)
    stored = {name: tuple(tensor.shape) for name, tensor in network.tensors.items()}
    shapes = cost(read_graph(network.graph, stored), stored, image).shapes
    whole = int8_model(network) if int8 else attach(network.graph, network.values())
    return Lowering(onnx.load_model_from_string(whole), shapes).run(OPERATORS)


def _red_first(network: Network) -> Network:
    """The same network for images whose channels are RGB: TensorFlow Lite has no word for BGR."""
    preprocessing = network.metadata.preprocessing
    if preprocessing.color != "BGR":
        return network
    model = parse(network.graph)
    nodes = read_nodes(model)
    image = next(value.name for value in model.graph.input if value.name not in network.tensors)
    first = [node for node in nodes if image in node.inputs]
    weights = [node.inputs[1] for node in first if node.op == "Conv" and node.get("group", 1) == 1]
    users = [name for node in nodes for name in node.inputs]
    if len(weights) < len(first) or any(users.count(n) > 1 for n in weights):
        raise UnsupportedError(
            "the network takes its channels as BGR, and they cannot be turned in its first layer: "
            "a .tflite takes RGB"
        )
    values = network.values()
    turned = {name: np.ascontiguousarray(values[name][:, ::-1]) for name in weights}
    rgb = dataclasses.replace(
        preprocessing, color="RGB", mean=preprocessing.mean[::-1], std=preprocessing.std[::-1]
    )
    metadata = dataclasses.replace(network.metadata, preprocessing=rgb)
    return dataclasses.replace(network, tensors={**network.tensors, **turned}, metadata=metadata)


class _Writer:
    """Builds the flatbuffers; whatever a table points to is built before it."""

    def __init__(self, tflite: Any) -> None:  # noqa: ANN401 - generated code
        import flatbuffers

        self.tflite = tflite
        self.builder = flatbuffers.Builder(1 << 20)

    def file(self, graph: Lowered, metadata: Metadata) -> bytes:
        """The whole file; the archive of the labels lies behind the model."""
        about = tflite_about.about(metadata)
        buffers: list[bytes] = [b""]  # the first one is nobody's
        numbers = []
        for tensor in graph.tensors:
            numbers.append(len(buffers) if tensor.values is not None else 0)
            if tensor.values is not None:
                buffers.append(_little_endian(tensor.values))
        stored_about = len(buffers)
        buffers.append(about)
        if sum(map(len, buffers)) > _MOST_BYTES:
            raise UnsupportedError("the network has more than 2 GB, too much for a .tflite")
        codes = sorted({(operator.kind, _version(operator)) for operator in graph.operators})
        operators = [self._operator(operator, codes) for operator in graph.operators]
        tensors = [
            self._tensor(tensor, number)
            for tensor, number in zip(graph.tensors, numbers, strict=True)
        ]
        subgraph = self._table(
            "SubGraph",
            Tensors=self._tables(tensors),
            Inputs=self._ints([graph.image]),
            Outputs=self._ints([graph.scores]),
            Operators=self._tables(operators),
            Name=self.builder.CreateString("main"),
        )
        name = self.builder.CreateString(tflite_about.NAME)
        entry = self._table("Metadata", Name=name, Buffer=stored_about)
        model = self._table(
            "Model",
            Version=3,
            OperatorCodes=self._tables([self._code(*code) for code in codes]),
            Subgraphs=self._tables([subgraph]),
            Description=self.builder.CreateString("squeezekit"),
            Buffers=self._tables([self._buffer(data) for data in buffers]),
            Metadata=self._tables([entry]),
        )
        self.builder.Finish(model, IDENTIFIER)
        return tflite_about.with_labels(bytes(self.builder.Output()), metadata.labels)

    def _operator(self, operator: Operator, codes: Sequence[tuple[str, int]]) -> int:
        fields: dict[str, int] = {}
        if (options := _OPTIONS.get(operator.kind)) is not None:
            values = {_camel(key): value for key, value in operator.options.items()}
            fields["BuiltinOptions"] = self._table(options, **values)
            fields["BuiltinOptionsType"] = getattr(self.tflite.BuiltinOptions, options)
        return self._table(
            "Operator",
            OpcodeIndex=codes.index((operator.kind, _version(operator))),
            Inputs=self._ints(operator.inputs),
            Outputs=self._ints(operator.outputs),
            **fields,
        )

    def _code(self, kind: str, version: int) -> int:
        code = getattr(self.tflite.BuiltinOperator, kind)
        return self._table(
            "OperatorCode", DeprecatedBuiltinCode=min(code, 127), BuiltinCode=code, Version=version
        )

    def _tensor(self, tensor: Tensor, buffer: int) -> int:
        fields: dict[str, int] = {}
        if tensor.scale is not None:
            fields["Quantization"] = self._table(
                "QuantizationParameters",
                Scale=self._vector(tensor.scale.astype("<f4")),
                ZeroPoint=self._vector(np.full(len(tensor.scale), tensor.zero, "<i8")),
                QuantizedDimension=tensor.axis,
            )
        return self._table(
            "Tensor",
            Shape=self._ints(tensor.shape),
            Type=getattr(self.tflite.TensorType, np.dtype(tensor.kind).name.upper()),
            Buffer=buffer,
            Name=self.builder.CreateString(tensor.name),
            HasRank=True,
            **fields,
        )

    def _buffer(self, data: bytes) -> int:
        return self._table("Buffer", **({"Data": self._bytes(data)} if data else {}))

    def _bytes(self, data: bytes) -> int:
        """A vector of bytes on an address that 16 divides, as the schema asks for."""
        self.builder.StartVector(1, len(data), 16)
        self.builder.head = self.builder.Head() - len(data)
        self.builder.Bytes[self.builder.Head() : self.builder.Head() + len(data)] = data
        return int(self.builder.EndVector())

    def _vector(self, values: Array) -> int:
        return int(self.builder.CreateNumpyVector(values))

    def _ints(self, values: Sequence[int]) -> int:
        return self._vector(np.array(values, "<i4"))

    def _tables(self, tables: Sequence[int]) -> int:
        self.builder.StartVector(4, len(tables), 4)
        for table in reversed(tables):
            self.builder.PrependUOffsetTRelative(table)
        return int(self.builder.EndVector())

    def _table(self, kind: str, **fields: int | float) -> int:
        import importlib

        module = importlib.import_module(f"tflite.{kind}")
        getattr(module, f"{kind}Start")(self.builder)
        for name, value in fields.items():
            getattr(module, f"{kind}Add{name}")(self.builder, value)
        return int(getattr(module, f"{kind}End")(self.builder))


def _camel(name: str) -> str:
    return "".join(part.capitalize() for part in name.split("_"))


def _little_endian(values: Array) -> bytes:
    return values.astype(values.dtype.newbyteorder("<"), copy=False).tobytes()


_POOL, _REDUCE = "Pool2DOptions", "ReducerOptions"
_OPTIONS = {
    "CONV_2D": "Conv2DOptions", "DEPTHWISE_CONV_2D": "DepthwiseConv2DOptions",
    "FULLY_CONNECTED": "FullyConnectedOptions", "MAX_POOL_2D": _POOL, "AVERAGE_POOL_2D": _POOL,
    "MEAN": _REDUCE, "REDUCE_MAX": _REDUCE, "SUM": _REDUCE,
    "CONCATENATION": "ConcatenationOptions", "SOFTMAX": "SoftmaxOptions", "ADD": "AddOptions",
    "SUB": "SubOptions", "MUL": "MulOptions", "DIV": "DivOptions",
    "LEAKY_RELU": "LeakyReluOptions",
    "LOCAL_RESPONSE_NORMALIZATION": "LocalResponseNormalizationOptions",
}  # fmt: skip
"""The table of each operator's settings, where any count."""

_INT8_VERSIONS = {
    "CONV_2D": 3, "DEPTHWISE_CONV_2D": 3, "FULLY_CONNECTED": 4, "MAX_POOL_2D": 2,
    "CONCATENATION": 2, "ADD": 2, "PAD": 2, "PADV2": 2, "TRANSPOSE": 2, "DEQUANTIZE": 2,
}  # fmt: skip
"""The version of each operator that takes int8; a runtime that is older says so by it."""


def _version(operator: Operator) -> int:
    return _INT8_VERSIONS.get(operator.kind, 1) if operator.int8 else 1
