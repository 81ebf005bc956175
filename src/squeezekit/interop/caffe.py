"""Caffe's own files: reads a `.caffemodel` with the prototxt that says what its layers do.

It reads all releases of the authors: SqueezeNet v1.0, v1.1, with residual connections, and after
dense-sparse-dense training; and AlexNets.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np
from google.protobuf import text_format
from google.protobuf.message import DecodeError

from squeezekit.errors import InputError, UnsupportedError
from squeezekit.files import read_bytes
from squeezekit.interop import caffe_data
from squeezekit.interop.caffe_data import DATA_LAYERS
from squeezekit.interop.caffe_schema import Message, NetParameter, layer_type, layers_of
from squeezekit.interop.protobuf_text import is_text_only
from squeezekit.models.builder import GraphBuilder
from squeezekit.models.fold import EPSILON
from squeezekit.runtime.preprocessing import with_assumption
from squeezekit.sqz.network import Floats, Metadata, Network, Tensor

MOST_PROTOTXT_BYTES = 16 << 20

_DEPLOY, _TRAIN_VAL = "deploy.prototxt", "train_val.prototxt"
_ONLY_IN_TRAINING = ("Accuracy", "SoftmaxWithLoss", "Silence")
_TEST = 1


def read(path: Path | str, prototxt: Path | str | None = None) -> Network:
    """Read a classifier.

    Args:
        path: the path of the `.caffemodel`.
        prototxt: says what the layers do (deploy or train_val). Where None: NAME.prototxt, else
            deploy.prototxt or train_val.prototxt beside the file, else what the file itself holds,
            which is enough where its data layer states a crop.

    Returns:
        The network with Caffe's preprocessing: the image warped to a square, the crop's centre,
        BGR, 0..255 minus the mean (104, 117, 123); or as a data layer of the prototxt, else of the
        `.caffemodel`, states it (`transform_param`: scale, mean_value, mean_file, crop_size). A
        final Softmax is left out; the class names are not in these files.

    Raises:
        InputError: if a file is missing, damaged, or they do not fit each other.
        UnsupportedError: if a layer is not supported, naming it.
    """
    path = Path(path)
    model = NetParameter()
    try:
        model.ParseFromString(read_bytes(path))
    except DecodeError:
        raise InputError(f"{path}: is not a .caffemodel, or damaged") from None
    if not is_text_only(model):
        raise InputError(f"{path}: is damaged (a name in it is not UTF-8)")
    stored = {layer.name: layer for layer in layers_of(model)}
    if not any(layer.blobs for layer in stored.values()):
        raise InputError(f"{path}: holds no weights of Caffe layers")
    named = None if prototxt is None else Path(prototxt)
    beside = named or _prototxt_beside(path)
    definition = model if beside is None else _parsed(beside)
    return _Importer(path, beside, definition, stored).network()


def _prototxt_beside(path: Path) -> Path | None:
    for name in (f"{path.stem}.prototxt", _DEPLOY, _TRAIN_VAL):
        if (path.parent / name).is_file():
            return path.parent / name
    return None


def _parsed(path: Path) -> Message:
    data = read_bytes(path)
    if len(data) > MOST_PROTOTXT_BYTES:
        raise InputError(f"{path}: is not a prototxt (it has {len(data):,} bytes)")
    try:
        return text_format.Parse(data.decode(), NetParameter(), allow_unknown_field=True)
    except (text_format.ParseError, UnicodeDecodeError, RecursionError) as error:
        first = str(error).strip().partition("\n")[0]
        raise InputError(f"{path}: is not the prototxt of a network ({first})") from None


class _Importer:
    """Builds the graph layer by layer; a value is known by the name of the blob that holds it."""

    def __init__(
        self,
        path: Path,
        prototxt: Path | None,
        definition: Message,
        stored: Mapping[str, Message],
    ) -> None:
        self._path, self._prototxt = path, prototxt
        self._name = definition.name
        self._layers = [layer for layer in layers_of(definition) if _runs(layer)]
        self._stored = stored
        shape, image = self._input(definition)
        self._preprocessing, self._assumed = caffe_data.prepared(
            path, shape, [*self._layers, *filter(_runs, stored.values()), *stored.values()]
        )
        self._net = GraphBuilder(*shape)
        self._values: dict[str, str] = {image: self._net.image}  # by blob
        self._tensors: dict[str, Tensor] = {}
        self._last = self._net.image

    def network(self) -> Network:
        for layer in self._layers:
            self._add(layer)
        output = self._last
        if len(self._net.shape(output)) == 3:
            if self._net.shape(output)[1:] != (1, 1):
                raise self._error("ends in a map of values, and not in one number a class")
            output = self._net.flatten("flatten", output)
        metadata = Metadata(
            name=self._name or self._path.stem,
            preprocessing=self._preprocessing,
            provenance=(f"{self._path.name}: Caffe's weights",),
        )
        if self._assumed:
            metadata = with_assumption(metadata)
        if self._net.channels(output) < 2 or output == self._net.image:
            raise self._error("holds no classifier")
        return self._net.build(output, metadata).with_tensors(self._tensors)

    # --------------------------------------------------------------------------- the input

    def _input(self, definition: Message) -> tuple[tuple[int, int, int], str]:
        """(C, H, W) of the image, and the blob that it is."""
        if definition.input:
            dims = [list(shape.dim) for shape in definition.input_shape] or [definition.input_dim]
            return self._checked_input(list(dims[0])), definition.input[0]
        for layer in self._layers:
            if layer_type(layer) == "Input" and layer.input_param.shape and layer.top:
                return self._checked_input(list(layer.input_param.shape[0].dim)), layer.top[0]
            crop = caffe_data.crop_size(layer)
            if crop and layer.top:
                channels = caffe_data.channels(layer.top[0], crop, self._layers, self._stored)
                return self._checked_input([1, channels, crop, crop]), layer.top[0]
        where = self._prototxt or "the .caffemodel itself"
        raise InputError(
            f"{self._path}: {where} does not state the size of the image: put its deploy.prototxt "
            "beside it, or name it by `squeezekit export FILE OUT.sqz --prototxt P`"
        )

    def _checked_input(self, dims: list[int]) -> tuple[int, int, int]:
        if len(dims) != 4 or dims[1] not in (1, 3) or not 1 <= dims[2] == dims[3] <= 4096:
            shape = "x".join(map(str, dims))
            raise self._unsupported(f"takes an input of {shape}; only square images are supported")
        return dims[1], dims[2], dims[3]

    # --------------------------------------------------------------------------- the layers

    def _add(self, layer: Message) -> None:
        kind = layer_type(layer)
        if kind in DATA_LAYERS or kind in _ONLY_IN_TRAINING:
            return
        if kind not in _BUILDERS:
            raise self._unsupported(f"layer {layer.name!r} is a {kind}, which is not supported")
        if not layer.name or not layer.top or not layer.bottom:
            raise self._error(f"layer {layer.name!r} lacks its name, its bottom or its top")
        for blob in layer.bottom:
            if blob not in self._values:
                raise self._error(f"layer {layer.name!r} takes {blob!r}, which nothing gives")
        inputs = [self._values[blob] for blob in layer.bottom]
        try:
            made = _BUILDERS[kind](self, layer, inputs)
        except (ValueError, OverflowError) as error:  # two layers of one name, for example
            raise self._error(f"layer {layer.name!r} cannot be ({error})") from None
        for blob in layer.top:  # in place where the top is the bottom
            self._values[blob] = made
        self._last = made

    def _convolution(self, layer: Message, inputs: list[str]) -> str:
        p = layer.convolution_param
        kernel = self._square(layer, p.kernel_size, p.kernel_h, p.kernel_w, "kernel", None)
        stride = self._square(layer, p.stride, p.stride_h, p.stride_w, "stride", 1)
        pad = self._square(layer, p.pad, p.pad_h, p.pad_w, "pad", 0)
        if any(d != 1 for d in p.dilation):
            raise self._unsupported(f"layer {layer.name!r} has a dilation")
        name, groups = _name(layer), max(p.group, 1)
        channels = self._net.channels(inputs[0])
        if channels % groups:
            raise self._error(f"layer {layer.name!r} makes {groups} groups of {channels} channels")
        shape = (p.num_output, channels // groups, kernel, kernel)
        self._keep(layer, f"{name}.weight", 0, shape)
        if p.bias_term:
            self._keep(layer, f"{name}.bias", 1, (p.num_output,))
        return self._net.conv(
            name, inputs[0], p.num_output, kernel, stride=stride, pad=pad, groups=groups,
            bias=0.0 if p.bias_term else None, init=_empty,
        )  # fmt: skip

    def _inner_product(self, layer: Message, inputs: list[str]) -> str:
        p = layer.inner_product_param
        if p.axis != 1:
            raise self._unsupported(f"layer {layer.name!r} multiplies along another axis than 1")
        x, name = inputs[0], _name(layer)
        if len(self._net.shape(x)) > 1:
            x = self._net.flatten(f"{name}.flatten", x)
        size = self._net.channels(x)
        stored = (size, p.num_output) if p.transpose else (p.num_output, size)
        weight = self._keep(layer, f"{name}.weight", 0, stored)
        if p.transpose:
            self._tensors[f"{name}.weight"] = np.ascontiguousarray(weight.T)
        if p.bias_term:
            self._keep(layer, f"{name}.bias", 1, (p.num_output,))
        return self._net.linear(name, x, p.num_output, init=_empty)

    def _pooling(self, layer: Message, inputs: list[str]) -> str:
        p, x, name = layer.pooling_param, inputs[0], _name(layer)
        average = p.pool == 1
        if p.pool > 1:
            raise self._unsupported(f"layer {layer.name!r} pools at random")
        height, width = self._spatial(layer, x)
        kernel = self._square(layer, [p.kernel_size], p.kernel_h, p.kernel_w, "kernel", 0)
        whole = p.global_pooling or (
            kernel == height == width and not (p.pad or p.pad_h or p.pad_w)
        )
        if whole and average:
            return self._net.global_average_pool(name, x)
        if whole and height == width:
            return self._net.max_pool(name, x, height, 1)
        stride = self._square(layer, [p.stride], p.stride_h, p.stride_w, "stride", 1)
        pad = self._square(layer, [p.pad], p.pad_h, p.pad_w, "pad", 0)
        ceil = p.round_mode == 0  # Caffe's rule, which ONNX's ceil_mode is
        if kernel < 1 or stride > kernel or pad >= kernel:
            raise self._unsupported(f"layer {layer.name!r} leaves pixels out, or pools none")
        if average:
            return self._net.average_pool(name, x, kernel, stride, pad=pad, ceil=ceil)
        return self._net.max_pool(name, x, kernel, stride, pad=pad, ceil=ceil)

    def _relu(self, layer: Message, inputs: list[str]) -> str:
        if layer.relu_param.negative_slope:
            raise self._unsupported(f"layer {layer.name!r} is a leaky ReLU")
        return self._net.relu(_name(layer), inputs[0])

    def _concat(self, layer: Message, inputs: list[str]) -> str:
        p = layer.concat_param
        axis = p.axis if p.HasField("axis") else p.concat_dim
        shapes = {self._net.shape(x)[1:] for x in inputs}
        if axis != 1 or len(shapes) > 1:
            raise self._unsupported(f"layer {layer.name!r} joins more than channels")
        return self._net.concat(_name(layer), *inputs)

    def _eltwise(self, layer: Message, inputs: list[str]) -> str:
        p = layer.eltwise_param
        if p.operation != 1 or any(c != 1.0 for c in p.coeff) or len(inputs) < 2:
            raise self._unsupported(f"layer {layer.name!r} does more than add")
        name, total = _name(layer), inputs[0]
        for i, other in enumerate(inputs[1:], start=1):
            last = i == len(inputs) - 1
            total = self._net.add(name if last else f"{name}.{i}", total, other)
        return total

    def _dropout(self, layer: Message, inputs: list[str]) -> str:
        return self._net.dropout(_name(layer), inputs[0], layer.dropout_param.dropout_ratio)

    def _lrn(self, layer: Message, inputs: list[str]) -> str:
        p = layer.lrn_param
        if p.norm_region != 0 or p.k != 1.0 or p.local_size % 2 == 0:
            raise self._unsupported(f"layer {layer.name!r} normalises in an unusual way")
        return self._net.lrn(_name(layer), inputs[0], p.local_size, p.alpha, p.beta)

    def _batch_norm(self, layer: Message, inputs: list[str]) -> str:
        """Mean and variance are stored times a factor; scale and shift are a layer of their own."""
        name, channels = _name(layer), self._net.channels(inputs[0])
        factor = float(self._blob(layer, 2, (1,))[0])
        factor = 0.0 if factor == 0.0 else 1.0 / factor
        epsilon = layer.batch_norm_param.eps - EPSILON  # the graph's nodes have the usual one
        self._tensors[f"{name}.mean"] = np.float32(factor) * self._blob(layer, 0, (channels,))
        var = factor * self._blob(layer, 1, (channels,)).astype(np.float64) + epsilon
        self._tensors[f"{name}.var"] = var.astype(np.float32)
        return self._net.batch_norm(name, inputs[0])

    def _scale(self, layer: Message, inputs: list[str]) -> str:
        """As a batch norm that takes the mean for 0 and the variance for 1."""
        p, name, channels = layer.scale_param, _name(layer), self._net.channels(inputs[0])
        if len(inputs) != 1 or p.axis != 1 or p.num_axes != 1:
            raise self._unsupported(f"layer {layer.name!r} scales more than channels")
        self._keep(layer, f"{name}.scale", 0, (channels,))
        if p.bias_term:
            self._keep(layer, f"{name}.bias", 1, (channels,))
        self._tensors[f"{name}.var"] = np.full(channels, 1.0 - EPSILON, np.float32)
        return self._net.batch_norm(name, inputs[0])

    def _flatten(self, layer: Message, inputs: list[str]) -> str:
        return self._net.flatten(_name(layer), inputs[0])

    def _nothing(self, layer: Message, inputs: list[str]) -> str:
        """Softmax at the end (predictions come as logits), and Split."""
        return inputs[0]

    # --------------------------------------------------------------------------- the weights

    def _keep(self, layer: Message, name: str, blob: int, shape: tuple[int, ...]) -> Floats:
        values = self._blob(layer, blob, shape)
        self._tensors[name] = values
        return values

    def _blob(self, layer: Message, number: int, shape: tuple[int, ...]) -> Floats:
        """A layer's stored numbers: their count must be that of `shape`; the old form adds ones."""
        stored = self._stored.get(layer.name)
        if stored is None or number >= len(stored.blobs):
            raise self._error(f"holds no weights for layer {layer.name!r} of the prototxt")
        blob = stored.blobs[number]
        data = blob.data if len(blob.data) else blob.double_data
        if len(data) != math.prod(shape):
            wanted = "x".join(map(str, shape))
            raise self._error(
                f"layer {layer.name!r} has {len(data):,} numbers where {wanted} belong"
            )
        dims = list(blob.shape.dim) or [blob.num, blob.channels, blob.height, blob.width]
        if [d for d in dims if d > 1] != [d for d in shape if d > 1]:
            raise self._error(f"layer {layer.name!r} is stored in another shape than it has")
        values = np.array(data, np.float32).reshape(shape)
        if not np.all(np.isfinite(values)):
            raise self._error(f"layer {layer.name!r} has weights that are not finite numbers")
        return values

    def _square(
        self,
        layer: Message,
        both: Iterable[int],
        height: int,
        width: int,
        what: str,
        default: int | None,
    ) -> int:
        """A setting that may be given once, for each axis, or as height and width."""
        sides = {height or width, width or height} if height or width else set(both)
        if len(sides) > 1:
            raise self._unsupported(f"layer {layer.name!r} has a {what} that is not square")
        found = sides.pop() if sides else default
        if found is None or found > 4096 or (found == 0 and default is None):
            raise self._error(f"layer {layer.name!r} has no {what} that can be")
        return int(found)

    def _spatial(self, layer: Message, x: str) -> tuple[int, int]:
        shape = self._net.shape(x)
        if len(shape) != 3:
            raise self._error(f"layer {layer.name!r} pools what is no image")
        return shape[1], shape[2]

    def _error(self, what: str) -> InputError:
        return InputError(f"{self._path}: {what}")

    def _unsupported(self, what: str) -> UnsupportedError:
        return UnsupportedError(f"{self._path}: {what}")


_BUILDERS: dict[str, Callable[[_Importer, Message, list[str]], str]] = {
    "Convolution": _Importer._convolution,
    "InnerProduct": _Importer._inner_product,
    "Pooling": _Importer._pooling,
    "ReLU": _Importer._relu,
    "Concat": _Importer._concat,
    "Eltwise": _Importer._eltwise,
    "Dropout": _Importer._dropout,
    "LRN": _Importer._lrn,
    "BatchNorm": _Importer._batch_norm,
    "Scale": _Importer._scale,
    "Flatten": _Importer._flatten,
    "Softmax": _Importer._nothing,
    "Split": _Importer._nothing,
}


def _runs(layer: Message) -> bool:
    """True if a layer is used in testing."""
    included = [rule.phase == _TEST for rule in layer.include if rule.HasField("phase")]
    excluded = [rule.phase == _TEST for rule in layer.exclude if rule.HasField("phase")]
    return not (included and not any(included)) and not any(excluded)


def _name(layer: Message) -> str:
    """A layer's name as ours are: fire2/squeeze1x1 is fire2.squeeze1x1."""
    return str(layer.name).replace("/", ".")


def _empty(rng: np.random.Generator, shape: tuple[int, ...]) -> Floats:
    """First weights that cost no time; they will be replaced."""
    return np.zeros(shape, np.float32)
