"""Graphs in torch: the same answers as ONNX Runtime, and weights that change as they may."""

import dataclasses

import numpy as np
import onnx
import pytest
import torch
from foreign import Maker, images, made, mobilenet, resnet, run, view_flatten
from hypothesis import assume, given
from hypothesis import strategies as st
from onnx import helper
from torch.nn import functional as F

from squeezekit.errors import UnsupportedError
from squeezekit.models.catalogue import MODELS
from squeezekit.models.squeezenet import SqueezeNetConfig, squeezenet
from squeezekit.sqz.graph import split
from squeezekit.sqz.network import Metadata, Network, Preprocessing, SharedTensor
from squeezekit.trainable.network import TorchClassifier, TrainableNetwork
from squeezekit.trainable.weights import Free, Masked, Shared


def imported(model, output="logits"):
    """A Network from an ONNX model, without the tidying that reading a file does."""
    graph, tensors = split(model)
    return Network(graph, tensors, Metadata("test", Preprocessing(32, 32), output=output))


def small(**changes):
    """A SqueezeNet of two fire modules for 12 x 12 images."""
    config = SqueezeNetConfig(
        classes=5, input_size=12, conv1_filters=8, conv1_kernel=3, conv1_stride=1, fires=2,
        pool_after=("conv1",), base_e=16, incr_e=0,
    )  # fmt: skip
    return squeezenet(dataclasses.replace(config, **changes), seed=1)


def assert_agrees(model, x, atol=1e-5):
    network = imported(model)
    np.testing.assert_allclose(TorchClassifier(network).logits(x), run(model, x), atol=atol)


# ------------------------------------------------------------------------- against ONNX Runtime


@pytest.mark.parametrize("name", MODELS)
def test_every_model(name):
    network = made(name)
    preprocessing = network.metadata.preprocessing
    x = images(2, preprocessing.channels, preprocessing.crop)
    expected = run(network, x)
    np.testing.assert_allclose(
        TorchClassifier(network).logits(x), expected, atol=1e-5 * np.abs(expected).max()
    )


@pytest.mark.parametrize("make", [resnet, mobilenet, view_flatten])
def test_foreign_networks(make):
    count = 1 if make is view_flatten else 3  # exported for a batch of one
    assert_agrees(make(), images(count), atol=1e-4)


def test_published_network(shared_data):
    from squeezekit.interop import han

    network = han.read(shared_data / "han-2016" / "compressed_SqueezeNet.net")
    x = 60 * images(2, 3, 227)
    expected = run(network, x)
    np.testing.assert_allclose(
        TorchClassifier(network).logits(x), expected, atol=1e-5 * np.abs(expected).max()
    )


sizes = st.integers(1, 3)
pads = st.lists(st.integers(0, 2), min_size=4, max_size=4)


@given(
    kernel=st.tuples(sizes, sizes), stride=st.tuples(sizes, sizes), pad=pads,
    dilation=st.tuples(sizes, sizes), group=st.sampled_from([1, 2, 4]),
    auto=st.sampled_from(["NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"]),
    height=st.integers(7, 12), width=st.integers(7, 12),
)  # fmt: skip
def test_convolutions(kernel, stride, pad, dilation, group, auto, height, width):
    assume(auto == "NOTSET" or dilation == (1, 1))  # ONNX Runtime refuses SAME with dilations
    m = Maker()
    padding = {"pads": pad} if auto == "NOTSET" else {"auto_pad": auto}
    y = m.conv(
        "input", (8, 4 // group, *kernel), strides=stride, dilations=dilation, group=group,
        **padding,
    )  # fmt: skip
    x = images(2, 4, 12)[:, :, :height, :width]
    assert_agrees(m.model(y, ("N", 4, height, width)), x)


@given(
    op=st.sampled_from(["MaxPool", "AveragePool"]), kernel=st.tuples(sizes, sizes),
    stride=st.tuples(sizes, sizes), pad=pads, dilation=st.tuples(sizes, sizes),
    ceil=st.integers(0, 1), include_pad=st.integers(0, 1),
    auto=st.sampled_from(["NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"]),
    height=st.integers(7, 12), width=st.integers(7, 12),
)  # fmt: skip
def test_pools(op, kernel, stride, pad, dilation, ceil, include_pad, auto, height, width):
    # ONNX Runtime cannot crop, as SAME would where the stride is longer than the window.
    assume(auto == "NOTSET" or all(k >= s for k, s in zip(kernel, stride, strict=True)))
    # A window must not lie in the padding alone.
    pad = [min(p, k - 1) for p, k in zip(pad, kernel * 2, strict=True)]
    attributes = {"kernel_shape": kernel, "strides": stride}
    if auto == "NOTSET":
        attributes |= {"pads": pad, "ceil_mode": ceil}
    else:
        attributes["auto_pad"] = auto
    if op == "AveragePool":
        attributes["count_include_pad"] = include_pad
    elif auto == "NOTSET":
        attributes["dilations"] = dilation
    m = Maker()
    model = m.model(m.node(op, "input", **attributes), ("N", 2, height, width))
    assert_agrees(model, images(2, 2, 12)[:, :, :height, :width])


OPERATORS = {
    "lrn": lambda m, x: m.node("LRN", x, size=5, alpha=1e-1, beta=0.75, bias=2.0),
    "leaky": lambda m, x: m.node("LeakyRelu", x, alpha=0.3),
    "elu": lambda m, x: m.node("Elu", x, alpha=0.7),
    "prelu": lambda m, x: m.node("PRelu", x, m.tensor(np.linspace(0, 1, 4).reshape(4, 1, 1))),
    "hard sigmoid": lambda m, x: m.node("HardSigmoid", x),
    "softplus": lambda m, x: m.node("Softplus", x),
    "tanh": lambda m, x: m.node("Tanh", x),
    "erf": lambda m, x: m.node("Erf", x),
    "swish": lambda m, x: m.node("Mul", x, m.node("Sigmoid", x)),
    "power": lambda m, x: m.node("Sqrt", m.node("Pow", x, m.tensor(2.0))),
    "arithmetic": lambda m, x: m.node("Sub", m.node("Neg", x), m.node("Div", x, m.tensor(3.0))),
    "sum": lambda m, x: m.node("Sum", x, m.node("Exp", x), x),
    "clip below": lambda m, x: m.node("Clip", x, m.tensor(-0.5)),
    "clip above": lambda m, x: m.node("Clip", x, "", m.tensor(0.5)),
    "global max": lambda m, x: m.node("GlobalMaxPool", x),
    "mean": lambda m, x: m.node("ReduceMean", x, axes=[-1], keepdims=0),
    "max": lambda m, x: m.node("ReduceMax", x, axes=[1]),
    "sum over axes": lambda m, x: m.node("ReduceSum", x, m.tensor([2, 3], np.int64)),
    "transpose": lambda m, x: m.node("Transpose", x, perm=[0, 2, 3, 1]),
    "flatten": lambda m, x: m.node("Flatten", x, axis=-3),
    "reshape": lambda m, x: m.node("Reshape", x, m.tensor([0, 2, -1], np.int64)),
    "squeeze": lambda m, x: m.node(
        "Squeeze", m.node("GlobalAveragePool", x), m.tensor([-1, 2], np.int64)
    ),
    "unsqueeze": lambda m, x: m.node("Unsqueeze", x, m.tensor([-1, 1], np.int64)),
    "softmax": lambda m, x: m.node("Softmax", x, axis=1),
    "log softmax": lambda m, x: m.node("LogSoftmax", x, axis=1),
    "slice": lambda m, x: m.node(
        "Slice", x, *(m.tensor(v, np.int64) for v in ([1, -4], [99, -1], [1, 3], [2, 1]))
    ),
    "gather": lambda m, x: m.node("Gather", x, m.tensor([[0, -1]], np.int64), axis=1),
    "cast": lambda m, x: m.node("Cast", x, to=onnx.TensorProto.FLOAT),
    "reflect": lambda m, x: m.node(
        "Pad", x, m.tensor([0, 0, 1, 2, 0, 0, 2, 1], np.int64), mode="reflect"
    ),
    "edge": lambda m, x: m.node(
        "Pad", x, m.tensor([0, 0, 1, 2, 0, 0, 2, 1], np.int64), mode="edge"
    ),
    "pad channels": lambda m, x: m.node(
        "Pad", x, m.tensor([0, 1, 0, 2, 0, 3, 2, 1], np.int64), m.tensor(0.5)
    ),
    "gemm": lambda m, x: m.node(
        "Gemm", m.node("Flatten", x), m.tensor(np.eye(100, 3)), m.tensor([[1, 2, 3]]),
        alpha=0.5, beta=2.0,
    ),
    "matmul": lambda m, x: m.node("MatMul", x, m.tensor(np.ones((5, 2)))),
    "shape": lambda m, x: m.node(
        "Reshape", x,
        m.node("Concat", m.node("Shape", x, start=0, end=2), m.tensor([-1], np.int64), axis=0),
    ),
}  # fmt: skip


@pytest.mark.parametrize("operator", OPERATORS)
def test_operators(operator):
    m = Maker()
    model = m.model(OPERATORS[operator](m, m.node("Identity", "input")), ("N", 4, 5, 5))
    assert_agrees(model, images(2, 4, 5))


@pytest.mark.parametrize("sizes", [None, [1, 3]])
def test_split(sizes):
    m = Maker()
    m.node("Split", "input", *([] if sizes is None else [m.tensor(sizes, np.int64)]), axis=1)
    m.nodes[0].output[:] = ["first", "second"]
    model = m.model(m.node("Concat", "second", "first", axis=1), ("N", 4, 5, 5))
    assert_agrees(model, images(2, 4, 5))


@pytest.mark.parametrize(
    ("opset", "op", "attributes"),
    [
        (9, "Clip", {"min": -0.5, "max": 0.5}),
        (9, "Squeeze", {"axes": [3]}),
        (9, "Unsqueeze", {"axes": [4, 1]}),
        (9, "Pad", {"pads": [0, 0, 1, 0, 0, 0, 1, 0], "value": 2.0}),
        (9, "Slice", {"starts": [1], "ends": [3], "axes": [1]}),
        (11, "Softmax", {"axis": 1}),
        (11, "ReduceSum", {"axes": [1]}),
        (9, "Dropout", {"ratio": 0.5}),
    ],
)
def test_older_operator_sets(opset, op, attributes):
    m = Maker()
    x = m.node("MaxPool", "input", kernel_shape=[1, 5], strides=[1, 5])
    assert_agrees(m.model(m.node(op, x, **attributes), ("N", 4, 5, 5), opset), images(2, 4, 5))


# -------------------------------------------------------------------------------- what it refuses


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda m: m.node("Resize", "input", "", m.tensor([1, 1, 2, 2])), "Resize"),
        (lambda m: m.node("Add", "input", "Top_indices"), "more than one output"),
    ],
)
def test_unsupported_operators_are_named(model, message):
    m = Maker()
    m.node("Identity", "input")
    output = model(m)
    m.nodes[0].output.append("Top_indices")
    graph = helper.make_graph(
        m.nodes, "g",
        [helper.make_tensor_value_info("input", 1, ["N", 3, 8, 8])],
        [helper.make_tensor_value_info(output, 1, None)], m.initializers,
    )  # fmt: skip
    with pytest.raises(UnsupportedError, match=message):
        TrainableNetwork(imported(helper.make_model(graph)))


def test_one_dimensional_kernels_are_refused():
    m = Maker()
    x = m.node("Reshape", "input", m.tensor([0, 3, -1], np.int64))
    net = TrainableNetwork(imported(m.model(m.conv(x, (4, 3, 3)))))
    with pytest.raises(UnsupportedError, match="1-dimensional"):
        net(torch.zeros(1, 3, 32, 32))


# --------------------------------------------------------------------------------------- weights


def test_probabilities_become_logits():
    with_softmax = imported(resnet(softmax=True), output="probabilities")
    classifier = TorchClassifier(with_softmax)
    assert classifier.metadata.output == "logits"
    x = images(2)
    logits = classifier.logits(x)
    np.testing.assert_allclose(logits, run(resnet(), x), atol=1e-4)
    np.testing.assert_allclose(torch.tensor(logits).softmax(1), run(with_softmax, x), atol=1e-5)
    assert TrainableNetwork(with_softmax).to_network().metadata.output == "probabilities"


@pytest.mark.parametrize("make", [resnet, mobilenet])
def test_what_trains_and_what_does_not(make):
    network = imported(make())
    net = TrainableNetwork(network)
    weights = net.weight_names()
    assert all(network.tensors[name].ndim >= 2 for name in weights)
    convolutions = sum(n.op_type in ("Conv", "Gemm", "MatMul") for n in make().graph.node)
    assert len(weights) == convolutions
    trained = {name for name, weight in net.weights.items() if isinstance(weight, Free)}
    fixed = set(network.tensors) - trained
    statistics = {i for n in make().graph.node if "Norm" in n.op_type for i in n.input[3:]}
    constants = {name for name in network.tensors if network.tensors[name].size == 1}
    assert fixed == statistics | constants
    assert set(weights) <= trained


def test_to_network_gives_back_what_came_in():
    network = small(batch_norm=True)
    back = TrainableNetwork(network).to_network()
    assert back.graph == network.graph
    assert back.metadata == network.metadata
    assert list(back.tensors) == list(network.tensors)
    for name, tensor in network.tensors.items():
        assert np.array_equal(back.tensors[name], tensor)


def test_training_changes_the_network_and_its_statistics():
    network = small(batch_norm=True, final_relu=False)
    net = TrainableNetwork(network).train()
    optimizer = torch.optim.Adam(net.parameters(), 0.01)
    x, y = torch.tensor(images(16, 3, 12)), torch.arange(16) % 5
    losses = []
    for _ in range(30):
        loss = F.cross_entropy(net(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]
    trained = net.to_network()
    for name in (
        "conv1.weight",
        "conv1.bn.scale",
        "conv1.bn.bias",
        "conv1.bn.mean",
        "conv1.bn.var",
    ):
        assert not np.array_equal(trained.tensors[name], network.tensors[name]), name
    x = images(2, 3, 12)
    np.testing.assert_allclose(TorchClassifier(net).logits(x), run(trained, x), atol=1e-5)
    assert net.training  # as before


def test_running_statistics_are_those_of_torch():
    """ONNX's momentum is the share that stays; torch's is the share that is replaced."""
    m = Maker()
    model = m.model(m.batch_norm("input", 4), ("N", 4, 5, 5))
    network = imported(model)
    *_, mean, var = network.tensors.values()
    net = TrainableNetwork(network).train()
    reference = torch.nn.BatchNorm2d(4)
    reference.running_mean, reference.running_var = torch.tensor(mean), torch.tensor(var)
    x = torch.tensor(images(3, 4, 5))
    net(x)
    reference(x)
    *_, mean, var = net.to_network().tensors.values()
    np.testing.assert_allclose(mean, reference.running_mean, rtol=1e-6)
    np.testing.assert_allclose(var, reference.running_var, rtol=1e-6)


def test_dropout_only_in_training():
    net = TrainableNetwork(small(dropout=0.9, final_relu=False))
    x = torch.tensor(images(2, 3, 12))
    torch.manual_seed(0)
    assert torch.equal(net.eval()(x), net(x))
    assert not torch.equal(net.train()(x), net(x))


def test_masked_weights_stay_zero():
    rng = np.random.default_rng(0)
    values = rng.standard_normal((4, 3, 3, 3)).astype(np.float32)
    mask = rng.random(values.shape) < 0.3
    weight = Masked(values, mask)
    out = weight()
    (out**2).sum().backward()
    assert np.array_equal(weight.values.grad, np.where(mask, 2 * values, 0))
    optimizer = torch.optim.AdamW(weight.parameters(), 0.1, weight_decay=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        weight().square().sum().backward()
        optimizer.step()
    stored = weight.to_tensor()
    assert not stored[~mask].any()
    assert not np.signbit(stored[~mask]).any()
    assert np.all(stored[mask] != values[mask])
    with pytest.raises(ValueError, match="mask"):
        Masked(values, mask[:2])


@given(st.data())
def test_a_centroids_gradient_is_the_sum_over_its_members(data):
    """Han et al. 2016, section 3.3."""
    count = data.draw(st.integers(2, 9))
    zero = data.draw(st.integers(0, count - 1))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    centroids = np.sort(rng.standard_normal(count)).astype(np.float32)
    centroids[zero] = 0.0
    index = rng.integers(0, count, (5, 2, 3, 3))
    weight = Shared((index - zero).astype(np.int32), centroids, zero)
    assert np.array_equal(weight().detach().numpy(), centroids[index])
    slope = rng.standard_normal(index.shape).astype(np.float32)
    (weight() * torch.tensor(slope)).sum().backward()
    expected = [0.0 if k == zero else slope[index == k].sum() for k in range(count)]
    np.testing.assert_allclose(weight.centroids.grad, expected, atol=1e-5)


def test_the_zero_level_stays_zero():
    tensor = SharedTensor.from_values(np.array([[-1, 0, 2], [2, 0, 3]], np.float32))
    weight = Shared.of(tensor)
    optimizer = torch.optim.SGD(weight.parameters(), 0.1, momentum=0.9, weight_decay=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        weight().sum().backward()
        optimizer.step()
    stored = weight.to_tensor()
    assert np.array_equal(stored.values() == 0, tensor.values() == 0)
    assert np.array_equal(stored.levels, tensor.levels)
    assert not np.any(
        stored.values()[tensor.values() != 0] == tensor.values()[tensor.values() != 0]
    )


@given(st.data())
def test_shared_weights_are_stored_sorted(data):
    """Centroids may cross each other, the zero, or meet while they train."""
    numbers = st.sampled_from([-2.0, -1.0, -0.0, 0.0, 0.5, 1.0, 3.0])
    moved = np.array(data.draw(st.lists(numbers, min_size=1, max_size=8)), np.float32)
    zero = data.draw(st.integers(0, len(moved) - 1))
    moved[zero] = 0.0
    index = np.random.default_rng(0).integers(0, len(moved), (6, 5)).astype(np.int32)
    weight = Shared(index - np.int32(zero), moved, zero)
    stored = weight.to_tensor()  # SharedTensor checks its own invariants
    assert np.array_equal(stored.values(), moved[index])
    assert len(stored.centroids) <= len(moved)


def test_shared_networks_train_their_centroids():
    network = small()
    name = "fire3.expand3x3.weight"
    rng = np.random.default_rng(0)
    levels = rng.integers(-2, 3, network.tensors[name].shape).astype(np.int32)
    shared = SharedTensor(levels, np.array([-0.3, -0.1, 0, 0.1, 0.3], np.float32), 2)
    network = network.with_tensors({name: shared})
    x = images(2, 3, 12)
    net = TrainableNetwork(network)
    np.testing.assert_allclose(TorchClassifier(net).logits(x), run(network, x), atol=1e-5)
    net(torch.tensor(x)).square().sum().backward()
    with torch.no_grad():
        net.weights[name].centroids -= 0.01 * net.weights[name].centroids.grad
    stored = net.to_network().tensors[name]
    assert isinstance(stored, SharedTensor)
    assert np.array_equal(stored.levels, levels)
    assert not np.array_equal(stored.centroids, shared.centroids)


def test_set_weight():
    network = small()
    net = TrainableNetwork(network)
    values = network.values()["conv1.weight"]
    net.set_weight("conv1.weight", Masked(values, values > 0))
    assert len(list(net.parameters())) == len(network.tensors)
    assert np.array_equal(net.to_network().tensors["conv1.weight"], values.clip(0))
    with pytest.raises(KeyError):
        net.set_weight("conv2.weight", Free(values))
    with pytest.raises(ValueError, match="shape"):
        net.set_weight("conv1.weight", Free(values[:1]))


def test_weight_names_are_those_of_the_paper():
    names = TrainableNetwork(small()).weight_names()
    assert names[:3] == ["conv1.weight", "fire2.squeeze1x1.weight", "fire2.expand1x1.weight"]
    assert len(names) == 8


def test_state_dicts_fit_networks_of_the_same_kind():
    one, other = TrainableNetwork(small()), TrainableNetwork(small(dropout=0.0))
    with torch.no_grad():
        for parameter in one.parameters():
            parameter += 1.0
    other.load_state_dict(one.state_dict())
    assert all(
        np.array_equal(tensor, other.to_network().tensors[name])
        for name, tensor in one.to_network().tensors.items()
    )
