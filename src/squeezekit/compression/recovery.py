"""Trains a rounded network to answer as the original does, on images of any kind."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from squeezekit.compression.retraining import retrained
from squeezekit.compression.work import Work, digest
from squeezekit.data.folders import ImageSet
from squeezekit.errors import InputError
from squeezekit.progress import Progress, silent
from squeezekit.sqz.network import Network
from squeezekit.training import recipe as recipes
from squeezekit.training.batches import TrainingData
from squeezekit.training.recipe import Recipe

FEATURES = 4.0
"""How much it counts what layers see: after rounding, as much as the answers, about."""

_PROBE_BATCHES = 8
_WARM_BATCHES = 2


@dataclass(frozen=True)
class Effort:
    """How much to train, in epochs or in minutes.

    Attributes:
        epochs: times that every image is seen.
        minutes: that it takes, about: as many images and epochs as fit into them.
    """

    epochs: int | None = None
    minutes: float | None = None

    def __post_init__(self) -> None:
        if (self.epochs is None) == (self.minutes is None):
            raise InputError("ask for epochs or for minutes of training, not for both")
        if self.minutes is not None and not 0 < self.minutes < float("inf"):
            raise InputError(f"minutes must be above 0, not {self.minutes}")

    def part(self, share: float) -> Effort:
        """A share of it; of epochs at least one."""
        if self.minutes is not None:
            return Effort(minutes=share * self.minutes)
        assert self.epochs is not None
        return Effort(epochs=max(round(share * self.epochs), 1))


def recovered(
    network: Network,
    original: Network,
    images: ImageSet,
    effort: Effort,
    *,
    decode: Callable[[ImageSet], TrainingData],
    recipe: Recipe | None = None,
    seed: int = 0,
    work: Work | None = None,
    progress: Progress = silent,
) -> tuple[Network, str]:
    """Distil the original network into the rounded one, without labels (`recipes.recover`).

    Args:
        network: the network to train; its zeros stay, and weights that share values go on to.
        original: the network that it came from, of the same graph.
        images: the images to train on; their classes play no part.
        effort: how long.
        decode: makes training data of images (`Task.decoded`).
        recipe: how to train; None is `recipes.recover`.
        seed: the seed of their order and crops.
        work: keeps the state of every minute, and what minutes were turned into; the same
            training goes on from them.
        progress: called during training.

    Returns:
        The trained network, and what was done, in a few words.

    Raises:
        InputError: if no image can be read.
    """
    work = work or Work()
    recipe = dataclasses.replace(recipe or recipes.recover(), features=FEATURES, seed=seed)
    if effort.epochs is not None:
        recipe = dataclasses.replace(recipe, epochs=effort.epochs)
    else:
        assert effort.minutes is not None
        paths = [str(path) for path in images.paths]
        key = digest("plan", network, original, recipe, effort, paths)
        kept = work.read(key, "json")
        if kept is None:
            speed = _seconds_an_image(network, original, images, recipe, progress)
            kept = json.dumps(_plan(60 * effort.minutes / speed, len(images), recipe)).encode()
            work.keep(key, "json", kept)
        epochs, count = json.loads(kept)
        recipe = dataclasses.replace(recipe, epochs=epochs)
        images = _some(images, count, seed)
    data = decode(images)
    checkpoints = work.checkpoints("recovery", network, original, recipe, data.fingerprint)
    trained = retrained(network, data, recipe, original, checkpoints=checkpoints, progress=progress)
    return trained, f"{recipe.epochs} epochs of recovery on {data.images} images"


def _plan(total: float, images: int, recipe: Recipe) -> tuple[int, int]:
    """How many epochs, and how many images in each, make this many images in total."""
    epochs = max(round(total / images), 1)
    return epochs, max(min(int(total / epochs), images), recipe.batch)


def _seconds_an_image(
    network: Network, original: Network, images: ImageSet, recipe: Recipe, progress: Progress
) -> float:
    """The training time per image, measured on a few batches whose result is thrown away."""
    few = _some(images, (_PROBE_BATCHES + _WARM_BATCHES) * recipe.batch, recipe.seed)
    data = TrainingData(few, network.metadata.preprocessing)
    times = []

    def clock(task: str, done: int, total: int) -> None:
        progress("measure speed", done, total)
        times.append(time.perf_counter())

    start = time.perf_counter()
    retrained(network, data, dataclasses.replace(recipe, epochs=1), original, progress=clock)
    times = [start, *times]
    warm = min(_WARM_BATCHES, len(times) - 2)
    steps = len(times) - 1 - warm
    return (times[-1] - times[warm]) / (steps * min(recipe.batch, data.images))


def _some(images: ImageSet, count: int, seed: int) -> ImageSet:
    """Some of the images, in their order."""
    if count >= len(images):
        return images
    chosen = np.random.default_rng(seed).choice(len(images), count, replace=False)
    return images.subset(np.sort(chosen))
