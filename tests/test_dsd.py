"""Dense-sparse-dense training: the mask holds exactly, then its weights come back."""

import dataclasses

import numpy as np
import pytest
from test_loop import CLASSES, PREPROCESSING, RECIPE, data, image_set, small_network  # noqa: F401

from squeezekit.compression.dsd import DsdConfig, dsd, dsd_run, nonzero_weights
from squeezekit.compression.prune import kept_count, prune, uniform
from squeezekit.errors import InputError
from squeezekit.evaluation import evaluate
from squeezekit.interop.weights import load_network
from squeezekit.models.builder import GraphBuilder, he
from squeezekit.runtime.classifier import from_network
from squeezekit.sqz.network import Metadata
from squeezekit.training import recipe as recipes


def network(labels=()):
    """Its second layer is large enough to be pruned."""
    net = GraphBuilder(3, 6, 6)
    x = net.relu("relu1", net.conv("conv1", net.image, 8, 3, pad=1, init=he))
    x = net.relu("relu2", net.conv("conv2", x, 8, 3, pad=1, init=he))
    x = net.conv("conv3", x, 3, 1, init=he)
    x = net.flatten("flatten", net.global_average_pool("pool3", x))
    return net.build(x, Metadata("small", PREPROCESSING, labels), seed=1)


def test_the_mask_holds_and_then_the_weights_come_back(data, image_set):  # noqa: F811
    short = dataclasses.replace(RECIPE, epochs=3)
    told = []
    dense, sparse, redense = dsd(
        network(), DsdConfig(dense=short, sparse=short), data,
        lambda net: evaluate(from_network(net), image_set),
        lambda task, done, total: told.append(task),
    )  # fmt: skip
    assert [p.name for p in (dense, sparse, redense)] == ["dense", "sparse", "re-dense"]
    assert list(dict.fromkeys(told)) == ["dense", "sparse", "re-dense"]

    weights = [p.network.values()["conv2.weight"] for p in (dense, sparse, redense)]
    kept = kept_count(576, 1 / 3)
    assert np.count_nonzero(weights[1]) == kept == 192
    mask = np.abs(weights[0]) >= np.sort(np.abs(weights[0]), axis=None)[-kept]
    assert np.array_equal(weights[1] != 0, mask)
    assert not np.any(weights[1][mask] == weights[0][mask])  # what is left did train
    assert np.count_nonzero(weights[2][~mask]) > 0.9 * (576 - kept)
    assert dense.nonzero - sparse.nonzero == 576 - kept
    assert redense.nonzero == nonzero_weights(redense.network) > sparse.nonzero
    assert redense.top1 == 100.0
    assert redense.top5 == 100.0


def test_a_trained_network_needs_no_dense_phase(data):  # noqa: F811
    before = network()
    phases = dsd(before, DsdConfig(sparse=dataclasses.replace(RECIPE, epochs=1)), data)
    assert phases[0].network is before
    assert phases[0].top1 is None


def test_the_last_phase_trains_at_a_tenth_of_the_rate():
    config = DsdConfig()
    assert config.redense.learning_rate == pytest.approx(recipes.dsd().learning_rate / 10)
    assert config.density == pytest.approx(1 / 3)
    with pytest.raises(InputError, match="redense_rate"):
        DsdConfig(redense_rate=0)


def test_a_run_leaves_a_folder_a_phase_and_resumes(image_set, tmp_path):  # noqa: F811
    before = network(labels=CLASSES)
    recipe = dataclasses.replace(RECIPE, epochs=2, batch=4)
    out = tmp_path / "run"

    def cut(task, done, total):
        if (out / "re-dense").exists() and task == "train" and done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        dsd_run(before, image_set.root, out, recipe, False, cut, lambda text: None)
    run = dsd_run(before, image_set.root, out, recipe, True, lambda *step: None, lambda text: None)
    sparse, redense = (load_network(out / name).values() for name in ("sparse", "re-dense"))
    pruned = prune(before, uniform(before, 1 / 3)).values()["conv2.weight"]
    assert np.array_equal(sparse["conv2.weight"] != 0, pruned != 0)
    assert np.count_nonzero(redense["conv2.weight"]) > 0.9 * 576
    assert np.array_equal(run.network.values()["conv2.weight"], redense["conv2.weight"])
