"""What a rounding has left is trained to answer as the original does, by images of any kind."""

from __future__ import annotations

import dataclasses
import glob
import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from squeezekit.compression.retraining import retrained
from squeezekit.data.folders import ImageSet
from squeezekit.errors import InputError
from squeezekit.files import write_whole
from squeezekit.progress import Progress, silent
from squeezekit.sqz.network import Network
from squeezekit.training import recipe as recipes
from squeezekit.training.batches import TrainingData
from squeezekit.training.checkpoint import Checkpoints
from squeezekit.training.recipe import Recipe

_PROBE_BATCHES = 8
_WARM_BATCHES = 2


@dataclass(frozen=True)
class Effort:
    """How much training there is, by one of two measures.

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


def recovered(
    network: Network,
    original: Network,
    images: ImageSet,
    effort: Effort,
    *,
    decode: Callable[[ImageSet], TrainingData],
    seed: int = 0,
    checkpoint: Path | None = None,
    progress: Progress = silent,
) -> tuple[Network, str]:
    """Distil the original into what is left of it, without labels (`recipes.recover`).

    Args:
        network: to train; its zeros stay, and no weights may be shared.
        original: the network that it came from.
        images: to train on; their classes play no part.
        effort: how long.
        decode: makes training data of images (`Task.decoded`).
        seed: of their order and crops.
        checkpoint: what the files' names begin with that hold the state of every minute, and
            what minutes were turned into. The same training goes on from them; whoever is done
            removes them (`forget`).
        progress: told of training.

    Returns:
        The trained network, and what was done, in a few words.

    Raises:
        InputError: where no image can be read, or the checkpoint is of other images.
    """
    if checkpoint is not None:
        checkpoint = checkpoint.with_name(f"{checkpoint.name}-{_digest(network, effort)}.pt")
    recipe = dataclasses.replace(recipes.recover(), seed=seed)
    if effort.epochs is not None:
        recipe = dataclasses.replace(recipe, epochs=effort.epochs)
    else:
        assert effort.minutes is not None
        epochs, count = _plan(
            network, original, images, recipe, 60 * effort.minutes, checkpoint, progress
        )
        recipe = dataclasses.replace(recipe, epochs=epochs)
        images = _some(images, count, seed)
    data = decode(images)
    checkpoints = None if checkpoint is None else Checkpoints(checkpoint, resume=True)
    trained = retrained(network, data, recipe, original, checkpoints=checkpoints, progress=progress)
    return trained, f"{recipe.epochs} epochs of recovery on {data.images} images"


def left_by(checkpoint: Path) -> list[Path]:
    """The files that a training would go on from."""
    return sorted(checkpoint.parent.glob(f"{glob.escape(checkpoint.name)}-????????.pt*"))


def forget(checkpoint: Path) -> None:
    """Remove them."""
    for path in left_by(checkpoint):
        path.unlink(missing_ok=True)


def _digest(network: Network, effort: Effort) -> str:
    """Of where a training starts: another start must not go on from its checkpoint."""
    found = hashlib.sha256(repr(effort).encode())
    for name, values in network.values().items():
        found.update(name.encode() + values.tobytes())
    return found.hexdigest()[:8]


def _plan(
    network: Network,
    original: Network,
    images: ImageSet,
    recipe: Recipe,
    seconds: float,
    checkpoint: Path | None,
    progress: Progress,
) -> tuple[int, int]:
    """Epochs, and images in each, that take so long; the same as before the interruption."""
    kept = None if checkpoint is None else _plan_beside(checkpoint)
    if checkpoint is not None and checkpoint.exists() and kept is not None and kept.exists():
        try:
            plan = json.loads(kept.read_text(encoding="utf-8"))
            return int(plan["epochs"]), int(plan["images"])
        except (ValueError, KeyError, TypeError):
            raise InputError(f"{kept} is damaged: delete it, and {checkpoint}") from None
    total = seconds / _seconds_an_image(network, original, images, recipe, progress)
    epochs = max(round(total / len(images)), 1)
    count = max(min(int(total / epochs), len(images)), recipe.batch)
    if kept is not None:
        write_whole(kept, json.dumps({"epochs": epochs, "images": count}).encode())
    return epochs, count


def _plan_beside(checkpoint: Path) -> Path:
    return checkpoint.with_name(checkpoint.name + ".json")


def _seconds_an_image(
    network: Network, original: Network, images: ImageSet, recipe: Recipe, progress: Progress
) -> float:
    """Measured on a few batches, whose training is thrown away."""
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
    """So many of them, in their order."""
    if count >= len(images):
        return images
    chosen = np.random.default_rng(seed).choice(len(images), count, replace=False)
    return images.subset(np.sort(chosen))
