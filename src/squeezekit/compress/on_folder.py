"""Compression of a network with a folder of images at hand: to retrain on, and to measure with."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from functools import cached_property
from pathlib import Path

from squeezekit.compress.deep import DeepConfig, alexnet, standard
from squeezekit.compress.prune import table1, weight_names
from squeezekit.data.dataset import is_split, split
from squeezekit.data.folders import ImageSet
from squeezekit.data.labelling import matched
from squeezekit.errors import InputError
from squeezekit.evaluate import Evaluation, evaluate
from squeezekit.files import read_bytes
from squeezekit.progress import Progress
from squeezekit.runtime.calibration import calibration_images
from squeezekit.runtime.classifier import from_network
from squeezekit.sqz.container import CoderName
from squeezekit.sqz.network import Floats, Metadata, Network, Preprocessing
from squeezekit.train.batches import TrainingData


class Task:
    """What the images of a folder are for: to retrain on, to calibrate with, to measure with.

    Attributes:
        training: the images to retrain on and to calibrate with.
    """

    def __init__(
        self,
        training: ImageSet,
        held_out: ImageSet,
        preprocessing: Preprocessing,
        progress: Progress,
        note: Callable[[str], None],
    ) -> None:
        self.training, self._held_out = training, held_out
        self._preprocessing, self._progress, self._note = preprocessing, progress, note

    @cached_property
    def data(self) -> TrainingData:
        """The training images; decoded when this is first asked for."""
        return self.decoded(self.training)

    def decoded(self, images: ImageSet) -> TrainingData:
        """Any images as the network takes them; those that cannot be read are noted.

        Raises:
            InputError: where none can be read.
        """
        data = TrainingData(images, self._preprocessing, progress=self._progress)
        for sentence in data.skipped:
            self._note(f"skipped: {sentence}")
        return data

    def calibration(self, count: int) -> Floats:
        """Up to that many training images, evenly spread, as the network takes them.

        Returns:
            float32 (N, C, H, W); images that are broken are left out, labels play no part.

        Raises:
            InputError: where none can be read.
        """
        return calibration_images(self.training.paths, self._preprocessing, count)

    def measure(self, network: Network) -> Evaluation:
        """Accuracy on the held-out images."""
        return evaluate(from_network(network), self._held_out, progress=self._progress)


def folder_task(
    metadata: Metadata,
    folder: Path,
    seed: int,
    progress: Progress,
    note: Callable[[str], None],
    *,
    by_class: bool = True,
) -> Task:
    """Training and held-out images of a folder, for a network of that metadata.

    Args:
        metadata: its labels are matched to the class folders.
        folder: class folders, split or not; a fifth is held out of an unsplit one.
        seed: of that split.
        progress: told of decoding and measuring.
        note: told of images that cannot be read.
        by_class: an unsplit folder is split within each class, so that the classes are trained
            evenly; else every other image is held out, and a class may have just one.

    Raises:
        InputError: where there are no images, or the classes do not fit the labels.
    """
    if by_class or is_split(folder):
        training, held_out = split(folder, "train", seed), split(folder, "val", seed)
    else:
        images = split(folder, "all", seed)
        training = images.subset(range(0, len(images), 2))
        held_out = images.subset(range(1, len(images), 2))
    return Task(
        matched(training, metadata), matched(held_out, metadata), metadata.preprocessing,
        progress, note,
    )  # fmt: skip


def deep_config(
    network: Network,
    *,
    bits: int | None = None,
    density: str | None = None,
    epochs: int | None = None,
    coder: CoderName = "entropy",
    retrain: bool = True,
    seed: int = 0,
) -> DeepConfig:
    """The pipeline that fits a network, with what the user asked for.

    Args:
        network: AlexNet gets the densities and bits of Han et al. where nothing else is asked for;
            Table 1's densities are for SqueezeNet v1.0 alone.
        bits: of an index into a table of shared values; 6 where None.
        density: share of the weights to keep in every layer, "table1", a .json file with one by
            tensor name (such as `squeezekit sensitivity` writes), or None for a third where there
            are images to retrain on, and all where there are none.
        epochs: of retraining after each round of pruning.
        coder: of the final file.
        retrain: whether there are images to retrain on.
        seed: of the retraining.

    Raises:
        InputError: where one of these cannot be.
    """
    config = dataclasses.replace(_preset(network), coder=coder)
    if bits is not None:
        config = dataclasses.replace(config, bits=bits)
    if density is not None:
        config = dataclasses.replace(config, densities=_densities(network, density))
    elif not retrain:
        config = dataclasses.replace(config, densities=None)
    if config.retrain is not None and config.finetune is not None:
        recipe = dataclasses.replace(
            config.retrain, seed=seed, epochs=config.retrain.epochs if epochs is None else epochs
        )
        centroids = dataclasses.replace(config.finetune, seed=seed)
        config = dataclasses.replace(config, retrain=recipe, finetune=centroids)
    return config


def _preset(network: Network) -> DeepConfig:
    densities = alexnet().densities
    assert isinstance(densities, dict)
    return alexnet() if densities.keys() == set(weight_names(network)) else standard()


def _densities(network: Network, density: str) -> dict[str, float] | float:
    if density == "table1":
        if not table1().keys() <= set(weight_names(network)):
            raise InputError(
                f"Table 1's densities are for SqueezeNet v1.0, not for {network.metadata.name}"
            )
        return table1()
    if density.lower().endswith(".json"):
        return _densities_in(Path(density))
    try:
        return float(density)
    except ValueError:
        raise InputError(
            f"the density must be a number, table1 or a .json file, not {density!r}"
        ) from None


def _densities_in(path: Path) -> dict[str, float]:
    """Densities by tensor name: under "densities", or the whole file."""
    try:
        content = json.loads(read_bytes(path))
        found = content.get("densities", content)
        return {str(name): float(density) for name, density in found.items()}
    except (ValueError, TypeError, AttributeError, RecursionError):
        raise InputError(f"{path}: does not hold densities by tensor name") from None
