"""A last layer fitted before training: the linear classifier that another library would give."""

import dataclasses
import warnings

import numpy as np
import pytest
from PIL import Image
from sklearn.linear_model import LogisticRegression

from squeezekit.data.folders import scan
from squeezekit.evaluation import evaluate
from squeezekit.models.builder import GraphBuilder, he
from squeezekit.models.head import with_new_head, without_relu_behind_head
from squeezekit.runtime.classifier import from_network
from squeezekit.sqz.graph import parse
from squeezekit.sqz.network import Metadata, Preprocessing
from squeezekit.training import recipe as recipes
from squeezekit.training.batches import TrainingData
from squeezekit.training.fitted_head import with_fitted_head
from squeezekit.training.recipe import Augmentation
from squeezekit.training.run import train_run
from squeezekit.training.start import start_of

PREPROCESSING = Preprocessing(crop=8, resize=8, mean=(0.5,) * 3, std=(0.25,) * 3)
RECIPE = dataclasses.replace(
    recipes.finetune(), precision="float32", batch=12, epochs=2,
    augmentation=Augmentation(crop=False, mirror=False),
)  # fmt: skip


def network(kind="conv", labels=("x", "y"), seed=1, pad=0, relu=True):
    """Random features and a head of one of the shapes that classifiers end in."""
    net = GraphBuilder(3, 8, 8)
    x = net.relu("relu1", net.conv("conv1", net.image, 12, 3, pad=1, init=he))
    if kind == "conv":
        x = net.conv("conv2", x, len(labels), 1, pad=pad, init=he)
        x = net.relu("relu2", x) if relu else x
        x = net.flatten("flatten", net.global_average_pool("pool", x))
    else:
        x = net.flatten("flatten", net.global_average_pool("pool", x))
        x = net.linear("fc", x, len(labels), init=he)
    return net.build(x, Metadata("small", PREPROCESSING, labels=labels), seed=seed)


@pytest.fixture(scope="module")
def stripes(tmp_path_factory):
    """90 images of three classes that overlap: no classifier gets all of them right."""
    root = tmp_path_factory.mktemp("stripes")
    random = np.random.default_rng(0)
    for channel, name in enumerate(("blue", "green", "red")):
        (root / name).mkdir()
        for i in range(30):
            pixels = random.integers(0, 200, (8, 8, 3))
            pixels[..., channel] += random.integers(0, 40)
            Image.fromarray(pixels.astype(np.uint8)).save(root / name / f"{i}.png")
    return root


def fitted_to(images, start):
    head = with_new_head(start, images.classes)
    found = with_fitted_head(head, TrainingData(images, PREPROCESSING, threads=1), RECIPE)
    assert found is not None
    return found


@pytest.mark.parametrize("kind", ["conv", "linear"])
@pytest.mark.parametrize("pad", [0, 1])
def test_it_is_the_logistic_regression_of_scikit_learn(stripes, kind, pad):
    """Same optimum as scikit-learn's on the same features, for heads of both kinds."""
    images = scan(stripes)
    start = network(kind, pad=pad)
    found = fitted_to(images, start)
    # Outputs of a network whose head hands its features on, one by one.
    names = tuple(map(str, range(12)))
    bare = without_relu_behind_head(with_new_head(start, names))
    head = "conv2" if kind == "conv" else "fc"
    shape = bare.tensors[f"{head}.weight"].shape
    through = {
        f"{head}.weight": np.eye(12, dtype=np.float32).reshape(shape),
        f"{head}.bias": np.zeros(12, np.float32),
    }
    data = TrainingData(images, PREPROCESSING, threads=1)
    features_of = from_network(bare.with_tensors(through))
    inputs, targets = [], []
    for pixels, target in data.in_order(16, 1000, 0):
        inputs.append(data.inputs(pixels).numpy())
        targets.append(target.numpy())
    x = features_of.logits(np.ascontiguousarray(np.concatenate(inputs)))
    y = np.concatenate(targets)
    scaled = (x - x.mean(0)) / np.sqrt(x.var(0, ddof=1).mean())
    other = LogisticRegression(C=1 / (found.penalty * len(y)), max_iter=2000, tol=1e-8)
    expected = other.fit(scaled, y).predict_proba(scaled)
    logits = from_network(found.network).logits(np.ascontiguousarray(np.concatenate(inputs)))
    answered = np.exp(logits - logits.max(1, keepdims=True))
    answered /= answered.sum(1, keepdims=True)
    assert np.abs(answered - expected).max() < 0.03
    assert found.top1 == pytest.approx(100 * np.mean(logits.argmax(1) == y), abs=1.2)
    assert found.loss == pytest.approx(-np.log(answered[np.arange(len(y)), y]).mean(), abs=0.01)


def test_there_is_no_relu_behind_it_and_all_else_stays(stripes):
    images, start = scan(stripes), network("conv")
    found = fitted_to(images, start)
    before, after = (
        [n.name for n in parse(net.graph).graph.node] for net in (start, found.network)
    )
    assert set(before) - set(after) == {"relu2"}
    assert np.array_equal(found.network.tensors["conv1.weight"], start.tensors["conv1.weight"])


def test_a_head_of_more_than_one_pixel_is_left_alone(stripes):
    net = GraphBuilder(3, 8, 8)
    x = net.relu("relu1", net.conv("conv1", net.image, 6, 3, pad=1, init=he))
    x = net.conv("conv2", x, 3, 3, init=he)
    x = net.flatten("flatten", net.global_average_pool("pool", x))
    start = net.build(x, Metadata("small", PREPROCESSING, labels=("blue", "green", "red")), seed=1)
    data = TrainingData(scan(stripes), PREPROCESSING, threads=1)
    assert with_fitted_head(start, data, RECIPE) is None


def test_a_head_whose_outputs_are_changed_behind_it_is_left_alone(stripes):
    net = GraphBuilder(3, 8, 8)
    x = net.relu("relu1", net.conv("conv1", net.image, 6, 3, pad=1, init=he))
    x = net.max_pool("pool1", net.conv("conv2", x, 3, 1, init=he), 3, 2)
    x = net.flatten("flatten", net.global_average_pool("pool", x))
    start = net.build(x, Metadata("small", PREPROCESSING, labels=("blue", "green", "red")), seed=1)
    data = TrainingData(scan(stripes), PREPROCESSING, threads=1)
    assert with_fitted_head(start, data, RECIPE) is None


@pytest.mark.parametrize("learning_rate", [0.01, 3.0])
def test_no_training_ends_below_its_start(stripes, tmp_path, learning_rate):
    """Whatever the rate does to the weights, the photos that choose are told apart no worse."""
    recipe = dataclasses.replace(RECIPE, learning_rate=learning_rate, body_rate=1.0, clip_norm=None)
    start = start_of(stripes, recipe, init=network("conv"))
    assert start.fresh_head
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a rate of 3 overflows
        run = train_run(
            start.network, stripes, tmp_path / "run", recipe, fresh_head=start.fresh_head
        )
    assert run.start is not None
    assert run.start.epoch == 0
    assert len(run.results) == 2
    chosen = evaluate(from_network(run.network), run.parts.choosing)
    assert chosen.top1 >= run.start.val_top1
    assert run.parts.chooses
    lines = (tmp_path / "run" / "results.csv").read_text().splitlines()
    assert [line.partition(",")[0] for line in lines] == ["epoch", "0", "1", "2"]


def test_a_start_that_knows_all_classes_keeps_its_rows(stripes):
    start = start_of(stripes, RECIPE, init=network("conv", labels=("red", "green", "blue")))
    assert not start.fresh_head
