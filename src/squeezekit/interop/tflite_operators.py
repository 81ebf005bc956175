"""Each operator of a network's graph in TensorFlow Lite's, on images of (N, H, W, C).

The meaning of the operators: tensorflow/lite/kernels.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence

import numpy as np

from squeezekit.interop.tflite_lowering import (
    N1_TO_1,
    NONE,
    RELU,
    RELU6,
    Array,
    Coded,
    Goal,
    Lowering,
    channels_last,
    whole_tensor,
)
from squeezekit.sqz.nodes import Node, pads_of
from squeezekit.sqz.padding import same_padding

_LOWEST = float(np.finfo(np.float32).min)
SAME, VALID = 0, 1


# ------------------------------------------------------------------------------------- layers


def _layer(low: Lowering, node: Node) -> None:
    x, weight = node.inputs[:2]
    bias = node.inputs[2] if len(node.inputs) > 2 else ""
    coded = weight in low.coded and (not bias or bias in low.coded)
    goal = low.whole(node, [x], activations=True) if coded else None
    if goal is None:
        after = low.only_user(node.output)
        name, source, activation = node.output, low.real_of(x), NONE
        if after is not None and (fused := low.activation(after)) is not None:
            name, activation = after.output, fused
        low.done |= {node.output, name}
    else:
        name, source, activation = goal.passed[-1], low.codes[x].number, goal.activation
    lower = _convolution if node.op == "Conv" else _product
    kind, inputs, options = lower(low, node, source, goal is not None)
    out = low.value(name) if goal is None else low.into(goal)
    low.emit(kind, inputs, out, **options, fused_activation_function=activation)
    if goal is None:
        low.real[name] = out


def _convolution(
    low: Lowering, node: Node, source: int, whole: bool
) -> tuple[str, list[int], dict[str, int | float]]:
    shape = low.image_shape(node, node.inputs[0])
    weight = _weight(low, node.inputs[1])
    outputs, inside = weight.shape[:2]
    group = node.get("group", 1)
    if weight.ndim != 4:
        raise node.unsupported("a weight that is not of an image's convolution")
    depthwise = inside == 1 and group == shape[1] and group > 1
    stride, dilation = low.pair(node, "strides"), low.pair(node, "dilations")
    source, padding = _padded(low, node, source, weight.shape[2:], stride, dilation, 0.0)
    order = (1, 2, 3, 0) if depthwise else (0, 2, 3, 1)
    options: dict[str, int | float] = {
        "padding": padding, "stride_h": stride[0], "stride_w": stride[1],
        "dilation_h_factor": dilation[0], "dilation_w_factor": dilation[1],
    }  # fmt: skip
    if depthwise:
        options["depth_multiplier"] = outputs // group
    names = [node.inputs[1], node.inputs[2] if len(node.inputs) > 2 else ""]
    axis = 3 if depthwise else 0
    parts = _parameters(low, names, outputs, source, whole, lambda w: w.transpose(order), axis)
    return ("DEPTHWISE_CONV_2D" if depthwise else "CONV_2D"), [source, *parts], options


def _product(
    low: Lowering, node: Node, source: int, whole: bool
) -> tuple[str, list[int], dict[str, int | float]]:
    weight = _weight(low, node.inputs[1])
    factors = node.get("alpha", 1.0), node.get("beta", 1.0)
    rows = len(low.shapes[low.of(node.inputs[0])]) == 2 and not node.get("transA", 0)
    if weight.ndim != 2 or not rows or factors != (1.0, 1.0):
        raise node.unsupported("a product of another form than weights times a row")
    by_row = node.op == "Gemm" and node.get("transB", 0)
    names = [node.inputs[1], node.inputs[2] if len(node.inputs) > 2 else ""]
    outputs = weight.shape[0 if by_row else 1]
    parts = _parameters(low, names, outputs, source, whole, lambda w: w if by_row else w.T, 0)
    return "FULLY_CONNECTED", [source, *parts], {}


def _weight(low: Lowering, name: str) -> Array:
    if name in low.coded:
        return low.coded[name].codes
    return low.stored_value(None, name)


def _parameters(
    low: Lowering,
    names: Sequence[str],
    outputs: int,
    source: int,
    whole: bool,
    arrange: Callable[[Array], Array],
    axis: int,
) -> list[int]:
    """The tensors of a layer's weight and bias; a bias of zeros where it has none."""
    weight, bias = names
    coded = low.coded.get(weight)
    if coded is None:
        numbers = [low.constant(weight, arrange(low.stored_value(None, weight)))]
    else:
        tensor = whole_tensor(weight, arrange(coded.codes), coded.steps, axis)
        numbers = [low.add(tensor)]
        if not whole:  # the layer itself is computed in float32, its weight stays small
            numbers = [low.made("DEQUANTIZE", numbers, weight, tensor.shape)]
    if whole:
        assert coded is not None
        scale = low.tensors[source].scale
        assert scale is not None
        none = Coded(np.zeros(outputs, np.int32), coded.steps * scale[0])
        kept = low.coded.get(bias, none)
        stored = whole_tensor(bias or f"{weight}.bias", kept.codes.ravel(), kept.steps, 0)
        return [*numbers, low.add(stored)]
    if bias in low.coded:
        values = low.coded[bias].codes * low.coded[bias].steps
    else:
        values = low.stored_value(None, bias) if bias else np.zeros(outputs)
    row = np.broadcast_to(values.astype(np.float32).ravel(), (outputs,))
    return [*numbers, low.constant(f"{weight}.bias", row)]


# -------------------------------------------------------------------------------------- pools


def _max_pool(low: Lowering, node: Node) -> None:
    _pool(low, node, "MAX_POOL_2D", low.moved(node, node.inputs[:1]), _LOWEST)


def _average_pool(low: Lowering, node: Node) -> None:
    _pool(low, node, "AVERAGE_POOL_2D", None, None)


def _pool(low: Lowering, node: Node, kind: str, goal: Goal | None, around: float | None) -> None:
    x = node.inputs[0]
    source = low.real_of(x) if goal is None else low.codes[x].number
    kernel, stride = tuple(node.attributes["kernel_shape"]), low.pair(node, "strides")
    if low.pair(node, "dilations") != (1, 1):
        raise node.unsupported("dilations")
    counted = bool(node.get("count_include_pad", 0))
    if counted and not node.get("ceil_mode", 0):
        around = 0.0
    source, padding = _padded(low, node, source, kernel, stride, (1, 1), around, exactly=counted)
    low.finish(
        node, goal, kind, [source], padding=padding, stride_h=stride[0], stride_w=stride[1],
        filter_height=kernel[0], filter_width=kernel[1],
    )  # fmt: skip


def _padded(
    low: Lowering,
    node: Node,
    source: int,
    kernel: Sequence[int],
    stride: Sequence[int],
    dilation: Sequence[int],
    around: float | None,
    exactly: bool = False,
) -> tuple[int, int]:
    """The input of a layer and its kind of padding: SAME, or VALID of a padded input.

    Args:
        low: the graph in the making.
        node: the layer; its result's shape says what its padding comes to.
        source: the tensor of its input.
        kernel: (height, width).
        stride: (height, width).
        dilation: (height, width).
        around: what is padded with; None if a padded input gives another result.
        exactly: what is padded counts, so that SAME, which leaves it out, will not do.
    """
    sides, out = low.image_shape(node, node.inputs[0])[2:], low.shapes[node.output][2:]
    window = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    before = [head for head, _ in pads_of(node, sides, window, stride)]
    behind = [max((out[i] - 1) * stride[i] + window[i] - sides[i] - before[i], 0) for i in range(2)]
    as_same = [head for head, _ in same_padding(sides, window, stride)]
    count = tuple(-(-side // s) for side, s in zip(sides, stride, strict=True))
    same = not exactly and tuple(out) == count and before == as_same
    if not any(before + behind):
        return source, VALID
    if same:
        return source, SAME
    if around is None:
        raise node.unsupported("padding that a .tflite cannot leave out of an average")
    amounts = [(0, 0), (before[0], behind[0]), (before[1], behind[1]), (0, 0)]
    return _pad_by(low, source, amounts, around, f"{node.output}.padded"), VALID


def _pad_by(
    low: Lowering, source: int, amounts: Sequence[tuple[int, int]], around: float, name: str
) -> int:
    tensor = low.tensors[source]
    shape = tuple(n + a + b for n, (a, b) in zip(tensor.shape, amounts, strict=True))
    out = low.add(dataclasses.replace(tensor, name=name, shape=shape))
    inputs = [source, low.constant(f"{name}.amounts", np.array(amounts, np.int32))]
    if around == 0.0:  # of codes, the one that stands for 0
        low.emit("PAD", inputs, out)
        return out
    lowest = np.array(-128 if tensor.kind is np.int8 else around, tensor.kind)
    value = dataclasses.replace(tensor, name=f"{name}.value", shape=(), values=lowest)
    low.emit("PADV2", [*inputs, low.add(value)], out)
    return out


def _global_pool(low: Lowering, node: Node) -> None:
    low.image_shape(node, node.inputs[0])
    kind = "MEAN" if node.op == "GlobalAveragePool" else "REDUCE_MAX"
    axes = low.constant(f"{node.output}.axes", np.array([1, 2], np.int32))
    low.finish(node, None, kind, [low.real_of(node.inputs[0]), axes], keep_dims=1)


def _reduce(low: Lowering, node: Node) -> None:
    x = low.of(node.inputs[0])
    rank = len(low.shapes[x])
    given = node.get("axes", None)
    if given is None and len(node.inputs) > 1 and node.inputs[1]:
        given = low.stored_value(node, node.inputs[1]).tolist()
    if rank != 4 or given is None or sorted(a % rank for a in given) != [2, 3]:
        raise node.unsupported("other axes than height and width")
    axes = low.constant(f"{node.output}.axes", np.array([1, 2], np.int32))
    kind = {"ReduceMean": "MEAN", "ReduceMax": "REDUCE_MAX", "ReduceSum": "SUM"}[node.op]
    keep = node.get("keepdims", 1)
    low.finish(node, None, kind, [low.real_of(node.inputs[0]), axes], keep_dims=keep)


# ------------------------------------------------------------------------------- moving things


def _concat(low: Lowering, node: Node) -> None:
    rank = len(low.shapes[node.output])
    if rank not in (2, 4) or node.get("axis", 0) % rank != 1:
        raise node.unsupported("another axis than the channels")
    goal = low.moved(node, node.inputs)
    sources = [low.real_of(n) if goal is None else low.codes[n].number for n in node.inputs]
    low.finish(node, goal, "CONCATENATION", sources, axis=rank - 1)


def _reshape(low: Lowering, node: Node) -> None:
    x, shape = low.of(node.inputs[0]), low.shapes[node.output]
    before = low.shapes[x]
    pixel = len(before) == 4 and before[2:] == (1, 1)
    if before == shape:
        return _same(low, node)
    rows = len(shape) == 2 and len(before) in (2, 4)
    image = len(shape) == 4 and shape[2:] == (1, 1) and (len(before) == 2 or pixel)
    if not (rows or image) or math.prod(shape) != math.prod(before):
        raise node.unsupported(f"a change of shape from {before} to {shape}")
    goal = low.moved(node, node.inputs[:1])
    source = low.real_of(node.inputs[0]) if goal is None else low.codes[node.inputs[0]].number
    source = low.by_channel(source, before, node.output)
    sizes = low.constant(f"{node.output}.sizes", np.array(channels_last(shape), np.int32))
    low.finish(node, goal, "RESHAPE", [source, sizes])


def _transpose(low: Lowering, node: Node) -> None:
    if tuple(node.get("perm", ())) != tuple(range(len(low.shapes[node.output]))):
        raise node.unsupported("a change of the order of axes")
    _same(low, node)


def _same(low: Lowering, node: Node) -> None:
    x = node.inputs[0]
    if x in low.codes:
        low.codes[node.output] = low.codes[x]
    if x not in low.codes or node.output == low.scores:
        low.real[node.output] = low.real_of(x)


def _pad(low: Lowering, node: Node) -> None:
    if node.get("mode", b"constant") != b"constant":
        raise node.unsupported("padding by other than a constant")
    pads = node.get("pads", None)
    if pads is None:
        pads = low.stored_value(node, node.inputs[1]).tolist()
    value = node.get("value", 0.0)
    if len(node.inputs) > 2 and node.inputs[2]:
        value = float(low.stored_value(node, node.inputs[2]).ravel()[0])
    low.image_shape(node, node.inputs[0])
    if len(pads) != 8 or min(pads) < 0:
        raise node.unsupported("padding of other than an image, or below 0")
    amounts = [(pads[i], pads[4 + i]) for i in (0, 2, 3, 1)]
    low.real[node.output] = _pad_by(low, low.real_of(node.inputs[0]), amounts, value, node.output)


# ------------------------------------------------------------------------------- number by number


def _arithmetic(low: Lowering, node: Node) -> None:
    rank = len(low.shapes[node.output])
    if rank not in (2, 4):
        raise node.unsupported("values that are neither images nor rows")
    goal = low.whole(node, node.inputs, activations=True) if node.op == "Add" else None
    if goal is not None:
        sources = [low.codes[name].number for name in node.inputs]
        options = {"fused_activation_function": goal.activation}
        low.emit("ADD", sources, low.into(goal), **options)
        return
    sources = []
    for name in node.inputs:
        if name in low.stored:
            values = low.stored[name]
            values = values.reshape((1,) * (rank - values.ndim) + values.shape)
            values = values.transpose(0, 2, 3, 1) if rank == 4 else values
            sources.append(low.constant(name, values.astype(np.float32)))
        else:
            if len(low.shapes[low.of(name)]) != rank:
                raise node.unsupported("values of several ranks")
            sources.append(low.real_of(name))
    low.finish(node, None, node.op.upper(), sources)


def _batch_norm(low: Lowering, node: Node) -> None:
    scale, shift, mean, variance = (low.stored_value(node, name) for name in node.inputs[1:])
    factor = scale / np.sqrt(variance + node.get("epsilon", 1e-5))
    scaled = low.constant(f"{node.output}.factor", factor.astype(np.float32))
    summand = low.constant(f"{node.output}.summand", (shift - mean * factor).astype(np.float32))
    x, name = low.real_of(node.inputs[0]), f"{node.output}.scaled"
    product = low.made("MUL", [x, scaled], name, low.tensors[x].shape)
    low.finish(node, None, "ADD", [product, summand])


def _prelu(low: Lowering, node: Node) -> None:
    slopes = low.stored_value(node, node.inputs[1])
    channels = low.shapes[node.output][1]
    if slopes.size not in (1, channels) or len(low.shapes[node.output]) != 4:
        raise node.unsupported("slopes of other than channels")
    row = np.broadcast_to(slopes.reshape(1, 1, -1), (1, 1, channels))
    sources = [low.real_of(node.inputs[0]), low.constant(node.inputs[1], row)]
    low.finish(node, None, "PRELU", sources)


def _clip(low: Lowering, node: Node) -> None:
    kind = {RELU: "RELU", RELU6: "RELU6", N1_TO_1: "RELU_N1_TO_1"}.get(low.activation(node) or NONE)
    if kind is not None:
        return low.finish(node, None, kind, [low.real_of(node.inputs[0])])
    source = low.real_of(node.inputs[0])
    least, most = low.bounds(node)
    for bound, kind in ((least, "MAXIMUM"), (most, "MINIMUM")):
        if math.isfinite(bound):
            constant = low.constant(f"{node.output}.{kind}", np.array(bound, np.float32))
            source = low.made(kind, [source, constant], node.output, low.tensors[source].shape)
    low.real[node.output] = source


def _softmax(low: Lowering, node: Node) -> None:
    shape = low.shapes[node.output]
    axis = node.get("axis", 1 if node.opset < 13 else -1) % len(shape)
    if axis != 1 or math.prod(shape[2:]) != 1:
        raise node.unsupported("another axis than the classes")
    kind, options = ("SOFTMAX", {"beta": 1.0}) if node.op == "Softmax" else ("LOG_SOFTMAX", {})
    low.finish(node, None, kind, [low.real_of(node.inputs[0])], **options)


def _plain(low: Lowering, node: Node) -> None:
    low.finish(node, None, _PLAIN[node.op], [low.real_of(node.inputs[0])])


def _hard_sigmoid(low: Lowering, node: Node) -> None:
    x, name = low.real_of(node.inputs[0]), node.output
    shape = low.tensors[x].shape
    steps = [
        ("MUL", node.get("alpha", 0.2)), ("ADD", node.get("beta", 0.5)), ("MAXIMUM", 0.0),
        ("MINIMUM", 1.0),
    ]  # fmt: skip
    for kind, number in steps:
        x = low.made(
            kind, [x, low.constant(f"{name}.{kind}", np.array(number, np.float32))], name, shape
        )
    low.real[name] = x


def _leaky(low: Lowering, node: Node) -> None:
    alpha = node.get("alpha", 0.01)
    low.finish(node, None, "LEAKY_RELU", [low.real_of(node.inputs[0])], alpha=alpha)


def _elu(low: Lowering, node: Node) -> None:
    if node.get("alpha", 1.0) != 1.0:
        raise node.unsupported("an alpha other than 1")
    low.finish(node, None, "ELU", [low.real_of(node.inputs[0])])


def _lrn(low: Lowering, node: Node) -> None:
    size = node.attributes["size"]
    if size % 2 == 0:
        raise node.unsupported("a neighbourhood of even size")
    low.finish(
        node, None, "LOCAL_RESPONSE_NORMALIZATION", [low.real_of(node.inputs[0])],
        radius=size // 2, bias=node.get("bias", 1.0), beta=node.get("beta", 0.75),
        alpha=node.get("alpha", 1e-4) / size,
    )  # fmt: skip


_PLAIN = {
    "Abs": "ABS", "Exp": "EXP", "HardSwish": "HARD_SWISH", "Log": "LOG", "Neg": "NEG",
    "Relu": "RELU", "Sigmoid": "LOGISTIC", "Sqrt": "SQRT", "Tanh": "TANH",
}  # fmt: skip

OPERATORS: dict[str, Callable[[Lowering, Node], None]] = {
    "QuantizeLinear": Lowering.quantize,
    "DequantizeLinear": Lowering.dequantize,
    **dict.fromkeys(("Conv", "Gemm", "MatMul"), _layer),
    "MaxPool": _max_pool,
    "AveragePool": _average_pool,
    **dict.fromkeys(("GlobalAveragePool", "GlobalMaxPool"), _global_pool),
    **dict.fromkeys(("ReduceMean", "ReduceMax", "ReduceSum"), _reduce),
    "Concat": _concat,
    **dict.fromkeys(("Flatten", "Reshape", "Squeeze", "Unsqueeze"), _reshape),
    "Transpose": _transpose,
    **dict.fromkeys(("Dropout", "Identity"), _same),
    "Pad": _pad,
    **dict.fromkeys(("Add", "Sub", "Mul", "Div"), _arithmetic),
    "BatchNormalization": _batch_norm,
    "Clip": _clip,
    "PRelu": _prelu,
    **dict.fromkeys(("Softmax", "LogSoftmax"), _softmax),
    "HardSigmoid": _hard_sigmoid,
    "LeakyRelu": _leaky,
    "Elu": _elu,
    "LRN": _lrn,
    **dict.fromkeys(_PLAIN, _plain),
}
"""What writes each of ONNX's operators; every other one is refused by its name."""
