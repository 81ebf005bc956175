"""The coders of `.sqzd` files: a tensor by what another file has in its place (native/)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from squeezekit.errors import CoderError
from squeezekit.sqz.coders import engine, text
from squeezekit.sqz.coders.entropy import as_matrix_of_kernels
from squeezekit.sqz.coders.grid import MOST_WHOLE
from squeezekit.sqz.network import Floats, Levels

if TYPE_CHECKING:
    import numpy.typing as npt

    Bits = npt.NDArray[np.uint32]

_SIGN = np.uint32(1 << 31)


def levels_like(values: Floats, table: Floats) -> Levels:
    """The levels of a table that come nearest to another network's values.

    "Near" is by the order of float32's bits, whose whole numbers grow as the logarithm does, so
    that all readers agree, and so that what is zero, and nothing else, becomes level 0.

    Args:
        values: any shape.
        table: (n,) centroids other than zero, strictly ascending.

    Returns:
        int32 in the shape of `values`; 0 also where the table has no centroid of the sign.
    """
    bits = _bits(values)
    own = _bits(table)
    negatives = int(np.count_nonzero(own >> np.uint32(31)))
    levels = np.zeros(bits.shape, np.int32)
    for first, part, sign in ((0, own[:negatives], True), (negatives, own[negatives:], False)):
        chosen = (bits << np.uint32(1) != 0) & ((bits >> np.uint32(31) != 0) == sign)
        if not len(part) or not chosen.any():
            continue
        ordered = _ordered(part)
        # Half way between neighbours, rounded down; what lies there belongs to the lower one.
        middles = ((ordered[:-1].astype(np.uint64) + ordered[1:]) >> np.uint64(1)).astype(np.uint32)
        index = np.searchsorted(middles, _ordered(bits[chosen]), side="left") + first
        levels[chosen] = (index - negatives + (not sign)).astype(np.int32)
    return levels.reshape(values.shape)


def whole_like(values: Floats, scale: float) -> Levels:
    """The whole numbers of a grid that come nearest to another network's values.

    One quotient in float64, rounded with halves to even; what is no number or too large is brought
    to 0 and to the ends.

    Args:
        values: any shape.
        scale: of the grid.
    """
    quotients = np.nan_to_num(values.astype(np.float64) / scale, nan=0.0)
    return np.rint(np.clip(quotients, -MOST_WHOLE, MOST_WHOLE)).astype(np.int32)


def encode_levels(levels: Levels, old: Levels, negatives: int, positives: int) -> bytes:
    """The payload of levels where others are known; both in -negatives .. positives."""
    flat = np.ascontiguousarray(levels, np.int32).reshape(-1)
    return engine.encode_in(
        "moved", 64 + 16 * flat.size, flat, _known(old), _dimensions(levels.shape), negatives,
        positives,
    )  # fmt: skip


def decode_levels(payload: memoryview, old: Levels, negatives: int, positives: int) -> Levels:
    """The levels, in the shape of the old ones.

    Raises:
        CoderError: if the payload cannot be.
    """
    levels = np.zeros(old.size, np.int32)
    engine.decode_from(
        "moved", payload, levels, _known(old), _dimensions(old.shape), negatives, positives
    )
    return levels.reshape(old.shape)


def encode_floats(values: Floats, old: Floats, drop: int) -> bytes:
    """The payload of float32 values whose `drop` lowest bits are zero, where others are known."""
    bits = _bits(values).reshape(-1)
    return engine.encode_in(
        "moved_floats", 64 + 8 * bits.size, bits, _only_read(_bits(old)), bits.size, drop
    )


def decode_floats(payload: memoryview, old: Floats, drop: int) -> Floats:
    """The values, in the shape of the old ones.

    Raises:
        CoderError: if the payload cannot be.
    """
    bits = np.zeros(old.size, np.uint32)
    engine.decode_from("moved_floats", payload, bits, _only_read(_bits(old)), bits.size, drop)
    return bits.view(np.float32).reshape(old.shape)


def encode_text(data: bytes, known: bytes) -> bytes:
    """The payload of a text where another one is known."""
    both = np.frombuffer(known + data, np.uint8).copy()
    return engine.encode_in("text_behind", 64 + 2 * len(data), both, len(known), len(both))


def decode_text(payload: memoryview, size: int, known: bytes) -> bytes:
    """The text.

    Raises:
        CoderError: if it is larger than may be, or the payload does not decode to its size.
    """
    if size > text.MOST_BYTES:
        raise CoderError(f"a text of {size} bytes is more than {text.MOST_BYTES}")
    both = np.frombuffer(known + bytes(size), np.uint8).copy()
    engine.decode_from("text_behind", payload, both, len(known), len(both))
    return both[len(known) :].tobytes()


def _bits(values: Floats) -> Bits:
    return np.ascontiguousarray(values, np.float32).view(np.uint32)


def _ordered(bits: Bits) -> Bits:
    """Whole numbers in the order of the float32 values."""
    return np.where(bits >> np.uint32(31) != 0, ~bits, bits | _SIGN)


def _known(levels: Levels) -> Levels:
    flat: Levels = np.array(levels, np.int32).reshape(-1)
    flat.flags.writeable = False
    return flat


def _only_read(bits: Bits) -> Bits:
    bits = bits.reshape(-1).copy()
    bits.flags.writeable = False
    return bits


def _dimensions(shape: tuple[int, ...]) -> Bits:
    dimensions = np.array(as_matrix_of_kernels(shape), np.uint32)
    assert math.prod(shape) < 1 << 31
    return dimensions
