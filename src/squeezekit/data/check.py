"""Looks for faults in photos before training: copies, blank photos, rare classes."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import get_args

import numpy as np

from squeezekit.data.dataset import Data, is_split, split
from squeezekit.data.fingerprints import fingerprints, groups_with_mirrored
from squeezekit.data.folders import ImageSet, Part
from squeezekit.data.mislabels import mislabels, scores_of
from squeezekit.errors import InputError
from squeezekit.progress import Progress, silent
from squeezekit.runtime.classifier import Classifier
from squeezekit.runtime.images import ImageFile, image_size, open_image


@dataclass(frozen=True)
class CheckConfig:
    """What counts as wrong.

    Attributes:
        tiny_pixels: a photo whose shorter side has fewer pixels than this is tiny.
        blank_contrast: a photo whose pixels (0 to 255) have a smaller standard deviation is blank.
        rare_photos: a class with fewer training photos is rare.
        rare_share: a class with less than this share of the median class's photos is rare too.
        copy_difference: two photos are copies if their small versions differ by less than this, in
            standard deviations. The split uses a stricter limit; here a person looks.
    """

    tiny_pixels: int = 32
    blank_contrast: float = 2.0
    rare_photos: int = 10
    rare_share: float = 0.2
    copy_difference: float = 0.2


@dataclass(frozen=True)
class Photo:
    """A photo.

    Attributes:
        file: the file.
        label: the name of its class folder.
        part: "train", "val" or "test"; empty if the data is not split.
    """

    file: ImageFile
    label: str
    part: str


@dataclass(frozen=True)
class Mislabelled:
    """A photo that probably belongs to another class; for `margin` see `mislabels.Mislabel`."""

    photo: Photo
    suggested: str
    margin: float


@dataclass(frozen=True, eq=False)
class Checked:
    """What was found.

    Attributes:
        photos: how many photos there are.
        classes: how many photos each class has, in all parts.
        copies: groups of photos that are copies of one another: exact, resized, saved again or
            mirrored.
        blank: photos that show nothing.
        tiny: photos with very few pixels.
        unreadable: photos that cannot be opened, each with the reason.
        rare: classes with few photos to train on, and how many each has.
        mislabelled: photos that probably belong to another class, the most certain first; None if
            no network was given to judge them.
    """

    photos: int
    classes: dict[str, int]
    copies: tuple[tuple[Photo, ...], ...]
    blank: tuple[Photo, ...]
    tiny: tuple[Photo, ...]
    unreadable: tuple[tuple[Photo, str], ...]
    rare: dict[str, int]
    mislabelled: tuple[Mislabelled, ...] | None

    @property
    def across_parts(self) -> tuple[tuple[Photo, ...], ...]:
        """Copies in more than one part: then the held-out photos are not a fair test."""
        return tuple(group for group in self.copies if len({p.part for p in group}) > 1)

    @property
    def across_classes(self) -> tuple[tuple[Photo, ...], ...]:
        """Copies in more than one class: at most one of them is right."""
        return tuple(group for group in self.copies if len({p.label for p in group}) > 1)

    def as_json(self) -> dict[str, object]:
        """The result as `check --json` prints it."""
        return {
            "photos": self.photos,
            "classes": self.classes,
            "copies": [[str(photo.file) for photo in group] for group in self.copies],
            "across_parts": len(self.across_parts),
            "across_classes": len(self.across_classes),
            "blank": [str(photo.file) for photo in self.blank],
            "tiny": [str(photo.file) for photo in self.tiny],
            "unreadable": {str(photo.file): reason for photo, reason in self.unreadable},
            "rare": self.rare,
            "mislabelled": None
            if self.mislabelled is None
            else [
                {
                    "image": str(each.photo.file),
                    "label": each.photo.label,
                    "suggested": each.suggested,
                    "margin": each.margin,
                }
                for each in self.mislabelled
            ],
        }


def check(
    data: Data,
    config: CheckConfig = CheckConfig(),
    *,
    classifier: Classifier | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> Checked:
    """Look for faults in photos before you train on them.

        found = sk.check("photos", classifier=sk.load("imagenet.sqz"))
        for group in found.across_parts: ...

    Args:
        data: the path of class folders or shards, split or not.
        config: what counts as wrong.
        classifier: judges the labels. Any network that was not trained on these photos will do,
            even one with other classes.
        seed: chooses the folds of the cross-validation that judges labels.
        progress: called during every task.

    Raises:
        InputError: if there is no such data, or no image in it.
    """
    images, photos = _photos(data, progress)
    prints = fingerprints(images.paths, progress, images.root)
    groups: dict[int, list[Photo]] = {}
    first_of = groups_with_mirrored(prints, config.copy_difference)
    for photo, first in zip(photos, first_of.tolist(), strict=True):
        groups.setdefault(first, []).append(photo)
    blank, tiny, unreadable = [], [], []
    flat = prints.looks.std(1) < 2 * config.blank_contrast  # of a small copy: details are gone
    with ThreadPoolExecutor() as pool:
        looked = pool.map(_look, images.paths, flat.tolist())
        for done, (photo, (side, contrast, reason)) in enumerate(
            zip(photos, looked, strict=True), 1
        ):
            progress("measure", done, len(photos))
            if reason:
                unreadable.append((photo, reason))
            elif side < config.tiny_pixels:
                tiny.append(photo)
            elif contrast is not None and contrast < config.blank_contrast:
                blank.append(photo)
    return Checked(
        photos=len(photos),
        classes={name: int((images.targets == i).sum()) for i, name in enumerate(images.classes)},
        copies=tuple(tuple(group) for group in groups.values() if len(group) > 1),
        blank=tuple(blank),
        tiny=tuple(tiny),
        unreadable=tuple(unreadable),
        rare=_rare(photos, images.classes, config),
        mislabelled=None
        if classifier is None
        else tuple(_mislabelled(classifier, images, photos, seed, progress)),
    )


def _photos(data: Data, progress: Progress) -> tuple[ImageSet, list[Photo]]:
    """All photos, and where each belongs."""
    images = split(data, "all", progress=progress)
    part_of: dict[str, str] = {}
    if is_split(data):
        for part in get_args(Part):
            if part == "all":
                continue
            try:
                found = split(data, part, progress=progress)
            except InputError:  # it has no such part
                continue
            for path in found.paths:
                part_of.setdefault(str(path), part)  # val serves as test where there is none
    return images, [
        Photo(path, images.classes[target], part_of.get(str(path), ""))
        for path, target in zip(images.paths, images.targets.tolist(), strict=True)
    ]


def _look(file: ImageFile, decode: bool) -> tuple[int, float | None, str]:
    """The shorter side in pixels, the contrast if asked for, and why the photo cannot be read."""
    try:
        side = min(image_size(file))
        if not decode:
            return side, None, ""
        pixels = np.asarray(open_image(file))  # (H, W) or (H, W, 3)
        return side, float(pixels.std((0, 1)).max()), ""
    except InputError as error:
        return 0, None, str(error)


def _rare(photos: list[Photo], classes: tuple[str, ...], config: CheckConfig) -> dict[str, int]:
    counts = dict.fromkeys(classes, 0)
    for photo in photos:
        if photo.part in ("", "train"):
            counts[photo.label] += 1
    least = max(config.rare_photos, config.rare_share * float(np.median(list(counts.values()))))
    return {name: count for name, count in counts.items() if count < least}


def _mislabelled(
    classifier: Classifier, images: ImageSet, photos: list[Photo], seed: int, progress: Progress
) -> Iterator[Mislabelled]:
    read, scores = scores_of(classifier, images.paths, progress)
    for found in mislabels(scores, images.targets[read], seed):
        photo = photos[int(read[found.index])]
        yield Mislabelled(photo, images.classes[found.suggested], found.margin)
