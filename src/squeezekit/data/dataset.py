"""A data set of any kind, class folders or tar shards, and its parts."""

from __future__ import annotations

from pathlib import Path

from squeezekit.data import folders
from squeezekit.data.folders import ImageSet, Part
from squeezekit.data.shards import UNSPLIT, find_shards, images_in, sample_keys, scan_shards
from squeezekit.errors import InputError
from squeezekit.progress import Progress, silent


def is_split(data: Path | str | ImageSet) -> bool:
    """Whether a data set says itself which images are for training and which are not.

    Raises:
        InputError: where there is none.
    """
    if isinstance(data, ImageSet):
        return False
    if found := find_shards(data):
        return found.keys() != {UNSPLIT}
    return bool(folders.split_folders(data))


def unlabelled(data: Path | str, progress: Progress = silent) -> ImageSet:
    """Any photos, as of one class: for calibration and recovery, where labels do not matter.

    Args:
        data: a folder with images at any depth, class folders or not; or tar files, with classes
            or without (see `shards.find_shards`). Of what is split, the images for training.
        progress: told of each shard, as task "scan".

    Raises:
        InputError: where there is no such data, or no image in it.
    """
    if found := find_shards(data):
        shards = found.get("train") or [path for paths in found.values() for path in paths]
        return folders.of_one_class(Path(data), images_in(shards, progress))
    parts = folders.split_folders(data)
    return folders.of_one_class(Path(data), folders.images_below(parts.get("train", data)))


def split(
    data: Path | str | ImageSet, part: Part, seed: int = 0, progress: Progress = silent
) -> ImageSet:
    """One part of a data set, of class folders or shards alike (see `folders.split`).

    Where shards are not split, or all are for training, a seeded fifth of each class is held out;
    which samples those are follows from their keys.

    Args:
        data: class folders (`folders.split`), shards (`shards.find_shards`), or a set of images, of
            which a seeded fifth of each class is held out, by the names of the images.
        part: "all" is every image.
        seed: of the split of what is not split.
        progress: told of each class folder or shard, as task "scan".

    Raises:
        InputError: where there is no such data, no image, or no such part.
    """
    if isinstance(data, ImageSet):
        if part == "all":
            return data
        return folders.hold_out(data, [str(path) for path in data.paths], part, seed)
    found = find_shards(data)
    if not found:
        return folders.split(data, part, seed, progress)

    def read(paths: list[Path]) -> ImageSet:
        return scan_shards(paths, Path(data), progress)

    if part == "all":
        return read([path for paths in found.values() for path in paths])
    if found.keys() <= {"train"} or found.keys() <= {UNSPLIT}:
        ((_, paths),) = found.items()
        image_set = read(paths)
        return folders.hold_out(image_set, sample_keys(image_set), part, seed)
    name = folders.serving(part, found)
    if name is None:
        raise InputError(f"{data} has no shards for {part!r}")
    return read(found[name])
