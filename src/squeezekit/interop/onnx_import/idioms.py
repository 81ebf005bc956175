"""Nodes rewritten as the operators that every executor has, which give the same numbers."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from onnx import NodeProto, helper

from squeezekit.interop.onnx_import.batch import batch_axes
from squeezekit.interop.onnx_import.draft import attributes, new_node, refuse
from squeezekit.interop.onnx_import.source import Array
from squeezekit.interop.onnx_import.walk import Walk
from squeezekit.sqz.padding import same_padding

Idiom = Callable[[Walk, NodeProto], "list[NodeProto] | None"]


def rewrite(walk: Walk, node: NodeProto) -> list[NodeProto] | None:
    """A rewriter for a walk: see `Rewriter`."""
    idiom = None if node.domain else _IDIOMS.get(node.op_type)
    return None if idiom is None else idiom(walk, node)


class _Writer:
    """Writes down the nodes that stand for another one; the last of them gives its output."""

    def __init__(self, walk: Walk, node: NodeProto) -> None:
        self.walk, self.of = walk, node
        self.nodes: list[NodeProto] = []

    def number(self, value: float, what: str) -> str:
        return self.walk.draft.constant(value, np.float32, f"{self.of.name}.{what}")

    def ints(self, values: list[int], what: str) -> str:
        return self.walk.draft.constant(values, np.int64, f"{self.of.name}.{what}")

    def node(self, op: str, *inputs: str, **settings: object) -> str:
        name = self.walk.draft.fresh(f"{self.of.name}.{op}")
        self.nodes.append(new_node(op, inputs, [name], name, **settings))
        return name

    def done(self) -> list[NodeProto]:
        self.nodes[-1].output[0] = self.of.output[0]
        return self.nodes


def _constants(walk: Walk, node: NodeProto, first: int) -> list[Array] | None:
    """The inputs from one on, where all of them are constants."""
    found = [walk.draft.constants.get(name) for name in node.input[first:] if name]
    return None if any(array is None for array in found) else [a for a in found if a is not None]


def _auto_pad(walk: Walk, node: NodeProto) -> list[NodeProto] | None:
    """Padding as numbers, and no attribute that only repeats a default."""
    settings = attributes(node)
    given = walk.shape_of(node, node.input[0])
    if len(given) != 4:
        return None
    if node.op_type == "Conv" and "kernel_shape" not in settings:
        kernel = list(walk.shape_of(node, node.input[1])[2:])
        node.attribute.append(helper.make_attribute("kernel_shape", kernel))
    kernel = attributes(node)["kernel_shape"]
    automatic = settings.get("auto_pad", b"NOTSET")
    dropped = {"auto_pad", "storage_order"}
    pads = settings.get("pads", [0, 0, 0, 0])
    if automatic in (b"SAME_UPPER", b"SAME_LOWER"):
        strides = settings.get("strides", [1, 1])
        dilations = settings.get("dilations", [1, 1])
        window = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
        around = same_padding(given[2:], window, strides, lower=automatic == b"SAME_LOWER")
        pads = [head for head, _ in around] + [tail for _, tail in around]
    elif automatic == b"VALID":
        pads = [0, 0, 0, 0]
    if automatic != b"NOTSET":
        dropped.add("pads")
    if node.op_type == "AveragePool" and not any(pads):
        dropped.add("count_include_pad")
    if settings.get("dilations") == [1, 1] and node.op_type != "Conv":
        dropped.add("dilations")
    if not settings.get("ceil_mode", 0) or _ceil_is_floor(given, settings, kernel, pads):
        dropped.add("ceil_mode")
    kept = [a for a in node.attribute if a.name not in dropped]
    if "pads" in dropped and any(pads):
        kept.append(helper.make_attribute("pads", pads))
    node.ClearField("attribute")
    node.attribute.extend(kept)
    if node.op_type == "MaxPool":
        del node.output[1:]
    return None


def _ceil_is_floor(
    given: tuple[int, ...], settings: dict[str, list[int]], kernel: list[int], pads: list[int]
) -> bool:
    """Whether windows fit without a rest, so that rounding up and down are the same."""
    return all(
        (size + pads[i] + pads[i + 2] - (k - 1) * d - 1) % s == 0
        for i, (size, k, s, d) in enumerate(
            zip(
                given[2:],
                kernel,
                settings.get("strides", [1, 1]),
                settings.get("dilations", [1, 1]),
                strict=True,
            )
        )
    )


def _reduce(walk: Walk, node: NodeProto) -> list[NodeProto] | None:
    """The mean or largest of each channel, as a global pool."""
    given = walk.shape_of(node, node.input[0])
    stated = walk.value(node.input[1]) if len(node.input) > 1 and node.input[1] else None
    settings = attributes(node)
    if stated is None or stated.size == 0:
        if settings.get("noop_with_empty_axes", 0):
            walk.same(node.output[0], node.input[0])
            return []
        return None
    axes = sorted(axis % len(given) for axis in stated.tolist())
    if len(given) == 4 and axes == [2, 3] and node.op_type in _GLOBAL:
        writer = _Writer(walk, node)
        pooled = writer.node(_GLOBAL[node.op_type], node.input[0])
        if not settings.get("keepdims", 1):
            writer.node("Flatten", pooled, axis=1)
        return writer.done()
    return None


_GLOBAL = {"ReduceMean": "GlobalAveragePool", "ReduceMax": "GlobalMaxPool"}


def _gemm(walk: Walk, node: NodeProto) -> list[NodeProto] | None:
    """Factors and layouts taken into the weights: y = x W^T + b, and nothing else."""
    stored = _constants(walk, node, 1)
    if stored is None or not walk.is_image_data(node.input[0]):
        return None
    settings = attributes(node)
    alpha, beta = settings.get("alpha", 1.0), settings.get("beta", 1.0)
    weight, bias = stored[0], stored[1] if len(stored) > 1 else None
    changed = weight if alpha == 1.0 else (weight * np.float32(alpha)).astype(weight.dtype)
    outputs = weight.shape[0 if settings.get("transB", 0) else 1]
    if bias is not None:
        if bias.size not in (1, outputs) or max(bias.shape[:-1], default=1) != 1:
            return None
        row = np.broadcast_to(bias.reshape(-1) * np.float32(beta), outputs).astype(bias.dtype)
        if bias.shape != row.shape or beta != 1.0:
            node.input[2] = walk.draft.constant(row, row.dtype.type, node.input[2])
    if changed is not weight:
        node.input[1] = walk.draft.constant(changed, changed.dtype.type, node.input[1])
    if settings.get("transA", 0):
        writer = _Writer(walk, node)
        node.input[0] = writer.node("Transpose", node.input[0], perm=[1, 0])
        _keep(node, "transB")
        writer.nodes.append(node)
        return writer.nodes
    _keep(node, "transB")
    return None


def _keep(node: NodeProto, *names: str) -> None:
    """Drop all attributes but these, and these where they say nothing."""
    kept = [a for a in node.attribute if a.name in names and helper.get_attribute_value(a)]
    node.ClearField("attribute")
    node.attribute.extend(kept)


def _matmul(walk: Walk, node: NodeProto) -> list[NodeProto] | None:
    """The product with a stored matrix, as a layer."""
    weight = walk.draft.constants.get(node.input[1])
    if weight is None or weight.ndim != 2 or not walk.is_image_data(node.input[0]):
        return None
    if len(walk.shape_of(node, node.input[0])) != 2:
        return None
    return [new_node("Gemm", node.input, node.output, node.name)]


def _sum(walk: Walk, node: NodeProto) -> list[NodeProto] | None:
    """One addition behind the other."""
    writer = _Writer(walk, node)
    if len(node.input) == 1:
        walk.same(node.output[0], node.input[0])
        return []
    total = node.input[0]
    for name in node.input[1:]:
        total = writer.node("Add", total, name)
    if node.op_type == "Mean":
        writer.node("Div", total, writer.number(len(node.input), "count"))
    return writer.done()


def _clip(walk: Walk, node: NodeProto) -> list[NodeProto] | None:
    """A Clip at 0 alone is a ReLU."""
    bounds = [
        walk.draft.constants.get(name) if name else np.array(default)
        for name, default in zip([*node.input[1:], "", ""][:2], (-np.inf, np.inf), strict=True)
    ]
    low, high = bounds
    if low is None or high is None or low.size != 1 or high.size != 1:
        return None
    largest = float(np.finfo(np.float32).max)
    if float(low) == 0.0 and float(high) >= largest:
        return [new_node("Relu", node.input[:1], node.output, node.name)]
    return None


def _layer_norm(walk: Walk, node: NodeProto) -> list[NodeProto] | None:
    """LayerNormalization by its formula (Ba et al. 2016, equation 3)."""
    given = walk.shape_of(node, node.input[0])
    settings = attributes(node)
    first = settings.get("axis", -1) % len(given)
    if set(batch_axes(given)) & set(range(first, len(given))):
        raise refuse(node, "normalises over the images of a batch: not supported")
    if any(node.output[1:]):
        raise refuse(node, "gives its mean as well: not supported")
    writer = _Writer(walk, node)
    even = _standardised(
        writer, node.input[0], list(range(first, len(given))), settings.get("epsilon", 1e-5)
    )
    even = writer.node("Mul", even, node.input[1])
    if len(node.input) > 2 and node.input[2]:
        even = writer.node("Add", even, node.input[2])
    return writer.done()


def _standardised(writer: _Writer, x: str, axes: list[int], epsilon: float) -> str:
    """(x - mean) / sqrt(variance + epsilon) over some axes."""
    over = writer.ints(axes, "axes")
    centred = writer.node("Sub", x, writer.node("ReduceMean", x, over, keepdims=1))
    squares = writer.node("Mul", centred, centred)
    variance = writer.node("ReduceMean", squares, over, keepdims=1)
    deviation = writer.node("Sqrt", writer.node("Add", variance, writer.number(epsilon, "epsilon")))
    return writer.node("Div", centred, deviation)


def _group_norm(walk: Walk, node: NodeProto) -> list[NodeProto] | None:
    """InstanceNormalization and GroupNormalization (Wu, He 2018) of stored scales, by formula."""
    given, stored = walk.shape_of(node, node.input[0]), _constants(walk, node, 1)
    settings = attributes(node)
    if stored is None or batch_axes(given) != [0] or len(given) < 3:
        return None
    channels = given[1]
    groups = settings.get("num_groups", channels)
    scale, bias = (np.asarray(values, np.float32) for values in stored[:2])
    if len(scale) == groups != channels:  # as operator set 18 has it
        scale, bias = (np.repeat(values, channels // groups) for values in (scale, bias))
    each = (channels, *[1] * (len(given) - 2))
    writer = _Writer(walk, node)
    if node.op_type == "InstanceNormalization":
        even = _standardised(
            writer, node.input[0], list(range(2, len(given))), settings.get("epsilon", 1e-5)
        )
    else:
        grouped = writer.node(
            "Reshape", node.input[0], writer.ints([-1, groups, math.prod(given[1:]) // groups], "g")
        )
        even = _standardised(writer, grouped, [2], settings.get("epsilon", 1e-5))
        even = writer.node("Reshape", even, writer.ints([-1, *given[1:]], "back"))
    draft = walk.draft
    even = writer.node("Mul", even, draft.constant(scale.reshape(each), np.float32, node.input[1]))
    writer.node("Add", even, draft.constant(bias.reshape(each), np.float32, node.input[2]))
    return writer.done()


def _selu(walk: Walk, node: NodeProto) -> list[NodeProto] | None:
    """Gamma * elu(x, alpha) (Klambauer et al. 2017)."""
    settings = attributes(node)
    writer = _Writer(walk, node)
    bent = writer.node("Elu", node.input[0], alpha=settings.get("alpha", 1.67326319217681884765625))
    gamma = settings.get("gamma", 1.05070102214813232421875)
    writer.node("Mul", bent, writer.number(gamma, "gamma"))
    return writer.done()


def _reciprocal(walk: Walk, node: NodeProto) -> list[NodeProto] | None:
    writer = _Writer(walk, node)
    writer.node("Div", writer.number(1.0, "one"), node.input[0])
    return writer.done()


def _abs(walk: Walk, node: NodeProto) -> list[NodeProto] | None:
    writer = _Writer(walk, node)
    above = writer.node("Relu", node.input[0])
    below = writer.node("Relu", writer.node("Neg", node.input[0]))
    writer.node("Add", above, below)
    return writer.done()


def _softsign(walk: Walk, node: NodeProto) -> list[NodeProto] | None:
    """X / (1 + |x|)."""
    writer = _Writer(walk, node)
    one = writer.number(1.0, "one")
    writer.node("Div", node.input[0], writer.node("Add", one, writer.node("Abs", node.input[0])))
    return writer.done()


def _bounded(walk: Walk, node: NodeProto) -> list[NodeProto] | None:
    """Max and Min with a single stored number, as a Clip."""
    if len(node.input) != 2:
        return None
    for data, number in (node.input, reversed(node.input)):
        stored = walk.draft.constants.get(number)
        if stored is not None and stored.size == 1 and walk.is_image_data(data):
            bound = walk.draft.constant(stored.reshape(()), np.float32, f"{node.name}.bound")
            inputs = [data, bound] if node.op_type == "Max" else [data, "", bound]
            return [new_node("Clip", inputs, node.output, node.name)]
    return None


def _space_to_depth(walk: Walk, node: NodeProto) -> list[NodeProto] | None:
    """Blocks of pixels into channels, by reshaping."""
    _, channels, height, width = walk.shape_of(node, node.input[0])
    size = attributes(node)["blocksize"]
    writer = _Writer(walk, node)
    cut = writer.ints([-1, channels, height // size, size, width // size, size], "blocks")
    parts = writer.node("Reshape", node.input[0], cut)
    parts = writer.node("Transpose", parts, perm=[0, 3, 5, 1, 2, 4])
    shape = [-1, channels * size * size, height // size, width // size]
    writer.node("Reshape", parts, writer.ints(shape, "shape"))
    return writer.done()


_IDIOMS: dict[str, Idiom] = {
    "Abs": _abs,
    "AveragePool": _auto_pad,
    "Clip": _clip,
    "Conv": _auto_pad,
    "Gemm": _gemm,
    "GroupNormalization": _group_norm,
    "InstanceNormalization": _group_norm,
    "LayerNormalization": _layer_norm,
    "MatMul": _matmul,
    "Max": _bounded,
    "MaxPool": _auto_pad,
    "Mean": _sum,
    "Min": _bounded,
    "Reciprocal": _reciprocal,
    "ReduceMax": _reduce,
    "ReduceMean": _reduce,
    "Selu": _selu,
    "Softsign": _softsign,
    "SpaceToDepth": _space_to_depth,
    "Sum": _sum,
}
