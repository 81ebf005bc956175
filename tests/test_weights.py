"""Networks from whatever holds one, and into whatever format a file's ending names."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from squeezekit.errors import InputError
from squeezekit.interop.weights import as_network, read, write
from squeezekit.models.squeezenet import squeezenet, v1_1
from squeezekit.runtime.calibration import calibrated
from squeezekit.runtime.classifier import from_network
from squeezekit.sqz.graph import parse
from squeezekit.trainable.network import TrainableNetwork

LABELS = ("cat", "dog", "fox")


@pytest.fixture(scope="module")
def network():
    """With batch norms, which a `.sqz` has folded."""
    config = dataclasses.replace(v1_1(), classes=3, input_size=32, batch_norm=True)
    return squeezenet(config, labels=LABELS)


def images(count=2):
    return np.random.default_rng(0).normal(size=(count, 3, 32, 32)).astype(np.float32)


def answers(network):
    return from_network(network).logits(images())


@pytest.mark.parametrize("ending", [".sqz", ".onnx", ".safetensors", ".SQZ"])
def test_what_is_written_is_read_again(tmp_path, network, ending):
    path = write(network, str(tmp_path / f"pets{ending}"))
    again = read(str(path))
    assert again.metadata.labels == LABELS
    np.testing.assert_allclose(answers(again), answers(network), rtol=1e-4, atol=1e-4)


def test_a_sqz_has_batch_norms_folded_and_stays_as_it_is(tmp_path, network):
    first = write(network, tmp_path / "a.sqz")
    ops = [{node.op_type for node in parse(n.graph).graph.node} for n in (network, read(first))]
    assert ["BatchNormalization" in each for each in ops] == [True, False]
    assert write(first, tmp_path / "b.sqz").read_bytes() == first.read_bytes()
    by_safetensors = write(network, tmp_path / "c.safetensors")
    assert write(by_safetensors, tmp_path / "d.sqz").read_bytes() == first.read_bytes()


def test_a_network_is_whatever_holds_one(tmp_path, network):
    assert as_network(network) is network
    assert as_network(SimpleNamespace(network=network)) is network
    trained = as_network(TrainableNetwork(network))
    np.testing.assert_array_equal(answers(trained), answers(network))
    path = write(network, tmp_path / "pets.safetensors")
    assert as_network(str(path)).metadata == as_network(path).metadata == network.metadata


def test_what_is_no_network_is_one_sentence():
    with pytest.raises(InputError, match=r"Linear is a torch module: .*from_torch\(module, ex"):
        as_network(torch.nn.Linear(2, 2))
    with pytest.raises(InputError, match="int is not a network"):
        as_network(3)
    with pytest.raises(InputError, match="there is no such file"):
        as_network("no-such-file.sqz")


UNWRITABLE = {
    "no format": ("pets.gif", {}, "must end in .sqz, .onnx, .tflite, .safetensors or .html"),
    "no ending": ("pets", {}, "must end in"),
    "no folder": ("missing/pets.sqz", {}, "there is no folder"),
    "a coder of an .onnx": ("pets.onnx", {"coder": "dense"}, "only a .sqz or a .html has a coder"),
    "no coder": ("pets.sqz", {"coder": "zip"}, "there is no coder 'zip'"),
    "int8 of tensors": (
        "pets.safetensors",
        {"int8": True},
        "only a .sqz, an .onnx or a .tflite can",
    ),
    "int8 of a page": ("pets.html", {"int8": True}, "only a .sqz, an .onnx or a .tflite can"),
    "int8 without ranges": ("pets.onnx", {"int8": True}, "calibrate the network"),
}


@pytest.mark.parametrize("what", UNWRITABLE)
def test_what_cannot_be_written_is_refused_and_leaves_nothing(tmp_path, network, what):
    name, options, sentence = UNWRITABLE[what]
    with pytest.raises(InputError, match=sentence):
        write(network, tmp_path / name, **options)
    assert list(tmp_path.iterdir()) == []


def test_a_prototxt_of_another_format_is_refused(tmp_path, network):
    path = write(network, tmp_path / "pets.sqz")
    with pytest.raises(InputError, match=r"a prototxt belongs to a \.caffemodel"):
        read(path, prototxt=tmp_path / "deploy.prototxt")


def test_a_calibrated_network_is_written_in_int8(tmp_path, network):
    folded = read(write(network, tmp_path / "pets.sqz"))
    ready = calibrated(folded, images(4))
    by_sqz = from_network(read(write(ready, tmp_path / "int8.sqz")), backend="onnxruntime")
    assert by_sqz.precision == "int8"
    text = write(ready, tmp_path / "int8.onnx", int8=True).read_bytes()
    assert b"QuantizeLinear" in text
    assert b"QuantizeLinear" not in write(ready, tmp_path / "float.onnx").read_bytes()
