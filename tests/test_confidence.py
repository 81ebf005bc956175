"""Confidence: its error, the temperature, and the last layer that takes it."""

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from squeezekit.compression.share import share
from squeezekit.confidence import (
    FEWEST_PHOTOS,
    fit_temperature,
    reliability,
    with_temperature,
)
from squeezekit.errors import InputError, UnsupportedError
from squeezekit.interop.page_runtime import PageRuntime
from squeezekit.models import catalogue
from squeezekit.models.fold import fold_batch_norm
from squeezekit.runtime.calibration import calibrated
from squeezekit.runtime.classifier import from_network, softmax
from squeezekit.sqz import container
from squeezekit.sqz.graph import parse
from squeezekit.sqz.network import SharedTensor
from squeezekit.sqz.tensors import mantissa_bits, with_mantissa


@given(st.lists(st.tuples(st.floats(0, 1, width=32), st.booleans()), min_size=1, max_size=60))
def test_the_error_is_guos_sum_over_bins(answers):
    error = 0.0
    for low in range(15):  # ((m - 1) / 15, m / 15], as in the paper
        inside = [(p, r) for p, r in answers if low / 15 < p <= (low + 1) / 15]
        inside += [(p, r) for p, r in answers if p == 0 and low == 0]
        if inside:
            sure = sum(p for p, _ in inside) / len(inside)
            right = sum(r for _, r in inside) / len(inside)
            error += len(inside) / len(answers) * abs(sure - right)
    p, r = np.array([a[0] for a in answers]), np.array([a[1] for a in answers])
    assert math.isclose(reliability(p, r).error, error, abs_tol=1e-6)


def made_answers(temperature, images=4000, classes=7, seed=0):
    """Logits that are right as often as they say, and then multiplied by the temperature."""
    rng = np.random.default_rng(seed)
    true = (3 * rng.standard_normal((images, classes))).astype(np.float32)
    targets = np.array([rng.choice(classes, p=row / row.sum()) for row in softmax(true)])
    return true * np.float32(temperature), targets


@pytest.mark.parametrize("temperature", [0.4, 1.0, 1.7, 5.0])
def test_the_temperature_that_was_there_is_found(temperature):
    found = fit_temperature(*made_answers(temperature))
    assert math.isclose(found.value, temperature, rel_tol=0.08)
    assert found.after.error < 0.03
    if temperature != 1.0:
        assert found.before.error > 2 * found.after.error


def test_photos_that_are_all_right_do_not_make_a_network_sure_of_everything():
    targets = np.arange(100) % 4
    logits = np.eye(4, dtype=np.float32)[targets]
    found = fit_temperature(logits, targets)
    sure = softmax(logits / np.float32(found.value)).max(axis=1).mean()
    assert 0.9 < sure < 101 / 102 + 0.001  # the rule of succession


def test_too_few_photos_tell_nothing():
    logits, targets = made_answers(2.0)
    with pytest.raises(InputError, match="49 held-out photos are too few"):
        fit_temperature(logits[: FEWEST_PHOTOS - 1], targets[: FEWEST_PHOTOS - 1])
    fit_temperature(logits[:FEWEST_PHOTOS], targets[:FEWEST_PHOTOS])


def test_no_temperature_where_none_helps_on_other_photos():
    logits, targets = np.zeros((60, 3), np.float32), np.arange(60) % 3
    found = fit_temperature(logits, targets)
    assert found.value == 1.0
    assert "stays as it is" in str(found)


def test_a_probability_of_zero_is_a_number():
    logits, targets = made_answers(1.5, images=200)
    logits[np.arange(200), (targets + 1) % 7] = -np.inf
    assert math.isfinite(fit_temperature(logits, targets).value)


NETWORKS = {
    "a head with a mean": lambda: catalogue.create("squeezenet-digits"),
    "a relu behind the head": lambda: catalogue.create(
        "squeezenet-1.1", classes=5, input_size=64, variant="plain"
    ),
    "a dense head": lambda: catalogue.create("alexnet", classes=5, input_size=67),
}


def inputs_for(network, count=3):
    how = network.metadata.preprocessing
    shape = (count, how.channels, how.crop, how.crop)
    return np.random.default_rng(1).standard_normal(shape).astype(np.float32)


def logits_of(network, images):
    return from_network(network, precision="float").logits(images)


@pytest.mark.parametrize("make", NETWORKS.values(), ids=NETWORKS)
@pytest.mark.parametrize("temperature", [0.3, 2.5])
def test_all_logits_are_divided(make, temperature):
    network = make()
    images = inputs_for(network)
    before, after = (
        logits_of(n, images) for n in (network, with_temperature(network, temperature))
    )
    np.testing.assert_allclose(after, before / temperature, rtol=1e-4, atol=1e-6)


def test_a_file_with_a_temperature_keeps_its_levels_and_nearly_its_bytes():
    network = share(fold_batch_norm(catalogue.create("squeezenet-digits")), 5)
    rounded = {
        name: SharedTensor(t.levels, with_mantissa(t.centroids, 10), t.zero)
        if isinstance(t, SharedTensor)
        else with_mantissa(t, 10)
        for name, t in network.tensors.items()
    }
    network = network.with_tensors(rounded)
    small = container.encode(network)
    for temperature in (0.7, 1.1, 1.9):
        scaled = with_temperature(network, temperature)
        assert abs(len(container.encode(scaled)) - len(small)) < 16
        images = inputs_for(network)
        page = PageRuntime(container.encode(scaled))
        for image, expected in zip(images, logits_of(network, images) / temperature, strict=True):
            np.testing.assert_allclose(page.logits(image), expected, rtol=0.01, atol=1e-3)


def test_a_grid_stays_a_grid():
    network = catalogue.create("squeezenet-digits")
    head = list(network.tensors)[-2]
    whole = np.random.default_rng(0).integers(-127, 128, network.tensors[head].shape)
    network = network.with_tensors({head: np.float32(0.013) * whole.astype(np.float32)})
    scaled = with_temperature(network, 1.7)
    assert abs(len(container.encode(scaled)) - len(container.encode(network))) < 24


def test_ranges_behind_the_last_layer_keep_step():
    network = catalogue.create("squeezenet-digits")
    images = inputs_for(network, 20)
    network = calibrated(network, images)
    scaled = with_temperature(network, 2.0)
    before, after = network.metadata.activations, scaled.metadata.activations
    again = calibrated(scaled, images).metadata.activations
    assert after.keys() == again.keys()
    for name, measured in again.items():
        np.testing.assert_allclose(after[name], measured, rtol=1e-3)
    assert sum(before[name] != after[name] for name in before) == 1


def test_what_lets_no_factor_through_is_refused():
    network = catalogue.create("squeezenet-digits")
    model = parse(network.graph)
    old = model.graph.output[0].name
    model.graph.node.append(helper.make_node("Sigmoid", [old], ["squashed"]))
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info("squashed", TensorProto.FLOAT, None))
    other = dataclasses.replace(network, graph=model.SerializeToString())
    with pytest.raises(UnsupportedError, match="does not let a factor through"):
        with_temperature(other, 2.0)


@given(
    st.lists(st.floats(-(2.0**90), 2.0**90, width=32), min_size=1, max_size=20), st.integers(1, 23)
)
def test_numbers_use_the_mantissa_bits_that_they_were_rounded_to(values, bits):
    rounded = with_mantissa(np.array(values, np.float32), bits)
    used = mantissa_bits(rounded)
    np.testing.assert_array_equal(with_mantissa(rounded, used), rounded)
    if np.abs(rounded).min() > 1e-30:  # the least and the largest keep all
        assert used <= bits
