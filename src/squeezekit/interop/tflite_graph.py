"""The main graph of a TensorFlow Lite file: its tensors and operators, checked."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from squeezekit.errors import InputError, UnsupportedError
from squeezekit.sqz.network import Floats

Array = np.ndarray[tuple[Any, ...], np.dtype[Any]]

_MOST_OPERATORS = 4096
_MOST_TENSORS = 1 << 16

_OPTIONS = {
    "ADD": "AddOptions", "AVERAGE_POOL_2D": "Pool2DOptions",
    "CONCATENATION": "ConcatenationOptions", "CONV_2D": "Conv2DOptions",
    "DEPTHWISE_CONV_2D": "DepthwiseConv2DOptions",
    "DIV": "DivOptions", "FULLY_CONNECTED": "FullyConnectedOptions", "MAX_POOL_2D": "Pool2DOptions",
    "MEAN": "ReducerOptions", "MUL": "MulOptions", "SOFTMAX": "SoftmaxOptions", "SUB": "SubOptions",
    "LEAKY_RELU": "LeakyReluOptions",
}  # fmt: skip
"""The table of each operator's settings, where any count."""


def package(path: Path | str) -> Any:  # noqa: ANN401 - generated code
    """The package tflite, which reads and writes these files.

    Raises:
        InputError: if it is missing.
    """
    try:
        import tflite
    except ImportError:
        raise InputError(
            f"{path}: .tflite files need one more package: pip install 'squeezekit[tflite]'"
        ) from None
    return tflite


@dataclass(frozen=True, eq=False)
class TfliteTensor:
    """One tensor of the file.

    Attributes:
        name: for messages.
        shape: (N, H, W, C) of an image; an axis of unknown size is -1.
        kind: "FLOAT32", "UINT8" and so on.
        scale, zero: of a quantised one, one or one a slice along `axis`; else empty.
        values: as stored, where the file holds any.
    """

    name: str
    shape: tuple[int, ...]
    kind: str
    scale: Array
    zero: Array
    axis: int
    values: Array | None

    def floats(self) -> Floats:
        """The values that the stored ones stand for."""
        assert self.values is not None
        if not len(self.scale):
            return self.values.astype(np.float32)
        along = [1] * len(self.shape)
        if len(self.scale) > 1:
            along[self.axis] = len(self.scale)
        zero = self.zero.astype(np.int64).reshape(along)
        whole = (self.values.astype(np.int64) - zero).astype(np.float32)
        return np.asarray(self.scale.astype(np.float32).reshape(along) * whole, np.float32)


@dataclass(frozen=True)
class TfliteOperator:
    """One operator: its name, and the numbers of its tensors (-1: none)."""

    kind: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: Any


@dataclass(frozen=True, eq=False)
class TfliteGraph:
    """Tensors, operators in their order, and the numbers of the tensors that go in and out."""

    tensors: list[TfliteTensor]
    operators: list[TfliteOperator]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


_KINDS: dict[str, Any] = {
    "FLOAT32": np.float32, "FLOAT16": np.float16, "INT32": np.int32, "UINT8": np.uint8,
    "INT64": np.int64, "INT8": np.int8, "INT16": np.int16, "BOOL": np.bool_,
}  # fmt: skip


def main_graph(tflite: Any, model: Any) -> TfliteGraph:  # noqa: ANN401 - generated code
    """The main graph, every number in it checked against what the file holds.

    Args:
        tflite: the package of that name.
        model: its `Model`.

    Raises:
        InputError: if numbers of the file contradict one another.
        UnsupportedError: if it has what no classifier here has, naming it.
        Exception: of any other kind, where an offset in a damaged file leads astray.
    """
    kinds = _names(tflite.TensorType)
    codes = _names(tflite.BuiltinOperator)
    if model.SubgraphsLength() < 1:
        raise InputError("holds no graph")
    graph = model.Subgraphs(0)
    if graph.OperatorsLength() > _MOST_OPERATORS:
        raise UnsupportedError(f"has {graph.OperatorsLength():,} operators, too many")
    tensors = [
        _tensor(model, graph.Tensors(i), kinds)
        for i in range(min(graph.TensorsLength(), _MOST_TENSORS))
    ]
    operators = []
    for i in range(graph.OperatorsLength()):
        operator = graph.Operators(i)
        code = model.OperatorCodes(operator.OpcodeIndex())
        kind = codes[max(code.BuiltinCode(), code.DeprecatedBuiltinCode())]
        if kind == "CUSTOM":
            custom = code.CustomCode() or b""
            raise UnsupportedError(f"has the custom operator {custom.decode(errors='replace')!r}")
        options = None
        if (table_name := _OPTIONS.get(kind)) is not None:
            table = operator.BuiltinOptions()
            options = getattr(tflite, table_name)()
            if table is not None:
                options.Init(table.Bytes, table.Pos)
        inputs, made_here = _numbers(operator.InputsAsNumpy()), _numbers(operator.OutputsAsNumpy())
        operators.append(TfliteOperator(kind, inputs, made_here, options))
    ends = _numbers(graph.InputsAsNumpy()), _numbers(graph.OutputsAsNumpy())
    for number in (n for part in (*ends, *(o.inputs + o.outputs for o in operators)) for n in part):
        if not -1 <= number < len(tensors):
            raise InputError(f"names a tensor {number} that it does not have")
    return TfliteGraph(tensors, operators, *ends)


def _tensor(model: Any, stored: Any, kinds: dict[int, str]) -> TfliteTensor:  # noqa: ANN401
    shape = tuple(int(side) for side in _array(stored.ShapeAsNumpy()))
    signature = tuple(int(side) for side in _array(stored.ShapeSignatureAsNumpy()))
    name, kind = (stored.Name() or b"").decode(errors="replace"), kinds[stored.Type()]
    scale = zero = np.zeros(0)
    axis = 0
    if (quantised := stored.Quantization()) is not None:
        scale, zero = _array(quantised.ScaleAsNumpy()), _array(quantised.ZeroPointAsNumpy())
        axis = quantised.QuantizedDimension()
        if len(scale) and not len(zero):
            zero = np.zeros(len(scale), np.int64)
        along = shape[axis] if 0 <= axis < len(shape) else 0
        if len(scale) != len(zero) or (len(scale) > 1 and len(scale) != along):
            raise InputError(f"its tensor {name!r} is quantised in a way that cannot be")
        if not np.all(np.isfinite(scale)):
            raise InputError(f"its tensor {name!r} has a scale that is not finite")
    data = _array(model.Buffers(stored.Buffer()).DataAsNumpy())
    values = None
    if len(data):
        if kind not in _KINDS:
            raise UnsupportedError(f"its tensor {name!r} holds {kind}, which is not supported")
        if math.prod(shape) * np.dtype(_KINDS[kind]).itemsize != len(data):
            raise InputError(f"its tensor {name!r} does not hold as many numbers as it states")
        values = np.frombuffer(data.tobytes(), _KINDS[kind]).reshape(shape)
        if values.dtype.kind == "f" and not np.all(np.isfinite(values)):
            raise InputError(f"its tensor {name!r} has numbers that are not finite")
    return TfliteTensor(name, signature or shape, kind, scale, zero, axis, values)


def _array(part: Any) -> Array:  # noqa: ANN401 - 0 where there is none
    return np.zeros(0, np.int64) if part is None or isinstance(part, int) else np.asarray(part)


def _numbers(part: Any) -> tuple[int, ...]:  # noqa: ANN401
    return tuple(int(number) for number in _array(part))


def _names(enumeration: Any) -> dict[int, str]:  # noqa: ANN401
    return {n: name for name, n in vars(enumeration).items() if isinstance(n, int)}
