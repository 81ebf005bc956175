"""What a training says about each class that was known before."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import squeezekit as sk
from squeezekit.data.photos import folder_or_set
from squeezekit.evaluation import evaluate
from squeezekit.models import catalogue
from squeezekit.runtime.classifier import from_network
from squeezekit.training.class_changes import ClassChange, class_changes, told_changes


def always(label, labels):
    """A network that answers with one label whatever it sees."""
    network = catalogue.create("squeezenet-digits", labels=labels)
    last = next(name for name, t in network.tensors.items() if t.shape == (len(labels),))
    bias = np.zeros(len(labels), np.float32)
    bias[labels.index(label)] = 100
    return network.with_tensors({last: bias})


def photos(counts):
    random = np.random.default_rng(0)
    return [
        (Image.fromarray(random.integers(0, 256, (9, 9), np.uint8)), label)
        for label, count in counts.items()
        for _ in range(count)
    ]


def compared(start, trained, counts):
    images = folder_or_set(photos(counts), trained.metadata)
    labels = trained.metadata.labels
    assert images.classes == labels
    found = evaluate(from_network(trained), images)
    return class_changes(start, trained, found, images)


def test_right_photos_are_counted_for_each_class():
    start, trained = always("b", ("b", "a")), always("a", ("a", "b", "c"))
    assert compared(start, trained, {"a": 3, "b": 2, "c": 4}) == (
        ClassChange("a", 3, 0, 3), ClassChange("b", 2, 2, 0), ClassChange("c", 4, None, 0),
    )  # fmt: skip
    assert compared(always("x", ("x", "y")), trained, {"a": 3, "b": 2, "c": 4}) == ()


def test_what_is_told():
    told = told_changes(
        [
            ClassChange("cat", 20, 18, 11),
            ClassChange("dog", 9, 4, 6),
            ClassChange("owl", 5, None, 4),
        ]
    )
    assert told == [
        "1 of 2 known classes became worse on held-out photos: cat 11 of 20 right, not 18",
        "1 of 2 known classes became better on held-out photos: dog 6 of 9 right, not 4",
        "1 new: owl 4 of 5 right",
    ]
    assert told_changes([ClassChange("cat", 20, 18, 18)]) == [
        "no class that it knew became better or worse on held-out photos"
    ]
    assert told_changes([]) == []


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=40))
def test_no_sentence_is_endless(pairs):
    told = told_changes([ClassChange(f"class {i}", 9, *pair) for i, pair in enumerate(pairs)])
    assert 1 <= len(told) <= 2
    assert all(len(sentence) < 500 for sentence in told)


def test_more_classes_from_a_file_keep_what_it_knew(make_images, tmp_path):
    data = make_images({"dark": 20, "light": 20})
    settings = {"epochs": 1, "precision": "float32"}
    net = sk.train(data, tmp_path / "one", model="squeezenet-digits", **settings)
    sk.write(net, tmp_path / "old.sqz")
    make_images({"grey": 20})
    told: list[str] = []
    run = sk.training_run(
        data, tmp_path / "two", init=tmp_path / "old.sqz", settings=settings, note=told.append
    )
    assert [change.label for change in run.changes] == ["dark", "grey", "light"]
    assert [change.before is None for change in run.changes] == [False, True, False]
    assert sum(change.after for change in run.changes) == round(
        run.evaluation.top1 * run.evaluation.images / 100
    )
    assert run.as_json()["classes"][1]["label"] == "grey"
    assert any("on held-out photos" in sentence for sentence in told)
