"""Recognises photos whatever their names: by a digest of the bytes, and by a tiny copy."""

from __future__ import annotations

import base64
import hashlib
import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from squeezekit.data import scan_cache
from squeezekit.data.scan_cache import Stamp
from squeezekit.errors import InputError
from squeezekit.progress import Progress, silent
from squeezekit.runtime.images import ImageFile, resized_quickly
from squeezekit.sqz.network import Preprocessing
from squeezekit.sqz.trained_on import Digests

SIDE = 9
"""How many pixels per side a tiny copy has: one more than the difference hash has columns."""

MOST_BITS = 6
"""In how many of the 64 bits the difference hashes of near copies may differ."""

MOST_DIFFERENCE = 0.08
"""How much near copies may differ (root mean square), in standard deviations of the photo."""

_LEAST_CONTRAST = 4.0
"""Standard deviation of the pixels (0 to 255). Flatter photos look alike without being copies."""

_LEAST_STORED = 500
_BLOCK = 10_000_000
_LOOK = Preprocessing(
    crop=SIDE, resize=SIDE, resize_mode="warp", color="L", mean=(0.0,), std=(1.0,)
)


@dataclass(frozen=True, eq=False)
class Fingerprints:
    """The fingerprints of some photos.

    Attributes:
        digests: uint64 (N,), of the files' bytes, whatever they are called.
        looks: uint8 (N, 81), greyscale copies of 9 x 9 pixels; zeros where unreadable.
    """

    digests: Digests
    looks: npt.NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.digests)

    def subset(self, indices: npt.NDArray[np.integer] | npt.NDArray[np.bool_]) -> Fingerprints:
        """The fingerprints of only these photos, in this order."""
        return Fingerprints(self.digests[indices], self.looks[indices])


_Known = tuple[int, bytes]
"""Digest and tiny copy; the copy is empty if the photo cannot be read."""

_FilePlace = tuple[str, Stamp, int]

_seen: dict[_FilePlace, _Known] = {}
"""What this process knows already, by the file, its stamp, and the offset in a shard."""


def fingerprints(
    files: Sequence[ImageFile], progress: Progress = silent, root: Path | None = None
) -> Fingerprints:
    """The fingerprints of photos; files that have not changed are not read again.

    Args:
        files: paths, or members of shards. One that cannot be read has the digest of its name.
        progress: called with the number of photos done, as task "recognise".
        root: where they are; what is found is remembered for the next time under it.
    """
    if root is not None and not _seen.keys() & set(map(_place, files)):
        _seen.update(_load(root))
    places = [_place(file) for file in files]
    known = [None if place is None else _seen.get(place) for place in places]
    missing = [i for i, found in enumerate(known) if found is None]
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        taken = pool.map(_fingerprint, [files[i] for i in missing])
        for done, (i, found) in enumerate(zip(missing, taken, strict=True), 1):
            progress("recognise", done, len(missing))
            known[i] = found
            if (place := places[i]) is not None and place[1].settled:
                _seen[place] = found
    if root is not None and len(files) >= _LEAST_STORED and 10 * len(missing) > len(files):
        _store(root, [place for place in places if place is not None and place in _seen])
    all_known = [found for found in known if found is not None]
    looks = np.zeros((len(files), SIDE * SIDE), np.uint8)
    for i, (_, look) in enumerate(all_known):
        if look:
            looks[i] = np.frombuffer(look, np.uint8)
    return Fingerprints(np.array([digest for digest, _ in all_known], np.uint64), looks)


def groups_of(prints: Fingerprints) -> npt.NDArray[np.int64]:
    """Which photos are copies of one another, by their bytes or by how they look.

    Two photos are near copies if their difference hashes (64 bits: is a pixel darker than its right
    neighbour) differ in few bits, and their tiny copies hardly differ. A photo that was resized,
    saved again or slightly edited is a near copy; another photo of the same thing is not.

    Returns:
        int64 (N,): the index of the first photo of its group.
    """
    return _joined(prints, lambda looks: _alike(looks, looks))


def groups_with_mirrored(prints: Fingerprints, difference: float) -> npt.NDArray[np.int64]:
    """The same for a person to look at: mirror images count too, and every pair is compared.

    Hashes miss about one near copy in a hundred, if neighbouring pixels are nearly equal. This
    takes a second for 10,000 photos, and four times as long for twice as many.

    Args:
        prints: the fingerprints of the photos.
        difference: root mean square of what copies may differ by, in standard deviations.
    """

    def pairs(looks: npt.NDArray[np.uint8]) -> Iterator[tuple[int, int]]:
        mirrored = looks.reshape(-1, SIDE, SIDE)[:, :, ::-1].reshape(looks.shape)
        for others in (looks, mirrored):
            yield from _alike_of_all(looks, others, difference)

    return _joined(prints, pairs)


def _joined(
    prints: Fingerprints,
    pairs: Callable[[npt.NDArray[np.uint8]], Iterator[tuple[int, int]]],
) -> npt.NDArray[np.int64]:
    """The first of its group for each photo: of those with the same bytes, and of the pairs."""
    parent = np.arange(len(prints))

    def first_of(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = int(parent[i])
        return i

    def join(i: int, j: int) -> None:
        i, j = sorted((first_of(i), first_of(j)))
        parent[j] = i

    _, firsts, which = np.unique(prints.digests, return_index=True, return_inverse=True)
    for i, j in enumerate(firsts[which].tolist()):
        join(i, j)
    for i, j in pairs(prints.looks[firsts]):
        join(int(firsts[i]), int(firsts[j]))
    return np.array([first_of(i) for i in range(len(prints))], np.int64)


def copies_among(prints: Fingerprints, known: Fingerprints) -> npt.NDArray[np.bool_]:
    """Which photos are copies of known ones, by their bytes or by their look; (N,)."""
    found = np.isin(prints.digests, known.digests)
    rest = np.flatnonzero(~found)
    for i, _ in _alike(prints.looks[rest], known.looks):
        found[rest[i]] = True
    return found


def _alike(
    looks: npt.NDArray[np.uint8], others: npt.NDArray[np.uint8]
) -> Iterator[tuple[int, int]]:
    """Pairs of near copies: hashes that differ in at most 6 bits are equal in one of 7 parts."""
    ours, theirs = _hashes(looks), _hashes(others)
    normal, other_normal = _normalised(looks), _normalised(others)
    usable, other_usable = _contrast(looks), _contrast(others)
    same = looks is others or (looks.shape == others.shape and bool(np.all(looks == others)))
    bounds = np.linspace(0, 64, MOST_BITS + 2).round().astype(int)
    for low, high in itertools.pairwise(bounds.tolist()):
        mask = np.uint64((1 << high) - (1 << low))
        keys, other_keys = ours & mask, theirs & mask
        order = np.argsort(other_keys, kind="stable")
        order = order[other_usable[order]]
        begin = np.searchsorted(other_keys[order], keys, "left")
        end = np.searchsorted(other_keys[order], keys, "right")
        for i in np.flatnonzero(usable & (end > begin)).tolist():
            near = order[begin[i] : end[i]]
            if same:
                near = near[near > i]
            near = near[np.bitwise_count(theirs[near] ^ ours[i]) <= MOST_BITS]
            apart = np.sqrt(np.square(other_normal[near] - normal[i]).mean(1))
            for j in near[apart <= MOST_DIFFERENCE].tolist():
                yield i, j


def _alike_of_all(
    looks: npt.NDArray[np.uint8], others: npt.NDArray[np.uint8], difference: float
) -> Iterator[tuple[int, int]]:
    """Pairs (i, j), i before j, whose looks hardly differ: i of the first, j of the others."""
    usable, other_usable = np.flatnonzero(_contrast(looks)), np.flatnonzero(_contrast(others))
    normal, other_normal = _normalised(looks)[usable], _normalised(others)[other_usable]
    least = 1 - difference**2 / 2  # correlation
    rows = max(_BLOCK // max(len(other_usable), 1), 1)
    for start in range(0, len(usable), rows):
        correlation = normal[start : start + rows] @ other_normal.T / looks.shape[1]
        for i, j in np.argwhere(correlation >= least).tolist():
            first, second = int(usable[start + i]), int(other_usable[j])
            if first < second:
                yield first, second


def _hashes(looks: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint64]:
    """Difference hashes, uint64 (N,)."""
    pixels = looks.reshape(-1, SIDE, SIDE)[:, : SIDE - 1]  # (N, 8, 9)
    bits = (pixels[:, :, :-1] < pixels[:, :, 1:]).reshape(len(looks), 64)
    return np.packbits(bits, axis=1).view(">u8")[:, 0].astype(np.uint64)


def _normalised(looks: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Each with mean 0 and standard deviation 1: brightness and contrast do not count."""
    pixels = looks.astype(np.float32)
    pixels -= pixels.mean(1, keepdims=True)
    pixels /= np.maximum(pixels.std(1, keepdims=True), 1e-6)
    return pixels


def _contrast(looks: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    return np.asarray(looks.std(1) >= _LEAST_CONTRAST)


def _fingerprint(file: ImageFile) -> _Known:
    try:
        with file.open("rb") as stream:
            data = stream.read()
    except OSError:
        return _digest(b"unreadable " + str(file).encode(errors="surrogateescape")), b""
    try:
        look = resized_quickly(data, _LOOK).tobytes()
    except InputError:
        look = b""
    return _digest(data), look


def _digest(data: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "big")


def _place(file: ImageFile) -> _FilePlace | None:
    """A value that changes if the photo may have changed; None if that cannot be told."""
    path = getattr(file, "shard", file)
    if not isinstance(path, Path):
        return None
    try:
        stamp = Stamp.of(path)
    except OSError:
        return None
    return str(path.absolute()), stamp, int(getattr(file, "offset", 0))


def _load(root: Path) -> dict[_FilePlace, _Known]:
    stored = scan_cache.load("photos", root)
    with suppress(TypeError, ValueError, AttributeError):
        return {
            (str(name), Stamp(*map(int, stamp)), int(offset)): (
                int(digest),
                base64.b64decode(look, validate=True),
            )
            for name, stamp, offset, digest, look in stored
            if len(base64.b64decode(look, validate=True)) in (0, SIDE * SIDE)
        }
    return {}


def _store(root: Path, places: Sequence[_FilePlace]) -> None:
    value = [
        [
            name,
            [stamp.mtime_ns, stamp.ctime_ns, stamp.inode, stamp.size],
            offset,
            _seen[place][0],
            base64.b64encode(_seen[place][1]).decode(),
        ]
        for place in places
        for name, stamp, offset in [place]
    ]
    scan_cache.store("photos", root, value)
