"""OpenVINO gives what ONNX Runtime gives; without it, everything else works and says so."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from small_networks import small_networks
from test_classifier import BLUISH, COLOURS, model, network, saved
from test_int8 import noise

from squeezekit.errors import GraphError, InputError, UnsupportedError
from squeezekit.interop import onnx_file
from squeezekit.interop.opening import load
from squeezekit.runtime import backends
from squeezekit.runtime.calibration import calibrated
from squeezekit.runtime.classifier import from_network
from squeezekit.sqz import container
from squeezekit.sqz.metadata_json import to_json
from squeezekit.sqz.network import Network

SMALL = small_networks()
needs_openvino = pytest.mark.skipif(
    not backends.installed("openvino"), reason="needs openvino: pip install 'squeezekit[openvino]'"
)


@needs_openvino
@pytest.mark.parametrize("name", SMALL)
def test_openvino_gives_what_onnxruntime_gives(name, tmp_path):
    network = SMALL[name]
    x = noise(network, 5)
    expected = from_network(network, 1).logits(x)
    found = from_network(network, 1, "openvino").logits(x)
    np.testing.assert_allclose(found, expected, atol=1e-4 * abs(expected).max())
    onnx_file.write(network, tmp_path / "x.onnx")
    np.testing.assert_array_equal(load(tmp_path / "x.onnx", 1, "openvino").logits(x), found)


@needs_openvino
@pytest.mark.parametrize("name", SMALL)
def test_int8_is_the_same_on_both(name, tmp_path):
    """Both compute in integers; they differ where one rounds a half up and the other down."""
    network = calibrated(SMALL[name], noise(SMALL[name]))
    x = noise(network, 5, seed=1)
    expected = from_network(network, 1, "onnxruntime").logits(x)
    by_default = from_network(network, 1)
    assert (by_default.backend, by_default.precision) == ("openvino", "int8")
    np.testing.assert_allclose(by_default.logits(x), expected, atol=0.2 * expected.std())
    onnx_file.write(network, tmp_path / "x.onnx", int8=True)
    found = load(tmp_path / "x.onnx", 1, "openvino").logits(x)
    np.testing.assert_array_equal(found, by_default.logits(x))


@needs_openvino
def test_openvinos_convolutions_are_integers():
    import openvino

    from squeezekit.runtime.int8 import int8_model

    network = calibrated(SMALL["plain"], noise(SMALL["plain"]))
    core = openvino.Core()
    compiled = core.compile_model(core.read_model(int8_model(network)), "CPU")
    ran = [op.get_rt_info() for op in compiled.get_runtime_model().get_ops()]
    kinds = [(str(i["layerType"].value), str(i["runtimePrecision"].value)) for i in ran]
    found = [precision for kind, precision in kinds if kind == "Convolution"]
    assert len(found) == 11
    assert set(found) <= {"u8", "i8"}


@needs_openvino
def test_openvino_in_threads_and_batches():
    """One classifier may be asked by many threads at once, with batches of any size."""
    network = SMALL["plain"]
    classifier = from_network(network, 1, "openvino")
    x = noise(network, 12)
    expected = classifier.logits(x)
    with ThreadPoolExecutor(4) as pool:
        parts = list(pool.map(classifier.logits, [x[i : i + 1 + i % 3] for i in range(9)]))
    for i, part in enumerate(parts):
        np.testing.assert_allclose(part, expected[i : i + 1 + i % 3], atol=1e-5)


@needs_openvino
def test_openvino_reads_what_it_is_given(tmp_path):
    path = saved(tmp_path, model(metadata=to_json(COLOURS)))
    classifier = load(path, backend="openvino")
    assert classifier.metadata == COLOURS
    assert classifier(BLUISH, top=1)[0].label == "blue"
    fixed = load(saved(tmp_path, model(batch=4), "fixed.onnx"), backend="openvino")
    images = np.random.default_rng(0).normal(size=(5, 3, 4, 4)).astype(np.float32)
    np.testing.assert_allclose(fixed.logits(images), images.mean(axis=(2, 3)), atol=1e-6)
    soft = load(saved(tmp_path, model(soft=True), "soft.onnx"), backend="openvino")
    assert soft.metadata.output == "probabilities"


@needs_openvino
def test_what_openvino_cannot_run(tmp_path, capfd):
    (tmp_path / "broken.onnx").write_bytes(b"garbage")
    with pytest.raises(InputError, match=r"broken\.onnx: is not an ONNX model") as caught:
        load(tmp_path / "broken.onnx", backend="openvino")
    assert "\n" not in str(caught.value)
    unknown = model()
    unknown.graph.node[0].op_type = "Mystery"
    with pytest.raises(UnsupportedError, match="Mystery"):
        load(saved(tmp_path, unknown), backend="openvino")
    with pytest.raises(GraphError):
        from_network(Network(b"garbage", {}, COLOURS), backend="openvino")
    flat = model()
    del flat.graph.input[0].type.tensor_type.shape.dim[3:]
    with pytest.raises((UnsupportedError, InputError)):
        load(saved(tmp_path, flat), backend="openvino")
    assert capfd.readouterr() == ("", "")


def test_a_backend_that_there_is_not():
    with pytest.raises(InputError, match="no backend 'tensorrt': use onnxruntime or openvino"):
        from_network(network(), backend="tensorrt")


def test_without_openvino(monkeypatch, tmp_path):
    monkeypatch.setattr(backends, "installed", lambda name: name != "openvino")
    with pytest.raises(InputError, match=r"pip install 'squeezekit\[openvino\]'"):
        from_network(network(), backend="openvino")
    small = calibrated(SMALL["plain"], noise(SMALL["plain"]))
    container.write(small, tmp_path / "x.sqz")
    classifier = load(tmp_path / "x.sqz")
    assert (classifier.backend, classifier.precision) == ("onnxruntime", "int8")
