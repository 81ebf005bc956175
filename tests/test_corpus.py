"""Every reader of `.sqz` refuses each file of tests/corpus by the error written beside it."""

import json
import math
from pathlib import Path

import pytest
import reference_decoder

from squeezekit.errors import FormatError
from squeezekit.interop.page_runtime import PageRuntime
from squeezekit.sqz import container

CORPUS = Path(__file__).parent / "corpus"
ERRORS = json.loads((CORPUS / "errors.json").read_text())


def error_of(read, data):
    with pytest.raises(FormatError) as caught:
        read(data)
    return type(caught.value).__name__


@pytest.mark.parametrize("name", ERRORS)
def test_one_error_everywhere(name):
    """The page is the C library, compiled for browsers."""
    data = (CORPUS / name).read_bytes()
    assert error_of(container.decode, data) in ERRORS[name].split()
    assert error_of(PageRuntime, data) in ERRORS[name].split()


@pytest.mark.parametrize("name", ["entropy-short.sqz", "entropy-long.sqz", "entropy-empty.sqz"])
def test_the_second_decoder_agrees(name):
    data = (CORPUS / name).read_bytes()
    record = max(container.read_head(data).records, key=lambda one: math.prod(one.shape))
    payload = data[record.offset : record.offset + record.payload_bytes]
    with pytest.raises((AssertionError, StopIteration)):
        reference_decoder.floats(payload, math.prod(record.shape), record.parameters[0])


def test_all_files_are_listed_and_small():
    files = {path.name: path.stat().st_size for path in CORPUS.glob("*.sqz")}
    assert files.keys() == ERRORS.keys()
    assert max(files.values()) < 8000
