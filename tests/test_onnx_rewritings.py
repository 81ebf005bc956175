"""Random small networks, rewritten so that they stay the same function: one answer everywhere."""

import numpy as np
import onnx
import pytest
from foreign import Maker, images, run
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper, version_converter

from squeezekit.errors import UnsupportedError
from squeezekit.interop import onnx_file
from squeezekit.interop.page_runtime import PageRuntime
from squeezekit.models.fold import fold_batch_norm
from squeezekit.sqz import container
from squeezekit.trainable.network import TorchClassifier

SIZE = 16
CLASSES = 4


class Body(Maker):
    """Steps of a network; each keeps (N, C, H, W) and tells the shape of one image."""

    def __init__(self, seed):
        super().__init__(seed)
        self.x, self.c, self.side = "input", 3, SIZE

    def normal(self, *shape):
        return self.tensor(self.rng.standard_normal(shape))

    def conv3(self):
        self.x = self.conv(self.x, (6, self.c, 3, 3), pads=[1] * 4)
        self.c = 6

    def conv_strided(self):
        if self.side >= 4:
            self.x = self.conv(self.x, (5, self.c, 3, 3), strides=[2, 2], auto_pad="SAME_UPPER")
            self.c, self.side = 5, -(-self.side // 2)

    def conv_depthwise(self):
        self.x = self.conv(self.x, (self.c, 1, 3, 3), group=self.c, pads=[2] * 4, dilations=[2, 2])

    def batch_normed(self):
        self.x = self.batch_norm(self.x, self.c)

    def activation(self):
        kind = self.rng.integers(9)
        six = [self.tensor(0.0), self.tensor(6.0)] if kind == 2 else []
        ops = (
            "Relu",
            "LeakyRelu",
            "Clip",
            "Elu",
            "Sigmoid",
            "HardSwish",
            "Tanh",
            "Softplus",
            "Selu",
        )
        self.x = self.node(ops[kind], self.x, *six)

    def prelu(self):
        self.x = self.node("PRelu", self.x, self.tensor(self.rng.random((self.c, 1, 1))))

    def pooled(self):
        if self.side >= 4:
            op = ("MaxPool", "AveragePool")[self.rng.integers(2)]
            ceil = int(self.rng.integers(2))
            counted = {"count_include_pad": 1} if op == "AveragePool" and not ceil else {}
            self.x = self.node(op, self.x, kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4,
                               ceil_mode=ceil, **counted)  # fmt: skip
            self.side = (self.side - 1 + ceil) // 2 + 1

    def residual(self):
        y = self.node("Relu", self.conv(self.x, (self.c, self.c, 3, 3), pads=[1] * 4))
        self.x = self.node("Add", self.x, y)

    def joined(self):
        y = self.conv(self.x, (2, self.c, 1, 1))
        self.x, self.c = self.node("Concat", self.x, y, axis=1), self.c + 2

    def squeezed_and_excited(self):
        s = self.node("ReduceMean", self.x, axes=[2, 3], keepdims=1)
        s = self.node("Sigmoid", self.conv(s, (self.c, self.c, 1, 1)))
        self.x = self.node("Mul", self.x, s)

    def scaled(self):
        """By a parameter that is reshaped in the graph."""
        each = self.node("Reshape", self.normal(self.c), self.tensor([1, -1, 1, 1], np.int64))
        self.x = self.node("Mul", self.x, each)

    def normed_by_layer(self):
        x = self.node("Transpose", self.x, perm=[0, 2, 3, 1])
        x = self.node("LayerNormalization", x, self.normal(self.c), self.normal(self.c))
        self.x = self.node("Transpose", x, perm=[0, 3, 1, 2])

    def normed_by_instance(self):
        self.x = self.node(
            "InstanceNormalization", self.x, self.normal(self.c), self.normal(self.c)
        )

    def halves(self):
        if self.c % 2 == 0:
            a, b = f"{self.x}_a", f"{self.x}_b"
            split = self.tensor([self.c // 2] * 2, np.int64)
            name = f"/Split_{len(self.nodes)}"
            self.nodes.append(helper.make_node("Split", [self.x, split], [a, b], name, axis=1))
            self.x = self.node("Concat", b, a, axis=1)

    def ended(self, flatten):
        how = self.rng.integers(4)
        if how == 0:
            x, features = self.node("GlobalAveragePool", self.x), self.c
        elif how == 1:
            x, features = self.node("ReduceMean", self.x, axes=[-1, -2], keepdims=1), self.c
        elif how == 2:
            x, features = self.node("GlobalMaxPool", self.x), self.c
        else:
            x, features = self.x, self.c * self.side**2
        flat = flatten(self, x, features)
        weight = self.tensor(self.rng.standard_normal((CLASSES, features)) / np.sqrt(features))
        return self.node("Gemm", flat, weight, self.normal(CLASSES), transB=1)


STEPS = [
    Body.conv3, Body.conv_strided, Body.conv_depthwise, Body.batch_normed, Body.activation,
    Body.prelu, Body.pooled, Body.residual, Body.joined, Body.squeezed_and_excited, Body.scaled,
    Body.normed_by_layer, Body.normed_by_instance, Body.halves,
]  # fmt: skip


def flatten(m, x, features):
    return m.node("Flatten", x, axis=1)


def built(seed, steps, how=flatten, batch="N"):
    m = Body(seed)
    for step in steps:
        step(m)
    return m.model(m.ended(how), (batch, 3, SIZE, SIZE))


# ------------------------------------------------------------------------------ ways to flatten


def baked(batch, rest, allowzero):
    def how(m, x, features):
        target = m.tensor([batch, features if rest else -1], np.int64)
        return m.node("Reshape", x, target, allowzero=allowzero)

    return how


def by_shape(m, x, features):
    size = m.node("Gather", m.node("Shape", x), m.tensor(0, np.int64), axis=0)
    size = m.node("Unsqueeze", size, m.tensor([0], np.int64))
    return m.node("Reshape", x, m.node("Concat", size, m.tensor([-1], np.int64), axis=0))


def by_steps(m, x, features):
    x = m.node("Reshape", x, m.tensor([0, 0, -1], np.int64))
    x = m.node("Unsqueeze", x, m.tensor([1], np.int64))
    return m.node("Reshape", m.node("Squeeze", x, m.tensor([1], np.int64)),
                  m.tensor([-1, features], np.int64))  # fmt: skip


# ------------------------------------------------------------------- rewritings of a whole model


def with_identities(model, rng):
    """An Identity or a dropout in inference behind some values and some weights."""
    makers = {name: node.op_type for node in model.graph.node for name in node.output}
    for node in list(model.graph.node):
        i = int(rng.integers(max(len(node.input), 1)))
        if not node.input or not node.input[i] or rng.random() < 0.6:
            continue
        name = f"{node.input[i]} again {node.name}"
        of_floats = makers.get(node.input[i]) in ("Conv", "Relu", "Add", "GlobalAveragePool")
        op = "Dropout" if of_floats and rng.random() < 0.5 else "Identity"
        model.graph.node.append(helper.make_node(op, [node.input[i]], [name]))
        node.input[i] = name
    return shuffled(model, rng)


def shuffled(model, rng):
    nodes = [model.graph.node[i] for i in rng.permutation(len(model.graph.node))]
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    model.graph.ClearField("node")
    model.graph.node.extend(copies)
    del model.graph.value_info[:]
    return model


def nameless(model, rng):
    model.graph.name = ""
    for node in model.graph.node:
        node.name = ""
    return model


def with_constant_nodes(model, rng):
    for tensor in list(model.graph.initializer):
        if rng.random() < 0.5:
            node = helper.make_node("Constant", [], [tensor.name], value=tensor)
            model.graph.node.insert(0, node)
            model.graph.initializer.remove(tensor)
    return model


def of_ir3(model, rng):
    """As exporters wrote before ONNX 1.4: weights are inputs as well."""
    model.ir_version = 3
    for tensor in model.graph.initializer:
        model.graph.input.append(
            helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        )
    return model


def with_another_gemm(model, rng):
    """The last layer with its weight turned, and with factors that cancel."""
    gemm = model.graph.node[-1]
    stored = {t.name: t for t in model.graph.initializer}
    alpha, beta = 2.0 ** rng.integers(-2, 3), 2.0 ** rng.integers(-2, 3)
    weight = numpy_helper.to_array(stored[gemm.input[1]]).T / np.float32(alpha)
    bias = numpy_helper.to_array(stored[gemm.input[2]])[np.newaxis] / np.float32(beta)
    for name, values in ((gemm.input[1], weight), (gemm.input[2], bias)):
        stored[name].CopyFrom(numpy_helper.from_array(np.ascontiguousarray(values), name))
    gemm.ClearField("attribute")
    gemm.attribute.extend(
        [helper.make_attribute("alpha", float(alpha)), helper.make_attribute("beta", float(beta))]
    )
    return model


def with_matmul(model, rng):
    gemm = model.graph.node.pop()
    stored = {t.name: t for t in model.graph.initializer}
    weight = numpy_helper.to_array(stored[gemm.input[1]])
    stored[gemm.input[1]].CopyFrom(
        numpy_helper.from_array(np.ascontiguousarray(weight.T), gemm.input[1])
    )
    model.graph.node.extend([
        helper.make_node("MatMul", gemm.input[:2], ["product"]),
        helper.make_node("Add", ["product", gemm.input[2]], list(gemm.output)),
    ])  # fmt: skip
    return model


def within_if(model, rng):
    """The last node in the branch that is taken; the condition is computed from constants."""
    last = model.graph.node.pop()
    inner = onnx.NodeProto.FromString(last.SerializeToString())
    inner.output[0] = "inner"
    value = helper.make_tensor_value_info("inner", TensorProto.FLOAT, None)
    wrong = helper.make_node("Mul", ["inner", "inner"], ["squared"])
    squared = helper.make_tensor_value_info("squared", TensorProto.FLOAT, None)
    right = helper.make_graph([inner], "right", [], [value])
    false = helper.make_graph([inner, wrong], "wrong", [], [squared])
    condition = bool(rng.integers(2))
    model.graph.initializer.append(numpy_helper.from_array(np.array(not condition), "flag"))
    model.graph.node.extend([
        helper.make_node("Not", ["flag"], ["condition"]),
        helper.make_node("If", ["condition"], list(last.output), "If",
                         then_branch=right if condition else false,
                         else_branch=false if condition else right),
    ])  # fmt: skip
    return model


def of_another_opset(model, rng):
    return version_converter.convert_version(model, int(rng.choice([18, 19, 20, 21])))


REWRITINGS = [
    with_another_gemm, with_matmul, within_if, with_constant_nodes, with_identities, nameless,
    of_ir3,
]  # fmt: skip
seeds = st.integers(0, 2**32 - 1)


@settings(max_examples=40, suppress_health_check=list(HealthCheck))
@given(
    seed=seeds,
    steps=st.lists(st.sampled_from(STEPS), min_size=1, max_size=5),
    batch=st.sampled_from(["N", 1, 4]),
    how=st.sampled_from(["flatten", "baked", "by_shape", "by_steps"]),
    chosen=st.sets(st.sampled_from(REWRITINGS)),
    newer=st.booleans(),
)
def test_a_rewritten_network_is_the_same(tmp_path_factory, seed, steps, batch, how, chosen, newer):
    rng = np.random.default_rng(seed)
    number = 1 if batch == "N" else batch
    ways = {
        "flatten": flatten, "by_shape": by_shape, "by_steps": by_steps,
        "baked": baked(number, bool(rng.integers(2)), int(rng.integers(2))),
    }  # fmt: skip
    x = images(3, size=SIZE, seed=seed)
    expected = run(built(seed, steps), x)
    model = built(seed, steps, ways[how], batch)
    if newer:
        model = of_another_opset(model, rng)
    gemms = {with_another_gemm, with_matmul}
    for rewriting in [r for r in REWRITINGS if r in chosen]:
        if rewriting is with_matmul and chosen >= gemms:
            continue
        model = rewriting(model, rng)
    path = tmp_path_factory.mktemp("rewritten") / "model.onnx"
    path.write_bytes(model.SerializeToString())
    network = onnx_file.read(path)
    scale = np.ptp(expected, axis=1, keepdims=True) + 1e-6
    assert (np.abs(run(network, x) - expected) <= 1e-4 * scale).all()
    assert (np.abs(TorchClassifier(network).logits(x) - expected) <= 1e-4 * scale).all()
    try:
        page = PageRuntime(container.encode(fold_batch_norm(network)))
    except UnsupportedError:  # the C library has fewer operators, and names the one it lacks
        pass
    else:
        in_c = np.stack([page.logits(image) for image in x])
        assert (np.abs(in_c - expected) <= 1e-4 * scale).all()


@pytest.mark.parametrize("version", [11, 12, 13, 14, 16])
def test_older_operator_sets(version, tmp_path):
    m = Body(3)
    for step in (Body.conv3, Body.batch_normed, Body.prelu, Body.pooled, Body.residual):
        step(m)
    x = m.node("Softmax", m.ended(flatten), axis=1)
    model = m.model(x, ("N", 3, SIZE, SIZE), opset=version)
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    expected = run(model, images(3, size=SIZE))
    np.testing.assert_allclose(run(onnx_file.read(path), images(3, size=SIZE)), expected, atol=1e-5)


def older_spelling(op, m, x):
    """Operators whose settings were attributes once."""
    return {
        "Clip": lambda: m.node("Clip", x, min=0.0, max=6.0),
        "Squeeze": lambda: m.node("Squeeze", m.node("Unsqueeze", x, axes=[1]), axes=[1]),
        "ReduceSum": lambda: m.node("Mul", x, m.node("ReduceSum", x, axes=[1], keepdims=1)),
        "Pad": lambda: m.node("Pad", x, pads=[0, 0, 1, 1, 0, 0, 1, 1], value=0.5),
        "Slice": lambda: m.node("Slice", x, starts=[0, 1], ends=[9, 9], axes=[2, 1]),
        "Softmax": lambda: m.node("Softmax", x, axis=1),
        "BatchNormalization": lambda: m.batch_norm(x, 6),
    }[op]()


@pytest.mark.parametrize(
    "op", ["Clip", "Squeeze", "ReduceSum", "Pad", "Slice", "Softmax", "BatchNormalization"]
)
@pytest.mark.parametrize("version", [7, 9])
def test_settings_that_were_attributes_once(op, version, tmp_path):
    m = Body(5)
    m.conv3()
    x = older_spelling(op, m, m.x)
    channels = 5 if op == "Slice" else 6
    x = m.node("Flatten", m.node("GlobalAveragePool", x))
    x = m.node("Gemm", x, m.normal(channels, CLASSES), m.normal(CLASSES))
    model = m.model(x, ("N", 3, SIZE, SIZE), opset=version)
    expected = run(model, images(3, size=SIZE))
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    network = onnx_file.read(path)
    np.testing.assert_allclose(run(network, images(3, size=SIZE)), expected, atol=1e-5)
    logits = TorchClassifier(network).logits(images(3, size=SIZE))
    np.testing.assert_allclose(logits, expected, atol=1e-5)
