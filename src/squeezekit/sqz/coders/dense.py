"""The dense coder: float32 values as they are."""

from __future__ import annotations

import math

import numpy as np

from squeezekit.errors import CoderError
from squeezekit.sqz.network import Floats, Tensor, tensor_values


def encode(tensor: Tensor) -> tuple[bytes, bytes]:
    """Parameters (none) and payload of a tensor."""
    return b"", np.ascontiguousarray(tensor_values(tensor), "<f4").tobytes()


def decode(shape: tuple[int, ...], parameters: bytes, payload: memoryview) -> Floats:
    """The values in their shape.

    Raises:
        CoderError: if the payload does not have 4 bytes a value.
    """
    if parameters or len(payload) != 4 * math.prod(shape):
        raise CoderError(f"a dense payload of {len(payload)} bytes does not fill shape {shape}")
    return np.frombuffer(payload, "<f4").reshape(shape).astype(np.float32)
