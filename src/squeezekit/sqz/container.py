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

import numpy as np

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
from squeezekit.sqz.head import (
    DENSE,
    FLOATS,
    GRID,
    HALF,
    HUFFMAN,
    MOST_HEAD_BYTES,
    MOST_TENSORS,
    MOST_WEIGHTS,
    SHARED,
    HeadReader,
    record_end,
    record_start,
    sized,
    utf8,
)
from squeezekit.sqz.head import TensorRecord as TensorRecord
from squeezekit.sqz.limits import DEFAULT, TRUSTED, Limits, beyond
from squeezekit.sqz.network import Metadata, Network, SharedTensor, Tensor
from squeezekit.sqz.varint import varint

MAGIC = b"\x89SQZ"
VERSION = (2, 0)
"""Readers refuse a higher major; a higher minor only adds what they may ignore."""

_FIRST_VERSION = (1, 0)
"""Of files that a reader of version 1 can read, which stay that."""

_MOST_THREADS = 4
_THREADS_PAY = 32 << 10
"""Payload bytes from which on decoding, some 10 ms by then, is shared among threads."""

_HEADER = struct.Struct("<4s4B4I")
_DEFLATE, TEXT = 1, 2

CoderName = Literal["entropy", "huffman", "dense"]
_Encode = Callable[..., tuple[bytes, bytes]]
_Decode = Callable[[tuple[int, ...], bytes, memoryview], Tensor]

# How a coder decodes, by its name.
_CODERS: dict[str, _Decode] = {
    "dense": dense.decode,
    "half": half.decode,
    "huffman": huffman.decode,
    "entropy": entropy.decode_shared,
    "entropy-float": entropy.decode_floats,
    "entropy-grid": grid.decode,
}


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
        InputError: if a number in a tensor is not finite.
    """
    shapes = {name: tensor.shape for name, tensor in network.tensors.items()}
    admit(network.graph, network.metadata, shapes, 0, TRUSTED)
    records, payloads = [], []
    version = _FIRST_VERSION
    for name, tensor in network.tensors.items():
        if not _is_finite(tensor):
            raise InputError(f"tensor {name} has a number that is not finite (NaN, or infinite)")
        number, (parameters, payload) = _encode_tensor(tensor, coder)
        version = VERSION if number == GRID else version
        start = record_start(name, number, tensor.shape, parameters)
        records.append(start + record_end(payload))
        payloads.append(payload)
    raw = b"".join(
        [
            sized(metadata_json.to_json(network.metadata).encode()),
            sized(network.graph),
            varint(len(records)),
            *records,
        ]
    )
    codec, stored = _stored(raw, coder)
    if codec == TEXT:
        version = VERSION
    size = _HEADER.size + len(stored) + sum(map(len, payloads))
    if len(raw) > MOST_HEAD_BYTES or size >= 1 << 32:
        raise InputError("the network is too large for a .sqz file (4 GiB, 64 MiB of graph)")
    return put_together(StoredHead(version, codec, stored, len(raw)), payloads)


@dataclass(frozen=True)
class StoredHead:
    """A head as it lies in the file, and what the header says of it: format, codec, size."""

    version: tuple[int, int]
    codec: int
    stored: bytes
    raw_bytes: int


def put_together(head: StoredHead, payloads: Sequence[bytes]) -> bytes:
    """The file of a head and the payloads of its records."""
    size = _HEADER.size + len(head.stored) + sum(map(len, payloads))
    stored_bytes = len(head.stored)
    header = _HEADER.pack(
        MAGIC, *head.version, head.codec, 0, size, stored_bytes, head.raw_bytes, 0
    )
    checksum = zlib.crc32(head.stored, zlib.crc32(header[:-4]))
    return b"".join([header[:-4], struct.pack("<I", checksum), head.stored, *payloads])


def _stored(raw: bytes, coder: CoderName) -> tuple[int, bytes]:
    """The head as it is stored, and how."""
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    deflated = deflate.compress(raw) + deflate.flush()
    if coder == "entropy" and len(raw) <= text.MOST_BYTES:
        coded = text.encode(raw)
        if len(coded) < len(deflated):
            return TEXT, coded
    return _DEFLATE, deflated


def _encode_tensor(tensor: Tensor, coder: CoderName) -> tuple[int, tuple[bytes, bytes]]:
    if coder == "entropy":
        coded = _entropy_coded(tensor)
        if (found := grid.find(tensor)) is not None:
            coded = min(coded, (GRID, grid.encode(tensor, *found)), key=_coded_bytes)
        return coded
    if coder == "huffman" and isinstance(tensor, SharedTensor) and _is_coded(tensor):
        return HUFFMAN, huffman.encode(tensor)
    return _plain(tensor)


def _entropy_coded(tensor: Tensor) -> tuple[int, tuple[bytes, bytes]]:
    if not isinstance(tensor, SharedTensor):
        return FLOATS, entropy.encode_floats(tensor)
    return (SHARED, entropy.encode_shared(tensor)) if _is_coded(tensor) else _plain(tensor)


def _is_coded(tensor: SharedTensor) -> bool:
    return len(tensor.centroids) <= huffman.MOST_CENTROIDS


def _plain(tensor: Tensor) -> tuple[int, tuple[bytes, bytes]]:
    return (HALF, half.encode(tensor)) if half.fits(tensor) else (DENSE, dense.encode(tensor))


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
    try:
        tensor = _CODERS[record.coder](record.shape, record.parameters, payload)
    except CoderError as error:
        raise CoderError(f"tensor {record.name} cannot be decoded: {error}") from None
    if not _is_finite(tensor):
        raise CoderError(f"tensor {record.name} cannot be decoded: a number in it is not finite")
    return tensor


def _is_finite(tensor: Tensor) -> bool:
    """Runtimes differ in what they make of NaN: one answers with it, another with numbers."""
    values = tensor.centroids if isinstance(tensor, SharedTensor) else tensor
    return bool(np.isfinite(values).all())


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
    head, raw = stored_head(data, limits)
    end = _HEADER.size + len(head.stored)
    return _parse_head(raw, head.version, end, len(data), limits or TRUSTED)


def stored_head(data: bytes, limits: Limits | None = DEFAULT) -> tuple[StoredHead, bytes]:
    """The head as it lies in the file, and decoded: its bytes, not yet what they say.

    Args:
        data: the whole file.
        limits: as in `read_head`.

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
    if reserved:
        raise HeadError("the header holds values that no version of the format has")
    head = StoredHead((major, minor), codec, bytes(stored), raw_bytes)
    return head, decoded_head(head, limits)


def decoded_head(head: StoredHead, limits: Limits) -> bytes:
    """The bytes of a head that is stored.

    Raises:
        FormatError: one of its subclasses.
    """
    is_text = head.codec == TEXT and head.version[0] >= VERSION[0]
    if head.version[0] < 1 or (head.codec != _DEFLATE and not is_text):
        raise HeadError("the header holds values that no version of the format has")
    most = text.MOST_BYTES if is_text else MOST_HEAD_BYTES
    size = head.raw_bytes
    if size > most:
        raise LengthError(f"a head of {size} bytes is more than {most}")
    if size > limits.head_bytes:
        raise beyond(f"it has a head of {size:,} bytes, and the limit is {limits.head_bytes:,}")
    stored = memoryview(head.stored)
    return _decoded_text(stored, size) if is_text else _inflate(stored, size)


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
    reader = HeadReader(raw)
    described = reader.sized()
    metadata = described_by(described, size, limits)
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


def described_by(described: bytes, file_bytes: int, limits: Limits) -> Metadata:
    """The metadata of a file of that size, once its size and its text are within the limits."""
    limits.check("file_bytes", file_bytes, file_bytes)
    limits.check("text_bytes", len(described), file_bytes)
    return metadata_json.from_json(utf8(described))


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
