"""The ONNX Runtime classifier on tiny networks whose answers are known by hand."""

import dataclasses
import io
import re
import subprocess
import sys

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from squeezekit.errors import GraphError, InputError, UnsupportedError
from squeezekit.interop import onnx_file
from squeezekit.interop.opening import load
from squeezekit.runtime.classifier import (
    Classifier,
    from_network,
    ranked,
    softmax,
)
from squeezekit.runtime.images import prepare
from squeezekit.sqz import container
from squeezekit.sqz.graph import split
from squeezekit.sqz.metadata_json import to_json
from squeezekit.sqz.network import TORCHVISION, Metadata, Network, Preprocessing, SharedTensor

# The three outputs are the mean red, green and blue of the image.
PLAIN = Preprocessing(4, 4, "warp", scale=1.0, mean=(0.0,) * 3, std=(1.0,) * 3)
COLOURS = Metadata("colours", PLAIN, ("red", "green", "blue"), ("r", "g", "b"))


def model(
    batch="N", size=4, channels=3, weights=None, soft=False, type_=TensorProto.FLOAT, metadata=None
):
    weights = np.eye(3, channels, dtype=np.float32) if weights is None else weights
    nodes = [
        helper.make_node("Conv", ["image", "mix.weight"], ["mixed"], name="mix"),
        helper.make_node("GlobalAveragePool", ["mixed"], ["pooled"], name="pool"),
    ]
    if soft:
        nodes.append(helper.make_node("Softmax", ["pooled"], ["soft"], name="soft", axis=1))
    image = helper.make_tensor_value_info("image", type_, [batch, channels, size, size])
    output = helper.make_tensor_value_info("soft" if soft else "pooled", type_, None)
    dtype = np.float16 if type_ == TensorProto.FLOAT16 else np.float32
    kernel = numpy_helper.from_array(weights.astype(dtype)[:, :, None, None], "mix.weight")
    graph = helper.make_graph(nodes, "tiny", [image], [output], [kernel])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    if metadata is not None:
        helper.set_model_props(made, {onnx_file.METADATA_KEY: metadata})
    return made


def network(metadata=COLOURS, **options):
    graph, tensors = split(model(**options))
    return Network(graph, tensors, metadata)


def saved(tmp_path, made, name="tiny.onnx"):
    onnx.save(made, tmp_path / name)
    return tmp_path / name


BLUISH = Image.new("RGB", (9, 5), (3, 1, 5))
PROBABILITIES = np.exp([3.0, 1.0, 5.0]) / np.exp([3.0, 1.0, 5.0]).sum()


def test_neither_torch_nor_onnx_is_loaded():
    code = (
        "import sys, squeezekit.runtime.classifier, squeezekit.runtime.labels\n"
        "heavy = {'torch', 'onnx', 'matplotlib', 'sklearn', 'scipy'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_logits_are_the_networks_outputs_flattened():
    classifier = from_network(network())
    batch = np.random.default_rng(0).normal(size=(5, 3, 4, 4)).astype(np.float32)
    logits = classifier.logits(batch)
    assert logits.shape == (5, 3)
    assert logits.dtype == np.float32
    np.testing.assert_allclose(logits, batch.mean(axis=(2, 3)), atol=1e-6)
    np.testing.assert_allclose(classifier.probabilities(batch), softmax(logits))
    assert classifier.logits(batch[:0]).shape == (0, 3)
    assert classifier.file_bytes is None


def test_a_prediction_names_the_class():
    best, second, third = from_network(network(), threads=1)(BLUISH)
    assert (best.label, best.label_id, best.index) == ("blue", "b", 2)
    assert (second.label, third.label) == ("red", "green")
    np.testing.assert_allclose(
        [second.probability, third.probability, best.probability], PROBABILITIES, atol=1e-6
    )


@pytest.mark.parametrize(
    ("changes", "label", "label_id"),
    [({"labels": ()}, "b", "b"), ({"label_ids": ()}, "blue", ""),
     ({"labels": (), "label_ids": ()}, "class 2", "")],
)  # fmt: skip
def test_what_a_prediction_is_called_without_labels_or_ids(changes, label, label_id):
    (best,) = from_network(network(dataclasses.replace(COLOURS, **changes)))(BLUISH, top=1)
    assert (best.label, best.label_id, best.index) == (label, label_id, 2)


def test_every_source_and_every_batch_size_gives_the_same(tmp_path):
    classifier = from_network(network())
    path = tmp_path / "image.png"
    BLUISH.save(path)
    sources = [BLUISH, path, str(path), path.read_bytes(), io.BytesIO(path.read_bytes())]
    for batch in (1, 2, 5, 16):
        many = classifier.predict_many([*sources[:4], BLUISH], top=2, batch=batch)
        assert many == [classifier(BLUISH, top=2)] * 5
    assert classifier(sources[4]) == classifier(BLUISH)
    assert classifier.predict_many([]) == []
    prepared = prepare(BLUISH, PLAIN)  # float32 (C, H, W)
    for array in (prepared, prepared.astype(np.float64), torch.from_numpy(prepared)):
        assert classifier(array) == classifier(BLUISH)
        assert classifier.predict_many([array, BLUISH]) == [classifier(BLUISH)] * 2


def test_bad_images_and_bad_settings_are_one_sentence(tmp_path):
    classifier = from_network(network())
    (tmp_path / "text.jpg").write_text("no image")
    with pytest.raises(InputError, match=r"text\.jpg is not an image"):
        classifier(tmp_path / "text.jpg")
    with pytest.raises(InputError, match="array holds 3 x 5 x 5"):
        classifier(np.zeros((3, 5, 5), np.float32))
    with pytest.raises(InputError, match="uint8 is not prepared"):
        classifier(np.zeros((3, 4, 4), np.uint8))
    for nothing in (3, None, {}):
        with pytest.raises(InputError, match="is not an image: give a path"):
            classifier(nothing)
    with pytest.raises(InputError, match="top must be at least 1"):
        classifier(BLUISH, top=0)


def test_shared_weights_are_expanded():
    weights = np.array([[1, 0, 0], [0, 2, 0], [0, 0, 1]], np.float32)
    plain = network(weights=weights)
    shared = plain.with_tensors(
        {"mix.weight": SharedTensor.from_values(plain.values()["mix.weight"])}
    )
    batch = np.ones((1, 3, 4, 4), np.float32)
    np.testing.assert_array_equal(
        from_network(shared).logits(batch), from_network(plain).logits(batch)
    )


def test_a_network_with_a_softmax_gives_it_once():
    soft = from_network(network(dataclasses.replace(COLOURS, output="probabilities"), soft=True))
    batch = np.zeros((1, 3, 4, 4), np.float32) + np.reshape([3, 1, 5], (3, 1, 1))
    batch = batch.astype(np.float32)
    np.testing.assert_allclose(soft.probabilities(batch)[0], PROBABILITIES, atol=1e-6)
    np.testing.assert_allclose(softmax(soft.logits(batch))[0], PROBABILITIES, atol=1e-6)
    # An exact zero has the logarithm -inf, without a warning, and stays a zero.
    np.testing.assert_array_equal(softmax(soft.logits(batch * 1000)), [[0, 0, 1]])


@pytest.mark.parametrize("batch", [1, 2, 4])
def test_a_fixed_batch_size_is_filled_up(tmp_path, batch):
    classifier = load(saved(tmp_path, model(batch=batch)))
    images = np.random.default_rng(0).normal(size=(5, 3, 4, 4)).astype(np.float32)
    np.testing.assert_allclose(classifier.logits(images), images.mean(axis=(2, 3)), atol=1e-6)


def test_half_precision_networks_run(tmp_path):
    classifier = load(saved(tmp_path, model(type_=TensorProto.FLOAT16)))
    logits = classifier.logits(np.ones((2, 3, 4, 4), np.float32))
    assert logits.dtype == np.float32
    np.testing.assert_array_equal(logits, np.ones((2, 3)))


# --- .onnx -----------------------------------------------------------------------------------


def test_onnx_with_metadata_keeps_it(tmp_path):
    path = saved(tmp_path, model(metadata=to_json(COLOURS)))
    classifier = load(path)
    assert classifier.metadata == COLOURS
    assert classifier.file_bytes == path.stat().st_size
    assert classifier(BLUISH, top=1)[0].label == "blue"


def test_onnx_without_metadata_gets_torchvisions_preprocessing(tmp_path):
    metadata = load(saved(tmp_path, model(size=32), "someones.onnx")).metadata
    assert metadata.name == "someones"
    assert metadata.preprocessing == dataclasses.replace(TORCHVISION, crop=32, resize=32)
    assert (metadata.labels, metadata.output) == ((), "logits")
    path = saved(tmp_path, model(size="side"))
    with pytest.raises(InputError, match="leaves its input size open"):
        load(path)
    symbolic = load(path, preprocessing={"input_size": 224}).metadata
    assert symbolic.preprocessing == TORCHVISION
    grey = load(saved(tmp_path, model(channels=1))).metadata
    assert grey.preprocessing.color == "L"


def test_onnx_that_ends_in_a_softmax_is_noticed(tmp_path):
    classifier = load(saved(tmp_path, model(soft=True)))
    assert classifier.metadata.output == "probabilities"
    probabilities = classifier.probabilities(np.zeros((1, 3, 4, 4), np.float32))
    np.testing.assert_allclose(probabilities, 1 / 3)


def test_weights_beside_an_onnx_file_are_found_and_counted(tmp_path):
    weights = np.random.default_rng(0).normal(size=(300, 3)).astype(np.float32)
    path = tmp_path / "big.onnx"
    onnx.save(
        model(weights=weights), path, save_as_external_data=True, location="big.onnx.data",
        size_threshold=0,
    )  # fmt: skip
    classifier = load(path)
    assert classifier.logits(np.ones((1, 3, 4, 4), np.float32)).shape == (1, 300)
    assert classifier.file_bytes == path.stat().st_size + weights.nbytes


# --- what is refused -------------------------------------------------------------------------


def refused(error, path_or_network):
    make = from_network if isinstance(path_or_network, Network) else load
    with pytest.raises(error) as caught:
        make(path_or_network)
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_files_that_are_no_network(tmp_path, capfd):
    assert "does not exist" in refused(InputError, tmp_path / "gone.sqz")
    assert "is a folder" in refused(InputError, tmp_path)
    (tmp_path / "weights.bin").write_bytes(b"x")
    assert "neither a .sqz nor an .onnx" in refused(InputError, tmp_path / "weights.bin")
    for content in (b"", b"garbage", model().SerializeToString()[:60]):
        (tmp_path / "broken.onnx").write_bytes(content)
        said = refused(InputError, tmp_path / "broken.onnx")
        assert re.search(r"broken.onnx: is (not an ONNX model|empty)", said)
    assert capfd.readouterr() == ("", "")  # ONNX Runtime logs nothing


def test_graphs_that_cannot_run(tmp_path, capfd):
    unknown = model()
    unknown.graph.node[0].op_type = "Mystery"
    graph, tensors = split(unknown)
    assert "Mystery" in refused(GraphError, Network(graph, tensors, COLOURS))
    assert "'mix' (Mystery)" in refused(UnsupportedError, saved(tmp_path, unknown))
    assert "cannot run" in refused(GraphError, Network(b"garbage", {}, COLOURS))
    reshaped = model()
    reshaped.graph.node[1].CopyFrom(helper.make_node("Reshape", ["mixed", "to"], ["pooled"]))
    reshaped.graph.initializer.append(numpy_helper.from_array(np.array([7, 7]), "to"))
    classifier = from_network(Network(*split(reshaped), COLOURS))
    with pytest.raises(GraphError, match="cannot run"):
        classifier(BLUISH)
    assert capfd.readouterr() == ("", "")


def test_graphs_that_take_no_square_images(tmp_path):
    wide = model()
    wide.graph.input[0].type.tensor_type.shape.dim[3].dim_value = 8
    assert "square" in refused(UnsupportedError, saved(tmp_path, wide))
    two = model()
    two.graph.input.append(helper.make_tensor_value_info("mask", TensorProto.FLOAT, ["N", 3, 4, 4]))
    two.graph.node[0].CopyFrom(helper.make_node("Add", ["image", "mask"], ["mixed"]))
    assert "has image, mask" in refused(UnsupportedError, saved(tmp_path, two))
    integers = model()
    integers.graph.input[0].type.tensor_type.elem_type = TensorProto.UINT8
    integers.graph.node.insert(0, helper.make_node("Cast", ["image"], ["cast"], to=1))
    integers.graph.node[1].input[0] = "cast"
    assert "not a float32 batch" in refused(UnsupportedError, saved(tmp_path, integers))
    classes = model()
    classes.graph.node.append(helper.make_node("ArgMax", ["pooled"], ["best"], axis=1))
    classes.graph.output[0].CopyFrom(helper.make_tensor_value_info("best", 7, None))
    assert "int64" in refused(UnsupportedError, saved(tmp_path, classes))


@pytest.mark.parametrize(
    "changes",
    [{"crop": 5, "resize": 5}, {"color": "L", "mean": (0.0,), "std": (1.0,)}],
)
def test_metadata_that_does_not_fit_the_graph(tmp_path, changes):
    other = dataclasses.replace(COLOURS, preprocessing=dataclasses.replace(PLAIN, **changes))
    assert "3 x 4 x 4" in refused(GraphError, network(other))
    by_file = saved(tmp_path, model(metadata=to_json(other)))
    assert "its preprocessing does not fit its input" in refused(InputError, by_file)
    refused(InputError, saved(tmp_path, model(metadata="{")))


def test_labels_that_do_not_fit_the_outputs():
    classifier = from_network(network(dataclasses.replace(COLOURS, labels=("a",), label_ids=())))
    with pytest.raises(GraphError, match="3 outputs, but its file names 1 classes"):
        classifier(BLUISH)


def test_outputs_that_are_not_numbers_are_no_answer():
    classifier = from_network(network(weights=np.full((3, 3), np.nan, np.float32)))
    with pytest.raises(GraphError, match="NaN"):
        classifier(BLUISH)


def test_outputs_without_a_row_an_image():
    summed = model()
    summed.graph.node[1].CopyFrom(helper.make_node("ReduceSum", ["mixed"], ["pooled"], keepdims=1))
    classifier = from_network(Network(*split(summed), COLOURS))
    with pytest.raises(GraphError, match="2 images"):
        classifier.predict_many([BLUISH, BLUISH])


def test_ranked_puts_the_first_of_equals_first():
    scores = np.array([[0, 2, 2, 1], [5, 5, 5, 5]], np.float32)
    np.testing.assert_array_equal(ranked(scores, 3), [[1, 2, 3], [0, 1, 2]])
    assert ranked(scores, 9).shape == (2, 4)


def test_softmax_survives_large_logits():
    np.testing.assert_allclose(
        softmax(np.array([[1e4, 1e4], [-1e30, 0]], np.float32)), [[0.5, 0.5], [0, 1]]
    )


def test_a_sqz_file_answers_like_the_network_it_holds(tmp_path):
    container = pytest.importorskip("squeezekit.sqz.container")
    container.write(network(), tmp_path / "colours.sqz")
    classifier = load(tmp_path / "colours.sqz")
    assert isinstance(classifier, Classifier)
    assert classifier.metadata == COLOURS
    assert classifier.file_bytes == (tmp_path / "colours.sqz").stat().st_size
    assert classifier(BLUISH) == from_network(network())(BLUISH)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("side", [17, 28, 32, 48, 63, 64, 96, 160, 224, 227, 299])
def test_a_foreign_file_and_the_sqz_made_of_it_give_one_answer(tmp_path, side, channels):
    """An .onnx runs as it is, a .sqz by way of `onnx_file.read`: both state the preprocessing."""
    foreign = saved(tmp_path, model(size=side, channels=channels))
    container.write(onnx_file.read(foreign), tmp_path / "tiny.sqz")
    direct, by_sqz = load(foreign), load(tmp_path / "tiny.sqz")
    assert direct.metadata.preprocessing == by_sqz.metadata.preprocessing
    photo = tmp_path / "photo.png"
    Image.fromarray(np.random.default_rng(side).integers(0, 256, (90, 61, 3), np.uint8)).save(photo)
    assert direct(photo) == by_sqz(photo)
