"""Compression of a network with a folder of images at hand: to retrain on, and to measure with."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from pathlib import Path

from squeezekit.data.dataset import is_split, split
from squeezekit.data.folders import ImageSet
from squeezekit.data.labelling import matched
from squeezekit.evaluation import Evaluation, evaluate
from squeezekit.progress import Progress
from squeezekit.runtime.calibration import calibration_images
from squeezekit.runtime.classifier import from_network
from squeezekit.sqz.network import Floats, Metadata, Network, Preprocessing
from squeezekit.training.batches import TrainingData


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
