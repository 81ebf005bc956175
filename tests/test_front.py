"""The front door: its names, and what each function of it does in a program's own words."""

import dataclasses
import inspect
import types

import numpy as np
import pytest
from PIL import Image

import squeezekit as sk
from squeezekit.data.fingerprints import fingerprints
from squeezekit.data.photos import folder_or_set
from squeezekit.errors import InputError
from squeezekit.models.catalogue import create
from squeezekit.sqz.trained_on import TrainedOn

NAMES = [
    "Augmentation",
    "Best",
    "Classifier",
    "Compressed",
    "Curve",
    "Deep",
    "Evaluation",
    "ExploreConfig",
    "FormatError",
    "InputError",
    "Limits",
    "Metadata",
    "Method",
    "Network",
    "Photos",
    "Prediction",
    "Preprocessing",
    "Prune",
    "Recipe",
    "ReproduceConfig",
    "SqueezekitError",
    "Stated",
    "Svd",
    "UnsupportedError",
    "__version__",
    "apply",
    "calibrate",
    "check",
    "compress",
    "delta",
    "evaluate",
    "explore",
    "from_torch",
    "load",
    "progress_bar",
    "read",
    "reproduce",
    "sensitivity",
    "train",
    "training_run",
    "with_unknown",
    "write",
]

QUICK = {"epochs": 2, "batch": 4, "precision": "float32", "warmup_epochs": 0}


def test_the_public_names_are_the_intended_ones():
    assert dir(sk) == sorted(NAMES)
    for name in NAMES:
        getattr(sk, name)
    with pytest.raises(AttributeError, match="no attribute 'lode'"):
        sk.lode  # noqa: B018


def test_type_checkers_see_the_same_names():
    """What `TYPE_CHECKING` imports is what `__getattr__` gives."""
    source = inspect.getsource(sk)
    seen = {
        line.split(" as ")[-1]
        for line in source.splitlines()
        if line.startswith("    from squeezekit.")
    }
    assert seen == set(NAMES) - {"__version__"}


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"__version__", "Photos"}))
def test_every_name_says_what_it_is(name):
    value = getattr(sk, name)
    assert value.__name__ == name
    assert len(value.__doc__ or "") > 30
    if isinstance(value, types.FunctionType) and name not in ("training_run", "progress_bar"):
        assert "    sk." in value.__doc__ or "= sk." in value.__doc__  # an example
        assert "Raises:" in value.__doc__


def shades(tmp_path, count=12):
    """A folder of photos that a small network learns to tell apart: light ones and dark ones."""
    random = np.random.default_rng(0)
    for name, level in (("dark", 60), ("light", 190)):
        folder = tmp_path / "photos" / name
        folder.mkdir(parents=True)
        for i in range(count):
            pixels = random.normal(level, 30, (12, 12)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"{i}.png")
    return tmp_path / "photos"


@pytest.fixture
def photos(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return shades(tmp_path)


def test_from_photos_to_an_answer(photos):
    net = sk.train("photos", out="run", model="squeezenet-digits", **{**QUICK, "epochs": 8})
    assert isinstance(net, sk.Network)
    assert net.metadata.labels == ("dark", "light")
    found = sk.evaluate(net, "photos")
    assert found.top1 > 90
    assert found.images == 4  # two of twelve in each class are held out
    assert sk.evaluate(net, "photos", part="all").images == 24
    assert sk.evaluate("run", photos, backend="torch").top1 == found.top1
    sk.write(net, "pets.onnx")
    sk.write("run", "pets.sqz")
    by_path, by_pixels = (
        sk.load("pets.sqz")(photo, top=1)
        for photo in ("photos/light/0.png", Image.open("photos/light/0.png"))
    )
    assert by_path == by_pixels
    assert by_path[0].label == "light"
    for name in ("report.html", "MODEL_CARD.md", "results.csv", "recipe.json"):
        assert (photos.parent / "run" / name).exists()


def test_training_in_memory_is_training_on_the_same_folder(photos):
    """A loader's photos and labels do what class folders do."""
    files = sorted(photos.glob("*/*.png"))
    pairs = [(Image.open(path), path.parent.name) for path in files]
    net = sk.train(pairs, out="run", model="squeezenet-digits", **{**QUICK, "epochs": 8})
    assert net.metadata.labels == ("dark", "light")
    assert "photos in memory" in net.metadata.provenance[-1]
    everything = sk.evaluate(net, "photos", part="all").top1
    assert sk.evaluate(net, pairs, part="all").top1 == everything > 90
    array = np.stack([sk_prepared(net, path) for path in files])
    targets = np.array([0] * 12 + [1] * 12)
    assert sk.evaluate(net, (array, targets), part="all").top1 == everything
    batches = [(array[:9], targets[:9]), (array[9:], targets[9:])]
    assert sk.evaluate(net, batches, part="all").images == 24
    again = sk.train((array, targets), out="again", init=net, **QUICK)
    assert again.metadata.labels == net.metadata.labels


def sk_prepared(net, path):
    from squeezekit.runtime.images import prepare_file

    return prepare_file(path, net.metadata.preprocessing)


def test_both_doors_train_alike(photos):
    """Zeros stay, and what knows the classes stays its own teacher: the rules are not the cli's."""
    start = create("squeezenet-digits", labels=("dark", "light"))
    half = {
        name: np.where(np.arange(v.size).reshape(v.shape) % 2, v, 0).astype(np.float32)
        for name, v in start.values().items()
    }
    told = []
    net = sk.train("photos", out="run", init=start.with_tensors(half), note=told.append, **QUICK)
    assert any("its zeros stay zero" in sentence for sentence in told)
    assert any("stays the teacher" in sentence for sentence in told)
    for name, values in net.values().items():
        if values.ndim > 1:
            assert not values[half[name] == 0].any()


def test_a_recipe_may_be_made_by_hand(photos):
    recipe = sk.Recipe(epochs=1, batch=4, augmentation=sk.Augmentation(mirror=False))
    run = sk.training_run("photos", "run", model="squeezenet-digits", recipe=recipe, seed=3)
    assert run.recipe == dataclasses.replace(recipe, seed=3)
    assert len(run.results) == 1
    assert 0 < run.evaluation.images < 24
    with pytest.raises(sk.InputError, match="no setting 'epoch': did you mean epochs"):
        sk.train("photos", "other", epoch=3)


def test_a_classifier_is_evaluated_as_it_is(photos):
    net = create("squeezenet-digits", labels=("dark", "light"))
    sk.write(net, "a.sqz")
    opened = sk.load("a.sqz")
    assert sk.evaluate(opened, "photos").ranked.tolist() == (
        sk.evaluate(net, "photos").ranked.tolist()
    )
    with pytest.raises(sk.InputError, match="is loaded already"):
        sk.evaluate(opened, "photos", backend="torch")


def test_calibrated_on_anything_it_runs_in_int8(photos):
    net = create("squeezenet-digits", labels=("dark", "light"))
    images = [Image.open(path) for path in sorted(photos.glob("*/*.png"))]
    ready, by_images = sk.calibrate(net, "photos"), sk.calibrate(net, images)
    assert ready.metadata.activations == by_images.metadata.activations
    sk.write(ready, "a.sqz")
    assert sk.load("a.sqz").precision == "int8"


def test_sensitivity_measures_every_layer(photos):
    net = sk.train("photos", out="run", model="squeezenet-digits", **QUICK)
    found = sk.sensitivity(net, "photos", limit=4)
    assert found.images == 2  # half of the four held-out photos choose
    assert set(found.densities(1.0)) == set(found.curves)


def test_what_people_see_of_things_is_one_line(photos):
    net = create("squeezenet-1.0")
    assert repr(net) == (
        "Network('squeezenet-1.0': 1000 classes, images 3 x 224 x 224, 1,248,424 parameters, "
        f"{net.nonzero:,} not zero)"
    )
    small = create("squeezenet-digits", labels=("dark", "light"))
    sk.write(small, "a.sqz")
    assert repr(sk.load("a.sqz")) == (
        "Classifier('squeezenet-digits': 2 classes, images 1 x 8 x 8, float on onnxruntime)"
    )
    found = sk.evaluate("a.sqz", "photos")
    low, high = found.top1_interval
    said = (
        f"Evaluation(top-1 {found.top1:.1f}% ({low:.1f} to {high:.1f}), top-5 100.0% on 24 images"
    )
    assert repr(found).startswith(said)


@pytest.mark.parametrize("name", ["squeezenet-digits", "squeezenet-1.0", "squeezenet-1.0-complex"])
def test_the_number_of_classes_is_what_the_graph_states(name):
    assert create(name, classes=7).outputs == 7


def test_images_without_labels_cannot_be_measured():
    network = create("squeezenet-digits", labels=("a", "b"))
    images = np.zeros((3, 1, 8, 8), np.float32)
    with pytest.raises(InputError, match=r"have no labels: give pairs \(image, label\)"):
        sk.evaluate(network, images)


def test_photos_in_memory_are_measured_whole_unless_they_were_trained_on():
    """The marks of a training on files say nothing true about pixels in memory."""
    random, labels = np.random.default_rng(0), ("cat", "dog")
    arrays = random.integers(0, 256, (200, 8, 8, 3)).astype(np.uint8)
    photos = [(Image.fromarray(array), labels[i % 2]) for i, array in enumerate(arrays)]
    others = random.integers(0, 1 << 63, 300).astype(np.uint64)
    network = create("squeezenet-digits", labels=labels)

    def marked(trained):
        marks = TrainedOn.of(trained, np.zeros(0, np.uint64))
        return dataclasses.replace(
            network, metadata=dataclasses.replace(network.metadata, trained_on=(marks,))
        )

    told = []
    found = sk.evaluate(marked(others), photos, note=told.append)
    assert (found.images, found.left_out) == (200, 0)
    assert found.trained_on > 0  # by chance one in sixteen is marked, and that is said
    assert any("may have been trained on" in sentence for sentence in told)
    held = folder_or_set(photos, network.metadata, 2)
    digests = fingerprints(held.paths, root=held.root).digests
    found = sk.evaluate(marked(digests[:120]), photos)
    assert found.left_out >= 120
    assert found.images + found.left_out == 200
