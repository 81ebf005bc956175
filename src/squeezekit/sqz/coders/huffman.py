"""Deep Compression's coder: table, gaps or bitmap, canonical Huffman codes (Han et al. 2016)."""

from __future__ import annotations

import heapq
import math
import struct
from typing import TYPE_CHECKING, Any

import numpy as np

from squeezekit.errors import CoderError
from squeezekit.sqz.coders import engine
from squeezekit.sqz.coders.entropy import shared_tensor
from squeezekit.sqz.network import SharedTensor

if TYPE_CHECKING:
    import numpy.typing as npt

LONGEST_CODE = 15
MOST_CENTROIDS = 1 << 15
GAP_FILLER = 15
"""The gap symbol that stands for 15 zeros with no weight after them (4-bit gaps)."""

_PARAMETERS = struct.Struct("<HIB")
_GAPS, _BITMAP = 0, 1

Symbols = np.ndarray[tuple[Any, ...], np.dtype[np.uint16]]
Lengths = np.ndarray[tuple[Any, ...], np.dtype[np.uint8]]


def code_lengths(counts: npt.NDArray[np.int64], longest: int = LONGEST_CODE) -> Lengths:
    """Lengths of an optimal prefix code whose codes have at most `longest` bits.

    Package-merge (Larmore, Hirschberg 1990). Symbols that do not occur get length 0; a symbol that
    occurs alone gets 1.
    """
    lengths = np.zeros(len(counts), np.uint8)
    present: list[tuple[int, tuple[int, ...]]] = sorted(
        (int(counts[s]), (int(s),)) for s in np.flatnonzero(counts)
    )
    if len(present) == 1:
        lengths[present[0][1][0]] = 1
        return lengths
    if not present:
        return lengths
    packages = present
    for _ in range(longest - 1):
        pairs = [
            (a[0] + b[0], a[1] + b[1]) for a, b in zip(packages[0::2], packages[1::2], strict=False)
        ]
        packages = list(heapq.merge(present, pairs, key=lambda package: package[0]))
    for _, symbols in packages[: 2 * len(present) - 2]:
        np.add.at(lengths, list(symbols), 1)
    return lengths


def _gaps(positions: npt.NDArray[np.int64]) -> Symbols:
    """4-bit gap symbols of ascending positions, fillers included."""
    runs = np.diff(positions, prepend=-1) - 1  # zeros before each weight
    fillers = runs // GAP_FILLER
    symbols = np.full(int(fillers.sum()) + len(runs), GAP_FILLER, np.uint16)
    symbols[np.cumsum(fillers + 1) - 1] = (runs % GAP_FILLER).astype(np.uint16)
    return symbols


def _pack_lengths(lengths: Lengths) -> bytes:
    """Two lengths a byte, the first in the low half."""
    even = np.append(lengths, np.zeros(len(lengths) % 2, np.uint8))
    return (even[0::2] | even[1::2] << 4).astype(np.uint8).tobytes()


def _unpack_lengths(packed: memoryview, count: int) -> Lengths:
    raw = np.frombuffer(packed, np.uint8)
    return np.stack([raw & 15, raw >> 4], axis=1).reshape(-1)[:count]


def _encode_symbols(symbols: Symbols, alphabet: int) -> bytes:
    lengths = code_lengths(np.bincount(symbols, minlength=alphabet))
    stream = engine.encode(
        "huffman_encode", 2 * len(symbols) + 8, symbols, len(symbols), lengths, alphabet
    )
    return _pack_lengths(lengths) + stream


def encode(tensor: SharedTensor) -> tuple[bytes, bytes]:
    """Parameters and payload of a shared tensor with at most 32,768 centroids beside zero."""
    flat = tensor.levels.reshape(-1)
    positions = np.flatnonzero(flat)
    levels = flat[positions]
    codes = (levels + tensor.zero - (levels > 0)).astype(np.uint16)
    table = np.delete(tensor.centroids, tensor.zero)
    gaps = _gaps(positions)
    where = _encode_symbols(gaps, 16)
    mode = _GAPS
    bitmap = np.packbits(flat != 0, bitorder="little").tobytes()
    if len(bitmap) <= len(where):
        where, mode, gaps = bitmap, _BITMAP, gaps[:0]
    payload = table.astype("<f4").tobytes() + where + _encode_symbols(codes, len(table))
    return _PARAMETERS.pack(len(table), len(gaps), mode), payload


class _Reader:
    """Takes a payload apart, front to back."""

    def __init__(self, payload: memoryview) -> None:
        self._rest = payload

    def take(self, size: int) -> memoryview:
        if size > len(self._rest):
            raise CoderError("the payload ends too early")
        taken, self._rest = self._rest[:size], self._rest[size:]
        return taken

    def symbols(self, count: int, alphabet: int) -> Symbols:
        lengths = _unpack_lengths(self.take((alphabet + 1) // 2), alphabet)
        if count > 8 * len(self._rest):  # a code has at least one bit
            raise CoderError(f"{count} codes cannot lie in {len(self._rest)} bytes")
        out = np.zeros(count, np.uint16)
        data = engine.read_only(self._rest)
        used = engine.coders().call(
            "huffman_decode", data, len(data), out, count, lengths, alphabet
        )
        self.take(used)
        return out

    def finish(self) -> None:
        if len(self._rest):
            raise CoderError(f"{len(self._rest)} bytes are left over in a payload")


def decode(shape: tuple[int, ...], parameters: bytes, payload: memoryview) -> SharedTensor:
    """The shared tensor.

    Raises:
        CoderError: if the parameters or the payload cannot be.
    """
    if len(parameters) != _PARAMETERS.size:
        raise CoderError(f"{len(parameters)} bytes of parameters where {_PARAMETERS.size} belong")
    centroids, gap_count, mode = _PARAMETERS.unpack(parameters)
    size = math.prod(shape)
    reader = _Reader(payload)
    table = np.frombuffer(reader.take(4 * centroids), "<f4").astype(np.float32)
    if mode == _GAPS:
        gaps = reader.symbols(gap_count, 16).astype(np.int64)
        ends = np.cumsum(gaps + (gaps != GAP_FILLER)) - 1
        positions = ends[gaps != GAP_FILLER]
        if len(ends) and int(ends[-1]) >= size:
            raise CoderError("the gaps reach past the end of the tensor")
    elif mode == _BITMAP and gap_count == 0:
        bits = np.unpackbits(
            np.frombuffer(reader.take((size + 7) // 8), np.uint8), bitorder="little"
        )
        if bits[size:].any():
            raise CoderError("the bitmap is longer than the tensor")
        positions = np.flatnonzero(bits)
    else:
        raise CoderError(f"{mode} is not a known way to code positions")
    codes = reader.symbols(len(positions), centroids).astype(np.int32)
    reader.finish()
    negatives = int(np.count_nonzero(table < 0))
    levels = np.zeros(size, np.int32)
    levels[positions] = codes - negatives + (codes >= negatives)
    return shared_tensor(levels.reshape(shape), table)
