"""Magnitude pruning: exact counts, the largest stay, and Table 1 of the paper."""

import math

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from onnx import TensorProto, helper

from squeezekit.compression import prune as prune_module
from squeezekit.compression.prune import (
    kept_count,
    layer_adaptive,
    prune,
    prune_tensor,
    table1,
    uniform,
)
from squeezekit.errors import InputError
from squeezekit.models.catalogue import create
from squeezekit.sqz.network import TORCHVISION, Metadata, Network, SharedTensor
from squeezekit.sqz.nodes import weight_names

floats = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=2, max_dims=4, max_side=6),
    elements=st.floats(-2, 2, width=16) | st.sampled_from([-1.0, 0.0, 0.5, 0.5, 1.0]),
)
densities = st.floats(0, 1, exclude_min=True)

# Table 1 of the paper, last column: parameters (weights and biases) after pruning.
AFTER_PRUNING = {
    "conv1": 14_208,
    "fire2": 5_746,
    "fire3": 6_258,
    "fire4": 20_646,
    "fire5": 24_742,
    "fire6": 44_700,
    "fire7": 46_236,
    "fire8": 77_581,
    "fire9": 77_581,
    "conv10": 103_400,
}


def small_network() -> Network:
    """conv1 (8 filters) -> conv2 (64 filters) -> conv3 (4 filters): only conv2 is not tiny."""
    rng = np.random.default_rng(0)
    tensors = {
        "conv1.weight": rng.normal(size=(8, 3, 3, 3)).astype(np.float32),
        "conv1.bias": rng.normal(size=8).astype(np.float32),
        "conv2.weight": rng.normal(size=(64, 8, 3, 3)).astype(np.float32),
        "conv3.weight": rng.normal(size=(4, 64, 1, 1)).astype(np.float32),
        "shift": rng.normal(size=(1, 4, 1, 1)).astype(np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["image", "conv1.weight", "conv1.bias"], ["a"]),
        helper.make_node("Conv", ["a", "conv2.weight"], ["b"]),
        helper.make_node("Conv", ["b", "conv3.weight"], ["c"]),
        helper.make_node("Add", ["c", "shift"], ["logits"]),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, 5, 5])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 4, 1, 1])
    model = helper.make_model(helper.make_graph(nodes, "small", [image], [logits]))
    assert isinstance(model, onnx.ModelProto)
    return Network(model.SerializeToString(), tensors, Metadata("small", TORCHVISION))


@given(floats, densities)
def test_keeps_exactly_the_largest(values, density):
    pruned = prune_tensor(values, density)
    kept = pruned != 0
    assert np.count_nonzero(kept) == min(kept_count(values.size, density), np.count_nonzero(values))
    assert np.array_equal(pruned[kept], values[kept])
    lost = np.abs(values[~kept])
    if kept.any() and lost.size:
        assert lost.max() <= np.abs(values[kept]).min()


@given(floats, densities)
def test_pruning_twice_changes_nothing(values, density):
    pruned = prune_tensor(values, density)
    assert np.array_equal(prune_tensor(pruned, density), pruned)


def test_the_first_of_equal_weights_stay():
    values = np.array([[1, -1, 1, -1, 1]], np.float32)
    assert prune_tensor(values, 0.4).tolist() == [[1, -1, 0, 0, 0]]


@given(st.integers(1, 10_000), densities)
def test_kept_count_is_the_density_rounded_up(size, density):
    count = kept_count(size, density)
    assert 1 <= count <= size
    assert count - 1 - 1e-3 <= density * size <= count + 1e-3 or count == 1


@pytest.mark.parametrize("percent", range(1, 101))
def test_kept_count_of_whole_percents_is_exact(percent):
    assert kept_count(100, percent / 100) == percent


def test_shared_tensors_stay_shared():
    shared = SharedTensor.from_values(np.array([[1, -3, 2, 0, 0.5]], np.float32))
    pruned = prune_tensor(shared, 0.4)
    assert isinstance(pruned, SharedTensor)
    assert pruned.values().tolist() == [[0, -3, 2, 0, 0]]


def test_only_what_multiplies_is_a_weight():
    assert weight_names(small_network()) == ("conv1.weight", "conv2.weight", "conv3.weight")


def test_uniform_spares_the_first_layer_and_tiny_ones():
    assert uniform(small_network(), 0.25) == {"conv2.weight": 0.25}


def test_layer_adaptive_keeps_what_the_scores_say(monkeypatch):
    """Against the scores as Lee et al. 2021 define them, weight by weight."""
    monkeypatch.setattr(prune_module, "TINY_SIZE", 200)
    network = small_network()
    rng = np.random.default_rng(1)
    values = {
        "conv2.weight": rng.normal(size=(64, 8, 3, 3)).astype(np.float32),
        "conv3.weight": rng.laplace(size=(4, 64, 1, 1)).astype(np.float32),
    }
    values["conv3.weight"][:2] = 0
    network = network.with_tensors(values)
    scored = []
    for name, value in values.items():
        squares = [float(x) ** 2 for x in value.ravel()]
        scored += [
            (s / sum(o for o in squares if o >= s) if s else 0.0, name) for s in set(squares)
        ]
    kept = sorted(scored, reverse=True)[: math.ceil(0.2 * (4608 + 256))]
    densities = layer_adaptive(network, 0.2)
    assert densities == {
        name: sum(n == name for _, n in kept) / value.size for name, value in values.items()
    }


def test_only_named_tensors_change():
    network = small_network()
    pruned = prune(network, {"conv2.weight": 0.1})
    changed = [n for n in network.tensors if pruned.tensors[n] is not network.tensors[n]]
    assert changed == ["conv2.weight"]
    assert np.count_nonzero(pruned.tensors["conv2.weight"]) == 461  # ceil(0.1 * 4608)


@pytest.mark.parametrize("name", ["conv9.weight", "conv1.bias", "shift"])
def test_a_name_that_is_no_weight_is_an_error(name):
    with pytest.raises(InputError, match=name):
        prune(small_network(), {name: 0.5})


@pytest.mark.parametrize("density", [0.0, -0.1, 1.01, float("nan")])
def test_a_density_out_of_range_is_an_error(density):
    with pytest.raises(InputError, match=r"density of conv2\.weight"):
        prune(small_network(), {"conv2.weight": density})
    with pytest.raises(InputError, match="density"):
        uniform(small_network(), density)


def test_table1_gives_the_papers_counts_after_pruning():
    network = create("squeezenet-1.0", 1000)
    # Initial biases are zero, and those of the paper are not: count every one of them.
    pruned = prune(network, table1())
    counts = dict.fromkeys(AFTER_PRUNING, 0)
    for name, tensor in pruned.tensors.items():
        is_bias = name.endswith(".bias")
        counts[name.split(".")[0]] += tensor.size if is_bias else np.count_nonzero(tensor)
    assert counts == AFTER_PRUNING  # to the last weight
    assert sum(counts.values()) == 421_098
