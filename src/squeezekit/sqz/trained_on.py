"""Marks of the photos that a network was trained on, small enough to store in its file.

A Golomb-coded set (Putze, Sanders, Singler 2007, "Cache-, hash- and space-efficient Bloom filters",
section 4), with the exceptions that make it exact on the photos that were held out (a filter
cascade; Larisch et al. 2017, "CRLite").
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

# As numpy.typing.NDArray, which takes 13 ms to import.
Digests = np.ndarray[tuple[Any, ...], np.dtype[np.uint64]]
"""uint64 (N,): 64 bits of a hash of each photo's bytes."""

_Flags = np.ndarray[tuple[Any, ...], np.dtype[np.bool_]]
_Places = np.ndarray[tuple[Any, ...], np.dtype[np.int64]]

MOST_MARKS = 1000
"""The most marks; of more photos only a part is marked. 1,000 marks take 690 bytes."""

_BITS = 4
"""A photo that is not known is taken for a known one once in 2^4 times."""

_EXCEPTION_BITS = (8, 24)
"""The least and the most that an exception may have, until none fits a trained photo."""

_MOST_BYTES = 1 << 16


@dataclass(frozen=True)
class TrainedOn:
    """What a training stores in the network's metadata about its photos.

    Attributes:
        photos: the photos that were trained on, each once.
        held_out: photos that were kept apart, each once.
        every: one photo in this many can be recognised; 1 is all.
        marks: those trained on, and by mistake every sixteenth of all photos.
        exceptions: those held out that are in `marks` by mistake.
    """

    photos: int
    held_out: int
    every: int
    marks: bytes
    exceptions: bytes

    def __post_init__(self) -> None:
        if min(self.photos, self.held_out) < 0 or not 1 <= self.every < 1 << 31:
            raise ValueError("the count of photos trained on is impossible")
        if max(len(self.marks), len(self.exceptions)) > _MOST_BYTES:
            raise ValueError("there are too many marks of photos")

    @classmethod
    def of(cls, trained: Digests, held_out: Digests) -> TrainedOn:
        """Mark photos; a digest that is in both counts as trained on."""
        trained, held_out = np.unique(trained), np.unique(held_out)
        apart = np.setdiff1d(held_out, trained)
        every = max(-(-len(trained) // MOST_MARKS), 1)
        some = trained[_told(trained, every)]
        marks = _packed(_marks(some, len(some), _BITS), len(some), _BITS)
        known = cls(len(trained), len(held_out), every, marks, b"")
        wrong = apart[known._marked(apart)]
        for bits in range(*_EXCEPTION_BITS):
            values = _exceptions(wrong, len(wrong), bits)
            if not np.isin(_exceptions(some, len(wrong), bits), values).any():
                break
        exceptions = _packed(values, len(wrong), bits)
        return cls(len(trained), len(held_out), every, marks, exceptions)

    def told(self, digests: Digests) -> _Flags:
        """Which photos it says anything about, (N,)."""
        return _told(digests, self.every)

    def trained(self, digests: Digests) -> _Flags:
        """Which photos were trained on, (N,); False also where that cannot be told.

        Never wrong of photos that were trained on or held out then; of others it says so of every
        sixteenth.
        """
        found = self._marked(digests)
        values, count, bits = _unpacked(self.exceptions)
        return found & ~np.isin(_exceptions(digests, count, bits), values)

    def _marked(self, digests: Digests) -> _Flags:
        values, count, bits = _unpacked(self.marks)
        return self.told(digests) & np.isin(_marks(digests, count, bits), values)

    def as_json(self) -> dict[str, Any]:
        """As an object of the metadata; marks are base64."""
        return {
            "photos": self.photos,
            "held_out": self.held_out,
            **({"every": self.every} if self.every > 1 else {}),
            "marks": base64.b64encode(self.marks).decode(),
            "exceptions": base64.b64encode(self.exceptions).decode(),
        }

    @classmethod
    def from_json(cls, fields: Mapping[str, object]) -> TrainedOn:
        """Read what `as_json` gave.

        Raises:
            ValueError: if it is not that.
        """
        counts = [fields.get("photos"), fields.get("held_out"), fields.get("every", 1)]
        texts = [fields.get("marks"), fields.get("exceptions")]
        if not all(type(count) is int for count in counts):
            raise ValueError("the count of photos trained on is not a whole number")
        if not all(isinstance(text, str) for text in texts):
            raise ValueError("the marks of photos are not a text")
        try:
            marks, exceptions = (base64.b64decode(str(text), validate=True) for text in texts)
        except binascii.Error:
            raise ValueError("the marks of photos are not base64") from None
        photos, held_out, every = (int(str(count)) for count in counts)
        known = cls(photos, held_out, every, marks, exceptions)
        for packed in (marks, exceptions):
            _unpacked(packed)
        return known


def _told(digests: Digests, every: int) -> _Flags:
    return np.asarray((digests >> np.uint64(32)) % np.uint64(every) == 0)


def _marks(digests: Digests, count: int, bits: int) -> _Places:
    return _places(digests & np.uint64(0xFFFFFFFF), count, bits)


def _exceptions(digests: Digests, count: int, bits: int) -> _Places:
    """Of other bits of the digest than the marks are made of."""
    return _places((digests >> np.uint64(24)) & np.uint64(0xFFFFFFFF), count, bits)


def _places(digests: Digests, count: int, bits: int) -> _Places:
    return (digests % np.uint64(max(count, 1) << bits)).astype(np.int64)


def _packed(values: _Places, count: int, bits: int) -> bytes:
    """A byte with the bits, two with the count, and the gaps between the values in Rice's code."""
    if not count:
        return b""
    gaps = np.diff(np.unique(values), prepend=0)
    text = "".join("1" * (gap >> bits) + "0" + f"{gap & (1 << bits) - 1:0{bits}b}" for gap in gaps)
    ones = np.array([*text], dtype="U1") == "1"
    return bytes([bits]) + count.to_bytes(2, "little") + np.packbits(ones).tobytes()


def _unpacked(data: bytes) -> tuple[_Places, int, int]:
    """The values in rising order, and the count and bits that they are made with.

    Raises:
        ValueError: if it is not what `_packed` makes.
    """
    if not data:
        return np.zeros(0, np.int64), 0, _BITS
    if len(data) < 4 or not 1 <= data[0] < _EXCEPTION_BITS[1]:
        raise ValueError("the marks of photos are damaged")
    bits, count = data[0], int.from_bytes(data[1:3], "little")
    ones = np.unpackbits(np.frombuffer(data, np.uint8, offset=3))
    text = "".join(map(str, ones.tolist()))
    values, value, place = [], 0, 0
    # Zeros left over in the last byte are too few for a value, or tell the last one again.
    while (end := text.find("0", place)) >= 0 and end + bits < len(text):
        value += (end - place << bits) | int(text[end + 1 : end + 1 + bits], 2)
        values.append(value)
        place = end + 1 + bits
    return np.unique(np.array(values, np.int64)), count, bits
