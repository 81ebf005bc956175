"""Folded batch norms: the same function with fewer nodes."""

import dataclasses

import numpy as np
import pytest
from foreign import Maker, images, resnet, run

from squeezekit.models.alexnet import AlexNetConfig, alexnet
from squeezekit.models.fold import fold_batch_norm
from squeezekit.models.squeezenet import digits, squeezenet, v1_0, v1_1
from squeezekit.sqz.graph import parse, split
from squeezekit.sqz.network import Metadata, Network, Preprocessing, SharedTensor


def imported(model):
    return Network(*split(model), Metadata("test", Preprocessing(32, 32)))


def with_random_statistics(network):
    rng = np.random.default_rng(0)
    changed = {
        name: rng.uniform(0.5, 2.0, tensor.shape).astype(np.float32)
        for name, tensor in network.tensors.items()
        if ".bn." in name
    }
    return network.with_tensors(changed)


def operators(network):
    return [node.op_type for node in parse(network.graph).graph.node]


@pytest.mark.parametrize("config", [v1_1(classes=10, input_size=65), digits()])
def test_folding_changes_no_answer(config):
    network = squeezenet(dataclasses.replace(config, batch_norm=True))
    network = with_random_statistics(network)
    folded = fold_batch_norm(network)
    assert "BatchNormalization" not in operators(folded)
    x = images(3, config.channels, config.input_size)
    expected = run(network, x)
    np.testing.assert_allclose(run(folded, x), expected, atol=2e-5 * np.abs(expected).max())


def test_folded_graph_is_that_of_the_network_without():
    folded = fold_batch_norm(squeezenet(dataclasses.replace(v1_0(), batch_norm=True)))
    plain = squeezenet(v1_0())
    assert folded.graph == plain.graph
    assert list(folded.tensors) == list(plain.tensors)
    assert folded.parameters == 1_248_424


def test_folding_is_exact_where_float32_is():
    """Powers of two: the formula itself, without rounding."""
    m = Maker()
    x = m.conv("input", (2, 3, 1, 1))
    scale, bias, mean, var = ([4.0, 0.5], [1.0, -2.0], [0.25, 8.0], [3.75, 0.0])
    x = m.node("BatchNormalization", x, *map(m.tensor, (scale, bias, mean, var)), epsilon=0.25)
    network = imported(m.model(x))
    weight, old_bias, *_ = network.tensors
    new = fold_batch_norm(network).tensors
    factor = np.array([2.0, 1.0], np.float32)  # 4 / sqrt(4), 0.5 / sqrt(0.25)
    assert np.array_equal(new[weight], network.tensors[weight] * factor.reshape(2, 1, 1, 1))
    expected = (network.tensors[old_bias].astype(float) - mean) * factor + bias
    assert np.array_equal(new[old_bias], expected.astype(np.float32))
    assert list(new) == [weight, old_bias]


def test_linear_layers_fold_too():
    network = alexnet(AlexNetConfig(classes=3, input_size=67, hidden=16, batch_norm=True))
    network = with_random_statistics(network)
    folded = fold_batch_norm(network)
    assert "BatchNormalization" not in operators(folded)
    np.testing.assert_allclose(
        run(folded, images(2, 3, 67)), run(network, images(2, 3, 67)), rtol=1e-4
    )


@pytest.mark.parametrize(
    "attributes", [{}, {"transB": 1, "alpha": 2.0}, {"transA": 1, "transB": 1}]
)
def test_matrix_products_that_do_more_stay(attributes):
    m = Maker()
    x = m.node("Gemm", "input", m.tensor(np.eye(3)), **attributes)
    scale, bias, mean, var = ([4.0, 0.5, 1.0], [1.0, -2.0, 0.0], [0.5, 8.0, 0.0], [3.0, 0.5, 1.0])
    x = m.node("BatchNormalization", x, *map(m.tensor, (scale, bias, mean, var)))
    assert "BatchNormalization" in operators(fold_batch_norm(imported(m.model(x))))


def test_foreign_networks():
    network = imported(resnet())
    folded = fold_batch_norm(network)
    assert "BatchNormalization" not in operators(folded)
    np.testing.assert_allclose(run(folded, images()), run(network, images()), atol=1e-4)


def test_what_cannot_be_folded_stays():
    """A convolution that something else uses too, and a batch norm of the image itself."""
    m = Maker()
    x = m.batch_norm("input", 3)
    y = m.conv(x, (3, 3, 1, 1))
    x = m.node("Add", m.batch_norm(y, 3), y)
    z = m.conv(x, (3, 3, 1, 1))
    x = m.batch_norm(z, 3)
    network = imported(m.model(x))
    folded = fold_batch_norm(network)
    assert operators(folded).count("BatchNormalization") == 2
    assert parse(folded.graph).graph.output[0].name == x
    np.testing.assert_allclose(run(folded, images()), run(network, images()), atol=1e-4)


def test_shared_weights_become_plain():
    network = with_random_statistics(squeezenet(dataclasses.replace(digits(), batch_norm=True)))
    values = np.round(network.values()["conv1.weight"], 1)
    network = network.with_tensors({"conv1.weight": SharedTensor.from_values(values)})
    folded = fold_batch_norm(network)
    assert isinstance(folded.tensors["conv1.weight"], np.ndarray)
    x = images(2, 1, 8)
    np.testing.assert_allclose(run(folded, x), run(network, x), atol=1e-4)


def test_without_batch_norm_nothing_changes():
    network = squeezenet(v1_1())
    folded = fold_batch_norm(network)
    assert folded.graph == network.graph
    assert dict(folded.tensors) == dict(network.tensors)
