"""The JSON form of metadata: a round trip, and each way a text can be wrong."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from squeezekit.errors import HeadError
from squeezekit.sqz.metadata_json import from_json, to_json
from squeezekit.sqz.network import CAFFE, TORCHVISION, Metadata, Preprocessing

words = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
finite = st.floats(allow_nan=False, allow_infinity=False)
nonzero = finite.filter(lambda x: x != 0.0)


@st.composite
def preprocessings(draw):
    color = draw(st.sampled_from(["RGB", "BGR", "L"]))
    channels = 1 if color == "L" else 3
    crop = draw(st.integers(1, 65_536))
    return Preprocessing(
        crop=crop,
        resize=draw(st.integers(crop, 65_536)),
        resize_mode=draw(st.sampled_from(["warp", "short_side"])),
        color=color,
        interpolation=draw(st.sampled_from(["nearest", "bilinear", "bicubic"])),
        scale=draw(nonzero),
        mean=tuple(draw(finite) for _ in range(channels)),
        std=tuple(draw(nonzero) for _ in range(channels)),
    )


@st.composite
def metadata(draw):
    labels = tuple(draw(st.lists(words, max_size=4)))
    return Metadata(
        name=draw(words),
        preprocessing=draw(preprocessings()),
        labels=labels,
        label_ids=tuple(str(i) for i in range(len(labels))) if draw(st.booleans()) else (),
        output=draw(st.sampled_from(["logits", "probabilities"])),
        licence=draw(words),
        provenance=tuple(draw(st.lists(words, max_size=3))),
    )


@given(metadata())
def test_reading_gives_back_what_was_written(written):
    text = to_json(written)
    assert from_json(text) == written
    assert from_json(text.encode().decode()) == written
    assert to_json(from_json(text)) == text


def test_the_text_is_compact_and_holds_every_field():
    fields = json.loads(to_json(Metadata("squeezenet-1.0", CAFFE, ("ténch",), ("n01440764",))))
    assert list(fields) == [
        "name", "preprocessing", "labels", "label_ids", "output", "licence", "provenance",
    ]  # fmt: skip
    assert fields["preprocessing"] == {
        "crop": 227, "resize": 256, "resize_mode": "warp", "color": "BGR",
        "interpolation": "bilinear", "scale": 1.0,
        "mean": [104.0, 117.0, 123.0], "std": [1.0, 1.0, 1.0],
    }  # fmt: skip
    assert "ténch" in to_json(Metadata("x", CAFFE, ("ténch",)))


def test_unknown_keys_are_ignored_and_optional_ones_may_miss():
    fields = json.loads(to_json(Metadata("x", TORCHVISION)))
    for optional in ("labels", "label_ids", "output", "licence", "provenance"):
        del fields[optional]
    fields["from_the_future"] = {"a": 1}
    fields["preprocessing"]["gamma"] = 2.2
    assert from_json(json.dumps(fields)) == Metadata("x", TORCHVISION)


def changed(path, value):
    fields = json.loads(to_json(Metadata("x", TORCHVISION, ("a", "b"), ("1", "2"))))
    *parents, last = path.split(".")
    target = fields
    for parent in parents:
        target = target[parent]
    target[last] = value
    return json.dumps(fields)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("name", 1),
        ("name", None),
        ("name", "\ud800"),
        ("preprocessing", []),
        ("preprocessing.crop", 224.0),
        ("preprocessing.crop", True),
        ("preprocessing.crop", "224"),
        ("preprocessing.crop", 0),
        ("preprocessing.crop", 10**30),
        ("preprocessing.resize", 3),
        ("preprocessing.resize_mode", "stretch"),
        ("preprocessing.resize_mode", ["warp"]),
        ("preprocessing.color", "CMYK"),
        ("preprocessing.interpolation", None),
        ("preprocessing.scale", "1"),
        ("preprocessing.scale", float("nan")),
        ("preprocessing.scale", 10**400),
        ("preprocessing.scale", 0),
        ("preprocessing.mean", [0.5]),
        ("preprocessing.mean", 0.5),
        ("preprocessing.std", [1, 1, 0]),
        ("preprocessing.std", [1, 1, False]),
        ("labels", "a, b"),
        ("labels", ["a", 2]),
        ("labels", ["a"]),
        ("label_ids", {"a": 1}),
        ("output", "softmax"),
        ("output", None),
        ("licence", 2),
        ("provenance", [None]),
    ],
)
def test_a_wrong_value_is_a_head_error(path, value):
    with pytest.raises(HeadError):
        from_json(changed(path, value))


@pytest.mark.parametrize("key", ["name", "preprocessing"])
def test_a_missing_key_is_named(key):
    fields = json.loads(to_json(Metadata("x", TORCHVISION)))
    del fields[key]
    with pytest.raises(HeadError, match=key):
        from_json(json.dumps(fields))


@pytest.mark.parametrize(
    "key",
    ["crop", "resize", "resize_mode", "color", "interpolation", "scale", "mean", "std"],
)
def test_no_field_of_the_preprocessing_is_guessed(key):
    fields = json.loads(to_json(Metadata("x", TORCHVISION)))
    del fields["preprocessing"][key]
    with pytest.raises(HeadError, match=key):
        from_json(json.dumps(fields))


@pytest.mark.parametrize(
    "text", ["", "{", "null", "[]", '"a"', "[" * 100_000, "1" * 10_000, "{}", "\x00"]
)
def test_text_that_is_no_metadata_is_a_head_error(text):
    with pytest.raises(HeadError):
        from_json(text)
