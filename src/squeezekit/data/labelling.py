"""Finds names for the outputs of a network without labels, and matches images to them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from squeezekit.data.folders import ImageSet, match
from squeezekit.errors import InputError
from squeezekit.runtime.labels import find_labels, fitted, read_labels
from squeezekit.sqz.network import Metadata

Judge = Callable[[ImageSet], tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]
"""Takes images whose targets are outputs; gives (targets, predictions) of some, both (N,)."""

Note = Callable[[str], None]
"""Called with a sentence that the user should read."""

_CHANCE = 0.01
"""Chance alone must be this unlikely to get as many images right."""

_MANY = 5
"""From this many images of a class, their majority counts; fewer must be two, and all agree."""


def with_labels(
    metadata: Metadata,
    outputs: int,
    *,
    labels_file: Path | None = None,
    image_set: ImageSet | None = None,
    data_dir: Path | None = None,
    judge: Judge | None = None,
    note: Note = lambda text: None,
) -> Metadata:
    """Complete the metadata of a network with `outputs` outputs.

    Labels come, in this order, from: the labels file that the user names; the network itself; a
    labels file in the data folder or beside it; the class folders. If the names of all folders are
    numbers, they are the numbers of the outputs, from 0, or from 1 if only that fits. Else, if
    there are as many folders as outputs, they are in alphabetical order, as training tools number
    them. Folders are used only if the network agrees with them on the images. A note says what was
    used, and it becomes a line of provenance.

    A network that has names but no ids takes the ids of a labels file in the data folder or beside
    it, if the two name the same classes in the same order.

    Args:
        metadata: the metadata of the network.
        outputs: how many classes it tells apart.
        labels_file: named by the user.
        image_set: class folders.
        data_dir: where a labels file may lie.
        judge: runs the network on some of the images; without it, class folders name nothing.
        note: called with a sentence if class folders gave the labels.

    Returns:
        The metadata, unchanged if no labels are found.

    Raises:
        InputError: if the labels file cannot be read or does not have `outputs` names, or the
            network does not agree with the class folders.
    """
    if labels_file is not None:
        named = read_labels(labels_file)
        fits = fitted(named, outputs)
        if fits is None:
            raise InputError(
                f"{labels_file} names {len(named[0])} classes, but the network has {outputs} "
                "outputs"
            )
        return dataclasses.replace(metadata, labels=fits[0], label_ids=fits[1])
    if metadata.label_ids:
        return metadata
    found = find_labels(data_dir, outputs) if data_dir is not None else None
    if metadata.labels:
        if found is not None and found[1] and _name_the_same(metadata.labels, found[0]):
            return dataclasses.replace(metadata, label_ids=found[1])
        return metadata
    if found is not None:
        return dataclasses.replace(metadata, labels=found[0], label_ids=found[1])
    if image_set is None or judge is None:
        return metadata
    return _by_folders(metadata, outputs, image_set, judge, note)


def _by_folders(
    metadata: Metadata, outputs: int, image_set: ImageSet, judge: Judge, note: Note
) -> Metadata:
    """The metadata with the labels of the class folders, if the network confirms them."""
    names = image_set.classes
    if orders := _orders(names, outputs):
        doubts = []
        for how, labels in orders.items():
            targets, predictions = judge(match(image_set, labels))
            doubt = _doubt(targets, predictions, numbered=how != _ALPHABETICAL)
            if not doubt:
                agreed = int((targets == predictions).sum())
                step = f"classes named by the {how} of the class folders"
                note(
                    f"{metadata.name} has no labels: {step}, "
                    f"as {agreed} of {len(targets)} photos agree"
                )
                return dataclasses.replace(metadata, labels=labels).with_step(step)
            doubts.append(f"by the {how} of the class folders {doubt}")
        raise InputError(
            f"{metadata.name} has no labels, and {' and '.join(doubts)}: name its classes by "
            f"--labels, or by a labels.txt in {image_set.root}, in the order of its outputs"
        )
    if all(map(_is_number, names)):
        raise InputError(
            f"{metadata.name} has no labels, and the class folders in {image_set.root} are numbers "
            f"that do not fit its {outputs} outputs: name its classes by --labels, or by a "
            "labels.txt there, in the order of its outputs"
        )
    return metadata


_ALIKE = 0.95
"""This share of the classes must have a name in common: some were renamed over the years."""


def _name_the_same(labels: Sequence[str], others: Sequence[str]) -> bool:
    """Whether two lists name the same classes, by one of their names: "tench, Tinca tinca"."""
    alike = sum(
        not {name.strip().casefold() for name in ours.split(",")}.isdisjoint(
            name.strip().casefold() for name in theirs.split(",")
        )
        for ours, theirs in zip(labels, others, strict=True)
    )
    return alike >= _ALIKE * len(labels)


_ALPHABETICAL = "alphabetical order"


def _orders(names: Sequence[str], outputs: int) -> dict[str, tuple[str, ...]]:
    """The labels that the names of class folders may give, by the rule; the surest rule first."""
    orders: dict[str, tuple[str, ...]] = {}
    if all(map(_is_number, names)):
        by_number = {int(name): name for name in names}
        if len(by_number) < len(names):  # 1 and 01
            return {}
        if max(by_number) < outputs:
            orders["numbers"] = tuple(by_number.get(i, str(i)) for i in range(outputs))
        elif sorted(by_number) == list(range(1, outputs + 1)):
            orders["numbers (from 1)"] = tuple(by_number[i + 1] for i in range(outputs))
        else:
            return {}
    if len(names) == outputs and tuple(sorted(names)) not in orders.values():
        orders[_ALPHABETICAL] = tuple(sorted(names))
    return orders


def _is_number(name: str) -> bool:
    return name.isascii() and name.isdecimal() and len(name) < 10


def _doubt(
    targets: npt.NDArray[np.int64], predictions: npt.NDArray[np.int64], *, numbered: bool
) -> str:
    """Why these predictions do not confirm what the outputs stand for; empty if they do.

    Numbers say what they stand for, so the network may be poor. An order must be right far more
    often than chance, and no other order may be clearly better.
    """
    total, right = len(targets), int((targets == predictions).sum())
    pairs, counts = np.unique(np.stack([targets, predictions]), axis=1, return_counts=True)
    best, taken_targets, taken_outputs = 0, set(), set()
    for place in np.argsort(-counts, kind="stable"):  # one output a class, the plainest first
        target, output = pairs[:, place].tolist()
        if target not in taken_targets and output not in taken_outputs:
            best += int(counts[place])
            taken_targets.add(target)
            taken_outputs.add(output)
    alone = total == len(np.unique(targets))  # one photo a class
    if 3 * right < 2 * best or (alone and best > right + 1) or _swapped(targets, predictions):
        return f"{right} of {total} photos are right, and by another order {best}"
    share = np.bincount(targets, minlength=int(max(targets.max(), predictions.max())) + 1) / total
    chance = float(share[predictions].mean())
    if not numbered and _at_least(right, total, chance) > _CHANCE:
        return f"{right} of {total} photos are right, no more than chance allows"
    return ""


def _swapped(targets: npt.NDArray[np.int64], predictions: npt.NDArray[np.int64]) -> bool:
    """True if most images of a class are predicted as one whose own images are mostly not."""
    taken_for: dict[int, int] = {}
    for target in np.unique(targets).tolist():
        outputs, counts = np.unique(predictions[targets == target], return_counts=True)
        most, total = int(counts.max()), int(counts.sum())
        if 2 * most > total if total >= _MANY else most == total > 1:
            taken_for[target] = int(outputs[counts.argmax()])
    return any(
        output != target and taken_for.get(output, output) != output
        for target, output in taken_for.items()
    )


def _at_least(right: int, total: int, chance: float) -> float:
    """The probability that chance gets this many right, or more (binomial)."""
    if chance >= 1:
        return 1.0
    log_p, log_q = math.log(max(chance, 1e-300)), math.log1p(-chance)
    return sum(
        math.exp(
            math.lgamma(total + 1) - math.lgamma(k + 1) - math.lgamma(total - k + 1)
            + k * log_p + (total - k) * log_q
        )
        for k in range(right, total + 1)
    )  # fmt: skip


def matched(image_set: ImageSet, metadata: Metadata) -> ImageSet:
    """Images whose targets are the outputs of the network that the metadata describes.

    Raises:
        InputError: if its labels do not fit the class folders, or there are none.
    """
    return match(image_set, metadata.labels, metadata.label_ids)
