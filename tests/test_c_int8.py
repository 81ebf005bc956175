"""int8 in the C library: weights equal to Python's, codes within one of ONNX Runtime's."""

import dataclasses
import shutil
import subprocess
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper
from operator_graphs import Graph
from small_networks import shared, small_alexnet, small_networks, small_squeezenet

from squeezekit.errors import GraphError, InputError
from squeezekit.interop.page_runtime import PageRuntime
from squeezekit.models.catalogue import create
from squeezekit.models.fold import fold_batch_norm
from squeezekit.runtime.calibration import calibrated
from squeezekit.runtime.int8 import int8_model
from squeezekit.sqz import container
from squeezekit.sqz.graph import parse

NATIVE = Path(__file__).parent.parent / "native"


def images(network, count=3):
    how = network.metadata.preprocessing
    shape = (count, how.channels, how.crop, how.crop)
    return np.random.default_rng(5).normal(size=shape).astype(np.float32)


def both(network):
    """Outputs for an image, by ONNX Runtime in int8 and by the C library."""
    image = images(network)[0]
    session = onnxruntime.InferenceSession(int8_model(network), providers=["CPUExecutionProvider"])
    expected = session.run(None, {session.get_inputs()[0].name: image[np.newaxis]})[0]
    runtime = PageRuntime(container.encode(network, "dense"))
    assert runtime.precision == "int8"
    return expected.reshape(-1), runtime.logits(image)


@pytest.mark.parametrize("name", [*small_networks(), "squeezenet-digits"])
def test_whole_networks_give_what_onnxruntime_gives_in_int8(name):
    network = small_networks().get(name) or create("squeezenet-digits", seed=1)
    network = calibrated(fold_batch_norm(shared(network)), images(network))
    expected, got = both(network)
    plain = PageRuntime(container.encode(network, "dense"), "float").logits(images(network)[0])
    rounding = abs(plain - expected).max()
    assert rounding > 0
    assert abs(got - expected).max() <= 0.7 * rounding
    best = np.argsort(-expected)
    gap = expected[best[0]] - expected[best[1]]
    assert got.argmax() == best[0] or gap < rounding


class Layers(Graph):
    """Graphs whose last values are codes: what comes out tells them."""

    def pool(self):
        self.node(
            "MaxPool", kernel_shape=[int(k) for k in self.rng.integers(1, 4, 2)],
            auto_pad="SAME_UPPER",  # always a window, however small the image is by now
            strides=[int(s) for s in self.rng.integers(1, 3, 2)],
        )  # fmt: skip

    def activation(self):
        kind = self.rng.integers(3)
        if kind == 0:
            self.node("Relu")
        elif kind == 1:
            low, high = sorted(self.rng.normal(size=2))
            self.node("Clip", self.weight(low), self.weight(high))

    def layer(self):
        groups = int(self.rng.choice([1, self.channels]))
        filters = groups * int(self.rng.integers(1, 12))
        kernel = self.rng.integers(1, 4, 2)
        weight = self.random(filters, self.channels // groups, *kernel)
        bias = [self.random(filters)] if self.rng.integers(2) else []
        self.node(
            "Conv", weight, *bias, group=groups, auto_pad="SAME_UPPER",
            strides=[int(s) for s in self.rng.integers(1, 3, 2)],
            dilations=[1, 1],
        )  # fmt: skip
        self.channels = filters
        self.activation()

    def joined(self):
        start, before = self.last, self.channels
        made = []
        for _ in range(2):
            self.last, self.channels = start, before
            weight = self.random(5, before, 1, 1)
            self.node("Conv", weight, self.random(5))
            self.activation()
            made.append(self.last)
        if self.rng.integers(2):
            self.node("Concat", made[1], first=made[0], axis=1)
            self.channels = 10
        else:
            self.node("Add", made[1], first=made[0])
            self.channels = 5
            self.layer()  # what is added is codes only where a layer wants them

    def average(self):
        self.node("AveragePool", kernel_shape=[2, 2], pads=[1, 1, 1, 1])
        self.layer()

    def dense(self):
        self.node("Flatten")
        shape = onnx_shape(self)
        transposed = int(self.rng.integers(2))
        sizes = (7, shape) if transposed else (shape, 7)
        bias = [self.random(7)] if self.rng.integers(2) else []
        self.node("Gemm", self.random(*sizes), *bias, transB=transposed)
        self.activation()


def onnx_shape(graph):
    network = graph.network()
    session = onnxruntime.InferenceSession(attached(network), providers=["CPUExecutionProvider"])
    return session.run(None, {"image": images(network)[:1]})[0].shape[1]


def attached(network):
    from squeezekit.sqz.graph import attach

    return attach(network.graph, network.values())


def code_steps(graph):
    """By how many codes the outputs of a graph's last quantised values differ, for each."""
    graph.node("Neg")
    network = calibrated(graph.network(), images(graph.network()))
    model = parse(int8_model(network))
    numbers = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    last = model.graph.node[-1].input[0].removesuffix(".rounded")
    expected, got = both(network)
    unit = float(numbers[f"{last}.step"])
    np.testing.assert_allclose(got / unit, np.rint(got / unit), atol=2e-3)
    return np.rint(abs(got - expected) / unit)


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=50)
def test_codes_of_several_layers(seed):
    """A code that differs by one goes on into the next layer: few do, and never by much."""
    graph = Layers(np.random.default_rng(seed), size=9)
    graph.layer()
    for _ in range(2):
        graph.rng.choice([graph.layer, graph.pool, graph.joined])()
    graph.layer()
    steps = code_steps(graph)
    assert steps.max() <= 3
    assert np.mean(steps) <= 0.2


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=25)
def test_codes_behind_averages_and_products(seed):
    """Means of few codes often lie half way between two, and a product adds many up."""
    graph = Layers(np.random.default_rng(seed), size=9)
    graph.layer()
    graph.average()
    graph.dense()
    steps = code_steps(graph)
    assert steps.max() <= 12
    assert np.mean(steps) <= 3


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=40)
def test_codes_of_one_layer(seed):
    """One layer sees the same codes on both sides: its own hardly ever differ."""
    graph = Layers(np.random.default_rng(seed), size=7)
    graph.rng.choice([graph.layer, graph.dense])()
    steps = code_steps(graph)
    assert steps.max() <= 1
    assert np.mean(steps > 0) <= 0.02


HARNESS = r"""
#include <stdio.h>
#include <stdlib.h>
#include "sqz/plan.h"
#include "sqz/weights8.h"
/* Standard input: conv, transposed, rows, count, biases; step of the input; weights; bias. */
int main(void) {
    static Node node;
    static Record weight, bias;
    static Value in, out;
    unsigned head[5];
    if (fread(head, 4, 5, stdin) != 5 || fread(&in.step, 4, 1, stdin) != 1) return 1;
    u32 n = head[2] * head[3];
    float *w = malloc(4 * n), *b = malloc(4 * head[4] + 4);
    i8 *codes = malloc(n);
    Filter *filters = malloc(head[2] * sizeof *filters);
    double *errors = malloc(8 * (head[3] + 1));
    if (fread(w, 4, n, stdin) != n || fread(b, 4, head[4], stdin) != head[4]) return 1;
    node.op = head[0] ? CONV : DENSE_LAYER;
    node.transposed = head[1];
    weight.weights = n;
    weight.axes = 4;
    weight.shape[0] = head[0] || head[1] ? head[2] : head[3];
    weight.shape[1] = head[0] || head[1] ? head[3] : head[2];
    bias.weights = head[4];
    node.constant[0] = &weight;
    node.constant[1] = head[4] ? &bias : NULL;
    const float *biases = head[4] ? b : NULL;
    if (sqz_round_weights(&node, &in, &out, w, biases, errors, codes, filters)) return 2;
    fwrite(codes, 1, n, stdout);
    for (u32 i = 0; i < head[2]; i++) fwrite(&filters[i].bias, 4, 1, stdout);
    return 0;
}
"""


@pytest.fixture(scope="module")
def harness(tmp_path_factory):
    """A program that rounds weights as the C library does."""
    clang = shutil.which("clang") or pytest.skip("clang is not installed")
    folder = tmp_path_factory.mktemp("c")
    (folder / "harness.c").write_text(HARNESS)
    build = [clang, "-std=c99", "-g", "-O1", "-fsanitize=address,undefined", f"-I{NATIVE}"]
    sources = sorted((NATIVE / "sqz").glob("*.c"))
    subprocess.run([*build, folder / "harness.c", *sources, "-o", folder / "harness"], check=True)
    return folder / "harness"


@pytest.mark.parametrize("seed", range(40))
def test_weights_are_python_s_to_the_last(harness, seed):
    rng = np.random.default_rng(seed)
    graph = Graph(rng, size=1)
    rows, count = int(rng.integers(1, 20)), int(rng.choice([1, 3, 9, 127, 128, 130, 300, 1300]))
    conv, transposed = int(rng.integers(2)), int(rng.integers(2))
    graph.channels = count
    few = rng.normal(size=5)
    draws = [
        lambda n: rng.normal(size=n),
        lambda n: few[rng.integers(0, 5, n)],  # shared: ties
        lambda n: rng.integers(-8, 9, n) / 8,  # sums of errors that end in a half
        lambda n: np.zeros(n),
        lambda n: np.where(rng.random(n) < 0.9, 0, rng.standard_cauchy(n)),
    ]
    weight = draws[rng.integers(len(draws))](rows * count).astype(np.float32)
    bias = (rng.normal(size=rows) * 10.0 ** rng.integers(-3, 8)).astype(np.float32)
    biases = rows * int(rng.integers(2))
    network, name = one_layer(weight.reshape(rows, count), bias[:biases], conv, transposed)
    model = parse(int8_model(network))
    numbers = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    expected = numbers[f"{name}.codes"].reshape(rows, count) if conv or transposed else None
    if expected is None:
        expected = numbers[f"{name}.codes"].T
    step = np.float32(3 / 255)  # of the range that one_layer has
    stored = weight if conv or transposed else weight.reshape(rows, count).T
    head = np.array([conv, transposed, rows, count, biases], np.uint32).tobytes()
    data = head + step.tobytes() + np.ascontiguousarray(stored).tobytes()
    quiet = {"ASAN_OPTIONS": "detect_leaks=0"}  # the harness leaves that to its end
    done = subprocess.run(
        [harness], input=data + bias[:biases].tobytes(), capture_output=True, env=quiet
    )
    assert (done.returncode, done.stderr) == (0, b"")
    codes = np.frombuffer(done.stdout[: rows * count], np.int8).reshape(rows, count)
    np.testing.assert_array_equal(codes, expected)
    offsets = np.frombuffer(done.stdout[rows * count :], np.int32)
    np.testing.assert_array_equal(offsets, numbers.get("bias.codes", np.zeros(rows, np.int32)))


def one_layer(rows, bias, conv, transposed):
    """A network of one layer on an image of as many channels as the rows are long."""
    from onnx import TensorProto

    from squeezekit.sqz.graph import split
    from squeezekit.sqz.network import Metadata, Network, Preprocessing

    count = rows.shape[1]
    weight = rows.reshape(len(rows), count, 1, 1) if conv else rows if transposed else rows.T
    weights = [numpy_helper.from_array(np.ascontiguousarray(weight), "weight")]
    nodes = [helper.make_node("Conv", ["x"], ["y"])]
    inputs = ["image", "weight", *(["bias"] if len(bias) else [])]
    if len(bias):
        weights.append(numpy_helper.from_array(bias, "bias"))
    if conv:
        nodes = [helper.make_node("Conv", inputs, ["y"])]
    else:
        inputs[0] = "flat"
        nodes = [helper.make_node("Flatten", ["image"], ["flat"])]
        nodes.append(helper.make_node("Gemm", inputs, ["y"], transB=transposed))
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", count, 1, 1])
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "graph", [image], [output], weights)
    opsets = [helper.make_opsetid("", 17)]
    skeleton, tensors = split(helper.make_model(graph, opset_imports=opsets, ir_version=8))
    metadata = Metadata("one", Preprocessing(crop=1, resize=1), activations={"image": (-1.0, 2.0)})
    return Network(skeleton, tensors, metadata), "weight"


def test_precision_is_chosen_as_python_chooses_it():
    network = small_squeezenet()
    plain, ranged = (
        container.encode(network),
        container.encode(calibrated(network, images(network))),
    )
    assert PageRuntime(plain).precision == "float"
    assert PageRuntime(ranged).precision == "int8"
    assert PageRuntime(ranged, "float").precision == "float"
    with pytest.raises(InputError, match="no activation ranges"):
        PageRuntime(plain, "int8")
    x = images(network)[0]
    np.testing.assert_array_equal(
        PageRuntime(ranged, "float").logits(x), PageRuntime(plain).logits(x)
    )


def with_ranges(network, ranges):
    metadata = dataclasses.replace(network.metadata, activations=ranges)
    return dataclasses.replace(network, metadata=metadata)


def test_ranges_that_are_missing_are_refused():
    network = calibrated(small_alexnet(), images(small_alexnet()))
    ranges = dict(network.metadata.activations)
    for name in ranges:
        fewer = {key: value for key, value in ranges.items() if key != name}
        broken = with_ranges(network, fewer)
        with pytest.raises(GraphError):
            int8_model(broken)
        with pytest.raises(GraphError, match=name):
            PageRuntime(container.encode(broken))
        assert PageRuntime(container.encode(broken), "float").precision == "float"


def test_int8_takes_less_memory():
    network = create("squeezenet-1.1", classes=10, input_size=97, seed=1)
    data = container.encode(calibrated(fold_batch_norm(network), images(network, 1)), "dense")
    assert PageRuntime(data).memory_bytes < 0.75 * PageRuntime(data, "float").memory_bytes
