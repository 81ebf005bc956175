"""TensorFlow Lite files: built by their schema, computed by their own rules, and broken."""

import lzma
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tflite_models import RELU, RELU6, SAME, VALID, Builder, small

from squeezekit.data.dataset import split
from squeezekit.data.labelling import matched
from squeezekit.errors import InputError, UnsupportedError
from squeezekit.evaluation import evaluate, labelled
from squeezekit.interop import safetensors_file, tflite_file
from squeezekit.interop.weights import read
from squeezekit.runtime.classifier import from_network
from squeezekit.runtime.preprocessing import assumed
from squeezekit.sqz import container
from squeezekit.sqz.network import SharedTensor


def padded(x, kernel, stride, padding):
    """As TensorFlow pads for SAME: what is odd goes to the end."""
    if padding == VALID:
        return x
    around = [(0, 0)]
    for side in x.shape[1:3]:
        total = max((math.ceil(side / stride) - 1) * stride + kernel - side, 0)
        around.append((total // 2, total - total // 2))
    return np.pad(x, [*around, (0, 0)])


def convolved(x, weight, bias, stride, padding, depthwise=False):
    """(N, H, W, C) by (out, k, k, in), or by (1, k, k, in * m) where depthwise."""
    kernel = weight.shape[1]
    x = padded(x, kernel, stride, padding)
    sides = [(side - kernel) // stride + 1 for side in x.shape[1:3]]
    out = np.zeros((len(x), *sides, len(bias)))
    for i in range(sides[0]):
        for j in range(sides[1]):
            patch = x[:, i * stride : i * stride + kernel, j * stride : j * stride + kernel]
            if depthwise:
                times = weight.shape[3] // x.shape[3]
                out[:, i, j] = (np.repeat(patch, times, axis=3) * weight).sum((1, 2))
            else:
                out[:, i, j] = np.einsum("nhwc,ohwc->no", patch, weight)
    return out + bias


def softmax(x):
    e = np.exp(x - x.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def written(tmp_path, data):
    path = tmp_path / "net.tflite"
    path.write_bytes(data)
    return path


def probabilities(network, images):
    return from_network(network).probabilities(np.moveaxis(images, 3, 1).astype(np.float32))


@pytest.mark.parametrize("padding", [SAME, VALID])
@pytest.mark.parametrize(("size", "stride", "kernel"), [(8, 1, 3), (8, 2, 3), (9, 2, 3), (9, 2, 4)])
def test_convolutions_pad_as_tensorflow_does(tmp_path, padding, size, stride, kernel):
    random = np.random.default_rng(0)
    b = Builder(size)
    w1 = random.normal(size=(4, kernel, kernel, 3)).astype(np.float32)
    w2 = random.normal(size=(1, kernel, kernel, 8)).astype(np.float32)
    bias1, bias2 = random.normal(size=(2, 8)).astype(np.float32)
    bias1 = bias1[:4]
    x = b.conv(
        b.image, b.tensor((), values=w1), b.tensor((), values=bias1), stride=stride,
        padding=padding, act=RELU6,
    )  # fmt: skip
    x = b.conv(x, b.tensor((), values=w2), b.tensor((), values=bias2), act=RELU, depthwise=True)
    end, fc = b.head(x, 5, random)
    images = random.normal(size=(3, size, size, 3))
    y = np.clip(convolved(images, w1, bias1, stride, padding), 0, 6)
    y = np.maximum(convolved(y, w2, bias2, 1, SAME, depthwise=True), 0)
    network = tflite_file.read(written(tmp_path, b.finish(end)))
    bias = network.values()["fc2.bias"]
    right = softmax(y.mean((1, 2)) @ fc.T + bias)
    np.testing.assert_allclose(probabilities(network, images), right, atol=1e-5)
    assert assumed(network.metadata)


@pytest.mark.parametrize("kind", ["uint8", "int8"])
def test_quantised_weights_are_exact_and_shared(tmp_path, kind):
    """A weight q is scale * (q - zero), one scale a filter; a bias likewise."""
    random = np.random.default_rng(1)
    info = np.iinfo(kind)
    zero_of_image = 128 + info.min
    b = Builder(8, kind=kind, quantised=([1 / 128], [zero_of_image]))
    q = random.integers(info.min, info.max + 1, (6, 3, 3, 3)).astype(kind)
    scales, zeros = random.uniform(0.01, 0.1, 6), random.integers(info.min, info.max, 6)
    weight = b.tensor((), values=q, quantised=(scales, zeros))
    whole = random.integers(-1000, 1000, 6).astype(np.int32)
    bias = b.tensor((), values=whole, quantised=(scales * 0.01, np.zeros(6)))
    end, _ = b.head(b.conv(b.image, weight, bias, act=RELU6), 5, random)
    network = tflite_file.read(written(tmp_path, b.finish(end)))
    s = scales.astype(np.float32).reshape(6, 1, 1, 1)
    exact = s * (q.astype(np.float32) - zeros.astype(np.float32).reshape(6, 1, 1, 1))
    np.testing.assert_array_equal(network.values()["conv0.weight"], exact.transpose(0, 3, 1, 2))
    small = (scales * 0.01).astype(np.float32) * whole
    np.testing.assert_array_equal(network.values()["conv0.bias"], small.astype(np.float32))
    # The pixel 0 is the smallest number that goes in, and stands for -1 here.
    p = network.metadata.preprocessing
    assert (p.scale, p.mean, p.std) == (1 / 128, (1.0,) * 3, (1.0,) * 3)
    assert not assumed(network.metadata)


def test_one_scale_for_a_large_tensor_is_a_table(tmp_path):
    random = np.random.default_rng(2)
    b = Builder(8)
    q = random.integers(0, 256, (256, 3, 3, 3)).astype(np.uint8)
    weight = b.tensor((), values=q, quantised=([0.02], [120]))
    bias = b.tensor((), values=np.zeros(256, np.float32))
    end, _ = b.head(b.conv(b.image, weight, bias, act=RELU), 5, random)
    tensor = tflite_file.read(written(tmp_path, b.finish(end))).tensors["conv0.weight"]
    assert isinstance(tensor, SharedTensor)
    assert len(tensor.centroids) == len(np.unique(q))


def test_rows_are_in_the_order_of_pixels(tmp_path):
    """A flattened image is (H, W, C) there, whatever it is here."""
    random = np.random.default_rng(3)
    b = Builder(4)
    x = b.add("RESHAPE", [b.image, b.tensor((), values=np.array([1, 48], np.int32))], (1, 48))
    weight = random.normal(size=(5, 48)).astype(np.float32)
    bias = np.zeros(5, np.float32)
    inputs = [x, b.tensor((), values=weight), b.tensor((), values=bias)]
    x = b.add("FULLY_CONNECTED", inputs, (1, 5), "FullyConnectedOptions")
    end = b.add("SOFTMAX", [x], (1, 5), "SoftmaxOptions", Beta=1.0)
    images = random.normal(size=(3, 4, 4, 3))
    network = tflite_file.read(written(tmp_path, b.finish(end)))
    right = softmax(images.reshape(3, 48) @ weight.T)
    np.testing.assert_allclose(probabilities(network, images), right, atol=1e-5)


def test_branches_means_and_constants(tmp_path):
    random = np.random.default_rng(4)
    b = Builder(6)
    half = b.tensor((), values=np.array([2.0, 3.0, 4.0], np.float32))
    scaled = b.add("MUL", [b.image, half], (1, 6, 6, 3), "MulOptions")
    both = b.add("CONCATENATION", [scaled, b.image], (1, 6, 6, 6), "ConcatenationOptions", Axis=3)
    twice = b.add("ADD", [both, both], (1, 6, 6, 6), "AddOptions", FusedActivationFunction=RELU)
    axes = b.tensor((), values=np.array([1, 2], np.int32))
    x = b.add("MEAN", [twice, axes], (1, 6), "ReducerOptions", KeepDims=False)
    weight = random.normal(size=(5, 6)).astype(np.float32)
    inputs = [x, b.tensor((), values=weight), -1]
    end = b.add("FULLY_CONNECTED", inputs, (1, 5), "FullyConnectedOptions")
    images = random.normal(size=(3, 6, 6, 3))
    network = tflite_file.read(written(tmp_path, b.finish(end)))
    joined = np.concatenate([images * np.array([2, 3, 4]), images], axis=3)
    logits = np.maximum(2 * joined, 0).mean((1, 2)) @ weight.T
    found = from_network(network).logits(np.moveaxis(images, 3, 1).astype(np.float32))
    np.testing.assert_allclose(found, logits, atol=1e-4)


# -------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda b: b.add("L2_NORMALIZATION", [b.image], (1, 6, 6, 3)), "L2_NORMALIZATION"),
        (lambda b: b.add("ARG_MAX", [b.image], (1, 3)), "ARG_MAX"),
        (lambda b: b.add("WHILE", [b.image], (1, 3)), "WHILE"),
        (lambda b: b.add("CUSTOM", [b.image], (1, 3)), "custom operator"),
        (lambda b: b.add("RESHAPE", [b.image], (1, 2, 54)), "RESHAPE from"),
        (lambda b: b.image, "no classifier|exactly one input"),
    ],
)
def test_what_is_not_supported_is_named(tmp_path, make, reason):
    b = Builder(6)
    path = written(tmp_path, b.finish(make(b)))
    with pytest.raises((InputError, UnsupportedError), match=reason) as refused:
        read(path)
    assert str(path) in str(refused.value)


def test_other_files_and_cut_ones(tmp_path):
    whole = small()
    for data in (b"no model at all", b"\0" * 100, b"\0\0\0\0TFL3", whole[:20], whole[:-40]):
        with pytest.raises((InputError, UnsupportedError), match=r"net\.tflite"):
            read(written(tmp_path, data))


@settings(max_examples=25)
@given(data=st.data())
def test_damaged_files_are_read_or_refused(tmp_path_factory, data):
    whole = bytearray(small())
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(8, len(whole) - 1))
        whole[place] = data.draw(st.integers(0, 255))
    path = written(tmp_path_factory.mktemp("damaged"), bytes(whole))
    try:
        tflite_file.read(path)
    except (InputError, UnsupportedError) as error:
        assert "net.tflite" in str(error)  # noqa: PT017
        assert "\n" not in str(error)  # noqa: PT017


# -------------------------------------------------------------------------------------- the real


@pytest.mark.parametrize("name", ["mobilenet_v1_0.25_128_quant", "mobilenet_v1_0.5_160_quant"])
def test_the_real_mobilenets(shared_data, name):
    """Against their weights as another reader gave them, without the background."""
    network = tflite_file.read(shared_data / "networks" / f"{name}.tflite")
    other = safetensors_file.read(shared_data / "networks" / f"{name}.safetensors").values()
    values = network.values()
    assert values.keys() == other.keys()
    for tensor, theirs in other.items():
        ours = values[tensor][1:] if len(values[tensor]) == 1001 else values[tensor]
        np.testing.assert_array_equal(ours, theirs)


def test_the_real_accuracy(shared_data):
    """44.8 top-1 and 70.6 top-5, as the issue of these networks has measured them."""
    network = tflite_file.read(shared_data / "networks" / "mobilenet_v1_0.25_128_quant.tflite")
    images = split(shared_data / "imagenet-500", "all")
    classifier = from_network(network)
    metadata = labelled(classifier, data=shared_data / "imagenet-500", images=images)
    assert metadata.labels[0] == "background"
    found = evaluate(classifier, matched(images, metadata))
    assert (round(found.top1, 1), round(found.top5, 1)) == (44.8, 70.6)


@pytest.mark.parametrize(("name", "most"), [("0.25_128", 373_000), ("0.5_160", 963_500)])
def test_quantised_networks_are_stored_as_grids(shared_data, name, most):
    """Every weight and bias is a whole number times a scale, and smaller than in xz's .tflite.

    Both files hold the names of the 1,001 classes.
    """
    path = shared_data / "networks" / f"mobilenet_v1_{name}_quant.tflite"
    network = read(path)
    data = container.encode(network)
    assert {record.coder for record in container.read_head(data).records} == {"entropy-grid"}
    assert len(data) < most
    assert len(data) < 0.98 * len(lzma.compress(path.read_bytes(), preset=9 | lzma.PRESET_EXTREME))
    back = container.decode(data)
    for key, values in network.values().items():
        assert np.array_equal(values.view(np.uint32), back.values()[key].view(np.uint32))
