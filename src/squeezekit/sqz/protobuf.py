"""A bounded reading of protocol buffers: the fields of a message, without any library."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
"""The kinds in which a field's value is stored. Groups (3 and 4) are refused."""

Field = tuple[int, int, int, int]
"""Number; kind; then the value twice if it is a varint, else where its bytes start and end."""


class MessageError(ValueError):
    """The bytes are no message."""


@dataclass(frozen=True)
class Message:
    """A message that lies somewhere within bytes; nothing is copied until it is asked for."""

    data: bytes
    start: int
    end: int

    @classmethod
    def whole(cls, data: bytes) -> Message:
        """Bytes that are one message."""
        return cls(data, 0, len(data))

    def part(self, field: Field) -> Message:
        """The message that a field holds."""
        return Message(self.data, field[2], field[3])

    def bytes(self, field: Field) -> bytes:
        """The bytes that a field holds."""
        return self.data[field[2] : field[3]]

    def fields(self) -> Iterator[Field]:
        """The fields in their order.

        Raises:
            MessageError: if one is broken or reaches past the end.
        """
        data, at, end = self.data, self.start, self.end
        while at < end:
            key = data[at]
            at += 1
            if key >= 0x80:
                key, at = read_varint(data, at - 1, end)
                if key >> 32:
                    raise MessageError("the number of a field is too large")
            number, kind = key >> 3, key & 7
            if not number:
                raise MessageError("a field has the number 0")
            if kind == VARINT:
                value, at = read_varint(data, at, end)
                yield number, VARINT, value, value
                continue
            if kind == BYTES:
                size, at = read_varint(data, at, end)
            elif kind in (FIXED32, FIXED64):
                size = 4 if kind == FIXED32 else 8
            else:
                raise MessageError(f"a field has the unknown kind {kind}")
            if size > end - at:
                raise MessageError("a field reaches past the end of its message")
            at += size
            yield number, kind, at - size, at


def read_varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    """A varint of at most 64 bits, and where it ends.

    Raises:
        MessageError: if it has no end, or more bits.
    """
    value = 0
    for shift in range(0, 70, 7):
        if at >= end:
            break
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if value >> 64:
                break
            return value, at
    raise MessageError("a number has no end, or more than 64 bits")


def signed(value: int) -> int:
    """What a varint of 64 bits means as int64."""
    return value - (1 << 64) if value >> 63 else value
