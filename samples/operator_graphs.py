"""Graphs of every operator that the C library has, over random shapes and settings."""

import contextlib
import functools

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from squeezekit.errors import GraphError, OperatorError
from squeezekit.sqz.graph import split
from squeezekit.sqz.network import Metadata, Network, Preprocessing

SIZE = 6


class Graph:
    """A graph on its way: nodes one behind the other, weights by name."""

    def __init__(self, rng, opset=17, channels=3, size=SIZE):
        self.rng, self.opset, self.channels, self.size = rng, opset, channels, size
        self.nodes, self.weights, self.last = [], [], "image"

    def node(self, op, *more, outputs=1, **attributes):
        """Append a node on the last value (or on `first`); gives the names of its outputs."""
        first = attributes.pop("first", None) or self.last
        names = [f"{op.lower()}{len(self.nodes)}_{i}" for i in range(outputs)]
        attributes = {key: value for key, value in attributes.items() if value is not None}
        inputs = [first, *more] if attributes.pop("before", None) is None else [*more, first]
        name = f"node_{op}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, names, name, **attributes))
        self.last = names[0]
        return names

    def weight(self, values, dtype=np.float32):
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(values, dtype), name))
        return name

    def random(self, *shape):
        return self.weight(self.rng.normal(size=shape))

    def ints(self, *values):
        return self.weight(values, np.int64)

    def conv(self, filters, kernel=1, **attributes):
        weight = self.random(filters, self.channels, kernel, kernel)
        self.channels = filters
        return self.node("Conv", weight, **attributes)[0]

    def network(self):
        channels = 3
        image = helper.make_tensor_value_info(
            "image", TensorProto.FLOAT, ["N", channels, self.size, self.size]
        )
        output = helper.make_tensor_value_info(self.last, TensorProto.FLOAT, None)
        graph = helper.make_graph(self.nodes, "graph", [image], [output], self.weights)
        opsets = [helper.make_opsetid("", self.opset)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
        skeleton, tensors = split(model)
        return Network(
            skeleton, tensors, Metadata("random", Preprocessing(crop=self.size, resize=self.size))
        )


# Each takes a Graph and appends what is to be tried, with settings drawn from its rng.


def conv(g):
    groups = g.rng.choice([1, 3])
    filters, kernel = groups * g.rng.integers(1, 4), g.rng.integers(1, 4, 2)
    weight = g.random(filters, g.channels // groups, *kernel)
    bias = [g.random(filters)] if g.rng.integers(2) else []
    pad = {"auto_pad": g.rng.choice(["SAME_UPPER", "SAME_LOWER", "VALID"]).item()}
    if g.rng.integers(2):
        pad = {"pads": g.rng.integers(0, 3, 4).tolist()}
    dilations = g.rng.integers(1, 3, 2).tolist() if "pads" in pad else None
    strides = g.rng.integers(1, 3, 2).tolist()
    g.node("Conv", weight, *bias, group=int(groups), strides=strides, dilations=dilations, **pad)


def depthwise(g):
    times = int(g.rng.integers(1, 3))
    weight = g.random(3 * times, 1, 3, 3)
    g.node("Conv", weight, g.random(3 * times), group=3, pads=[1] * 4, strides=[1, 2])


def max_pool(g):
    kernel = g.rng.integers(1, 4, 2)
    g.node(
        "MaxPool", kernel_shape=kernel.tolist(), ceil_mode=int(g.rng.integers(2)),
        strides=g.rng.integers(1, 4, 2).tolist(), dilations=g.rng.integers(1, 3, 2).tolist(),
        pads=np.tile(g.rng.integers(0, kernel), 2).tolist(),
    )  # fmt: skip


def average_pool(g):
    kernel = g.rng.integers(1, 4, 2)
    g.node(
        "AveragePool", kernel_shape=kernel.tolist(), strides=g.rng.integers(1, 4, 2).tolist(),
        pads=np.tile(g.rng.integers(0, kernel), 2).tolist(),
        ceil_mode=int(g.rng.integers(2)), count_include_pad=int(g.rng.integers(2)),
    )  # fmt: skip


def gemm(g):
    g.node("Flatten", axis=g.rng.choice([1, -3]).item())
    features, out, transposed = 3 * SIZE * SIZE, int(g.rng.integers(1, 9)), int(g.rng.integers(2))
    weight = g.random(*((out, features) if transposed else (features, out)))
    bias = [[], [g.random(out)], [g.random(1, out)], [g.random(1)]][g.rng.integers(4)]
    alpha, beta = g.rng.choice([1.0, 0.5, -2.0], 2)
    g.node("Gemm", weight, *bias, transB=transposed, alpha=float(alpha), beta=float(beta))


def matmul(g):
    if g.rng.integers(2):
        g.node("Flatten")
        g.node("MatMul", g.random(3 * SIZE * SIZE, 4))
        g.node("Add", g.random(4))
    else:
        g.node("MatMul", g.random(SIZE, 5))


ACTIVATIONS = {
    "Relu": {}, "LeakyRelu": {"alpha": 0.2}, "Elu": {"alpha": 0.7}, "HardSigmoid": {"alpha": 0.3},
    "HardSwish": {}, "Sigmoid": {}, "Tanh": {}, "Neg": {}, "Exp": {}, "Softplus": {}, "Erf": {},
    "Mish": {}, "Gelu": {"approximate": "tanh"}, "Identity": {}, "Dropout": {},
}  # fmt: skip


def activations(g):
    g.opset = 20
    g.conv(4)
    for name in g.rng.permutation(sorted(ACTIVATIONS))[:3].tolist():
        settings = ACTIVATIONS[name] if g.rng.integers(2) else {}
        g.node(name, **settings)


def branches(g):
    """An activation must not change what somebody else still reads."""
    x = g.conv(4)
    y = g.node("Sigmoid", first=x)[0]
    z = g.node("Identity", first=x)[0]
    z = g.node("Tanh", first=z)[0]
    g.node("Concat", y, z, first=x, axis=1)
    g.node("Relu")


def clip(g):
    low, high = sorted(g.rng.normal(size=2).tolist())
    if g.rng.integers(2):
        g.opset = 7
        g.node("Clip", min=low, max=high)
    else:
        g.node("Clip", g.weight(low), g.weight(high)) if g.rng.integers(2) else g.node(
            "Clip", g.weight(low)
        )


def prelu(g):
    g.node("PRelu", g.random(*([3, 1, 1], [1], [1, 3, 1, 1])[g.rng.integers(3)]))


def arithmetic(g):
    op = g.rng.choice(["Add", "Sub", "Mul", "Div"]).item()
    shapes = [(3, 1, 1), (1, 3, 1, 1), (), (1,), (3, SIZE, SIZE), (SIZE,), (1, 3, 1, SIZE)]
    values = g.rng.uniform(0.5, 2, shapes[g.rng.integers(len(shapes))])
    g.node(op, g.weight(values), before=True if g.rng.integers(2) and op != "Div" else None)


def squeeze_and_excite(g):
    """A gate of one value a channel, as in MobileNetV3."""
    x = g.conv(4, 3, pads=[1] * 4)
    y = g.node("GlobalAveragePool")[0]
    y = g.node("Relu", first=g.conv(4, first=y))[0]
    y = g.node("HardSigmoid", first=y)[0]
    g.node("Mul", y, first=x)
    g.node("Add", x)
    g.node("Relu")


def batch_norm(g):
    variance = g.weight(g.rng.uniform(0.1, 2, 3))
    numbers = [g.random(3), g.random(3), g.random(3), variance]
    g.node("BatchNormalization", *numbers, epsilon=1e-3)


def lrn(g):
    g.conv(7)
    size = int(g.rng.choice([1, 3, 5]))
    g.node("LRN", size=size, alpha=0.3, beta=0.6, bias=1.5)


def reduction(g):
    op = g.rng.choice(["ReduceMean", "ReduceMax", "ReduceSum"]).item()
    axes = [[2, 3], [1], [-1, -2], [3], [2], [1, 3], [1, 2, 3]][g.rng.integers(7)]
    keep = int(g.rng.integers(2))
    if op == "ReduceSum" or g.rng.integers(2):
        g.opset = 18
        g.node(op, g.ints(*axes), keepdims=keep)
    else:
        g.node(op, axes=axes, keepdims=keep)


def global_pool(g):
    g.node(g.rng.choice(["GlobalAveragePool", "GlobalMaxPool"]).item())
    if g.rng.integers(2):
        g.node("Flatten")
        g.node(g.rng.choice(["Softmax", "LogSoftmax"]).item(), axis=1)


def softmax(g):
    g.opset = int(g.rng.choice([11, 17]))
    axis = [None, 1, 2, 3, -1][g.rng.integers(5)]
    g.node(g.rng.choice(["Softmax", "LogSoftmax"]).item(), axis=axis)


def channel_shuffle(g):
    """Split, Concat and a transposed reshape, as in ShuffleNet."""
    g.conv(8)
    left, right = g.node("Split", axis=1, outputs=2)
    right = g.node("Relu", first=right)[0]
    g.node("Concat", left, first=right, axis=1)
    g.node("Reshape", g.ints(0, 2, 4, SIZE, SIZE))
    g.node("Transpose", perm=[0, 2, 1, 3, 4])
    g.node("Reshape", g.ints(0, -1, SIZE, SIZE))


def parts(g):
    g.conv(7)
    if g.rng.integers(2):
        g.opset = 11
        outputs = g.node("Split", axis=1, split=[2, 1, 4], outputs=3)
    else:
        outputs = g.node("Split", g.ints(2, 1, 4), axis=1, outputs=3)
    g.node("Concat", outputs[0], first=outputs[2], axis=1)


def concat(g):
    axis = int(g.rng.integers(1, 4))
    y = g.node("Neg")[0]
    g.node("Concat", y, first="image", axis=axis - 4 if g.rng.integers(2) else axis)


def transpose(g):
    perm = [0, *(1 + g.rng.permutation(3)).tolist()]
    g.node("Transpose", perm=perm)
    if g.rng.integers(2):
        g.node("Transpose", perm=[0, *(1 + g.rng.permutation(3)).tolist()])


def slices(g):
    axes = g.rng.permutation([1, 2, 3])[: g.rng.integers(1, 4)]
    starts = g.rng.integers(-3, 2, len(axes))
    steps = g.rng.integers(1, 3, len(axes))
    ends = [1 << 62] * len(axes)
    g.node("Slice", g.ints(*starts), g.ints(*ends), g.ints(*axes), g.ints(*steps))


def pad(g):
    pads = [0, 0, *g.rng.integers(-1, 3, 2), 0, g.rng.integers(0, 2), *g.rng.integers(-1, 3, 2)]
    value = [g.weight(g.rng.normal())] if g.rng.integers(2) else []
    g.node("Pad", g.ints(*pads), *value)
    g.conv(2, 1) if not pads[5] else None


def views(g):
    g.node("ReduceMean", axes=[2, 3], keepdims=1)
    g.node("Squeeze", g.ints(2, 3))
    g.node("Unsqueeze", g.ints(1))
    g.node("Squeeze")
    g.node("Cast", to=1)
    g.node("Reshape", g.ints(-1, 3))


def old_views(g):
    g.opset = 11
    g.node("GlobalAveragePool")
    g.node("Squeeze", axes=[2, 3])
    g.node("Unsqueeze", axes=[-1])
    g.node("Flatten")


KINDS = [
    conv, depthwise, max_pool, average_pool, gemm, matmul, activations, branches, clip, prelu,
    arithmetic, squeeze_and_excite, batch_norm, lrn, reduction, global_pool, softmax,
    channel_shuffle, parts, concat, transpose, slices, pad, views, old_views,
]  # fmt: skip


@functools.cache
def networks():
    """Every operator, a few times."""
    made = []
    for kind in KINDS:
        for seed in range(3):
            g = Graph(np.random.default_rng(seed))
            kind(g)
            with contextlib.suppress(OperatorError, GraphError):
                made.append(g.network())
    return made
