"""Accuracy counted against answers that are known by hand."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from scipy.stats import binomtest

from squeezekit.data.folders import match, scan
from squeezekit.errors import InputError
from squeezekit.evaluation import Evaluation, change, evaluate
from squeezekit.runtime.classifier import from_network, softmax
from squeezekit.runtime.images import prepare_file
from squeezekit.sqz.graph import split
from squeezekit.sqz.network import Metadata, Network, Preprocessing

CLASSES = 7
METADATA = Metadata(
    "brightness",
    Preprocessing(2, 2, "warp", color="L", scale=1.0, mean=(0.0,), std=(1.0,)),
    labels=tuple(f"level {i}" for i in range(CLASSES)),
)


class Brightness:
    """Gives class k the score -|mean - 10 k|: an image of brightness 10 k is of class k."""

    metadata = METADATA

    def __init__(self):
        self.batches = []

    def logits(self, batch):
        self.batches.append(len(batch))
        mean = batch.mean(axis=(1, 2, 3))  # (N,)
        return -np.abs(mean[:, None] - 10 * np.arange(CLASSES)).astype(np.float32)


@pytest.fixture
def levels(tmp_path):
    """`levels({class: [brightness, ...]})`: class folders "level 0" ... of uniform images."""

    def make(brightness_by_class):
        for target, values in brightness_by_class.items():
            folder = tmp_path / f"level {target}"
            folder.mkdir()
            for i, value in enumerate(values):
                Image.new("L", (5, 3), value).save(folder / f"{i}.png")
        return match(scan(tmp_path), METADATA.labels)

    return make


def test_top1_and_top5_are_percentages_of_the_images(levels):
    # Brightness 20 ranks 2, 1, 3, 0, 4 first: 2 is a hit, 4 one among five, 6 a miss.
    found = evaluate(Brightness(), levels({2: [20, 20], 4: [20], 6: [20, 60]}))
    assert found.images == 5
    assert (found.top1, found.top5) == (60.0, 80.0)
    assert found.skipped == ()
    assert found.seconds > 0
    np.testing.assert_array_equal(found.targets, [2, 2, 4, 6, 6])
    np.testing.assert_array_equal(found.ranked[0], [2, 1, 3, 0, 4])
    assert found.ranked.shape == (5, 5)
    scores = -np.abs(20 - 10 * np.arange(CLASSES)).astype(np.float32)
    np.testing.assert_allclose(found.confidence[0], softmax(scores).max())
    assert [path.parent.name for path in found.paths] == [f"level {i}" for i in (2, 2, 4, 6, 6)]


@pytest.mark.parametrize("batch", [1, 2, 3, 100])
def test_the_batch_size_changes_nothing_but_the_batches(levels, batch):
    brightness = Brightness()
    image_set = levels({i: [10 * i, 10 * i + 20] for i in range(CLASSES)})
    found = evaluate(brightness, image_set, batch=batch)
    full, rest = divmod(2 * CLASSES, batch)
    assert brightness.batches == [batch] * full + [rest] * (rest > 0)
    assert found.top1 == pytest.approx(100 * 8 / 14)  # 80 is nearest to 60, class 6
    np.testing.assert_array_equal(found.ranked[::2, 0], range(CLASSES))


def test_broken_images_are_skipped_named_and_counted(levels, tmp_path):
    image_set = levels({0: [0, 0], 1: [10, 10], 2: [20]})
    Image.new("L", (64, 64)).save(image_set.paths[1], "JPEG")
    good = image_set.paths[1].read_bytes()
    image_set.paths[1].write_bytes(good[:-20])
    image_set.paths[2].write_text("no image")
    image_set.paths[4].unlink()
    found = evaluate(Brightness(), image_set, batch=2)
    assert (found.images, found.top1) == (2, 100.0)
    np.testing.assert_array_equal(found.targets, [0, 1])
    assert found.paths == (image_set.paths[0], image_set.paths[3])
    assert len(found.skipped) == 3
    for text, index, reason in zip(
        found.skipped, (1, 2, 4), ("truncated", "not an image", "does not exist"), strict=True
    ):
        assert text.startswith(str(image_set.paths[index]))
        assert reason in text


def test_nothing_but_broken_images_is_an_error(levels):
    image_set = levels({0: [0], 1: [10]})
    for path in image_set.paths:
        path.write_bytes(b"")
    with pytest.raises(InputError, match=r"none of the 2 images .* is empty"):
        evaluate(Brightness(), image_set)


def test_a_limit_is_spread_over_the_classes(levels):
    image_set = levels({i: [10 * i] * 4 for i in range(5)})
    found = evaluate(Brightness(), image_set, limit=5)
    np.testing.assert_array_equal(found.targets, [0, 1, 2, 3, 4])
    assert evaluate(Brightness(), image_set, limit=1000).images == 20
    with pytest.raises(InputError, match="limit"):
        evaluate(Brightness(), image_set, limit=0)


def test_progress_counts_broken_images_too(levels):
    image_set = levels({0: [0, 0], 1: [10]})
    image_set.paths[0].write_bytes(b"")
    calls = []
    evaluate(Brightness(), image_set, batch=2, progress=lambda *call: calls.append(call))
    assert calls == [("evaluate", 0, 3), ("evaluate", 2, 3), ("evaluate", 3, 3)]


def test_targets_beyond_the_outputs_and_nan_are_refused(levels):
    image_set = levels({0: [0], 1: [10]})
    with pytest.raises(InputError, match="8 classes or more"):
        evaluate(Brightness(), dataclasses.replace(image_set, targets=image_set.targets + 6))
    brightness = Brightness()
    brightness.logits = lambda batch: np.full((len(batch), CLASSES), np.nan, np.float32)
    with pytest.raises(InputError, match="NaN"):
        evaluate(brightness, image_set)


def test_greyscale_cmyk_and_sixteen_bit_images_count(levels):
    image_set = levels({3: [30], 4: [40], 5: [50]})
    grey16 = np.full((3, 5), 30 * 257, np.uint16)
    Image.fromarray(grey16).save(image_set.paths[0])
    Image.new("CMYK", (8, 8), (215, 215, 215, 0)).save(image_set.paths[1], "JPEG")
    Image.new("RGBA", (5, 3), (50, 50, 50, 255)).save(image_set.paths[2])
    assert evaluate(Brightness(), image_set).top1 == 100.0


def test_a_runtime_classifier_is_evaluated_as_it_predicts(levels):
    """The same images one by one through the classifier give the same ranks."""
    weights = np.random.default_rng(0).normal(size=(CLASSES, 1, 2, 2)).astype(np.float32)
    biases = np.random.default_rng(1).normal(scale=99, size=CLASSES).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("Conv", ["image", "weight", "bias"], ["logits"])],
        "linear",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 1, 2, 2])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", CLASSES, 1, 1])],
        [numpy_helper.from_array(weights, "weight"), numpy_helper.from_array(biases, "bias")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    classifier = from_network(Network(*split(model), METADATA))
    image_set = levels({i: [10 * i, 90, 250] for i in range(CLASSES)})
    found = evaluate(classifier, image_set, batch=4)
    for path, ranks, confidence in zip(found.paths, found.ranked, found.confidence, strict=True):
        predictions = classifier(path)
        assert [prediction.index for prediction in predictions] == list(ranks)
        assert predictions[0].probability == pytest.approx(confidence, abs=1e-6)
        x = prepare_file(path, METADATA.preprocessing)
        by_hand = (weights * x).sum(axis=(1, 2, 3)) + biases
        assert ranks[0] == np.argmax(by_hand)


def answers(*hits):
    """An evaluation of two classes whose first answers are right or wrong as given."""
    targets = np.zeros(len(hits), np.int64)
    first = 1 - np.array(hits, np.int64)
    top1 = 100 * float(np.mean(hits))
    ranks = np.stack([first, 1 - first], 1)
    return Evaluation(
        top1, 100.0, len(hits), (), 1.0, targets, ranks, np.ones(len(hits), np.float32),
        tuple(Path(f"{i}.png") for i in range(len(hits))),
    )  # fmt: skip


def test_an_accuracy_has_its_interval():
    # 81 of 263: the example of Newcombe 1998, "Two-sided confidence intervals", Table I.
    found = answers(*[1] * 81, *[0] * 182)
    assert found.top1_interval == pytest.approx((25.53, 36.62), abs=0.005)
    assert found.top5_interval[1] == 100


def test_a_change_is_told_by_the_images_that_changed():
    # Agresti, Min 2005, and Agresti's "Categorical Data Analysis", Table 10.1: of 1600 people 794
    # approved twice, 150 the first time only, 86 the second time only; a fall of 4 points, 95%
    # interval 0.0212 to 0.0588.
    before = answers(*[1] * 944, *[0] * 656)
    after = answers(*[1] * 794, *[0] * 150, *[1] * 86, *[0] * 570)
    found = change(before, after)
    assert (found.gained, found.lost) == (86, 150)
    assert found.points == pytest.approx(-4)
    assert found.interval == pytest.approx((-5.9, -2.1), abs=0.06)
    assert found.p_value == pytest.approx(binomtest(86, 236).pvalue)
    same = change(before, before)
    assert (same.points, same.p_value) == (0, 1)
    assert same.interval[0] < 0 < same.interval[1]


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60))
def test_the_interval_of_a_change_holds_the_change(pairs):
    before, after = (answers(*side) for side in zip(*pairs, strict=True))
    found = change(before, after)
    assert -100 <= found.interval[0] <= found.points + 1e-9
    assert found.points - 1e-9 <= found.interval[1] <= 100
    assert found.p_value == pytest.approx(
        binomtest(found.gained, found.gained + found.lost).pvalue
        if found.gained + found.lost
        else 1.0
    )
    back = change(after, before)
    assert back.points == -found.points
    assert back.interval == pytest.approx((-found.interval[1], -found.interval[0]))


def test_other_images_tell_no_change():
    with pytest.raises(InputError, match="different images"):
        change(answers(1, 0), answers(1, 0, 1))
