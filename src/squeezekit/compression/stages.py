"""The stages of a compression: the network after each step, and the file that it would be."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from squeezekit.compression.curve import Curve
from squeezekit.sqz import container
from squeezekit.sqz.container import CoderName
from squeezekit.sqz.network import Network

if TYPE_CHECKING:
    from squeezekit.evaluation import Evaluation

Measure = Callable[[Network], "Evaluation"]


@dataclass(frozen=True)
class Stage:
    """The network after a step of the pipeline, and its size as a file.

    Attributes:
        name: in Deep Compression "float32", "pruned", "shared" or "coded".
        network: as it is then.
        file_bytes: the size in bytes of the whole `.sqz`: "float32" stores 4 bytes a weight;
            "pruned" leaves out zeros; "shared" is Huffman coded; "coded" is the final file.
        top1, top5: percent; None if nothing was measured.
        seconds: how long the step took, measuring included.
    """

    name: str
    network: Network
    file_bytes: int
    top1: float | None
    top5: float | None
    seconds: float


class Stages:
    """Collects and measures the stages of a compression.

    Attributes:
        list: those so far.
        curve: accuracy against bytes, where it was asked for.
        divergence: the divergence of the last network's outputs from the original's, in nats an
            image, where it is known.
        goal: why the file was chosen, in a few words; "" if nothing was chosen.
    """

    def __init__(self, measure: Measure | None, choose: Measure | None = None) -> None:
        """Begin without stages.

        Args:
            measure: evaluates a stage: the number to tell; None if nothing can.
            choose: evaluates a network that may become one, on other photos.
        """
        self.list: list[Stage] = []
        self.curve: Curve | None = None
        self.divergence: float | None = None
        self.goal = ""
        self._measure = measure
        self._choose = choose
        self._measured: WeakKeyDictionary[Network, Evaluation] = WeakKeyDictionary()
        self._start = time.perf_counter()

    def measured(self, network: Network) -> Evaluation | None:
        """How well a network does, measured once; None if it cannot be measured."""
        if self._measure is None:
            return None
        if network not in self._measured:
            self._measured[network] = self._measure(network)
        return self._measured[network]

    def told_by(self, network: Network) -> Evaluation:
        """The same, for callers who know that it can be measured."""
        found = self.measured(network)
        assert found is not None, "asked for only where photos are labelled"
        return found

    def chosen_by(self, network: Network) -> Evaluation:
        """How well a network does on the photos that are used to choose."""
        assert self._choose is not None, "asked for only where photos are labelled"
        return self._choose(network)

    def add(self, name: str, network: Network, coder: CoderName) -> Network:
        """Measure a stage as a file of that coder; gives the network back."""
        evaluation = self.measured(network)
        self.list.append(
            Stage(
                name=name,
                network=network,
                file_bytes=len(container.encode(network, coder)),
                top1=None if evaluation is None else evaluation.top1,
                top5=None if evaluation is None else evaluation.top5,
                seconds=time.perf_counter() - self._start,
            )
        )
        self._start = time.perf_counter()
        return network

    def replace_last(self, network: Network, coder: CoderName) -> None:
        """Put another network into the last stage, and measure it anew."""
        last = self.list.pop()
        self._start -= last.seconds
        self.add(last.name, network, coder)
