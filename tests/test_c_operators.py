"""Every operator of the C library against ONNX Runtime, over random shapes and settings."""

import numpy as np
import onnxruntime
import pytest
from operator_graphs import KINDS, Graph, arithmetic, batch_norm, prelu

from squeezekit.errors import FormatError, OperatorError, UnsupportedError
from squeezekit.interop.page_runtime import PageRuntime
from squeezekit.sqz import container
from squeezekit.sqz.graph import attach

ATTEMPTS = 12


def outputs(network, seed=0):
    """By ONNX Runtime, and by the C library."""
    size = network.metadata.preprocessing.crop
    image = np.random.default_rng(seed).normal(size=(3, size, size)).astype(np.float32)
    session = onnxruntime.InferenceSession(
        attach(network.graph, network.values()), providers=["CPUExecutionProvider"]
    )
    expected = session.run(None, {"image": image[np.newaxis]})[0].reshape(-1)
    return expected, PageRuntime(container.encode(network, "dense")).logits(image)


def assert_right(network):
    expected, got = outputs(network)
    assert got.shape == expected.shape
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=2e-5 * max(abs(expected).max(), 1))


@pytest.mark.parametrize("kind", KINDS)
def test_operator(kind):
    made = 0
    for seed in range(ATTEMPTS):
        g = Graph(np.random.default_rng(seed))
        kind(g)
        try:
            network = g.network()
            expected, _ = outputs(network)
        except UnsupportedError:
            continue  # a padding or a part that nothing is left of
        if not expected.size or not np.isfinite(expected).all():
            continue
        assert_right(network)
        made += 1
    assert made > ATTEMPTS // 2


@pytest.mark.parametrize("seed", range(30))
def test_chains(seed):
    """Several of them in turn: what lies where must not depend on what came before."""
    rng = np.random.default_rng(seed)
    g = Graph(rng, opset=17)
    g.conv(3, 3, pads=[1] * 4)
    for kind in rng.permutation([arithmetic, batch_norm, prelu, branches_of_two, transposed_twice])[
        :3
    ]:
        kind(g)
    g.node("GlobalAveragePool")
    g.node("Flatten")
    assert_right(g.network())


def branches_of_two(g):
    x = g.last
    y = g.node("Sigmoid", first=x)[0]
    g.node("Mul", y, first=x)
    g.node("Relu")


def transposed_twice(g):
    g.node("Transpose", perm=[0, 2, 3, 1])
    g.node("HardSwish") if g.opset >= 14 else None
    g.node("Transpose", perm=[0, 3, 1, 2])


# ------------------------------------------------------------------------- what it does not have


def reflect(g):
    g.node("Pad", g.ints(0, 0, 1, 1, 0, 0, 1, 1), mode="reflect")


def gathered(g):
    g.node("Gather", g.ints(2, 0), axis=1)


def product(g):
    y = g.node("Transpose", perm=[0, 1, 3, 2])[0]
    g.node("MatMul", y, first="image")


def power(g):
    g.node("Pow", g.weight(2.0))


@pytest.mark.parametrize("kind", [reflect, gathered, product, power])
def test_others_are_refused_by_the_names_of_operator_and_node(kind):
    g = Graph(np.random.default_rng(0))
    kind(g)
    op, name = g.nodes[-1].op_type, g.nodes[-1].name
    with pytest.raises(OperatorError, match=rf"operator {op} \(node '{name}'\)"):
        PageRuntime(container.encode(g.network()))


def test_shapes_that_do_not_fit_are_refused():
    def wrong_channels(g):
        g.node("Conv", g.random(4, 5, 1, 1))

    def wrong_features(g):
        g.node("Flatten")
        g.node("Gemm", g.random(7, 4))

    def wrong_count(g):
        g.node("Reshape", g.ints(1, 1000))

    def wrong_parts(g):
        g.node("Split", g.ints(1, 1), axis=1, outputs=2)

    for kind in (wrong_channels, wrong_features, wrong_count, wrong_parts):
        g = Graph(np.random.default_rng(0))
        kind(g)
        with pytest.raises(FormatError):
            PageRuntime(container.encode(g.network()))
