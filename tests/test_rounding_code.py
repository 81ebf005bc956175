"""The compiled loops of rounding do what plain loops in numpy do."""

from pathlib import Path

import numpy as np
import pytest

from squeezekit.compression import rounding_code
from squeezekit.sqz.coders import compiled, engine

COMPILED = Path(rounding_code.__file__).parent / "compiled"


@pytest.fixture(params=["machine code", "WebAssembly"])
def code(request, monkeypatch):
    found = (
        compiled.library(COMPILED / "rounding-x86_64-linux.so")
        if request.param == "machine code"
        else compiled.module(COMPILED / "rounding.wasm")
    )
    if found is None:
        pytest.skip("there is no machine code for this machine")
    here = engine.code_of(found, {})
    monkeypatch.setattr(rounding_code, "_code", lambda: here)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def layer(rows, width, most, seed):
    """Weights, and a covariance whose inputs vary together."""
    random = np.random.default_rng(seed)
    inputs = random.normal(size=(4 * width, width)) @ random.normal(size=(width, width))
    covariance = (inputs.T @ inputs / len(inputs) + np.eye(width)).astype(np.float32)
    weights = random.normal(size=(rows, width)).astype(np.float32)
    cost = random.uniform(0.1, 3.0, 2 * most + 1).astype(np.float32)
    return weights, covariance, cost


def cheapest(ideal, choices, values, cost, worth):
    losses = [worth * np.float32(ideal - values[c]) ** 2 + cost[c] for c in choices]
    return choices[int(np.argmin(losses))]


@pytest.mark.parametrize(("rows", "width", "most"), [(1, 1, 1), (3, 5, 2), (8, 20, 3), (19, 33, 7)])
def test_rounding_column_by_column(code, rows, width, most):
    weights, covariance, cost = layer(rows, width, most, seed=rows)
    step, half_nats = np.float32(2.5 / most), np.float32(0.7)
    upper = np.linalg.cholesky(np.linalg.inv(covariance.astype(np.float64))).T.astype(np.float32)
    left, expected = weights.copy(), np.zeros((rows, width), int)
    values = np.arange(-most, most + 1, dtype=np.float32) * step
    for r in range(rows):
        for j in range(width):
            near = int(np.clip(np.rint(left[r, j] / step), -most, most))
            choices = [near + most, near - np.sign(near) + most, most]
            worth = half_nats / upper[j, j] ** 2
            expected[r, j] = cheapest(left[r, j], choices, values, cost, worth) - most
            error = (left[r, j] - expected[r, j] * step) / upper[j, j]
            left[r, j + 1 :] -= error * upper[j, j + 1 :]
    found = rounding_code.round_rows(weights.copy(), upper, cost, float(step), float(half_nats))
    assert (found == expected).mean() > 0.97  # a last bit may turn a choice between equals


@pytest.mark.parametrize(("rows", "width", "most"), [(1, 1, 1), (3, 5, 2), (8, 20, 3), (19, 33, 7)])
def test_descent_takes_what_is_cheapest_and_keeps_the_gradient(code, rows, width, most):
    target, covariance, cost = layer(rows, width, most, seed=rows + 1)
    values = np.sort(np.random.default_rng(1).normal(size=2 * most + 1)).astype(np.float32)
    values -= values[most]
    levels = np.random.default_rng(2).integers(-most, most + 1, (rows, width)).astype(np.int32)
    weights = values[levels + most]
    pull = ((target - weights) @ covariance).astype(np.float32)
    expected = levels.copy()
    middles = (values[1:] + values[:-1]) / 2
    for r in range(rows):
        now = weights[r].copy()
        for j in range(width):
            ideal = now[j] + (target[r] - now) @ covariance[j] / covariance[j, j]
            near = int(np.searchsorted(middles, ideal))
            choices = [near, near - np.sign(near - most), most, expected[r, j] + most]
            best = cheapest(ideal, choices, values, cost, np.float32(0.3) * covariance[j, j])
            expected[r, j], now[j] = best - most, values[best]
    rounding_code.descend_rows(levels, weights, pull, covariance, cost, values, 0.3)
    assert (levels == expected).mean() > 0.97
    np.testing.assert_array_equal(weights, values[levels + most])
    np.testing.assert_allclose(pull, (target - weights) @ covariance, atol=2e-3)


def test_products_are_those_of_the_members(code):
    target, covariance, _ = layer(11, 23, 4, seed=5)
    levels = np.random.default_rng(3).integers(-4, 5, (11, 23)).astype(np.int32)
    group = np.array([2, 2, 0, 1, -1, 1, 0, 2, -1], np.int32)  # the third by its levels
    members = np.stack(
        [(group[levels + 4] == g) * (levels if g == 2 else 1) for g in range(3)]
    ).astype(np.float64)
    both, wanted = rounding_code.products(levels, covariance, target @ covariance, group, 3, 2)
    np.testing.assert_allclose(
        both, np.einsum("ark,kl,brl->ab", members, covariance, members), rtol=1e-5
    )
    np.testing.assert_allclose(
        wanted, np.einsum("ark,kl,rl->a", members, covariance, target), rtol=1e-3, atol=1e-3
    )


def test_threads_share_the_rows(monkeypatch):
    target, covariance, cost = layer(37, 12, 3, seed=9)
    upper = np.linalg.cholesky(np.linalg.inv(covariance.astype(np.float64))).T.astype(np.float32)
    found = []
    for threads in ("1", "3"):
        monkeypatch.setenv("OMP_NUM_THREADS", threads)
        found.append(rounding_code.round_rows(target.copy(), upper, cost, 0.4, 1.0))
    np.testing.assert_array_equal(*found)
