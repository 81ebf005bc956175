"""Which photos training may not see, which ones a network has seen, and the list of both."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import io
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from squeezekit.data.fingerprints import SIDE, Fingerprints, copies_among, groups_of
from squeezekit.data.folders import ImageSet
from squeezekit.errors import InputError
from squeezekit.files import write_whole
from squeezekit.sqz.network import Network
from squeezekit.sqz.trained_on import Digests, TrainedOn

HELD_OUT_SHARE = 0.2
"""The share of each class of an unsplit folder that is held out."""

PHOTO_LIST = "photos.csv"
"""The file in a run's folder that lists every photo, and what it was used for."""

_FIELDS = ("part", "class", "photo", "digest", "look")
_Flags = npt.NDArray[np.bool_]
_CHANCE = 1 / 16
"""The share of unknown photos that marks wrongly take for known (see `sqz.trained_on`)."""


@dataclass(frozen=True, eq=False)
class Memory:
    """What is known about the photos that a network was trained on.

    Attributes:
        marks: the marks in its metadata.
        trained: the fingerprints of all photos of its last training, from the list in the folder of
            the run; None if there is no such list.
        held_out: digests of the photos that were held out then.
        chose: True if some of these chose the epoch to keep, and others measured the accuracy.
    """

    marks: tuple[TrainedOn, ...] = ()
    trained: Fingerprints | None = None
    held_out: Digests | None = None
    chose: bool = False

    def __bool__(self) -> bool:
        return bool(self.marks) or self.trained is not None

    def seen(self, prints: Fingerprints) -> _Flags:
        """Which photos the network was trained on, or may have been; (N,).

        Photos are recognised by their bytes. With the list of a run, copies that were resized or
        saved again are recognised too.
        """
        marks = list(self.marks)
        if self.trained is None or self.held_out is None:
            return seen_by(marks, prints.digests)
        listed = TrainedOn.of(self.trained.digests, self.held_out)
        others = [known for known in marks if known != listed]
        return copies_among(prints, self.trained) | seen_by(others, prints.digests)

    def may_be_chance(self, seen: int, photos: int) -> bool:
        """True if so many new photos may be marked by mistake; with a list none are."""
        return self.trained is None and not _more_than_chance(seen, photos)


NOTHING = Memory()
"""The memory of a network about which nothing is known."""


def seen_by(marks: Iterable[TrainedOn], digests: Digests) -> _Flags:
    """Which photos a network with these marks was trained on, or may have been; (N,)."""
    found = np.zeros(len(digests), bool)
    for known in marks:
        trained, told = known.trained(digests), known.told(digests)
        found |= trained
        if known.every > 1 and _more_than_chance(int(trained.sum()), int(told.sum())):
            found |= ~told
    return found


def remembered(network: Network, trained: Digests, apart: Digests) -> Network:
    """The network with marks of the photos that it is trained on, unless it has seen all already.

    Args:
        network: the network that is to be trained, or calibrated.
        trained: the digests of the photos that it will see.
        apart: the digests of those that are held out.
    """
    marks = network.metadata.trained_on
    if seen_by(marks, trained).all():
        return network
    marks = (*marks, TrainedOn.of(trained, apart))
    metadata = dataclasses.replace(network.metadata, trained_on=marks)
    return dataclasses.replace(network, metadata=metadata)


def memory_of(marks: tuple[TrainedOn, ...], run: Path | None = None) -> Memory:
    """What a network's metadata says, and the list of photos in the folder of its run.

    Args:
        marks: `Metadata.trained_on`.
        run: the folder (see `interop.weights.run_folder`); None if there is none.

    Raises:
        InputError: if the list is damaged.
    """
    if run is None or not (run / PHOTO_LIST).is_file():
        return Memory(marks)
    parts = _read_list(run / PHOTO_LIST)
    apart = np.concatenate([prints.digests for part, prints in parts.items() if part != "train"])
    return Memory(marks, parts["train"], apart, chose=len(parts.get("test", ())) > 0)


def held_out(
    image_set: ImageSet,
    prints: Fingerprints,
    seed: int,
    memory: Memory = NOTHING,
    *,
    whole: bool = False,
) -> _Flags:
    """Which images of an unsplit set are held out: a fifth of each class, by their bytes.

    Each photo has a place that depends on its digest and the seed; in each class those with the
    lowest places are held out. Photos that the network was trained on are never held out. Copies
    and near copies of a photo are held out together, or not at all.

    Args:
        image_set: what to split.
        prints: the fingerprints of its images.
        seed: another one gives another split.
        memory: the memory of the network that the images are for.
        whole: split classes with a single image too, all of them together, for training without
            labels; else such an image is trained on.

    Returns:
        bool (N,); all False if there is nothing to hold out.
    """
    groups = groups_of(prints)
    free = ~np.isin(groups, groups[memory.seen(prints)])
    size = np.bincount(groups, minlength=len(groups))
    chosen = np.zeros(len(groups), bool)  # by group
    place = _places(groups, prints.digests, f"{seed}")

    def take(candidates: list[int], images: int) -> None:
        """Hold out, in their order, those groups that fit into a fifth of this many images."""
        left = round(HELD_OUT_SHARE * images)
        for group in candidates:
            if size[group] <= left:
                chosen[group] = True
                left -= int(size[group])

    single: list[int] = []
    for target in range(len(image_set.classes)):
        (members,) = np.nonzero(image_set.targets == target)
        ours = np.unique(groups[members])
        ours = ours[image_set.targets[ours] == target]  # of a group in two classes, the first's
        if len(members) == 1:
            single += ours.tolist()
            continue
        candidates = sorted(ours[free[ours]].tolist(), key=place.__getitem__)
        take(candidates, len(members))
        if candidates and len(ours) > 1 and not chosen[candidates].any():
            chosen[min(candidates, key=lambda group: int(size[group]))] = True
    if whole:
        take(sorted((g for g in single if free[g]), key=place.__getitem__), len(single))
    return chosen[groups]


def halved(image_set: ImageSet, prints: Fingerprints) -> tuple[_Flags, _Flags]:
    """Held-out images in two halves: one to choose with, one to measure what was chosen.

    The halves depend on the images alone, and copies of a photo stay together.

    Returns:
        bool (N,) each; if there are no two different images, both are all images.
    """
    groups = groups_of(prints)
    place = _places(groups, prints.digests, "half")
    size = np.bincount(groups, minlength=len(groups))
    second = np.zeros(len(groups), bool)  # by group
    counts = [0, 0]
    for target in range(len(image_set.classes)):
        ours = np.unique(groups[image_set.targets == target])
        ours = ours[image_set.targets[ours] == target]
        of_class = [0, 0]
        for group in sorted(ours.tolist(), key=place.__getitem__):
            side = min((1, 0), key=lambda side: (of_class[side], counts[side]))
            of_class[side] += int(size[group])
            counts[side] += int(size[group])
            second[group] = side == 1
    measuring = second[groups]
    if measuring.all() or not measuring.any():
        everything = np.ones(len(groups), bool)
        return everything, everything
    return ~measuring, measuring


def write_list(path: Path, parts: Iterable[tuple[str, ImageSet, Fingerprints]]) -> None:
    """Write a line for each photo: its part, class, name, digest and look (hexadecimal).

    Raises:
        InputError: if it cannot be written.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_FIELDS)
    for part, image_set, prints in parts:
        for i, file in enumerate(image_set.paths):
            writer.writerow(
                [
                    part,
                    image_set.classes[image_set.targets[i]],
                    _name_below(file, image_set.root),
                    f"{int(prints.digests[i]):016x}",
                    prints.looks[i].tobytes().hex(),
                ]
            )
    write_whole(path, text.getvalue().encode("utf-8", "surrogateescape"))


def _read_list(path: Path) -> dict[str, Fingerprints]:
    found: dict[str, tuple[list[int], list[bytes]]] = {"train": ([], []), "val": ([], [])}
    try:
        with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
            for row in csv.DictReader(file):
                digests, looks = found.setdefault(row["part"], ([], []))
                digests.append(int(row["digest"], 16))
                looks.append(bytes.fromhex(row["look"]))
        return {
            part: Fingerprints(
                np.array(digests, np.uint64),
                np.frombuffer(b"".join(looks), np.uint8).reshape(len(digests), SIDE * SIDE),
            )
            for part, (digests, looks) in found.items()
        }
    except (OSError, csv.Error, KeyError, ValueError, TypeError, OverflowError):
        raise InputError(
            f"{path} is damaged: it lists the photos that the network was trained on; "
            "delete it to rely on the marks in the weights alone"
        ) from None


def _places(groups: npt.NDArray[np.int64], digests: Digests, salt: str) -> dict[int, bytes]:
    """The place of each group of photos, from the bytes of its photos and the salt."""
    least: dict[int, int] = {}
    for group, digest in zip(groups.tolist(), digests.tolist(), strict=True):
        least[group] = min(digest, least.get(group, digest))
    return {
        group: hashlib.sha256(f"{salt}/{digest:016x}".encode()).digest()
        for group, digest in least.items()
    }


def _more_than_chance(hits: int, told: int) -> bool:
    """True if more photos are marked than by mistake (by four standard deviations)."""
    return hits > told * _CHANCE + 4 * math.sqrt(told * _CHANCE * (1 - _CHANCE))


def _name_below(file: object, root: Path) -> str:
    path = Path(str(file))
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(file)
