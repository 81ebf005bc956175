"""Texts from strangers: never a control character out, never a byte that cannot be written."""

import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from squeezekit.sqz.metadata_json import from_json, to_json
from squeezekit.sqz.network import TORCHVISION, Metadata
from squeezekit.text import encodable, json_line, shown

ANY_TEXT = st.text(st.characters())  # lone surrogates among them
BIDI = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"


@pytest.mark.parametrize("encoding", ["utf-8", "UTF8", "latin-1", "ascii", "cp1252", None])
@given(text=ANY_TEXT)
def test_json_is_one_line_that_its_encoding_takes_and_comes_back(encoding, text):
    line = json_line({text: [text]}, encoding)
    assert json.loads(line) == {text: [text]}
    line.encode(encoding or "ascii")  # strict
    assert not any(ord(c) < 32 or 127 <= ord(c) < 160 or c in BIDI for c in line)


def test_json_keeps_what_people_can_read():
    assert json_line({"a": "Käse 猫"}) == '{"a": "Käse 猫"}'
    assert json_line({"a": "Käse"}, "ascii") == '{"a": "K\\u00e4se"}'
    with pytest.raises(ValueError, match="not JSON compliant"):
        json_line(float("nan"))


@given(ANY_TEXT)
def test_shown_is_one_harmless_line(text):
    safe = shown(text)
    safe.encode()
    assert len(f"{safe}x".splitlines()) == 1
    assert not any(ord(c) < 32 or 127 <= ord(c) < 160 or c in BIDI for c in safe)


@given(st.binary())
def test_names_of_any_bytes_can_be_stored_and_stay_apart(name):
    text = encodable(os.fsdecode(name))
    text.encode()
    with_byte = encodable(os.fsdecode(name + b"\xff"))
    assert with_byte == text + "\\xff"


@given(labels=st.lists(ANY_TEXT, max_size=3), name=ANY_TEXT)
def test_metadata_of_any_names_can_be_written(labels, name):
    metadata = Metadata(name, TORCHVISION, labels=tuple(labels), provenance=(name,))
    text = to_json(metadata)
    assert from_json(text.encode().decode()) == metadata
