"""A torch module that runs a network's ONNX graph, and so makes any network trainable again.

The graph stays what it is; only its weights become modules, which say how they may change: freely,
under a pruning mask, or through a shared codebook (Han et al. 2016, "Deep Compression").
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
import torch.nn.functional as F
from onnx import helper, numpy_helper
from torch import Tensor, nn

from squeezekit.errors import UnsupportedError
from squeezekit.sqz import network as sqz
from squeezekit.sqz.graph import parse
from squeezekit.sqz.network import Floats, Levels, Metadata, Network, SharedTensor

# ---------------------------------------------------------------------------------------- weights


class Weight(nn.Module):
    """A tensor of the network; calling it gives the value that the graph uses."""

    def forward(self) -> Tensor:
        """The value, float32, in the tensor's shape."""
        raise NotImplementedError

    def to_tensor(self) -> sqz.Tensor:
        """The value as a network stores it."""
        return _to_numpy(self.forward())


class Free(Weight):
    """A weight that may take any value."""

    def __init__(self, values: Floats) -> None:
        super().__init__()
        self.values = nn.Parameter(torch.tensor(values))

    def forward(self) -> Tensor:
        """The parameter itself."""
        return self.values


class Fixed(Weight):
    """A tensor that no gradient changes: a constant, or a batch norm's running statistics."""

    values: Tensor

    def __init__(self, values: Floats) -> None:
        super().__init__()
        self.register_buffer("values", torch.tensor(values))

    def forward(self) -> Tensor:
        """The buffer itself."""
        return self.values


class Masked(Weight):
    """A pruned weight: exactly zero where `mask` is false, free elsewhere (Han et al. 2015).

    Args:
        values: float32 of any shape.
        mask: bool of the same shape; false prunes.
    """

    mask: Tensor

    def __init__(self, values: Floats, mask: npt.NDArray[np.bool_]) -> None:
        super().__init__()
        if values.shape != mask.shape:
            raise ValueError(f"the mask is {mask.shape}, but the weight {values.shape}")
        self.values = nn.Parameter(torch.tensor(np.where(mask, values, np.float32(0.0))))
        self.register_buffer("mask", torch.tensor(mask))

    def forward(self) -> Tensor:
        """The values, with zeros in place of pruned ones, which get no gradient."""
        return torch.where(self.mask, self.values, 0.0)


class Shared(Weight):
    """Weights that share a codebook, whose centroids train (Han et al. 2016, section 3.3).

    The gradient of a centroid is the sum of the gradients of its members. Level 0, the pruned
    weights, stays exactly zero.

    Args:
        levels: int32, of the weight's shape; level k stands for `centroids[zero + k]`.
        centroids: float32 (n,), 0.0 at index `zero`.
        zero: index of 0.0.
    """

    index: Tensor

    def __init__(self, levels: Levels, centroids: Floats, zero: int) -> None:
        super().__init__()
        self.zero = zero
        self.centroids = nn.Parameter(torch.tensor(centroids))
        self.register_buffer("index", torch.tensor(levels + np.int32(zero)))

    @classmethod
    def of(cls, tensor: SharedTensor) -> Shared:
        """Make the codebook of a stored tensor trainable."""
        return cls(tensor.levels, tensor.centroids, tensor.zero)

    def forward(self) -> Tensor:
        """Each weight's centroid."""
        values: Tensor = _Lookup.apply(self.centroids, self.index, self.zero)  # type: ignore[no-untyped-call]
        return values

    def to_tensor(self) -> SharedTensor:
        """The codebook, sorted again and with equal centroids merged."""
        values = _to_numpy(self.centroids)
        values[self.zero] = 0.0
        centroids = np.unique(values + np.float32(0.0))  # no -0.0
        zero = int(np.searchsorted(centroids, np.float32(0.0)))
        level_of = np.searchsorted(centroids, values).astype(np.int32) - np.int32(zero)
        return SharedTensor(level_of[self.index.cpu().numpy()], centroids, zero)


class _Lookup(torch.autograd.Function):
    """Takes centroids by index; sums gradients per centroid in float64, none for the zero."""

    @staticmethod
    def forward(ctx: Any, centroids: Tensor, index: Tensor, zero: int) -> Tensor:  # noqa: ANN401
        ctx.save_for_backward(index)
        ctx.zero, ctx.count = zero, len(centroids)
        return centroids.index_select(0, index.flatten()).view(index.shape)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:  # noqa: ANN401
        (index,) = ctx.saved_tensors
        members = gradients[0].double().reshape(-1)
        sums = torch.bincount(index.reshape(-1), weights=members, minlength=ctx.count)
        sums[ctx.zero] = 0.0
        return sums.float(), None, None


class Weights(nn.Module):
    """The network's tensors by name; a mapping, because module names may not contain dots."""

    def __init__(self) -> None:
        super().__init__()
        self._keys: dict[str, str] = {}

    def __setitem__(self, name: str, weight: Weight) -> None:
        self._keys[name] = name.replace("%", "%25").replace(".", "%2E")
        self._modules[self._keys[name]] = weight

    def __getitem__(self, name: str) -> Weight:
        weight = self._modules[self._keys[name]]
        assert isinstance(weight, Weight)
        return weight

    def __contains__(self, name: str) -> bool:
        return name in self._keys

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)

    def items(self) -> Iterator[tuple[str, Weight]]:
        """Names and weights, in the network's order."""
        return ((name, self[name]) for name in self._keys)


def _to_numpy(values: Tensor) -> Floats:
    array: Floats = values.detach().float().cpu().contiguous().numpy().copy()
    return array


# ---------------------------------------------------------------------------------------- network


class TrainableNetwork(nn.Module):
    """A network whose graph torch runs.

    Plain tensors become Free weights and SharedTensors Shared ones; constants and running
    statistics are Fixed. A final Softmax is left out, so that the result is always logits.

    Attributes:
        metadata: the network's own.
        weights: `Weight` modules by tensor name.
        nodes: what is computed, in order; each has one output.
        input_name, output_name: of the images and of the result, among the nodes' values.

    Raises:
        UnsupportedError: where the graph has an operator that is not supported, naming it.
    """

    def __init__(self, network: Network) -> None:
        super().__init__()
        model = parse(network.graph)
        self.metadata: Metadata = network.metadata.uncalibrated()
        self._graph = network.graph
        self.input_name = model.graph.input[0].name
        self.output_name = model.graph.output[0].name
        self.nodes = _nodes(model)
        if network.metadata.output == "probabilities":
            self.nodes = _without_softmax(self.nodes, self.output_name)
        self.nodes = _with_relus_behind_pools(self.nodes, self.output_name)
        self.nodes = _with_relus_in_place(self.nodes, self.output_name)
        # Shapes and settings: small, used as Python numbers or broadcast from 0 dimensions.
        self._constants = {
            tensor.name: torch.tensor(numpy_helper.to_array(tensor))
            for tensor in model.graph.initializer
        }
        self._last_use = {name: i for i, node in enumerate(self.nodes) for name in node.inputs}
        self._weight_names = [
            name
            for name in _weight_names(self.nodes)
            if name in network.tensors and len(network.tensors[name].shape) >= 2
        ]
        trainable = _trainable(self.nodes, network.tensors)
        self.weights = Weights()
        for name, tensor in network.tensors.items():
            if isinstance(tensor, SharedTensor):
                self.weights[name] = Shared.of(tensor)
            else:
                self.weights[name] = (Free if name in trainable else Fixed)(tensor)

    def forward(self, images: Tensor) -> Tensor:
        """Images (N, C, H, W) float32 to logits (N, classes)."""
        values: dict[str, Tensor] = {self.input_name: images}
        for i, node in enumerate(self.nodes):
            values[node.output] = self.computed(node, values)
            for name in node.inputs:
                if self._last_use[name] == i and name != self.output_name:
                    values.pop(name, None)  # lets torch reuse the memory
        return values[self.output_name].flatten(1)  # (N, classes)

    def computed(self, node: Node, values: Mapping[str, Tensor]) -> Tensor:
        """A node's output; a ReLU may overwrite its input, which no other node wants."""
        inputs = [self._value(name, values) for name in node.inputs]
        return OPERATORS[node.op](node, inputs, self.training)

    def _value(self, name: str, values: Mapping[str, Tensor]) -> Tensor | None:
        if not name:
            return None  # ONNX's way to leave an optional input out
        if name in values:
            return values[name]
        return self.weights[name]() if name in self.weights else self._constants[name]

    def set_weight(self, name: str, weight: Weight) -> None:
        """Replace how a tensor may change: `Free`, `Masked` or `Shared`.

        Raises:
            KeyError: where the network has no tensor of that name.
            ValueError: where the shape differs.
        """
        old = self.weights[name]()
        if weight().shape != old.shape:
            raise ValueError(f"{name} has shape {tuple(old.shape)}, not {tuple(weight().shape)}")
        self.weights[name] = weight.to(old.device)

    def mask_zeros(self) -> None:
        """Keep weights that are zero so; shared ones do that anyhow."""
        for name in self._weight_names:
            if not isinstance(self.weights[name], Shared):
                values = _to_numpy(self.weights[name]())
                self.set_weight(name, Masked(values, values != 0.0))

    def weight_names(self) -> list[str]:
        """The tensors that convolutions and matrix products multiply by, in the graph's order."""
        return list(self._weight_names)

    def head_names(self) -> list[str]:
        """The tensors of the last layer: its weight, and its bias where it has one."""
        for node in reversed(self.nodes):
            if set(node.inputs) & set(self._weight_names):
                return [name for name in node.inputs if name in self.weights]
        return []

    def to_network(self) -> Network:
        """The network with the present weights; Shared ones keep their codebook."""
        tensors = {name: weight.to_tensor() for name, weight in self.weights.items()}
        return Network(self._graph, tensors, self.metadata)


class TorchClassifier:
    """A network run by torch, with the interface of `runtime.classifier.Classifier`.

    Attributes:
        metadata: the network's; its output is always "logits", as TrainableNetwork gives them.
    """

    def __init__(self, network: Network | TrainableNetwork) -> None:
        self._net = network if isinstance(network, TrainableNetwork) else TrainableNetwork(network)
        self.metadata = dataclasses.replace(self._net.metadata, output="logits")

    def logits(self, batch: Floats) -> Floats:
        """Images float32 (N, C, H, W), prepared, to logits float32 (N, classes)."""
        parameter = next(self._net.parameters(), None)
        device = None if parameter is None else parameter.device
        was_training = self._net.training
        self._net.eval()
        with torch.inference_mode():
            logits = _to_numpy(self._net(torch.tensor(batch, device=device)))
        self._net.train(was_training)
        return logits


# ------------------------------------------------------------------------------------------ graph


@dataclass(frozen=True)
class Node:
    """A node of the graph, its attributes as Python values.

    Attributes:
        name: for error messages.
        op: ONNX operator.
        inputs: names of values; "" where an optional one is left out.
        output: name of the first output.
        attributes: by name.
        opset: version of the operator set.
    """

    name: str
    op: str
    inputs: tuple[str, ...]
    output: str
    attributes: Mapping[str, Any]
    opset: int

    def get(self, name: str, default: Any) -> Any:  # noqa: ANN401
        """An attribute, or its default."""
        return self.attributes.get(name, default)

    def ints(self, name: str, inputs: Sequence[Tensor | None], position: int) -> list[int] | None:
        """Integers that are an attribute in older operator sets and an input in newer ones."""
        if name in self.attributes:
            return [int(value) for value in self.attributes[name]]
        setting = inputs[position] if position < len(inputs) else None
        return None if setting is None else [int(value) for value in setting.flatten().tolist()]

    def number(
        self, name: str, inputs: Sequence[Tensor | None], position: int, default: float
    ) -> float:
        """A number that is an attribute in older operator sets and an input in newer ones."""
        setting = inputs[position] if position < len(inputs) else None
        return float(self.get(name, default)) if setting is None else float(setting)

    def unsupported(self, what: str) -> UnsupportedError:
        """The error to raise where this node asks for something that is not supported."""
        return UnsupportedError(f"node {self.name!r} ({self.op}) uses {what}: not supported")


def _nodes(model: onnx.ModelProto) -> list[Node]:
    opset = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 1)
    used = {name for proto in model.graph.node for name in proto.input}
    nodes = []
    for i, proto in enumerate(model.graph.node):
        attributes = {a.name: helper.get_attribute_value(a) for a in proto.attribute}
        name = proto.name or f"{proto.op_type}_{i}"
        node = Node(name, proto.op_type, tuple(proto.input), proto.output[0], attributes, opset)
        if proto.domain not in ("", "ai.onnx") or node.op not in OPERATORS:
            raise UnsupportedError(f"the operator {node.op} (node {name!r}) is not supported")
        if node.op == "Split":
            nodes += _split_into_slices(node, list(proto.output))
            continue
        if used.intersection(proto.output[1:]):
            raise node.unsupported("more than one output")
        nodes.append(node)
    return nodes


def _split_into_slices(node: Node, outputs: list[str]) -> list[Node]:
    """A Split as one node per output, so that every node has a single output."""
    return [
        dataclasses.replace(
            node,
            output=output,
            attributes={**node.attributes, "part": part, "parts": len(outputs)},
        )
        for part, output in enumerate(outputs)
    ]


# What passes its first input on unchanged, apart from the shape.
_RESHAPING = ("Identity", "Flatten", "Reshape", "Squeeze", "Unsqueeze", "Transpose")


def _without_softmax(nodes: list[Node], output: str) -> list[Node]:
    """Turn the Softmax that the graph ends in into nothing; there may be reshapes behind it."""
    makers = {node.output: i for i, node in enumerate(nodes)}
    i = makers[output]
    while nodes[i].op in _RESHAPING:
        i = makers[nodes[i].inputs[0]]
    if nodes[i].op != "Softmax":
        return nodes
    return [*nodes[:i], dataclasses.replace(nodes[i], op="Identity"), *nodes[i + 1 :]]


def _with_relus_behind_pools(nodes: list[Node], output: str) -> list[Node]:
    """Let ReLUs come after max-pooling, where there are a quarter of the values.

    Results and gradients are exactly the same: the largest of ReLUs is the ReLU of the largest.
    """
    uses = _uses(nodes, output)
    maker = {node.output: node for node in nodes}
    spare = {node.output for node in nodes if node.op == "Relu" and uses[node.output] == 1}
    early: set[str] = set()  # what ReLUs that move away give
    late: set[str] = set()  # what the pools before them give
    for pool in (node for node in nodes if node.op == "MaxPool"):
        source = maker.get(pool.inputs[0])
        if source is None:
            continue
        joined = source.op == "Concat" and uses[source.output] == 1
        names = set(source.inputs if joined else pool.inputs)
        if names <= spare:
            early |= names
            late.add(pool.output)
    moved = []
    for node in nodes:
        if node.output in early:
            moved.append(dataclasses.replace(node, op="Identity"))
        elif node.output in late:
            pooled = f"{node.output} before its ReLU"
            moved.append(dataclasses.replace(node, output=pooled))
            moved.append(Node(node.name, "Relu", (pooled,), node.output, {}, node.opset))
        else:
            moved.append(node)
    return moved


# Operators whose gradient does not need what they gave.
_FORGETFUL = ("Add", "BatchNormalization", "Concat", "Conv", "Gemm", "MaxPool")


def _with_relus_in_place(nodes: list[Node], output: str) -> list[Node]:
    """Let a ReLU overwrite its input where nothing else wants it: large maps are slow to write."""
    maker = {node.output: node.op for node in nodes}
    uses = _uses(nodes, output)
    return [
        dataclasses.replace(node, attributes={"in_place": True})
        if node.op == "Relu"
        and maker.get(node.inputs[0]) in _FORGETFUL
        and uses[node.inputs[0]] == 1
        else node
        for node in nodes
    ]


def _uses(nodes: list[Node], output: str) -> Counter[str]:
    """How often each value is wanted, as the network's output or by a node."""
    return Counter([output, *(name for node in nodes for name in node.inputs)])


def _weight_names(nodes: Sequence[Node]) -> list[str]:
    """What Conv, Gemm and MatMul multiply by, seen through Identity and Transpose nodes."""
    source = {node.output: node.inputs[0] for node in nodes if node.op in ("Identity", "Transpose")}
    names: dict[str, None] = {}
    for node in nodes:
        positions = {"Conv": (1,), "Gemm": (1,), "MatMul": (0, 1)}.get(node.op, ())
        for position in positions:
            name = node.inputs[position]
            while name in source:
                name = source[name]
            names[name] = None
    return list(names)


def _trainable(nodes: Sequence[Node], tensors: Mapping[str, sqz.Tensor]) -> set[str]:
    """The tensors that training may change: weights, biases, a batch norm's scale and shift."""
    roles = {"Conv": (2,), "Gemm": (2,), "BatchNormalization": (1, 2), "PRelu": (1,), "Add": (0, 1)}
    names = set(_weight_names(nodes))
    for node in nodes:
        for name in [node.inputs[p] for p in roles.get(node.op, ()) if p < len(node.inputs)]:
            # A single number that is added is part of a formula (as x + 3 of a hard swish).
            if name in tensors and (node.op != "Add" or tensors[name].size > 1):
                names.add(name)
    return names


# -------------------------------------------------------------------------------------- operators

Operator = Callable[[Node, Any, bool], Tensor]
"""Node, inputs (Tensor, or None where left out), whether training -> the first output."""


def pads_of(node: Node, size: Sequence[int], window: Sequence[int], stride: Sequence[int]) -> Pads:
    """Padding (head, tail) for each spatial axis, of a window that covers `window` pixels."""
    auto = node.get("auto_pad", b"NOTSET")
    if auto == b"VALID":
        return [(0, 0) for _ in size]
    if auto in (b"SAME_UPPER", b"SAME_LOWER"):
        pads = []
        for n, k, s in zip(size, window, stride, strict=True):
            total = max((math.ceil(n / s) - 1) * s + k - n, 0)
            small, large = total // 2, total - total // 2
            pads.append((small, large) if auto == b"SAME_UPPER" else (large, small))
        return pads
    flat = node.get("pads", [0] * (2 * len(size)))
    return list(zip(flat[: len(size)], flat[len(size) :], strict=True))


Pads = list[tuple[int, int]]


def _pad(x: Tensor, pads: Pads, value: float = 0.0) -> Tensor:
    """Pad (or, where negative, crop) the spatial axes of x (N, C, H, W)."""
    if not any(map(any, pads)):
        return x
    flat = [pad for axis in reversed(pads) for pad in axis]  # torch begins at the last axis
    return F.pad(x, flat, value=value)


def _conv(node: Node, inputs: list[Tensor], training: bool) -> Tensor:
    x, weight = inputs[0], inputs[1]
    bias = inputs[2] if len(inputs) > 2 else None
    if weight.ndim != 4:
        raise node.unsupported(f"{weight.ndim - 2}-dimensional kernels")
    stride, dilation = node.get("strides", [1, 1]), node.get("dilations", [1, 1])
    window = [(k - 1) * d + 1 for k, d in zip(weight.shape[2:], dilation, strict=True)]
    pads = pads_of(node, x.shape[2:], window, stride)
    groups = node.get("group", 1)
    if all(head == tail for head, tail in pads):
        padding = [head for head, _ in pads]
        return F.conv2d(x, weight, bias, stride, padding, dilation, groups)
    return F.conv2d(_pad(x, pads), weight, bias, stride, 0, dilation, groups)


@dataclass(frozen=True)
class _Window:
    """A pooling window: per spatial axis kernel, stride, dilation, padding, output size."""

    kernel: list[int]
    stride: list[int]
    dilation: list[int]
    pads: Pads
    out: list[int]

    @classmethod
    def of(cls, node: Node, x: Tensor) -> _Window:
        kernel = node.attributes["kernel_shape"]
        if len(kernel) != 2:
            raise node.unsupported(f"{len(kernel)}-dimensional windows")
        size = x.shape[2:]
        stride, dilation = node.get("strides", [1, 1]), node.get("dilations", [1, 1])
        spans = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
        pads = pads_of(node, size, spans, stride)
        out = []
        for n, span, s, (head, tail) in zip(size, spans, stride, pads, strict=True):
            free = n + head + tail - span
            steps = math.ceil(free / s) if node.get("ceil_mode", 0) else free // s
            # The last window has to start inside the image or its padding in front.
            out.append(steps if steps * s >= n + head else steps + 1)
        return cls(kernel, stride, dilation, pads, out)

    def reach(self, size: Sequence[int]) -> Pads:
        """Padding after which pooling in floor mode gives exactly `out`."""
        axes = zip(self.kernel, self.stride, self.dilation, self.pads, self.out, size, strict=True)
        return [
            (head, max((o - 1) * s + (k - 1) * d + 1 - n - head, 0))
            for k, s, d, (head, _), o, n in axes
        ]


def _max_pool(node: Node, inputs: list[Tensor], training: bool) -> Tensor:
    x = inputs[0]
    window = _Window.of(node, x)
    ceil = bool(node.get("ceil_mode", 0))
    if all(
        head == tail <= k // 2 for k, (head, tail) in zip(window.kernel, window.pads, strict=True)
    ):
        pad = [head for head, _ in window.pads]
        return F.max_pool2d(x, window.kernel, window.stride, pad, window.dilation, ceil)
    x = _pad(x, window.reach(x.shape[2:]), value=-torch.inf)
    return F.max_pool2d(x, window.kernel, window.stride, 0, window.dilation)


def _average_pool(node: Node, inputs: list[Tensor], training: bool) -> Tensor:
    x = inputs[0]
    window = _Window.of(node, x)
    if set(window.dilation) != {1}:
        raise node.unsupported("dilations")
    pads = window.reach(x.shape[2:])
    if not any(map(any, pads)):
        return F.avg_pool2d(x, window.kernel, window.stride)
    # Sum over each window, divided by how many of its pixels count: padding does only where
    # count_include_pad says so, and what ceil_mode adds behind it never does.
    counted = x.new_ones(1, 1, *x.shape[2:])
    if node.get("count_include_pad", 0):
        counted = _pad(counted, window.pads, value=1.0)
        rest = [(0, reach - tail) for (_, tail), (_, reach) in zip(window.pads, pads, strict=True)]
        counted = _pad(counted, rest)
    else:
        counted = _pad(counted, pads)
    sums = F.avg_pool2d(_pad(x, pads), window.kernel, window.stride, divisor_override=1)
    return sums / F.avg_pool2d(counted, window.kernel, window.stride, divisor_override=1)


def _lrn(node: Node, inputs: list[Tensor], training: bool) -> Tensor:
    x, size = inputs[0], node.attributes["size"]
    head, tail = (size - 1) // 2, size // 2
    squares = F.pad(x.square().unsqueeze(1), (0, 0, 0, 0, head, tail))  # (N, 1, C + size - 1, H, W)
    means = F.avg_pool3d(squares, (size, 1, 1), stride=1).squeeze(1)  # (N, C, H, W)
    scale: Tensor = node.get("bias", 1.0) + node.get("alpha", 1e-4) * means
    return x / scale.pow(node.get("beta", 0.75))


def _batch_norm(node: Node, inputs: list[Tensor], training: bool) -> Tensor:
    x, scale, bias, mean, var = inputs
    momentum = 1.0 - node.get("momentum", 0.9)  # ONNX keeps that share, torch replaces it
    epsilon = node.get("epsilon", 1e-5)
    return F.batch_norm(x, mean, var, scale, bias, training, momentum, epsilon)


def _gemm(node: Node, inputs: list[Tensor], training: bool) -> Tensor:
    a = inputs[0].T if node.get("transA", 0) else inputs[0]
    b = inputs[1] if node.get("transB", 0) else inputs[1].T  # (out, in), as torch wants it
    alpha: float = node.get("alpha", 1.0)
    beta: float = node.get("beta", 1.0)
    bias = inputs[2] if len(inputs) > 2 else None
    if alpha == 1.0 and beta == 1.0 and (bias is None or bias.ndim == 1):
        return F.linear(a, b, bias)
    y = alpha * F.linear(a, b)
    return y if bias is None else y + beta * bias


def _clip(node: Node, inputs: list[Tensor], training: bool) -> Tensor:
    low = node.number("min", inputs, 1, -torch.inf)
    high = node.number("max", inputs, 2, torch.inf)
    return inputs[0].clamp(low, high)


def _dropout(node: Node, inputs: list[Tensor], training: bool) -> Tensor:
    x, ratio = inputs[0], node.number("ratio", inputs, 1, 0.5)
    if not training or x.device.type != "cpu" or not 0.0 < ratio < 1.0:
        return F.dropout(x, ratio, training)
    # torch draws a 64-bit number for each value on a CPU; 16 bits do, and take a third of the time.
    dropped = round(ratio * 65536)
    words = torch.empty((x.numel() + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
    bits = torch.empty_like(x, dtype=torch.int16)  # in the order that x lies in memory
    bits.as_strided((x.numel(),), (1,)).copy_(words.view(torch.int16)[: x.numel()])
    return x * (bits >= dropped - 32768) * (65536 / (65536 - dropped))


def _softmax(node: Node, inputs: list[Tensor], training: bool) -> Tensor:
    x = inputs[0]
    if node.opset >= 13:
        return x.softmax(node.get("axis", -1))
    axis = node.get("axis", 1)  # older ones flatten everything from that axis on
    return x.flatten(axis).softmax(-1).view(x.shape)


def _reshape(node: Node, inputs: list[Tensor], training: bool) -> Tensor:
    x, shape = inputs[0], node.ints("shape", inputs, 1)
    if shape is None:
        raise node.unsupported("no shape")
    if not node.get("allowzero", 0):
        shape = [x.shape[i] if size == 0 else size for i, size in enumerate(shape)]
    return x.reshape(shape)


def _flatten(node: Node, inputs: list[Tensor], training: bool) -> Tensor:
    x, axis = inputs[0], node.get("axis", 1)
    return x.reshape(math.prod(x.shape[:axis]), -1)


def _squeeze(node: Node, inputs: list[Tensor], training: bool) -> Tensor:
    axes = node.ints("axes", inputs, 1)
    return inputs[0].squeeze() if axes is None else inputs[0].squeeze(tuple(axes))


def _unsqueeze(node: Node, inputs: list[Tensor], training: bool) -> Tensor:
    x, axes = inputs[0], node.ints("axes", inputs, 1) or []
    for axis in sorted(axis % (x.ndim + len(axes)) for axis in axes):
        x = x.unsqueeze(axis)
    return x


def _transpose(node: Node, inputs: list[Tensor], training: bool) -> Tensor:
    x = inputs[0]
    return x.permute(node.get("perm", list(range(x.ndim))[::-1]))


def _pad_node(node: Node, inputs: list[Tensor], training: bool) -> Tensor:
    x, pads = inputs[0], node.ints("pads", inputs, 1) or []
    if len(inputs) > 3 and inputs[3] is not None:
        raise node.unsupported("axes")
    half = len(pads) // 2
    flat = [pads[i + part] for i in reversed(range(half)) for part in (0, half)]
    mode = {b"constant": "constant", b"reflect": "reflect", b"edge": "replicate"}[
        node.get("mode", b"constant")
    ]
    if mode != "constant":  # torch pads only the spatial axes in these modes
        return F.pad(x, flat[:4], mode)
    return F.pad(x, flat, value=node.number("value", inputs, 2, 0.0))


def _reduce(function: Callable[..., Tensor]) -> Operator:
    def reduce(node: Node, inputs: list[Tensor], training: bool) -> Tensor:
        x = inputs[0]
        axes = node.ints("axes", inputs, 1)
        if axes is None:
            axes = list(range(x.ndim))
        return function(x, dim=tuple(axes), keepdim=bool(node.get("keepdims", 1)))

    return reduce


def _split(node: Node, inputs: list[Tensor], training: bool) -> Tensor:
    x, axis = inputs[0], node.get("axis", 0)
    sizes = node.ints("split", inputs, 1)
    part: int = node.get("part", 0)
    if sizes is None:
        each = math.ceil(x.shape[axis] / node.get("parts", 1))
        return torch.split(x, each, axis)[part]
    return x.narrow(axis, sum(sizes[:part]), sizes[part])


def _slice(node: Node, inputs: list[Tensor], training: bool) -> Tensor:
    x = inputs[0]
    starts, ends = node.ints("starts", inputs, 1) or [], node.ints("ends", inputs, 2) or []
    axes = node.ints("axes", inputs, 3) or list(range(len(starts)))
    steps = node.ints("steps", inputs, 4) or [1] * len(starts)
    if min(steps) < 1:
        raise node.unsupported("negative steps")
    where = [slice(None)] * x.ndim
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        where[axis] = slice(start, end, step)
    part: Tensor = x[tuple(where)]
    return part


def _gather(node: Node, inputs: list[Tensor], training: bool) -> Tensor:
    x, indices, axis = inputs[0], inputs[1], node.get("axis", 0)
    taken = x.index_select(axis, indices.flatten() % x.shape[axis])
    return taken.reshape((*x.shape[:axis], *indices.shape, *x.shape[axis:][1:]))


def _cast(node: Node, inputs: list[Tensor], training: bool) -> Tensor:
    kinds = {
        onnx.TensorProto.FLOAT: torch.float32,
        onnx.TensorProto.INT32: torch.int32,
        onnx.TensorProto.INT64: torch.int64,
    }
    if node.attributes["to"] not in kinds:
        raise node.unsupported("a type other than float32, int32 and int64")
    return inputs[0].to(kinds[node.attributes["to"]])


def _constant(node: Node, inputs: list[Tensor], training: bool) -> Tensor:
    for name, value in node.attributes.items():
        if name == "value":
            return torch.tensor(numpy_helper.to_array(value))
        if name in ("value_float", "value_floats", "value_int", "value_ints"):
            return torch.tensor(value)
    raise node.unsupported("a constant of an unusual type")


def _simple(function: Callable[..., Tensor]) -> Operator:
    """An operator without attributes."""
    return lambda node, inputs, training: function(*inputs)


OPERATORS: dict[str, Operator] = {
    "Add": _simple(torch.add),
    "AveragePool": _average_pool,
    "BatchNormalization": _batch_norm,
    "Cast": _cast,
    "Clip": _clip,
    "Concat": lambda node, inputs, training: torch.cat(inputs, node.attributes["axis"]),
    "Constant": _constant,
    "Conv": _conv,
    "Div": _simple(torch.div),
    "Dropout": _dropout,
    "Elu": lambda node, inputs, training: F.elu(inputs[0], node.get("alpha", 1.0)),
    "Erf": _simple(torch.erf),
    "Exp": _simple(torch.exp),
    "Flatten": _flatten,
    "Gather": _gather,
    "Gelu": lambda node, inputs, training: F.gelu(
        inputs[0], approximate=node.get("approximate", b"none").decode()
    ),
    "Gemm": _gemm,
    "GlobalAveragePool": lambda node, inputs, training: inputs[0].mean((2, 3), keepdim=True),
    "GlobalMaxPool": lambda node, inputs, training: inputs[0].amax((2, 3), keepdim=True),
    "HardSigmoid": lambda node, inputs, training: (
        node.get("alpha", 0.2) * inputs[0] + node.get("beta", 0.5)
    ).clamp(0.0, 1.0),
    "HardSwish": _simple(F.hardswish),
    "Identity": _simple(lambda x: x),
    "LeakyRelu": lambda node, inputs, training: F.leaky_relu(inputs[0], node.get("alpha", 0.01)),
    "LogSoftmax": lambda node, inputs, training: inputs[0].log_softmax(node.get("axis", -1)),
    "LRN": _lrn,
    "MatMul": _simple(torch.matmul),
    "MaxPool": _max_pool,
    "Mish": _simple(F.mish),
    "Mul": _simple(torch.mul),
    "Neg": _simple(torch.neg),
    "Pad": _pad_node,
    "Pow": _simple(torch.pow),
    "PRelu": _simple(lambda x, slope: torch.where(x > 0, x, slope * x)),
    "ReduceMax": _reduce(torch.amax),
    "ReduceMean": _reduce(torch.mean),
    "ReduceSum": _reduce(torch.sum),
    "Relu": lambda node, inputs, training: F.relu(inputs[0], node.get("in_place", False)),
    "Reshape": _reshape,
    "Shape": lambda node, inputs, training: torch.tensor(
        inputs[0].shape[node.get("start", 0) : node.get("end", None)]
    ),
    "Sigmoid": _simple(torch.sigmoid),
    "Slice": _slice,
    "Softmax": _softmax,
    "Softplus": _simple(F.softplus),
    "Split": _split,
    "Sqrt": _simple(torch.sqrt),
    "Squeeze": _squeeze,
    "Sub": _simple(torch.sub),
    "Sum": _simple(lambda *xs: sum(xs[1:], start=xs[0])),
    "Tanh": _simple(torch.tanh),
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
