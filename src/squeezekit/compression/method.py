"""What a method of compression is: a frozen dataclass of its settings that makes a network small.

Its docstring is its documentation: the options of the command line, and their help, are read from
it. So these classes load no torch until they are put to work.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, ClassVar, get_args

from squeezekit.compression.checks import at_least
from squeezekit.errors import InputError
from squeezekit.sqz.container import CoderName

if TYPE_CHECKING:
    from squeezekit.compression.stages import Measure, Stages
    from squeezekit.compression.task import Task
    from squeezekit.compression.work import Work
    from squeezekit.data.folders import ImageSet
    from squeezekit.progress import Progress
    from squeezekit.sqz.network import Metadata, Network


@dataclass(frozen=True, kw_only=True)
class Method(ABC):
    """The settings that all methods have.

    Attributes:
        coder: "entropy", "huffman" (larger, as in the paper) or "dense" (not compressed).
        seed: starts all random numbers: the same seed gives the same file.
    """

    learns_labels: ClassVar[bool] = False
    """True if the method trains on labels, so that each photo must lie in the folder of its class.
    The other methods take any photos, and use labels only to measure."""

    coder: CoderName = "entropy"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.coder not in get_args(CoderName):
            raise InputError(
                f"there is no coder {self.coder!r}: use {', '.join(get_args(CoderName))}"
            )
        at_least("seed", self.seed, 0)

    @classmethod
    def method_name(cls) -> str:
        """The method's name for `compress --method`."""
        return cls.__name__.lower()

    @property
    def chooses(self) -> bool:
        """True if some held-out photos choose among networks: others must tell the accuracy."""
        return False

    def more_photos(self, metadata: Metadata) -> list[ImageSet]:
        """Photos to train on, in addition to those of the task."""
        return []

    def changed(self) -> set[str]:
        """The names of the settings that differ from their defaults."""
        usual = type(self)()
        return {f.name for f in fields(self) if getattr(self, f.name) != getattr(usual, f.name)}

    @abstractmethod
    def compressed(
        self, network: Network, task: Task | None, work: Work, progress: Progress
    ) -> Stages:
        """Make a network small.

        Args:
            network: any network; its batch norms may be folded or not.
            task: photos to train on, to calibrate and to measure with; None if there are none.
            work: keeps finished parts, and has those that the same compression finished before.
            progress: called during everything that takes long.

        Returns:
            The stages on the way, the float32 network first. The network of the last stage, encoded
            with `coder`, is the file.

        Raises:
            InputError: if these settings need photos, or do not fit the network.
        """


def measure_of(task: Task | None) -> Measure | None:
    """The function that measures accuracy; None if there are no labelled photos."""
    return task.measure if task is not None and task.labelled else None
