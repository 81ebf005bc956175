"""The half coder: float16 values, for tensors that float16 holds exactly."""

from __future__ import annotations

import math

import numpy as np

from squeezekit.errors import CoderError
from squeezekit.sqz.network import Floats, Tensor, tensor_values


def fits(tensor: Tensor) -> bool:
    """Whether every value survives float16 bit for bit."""
    values = tensor_values(tensor)
    with np.errstate(over="ignore"):
        back = values.astype(np.float16).astype(np.float32)
    return bool(np.array_equal(back.view(np.uint32), values.view(np.uint32)))


def encode(tensor: Tensor) -> tuple[bytes, bytes]:
    """Parameters (none) and payload of a tensor that `fits`."""
    return b"", tensor_values(tensor).astype("<f2").tobytes()


def decode(shape: tuple[int, ...], parameters: bytes, payload: memoryview) -> Floats:
    """The values in their shape, as float32.

    Raises:
        CoderError: if the payload does not have 2 bytes a value.
    """
    if parameters or len(payload) != 2 * math.prod(shape):
        raise CoderError(f"a half payload of {len(payload)} bytes does not fill shape {shape}")
    return np.frombuffer(payload, "<f2").reshape(shape).astype(np.float32)
