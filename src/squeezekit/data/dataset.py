"""A data set of any kind, class folders or tar shards, and its parts."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np

from squeezekit.data import folders, held_out
from squeezekit.data.fingerprints import Fingerprints, copies_among, fingerprints
from squeezekit.data.folders import ImageSet, Part
from squeezekit.data.held_out import NOTHING, Memory
from squeezekit.data.shards import UNSPLIT, find_shards, images_in, scan_shards
from squeezekit.errors import InputError
from squeezekit.progress import Progress, silent
from squeezekit.sqz.network import Network
from squeezekit.sqz.trained_on import Digests


@dataclass(frozen=True, eq=False)
class Split:
    """The parts of a data set; no image is in two of them.

    Attributes:
        training: the images to train on, and to calibrate with.
        choosing: the images to choose by: an epoch, a price, a density.
        measuring: the images to tell the accuracy of what was chosen. The same as `choosing` where
            nothing is chosen, or there are not two held-out images.
        notes: what a user should know of it, a sentence each.
        prints: the fingerprints of the three, in this order.
    """

    training: ImageSet
    choosing: ImageSet
    measuring: ImageSet
    notes: tuple[str, ...]
    prints: tuple[Fingerprints, Fingerprints, Fingerprints]

    @property
    def chooses(self) -> bool:
        """True if the images to measure with are not used to choose anything."""
        return self.choosing is not self.measuring

    @property
    def digests(self) -> tuple[Digests, Digests]:
        """The digests of the photos to train on, and of those that are held out."""
        training, *apart = (prints.digests for prints in self.prints)
        return training, np.unique(np.concatenate(apart))

    def remembered_by(self, network: Network) -> Network:
        """The network; its metadata now marks the photos that it will be trained on."""
        return held_out.remembered(network, *self.digests)

    def write_list(self, folder: Path) -> None:
        """Write the list of the photos into the folder of a run.

        Raises:
            InputError: if it cannot be written.
        """
        parts = [("train", self.training, self.prints[0]), ("val", self.choosing, self.prints[1])]
        if self.chooses:
            parts.append(("test", self.measuring, self.prints[2]))
        held_out.write_list(folder / held_out.PHOTO_LIST, parts)

    def matched(self, match: Callable[[ImageSet], ImageSet]) -> Split:
        """The same with the classes of a network (see `labelling.matched`)."""
        choosing = match(self.choosing)
        return dataclasses.replace(
            self,
            training=match(self.training),
            choosing=choosing,
            measuring=match(self.measuring) if self.chooses else choosing,
        )


Data = Path | str | ImageSet
"""Class folders or shards, by their path; or images that were collected already."""


def is_split(data: Data) -> bool:
    """True if a data set itself says which images are for training and which are not.

    Raises:
        InputError: if there is none.
    """
    if isinstance(data, ImageSet):
        return False
    if found := find_shards(data):
        return found.keys() != {UNSPLIT}
    return bool(folders.split_folders(data))


def splits_here(data: Data) -> bool:
    """True if we must hold images out: the data set has no parts, or only a train part."""
    return _needs_holding_out(_parts(data, silent)[1])


def images_of(
    data: Data, part: str = "auto", note: Callable[[str], None] | None = None
) -> ImageSet:
    """The images of a part of a data set, by its name.

    Args:
        data: see `split`.
        part: "train", "val", "test" or "all"; "auto" is val where the data is split by itself,
            else all.
        note: called with a sentence about class folders that hold no image.

    Raises:
        InputError: if there is no such data, no image, or no such part.
    """
    parts = ("train", "val", "test", "all")
    if part == "auto":
        part = "val" if is_split(data) else "all"
    if part not in parts:
        raise InputError(f"there is no part {part!r}: use {', '.join(parts)} or auto")
    images = split(data, cast(Part, part))
    if note is not None:
        for name in images.empty:
            note(f"the class folder {name} in {images.root} holds no image")
    return images


def unlabelled(data: Path | str, progress: Progress = silent) -> ImageSet:
    """Any photos, as one class: for calibration and recovery, which need no labels.

    Args:
        data: a folder with images at any depth, class folders or not; or tar files, with classes
            or without (see `shards.find_shards`). Of what is split, the images for training.
        progress: called for each shard, as task "scan".

    Raises:
        InputError: if there is no such data, or no image in it.
    """
    if found := find_shards(data):
        shards = found.get("train") or [path for paths in found.values() for path in paths]
        return folders.of_one_class(Path(data), images_in(shards, progress))
    parts = folders.split_folders(data)
    return folders.of_one_class(Path(data), folders.images_below(parts.get("train", data)))


def split(data: Data, part: Part, seed: int = 0, progress: Progress = silent) -> ImageSet:
    """One part of a data set, of class folders or shards alike.

    If the data is split (see `folders.split_folders`, `shards.find_shards`), its own parts are
    used; without val, test serves as val, and the other way round. If it is not split, or has only
    a train part, a fifth of each class is val (and test); see `held_out.held_out`.

    Args:
        data: class folders, shards, or images, which count as not split.
        part: "all" is every image.
        seed: the seed of the split of what is not split.
        progress: called for each class folder or shard, as task "scan".

    Raises:
        InputError: if there is no such data, no image, or no such part.
    """
    read, found = _parts(data, progress)
    if part == "all":
        return read(list(found))
    if not _needs_holding_out(found):
        name = folders.serving(part, found)
        if name is None:
            raise InputError(_no_part(data, part))
        return read([name])
    images = read(list(found))
    apart = held_out.held_out(images, fingerprints(images.paths, progress, images.root), seed)
    if part != "train" and not apart.any():
        raise InputError(_nothing_left(images, 0))
    return images.subset(np.flatnonzero(~apart if part == "train" else apart))


def split_once(
    data: Data,
    seed: int = 0,
    *,
    memory: Memory = NOTHING,
    chooses: bool = False,
    whole: bool = False,
    progress: Progress = silent,
) -> Split:
    """All parts of a data set at once, for a network that may have seen some of its images.

    Images that the network was trained on are never held out. If the data is split, held-out images
    that are also training images are left out, and so are those that the network has seen.

    Args:
        data: class folders, shards, or images, which count as not split.
        seed: the seed of the split of what is not split.
        memory: the memory of the network.
        chooses: whether something is chosen by held-out images, or was when the network was
            trained (`memory.chose`); then others tell the accuracy: val and test where the data has
            both, else two halves of what is held out, which are the same each time.
        whole: see `held_out.held_out`.
        progress: called during scanning ("scan") and reading the photos ("recognise").

    Raises:
        InputError: if there is no such data, no image, or nothing can be held out.
    """
    read, found = _parts(data, progress)
    notes: list[str] = []
    if _needs_holding_out(found):
        images = read(list(found))
        prints = fingerprints(images.paths, progress, images.root)
        seen = memory.seen(prints)
        apart = held_out.held_out(images, prints, seed, memory, whole=whole)
        if not apart.any():
            raise InputError(_nothing_left(images, int(seen.sum())))
        training, training_prints = _taken(images, prints, ~apart)
        images, prints = _taken(images, prints, apart)
    else:
        training, training_prints = _printed(read, found, "train", data, progress)
        images, prints = _printed(read, found, "val", data, progress)
        images, prints = _unseen(images, prints, training_prints, memory, notes)
        if {"val", "test"} <= found.keys():
            test, test_prints = _printed(read, found, "test", data, progress)
            test, test_prints = _unseen(test, test_prints, training_prints, memory, notes)
            known = np.isin(test_prints.digests, prints.digests)
            test, test_prints = _taken(test, test_prints, ~known)
            return Split(
                training, images, _some_left(test), tuple(notes),
                (training_prints, prints, test_prints),
            )  # fmt: skip
    _some_left(images)
    parts = (training_prints, prints, prints)
    if not chooses and not memory.chose:
        return Split(training, images, images, tuple(notes), parts)
    first, second = held_out.halved(images, prints)
    if first.all():
        notes.append(
            f"{images.root} has too few held-out photos: the same ones choose and measure, which "
            "flatters"
        )
        return Split(training, images, images, tuple(notes), parts)
    choosing, choosing_prints = _taken(images, prints, first)
    measuring, measuring_prints = _taken(images, prints, second)
    return Split(
        training, choosing, measuring, tuple(notes),
        (training_prints, choosing_prints, measuring_prints),
    )  # fmt: skip


_Read = Callable[[list[str]], ImageSet]
"""The images of parts by their names."""


def _parts(data: Data, progress: Progress) -> tuple[_Read, dict[str, object]]:
    """What reads the parts of a data set, and their names."""
    if isinstance(data, ImageSet):
        return lambda names: data, {UNSPLIT: data}
    if shards := find_shards(data):

        def read_shards(names: list[str]) -> ImageSet:
            paths = [path for name in names for path in shards[name]]
            return scan_shards(paths, Path(data), progress)

        return read_shards, dict(shards)
    places = folders.split_folders(data) or {UNSPLIT: Path(data)}

    def read(names: list[str]) -> ImageSet:
        if len(names) == 1:
            return folders.scan(places[names[0]], progress)
        return folders.union(Path(data), [folders.scan(places[name], progress) for name in names])

    return read, dict(places)


def _needs_holding_out(found: dict[str, object]) -> bool:
    return found.keys() in ({"train"}, {UNSPLIT})


def _taken(
    images: ImageSet, prints: Fingerprints, which: np.ndarray
) -> tuple[ImageSet, Fingerprints]:
    return images.subset(np.flatnonzero(which)), prints.subset(which)


def _printed(
    read: _Read, found: dict[str, object], part: Part, data: Data, progress: Progress
) -> tuple[ImageSet, Fingerprints]:
    name = folders.serving(part, found)
    if name is None:
        raise InputError(_no_part(data, part))
    images = read([name])
    return images, fingerprints(images.paths, progress, images.root)


def _unseen(
    images: ImageSet,
    prints: Fingerprints,
    training: Fingerprints,
    memory: Memory,
    notes: list[str],
) -> tuple[ImageSet, Fingerprints]:
    """The images without those that are trained on."""
    copies = np.isin(prints.digests, training.digests)
    seen = memory.seen(prints) & ~copies
    if copies.any():
        notes.append(
            f"{_photos(int(copies.sum()))} of {images.root} among the training photos too: "
            "left out of the measure"
        )
    alike = copies_among(prints, training) & ~(copies | seen)
    if alike.any():
        notes.append(
            f"near copies of training photos in {images.root}: {int(alike.sum()):,}; the measure "
            "may be too good (squeezekit check shows them)"
        )
    if seen.any():
        notes.append(
            f"{_photos(int(seen.sum()))} of {images.root} among those that the network was trained "
            "on before: left out of the measure"
        )
    return _taken(images, prints, ~(copies | seen))


def _no_part(data: Data, part: Part) -> str:
    assert not isinstance(data, ImageSet), "which has all parts"
    return f"{data} has no {'shards for' if find_shards(data) else 'folder'} {part!r}"


def _photos(count: int) -> str:
    return f"{count:,} {'photo' if count == 1 else 'photos'}"


def _some_left(images: ImageSet) -> ImageSet:
    if not len(images):
        raise InputError(
            f"every held-out photo in {images.root} is also a training photo, so none is "
            "left to measure with"
        )
    return images


def _nothing_left(images: ImageSet, seen: int) -> str:
    if seen:
        return (
            f"the network was trained on {seen:,} of the photos in {images.root}, so none is left "
            "to measure with: add photos"
        )
    return f"{images.root} has a single image in every class, so none can be held out"
