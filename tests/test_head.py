"""A new last layer: the rest stays, known classes keep their weights, and it runs."""

import numpy as np
import pytest

from squeezekit.models import catalogue
from squeezekit.models.head import with_new_head
from squeezekit.runtime.classifier import from_network

LABELS = tuple("abcdefghij")


@pytest.fixture(scope="module")
def network():
    return catalogue.create("squeezenet-digits", labels=LABELS, seed=3)


def test_everything_but_the_head_stays(network):
    new = with_new_head(network, ("x", "y", "z"))
    changed = {n for n in network.tensors if network.tensors[n].shape != new.tensors[n].shape}
    assert changed == {"conv8.weight", "conv8.bias"}
    for name in network.tensors.keys() - changed:
        assert np.array_equal(new.tensors[name], network.tensors[name])
    assert new.metadata.labels == ("x", "y", "z")
    image = np.random.default_rng(0).normal(size=(2, 1, 8, 8)).astype(np.float32)
    assert from_network(new).logits(image).shape == (2, 3)


def test_known_classes_keep_their_outputs(network):
    """The new network's outputs for classes that it knows are the old one's, to the last bit."""
    new = with_new_head(network, ("c", "new", "j"), known={0: 2, 2: 9})
    images = np.random.default_rng(0).normal(size=(5, 1, 8, 8)).astype(np.float32)
    before, after = (from_network(net).logits(images) for net in (network, new))
    assert np.allclose(after[:, [0, 2]], before[:, [2, 9]], atol=1e-6)
    assert not np.allclose(after[:, 1], before[:, 1], atol=1e-3)
