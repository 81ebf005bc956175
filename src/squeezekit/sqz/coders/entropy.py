"""The entropy coders: shared weights and float32 arrays, by adaptive context mixing (native/)."""

from __future__ import annotations

import math
import struct
from typing import TYPE_CHECKING

import numpy as np

from squeezekit.errors import CoderError
from squeezekit.sqz.coders import engine
from squeezekit.sqz.network import Floats, SharedTensor

if TYPE_CHECKING:
    import numpy.typing as npt

_SHARED = struct.Struct("<HB")
_MANTISSA_BITS = 23


def as_matrix_of_kernels(shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    """(rows, columns, height, width) under which a tensor of any rank is coded.

    A convolution's weight (out, in, kh, kw) is itself; (out, in) has kernels of one weight; a
    vector is a column; more than four axes fold the third to the last but one into the height.
    """
    rows, columns, *kernel = (*shape, *(1,) * (2 - len(shape)))
    width = kernel[-1] if kernel else 1
    return rows, columns, math.prod(kernel[:-1]), width


def dropped_bits(values: npt.NDArray[np.uint32]) -> int:
    """How many of the lowest mantissa bits are zero in every value (at most all 23)."""
    together = int(np.bitwise_or.reduce(values, initial=0))
    if together == 0:
        return _MANTISSA_BITS
    return min(_MANTISSA_BITS, (together & -together).bit_length() - 1)


def encode_shared(tensor: SharedTensor) -> tuple[bytes, bytes]:
    """Parameters and payload of a shared tensor with at most 65,535 centroids beside zero."""
    table = np.delete(tensor.centroids, tensor.zero).view(np.uint32)
    drop = dropped_bits(table)
    payload = engine.encode_in(
        "shared",
        64 + 5 * len(table) + 6 * tensor.size,
        np.ascontiguousarray(tensor.levels).reshape(-1),
        np.array(as_matrix_of_kernels(tensor.shape), np.uint32),
        table,
        len(table),
        drop,
    )
    return _SHARED.pack(len(table), drop), payload


def decode_shared(shape: tuple[int, ...], parameters: bytes, payload: memoryview) -> SharedTensor:
    """The shared tensor.

    Raises:
        CoderError: if the parameters or the payload cannot be.
    """
    count, drop = table_size(parameters)
    levels = np.zeros(math.prod(shape), np.int32)
    table = np.zeros(count, np.uint32)
    dimensions = np.array(as_matrix_of_kernels(shape), np.uint32)
    engine.decode_from("shared", payload, levels, dimensions, table, count, drop)
    return shared_tensor(levels.reshape(shape), table.view(np.float32))


def encode_table(table: Floats) -> bytes:
    """The payload of a table alone: of a shared tensor without weights."""
    centroids = np.insert(table, int(np.searchsorted(table, 0.0)), np.float32(0.0))
    zero = int(np.searchsorted(centroids, 0.0))
    return encode_shared(SharedTensor(np.zeros(0, np.int32), centroids, zero))[1]


def decode_table(payload: memoryview, parameters: bytes) -> Floats:
    """What `encode_table` coded: a shared tensor's centroids other than zero, ascending.

    Raises:
        CoderError: if the parameters or the payload cannot be.
    """
    tensor = decode_shared((0,), parameters, payload)
    return np.delete(tensor.centroids, tensor.zero)


def table_size(parameters: bytes) -> tuple[int, int]:
    """How many centroids there are beside zero, and how many bits of their mantissas are dropped.

    Raises:
        CoderError: if the parameters of a shared tensor cannot be.
    """
    if len(parameters) != _SHARED.size:
        raise CoderError(f"{len(parameters)} bytes of parameters where {_SHARED.size} belong")
    count, drop = _SHARED.unpack(parameters)
    if drop > _MANTISSA_BITS:
        raise CoderError(f"{drop} dropped bits of a mantissa of {_MANTISSA_BITS}")
    return count, drop


def shared_tensor(levels: npt.NDArray[np.int32], table: Floats) -> SharedTensor:
    """A shared tensor from its levels and its centroids other than zero, ascending.

    Raises:
        CoderError: if they are not finite and ascending, or a level has no centroid.
    """
    if not np.all(np.isfinite(table)):
        raise CoderError("a centroid is not a finite number")
    zero = int(np.searchsorted(table, np.float32(0.0)))
    centroids = np.insert(table, zero, np.float32(0.0))
    try:
        return SharedTensor(levels, centroids, zero)
    except ValueError as error:
        raise CoderError(str(error)) from None


def encode_floats(values: Floats) -> tuple[bytes, bytes]:
    """Parameters and payload of any float32 array; bit for bit, NaN and -0.0 included."""
    bits = np.ascontiguousarray(values, np.float32).reshape(-1).view(np.uint32)
    drop = dropped_bits(bits)
    return bytes([drop]), engine.encode_in("floats", 64 + 6 * bits.size, bits, bits.size, drop)


def decode_floats(shape: tuple[int, ...], parameters: bytes, payload: memoryview) -> Floats:
    """The values in their shape.

    Raises:
        CoderError: if the parameters or the payload cannot be.
    """
    drop = floats_drop(parameters)
    bits = np.zeros(math.prod(shape), np.uint32)
    engine.decode_from("floats", payload, bits, bits.size, drop)
    return bits.view(np.float32).reshape(shape)


def floats_drop(parameters: bytes) -> int:
    """How many bits of all mantissas are dropped.

    Raises:
        CoderError: if the parameters of coded floats cannot be.
    """
    if len(parameters) != 1 or parameters[0] > _MANTISSA_BITS:
        raise CoderError("the parameters of coded floats must be one byte of at most 23")
    return parameters[0]
