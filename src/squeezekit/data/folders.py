"""Folders of images, one for each class: find them, split them, match them to a network."""

from __future__ import annotations

import os
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from squeezekit.data.scan_cache import Listing, Listings, listed
from squeezekit.errors import InputError
from squeezekit.progress import Progress, silent
from squeezekit.runtime.images import ImageFile
from squeezekit.text import encodable

Part = Literal["train", "val", "test", "all"]

UNEVEN = 10
"""How many times more images the largest class may have than the smallest without a warning."""

# HEIC is among them although it cannot be read, so that such images are named and counted.
IMAGE_SUFFIXES = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".gif", ".bmp", ".dib", ".webp", ".tif", ".tiff",
    ".ppm", ".pgm", ".pbm", ".pnm", ".avif", ".jp2", ".j2k", ".ico", ".tga", ".heic", ".heif",
)  # fmt: skip
_NOT_DATA = frozenset({"__macosx", "@eadir", "$recycle.bin"})
"""Files and folders that archives and file servers leave in the data, in lower case."""

SPLIT_NAMES = {
    "train": "train", "training": "train",
    "val": "val", "valid": "val", "validation": "val",
    "test": "test", "testing": "test",
}  # fmt: skip
_SERVED_BY = {"train": ("train",), "val": ("val", "test"), "test": ("test", "val")}
_SHOWN = 3


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images and their classes.

    Attributes:
        root: the folder they were found in.
        paths: one for each image; in class folders they are `Path`.
        targets: int64 (N,), the class of each image as an index into `classes`.
        classes: the names of the class folders, sorted; of a matched set, the network's classes.
        empty: the names of folders beside them that hold no image, so they are no classes.
    """

    root: Path
    paths: tuple[ImageFile, ...]
    targets: npt.NDArray[np.int64]
    classes: tuple[str, ...]
    empty: tuple[str, ...] = field(default=())

    def __len__(self) -> int:
        return len(self.paths)

    def subset(self, indices: npt.NDArray[np.integer] | Sequence[int]) -> ImageSet:
        """The same with only these images, in this order; the classes stay."""
        chosen = np.asarray(indices, np.int64)
        return replace(
            self, paths=tuple(self.paths[i] for i in chosen), targets=self.targets[chosen]
        )


def scan(directory: Path | str, progress: Progress = silent) -> ImageSet:
    """Find the images of a folder of class folders.

    An image is recognised by its extension, at any depth below its class folder, also behind links.
    Hidden files and folders, and those that archives and file servers leave behind (`__MACOSX`,
    `@eaDir`), are ignored. The lists of large folders are remembered (see `data.scan_cache`), so
    that the next scan only looks for changes.

    Args:
        directory: the folder.
        progress: called for each class folder, as task "scan".

    Returns:
        The images, sorted by class and then by path.

    Raises:
        InputError: if there is no such folder, or no class folder with an image in it.
    """
    root = _existing(directory)
    listings = Listings(root)
    folders = _subfolders(root, listings)
    images: dict[str, list[Path]] = {}
    for done, folder in enumerate(folders, 1):
        name = encodable(folder.name)  # which becomes a label
        if name in images:
            raise InputError(f"{root} has two class folders that read {name!r}: rename one of them")
        images[name] = _images_below(folder, listings)
        progress("scan", done, len(folders))
    listings.save()
    classes = sorted(name for name, paths in images.items() if paths)
    if not classes:
        raise InputError(f"{root} {_what_is_missing(root)}")
    return ImageSet(
        root=root,
        paths=tuple(path for name in classes for path in images[name]),
        targets=np.repeat(np.arange(len(classes)), [len(images[name]) for name in classes]),
        classes=tuple(classes),
        empty=tuple(sorted(name for name, paths in images.items() if not paths)),
    )


def images_below(directory: Path | str) -> list[Path]:
    """Every image of a folder, at any depth, sorted by path; `scan` says what counts as an image.

    Raises:
        InputError: if there is no such folder, or no image in it.
    """
    root = _existing(directory)
    listings = Listings(root)
    paths = _images_below(root, listings)
    listings.save()
    if not paths:
        raise InputError(f"{root} holds no image (such as .jpg or .png), at any depth")
    return paths


def of_one_class(root: Path, paths: Sequence[ImageFile]) -> ImageSet:
    """Images whose classes do not matter."""
    return ImageSet(root, tuple(paths), np.zeros(len(paths), np.int64), ("",))


def split_folders(directory: Path | str) -> dict[str, Path]:
    """The folders of a split data set by the part they hold: "train", "val", "test".

    Understands train or training; val, valid or validation; test or testing; in any case. A folder
    is split if it has train and one of the others, or only such folders (a class may also be called
    "train").

    Returns:
        An empty dict if the folder is not split.

    Raises:
        InputError: if there is no such folder, or two of its folders mean the same part.
    """
    root = _existing(directory)
    folders = _subfolders(root)
    named = [(SPLIT_NAMES[f.name.lower()], f) for f in folders if f.name.lower() in SPLIT_NAMES]
    parts = dict(named)
    if not ("train" in parts and len(parts) > 1) and len(named) < len(folders):
        return {}
    for part, folder in named:
        if parts[part] != folder:
            raise InputError(
                f"{root} has both {folder.name!r} and {parts[part].name!r}: "
                "remove or rename one of them"
            )
    return parts


def serving(part: Part, parts: Collection[str]) -> str | None:
    """The part that serves as `part`: itself, or test for val and val for test, or None."""
    return next((name for name in _SERVED_BY[part] if name in parts), None)


def require_classes(image_set: ImageSet) -> None:
    """Check that there are at least two classes, as training needs.

    Raises:
        InputError: if the set has one class only.
    """
    if len(image_set.classes) > 1:
        return
    (name,) = image_set.classes
    inside = image_set.root / name
    hint = (
        f"did you mean {inside}?"
        if inside.is_dir() and _holds_class_folders(inside)
        else "training takes at least two class folders with images"
    )
    raise InputError(f"{image_set.root} has one class only ({name!r}): {hint}")


def class_counts(image_set: ImageSet) -> dict[str, int]:
    """The number of images of each class, in the order of the classes."""
    counts = np.bincount(image_set.targets, minlength=len(image_set.classes))
    return dict(zip(image_set.classes, counts.tolist(), strict=True))


def imbalance_warning(image_set: ImageSet) -> str:
    """A sentence if a class has over ten times as many images as another; else an empty string.

    Classes without any image do not count (a matched set may have some).
    """
    counts = {name: count for name, count in class_counts(image_set).items() if count}
    largest, smallest = max(counts, key=counts.__getitem__), min(counts, key=counts.__getitem__)
    if counts[largest] <= UNEVEN * counts[smallest]:
        return ""
    return (
        f"the classes are uneven: {largest!r} has {counts[largest]:,} images, {smallest!r} only "
        f"{counts[smallest]:,}, and may be seldom predicted; add images of it if you can"
    )


def match(image_set: ImageSet, labels: Sequence[str], label_ids: Sequence[str] = ()) -> ImageSet:
    """Match class folders to the outputs of a network.

    A folder fits by a label's id (n01440764, also as in "n01440764-tench"), by the label's name,
    or by one of its comma-separated synonyms. If the exact name fits none, upper and lower case,
    spaces, underscores and hyphens make no difference. Not every class needs a folder.

    Args:
        image_set: as `scan` or `dataset.split` gives it.
        labels: the network's, in the order of its outputs; may be empty if there are ids.
        label_ids: the network's, or none.

    Returns:
        The set with `targets` and `classes` those of the network.

    Raises:
        InputError: if the network has no labels, or a folder fits none or several of them.
    """
    if not labels and not label_ids:
        raise InputError(
            "the network has no labels to match class folders to: put a labels.txt with one name "
            "a line, in the order of its outputs, into the data folder"
        )
    if image_set.classes == tuple(labels or label_ids):
        return image_set
    find = _Finder(labels, label_ids)
    found = [find(name) for name in image_set.classes]
    _refuse_strangers(image_set, found, labels or label_ids)
    _refuse_ambiguous(image_set, found, label_ids)
    outputs = np.array([outputs[0] for outputs in found], np.int64)  # (folders,)
    return replace(
        image_set, targets=outputs[image_set.targets], classes=tuple(labels or label_ids)
    )


def known_classes(
    classes: Sequence[str], labels: Sequence[str], label_ids: Sequence[str] = ()
) -> dict[int, int]:
    """Which class folders a network knows already, by the rules of `match`.

    Returns:
        The index of a class folder to the one output that it fits; others are left out.
    """
    find = _Finder(labels, label_ids)
    found = {i: find(name) for i, name in enumerate(classes)}
    return {i: outputs[0] for i, outputs in found.items() if len(outputs) == 1}


def _existing(directory: Path | str) -> Path:
    root = Path(directory)
    if not root.exists():
        raise InputError(f"there is no folder {root}")
    if not root.is_dir():
        raise InputError(f"{root} is a file, not a folder of class folders")
    return root


def _ignored(name: str) -> bool:
    return name.startswith(".") or name.lower() in _NOT_DATA


def is_image(name: str) -> bool:
    """True if the name is that of an image file."""
    return name.lower().endswith(IMAGE_SUFFIXES) and not name.startswith(".")


def _subfolders(root: Path, listings: Listings | None = None) -> list[Path]:
    folders = _listing(root, listings).folders
    return [root / name for name in folders if not _ignored(name)]


def _holds_class_folders(root: Path) -> bool:
    listings = Listings(root)
    return sum(bool(_images_below(folder, listings)) for folder in _subfolders(root, listings)) > 1


def _images_below(folder: Path, listings: Listings) -> list[Path]:
    """The images at any depth, sorted by path."""
    images: list[Path] = []
    visited: set[str] = set()

    def visit(place: Path) -> None:
        if (real := os.path.realpath(place)) in visited:  # a link back to a folder above
            return
        visited.add(real)
        listing = _listing(place, listings)
        inner = frozenset(name for name in listing.folders if not _ignored(name))
        for name in sorted([*inner, *filter(is_image, listing.files)]):
            if name in inner:
                visit(place / name)
            else:
                images.append(place / name)

    visit(folder)
    return images


def _listing(place: Path, listings: Listings | None) -> Listing:
    try:
        return listed(place)[0] if listings is None else listings[place]
    except OSError as error:
        raise InputError(f"{place} cannot be read ({error.strerror})") from None


def _what_is_missing(root: Path) -> str:
    names = [path.name for path in root.iterdir() if not _ignored(path.name)]
    if not names:
        return "is empty: it needs one folder of images a class"
    if any(is_image(name) for name in names):
        return "holds images but no class folders: put those of each class into a folder of its own"
    return "has no class folder with an image (such as .jpg or .png) in it"


def union(root: Path, sets: Sequence[ImageSet]) -> ImageSet:
    """The images of several sets; classes of the same name become one."""
    classes = tuple(sorted({name for image_set in sets for name in image_set.classes}))
    index = {name: i for i, name in enumerate(classes)}
    targets = [index[image_set.classes[t]] for image_set in sets for t in image_set.targets]
    paths = tuple(path for image_set in sets for path in image_set.paths)
    return ImageSet(root, paths, np.array(targets, np.int64), classes)


class _Finder:
    """Finds the outputs that a folder's name may stand for; the most certain way comes first."""

    def __init__(self, labels: Sequence[str], label_ids: Sequence[str]) -> None:
        synonyms = [label.split(",") for label in labels]
        self._ways: tuple[tuple[Callable[[str], str], dict[str, list[int]]], ...] = (
            (_folded, _index(_folded, ([label_id] for label_id in label_ids))),
            (_leading_id, _index(_folded, ([label_id] for label_id in label_ids))),
            (_exact, _index(_exact, ([label] for label in labels))),
            (_folded, _index(_folded, ([label] for label in labels))),
            (_folded, _index(_folded, synonyms)),
        )

    def __call__(self, name: str) -> list[int]:
        for key, index in self._ways:
            if outputs := index.get(key(name)):
                return outputs
        return []


def _index(
    key: Callable[[str], str], names_by_class: Iterable[Sequence[str]]
) -> dict[str, list[int]]:
    outputs: dict[str, list[int]] = defaultdict(list)
    for output, names in enumerate(names_by_class):
        for name in {key(name) for name in names}:
            outputs[name].append(output)
    outputs.pop("", None)
    return dict(outputs)


def _exact(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _folded(name: str) -> str:
    folded = unicodedata.normalize("NFKC", name).casefold()
    return "".join(folded.replace("_", " ").replace("-", " ").split())


def _leading_id(name: str) -> str:
    """The id before the first separator, as in the folder names of Stanford Dogs."""
    words = name.replace("-", " ").replace("_", " ").split()
    return _folded(words[0]) if words else ""


def _refuse_strangers(image_set: ImageSet, found: list[list[int]], labels: Sequence[str]) -> None:
    names = [name for name, outputs in zip(image_set.classes, found, strict=True) if not outputs]
    if names == [""]:  # of images in memory
        raise InputError(
            "the images have no labels: give pairs (image, label), batches (images, labels), or a "
            "folder with a folder for each class"
        )
    if names:
        raise InputError(
            f"{len(names)} of the {len(found)} class folders in {image_set.root} fit no label of "
            f"the network: {_some(names)}; its labels are {_some(labels)}"
        )


def _refuse_ambiguous(
    image_set: ImageSet, found: list[list[int]], label_ids: Sequence[str]
) -> None:
    for name, outputs in zip(image_set.classes, found, strict=True):
        if len(outputs) > 1:
            which = _some([label_ids[i] if label_ids else str(i) for i in outputs])
            cure = "name it by its id" if label_ids else "the network's labels must differ"
            raise InputError(
                f"the class folder {name!r} in {image_set.root} fits {len(outputs)} labels of the "
                f"network ({which}): {cure}"
            )


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:_SHOWN])
    return f"{shown} and {len(names) - _SHOWN} more" if len(names) > _SHOWN else shown
