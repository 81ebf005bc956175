"""What a training changed for each class that the network knew before, on held-out photos."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from squeezekit.data.folders import ImageSet, known_classes
from squeezekit.evaluation import Evaluation, evaluate
from squeezekit.progress import Progress, silent
from squeezekit.runtime.classifier import from_network
from squeezekit.sqz.network import Network

_MOST_NAMED = 8


@dataclass(frozen=True)
class ClassChange:
    """How a class does, before and after.

    Attributes:
        label: its name.
        photos: how many held-out photos of it there are.
        before: how many of them the network got right that training began with, which chose among
            its own classes; None if it does not know the class.
        after: how many the trained network gets right.
    """

    label: str
    photos: int
    before: int | None
    after: int


def class_changes(
    start: Network,
    trained: Network,
    evaluation: Evaluation,
    images: ImageSet,
    progress: Progress = silent,
) -> tuple[ClassChange, ...]:
    """Compare a trained network, class by class, with the one that it began as.

    Args:
        start: what it began as.
        trained: what it is now; its labels are the classes of the images.
        evaluation: of the trained network, on these images.
        images: held-out ones.
        progress: called during the evaluation of `start`.

    Returns:
        One for each class with held-out photos, in the order of the labels; empty if `start` knows
        none of the classes.
    """
    labels = trained.metadata.labels
    known = known_classes(labels, start.metadata.labels, start.metadata.label_ids)
    read = {id(path) for path in evaluation.paths}  # the others cannot be read
    places = [
        i for i, (path, target) in enumerate(zip(images.paths, images.targets, strict=True))
        if id(path) in read and int(target) in known
    ]  # fmt: skip
    if not places:
        return ()
    chosen = images.subset(places)
    outputs = np.array([known[int(target)] for target in chosen.targets], np.int64)
    before = evaluate(
        from_network(start),
        dataclasses.replace(chosen, targets=outputs, classes=start.metadata.labels),
        progress=progress,
    )
    count = len(labels)
    photos = np.bincount(evaluation.targets, minlength=count)
    after = np.bincount(evaluation.targets[evaluation.right()], minlength=count)
    right = np.bincount(chosen.targets[before.right()], minlength=count)
    return tuple(
        ClassChange(
            label, int(photos[i]), int(right[i]) if i in known else None, int(after[i])
        )
        for i, label in enumerate(labels) if photos[i]
    )  # fmt: skip


def told_changes(changes: Sequence[ClassChange]) -> list[str]:
    """Sentences for people: which classes are worse, better, as good and new."""
    known = [(c, c.before) for c in changes if c.before is not None]
    if not known:
        return []
    worse = sorted(
        ((c, b) for c, b in known if c.after < b), key=lambda pair: pair[0].after - pair[1]
    )
    better = sorted(
        ((c, b) for c, b in known if c.after > b), key=lambda pair: pair[1] - pair[0].after
    )
    told = [
        f"{len(part)} of {len(known)} known classes {verb} on held-out photos: "
        + _listed([f"{c.label} {c.after} of {c.photos} right, not {b}" for c, b in part])
        for verb, part in (("became worse", worse), ("became better", better)) if part
    ]  # fmt: skip
    if not told:
        told = ["no class that it knew became better or worse on held-out photos"]
    new = [c for c in changes if c.before is None]
    if new:
        told.append(
            f"{len(new)} new: " + _listed([f"{c.label} {c.after} of {c.photos} right" for c in new])
        )
    return told


def _listed(names: Sequence[str]) -> str:
    left = len(names) - _MOST_NAMED
    return ", ".join(names[:_MOST_NAMED]) + (f", and {left} more" if left > 0 else "")
