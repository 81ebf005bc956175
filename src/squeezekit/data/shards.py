"""WebDataset shards: images and their classes inside tar files, read in any order.

A sample is the files of one name, KEY.jpg and KEY.cls (or KEY.json), in one tar file; the key ends
at the first dot of the file's name. The `webdataset` library is not used: it can only read shards
from start to end, with all bytes of all images even if only the classes matter, and loads torch.
"""

from __future__ import annotations

import dataclasses
import io
import json
import re
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

import numpy as np

from squeezekit.data import scan_cache
from squeezekit.data.folders import (
    IMAGE_SUFFIXES,
    SPLIT_NAMES,
    ImageSet,
    is_image,
    split_folders,
)
from squeezekit.data.scan_cache import Stamp
from squeezekit.errors import InputError
from squeezekit.progress import Progress, silent
from squeezekit.runtime.labels import labels_files, read_labels

UNSPLIT = "all"
"""The name of the part if shards are not split."""

JSON_FIELDS = ("cls", "class", "label", "target")
"""Where KEY.json may tell the class."""

_NAME = re.compile(r"(?:\./)?((?:.*/)?[^./][^./]*)\.([^/]*)")
_META = re.compile(r"__[^/]*__($|/)")
_BRACES = re.compile(r"\{(?:(\d+)\.\.(\d+)|([^{}]*,[^{}]*))\}")
_CLASS_KINDS = ("cls", "json")
_MOST_TEXT_BYTES = 1_000_000


@dataclass(frozen=True, slots=True)
class ShardMember:
    """An image inside a tar file; it opens like a path.

    Attributes:
        shard: the tar file.
        key: the key of the sample, which is unique in its shard.
        member: the image's name in the tar file.
        offset, size: the offset and size of its bytes in the tar file.
    """

    shard: Path
    key: str
    member: str
    offset: int
    size: int

    @property
    def name(self) -> str:
        """The image's name without folders."""
        return self.member.rpartition("/")[2]

    def open(self, mode: Literal["rb"] = "rb", /) -> IO[bytes]:
        """Open the image's bytes for reading.

        Raises:
            OSError: if the tar file cannot be read.
        """
        with self.shard.open(mode) as file:
            file.seek(self.offset)
            return io.BytesIO(file.read(self.size))

    def __str__(self) -> str:
        return f"{self.shard}/{self.member}"


Sample = tuple[str, str, int, int, str | int]
"""Key, member, offset and size of the image, and the class: a name or an index."""


def find_shards(data: Path | str) -> dict[str, list[Path]]:
    """The shards of a data set by the part they hold: "train", "val", "test", or `UNSPLIT`.

    Args:
        data: a tar file; a pattern of them such as "shards/train-{000..146}.tar"; a folder of
            `*.tar`; or a folder with folders of them for train and val (see
            `folders.split_folders`). Files in one folder are split if all their names say the part,
            as in "imagenet-val-0001.tar".

    Returns:
        The paths, sorted; an empty dict where `data` is no such thing.

    Raises:
        InputError: if a file that a pattern stands for is missing, or only some of the names
            tell a part.
    """
    path = Path(data)
    if not path.exists() and _BRACES.search(str(data)):
        return _by_name([_existing(Path(name)) for name in expanded(str(data))])
    if path.is_file():
        return _by_name([path]) if _is_tar(path) else {}
    if not path.is_dir():
        return {}
    if shards := _shards_in(path):
        return _by_name(shards)
    parts = {part: _shards_in(folder) for part, folder in split_folders(path).items()}
    return {part: shards for part, shards in parts.items() if shards}


def expanded(pattern: str) -> list[str]:
    """Every name that a pattern stands for: {00..12} counts, {a,b} is a or b; braces may nest."""
    found = _BRACES.search(pattern)
    if found is None:
        return [pattern]
    first, last, names = found.groups()
    inner = (
        names.split(",")
        if names is not None
        else [f"{number:0{len(first)}}" for number in range(int(first), int(last) + 1)]
    )
    head, tail = pattern[: found.start()], pattern[found.end() :]
    # Each name once: those beside a nested pattern come again with each of its values.
    return list(dict.fromkeys(name for one in inner for name in expanded(head + one + tail)))


def scan_shards(shards: Sequence[Path], root: Path, progress: Progress = silent) -> ImageSet:
    """Find the images of shards, and their classes.

    A class is a name, or an index into the labels file beside the shards or in the folder above
    (labels.txt, classes.txt and so on, see `runtime.labels`); without such a file, an index is its
    own name. Of large sets the contents are remembered (see `data.scan_cache`).

    Args:
        shards: tar files, not compressed.
        root: the folder that the set gives as its own.
        progress: called for each shard, as task "scan".

    Returns:
        The images in the order of the shards; their paths are `ShardMember`. Classes given by index
        are in their order, those given by name are sorted; labels without an image are `empty`.

    Raises:
        InputError: if a shard cannot be read or holds no sample, a sample has no class, or an
            index has no label.
    """
    contents = _contents(shards, progress)
    members = [
        ShardMember(shard, *sample[:4])
        for shard, samples in zip(shards, contents, strict=True)
        for sample in samples
    ]
    values = [sample[4] for samples in contents for sample in samples]
    by_index = all(isinstance(value, int) for value in values)
    labels = _labels(max(map(int, values)), shards[0].parent) if by_index else None
    present = sorted({*values}, key=int if by_index else str)
    names = [str(value) if labels is None else labels[int(value)] for value in present]
    if len(set(names)) < len(names):
        twice = next(name for i, name in enumerate(names) if name in names[:i])
        raise InputError(
            f"the labels file of {shards[0]} has the name {twice!r} twice: make it a .tsv with ids "
            "(index, id and name between tabs)"
        )
    position = {value: i for i, value in enumerate(present)}
    return ImageSet(
        root=root,
        paths=tuple(members),
        targets=np.array([position[value] for value in values], np.int64),
        classes=tuple(names),
        empty=tuple(name for name in labels or () if name not in set(names)),
    )


def images_in(shards: Sequence[Path], progress: Progress = silent) -> list[ShardMember]:
    """The images of shards, with or without classes.

    Raises:
        InputError: if a shard cannot be read, or none of them holds an image.
    """
    images: list[ShardMember] = []
    for done, shard in enumerate(shards, 1):
        images += [
            ShardMember(shard, key, info.name, info.offset_data, info.size)
            for key, _, info, text in _members(shard)
            if text is None
        ]
        progress("scan", done, len(shards))
    if not images:
        raise InputError(f"{shards[0]} holds no image (such as .jpg or .png)")
    return images


def _shards_in(folder: Path) -> list[Path]:
    """The tar files of a folder, unless they lie beside class folders."""
    listing, _ = scan_cache.listed(folder)
    shards = [folder / name for name in listing.files if _is_tar(folder / name)]
    if shards and any(_holds_images(folder / name) for name in listing.folders):
        return []
    return shards


def _holds_images(folder: Path) -> bool:
    listing, _ = scan_cache.listed(folder)
    return any(is_image(name) for name in listing.files)


def _is_tar(path: Path) -> bool:
    return path.suffix.lower() == ".tar" and not path.name.startswith(".")


def _existing(shard: Path) -> Path:
    if not shard.is_file():
        raise InputError(f"there is no shard {shard}")
    return shard


def _by_name(shards: list[Path]) -> dict[str, list[Path]]:
    parts: dict[str, list[Path]] = {}
    for shard in shards:
        words = re.findall("[a-z]+", shard.stem.lower())
        told = {SPLIT_NAMES[word] for word in words if word in SPLIT_NAMES}
        parts.setdefault(told.pop() if len(told) == 1 else UNSPLIT, []).append(shard)
    if UNSPLIT in parts and len(parts) > 1:
        told = parts.keys() - {UNSPLIT}
        raise InputError(
            f"some shards are named for a part ({', '.join(sorted(told))}), but "
            f"{parts[UNSPLIT][0]} is not: name all of them for a part, or none"
        )
    return parts


def _contents(shards: Sequence[Path], progress: Progress) -> list[list[Sample]]:
    """The samples of each shard; known ones are not read again unless they have changed."""
    known = _known(shards[0])
    fresh: dict[str, tuple[Stamp, list[Sample]]] = {}
    contents = []
    for done, shard in enumerate(shards, 1):
        name = str(shard.absolute())
        stamp = _stamp(shard)
        samples = known[name][1] if known.get(name, ())[:1] == (stamp,) else _index(shard)
        contents.append(samples)
        if stamp.settled:
            fresh[name] = (stamp, samples)
        progress("scan", done, len(shards))
    if sum(map(len, contents)) >= scan_cache.LEAST_NAMES and fresh != known:
        value = {
            name: [dataclasses.astuple(stamp), found] for name, (stamp, found) in fresh.items()
        }
        scan_cache.store("shards", shards[0], value)
    return contents


def _stamp(shard: Path) -> Stamp:
    try:
        return Stamp.of(shard)
    except OSError as error:
        raise InputError(f"{shard} cannot be read ({error.strerror})") from None


def _known(first: Path) -> dict[str, tuple[Stamp, list[Sample]]]:
    stored = scan_cache.load("shards", first)
    with suppress(TypeError, ValueError, AttributeError):
        return {
            name: (Stamp(*stamp), [_sample(*sample) for sample in samples])
            for name, (stamp, samples) in stored.items()
        }
    return {}


def _sample(key: object, member: object, offset: object, size: object, value: object) -> Sample:
    match key, member, offset, size, value:
        case str(), str(), int(), int(), int() | str():
            return key, member, offset, size, value
    raise TypeError


def _index(shard: Path) -> list[Sample]:
    images: dict[str, tuple[str, int, int]] = {}
    classes: dict[str, tuple[str, bytes, str]] = {}
    for key, kind, info, data in _members(shard):
        if data is None:
            images.setdefault(key, (info.name, info.offset_data, info.size))
        elif kind == "cls" or key not in classes:
            classes[key] = (kind, data, f"{shard}/{info.name}")
    samples = []
    for key, image in images.items():
        if key not in classes:
            raise InputError(f"{shard}/{image[0]} has no class: {key}.cls or {key}.json is missing")
        samples.append((key, *image, _class(*classes[key])))
    if not samples:
        raise InputError(f"{shard} holds no image with its class (KEY.jpg and KEY.cls)")
    return samples


def _members(shard: Path) -> Iterator[tuple[str, str, tarfile.TarInfo, bytes | None]]:
    """The files that matter: key, kind, header, and for those that name a class the content."""
    seen: set[str] = set()
    try:
        with tarfile.open(shard, "r:") as tar:
            for info in tar:
                found = _NAME.fullmatch(info.name)
                if found is None or _META.match(info.name) or not info.isreg() or info.issparse():
                    continue
                if info.name in seen:
                    raise InputError(f"{shard} holds {info.name} twice")
                seen.add(info.name)
                key, kind = found[1], found[2].lower()
                if kind in _CLASS_KINDS:
                    yield key, kind, info, _content(tar, info, shard)
                elif f".{kind}" in IMAGE_SUFFIXES:
                    yield key, kind, info, None
            _require_end(tar, shard)
    except tarfile.TarError as error:
        raise InputError(
            f"{shard} is damaged, cut short, or not an uncompressed tar file ({error})"
        ) from None
    except OSError as error:
        raise InputError(f"{shard} cannot be read ({error.strerror or error})") from None


def _content(tar: tarfile.TarFile, info: tarfile.TarInfo, shard: Path) -> bytes:
    if info.size > _MOST_TEXT_BYTES:
        raise InputError(f"{shard}/{info.name} is too large to be the class of an image")
    file = tar.extractfile(info)
    return b"" if file is None else file.read()


def _require_end(tar: tarfile.TarFile, shard: Path) -> None:
    """Refuse a damaged header in the middle, which Python's reader takes for the end."""
    with shard.open("rb") as file:
        file.seek(tar.offset)
        if file.read(tarfile.BLOCKSIZE).strip(b"\0"):
            raise tarfile.ReadError(f"no header at byte {tar.offset:,}")


def _class(kind: str, data: bytes, name: str) -> str | int:
    try:
        value = _in_json(json.loads(data)) if kind == "json" else data.decode().strip()
    except (ValueError, RecursionError):
        value = None
    if isinstance(value, str) and value.isdecimal():
        value = int(value)
    if value in ("", None):
        fields = f" in any of {', '.join(JSON_FIELDS)}" if kind == "json" else ""
        raise InputError(f"{name} tells no class{fields}: it needs a name or an index")
    return value


def _in_json(content: object) -> str | int | None:
    if isinstance(content, dict):
        for field in JSON_FIELDS:
            match content.get(field):
                case bool():
                    continue
                case str() | int() as value:
                    return value
    return None


def _labels(largest: int, folder: Path) -> tuple[str, ...] | None:
    """The names for indices up to `largest`, if a file has them."""
    found = [(path, *read_labels(path)) for path in labels_files(folder)]
    for _, labels, label_ids in found:
        if len(labels) > largest:
            return label_ids or labels
    if found:
        path, labels, _ = found[0]
        raise InputError(
            f"a shard has the class {largest}, but {path} has only {len(labels)} names"
        )
    return None
