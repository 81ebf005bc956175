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
    """What all methods have.

    Attributes:
        coder: "entropy", "huffman" (larger, as in the paper) or "dense" (numbers as they are).
        seed: everything random follows from it: the same seed gives the same file.
    """

    learns_labels: ClassVar[bool] = False
    """Whether it trains on what the photos show, so that each must lie in the folder of its class.
    The others take photos of any kind, and use labels only to measure with."""

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
        """As `compress --method` takes it."""
        return cls.__name__.lower()

    @property
    def chooses(self) -> bool:
        """Whether held-out photos choose among networks, so that others must tell the accuracy."""
        return False

    def more_photos(self, metadata: Metadata) -> list[ImageSet]:
        """Photos beside those of the task that the network will be trained on."""
        return []

    def changed(self) -> set[str]:
        """The names of the settings that are not as they are without being asked for."""
        usual = type(self)()
        return {f.name for f in fields(self) if getattr(self, f.name) != getattr(usual, f.name)}

    @abstractmethod
    def compressed(
        self, network: Network, task: Task | None, work: Work, progress: Progress
    ) -> Stages:
        """Make a network small.

        Args:
            network: of any kind; its batch norms may be folded or not.
            task: photos to train on, to look at and to measure with; None where there are none.
            work: keeps what is done, and has what the same compression did before.
            progress: told of all that takes long.

        Returns:
            The stages on the way, the float32 network first. The last one's network, encoded with
            `coder`, is the file.

        Raises:
            InputError: where these settings need photos, or do not fit the network.
        """


def measure_of(task: Task | None) -> Measure | None:
    """What tells the accuracy of a network; None where there are no labelled photos."""
    return task.measure if task is not None and task.labelled else None
