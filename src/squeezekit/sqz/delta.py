"""The `.sqzd` file: what makes a new `.sqz` of an old one, bit for bit. See docs/format.md."""

from __future__ import annotations

import hashlib
import math
import struct
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

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
from squeezekit.files import check_writable, read_bytes, write_whole
from squeezekit.sqz import container, moved_tensors
from squeezekit.sqz.admission import admit
from squeezekit.sqz.coders import moved, text
from squeezekit.sqz.container import StoredHead
from squeezekit.sqz.head import (
    CODER_NAMES,
    MOST_HEAD_BYTES,
    MOST_TENSORS,
    MOST_WEIGHTS,
    HeadReader,
    record_end,
    record_start,
    sized,
)
from squeezekit.sqz.limits import DEFAULT, TRUSTED, Limits, beyond
from squeezekit.sqz.varint import varint

if TYPE_CHECKING:
    from squeezekit.sqz.head import TensorRecord
    from squeezekit.sqz.network import Tensor

MAGIC = b"\x89SQD"
VERSION = (1, 0)

_HEADER = struct.Struct("<4sBBHII32s32sIB")
_CHECKSUM_AT = 12
_SAME_FILE, _TOLD_HEAD, _STORED_HEAD = range(3)
_COPIED, _STORED, _MOVED = range(3)

File = bytes | Path | str
"""The bytes of a file, or its path."""


def delta(
    old: File, new: File, out: Path | str | None = None, *, limits: Limits | None = DEFAULT
) -> bytes:
    """Make the update that turns one `.sqz` into another, bit for bit.

        sk.delta("pets.sqz", "pets-2.sqz", "pets-2.sqzd")

    Whoever has OLD needs only the update (see `apply`). It is small where the networks are alike:
    the levels of each tensor are coded by those that OLD has in the same place. It is applied once
    before it is given back, so that it is known to work.

    Args:
        old: a `.sqz`, its path or its bytes.
        new: another.
        out: the `.sqzd` to write; None writes none.
        limits: the limits that both files are held to; None if their makers are trusted.

    Returns:
        The bytes of the update.

    Raises:
        InputError: if a file cannot be opened, or `out` cannot be written.
        FormatError: if a file is damaged or no `.sqz`; the message names it.
    """
    before, after = _opened(old, ".sqz"), _opened(new, ".sqz")
    if out is not None:
        _check_name(out, ".sqzd")
    with _naming(old):
        start = _Old.of(before, limits)
    with _naming(new):
        update = _made(start, after, limits)
        if _applied(start, update, limits) != after:
            raise AssertionError("an update did not give back the file that it was made for")
    if out is not None:
        write_whole(out, update)
    return update


class Maker:
    """Makes updates from one file to many, without trying each."""

    def __init__(self, old: bytes, limits: Limits | None = DEFAULT) -> None:
        """Read the old file.

        Raises:
            FormatError: if it is damaged.
        """
        self._old = _Old.of(old, limits)
        self._limits = limits

    def update(self, new: bytes) -> bytes:
        """What `delta` would give.

        Raises:
            FormatError: if the new file is damaged.
        """
        return _made(self._old, new, self._limits)


def apply(
    old: File, update: File, out: Path | str | None = None, *, limits: Limits | None = DEFAULT
) -> bytes:
    """Turn one `.sqz` into another by an update that `delta` made.

        sk.apply("pets.sqz", "pets-2.sqzd", "pets.sqz")     # in place: whole or not at all

    Args:
        old: the `.sqz` that the update was made for, its path or its bytes.
        update: the `.sqzd`.
        out: the `.sqz` to write; None writes none. It may be `old`.
        limits: the limits that the files are held to; None if their makers are trusted.

    Returns:
        The bytes of the new file.

    Raises:
        InputError: if a file cannot be opened, the update is for another file, or `out` cannot be
            written.
        FormatError: if a file is damaged, or is none of its kind; the message names it.
    """
    before, told = _opened(old, ".sqz"), _opened(update, ".sqzd")
    if out is not None:
        _check_name(out, ".sqz")
    with _naming(update):
        head = _read_header(told)
        _require_its(head, before, old)
    with _naming(old):
        start = _Old.of(before, limits)
    with _naming(update):
        after = _applied(start, told, limits)
    if out is not None:
        write_whole(out, after)
    return after


# ----------------------------------------------------------------------------------- its two files


@dataclass(frozen=True)
class _Start:
    """What a record says of a tensor before it speaks of the payload."""

    name: str
    number: int
    shape: tuple[int, ...]
    parameters: bytes

    def as_bytes(self) -> bytes:
        return record_start(self.name, self.number, self.shape, self.parameters)


@dataclass(frozen=True, eq=False)
class _Parts:
    """A file taken apart.

    Attributes:
        head: as it is stored.
        raw: the head's bytes.
        sections: metadata and graph, each with its length before it, and the starts of all records
            with their number before them: a head without what follows from its payloads.
        payloads: by the record's start, in the order of the file.
    """

    head: StoredHead
    raw: bytes
    sections: tuple[bytes, bytes, bytes]
    payloads: dict[_Start, memoryview]

    @classmethod
    def of(cls, data: bytes, limits: Limits | None) -> _Parts:
        """Take apart a file that can be decoded."""
        stored, raw = container.stored_head(data, limits)
        reader, view = HeadReader(raw), memoryview(data)
        metadata, graph = sized(reader.sized()), sized(reader.sized())
        payloads = {
            _start_of(record): view[record.offset : record.offset + record.payload_bytes]
            for record in container.read_head(data, limits).records
        }
        return cls(stored, raw, (metadata, graph, _records(payloads)), payloads)


def _records(starts: Iterable[_Start]) -> bytes:
    coded = [start.as_bytes() for start in starts]
    return varint(len(coded)) + b"".join(coded)


def _raw_head(sections: Sequence[bytes], payloads: Mapping[_Start, bytes | memoryview]) -> bytes:
    """A head, from its sections and the payloads."""
    records = [s.as_bytes() + record_end(payload) for s, payload in payloads.items()]
    return b"".join([*sections[:2], varint(len(records)), *records])


@dataclass(frozen=True, eq=False)
class _Old:
    """The old file: taken apart, and its tensors by name."""

    data: bytes
    parts: _Parts
    starts: dict[str, _Start]
    tensors: Mapping[str, Tensor]

    @classmethod
    def of(cls, data: bytes, limits: Limits | None) -> _Old:
        """Read a file."""
        tensors = container.decode(data, limits).tensors
        parts = _Parts.of(data, limits)
        return cls(data, parts, {start.name: start for start in parts.payloads}, tensors)


# -------------------------------------------------------------------------------------- making one


def _made(old: _Old, new: bytes, limits: Limits | None) -> bytes:
    if new == old.data:
        return _with_header(old.data, new, _SAME_FILE, b"")
    container.decode(new, limits)  # all of it can be
    parts = _Parts.of(new, limits)
    kind, head = _told_head(old.parts, parts)
    tensors = b"".join(_told_tensor(old, start, data) for start, data in parts.payloads.items())
    return _with_header(old.data, new, kind, head + tensors)


def _with_header(old: bytes, new: bytes, kind: int, body: bytes) -> bytes:
    size, digests = _HEADER.size + len(body), (_sha256(old), _sha256(new))
    update = bytearray(_HEADER.pack(MAGIC, *VERSION, 0, size, 0, *digests, len(new), kind) + body)
    struct.pack_into("<I", update, _CHECKSUM_AT, _checksum(update))
    return bytes(update)


def _sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def _checksum(update: bytes | bytearray) -> int:
    """The CRC-32 of all bytes but its own."""
    view = memoryview(update)
    return zlib.crc32(view[_CHECKSUM_AT + 4 :], zlib.crc32(view[:_CHECKSUM_AT]))


def _told_head(old: _Parts, new: _Parts) -> tuple[int, bytes]:
    """How the head is told, and that: as a text by the old one, or as it is stored."""
    again = new.head.codec == container.TEXT and _raw_head(new.sections, new.payloads) == new.raw
    if again and text.encode(new.raw) == new.head.stored:
        changed = [one != other for one, other in zip(old.sections, new.sections, strict=True)]
        told = bytes([*new.head.version, sum(1 << i for i in range(3) if changed[i])])
        if any(changed):
            known, data = (_chosen(parts.sections, changed) for parts in (old, new))
            told += varint(len(data)) + sized(moved.encode_text(data, known[: text.MOST_BYTES]))
        return _TOLD_HEAD, told
    as_it_is = bytes([*new.head.version, new.head.codec]) + varint(new.head.raw_bytes)
    return _STORED_HEAD, as_it_is + sized(new.head.stored)


def _chosen(sections: Sequence[bytes], chosen: Sequence[bool]) -> bytes:
    return b"".join(
        section for section, is_chosen in zip(sections, chosen, strict=True) if is_chosen
    )


def _told_tensor(old: _Old, start: _Start, payload: memoryview) -> bytes:
    """How a payload is told, and that: by the old one, or as it is."""
    if old.parts.payloads.get(start) == payload:
        return bytes([_COPIED])
    told = bytes([_STORED]) + sized(bytes(payload))
    before = old.tensors.get(start.name)
    if before is None or before.shape != start.shape:
        return told
    by_old = moved_tensors.encode(
        start.number, start.shape, start.parameters, bytes(payload), before
    )
    return told if by_old is None else min(told, bytes([_MOVED]) + by_old, key=len)


# ---------------------------------------------------------------------------------------- using one


@dataclass(frozen=True)
class _Header:
    """What stands before the head of a delta."""

    old_sha256: bytes
    new_sha256: bytes
    new_bytes: int
    kind: int


def _read_header(update: bytes) -> _Header:
    if not update.startswith(MAGIC[: max(len(update), 1)]):
        raise NotSqzError("this is not a .sqzd file (its first bytes are others)")
    if len(update) < _HEADER.size:
        raise TruncatedError(f"the file ends after {len(update)} bytes, inside its header")
    _, major, minor, reserved, size, checksum, *told = _HEADER.unpack_from(update)
    if major > VERSION[0]:
        raise VersionError(
            f"the update has format version {major}.{minor}, this squeezekit reads up to "
            f"{VERSION[0]}.x: update squeezekit"
        )
    if len(update) < size:
        raise TruncatedError(f"the file ends after {len(update)} of {size} bytes")
    if len(update) > size:
        raise TrailingBytesError(f"{len(update) - size} bytes follow the {size} bytes of the file")
    if _checksum(update) != checksum:
        raise ChecksumError("the update is damaged (its CRC-32 differs)")
    header = _Header(*told)
    if major < VERSION[0] or reserved or header.kind > _STORED_HEAD:
        raise HeadError("the header holds values that no version of the format has")
    return header


def _require_its(header: _Header, old: bytes, name: File) -> None:
    """See that an update is for this file.

    Raises:
        InputError: if it is for another one.
    """
    found, called = _sha256(old), "the file" if isinstance(name, bytes) else f"{name}"
    if found == header.old_sha256:
        return
    if found == header.new_sha256:
        raise InputError(f"{called}: has this update already")
    raise InputError(
        f"{called}: the update is for another file (SHA-256 {header.old_sha256.hex()[:16]}..., "
        f"and this one is {found.hex()[:16]}...)"
    )


def _applied(old: _Old, update: bytes, limits: Limits | None) -> bytes:
    """The new file: nothing of it is believed before its SHA-256 is right and it can be opened."""
    header = _read_header(update)
    new = old.data
    if header.kind != _SAME_FILE:
        # What a file may ask for grows with its bytes: those that are here, not those it promises.
        known_bytes = min(header.new_bytes, len(old.data) + len(update))
        reader = HeadReader(update[_HEADER.size :], "update")
        new = _rebuilt(old, header, known_bytes, reader, limits or TRUSTED)
    elif len(update) > _HEADER.size:
        raise TrailingBytesError(f"{len(update) - _HEADER.size} bytes follow the header")
    if len(new) != header.new_bytes:
        raise LengthError(f"it makes {len(new)} bytes, and should make {header.new_bytes}")
    if _sha256(new) != header.new_sha256:
        raise ChecksumError("it does not make the file that it should (its SHA-256 differs)")
    container.decode(new, limits)
    return new


def _rebuilt(
    old: _Old, header: _Header, known_bytes: int, reader: HeadReader, limits: Limits
) -> bytes:
    until = time.monotonic() + limits.seconds
    major, minor, byte = reader.take(3)
    if header.kind == _STORED_HEAD:
        raw_bytes = reader.varint(MOST_HEAD_BYTES, "bytes")
        stored = StoredHead((major, minor), byte, reader.sized(), raw_bytes)
        told = HeadReader(container.decoded_head(stored, limits))
        sections = [sized(told.sized()), sized(told.sized())]
        starts = [_start_of(told.record(0)) for _ in range(_tensors(told))]
    else:
        *sections, records = _retold(old.parts.sections, byte, reader)
        told = HeadReader(records)
        starts = [_Start(*told.record_start()) for _ in range(_tensors(told))]
        if told.position != len(records):
            raise TrailingBytesError(f"{len(records) - told.position} bytes follow the records")
    _admit(sections[0], sections[1], starts, known_bytes, limits)
    payloads: dict[_Start, bytes] = {}
    left = header.new_bytes
    for start in starts:
        if time.monotonic() > until:
            raise beyond(f"it takes more than {limits.seconds:g} seconds to apply")
        try:
            payloads[start] = _retold_payload(old, start, reader)
        except CoderError as error:
            raise CoderError(f"tensor {start.name} cannot be made: {error}") from None
        left -= len(payloads[start])
        if left < 0:
            raise LengthError(f"it makes more than the {header.new_bytes} bytes that it states")
    if not reader.at_end:
        raise TrailingBytesError("bytes follow the last tensor of the update")
    if header.kind == _TOLD_HEAD:
        raw = _raw_head(sections, payloads)
        if len(raw) > text.MOST_BYTES:
            raise LengthError(f"a head of {len(raw)} bytes is more than {text.MOST_BYTES}")
        stored = StoredHead((major, minor), container.TEXT, text.encode(raw), len(raw))
    return container.put_together(stored, list(payloads.values()))


def _tensors(reader: HeadReader) -> int:
    return reader.varint(MOST_TENSORS, "tensors")


def _start_of(record: TensorRecord) -> _Start:
    return _Start(record.name, CODER_NAMES.index(record.coder), record.shape, record.parameters)


def _retold(old: Sequence[bytes], byte: int, reader: HeadReader) -> list[bytes]:
    """The sections, from those of the old file, and which of them are told anew."""
    if byte >> len(old):
        raise HeadError(f"a head has no {byte} to tell anew")
    changed = [byte >> i & 1 == 1 for i in range(len(old))]
    if not any(changed):
        return list(old)
    size = reader.varint(text.MOST_BYTES, "bytes")
    known = _chosen(old, changed)[: text.MOST_BYTES]
    try:
        data = moved.decode_text(memoryview(reader.sized()), size, known)
    except CoderError as error:
        raise LengthError(f"the head does not decode to {size} bytes: {error}") from None
    new = HeadReader(data)
    sections = [sized(new.sized()) if changed[i] else old[i] for i in range(2)]
    rest = new.take(len(data) - new.position)
    if rest and not changed[2]:
        raise TrailingBytesError(f"{len(rest)} bytes follow the head")
    return [*sections, rest if changed[2] else old[2]]


def _admit(
    metadata: bytes, graph: bytes, starts: Sequence[_Start], file_bytes: int, limits: Limits
) -> None:
    """See that the new file may be opened, before its first tensor is made."""
    shapes = {start.name: start.shape for start in starts}
    if len(shapes) != len(starts):
        raise HeadError("two tensors of the new file have one name")
    if sum(map(math.prod, shapes.values())) > MOST_WEIGHTS:
        raise LengthError(f"the tensors have more than {MOST_WEIGHTS} weights")
    known = container.described_by(HeadReader(metadata).sized(), file_bytes, limits)
    admit(HeadReader(graph).sized(), known, shapes, file_bytes, limits)


def _retold_payload(old: _Old, start: _Start, reader: HeadReader) -> bytes:
    kind = reader.take(1)[0]
    if kind == _STORED:
        return reader.sized()
    if kind == _COPIED and start in old.parts.payloads:
        return bytes(old.parts.payloads[start])
    before = old.tensors.get(start.name)
    if kind != _MOVED or before is None:
        raise CoderError(f"it is told by {kind}, which the old file cannot serve")
    return moved_tensors.decode(start.number, start.shape, start.parameters, reader, before)


# ------------------------------------------------------------------------------------------- files


def _opened(file: File, ending: str) -> bytes:
    if isinstance(file, bytes | bytearray | memoryview):
        return bytes(file)
    if isinstance(file, Path | str):
        return read_bytes(file)
    raise InputError(
        f"{type(file).__name__} is no file: an update is made of files, so give the path or the "
        f"bytes of a {ending}"
    )


def _check_name(out: Path | str, ending: str) -> None:
    if Path(out).suffix.lower() != ending:
        raise InputError(f"{out}: the name must end in {ending}")
    check_writable(out)


@contextmanager
def _naming(file: File) -> Iterator[None]:
    """Put a file's name before the message of what is wrong with it."""
    try:
        yield
    except FormatError as error:
        if isinstance(file, Path | str):
            raise type(error)(f"{file}: {error}") from None
        raise
