"""Photos in whatever form a program has them: a folder, arrays, PIL images, batches of a loader."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from squeezekit.data.dataset import unlabelled
from squeezekit.data.folders import ImageSet
from squeezekit.errors import InputError
from squeezekit.runtime.held import PilImage, PreparedImage, as_array, axes_of, fitting
from squeezekit.runtime.images import ImageFile, open_image
from squeezekit.sqz.network import Metadata, Preprocessing

Photos = Path | str | ImageSet | npt.NDArray[Any] | Iterable[Any]
"""The forms in which every function of squeezekit takes photos:

- a folder (`str` or `Path`): class folders, split or not, or WebDataset shards. If labels are not
  needed, any folder with photos in it;
- an array or a tensor (N, C, H, W) of floats, already prepared for the network;
- an iterable of PIL images or of paths of photos;
- an iterable of batches, such as a torch DataLoader (arrays as above, or lists of PIL images), or
  a torch Dataset.

If labels are needed, an iterable gives pairs: (image, label) or (images, labels). A label is the
number of a class or its name. An iterable is read to its end, so it must have one.
"""

MEMORY = Path("photos in memory")
"""The `ImageSet.root` of photos that are not in a folder."""

UNLABELLED = ("",)
"""The classes of photos without labels."""


def folder_or_set(
    photos: Photos, metadata: Metadata, outputs: int | None = None
) -> Path | ImageSet:
    """Photos as `data.dataset.split` takes them: a folder stays a folder, all else is collected.

    Args:
        photos: photos in any form (see `Photos`).
        metadata: the metadata of their network. Arrays must be prepared as it says, and labels that
            are numbers are positions among its labels.
        outputs: how many outputs that network has; labels that are numbers must be less.

    Returns:
        The folder, or a set of images in memory. If labels are numbers, its classes are the
        network's labels; if they are names, these in alphabetical order. Without labels there is
        one class, called "".

    Raises:
        InputError: if anything in it is not a photo, or an array does not fit the preprocessing.
    """
    if isinstance(photos, (str, Path)):
        return Path(photos)
    if isinstance(photos, ImageSet):
        return photos
    images: list[ImageFile] = []
    labels: list[int | str | None] = []
    for image, label in _pairs(photos):
        images.append(_held(image, len(images), metadata.preprocessing))
        labels.append(label)
    if not images:
        raise InputError("what was given holds no photo")
    classes, targets = _classes(labels, metadata, outputs)
    return ImageSet(MEMORY, tuple(images), targets, classes)


def any_images(photos: Photos, metadata: Metadata) -> ImageSet:
    """Photos without their labels, as calibration needs them.

    A folder is searched at any depth; of a split folder only the training part is used.

    Args:
        photos: photos in any form (see `Photos`).
        metadata: the metadata of the network that they are for.

    Raises:
        InputError: as in `folder_or_set`, or if a folder holds no image.
    """
    found = folder_or_set(photos, metadata)
    return found if isinstance(found, ImageSet) else unlabelled(found)


def name_of(photos: Path | ImageSet) -> str:
    """The name of photos in a line of provenance."""
    return MEMORY.name if isinstance(photos, ImageSet) else photos.resolve().name


def _pairs(photos: object) -> Iterator[tuple[Any, int | str | None]]:
    """Each image with its label; None for an image without one."""
    if _is_batch(photos):
        yield from _batch(photos)
        return
    if hasattr(photos, "__getitem__") and hasattr(photos, "__len__"):  # a torch Dataset, or a list
        unusable = isinstance(photos, (bytes, Mapping))
    else:
        unusable = not isinstance(photos, Iterable)
    if unusable:
        raise InputError(
            f"a {type(photos).__name__} holds no photos that can be used: give a folder, an array "
            "(N, C, H, W), PIL images, or batches"
        )
    items: Any = photos
    for each in items if isinstance(items, Iterable) else (items[i] for i in range(len(items))):
        yield from _batch(each)


def _is_batch(each: object) -> bool:
    """True if this is one batch, not an iterable of several."""
    if axes_of(each) is not None:
        return True
    return _is_pair(each) and (axes_of(each[0]) == 4 or isinstance(each[0], list))  # type: ignore[index]


def _is_pair(each: object) -> bool:
    """True if this is (image, label) or (images, labels), as a loader gives them."""
    if not isinstance(each, (tuple, list)) or len(each) != 2:
        return False
    label = each[1]
    if isinstance(label, (int, str, np.integer)) or axes_of(label) in (0, 1):
        return not isinstance(each[0], str) or not isinstance(label, str) or _is_name(label)
    return isinstance(label, (list, tuple)) and all(
        isinstance(one, (int, str, np.integer)) for one in label
    )


def _is_name(label: str) -> bool:
    """True if it may be the name of a class, not the path of another photo."""
    return not Path(label).is_file()


def _batch(each: object) -> Iterator[tuple[Any, int | str | None]]:
    images: Any
    labels: Any
    if _is_pair(each):
        images, labels = each  # type: ignore[misc]
        if not (axes_of(images) == 4 or isinstance(images, (list, tuple))):
            images, labels = [images], [labels]
        elif axes_of(labels) is not None:
            labels = as_array(labels).reshape(-1)
        if len(images) != len(labels):
            raise InputError(f"a batch has {len(images)} photos, but {len(labels)} labels")
        yield from zip(_rows(images), map(_label, labels), strict=True)
        return
    for image in _rows(each) if axes_of(each) == 4 or isinstance(each, (list, tuple)) else [each]:
        yield image, None


def _rows(images: Any) -> Iterable[Any]:  # noqa: ANN401
    return images if axes_of(images) is None else as_array(images)


def _label(label: object) -> int | str:
    if axes_of(label) == 0:
        label = as_array(label).item()
    if isinstance(label, (str, np.str_)):
        return str(label)
    if isinstance(label, (int, np.integer)) and not isinstance(label, (bool, np.bool_)):
        return int(label)
    raise InputError(f"a label must be the number of a class or its name, not {label!r}")


def _held(image: object, index: int, preprocessing: Preprocessing) -> ImageFile:
    if isinstance(image, Image.Image):
        pixels = open_image(image)
        return PilImage(_name(index, pixels.tobytes()), pixels)
    if isinstance(image, (str, Path)):
        return Path(image)
    if axes_of(image) is not None:
        values = fitting(image, preprocessing)
        return PreparedImage(_name(index, values.tobytes()), values, preprocessing)
    if hasattr(image, "open") and hasattr(image, "name"):
        return image
    raise InputError(f"a {type(image).__name__} is not a photo: give PIL images, paths or arrays")


def _name(index: int, content: bytes) -> str:
    """A name that depends on the content too: the order of training is remembered by names."""
    return f"image {index} ({zlib.crc32(content):08x})"


def _classes(
    labels: Sequence[int | str | None], metadata: Metadata, outputs: int | None
) -> tuple[tuple[str, ...], npt.NDArray[np.int64]]:
    kinds = {type(label) for label in labels}
    if len(kinds) > 1:
        raise InputError("labels must be all numbers of classes, or all names of classes")
    if kinds == {type(None)}:
        return UNLABELLED, np.zeros(len(labels), np.int64)
    if kinds == {str}:
        classes, targets = np.unique(np.array(labels), return_inverse=True)
        return tuple(map(str, classes)), targets.astype(np.int64)
    targets = np.array(labels, np.int64)
    names = metadata.labels or metadata.label_ids
    count = len(names) or outputs or int(targets.max()) + 1
    if targets.min() < 0 or targets.max() >= count:
        wrong = targets.min() if targets.min() < 0 else targets.max()
        raise InputError(f"a label is {wrong}, but the network has the classes 0 to {count - 1}")
    return names or tuple(map(str, range(count))), targets
