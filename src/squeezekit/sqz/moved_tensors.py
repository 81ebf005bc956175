"""One tensor of a `.sqzd`: the payload of a new file, told by what the old file has there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from squeezekit.errors import CoderError
from squeezekit.sqz.coders import entropy, grid, moved
from squeezekit.sqz.head import FLOATS, GRID, SHARED, HeadReader, sized
from squeezekit.sqz.network import SharedTensor, Tensor, tensor_values

if TYPE_CHECKING:
    from squeezekit.sqz.network import Floats, Levels

_OLD_TABLE, _OWN_TABLE, _MOVED_TABLE = range(3)


def encode(
    number: int, shape: tuple[int, ...], parameters: bytes, payload: bytes, old: Tensor
) -> bytes | None:
    """What `decode` makes the payload of.

    Args:
        number: of the payload's coder.
        shape: of the tensor, as the old one has it.
        parameters: of the coder.
        payload: as it is in the new file.
        old: the tensor of the same name in the old file.

    Returns:
        The bytes; None if the payload can only be stored as it is: it has another coder, or
        its writer coded in a way of its own.
    """
    if number == SHARED:
        found = entropy.decode_shared(shape, parameters, memoryview(payload))
        if entropy.encode_shared(found) != (parameters, payload):
            return None
        table, told = np.delete(found.centroids, found.zero), _table(found, parameters, old)
        return told + sized(_levels(found.levels, table, old))
    values = tensor_values(old)
    if number == FLOATS:
        floats = entropy.decode_floats(shape, parameters, memoryview(payload))
        if entropy.encode_floats(floats) != (parameters, payload):
            return None
        return sized(moved.encode_floats(floats, values, entropy.floats_drop(parameters)))
    if number == GRID:
        scale, _ = grid.scale_and_kind(parameters)
        whole = grid.decode_whole(shape, payload)
        if grid.encode_whole(whole) != payload:
            return None
        most = grid.MOST_WHOLE
        return sized(moved.encode_levels(whole, moved.whole_like(values, scale), most, most))
    return None


def decode(
    number: int, shape: tuple[int, ...], parameters: bytes, reader: HeadReader, old: Tensor
) -> bytes:
    """The payload that `encode` was given.

    Args:
        number: of the payload's coder.
        shape: of the tensor.
        parameters: of the coder.
        reader: stands at the bytes of `encode`, and is moved behind them.
        old: the tensor of the same name in the old file.

    Raises:
        FormatError: if the bytes cannot be.
    """
    if old.shape != shape:
        raise CoderError(f"it has the shape {shape}, and what it is told by {old.shape}")
    if number == SHARED:
        return _decode_shared(parameters, reader, old)
    values = tensor_values(old)
    if number == FLOATS:
        drop = entropy.floats_drop(parameters)
        floats = moved.decode_floats(memoryview(reader.sized()), values, drop)
        return _payload(parameters, *entropy.encode_floats(floats))
    if number == GRID:
        scale, _ = grid.scale_and_kind(parameters)
        before, most = moved.whole_like(values, scale), grid.MOST_WHOLE
        levels = moved.decode_levels(memoryview(reader.sized()), before, most, most)
        return grid.encode_whole(levels)
    raise CoderError(f"what coder {number} codes is not told by what it was")


def _table(tensor: SharedTensor, parameters: bytes, old: Tensor) -> bytes:
    """The table, in the fewest bytes: that of the old one, one of its own, or what moved."""
    table = np.delete(tensor.centroids, tensor.zero)
    own = bytes([_OWN_TABLE]) + sized(entropy.encode_table(table))
    if not isinstance(old, SharedTensor) or len(old.centroids) != len(tensor.centroids):
        return own
    if np.array_equal(old.centroids, tensor.centroids):
        return bytes([_OLD_TABLE])
    before, (_, drop) = np.delete(old.centroids, old.zero), entropy.table_size(parameters)
    return min(
        own, bytes([_MOVED_TABLE]) + sized(moved.encode_floats(table, before, drop)), key=len
    )


def _levels(levels: Levels, table: Floats, old: Tensor) -> bytes:
    negatives = int(np.count_nonzero(table < 0))
    before = moved.levels_like(tensor_values(old), table)
    return moved.encode_levels(levels, before, negatives, len(table) - negatives)


def _decode_shared(parameters: bytes, reader: HeadReader, old: Tensor) -> bytes:
    count, drop = entropy.table_size(parameters)
    kind = reader.take(1)[0]
    table: Floats
    if kind == _OWN_TABLE:
        table = entropy.decode_table(memoryview(reader.sized()), parameters)
    elif kind > _MOVED_TABLE:
        raise CoderError(f"{kind} is no way to tell a table")
    elif not isinstance(old, SharedTensor) or len(old.centroids) != count + 1:
        raise CoderError("its table is told by one that has another size")
    else:
        table = np.delete(old.centroids, old.zero)
        if kind == _MOVED_TABLE:
            table = moved.decode_floats(memoryview(reader.sized()), table, drop)
    entropy.shared_tensor(np.zeros(0, np.int32), table)  # the table can be
    negatives = int(np.count_nonzero(table < 0))
    before = moved.levels_like(tensor_values(old), table)
    levels = moved.decode_levels(
        memoryview(reader.sized()), before, negatives, len(table) - negatives
    )
    return _payload(parameters, *entropy.encode_shared(entropy.shared_tensor(levels, table)))


def _payload(parameters: bytes, needed: bytes, payload: bytes) -> bytes:
    """The payload of a tensor that was coded again, if its parameters are those that were told."""
    if parameters != needed:
        raise CoderError("its parameters are not those of what it is told to be")
    return payload
