"""safetensors files: networks come back whole, and damage is one sentence."""

import dataclasses
import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from squeezekit.errors import InputError, UnsupportedError
from squeezekit.interop import safetensors_file
from squeezekit.models.squeezenet import digits, squeezenet
from squeezekit.sqz.network import SharedTensor


@pytest.fixture
def file(tmp_path):
    return tmp_path / "model.safetensors"


def test_networks_come_back_whole(file):
    network = squeezenet(digits(), labels=tuple("0123456789"), seed=1)
    rounded = np.round(network.values()["conv1.weight"], 1)
    shared = SharedTensor.from_values(rounded)
    network = network.with_tensors({"conv1.weight": shared})
    network = dataclasses.replace(network, metadata=network.metadata.with_step("☃"))
    safetensors_file.write(network, file)
    back = safetensors_file.read(file)
    assert back.graph == network.graph
    assert back.metadata == network.metadata
    assert list(back.tensors) == list(network.tensors)
    assert all(np.array_equal(back.values()[n], v) for n, v in network.values().items())
    stored = back.tensors["conv1.weight"]
    assert isinstance(stored, SharedTensor)
    assert np.array_equal(stored.levels, shared.levels)
    assert np.array_equal(stored.centroids, shared.centroids)
    assert isinstance(back.tensors["conv8.weight"], np.ndarray)


def test_the_same_bytes_each_time(file):
    """safetensors itself writes the parts of its metadata in any order."""
    network = squeezenet(digits(), labels=tuple("0123456789"), seed=1)
    written = set()
    for _ in range(12):
        safetensors_file.write(network, file)
        written.add(file.read_bytes())
    assert len(written) == 1
    header = int.from_bytes(file.read_bytes()[:8], "little")
    assert header % 8 == 0  # tensors are aligned


def test_other_programs_read_the_weights(file):
    network = squeezenet(digits())
    safetensors_file.write(network, file)
    values = load_file(file)
    assert values.keys() == network.tensors.keys()
    assert np.array_equal(values["conv8.weight"], network.tensors["conv8.weight"])


def test_unknown_state_dicts(file):
    save_file({"layer.weight": np.zeros((2, 2), np.float32)}, file)
    with pytest.raises(UnsupportedError, match="export other networks to ONNX"):
        safetensors_file.read(file)


def test_integers_are_no_weights(file):
    save_file({"layer.weight": np.zeros((2, 2), np.int8)}, file)
    with pytest.raises(UnsupportedError, match="is int8, not float32"):
        safetensors_file.read(file)


def test_damaged_files(file):
    network = squeezenet(digits())
    safetensors_file.write(network, file)
    good = file.read_bytes()
    for data in (b"", b"no such thing", good[:-1], good[:1000], good + b"!"):
        file.write_bytes(data)
        with pytest.raises(InputError, match="is not a safetensors file, or damaged"):
            safetensors_file.read(file)
    with pytest.raises(InputError, match="there is no such file"):
        safetensors_file.read(file.parent / "missing.safetensors")


@pytest.mark.parametrize(
    "damage",
    [
        lambda header, values: header.update({"squeezekit.graph": "not base64!"}),
        lambda header, values: header.update({"squeezekit.graph": "AAAA"}),
        lambda header, values: header.update({"squeezekit.metadata": "{}"}),
        lambda header, values: header.pop("squeezekit.metadata"),
        lambda header, values: header.update({"squeezekit.shared": "["}),
        lambda header, values: header.update({"squeezekit.shared": json.dumps(["nothing"])}),
        lambda header, values: values.pop("conv1.weight"),
    ],
)
def test_damaged_headers(damage, file):
    safetensors_file.write(squeezenet(digits()), file)
    data = file.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])["__metadata__"]
    values = load_file(file)
    damage(header, values)
    save_file(values, file, header)
    with pytest.raises(InputError, match="its header is damaged"):
        safetensors_file.read(file)


def test_writing_to_a_missing_folder(tmp_path):
    with pytest.raises(InputError, match="cannot be written"):
        safetensors_file.write(squeezenet(digits()), tmp_path / "missing" / "x.safetensors")
