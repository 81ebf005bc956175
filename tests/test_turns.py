"""Rounding, training and rounding again: what is kept is judged on photos kept apart."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from squeezekit.compression import turns
from squeezekit.compression.best import Best
from squeezekit.compression.front import compress
from squeezekit.compression.rounder import divergence_of
from squeezekit.compression.task import Task
from squeezekit.compression.work import Work
from squeezekit.data.dataset import split, unlabelled
from squeezekit.data.digits import write_digits
from squeezekit.data.folders import ImageSet
from squeezekit.errors import InputError
from squeezekit.models import catalogue
from squeezekit.models.fold import fold_batch_norm
from squeezekit.progress import silent
from squeezekit.runtime.classifier import from_network
from squeezekit.runtime.images import prepare_file
from squeezekit.sqz import container
from squeezekit.sqz.network import SharedTensor
from squeezekit.sqz.tensors import mantissa_bits, with_mantissa
from squeezekit.trainable.network import TrainableNetwork
from squeezekit.training import recipe as recipes
from squeezekit.training.batches import TrainingData
from squeezekit.training.loop import fit
from squeezekit.training.losses import feature_loss
from squeezekit.training.recipe import Augmentation

PLAIN = Augmentation(crop=False, mirror=False)


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """A small network that has learnt something, its photos, and others to judge it by."""
    folder = tmp_path_factory.mktemp("digits")
    write_digits(folder)
    network = catalogue.create("squeezenet-digits")
    photos = split(folder, "train")
    data = TrainingData(photos, network.metadata.preprocessing)
    net = TrainableNetwork(network)
    fit(net, data, dataclasses.replace(recipes.digits(), epochs=8, precision="float32"))
    few = unlabelled(folder / "train").subset(range(0, len(photos), 10))
    other = unlabelled(folder / "val").paths
    x = np.stack([prepare_file(path, network.metadata.preprocessing) for path in other])
    return fold_batch_norm(net.to_network()), few, x


def settings(**others):
    return Best(positions=16, sweeps=1, **others)


def divergence(original, network, x):
    before, after = (torch.from_numpy(from_network(n).logits(x)) for n in (original, network))
    return divergence_of(before, after)


@given(st.integers(0, 60))
def test_photos_that_judge_are_apart_from_the_others(count):
    images = unlabelled_of(count)
    work, judges = turns.apart(images)
    if count < turns.APART:
        assert work.paths == judges.paths == images.paths
    else:
        assert set(work.paths) | set(judges.paths) == set(images.paths)
        assert not set(work.paths) & set(judges.paths)
        assert 0 < len(judges) <= len(images) / 3


def test_at_most_so_many_judge():
    _, judges = turns.apart(unlabelled_of(9999))
    assert 0.9 * turns.MOST_APART < len(judges) <= turns.MOST_APART


def unlabelled_of(count):
    paths = tuple(Path(f"{i}.png") for i in range(count))
    return ImageSet(Path(), paths, np.zeros(count, np.int64), ("all",))


@given(st.lists(st.floats(-100, 100, width=32), min_size=1), st.integers(1, 23))
def test_mantissa_bits_are_the_fewest_that_hold_the_values(values, bits):
    short = with_mantissa(np.array(values, np.float32), bits)
    found = mantissa_bits(short)
    assert found <= bits
    np.testing.assert_array_equal(with_mantissa(short, found), short)
    if found > 1:
        assert not np.array_equal(with_mantissa(short, found - 1), short)


def test_the_feature_loss_is_the_share_of_the_squares():
    true = [torch.tensor([[3.0, 4.0]]), torch.tensor([10.0])]
    assert float(feature_loss(true, true)) == 0.0
    ours = [torch.tensor([[3.0, 5.0]]), torch.tensor([8.0])]
    assert float(feature_loss(ours, true)) == pytest.approx((1 / 25 + 4 / 100) / 2)


def test_what_layers_see_is_what_a_graph_gives_there(digits):
    """One pass gives the logits and the values, which are those of a pass for each alone."""
    network, _, x = digits
    net = TrainableNetwork(network).eval()
    names = net.seen_by_layers()
    assert len(names) >= 3
    images = torch.from_numpy(x[:5])
    with torch.no_grad():
        logits, *seen = net(images, names)
        torch.testing.assert_close(logits, net(images))
        for name, value in zip(names, seen, strict=True):
            torch.testing.assert_close(value, net.value(images, name))


def test_only_the_same_network_teaches_features(digits):
    network, photos, _ = digits
    other = catalogue.create("squeezenet-digits", classes=7)
    recipe = dataclasses.replace(recipes.recover(), epochs=1, features=1.0)
    data = TrainingData(photos, network.metadata.preprocessing)
    with pytest.raises(InputError, match="only the same network teaches features"):
        fit(TrainableNetwork(network), data, recipe, teacher=TrainableNetwork(other))
    with pytest.raises(InputError, match="from a teacher"):
        fit(TrainableNetwork(network), data, recipe)


def recovering(monkeypatch, **changes):
    """Training that suits the digits, quick."""
    recover = dataclasses.replace(
        recipes.recover(), batch=16, precision="float32", augmentation=PLAIN,
        **{"learning_rate": 0.01, **changes},
    )  # fmt: skip
    levels = dataclasses.replace(
        recipes.levels(), batch=16, precision="float32", augmentation=PLAIN
    )
    monkeypatch.setattr(recipes, "recover", lambda: recover)
    monkeypatch.setattr(recipes, "levels", lambda: levels)


def turned(digits, price, tmp_path=None, **others):
    """The first rounding at a price, the turn that is kept, what is said, and the sizes."""
    network, photos, _ = digits
    config = settings(**others)
    task = Task(photos, photos, network.metadata.preprocessing, silent, print, labelled=False)
    all_turns = turns.Turns(network, task, config, Work(tmp_path), silent)
    images = task.calibration(1000, all_turns.rounding)
    rounder = turns.Rounder(network, images, config)
    first, sizes = rounder.round(price), []

    def find(rounder, size, start):
        sizes.append(size)
        return rounder.round(price if size is None else price / 4)

    turn, told = all_turns.best(first, images, rounder, find)
    return first, turn, told, sizes


def cost(digits, found, price):
    """Of a turn or a point, on photos that nothing has seen: nats, and bits at their price."""
    network, _, x = digits
    return divergence(network, found.network, x) + 8 * price * found.file_bytes


def test_training_comes_nearer_to_the_original(digits, monkeypatch):
    recovering(monkeypatch)
    first, turn, told, sizes = turned(digits, 3e-5, epochs=8)
    assert turn.file_bytes == len(container.encode(turn.network, "entropy"))
    assert cost(digits, turn, first.price) < 0.9 * cost(digits, first, first.price)
    assert "kept apart" in told
    assert sizes == [None]


def test_a_turn_that_makes_it_worse_is_undone_and_said(digits, monkeypatch):
    recovering(monkeypatch, learning_rate=0.3, clip_norm=1.0)
    first, turn, told, _ = turned(digits, 1e-6, epochs=1)
    network, _, x = digits
    assert "undone" in told
    for name, tensor in first.network.tensors.items():
        if isinstance(tensor, SharedTensor):
            np.testing.assert_array_equal(turn.network.tensors[name].levels, tensor.levels)
    assert divergence(network, turn.network, x) < 1.2 * divergence(network, first.network, x)


def test_a_size_far_below_is_reached_in_steps(digits, monkeypatch):
    """Through larger files, each trained before it is rounded to the next."""
    recovering(monkeypatch)
    monkeypatch.setattr(turns, "STEEP", 0.04)
    first, turn, _, sizes = turned(digits, 3e-5, epochs=8, target_bytes=20_000)
    *between, last, once_more = sizes
    assert (last, once_more) == (None, None)
    assert between
    assert between == sorted(between, reverse=True)
    assert between[-1] == 30_000
    assert cost(digits, turn, first.price) < 0.9 * cost(digits, first, first.price)


def test_levels_keep_their_number_of_bits(digits):
    network, photos, _ = digits
    x = np.stack([prepare_file(path, network.metadata.preprocessing) for path in photos.paths])
    point = turns.Rounder(network, x, settings()).round(1e-5).network
    moved = {
        name: SharedTensor(t.levels, t.centroids * np.float32(1.01), t.zero)
        if isinstance(t, SharedTensor)
        else t * np.float32(1.01)
        for name, t in point.tensors.items()
    }
    after = turns.as_short(point.with_tensors(moved), point)
    sizes = [len(container.encode(n, "entropy")) for n in (point, after)]
    assert sizes[1] <= 1.01 * sizes[0]
    for name, values in after.values().items():
        np.testing.assert_allclose(values, 1.01 * point.values()[name], rtol=0.04)


def test_an_interrupted_turn_goes_on_to_the_same_bytes(digits, monkeypatch, tmp_path):
    network, photos, _ = digits
    recovering(monkeypatch)
    config = settings(price=1e-5, epochs=2)
    whole = compress(network, photos, config)

    def stop(task, done, total):
        if task == "train" and done == 9:
            raise KeyboardInterrupt

    work = tmp_path / "out.sqz.work"
    with pytest.raises(KeyboardInterrupt):
        compress(network, photos, config, work=work, progress=stop)
    assert Work(work).files()
    again = compress(network, photos, config, work=work)
    assert again.encoded() == whole.encoded()
    assert not work.exists()
