"""The methods of `compress`: each keeps its promise, and another one takes few lines."""

import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from squeezekit.cli.verbs import app
from squeezekit.compression import deep, methods
from squeezekit.compression.deep import deep_config
from squeezekit.compression.methods import METHODS, Asked, named
from squeezekit.compression.prune import prune
from squeezekit.errors import InputError
from squeezekit.interop import safetensors_file
from squeezekit.models.alexnet import AlexNetConfig, alexnet
from squeezekit.models.catalogue import create
from squeezekit.models.fold import fold_batch_norm
from squeezekit.progress import silent
from squeezekit.sqz import container
from squeezekit.sqz.network import tensor_values
from squeezekit.sqz.nodes import weight_names

NETWORK = create("squeezenet-digits", labels=("cat", "dog"))


@pytest.mark.parametrize(
    ("name", "asked"),
    [
        ("deep", Asked(density="0.3", bits=4)),
        ("prune", Asked(density="0.3")),
        ("svd", Asked(energy=0.6)),
        ("svd", Asked(target_bytes=120_000)),
    ],
)
def test_each_method_ends_in_a_smaller_file(name, asked):
    stages = named(name)(NETWORK, asked, None, silent)
    assert stages[0].name == "float32"
    last = stages[-1]
    assert last.file_bytes == len(container.encode(last.network, asked.coder))
    assert last.file_bytes < 0.9 * stages[0].file_bytes
    if asked.target_bytes is not None:
        assert len(container.encode(last.network, "dense")) <= asked.target_bytes


def test_svd_is_five_times_smaller_where_nothing_is_asked_for():
    first, factored, _ = named("svd")(NETWORK, Asked(), None, silent)
    assert 5 <= first.file_bytes / factored.file_bytes < 5.7


def test_pruning_keeps_floats():
    last = named("prune")(NETWORK, Asked(density="0.3"), None, silent)[-1].network
    dense = fold_batch_norm(NETWORK)
    for name in weight_names(last):
        kept = last.tensors[name] != 0
        assert np.array_equal(last.tensors[name][kept], tensor_values(dense.tensors[name])[kept])


@pytest.mark.parametrize(
    ("name", "asked", "message"),
    [
        ("sdv", Asked(), "did you mean svd"),
        ("magic", Asked(), "use best, deep, prune, svd"),
        ("prune", Asked(), "needs --data to retrain on, or a --density"),
        ("svd", Asked(energy=0.5, target_bytes=9), "ask for one of them"),
        ("svd", Asked(energy=2.0), "at most 1, not 2"),
    ],
)
def test_wrong_wishes_are_one_sentence(name, asked, message):
    with pytest.raises(InputError, match=message):
        named(name)(NETWORK, asked, None, silent)


@pytest.mark.parametrize("name", ["prune", "svd"])
def test_the_command_retrains_and_measures(make_images, tmp_path, name):
    data = make_images({"cat": 10, "dog": 10})
    safetensors_file.write(NETWORK, tmp_path / "net.safetensors")
    sqz = tmp_path / "small.sqz"
    result = CliRunner().invoke(
        app,
        ["compress", str(tmp_path / "net.safetensors"), "-o", str(sqz), "--data", str(data),
         "--method", name, "--epochs", "1", "--json"],
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    content = json.loads(result.stdout)
    assert content["file_bytes"] == sqz.stat().st_size
    assert all(stage["top1"] is not None for stage in content["stages"])


def test_alexnet_gets_the_densities_and_bits_of_its_paper():
    """Han et al. 2016, table 4: 6.7 M of 61 M weights are left, 11%."""
    network = create("alexnet")
    config = deep_config(network)
    assert config.densities == deep.alexnet().densities
    assert config.bits["conv3.weight"] == 8 and config.bits["fc7.weight"] == 5  # noqa: PT018
    sizes = {name: network.tensors[name].size for name in weight_names(network)}
    left = sum(config.densities[name] * size for name, size in sizes.items())
    assert left == pytest.approx(6.7e6, rel=0.02)
    assert deep_config(network, bits=4, density="0.2").densities == 0.2
    assert deep_config(network, retrain=False).densities is None


def test_alexnet_with_batch_norms_folds_to_the_same_layers():
    config = AlexNetConfig(classes=3, input_size=67, hidden=16)
    plain = alexnet(config)
    modern = fold_batch_norm(alexnet(dataclasses.replace(config, batch_norm=True)))
    assert {n: t.shape for n, t in modern.tensors.items()} == {
        n: t.shape for n, t in plain.tensors.items()
    }
    assert modern.metadata.preprocessing.color == "RGB"
    assert prune(modern, {"fc6.weight": 0.1}).nonzero < modern.nonzero


def test_the_example_in_contributing_is_a_method():
    text = (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text(encoding="utf-8")
    code = re.search(r"```python\n(def coarse.*?)```", text, re.DOTALL)[1]
    assert len(code.splitlines()) == 8
    from squeezekit.compression.share import with_mantissa

    space = {**vars(methods), "with_mantissa": with_mantissa}
    exec(code, space)
    stages = space["coarse"](NETWORK, Asked(), None, silent)
    assert stages[-1].file_bytes < 0.5 * stages[0].file_bytes
    assert "coarse" not in METHODS
