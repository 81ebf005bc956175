"""ONNX's operators in torch: each takes a node, its inputs and whether it trains."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import onnx
import torch
import torch.nn.functional as F
from onnx import numpy_helper
from torch import Tensor

from squeezekit.errors import UnsupportedError
from squeezekit.sqz.nodes import Node, Pads, pads_of, read_nodes

Operator = Callable[[Node, Any, bool], Tensor]
"""Node, inputs (Tensor, or None where left out), whether training -> the first output."""


def _ints(
    node: Node, name: str, inputs: Sequence[Tensor | None], position: int
) -> list[int] | None:
    """Integers that are an attribute in older operator sets and an input in newer ones."""
    if name in node.attributes:
        return [int(value) for value in node.attributes[name]]
    setting = inputs[position] if position < len(inputs) else None
    return None if setting is None else [int(value) for value in setting.flatten().tolist()]


def _number(
    node: Node, name: str, inputs: Sequence[Tensor | None], position: int, default: float
) -> float:
    """A number that is an attribute in older operator sets and an input in newer ones."""
    setting = inputs[position] if position < len(inputs) else None
    return float(node.get(name, default)) if setting is None else float(setting)


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
    low = _number(node, "min", inputs, 1, -torch.inf)
    high = _number(node, "max", inputs, 2, torch.inf)
    return inputs[0].clamp(low, high)


def _dropout(node: Node, inputs: list[Tensor], training: bool) -> Tensor:
    x, ratio = inputs[0], _number(node, "ratio", inputs, 1, 0.5)
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
    x, shape = inputs[0], _ints(node, "shape", inputs, 1)
    if shape is None:
        raise node.unsupported("no shape")
    if not node.get("allowzero", 0):
        shape = [x.shape[i] if size == 0 else size for i, size in enumerate(shape)]
    return x.reshape(shape)


def _flatten(node: Node, inputs: list[Tensor], training: bool) -> Tensor:
    x, axis = inputs[0], node.get("axis", 1)
    return x.reshape(math.prod(x.shape[:axis]), -1)


def _squeeze(node: Node, inputs: list[Tensor], training: bool) -> Tensor:
    axes = _ints(node, "axes", inputs, 1)
    return inputs[0].squeeze() if axes is None else inputs[0].squeeze(tuple(axes))


def _unsqueeze(node: Node, inputs: list[Tensor], training: bool) -> Tensor:
    x, axes = inputs[0], _ints(node, "axes", inputs, 1) or []
    for axis in sorted(axis % (x.ndim + len(axes)) for axis in axes):
        x = x.unsqueeze(axis)
    return x


def _transpose(node: Node, inputs: list[Tensor], training: bool) -> Tensor:
    x = inputs[0]
    return x.permute(node.get("perm", list(range(x.ndim))[::-1]))


def _pad_node(node: Node, inputs: list[Tensor], training: bool) -> Tensor:
    x, pads = inputs[0], _ints(node, "pads", inputs, 1) or []
    if len(inputs) > 3 and inputs[3] is not None:
        raise node.unsupported("axes")
    half = len(pads) // 2
    flat = [pads[i + part] for i in reversed(range(half)) for part in (0, half)]
    mode = {b"constant": "constant", b"reflect": "reflect", b"edge": "replicate"}[
        node.get("mode", b"constant")
    ]
    if mode != "constant":  # torch pads only the spatial axes in these modes
        return F.pad(x, flat[:4], mode)
    return F.pad(x, flat, value=_number(node, "value", inputs, 2, 0.0))


def _reduce(function: Callable[..., Tensor]) -> Operator:
    def reduce(node: Node, inputs: list[Tensor], training: bool) -> Tensor:
        x = inputs[0]
        axes = _ints(node, "axes", inputs, 1)
        if axes is None:
            axes = list(range(x.ndim))
        return function(x, dim=tuple(axes), keepdim=bool(node.get("keepdims", 1)))

    return reduce


def _split(node: Node, inputs: list[Tensor], training: bool) -> Tensor:
    x, axis = inputs[0], node.get("axis", 0)
    sizes = _ints(node, "split", inputs, 1)
    part: int = node.get("part", 0)
    if sizes is None:
        each = math.ceil(x.shape[axis] / node.get("parts", 1))
        return torch.split(x, each, axis)[part]
    return x.narrow(axis, sum(sizes[:part]), sizes[part])


def _slice(node: Node, inputs: list[Tensor], training: bool) -> Tensor:
    x = inputs[0]
    starts, ends = _ints(node, "starts", inputs, 1) or [], _ints(node, "ends", inputs, 2) or []
    axes = _ints(node, "axes", inputs, 3) or list(range(len(starts)))
    steps = _ints(node, "steps", inputs, 4) or [1] * len(starts)
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


def supported(model: onnx.ModelProto) -> list[Node]:
    """The nodes of a graph, each with one output and an operator that is among `OPERATORS`.

    Raises:
        UnsupportedError: if one is not, naming it.
    """
    found = read_nodes(model)
    used = {name for node in found for name in node.inputs}
    nodes: list[Node] = []
    for node in found:
        if node.op not in OPERATORS:
            raise UnsupportedError(f"the operator {node.op} (node {node.name!r}) is not supported")
        if node.op == "Split":
            nodes += _split_into_slices(node)
        elif used.intersection(node.outputs[1:]):
            raise node.unsupported("more than one output")
        else:
            nodes.append(node)
    return nodes


def _split_into_slices(node: Node) -> list[Node]:
    """A Split as one node per output, so that every node has a single output."""
    parts = len(node.outputs)
    return [
        dataclasses.replace(
            node, outputs=(output,), attributes={**node.attributes, "part": part, "parts": parts}
        )
        for part, output in enumerate(node.outputs)
    ]
