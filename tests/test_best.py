"""Second-order rounding: against brute force, torch's own gradients, and real networks."""

import dataclasses
import itertools
import json

import foreign
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from squeezekit.cli.verbs import app
from squeezekit.compression.best import Best
from squeezekit.compression.curvature import nats_a_squared_error, weight_fisher
from squeezekit.compression.layers import layers_of, sampled
from squeezekit.compression.moments import Moments, shrunk
from squeezekit.compression.rounder import Point, Rounder, divergence_of
from squeezekit.compression.rounding import Problem, round_layer
from squeezekit.compression.search import CURVE_FACTORS, to_quality, to_size
from squeezekit.compression.share import share
from squeezekit.data.dataset import split
from squeezekit.data.digits import write_digits
from squeezekit.errors import InputError
from squeezekit.interop import safetensors_file
from squeezekit.interop.weights import load_network
from squeezekit.models import catalogue
from squeezekit.models.fold import fold_batch_norm
from squeezekit.runtime.classifier import from_network
from squeezekit.sqz import container
from squeezekit.sqz.network import SharedTensor
from squeezekit.sqz.nodes import weight_names
from squeezekit.trainable.network import TrainableNetwork
from squeezekit.training import recipe as recipes
from squeezekit.training.batches import TrainingData
from squeezekit.training.loop import fit

NAMES = ["squeezenet-1.0", "squeezenet-1.0-complex", "alexnet"]


def images(count, size, channels=3, seed=0):
    return np.random.default_rng(seed).standard_normal((count, channels, size, size), np.float32)


def problem(blocks, rows, width, seed, price):
    random = torch.Generator().manual_seed(seed)
    spread = torch.randn(blocks, 4 * width, width, generator=random)
    spread = spread + torch.randn(blocks, 4 * width, 1, generator=random)  # correlated inputs
    covariance = spread.transpose(1, 2) @ spread / (4 * width)
    target = torch.randn(blocks, rows, width, generator=random)
    return Problem(target, covariance + 0.01 * torch.eye(width), 1.0, price)


def loss(problem, weights):
    error = weights - problem.target
    return float((0.5 * problem.nats * (error @ problem.covariance) * error).sum())


@pytest.mark.parametrize("name", NAMES)
def test_layers_are_products_with_patches(name):
    network = catalogue.create(name, classes=7, input_size=83)
    net = TrainableNetwork(network).eval()
    layers = layers_of(net)
    assert {layer.weight for layer in layers.values()} == set(net.weight_names())
    values = {net.input_name: torch.from_numpy(images(2, 83))}
    with torch.no_grad():
        for node in net.nodes:
            value = net.computed(node, values)
            if node.output in layers:
                layer = layers[node.output]
                weight = net.weights[layer.weight]()
                matrices = layer.matrices(weight)
                assert torch.equal(layer.stored(matrices), weight)
                patches = layer.patches(values[node.inputs[0]])  # (N, B, K, P)
                product = matrices @ patches  # (N, B, R, P)
                product = product.sum(1) if layer.parts > 1 else product.flatten(1, 2)
                product = product + net.weights[layer.bias]()[:, None]
                torch.testing.assert_close(
                    product.reshape(value.shape), value, rtol=1e-3, atol=1e-3
                )
                value = value.clone()
            values[node.output] = value


def test_wide_filters_are_split():
    network = catalogue.create("alexnet", classes=3, input_size=227)
    layers = layers_of(TrainableNetwork(network))
    (fc6,) = [layer for layer in layers.values() if layer.weight == "fc6.weight"]
    assert fc6.parts == 4
    assert fc6.shape == (4096, 9216, 1, 1)


def test_sampled_positions_are_columns_of_the_patches():
    patches = torch.arange(2 * 3 * 4 * 10).view(2, 3, 4, 10).float()
    found = sampled(patches, 5, torch.Generator().manual_seed(0))
    assert found.shape == (3, 10, 4)
    every = {tuple(patches[n, b, :, p].tolist()) for n, b, p in np.ndindex(2, 3, 10)}
    assert {tuple(row.tolist()) for row in found.reshape(-1, 4)} <= every
    assert sampled(patches, 99, torch.Generator()).shape == (3, 20, 4)


@pytest.mark.parametrize(("model", "place"), [("squeezenet-1.0", 3), ("alexnet", -3)])
def test_fisher_is_the_covariance_of_the_gradients(model, place):
    """Against torch's own gradients of single images, with the same drawn classes."""
    network = catalogue.create(model, classes=5, input_size=67)
    net = TrainableNetwork(network).eval()
    name, layer = list(layers_of(net).items())[place]
    x = torch.from_numpy(images(6, 67))
    found = weight_fisher(net, {name: layer}, x, batch=6, seed=3)[name]
    with torch.no_grad():
        probabilities = net(x).softmax(1)
    classes = torch.multinomial(probabilities, 1, generator=torch.Generator().manual_seed(3))[:, 0]
    total = torch.zeros(found.shape[1:])
    for image, label in zip(x, classes, strict=True):
        net.zero_grad()
        torch.nn.functional.cross_entropy(net(image[None]), label[None]).backward()
        weight = net.weights[layer.weight].values.grad.flatten(1)
        bias = net.weights[layer.bias].values.grad[:, None]
        each = torch.cat([weight, bias], 1)
        total += each.T @ each / len(each) / len(x)
    torch.testing.assert_close(found[0], total, rtol=1e-3, atol=1e-3 * float(total.abs().max()))


def test_fisher_predicts_the_divergence():
    """0.5 trace(D H D') against what a small random change really does, its bias at its best."""
    network = catalogue.create("squeezenet-digits")
    net = TrainableNetwork(network).eval()
    name, layer = list(layers_of(net).items())[-1]
    x = torch.from_numpy(images(200, 8, channels=1))
    fisher = weight_fisher(net, {name: layer}, x)[name]
    weight, bias = net.weights[layer.weight].values, net.weights[layer.bias].values
    change = 0.3 * weight.std().detach() * torch.randn(weight.shape, generator=torch.Generator())
    with torch.no_grad():
        before = net(x)
        weight += change
        bias -= (net(x) - before).mean(0)  # the last layer's bias moves all logits alike
        measured = divergence_of(before, net(x))
    rows = layer.matrices(change)
    fisher = fisher[:, :-1, :-1] - fisher[:, :-1, -1:] @ fisher[:, -1:, :-1] / fisher[:, -1:, -1:]
    predicted = 0.5 * float(((rows @ fisher) * rows).sum().detach())
    assert predicted / 2 < measured < predicted * 2


def test_sensitivity_of_equal_curvatures_is_their_ratio():
    covariance = problem(2, 1, 5, 0, 0.1).covariance
    fisher = torch.nn.functional.pad(3.5 * covariance, (0, 1, 0, 1))
    assert nats_a_squared_error(fisher, covariance) == pytest.approx(3.5)


@given(seed=st.integers(0, 1000), price=st.sampled_from([0.003, 0.03, 0.3]))
@settings(max_examples=25, deadline=None)
def test_rounding_beats_the_nearest_level(seed, price):
    """Less error than rounding to nearest with the very same levels, and as few bits at most."""
    given_problem = problem(2, 16, 12, seed, price)
    found = round_layer(given_problem)
    weights = found.weights()
    assert set(np.unique(weights)) <= set(found.values.tolist())
    assert found.values[found.most] == 0.0

    def bits(levels):
        _, counts = np.unique(levels.numpy(), return_counts=True)
        return -float((counts * np.log2(counts / counts.sum())).sum())

    middles = (found.values[1:] + found.values[:-1]) / 2
    near = torch.bucketize(given_problem.target, middles)
    nearest = found.values[near]

    def total(levels, values):
        return loss(given_problem, values) + price * bits(levels)

    assert total(found.levels, weights) <= total((near - found.most).int(), nearest) + 1e-4


def test_rounding_of_a_tiny_layer_is_near_the_optimum():
    """Against all ways to round three weights to the levels found."""
    given_problem = problem(1, 1, 3, 1, 1e-4)
    found = round_layer(given_problem, sweeps=8)
    choices = itertools.product(found.values.tolist(), repeat=3)
    least = min(loss(given_problem, torch.tensor([[c]])) for c in choices)
    assert loss(given_problem, found.weights()) <= 3 * least + 1e-3


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """A network that has learnt something, and images of its kind."""
    folder = tmp_path_factory.mktemp("digits")
    write_digits(folder)
    network = catalogue.create("squeezenet-digits")
    data = TrainingData(split(folder, "train"), network.metadata.preprocessing)
    net = TrainableNetwork(network)
    fit(net, data, dataclasses.replace(recipes.digits(), epochs=2, precision="float32"))
    x = torch.cat([data.inputs(pixels) for pixels, _ in data.epoch(0, recipes.digits())])
    return net.to_network(), x[:200].numpy()


@pytest.fixture(scope="module")
def rounder(digits):
    return Rounder(*digits, Best(positions=16))


def test_a_higher_price_gives_fewer_bytes_and_more_divergence(rounder):
    fine, coarse = rounder.round(1e-6), rounder.round(1e-4)
    assert coarse.file_bytes < fine.file_bytes
    assert coarse.divergence > fine.divergence
    again = rounder.round(1e-4)
    assert container.encode(again.network, "entropy") == container.encode(coarse.network, "entropy")


def test_a_point_is_what_its_file_gives(rounder, digits):
    point = rounder.round(1e-6)
    data = container.encode(point.network, "entropy")
    assert len(data) == point.file_bytes
    back = container.decode(data)
    x = torch.from_numpy(digits[1])
    with torch.no_grad():
        before, after = (TrainableNetwork(n).eval()(x) for n in (rounder.network, back))
    assert divergence_of(before, after) == pytest.approx(point.divergence, rel=0.05, abs=1e-4)
    weights = {n for n, t in back.tensors.items() if isinstance(t, SharedTensor)}
    assert weights == set(weight_names(back))


@pytest.mark.parametrize("mirror", [False, True])
def test_images_that_join_late_pass_as_the_others_did(digits, monkeypatch, mirror):
    """With memory for few, later layers still see all: the divergence is that of all images."""
    network, x = digits
    monkeypatch.setattr("squeezekit.compression.rounder.KEPT_BYTES", 200_000)
    whole = np.concatenate([x, x[..., ::-1]]) if mirror else x
    batches: dict[Moments, int] = {}  # that each layer has seen, in order
    add = Moments.add

    def counted(self, before, after):
        batches[self] = batches.get(self, 0) + 1
        add(self, before, after)

    monkeypatch.setattr(Moments, "add", counted)
    few = Rounder(network, x, Best(positions=16, batch=10, mirror=mirror))
    point = few.round(1e-6)
    seen = list(batches.values())
    assert seen == sorted(seen)
    assert 1 <= seen[0] < seen[-1] == len(whole) / 10
    original, ours = (
        torch.from_numpy(from_network(n).logits(whole)) for n in (few.network, point.network)
    )
    assert divergence_of(original, ours) == pytest.approx(point.divergence, rel=0.05, abs=1e-4)


def test_the_bytes_are_those_of_the_coder_that_is_asked_for(digits):
    point = Rounder(*digits, Best(positions=16, coder="huffman")).round(1e-6)
    assert len(container.encode(point.network, "huffman")) == point.file_bytes
    assert point.network.metadata.provenance[-1] == "rounded at 1e-06 nats a bit"


def test_it_beats_rounding_to_the_nearest_of_as_many_levels(rounder, digits):
    """At no more bytes than k-means sharing, a smaller change of the outputs."""
    shared = share(rounder.network, 3)
    shared_bytes = len(container.encode(shared, "entropy"))
    point = to_size(rounder, shared_bytes, tolerance=0.03)
    x = torch.from_numpy(digits[1])
    with torch.no_grad():
        before, after = (TrainableNetwork(n).eval()(x) for n in (rounder.network, shared))
    assert point.divergence < 0.5 * divergence_of(before, after)


def test_to_size_lands_below(rounder):
    target = int(0.9 * rounder.round(rounder.usual_price).file_bytes)
    point = to_size(rounder, target, tolerance=0.04)
    assert 0.96 * target <= point.file_bytes <= target
    with pytest.raises(InputError, match="too few"):
        to_size(rounder, 100, attempts=2)


def test_to_quality_takes_the_smallest_that_is_good(rounder):
    limit = rounder.round(rounder.usual_price).file_bytes
    point = to_quality(rounder, lambda n: len(container.encode(n, "entropy")) >= limit, factor=2)
    assert point.file_bytes == limit
    with pytest.raises(InputError, match="larger drop"):
        to_quality(rounder, lambda network: False, most=1)


def test_moments_are_those_of_all_samples_at_once():
    random = np.random.default_rng(0)
    y = random.standard_normal((2, 60, 5)) + 1000  # hardly varies, next to how large it is
    x = y + 0.1 * random.standard_normal((2, 60, 5))
    moments = Moments()
    for start in range(0, 60, 25):
        moments.add(*(torch.from_numpy(v[:, start : start + 25]).float() for v in (x, y)))
    x, y = (v.astype(np.float32).astype(np.float64) for v in (x, y))
    covariance, moved = moments.covariance_and_moved(centred=True)
    for block in range(2):
        expected = np.cov(y[block].T, bias=True)
        np.testing.assert_allclose(covariance[block], expected, rtol=1e-3, atol=1e-4)
        centred = [v[block] - v[block].mean(0) for v in (x, y)]
        expected = (centred[0] - centred[1]).T @ centred[1] / 60
        np.testing.assert_allclose(moved[block], expected, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(moments.means()[0], x.mean(1), rtol=1e-6)
    raw, _ = moments.covariance_and_moved(centred=False)
    np.testing.assert_allclose(raw[0], y[0].T @ y[0] / 60, rtol=1e-5)


def test_few_samples_are_trusted_for_variances_more_than_for_the_rest():
    """Nearer to the truth than the samples' own covariance; with many samples, the same as it."""
    random = np.random.default_rng(0)
    mixing = random.standard_normal((40, 40)) * (random.random((40, 40)) < 0.1) + np.eye(40)
    truth = mixing @ mixing.T

    def errors(count):
        samples = random.multivariate_normal(np.zeros(40), truth, size=(3, count))
        found = torch.from_numpy(np.stack([np.cov(x.T, bias=True) for x in samples]))
        less = shrunk(found, count)
        variances = [t.diagonal(dim1=1, dim2=2) for t in (found, less)]
        torch.testing.assert_close(*variances)
        return [float((t - torch.from_numpy(truth)).square().sum()) for t in (found, less)]

    raw, less = errors(20)
    assert less < 0.7 * raw
    raw, less = errors(100_000)
    assert less == pytest.approx(raw, rel=0.02)


@pytest.mark.parametrize("make", [foreign.resnet, foreign.mobilenet])
def test_networks_from_elsewhere(make, tmp_path):
    """Batch norms, depthwise convolutions, a MatMul: the file's outputs are as near as it says."""
    path = tmp_path / "network.onnx"
    onnx.save(make(), path)
    network = load_network(path)
    x = images(64, 32)
    point = Rounder(network, x, Best(positions=32)).round(1e-7)
    back = container.decode(container.encode(point.network, "entropy"))
    original = torch.from_numpy(onnxruntime_outputs(path, x))
    after = torch.from_numpy(from_network(back).logits(x))
    measured = divergence_of(original, after)
    assert measured == pytest.approx(point.divergence, rel=0.1, abs=1e-5)
    assert measured < 0.01
    assert point.file_bytes < len(container.encode(fold_batch_norm(network), "dense")) / 2
    assert all(isinstance(back.tensors[name], SharedTensor) for name in weight_names(back))


def onnxruntime_outputs(path, x):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: x})[0]


def test_prices_must_be_positive():
    with pytest.raises(InputError, match="price"):
        Best(price=0.0)


def test_the_command_draws_the_curve(make_images, tmp_path):
    data = make_images({"cat": 6, "dog": 6})
    safetensors_file.write(
        catalogue.create("squeezenet-digits", labels=("cat", "dog")), tmp_path / "net.safetensors"
    )
    page, out = tmp_path / "curve.html", tmp_path / "small.sqz"
    arguments = ["compress", str(tmp_path / "net.safetensors"), "--data", str(data), "-o", str(out)]
    arguments += ["--curve", str(page), "--price", "1e-6", "--json"]
    done = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert done.exit_code == 0
    points = json.loads((tmp_path / "curve.json").read_text())["points"]
    assert points == json.loads(done.stdout)["curve"]
    prices, sizes = [p["price"] for p in points], [p["file_bytes"] for p in points]
    assert prices == sorted(prices)
    assert sizes == sorted(sizes, reverse=True)
    assert out.stat().st_size == sizes[CURVE_FACTORS.index(1.0)]
    assert "Accuracy" in page.read_text(encoding="utf-8")


def test_a_size_between_two_tried_ones_is_found_though_sizes_jump():
    """Sizes that fall in steps, with noise: still no more than the target, and 1% less at most."""
    random = np.random.default_rng(0)

    class Jumping:
        usual_price = 1e-7

        def round(self, price):
            smooth = 30_000 * (price / 1e-7) ** -0.3 * (1 + random.uniform(-0.004, 0.004))
            return Point(None, int(1.003 ** round(np.log(smooth) / np.log(1.003))), price, 0.0)

        def estimated_bytes(self, price, near):
            """Claims a fourth more change than comes true, as real estimates do."""
            return int(self.round(near).file_bytes * (price / near) ** -0.375)

    for target in (50_000, 31_000, 12_345):
        found = to_size(Jumping(), target)
        assert 0.99 * target <= found.file_bytes <= target
