"""Rounds, trains and rounds again; photos that no turn has seen judge which network is kept."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from squeezekit.compression.recovery import Effort, recovered
from squeezekit.compression.rounder import Point, Rounder, divergence_of
from squeezekit.compression.work import Work, digest
from squeezekit.data.folders import ImageSet
from squeezekit.progress import Progress
from squeezekit.runtime.classifier import from_network
from squeezekit.sqz import container
from squeezekit.sqz.network import Floats, Network, SharedTensor, unshared
from squeezekit.sqz.nodes import weight_names
from squeezekit.sqz.tensors import mantissa_bits, with_mantissa
from squeezekit.training import recipe as recipes

if TYPE_CHECKING:
    from squeezekit.compression.best import Best
    from squeezekit.compression.task import Task

APART = 5
"""One in so many photos is kept apart to judge."""

MOST_APART = 250
"""Photos that judge, at most."""

STEEP = 0.5
"""Nats an image that rounding may cost at once. If it costs more, a size between comes first."""

STEP = 1.5
"""What the size between is larger by."""

MOST_STEPS = 4
"""Sizes between, at most."""

LEVELS_SHARE = 0.25
"""So much of the time is for the values of levels and biases, which the last rounding leaves."""

Find = Callable[[Rounder, int | None, float | None], Point]
"""The point of a rounder with at most so many bytes (None: by what was asked for), from a price."""


@dataclass(frozen=True, eq=False)
class Turn:
    """A network that may be kept.

    Attributes:
        network: rounded.
        file_bytes: the size in bytes of its `.sqz`, or of the update to it (see `Best.like`).
        divergence: from the original's outputs on photos that judge, in nats an image.
        made: how, in a few words.
    """

    network: Network
    file_bytes: int
    divergence: float
    made: str


def apart(images: ImageSet) -> tuple[ImageSet, ImageSet]:
    """Photos to work with, and others to judge by, evenly spread; the same if there are few."""
    if len(images) < APART:
        return images, images
    every = max(APART, -(-len(images) // MOST_APART))
    judges = np.arange(len(images)) % every == every // 2
    return images.subset(np.flatnonzero(~judges)), images.subset(np.flatnonzero(judges))


class Turns:
    """Everything that the turns of one compression share.

    Attributes:
        rounding: the photos to round by.
        rounder: of the network that was rounded last.
    """

    rounder: Rounder

    def __init__(
        self, original: Network, task: Task, config: Best, work: Work, progress: Progress
    ) -> None:
        """Keep photos apart.

        Args:
            original: what to answer like; its batch norms are folded.
            task: the photos to round by; of these some are kept apart.
            config: how; with training time.
            work: keeps what is finished.
            progress: called during everything that takes long.
        """
        assert config.effort is not None
        self._original, self._task, self._config = original, task, config
        self._work, self._progress = work, progress
        self.rounding, judges = apart(task.training)
        self._judges = task.calibration(MOST_APART, judges)
        self._reference = self._answers(original)
        (others,) = config.more_photos(original.metadata) or [task.training]
        taken = {str(path) for path in judges.paths}
        free = [i for i, path in enumerate(others.paths) if str(path) not in taken]
        self._photos = others.subset(free) if free else others

    def divergence(self, network: Network) -> float:
        """How far a network's outputs are from the original's, on photos that judge."""
        return divergence_of(self._reference, self._answers(network))

    def _answers(self, network: Network) -> torch.Tensor:
        classifier = from_network(network)
        batches = range(0, len(self._judges), self._config.batch)
        parts = [classifier.logits(self._judges[i : i + self._config.batch]) for i in batches]
        return torch.from_numpy(np.concatenate(parts)).flatten(1)

    def best(self, first: Point, images: Floats, rounder: Rounder, find: Find) -> tuple[Turn, str]:
        """The best of the first rounding and of what training makes of it.

        Args:
            first: of the original, by what was asked for.
            images: to round by, prepared.
            rounder: of the original.
            find: finds a point.

        Returns:
            The turn to keep, and a sentence that tells what each turn came to.
        """
        effort, self.rounder = self._config.effort, rounder
        assert effort is not None
        turns = [self._turn(first.network, "rounded", first.file_bytes)]
        now, sizes = first, self._sizes(turns[0])
        if sizes:
            now = find(rounder, sizes[0], None)
        share = (1.0 if effort.minutes is None else 1 - LEVELS_SHARE) / (len(sizes) + 1)
        for size in [*sizes[1:], *([None, None] if sizes else [None])]:
            now = self._trained_and_rounded(now, images, effort.part(share), find, size)
        turns.append(self._turn(now.network, "trained and rounded again", now.file_bytes))
        kept = self._better(turns, first.price)
        if self._config.like is None:  # whose values stay
            levels = self._with_trained_levels(kept.network, effort.part(LEVELS_SHARE))
            size = len(container.encode(levels, self._config.coder))
            turns.append(self._turn(levels, f"{kept.made}, its levels trained", size))
            if self._fits(turns[-1], kept):
                kept = self._better([kept, turns[-1]], first.price)
        told = ", ".join(f"{turn.made} {turn.divergence:.3f}" for turn in turns)
        undone = "" if kept is turns[-1] else "; what made it worse was undone"
        return kept, (
            f"the best of {len(turns)} by the nats that their outputs diverge on "
            f"{len(self._judges)} photos kept apart: {told}{undone}"
        )

    def _sizes(self, first: Turn) -> list[int]:
        """Sizes on the way to one that rounding alone does not survive, the largest first."""
        target = self._config.target_bytes
        if target is None or first.divergence <= STEEP:
            return []
        # In this region a size that is larger by STEP halves the divergence, or better.
        steps = min(math.ceil(math.log2(first.divergence / STEEP)), MOST_STEPS)
        return [round(target * STEP**step) for step in range(steps, 0, -1)]

    def _trained_and_rounded(
        self, now: Point, images: Floats, effort: Effort, find: Find, size: int | None
    ) -> Point:
        left, how = recovered(
            unshared(now.network), self._original, self._photos, effort,
            decode=self._task.decoded, seed=self._config.seed,
            work=self._work, progress=self._progress,
        )  # fmt: skip
        self.rounder = Rounder(
            left.with_step(how), images, self._config, self._progress, self._work
        )
        return find(self.rounder, size, now.price)

    def _with_trained_levels(self, network: Network, effort: Effort) -> Network:
        trained, how = recovered(
            network, self._original, self._photos, effort,
            decode=self._task.decoded, recipe=recipes.levels(), seed=self._config.seed,
            work=self._work, progress=self._progress,
        )  # fmt: skip
        return as_short(trained, network).with_step(f"{how}, of levels")

    def _turn(self, network: Network, made: str, size: int) -> Turn:
        key = "" if self._work.folder is None else digest("judged", network, self._judges)
        kept = self._work.read(key, "json")
        divergence = self.divergence(network) if kept is None else float(json.loads(kept))
        if key and kept is None:
            self._work.keep(key, "json", json.dumps(divergence).encode())
        return Turn(network, size, divergence, made)

    def _fits(self, turn: Turn, kept: Turn) -> bool:
        """Whether a file of other values for the same levels is still of the size asked for."""
        target = self._config.target_bytes
        return turn.file_bytes <= (1.01 * kept.file_bytes if target is None else target)

    def _better(self, turns: list[Turn], price: float) -> Turn:
        """The one with the least divergence, and bits at their price."""
        return min(turns, key=lambda turn: turn.divergence + 8 * price * turn.file_bytes)


def as_short(network: Network, before: Network) -> Network:
    """The network; each table of numbers in as many mantissa bits as the same one had before."""
    weights = set(weight_names(before))
    changed: dict[str, Floats | SharedTensor] = {}
    for name, old in before.tensors.items():
        new = network.tensors[name]
        if isinstance(old, SharedTensor) and isinstance(new, SharedTensor):
            values = with_mantissa(new.centroids, mantissa_bits(old.centroids))[
                new.levels + np.int32(new.zero)
            ]
            changed[name] = SharedTensor.from_values(values)
        elif not isinstance(new, SharedTensor) and name not in weights and new.ndim < 2:
            assert not isinstance(old, SharedTensor)
            changed[name] = with_mantissa(new, mantissa_bits(old))
    return network.with_tensors(changed)
