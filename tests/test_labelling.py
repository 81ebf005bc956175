"""Class folders name the outputs of a network without labels: rightly, told, or not at all."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from squeezekit.data.folders import ImageSet
from squeezekit.data.labelling import with_labels
from squeezekit.errors import InputError
from squeezekit.sqz.network import TORCHVISION, Metadata

UNNAMED = Metadata("net", TORCHVISION)


def folders(names, images=6):
    """Class folders, sorted as they are found; the path of an image tells its folder."""
    names = tuple(sorted(names))
    paths = tuple(Path(name) / f"{i}.png" for name in names for i in range(images))
    targets = np.repeat(np.arange(len(names)), images)
    return ImageSet(Path("data"), paths, targets, names)


def network(order, accuracy=1.0, seed=0):
    """Judges images as a network would whose output k stands for the folder `order[k]`."""
    random = np.random.default_rng(seed)

    def judge(image_set):
        right = np.array([order.index(path.parent.name) for path in image_set.paths])
        guesses = random.integers(0, len(order), len(right))
        return image_set.targets, np.where(random.random(len(right)) < accuracy, right, guesses)

    return judge


def named(image_set, order, **options):
    told = []
    found = with_labels(
        UNNAMED, len(order), image_set=image_set, judge=network(order, **options), note=told.append
    )
    return found, told


def numbers(first, count):
    return [str(i) for i in range(first, first + count)]


@pytest.mark.parametrize(
    ("first", "count", "outputs"), [(0, 11, 11), (0, 3, 11), (5, 6, 11), (0, 200, 200), (1, 9, 11)]
)
def test_numbers_are_outputs(first, count, outputs):
    found, told = named(folders(numbers(first, count)), numbers(0, outputs))
    assert found.labels == tuple(numbers(0, outputs))
    assert "numbers" in found.provenance[-1]
    assert len(told) == 1
    assert "net has no labels" in told[0]


def test_numbers_from_one_where_that_alone_fits():
    found, told = named(folders(numbers(1, 11)), numbers(1, 11))
    assert found.labels == tuple(numbers(1, 11))
    assert "from 1" in told[0]
    padded = [f"{i:03}" for i in range(1, 12)]
    assert named(folders(padded), padded)[0].labels == tuple(padded)


@pytest.mark.parametrize(
    "names", [numbers(1, 10), numbers(2, 11), [*numbers(0, 11), "99"], ["1", "01"]]
)
def test_numbers_that_do_not_fit_are_refused(names):
    if len(names) == 10:  # 1 to 10 are outputs, with 0 left out
        assert named(folders(names), numbers(0, 11))[0].labels[10] == "10"
        return
    with pytest.raises(InputError, match="numbers that do not fit its 11 outputs"):
        named(folders(names), numbers(0, 11))


@pytest.mark.parametrize("images", [1, 2, 6, 20])
def test_the_order_in_which_a_tool_numbered_numbers_is_found(images):
    """As ImageFolder does: "10" comes before "2"."""
    names = numbers(0, 11)
    found, told = named(folders(names, images), sorted(names))
    assert found.labels == tuple(sorted(names))
    assert "alphabetical" in told[0]


def test_alphabetical_order_is_told_and_kept():
    names = ["cat", "dog", "owl"]
    found, told = named(folders(names), names)
    assert found.labels == tuple(names)
    assert "alphabetical order" in found.provenance[-1]
    assert "18 of 18 photos agree" in told[0]
    found, _ = named(folders(names, 60), names, accuracy=0.5)
    assert found.labels == tuple(names)


@given(
    order=st.permutations([f"class {c}" for c in "abcdefghijk"]),
    images=st.integers(1, 30),
    accuracy=st.sampled_from([0.6, 0.8, 0.95, 1.0]),
    seed=st.integers(0, 99),
)
def test_a_wrong_order_is_never_taken(order, images, accuracy, seed):
    """Whatever the permutation: the labels are the network's, or nothing is answered."""
    image_set = folders(order, images)
    try:
        found, _ = named(image_set, list(order), accuracy=accuracy, seed=seed)
    except InputError as error:
        assert "--labels" in str(error)  # noqa: PT017
        return
    if accuracy >= 0.8 or images >= 10:
        assert found.labels == tuple(order)
    wrong = sum(a != b for a, b in zip(found.labels, order, strict=True))
    assert wrong <= 3


@given(order=st.permutations(numbers(0, 11)), images=st.integers(5, 30), seed=st.integers(0, 99))
def test_of_a_good_network_the_whole_order_is_right_or_refused(order, images, seed):
    try:
        found, _ = named(folders(order, images), list(order), accuracy=0.9, seed=seed)
    except InputError:
        assert list(order) not in (numbers(0, 11), sorted(order))
    else:
        assert found.labels == tuple(order)


@pytest.mark.parametrize("accuracy", [0.0, 0.02])
@pytest.mark.parametrize("images", [1, 5, 50])
def test_chance_confirms_nothing(accuracy, images):
    names = [f"class {c}" for c in "abcdefgh"]
    with pytest.raises(InputError, match="--labels"):
        named(folders(names, images), names, accuracy=accuracy)


def test_one_class_for_all_confirms_nothing():
    """Nine tenths of the photos are of the class that the network says every time."""
    image_set = folders(["a", "b"], 100)
    image_set = image_set.subset(np.arange(110))

    def judge(found):
        return found.targets, np.zeros(len(found), np.int64)

    with pytest.raises(InputError, match="chance"):
        with_labels(UNNAMED, 2, image_set=image_set, judge=judge)


def test_without_a_judge_and_with_other_counts_folders_name_nothing():
    names = ["cat", "dog", "owl"]
    assert with_labels(UNNAMED, 3, image_set=folders(names)) == UNNAMED
    assert named(folders(names[:2]), names)[0] == UNNAMED


def test_what_has_labels_keeps_them():
    ours = dataclasses.replace(UNNAMED, labels=("x", "y", "z"))
    assert with_labels(ours, 3, image_set=folders("abc"), judge=network(["c", "b", "a"])) == ours
