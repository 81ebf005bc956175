"""How much a file may need before it is refused: limits that the caller sets."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from squeezekit.errors import InputError, LimitError

_SMALL_FILE = 1 << 20
"""Files up to this size have the limits of `_SMALL`; each further byte adds `_A_BYTE`."""

_SMALL = {"weights": 4_500_000, "memory": 96 << 20, "macs": 8_000_000_000}
_A_BYTE = {"weights": 64, "memory": 512, "macs": 8192}

_UNITS = {
    "file_bytes": "bytes", "tensors": "tensors", "weights": "weights",
    "memory": "bytes of memory", "macs": "multiply-accumulates an image",
    "text_bytes": "bytes of labels and other metadata",
}  # fmt: skip


@dataclass(frozen=True)
class Limits:
    """How much a file may need; all of it is known before the first tensor is decoded.

    What needs more is refused with a `LimitError`. If a field is None, the size of the
    file decides. Files up to 1 MiB may have 4,500,000 weights, 96 MiB of memory and 8 billion
    multiply-accumulates. Each further byte allows 64 more weights, 512 more bytes of memory and
    8,192 more multiply-accumulates. VGG-16 in 8 MB fits; 200 KB that expand to 60 MB do not.

    Attributes:
        file_bytes: the largest size of the file.
        tensors: how many tensors there may be (a layer's weights and biases are two). The graph may
            have as many nodes.
        weights: how many numbers all tensors together may have.
        memory: how many bytes the weights as float32 may take, together with the activations that
            are alive at the same time while the network runs on one image.
        macs: how many multiply-accumulates one image may take.
        pixels: how many pixels an image to classify may have, before it is resized.
        seconds: how long opening a `.sqz` may take; checked before each tensor is decoded.
        text_bytes: how many bytes the metadata may have: labels, provenance.
    """

    file_bytes: int = 1 << 30
    tensors: int = 4096
    weights: int | None = None
    memory: int | None = None
    macs: int | None = None
    pixels: int = 179_000_000
    seconds: float = 60.0
    text_bytes: int = 1 << 20

    def check(self, what: str, asked: int, file_bytes: int) -> None:
        """Refuse a file that needs too much.

        Args:
            what: name of the field.
            asked: how much the file needs.
            file_bytes: size of the file.

        Raises:
            LimitError: if it is more than that.
        """
        most = self.most(what, file_bytes)
        if asked > most:
            raise beyond(f"it asks for {asked:,} {_UNITS[what]}, and the limit is {most:,}")

    def most(self, what: str, file_bytes: int) -> int:
        """How much a file of this size may need, by the name of a field."""
        most: int | None = getattr(self, what)
        if most is None:
            beyond = max(file_bytes - _SMALL_FILE, 0)
            most = _SMALL[what] + beyond * _A_BYTE[what]
        return most

    @property
    def head_bytes(self) -> int:
        """Bytes of a decompressed head: the metadata, the graph and the records of all tensors."""
        return min(self.text_bytes + 2048 * self.tensors, 64 << 20)


TRUSTED = Limits(
    file_bytes=(1 << 32) - 1, tensors=100_000, weights=1 << 28, memory=1 << 62, macs=1 << 62,
    seconds=float("inf"), text_bytes=64 << 20,
)  # fmt: skip
"""For files from people you trust: only the format's own limits hold. Photos come from others."""

DEFAULT = Limits()
"""For files from strangers."""


def limits_named(name: str | Limits) -> Limits | None:
    """The limits by a command line's word for them, "default" or "none"; others as they are.

    Raises:
        InputError: if there are no such limits.
    """
    if isinstance(name, Limits):
        return name
    if name not in ("default", "none"):
        raise InputError(f"there are no limits {name!r}: use none, for a file that you trust")
    return DEFAULT if name == "default" else None


def beyond(reason: str) -> LimitError:
    """The error of a file that needs too much.

    Args:
        reason: what it needs, as a sentence without its end.
    """
    return LimitError(f"{reason}; if you trust the file, lift the limits")


def check_file_bytes(path: Path, limits: Limits | None) -> None:
    """Refuse a file of any kind that is too large to be read; limits of None refuse none.

    Raises:
        LimitError: the error names the file.
    """
    if limits is None or not path.is_file():  # who reads it says that it is missing
        return
    if (size := path.stat().st_size) > limits.file_bytes:
        raise beyond(f"{path}: has {size:,} bytes, and the limit is {limits.file_bytes:,}")
