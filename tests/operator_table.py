"""Which operators each executor has, found by running each; run as a program, writes the page."""

import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
from foreign import Maker, images, run
from onnx import TensorProto, helper

from squeezekit.errors import SqueezekitError
from squeezekit.interop import onnx_file
from squeezekit.interop.page_runtime import PageRuntime
from squeezekit.sqz import container
from squeezekit.sqz.graph import parse, split
from squeezekit.sqz.network import Metadata, Network, Preprocessing
from squeezekit.sqz.operators import OPERATORS
from squeezekit.trainable.network import TorchClassifier

DOCUMENT = Path(__file__).parent.parent / "docs" / "operators.md"
C, SIDE = 6, 8  # of the value that an operator is tried on
PLAIN = Preprocessing(SIDE, SIDE, "warp", scale=1.0, mean=(0.0,) * 3, std=(1.0,) * 3)


class Sample(Maker):
    """A convolution, the operator, and a pool and a layer behind it."""

    def ints(self, *values):
        return self.tensor(values, np.int64)

    def numbers(self, *shape):
        return self.tensor(self.rng.uniform(0.5, 1.5, shape))

    def of(self, operator, opset):
        x = self.conv("input", (C, 3, 3, 3), pads=[1] * 4)
        y = operator(self, x)
        return self.model(self.ended(y), ("N", 3, SIDE, SIDE), opset)

    def ended(self, y):
        y, features = y if isinstance(y, tuple) else (y, C)
        if not features:
            return y
        y = self.node("Flatten", self.node("GlobalAveragePool", y), axis=1)
        return self.node("Gemm", y, self.numbers(5, features), self.numbers(5), transB=1)


def simple(op, **settings):
    return lambda m, x: m.node(op, x, **settings)


def positive(op, **settings):
    """On values above 0, and not far from 1."""
    return lambda m, x: m.node(op, m.node("Sigmoid", x), **settings)


def two(op):
    return lambda m, x: m.node(op, x, m.node("Relu", x))


def stored(op, *shape):
    return lambda m, x: m.node(op, x, m.numbers(*shape))


def rows(m, x):
    return m.node("Flatten", m.node("GlobalAveragePool", x), axis=1)


def split_in_two(m, x):
    sizes = m.ints(C // 2, C // 2)
    m.nodes.append(helper.make_node("Split", [x, sizes], ["a", "b"], "split", axis=1))
    return m.node("Concat", "b", "a", axis=1)


def by_shape(m, x):
    """The number of images, put into a Reshape."""
    size = m.node("Slice", m.node("Shape", rows(m, x)), m.ints(0), m.ints(1))
    y = m.node("Reshape", rows(m, x), m.node("Concat", size, m.ints(C), axis=0))
    return m.node("Gemm", y, m.numbers(5, C), transB=1), 0


SAMPLES = {
    ("Add", "of two values"): two("Add"),
    ("Add", "of a weight"): stored("Add", C, 1, 1),
    ("AveragePool", ""): simple("AveragePool", kernel_shape=[2, 2], strides=[2, 2]),
    ("AveragePool", "with padding"): simple(
        "AveragePool", kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4
    ),
    ("AveragePool", "that counts the padding"): simple(
        "AveragePool", kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4, count_include_pad=1
    ),
    ("AveragePool", "rounded up"): simple(
        "AveragePool", kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1
    ),
    ("BatchNormalization", "folded in a .sqz where a layer is before it"): lambda m, x: (
        m.batch_norm(m.node("Relu", x), C)
    ),
    ("Cast", ""): simple("Cast", to=TensorProto.FLOAT),
    ("Clip", ""): lambda m, x: m.node("Clip", x, m.tensor(0.0), m.tensor(6.0)),
    ("Concat", "of channels"): lambda m, x: (m.node("Concat", x, m.node("Relu", x), axis=1), 2 * C),
    ("Concat", "of rows"): lambda m, x: m.node("Concat", x, m.node("Relu", x), axis=2),
    ("Conv", ""): lambda m, x: m.conv(x, (C, C, 3, 3), strides=[2, 2]),
    ("Conv", "with groups"): lambda m, x: m.conv(x, (C, 1, 3, 3), group=C, pads=[1] * 4),
    ("Conv", "with dilation"): lambda m, x: m.conv(x, (C, C, 3, 3), dilations=[2, 2]),
    ("Div", "of two values"): lambda m, x: m.node("Div", x, m.node("Exp", x)),
    ("Div", "by a weight"): stored("Div", C, 1, 1),
    ("Dropout", "in inference"): simple("Dropout"),
    ("Elu", ""): simple("Elu"),
    ("Erf", ""): simple("Erf"),
    ("Exp", ""): simple("Exp"),
    ("Flatten", ""): lambda m, x: (m.node("Gemm", rows(m, x), m.numbers(C, 5)), 0),
    ("Gather", ""): lambda m, x: m.node("Gather", x, m.ints(*reversed(range(C))), axis=1),
    ("Gelu", ""): simple("Gelu"),
    ("Gemm", ""): lambda m, x: (m.node("Gemm", rows(m, x), m.numbers(C, 5), m.numbers(5)), 0),
    ("GlobalAveragePool", ""): simple("GlobalAveragePool"),
    ("GlobalMaxPool", ""): simple("GlobalMaxPool"),
    ("HardSigmoid", ""): simple("HardSigmoid"),
    ("HardSwish", ""): simple("HardSwish"),
    ("Identity", ""): simple("Identity"),
    ("LRN", ""): simple("LRN", size=3),
    ("LeakyRelu", ""): simple("LeakyRelu"),
    ("LogSoftmax", ""): lambda m, x: (m.node("LogSoftmax", rows(m, x), axis=1), 0),
    ("MatMul", "with a weight"): lambda m, x: (m.node("MatMul", rows(m, x), m.numbers(C, 5)), 0),
    ("MatMul", "of two values"): lambda m, x: m.node("MatMul", x, x),
    ("MaxPool", ""): simple("MaxPool", kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4),
    ("MaxPool", "rounded up"): simple("MaxPool", kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1),
    ("MaxPool", "with dilation"): simple("MaxPool", kernel_shape=[2, 2], dilations=[2, 2]),
    ("Mish", ""): simple("Mish"),
    ("Mul", "of two values"): two("Mul"),
    ("Mul", "by a weight"): stored("Mul", C, 1, 1),
    ("Mul", "by one number a channel"): lambda m, x: (
        m.node("Mul", x, m.node("GlobalAveragePool", x))
    ),
    ("Neg", ""): simple("Neg"),
    ("PRelu", ""): stored("PRelu", C, 1, 1),
    ("Pad", ""): lambda m, x: m.node("Pad", x, m.ints(0, 0, 1, 1, 0, 0, 1, 1)),
    ("Pow", ""): lambda m, x: m.node("Pow", m.node("Sigmoid", x), m.tensor(0.75)),
    ("ReduceMax", ""): lambda m, x: m.node("ReduceMax", x, m.ints(2, 3)),
    ("ReduceMean", "of each channel"): lambda m, x: m.node("ReduceMean", x, m.ints(2, 3)),
    ("ReduceMean", "of other axes"): lambda m, x: (
        m.node("Sub", x, m.node("ReduceMean", x, m.ints(1)))
    ),
    ("ReduceSum", ""): lambda m, x: m.node("ReduceSum", x, m.ints(2, 3)),
    ("Relu", ""): simple("Relu"),
    ("Reshape", "to one row an image"): lambda m, x: (
        m.node("Gemm", m.node("Reshape", m.node("GlobalMaxPool", x), m.ints(-1, C)),
               m.numbers(C, 5)), 0,
    ),
    ("Reshape", "to other shapes"): lambda m, x: (
        m.node("Reshape", m.node("Reshape", x, m.ints(-1, 2, C // 2, SIDE, SIDE)),
               m.ints(-1, C, SIDE, SIDE))
    ),
    ("Shape", "with Concat, Slice and Reshape"): by_shape,
    ("Sigmoid", ""): simple("Sigmoid"),
    ("Slice", ""): lambda m, x: (m.node("Slice", x, m.ints(1), m.ints(4), m.ints(1)), 3),
    ("Softmax", "of scores"): lambda m, x: (m.node("Softmax", rows(m, x), axis=1), 0),
    ("Softmax", "of channels"): simple("Softmax", axis=1),
    ("Softplus", ""): simple("Softplus"),
    ("Split", ""): split_in_two,
    ("Sqrt", ""): positive("Sqrt"),
    ("Squeeze", ""): lambda m, x: (
        m.node("Gemm", m.node("Squeeze", m.node("GlobalMaxPool", x), m.ints(2, 3)),
               m.numbers(C, 5)), 0,
    ),
    ("Sub", "of two values"): two("Sub"),
    ("Sub", "of a weight"): stored("Sub", C, 1, 1),
    ("Sum", ""): lambda m, x: m.node("Sum", x, x, m.node("Relu", x)),
    ("Tanh", ""): simple("Tanh"),
    ("Transpose", ""): simple("Transpose", perm=[0, 1, 3, 2]),
    ("Unsqueeze", ""): lambda m, x: (
        m.node("Squeeze", m.node("Unsqueeze", x, m.ints(1)), m.ints(1))
    ),
}  # fmt: skip
"""By operator and how it is used."""


def bounded(op):
    return lambda m, x: m.node(op, x, m.tensor(0.25))


FOREIGN = {
    "Abs": simple("Abs"),
    "GroupNormalization": lambda m, x: m.node(
        "GroupNormalization", x, m.numbers(C), m.numbers(C), num_groups=2
    ),
    "InstanceNormalization": lambda m, x: m.node(
        "InstanceNormalization", x, m.numbers(C), m.numbers(C)
    ),
    "LayerNormalization": lambda m, x: m.node(
        "LayerNormalization", x, m.numbers(SIDE), m.numbers(SIDE)
    ),
    "Max with a number": bounded("Max"),
    "Mean": lambda m, x: m.node("Mean", x, m.node("Relu", x)),
    "Min with a number": bounded("Min"),
    "Reciprocal": positive("Reciprocal"),
    "Selu": simple("Selu"),
    "Softsign": simple("Softsign"),
    "SpaceToDepth": lambda m, x: (m.node("SpaceToDepth", x, blocksize=2), 4 * C),
}


def network_of(operator):
    model = Sample(11).of(operator, 20)
    del model.graph.value_info[:]
    graph, tensors = split(model)
    metadata = Metadata("sample", PLAIN)
    return Network(graph, tensors, metadata)


def has(network, x, expected, run_it):
    """Whether an executor has the network; it must not answer otherwise."""
    try:
        got = run_it(network, x)
    except SqueezekitError:
        return False
    np.testing.assert_allclose(got, expected, atol=1e-4 * (1 + np.ptp(expected)))
    return True


def in_c(network, x):
    page = PageRuntime(container.encode(network))
    return np.stack([page.logits(image) for image in x])


def table():
    """The rows of the first table: operator, use, and whether torch and C have it."""
    x = images(2, 3, SIDE)
    found = []
    for (op, use), operator in sorted(SAMPLES.items()):
        network = network_of(operator)
        assert op in {node.op_type for node in parse(network.graph).graph.node}
        expected = run(network, x)
        in_torch = has(network, x, expected, lambda n, x: TorchClassifier(n).logits(x))
        found.append((op, use, in_torch, has(network, x, expected, in_c)))
    return found


def rewritten():
    """By foreign operator, those that it becomes."""
    x = images(3, 3, SIDE)
    found = {}
    for name, operator in sorted(FOREIGN.items()):
        opset = 21 if name == "GroupNormalization" else 20
        model = Sample(11).of(operator, opset)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            onnx.save(model, path)
            network = onnx_file.read(path)
        np.testing.assert_allclose(run(network, x), run(model, x), atol=1e-4)
        ops = {node.op_type for node in parse(network.graph).graph.node}
        found[name] = sorted(ops - {"Conv", "GlobalAveragePool", "Flatten", "Gemm"})
    return found


def document():
    marks = {True: "yes", False: "no"}
    lines = [
        "# Operators",
        "",
        "What a network may be made of, in ONNX's names. Each executor ran every operator to write",
        "this page (`python tests/operator_table.py`), and a test holds that what it says is so.",
        "ONNX Runtime has all of them. A network with one that torch lacks cannot be trained or",
        "compressed; one that the C library lacks is refused by name when a page is made of it.",
        "",
        "| operator | use | ONNX Runtime | torch | C library and web page |",
        "|---|---|---|---|---|",
    ]
    lines += [f"| {op} | {use} | yes | {marks[t]} | {marks[c]} |" for op, use, t, c in table()]
    lines += [
        "",
        "## What comes in as something else",
        "",
        "An ONNX model of another program is rewritten in these operators, and then compared with",
        "the original. Identity, Dropout, constants, shapes and an If with a known condition are",
        "gone by then; operator sets from 7 on are read.",
        "",
        "| operator | becomes |",
        "|---|---|",
    ]
    lines += [f"| {name} | {', '.join(ops)} |" for name, ops in rewritten().items()]
    return "\n".join(lines) + "\n"


def missing():
    """Operators of the closed list that no sample tries."""
    return sorted(set(OPERATORS) - {op for op, _ in SAMPLES})


if __name__ == "__main__":
    assert not missing(), missing()
    DOCUMENT.write_text(document())
    sys.stdout.write(f"{DOCUMENT}\n")
