"""ONNX models as other programs make them, and ONNX Runtime as the one to agree with."""

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from squeezekit.models.alexnet import AlexNetConfig, alexnet
from squeezekit.models.catalogue import create
from squeezekit.sqz.graph import attach


def run(model, images):
    """The first output of a model (ModelProto, bytes or Network) for images, flattened."""
    if hasattr(model, "graph") and hasattr(model, "tensors"):
        model = attach(model.graph, model.values())
    if isinstance(model, onnx.ModelProto):
        model = model.SerializeToString()
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    output = session.run(None, {session.get_inputs()[0].name: images})[0]
    return output.reshape(len(images), -1)


def images(count=2, channels=3, size=32, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((count, channels, size, size), np.float32)


def made(name, classes=7):
    """A network of the catalogue, AlexNet with fewer weights than most of a second's work."""
    if name == "alexnet":
        return alexnet(AlexNetConfig(classes=classes, hidden=64))
    return create(name, classes=classes)


class Maker:
    """Writes nodes down one after the other, as an exporter does."""

    def __init__(self, seed=0):
        self.rng = np.random.default_rng(seed)
        self.nodes = []
        self.initializers = []

    def tensor(self, values, dtype=np.float32):
        name = f"onnx::T_{len(self.initializers)}"
        self.initializers.append(numpy_helper.from_array(np.asarray(values, dtype), name))
        return name

    def node(self, op, *inputs, **attributes):
        output = f"/{op}_{len(self.nodes)}_output_0"
        self.nodes.append(
            helper.make_node(op, inputs, [output], f"/{op}_{len(self.nodes)}", **attributes)
        )
        return output

    def conv(self, x, shape, bias=True, **attributes):
        fan_in = np.prod(shape[1:])
        weight = self.tensor(self.rng.standard_normal(shape) / np.sqrt(fan_in))
        biases = [self.tensor(self.rng.standard_normal(shape[0]) * 0.1)] if bias else []
        return self.node("Conv", x, weight, *biases, **attributes)

    def batch_norm(self, x, channels):
        uniform = [self.rng.uniform(0.5, 1.5, channels) for _ in range(4)]
        return self.node("BatchNormalization", x, *[self.tensor(v) for v in uniform])

    def model(self, output, shape=("N", 3, 32, 32), opset=17, outputs=(), name="input"):
        graph = helper.make_graph(
            self.nodes,
            "foreign",
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info(o, TensorProto.FLOAT, None) for o in (output, *outputs)],
            self.initializers,
        )
        opsets = [helper.make_opsetid("", opset)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
        return onnx.shape_inference.infer_shapes(model, data_prop=True)


def resnet(batch="N", softmax=False):
    """Residual blocks with batch norm, a padded max-pool, and a fully connected layer."""
    m = Maker()
    x = m.conv("input", (16, 3, 7, 7), bias=False, strides=[2, 2], pads=[3, 3, 3, 3])
    x = m.node("Relu", m.batch_norm(x, 16))
    x = m.node("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    for channels, stride in ((16, 1), (24, 2)):
        y = m.conv(x, (channels, 16, 3, 3), bias=False, strides=[stride, stride], pads=[1] * 4)
        y = m.node("Relu", m.batch_norm(y, channels))
        y = m.conv(y, (channels, channels, 3, 3), bias=False, pads=[1] * 4)
        y = m.batch_norm(y, channels)
        if stride > 1:
            x = m.conv(x, (channels, 16, 1, 1), bias=False, strides=[stride, stride])
            x = m.batch_norm(x, channels)
        x = m.node("Relu", m.node("Add", y, x))
    x = m.node("GlobalAveragePool", x)
    x = m.node("Flatten", x, axis=1)
    x = m.node(
        "Gemm", x, m.tensor(m.rng.standard_normal((10, 24))), m.tensor(np.ones(10)), transB=1
    )
    if softmax:
        x = m.node("Softmax", x, axis=1)
    return m.model(x, (batch, 3, 32, 32))


def mobilenet(opset=17):
    """Depthwise convolutions, ReLU6, hard swish in both spellings, and squeeze-and-excitation."""
    m = Maker(1)
    x = m.conv("input", (8, 3, 3, 3), strides=[2, 2], auto_pad="SAME_UPPER")
    six = [m.tensor(0.0), m.tensor(6.0)]
    x = m.node("Clip", x, *six)
    x = m.conv(x, (8, 1, 3, 3), group=8, pads=[0, 0, 1, 1], strides=[2, 2])
    x = m.node("HardSwish", x)
    x = m.conv(x, (16, 8, 1, 1))
    # x * relu6(x + 3) / 6, as older exporters write it
    gate = m.node("Clip", m.node("Add", x, m.tensor([3.0])), *six)
    x = m.node("Div", m.node("Mul", x, gate), m.tensor([6.0]))
    s = m.node("ReduceMean", x, axes=[2, 3], keepdims=1)
    s = m.node("Relu", m.conv(s, (4, 16, 1, 1)))
    s = m.node("HardSigmoid", m.conv(s, (16, 4, 1, 1)), alpha=1 / 6, beta=0.5)
    x = m.node("Mul", x, s)
    s = m.node("Sigmoid", m.conv(m.node("GlobalAveragePool", x), (16, 16, 1, 1)))
    x = m.node("Mul", x, s)
    x = m.node("Pad", x, m.tensor([0, 0, 1, 0, 0, 0, 0, 1], np.int64), m.tensor(0.5))
    x = m.node("AveragePool", x, kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1)
    x = m.node("ReduceMean", x, axes=[2, 3], keepdims=0)
    x = m.node("MatMul", x, m.tensor(m.rng.standard_normal((16, 7))))
    x = m.node("Add", x, m.tensor(m.rng.standard_normal(7)))
    return m.model(x, opset=opset)


def view_flatten():
    """A flatten as torch exports `x.view(x.size(0), -1)`, with Constant nodes; batch of one."""
    m = Maker(2)
    x = m.conv("input", (4, 3, 5, 5), strides=[3, 3])
    shape = m.node("Shape", x)
    zero = m.node("Constant", value=numpy_helper.from_array(np.array(0)))
    batch = m.node("Gather", shape, zero, axis=0)
    batch = m.node("Unsqueeze", batch, m.node("Constant", value_ints=[0]))
    rest = m.node("Constant", value=numpy_helper.from_array(np.array([-1])))
    x = m.node("Reshape", x, m.node("Concat", batch, rest, axis=0))
    weight = numpy_helper.from_array(m.rng.standard_normal((400, 5)).astype(np.float32))
    x = m.node("Gemm", x, m.node("Constant", value=weight))
    return m.model(x, (1, 3, 32, 32))
