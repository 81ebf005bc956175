"""The photos of a compression: to retrain on, to calibrate with, to choose by, to measure with."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property, partial

from squeezekit.confidence import Temperature
from squeezekit.data.dataset import Data, split_once
from squeezekit.data.fingerprints import fingerprints
from squeezekit.data.folders import ImageSet
from squeezekit.data.held_out import NOTHING, Memory, remembered
from squeezekit.data.labelling import matched
from squeezekit.evaluation import Evaluation, evaluate, with_fitted_temperature
from squeezekit.progress import Progress
from squeezekit.runtime.calibration import calibration_images
from squeezekit.runtime.classifier import from_network
from squeezekit.sqz.network import Floats, Metadata, Network, Preprocessing
from squeezekit.sqz.trained_on import Digests
from squeezekit.training.batches import TrainingData


class Task:
    """What photos are for: to retrain on, to calibrate with, to choose by, to measure with.

    Attributes:
        training: the images to retrain on and to calibrate with.
        labelled: True if the images have labels, so that `measure` works.
    """

    def __init__(
        self,
        training: ImageSet,
        held_out: ImageSet,
        preprocessing: Preprocessing,
        progress: Progress,
        note: Callable[[str], None],
        *,
        labelled: bool = True,
        choosing: ImageSet | None = None,
        digests: tuple[Digests, Digests] | None = None,
    ) -> None:
        """Keep the images and how to report.

        Args:
            training: see above.
            held_out: the images to measure with; no choice may have been made by them.
            preprocessing: the preprocessing of the network.
            progress: called during decoding and measuring.
            note: called with a sentence about images that cannot be read.
            labelled: see above.
            choosing: the images to choose by; None takes `held_out` where nothing is chosen.
            digests: the digests of the images to train on, and of those held out; None computes
                them.
        """
        self.labelled = labelled
        self.training, self._held_out = training, held_out
        self._choosing = held_out if choosing is None else choosing
        self._preprocessing, self._progress, self._note = preprocessing, progress, note
        self._digests = digests

    @cached_property
    def data(self) -> TrainingData:
        """The training images; decoded when this is first asked for."""
        return self.decoded(self.training)

    def decoded(self, images: ImageSet) -> TrainingData:
        """Any images, prepared for the network; those that cannot be read are noted.

        Raises:
            InputError: if none can be read.
        """
        data = TrainingData(images, self._preprocessing, progress=self._progress)
        for sentence in data.skipped:
            self._note(f"skipped: {sentence}")
        return data

    def calibration(self, count: int, images: ImageSet | None = None) -> Floats:
        """Up to `count` images, evenly spread, prepared for the network.

        Args:
            count: images, at most.
            images: of these; None is the training images.

        Returns:
            float32 (N, C, H, W); images that are broken are left out, labels play no part.

        Raises:
            InputError: if none can be read.
        """
        paths = (self.training if images is None else images).paths
        return calibration_images(paths, self._preprocessing, count)

    def measure(self, network: Network) -> Evaluation:
        """Accuracy on held-out images that are not used to choose: the number to report."""
        return evaluate(from_network(network), self._held_out, progress=self._progress)

    def choose(self, network: Network) -> Evaluation:
        """Accuracy on other held-out images: for choosing, not for reporting."""
        return evaluate(from_network(network), self._choosing, progress=self._progress)

    def with_fitted_temperature(self, network: Network) -> tuple[Network, Temperature | None]:
        """The network with a temperature that is fitted to the photos for choosing, if it can be.

        See `evaluation.with_fitted_temperature`.
        """
        return with_fitted_temperature(
            network, self._choosing, progress=self._progress, note=self._note
        )

    def remembered(self, network: Network, *more: ImageSet) -> Network:
        """The network; its metadata now marks the images to train on and to calibrate with.

        Args:
            network: the network that will see them.
            more: other images that it will be trained on.
        """
        if self._digests is None:
            more = (self.training, *more)
        else:
            network = remembered(network, *self._digests)
        for images in more:
            digests = fingerprints(images.paths, self._progress).digests
            network = remembered(network, digests, digests[:0])
        return network


def folder_task(
    metadata: Metadata,
    folder: Data,
    seed: int,
    progress: Progress,
    note: Callable[[str], None],
    *,
    memory: Memory = NOTHING,
    by_class: bool = True,
    chooses: bool = False,
) -> Task:
    """Training and held-out images of a folder, for a network of that metadata.

    Args:
        metadata: its labels are matched to the class folders; what it says the network has seen
            is held out of the measure.
        folder: class folders, split or not; a fifth is held out of an unsplit one.
        seed: the seed of that split.
        progress: called during decoding and measuring.
        note: called with a sentence about images that cannot be read.
        memory: the memory of the network, where a list of its photos is at hand too.
        by_class: each class is trained on; else labels do not matter, and of classes with a single
            image some are held out.
        chooses: True if `Task.choose` will be used to choose something.

    Raises:
        InputError: if there are no images, or the classes do not fit the labels.
    """
    parts = split_once(
        folder, seed,
        memory=memory or Memory(metadata.trained_on),
        chooses=chooses, whole=not by_class, progress=progress,
    )  # fmt: skip
    parts = parts.matched(partial(matched, metadata=metadata))
    for sentence in parts.notes:
        note(sentence)
    if parts.chooses:
        note(
            f"{len(parts.choosing):,} held-out photos are used to choose, {len(parts.measuring):,} "
            "others to measure the accuracy"
        )
    return Task(
        parts.training, parts.measuring, metadata.preprocessing, progress, note,
        choosing=parts.choosing, digests=parts.digests,
    )  # fmt: skip
