"""Metadata as JSON text: the one mapping that `.sqz` heads and ONNX metadata share."""

from __future__ import annotations

import dataclasses
import json
from typing import Any, cast

from squeezekit.errors import HeadError
from squeezekit.sqz.network import Metadata, Preprocessing, Range, check_range
from squeezekit.sqz.trained_on import TrainedOn

MOST_DEPTH = 64
"""Lists and objects that may lie within one another."""
MOST_STRINGS = 1 << 16
"""In a list: labels, ids, lines of provenance."""

MOST_CHARACTERS = 1 << 16
"""Of a string."""


def to_json(metadata: Metadata) -> str:
    """The metadata as one JSON object: compact, keys in the order of the fields, not escaped."""
    fields = dataclasses.asdict(metadata)
    # Files that were not calibrated, or trained here, stay what they always were.
    if not metadata.activations:
        del fields["activations"]
    if metadata.trained_on:
        fields["trained_on"] = [known.as_json() for known in metadata.trained_on]
    else:
        del fields["trained_on"]
    if not metadata.title:
        del fields["title"]
    return json.dumps(fields, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def from_json(text: str) -> Metadata:
    """Read what `to_json` wrote.

    Unknown keys are ignored, so that later versions may add some. `name` and every field of
    `preprocessing` must be there: a guessed preprocessing would give wrong answers in silence.

    Raises:
        HeadError: if the text is not JSON, a key is missing, or a value has the wrong type or
            is impossible.
    """
    try:
        fields = json.loads(text, object_pairs_hook=_Fields)
    except (ValueError, RecursionError) as error:
        raise HeadError(f"the metadata is not JSON ({error})") from None
    if _depth(fields) > MOST_DEPTH:
        raise HeadError(f"the metadata is nested more than {MOST_DEPTH} deep")
    metadata = _Object(fields, "the metadata")
    preprocessing = _Object(metadata.get("preprocessing"), "the preprocessing")
    try:
        return Metadata(
            name=metadata.string("name"),
            preprocessing=Preprocessing(
                crop=preprocessing.integer("crop"),
                resize=preprocessing.integer("resize"),
                # Preprocessing and Metadata check the choices themselves.
                resize_mode=cast(Any, preprocessing.string("resize_mode")),
                color=cast(Any, preprocessing.string("color")),
                interpolation=cast(Any, preprocessing.string("interpolation")),
                scale=preprocessing.number("scale"),
                mean=preprocessing.numbers("mean"),
                std=preprocessing.numbers("std"),
            ),
            labels=metadata.strings("labels"),
            label_ids=metadata.strings("label_ids"),
            output=cast(Any, metadata.string("output", default="logits")),
            licence=metadata.string("licence", default=""),
            provenance=metadata.strings("provenance"),
            activations=metadata.ranges("activations"),
            trained_on=metadata.trained_on("trained_on"),
            title=metadata.string("title", default=""),
        )
    except ValueError as error:
        raise HeadError(f"the metadata is not usable: {error}") from None


def _depth(value: object) -> int:
    """How deep lists and objects lie within one another."""
    deepest, left = 0, [(value, 1)]
    while left:
        value, depth = left.pop()
        if isinstance(value, list | dict):
            deepest = max(deepest, depth)
            inside = value.values() if isinstance(value, dict) else value
            left += [(item, depth + 1) for item in inside if isinstance(item, list | dict)]
    return deepest


class _Fields(dict[str, Any]):
    """A JSON object that remembers the pairs whose key stands there again; the last one counts."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        self.pairs = pairs


class _Object:
    """A JSON object whose values are taken out with their type checked."""

    def __init__(self, fields: object, what: str) -> None:
        if not isinstance(fields, dict):
            raise HeadError(f"{what} is not a JSON object")
        self._fields = cast(dict[str, object], fields)
        self._what = what

    def get(self, key: str) -> object:
        if key not in self._fields:
            raise HeadError(f"{self._what} has no {key!r}")
        return self._fields[key]

    def integer(self, key: str) -> int:
        value = self.get(key)
        if not isinstance(value, int) or isinstance(value, bool):
            raise self._wrong(key, "a whole number")
        return value

    def number(self, key: str) -> float:
        return self._number(key, self.get(key))

    def numbers(self, key: str) -> tuple[float, ...]:
        value = self.get(key)
        if not isinstance(value, list):
            raise self._wrong(key, "a list of numbers")
        return tuple(self._number(key, item) for item in value)

    def string(self, key: str, default: str | None = None) -> str:
        if default is not None and key not in self._fields:
            return default
        return self._string(key, self.get(key))

    def strings(self, key: str) -> tuple[str, ...]:
        value = self._fields.get(key, [])
        if not isinstance(value, list) or len(value) > MOST_STRINGS:
            raise self._wrong(key, f"a list of at most {MOST_STRINGS} strings")
        return tuple(self._string(key, item) for item in value)

    def ranges(self, key: str) -> dict[str, Range]:
        if key not in self._fields:
            return {}
        what = f"{key!r} in {self._what}"
        fields = _Object(self._fields[key], what)._fields
        ranges = {}
        for name, given in fields.pairs if isinstance(fields, _Fields) else fields.items():
            ranges[name] = _Object({name: given}, what).pair(name)
            check_range(name, *ranges[name])  # those that a later one replaces, too
        return ranges

    def trained_on(self, key: str) -> tuple[TrainedOn, ...]:
        value = self._fields.get(key, [])
        if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
            raise self._wrong(key, "a list of objects")
        return tuple(TrainedOn.from_json(item) for item in value)

    def pair(self, key: str) -> tuple[float, float]:
        numbers = self.numbers(key)
        if len(numbers) != 2:
            raise self._wrong(key, "a pair of numbers")
        return numbers[0], numbers[1]

    def _number(self, key: str, value: object) -> float:
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise self._wrong(key, "a number")
        try:
            return float(value)
        except OverflowError:
            raise self._wrong(key, "a number that a float can hold") from None

    def _string(self, key: str, value: object) -> str:
        if not isinstance(value, str):
            raise self._wrong(key, "a string")
        if not value.isascii():
            try:
                value.encode()
            except UnicodeEncodeError:
                raise self._wrong(key, "valid Unicode") from None
        if len(value) > MOST_CHARACTERS:
            raise self._wrong(key, f"a string of at most {MOST_CHARACTERS} characters")
        return value

    def _wrong(self, key: str, wanted: str) -> HeadError:
        return HeadError(f"{key!r} in {self._what} is not {wanted}")
