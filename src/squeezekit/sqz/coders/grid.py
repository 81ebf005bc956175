"""The grid coder: whole numbers times one scale, as quantised networks have them."""

from __future__ import annotations

import math
import struct
from typing import TYPE_CHECKING

import numpy as np

from squeezekit.errors import CoderError
from squeezekit.sqz.coders import engine
from squeezekit.sqz.coders.entropy import as_matrix_of_kernels
from squeezekit.sqz.network import Floats, Levels, SharedTensor, Tensor

if TYPE_CHECKING:
    import numpy.typing as npt

MOST_WHOLE = 1 << 22
"""Up to this times a scale, each whole number rounds to a float32 of its own."""

_PARAMETERS = struct.Struct("<fB")
_LEAST_SCALE, _MOST_SCALE = 2.0**-126, 2.0**104
"""No product is subnormal, so that processors that flush these agree, and none overflows."""

_FLOATS, _SHARED = 0, 1

# A grid is looked for so that the smallest magnitude is 1 to _MOST_STEPS steps, and the largest at
# most _MOST_FOUND: beyond, float32 is too coarse to tell a grid from chance.
_MOST_STEPS = 1 << 16
_MOST_FOUND = 1 << 20
_FEW = 64

_MOST_COUNTED = 1 << 16
"""Numbers of a larger range are sorted instead, so that a forged payload takes no memory."""


def find(tensor: Tensor) -> tuple[np.float32, Levels] | None:
    """A scale and the whole numbers that times it are the tensor, bit for bit.

    Every product is one float32 multiplication, as a reader of quantised networks makes it.

    Returns:
        The scale, and int32 in the shape of the tensor; None where none was found, or where a
        shared tensor has centroids that no weight uses.
    """
    if isinstance(tensor, SharedTensor):
        used = np.zeros(len(tensor.centroids), bool)
        used[tensor.zero] = True
        used[(tensor.levels + tensor.zero).reshape(-1)] = True
        if not used.all():
            return None
        found = _of_values(tensor.centroids)
        return None if found is None else (found[0], found[1][tensor.levels + tensor.zero])
    flat = tensor.reshape(-1)
    if (flat.view(np.uint32) == 1 << 31).any() or _of_values(flat[:4096]) is None:  # no -0.0
        return None
    found = _of_values(flat)
    return None if found is None else (found[0], found[1].reshape(tensor.shape))


def _of_values(values: Floats) -> tuple[np.float32, Levels] | None:
    if not np.all(np.isfinite(values)):
        return None
    sizes = np.unique(np.abs(values.astype(np.float64)))
    sizes = sizes[sizes > 0]
    if not len(sizes):
        return np.float32(1), np.zeros(len(values), np.int32)
    steps = sizes[0] / np.arange(1, _MOST_STEPS + 1)
    steps = steps[sizes[-1] <= steps * _MOST_FOUND]
    some = sizes[:: max(len(sizes) // _FEW, 1)]
    for size in (sizes[-1], *some):  # steps of which a size is no multiple go
        whole = size / steps
        steps = steps[np.abs(whole - np.rint(whole)) <= whole * 2.0**-22]
    if not len(steps):
        return None
    whole = np.rint(sizes / steps[0])
    # What rounds to a size lies within half of its last place: the scales that do for all of them.
    half = np.spacing(sizes.astype(np.float32)).astype(np.float64) / 2
    middle = np.float32((np.max((sizes - half) / whole) + np.min((sizes + half) / whole)) / 2)
    for scale in (middle, np.nextafter(middle, np.float32(0)), np.nextafter(middle, np.float32(1))):
        if not _LEAST_SCALE <= scale <= _MOST_SCALE:
            continue
        levels = np.rint(values.astype(np.float64) / np.float64(scale)).astype(np.int32)
        if np.array_equal(np.float32(scale) * levels.astype(np.float32), values):
            return np.float32(scale), levels
    return None


def encode(tensor: Tensor, scale: np.float32, whole: Levels) -> tuple[bytes, bytes]:
    """Parameters and payload of a tensor, with what `find` gave for it."""
    kind = _SHARED if isinstance(tensor, SharedTensor) else _FLOATS
    return _PARAMETERS.pack(scale, kind), encode_whole(whole)


def encode_whole(whole: Levels) -> bytes:
    """The payload."""
    flat = np.ascontiguousarray(whole, np.int32).reshape(-1)
    dimensions = np.array(as_matrix_of_kernels(whole.shape), np.uint32)
    return engine.encode_in("whole", 64 + 8 * flat.size, flat, dimensions)


def decode_whole(shape: tuple[int, ...], payload: bytes | memoryview) -> Levels:
    """The whole numbers.

    Raises:
        CoderError: if the payload cannot be.
    """
    whole = np.zeros(math.prod(shape), np.int32)
    dimensions = np.array(as_matrix_of_kernels(shape), np.uint32)
    engine.decode_from("whole", payload, whole, dimensions)
    return whole.reshape(shape)


def scale_and_kind(parameters: bytes) -> tuple[float, int]:
    """What the parameters of a grid say.

    Raises:
        CoderError: if they cannot be.
    """
    if len(parameters) != _PARAMETERS.size:
        raise CoderError(f"{len(parameters)} bytes of parameters where {_PARAMETERS.size} belong")
    scale, kind = _PARAMETERS.unpack(parameters)
    if not _LEAST_SCALE <= scale <= _MOST_SCALE:
        raise CoderError(f"a grid cannot have the scale {scale}")
    if kind not in (_FLOATS, _SHARED):
        raise CoderError(f"{kind} is no kind of grid")
    return float(scale), int(kind)


def decode(shape: tuple[int, ...], parameters: bytes, payload: memoryview) -> Tensor:
    """The tensor.

    Raises:
        CoderError: where the parameters or the payload cannot be.
    """
    scale, kind = scale_and_kind(parameters)
    whole = decode_whole(shape, payload)
    if kind == _FLOATS:
        return np.float32(scale) * whole.astype(np.float32)
    return _shared(whole, np.float32(scale))


def _shared(whole: Levels, scale: np.float32) -> SharedTensor:
    """Its centroids are the numbers that occur, and zero."""
    flat = whole.reshape(-1)
    low, high = min(int(flat.min(initial=0)), 0), max(int(flat.max(initial=0)), 0)
    occurring: Levels
    if high - low > _MOST_COUNTED:
        occurring, number = np.unique(np.append(flat, np.int32(0)), return_inverse=True)
        zero = int(np.searchsorted(occurring, 0))
        levels = (number[:-1] - zero).astype(np.int32).reshape(whole.shape)
    else:
        present: npt.NDArray[np.bool_] = np.zeros(high - low + 1, bool)
        present[-low] = True
        present[flat - low] = True
        occurring = (np.flatnonzero(present) + low).astype(np.int32)
        zero = int(np.searchsorted(occurring, 0))
        levels = (np.cumsum(present, dtype=np.int32) - np.int32(1 + zero))[whole - low]
    return SharedTensor(levels, scale * occurring.astype(np.float32), zero)
