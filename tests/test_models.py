"""The networks: published parameter counts, Table 1's sizes, and how the bypasses are wired."""

import dataclasses

import numpy as np
import onnx
import pytest
from foreign import images, made, run

from squeezekit.errors import InputError
from squeezekit.models.alexnet import AlexNetConfig, alexnet
from squeezekit.models.catalogue import MODELS, create
from squeezekit.models.squeezenet import (
    Fire,
    SqueezeNetConfig,
    digits,
    squeezenet,
    v1_0,
    v1_1,
    with_bypass,
)
from squeezekit.sqz.graph import attach, parse
from squeezekit.sqz.network import CAFFE, TORCHVISION, Preprocessing


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("squeezenet-1.0", 1_248_424),
        ("squeezenet-1.1", 1_235_496),
        ("squeezenet-1.0-simple", 1_248_424),
        ("squeezenet-1.0-complex", 1_589_672),
        ("alexnet", 60_965_224),
    ],
)
def test_published_parameter_counts(name, parameters):
    assert create(name).parameters == parameters


def test_table_1():
    """Parameters of each module, and the sizes of the fire modules (paper, Table 1)."""
    totals = {}
    for name, tensor in squeezenet(v1_0()).tensors.items():
        module = name.partition(".")[0]
        totals[module] = totals.get(module, 0) + tensor.size
    assert totals == {
        "conv1": 14_208, "fire2": 11_920, "fire3": 12_432, "fire4": 45_344, "fire5": 49_440,
        "fire6": 104_880, "fire7": 111_024, "fire8": 188_992, "fire9": 197_184, "conv10": 513_000,
    }  # fmt: skip
    sizes = [(16, 64), (16, 64), (32, 128), (32, 128), (48, 192), (48, 192), (64, 256), (64, 256)]
    assert [v1_0().fire(i) for i in range(8)] == [Fire(s, e, e) for s, e in sizes]


def test_metaparameters_of_section_5():
    explicit = dataclasses.replace(
        v1_0(), base_e=128, incr_e=128, pct_3x3=0.5, freq=2, squeeze_ratio=0.125
    )
    assert explicit == v1_0()
    wide = dataclasses.replace(v1_0(), squeeze_ratio=0.75, pct_3x3=0.25)
    assert wide.fire(0) == Fire(96, 96, 32)
    assert wide.fire(7) == Fire(384, 384, 128)


@pytest.mark.parametrize(
    ("pct_3x3", "expand3x3"), [(0.01, 1), (0.99, 127), (0.001, 1), (0.999, 127)]
)
def test_extreme_shares_keep_both_kinds_of_filters(pct_3x3, expand3x3):
    fire = dataclasses.replace(v1_0(), pct_3x3=pct_3x3).fire(0)
    assert fire.expand3x3 == expand3x3
    assert fire.expand1x1 + fire.expand3x3 == 128


# With squeeze_ratio 0.5 the paper's Figure 3 has 13 MB, with 0.75 19 MB, with 1.0 24 MB.
@pytest.mark.parametrize(("ratio", "megabytes"), [(0.125, 4.8), (0.5, 13), (0.75, 19), (1.0, 24)])
def test_sizes_of_figure_3(ratio, megabytes):
    network = squeezenet(dataclasses.replace(v1_0(), squeeze_ratio=ratio))
    assert 4 * network.parameters / 2**20 == pytest.approx(megabytes, rel=0.04)


@pytest.mark.parametrize("name", MODELS)
def test_graphs_are_valid_and_run(name):
    network = made(name)
    onnx.checker.check_model(attach(network.graph, network.values()), full_check=True)
    preprocessing = network.metadata.preprocessing
    x = images(3, preprocessing.channels, preprocessing.crop)
    assert run(network, x).shape == (3, 7)
    assert network.metadata.name == name


def _adds(network):
    nodes = parse(network.graph).graph.node
    return {node.name: tuple(node.input) for node in nodes if node.op_type == "Add"}


def test_simple_bypass():
    """Section 6: a module's input is added to its output, behind the concat, without a ReLU."""
    network = squeezenet(with_bypass("simple"))
    assert _adds(network) == {
        "fire3.bypass": ("fire2.concat", "fire3.concat"),
        "fire5.bypass": ("pool4", "fire5.concat"),
        "fire7.bypass": ("fire6.concat", "fire7.concat"),
        "fire9.bypass": ("pool8", "fire9.concat"),
    }
    users = {i: n.op_type for n in parse(network.graph).graph.node for i in n.input}
    assert users["fire3.bypass"] == "Conv"  # fire4's squeeze, at once
    assert users["fire9.bypass"] == "Dropout"


def test_complex_bypass():
    network = squeezenet(with_bypass("complex"))
    assert _adds(network) == {
        "fire2.bypass": ("fire2.bypass1x1", "fire2.concat"),
        "fire3.bypass": ("fire2.bypass", "fire3.concat"),
        "fire4.bypass": ("fire4.bypass1x1", "fire4.concat"),
        "fire5.bypass": ("pool4", "fire5.concat"),
        "fire6.bypass": ("fire6.bypass1x1", "fire6.concat"),
        "fire7.bypass": ("fire6.bypass", "fire7.concat"),
        "fire8.bypass": ("fire8.bypass1x1", "fire8.concat"),
        "fire9.bypass": ("pool8", "fire9.concat"),
    }
    assert network.tensors["fire2.bypass1x1.weight"].shape == (128, 96, 1, 1)


def test_bypass_adds_the_input():
    """With the fire module's own weights zero, only the bypass is left."""
    config = SqueezeNetConfig(
        input_size=9, conv1_filters=8, conv1_kernel=3, pool_after=(), fires=1, base_e=8,
        classes=8, bypass="simple", final_relu=False,
    )  # fmt: skip
    network = squeezenet(config)
    changed = {
        name: np.zeros(tensor.shape, np.float32)
        for name, tensor in network.tensors.items()
        if name.startswith("fire2")
    }
    changed["conv3.weight"] = np.eye(8, dtype=np.float32).reshape(8, 8, 1, 1)
    network = network.with_tensors(changed)
    x = images(2, 3, 9)
    windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(2, 3))[:, :, ::2, ::2]
    conv1 = np.einsum("nchwij,fcij->nfhw", windows, network.values()["conv1.weight"])
    np.testing.assert_allclose(run(network, x), conv1.clip(0).mean((2, 3)), atol=1e-5)


def test_first_weights():
    """Caffe's xavier has the bounds sqrt(3 / fan_in); a seed gives the same weights again."""
    network = squeezenet(with_bypass("simple"), seed=3)
    values = network.values()
    for name in ("conv1.weight", "fire9.expand3x3.weight"):
        fan_in = values[name][0].size
        assert np.abs(values[name]).max() <= np.sqrt(3 / fan_in)
        assert values[name].var() == pytest.approx(1 / fan_in, rel=0.05)
    assert values["conv10.weight"].std() == pytest.approx(0.01, rel=0.02)
    assert not values["conv10.bias"].any()
    again = squeezenet(with_bypass("simple"), seed=3)
    other = squeezenet(with_bypass("simple"), seed=4)
    assert all(np.array_equal(again.tensors[name], values[name]) for name in values)
    assert not np.array_equal(other.tensors["conv1.weight"], values["conv1.weight"])


@pytest.mark.parametrize("name", [name for name in MODELS if name != "alexnet"])
def test_fresh_networks_tell_images_apart(name):
    """A signal that dies on its way is why training gets stuck at a loss of ln(classes)."""
    network = create(name)
    preprocessing = network.metadata.preprocessing
    logits = run(network, images(4, preprocessing.channels, preprocessing.crop))
    assert 1e-3 < np.abs(logits).max() < 50


@pytest.mark.parametrize("config", [v1_0(), v1_1()])
def test_pools_are_in_ceil_mode(config):
    pools = [n for n in parse(squeezenet(config).graph).graph.node if n.op_type == "MaxPool"]
    attributes = [{a.name: a.ints or a.i for a in pool.attribute} for pool in pools]
    assert [(list(a["kernel_shape"]), list(a["strides"]), a["ceil_mode"]) for a in attributes] == [
        ([3, 3], [2, 2], 1)
    ] * 3


def test_grey_images_and_other_sizes():
    config = dataclasses.replace(v1_1(classes=4, input_size=65), channels=1)
    network = squeezenet(config)
    assert network.metadata.preprocessing.color == "L"
    assert run(network, images(2, 1, 65)).shape == (2, 4)


def test_preprocessing_follows_the_input_size():
    assert create("squeezenet-1.0").metadata.preprocessing == TORCHVISION
    assert create("alexnet").metadata.preprocessing == CAFFE
    half = create("squeezenet-1.1", input_size=112).metadata.preprocessing
    assert (half.crop, half.resize) == (112, 128)
    tiny = create("squeezenet-digits").metadata.preprocessing
    assert (tiny.crop, tiny.resize, tiny.color) == (8, 8, "L")


def test_create_takes_sizes_from_what_is_given():
    grey = Preprocessing(crop=96, resize=96, color="L", mean=(0.5,), std=(0.5,))
    network = create("squeezenet-1.1", labels=("cat", "dog"), preprocessing=grey)
    assert network.metadata.labels == ("cat", "dog")
    assert network.metadata.preprocessing == grey
    assert run(network, images(1, 1, 96)).shape == (1, 2)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: create("squeezenet-1.2"), "did you mean squeezenet-1"),
        (lambda: create("xyz"), "there are squeezenet-1.0"),
        (lambda: create("squeezenet-1.0", input_size=16), "too small"),
        (lambda: create("alexnet", input_size=20), "too small"),
        (lambda: create("squeezenet-1.0", classes=3, labels=("a", "b")), "2 labels do not fit 3"),
        (lambda: create("squeezenet-1.0", classes=0), "classes must be at least 1"),
        (lambda: squeezenet(v1_0(), preprocessing=CAFFE), "227"),
        (lambda: SqueezeNetConfig(pool_after=("fire10",)), "there is no fire10"),
        (lambda: SqueezeNetConfig(channels=4), "grey"),
        (lambda: SqueezeNetConfig(pct_3x3=1.0), "pct_3x3"),
        (lambda: SqueezeNetConfig(dropout=1.0), "dropout"),
        (lambda: alexnet(AlexNetConfig(groups=5)), "groups"),
    ],
)
def test_settings_that_do_not_fit(call, message):
    with pytest.raises(InputError, match=message):
        call()


def test_digits_is_worth_compressing():
    assert squeezenet(digits()).parameters > 100_000
