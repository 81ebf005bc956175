"""The `.sqz` file: header, head (metadata, graph, tensor records), payloads. See docs/format.md."""

from __future__ import annotations

import math
import os
import struct
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from squeezekit.errors import (
    ChecksumError,
    CoderError,
    FormatError,
    HeadError,
    InputError,
    LengthError,
    NotSqzError,
    TrailingBytesError,
    TruncatedError,
    VersionError,
)
from squeezekit.files import read_bytes, write_whole
from squeezekit.sqz import metadata_json
from squeezekit.sqz.admission import admit
from squeezekit.sqz.coders import dense, entropy, grid, half, huffman, text
from squeezekit.sqz.limits import DEFAULT, TRUSTED, Limits, beyond
from squeezekit.sqz.network import Metadata, Network, SharedTensor, Tensor
from squeezekit.sqz.varint import varint

MAGIC = b"\x89SQZ"
VERSION = (2, 0)
"""Readers refuse a higher major; a higher minor only adds what they may ignore."""

_FIRST_VERSION = (1, 0)
"""Of files that a reader of version 1 can read, which stay that."""

MOST_WEIGHTS = 1 << 28
MOST_TENSORS = 100_000
MOST_AXES = 8
MOST_HEAD_BYTES = 64 << 20

_MOST_THREADS = 4
_THREADS_PAY = 32 << 10
"""Payload bytes from which on decoding, some 10 ms by then, is shared among threads."""

_HEADER = struct.Struct("<4s4B4I")
_DEFLATE, _TEXT = 1, 2

CoderName = Literal["entropy", "huffman", "dense"]
_Encode = Callable[..., tuple[bytes, bytes]]
_Decode = Callable[[tuple[int, ...], bytes, memoryview], Tensor]

# The number of a coder in a tensor's record, its name, and how it decodes.
_DENSE, _HALF, _HUFFMAN, _SHARED, _FLOATS, _GRID = range(6)
_CODERS: dict[int, tuple[str, _Decode]] = {
    _DENSE: ("dense", dense.decode),
    _HALF: ("half", half.decode),
    _HUFFMAN: ("huffman", huffman.decode),
    _SHARED: ("entropy", entropy.decode_shared),
    _FLOATS: ("entropy-float", entropy.decode_floats),
    _GRID: ("entropy-grid", grid.decode),
}


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


@dataclass(frozen=True)
class Section:
    """A run of bytes of the file and what it holds; the sections of a file tile it."""

    name: str
    kind: Literal["header", "head", "tensor"]
    offset: int
    size: int


@dataclass(frozen=True)
class Head:
    """Everything in a file but its payloads.

    Attributes:
        raw_bytes: how many bytes of the inflated head are "metadata", "graph" and "records".
    """

    version: tuple[int, int]
    metadata: Metadata
    graph: bytes
    records: tuple[TensorRecord, ...]
    stored_bytes: int
    raw_bytes: dict[str, int]


def encode(network: Network, coder: CoderName = "entropy") -> bytes:
    """Serialize a network; what `decode` gives back has every value bit for bit.

    Args:
        network: the network.
        coder: "entropy" is the smallest; "huffman" is Deep Compression's for shared tensors;
            "dense" stores float32, or float16 where that loses nothing.

    Raises:
        GraphError: if the graph is not one that a `.sqz` may have, or does not fit the rest.
        OperatorError: if it has an operator that none may have.
    """
    shapes = {name: tensor.shape for name, tensor in network.tensors.items()}
    admit(network.graph, network.metadata, shapes, 0, TRUSTED)
    records, payloads = [], []
    version = _FIRST_VERSION
    for name, tensor in network.tensors.items():
        number, (parameters, payload) = _encode_tensor(tensor, coder)
        version = VERSION if number == _GRID else version
        records.append(
            _sized(name.encode())
            + bytes([number])
            + varint(len(tensor.shape))
            + b"".join(varint(size) for size in tensor.shape)
            + _sized(parameters)
            + varint(len(payload))
            + struct.pack("<I", zlib.crc32(payload))
        )
        payloads.append(payload)
    raw = b"".join(
        [
            _sized(metadata_json.to_json(network.metadata).encode()),
            _sized(network.graph),
            varint(len(records)),
            *records,
        ]
    )
    codec, stored = _stored(raw, coder)
    if codec == _TEXT:
        version = VERSION
    size = _HEADER.size + len(stored) + sum(map(len, payloads))
    if len(raw) > MOST_HEAD_BYTES or size >= 1 << 32:
        raise InputError("the network is too large for a .sqz file (4 GiB, 64 MiB of graph)")
    header = _HEADER.pack(MAGIC, *version, codec, 0, size, len(stored), len(raw), 0)
    checksum = zlib.crc32(stored, zlib.crc32(header[:-4]))
    return b"".join([header[:-4], struct.pack("<I", checksum), stored, *payloads])


def _stored(raw: bytes, coder: CoderName) -> tuple[int, bytes]:
    """The head as it is stored, and how."""
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    deflated = deflate.compress(raw) + deflate.flush()
    if coder == "entropy" and len(raw) <= text.MOST_BYTES:
        coded = text.encode(raw)
        if len(coded) < len(deflated):
            return _TEXT, coded
    return _DEFLATE, deflated


def _encode_tensor(tensor: Tensor, coder: CoderName) -> tuple[int, tuple[bytes, bytes]]:
    if coder == "entropy":
        coded = _entropy_coded(tensor)
        if (found := grid.find(tensor)) is not None:
            coded = min(coded, (_GRID, grid.encode(tensor, *found)), key=_coded_bytes)
        return coded
    if coder == "huffman" and isinstance(tensor, SharedTensor) and _is_coded(tensor):
        return _HUFFMAN, huffman.encode(tensor)
    return _plain(tensor)


def _entropy_coded(tensor: Tensor) -> tuple[int, tuple[bytes, bytes]]:
    if not isinstance(tensor, SharedTensor):
        return _FLOATS, entropy.encode_floats(tensor)
    return (_SHARED, entropy.encode_shared(tensor)) if _is_coded(tensor) else _plain(tensor)


def _is_coded(tensor: SharedTensor) -> bool:
    return len(tensor.centroids) <= huffman.MOST_CENTROIDS


def _plain(tensor: Tensor) -> tuple[int, tuple[bytes, bytes]]:
    return (_HALF, half.encode(tensor)) if half.fits(tensor) else (_DENSE, dense.encode(tensor))


def _coded_bytes(coded: tuple[int, tuple[bytes, bytes]]) -> int:
    return len(coded[1][0]) + len(coded[1][1])


def decode(data: bytes, limits: Limits | None = DEFAULT) -> Network:
    """Read a serialized network.

    Args:
        data: the whole file.
        limits: the limits that it is held to; None if its maker is trusted.

    Raises:
        FormatError: one of its subclasses for each way in which the bytes can be broken.
    """
    seconds = (limits or TRUSTED).seconds
    until = time.monotonic() + seconds
    head = read_head(data, limits)
    view = memoryview(data)
    for record in head.records:  # all of them first: damage is found before any work is done
        _checked_payload(record, view)
    return Network(head.graph, _decoded(head.records, view, seconds, until), head.metadata)


def _decoded(
    records: Sequence[TensorRecord], data: memoryview, seconds: float, until: float
) -> dict[str, Tensor]:
    """Every tensor by name, in the order of the file; the coders run without Python's lock."""

    def decoded(record: TensorRecord) -> Tensor:
        if time.monotonic() > until:
            raise beyond(f"it takes more than {seconds:g} seconds to open")
        return decode_tensor(record, data)

    threads = min(os.cpu_count() or 1, _MOST_THREADS)
    if threads == 1 or sum(record.payload_bytes for record in records) < _THREADS_PAY:
        return {record.name: decoded(record) for record in records}
    # The largest first: one that began last would leave the other threads idle.
    order = sorted(records, key=lambda record: record.payload_bytes, reverse=True)
    with ThreadPoolExecutor(threads) as pool:
        tensors = pool.map(decoded, order)
        found = {record.name: tensor for record, tensor in zip(order, tensors, strict=True)}
    return {record.name: found[record.name] for record in records}


def decode_tensor(record: TensorRecord, data: memoryview) -> Tensor:
    """Decode one tensor alone.

    Raises:
        ChecksumError: if the payload is not what was written.
        CoderError: if it does not decode to its shape.
    """
    payload = _checked_payload(record, data)
    decoder = next(decoder for name, decoder in _CODERS.values() if name == record.coder)
    try:
        return decoder(record.shape, record.parameters, payload)
    except CoderError as error:
        raise CoderError(f"tensor {record.name} cannot be decoded: {error}") from None


def _checked_payload(record: TensorRecord, data: memoryview) -> memoryview:
    payload = data[record.offset : record.offset + record.payload_bytes]
    if zlib.crc32(payload) != record.checksum:
        raise ChecksumError(f"the payload of tensor {record.name} is damaged (its CRC-32 differs)")
    return payload


def read_head(data: bytes, limits: Limits | None = DEFAULT) -> Head:
    """Read everything but the payloads, and check that they tile the rest of the file.

    The graph is checked, and what it will cost, so that nothing is decoded of a file that may not
    be opened.

    Args:
        data: the whole file.
        limits: the limits that it is held to; None if its maker is trusted.

    Raises:
        FormatError: one of its subclasses.
    """
    limits = limits or TRUSTED
    if not data.startswith(MAGIC[: max(len(data), 1)]):
        raise NotSqzError("this is not a .sqz file (its first bytes are others)")
    if len(data) < _HEADER.size:
        raise TruncatedError(f"the file ends after {len(data)} bytes, inside its header")
    _, major, minor, codec, reserved, size, stored_bytes, raw_bytes, checksum = _HEADER.unpack_from(
        data
    )
    if major > VERSION[0]:
        raise VersionError(
            f"the file has format version {major}.{minor}, this squeezekit reads up to "
            f"{VERSION[0]}.x: update squeezekit"
        )
    if len(data) < size:
        raise TruncatedError(f"the file ends after {len(data)} of {size} bytes")
    if len(data) > size:
        raise TrailingBytesError(f"{len(data) - size} bytes follow the {size} bytes of the file")
    end = _HEADER.size + stored_bytes
    if end > size:
        raise LengthError(f"a head of {stored_bytes} bytes does not fit into the file")
    stored = memoryview(data)[_HEADER.size : end]
    if zlib.crc32(stored, zlib.crc32(data[: _HEADER.size - 4])) != checksum:
        raise ChecksumError("the head of the file is damaged (its CRC-32 differs)")
    is_text = codec == _TEXT and major >= VERSION[0]
    if major < 1 or (codec != _DEFLATE and not is_text) or reserved:
        raise HeadError("the header holds values that no version of the format has")
    most = text.MOST_BYTES if is_text else MOST_HEAD_BYTES
    if raw_bytes > most:
        raise LengthError(f"a head of {raw_bytes} bytes is more than {most}")
    if raw_bytes > limits.head_bytes:
        raise beyond(
            f"it has a head of {raw_bytes:,} bytes, and the limit is {limits.head_bytes:,}"
        )
    raw = _decoded_text(stored, raw_bytes) if is_text else _inflate(stored, raw_bytes)
    return _parse_head(raw, (major, minor), end, size, limits)


def _decoded_text(stored: memoryview, size: int) -> bytes:
    try:
        return text.decode(stored, size)
    except CoderError as error:
        raise LengthError(f"the head does not decode to {size} bytes: {error}") from None


def _inflate(stored: memoryview, size: int) -> bytes:
    inflate = zlib.decompressobj(-15)
    try:
        raw = inflate.decompress(stored, size + 1)
    except zlib.error as error:
        raise HeadError(f"the head cannot be inflated ({error})") from None
    if len(raw) != size or not inflate.eof or inflate.unused_data:
        raise LengthError(f"the head does not inflate to the {size} bytes it states")
    return raw


def _parse_head(raw: bytes, version: tuple[int, int], end: int, size: int, limits: Limits) -> Head:
    reader = _Reader(raw)
    limits.check("file_bytes", size, size)
    described = reader.sized()
    limits.check("text_bytes", len(described), size)
    metadata = metadata_json.from_json(_utf8(described))
    after_metadata = reader.position
    graph = bytes(reader.sized())
    after_graph = reader.position
    records = []
    offset, weights, names = end, 0, set[str]()
    count = reader.varint(MOST_TENSORS, "tensors")
    limits.check("tensors", count, size)
    for _ in range(count):
        record = reader.record(offset)
        if record.name in names:
            raise HeadError(f"two tensors are named {record.name}")
        names.add(record.name)
        offset += record.payload_bytes
        weights += math.prod(record.shape)
        if offset > size:
            raise LengthError(f"the payload of tensor {record.name} reaches past the file's end")
        if weights > MOST_WEIGHTS:
            raise LengthError(f"the tensors have more than {MOST_WEIGHTS} weights")
        records.append(record)
    if reader.position != len(raw):
        raise TrailingBytesError(f"{len(raw) - reader.position} bytes follow the head's records")
    if offset != size:
        raise TrailingBytesError(f"{size - offset} bytes follow the last payload")
    admit(graph, metadata, {r.name: r.shape for r in records}, size, limits)
    parts = {
        "metadata": after_metadata,
        "graph": after_graph - after_metadata,
        "records": len(raw) - after_graph,
    }
    return Head(version, metadata, graph, tuple(records), end - _HEADER.size, parts)


class _Reader:
    """Takes the inflated head apart; every length is checked against what is left."""

    def __init__(self, raw: bytes) -> None:
        self._raw = raw
        self.position = 0

    def take(self, size: int) -> bytes:
        if size > len(self._raw) - self.position:
            raise LengthError(f"a field of {size} bytes reaches past the end of the head")
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
            raise LengthError(f"the head states {value} {what}, more than {most}")
        return value

    def sized(self) -> bytes:
        return self.take(self.varint(MOST_HEAD_BYTES, "bytes"))

    def record(self, offset: int) -> TensorRecord:
        name = _utf8(self.sized())
        number = self.take(1)[0]
        if number not in _CODERS:
            raise CoderError(f"tensor {name} uses coder {number}, which this squeezekit lacks")
        axes = self.varint(MOST_AXES, "axes")
        shape = tuple(self.varint(MOST_WEIGHTS, "weights") for _ in range(axes))
        parameters = self.sized()
        payload_bytes = self.varint((1 << 32) - 1, "bytes")
        (checksum,) = struct.unpack("<I", self.take(4))
        coder = _CODERS[number][0]
        return TensorRecord(name, coder, shape, parameters, offset, payload_bytes, checksum)


def _utf8(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise HeadError("a text in the head is not UTF-8") from None


def sections(head: Head) -> Iterator[Section]:
    """The parts of the file in order, without holes: their sizes add up to the file's."""
    yield Section("header", "header", 0, _HEADER.size)
    yield Section("head", "head", _HEADER.size, head.stored_bytes)
    for record in head.records:
        yield Section(record.name, "tensor", record.offset, record.payload_bytes)


def write(network: Network, path: Path | str, coder: CoderName = "entropy") -> int:
    """Write a network as a `.sqz` file, whole or not at all; returns the file's bytes."""
    data = encode(network, coder)
    write_whole(path, data)
    return len(data)


def read(path: Path | str, limits: Limits | None = DEFAULT) -> Network:
    """Read a `.sqz` file.

    Args:
        path: the path of the file.
        limits: the limits that it is held to; None if its maker is trusted.

    Raises:
        InputError: if the file cannot be opened.
        FormatError: if it is damaged; the message names the file.
    """
    data = read_bytes(path)
    try:
        return decode(data, limits)
    except FormatError as error:
        raise type(error)(f"{path}: {error}") from None


def _sized(data: bytes) -> bytes:
    return varint(len(data)) + data
