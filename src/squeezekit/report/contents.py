"""Where every byte of a `.sqz` file went."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from squeezekit.errors import FormatError
from squeezekit.files import read_bytes
from squeezekit.sqz import container
from squeezekit.sqz.limits import DEFAULT, Limits
from squeezekit.sqz.network import Metadata, SharedTensor, tensor_values


@dataclass(frozen=True)
class TensorContents:
    """One tensor of a file.

    Attributes:
        name, shape: as in the graph.
        coder: how it is stored.
        nonzero: weights that are not exactly zero.
        centroids: size of its table of shared values, zero included; None if it has none.
        record_bytes: the size in bytes of its table or other parameters, within the head before
            it is coded.
        payload_bytes: the size in bytes of its coded values.
    """

    name: str
    shape: tuple[int, ...]
    coder: str
    nonzero: int
    centroids: int | None
    record_bytes: int
    payload_bytes: int

    @property
    def weights(self) -> int:
        """Number of weights, pruned ones included."""
        return math.prod(self.shape)

    @property
    def bits_per_weight(self) -> float:
        """Bits of the payload per weight, pruned ones included."""
        return 8 * self.payload_bytes / max(self.weights, 1)


@dataclass(frozen=True)
class FileContents:
    """A whole file: `header_bytes`, `head_bytes` and the tensors' payloads add up to it.

    Attributes:
        version: the version of the format, major and minor.
        metadata: what the network means.
        header_bytes: the size in bytes of the fixed header.
        head_parts: stored bytes of "metadata", "graph" and "records". They are deflated together:
            each has the share of its bytes before that.
        tensors: in the order of the file.
    """

    version: tuple[int, int]
    metadata: Metadata
    header_bytes: int
    head_parts: dict[str, int]
    tensors: tuple[TensorContents, ...]

    @property
    def head_bytes(self) -> int:
        """Stored bytes of metadata, graph and records."""
        return sum(self.head_parts.values())

    @property
    def payload_bytes(self) -> int:
        """Bytes of all coded tensors."""
        return sum(tensor.payload_bytes for tensor in self.tensors)

    @property
    def file_bytes(self) -> int:
        """Bytes of the whole file."""
        return self.header_bytes + self.head_bytes + self.payload_bytes

    @property
    def parameters(self) -> int:
        """Weights and biases, pruned ones included."""
        return sum(tensor.weights for tensor in self.tensors)

    @property
    def nonzero(self) -> int:
        """Weights and biases that are not exactly zero."""
        return sum(tensor.nonzero for tensor in self.tensors)

    @property
    def float_bytes(self) -> int:
        """What the parameters take as float32."""
        return 4 * self.parameters

    def as_json(self) -> dict[str, Any]:
        """The same as JSON takes it, for `info --json`."""
        return {
            "format_version": ".".join(map(str, self.version)),
            "file_bytes": self.file_bytes,
            "header_bytes": self.header_bytes,
            "head_bytes": self.head_bytes,
            "head_parts": self.head_parts,
            "payload_bytes": self.payload_bytes,
            "parameters": self.parameters,
            "nonzero": self.nonzero,
            "float32_bytes": self.float_bytes,
            "tensors": [
                {
                    "name": tensor.name,
                    "shape": list(tensor.shape),
                    "coder": tensor.coder,
                    "weights": tensor.weights,
                    "nonzero": tensor.nonzero,
                    "centroids": tensor.centroids,
                    "payload_bytes": tensor.payload_bytes,
                    "bits_per_weight": round(tensor.bits_per_weight, 4),
                }
                for tensor in self.tensors
            ],
            "metadata": {
                **dataclasses.asdict(self.metadata),
                "trained_on": [known.as_json() for known in self.metadata.trained_on],
            },
        }


def contents_of(file: Path, limits: Limits | None = DEFAULT) -> FileContents:
    """What a `.sqz` holds; limits of None trust it.

    Raises:
        InputError: where the file cannot be read.
        FormatError: where it is damaged or no `.sqz`; it names the file.
    """
    try:
        return contents(read_bytes(file), limits)
    except FormatError as error:
        raise type(error)(f"{file}: {error}") from None


def contents(data: bytes, limits: Limits | None = DEFAULT) -> FileContents:
    """Take a `.sqz` file apart; limits of None trust it.

    Raises:
        FormatError: one of its subclasses if the file is damaged.
    """
    head = container.read_head(data, limits)
    view = memoryview(data)
    header, stored_head, *payloads = container.sections(head)
    tensors = []
    for record, payload in zip(head.records, payloads, strict=True):
        tensor = container.decode_tensor(record, view)
        tensors.append(
            TensorContents(
                name=record.name,
                shape=record.shape,
                coder=record.coder,
                nonzero=int(np.count_nonzero(tensor_values(tensor))),
                centroids=len(tensor.centroids) if isinstance(tensor, SharedTensor) else None,
                record_bytes=len(record.parameters),
                payload_bytes=payload.size,
            )
        )
    shares = _shares(stored_head.size, [*head.raw_bytes.values()])
    parts = dict(zip(head.raw_bytes, shares, strict=True))
    return FileContents(head.version, head.metadata, header.size, parts, tuple(tensors))


def _shares(whole: int, weights: list[int]) -> list[int]:
    """Divide a whole number in proportion, so that the parts add up to it."""
    ends = np.cumsum([0, *weights]) * whole // max(sum(weights), 1)
    return [int(part) for part in np.diff(ends)]
