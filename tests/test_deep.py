"""Deep Compression: every stage keeps its promises, with and without data to train on."""

import dataclasses

import numpy as np
import pytest
from test_loop import RECIPE, data, image_set, small_network  # noqa: F401 - fixtures

from squeezekit.compression import deep
from squeezekit.compression.deep import Deep, deep_compression
from squeezekit.compression.prune import prune
from squeezekit.compression.pruning import pruned
from squeezekit.compression.retraining import retrained, with_scaled_dropout
from squeezekit.compression.share import share, with_mantissa, with_rounded_tables
from squeezekit.errors import InputError
from squeezekit.evaluation import evaluate
from squeezekit.models.catalogue import create
from squeezekit.models.fold import fold_batch_norm
from squeezekit.sqz import container
from squeezekit.sqz.graph import parse
from squeezekit.sqz.network import SharedTensor, tensor_values
from squeezekit.sqz.nodes import weight_names
from squeezekit.trainable.network import TorchClassifier, TrainableNetwork
from squeezekit.training.loop import fit

DENSITIES = {"conv1.weight": 0.5, "conv2.weight": 0.5}
CONFIG = Deep(
    density=DENSITIES, rounds=2, bits=3, retrain=dataclasses.replace(RECIPE, epochs=2),
    centroids=dataclasses.replace(RECIPE, epochs=2, learning_rate=0.002),
)  # fmt: skip


@pytest.fixture(scope="module")
def trained(data):  # noqa: F811
    net = TrainableNetwork(small_network(batch_norm=True))
    fit(net, data, RECIPE)
    return net.to_network()


@pytest.fixture(scope="module")
def stages(trained, data, image_set):  # noqa: F811
    def measure(network):
        return evaluate(TorchClassifier(network), image_set)

    return deep_compression(trained, CONFIG, data, measure).list


def zeros(network):
    return {name: tensor_values(network.tensors[name]) == 0 for name in weight_names(network)}


def test_stages_are_named_and_measured(stages):
    assert [stage.name for stage in stages] == ["float32", "pruned", "shared", "coded"]
    assert all(stage.top1 > 90 and stage.top5 == 100 for stage in stages)


def test_file_bytes_are_those_of_the_file(stages):
    coders = ("dense", "entropy", "huffman", "entropy")
    for stage, coder in zip(stages, coders, strict=True):
        assert stage.file_bytes == len(container.encode(stage.network, coder))
    assert stages[-1].file_bytes < stages[0].file_bytes


def test_every_stage_decodes_to_itself(stages):
    for stage in stages:
        back = container.decode(container.encode(stage.network)).values()
        assert all(np.array_equal(back[n], v) for n, v in stage.network.values().items())


def test_zeros_stay_zeros_to_the_end(stages):
    _, after_pruning, *later = (zeros(stage.network) for stage in stages)
    assert {name: 1 - mask.mean() for name, mask in after_pruning.items()} == DENSITIES
    for masks in later:
        assert all(np.array_equal(masks[name], after_pruning[name]) for name in DENSITIES)


def test_levels_stay_while_centroids_move(stages, data):  # noqa: F811
    network = share(stages[1].network, 3)
    tuned = retrained(network, data, CONFIG.centroids)
    for name in DENSITIES:
        before, after = network.tensors[name], tuned.tensors[name]
        assert np.array_equal(before.levels, after.levels)
        assert not np.array_equal(before.centroids, after.centroids)


def test_batch_norm_is_folded_in_every_file(trained, stages):
    assert "conv1.bn.mean" in trained.tensors
    assert all("conv1.bn.mean" not in stage.network.tensors for stage in stages)


def test_biases_stay_plain_and_the_provenance_tells(stages):
    network = stages[-1].network
    shared = {name for name, t in network.tensors.items() if isinstance(t, SharedTensor)}
    assert shared == set(DENSITIES)
    assert "Deep Compression" in network.metadata.provenance[-1]


def test_without_data_nothing_is_trained(trained):
    stages = deep_compression(trained, CONFIG).list
    once = prune(trained, DENSITIES)
    expected = fold_batch_norm(once).values()
    assert all(np.array_equal(stages[1].network.values()[n], v) for n, v in expected.items())
    assert [stage.top1 for stage in stages] == [None] * 4


def test_without_densities_zeros_are_kept_and_none_added(trained):
    network = prune(fold_batch_norm(trained), DENSITIES)
    stages = deep_compression(network, Deep(bits=5)).list
    for stage in stages:
        assert all(np.array_equal(zeros(stage.network)[n], m) for n, m in zeros(network).items())


def test_one_density_spares_what_uniform_spares(trained):
    assert pruned(trained, Deep(density=0.1)).nonzero == trained.nonzero  # all are tiny


def test_the_pipeline_is_deterministic(trained, data, stages):  # noqa: F811
    again = deep_compression(trained, CONFIG, data).list
    assert container.encode(again[-1].network) == container.encode(stages[-1].network)


def test_progress_tells_each_training(trained, data):  # noqa: F811
    tasks = []
    deep_compression(trained, CONFIG, data, progress=lambda task, done, total: tasks.append(task))
    assert list(dict.fromkeys(tasks)) == ["retrain 1 of 2", "retrain 2 of 2", "centroids"]


@pytest.mark.parametrize("density", [1.0, 0.25])
def test_dropout_is_scaled_by_the_root_of_the_density(density):
    network = prune(small_network(dropout=0.4), {"conv2.weight": density})
    scaled = parse(with_scaled_dropout(network).graph)
    (ratio,) = [t for t in scaled.graph.initializer if t.name == "drop1.ratio"]
    # Han et al. 2015, equation 3: D_r = D_o * sqrt(C_ir / C_io).
    assert np.frombuffer(ratio.raw_data, "<f4") == pytest.approx(0.4 * density**0.5)


def test_retraining_leaves_the_graph_as_it_is(trained, data):  # noqa: F811
    network = prune(trained, {"conv2.weight": 0.5})
    assert retrained(network, data, CONFIG.retrain).graph == network.graph


def test_rounding_is_that_of_float16_in_its_range():
    values = np.random.default_rng(0).normal(size=10_000).astype(np.float32)
    assert np.array_equal(with_mantissa(values, 10), values.astype(np.float16).astype(np.float32))
    assert with_mantissa(values, 23) is values


def test_rounding_never_makes_zeros_or_infinities():
    corners = [1e-45, -1e-45, 3.4028235e38, -3.4028235e38, 0.0, 1e-30]
    back = with_mantissa(np.array(corners, np.float32), 4)
    assert np.all(np.isfinite(back))
    assert np.array_equal(back == 0, np.array(corners, np.float32) == 0)


def test_rounded_centroids_may_merge():
    values = np.array([[1.0, 1.0001, 0.0, -1.0]], np.float32)
    network = small_network()
    name = "conv2.weight"
    shape = network.tensors[name].shape
    tensor = SharedTensor.from_values(np.resize(values, shape))
    after = with_rounded_tables(network.with_tensors({name: tensor}), 8).tensors[name]
    assert after.centroids.tolist() == [-1.0, 0.0, 1.0]
    assert np.array_equal(after.values(), np.rint(tensor.values()))


@pytest.mark.parametrize("config", [deep.paper_6bit(), deep.paper_8bit()], ids=["6bit", "8bit"])
def test_the_papers_presets_keep_what_table_1_keeps(config):
    network = create("squeezenet-1.0")
    biases = sum(t.size for name, t in network.tensors.items() if name.endswith(".bias"))
    kept = prune(network, config.density)
    weights = sum(np.count_nonzero(kept.tensors[name]) for name in weight_names(network))
    assert weights + biases == 421_098


@pytest.mark.parametrize(
    ("model", "config"),
    [("squeezenet-digits", deep.digits()), ("squeezenet-1.1", Deep(density=0.33))],
)
def test_other_presets_fit_their_networks(model, config):
    network = create(model, classes=10)
    assert pruned(network, config).nonzero < 0.5 * network.nonzero


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rounds": 0}, "rounds must be at least 1"),
        ({"mantissa_bits": 0}, "mantissa_bits must be 1 to 23"),
    ],
)
def test_wrong_settings_are_errors(changes, message):
    with pytest.raises(InputError, match=message):
        dataclasses.replace(CONFIG, **changes)


def test_densities_of_another_network_are_an_error():
    with pytest.raises(InputError, match="densities are for SqueezeNet"):
        deep_compression(small_network(), deep.paper_6bit())
