"""A graph is data: what could read a file, run for ever or fill the memory is refused, unread."""

import itertools
import os

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from sqz_parts import CANARY, HOW, forged, laughs, model

from squeezekit import errors
from squeezekit.interop import onnx_file, safetensors_file
from squeezekit.interop.opening import load
from squeezekit.interop.weights import load_network
from squeezekit.sqz import container
from squeezekit.sqz.graph import split
from squeezekit.sqz.graph_reader import read_graph
from squeezekit.sqz.network import Metadata, Network


def refused(path, error):
    """Refused by everything that opens the file, in one sentence that says the same."""
    said = set()
    for opening in (load, load_network):
        with pytest.raises(error) as caught:
            opening(path)
        assert CANARY[:17].decode() not in str(caught.value)
        assert "\n" not in str(caught.value)
        said.add(str(caught.value))
    assert len(said) == 1
    return said.pop()


def outside(location, name="secret"):
    """A tensor whose numbers are said to lie in a file."""
    tensor = TensorProto(name=name, data_type=TensorProto.UINT8, dims=[17])
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", "0"), ("length", "17")):
        tensor.external_data.add(key=key, value=value)
    return tensor


def reading(location):
    """A classifier that answers with the bytes of a file."""
    cast = helper.make_node("Cast", ["secret"], ["letters"], to=TensorProto.FLOAT)
    nodes = [
        cast,
        helper.make_node("ReduceMax", ["letters"], ["loudest"], axes=[0]),
        helper.make_node("Add", ["scores", "loudest"], ["leaked"]),
    ]
    return model(nodes, [outside(location)])


@pytest.fixture
def canary(tmp_path):
    """A folder with a model's folder in it, and a secret beside and in that."""
    folder = tmp_path / "models"
    (folder / "sub").mkdir(parents=True)
    for place in (tmp_path, folder, folder / "sub"):
        (place / "canary").write_bytes(CANARY)
    (folder / "link").symlink_to(tmp_path / "canary")
    (folder / "beside").symlink_to("canary")
    (folder / "folder").symlink_to(tmp_path)
    os.link(tmp_path / "canary", folder / "hard")
    return folder


TRICKS = {
    "absolute": "{root}/canary",
    "parent": "../canary",
    "parent of a folder": "sub/../../canary",
    "dot": "./../canary",
    "backslashes": "..\\canary",
    "drive": "C:\\canary",
    "symlink": "link",
    "symlink to a file beside": "beside",
    "symlink to a folder": "folder/canary",
    "hard link": "hard",
    "folder": "sub",
    "itself": ".",
    "nothing": "",
    "no such file": "nowhere",
    "a zero": "canary\0.bin",
    "file address": "file://{root}/canary",
}


@pytest.mark.parametrize("trick", [*TRICKS, "beside the model"])
def test_sqz_reads_no_other_file(canary, tmp_path, trick):
    """By no trick, and not even a file of its own folder."""
    location = TRICKS.get(trick, "canary").format(root=tmp_path)
    (canary / "net.sqz").write_bytes(forged(reading(location)))
    assert "external_data" in refused(canary / "net.sqz", errors.GraphError)


@pytest.mark.parametrize("trick", TRICKS)
def test_onnx_reads_no_file_that_it_did_not_come_with(canary, tmp_path, trick):
    location = TRICKS[trick].format(root=tmp_path)
    (canary / "net.onnx").write_bytes(reading(location).SerializeToString())
    refused(canary / "net.onnx", errors.InputError)


@pytest.mark.parametrize("trick", ["absolute", "parent", "symlink", "hard link"])
def test_onnx_reads_none_from_hidden_places(canary, tmp_path, trick):
    """Constants, graphs within graphs, and functions may name files as well."""
    secret = outside(TRICKS[trick].format(root=tmp_path))
    constant = helper.make_node("Constant", [], ["secret"], value=secret)
    branch = helper.make_graph(
        [constant], "branch", [], [helper.make_tensor_value_info("secret", TensorProto.UINT8, [17])]
    )
    chosen = helper.make_node("If", ["yes"], ["s"], then_branch=branch, else_branch=branch)
    yes = numpy_helper.from_array(np.array(True), "yes")
    function = helper.make_function(
        "own", "leak", ["x"], ["secret"], [constant], [helper.make_opsetid("", 17)]
    )
    called = helper.make_node("leak", ["scores"], ["s"], domain="own")
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    in_function = model([called])
    in_function.functions.append(function)
    del in_function.opset_import[:]
    in_function.opset_import.extend(opsets)
    for hiding in (model([constant]), model([chosen], [yes]), in_function):
        (canary / "net.onnx").write_bytes(hiding.SerializeToString())
        refused(canary / "net.onnx", errors.InputError)


def test_weights_that_came_with_an_onnx_are_read(canary):
    """As torch's exporter writes large models."""
    (canary / "net.onnx.data").write_bytes(np.array([1, 2, 4], "<f4").tobytes())
    whole = model()
    weights = whole.graph.initializer[0]
    weights.ClearField("raw_data")
    weights.data_location = TensorProto.EXTERNAL
    weights.external_data.add(key="location", value="net.onnx.data")
    (canary / "net.onnx").write_bytes(whole.SerializeToString())
    assert load_network(canary / "net.onnx").tensors["w"].tolist() == [1, 2, 4]
    grey = np.ones((1, 3, 8, 8), np.float32)
    assert load(canary / "net.onnx").logits(grey).tolist() == [[1, 2, 4]]


def loop():
    """Adds 0 for 2^62 turns."""
    body = helper.make_graph(
        [helper.make_node("Identity", ["more"], ["still"]),
         helper.make_node("Add", ["sum", "sum"], ["next"])],
        "body",
        [helper.make_tensor_value_info("i", TensorProto.INT64, []),
         helper.make_tensor_value_info("more", TensorProto.BOOL, []),
         helper.make_tensor_value_info("sum", TensorProto.FLOAT, ["N", 3])],
        [helper.make_tensor_value_info("still", TensorProto.BOOL, []),
         helper.make_tensor_value_info("next", TensorProto.FLOAT, ["N", 3])],
    )  # fmt: skip
    node = helper.make_node("Loop", ["turns", "yes", "scores"], ["ever"], body=body)
    return model(
        [node],
        [numpy_helper.from_array(np.array(2**62), "turns"),
         numpy_helper.from_array(np.array(True), "yes")],
    )  # fmt: skip


def test_endless_loops_are_refused(tmp_path):
    (tmp_path / "net.sqz").write_bytes(forged(loop()))
    assert "Loop" in refused(tmp_path / "net.sqz", errors.OperatorError)
    (tmp_path / "net.onnx").write_bytes(loop().SerializeToString())
    assert "Loop" in refused(tmp_path / "net.onnx", errors.UnsupportedError)


@pytest.mark.parametrize("depth", [17, 30, 1000])
def test_functions_that_grow_are_refused(tmp_path, depth):
    (tmp_path / "net.onnx").write_bytes(laughs(min(depth, 200)).SerializeToString())
    refused(tmp_path / "net.onnx", errors.InputError)


def test_functions_that_call_themselves_are_refused(tmp_path):
    whole = laughs(2)
    whole.functions[1].node[0].CopyFrom(helper.make_node("f0", ["x"], ["y"], domain="own"))
    (tmp_path / "net.onnx").write_bytes(whole.SerializeToString())
    refused(tmp_path / "net.onnx", errors.InputError)


def from_image(nodes, initializers=()):
    """The classifier behind nodes that make `big` of the image."""
    whole = model(initializers=initializers)
    whole.graph.node[0].input[0] = "big"
    for node in reversed(nodes):
        whole.graph.node.insert(0, node)
    return whole


def bomb(name):
    """A few hundred bytes of operators that are allowed, and gigabytes or hours to run them."""
    edges = numpy_helper.from_array(np.array([0, 0, 20_000, 20_000, 0, 0, 20_000, 20_000]), "p")
    kernel = numpy_helper.from_array(np.ones((3, 3, 19, 19), np.float32), "k")
    count = numpy_helper.from_array(np.array([1 << 28]), "n")
    match name:
        case "padding":
            return from_image([helper.make_node("Pad", ["image", "p"], ["big"])], [edges])
        case "a padded convolution":
            node = helper.make_node("Conv", ["image", "k"], ["big"], pads=[20_000] * 4)
            return from_image([node], [kernel])
        case "a window":
            node = helper.make_node(
                "MaxPool", ["image"], ["big"], kernel_shape=[20_001] * 2, pads=[20_000] * 4
            )
            return from_image([node])
        case "many convolutions":
            names = ["image", *(f"c{i}" for i in range(400)), "big"]
            nodes = [
                helper.make_node("Conv", [before, "k"], [after], pads=[11] * 4)
                for before, after in itertools.pairwise(names)
            ]
            return from_image(nodes, [kernel])
        case "constants":
            nodes = [
                helper.make_node("ConstantOfShape", ["n"], ["ones"]),
                helper.make_node("ReduceMax", ["ones"], ["most"], axes=[0], keepdims=0),
                helper.make_node("Add", ["image", "most"], ["big"]),
            ]
            return from_image(nodes, [count])
    raise AssertionError


@pytest.mark.parametrize(
    "name", ["padding", "a padded convolution", "a window", "many convolutions", "constants"]
)
def test_an_onnx_is_not_run_before_its_cost_is_known(tmp_path, name):
    (tmp_path / "net.onnx").write_bytes(bomb(name).SerializeToString())
    refused(tmp_path / "net.onnx", (errors.LimitError, errors.UnsupportedError))


def test_what_costs_little_is_run(tmp_path):
    node = helper.make_node("MaxPool", ["image"], ["big"], kernel_shape=[3, 3], pads=[1] * 4)
    (tmp_path / "net.onnx").write_bytes(from_image([node]).SerializeToString())
    assert load(tmp_path / "net.onnx").logits(np.ones((1, 3, 8, 8), np.float32)).shape == (1, 3)


def spoiled(name):
    """A graph that has one thing that no `.sqz` may have."""
    whole = model()
    graph = whole.graph
    match name:
        case "metadata":
            whole.metadata_props.add(key="a", value="b")
        case "functions":
            whole = laughs(1)
        case "training":
            whole.training_info.add()
        case "sparse weights":
            graph.sparse_initializer.add()
        case "quantisation":
            graph.quantization_annotation.add()
        case "stated shapes":
            graph.value_info.append(helper.make_tensor_value_info("pool", TensorProto.FLOAT, None))
        case "a text":
            graph.initializer.append(helper.make_tensor("t", TensorProto.STRING, [1], [b"text"]))
        case "two inputs":
            graph.input.append(helper.make_tensor_value_info("b", TensorProto.FLOAT, [3]))
        case "two outputs":
            graph.output.append(helper.make_tensor_value_info("pool", TensorProto.FLOAT, [3]))
        case "no output":
            del graph.output[:]
        case "an output that nobody makes":
            graph.output[0].name = "nobody"
        case "an input that nobody makes":
            graph.node[1].input[0] = "nobody"
        case "a node before its input":
            graph.node.append(helper.make_node("Relu", ["scores"], ["more"]))
            graph.node.insert(0, graph.node.pop())
        case "a name twice":
            graph.node[1].output[0] = "image"
        case "an unused setting":
            graph.initializer.append(numpy_helper.from_array(np.array([1]), "unused"))
        case "a setting of another name":
            graph.initializer.append(numpy_helper.from_array(np.array([1]), "image"))
        case "an attribute twice":
            graph.node[1].attribute.extend([helper.make_attribute("axis", 1)] * 2)
        case "an attribute of another type":
            graph.node[1].attribute.add(name="axis", type=onnx.AttributeProto.INT, f=1.0)
        case "no opset":
            del whole.opset_import[:]
    return whole


SPOILED = [
    "metadata", "functions", "training", "sparse weights", "quantisation", "stated shapes",
    "a text", "two inputs", "two outputs", "no output", "an output that nobody makes",
    "an input that nobody makes", "a node before its input", "a name twice", "an unused setting",
    "a setting of another name", "an attribute twice", "an attribute of another type", "no opset",
]  # fmt: skip


@pytest.mark.parametrize("name", SPOILED)
def test_graphs_that_no_sqz_may_have(tmp_path, name):
    (tmp_path / "net.sqz").write_bytes(forged(spoiled(name)))
    refused(tmp_path / "net.sqz", errors.GraphError)


def other_operator(name):
    whole = model()
    node = whole.graph.node[1]
    match name:
        case "of another domain":
            node.domain = "com.microsoft"
        case "of a domain":
            whole.opset_import[0].domain = "com.microsoft"
        case "unknown":
            node.op_type = "Mystery"
        case "that makes tensors":
            node.op_type = "ConstantOfShape"
        case "that is random":
            node.op_type = "RandomNormalLike"
        case "with an attribute too many":
            node.attribute.append(helper.make_attribute("colour", 1))
        case "with a graph":
            node.attribute.append(helper.make_attribute("axis", helper.make_graph([], "g", [], [])))
        case "with a tensor":
            node.attribute.append(helper.make_attribute("axis", whole.graph.initializer[0]))
        case "with an axis that is none":
            node.attribute.append(helper.make_attribute("axis", 99))
        case "with an infinite number":
            node.CopyFrom(helper.make_node("Elu", ["pool"], ["flat"], alpha=float("inf")))
        case "with an input too many":
            node.input.append("w")
        case "with an output too many":
            node.output.append("w2")
        case "that trains":
            node.CopyFrom(helper.make_node(
                "BatchNormalization", ["pool", "w", "w", "w", "w"], ["flat"], training_mode=1
            ))  # fmt: skip
        case "of a later set":
            whole.opset_import[0].version = 99
        case "of an early set":
            whole.opset_import[0].version = 6
    return whole


OTHERS = [
    "of another domain", "of a domain", "unknown", "that makes tensors", "that is random",
    "with an attribute too many", "with a graph", "with a tensor", "with an axis that is none",
    "with an infinite number", "with an input too many", "with an output too many", "that trains",
    "of a later set", "of an early set",
]  # fmt: skip


@pytest.mark.parametrize("name", OTHERS)
def test_operators_outside_of_the_closed_list(tmp_path, name):
    (tmp_path / "net.sqz").write_bytes(forged(other_operator(name)))
    refused(tmp_path / "net.sqz", errors.FormatError)


def test_the_writer_refuses_what_the_reader_would():
    graph, tensors = split(other_operator("unknown"))
    with pytest.raises(errors.UnsupportedError, match="Mystery"):
        container.encode(Network(graph, tensors, Metadata("x", HOW)))


def test_the_graph_in_safetensors_is_read_as_strictly(tmp_path):
    pytest.importorskip("safetensors")
    graph, tensors = split(loop())
    safetensors_file.write(Network(graph, tensors, Metadata("x", HOW)), tmp_path / "n.safetensors")
    with pytest.raises(errors.InputError, match="Loop"):
        load_network(tmp_path / "n.safetensors")


def test_reading_agrees_with_the_onnx_package(tmp_path):
    """Nodes, attributes and settings are the same by either reading."""
    from foreign import mobilenet, resnet
    from small_networks import small_networks

    from squeezekit.sqz.nodes import read_nodes

    networks = list(small_networks().values())
    for made in (resnet(), mobilenet()):
        onnx.save(made, tmp_path / "foreign.onnx")
        networks.append(onnx_file.read(tmp_path / "foreign.onnx"))
    for network in networks:
        reference = onnx.load_model_from_string(network.graph)
        graph = read_graph(network.graph, network.tensors)
        assert list(graph.nodes) == read_nodes(reference)
        assert graph.input.name == reference.graph.input[0].name
        assert graph.output.name == reference.graph.output[0].name
        stored = {t.name: numpy_helper.to_array(t) for t in reference.graph.initializer}
        assert stored.keys() == graph.settings.keys()
        for name, values in stored.items():
            assert values.shape == graph.settings[name].shape
            assert np.array_equal(values, graph.settings[name])
