"""TensorFlow Lite files: reads image classifiers, of floats or fully quantised, as float networks.

Schema: tensorflow/lite/schema/schema.fbs; the meaning of the operators: tensorflow/lite/kernels.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from squeezekit.errors import InputError, LimitError, UnsupportedError
from squeezekit.files import read_bytes
from squeezekit.interop.file_kinds import require_network
from squeezekit.interop.onnx_import.pipeline import Asked, Imported, brought_in
from squeezekit.interop.tflite_about import IDENTIFIER, About, read_about
from squeezekit.interop.tflite_graph import (
    Array,
    TfliteGraph,
    TfliteOperator,
    TfliteTensor,
    main_graph,
    package,
)
from squeezekit.models.builder import OPSET
from squeezekit.runtime.images import default_preprocessing
from squeezekit.runtime.preprocessing import with_assumption
from squeezekit.sqz.graph import split
from squeezekit.sqz.limits import DEFAULT, Limits
from squeezekit.sqz.network import Floats, Metadata, Network, Preprocessing, share_equal_values
from squeezekit.sqz.padding import same_padding

_LARGEST_SIDE = 4096


def read(path: Path | str, limits: Limits | None = DEFAULT) -> Network:
    """Read a classifier: it takes one square image and gives one number for each class.

    A quantised network becomes the float network that it stands for: a weight q is
    scale * (q - zero), exact in float32, and equal weights of a tensor share their value. The
    rounding of activations is left out, so the answers differ by these roundings.

    If the network takes 8-bit images, the scale and zero point of its input say how pixels are
    normalized; else the file may say it (see `tflite_about`); else -1..1 is assumed, as
    TensorFlow's networks are trained. The file's names of classes are taken if there is one for
    each output.

    Args:
        path: the path of the `.tflite`; no other file is read.
        limits: how much it may ask for; None trusts it.

    Raises:
        InputError: if it is not a .tflite file, or damaged, or the package tflite is missing.
        UnsupportedError: if it is no classifier of one image, or has an operator that is not
            supported, naming it.
        LimitError: if it asks for more than the limits allow.
    """
    require_network(path)
    data = read_bytes(path)
    if data[4:8] != IDENTIFIER:
        raise InputError(f"{path}: is not a TensorFlow Lite model")
    model, image, said = _converted(path, data)
    try:
        found = brought_in(model, Asked(limits=limits))
    except (InputError, LimitError, UnsupportedError) as error:
        raise type(error)(f"{path}: {error}") from None
    network_graph, tensors = split(found.model)
    network = Network(network_graph, dict(tensors), _metadata(Path(path), image, found, said))
    if said.labels and len(said.labels) == network.outputs:
        named = dataclasses.replace(network.metadata, labels=said.labels)
        network = dataclasses.replace(network, metadata=named)
    return share_equal_values(network)


def _metadata(path: Path, image: TfliteTensor, found: Imported, said: About) -> Metadata:
    usual = default_preprocessing(found.size, found.channels)
    channels = found.channels
    scale, mean, std = 2 / 255, (1.0,) * channels, (1.0,) * channels
    stated = image.kind in ("UINT8", "INT8") and len(image.scale) == 1
    normalized = said.normalization(channels)
    if stated:  # what a program hands in are pixels, whatever the file says beside
        scale = float(image.scale[0])
        lowest = 0 if image.kind == "UINT8" else -128  # the pixel 0, as a program would hand it in
        mean = (scale * (float(image.zero[0]) - lowest),) * channels
    elif normalized is not None:
        stated, scale, (mean, std) = True, 1.0, normalized
    preprocessing: Preprocessing = dataclasses.replace(usual, scale=scale, mean=mean, std=std)
    metadata = Metadata(
        name=path.stem,
        preprocessing=preprocessing,
        output="probabilities" if found.output == "probabilities" else "logits",
        provenance=(f"{path.name}: TensorFlow Lite's weights",),
        licence=said.licence,
    )
    return metadata if stated else with_assumption(metadata)


def _converted(path: Path | str, data: bytes) -> tuple[ModelProto, TfliteTensor, About]:
    """The main graph in ONNX's operators, the image that it takes, and what the file says."""
    tflite = package(path)
    try:
        stored = tflite.Model.GetRootAs(data, 0)
        return *_Converter(main_graph(tflite, stored)).model(), read_about(stored, data)
    except (InputError, UnsupportedError) as error:
        raise type(error)(f"{path}: {error}") from None
    except Exception as error:  # its reader trips over damaged offsets in every way there is
        raise InputError(
            f"{path}: is a damaged TensorFlow Lite model ({type(error).__name__})"
        ) from None


# --------------------------------------------------------------------------------- the conversion


@dataclass
class _Converter:
    """Writes the graph in ONNX's operators; images are (N, C, H, W) in it, and (N, H, W, C) there.

    Attributes:
        graph: what is converted.
        nodes, weights: made so far.
        values: the name of each tensor that is an activation, by its number.
        layers: how many have weights, so far.
    """

    graph: TfliteGraph
    nodes: list[NodeProto] = field(default_factory=list)
    weights: list[TensorProto] = field(default_factory=list)
    values: dict[int, str] = field(default_factory=dict)
    layers: int = 0

    def model(self) -> tuple[ModelProto, TfliteTensor]:
        """The model, and the image that it takes."""
        if len(self.graph.inputs) != 1:
            raise UnsupportedError(f"takes {len(self.graph.inputs)} inputs: it must be an image")
        number = self.graph.inputs[0]
        image = self.graph.tensors[number]
        shape = image.shape
        square = len(shape) == 4 and 1 <= shape[1] == shape[2] <= _LARGEST_SIDE
        if not square or shape[3] not in (1, 3) or shape[0] not in (1, -1):
            raise UnsupportedError(f"takes {shape}: it must be one square image of 1 or 3 channels")
        self.values[number] = "image"
        for operator in self.graph.operators:
            self._add(operator)
        outputs = []
        for end in self.graph.outputs:
            if end not in self.values:
                raise UnsupportedError("has an output that does not depend on the image")
            info = helper.make_tensor_value_info(self.values[end], TensorProto.FLOAT, None)
            outputs.append(info)
        taken = helper.make_tensor_value_info(
            "image", TensorProto.FLOAT, [1, shape[3], shape[1], shape[2]]
        )
        graph = helper.make_graph(self.nodes, "tflite", [taken], outputs, self.weights)
        opsets = [helper.make_opsetid("", OPSET)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=8), image

    def _add(self, operator: TfliteOperator) -> None:
        convert = _CONVERTERS.get(operator.kind)
        if convert is None:
            raise UnsupportedError(f"has the operator {operator.kind}, which is not supported")
        if len(operator.outputs) != 1 or not operator.inputs:
            raise UnsupportedError(f"has a {operator.kind} of another form than it should have")
        if not any(number in self.values for number in operator.inputs):
            self._fold(operator)
            return
        made = convert(self, operator)
        activation = getattr(operator.options, "FusedActivationFunction", lambda: 0)()
        self.values[operator.outputs[0]] = self._activated(made, activation)

    def _fold(self, operator: TfliteOperator) -> None:
        """Weights may be kept in another form, and brought into their own first."""
        if operator.kind not in ("DEQUANTIZE", "QUANTIZE"):
            raise UnsupportedError(f"computes {operator.kind} of weights alone")
        source = self.graph.tensors[operator.inputs[0]]
        if source.values is None:
            raise InputError(f"lacks the values of its tensor {source.name!r}")
        number = operator.outputs[0]
        plain = dataclasses.replace(
            self.graph.tensors[number], values=source.floats(), scale=np.zeros(0), zero=np.zeros(0)
        )
        self.graph.tensors[number] = plain

    # ------------------------------------------------------------------------------- what they do

    def _convolution(self, operator: TfliteOperator) -> str:
        options, depthwise = operator.options, operator.kind == "DEPTHWISE_CONV_2D"
        x, weight, bias = self._layer_inputs(operator)
        _, height, width, channels = self._image_shape(operator.inputs[0])
        if weight.ndim != 4:
            raise UnsupportedError(f"has a {operator.kind} without four axes")
        if depthwise:  # (1, kh, kw, in * multiplier)
            made = np.ascontiguousarray(weight.transpose(3, 0, 1, 2))  # (out, 1, kh, kw)
            groups = channels
            if made.shape[1] != 1 or len(made) % max(groups, 1):
                raise UnsupportedError(
                    "has a DEPTHWISE_CONV_2D of another form than it should have"
                )
        else:  # (out, kh, kw, in / groups)
            made = np.ascontiguousarray(weight.transpose(0, 3, 1, 2))
            groups, rest = divmod(channels, made.shape[1])
            if rest or not groups or len(made) % groups:
                raise UnsupportedError("has a CONV_2D whose channels do not fit")
        kernel = made.shape[2:]
        stride = options.StrideH(), options.StrideW()
        dilation = max(options.DilationHFactor(), 1), max(options.DilationWFactor(), 1)
        pads = self._pads(options.Padding(), (height, width), kernel, stride, dilation)
        name = f"conv{self.layers}"
        self.layers += 1
        weights = self._weight(f"{name}.weight", made)
        return self._node(
            "Conv", [x, weights, self._bias(name, bias, len(made))], name,
            kernel_shape=kernel, strides=stride, dilations=dilation, pads=pads, group=groups,
        )  # fmt: skip

    def _fully_connected(self, operator: TfliteOperator) -> str:
        options = operator.options
        if options.WeightsFormat() != 0:
            raise UnsupportedError("has shuffled weights in a FULLY_CONNECTED")
        x, weight, bias = self._layer_inputs(operator)
        if weight.ndim != 2:
            raise UnsupportedError("has a FULLY_CONNECTED without two axes")
        name = f"fc{self.layers}"
        self.layers += 1
        rows = self._rows(operator.inputs[0], x, name)
        weights = self._weight(f"{name}.weight", weight)
        return self._node(
            "Gemm", [rows, weights, self._bias(name, bias, len(weight))], name, transB=1
        )

    def _pool(self, operator: TfliteOperator) -> str:
        options = operator.options
        _, height, width, _ = self._image_shape(operator.inputs[0])
        kernel = options.FilterHeight(), options.FilterWidth()
        stride = options.StrideH(), options.StrideW()
        pads = self._pads(options.Padding(), (height, width), kernel, stride, (1, 1))
        kind = "MaxPool" if operator.kind == "MAX_POOL_2D" else "AveragePool"
        x = self.values[operator.inputs[0]]
        if kind == "AveragePool" and kernel == (height, width) and not any(pads):
            return self._node("GlobalAveragePool", [x])
        return self._node(kind, [x], kernel_shape=kernel, strides=stride, pads=pads)

    def _mean(self, operator: TfliteOperator) -> str:
        axes = self._integers(operator.inputs[1])
        shape = self._shape(operator.inputs[0])
        if len(shape) != 4 or sorted(axis % 4 for axis in axes) != [1, 2]:
            raise UnsupportedError("has a MEAN of other axes than height and width")
        x = self._node("GlobalAveragePool", [self.values[operator.inputs[0]]])
        return x if operator.options.KeepDims() else self._node("Flatten", [x], axis=1)

    def _reshape(self, operator: TfliteOperator) -> str:
        """To one row an image, or to an image of one pixel: the classifiers' only ones."""
        number = operator.inputs[0]
        x, shape = self.values[number], self._shape(number)
        target = self.graph.tensors[operator.outputs[0]].shape
        if len(target) == 2 and target[1] == math.prod(shape[1:]):
            return self._rows(number, x, "")
        if len(target) == 4 and target[1:3] == (1, 1) and target[3] == math.prod(shape[1:]):
            sizes = np.array([1, target[3], 1, 1], np.int64)
            return self._node("Reshape", [self._rows(number, x, ""), self._constant(sizes)])
        raise UnsupportedError(f"has a {operator.kind} from {shape} to {target}")

    def _concatenation(self, operator: TfliteOperator) -> str:
        shapes = [self._shape(number) for number in operator.inputs]
        rank = len(shapes[0])
        if operator.options.Axis() % rank != rank - 1 or any(len(s) != rank for s in shapes):
            raise UnsupportedError("has a CONCATENATION of another axis than the channels")
        return self._node("Concat", [self.values[n] for n in operator.inputs], axis=1)

    def _arithmetic(self, operator: TfliteOperator) -> str:
        kind = {"ADD": "Add", "SUB": "Sub", "MUL": "Mul", "DIV": "Div"}[operator.kind]
        if len(operator.inputs) != 2 or min(operator.inputs) < 0:
            raise UnsupportedError(f"has a {operator.kind} of other than two")
        ranks = [len(self.graph.tensors[number].shape) for number in operator.inputs]
        rank = max(ranks)
        names = []
        for number in operator.inputs:
            if number in self.values:
                if len(self._shape(number)) != rank:
                    raise UnsupportedError(f"has a {operator.kind} of images and rows")
                names.append(self.values[number])
                continue
            values = self._floats(number)
            values = values.reshape((1,) * (rank - values.ndim) + values.shape)
            names.append(self._constant(values.transpose(0, 3, 1, 2) if rank == 4 else values))
        return self._node(kind, names)

    def _pad(self, operator: TfliteOperator) -> str:
        around = np.array(self._integers(operator.inputs[1])).reshape(-1, 2)
        if around.shape != (4, 2) or around[0].any():
            raise UnsupportedError("has a PAD of something that is not an image")
        order = around[[0, 3, 1, 2]]
        pads = np.concatenate([order[:, 0], order[:, 1]]).astype(np.int64)
        return self._node("Pad", [self.values[operator.inputs[0]], self._constant(pads)])

    def _softmax(self, operator: TfliteOperator) -> str:
        if operator.options.Beta() != 1.0 or len(self._shape(operator.inputs[0])) != 2:
            raise UnsupportedError("has a SOFTMAX of another form than it should have")
        return self._node("Softmax", [self.values[operator.inputs[0]]], axis=1)

    def _leaky(self, operator: TfliteOperator) -> str:
        return self._node(
            "LeakyRelu", [self.values[operator.inputs[0]]], alpha=float(operator.options.Alpha())
        )

    def _same(self, operator: TfliteOperator) -> str:
        """Quantise, dequantise: the float network does neither."""
        return self.values[operator.inputs[0]]

    def _plain(self, operator: TfliteOperator) -> str:
        return self._node(_PLAIN[operator.kind], [self.values[operator.inputs[0]]])

    def _relu(self, operator: TfliteOperator) -> str:
        activation = {"RELU": 1, "RELU_N1_TO_1": 2, "RELU6": 3}[operator.kind]
        return self._activated(self.values[operator.inputs[0]], activation)

    # ----------------------------------------------------------------------------------- the parts

    def _activated(self, x: str, activation: int) -> str:
        bounds = {2: (-1.0, 1.0), 3: (0.0, 6.0)}
        if activation == 0:
            return x
        if activation == 1:
            return self._node("Relu", [x])
        if activation not in bounds:
            raise UnsupportedError(f"has a fused activation of the number {activation}")
        low, high = (self._constant(np.float32(bound)) for bound in bounds[activation])
        return self._node("Clip", [x, low, high])

    def _layer_inputs(self, operator: TfliteOperator) -> tuple[str, Floats, Floats | None]:
        image, weight, *more = operator.inputs
        if image not in self.values or weight in self.values:
            raise UnsupportedError(f"has a {operator.kind} whose weights are computed")
        bias = self._floats(more[0]) if more and more[0] >= 0 else None
        return self.values[image], self._floats(weight), bias

    def _bias(self, name: str, bias: Floats | None, outputs: int) -> str:
        bias = np.zeros(outputs, np.float32) if bias is None else bias
        if bias.shape != (outputs,):
            raise UnsupportedError(f"has a bias of {bias.shape} for {outputs} outputs")
        return self._weight(f"{name}.bias", bias)

    def _floats(self, number: int) -> Floats:
        tensor = self.graph.tensors[number]
        if number < 0 or tensor.values is None:
            raise UnsupportedError("computes what must be stored: a weight or a setting")
        return tensor.floats()

    def _integers(self, number: int) -> Sequence[int]:
        values = self.graph.tensors[number].values
        if values is None or values.dtype.kind != "i":
            raise UnsupportedError("computes what must be stored: axes or sizes")
        return [int(value) for value in values.ravel()]

    def _shape(self, number: int) -> tuple[int, ...]:
        if number not in self.values and self.graph.tensors[number].values is None:
            raise InputError("uses a tensor before any operator computes it")
        return self.graph.tensors[number].shape

    def _image_shape(self, number: int) -> tuple[int, ...]:
        shape = self._shape(number)
        if len(shape) != 4 or min(shape[1:]) < 1:
            raise UnsupportedError(f"has a layer on {shape}, which is not an image")
        return shape

    def _rows(self, number: int, x: str, name: str) -> str:
        """One row an image, in the file's order: pixel by pixel, channels inside."""
        shape = self._shape(number)
        if len(shape) == 2:
            return x
        if len(shape) == 4 and shape[1:3] != (1, 1):
            x = self._node("Transpose", [x], perm=[0, 2, 3, 1])
        return self._node("Flatten", [x], axis=1)

    @staticmethod
    def _pads(
        padding: int,
        sides: tuple[int, int],
        kernel: tuple[int, ...],
        stride: tuple[int, int],
        dilation: tuple[int, int],
    ) -> list[int]:
        """Above, before, below, behind: SAME gives the odd pixel to the end."""
        if min(*kernel, *stride) < 1:
            raise InputError("has a kernel or a stride of size 0")
        if padding == 1:  # VALID
            return [0, 0, 0, 0]
        window = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
        around = same_padding(sides, window, stride)
        return [head for head, _ in around] + [tail for _, tail in around]

    def _weight(self, name: str, values: Array) -> str:
        self.weights.append(numpy_helper.from_array(np.asarray(values, order="C"), name))
        return name

    def _constant(self, values: Any) -> str:  # noqa: ANN401
        return self._weight(f"constant{len(self.weights)}", np.asarray(values))

    def _node(self, kind: str, inputs: list[str], name: str = "", **attributes: Any) -> str:  # noqa: ANN401
        name = name or f"{kind.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], name, **attributes))
        return name


_PLAIN = {"LOGISTIC": "Sigmoid", "TANH": "Tanh", "HARD_SWISH": "HardSwish"}

_CONVERTERS: dict[str, Callable[[_Converter, TfliteOperator], str]] = {
    "CONV_2D": _Converter._convolution,
    "DEPTHWISE_CONV_2D": _Converter._convolution,
    "FULLY_CONNECTED": _Converter._fully_connected,
    "AVERAGE_POOL_2D": _Converter._pool,
    "MAX_POOL_2D": _Converter._pool,
    "MEAN": _Converter._mean,
    "RESHAPE": _Converter._reshape,
    "SQUEEZE": _Converter._reshape,
    "CONCATENATION": _Converter._concatenation,
    **dict.fromkeys(("ADD", "SUB", "MUL", "DIV"), _Converter._arithmetic),
    "PAD": _Converter._pad,
    "SOFTMAX": _Converter._softmax,
    "LEAKY_RELU": _Converter._leaky,
    **dict.fromkeys(("QUANTIZE", "DEQUANTIZE"), _Converter._same),
    **dict.fromkeys(_PLAIN, _Converter._plain),
    **dict.fromkeys(("RELU", "RELU_N1_TO_1", "RELU6"), _Converter._relu),
}
"""Every other operator is refused by its name."""
