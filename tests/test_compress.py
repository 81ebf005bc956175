"""The one function that compresses, and the verb that calls it: the same file, nothing ignored."""

import dataclasses
import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from squeezekit.cli.verbs import app
from squeezekit.compression.best import USUAL_DIVERGENCE, Best
from squeezekit.compression.deep import Deep
from squeezekit.compression.front import compress
from squeezekit.compression.methods import METHODS, configured, methods_with
from squeezekit.compression.pruning import Prune
from squeezekit.compression.svd import Svd
from squeezekit.compression.work import Work
from squeezekit.config_fields import described
from squeezekit.data.dataset import split
from squeezekit.errors import InputError
from squeezekit.interop import safetensors_file
from squeezekit.interop.weights import write
from squeezekit.models.builder import GraphBuilder, he
from squeezekit.models.catalogue import create
from squeezekit.runtime.classifier import from_network
from squeezekit.sqz.network import Metadata, Preprocessing
from squeezekit.trainable.network import TrainableNetwork
from squeezekit.training.batches import TrainingData
from squeezekit.training.loop import fit
from squeezekit.training.recipe import Augmentation, Recipe

VALUES = {
    "coder": "huffman", "seed": 3, "target_bytes": 9000, "max_drop": 2.0, "max_divergence": 0.1,
    "minutes": 1.0, "epochs": 2, "finetune": "photos", "like": "old.sqz", "mirror": True,
    "curve": "curve.html",
    "calibration_images": 50, "price": 1e-6, "temperature": 2.0, "positions": 50, "sweeps": 1,
    "mantissa_bits": 8, "batch": 10, "density": 0.4, "rounds": 2, "bits": 5, "init": "density",
    "energy": 0.8,
}  # fmt: skip
"""One for each setting, other than what it is without."""


PREPROCESSING = Preprocessing(crop=8, resize=8, resize_mode="warp")


@pytest.fixture(scope="module")
def colours(tmp_path_factory):
    """A network of 5,500 weights that has learnt three colours, and noisy photos of them."""
    root, random = tmp_path_factory.mktemp("colours"), np.random.default_rng(0)
    for part, count in (("train", 40), ("val", 40)):
        for channel, name in enumerate(("red", "green", "blue")):
            (root / part / name).mkdir(parents=True)
            for i in range(count):
                pixels = random.integers(0, 200, (8, 8, 3))
                pixels[..., channel] += random.integers(5, 30)
                Image.fromarray(pixels.astype(np.uint8)).save(root / part / name / f"{i}.png")
    net = GraphBuilder(3, 8, 8)
    x = net.relu("relu1", net.conv("conv1", net.image, 16, 3, pad=1, init=he))
    x = net.relu("relu2", net.conv("conv2", x, 32, 3, pad=1, init=he))
    x = net.conv("conv3", x, 3, 1, init=he)
    x = net.flatten("flatten", net.global_average_pool("pool", x))
    labels = ("blue", "green", "red")
    trained = TrainableNetwork(net.build(x, Metadata("colours", PREPROCESSING, labels), seed=1))
    data = TrainingData(split(root, "train"), PREPROCESSING, threads=1)
    fit(trained, data, Recipe(epochs=12, batch=10, learning_rate=0.02))
    path = root / "net.safetensors"
    safetensors_file.write(trained.to_network(), path)
    return path, root


@pytest.fixture
def tiny(tmp_path, make_images):
    data = make_images({"cat": 8, "dog": 8})
    path = tmp_path / "net.safetensors"
    safetensors_file.write(create("squeezenet-digits", labels=("cat", "dog")), path)
    return path, data


def command(*arguments):
    return CliRunner().invoke(app, ["compress", *map(str, arguments)])


# ------------------------------------------------------------------------- options and settings


def test_every_setting_has_a_value_to_test_with():
    recipes = {"retrain", "centroids"}  # these are no options
    named = {field.name for method in METHODS.values() for field in dataclasses.fields(method)}
    assert set(VALUES) == named - recipes


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", VALUES)
def test_an_option_is_used_or_refused(method, name, tmp_path):
    """All pairs: it changes the setting of its name, or one sentence says where it belongs."""
    option, value = f"--{name.replace('_', '-')}", VALUES[name]
    given = [option] if value is True else [option, value]
    if method in methods_with(name):
        more = {"epochs": 2} if name == "finetune" else {}
        config = configured(method, {name: value, **more})
        assert config.changed() == {name, *more}
        return
    out = tmp_path / "out.sqz"
    result = command("none.sqz", "-o", out, "--method", method, *given)
    assert isinstance(result.exception, InputError)
    sentence = str(result.exception)
    assert sentence.startswith(f"{name} is not a setting of the method {method}: ")
    assert sentence.endswith(f"use it with {' or '.join(methods_with(name))}")
    assert not list(tmp_path.iterdir())


def test_options_reach_the_method_as_they_were_typed(tiny, tmp_path, monkeypatch):
    """Every option of the command line at once, by the names that users type."""
    seen = []
    monkeypatch.setattr(
        "squeezekit.compression.front.compress",
        lambda weights, data, config, **_: seen.append(config) or compress(tiny[0]),
    )
    for method in METHODS.values():
        excluded = {"max_drop", "max_divergence", "price", "minutes", "finetune", "energy"}
        mine = [n for n in VALUES if method.method_name() in methods_with(n) and n not in excluded]
        words = []
        for name in mine:
            words.append(f"--{name.replace('_', '-')}")
            words += [] if VALUES[name] is True else [VALUES[name]]
        words = [tmp_path / "c.html" if word == "curve.html" else word for word in words]
        out = tmp_path / "out.sqz"
        result = command(tiny[0], "-o", out, "--method", method.method_name(), *words)
        assert result.exit_code == 0, result.exception
        assert seen[-1].changed() == set(mine)


def test_the_help_names_every_setting_and_says_what_it_is():
    text = command("--help").stdout
    for name in VALUES:
        assert f"--{name.replace('_', '-')}" in text
    for method in METHODS.values():
        known = described(method)
        assert set(known) == {field.name for field in dataclasses.fields(method)}
        assert all(len(words) > 10 for words in known.values())


def test_other_verbs_do_not_load_the_methods():
    code = "import squeezekit.cli.verbs, sys; print('squeezekit.compression' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
    code = "import squeezekit.compression.methods, sys; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--target-bytes", "9", "--max-drop", "1"], "exclude each other"),
        (["--int8"], "int8 needs photos"),
        (["--target-bytes", "9"], "target_bytes says what to do with photos"),
        (["--curve", "{tmp}/c.html"], "curve says what to do with photos"),
        (["--mirror", "--minutes", "1"], "minutes and mirror say what to do with photos"),
        (["--method", "deep", "--epochs", "1"], "epochs says what to do with photos"),
        (["--method", "svd", "--epochs", "1"], "epochs says what to do with photos"),
        (["--curve", "{tmp}/c.txt"], "must end in .html"),
        (["--labels", "{tmp}/none.txt"], "none.txt"),
    ],
)
def test_what_cannot_be_done_is_refused_before_the_work(tiny, tmp_path, options, sentence):
    before = set(tmp_path.rglob("*"))
    words = [word.replace("{tmp}", str(tmp_path)) for word in options]
    result = command(tiny[0], "-o", tmp_path / "out.sqz", *words)
    assert isinstance(result.exception, InputError)
    assert sentence in str(result.exception)
    assert set(tmp_path.rglob("*")) == before


def test_one_process_compresses_into_a_file(tiny, tmp_path):
    """The second one is told so; nothing of the first is used or removed."""
    work = Work(tmp_path / "out.sqz.work")
    with work.alone():
        work.keep("0" * 16, "json", b"{}")
        second = command(tiny[0], "-o", tmp_path / "out.sqz")
        assert isinstance(second.exception, InputError)
        assert "another squeezekit compresses" in str(second.exception)
        assert work.files()
        third = command(tiny[0], "-o", tmp_path / "other.sqz")
        assert third.exit_code == 0
    work.forget()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "data", "net.safetensors", "other.sqz"
    ]  # fmt: skip


# ---------------------------------------------------------------------------- the same file twice


@pytest.mark.parametrize(
    ("config", "options"),
    [
        (Best(target_bytes=3_000), ["--target-bytes", 3_000]),
        (Best(), []),
        (Deep(density=0.4, epochs=1, coder="huffman"),
         ["--method", "deep", "--density", 0.4, "--epochs", 1, "--coder", "huffman"]),
        (Prune(density=0.4, epochs=1, seed=2), ["--method", "prune", "--density", 0.4,
         "--epochs", 1, "--seed", 2]),
        (Svd(energy=0.9, epochs=1), ["--method", "svd", "--energy", 0.9, "--epochs", 1]),
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_the_function_and_the_command_make_the_same_file(colours, tmp_path, config, options):
    weights, data = colours
    out = tmp_path / "out.sqz"
    result = command(weights, "-o", out, "--data", data, "--int8", "--json", *options)
    assert result.exit_code == 0, result.exception
    small = compress(weights, data, config, int8=True)
    assert small.encoded() == out.read_bytes()
    write(small, tmp_path / "written.sqz")
    assert (tmp_path / "written.sqz").read_bytes() == out.read_bytes()
    told = json.loads(result.stdout)
    assert told == {"report": None, **json.loads(json.dumps(small.as_json()))}
    assert told["file_bytes"] == len(small.encoded())
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "out.sqz", "written.sqz"
    ]  # fmt: skip


def test_without_anything_asked_for_at_most_one_point_is_lost(colours):
    small = compress(*colours, Best())
    first, last = small.stages[0], small.stages[-1]
    assert first.top1 - last.top1 <= 1.0
    assert last.file_bytes < first.file_bytes / 4
    assert "at most 1.0 point" in small.goal
    assert small.network.metadata.provenance[-1] == small.goal
    assert not small.warnings
    held_out = small.evaluation
    assert repr(small) == (
        f"Compressed(colours; {small.file_bytes:,} bytes, "
        f"{first.file_bytes / small.file_bytes:.1f} times smaller than float32; top-1 "
        f"{held_out.top1:.1f}% (before {first.top1:.1f}%) on {held_out.images} held-out photos)"
    )
    assert small._repr_html_().count("<tr>") == 1 + len(small.stages)


def test_photos_without_labels_bound_the_divergence(colours, tmp_path):
    """Any folder, or an array: the outputs stay where they were, measured with ONNX Runtime."""
    weights, data = colours
    (tmp_path / "any").mkdir()
    for i, path in enumerate(sorted(data.glob("train/*/*.png"))):
        Image.open(path).save(tmp_path / "any" / f"{i}.png")
    notes = []
    small = compress(weights, tmp_path / "any", Best(), note=notes.append)
    assert small.evaluation is None
    assert len(notes) == 1 and "no accuracy is measured" in notes[0]  # noqa: PT018
    assert f"{USUAL_DIVERGENCE:g} nats" in small.goal
    train = TrainingData(split(data, "train"), small.network.metadata.preprocessing)
    batches = train.epoch(0, Recipe(epochs=1, batch=10, augmentation=Augmentation(mirror=False)))
    x = torch.cat([train.inputs(pixels) for pixels, _ in batches]).numpy()
    by_array = compress(weights, x, Best())
    original = torch.from_numpy(from_network(small.stages[0].network).logits(x)).log_softmax(1)
    for network in (small.network, by_array.network):
        ours = torch.from_numpy(from_network(network).logits(x)).log_softmax(1)
        divergence = float((original.exp() * (original - ours)).sum(1).mean())
        assert 0.2 * USUAL_DIVERGENCE < divergence < 3 * USUAL_DIVERGENCE
    with pytest.raises(InputError, match="max_drop needs labelled photos"):
        compress(weights, x, Best(max_drop=1.0))


def test_without_photos_nothing_is_lost(colours):
    small = compress(colours[0])
    before, after = small.stages[0].network.values(), small.network.values()
    assert all(np.array_equal(before[name], after[name]) for name in before)
    assert "without loss" in small.goal


def test_a_file_that_knows_nothing_any_more_comes_with_a_warning(colours, tmp_path):
    weights, data = colours
    result = command(weights, "-o", tmp_path / "bad.sqz", "--data", data, "--price", 3e-3, "--json")
    (warning,) = json.loads(result.stdout)["warnings"]
    assert "the accuracy fell from" in warning
    assert f"warning: {warning}" in result.stderr


def test_labels_may_be_named(colours):
    names = ["r", "g", "b"]
    small = compress(colours[0], config=Svd(energy=0.9), labels=names)
    assert list(small.network.metadata.labels) == names
    with pytest.raises(InputError, match="there are 2 labels, but the network has 3 outputs"):
        compress(colours[0], labels=["a", "b"])


# ------------------------------------------------------------------------- after an interruption


def stop_at(task, call):
    """Ctrl-C, when so much of a task has been told."""
    calls = []

    def progress(now, done, total):
        calls.append(now)
        if now == task and calls.count(task) == call:
            raise KeyboardInterrupt

    return progress


@pytest.mark.parametrize(
    ("config", "task", "step"),
    [
        (Best(target_bytes=3_000, epochs=1), "round", 5),
        (Best(target_bytes=3_000, epochs=1), "train", 2),
        (Deep(density=0.4, epochs=2, rounds=2), "retrain 2 of 2", 4),
        (Deep(density=0.4, epochs=1, rounds=2), "centroids", 5),
        (Prune(density=0.4, epochs=1), "retrain 2 of 3", 1),
        (Svd(epochs=2), "train", 4),
    ],
    ids=lambda value: str(value).partition("(")[0],
)
def test_an_interrupted_compression_goes_on_to_the_same_file(colours, tmp_path, config, task, step):
    weights, data = colours
    whole = compress(weights, data, config).encoded()
    work = tmp_path / "work"
    with pytest.raises(KeyboardInterrupt):
        compress(weights, data, config, work=work, progress=stop_at(task, step))
    left = set(work.iterdir()) if work.exists() else set()
    # Other settings take nothing from what is there, and leave it.
    other = dataclasses.replace(config, seed=5)
    without = compress(weights, data, other).encoded()
    with pytest.raises(KeyboardInterrupt):
        compress(weights, data, other, work=work, progress=stop_at(task, step))
    assert left <= (set(work.iterdir()) if work.exists() else set())
    assert compress(weights, data, config, work=work).encoded() == whole
    assert not work.exists()
    assert compress(weights, data, other, work=work).encoded() == without


def test_roundings_that_are_there_are_not_made_again(colours, tmp_path):
    weights, data = colours
    config, work = Best(target_bytes=3_000, epochs=1), tmp_path / "work"
    with pytest.raises(KeyboardInterrupt):
        compress(weights, data, config, work=work, progress=stop_at("train", 2))
    kept = {path.name for path in work.glob("*.sqz")}
    tasks = []

    def until_training(task, done, total):
        tasks.append(task)
        if task == "train":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compress(weights, data, config, work=work, progress=until_training)
    assert kept
    assert "round" not in tasks
    assert "curvature" not in tasks
