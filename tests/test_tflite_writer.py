"""TensorFlow Lite files that are written here, run by LiteRT, which is Google's own runtime."""

import dataclasses
import io
import sys
import zipfile

import numpy as np
import onnxruntime
import pytest
from operator_graphs import KINDS, Graph
from PIL import Image
from small_networks import small_alexnet, small_networks, small_squeezenet

import squeezekit as sk
from squeezekit.errors import InputError, UnsupportedError
from squeezekit.interop import tflite_writer
from squeezekit.models.squeezenet import SqueezeNetConfig, squeezenet
from squeezekit.runtime.images import prepare
from squeezekit.runtime.int8 import int8_model
from squeezekit.sqz.graph import attach
from squeezekit.sqz.network import CAFFE

interpreter = pytest.importorskip("ai_edge_litert.interpreter")
pytest.importorskip("tflite")


def by_litert(path, images):
    """Outputs (N, classes); images are (N, C, H, W), in the file's order of channels."""
    lite = interpreter.Interpreter(str(path), num_threads=1)
    lite.allocate_tensors()
    (taken,), (given,) = lite.get_input_details(), lite.get_output_details()
    assert taken["dtype"] == given["dtype"] == np.float32
    outputs = []
    for image in images:
        lite.set_tensor(taken["index"], np.moveaxis(image, 0, -1)[np.newaxis])
        lite.invoke()
        outputs.append(lite.get_tensor(given["index"])[0])
    return np.array(outputs)


def by_onnx_runtime(model, images):
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return np.concatenate(
        [session.run(None, {name: image[np.newaxis]})[0].reshape(1, -1) for image in images]
    )


def photos(count, seed=0):
    """Smooth colours, as photos have."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (count, 9, 9, 3), np.uint8)
    return [Image.fromarray(p).resize((80, 80), Image.Resampling.BICUBIC) for p in pixels]


def prepared(network, images):
    preprocessing = network.metadata.preprocessing
    mode = "L" if preprocessing.color == "L" else "RGB"
    return np.stack([prepare(image.convert(mode), preprocessing) for image in images])


def as_rgb(network, images):
    return images[:, ::-1] if network.metadata.preprocessing.color == "BGR" else images


def networks():
    bgr = dataclasses.replace(CAFFE, crop=41, resize=41)
    red_last = small_squeezenet()
    metadata = dataclasses.replace(red_last.metadata, preprocessing=bgr)
    return {
        **small_networks(),
        "alexnet": small_alexnet(),
        "bypass": small_squeezenet(bypass="complex", batch_norm=True),
        "bgr": dataclasses.replace(red_last, metadata=metadata),
    }


@pytest.mark.parametrize("kind", KINDS)
def test_every_operator_is_right_or_refused(kind, tmp_path):
    path, judged = tmp_path / "net.tflite", 0
    for seed in range(8):
        g = Graph(np.random.default_rng(seed))
        try:
            kind(g)
            network = g.network()
            size = network.metadata.preprocessing.crop
            shape = (1, network.metadata.preprocessing.channels, size, size)
            image = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
            expected = by_onnx_runtime(attach(network.graph, network.values()), image)
            if not expected.size or not np.isfinite(expected).all():
                continue
            judged += 1
            path.unlink(missing_ok=True)
            tflite_writer.write(network, path)
        except UnsupportedError:
            assert not path.exists()
            continue
        got = by_litert(path, as_rgb(network, image))
        np.testing.assert_allclose(
            got, expected, rtol=1e-4, atol=2e-5 * max(abs(expected).max(), 1)
        )
    assert judged


@pytest.mark.parametrize("name", networks())
def test_floats_answer_as_the_network_does(name, tmp_path):
    network = networks()[name]
    images = prepared(network, photos(4))
    sk.write(network, tmp_path / "net.tflite")
    expected = by_onnx_runtime(attach(network.graph, network.values()), images)
    got = by_litert(tmp_path / "net.tflite", as_rgb(network, images))
    np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-4 * np.ptp(expected))


@pytest.mark.parametrize("name", networks())
def test_int8_answers_as_the_int8_onnx_does(name, tmp_path):
    network = sk.calibrate(networks()[name], photos(12, seed=1))
    images = prepared(network, photos(4))
    sk.write(network, tmp_path / "net.tflite", int8=True)
    expected = by_onnx_runtime(int8_model(network), images)
    got = by_litert(tmp_path / "net.tflite", as_rgb(network, images))
    exact = by_onnx_runtime(attach(network.graph, network.values()), images)
    # The two round differently in a few places, each by one step of one activation.
    off, rounding = np.abs(got - expected).mean(), np.abs(expected - exact).mean()
    assert off <= max(rounding, 1e-4 * np.ptp(exact))


@pytest.mark.parametrize("name", [name for name in networks() if name != "alexnet"])
def test_what_it_says_about_itself_is_read_again(name, tmp_path):
    network = networks()[name]
    network = dataclasses.replace(
        network, metadata=dataclasses.replace(network.metadata, licence="CC0-1.0")
    )
    sk.write(network, tmp_path / "net.tflite")
    again = sk.read(tmp_path / "net.tflite")
    assert again.metadata.labels == network.metadata.labels
    assert again.metadata.licence == "CC0-1.0"
    stated = network.metadata.preprocessing  # how to resize has no place in a .tflite
    resized = {"resize": stated.resize, "resize_mode": stated.resize_mode}
    how = dataclasses.replace(again.metadata.preprocessing, **resized)
    metadata = dataclasses.replace(again.metadata, preprocessing=how)
    images = photos(3)
    ours, theirs = (
        by_onnx_runtime(attach(n.graph, n.values()), prepared(n, images))
        for n in (network, dataclasses.replace(again, metadata=metadata))
    )
    np.testing.assert_allclose(theirs, ours, rtol=1e-3, atol=1e-4 * np.ptp(ours))


def test_labels_are_where_tensorflow_s_tools_look(tmp_path):
    network = small_squeezenet(labels=("a cat", "two\nlines", "naïve"))
    sk.write(network, tmp_path / "net.tflite")
    with zipfile.ZipFile(io.BytesIO((tmp_path / "net.tflite").read_bytes())) as archive:
        assert archive.read("labels.txt").decode() == "a cat\ntwo lines\nnaïve\n"
        assert archive.getinfo("labels.txt").compress_type == zipfile.ZIP_STORED


def test_same_bytes_each_time(tmp_path):
    for name in ("a", "b"):
        sk.write(small_squeezenet(), tmp_path / f"{name}.tflite")
    assert (tmp_path / "a.tflite").read_bytes() == (tmp_path / "b.tflite").read_bytes()


def test_without_the_package_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tflite", None)
    with pytest.raises(InputError, match=r"pip install 'squeezekit\[tflite\]'"):
        sk.write(small_squeezenet(), tmp_path / "net.tflite")
    assert not list(tmp_path.iterdir())


def test_int8_needs_ranges(tmp_path):
    with pytest.raises(InputError, match="calibrate the network"):
        sk.write(small_squeezenet(), tmp_path / "net.tflite", int8=True)
    assert not list(tmp_path.iterdir())


def test_int8_weights_are_stored_once(tmp_path):
    """A byte each; scales and zero points, 12 bytes for each filter, and the rest take less."""
    config = SqueezeNetConfig(classes=10, input_size=48)
    network = sk.calibrate(squeezenet(config), photos(2))
    sk.write(network, tmp_path / "net.tflite", int8=True)
    assert network.parameters < (tmp_path / "net.tflite").stat().st_size < 1.2 * network.parameters
