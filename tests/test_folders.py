"""Class folders as people really have them."""

import unicodedata
from pathlib import Path

import numpy as np
import pytest

from squeezekit.data.dataset import split
from squeezekit.data.folders import (
    ImageSet,
    class_counts,
    imbalance_warning,
    known_classes,
    match,
    require_classes,
    scan,
    split_folders,
)
from squeezekit.errors import InputError
from squeezekit.runtime.labels import read_labels


def by_class(image_set):
    """{class: names of its images}, and a check that everything fits together."""
    assert image_set.targets.dtype == np.int64
    assert len(image_set.targets) == len(image_set.paths) == len(image_set)
    found = {name: [] for name in image_set.classes}
    for path, target in zip(image_set.paths, image_set.targets, strict=True):
        assert path.exists()
        found[image_set.classes[target]].append(path.name)
    return found


def sentence(function, *arguments):
    with pytest.raises(InputError) as caught:
        function(*arguments)
    text = str(caught.value)
    assert "\n" not in text
    return text


# --- scan ------------------------------------------------------------------------------------


def test_classes_and_images_are_sorted(make_images):
    root = make_images({"dog": ["b.png", "a.png"], "Cat": ["z.png"], "ant": 1})
    image_set = scan(str(root))
    assert by_class(image_set) == {"Cat": ["z.png"], "ant": ["0.png"], "dog": ["a.png", "b.png"]}
    assert image_set.root == root
    assert image_set.empty == ()


def test_what_computers_leave_in_folders_does_not_count(make_images):
    root = make_images(
        {
            "cat": ["a.JPG", "b.Jpeg", "._a.JPG", ".hidden.png", "@eaDir/a.JPG/SYNO_THUMB.jpg"],
            "dog": ["1.png", ".ipynb_checkpoints/1-checkpoint.png"],
            "__MACOSX": ["cat.png"],
            ".cache": ["thumbnail.png"],
        }
    )
    for junk in ("cat/.DS_Store", "cat/Thumbs.db", "dog/desktop.ini", "dog/notes.txt", "README.md"):
        (root / junk).write_text("junk")
    assert by_class(scan(root)) == {"cat": ["a.JPG", "b.Jpeg"], "dog": ["1.png"]}


def test_nested_folders_unicode_and_spaces_count(make_images):
    root = make_images({"große Füchse": ["im Wald/früh am Tag/狐 1.png", "0.png"], "猫": 1})
    assert by_class(scan(root)) == {"große Füchse": ["0.png", "狐 1.png"], "猫": ["0.png"]}


def test_unreadable_formats_are_listed_so_that_they_can_be_named(make_images):
    root = make_images({"cat": 1, "dog": 1})
    (root / "cat" / "IMG_0001.HEIC").write_bytes(b"\0\0\0\x18ftypheic")
    assert by_class(scan(root))["cat"] == ["0.png", "IMG_0001.HEIC"]


def test_links_are_followed_once(make_images, tmp_path):
    root = make_images({"cat": 1, "dog": 1})
    elsewhere = make_images({"more": ["cat7.png"]}, root="elsewhere")
    (root / "cat" / "linked.png").symlink_to(elsewhere / "more" / "cat7.png")
    (root / "cat" / "linked folder").symlink_to(elsewhere / "more")
    (root / "dog" / "loop").symlink_to(root / "dog")
    (root / "fox").symlink_to(elsewhere / "more")
    assert by_class(scan(root)) == {
        "cat": ["0.png", "cat7.png", "linked.png"], "dog": ["0.png"], "fox": ["cat7.png"],
    }  # fmt: skip


def test_folders_without_images_are_no_classes_but_told(make_images):
    root = make_images({"cat": 1, "dog": 1, "scripts": 0})
    (root / "scripts" / "x.py").write_text("")
    image_set = scan(root)
    assert image_set.classes == ("cat", "dog")
    assert image_set.empty == ("scripts",)


def test_folders_that_cannot_be_used(make_images, tmp_path):
    assert "there is no folder" in sentence(scan, tmp_path / "gone")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / ".DS_Store").write_text("")
    assert "is empty" in sentence(scan, tmp_path / "empty")
    flat = make_images({".": 3}, root="flat")
    assert "no class folders" in sentence(scan, flat)
    assert "is a file" in sentence(scan, flat / "0.png")
    assert "no class folder with an image" in sentence(scan, make_images({"a": 0}, root="bare"))


def test_one_class_is_not_enough_to_train(make_images):
    root = make_images({"cat": 3}, root="one")
    assert "one class only ('cat'): training takes at least two" in sentence(
        require_classes, scan(root)
    )
    nested = make_images({"photos/cat": 2, "photos/dog": 2}, root="unzipped")
    assert f"did you mean {nested / 'photos'}?" in sentence(require_classes, scan(nested))
    require_classes(scan(nested / "photos"))


def test_a_subset_keeps_the_classes(make_images):
    image_set = scan(make_images({"a": 2, "b": 2, "c": 2}))
    chosen = image_set.subset([5, 0])
    assert chosen.classes == ("a", "b", "c")
    assert chosen.paths == (image_set.paths[5], image_set.paths[0])
    np.testing.assert_array_equal(chosen.targets, [2, 0])


def test_images_are_counted_by_class(make_images):
    image_set = scan(make_images({"fox": 1, "ant": 3, "dog": 2}))
    assert class_counts(image_set) == {"ant": 3, "dog": 2, "fox": 1}
    assert class_counts(image_set.subset([0])) == {"ant": 1, "dog": 0, "fox": 0}


@pytest.mark.parametrize(("counts", "warned"), [((10, 1), False), ((11, 1), True), ((5, 5), False)])
def test_uneven_classes_are_told(counts, warned):
    targets = np.repeat([2, 0], counts)
    image_set = ImageSet(Path(), (Path("x"),) * len(targets), targets, ("ant", "bee", "cat"))
    text = imbalance_warning(image_set)
    assert bool(text) == warned
    if warned:
        assert text.startswith("the classes are uneven: 'cat' has 11 images, 'ant' only 1, ")


# --- split -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "served"),
    [
        (["train", "val"], {"train": "train", "val": "val", "test": "val"}),
        (["Train", "VALID", "Test"], {"train": "Train", "val": "VALID", "test": "Test"}),
        (["training", "validation", "testing"],
         {"train": "training", "val": "validation", "test": "testing"}),
        (["train", "test"], {"train": "train", "val": "test", "test": "test"}),
        (["val"], {"val": "val", "test": "val"}),
        (["test", "valid"], {"val": "valid", "test": "test"}),
    ],
)  # fmt: skip
def test_split_folders_by_any_of_their_names(make_images, names, served):
    root = make_images({f"{name}/{c}": [f"{name}.png"] for name in names for c in "ab"})
    make_images({"__MACOSX/a": 1, ".git/a": 1})
    for part, name in served.items():
        assert by_class(split(root, part)) == {"a": [f"{name}.png"], "b": [f"{name}.png"]}
    assert sorted(by_class(split(root, "all"))["a"]) == sorted(f"{name}.png" for name in names)
    if "train" not in served:
        assert "no folder 'train'" in sentence(split, root, "train")


def test_split_folders_may_stand_beside_others(make_images):
    root = make_images({"train/a": 1, "val/a": 1, "models/a": 1})
    assert set(split_folders(root)) == {"train", "val"}
    assert split(root, "all").paths == (root / "train/a/0.png", root / "val/a/0.png")


def test_a_class_may_be_called_train(make_images):
    root = make_images({"bus": 10, "car": 10, "train": 10})
    assert split_folders(root) == {}
    assert split(root, "train").classes == ("bus", "car", "train")


def test_two_folders_of_the_same_part_are_refused(make_images):
    root = make_images({"train/a": 1, "val/a": 1, "validation/a": 1})
    assert "'val' and 'validation'" in sentence(split, root, "val")


def test_a_class_that_only_some_parts_have(make_images):
    root = make_images({"train/a": 1, "train/b": 2, "val/b": 1, "val/c": 1})
    assert split(root, "val").classes == ("b", "c")
    everything = split(root, "all")
    assert everything.classes == ("a", "b", "c")
    assert everything.root == root
    np.testing.assert_array_equal(everything.targets, [0, 1, 1, 1, 2])
    train = split(root, "train")
    assert "'c'" in sentence(match, split(root, "val"), train.classes)


def test_a_class_of_train_may_miss_in_val(make_images):
    root = make_images({"train/a": 1, "train/b": 2, "val/b": 1})
    val = match(split(root, "val"), split(root, "train").classes)
    assert val.classes == ("a", "b")
    np.testing.assert_array_equal(val.targets, [1])


@pytest.mark.parametrize("wrapper", ["", "train/"])
def test_an_unsplit_folder_is_split_in_four_to_one(make_images, wrapper):
    root = make_images({f"{wrapper}a": 150, f"{wrapper}b": 50}, size=(1, 1))
    train, val = split(root, "train"), split(root, "val")
    assert split(root, "test").paths == val.paths
    assert set(train.paths).isdisjoint(val.paths)
    assert set(train.paths) | set(val.paths) == set(split(root, "all").paths)
    assert len(train) + len(val) == 200
    np.testing.assert_array_equal(np.bincount(val.targets), [30, 10])
    assert set(train.targets) == set(val.targets) == {0, 1}
    assert split(root, "val").paths == val.paths
    assert split(root, "val", seed=1).paths != val.paths


def test_adding_images_moves_few_others(make_images):
    root = make_images({"a": 60, "b": 60}, size=(1, 1))
    before = set(split(root, "val").paths)
    make_images({"a": [f"new{i}.png" for i in range(15)], "c": 10}, size=(1, 1))
    after = set(split(root, "val").paths)
    assert len(before) == 24
    assert len(after) == 15 + 12 + 2
    assert len(before - after) <= 4
    assert {path for path in before if path.parent.name == "b"} <= after


def test_the_split_does_not_depend_on_where_the_folder_lies(make_images):
    here = make_images({"a": 30, "b": 30}, root="here", size=(1, 1))
    there = make_images({"a": 30, "b": 30}, root="far/away", size=(1, 1))
    assert [path.relative_to(here) for path in split(here, "val").paths] == [
        path.relative_to(there) for path in split(there, "val").paths
    ]


@pytest.mark.parametrize("seed", range(8))
def test_small_classes_have_images_on_both_sides(make_images, seed):
    root = make_images({"two": 2, "three": 3, "one": 1}, size=(1, 1))
    train, val = split(root, "train", seed), split(root, "val", seed)
    assert set(train.targets) == {0, 1, 2}
    assert {val.classes[target] for target in val.targets} == {"two", "three"}


def test_nothing_to_hold_out(make_images):
    root = make_images({"a": 1, "b": 1})
    assert len(split(root, "train")) == 2
    assert "none can be held out" in sentence(split, root, "val")


# --- match -----------------------------------------------------------------------------------

LABELS = (
    "tench, Tinca tinca", "great white shark", "crane", "crane", "jack-o'-lantern",
    "Cat", "cat", "maillot, tank suit", "maillot", "Äffchen",
)  # fmt: skip
IDS = tuple(f"n{i:08d}" for i in range(10))


def folders_named(*names):
    return ImageSet(Path("data"), (Path("x"),) * len(names), np.arange(len(names)), names)


@pytest.mark.parametrize(
    ("name", "output"),
    [
        ("n00000003", 3),
        ("N00000003", 3),
        ("n00000002-crane", 2),
        ("n00000003_crane", 3),
        ("tench, Tinca tinca", 0),
        ("tench", 0),
        ("tinca_tinca", 0),
        ("TENCH", 0),
        ("great_white_shark", 1),
        ("Great-White Shark", 1),
        ("jack o' lantern", 4),
        ("Cat", 5),
        ("cat", 6),
        ("tank-suit", 7),
        ("maillot", 8),  # the whole label goes before a synonym
        ("äffchen", 9),
        (unicodedata.normalize("NFD", "Äffchen"), 9),  # as macOS spells it
    ],
)
def test_a_folder_fits_a_label(name, output):
    matched = match(folders_named(name), LABELS, IDS)
    np.testing.assert_array_equal(matched.targets, [output])
    assert matched.classes == LABELS


def test_ambiguous_names_are_refused():
    text = sentence(match, folders_named("crane"), LABELS, IDS)
    assert "'crane'" in text
    assert "'n00000002', 'n00000003'" in text
    assert "name it by its id" in text
    assert "'CAT'" in sentence(match, folders_named("CAT"), LABELS, ())
    assert "'2', '3'" in sentence(match, folders_named("crane"), LABELS, ())


def test_strangers_are_refused_by_name():
    text = sentence(match, folders_named("tench", "ox", "yak", "emu", "gnu"), LABELS, IDS)
    assert "4 of the 5 class folders" in text
    assert "'ox', 'yak', 'emu' and 1 more" in text
    assert "'tench, Tinca tinca'" in text


def test_a_network_without_labels_needs_a_file():
    assert "labels.txt" in sentence(match, folders_named("cat"), (), ())
    matched = match(folders_named("n00000004"), (), IDS)
    np.testing.assert_array_equal(matched.targets, [4])
    assert matched.classes == IDS


def test_a_part_of_the_classes_in_another_order():
    image_set = ImageSet(
        Path("data"),
        (Path("x"),) * 4,
        np.array([0, 0, 1, 2]),
        ("cat", "great white shark", "tench"),
    )
    np.testing.assert_array_equal(match(image_set, LABELS).targets, [6, 6, 1, 0])


# --- real data -------------------------------------------------------------------------------


def test_imagenet_sample_folders_match_by_their_ids(shared_data):
    labels, label_ids = read_labels(shared_data / "imagenet-classes.tsv")
    image_set = split(shared_data / "imagenet-500", "all")
    assert len(image_set) == 500
    matched = match(image_set, labels, label_ids)
    assert [label_ids[target] for target in matched.targets] == [
        path.parent.name for path in matched.paths
    ]
    by_name = match(folders_named("tench", "goldfish"), labels, label_ids)
    np.testing.assert_array_equal(by_name.targets, [0, 1])
    for twice in ("crane", "maillot"):
        assert "name it by its id" in sentence(match, folders_named(twice), labels, label_ids)


def test_imagenette_is_split(shared_data):
    root = shared_data / "imagenette-mini"
    assert [len(split(root, part)) for part in ("train", "val", "all")] == [800, 300, 1100]


def test_known_classes_are_those_that_fit_one_label():
    labels = ("tench, Tinca tinca", "crane", "crane", "great white shark")
    ids = ("n01440764", "n02012849", "n03126707", "n01484850")
    classes = ("Great_White-Shark", "crane", "my dog", "n03126707", "tinca tinca")
    assert known_classes(classes, labels, ids) == {0: 3, 3: 2, 4: 0}
    assert known_classes(classes, ()) == {}
