"""How much a file may ask for before it is refused: limits that the caller sets."""

from __future__ import annotations

from dataclasses import dataclass

from squeezekit.errors import LimitError

_SMALL_FILE = 1 << 20
"""Files up to this size have the limits of `_SMALL`; each byte more raises them by `_A_BYTE`."""

_SMALL = {"weights": 4_500_000, "memory": 96 << 20, "macs": 8_000_000_000}
_A_BYTE = {"weights": 64, "memory": 512, "macs": 8192}

_UNITS = {
    "file_bytes": "bytes", "tensors": "tensors", "weights": "weights",
    "memory": "bytes of memory", "macs": "multiply-accumulates an image",
    "text_bytes": "bytes of labels and other metadata",
}  # fmt: skip


@dataclass(frozen=True)
class Limits:
    """What a file may ask for, all of it known before its first tensor is decoded.

    A `.sqz` that asks for more is refused with a `LimitError`. Where a field is None, the size of
    the file decides: files up to 1 MiB may have 4,500,000 weights, 96 MiB of memory and 8 billion
    multiply-accumulates; every byte more allows 64 weights, 512 bytes and 8,192
    multiply-accumulates more. VGG-16 in 8 MB fits, and 200 KB that become 60 MB do not.

    Attributes:
        file_bytes: of the file.
        tensors: weights and biases count as one each; the graph may have as many nodes.
        weights: numbers in all tensors together.
        memory: bytes of the weights as float32 and of the values that live at once while the
            network runs on one image.
        macs: multiply-accumulates for one image.
        pixels: of an image that is classified, before it is resized.
        seconds: that opening may take; looked at before each tensor is decoded.
        text_bytes: of the metadata: labels, provenance.
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
        """Refuse what is too much.

        Args:
            what: name of the field.
            asked: what the file asks for.
            file_bytes: size of the file.

        Raises:
            LimitError: one sentence that says what to do for a file that is trusted.
        """
        most = getattr(self, what)
        if most is None:
            beyond = max(file_bytes - _SMALL_FILE, 0)
            most = _SMALL[what] + beyond * _A_BYTE[what]
        if asked > most:
            raise LimitError(
                f"the file asks for {asked:,} {_UNITS[what]}, more than the {most:,} that its "
                "reader allows (if you trust it: --limits none)"
            )

    @property
    def head_bytes(self) -> int:
        """Bytes of an inflated head: the metadata, and the graph and records of all tensors."""
        return min(self.text_bytes + 2048 * self.tensors, 64 << 20)


TRUSTED = Limits(
    file_bytes=(1 << 32) - 1, tensors=100_000, weights=1 << 28, memory=1 << 62, macs=1 << 62,
    pixels=1 << 40, seconds=float("inf"), text_bytes=64 << 20,
)  # fmt: skip
"""For files whose maker is trusted: only what no file of the format may have is refused."""

DEFAULT = Limits()
"""For files of strangers."""
