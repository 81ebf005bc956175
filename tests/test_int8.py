"""Networks in int8: close to float, really in integers, and never with ranges of other weights."""

import dataclasses
from collections import Counter

import numpy as np
import onnx
import onnxruntime
import pytest
from foreign import Maker, images, mobilenet, resnet, run
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper
from small_networks import shared, small_networks, small_squeezenet

from squeezekit.errors import GraphError, HeadError, InputError, UnsupportedError
from squeezekit.interop import onnx_file
from squeezekit.interop.opening import load
from squeezekit.interop.page_runtime import PageRuntime
from squeezekit.models.fold import fold_batch_norm
from squeezekit.runtime.calibration import best_range, calibrated, calibration_images
from squeezekit.runtime.classifier import from_network
from squeezekit.runtime.int8 import int8_model, needed_ranges
from squeezekit.sqz import container
from squeezekit.sqz.graph import parse, split
from squeezekit.sqz.metadata_json import from_json, to_json
from squeezekit.sqz.network import Metadata, Network, Preprocessing, share_equal_values

SMALL = small_networks()


def noise(network, count=8, seed=0):
    how = network.metadata.preprocessing
    shape = (count, how.channels, how.crop, how.crop)
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.fixture(scope="module")
def calibrated_small():
    return {name: calibrated(network, noise(network, 24)) for name, network in SMALL.items()}


def in_int8(network):
    return from_network(network, 1, "onnxruntime", "int8")


@pytest.mark.parametrize("name", SMALL)
def test_close_to_float_on_other_images(name, calibrated_small):
    network = calibrated_small[name]
    x = noise(network, 12, seed=1)
    expected = from_network(network, 1, "onnxruntime", "float").logits(x)
    error = in_int8(network).logits(x) - expected
    assert np.sqrt((error**2).mean()) < 0.2 * expected.std()
    assert error.any()


@pytest.mark.parametrize("make", [resnet, mobilenet])
def test_networks_of_other_programs(make, tmp_path):
    """Sums, depthwise convolutions, gates and matrix products."""
    onnx.save(make(), tmp_path / "x.onnx")
    network = fold_batch_norm(onnx_file.read(tmp_path / "x.onnx"))
    network = calibrated(network, images(20))
    expected = run(network, images(30, seed=1))
    error = in_int8(network).logits(images(30, seed=1)) - expected
    assert np.sqrt((error**2).mean()) < 0.15 * expected.std()


@pytest.mark.parametrize("name", ["plain", "simple", "complex", "alexnet"])
def test_every_layer_runs_in_integers(name, calibrated_small, tmp_path):
    """What ONNX Runtime makes of the graph has integer kernels for all of them, and no other."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.log_severity_level = 4
    onnxruntime.InferenceSession(
        int8_model(calibrated_small[name]), options, providers=["CPUExecutionProvider"]
    )
    ran = Counter(node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node)
    was = Counter(node.op_type for node in parse(SMALL[name].graph).graph.node)
    assert ran["QLinearConv"] == was["Conv"]
    assert ran["QGemm"] == was["Gemm"]
    assert not ran.keys() & {"Conv", "FusedConv", "Gemm"}
    if name != "alexnet":  # its LRN is float
        assert ran["QuantizeLinear"] == 1  # the image
        assert "Relu" not in ran
        assert ran["Concat"] + ran["QLinearConcat"] == was["Concat"]


@pytest.mark.parametrize("name", SMALL)
def test_moving_operators_keep_their_codes(name, calibrated_small):
    """A MaxPool or Concat has one scale on all its sides: there is nothing to compute."""
    model = onnx.load_model_from_string(int8_model(calibrated_small[name]))
    numbers = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    users = {name: node for node in model.graph.node for name in node.input}
    for node in model.graph.node:
        if node.op_type not in ("MaxPool", "Concat"):
            continue
        quantise = users[node.output[0]]
        if quantise.op_type != "QuantizeLinear":
            continue
        for source in node.input:
            before = source.removesuffix(".rounded")
            for part in ("step", "zero"):
                assert numbers[f"{before}.{part}"] == numbers[f"{node.output[0]}.{part}"]
    onnx.checker.check_model(model, full_check=True)


def one_layer(weight, bias):
    m = Maker()
    x = m.node("Conv", "input", m.tensor(weight), m.tensor(bias))
    model = m.model(m.node("GlobalAveragePool", x), ("N", 3, 4, 4))
    graph, tensors = split(model)
    metadata = Metadata("layer", Preprocessing(4, 4))
    ranges = dict.fromkeys(needed_ranges(Network(graph, tensors, metadata)), (-4.0, 4.0))
    return Network(graph, tensors, dataclasses.replace(metadata, activations=ranges))


@settings(max_examples=40)
@given(st.integers(0, 2**32 - 1), st.floats(-6, 3), st.floats(-6, 6))
def test_stored_weights_are_near_and_keep_their_sum(seed, weight_size, bias_size):
    rng = np.random.default_rng(seed)
    weight = (rng.normal(size=(5, 3, 2, 2)) * 10**weight_size).astype(np.float32)
    weight[0] = 0  # a filter that was pruned away
    bias = (rng.normal(size=5) * 10**bias_size).astype(np.float32)
    model = onnx.load_model_from_string(int8_model(one_layer(weight, bias)))
    numbers = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    codes = {
        name.removesuffix(".codes"): numbers[name].dtype
        for name in numbers
        if name.endswith(".codes")
    }
    name, bias_name = sorted(codes, key=lambda name: codes[name].itemsize)
    assert (codes[name], codes[bias_name]) == (np.int8, np.int32)
    steps = numbers[f"{name}.step"].astype(np.float64)
    found = numbers[f"{name}.codes"] * steps.reshape(-1, 1, 1, 1)
    errors = (found - weight) / steps.reshape(-1, 1, 1, 1)
    assert np.all(np.abs(errors) <= 1.001)
    assert np.all(np.abs(errors.sum(axis=(1, 2, 3))) <= 0.501)
    bias_steps = numbers[f"{bias_name}.step"].astype(np.float64)
    np.testing.assert_allclose(bias_steps, steps * 8 / 255, rtol=1e-6)
    found = numbers[f"{bias_name}.codes"] * bias_steps
    np.testing.assert_allclose(found, bias, rtol=1e-6, atol=float(0.501 * bias_steps.max()))
    assert not numbers[f"{name}.codes"][0].any()


# ------------------------------------------------------------------------------------------ ranges


def mean_squared_error(values, low, high):
    step = (high - low) / 255
    zero = np.rint(-low / step)
    codes = np.clip(np.rint(values / step) + zero, 0, 255)
    return np.mean(((codes - zero) * step - values) ** 2)


@settings(max_examples=25)
@given(st.integers(0, 2**32 - 1), st.booleans(), st.floats(1, 50))
def test_the_best_range_is_about_the_best(seed, rectified, outlier):
    rng = np.random.default_rng(seed)
    values = rng.standard_t(4, 20_000).astype(np.float32)
    values[0] *= outlier
    if rectified:
        values = np.maximum(values, 0)
    low, high = best_range(values)
    assert low <= 0 <= high
    assert (low == 0) == rectified
    whole = min(values.min(), 0), values.max()
    tried = [mean_squared_error(values, *np.multiply(whole, s)) for s in np.linspace(0.05, 1, 96)]
    assert mean_squared_error(values, low, high) <= 1.15 * min(tried)


def test_values_too_large_for_int8_are_refused():
    network = small_squeezenet()
    size = network.metadata.preprocessing.crop
    images = np.full((2, 3, size, size), 1e31, np.float32)
    with pytest.raises(InputError, match="too large for int8"):
        calibrated(network, images)


def test_a_tensor_that_is_always_zero_has_a_range():
    assert best_range(np.full(5, 1e-38, np.float32)) == (0.0, 1.0)
    assert best_range(np.zeros(5, np.float32)) == (0.0, 1.0)


def test_ranges_are_those_of_what_the_layers_see():
    network = small_squeezenet()
    needed = needed_ranges(network)
    assert needed["image"] == ("image",)
    # pool1 has the range of what it takes its largest values from, a concat that of its parts.
    assert "pool1" not in set(needed) | set().union(*needed.values())
    first = "fire2.expand1x1.relu"
    assert needed[first] == (first, "fire2.expand3x3.relu")
    network = calibrated(network, noise(network))
    assert network.metadata.activations.keys() == needed.keys()
    for name, (low, high) in network.metadata.activations.items():
        assert (low == 0) == (name != "image")
        assert high > 0


def test_ranges_do_not_outlive_their_weights(calibrated_small, tmp_path):
    from squeezekit.trainable.network import TrainableNetwork

    network = calibrated_small["plain"]
    ranges = network.metadata.activations
    name = "conv1.weight"
    changed = network.with_tensors({name: network.values()[name] * 2})
    assert not changed.metadata.activations
    assert not TrainableNetwork(network).to_network().metadata.activations
    assert share_equal_values(network).metadata.activations == ranges
    assert fold_batch_norm(network).metadata.activations == ranges
    onnx_file.write(network, tmp_path / "x.onnx")
    assert onnx_file.read(tmp_path / "x.onnx").metadata.activations == ranges


def test_calibration_images(make_images):
    folder = make_images({"a": 9, "b": 3})
    paths = sorted(folder.rglob("*.png"))
    (folder / "a" / "0.png").write_bytes(b"no image")
    how = Preprocessing(8, 8)
    assert calibration_images(paths, how, 100).shape == (11, 3, 8, 8)
    assert calibration_images(paths, how, 4).shape == (3, 3, 8, 8)  # the broken one is left out
    with pytest.raises(InputError, match="none of 1"):
        calibration_images(paths[:1], how)


# -------------------------------------------------------------------------------------- the file


def test_a_file_with_ranges(calibrated_small, tmp_path):
    """It runs in int8 by itself, in float when asked; and whoever knows no ranges reads it."""
    network = shared(SMALL["plain"])
    network = calibrated(network, noise(network))
    path = tmp_path / "x.sqz"
    container.write(network, path)
    assert container.read(path).metadata == network.metadata
    x = noise(network, 3, seed=2)
    by_itself = load(path, 1, "onnxruntime")
    assert by_itself.precision == "int8"
    np.testing.assert_array_equal(by_itself.logits(x), in_int8(network).logits(x))
    in_float = load(path, 1, "onnxruntime", "float")
    assert in_float.precision == "float"
    plain = dataclasses.replace(network, metadata=network.metadata.uncalibrated())
    expected = from_network(plain, 1).logits(x)
    np.testing.assert_array_equal(in_float.logits(x), expected)
    from_c = PageRuntime(path.read_bytes(), "float").logits(x[0])
    np.testing.assert_allclose(from_c, expected[0], atol=1e-4)
    without = len(container.encode(plain))
    assert len(path.read_bytes()) - without < 40 * len(network.metadata.activations)


RANGES = {"image": (-1.0, 2.0), "conv1": (0.0, 3.5)}


def test_ranges_as_json():
    metadata = Metadata("x", Preprocessing(8, 8), activations=RANGES)
    assert from_json(to_json(metadata)) == metadata
    assert '"activations":{"image":[-1.0,2.0],"conv1":[0.0,3.5]}' in to_json(metadata)
    assert "activations" not in to_json(metadata.uncalibrated())


@pytest.mark.parametrize(
    "damage",
    ["3", "[]", "null", '{"image":3}', '{"image":[0]}', '{"image":[0,1,2]}', '{"image":["0",1]}',
     '{"image":[1,2]}', '{"image":[-2,-1]}', '{"image":[0,0]}', '{"image":[0,NaN]}',
     '{"image":[-Infinity,0]}', '{"image":[0,1e999]}'],
)  # fmt: skip
def test_damaged_ranges_are_a_head_error(damage):
    text = to_json(Metadata("x", Preprocessing(8, 8), activations={"image": (0.0, 1.0)}))
    with pytest.raises(HeadError):
        from_json(text.replace('{"image":[0.0,1.0]}', damage))


def test_what_cannot_run_in_int8(calibrated_small, tmp_path):
    network = calibrated_small["plain"]
    with pytest.raises(InputError, match="no activation ranges"):
        from_network(SMALL["plain"], precision="int8")
    with pytest.raises(InputError, match="no precision 'int4'"):
        from_network(network, precision="int4")
    ranges = dict(network.metadata.activations)
    del ranges["fire2.squeeze1x1.relu"]
    metadata = dataclasses.replace(network.metadata, activations=ranges)
    with pytest.raises(GraphError, match=r"fire2\.squeeze1x1\.relu"):
        from_network(dataclasses.replace(network, metadata=metadata))
    old = parse(network.graph)
    old.opset_import[0].version = 12
    with pytest.raises(UnsupportedError, match="operator set 12"):
        int8_model(dataclasses.replace(network, graph=old.SerializeToString()))
    with pytest.raises(InputError, match="at least one image"):
        calibrated(network, noise(network)[:0])
    broken = network.with_tensors({"conv1.bias": np.full(5, np.inf, np.float32)})
    with pytest.raises(InputError, match="not finite"):
        calibrated(broken, noise(network))
    with pytest.raises(GraphError, match="not finite"):  # floats would answer with NaN
        from_network(dataclasses.replace(broken, metadata=network.metadata))
    onnx_file.write(network, tmp_path / "x.onnx")
    with pytest.raises(InputError, match="runs as it is"):
        load(tmp_path / "x.onnx", precision="int8")


def test_exported_in_int8(calibrated_small, tmp_path):
    network = calibrated_small["plain"]
    path = tmp_path / "int8.onnx"
    onnx_file.write(network, path, int8=True)
    assert path.stat().st_size < 40_000 + network.parameters
    x = noise(network, 3)
    exported = load(path, 1, "onnxruntime")
    np.testing.assert_array_equal(exported.logits(x), in_int8(network).logits(x))
    assert exported.metadata == network.metadata.uncalibrated()
    with pytest.raises(UnsupportedError, match="quantised already"):
        onnx_file.read(path)
    with pytest.raises(InputError, match="no activation ranges"):
        onnx_file.write(SMALL["plain"], path, int8=True)


def test_the_published_network(shared_data):
    """Accuracy in int8, calibrated on other images: within half a point on the first 100."""
    from squeezekit.data.dataset import split as images_of
    from squeezekit.interop import han

    network = han.read(shared_data / "han-2016" / "compressed_SqueezeNet.net")
    how = network.metadata.preprocessing
    training = images_of(shared_data / "imagenette-mini", "train")
    network = calibrated(network, calibration_images(training.paths, how, 20))
    paths = images_of(shared_data / "imagenet-500", "all").paths
    x = calibration_images(paths, how, 40)
    expected = from_network(network, precision="float", backend="onnxruntime").logits(x)
    found = in_int8(network).logits(x)
    assert (found.argmax(1) == expected.argmax(1)).mean() >= 0.85
    assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.995
