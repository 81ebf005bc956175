"""Weight sharing: what k-means promises, against scikit-learn's, and its awkward corners."""

from itertools import islice

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.cluster import KMeans
from test_prune import small_network

from squeezekit.compression.prune import prune
from squeezekit.compression.share import first_centroids, lloyd, nearest, share, share_tensor
from squeezekit.errors import InputError
from squeezekit.sqz.network import SharedTensor, tensor_values

elements = st.floats(-4, 4, width=32) | st.sampled_from([-1.0, 0.0, 0.25, 1e-45, -1e-45])
weights = hnp.arrays(
    np.float32, hnp.array_shapes(min_dims=2, max_dims=4, max_side=8), elements=elements
)
bits = st.integers(1, 5)
inits = st.sampled_from(["linear", "density", "random"])
INITS = ("linear", "density", "random")


def squared_error(values: np.ndarray, centroids: np.ndarray) -> float:
    """Sum of squared distances to the nearest centroid, by brute force."""
    return float((np.abs(values[:, None] - centroids[None, :]).min(axis=1) ** 2).sum())


@given(weights, bits, inits)
def test_each_weight_gets_its_nearest_centroid(values, bits, init):
    shared = share_tensor(values, bits, init)
    alive = values != 0
    if not alive.any():
        return
    used = np.unique(shared.levels[alive])
    centroids = shared.centroids[used + shared.zero].astype(np.float64)
    exact = values[alive].astype(np.float64)
    distance = np.abs(shared.values()[alive] - exact)
    best = np.abs(exact[:, None] - centroids[None, :]).min(axis=1)
    assert np.array_equal(distance, best)


@given(weights, bits, inits)
@example(np.array([[1, -1, 1, -1]], np.float32), 1, "linear")
def test_zeros_stay_zeros_and_nothing_else_becomes_one(values, bits, init):
    shared = share_tensor(values, bits, init)
    assert shared.shape == values.shape
    assert np.array_equal(shared.levels == 0, values == 0)
    assert np.array_equal(shared.values() == 0, values == 0)


@given(weights, bits, inits)
def test_no_more_centroids_than_the_bits_allow_and_all_have_members(values, bits, init):
    shared = share_tensor(values, bits, init)
    alive = values != 0
    used = np.unique(shared.levels[alive])
    assert len(used) <= 2**bits - (not alive.all())
    assert len(used) == len(shared.centroids) - 1  # all but the zero


@given(weights, bits, inits)
def test_few_distinct_values_are_kept_without_loss(values, bits, init):
    distinct = np.unique(values[values != 0])[: 2**bits - 1]
    few = np.where(np.isin(values, distinct), values, np.float32(0))
    assert np.array_equal(share_tensor(few, bits, init).values(), few)


@given(weights, bits, inits)
def test_sharing_is_deterministic(values, bits, init):
    one, two = (share_tensor(values, bits, init, seed=7) for _ in range(2))
    assert np.array_equal(one.levels, two.levels)
    assert np.array_equal(one.centroids, two.centroids)


@given(hnp.arrays(np.float32, st.integers(20, 300), elements=elements), st.integers(2, 9), inits)
def test_lloyd_never_increases_the_squared_error(values, count, init):
    ordered = np.sort(values)
    if len(np.unique(ordered)) <= count:
        return
    centroids = first_centroids(ordered, count, init)
    errors = [squared_error(ordered.astype(np.float64), centroids)]
    for moved in islice(lloyd(ordered, centroids), 50):
        assert np.all(np.diff(moved) >= 0)
        errors.append(squared_error(ordered.astype(np.float64), moved))
    assert np.all(np.diff(errors) <= 1e-9 * (1 + errors[0]))


@pytest.mark.parametrize("init", INITS)
def test_distortion_equals_that_of_scikit_learn(init):
    values = np.random.default_rng(3).standard_t(4, 3000).astype(np.float32)
    ordered = np.sort(values)
    start = first_centroids(ordered, 15, init)
    other = KMeans(15, init=start[:, None], n_init=1, max_iter=1000, tol=0, algorithm="lloyd")
    inertia = other.fit(ordered[:, None].astype(np.float64)).inertia_
    shared = share_tensor(np.append(values, np.float32(0))[None], 4, init)  # 15 beside the zero
    ours = squared_error(values.astype(np.float64), shared.centroids[shared.centroids != 0])
    # Both end in a local optimum; where clusters fall empty the two restart them differently.
    assert ours == pytest.approx(inertia, rel=1e-5 if init == "density" else 0.1)


def test_linear_initialisation_restarts_empty_clusters():
    # One outlier leaves most of the evenly spaced first centroids without a member.
    values = np.append(np.random.default_rng(0).normal(size=2000), 1e4).astype(np.float32)
    shared = share_tensor(values[None], 4)
    assert len(shared.centroids) == 17
    assert squared_error(values, shared.centroids) < 2000 / 16


def test_a_centroid_on_zero_moves_to_a_member():
    values = np.array([[-1, 1, 10, 11]], np.float32)  # two clusters: their means are 0 and 10.5
    shared = share_tensor(values, 1)
    assert shared.values().tolist() in ([[-1, -1, 10.5, 10.5]], [[1, 1, 10.5, 10.5]])


@pytest.mark.parametrize("value", [0.0, -0.0, 0.5, -2.0])
def test_a_tensor_of_one_weight(value):
    shared = share_tensor(np.full((1, 1), value, np.float32), 1)
    assert shared.values().tolist() == [[value]]


def test_a_tensor_of_zeros_has_only_the_zero():
    assert share_tensor(np.zeros((3, 4), np.float32), 8).centroids.tolist() == [0.0]


def test_nearest_takes_the_lower_of_two_equally_near():
    centroids = np.array([-1, 1, 3], np.float32)
    assert nearest(np.array([-9, 0, 2, 9], np.float32), centroids).tolist() == [0, 0, 1, 2]


def test_share_changes_only_weights_and_keeps_masks():
    network = prune(small_network(), {"conv2.weight": 0.3})
    shared = share(network, 3)
    kinds = {name for name, t in shared.tensors.items() if isinstance(t, SharedTensor)}
    assert kinds == {"conv1.weight", "conv2.weight", "conv3.weight"}
    for name in kinds:
        before, after = tensor_values(network.tensors[name]), tensor_values(shared.tensors[name])
        assert np.array_equal(before == 0, after == 0)
    assert len(shared.tensors["conv1.weight"].centroids) == 8 + 1  # dense: the zero is unused
    assert len(shared.tensors["conv2.weight"].centroids) == 7 + 1


def test_bits_by_name_leave_the_others():
    shared = share(small_network(), {"conv2.weight": 2})
    assert not isinstance(shared.tensors["conv1.weight"], SharedTensor)
    assert len(np.unique(shared.tensors["conv2.weight"].values())) == 4


def test_sharing_again_with_fewer_bits():
    twice = share(share(small_network(), 6), 2)
    assert len(np.unique(twice.tensors["conv2.weight"].values())) == 4


@pytest.mark.parametrize("bits", [0, 17, -1])
def test_bits_out_of_range_are_an_error(bits):
    with pytest.raises(InputError, match="bits"):
        share(small_network(), bits)


def test_other_errors():
    network = small_network()
    with pytest.raises(InputError, match=r"conv1\.bias"):
        share(network, {"conv1.bias": 4})
    with pytest.raises(InputError, match="'linaer'"):
        share(network, 4, init="linaer")  # type: ignore[arg-type]
    broken = np.full((4, 64, 1, 1), np.nan, np.float32)
    with pytest.raises(InputError, match="finite"):
        share(network.with_tensors({"conv3.weight": broken}), 4)
