"""Sensitivity of layers: the curves are those of pruning each alone, and densities follow them."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from typer.testing import CliRunner

from squeezekit.cli.verbs import app
from squeezekit.compression.prune import densities, prune
from squeezekit.compression.sensitivity import Sensitivity, sensitivity
from squeezekit.errors import InputError
from squeezekit.interop import safetensors_file
from squeezekit.models.catalogue import create
from squeezekit.sqz.network import tensor_values


def sparsity_measure(network):
    """An "accuracy" that only conv8 matters for: the share of its weights that is left."""
    values = tensor_values(network.tensors["conv8.weight"])
    return SimpleNamespace(top1=100 * np.count_nonzero(values) / values.size, images=7)


def test_each_layer_is_pruned_alone():
    network = create("squeezenet-digits")
    found = sensitivity(network, sparsity_measure, (0.2, 0.6))
    assert found.baseline == 100
    for name, curve in found.curves.items():
        assert [density for density, _ in curve] == [0.6, 0.2]
        expected = [sparsity_measure(prune(network, {name: d})).top1 for d in (0.6, 0.2)]
        assert [top1 for _, top1 in curve] == expected
    densities = found.densities(max_drop=20)
    assert densities.pop("conv8.weight") == pytest.approx(0.8, abs=0.01)
    assert set(densities.values()) == {0.2}


def test_a_drop_in_between_is_interpolated_and_a_recovery_not_trusted():
    found = Sensitivity(90.0, 1, {"a": [(0.5, 88.0), (0.1, 90.0)], "b": [(0.5, 90.0), (0.1, 80.0)]},
                        {"a": 1, "b": 1})  # fmt: skip
    densities = found.densities(1.0)
    assert densities["a"] == pytest.approx(0.75)  # half way between 90 and 88, and never below
    assert densities["b"] == pytest.approx(0.5 - 0.1 * 0.4)
    assert found.densities(50.0) == {"a": 0.1, "b": 0.1}
    with pytest.raises(InputError, match="negative"):
        found.densities(-1)


def test_a_lost_layer_is_not_measured_further():
    calls = []

    def measure(network):
        calls.append(network)
        return SimpleNamespace(top1=50.0 if len(calls) == 1 else 1.0, images=1)

    found = sensitivity(create("squeezenet-digits"), measure)
    assert len(calls) == 1 + len(found.curves)
    assert {top1 for curve in found.curves.values() for _, top1 in curve} == {1.0}


@pytest.mark.parametrize("densities", [(), (0.5, 1.0), (0.0,)])
def test_wrong_densities_are_errors(densities):
    with pytest.raises(InputError, match="above 0 and below 1"):
        sensitivity(create("squeezenet-digits"), sparsity_measure, densities)


def test_the_command_feeds_compress(make_images, tmp_path):
    data = make_images({"cat": 5, "dog": 5})
    network = create("squeezenet-digits", labels=("cat", "dog"))
    safetensors_file.write(network, tmp_path / "net.safetensors")
    arguments = ["sensitivity", str(tmp_path / "net.safetensors"), "--data", str(data)]
    out, page = tmp_path / "densities.json", tmp_path / "page.html"
    result = CliRunner().invoke(app, [*arguments, "-o", str(out), "--report", str(page), "--json"])
    assert result.exit_code == 0, result.output
    content = json.loads(out.read_text())
    assert json.loads(result.stdout)["densities"] == content["densities"]
    assert "Which layers" in page.read_text(encoding="utf-8")
    assert densities(str(out)) == content["densities"]
    assert "Chosen" in CliRunner().invoke(app, arguments).stdout
    wrong = CliRunner().invoke(app, [*arguments, "-o", str(tmp_path / "d.txt")])
    assert "must end in .json" in str(wrong.exception)


@pytest.mark.parametrize("text", ["[1]", "{", '{"densities": 3}', '{"conv1.weight": "x"}'])
def test_a_file_without_densities_is_an_error(tmp_path, text):
    (tmp_path / "d.json").write_text(text)
    with pytest.raises(InputError, match="does not hold densities"):
        densities(str(tmp_path / "d.json"))
