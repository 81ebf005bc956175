"""Builds convolutional networks as ONNX graphs: each method adds a node and names its output."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from onnx import NodeProto, TensorProto, ValueInfoProto, helper

from squeezekit.errors import InputError
from squeezekit.sqz.graph import split
from squeezekit.sqz.network import Floats, Metadata, Network

OPSET = 17
IR_VERSION = 8

Shape = tuple[int, ...]
"""Shape of a value without its batch axis: (C, H, W), or (features,)."""

Init = Callable[[np.random.Generator, Shape], Floats]
"""Draws the first values of a weight of shape (out, in, ...)."""


def xavier(rng: np.random.Generator, shape: Shape) -> Floats:
    """Caffe's "xavier": U(-a, a) with a = sqrt(3 / fan_in), so the variance is 1 / fan_in."""
    bound = math.sqrt(3 / math.prod(shape[1:]))
    return _uniform(rng, shape, bound)


def he(rng: np.random.Generator, shape: Shape) -> Floats:
    """U(-a, a) with a = sqrt(6 / fan_in): keeps the variance through ReLUs (He et al. 2015)."""
    bound = math.sqrt(6 / math.prod(shape[1:]))
    return _uniform(rng, shape, bound)


def _uniform(rng: np.random.Generator, shape: Shape, bound: float) -> Floats:
    return (rng.random(shape, np.float32) * 2 - 1) * np.float32(bound)


def gaussian(std: float) -> Init:
    """N(0, std)."""
    return lambda rng, shape: rng.standard_normal(shape, np.float32) * np.float32(std)


def constant(value: float) -> Init:
    """The same value everywhere."""
    return lambda rng, shape: np.full(shape, value, np.float32)


@dataclass(frozen=True)
class _Weight:
    name: str
    shape: Shape
    init: Init


class GraphBuilder:
    """Adds nodes one after the other; a value is known by the name of the node that makes it.

    A node called "conv1" has its weights in the tensors "conv1.weight" and "conv1.bias". Shapes
    are tracked, so a size that does not fit is an InputError at the line that asks for it.

    Attributes:
        image: name of the graph's input, (N, channels, height, width).
    """

    def __init__(self, channels: int, height: int, width: int) -> None:
        self.image = "image"
        self._shapes: dict[str, Shape] = {self.image: (channels, height, width)}
        self._nodes: list[NodeProto] = []
        self._weights: list[_Weight] = []
        self._settings: list[TensorProto] = []

    def shape(self, x: str) -> Shape:
        """Shape of the value `x` without its batch axis."""
        return self._shapes[x]

    def channels(self, x: str) -> int:
        """Number of channels of the value `x`."""
        return self._shapes[x][0]

    def conv(
        self,
        name: str,
        x: str,
        filters: int,
        kernel: int,
        *,
        stride: int = 1,
        pad: int = 0,
        groups: int = 1,
        bias: float | None = 0.0,
        init: Init = xavier,
    ) -> str:
        """Convolve with `filters` kernels of `kernel` x `kernel`; `bias` None leaves it out.

        Raises:
            InputError: if the groups do not divide the channels, or nothing is left.
        """
        channels, height, width = self.shape(x)
        if filters < 1 or filters % groups or channels % groups:
            raise InputError(
                f"{name}: {channels} and {filters} channels do not divide into {groups} groups"
            )
        out = [(size + 2 * pad - kernel) // stride + 1 for size in (height, width)]
        weights = [f"{name}.weight"]
        self._weight(weights[0], (filters, channels // groups, kernel, kernel), init)
        if bias is not None:
            weights.append(f"{name}.bias")
            self._weight(weights[1], (filters,), constant(bias))
        return self._node(
            "Conv", name, [x, *weights], (filters, *out),
            kernel_shape=[kernel, kernel], strides=[stride, stride], pads=[pad] * 4, group=groups,
        )  # fmt: skip

    def relu(self, name: str, x: str) -> str:
        """max(x, 0)."""
        return self._node("Relu", name, [x], self.shape(x))

    def batch_norm(self, name: str, x: str) -> str:
        """Normalise each channel: tensors `name`.scale, .bias, .mean and .var."""
        channels = (self.channels(x),)
        firsts = {"scale": 1.0, "bias": 0.0, "mean": 0.0, "var": 1.0}
        for part, first in firsts.items():
            self._weight(f"{name}.{part}", channels, constant(first))
        weights = [f"{name}.{part}" for part in firsts]
        return self._node("BatchNormalization", name, [x, *weights], self.shape(x))

    def max_pool(
        self, name: str, x: str, kernel: int, stride: int, *, pad: int = 0, ceil: bool = True
    ) -> str:
        """Maximum over windows; `ceil` lets the last window reach past the edge, as Caffe does."""
        return self._pool("MaxPool", name, x, kernel, stride, pad, ceil)

    def average_pool(
        self, name: str, x: str, kernel: int, stride: int, *, pad: int = 0, ceil: bool = False
    ) -> str:
        """Mean over windows; padding counts as zeros, what lies beyond it does not (Caffe)."""
        settings: dict[str, int | list[int]] = {"count_include_pad": 1} if pad else {}
        return self._pool("AveragePool", name, x, kernel, stride, pad, ceil, **settings)

    def _pool(
        self,
        op: str,
        name: str,
        x: str,
        kernel: int,
        stride: int,
        pad: int,
        ceil: bool,
        **settings: int | list[int],
    ) -> str:
        channels, height, width = self.shape(x)
        out = [_pooled(size, kernel, stride, pad, ceil) for size in (height, width)]
        if pad and out == [_pooled(size, kernel, stride, pad, False) for size in (height, width)]:
            ceil = False  # the same windows; runtimes differ about a last one beyond the padding
        if pad:
            settings["pads"] = [pad] * 4
        if ceil or op == "MaxPool":
            settings["ceil_mode"] = int(ceil)
        return self._node(
            op, name, [x], (channels, *out),
            kernel_shape=[kernel, kernel], strides=[stride, stride], **settings,
        )  # fmt: skip

    def global_average_pool(self, name: str, x: str) -> str:
        """Mean over height and width, which become 1."""
        return self._node("GlobalAveragePool", name, [x], (self.channels(x), 1, 1))

    def lrn(self, name: str, x: str, size: int = 5, alpha: float = 1e-4, beta: float = 0.75) -> str:
        """Local response normalisation across channels (Krizhevsky et al. 2012, section 3.3)."""
        return self._node("LRN", name, [x], self.shape(x), size=size, alpha=alpha, beta=beta)

    def concat(self, name: str, *xs: str) -> str:
        """Put the channels of several values of equal height and width behind each other."""
        channels = sum(self.channels(x) for x in xs)
        return self._node("Concat", name, list(xs), (channels, *self.shape(xs[0])[1:]), axis=1)

    def add(self, name: str, x: str, y: str) -> str:
        """Sum of two values of one shape."""
        if self.shape(x) != self.shape(y):
            raise InputError(f"{name} cannot add {self.shape(x)} and {self.shape(y)}")
        return self._node("Add", name, [x, y], self.shape(x))

    def dropout(self, name: str, x: str, ratio: float) -> str:
        """Zero a random `ratio` of the values in training; nothing otherwise."""
        setting = f"{name}.ratio"
        self._settings.append(helper.make_tensor(setting, TensorProto.FLOAT, (), [ratio]))
        return self._node("Dropout", name, [x, setting], self.shape(x))

    def flatten(self, name: str, x: str) -> str:
        """(C, H, W) to (C * H * W,)."""
        return self._node("Flatten", name, [x], (math.prod(self.shape(x)),), axis=1)

    def linear(
        self, name: str, x: str, features: int, *, bias: float | None = 0.0, init: Init = xavier
    ) -> str:
        """A fully connected layer on a flat value; its weight is (features, inputs).

        `bias` is the first value of its biases; None leaves them out.
        """
        self._weight(f"{name}.weight", (features, *self.shape(x)), init)
        inputs = [x, f"{name}.weight"]
        if bias is not None:
            self._weight(f"{name}.bias", (features,), constant(bias))
            inputs.append(f"{name}.bias")
        return self._node("Gemm", name, inputs, (features,), transB=1)

    def build(self, output: str, metadata: Metadata, seed: int = 0) -> Network:
        """Finish: the value `output` becomes the graph's output, "logits".

        Args:
            output: name of the value with one number a class.
            metadata: what the network means.
            seed: the seed of the first weights, which are drawn here in the order of the nodes.
        """
        for node in self._nodes:
            node.output[:] = ["logits" if name == output else name for name in node.output]
        graph = helper.make_graph(
            self._nodes,
            metadata.name,
            [_value(self.image, self.shape(self.image))],
            [_value("logits", self.shape(output))],
            self._settings,
        )
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
            producer_name="squeezekit",
        )
        rng = np.random.default_rng(seed)
        tensors = {weight.name: weight.init(rng, weight.shape) for weight in self._weights}
        return Network(split(model)[0], tensors, metadata)

    def _weight(self, name: str, shape: Shape, init: Init) -> None:
        self._weights.append(_Weight(name, shape, init))

    def _node(
        self,
        op: str,
        name: str,
        inputs: list[str],
        shape: Shape,
        **attributes: int | float | list[int],
    ) -> str:
        if name in self._shapes:
            raise ValueError(f"two nodes are called {name}")
        if min(shape) < 1:
            raise InputError(
                f"the input image is too small: nothing would be left of it after {name}; "
                "use a larger input size"
            )
        self._shapes[name] = shape
        node = helper.make_node(op, inputs, [name], name)
        node.attribute.extend(
            helper.make_attribute(key, value) for key, value in attributes.items()
        )
        self._nodes.append(node)
        return name


def _pooled(size: int, kernel: int, stride: int, pad: int, ceil: bool) -> int:
    """Size after pooling.

    With `ceil` the last window may reach past the edge but has to start inside the image or the
    padding in front of it (ONNX, Caffe and torch agree).
    """
    free = size + 2 * pad - kernel
    if not ceil:
        return free // stride + 1
    out = -(-free // stride) + 1
    return out - 1 if (out - 1) * stride >= size + pad else out


def _value(name: str, shape: Shape) -> ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", *shape])
