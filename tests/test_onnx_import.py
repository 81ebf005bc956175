"""The one way in for ONNX models: each kind is answered as ONNX Runtime does, or refused."""

import numpy as np
import onnx
import onnxruntime
import pytest
from foreign import Maker, images, run
from onnx import TensorProto, helper, numpy_helper

from squeezekit.errors import InputError, UnsupportedError
from squeezekit.interop import onnx_file
from squeezekit.interop.opening import load
from squeezekit.sqz import container
from squeezekit.sqz.graph import parse
from squeezekit.trainable.network import TorchClassifier

CLASSES = 5


class Small(Maker):
    """A small classifier up to its features; what stands behind, and what is odd, varies."""

    def features(self, x="input", channels=3):
        x = self.node("Relu", self.conv(x, (8, channels, 3, 3), strides=[2, 2], pads=[1] * 4))
        return self.node("Relu", self.conv(x, (12, 8, 3, 3), strides=[2, 2], pads=[1] * 4))

    def pooled(self):
        return self.node("GlobalAveragePool", self.features())

    def head(self, x, outputs=CLASSES, **settings):
        weight = self.rng.standard_normal((outputs, 12)) * 0.8
        return self.node(
            "Gemm", x, self.tensor(weight), self.tensor(self.rng.standard_normal(outputs)),
            transB=1, **settings,
        )  # fmt: skip

    def plain(self, outputs=CLASSES):
        return self.head(self.node("Flatten", self.pooled(), axis=1), outputs)


def saved(model, path):
    onnx.save(model, path)
    return path


def ops(network):
    return [node.op_type for node in parse(network.graph).graph.node]


def one_by_one(model, x, output=None):
    """What ONNX Runtime gives for each image, in batches of the model's own size."""
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    size = session.get_inputs()[0].shape[0]
    size = size if isinstance(size, int) else 1
    rows = []
    for i in range(len(x)):
        filled = np.repeat(x[i : i + 1], size, axis=0)
        (result,) = session.run(
            [output or session.get_outputs()[0].name], {session.get_inputs()[0].name: filled}
        )
        rows.append(result.reshape(size, -1)[0])
    return np.stack(rows)


def same_everywhere(model, path, tmp_path, output=None):
    """The model by itself, imported, by the .onnx door, in torch, and in a .sqz: one answer."""
    x = images(3)
    expected = one_by_one(model, x, output)
    network = onnx_file.read(saved(model, path))
    np.testing.assert_allclose(run(network, x), expected, atol=2e-5)
    direct = load(path, 1)
    container.write(network, tmp_path / "x.sqz")
    by_sqz = load(tmp_path / "x.sqz", 1)
    assert np.array_equal(direct.logits(x), by_sqz.logits(x))
    assert np.array_equal(direct.probabilities(x), by_sqz.probabilities(x))
    assert direct.metadata.preprocessing == by_sqz.metadata.preprocessing
    in_torch = TorchClassifier(network).logits(x)
    if network.metadata.output == "probabilities":
        in_torch = np.exp(in_torch) / np.exp(in_torch).sum(1, keepdims=True)
    np.testing.assert_allclose(in_torch, expected, atol=2e-5)
    return network


@pytest.fixture
def file(tmp_path):
    return tmp_path / "model.onnx"


# ------------------------------------------------------------------------------------ the batch


@pytest.mark.parametrize("batch", ["N", 1, 2, 4])
@pytest.mark.parametrize("rest", [12, -1])
@pytest.mark.parametrize("allowzero", [0, 1])
def test_a_batch_in_a_reshape(batch, rest, allowzero, file, tmp_path):
    """As torch's exporters write x.view(1, -1), x.view(x.size(0), 12) and the like."""
    m = Small()
    target = [1 if batch == "N" else batch, rest]
    x = m.node("Reshape", m.pooled(), m.tensor(target, np.int64), allowzero=allowzero)
    network = same_everywhere(m.model(m.head(x), (batch, 3, 32, 32)), file, tmp_path)
    assert ops(network)[-2:] == ["Flatten", "Gemm"]


def test_a_scale_that_is_reshaped_is_no_batch(file, tmp_path):
    m = Small()
    scale = m.node("Reshape", m.tensor(m.rng.random(12)), m.tensor([1, -1, 1, 1], np.int64))
    x = m.node("GlobalAveragePool", m.node("Mul", m.features(), scale))
    same_everywhere(m.model(m.head(m.node("Flatten", x))), file, tmp_path)


@pytest.mark.parametrize("batch", [1, 3])
def test_channels_that_are_shuffled(batch, file, tmp_path):
    """ShuffleNet's: the batch is beside four other axes."""
    m = Small()
    x = m.node("Reshape", m.features(), m.tensor([batch, 3, 4, 8, 8], np.int64))
    x = m.node("Transpose", x, perm=[0, 2, 1, 3, 4])
    x = m.node("Reshape", x, m.tensor([batch, 12, 8, 8], np.int64))
    x = m.node("GlobalAveragePool", x)
    same_everywhere(m.model(m.head(m.node("Flatten", x)), (batch, 3, 32, 32)), file, tmp_path)


@pytest.mark.parametrize("batch", ["N", 1])
def test_a_shape_that_is_computed(batch, file, tmp_path):
    """x.view(x.size(0), -1): Shape, Gather, Unsqueeze, Concat, Reshape; folded on the way in."""
    m = Small()
    x = m.pooled()
    size = m.node("Gather", m.node("Shape", x), m.tensor(0, np.int64), axis=0)
    size = m.node("Unsqueeze", size, m.tensor([0], np.int64))
    target = m.node("Concat", size, m.tensor([-1], np.int64), axis=0)
    x = m.node("Reshape", x, target)
    network = same_everywhere(m.model(m.head(x), (batch, 3, 32, 32)), file, tmp_path)
    assert ops(network)[-3:] == ["GlobalAveragePool", "Flatten", "Gemm"]


@pytest.mark.parametrize("batch", [1, 4])
def test_a_batch_that_is_part_of_a_constant_is_refused(batch, file):
    m = Small()
    flat = m.node("Flatten", m.pooled())
    x = m.node("Concat", flat, m.tensor(m.rng.random((batch, 4))), axis=1)
    weight = m.tensor(m.rng.standard_normal((16, CLASSES)))
    saved(m.model(m.node("Gemm", x, weight), (batch, 3, 32, 32)), file)
    with pytest.raises(UnsupportedError, match=rf"\(Concat\) has the model's batch of {batch} in"):
        onnx_file.read(file)


def test_a_constant_for_each_image_is_refused(file):
    m = Small()
    x = m.node("Add", m.plain(), m.tensor(m.rng.random((4, CLASSES))))
    saved(m.model(x, (4, 3, 32, 32)), file)
    with pytest.raises(UnsupportedError, match=r"\(Add\) has the model's batch of 4 in"):
        onnx_file.read(file)


@pytest.mark.parametrize("batch", ["N", 2])
@pytest.mark.parametrize("op", ["Softmax", "ReduceMean", "Concat", "Gather", "Slice"])
def test_what_mixes_images_is_refused(op, batch, file):
    m = Small()
    x = m.plain()
    zero, one = m.tensor([0], np.int64), m.tensor([1], np.int64)
    x = {
        "Softmax": lambda: m.node("Softmax", x, axis=0),
        "ReduceMean": lambda: m.node("Sub", x, m.node("ReduceMean", x, axes=[0])),
        "Concat": lambda: m.node("Concat", x, x, axis=0),
        "Gather": lambda: m.node("Gather", x, zero, axis=0),
        "Slice": lambda: m.node("Slice", x, zero, one, zero),
    }[op]()
    saved(m.model(x, (batch, 3, 32, 32)), file)
    with pytest.raises(UnsupportedError):
        onnx_file.read(file)


# ---------------------------------------------------------------------------------- the outputs


def sum_to_one(m, x, how):
    soft = m.node("Softmax", x, axis=1)
    return {
        "plain": lambda: soft,
        "cast": lambda: m.node("Cast", soft, to=TensorProto.FLOAT),
        "clip": lambda: m.node("Clip", soft, m.tensor(1e-7), m.tensor(1.0)),
        "unsqueezed": lambda: m.node("Unsqueeze", soft, m.tensor([2, 3], np.int64)),
        "squeezed": lambda: m.node(
            "Squeeze", m.node("Unsqueeze", soft, m.tensor([1], np.int64)), m.tensor([1], np.int64)
        ),
        "by hand": lambda: m.node(
            "Div", m.node("Exp", x), m.node("ReduceSum", m.node("Exp", x), m.tensor([1], np.int64))
        ),
    }[how]()


@pytest.mark.parametrize("how", ["plain", "cast", "clip", "unsqueezed", "squeezed"])
def test_a_softmax_is_found_by_what_it_does(how, file, tmp_path):
    m = Small()
    model = m.model(sum_to_one(m, m.plain(), how))
    network = same_everywhere(model, file, tmp_path)
    assert network.metadata.output == "probabilities"


def test_a_softmax_by_hand_is_one_too(file):
    m = Small()
    model = m.model(sum_to_one(m, m.plain(), "by hand"))
    network = onnx_file.read(saved(model, file))
    assert network.metadata.output == "probabilities"
    np.testing.assert_allclose(load(file).probabilities(images(3)), one_by_one(model, images(3)),
                               atol=1e-5)  # fmt: skip
    with pytest.raises(UnsupportedError, match="softmax"):  # whose logits torch would have to train
        TorchClassifier(network)


@pytest.mark.parametrize("sigmoid", [True, False])
@pytest.mark.parametrize("rank", [1, 2, 4])
def test_one_output_is_two_classes_by_its_sigmoid(sigmoid, rank, file, tmp_path):
    m = Small()
    x = m.plain(outputs=1)
    x = m.node("Sigmoid", x) if sigmoid else x
    if rank == 1:
        x = m.node("Squeeze", x, m.tensor([1], np.int64))
    if rank == 4:
        x = m.node("Unsqueeze", x, m.tensor([2, 3], np.int64))
    model = m.model(x)
    with pytest.raises(UnsupportedError, match=r"has one output .* a yes or no"):
        onnx_file.read(saved(model, file))
    network = onnx_file.read(file, labels=["crack"])
    assert network.metadata.labels == ("not crack", "crack")
    assert onnx_file.read(file, labels=["cat", "dog"]).metadata.labels == ("cat", "dog")
    container.write(network, tmp_path / "x.sqz")
    scores = one_by_one(model, images(3))
    expected = scores if sigmoid else 1 / (1 + np.exp(-scores))
    for found in (load(tmp_path / "x.sqz"), load(file, labels=["crack"])):
        np.testing.assert_allclose(found.probabilities(images(3))[:, 1:], expected, atol=1e-5)
    logits = TorchClassifier(network).logits(images(3))
    np.testing.assert_allclose(1 / (1 + np.exp(logits[:, :1] - logits[:, 1:])), expected, atol=1e-5)


def test_the_output_that_scores_classes_is_chosen_by_shape_and_use(file, tmp_path):
    m = Small()
    flat = m.node("Flatten", m.pooled())
    scores = m.head(flat)
    label = m.node("ArgMax", scores, axis=1, keepdims=0)
    for outputs in (
        [flat, scores],
        [scores, flat],
        [label, scores],
        [m.nodes[3].output[0], scores],
    ):
        model = m.model(outputs[0], outputs=outputs[1:])
        for value in model.graph.output:
            if value.name == label:
                value.type.tensor_type.elem_type = TensorProto.INT64
        network = onnx_file.read(saved(model, file))
        np.testing.assert_allclose(
            run(network, images()), one_by_one(model, images(), scores), atol=1e-5
        )


def test_features_are_no_scores_though_they_are_named(file):
    m = Small()
    flat = m.node("Flatten", m.pooled())
    scores = m.head(flat)
    saved(m.model(scores, outputs=[flat]), file)
    with pytest.raises(UnsupportedError, match=f"{flat}.*holds features"):
        onnx_file.read(file, output=flat)


def boxes(m):
    """A detector: boxes and their classes, many an image."""
    x = m.conv(m.features(), (9, 12, 1, 1))
    return m.node("Transpose", m.node("Reshape", x, m.tensor([0, 9, 64], np.int64)), perm=[0, 2, 1])


def several_labels(m):
    return m.node("Sigmoid", m.plain())


def unit_features(m):
    x = m.plain()
    length = m.node("Sqrt", m.node("ReduceSum", m.node("Mul", x, x), m.tensor([1], np.int64)))
    return m.node("Div", x, length)


def percentages(m):
    return m.node("Mul", m.node("Softmax", m.plain(), axis=1), m.tensor(100.0))


def bent(m):
    """One number from -1 to 1."""
    return m.node("Tanh", m.plain(outputs=1))


def labels_only(m):
    return m.node("ArgMax", m.plain(), axis=1)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (boxes, r"output '.*' has the shape \(N, 64, 9\)"),
        (several_labels, r"scores each class on its own .*Sigmoid"),
        (unit_features, "features of length 1"),
        (percentages, "scores that sum to 100"),
        (bent, r"has one output .* a Tanh"),
        (labels_only, r"output '.*' holds labels or the like \(int64\)"),
    ],
)
def test_what_does_not_score_classes_is_refused(make, message, file):
    m = Small()
    saved(m.model(make(m)), file)
    with pytest.raises(UnsupportedError, match=message):
        onnx_file.read(file)
    with pytest.raises(UnsupportedError, match=message):
        load(file)


def test_two_outputs_that_could_be_scores_are_asked_about(file):
    m = Small()
    flat = m.node("Flatten", m.pooled())
    first, second = m.head(flat), m.head(flat, 2)
    saved(m.model(first, outputs=[second]), file)
    with pytest.raises(UnsupportedError, match="--output NAME"):
        onnx_file.read(file)
    assert run(onnx_file.read(file, output=second), images()).shape == (2, 2)
    assert load(file, output=first).logits(images()).shape == (2, CLASSES)


# -------------------------------------------------------------------------------------- training


@pytest.mark.parametrize("op", ["Dropout", "BatchNormalization"])
def test_layers_in_training_mode_are_set_to_inference(op, file, tmp_path):
    m = Small()
    if op == "Dropout":
        x = m.node("Dropout", m.plain(), m.tensor(0.5), m.tensor(True, np.bool_))
        model, plain = m.model(x), Small()
        expected = plain.model(plain.plain())
    else:
        m, plain = Small(), Small()
        made = []
        for maker in (m, plain):
            x = maker.batch_norm(maker.features(), 12)
            made.append(
                maker.model(maker.head(maker.node("Flatten", maker.node("GlobalMaxPool", x))))
            )
        model, expected = made
        norm = next(n for n in model.graph.node if n.op_type == op)
        norm.attribute.append(helper.make_attribute("training_mode", 1))
        norm.output.extend(["running mean", "running variance"])
        model = onnx.shape_inference.infer_shapes(model)
    network = onnx_file.read(saved(model, file))
    np.testing.assert_allclose(run(network, images()), run(expected, images()), atol=1e-5)
    assert np.array_equal(load(file).logits(images()), load(file).logits(images()))


# -------------------------------------------------------------------------------- odd, but right


def with_if(model, condition, name="If"):
    """The last node within a branch of an If; the other branch gives something else."""
    last = model.graph.node.pop()
    output = last.output[0]
    branch = onnx.NodeProto()
    branch.CopyFrom(last)
    branch.output[0] = "inner"
    other = helper.make_node("Neg", ["inner"], ["other"])
    value = helper.make_tensor_value_info("inner", TensorProto.FLOAT, None)
    wrong = helper.make_tensor_value_info("other", TensorProto.FLOAT, None)
    right = helper.make_graph([branch], "right", [], [value])
    false = helper.make_graph([branch, other], "wrong", [], [wrong])
    then, otherwise = (right, false) if condition else (false, right)
    model.graph.initializer.append(numpy_helper.from_array(np.array(condition), "condition"))
    model.graph.node.append(
        helper.make_node("If", ["condition"], [output], name, then_branch=then,
                         else_branch=otherwise)
    )  # fmt: skip
    return model


@pytest.mark.parametrize("condition", [True, False])
def test_an_if_with_a_constant_condition(condition, file, tmp_path):
    m = Small()
    network = same_everywhere(with_if(m.model(m.plain()), condition), file, tmp_path)
    assert "If" not in ops(network)


def test_an_if_that_hangs_on_the_image_is_refused(file):
    m = Small()
    x = m.plain()
    top = m.node("ReduceMax", x, keepdims=0)
    model = with_if(m.model(m.node("Neg", x)), True, "If the image is bright")
    model.graph.node.insert(
        len(model.graph.node) - 1, helper.make_node("Greater", [top, "zero"], ["bright"])
    )
    model.graph.initializer.append(numpy_helper.from_array(np.float32(0), "zero"))
    model.graph.node[-1].input[0] = "bright"
    saved(model, file)
    with pytest.raises(UnsupportedError, match="'If the image is bright'"):
        onnx_file.read(file)


def test_what_onnx_runtime_reads_is_read(file, tmp_path):
    """No names, nodes in any order, an input that nothing uses, weights among the inputs."""
    m = Small()
    model = m.model(m.plain())
    model.graph.name = ""
    nodes = list(model.graph.node)[::-1]
    model.graph.ClearField("node")
    model.graph.node.extend(nodes)
    for node in model.graph.node:
        node.name = ""
    del model.graph.value_info[:]
    same_everywhere(model, file, tmp_path)
    flag = helper.make_tensor_value_info("is_training", TensorProto.BOOL, [])
    model.graph.input.append(flag)
    model.ir_version = 3
    for tensor in model.graph.initializer:
        model.graph.input.append(
            helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        )
    network = onnx_file.read(saved(model, file))
    onnx_file.write(network, tmp_path / "again.onnx")
    onnx.checker.check_model(onnx.load(tmp_path / "again.onnx"), full_check=True)


def test_weights_seen_through_identity_and_constants(file, tmp_path):
    """A weight that a node passes on, turns or computes is a weight like any other."""
    m = Small()
    x = m.pooled()
    weight = m.node("Identity", m.tensor(m.rng.standard_normal((CLASSES, 12)) * 0.5))
    weight = m.node("Transpose", m.node("Mul", weight, m.tensor(2.0)), perm=[1, 0])
    bias = m.node("Identity", m.tensor(m.rng.standard_normal(CLASSES)))
    x = m.node("Add", m.node("MatMul", m.node("Flatten", x), weight), bias)
    network = same_everywhere(m.model(x), file, tmp_path)
    assert ops(network)[-2:] == ["Flatten", "Gemm"]


@pytest.mark.parametrize("turned", [0, 1])
def test_factors_of_a_layer_go_into_its_weights(turned, file, tmp_path):
    m = Small()
    weight = m.rng.standard_normal((CLASSES, 12) if turned else (12, CLASSES))
    x = m.node(
        "Gemm", m.node("Flatten", m.pooled()), m.tensor(weight),
        m.tensor(m.rng.standard_normal((1, CLASSES))), alpha=0.5, beta=2.0, transB=turned,
    )  # fmt: skip
    network = same_everywhere(m.model(x), file, tmp_path)
    (gemm,) = (n for n in parse(network.graph).graph.node if n.op_type == "Gemm")
    assert {a.name for a in gemm.attribute} <= {"transB"}


# ------------------------------------------------------------------------------------- other files


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "Git LFS pointer"),
        (b"<!DOCTYPE html>\n<html><title>Sign in</title>", "a web page"),
        (b"\n  <html lang='en'>", "a web page"),
        (b"\x80\x02}q\x00.", "a Python pickle"),
        (b"\x1f\x8b\x08\x00", "a gzip archive"),
        (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
        (b"", "is empty"),
    ],
)
def test_other_files_are_said_to_be_what_they_are(data, kind, file):
    file.write_bytes(data)
    for opened in (onnx_file.read, load):
        with pytest.raises(InputError, match=kind):
            opened(file)


@pytest.mark.parametrize("place", ["../canary.bin", "{tmp}/canary.bin", "link.bin", "folder"])
def test_weights_are_not_read_from_elsewhere(place, tmp_path):
    """A model names the file that its weights are in: never one that is not beside it."""
    (tmp_path / "canary.bin").write_bytes(bytes(4 * 3 * 8 * 9))
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "folder").mkdir()
    (folder / "link.bin").symlink_to(tmp_path / "canary.bin")
    m = Small()
    model = m.model(m.plain())
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=place.format(tmp=tmp_path))
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    for opened in (onnx_file.read, load):
        with pytest.raises(InputError, match=r"outside|cannot be read|own folder"):
            opened(folder / "model.onnx")


def test_functions_without_end_are_refused_before_they_are_written_out(file):
    """Each calls the next one twice: 2^40 nodes from a few hundred bytes."""
    m = Small()
    model = m.model(m.plain())
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("local", 1)]
    for i in range(40):
        called = ("Relu", "") if i == 39 else (f"f{i + 1}", "local")
        body = [helper.make_node(called[0], [a], [b], domain=called[1]) for a, b in ("xy", "yz")]
        model.functions.append(helper.make_function("local", f"f{i}", ["x"], ["z"], body, opsets))
    model.opset_import.append(helper.make_opsetid("local", 1))
    model.graph.node.append(
        helper.make_node("f0", [model.graph.output[0].name], ["laugh"], domain="local")
    )
    model.graph.output[0].name = "laugh"
    file.write_bytes(model.SerializeToString())
    with pytest.raises((InputError, UnsupportedError), match=r"100,000 nodes|too deeply|deeper"):
        onnx_file.read(file)
