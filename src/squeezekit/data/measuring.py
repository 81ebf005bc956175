"""Chooses photos to measure a network with, if it has been trained on some of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, cast

import numpy as np

from squeezekit.data.dataset import Data, images_of, is_split, split_once, splits_here
from squeezekit.data.fingerprints import fingerprints
from squeezekit.data.folders import ImageSet
from squeezekit.data.held_out import Memory
from squeezekit.errors import InputError
from squeezekit.progress import Note, Progress, silent, silent_note
from squeezekit.runtime.held import PilImage, PreparedImage

MeasuredPart = Literal["auto", "train", "val", "test", "all"]
PARTS: tuple[MeasuredPart, ...] = ("train", "val", "test", "all")


@dataclass(frozen=True, eq=False)
class Measured:
    """Photos to measure a network with.

    Attributes:
        images: the photos.
        trained_on: how many of them the network was trained on, or may have been.
        left_out: how many were left out because the network was trained on them.
        by_chance: True if as many would be marked even if all photos were new: the marks in a file
            are wrong for one new photo in sixteen.
    """

    images: ImageSet
    trained_on: int = 0
    left_out: int = 0
    by_chance: bool = False

    @property
    def sentence(self) -> str:
        """A sentence to show beside the accuracy; empty if there is nothing to say."""
        seen = "may have been trained on" if self.by_chance else "was trained on"
        doubt = (
            " (the marks in its file are wrong of one new photo in 16)" if self.by_chance else ""
        )
        if self.trained_on:
            return f"includes {self.trained_on:,} photos that it {seen}{doubt}"
        if self.left_out:
            return (
                f"{self.left_out:,} of {self.left_out + len(self.images):,} photos are left out: "
                f"it {seen} them{doubt}; part all measures on them too"
            )
        return ""


def photos_to_measure(
    data: Data,
    part: str,
    memory: Memory,
    seed: int = 0,
    progress: Progress = silent,
    note: Note = silent_note,
) -> Measured:
    """The photos of a part of a data set that the network has not seen.

    Args:
        data: see `dataset.split`.
        part: "val", "test", or "auto" (val of what is split by itself, else all): without those
            that the network was trained on. "train" and "all": with them, and they are counted.
            Photos in memory are left out only if there are more than chance would mark.
        memory: the memory of the network.
        seed: the seed of the split of what is not split.
        progress: called during scanning and reading the photos.
        note: called with a sentence about class folders that hold no photo.

    Raises:
        InputError: if there is no such data or part, or the network has seen all of it.
    """
    if part != "auto" and part not in PARTS:
        raise InputError(f"there is no part {part!r}: use {', '.join(PARTS)} or auto")
    chosen = cast(MeasuredPart, part)
    seen_too = chosen in ("train", "all")
    if chosen == "auto":
        chosen = "val" if is_split(data) else "all"
    if not memory:
        return Measured(images_of(data, chosen, note))
    if chosen != "all" and splits_here(data):
        parts = split_once(data, seed, memory=memory, progress=progress)
        images = parts.training if chosen == "train" else parts.measuring
    else:
        images = images_of(data, chosen, note)
    seen = memory.seen(fingerprints(images.paths, progress, images.root))
    count = int(seen.sum())
    by_chance = memory.may_be_chance(count, len(seen))
    # Images in memory have digests of their pixels, and most marks are of the bytes of files.
    in_memory = all(isinstance(path, (PilImage, PreparedImage)) for path in images.paths)
    if seen_too or (by_chance and in_memory):
        return Measured(images, trained_on=count, by_chance=by_chance)
    if seen.all():
        raise InputError(
            f"the network was trained on all {len(images):,} photos in {images.root}: name "
            "others, or measure on these anyway with part all"
        )
    return Measured(images.subset(np.flatnonzero(~seen)), left_out=count, by_chance=by_chance)
