"""Label files in every form that the docstring promises, and each way they are refused."""

import json

import pytest

from squeezekit.errors import InputError
from squeezekit.runtime.labels import find_labels, read_labels


def written(tmp_path, name, text):
    path = tmp_path / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


@pytest.mark.parametrize(
    ("name", "text", "labels", "label_ids"),
    [
        ("labels.txt", "cat\n dog \r\nÄffchen\n\n", ("cat", "dog", "Äffchen"), ()),
        ("BOM.TXT", "\ufeffcat\ndog", ("cat", "dog"), ()),
        (
            "synset_words.txt",
            "n01440764 tench, Tinca tinca\nn01443537 goldfish, Carassius auratus\n",
            ("tench, Tinca tinca", "goldfish, Carassius auratus"),
            ("n01440764", "n01443537"),
        ),
        ("synsets.txt", "n01440764\nn01443537\n", ("n01440764", "n01443537"), ()),
        ("a.tsv", "0\tn1\tcat\n1\tn2\tguide dog\n", ("cat", "guide dog"), ("n1", "n2")),
        ("b.tsv", "index\tid\tname\n1\tn2\tdog\n0\tn1\tcat\n", ("cat", "dog"), ("n1", "n2")),
        ("c.tsv", "0\tcat\r\n1\tdog\r\n", ("cat", "dog"), ()),
        ("a.json", json.dumps(["cat", "dog"]), ("cat", "dog"), ()),
        ("b.json", json.dumps({"1": "dog", "0": "cat"}), ("cat", "dog"), ()),
        ("c.json", json.dumps({"0": ["n1", "cat"], "1": ["n2", "dog"]}), ("cat", "dog"),
         ("n1", "n2")),
    ],
)  # fmt: skip
def test_forms(tmp_path, name, text, labels, label_ids):
    assert read_labels(written(tmp_path, name, text)) == (labels, label_ids)


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("empty.txt", "", "is empty"),
        ("gap.txt", "cat\n\ndog\n", "line 2 is empty"),
        ("16.txt", "cat\ndog\n".encode("utf-16"), "not UTF-8"),
        ("labels.csv", "0,cat", "none of .txt, .tsv, .json"),
        ("spaces.tsv", "0 n1 cat\n", "between tabs"),
        ("empty.tsv", "\n", "between tabs"),
        ("titles.tsv", "index\tname\n", "is empty"),
        ("blank.tsv", "0\tcat\n\n1\tdog\n", "between tabs"),
        ("twice.tsv", "0\tcat\n0\tdog\n", "index 0 is there twice"),
        ("from1.tsv", "1\tcat\n2\tdog\n", "without a gap"),
        ("ids.tsv", "0\tn1\tcat\n1\tdog\n", "only some"),
        ("number.json", "3", "neither a list nor an object"),
        ("broken.json", "[", "cannot be used"),
        ("deep.json", "[" * 100_000, "cannot be used"),
        ("types.json", '["cat", 2]', "[id, name]"),
        ("blank.json", '["cat", " "]', "[id, name]"),
        ("empty.json", "[]", "is empty"),
    ],
)
def test_refusals_name_the_file_in_one_sentence(tmp_path, name, text, reason):
    with pytest.raises(InputError) as caught:
        read_labels(written(tmp_path, name, text))
    assert name in str(caught.value)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


def test_names_of_any_bytes_stay_apart(tmp_path):
    labels, _ = read_labels(written(tmp_path, "latin.txt", b"\xe4ffchen\n\xebffchen\n"))
    assert labels == ("\\xe4ffchen", "\\xebffchen")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"gone\.txt"):
        read_labels(tmp_path / "gone.txt")


def test_labels_are_found_in_the_folder_then_above_it_where_their_count_fits(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    assert find_labels(data, 2) is None
    written(tmp_path, "imagenet-classes.tsv", "0\tn1\tcat\n1\tn2\tdog\n")
    assert find_labels(data, 2) == (("cat", "dog"), ("n1", "n2"))
    written(data, "labels.txt", "a\nb\nc\n")
    assert find_labels(data, 2) == (("cat", "dog"), ("n1", "n2"))
    assert find_labels(data, 3) == (("a", "b", "c"), ())
    written(data, "classes.tsv", "0\tx\n1\ty\n")
    assert find_labels(data, 2) == (("x", "y"), ())
    assert find_labels(data, 4) is None


def test_the_real_imagenet_classes(shared_data):
    labels, label_ids = find_labels(shared_data / "imagenet-500", 1000)
    assert (labels[0], label_ids[0]) == ("tench", "n01440764")
    assert len(set(label_ids)) == 1000
