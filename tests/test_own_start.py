"""What training starts from by itself, starting again where nothing is learned, and minutes."""

import dataclasses
import json
import time

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import squeezekit as sk
from squeezekit.cli.verbs import app
from squeezekit.errors import InputError
from squeezekit.interop import pretrained, safetensors_file
from squeezekit.models.catalogue import create
from squeezekit.models.input_size import with_input_size
from squeezekit.models.squeezenet import SqueezeNetConfig, squeezenet
from squeezekit.runtime.classifier import from_network
from squeezekit.runtime.stated import Stated
from squeezekit.training import recipe as recipes
from squeezekit.training.at_hand import trained_at_hand
from squeezekit.training.pace import Pace
from squeezekit.training.recipe import Augmentation
from squeezekit.training.run import Cure, train_run
from squeezekit.training.stuck import cured

TINY = SqueezeNetConfig(
    name="tiny", classes=2, input_size=24, conv1_filters=12, conv1_kernel=3, fires=2,
    pool_after=("conv1", "fire2"), base_e=16, incr_e=8, freq=1, squeeze_ratio=0.5, dropout=0.0,
)  # fmt: skip
QUICK = dataclasses.replace(
    recipes.plain(), epochs=8, batch=16, precision="float32", warmup_epochs=0,
    augmentation=Augmentation(crop=False, mirror=False),
)  # fmt: skip


@pytest.fixture
def stripes(tmp_path):
    """80 images of stripes that go down or across, in a folder of their own."""
    random = np.random.default_rng(0)
    places = dict(zip(("across", "down"), np.mgrid[:28, :28], strict=True))
    for name, place in places.items():
        (tmp_path / "shop" / "photos" / name).mkdir(parents=True)
        for i in range(40):
            wave = 128 + 90 * np.sin(place * 1.2 + random.uniform(0, 6))
            pixels = (wave + random.normal(0, 8, (28, 28))).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).convert("RGB").save(
                tmp_path / "shop" / "photos" / name / f"{i}.png"
            )
    return tmp_path / "shop" / "photos"


def made(**changes):
    return squeezenet(dataclasses.replace(TINY, **changes), labels=("across", "down"))


def trained(name="many", classes=120):
    """A network of so many classes, as a stranger's would be."""
    return squeezenet(dataclasses.replace(TINY, name=name, classes=classes), seed=3)


# --------------------------------------------------------------------------------- starting again


def test_a_run_that_is_stuck_starts_again_once_and_learns(stripes, tmp_path):
    """All ReLUs are dead, so no gradient ever comes through: only other weights can help."""
    dead = made().with_tensors({k: np.zeros_like(v) - 1 for k, v in made().values().items()})
    cure = Cure(cured(QUICK, new=True), lambda: made(batch_norm=True, final_relu=False))
    notes = []
    run = train_run(dead, stripes, tmp_path / "run", QUICK, cure=cure, note=notes.append)
    assert [note for note in notes if "starts again" in note] == [
        "nothing was learned: it starts again, with batch norms and a warm-up of 2 epochs"
    ]
    assert run.evaluation.top1 > 80  # by chance 50
    assert len(run.results) == QUICK.epochs
    written = json.loads((tmp_path / "run" / "recipe.json").read_text())
    assert (written["variant"], run.recipe.variant) == ("modern", "modern")
    lines = (tmp_path / "run" / "results.csv").read_text().splitlines()
    assert len(lines) == 1 + QUICK.epochs


def test_a_run_that_started_again_is_resumed_as_what_it_became(stripes, tmp_path):
    dead = made().with_tensors({k: np.zeros_like(v) - 1 for k, v in made().values().items()})
    cure = Cure(cured(QUICK, new=True), lambda: made(batch_norm=True, final_relu=False))
    whole = train_run(dead, stripes, tmp_path / "whole", QUICK, cure=cure)
    steps = 0

    def interrupt(task, done, total):
        nonlocal steps
        steps += task == "train"
        if task == "train" and steps == 4 * 3 + 4 * 5:  # in the fifth epoch after the restart
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_run(dead, stripes, tmp_path / "cut", QUICK, cure=cure, progress=interrupt)
    notes = []
    run = train_run(
        dead, stripes, tmp_path / "cut", QUICK, cure=cure, resume=True, note=notes.append
    )
    assert "this run was stuck, and has started again" in notes
    for name, values in whole.network.values().items():
        np.testing.assert_array_equal(values, run.network.values()[name])


def test_a_second_time_it_goes_on_and_warns(stripes, tmp_path):
    def dead():
        return made().with_tensors({k: np.zeros_like(v) - 1 for k, v in made().values().items()})

    cure = Cure(cured(QUICK, new=False), dead)
    notes = []
    train_run(dead(), stripes, tmp_path / "run", QUICK, cure=cure, note=notes.append)
    assert sum("starts again" in note for note in notes) == 1
    assert any("training is stuck" in note for note in notes)


@pytest.mark.parametrize("variant", ["plain", "modern", "caffe"])
@pytest.mark.parametrize("new", [True, False])
def test_a_cure_is_gentler_and_changes_only_new_networks(variant, new):
    recipe = dataclasses.replace(QUICK, variant=variant, learning_rate=0.5)
    cure = cured(recipe, new=new)
    assert cure.learning_rate < recipe.learning_rate
    assert cure.warmup_epochs > recipe.warmup_epochs
    assert (cure.variant != variant) == (new and variant == "plain")
    assert cure.epochs == recipe.epochs


# ------------------------------------------------------------------------------------------ at hand


def test_a_file_beside_the_photos_is_started_from(stripes, tmp_path):
    safetensors_file.write(trained(), stripes.parent / "many.safetensors")
    notes = []
    net = sk.train(stripes, tmp_path / "run", epochs=1, precision="float32", note=notes.append)
    assert any(
        "many.safetensors, beside the photos" in note and "--recipe scratch" in note
        for note in notes
    )
    assert net.outputs == 2
    assert json.loads((tmp_path / "run" / "recipe.json").read_text())["fit_head"] is True
    assert not any("began at random" in note for note in notes)


def test_what_is_asked_for_comes_before_what_is_at_hand(stripes, tmp_path, monkeypatch):
    safetensors_file.write(trained(), stripes.parent / "many.safetensors")
    for i, asked in enumerate(
        ({"recipe": "scratch"}, {"model": "squeezenet-1.1"}, {"variant": "modern"})
    ):
        notes = []
        sk.train(stripes, tmp_path / f"{i}", **asked, epochs=0, note=notes.append)
        assert not any("many.safetensors" in note for note in notes), asked


def test_only_networks_of_many_classes_of_colour_images_count(stripes):
    safetensors_file.write(trained("few", 12), stripes.parent / "a.safetensors")
    (stripes.parent / "b.onnx").write_bytes(b"not a network")
    (stripes.parent / "c.safetensors").mkdir()
    assert trained_at_hand(stripes) is None
    safetensors_file.write(trained("e"), stripes.parent / "e.safetensors")
    safetensors_file.write(trained("d"), stripes.parent / "d.safetensors")
    found = trained_at_hand(stripes)
    assert found.network.metadata.name == "d"
    assert "there are also e.safetensors" in found.told
    assert trained_at_hand(None) is None


def test_published_weights_in_the_cache_are_started_from(shared_data, stripes, own_cache):
    assert trained_at_hand(stripes) is None  # nothing is downloaded for it
    (own_cache / "pretrained").mkdir(parents=True)
    copy = own_cache / "pretrained" / pretrained.PRETRAINED["han-2016"].file_name
    published = (shared_data / "han-2016" / copy.name).read_bytes()
    copy.write_bytes(published[:-1])
    assert trained_at_hand(stripes) is None  # half of a download
    copy.write_bytes(published)
    found = trained_at_hand(stripes)
    assert "han-2016, fetched before" in found.told
    assert found.network.outputs == 1000


# ------------------------------------------------------------------------------------------ minutes


def test_training_stops_in_its_minutes(stripes, tmp_path):
    recipe = dataclasses.replace(QUICK, epochs=100_000, minutes=0.1)
    notes, start = [], time.perf_counter()
    run = train_run(made(), stripes, tmp_path / "run", recipe, note=notes.append)
    assert time.perf_counter() - start < 60  # six seconds, and much patience
    assert 1 <= len(run.results) < 100_000
    assert any(f"enough for {len(run.results)} of 100000 epochs" in note for note in notes)
    assert run.results[-1].learning_rate < 0.3 * recipe.learning_rate
    assert (tmp_path / "run" / "weights.safetensors").exists()


def test_minutes_that_are_not_needed_change_nothing(stripes, tmp_path):
    runs = [
        train_run(
            made(), stripes, tmp_path / str(minutes), dataclasses.replace(QUICK, minutes=minutes)
        )
        for minutes in (None, 1e6)
    ]
    first, second = (run.network.values() for run in runs)
    for name, values in first.items():
        np.testing.assert_array_equal(values, second[name])


def test_minutes_are_an_option(stripes, tmp_path):
    words = ["train", "--data", str(stripes), "--out", str(tmp_path / "run"), "--minutes", "-1"]
    result = CliRunner().invoke(app, words)
    assert isinstance(result.exception, InputError)
    assert "minutes must be above 0" in str(result.exception)
    with pytest.raises(InputError, match="given twice"):
        recipes.parsed(["minutes=3"], minutes=4)


def test_processes_do_not_share_minutes():
    with pytest.raises(InputError, match="one process"):
        Pace(dataclasses.replace(QUICK, minutes=1), 10, 2, None)


# --------------------------------------------------------------------------------------- input size


def test_at_another_size_it_is_the_network_made_for_that_size():
    """The graph is another way to get there; the weights are the same."""
    small, large = made(), made(input_size=40)
    resized = with_input_size(small.with_tensors(large.tensors), 40)
    assert resized.metadata.preprocessing.crop == 40
    assert resized.metadata.preprocessing.resize >= 40
    random = np.random.default_rng(1)
    images = [
        Image.fromarray(random.integers(0, 256, (60, 50, 3), np.uint8)).resize((40, 40))
        for _ in range(3)
    ]
    expected = dataclasses.replace(
        large,
        metadata=dataclasses.replace(large.metadata, preprocessing=resized.metadata.preprocessing),
    )
    for image in images:
        ours, theirs = (
            [(p.label, p.probability) for p in from_network(net)(image)]
            for net in (resized, expected)
        )
        assert dict(ours) == pytest.approx(dict(theirs), abs=1e-6)


@pytest.mark.parametrize("pixels", [0, -3, 100, 300])
def test_a_size_that_does_not_fit_is_refused(pixels):
    """AlexNet's fc6 has a weight for each place of its own size."""
    with pytest.raises(InputError, match="pixels"):
        with_input_size(create("alexnet", classes=2), pixels)


@pytest.mark.parametrize("init", [True, False])
def test_training_takes_another_size_and_says_what_it_costs(stripes, tmp_path, init):
    start = made() if init else None
    notes, size = [], Stated(input_size=40)
    net = sk.train(
        stripes, tmp_path / "run", init=start, preprocessing=size, epochs=0, note=notes.append
    )
    assert net.metadata.preprocessing.crop == 40
    assert any("at 40 pixels a side" in note for note in notes) == init
    assert sk.evaluate(net, stripes).images == 16
