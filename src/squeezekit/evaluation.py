"""Top-1 and top-5 accuracy of any classifier, a torch network or a file, on a set of images."""

from __future__ import annotations

import math
import os
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from squeezekit.confidence import (
    Reliability,
    Temperature,
    fit_temperature,
    reliability,
    with_temperature,
)
from squeezekit.data.dataset import split
from squeezekit.data.folders import ImageSet
from squeezekit.data.labelling import with_labels
from squeezekit.errors import InputError, UnsupportedError
from squeezekit.progress import Note, Progress, silent, silent_note
from squeezekit.runtime.classifier import from_network, ranked, softmax
from squeezekit.runtime.images import ImageFile, prepare_file
from squeezekit.sqz.network import Floats, Metadata, Network, Preprocessing

Interval = tuple[float, float]
"""(from, to), in percent or in percentage points."""

_TOP = 5
_Z = 1.959964
"""Standard deviations on either side of the mean that hold 95% of a normal distribution."""
_MOST_THREADS = 8
_MOST_FITTED = 10_000
"""Photos that a temperature is fitted to; more would not tell it better."""

_JUDGES = 200
"""How many photos decide whether class folders are in the order of a network's outputs."""


class Evaluated(Protocol):
    """What can be evaluated: `runtime.classifier.Classifier` and `trainable.TorchClassifier`."""

    @property
    def metadata(self) -> Metadata:
        """The metadata, with the preprocessing."""

    def logits(self, batch: Floats) -> Floats:
        """From (N, C, H, W) to (N, classes)."""


@dataclass(frozen=True, eq=False)
class Evaluation:
    """How well a classifier did.

    Attributes:
        top1, top5: accuracy in percent, 0 to 100, over the images that could be read.
        images: N, how many images could be read.
        skipped: a sentence for each image that could not be read, with its path.
        seconds: wall time, with decoding.
        targets: int64 (N,), the true classes.
        ranked: int64 (N, min(5, classes)), the predicted classes, best first.
        confidence: float32 (N,), the probability of the best class.
        paths: the paths of the N images.
        trained_on: how many of these images the network was trained on, as far as that is known.
        left_out: how many images were left out because the network was trained on them.
        logits: float32 (N, classes), if they were asked for.
    """

    top1: float
    top5: float
    images: int
    skipped: tuple[str, ...]
    seconds: float
    targets: npt.NDArray[np.int64]
    ranked: npt.NDArray[np.int64]
    confidence: Floats
    paths: tuple[ImageFile, ...]
    trained_on: int = 0
    left_out: int = 0
    logits: Floats | None = None

    @property
    def balanced_top1(self) -> float:
        """The mean over the classes of the accuracy on each, in percent.

        Of uneven classes, a network that never answers with a rare one has a high `top1` still.
        """
        images = np.bincount(self.targets)
        right = np.bincount(self.targets, weights=self.right())
        return 100 * float((right[images > 0] / images[images > 0]).mean())

    @property
    def reliability(self) -> Reliability:
        """How often answers of about the same confidence are right; its `error` is the ECE."""
        return reliability(self.confidence, self.right())

    @property
    def top1_interval(self) -> Interval:
        """The 95% interval of `top1`, in percent (see `accuracy_interval`)."""
        return accuracy_interval(round(self.top1 * self.images / 100), self.images)

    @property
    def top5_interval(self) -> Interval:
        """The 95% interval of `top5`, in percent."""
        return accuracy_interval(round(self.top5 * self.images / 100), self.images)

    def as_json(self) -> dict[str, Any]:
        """Accuracy in percent with its intervals, the expected calibration error, and the images.

        Returns:
            What `json.dumps` takes.
        """
        return {
            "top1": self.top1,
            "top5": self.top5,
            "top1_interval": self.top1_interval,
            "top5_interval": self.top5_interval,
            "balanced_top1": self.balanced_top1,
            "calibration_error": self.reliability.error,
            "images": self.images,
            "trained_on": self.trained_on,
            "left_out": self.left_out,
            "skipped": list(self.skipped),
            "seconds": self.seconds,
        }

    def right(self) -> npt.NDArray[np.bool_]:
        """Which of the N images are classified right, bool (N,)."""
        return np.asarray(self.ranked[:, 0] == self.targets)

    def __repr__(self) -> str:
        low, high = self.top1_interval
        skipped = f", {len(self.skipped)} skipped" if self.skipped else ""
        return (
            f"Evaluation(top-1 {self.top1:.1f}% ({low:.1f} to {high:.1f}), top-5 {self.top5:.1f}% "
            f"on {self.images:,} images{skipped}, {self.seconds:.1f} s)"
        )


@dataclass(frozen=True)
class Change:
    """How the accuracy changes from one classifier to another, on the same images.

    Attributes:
        points: the change of top-1 in percentage points; negative if it falls.
        interval: the 95% interval of `points`.
        gained, lost: how many images only the second, or only the first, gets right.
        p_value: how often chance alone makes a change this large, two-sided.
    """

    points: float
    interval: Interval
    gained: int
    lost: int
    p_value: float


def accuracy_interval(right: int, images: int) -> Interval:
    """Wilson's 95% interval of an accuracy, in percent.

    Wilson 1927, "Probable inference, the law of succession, and statistical inference".
    """
    share = right / images
    middle = share + _Z * _Z / (2 * images)
    half = _Z * math.sqrt(share * (1 - share) / images + _Z * _Z / (4 * images * images))
    scale = 100 / (1 + _Z * _Z / images)
    low, high = scale * (middle - half), scale * (middle + half)
    # The bounds are exactly 0 and 100 where none or all are right; floats miss that by one bit.
    return (low if right else 0.0), (high if right < images else 100.0)


def change(before: Evaluation, after: Evaluation) -> Change:
    """Compare two classifiers on the same images.

    The interval is from Agresti and Min 2005, "Simple improved confidence intervals for comparing
    matched proportions" (half an image is added to each cell). The p value is from McNemar's exact
    test.

    Raises:
        InputError: if the images are not the same.
    """
    if before.paths != after.paths or not np.array_equal(before.targets, after.targets):
        raise InputError("the two evaluations are of different images and cannot be compared")
    first, second = before.right(), after.right()
    gained, lost = int((second & ~first).sum()), int((first & ~second).sum())
    images = len(first)
    n, more, less = images + 2, gained + 0.5, lost + 0.5
    middle = (more - less) / n
    half = _Z * math.sqrt(more + less - (more - less) ** 2 / n) / n
    interval = (max(100 * (middle - half), -100.0), min(100 * (middle + half), 100.0))
    apart = gained + lost
    tail = sum(math.comb(apart, k) for k in range(min(gained, lost) + 1))
    p_value = min(float(Fraction(2 * tail, 2**apart)), 1.0)
    return Change(100 * (gained - lost) / images, interval, gained, lost, p_value)


def outputs(source: Network | Evaluated) -> int:
    """How many classes a network has. If its graph does not say it, it is run once."""
    stated = getattr(source, "outputs", None)
    if isinstance(stated, int):
        return stated
    how = source.metadata.preprocessing
    black = np.zeros((1, how.channels, how.crop, how.crop), np.float32)
    runs = from_network(source, precision="float") if isinstance(source, Network) else source
    return int(runs.logits(black).shape[1])


def labelled(
    source: Network | Evaluated,
    *,
    labels: Path | None = None,
    images: ImageSet | None = None,
    data: Path | ImageSet | None = None,
    note: Note = silent_note,
) -> Metadata:
    """A network's metadata, with class names if any can be found (`labelling.with_labels`).

    Class folders name the classes only if the network agrees with them on some of their photos.
    These come from all of `data` if it is a folder: a few photos are too few to tell the order.

    Args:
        source: the network.
        labels: a labels file that the user names.
        images: class folders, which may name the classes.
        data: the folder of images; a labels file may lie in it or beside it.
        note: called with a sentence if class folders named the classes.

    Raises:
        InputError: if the labels file cannot be read or does not fit the network, or the network
            does not agree with the class folders.
    """
    count = outputs(source)
    known = labels is not None or source.metadata.labels or source.metadata.label_ids
    if images is not None and not known and isinstance(data, Path):
        images = split(data, "all")

    def judged(image_set: ImageSet) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        runs = from_network(source, precision="float") if isinstance(source, Network) else source
        limit = min(len(image_set), max(_JUDGES, 2 * count))
        found = evaluate(runs, image_set, limit=limit)
        return found.targets, found.ranked[:, 0]

    return with_labels(
        source.metadata,
        count,
        labels_file=labels,
        image_set=images,
        data_dir=data if isinstance(data, Path) else None,
        judge=judged,
        note=note,
    )


def evaluate(
    classifier: Evaluated,
    image_set: ImageSet,
    *,
    batch: int = 32,
    limit: int | None = None,
    keep_logits: bool = False,
    progress: Progress = silent,
) -> Evaluation:
    """Classify every image of a set; count how often the true class is first, or among five.

    Args:
        classifier: a torch network or a file.
        image_set: images whose targets are outputs of the classifier (see `data.folders.match`).
        batch: how many images the network sees at once.
        limit: evaluate only this many images, spread evenly over the set.
        keep_logits: keep the logits of all images, in `Evaluation.logits`.
        progress: called with the number of images done, as task "evaluate".

    Raises:
        InputError: if no image can be read, or a target is not an output of the classifier.
    """
    start = time.perf_counter()
    image_set = _limited(image_set, limit)
    total, done = len(image_set), 0
    read: list[int] = []
    skipped: list[str] = []
    best: list[npt.NDArray[np.int64]] = []
    confidence: list[Floats] = []
    kept: list[Floats] = []
    progress("evaluate", 0, total)
    how, most_pixels = classifier.metadata.preprocessing, getattr(classifier, "pixels", None)
    for images in _decoded_batches(image_set.paths, how, batch, most_pixels):
        arrays = [image for image in images if not isinstance(image, str)]
        read += [done + i for i, image in enumerate(images) if not isinstance(image, str)]
        skipped += [image for image in images if isinstance(image, str)]
        if arrays:
            logits = _checked(classifier.logits(np.stack(arrays)), image_set)  # (N, classes)
            best.append(ranked(logits, _TOP))
            confidence.append(softmax(logits).max(axis=1))
            if keep_logits:
                kept.append(logits)
        done += len(images)
        progress("evaluate", done, total)
    if not read:
        first = f", the first because {skipped[0]}" if skipped else ""
        raise InputError(f"none of the {total} images in {image_set.root} can be read{first}")
    image_set = image_set.subset(read)
    ranks = np.concatenate(best)  # (N, min(5, classes))
    hits = ranks == image_set.targets[:, np.newaxis]
    return Evaluation(
        top1=100 * float(hits[:, 0].mean()),
        top5=100 * float(hits.any(axis=1).mean()),
        images=len(image_set),
        skipped=tuple(skipped),
        seconds=time.perf_counter() - start,
        targets=image_set.targets,
        ranked=ranks,
        confidence=np.concatenate(confidence),
        paths=image_set.paths,
        logits=np.concatenate(kept) if keep_logits else None,
    )


def with_fitted_temperature(
    network: Network, images: ImageSet, *, progress: Progress = silent, note: Note = silent_note
) -> tuple[Network, Temperature | None]:
    """The network with probabilities that are as often right as they say, as held-out photos tell.

    Args:
        network: any network.
        images: labelled photos that it was not trained on; of many, 10,000 spread evenly are used.
        progress: called with the number of images done, as task "evaluate".
        note: called with what was found, or why nothing could be.

    Returns:
        The network with the temperature in its last layer, and the temperature; the network as it
        was, and None, where there are too few photos or the network has no such layer.

    Raises:
        InputError: if no image can be read.
    """
    classifier = from_network(network, precision="float")
    found = evaluate(classifier, images, limit=_MOST_FITTED, keep_logits=True, progress=progress)
    assert found.logits is not None, "they were asked for"
    try:
        temperature = fit_temperature(found.logits, found.targets)
        network = with_temperature(network, temperature.value)
    except (InputError, UnsupportedError) as error:
        note(str(error))
        return network, None
    note(str(temperature))
    return network, temperature


def _limited(image_set: ImageSet, limit: int | None) -> ImageSet:
    if limit is None or limit >= len(image_set):
        return image_set
    if limit < 1:
        raise InputError(f"limit must be at least 1, not {limit}")
    return image_set.subset(np.arange(limit) * len(image_set) // limit)


def _checked(logits: Floats, image_set: ImageSet) -> Floats:
    if np.isnan(logits).any():
        raise InputError("the network answers with NaN: its weights are unusable")
    needed = int(image_set.targets.max()) + 1
    if needed > logits.shape[1]:
        raise InputError(
            f"the images are of {needed} classes or more, but the network has {logits.shape[1]}"
        )
    return logits


def _decoded_batches(
    paths: Sequence[ImageFile], preprocessing: Preprocessing, batch: int, most_pixels: int | None
) -> Iterator[list[Floats | str]]:
    """The images ready for the network, or why they are not; the next batch decodes meanwhile."""

    def decoded(path: ImageFile) -> Floats | str:
        try:
            return prepare_file(path, preprocessing, most_pixels)  # (C, H, W)
        except InputError as error:
            return str(error)

    with ThreadPoolExecutor(min(_MOST_THREADS, os.cpu_count() or 1)) as pool:
        coming: deque[list[Future[Floats | str]]] = deque()
        for first in range(0, len(paths), batch):
            coming.append([pool.submit(decoded, path) for path in paths[first : first + batch]])
            if len(coming) > 1:
                yield [future.result() for future in coming.popleft()]
        for futures in coming:
            yield [future.result() for future in futures]
