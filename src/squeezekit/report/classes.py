"""What an evaluation says about each class: how many are right, and what it is confused with."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from squeezekit.evaluation import Evaluation


@dataclass(frozen=True)
class ClassResult:
    """The results of a class.

    Attributes:
        label: its name.
        trained: training images of it.
        images: held-out images of it.
        right: how many of these were classified right.
    """

    label: str
    trained: int
    images: int
    right: int

    @property
    def accuracy(self) -> float | None:
        """Percent right; None if no image of it was held out."""
        return 100 * self.right / self.images if self.images else None


@dataclass(frozen=True)
class Pair:
    """Two classes that were confused.

    Attributes:
        truth: what the images show.
        predicted: what they were taken for.
        count: how many of them.
        images: held-out images of `truth`.
    """

    truth: str
    predicted: str
    count: int
    images: int


def class_results(
    evaluation: Evaluation, labels: Sequence[str], trained: npt.NDArray[np.int64]
) -> list[ClassResult]:
    """Every class, the least accurate first, those without held-out images last.

    Args:
        evaluation: on the held-out images.
        labels: a name a class.
        trained: (classes,) number of training images of each.
    """
    targets = evaluation.targets
    hits = targets[evaluation.ranked[:, 0] == targets]
    images = np.bincount(targets, minlength=len(labels)).tolist()
    right = np.bincount(hits, minlength=len(labels)).tolist()
    results = [
        ClassResult(*values) for values in zip(labels, trained.tolist(), images, right, strict=True)
    ]
    return sorted(results, key=lambda c: math.inf if c.accuracy is None else c.accuracy)


def confused_pairs(evaluation: Evaluation, labels: Sequence[str], count: int = 15) -> list[Pair]:
    """The pairs of classes that were confused most often, worst first; at most `count`."""
    targets, predicted = evaluation.targets, evaluation.ranked[:, 0]
    wrong = targets != predicted
    pairs, times = np.unique(
        np.stack([targets[wrong], predicted[wrong]], axis=1), axis=0, return_counts=True
    )
    images = np.bincount(targets, minlength=len(labels))
    return [
        Pair(labels[pairs[i, 0]], labels[pairs[i, 1]], int(times[i]), int(images[pairs[i, 0]]))
        for i in np.argsort(-times, kind="stable")[:count]
    ]
