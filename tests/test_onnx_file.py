"""ONNX files in and out: other programs' classifiers run, train and come back."""

import dataclasses

import numpy as np
import onnx
import pytest
from foreign import Maker, images, mobilenet, resnet, run, view_flatten
from onnx import TensorProto, helper, numpy_helper

from squeezekit.errors import InputError, UnsupportedError
from squeezekit.interop import onnx_file
from squeezekit.models.squeezenet import digits, squeezenet
from squeezekit.sqz.graph import parse
from squeezekit.sqz.network import TORCHVISION, SharedTensor
from squeezekit.trainable.network import TorchClassifier, TrainableNetwork


def saved(model, path):
    onnx.save(model, path)
    return path


@pytest.fixture
def file(tmp_path):
    return tmp_path / "model.onnx"


@pytest.mark.parametrize("make", [resnet, mobilenet, view_flatten])
def test_round_trip_of_foreign_networks(make, file, tmp_path):
    """File -> Network -> torch -> Network -> file: the same logits everywhere, for any batch."""
    model = make()
    one_by_one = np.concatenate([run(model, images(5)[i : i + 1]) for i in range(5)])
    network = onnx_file.read(saved(model, file))
    net = TrainableNetwork(network)
    np.testing.assert_allclose(TorchClassifier(net).logits(images(5)), one_by_one, atol=1e-4)
    back = net.to_network()
    np.testing.assert_allclose(run(back, images(5)), one_by_one, atol=1e-4)
    onnx_file.write(back, tmp_path / "again.onnx")
    again = (tmp_path / "again.onnx").read_bytes()
    onnx.checker.check_model(again, full_check=True)
    np.testing.assert_allclose(run(again, images(5)), one_by_one, atol=1e-4)


def test_foreign_metadata(file):
    network = onnx_file.read(saved(resnet(), file))
    metadata = network.metadata
    assert (metadata.name, metadata.labels, metadata.output) == ("model", (), "logits")
    assert metadata.preprocessing == dataclasses.replace(TORCHVISION, crop=32, resize=32)
    model = parse(network.graph)
    dims = model.graph.input[0].type.tensor_type.shape.dim
    assert [d.dim_param or d.dim_value for d in dims] == ["N", 3, 32, 32]
    dims = model.graph.output[0].type.tensor_type.shape.dim
    assert [d.dim_param or d.dim_value for d in dims] == ["N", 10]


def test_batch_of_one_becomes_any(file):
    m = Maker()
    x = m.conv("input", (4, 3, 5, 5), strides=[3, 3])
    x = m.node("Reshape", x, m.tensor([1, 400], np.int64))
    x = m.node("MatMul", x, m.tensor(m.rng.standard_normal((400, 5))))
    model = m.model(x, (1, 3, 32, 32))
    network = onnx_file.read(saved(model, file))
    x = images(3)
    np.testing.assert_allclose(run(network, x)[1], run(model, x[1:2])[0], atol=1e-5)
    assert TorchClassifier(network).logits(x).shape == (3, 5)


def test_our_own_come_back_whole(file):
    labels = tuple(f"digit {i} é ☃" for i in range(10))
    network = squeezenet(digits(), labels=labels, seed=2)
    metadata = dataclasses.replace(
        network.metadata, licence="MIT", provenance=("trained", "pruned"), label_ids=labels
    )
    network = dataclasses.replace(network, metadata=metadata)
    onnx_file.write(network, file)
    back = onnx_file.read(file)
    assert back.metadata == metadata
    assert list(back.tensors) == list(network.tensors)
    for name, tensor in network.tensors.items():
        assert np.array_equal(back.tensors[name], tensor)
    onnx_file.write(back, file)  # twice changes nothing
    assert onnx_file.read(file).graph == back.graph
    assert len(onnx.load(file).metadata_props) == 1


def test_shared_weights_are_written_as_floats(file):
    network = squeezenet(digits())
    values = np.round(network.values()["conv1.weight"], 1) + np.float32(0)
    network = network.with_tensors({"conv1.weight": SharedTensor.from_values(values)})
    onnx_file.write(network, file)
    assert np.array_equal(onnx_file.read(file).tensors["conv1.weight"], values)


@pytest.mark.parametrize("behind", [None, "Flatten", "Identity"])
def test_softmax_means_probabilities(behind, file):
    model = resnet(softmax=True)
    if behind:
        old = model.graph.output[0].name
        model.graph.node.append(helper.make_node(behind, [old], ["probabilities"]))
        model.graph.output[0].name = "probabilities"
    network = onnx_file.read(saved(model, file))
    assert network.metadata.output == "probabilities"
    np.testing.assert_allclose(run(network, images()).sum(1), 1, atol=1e-5)
    logits = TorchClassifier(network).logits(images())
    np.testing.assert_allclose(logits, run(resnet(), images()), atol=1e-4)


def test_constant_nodes_become_weights(file):
    network = onnx_file.read(saved(view_flatten(), file))
    assert not any(node.op_type == "Constant" for node in parse(network.graph).graph.node)
    assert sorted(t.shape for t in network.tensors.values()) == [(4,), (4, 3, 5, 5), (400, 5)]


def test_weights_listed_as_inputs(file):
    """As exporters did before ONNX 1.4."""
    model = resnet()
    for tensor in model.graph.initializer:
        model.graph.input.append(
            helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        )
    network = onnx_file.read(saved(model, file))
    assert [value.name for value in parse(network.graph).graph.input] == ["input"]
    np.testing.assert_allclose(run(network, images()), run(resnet(), images()), atol=1e-5)


def test_what_an_output_does_not_need_is_dropped(file):
    m = Maker()
    x = m.conv("input", (8, 3, 1, 1))
    auxiliary = m.node("GlobalMaxPool", m.conv(x, (5, 8, 1, 1)))
    main = m.node("GlobalAveragePool", m.conv(x, (6, 8, 1, 1)))
    saved(m.model(main, outputs=[auxiliary]), file)
    with pytest.raises(UnsupportedError, match=r"several .* \(N, 6, 1, 1\).* \(N, 5, 1, 1\)"):
        onnx_file.read(file)
    with pytest.raises(InputError, match="has no output 'scores'"):
        onnx_file.read(file, output="scores")
    network = onnx_file.read(file, output=main)
    assert [node.op_type for node in parse(network.graph).graph.node] == [
        "Conv", "Conv", "GlobalAveragePool",
    ]  # fmt: skip
    assert len(network.tensors) == 4
    assert run(network, images()).shape == (2, 6)


def test_channels_last(file):
    m = Maker()
    x = m.node("Transpose", "input", perm=[0, 3, 1, 2])
    x = m.node("GlobalAveragePool", m.conv(x, (6, 3, 3, 3)))
    model = m.model(x, ("N", 16, 16, 3))
    network = onnx_file.read(saved(model, file))
    x = images(2, 3, 16)
    expected = run(model, np.ascontiguousarray(x.transpose(0, 2, 3, 1)))
    np.testing.assert_allclose(run(network, x), expected, atol=1e-5)
    np.testing.assert_allclose(TorchClassifier(network).logits(x), expected, atol=1e-5)


def test_open_input_size(file):
    m = Maker()
    x = m.node("GlobalAveragePool", m.conv("input", (6, 3, 3, 3)))
    saved(m.model(x, ("N", "C", "H", "W")), file)
    with pytest.raises(InputError, match="leaves its input size open"):
        onnx_file.read(file)
    network = onnx_file.read(file, input_size=20)
    assert network.metadata.preprocessing.crop == 20
    assert run(network, images(2, 3, 20)).shape == (2, 6)


def test_wrong_input_size(file):
    saved(resnet(), file)
    assert onnx_file.read(file, input_size=32)
    with pytest.raises(InputError, match="takes images of 32 pixels, not 64"):
        onnx_file.read(file, input_size=64)


def test_what_exporters_leave_for_people_is_dropped(file):
    model = resnet()
    model.doc_string = "long"
    model.metadata_props.add(key="author", value="someone")
    for node in model.graph.node:
        node.doc_string = "a stack trace" * 100
        node.metadata_props.add(key="pkg.torch.onnx.stack_trace", value="long" * 100)
    graph = onnx_file.read(saved(model, file)).graph
    assert b"trace" not in graph
    assert b"long" not in graph
    assert b"someone" not in graph


def test_local_functions_are_inlined(file):
    """As torch's newer exporter writes them."""
    body = [helper.make_node("Sigmoid", ["x"], ["s"]), helper.make_node("Mul", ["x", "s"], ["y"])]
    opsets = [helper.make_opsetid("", 17)]
    swish = helper.make_function("local", "Swish", ["x"], ["y"], body, opsets)
    m = Maker()
    x = m.conv("input", (4, 3, 32, 32))
    model = m.model(x)
    model.graph.node.append(helper.make_node("Swish", [x], ["z"], domain="local"))
    model.graph.output[0].name = "z"
    model.functions.append(swish)
    model.opset_import.append(helper.make_opsetid("local", 1))
    expected = run(model, images())
    network = onnx_file.read(saved(model, file))
    np.testing.assert_allclose(TorchClassifier(network).logits(images()), expected, atol=1e-5)


def test_external_data(file):
    model = resnet()
    onnx.save(model, file, save_as_external_data=True, location="weights.bin", size_threshold=0)
    network = onnx_file.read(file)
    np.testing.assert_allclose(run(network, images()), run(resnet(), images()), atol=1e-5)
    (file.parent / "weights.bin").unlink()
    with pytest.raises(InputError, match="file with its weights cannot be read"):
        onnx_file.read(file)


# ---------------------------------------------------------------------------------- what it refuses


def two_inputs():
    model = resnet()
    model.graph.input.append(helper.make_tensor_value_info("second", TensorProto.FLOAT, [1]))
    model.graph.node.append(
        helper.make_node("Mul", [model.graph.output[0].name, "second"], ["scaled"])
    )
    model.graph.output[0].name = "scaled"
    return model


def half_precision():
    model = resnet()
    for tensor in model.graph.initializer:  # and the nodes stay in float32: it fits nothing
        half = numpy_helper.to_array(tensor).astype(np.float16)
        tensor.CopyFrom(numpy_helper.from_array(half, tensor.name))
    return model


def quantised():
    m = Maker()
    scale, zero = m.tensor(0.1), m.tensor(3, np.uint8)
    x = m.node("QuantizeLinear", "input", scale, zero)
    return m.model(m.node("DequantizeLinear", x, scale, zero))


def segmentation():
    m = Maker()
    return m.model(m.conv("input", (21, 3, 3, 3)))


def five_channels():
    m = Maker()
    return m.model(m.conv("input", (4, 5, 16, 16)), ("N", 5, 16, 16))


def not_square():
    m = Maker()
    return m.model(m.conv("input", (4, 3, 16, 20)), ("N", 3, 16, 20))


def integers():
    model = resnet()
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.UINT8
    return model


def ancient():
    model = resnet()
    model.opset_import[0].version = 6
    return model


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (two_inputs, "has input, second"),
        (half_precision, "the original does not run"),
        (quantised, "is quantised already"),
        (segmentation, r"is no classifier; its output .* has the shape \(N, 21, 30, 30\)"),
        (five_channels, "takes 5 channels"),
        (not_square, "not square"),
        (integers, "not a float32 batch of images"),
        (ancient, "operator set 6"),
    ],
)
def test_unsupported_models(make, message, file):
    with pytest.raises(UnsupportedError, match=message):
        onnx_file.read(saved(make(), file))


def test_damaged_files(file):
    good = resnet().SerializeToString()
    for data in (b"", b"\xff\xd8 a picture", b"just some text, no model", good[:-1], good[:40]):
        file.write_bytes(data)
        with pytest.raises(InputError, match=r"model\.onnx"):
            onnx_file.read(file)
    with pytest.raises(InputError, match="there is no such file"):
        onnx_file.read(file.parent / "missing.onnx")


def test_damaged_metadata(file):
    onnx_file.write(squeezenet(digits()), file)
    model = onnx.load(file)
    for text, message in (("{", "metadata is damaged"), (None, "preprocessing does not fit")):
        text = text or model.metadata_props[0].value.replace('"crop":8', '"crop":7')
        changed = onnx.ModelProto()
        changed.CopyFrom(model)
        changed.metadata_props[0].value = text
        with pytest.raises(InputError, match=message):
            onnx_file.read(saved(changed, file))


def test_writing_to_a_missing_folder(tmp_path):
    with pytest.raises(InputError, match="cannot be written"):
        onnx_file.write(squeezenet(digits()), tmp_path / "missing" / "model.onnx")
