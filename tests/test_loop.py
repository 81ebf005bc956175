"""The training loop: it learns, holds masks and codebooks, repeats, and stops in good order."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from PIL import Image

from squeezekit.data.folders import scan
from squeezekit.errors import InputError
from squeezekit.evaluation import evaluate
from squeezekit.models.builder import GraphBuilder, he
from squeezekit.sqz.network import Metadata, Preprocessing, SharedTensor
from squeezekit.trainable.network import TorchClassifier, TrainableNetwork
from squeezekit.trainable.weights import Masked, Shared
from squeezekit.training.augment import mixup_share
from squeezekit.training.batches import TrainingData
from squeezekit.training.devices import has_bf16
from squeezekit.training.loop import fit
from squeezekit.training.recipe import Augmentation, Recipe
from squeezekit.training.stuck import stuck_warning

PREPROCESSING = Preprocessing(crop=6, resize=6, mean=(0.5,) * 3, std=(0.25,) * 3)
RECIPE = Recipe(
    epochs=6, batch=10, learning_rate=0.05, schedule="linear",
    augmentation=Augmentation(mirror=True, pad=1),
)  # fmt: skip
CLASSES = ("blue", "green", "red")


def small_network(classes=3, dropout=0.2, batch_norm=False):
    net = GraphBuilder(3, 6, 6)
    x = net.conv("conv1", net.image, 8, 3, pad=1, init=he)
    x = net.batch_norm("conv1.bn", x) if batch_norm else x
    x = net.max_pool("pool1", net.relu("relu1", x), 3, 2)
    x = net.dropout("drop1", x, dropout)
    x = net.conv("conv2", x, classes, 1, init=he)
    x = net.flatten("flatten", net.global_average_pool("pool2", x))
    return net.build(x, Metadata("small", PREPROCESSING), seed=1)


@pytest.fixture(scope="module")
def image_set(tmp_path_factory):
    """30 noisy images in three colours: easily told apart."""
    root = tmp_path_factory.mktemp("colours")
    random = np.random.default_rng(0)
    for channel, name in ((2, "blue"), (1, "green"), (0, "red")):
        (root / name).mkdir()
        for i in range(10):
            pixels = random.integers(0, 120, (6, 6, 3), dtype=np.uint8)
            pixels[..., channel] += 100
            Image.fromarray(pixels).save(root / name / f"{i}.png")
    return scan(root)


@pytest.fixture(scope="module")
def data(image_set):
    return TrainingData(image_set, PREPROCESSING, threads=1)


def weights(net):
    return {name: weight().detach().numpy().copy() for name, weight in net.weights.items()}


def equal(one, two):
    return all(np.array_equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"nesterov": True, "schedule": "cosine", "warmup_epochs": 0.5, "clip_norm": 1.0},
        {"optimizer": "adam", "learning_rate": 0.02, "weight_decay": 0.01},
        {"label_smoothing": 0.1, "schedule": "constant"},
        {"precision": "bf16"},
        {"accumulate": 5, "ema": 0.5, "body_rate": 0.5},
        {"augmentation": Augmentation(resized_crop=0.5, mixup=0.2), "accumulate": 2},
    ],
    ids=str,
)
def test_it_learns_what_is_easy(image_set, data, changes):
    net = TrainableNetwork(small_network())
    results = fit(net, data, dataclasses.replace(RECIPE, **changes))
    assert evaluate(TorchClassifier(net), image_set).top1 == 100.0
    assert results[-1].loss < results[0].loss
    assert [result.epoch for result in results] == [1, 2, 3, 4, 5, 6]
    assert results[-1].train_top1 > 90
    assert not net.training


def test_batch_norm_trains_too(image_set, data):
    net = TrainableNetwork(small_network(batch_norm=True))
    fit(net, data, RECIPE)
    assert evaluate(TorchClassifier(net), image_set).top1 == 100.0
    assert not np.allclose(net.to_network().tensors["conv1.bn.mean"], 0.0)


def test_one_step_of_sgd_is_that_of_torch(data):
    recipe = Recipe(epochs=1, batch=30, learning_rate=0.1, weight_decay=0.01)
    net, other = (TrainableNetwork(small_network(dropout=0.0)) for _ in range(2))
    fit(net, data, recipe)
    optimizer = torch.optim.SGD(other.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)
    ((pixels, targets),) = data.epoch(0, recipe)
    images = data.inputs(pixels).contiguous()
    torch.nn.functional.cross_entropy(other(images), targets).backward()
    optimizer.step()
    assert equal(weights(net), weights(other))


@pytest.mark.parametrize("accumulate", [1, 3])
def test_one_step_of_mixup_is_that_of_soft_targets(data, accumulate):
    recipe = Recipe(
        epochs=1, batch=30, learning_rate=0.1, label_smoothing=0.1, accumulate=accumulate,
        augmentation=Augmentation(mixup=1.0),
    )  # fmt: skip
    net, other = (TrainableNetwork(small_network(dropout=0.0)) for _ in range(2))
    (result,) = fit(net, data, recipe)
    ((pixels, targets),) = data.epoch(0, recipe)
    images = data.inputs(pixels)
    own = mixup_share(1.0, recipe.seed, 0)
    labels = torch.nn.functional.one_hot(targets, 3).float()
    mixed = own * labels + (1 - own) * labels.roll(15, 0)
    optimizer = torch.optim.SGD(other.parameters(), lr=0.1, momentum=0.9, weight_decay=2e-4)
    expected = torch.nn.functional.cross_entropy(
        other(own * images + (1 - own) * images.roll(15, 0)), mixed, label_smoothing=0.1
    )
    expected.backward()
    optimizer.step()
    assert result.loss == pytest.approx(float(expected.detach()), rel=1e-5)
    for name, values in weights(net).items():
        assert np.allclose(values, weights(other)[name], atol=1e-6)


def test_weight_decay_is_on_biases_too(data):
    """As in the paper's solver: with a rate of 0.1 and decay 1, everything loses a tenth a step."""
    network = small_network(dropout=0.0)
    network = network.with_tensors({"conv1.bias": np.full(8, 1.0, np.float32)})
    steps = []
    for decay in (0.0, 1.0):
        net = TrainableNetwork(network)
        fit(
            net, data, Recipe(epochs=1, batch=30, learning_rate=0.1, weight_decay=decay)
        )  # fmt: skip
        steps.append(weights(net))
    for name, before in network.values().items():
        assert np.allclose(steps[0][name] - steps[1][name], 0.1 * before, atol=1e-6)


def test_the_same_seed_gives_the_same_weights_bit_for_bit(data):
    nets = [TrainableNetwork(small_network()) for _ in range(3)]
    for net, seed in zip(nets, (0, 0, 1), strict=True):
        fit(net, data, dataclasses.replace(RECIPE, epochs=2, seed=seed))
    assert equal(weights(nets[0]), weights(nets[1]))
    assert not equal(weights(nets[0]), weights(nets[2]))


def test_training_leaves_torchs_random_state_alone(data):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    fit(TrainableNetwork(small_network()), data, dataclasses.replace(RECIPE, epochs=1))
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_masks_hold_exactly(data, optimizer):
    net = TrainableNetwork(small_network())
    before = net.weights["conv1.weight"]().detach().numpy()
    mask = np.random.default_rng(0).random(before.shape) < 0.4
    net.set_weight("conv1.weight", Masked(before, mask))
    fit(net, data, dataclasses.replace(RECIPE, optimizer=optimizer, epochs=3))
    after = net.to_network().tensors["conv1.weight"]
    assert np.array_equal(after != 0, mask)
    assert not np.any(after[mask] == before[mask])


def test_shared_weights_stay_shared(data):
    network = small_network()
    levels = np.random.default_rng(0).integers(-2, 3, (8, 3, 3, 3)).astype(np.int32)
    table = np.array([-0.3, -0.1, 0.0, 0.1, 0.3], np.float32)
    network = network.with_tensors({"conv1.weight": SharedTensor(levels, table, 2)})
    net = TrainableNetwork(network)
    assert isinstance(net.weights["conv1.weight"], Shared)
    fit(net, data, dataclasses.replace(RECIPE, epochs=2, learning_rate=0.005))
    after = net.to_network().tensors["conv1.weight"]
    assert np.array_equal(after.levels, levels)
    assert after.centroids[2] == 0.0
    assert not np.any(np.delete(after.centroids == table, 2))


def test_the_best_weights_are_kept_if_asked_for(image_set, data):
    seen = []

    def validate(net):
        seen.append(weights(net))
        evaluation = evaluate(TorchClassifier(net), image_set)
        top1 = (10.0, 70.0, 70.0, 30.0)[len(seen) - 1]
        return dataclasses.replace(evaluation, top1=top1)

    for keep, epoch in (("last", 3), ("best", 1)):
        seen.clear()
        net = TrainableNetwork(small_network())
        recipe = dataclasses.replace(RECIPE, epochs=4, keep=keep)
        results = fit(net, data, recipe, validate=validate)
        assert [result.val_top1 for result in results] == [10.0, 70.0, 70.0, 30.0]
        assert equal(weights(net), seen[epoch])


def test_best_needs_validation(data):
    with pytest.raises(InputError, match="validation"):
        fit(TrainableNetwork(small_network()), data, dataclasses.replace(RECIPE, keep="best"))


def test_an_interrupted_network_has_the_weights_of_its_last_whole_epoch(data):
    net = TrainableNetwork(small_network())
    after_epochs = []

    def interrupt(task, done, total):
        if done == 8:  # in the third epoch of three iterations
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(
            net, data, RECIPE, progress=interrupt,
            on_epoch=lambda result: after_epochs.append(weights(net)),
        )  # fmt: skip
    assert len(after_epochs) == 2
    assert equal(weights(net), after_epochs[-1])
    assert not net.training


def test_a_loss_that_is_no_number_is_an_error_and_spares_the_weights(data):
    net = TrainableNetwork(small_network())
    before = weights(net)
    with pytest.raises(InputError, match=r"diverged in epoch 1: .* learning rate than 1e"):
        fit(net, data, dataclasses.replace(RECIPE, learning_rate=1e30))
    assert equal(weights(net), before)


def test_too_few_outputs_are_an_error(data):
    with pytest.raises(InputError, match="2 outputs, but the images are of 3 classes"):
        fit(TrainableNetwork(small_network(classes=2)), data, RECIPE)


def test_more_outputs_than_classes_are_fine(data):
    fit(TrainableNetwork(small_network(classes=5)), data, dataclasses.replace(RECIPE, epochs=1))


def test_a_network_that_learns_nothing_gets_a_warning(data):
    network = small_network()
    dead = {name: np.zeros_like(values) for name, values in network.values().items()}
    recipe = dataclasses.replace(RECIPE, learning_rate=1e-9, epochs=4)
    results = fit(TrainableNetwork(network.with_tensors(dead)), data, recipe)
    assert [bool(result.warning) for result in results] == [False, False, True, True]
    for cure in ("10 times lower", "warm-up", "batch norm", "3 classes"):
        assert cure in results[2].warning


def test_no_warning_where_the_loss_falls_or_it_is_early():
    chance = math.log(10)
    assert stuck_warning([chance] * 2, 10) == ""
    assert stuck_warning([chance, chance, 0.9 * chance], 10) == ""
    assert stuck_warning([chance * 1.01] * 5, 10)
    assert stuck_warning([chance * 1.01] * 5, 10, warmup_epochs=3) == ""
    assert stuck_warning([chance * 1.01] * 5, 10, warmup_epochs=2)


def test_no_epochs_change_nothing(data):
    net = TrainableNetwork(small_network())
    before = weights(net)
    assert fit(net, data, dataclasses.replace(RECIPE, epochs=0)) == []
    assert equal(weights(net), before)


def test_progress_and_results_are_told(data):
    steps, results = [], []
    returned = fit(
        TrainableNetwork(small_network()), data, dataclasses.replace(RECIPE, epochs=2),
        progress=lambda *step: steps.append(step), on_epoch=results.append,
    )  # fmt: skip
    assert steps == [("train", i + 1, 6) for i in range(6)]
    assert results == returned
    assert results[0].learning_rate == pytest.approx(0.05 * (1 - 2 / 6))


def test_bf16_is_a_yes_or_no():
    assert has_bf16(torch.device("cpu")) in (True, False)
    assert not has_bf16(torch.device("meta"))
