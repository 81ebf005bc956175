"""Tensors of a network: float32 arrays, and weights that share a small table of values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

# As numpy.typing.NDArray, which takes 13 ms to import: as long as a small network to read.
Floats = np.ndarray[tuple[Any, ...], np.dtype[np.float32]]
Levels = np.ndarray[tuple[Any, ...], np.dtype[np.int32]]


@dataclass(frozen=True, eq=False)
class SharedTensor:
    """Weights that share a small table of values (Han et al. 2016, section 3).

    Attributes:
        levels: int32, the shape of the weight. Level 0 is a pruned weight, exactly 0.0; level k
            stands for `centroids[zero + k]`.
        centroids: float32 (n,), strictly ascending, finite, holding 0.0 at index `zero`.
        zero: index of 0.0 in `centroids`.
    """

    levels: Levels
    centroids: Floats
    zero: int

    def __post_init__(self) -> None:
        if self.levels.dtype != np.int32 or self.centroids.dtype != np.float32:
            raise TypeError("levels must be int32 and centroids float32")
        if not 0 <= self.zero < len(self.centroids) or self.centroids[self.zero] != 0.0:
            raise ValueError("centroids must hold 0.0 at index zero")
        if not np.all(self.centroids[1:] > self.centroids[:-1]):  # also false where one is NaN
            raise ValueError("centroids must be strictly ascending")
        if self.levels.size and not (
            -self.zero <= int(self.levels.min())
            and int(self.levels.max()) < len(self.centroids) - self.zero
        ):
            raise ValueError("a level points outside the centroids")

    @classmethod
    def from_values(cls, values: Floats) -> SharedTensor:
        """Share equal values: lossless; every -0.0 becomes 0.0."""
        values = np.ascontiguousarray(values, dtype=np.float32) + np.float32(0.0)
        centroids = np.union1d(values.ravel(), np.zeros(1, np.float32)).astype(np.float32)
        zero = int(np.searchsorted(centroids, 0.0))
        levels = np.searchsorted(centroids, values.ravel()).astype(np.int32) - np.int32(zero)
        return cls(levels.reshape(values.shape), centroids, zero)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the weight."""
        return self.levels.shape

    @property
    def size(self) -> int:
        """Number of weights, pruned ones included."""
        return self.levels.size

    def values(self) -> Floats:
        """The weights as float32, in the shape of `levels`."""
        return self.centroids[self.levels + self.zero]


Tensor = Floats | SharedTensor


def tensor_values(tensor: Tensor) -> Floats:
    """The float32 values of a tensor, shared or plain."""
    return tensor.values() if isinstance(tensor, SharedTensor) else tensor


def with_mantissa(values: Floats, mantissa_bits: int) -> Floats:
    """Round float32 values to fewer mantissa bits, halves to even.

    Args:
        values: finite, any shape.
        mantissa_bits: 1 to 23.
    """
    drop = 23 - mantissa_bits
    if drop == 0:
        return values
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    half_less_one = np.uint32((1 << (drop - 1)) - 1)
    odd = (bits >> np.uint32(drop)) & np.uint32(1)
    # A carry out of the mantissa raises the exponent, as it should.
    kept = (bits + half_less_one + odd) & np.uint32(0xFFFFFFFF << drop & 0xFFFFFFFF)
    # Only the very largest numbers would be carried to infinity, and only the least to zero.
    fine = np.isfinite(kept.view(np.float32)) & (kept << np.uint32(1) != 0)
    return np.where(fine, kept, bits).view(np.float32)


def mantissa_bits(values: Floats) -> int:
    """The fewest mantissa bits, 1 to 23, that `with_mantissa` leaves float32 values whole by."""
    return next(b for b in range(1, 24) if np.array_equal(with_mantissa(values, b), values))
