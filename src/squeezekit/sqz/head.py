"""The inside of a `.sqz` file's head: lengths, texts and the records of tensors, both ways."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

from squeezekit.errors import CoderError, HeadError, LengthError
from squeezekit.sqz.varint import varint

MOST_WEIGHTS = 1 << 28
MOST_TENSORS = 100_000
MOST_AXES = 8
MOST_HEAD_BYTES = 64 << 20

CODER_NAMES = ("dense", "half", "huffman", "entropy", "entropy-float", "entropy-grid")
"""Of a tensor's payload, by the number in its record."""

DENSE, HALF, HUFFMAN, SHARED, FLOATS, GRID = range(6)


@dataclass(frozen=True)
class TensorRecord:
    """What a head says of one tensor; `offset` and `payload_bytes` locate it in the file."""

    name: str
    coder: str
    shape: tuple[int, ...]
    parameters: bytes
    offset: int
    payload_bytes: int
    checksum: int


class HeadReader:
    """Takes a head apart, or another part; every length is checked against what is left."""

    def __init__(self, raw: bytes, part: str = "head") -> None:
        self._raw = raw
        self._part = part
        self.position = 0

    def take(self, size: int) -> bytes:
        """So many bytes."""
        if size > len(self._raw) - self.position:
            raise LengthError(f"a field of {size} bytes reaches past the end of the {self._part}")
        self.position += size
        return self._raw[self.position - size : self.position]

    def varint(self, most: int, what: str) -> int:
        """LEB128, at most 10 bytes."""
        value = 0
        for shift in range(0, 70, 7):
            byte = self.take(1)[0]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                break
        if byte >= 0x80 or value > most:
            raise LengthError(f"the {self._part} states {value} {what}, more than {most}")
        return value

    @property
    def at_end(self) -> bool:
        """True if nothing is left."""
        return self.position == len(self._raw)

    def sized(self) -> bytes:
        """A number of bytes, and those."""
        return self.take(self.varint(len(self._raw), "bytes"))

    def record_start(self) -> tuple[str, int, tuple[int, ...], bytes]:
        """Name, coder's number, shape and parameters, as `record_start` writes them."""
        name = utf8(self.sized())
        number = self.take(1)[0]
        if number >= len(CODER_NAMES):
            raise CoderError(f"tensor {name} uses coder {number}, which this squeezekit lacks")
        axes = self.varint(MOST_AXES, "axes")
        shape = tuple(self.varint(MOST_WEIGHTS, "weights") for _ in range(axes))
        return name, number, shape, self.sized()

    def record(self, offset: int) -> TensorRecord:
        """The record of the tensor whose payload lies at this offset of the file."""
        name, number, shape, parameters = self.record_start()
        payload_bytes = self.varint((1 << 32) - 1, "bytes")
        (checksum,) = struct.unpack("<I", self.take(4))
        coder = CODER_NAMES[number]
        return TensorRecord(name, coder, shape, parameters, offset, payload_bytes, checksum)


def utf8(data: bytes) -> str:
    """A text.

    Raises:
        HeadError: if it is not UTF-8.
    """
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise HeadError("a text in the head is not UTF-8") from None


def sized(data: bytes) -> bytes:
    """A number of bytes, and those."""
    return varint(len(data)) + data


def record_start(name: str, number: int, shape: tuple[int, ...], parameters: bytes) -> bytes:
    """What a record says of a tensor, before what it says of the payload."""
    axes = b"".join(varint(size) for size in (len(shape), *shape))
    return sized(name.encode()) + bytes([number]) + axes + sized(parameters)


def record_end(payload: bytes | memoryview) -> bytes:
    """What a record says of the payload."""
    return varint(len(payload)) + struct.pack("<I", zlib.crc32(payload))
