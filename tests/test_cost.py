"""Costs against the paper's numbers: parameters, sizes of layers, multiply-accumulates."""

import dataclasses

import numpy as np
import pytest
from foreign import Maker, mobilenet, resnet

from squeezekit.errors import UnsupportedError
from squeezekit.models.alexnet import AlexNetConfig, alexnet
from squeezekit.models.catalogue import create
from squeezekit.models.cost import cost
from squeezekit.models.squeezenet import squeezenet, v1_0, v1_1, with_bypass
from squeezekit.sqz.graph import split
from squeezekit.sqz.network import Metadata, Network, Preprocessing


def imported(model):
    return Network(*split(model), Metadata("test", Preprocessing(32, 32)))


def caffe():
    """The published network: 227 pixels, conv10 padded by 1."""
    return dataclasses.replace(v1_0(input_size=227), conv10_pad=1)


# Of paper.md: conv1, the three pools, conv10; and millions of multiply-accumulates.
@pytest.mark.parametrize(
    ("config", "pools", "sizes", "million_macs"),
    [
        (caffe(), (1, 4, 8), (111, 55, 27, 13, 15), 861.3),
        (v1_0(input_size=224), (1, 4, 8), (109, 54, 27, 13, 13), 818.9),
        (v1_1(input_size=224), (1, 3, 5), (111, 55, 27, 13, 13), 349.2),
        (v1_1(input_size=227), (1, 3, 5), (113, 56, 28, 14, 14), 387.7),
    ],
)
def test_published_sizes_and_macs(config, pools, sizes, million_macs):
    counted = cost(squeezenet(config))
    shapes = {layer.name: layer.output_shape for layer in counted.layers}
    names = ("conv1", *(f"pool{n}" for n in pools), "conv10")
    assert tuple(shapes[name][1] for name in names) == sizes
    assert all(shapes[name][1] == shapes[name][2] for name in names)
    assert round(counted.macs / 1e6, 1) == million_macs


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("squeezenet-1.0", 1_248_424),
        ("squeezenet-1.1", 1_235_496),
        ("squeezenet-1.0-complex", 1_589_672),
        ("alexnet", 60_965_224),
    ],
)
def test_published_parameters(name, parameters):
    counted = cost(create(name))
    assert counted.parameters == parameters
    assert counted.float_bytes == 4 * parameters
    assert sum(module.parameters for module in counted.modules) == parameters


def test_table_1():
    """The rows of Table 1, from a network pruned to its densities."""
    table = {
        "conv1": (14_208, 14_208, 1.0),
        "fire2": (11_920, 5_746, 0.33),
        "conv10": (513_000, 103_400, 0.2),
    }
    network = squeezenet(v1_0())
    changed = {name: np.ones(t.shape, np.float32) for name, t in network.tensors.items()}
    for name, kept in {"fire2.expand3x3.weight": 3042, "conv10.weight": 102_400}.items():
        changed[name].reshape(-1)[kept:] = 0
    counted = cost(network.with_tensors(changed))
    modules = {module.name: module for module in counted.modules}
    assert list(modules) == [
        "conv1", "pool1", "fire2", "fire3", "fire4", "pool4", "fire5", "fire6", "fire7", "fire8",
        "pool8", "fire9", "conv10", "pool10",
    ]  # fmt: skip
    for name, (parameters, nonzero, density) in table.items():
        module = modules[name]
        assert (module.parameters, module.nonzero) == (parameters, nonzero)
        assert module.densities[-1][1] == pytest.approx(density, abs=1e-3)
    assert [name for name, _ in modules["fire2"].densities] == [
        "squeeze1x1", "expand1x1", "expand3x3",
    ]  # fmt: skip
    assert modules["fire4"].output_shape == (256, 54, 54)


def test_bypass_convolutions_belong_to_their_module():
    modules = {m.name: m for m in cost(squeezenet(with_bypass("complex"))).modules}
    assert [name for name, _ in modules["fire2"].densities][-1] == "bypass1x1"
    assert modules["fire2"].parameters == 11_920 + 96 * 128 + 128


def test_grouped_convolutions_and_linear_layers():
    counted = cost(alexnet(AlexNetConfig()))
    macs = {layer.name: layer.macs for layer in counted.layers if layer.macs}
    assert macs["conv2"] == 27 * 27 * 256 * (96 // 2) * 25
    assert macs["fc6"] == 9216 * 4096
    assert len(macs) == 8


def test_foreign_networks():
    counted = cost(imported(resnet()))
    conv1, pooled, halved = 16 * 16, 8 * 8, 4 * 4  # places
    assert counted.macs == (
        conv1 * 16 * 3 * 49
        + pooled * 2 * 16 * 16 * 9
        + halved * (24 * 16 * 9 + 24 * 24 * 9 + 24 * 16)
        + 24 * 10
    )
    network = imported(mobilenet())
    assert cost(network).parameters == network.parameters


def test_matrix_products():
    m = Maker()
    x = m.node("Reshape", "input", m.tensor([0, 3, -1], np.int64))  # (N, 3, 64)
    counted = cost(
        imported(m.model(m.node("MatMul", x, m.tensor(np.ones((64, 5)))), ("N", 3, 8, 8)))
    )
    assert counted.macs == 3 * 64 * 5


def test_unknown_shapes_are_refused():
    m = Maker()
    x = m.node("Resize", "input", "", "scales")
    model = m.model(m.conv(x, (4, 3, 3, 3)))
    model.graph.input.add(name="scales").type.tensor_type.elem_type = 1
    with pytest.raises(UnsupportedError, match="shape of"):
        cost(imported(model))
