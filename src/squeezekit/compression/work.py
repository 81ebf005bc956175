"""The finished parts of a compression, kept in a folder to go on after an interruption.

Everything is found again by a digest of all that it depends on. So parts from other settings, other
photos or another network are never used.
"""

from __future__ import annotations

import hashlib
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import numpy as np

from squeezekit.errors import InputError
from squeezekit.files import LOCK, alone, remove_half_written, write_whole
from squeezekit.sqz.network import Network, SharedTensor
from squeezekit.training.checkpoint import Checkpoints

_KINDS = ("training-*.pt", "kept-*.sqz", "kept-*.json", "kept-*.txt")


class Work:
    """A folder with the finished parts of a compression; without a folder nothing is kept."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder

    def checkpoints(self, *depends_on: object) -> Checkpoints | None:
        """Of one training; it goes on from the file that the same training has left.

        Args:
            depends_on: all that the training follows from (see `digest`).
        """
        if self.folder is None:
            return None
        return Checkpoints(self._made() / f"training-{digest(*depends_on)}.pt", resume=True)

    def read(self, key: str, kind: str) -> bytes | None:
        """What was kept under a key; None if nothing was.

        Args:
            key: a key from `digest`.
            kind: "sqz", "json" or "txt".
        """
        if self.folder is None:
            return None
        try:
            return (self.folder / f"kept-{key}.{kind}").read_bytes()
        except OSError:
            return None

    def keep(self, key: str, kind: str, content: bytes) -> None:
        """Keep something; see `read`."""
        if self.folder is not None:
            write_whole(self._made() / f"kept-{key}.{kind}", content)

    def alone(self) -> AbstractContextManager[None]:
        """Lock the folder during the `with`: no other process can compress with it.

        Raises:
            InputError: if one does already, or the folder's own one is missing.
        """
        if self.folder is None:
            return nullcontext()
        return alone(
            self.folder.with_name(f".{self.folder.name}{LOCK}"),
            busy=f"another squeezekit compresses with {self.folder}: wait until it is done, or "
            "write another file",
        )

    def files(self) -> list[Path]:
        """Everything that is kept."""
        if self.folder is None or not self.folder.is_dir():
            return []
        return sorted(path for kind in _KINDS for path in self.folder.glob(kind))

    def forget(self) -> None:
        """Remove all of it, and the folder too if nothing else is in it."""
        if self.folder is None or not self.folder.is_dir():
            return
        remove_half_written(self.folder)
        for path in self.files():
            path.unlink(missing_ok=True)
        if not any(self.folder.iterdir()):
            self.folder.rmdir()

    def _made(self) -> Path:
        assert self.folder is not None
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{self.folder}: cannot be made ({error.strerror})") from None
        return self.folder


def digest(*parts: object) -> str:
    """16 hexadecimal digits that differ for different values.

    Args:
        parts: networks, arrays, and whatever `repr` tells all about: numbers, texts, dataclasses.
    """
    found = hashlib.sha256()
    for part in parts:
        if isinstance(part, Network):
            found.update(part.graph + repr(part.metadata).encode())
            for name, tensor in part.tensors.items():
                found.update(name.encode())
                if isinstance(tensor, SharedTensor):
                    _add(found, tensor.levels)
                    tensor = tensor.centroids
                _add(found, tensor)
        elif isinstance(part, np.ndarray):
            _add(found, part)
        else:
            found.update(repr(part).encode())
        found.update(b"\0")
    return found.hexdigest()[:16]


def _add(found: hashlib._Hash, values: np.ndarray) -> None:
    found.update(f"{values.dtype.str}{values.shape}".encode())
    found.update(np.ascontiguousarray(values).data)
