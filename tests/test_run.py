"""Training runs: the network that a recipe asks for, and what reaches the user."""

import dataclasses
import json
import math
import sys
import types

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from squeezekit.cli.verbs import app
from squeezekit.errors import InputError
from squeezekit.interop.weights import load_network
from squeezekit.models.fold import fold_batch_norm
from squeezekit.models.squeezenet import SqueezeNetConfig, squeezenet
from squeezekit.runtime.classifier import from_network
from squeezekit.sqz import container
from squeezekit.sqz.graph import parse
from squeezekit.sqz.network import CAFFE, SharedTensor, share_equal_values
from squeezekit.training import recipe as recipes
from squeezekit.training.recipe import Augmentation
from squeezekit.training.run import train_run
from squeezekit.training.start import start_of

TINY = SqueezeNetConfig(
    name="tiny", classes=3, input_size=24, conv1_filters=12, conv1_kernel=3, fires=2,
    pool_after=("conv1", "fire2"), base_e=16, incr_e=8, freq=1, squeeze_ratio=0.5, batch_norm=True,
    dropout=0.1,
)  # fmt: skip


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    """120 images of one of three textures, which neither colour nor brightness gives away."""
    root = tmp_path_factory.mktemp("shapes")
    random = np.random.default_rng(0)
    rows, columns = np.mgrid[:28, :28]
    patterns = {"across": rows, "down": columns, "both": rows + columns}
    for name, place in patterns.items():
        (root / name).mkdir()
        for i in range(40):
            wave = np.sin(place * 1.2 + random.uniform(0, 6))[..., None]
            colour = random.uniform(60, 190, 3) + random.uniform(40, 60, 3) * wave
            pixels = (colour + random.normal(0, 8, (28, 28, 3))).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(root / name / f"{i}.png")
    return root


def ops(network):
    return {node.op_type for node in parse(network.graph).graph.node}


def test_modern_trains_batch_norms_that_fold_away(shapes):
    network = start_of(shapes, recipes.modern(), model="squeezenet-1.1").network
    assert "BatchNormalization" in ops(network)
    folded = fold_batch_norm(network)
    assert "BatchNormalization" not in ops(folded)
    plain = start_of(shapes, recipes.plain(), model="squeezenet-1.1").network
    assert folded.tensors.keys() == plain.tensors.keys()
    relus = [node.name for node in parse(folded.graph).graph.node if node.op_type == "Relu"]
    assert "conv10.relu" not in relus
    assert "BatchNormalization" not in ops(plain)
    image = np.random.default_rng(0).standard_normal((1, 3, 224, 224)).astype(np.float32)
    logits = [from_network(net).logits(image) for net in (network, folded)]
    assert np.allclose(*logits, atol=1e-4)


@pytest.mark.parametrize("model", ["squeezenet-1.0", "squeezenet-1.1", "squeezenet-1.0-complex"])
def test_paper_prepares_images_as_caffe_and_starts_from_its_weights(shapes, model):
    network = start_of(shapes, recipes.paper(), model=model).network
    assert network.metadata.preprocessing == CAFFE
    assert network.metadata.labels == ("across", "both", "down")
    variances = []
    for name, values in network.values().items():
        if name.endswith(".bias"):
            assert not values.any()
        elif name.startswith("conv10"):
            assert values.std() == pytest.approx(0.01, rel=0.05)
        else:
            bound = np.sqrt(3 / values[0].size)
            assert 0.95 * bound < np.abs(values).max() <= bound
            variances.append(values.var() * values[0].size)
            assert variances[-1] == pytest.approx(1, abs=0.1)  # few weights, hence not nearer
    assert np.mean(variances) == pytest.approx(1, abs=0.01)
    assert recipes.paper().augmentation == Augmentation(crop=True, mirror=True)


def test_a_network_without_the_variant_is_refused(shapes):
    with pytest.raises(InputError, match="squeezenet-digits takes grey images"):
        start_of(shapes, recipes.paper(), model="squeezenet-digits")


def test_modern_learns_from_scratch(shapes, tmp_path):
    network = squeezenet(TINY, labels=("across", "both", "down"))
    recipe = dataclasses.replace(
        recipes.modern(), epochs=12, batch=16, warmup_epochs=1, ema=0.9, precision="float32",
        augmentation=Augmentation(resized_crop=0.5, randaugment=1, mirror=False, magnitude=3.0),
    )  # fmt: skip
    run = train_run(network, shapes, tmp_path / "run", recipe)
    assert run.results[-1].loss < 0.7 * np.log(3)
    assert run.evaluation.top1 > 60  # by chance 33


def test_the_user_is_told_of_a_run_that_is_stuck(shapes, tmp_path):
    network = squeezenet(
        dataclasses.replace(TINY, batch_norm=False), labels=("across", "both", "down")
    )
    dead = {name: np.zeros_like(values) for name, values in network.values().items()}
    recipe = dataclasses.replace(
        recipes.plain(),
        epochs=3,
        warmup_epochs=0,
        learning_rate=1e-9,
        precision="float32",
        batch=48,
    )
    notes = []
    train_run(
        network.with_tensors(dead), shapes, tmp_path / "run", recipe, note=notes.append
    )  # fmt: skip
    stuck, unsure = notes
    assert "training is stuck" in stuck
    assert "batch norm" in stuck
    assert "24 held-out photos are too few" in unsure
    assert "training is stuck" in (tmp_path / "run" / "results.csv").read_text()


LOGGED = ("loss", "learning_rate", "train_top1", "val_top1")


def logged_run(shapes, out):
    """Two epochs, and the same again as a run that is resumed at its end; gives its results."""
    network = squeezenet(TINY, labels=("across", "both", "down"))
    recipe = dataclasses.replace(recipes.plain(), epochs=2, precision="float32")
    for _ in range(2):
        run = train_run(network, shapes, out, recipe, resume=True)
    return run.results


def test_each_epoch_is_logged_where_tensorboard_is_installed(shapes, tmp_path, monkeypatch):
    """By a stand-in for its writer, which the real one's test needs installed."""
    writers = []

    class SummaryWriter:
        def __init__(self, folder):
            self.folder, self.scalars, self.closed = folder, [], False
            writers.append(self)

        def add_scalar(self, name, value, step):
            self.scalars.append((name, value, step))

        def flush(self):
            pass

        def __enter__(self):
            return self

        def __exit__(self, *error):
            self.closed = True

    module = types.ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = SummaryWriter
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    results = logged_run(shapes, tmp_path / "run")
    for writer in writers:
        assert writer.folder == str(tmp_path / "run" / "tensorboard")
        assert writer.closed
        assert writer.scalars == [
            (name, getattr(result, name), result.epoch) for result in results for name in LOGGED
        ]
    assert len(writers) == 2


def test_tensorboard_reads_what_is_logged(shapes, tmp_path):
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    results = logged_run(shapes, tmp_path / "run")
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    assert set(events.Tags()["scalars"]) == set(LOGGED)
    for name in LOGGED:
        found = [(event.step, event.value) for event in events.Scalars(name)]
        assert [step for step, _ in found] == [1, 2]
        expected = [getattr(result, name) for result in results]
        assert [value for _, value in found] == pytest.approx(expected, rel=1e-6)


def test_a_network_of_the_same_labels_keeps_its_last_layer(shapes, tmp_path):
    network = squeezenet(TINY, labels=("across", "both", "down"))
    recipe = dataclasses.replace(recipes.plain(), epochs=0)
    train_run(network, shapes, tmp_path / "run", recipe)
    again = start_of(shapes, recipe, init=load_network(tmp_path / "run")).network
    for name, values in network.values().items():
        assert np.array_equal(again.values()[name], values)


def test_a_pruned_network_with_shared_weights_trains_free_but_keeps_its_zeros(shapes, tmp_path):
    network = squeezenet(TINY, labels=("a", "b", "c"))
    name = "fire2.expand3x3.weight"
    values = np.random.default_rng(0).choice([-0.2, 0.0, 0.0, 0.1], network.tensors[name].shape)
    filters = {n: t for n, t in network.tensors.items() if t.ndim == 4}
    pruned = {n: t * (np.abs(t) > 0.5 * np.abs(t).max()) for n, t in filters.items()}
    start = network.with_tensors({**pruned, name: values.astype(np.float32)})
    start = share_equal_values(start)
    assert isinstance(start.tensors[name], SharedTensor)
    (tmp_path / "start.sqz").write_bytes(container.encode(start))
    options = (
        "--set",
        "epochs=1",
        "--set",
        "keep=last",
        "--set",
        "batch=32",
        "--set",
        "precision=float32",
        "--json",
    )
    files = ("--data", shapes, "--init", tmp_path / "start.sqz", "--out", tmp_path / "run")
    done = command("train", *files, *options)
    assert done.exit_code == 0
    assert "its zeros stay zero" in done.stderr
    after = load_network(tmp_path / "run").values()[name]
    assert np.array_equal(after == 0, values == 0)
    assert len(np.unique(after)) > 3


def test_weights_that_know_the_classes_teach_what_becomes_of_them(shapes, tmp_path):
    (tmp_path / "start.sqz").write_bytes(
        container.encode(squeezenet(TINY, labels=("across", "both", "down")))
    )
    options = ("--set", "epochs=1", "--set", "batch=32", "--set", "precision=float32", "--json")
    files = ("--data", shapes, "--init", tmp_path / "start.sqz", "--out")
    told = {}
    for share in ("0", "1"):
        out = tmp_path / share
        told[share] = command("train", *files, out, *options, "--set", f"distillation={share}")
        assert told[share].exit_code == 0
    assert "stays the teacher" in told["1"].stderr
    after = {share: load_network(tmp_path / share).values() for share in told}
    assert any(not np.array_equal(after["0"][name], after["1"][name]) for name in after["0"])

    (tmp_path / "other.sqz").write_bytes(container.encode(squeezenet(TINY, labels=("a", "b", "c"))))
    files = ("--data", shapes, "--init", tmp_path / "other.sqz", "--out", tmp_path / "other")
    assert "teacher" not in command("train", *files, *options).stderr


def command(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)


def test_the_command_line_takes_each_recipe_to_its_end(shapes, tmp_path):
    """Batch norms do not reach a .sqz, and dense-sparse-dense leaves a run a phase."""
    short = ("--set", "epochs=1", "--set", "batch=32", "--set", "precision=float32")
    options = ("--data", shapes, *short, "--json", "--out")
    digits = ("train", "--model", "squeezenet-digits", "--recipe", "modern")
    assert command(*digits, *options, tmp_path / "run").exit_code == 0
    assert "BatchNormalization" in ops(load_network(tmp_path / "run"))
    assert command("export", tmp_path / "run", tmp_path / "run.sqz").exit_code == 0
    assert "BatchNormalization" not in ops(load_network(tmp_path / "run.sqz"))

    dsd = ("train", "--init", tmp_path / "run", "--recipe", "dsd")
    done = command(*dsd, *options, tmp_path / "dsd")
    assert done.exit_code == 0
    assert json.loads(done.stdout)["run"] == str(tmp_path / "dsd" / "re-dense")
    sparse, redense = (
        load_network(tmp_path / "dsd" / phase).values()["fire7.expand3x3.weight"]
        for phase in ("sparse", "re-dense")
    )
    assert np.count_nonzero(sparse) == math.ceil(sparse.size / 3)
    assert np.count_nonzero(redense) > 0.9 * sparse.size

    distill = ("train", "--init", tmp_path / "run", "--recipe", "distill")
    done = command(*distill, "--teacher", tmp_path / "run", *options, tmp_path / "distilled")
    assert done.exit_code == 0
    with pytest.raises(InputError, match="starts from trained weights"):
        command("train", "--recipe", "dsd", *options, tmp_path / "none")


def test_predict_takes_the_folder_of_a_run(shapes, tmp_path):
    out, sqz = tmp_path / "run", tmp_path / "run.sqz"
    network = squeezenet(TINY, labels=("across", "both", "down"))
    recipe = dataclasses.replace(recipes.plain(), epochs=0, precision="float32")
    train_run(network, shapes, out, recipe, title="my patterns")
    assert load_network(out).metadata.title == "my patterns"
    assert CliRunner().invoke(app, ["export", str(out), str(sqz)]).exit_code == 0
    answers = []
    for weights in (out, out / "weights.safetensors", sqz):
        arguments = ["predict", str(weights), str(shapes / "across" / "0.png"), "--json"]
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 0, result.output
        answers.append(json.loads(result.stdout)["predictions"][0]["top"])
    for answer in answers[:2]:
        assert [top["label"] for top in answer] == [top["label"] for top in answers[2]]
        assert [top["probability"] for top in answer] == pytest.approx(
            [top["probability"] for top in answers[2]], abs=1e-5
        )


def test_training_from_scratch_takes_batch_norms_unless_told_otherwise(shapes, tmp_path):
    """A network without them may learn nothing at all from a few hundred photos."""
    options = ("--model", "squeezenet-1.1", "--set", "epochs=0", "--json")
    for name, more in (("default", ()), ("plain", ("--recipe", "plain"))):
        done = command("train", "--data", shapes, "--out", tmp_path / name, *options, *more)
        assert done.exit_code == 0
        has_norms = "BatchNormalization" in ops(load_network(tmp_path / name))
        assert has_norms == (name == "default")
