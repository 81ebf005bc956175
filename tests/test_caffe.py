"""Caffe's files: written here as Caffe writes them, read back, and broken in many ways."""

import dataclasses
from contextlib import suppress

import numpy as np
import pytest
from caffe_models import add_blob, caffe_net, small, write
from google.protobuf import text_format
from hypothesis import given
from hypothesis import strategies as st

from squeezekit.errors import InputError, SqueezekitError, UnsupportedError
from squeezekit.interop import caffe, han
from squeezekit.interop.caffe_schema import BlobProto, NetParameter
from squeezekit.interop.weights import load_network
from squeezekit.models.alexnet import AlexNetConfig, alexnet
from squeezekit.models.builder import GraphBuilder
from squeezekit.models.catalogue import create
from squeezekit.models.fold import fold_batch_norm
from squeezekit.runtime.classifier import from_network
from squeezekit.runtime.images import default_preprocessing
from squeezekit.runtime.preprocessing import assumed
from squeezekit.sqz.network import CAFFE, Metadata
from squeezekit.trainable.network import TorchClassifier


def images(size, count=2, channels=3):
    return np.random.default_rng(0).normal(size=(count, channels, size, size)).astype(np.float32)


def same_logits(a, b, size):
    x = images(size)
    return np.allclose(a.logits(x), b.logits(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("v1", [False, True], ids=["layer", "V1"])
@pytest.mark.parametrize("bypass", ["none", "simple", "complex"])
def test_squeezenets_come_back_as_they_are(tmp_path, v1, bypass):
    network = small(bypass)
    back = load_network(write(caffe_net(network, v1=v1, legacy_blobs=v1), tmp_path))
    assert set(back.tensors) == set(network.tensors)
    assert all(np.array_equal(back.tensors[n], v) for n, v in network.values().items())
    for classifier in (from_network(back), TorchClassifier(back)):
        assert same_logits(classifier, from_network(network), 35)


def test_an_alexnet_with_groups_and_lrn_comes_back(tmp_path):
    network = alexnet(AlexNetConfig(classes=5, input_size=67, hidden=32))
    back = caffe.read(write(caffe_net(network), tmp_path))
    assert all(np.array_equal(back.tensors[n], v) for n, v in network.values().items())
    assert same_logits(from_network(back), from_network(network), 67)
    assert back.metadata.preprocessing == network.metadata.preprocessing


def test_real_published_weights_keep_their_top_5(tmp_path, shared_data):
    network = han.read(shared_data / "han-2016" / "compressed_SqueezeNet.net")
    back = caffe.read(write(caffe_net(network), tmp_path))
    assert back.metadata.preprocessing == CAFFE
    x = 50 * images(227, 4)
    ours, theirs = (from_network(n).logits(x) for n in (back, network))
    assert np.array_equal(np.argsort(-ours)[:, :5], np.argsort(-theirs)[:, :5])


def pooled(x, kernel, stride, pad, average):
    """Caffe's pooling_layer.cpp, word for word: sizes, windows and divisors."""
    size = x.shape[-1]
    out = int(np.ceil((size + 2 * pad - kernel) / stride)) + 1
    if pad and (out - 1) * stride >= size + pad:
        out -= 1
    y = np.zeros((*x.shape[:2], out, out), np.float32)
    for i in range(out):
        for j in range(out):
            top, left = i * stride - pad, j * stride - pad
            bottom, right = min(top + kernel, size + pad), min(left + kernel, size + pad)
            area = (bottom - top) * (right - left)
            window = x[:, :, max(top, 0) : min(bottom, size), max(left, 0) : min(right, size)]
            y[:, :, i, j] = window.sum((2, 3)) / area if average else window.max((2, 3))
    return y


@pytest.mark.parametrize("average", [False, True], ids=["MAX", "AVE"])
@pytest.mark.parametrize(
    ("size", "kernel", "stride", "pad"),
    [(8, 3, 2, 0), (9, 3, 2, 0), (7, 2, 2, 1), (8, 3, 2, 1), (6, 3, 3, 2), (10, 5, 3, 1)],
)
def test_pools_are_caffes(tmp_path, average, size, kernel, stride, pad):
    """A 1x1 convolution that passes its input on, the pool, and nothing but a sum behind it."""
    net = NetParameter(name="pool", input=["data"])
    net.input_shape.add().dim.extend([1, 3, size, size])
    layer = net.layer.add(name="conv", type="Convolution", bottom=["data"], top=["conv"])
    layer.convolution_param.kernel_size.append(1)
    layer.convolution_param.bias_term = False
    add_blob(layer, np.eye(3, dtype=np.float32).reshape(3, 3, 1, 1))
    layer = net.layer.add(name="pool", type="Pooling", bottom=["conv"], top=["pool"])
    p = layer.pooling_param
    p.pool, p.kernel_size, p.stride, p.pad = int(average), kernel, stride, pad
    out = pooled(images(size), kernel, stride, pad, average)
    features = int(np.prod(out.shape[1:]))
    layer = net.layer.add(name="fc", type="InnerProduct", bottom=["pool"], top=["fc"])
    layer.inner_product_param.bias_term = False
    add_blob(layer, np.eye(features, dtype=np.float32))
    network = caffe.read(write(net, tmp_path))
    for classifier in (from_network(network), TorchClassifier(network)):
        assert np.allclose(classifier.logits(images(size)), out.reshape(2, -1), atol=1e-5)


def test_batch_norm_and_scale_are_read_and_fold_away(tmp_path):
    rng = np.random.default_rng(5)
    mean, gamma, beta = rng.normal(size=(3, 4)).astype(np.float32)
    var = rng.uniform(0.2, 2, 4).astype(np.float32)
    weight = rng.normal(size=(4, 3, 3, 3)).astype(np.float32)
    net = NetParameter(name="norm", input=["data"], input_dim=[1, 3, 9, 9])
    layer = net.layer.add(name="conv", type="Convolution", bottom=["data"], top=["conv"])
    layer.convolution_param.kernel_size.append(3)
    layer.convolution_param.bias_term = False
    add_blob(layer, weight)
    layer = net.layer.add(name="bn", type="BatchNorm", bottom=["conv"], top=["conv"])
    layer.batch_norm_param.eps = 0.01
    for blob in (2 * mean, 2 * var, np.float32([2.0])):  # stored times the third
        add_blob(layer, blob)
    layer = net.layer.add(name="scale", type="Scale", bottom=["conv"], top=["conv"])
    layer.scale_param.bias_term = True
    add_blob(layer, gamma)
    add_blob(layer, beta)
    layer = net.layer.add(name="pool", type="Pooling", bottom=["conv"], top=["pool"])
    layer.pooling_param.pool, layer.pooling_param.global_pooling = 1, True
    network = caffe.read(write(net, tmp_path))

    plain = GraphBuilder(3, 9, 9)
    x = plain.global_average_pool("pool", plain.conv("conv", plain.image, 4, 3))
    plain = plain.build(plain.flatten("flat", x), Metadata("p", default_preprocessing(9, 3)))
    factor = gamma / np.sqrt(var + 0.01)
    plain = plain.with_tensors(
        {"conv.weight": weight * factor[:, None, None, None], "conv.bias": beta - factor * mean}
    )
    assert same_logits(from_network(network), from_network(plain), 9)
    folded = fold_batch_norm(network)
    assert set(folded.tensors) == {"conv.weight", "conv.bias"}
    assert same_logits(from_network(folded), from_network(plain), 9)


def test_a_train_val_prototxt_states_crop_and_mean(tmp_path):
    net = caffe_net(small())
    del net.input[:], net.input_shape[:]
    data = net.layer.add(name="data", type="Data", top=["data", "label"])
    data.transform_param.crop_size = 35
    data.transform_param.mean_value.extend([1.0, 2.0, 3.0])
    data.include.add().phase = 1
    trained = net.layer.add(name="data", type="Data", top=["data"])
    trained.transform_param.crop_size = 99
    trained.include.add().phase = 0
    net.layer.add(name="loss", type="SoftmaxWithLoss", bottom=["pool6", "label"], top=["loss"])
    network = caffe.read(write(net, tmp_path, prototxt=None))  # the file itself says enough
    assert network.metadata.preprocessing.crop == 35
    assert network.metadata.preprocessing.mean == (1.0, 2.0, 3.0)
    assert same_logits(from_network(network), from_network(small()), 35)


def test_the_prototxt_may_have_the_files_name_or_be_named(tmp_path):
    path = write(caffe_net(small()), tmp_path, prototxt="net.prototxt")
    (tmp_path / "deploy.prototxt").write_text("name: 'another'")
    assert caffe.read(path).metadata.name == "written"
    with pytest.raises(InputError, match="does not state the size of the image"):
        caffe.read(path, tmp_path / "deploy.prototxt")


def broken(change):
    net = caffe_net(small("none"))
    change(net)
    return net


def layer(net, name):
    return next(found for found in net.layer if found.name == name)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda n: layer(n, "conv1").blobs[0].data.pop(), "'conv1' has 1,763 numbers where 12x3"),
        (lambda n: layer(n, "conv1").blobs.pop(), "no weights for layer 'conv1'"),
        (lambda n: layer(n, "conv1").blobs[0].data.__setitem__(0, np.nan), "not finite"),
        (lambda n: layer(n, "conv1").blobs[0].shape.dim.__setitem__(0, 3), "another shape"),
        (lambda n: layer(n, "pool1").bottom.__setitem__(0, "x"), "takes 'x', which nothing gives"),
        (lambda n: setattr(layer(n, "pool1"), "type", "LSTM"), "'pool1' is a LSTM"),
        (lambda n: setattr(layer(n, "pool1"), "name", "conv1"), "no weights for layer 'conv1'"),
        (lambda n: setattr(layer(n, "pool1").pooling_param, "stride", 9), "leaves pixels out"),
        (lambda n: setattr(layer(n, "conv1").convolution_param, "group", 5), "groups"),
        (lambda n: setattr(layer(n, "conv1").convolution_param, "num_output", 2**31),
         "numbers where 2147483648x3x7x7"),
        (lambda n: layer(n, "conv1").convolution_param.dilation.append(2), "dilation"),
        (lambda n: setattr(layer(n, "conv1").convolution_param, "kernel_h", 3), None),
        (lambda n: n.input_shape[0].dim.__setitem__(3, 40), "1x3x35x40"),
        (lambda n: n.input_shape[0].dim.__setitem__(2, 2**40), "only square images"),
        (lambda n: n.layer.pop(-2), None),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_one_sentence(tmp_path, change, message):
    path = write(broken(change), tmp_path)
    with pytest.raises((InputError, UnsupportedError), match=message) as error:
        caffe.read(path)
    assert "\n" not in str(error.value)


def test_a_file_that_claims_to_be_huge_allocates_nothing(tmp_path):
    path = write(caffe_net(small()), tmp_path)
    # Field 100 (layer), 4 GiB long; and a packed list of floats as long in a blob.
    for start in (b"\xa2\x06\xff\xff\xff\xff\x0f", b"\xa2\x06\x0a\x3a\x08\x2a\xff\xff\xff\xff\x0f"):
        path.write_bytes(start)
        with pytest.raises(InputError, match=r"is not a \.caffemodel, or damaged"):
            caffe.read(path)


@pytest.mark.parametrize("text", ["layer {", "{" * 10_000, "layer { " * 5000, "\xff\x00", "a: [1,"])
def test_a_broken_prototxt_is_one_sentence(tmp_path, text):
    path = write(caffe_net(small()), tmp_path)
    (tmp_path / "deploy.prototxt").write_text(text)
    with pytest.raises(InputError, match=r"not (a|the) prototxt|does not state"):
        caffe.read(path)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return write(caffe_net(small()), tmp_path_factory.mktemp("caffe")).read_bytes()


@given(st.data())
def test_damaged_bytes_never_end_in_a_traceback(whole, tmp_path_factory, data):
    cut = data.draw(st.integers(0, len(whole)))
    damaged = bytearray(whole[:cut])
    for _ in range(data.draw(st.integers(0, 3))):
        if damaged:
            damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("damaged") / "net.caffemodel"
    path.write_bytes(damaged)
    with suppress(SqueezekitError):  # and no other: some bits of the weights may flip unnoticed
        caffe.read(path)


@pytest.mark.parametrize(
    ("v1", "said"), [(False, b"Convolution"), (False, b"conv1"), (True, b"conv1"), (True, b"data")]
)
def test_names_that_are_not_utf_8(tmp_path, v1, said):
    """Protocol buffers let them through."""
    path = write(caffe_net(small(), v1=v1), tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole.replace(said, b"\xff" + said[1:]))
    assert path.read_bytes() != whole
    with pytest.raises(InputError, match="damaged"):
        caffe.read(path)


def test_the_catalogue_has_the_same_names(tmp_path):
    """So that --init works on the authors' releases, whose layers are called fire2/squeeze1x1."""
    network = create("squeezenet-1.1", classes=3, input_size=64)
    back = caffe.read(write(caffe_net(network), tmp_path))
    assert dict(back.tensors).keys() == dict(network.tensors).keys()
    assert dataclasses.replace(back.metadata.preprocessing, crop=227, resize=256) == CAFFE


# ------------------------------------------------------------------------- what data layers say


def lenet(kind="Convolution", channels=1):
    """A network of digits, its weights stored as a snapshot stores them."""
    net = NetParameter(name="digits")
    layer = net.layer.add(name="ip", type="InnerProduct", bottom=["data"], top=["ip"])
    if kind == "Convolution":
        conv = net.layer.add(name="conv", type="Convolution", bottom=["data"], top=["conv"])
        conv.convolution_param.num_output = 4
        conv.convolution_param.kernel_size.append(28)
        add_blob(conv, np.ones((4, channels, 28, 28), np.float32))
        add_blob(conv, np.zeros(4, np.float32))
        layer.bottom[0] = "conv"
    size = 4 if kind == "Convolution" else channels * 28 * 28
    add_blob(layer, np.ones((3, size), np.float32))
    add_blob(layer, np.zeros(3, np.float32))
    return net


def read_with(net, prototxt, folder):
    (folder / "net.caffemodel").write_bytes(net.SerializeToString())
    layers = "".join(
        f"layer {{ {text_format.MessageToString(without_blobs(layer))} }}\n"
        for layer in sorted(net.layer, key=lambda layer: layer.bottom[0] != "data")
    )
    (folder / "deploy.prototxt").write_text(prototxt + layers)
    return caffe.read(folder / "net.caffemodel")


def without_blobs(layer):
    copy = type(layer)()
    copy.CopyFrom(layer)
    del copy.blobs[:]
    return copy


INPUT = 'layer { name: "data" type: "Input" top: "data" input_param { shape { %s } } %s }\n'
GREY = "dim: 1 dim: 1 dim: 28 dim: 28"
COLOR = "dim: 1 dim: 3 dim: 28 dim: 28"
DATA = """
layer { name: "d" type: "Data" top: "data" top: "label" include { phase: TRAIN }
        transform_param { scale: 0.5 crop_size: 28 mirror: true } data_param { source: "x" } }
layer { name: "d" type: "Data" top: "data" top: "label" include { phase: TEST }
        transform_param { scale: 0.00390625 crop_size: 28 } data_param { source: "y" } }
"""


def test_a_scale_alone_takes_no_mean_off(tmp_path):
    net = read_with(lenet(), INPUT % (GREY, "transform_param { scale: 0.00390625 }"), tmp_path)
    p = net.metadata.preprocessing
    assert (p.scale, p.mean, p.std, p.color) == (0.00390625, (0.0,), (1.0,), "L")
    assert (p.crop, p.resize, p.resize_mode) == (28, 28, "warp")
    assert not assumed(net.metadata)
    net = read_with(
        lenet(channels=3), INPUT % (COLOR, "transform_param { scale: 0.5 mean_value: 8 }"), tmp_path
    )
    p = net.metadata.preprocessing
    assert (p.scale, p.mean, p.color) == (0.5, (4.0,) * 3, "BGR")


@pytest.mark.parametrize("kind", ["Convolution", "InnerProduct"])
@pytest.mark.parametrize(("channels", "color"), [(1, "L"), (3, "BGR")])
def test_a_data_layer_has_the_channels_of_what_it_feeds(tmp_path, kind, channels, color):
    p = read_with(lenet(kind, channels), DATA, tmp_path).metadata.preprocessing
    assert (p.color, p.scale, p.mean) == (color, 0.00390625, (0.0,) * channels)


def test_what_only_the_snapshot_says_counts(tmp_path):
    net = lenet()
    data = net.layer.add(name="d", type="Data", top=["data"], bottom=["x"])
    data.transform_param.scale = 0.25
    (tmp_path / "net.caffemodel").write_bytes(net.SerializeToString())
    del net.layer[2]
    (tmp_path / "a").mkdir()
    read_with(net, INPUT % (GREY, ""), tmp_path / "a")
    text = (tmp_path / "a" / "deploy.prototxt").read_text()
    (tmp_path / "deploy.prototxt").write_text(text)
    found = caffe.read(tmp_path / "net.caffemodel").metadata
    assert found.preprocessing.scale == 0.25
    assert not assumed(found)


def test_without_any_statement_the_authors_preprocessing_is_assumed_and_said(tmp_path):
    metadata = read_with(lenet(channels=3), INPUT % (COLOR, ""), tmp_path).metadata
    assert metadata.preprocessing.mean == CAFFE.mean
    assert assumed(metadata)


def test_a_mean_image_beside_counts_by_channel(tmp_path):
    stated = INPUT % (COLOR, 'transform_param { mean_file: "data/mean.binaryproto" }')
    assert assumed(read_with(lenet(channels=3), stated, tmp_path).metadata)
    blob = BlobProto(num=1, channels=3, height=1, width=2, data=[1, 3, 10, 30, 100, 300])
    (tmp_path / "mean.binaryproto").write_bytes(blob.SerializeToString())
    found = read_with(lenet(channels=3), stated, tmp_path).metadata
    assert found.preprocessing.mean == (2.0, 20.0, 200.0)
    assert not assumed(found)
    (tmp_path / "mean.binaryproto").write_bytes(blob.SerializeToString()[:-3])
    with pytest.raises(InputError, match=r"mean\.binaryproto"):
        read_with(lenet(channels=3), stated, tmp_path)


@pytest.mark.parametrize(
    "settings",
    ["transform_param { scale: 0 }", "transform_param { scale: nan }",
     "transform_param { mean_value: 1 mean_value: 2 }", "transform_param { mean_value: inf }"],
)  # fmt: skip
def test_numbers_that_cannot_be_are_refused(tmp_path, settings):
    with pytest.raises(InputError, match=r"net\.caffemodel: (scales|takes)"):
        read_with(lenet(channels=3), INPUT % (COLOR, settings), tmp_path)
