"""Checkpoints of a training run: one file, replaced as a whole, so that it is always valid."""

from __future__ import annotations

import io
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from squeezekit.errors import InputError
from squeezekit.files import write_whole

State = dict[str, Any]
"""What `training.loop` saves: tensors, numbers, texts, and lists and dicts of them."""

FILE_NAME = "checkpoint.pt"


@dataclass
class Checkpoints:
    """Where and how often a run is saved.

    Attributes:
        path: the file. It is read with weights_only=True: never unpickled.
        seconds: between two saves within an epoch; one more follows each epoch.
        resume: whether to go on from a file that is there already.
    """

    path: Path
    seconds: float = 60.0
    resume: bool = False
    _saved: float = field(default_factory=time.monotonic, repr=False)

    def due(self) -> bool:
        """Whether it is time to save."""
        return time.monotonic() - self._saved >= self.seconds

    def save(self, state: State) -> None:
        """Write the state; a crash on the way leaves the file before it."""
        buffer = io.BytesIO()
        torch.save(state, buffer)
        write_whole(self.path, buffer.getvalue())
        self._saved = time.monotonic()

    def load(self, fingerprint: str) -> State | None:
        """The saved state, or None if there is none or resuming is not asked for.

        Args:
            fingerprint: the fingerprint of the run that wants it.

        Raises:
            InputError: if the file cannot be read, or is of a run with another recipe, other
                data or another number of processes.
        """
        if not self.resume or not self.path.exists():
            return None
        try:
            state: State = torch.load(self.path, map_location="cpu", weights_only=True)
        except Exception as error:  # torch raises many kinds for a file that is not one of its own
            raise InputError(f"{self.path} is not a checkpoint ({_first_line(error)})") from None
        if state.get("fingerprint") != fingerprint:
            raise InputError(
                f"{self.path} is of a run with another recipe, other images or another number of "
                "processes: resume with those, or train into a new folder"
            )
        return state


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
