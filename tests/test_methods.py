"""The methods of `compress`: each keeps its promise, and another one takes few lines."""

import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from squeezekit.cli.verbs import app
from squeezekit.compression.best import Best
from squeezekit.compression.deep import Deep
from squeezekit.compression.front import compress
from squeezekit.compression.methods import METHODS, named
from squeezekit.compression.prune import prune
from squeezekit.compression.pruning import Prune
from squeezekit.compression.svd import Svd
from squeezekit.compression.work import Work
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


def stages_of(config):
    return config.compressed(NETWORK, None, Work(), silent).list


@pytest.mark.parametrize(
    "config",
    [Deep(density=0.3, bits=4), Prune(density=0.3), Svd(energy=0.6), Svd(target_bytes=120_000)],
)
def test_each_method_ends_in_a_smaller_file(config):
    stages = stages_of(config)
    assert stages[0].name == "float32"
    last = stages[-1]
    assert last.file_bytes == len(container.encode(last.network, config.coder))
    assert last.file_bytes < 0.9 * stages[0].file_bytes
    if isinstance(config, Svd) and config.target_bytes is not None:
        assert len(container.encode(last.network, "dense")) <= config.target_bytes


def test_svd_is_five_times_smaller_where_nothing_is_asked_for():
    first, factored, _ = stages_of(Svd())
    assert 5 <= first.file_bytes / factored.file_bytes < 5.7


def test_pruning_keeps_floats():
    last = stages_of(Prune(density=0.3))[-1].network
    dense = fold_batch_norm(NETWORK)
    for name in weight_names(last):
        kept = last.tensors[name] != 0
        assert np.array_equal(last.tensors[name][kept], tensor_values(dense.tensors[name])[kept])


def test_methods_are_known_by_name():
    assert {name: named(name) for name in METHODS} == METHODS
    with pytest.raises(InputError, match="did you mean svd"):
        named("sdv")
    with pytest.raises(InputError, match="use best, deep, prune, svd"):
        named("magic")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Svd(energy=0.5, target_bytes=9), "energy and target_bytes exclude each other"),
        (lambda: Svd(energy=2.0), "at most 1, not 2"),
        (lambda: Prune(density=0.0), "density must be above 0"),
        (lambda: Prune(density={"a": 1.5}), "the density of a must be above 0"),
        (lambda: Prune(epochs=-1), "epochs must be at least 0"),
        (lambda: Deep(bits=40), "bits must be 1 to 16, not 40"),
        (lambda: Deep(bits={"a": 0}), "bits must be 1 to 16, not 0"),
        (lambda: Deep(init="middle"), "init must be linear or density or random"),
        (lambda: Best(target_bytes=9, max_drop=1.0), "target_bytes and max_drop exclude"),
        (lambda: Best(price=1e-7, max_divergence=0.1), "max_divergence and price exclude"),
        (lambda: Best(minutes=1, epochs=1), "minutes and epochs exclude each other"),
        (lambda: Best(finetune="photos"), "by minutes or epochs"),
        (lambda: Best(target_bytes=0), "target_bytes must be at least 1"),
        (lambda: Best(coder="morse"), "no coder 'morse'"),
        (lambda: Best(seed=-1), "seed must be at least 0"),
        (lambda: stages_of(Prune()), "needs photos to retrain on, or a density"),
        (lambda: stages_of(Prune(density=0.3, epochs=3)), "epochs says what to do with photos"),
        (lambda: stages_of(Best(target_bytes=9)), "target_bytes says what to do with photos"),
    ],
)
def test_wrong_wishes_are_one_sentence(make, message):
    with pytest.raises(InputError, match=message) as found:
        make()
    assert "--" not in str(found.value)


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_a_string_where_a_number_belongs_is_one_sentence(method):
    """Strings are for the command line to read; a library that compared them would trip."""
    checked = 0
    for field in dataclasses.fields(method):
        if not re.search(r"\b(int|float)\b", str(field.type)):
            continue
        try:
            method(**{field.name: "0.3"})
        except InputError as error:
            assert re.search(rf"{field.name}.* must be a number, not '0.3'", str(error))  # noqa: PT017
            checked += 1
    assert checked


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
    config = Deep().fitting(network, retrains=True)
    assert config.bits["conv3.weight"] == 8 and config.bits["fc7.weight"] == 5  # noqa: PT018
    sizes = {name: network.tensors[name].size for name in weight_names(network)}
    left = sum(config.density[name] * size for name, size in sizes.items())
    assert left == pytest.approx(6.7e6, rel=0.02)
    assert Deep(bits=4, density=0.2).fitting(network, retrains=True).density == 0.2
    assert Deep().fitting(network, retrains=False).density is None


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
    code = re.search(r"```python\n(@dataclass.*?class Coarse.*?)```", text, re.DOTALL)[1]
    space = {}
    imports = re.search(r"```python\n(from .*?)```", text, re.DOTALL)[1]
    exec(imports + code, space)
    assert len(code.splitlines()) <= 16
    small = compress(NETWORK, config=space["Coarse"](mantissa_bits=4))
    assert small.file_bytes < 0.5 * small.stages[0].file_bytes
    assert "coarse" not in METHODS
