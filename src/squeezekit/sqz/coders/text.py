"""The text coder: the head of a file, mostly names, by context mixing (native/)."""

from __future__ import annotations

import numpy as np

from squeezekit.errors import CoderError
from squeezekit.sqz.coders import engine

MOST_BYTES = 1 << 18
"""Of a text: each byte takes a third of a microsecond, and a payload may be far shorter."""


def encode(text: bytes) -> bytes:
    """The payload of at most MOST_BYTES of text, or of any other bytes."""
    data = np.frombuffer(text, np.uint8).copy()
    return engine.encode_in("text", 64 + 2 * len(text), data, len(text))


def decode(payload: bytes | memoryview, size: int) -> bytes:
    """The text.

    Raises:
        CoderError: where it is larger than may be, or the payload does not decode to its size.
    """
    if size > MOST_BYTES:
        raise CoderError(f"a text of {size} bytes is more than {MOST_BYTES}")
    data = np.zeros(size, np.uint8)
    engine.decode_from("text", payload, data, size)
    return data.tobytes()
