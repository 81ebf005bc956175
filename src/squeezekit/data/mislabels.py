"""Finds photos that are probably in the wrong class folder, by comparing with all the others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from squeezekit.errors import InputError
from squeezekit.progress import Progress, silent
from squeezekit.runtime.classifier import Classifier
from squeezekit.runtime.images import ImageFile, prepare_file

FOLDS = 5
"""Each photo is judged by a fit on four fifths of the photos, which do not include it."""

_LEAST_OF_A_CLASS = FOLDS
_REGULARISATION = 0.003
_CONFIDENT = 0.75
"""A share of the usual probability of a class. With 1, as in the paper, two thirds of planted
errors are found; with this, more (bench/results/check_photos.json)."""
_BATCH = 32


@dataclass(frozen=True)
class Mislabel:
    """A photo that probably belongs to another class.

    Attributes:
        index: the index of the photo.
        suggested: the index of the class that it probably belongs to.
        margin: how much more probable that class is than its own, 0 to 1.
    """

    index: int
    suggested: int
    margin: float


def scores_of(
    classifier: Classifier, photos: Sequence[ImageFile], progress: Progress = silent
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """What a network says about photos, whatever its classes are.

    Args:
        classifier: must not be trained on these photos, or it would repeat their errors.
        photos: those that cannot be read are left out.
        progress: called with the number of photos done, as task "look".

    Returns:
        int64 (M,), the photos that could be read; float32 (M, outputs), their logits.
    """

    def prepared(photo: ImageFile) -> npt.NDArray[np.float32] | None:
        try:
            return prepare_file(photo, classifier.metadata.preprocessing)
        except InputError:
            return None

    def batches() -> Iterator[tuple[int, list[npt.NDArray[np.float32] | None]]]:
        with ThreadPoolExecutor() as pool:
            for start in range(0, len(photos), _BATCH):
                yield start, list(pool.map(prepared, photos[start : start + _BATCH]))

    read: list[int] = []
    scores: list[npt.NDArray[np.float32]] = []
    for start, arrays in batches():
        there = [(start + i, array) for i, array in enumerate(arrays) if array is not None]
        if there:
            read += [i for i, _ in there]
            logits = classifier.logits(np.stack([array for _, array in there]))
            scores.append(np.nan_to_num(logits, neginf=-100.0).astype(np.float32))
        progress("look", min(start + _BATCH, len(photos)), len(photos))
    if not scores:
        return np.zeros(0, np.int64), np.zeros((0, 1), np.float32)
    return np.array(read, np.int64), np.concatenate(scores)


def mislabels(
    scores: npt.NDArray[np.float32], targets: npt.NDArray[np.int64], seed: int = 0
) -> list[Mislabel]:
    """Confident learning (Northcutt et al. 2021, "Confident Learning", section 3).

    A logistic regression on the scores gives each photo its probabilities, by a fit that has not
    seen it. A photo counts as another class if that class is more probable than its own, and nearly
    as probable as it is on average for the photos labelled as that class.

    Args:
        scores: float32 (N, features), such as a network's logits.
        targets: int64 (N,), the classes as labelled. Photos of a class with fewer than 5 are
            neither judged nor judged by.
        seed: the seed of the folds.

    Returns:
        The most certain first.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold
    from sklearn.preprocessing import StandardScaler

    counts = np.bincount(targets) if len(targets) else np.zeros(0, np.int64)
    classes = np.flatnonzero(counts >= _LEAST_OF_A_CLASS)
    judged = np.flatnonzero(np.isin(targets, classes))
    if len(classes) < 2:
        return []
    labels = np.searchsorted(classes, targets[judged])
    features = StandardScaler().fit_transform(scores[judged])
    probabilities = np.zeros((len(judged), len(classes)))
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
    for fit, held_out in folds.split(features, labels):
        model = LogisticRegression(C=_REGULARISATION, max_iter=300)
        model.fit(features[fit], labels[fit])
        probabilities[held_out] = model.predict_proba(features[held_out])
    own = probabilities[np.arange(len(judged)), labels]
    usual = np.array([own[labels == each].mean() for each in range(len(classes))])
    confident = np.where(probabilities >= _CONFIDENT * usual, probabilities, -1.0)
    best = confident.argmax(1)
    margin = probabilities[np.arange(len(judged)), best] - own
    found = [
        Mislabel(int(judged[i]), int(classes[best[i]]), float(margin[i]))
        for i in np.flatnonzero((confident.max(1) > 0) & (best != labels) & (margin > 0))
    ]
    return sorted(found, key=lambda each: -each.margin)
