"""Low-rank layers: full rank changes nothing, and the error is what the spectrum says."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from squeezekit.compression.low_rank import factored, ranks_by_bytes, ranks_by_energy, spectra
from squeezekit.compression.share import share
from squeezekit.errors import InputError
from squeezekit.models.alexnet import AlexNetConfig, alexnet
from squeezekit.models.builder import GraphBuilder, gaussian
from squeezekit.models.catalogue import create
from squeezekit.models.fold import fold_batch_norm
from squeezekit.runtime.classifier import from_network
from squeezekit.runtime.images import default_preprocessing
from squeezekit.sqz import container
from squeezekit.sqz.network import Metadata
from squeezekit.trainable.network import TorchClassifier


def network(seed=0, groups=2):
    """Strided, padded, grouped and pointwise convolutions, and two fully connected layers."""
    net = GraphBuilder(3, 13, 13)
    x = net.relu("relu1", net.conv("conv1", net.image, 8, 3, stride=2, pad=1))
    x = net.relu("relu2", net.conv("conv2", x, 12, 3, pad=1, groups=groups))
    x = net.batch_norm("bn3", net.conv("conv3", x, 10, 1, bias=None))
    x = net.linear("fc4", net.flatten("flat", x), 16)
    x = net.linear("fc5", x, 5, bias=0.5, init=gaussian(0.3))
    return net.build(x, Metadata("small", default_preprocessing(13, 3)), seed)


def images(count=3, size=13):
    return np.random.default_rng(1).normal(size=(count, 3, size, size)).astype(np.float32)


def full_ranks(net):
    return {layer.name: len(layer.singular_values) for layer in spectra(net)}


def test_full_rank_gives_the_same_outputs_everywhere():
    net = network()
    full = factored(net, full_ranks(net))
    expected = from_network(net).logits(images())
    for classifier in (from_network(full), TorchClassifier(full)):
        assert np.allclose(classifier.logits(images()), expected, rtol=1e-4, atol=1e-5)
    assert full.parameters > net.parameters  # which is why a layer is left alone at full rank


def restored(net, name, groups):
    """The weight that two halves multiply to, written with loops of its own."""
    layer = name.removesuffix(".weight")
    basis, mixing = net.tensors[f"{layer}.basis.weight"], net.tensors[name]
    if mixing.ndim == 2:
        return mixing @ basis
    parts = zip(np.split(mixing, groups), np.split(basis, groups), strict=True)
    return np.concatenate([np.tensordot(m[:, :, 0, 0], b, axes=1) for m, b in parts])


@given(rank=st.integers(1, 4), seed=st.integers(0, 3))
def test_the_error_is_the_energy_of_the_discarded_singular_values(rank, seed):
    net = network(seed)
    small = factored(net, {layer.name: rank for layer in spectra(net)})
    for layer in spectra(net):
        groups = 2 if layer.name == "conv2.weight" else 1
        error = net.tensors[layer.name] - restored(small, layer.name, groups)
        lost = np.square(layer.singular_values[rank:]).sum()
        assert np.square(error).sum() == pytest.approx(lost, rel=1e-3, abs=1e-6)
        # An independent count of the whole: the squares of all singular values are the weight's.
        whole = np.square(net.tensors[layer.name]).sum()
        assert np.square(layer.singular_values).sum() == pytest.approx(whole, rel=1e-4)


def test_a_weight_of_low_rank_is_found_out_and_kept_whole():
    net = network()
    rng = np.random.default_rng(0)
    shape = net.tensors["fc4.weight"].shape
    low = (rng.normal(size=(shape[0], 3)) @ rng.normal(size=(3, shape[1]))).astype(np.float32)
    net = net.with_tensors({"fc4.weight": low})
    ranks = ranks_by_energy(spectra(net), 0.9999)
    assert ranks["fc4.weight"] == 3
    small = factored(net, {"fc4.weight": 3})
    assert np.allclose(from_network(small).logits(images()), from_network(net).logits(images()),
                       rtol=1e-3, atol=1e-3)  # fmt: skip


def test_only_what_saves_is_factored():
    net = network()
    names = [layer.name for layer in spectra(net)]
    assert names == [f"{name}.weight" for name in ("conv1", "conv2", "conv3", "fc4", "fc5")]
    assert ranks_by_energy(spectra(net), 1.0) == {}
    depthwise = GraphBuilder(3, 8, 8)
    x = depthwise.conv("conv1", depthwise.image, 3, 3, groups=3)
    x = depthwise.global_average_pool("pool", x)
    tiny = depthwise.build(x, Metadata("tiny", default_preprocessing(8, 3)))
    assert spectra(tiny) == []


@pytest.mark.parametrize("times", [1.5, 2, 3])
def test_a_target_in_bytes_is_met_and_not_missed_by_much(times):
    net = create("squeezenet-1.1", classes=10)
    target = int(4 * net.parameters / times)
    ranks = ranks_by_bytes(net, spectra(net), target)
    small = factored(net, ranks)
    assert 0.97 * target < 4 * small.parameters <= target
    assert len(container.encode(small, "dense")) < target + 20_000  # biases are zeros still


def test_an_impossible_target_is_an_error():
    net = network()
    with pytest.raises(InputError, match="cannot be factored to 400 bytes: at rank 1"):
        ranks_by_bytes(net, spectra(net), 400)


@pytest.mark.parametrize(
    ("ranks", "message"),
    [({"conv9.weight": 1}, "cannot factor 'conv9.weight'"), ({"fc5.weight": 6}, "ranks 1 to 5")],
)
def test_wrong_ranks_are_errors(ranks, message):
    with pytest.raises(InputError, match=message):
        factored(network(), ranks)


def test_a_batch_norm_behind_a_factored_convolution_still_folds():
    net = network()
    rng = np.random.default_rng(0)
    net = net.with_tensors(
        {f"bn3.{part}": rng.uniform(0.5, 2, 10).astype(np.float32)
         for part in ("scale", "bias", "mean", "var")}
    )  # fmt: skip
    small = factored(net, {"conv3.weight": 4})
    folded = fold_batch_norm(small)
    assert "bn3.scale" not in folded.tensors
    assert np.allclose(from_network(folded).logits(images()), from_network(small).logits(images()),
                       rtol=1e-4, atol=1e-4)  # fmt: skip


def test_a_factored_network_survives_the_file():
    net = network()
    small = factored(net, {"conv2.weight": 2, "fc4.weight": 5})
    back = container.decode(container.encode(small))
    assert back.graph == small.graph
    assert all(np.array_equal(back.values()[n], v) for n, v in small.values().items())


def test_shared_weights_can_be_factored():
    net = share(network(), 4)
    small = factored(net, {"fc4.weight": 16})
    assert np.allclose(from_network(small).logits(images()), from_network(net).logits(images()),
                       rtol=1e-4, atol=1e-4)  # fmt: skip


def test_alexnet_five_times_smaller_keeps_its_groups():
    net = alexnet(AlexNetConfig(classes=10, input_size=67, hidden=256))
    target = 4 * net.parameters // 5
    small = factored(net, ranks_by_bytes(net, spectra(net), target))
    assert 4 * small.parameters <= target
    assert from_network(small).logits(images(1, 67)).shape == (1, 10)
