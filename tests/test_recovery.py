"""Recovery after rounding: any images, by epochs or by minutes, and on after an interruption."""

import dataclasses
from functools import partial

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from squeezekit.cli.verbs import app
from squeezekit.compression import recovery
from squeezekit.compression.prune import prune, uniform
from squeezekit.compression.recovery import Effort
from squeezekit.compression.work import Work
from squeezekit.data.dataset import unlabelled
from squeezekit.errors import InputError
from squeezekit.interop import safetensors_file
from squeezekit.models.catalogue import create
from squeezekit.models.fold import fold_batch_norm
from squeezekit.models.squeezenet import squeezenet, v1_1
from squeezekit.runtime.classifier import from_network
from squeezekit.runtime.images import default_preprocessing
from squeezekit.sqz import container
from squeezekit.training import recipe as recipes
from squeezekit.training.batches import TrainingData


@pytest.fixture
def photos(tmp_path):
    """Some here, some deeper, and something that is none."""
    random = np.random.default_rng(0)
    for i in range(12):
        folder = tmp_path / "photos" / ("deeper/still" if i % 3 else "")
        folder.mkdir(parents=True, exist_ok=True)
        pixels = random.integers(0, 256, (40, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i:02}.png")
    (tmp_path / "photos" / "notes.txt").write_text("no image")
    return tmp_path / "photos"


recovered = partial(
    recovery.recovered, decode=lambda images: TrainingData(images, default_preprocessing(32, 3))
)


@pytest.fixture
def networks(monkeypatch):
    """A network, and what pruning left of it."""
    quick = dataclasses.replace(recipes.recover(), batch=4, precision="float32", learning_rate=0.01)
    monkeypatch.setattr(recovery.recipes, "recover", lambda: quick)
    original = fold_batch_norm(squeezenet(v1_1(3, 32), labels=("a", "b", "c")))
    return original, prune(original, uniform(original, 0.3))


def test_it_learns_the_originals_answers_without_labels(photos, networks):
    original, pruned = networks
    images = unlabelled(photos)
    assert len(images) == 12
    left, how = recovered(pruned, original, images, Effort(epochs=8))
    assert how == "8 epochs of recovery on 12 images"
    x = np.random.default_rng(1).standard_normal((16, 3, 32, 32)).astype(np.float32)
    true, before, after = (from_network(n).logits(x) for n in (original, pruned, left))
    assert np.abs(after - true).mean() < np.abs(before - true).mean()
    for name, values in pruned.values().items():
        assert not left.values()[name][(values == 0) & (values.ndim > 1)].any()


def test_what_answers_like_the_original_already_has_nothing_to_learn(photos, networks):
    """Dropout, which SqueezeNets have, would let its answers differ."""
    original, _ = networks
    left, _ = recovered(original, original, unlabelled(photos), Effort(epochs=2))
    for name, values in original.values().items():
        np.testing.assert_allclose(left.values()[name], values, atol=1e-6)


def test_an_interrupted_training_goes_on_to_the_same_bits(photos, networks, tmp_path):
    original, pruned = networks
    images, work = unlabelled(photos), Work(tmp_path / "out.sqz.work")
    whole, _ = recovered(pruned, original, images, Effort(epochs=3))

    def stop(task, done, total):
        if task == "train" and done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        recovered(pruned, original, images, Effort(epochs=3), work=work, progress=stop)
    assert work.files()
    # Another start does not go on from it.
    other, _ = recovered(original, original, images, Effort(epochs=1), work=work)
    assert other.nonzero > pruned.nonzero
    resumed, _ = recovered(pruned, original, images, Effort(epochs=3), work=work)
    for name, values in whole.values().items():
        np.testing.assert_array_equal(resumed.values()[name], values)
    work.forget()
    assert not list(tmp_path.glob("out.sqz.*"))


def test_minutes_become_images_and_epochs_once(photos, networks, tmp_path, monkeypatch):
    original, pruned = networks
    images, work = unlabelled(photos), Work(tmp_path / "out.sqz.work")
    monkeypatch.setattr(recovery, "_seconds_an_image", lambda *_: 2.0)
    assert recovered(pruned, original, images, Effort(minutes=0.8))[1].startswith("2 epochs")
    _, how = recovered(pruned, original, images, Effort(minutes=0.2), work=work)
    assert how == "1 epochs of recovery on 6 images"
    monkeypatch.setattr(recovery, "_seconds_an_image", lambda *_: 0.1)  # quicker, afterwards
    _, again = recovered(pruned, original, images, Effort(minutes=0.2), work=work)
    assert again == how


def test_speed_is_measured_on_this_machine(photos, networks):
    original, pruned = networks
    seconds = recovery._seconds_an_image(
        pruned, original, unlabelled(photos), recipes.recover(), lambda *_: None
    )
    assert 0 < seconds < 10


@pytest.mark.parametrize("effort", [{}, {"epochs": 1, "minutes": 1.0}, {"minutes": 0.0}])
def test_effort_is_one_of_two(effort):
    with pytest.raises(InputError):
        Effort(**effort)


def test_a_folder_without_images_is_one_sentence(tmp_path):
    with pytest.raises(InputError, match="holds no image"):
        unlabelled(tmp_path)


def test_the_command_trains_on_what_it_is_given(make_images, photos, networks, tmp_path):
    data = make_images({"a": 6, "b": 6})
    weights = tmp_path / "weights.safetensors"
    network = create("squeezenet-digits", labels=("a", "b"))
    safetensors_file.write(network, weights)
    out = tmp_path / "out.sqz"
    arguments = ["compress", str(weights), "--data", str(data), "-o", str(out), "--price", "1e-6"]
    result = CliRunner().invoke(app, [*arguments, "--finetune", str(photos)])
    assert isinstance(result.exception, InputError)
    assert "by minutes or epochs" in str(result.exception)
    result = CliRunner().invoke(app, [*arguments, "--finetune", str(photos), "--epochs", "1"])
    assert result.exit_code == 0, result.output
    assert [path.name for path in tmp_path.glob("out.sqz*")] == ["out.sqz"]
    assert "1 epochs of recovery on 12 images" in container.read(out).metadata.provenance
