"""Lists of large folders, remembered between runs, and made again if anything has changed."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from squeezekit.cache import cache_folder
from squeezekit.errors import InputError
from squeezekit.files import write_whole

LEAST_NAMES = 10_000
"""Smaller folders are listed faster than one could notice."""

SETTLED_NS = 10_000_000_000
"""A folder that changed this short before it was read may change again within one clock tick."""

_FORMAT = 1


@dataclass(frozen=True)
class Stamp:
    """What changes when a file or a folder does.

    The mtime of a folder changes with its entries. It can be set back, but not without changing
    the ctime; and a folder put in the place of another has another inode.
    """

    mtime_ns: int
    ctime_ns: int
    inode: int
    size: int

    @classmethod
    def of(cls, place: Path) -> Stamp:
        """Of a file or a folder, behind links.

        Raises:
            OSError: if it cannot be reached.
        """
        status = place.stat()
        return cls(status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_size)

    @property
    def settled(self) -> bool:
        """True if every change from now on will show in the stamp."""
        return max(self.mtime_ns, self.ctime_ns) < _now_ns() - SETTLED_NS


@dataclass(frozen=True)
class Listing:
    """The sorted names in a folder: its folders, and its other entries."""

    folders: tuple[str, ...]
    files: tuple[str, ...]


class Listings:
    """The listings of a folder and those below it; only what has changed is listed again.

    A folder that holds links is always listed again, because what they lead to may change without
    a trace in the folder. On Windows all are, because its FAT drives do not note changes at all.
    """

    def __init__(self, root: Path) -> None:
        """Remember what was listed the last time below `root`, as far as it can be trusted."""
        self._root = root
        self._known = _read_listings(root)
        self._fresh: dict[str, tuple[Stamp, Listing]] = {}
        self._names = 0

    def __getitem__(self, folder: Path) -> Listing:
        """List one folder.

        Raises:
            OSError: if it cannot be listed.
        """
        stamp = Stamp.of(folder)  # before the entries, so that a change meanwhile makes a new one
        place = os.path.relpath(folder, self._root)
        known = self._known.get(place)
        if known is not None and known[0] == stamp:
            listing, lasting = known[1], True
        else:
            listing, lasting = listed(folder)
            lasting = lasting and stamp.settled
        self._names += len(listing.files)
        if lasting:
            self._fresh[place] = (stamp, listing)
        return listing

    def save(self) -> None:
        """Remember the lists, if they are long; if that is impossible, it is no error."""
        many = self._names >= LEAST_NAMES
        if many and self._fresh != self._known and sys.platform != "win32":
            value = {
                place: [stamp.mtime_ns, stamp.ctime_ns, stamp.inode, stamp.size,
                        listing.folders, listing.files]
                for place, (stamp, listing) in self._fresh.items()
            }  # fmt: skip
            store("folders", self._root, value)


def listed(folder: Path) -> tuple[Listing, bool]:
    """The entries of a folder, and whether they can only change if the folder changes.

    Raises:
        OSError: if it cannot be listed.
    """
    folders: list[str] = []
    files: list[str] = []
    links = False
    with os.scandir(folder) as entries:
        for entry in entries:
            links = links or entry.is_symlink()
            (folders if _is_folder(entry) else files).append(entry.name)
    return Listing(tuple(sorted(folders)), tuple(sorted(files))), not links


def load(kind: str, place: Path) -> Any:  # noqa: ANN401 - whatever JSON holds
    """What was stored about a place; None if nothing is, or nothing that can be read."""
    with suppress(OSError, ValueError, TypeError, KeyError, RecursionError):
        content = json.loads(_path(kind, place).read_bytes())
        if content["format"] == _FORMAT and content["place"] == str(place.absolute()):
            return content["value"]
    return None


def store(kind: str, place: Path, value: object) -> None:
    """Remember something about a place, as JSON, if that is possible."""
    content = {"format": _FORMAT, "place": str(place.absolute()), "value": value}
    path = _path(kind, place)
    with suppress(OSError, InputError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, json.dumps(content, separators=(",", ":")).encode())


def is_names(value: object) -> bool:
    """Whether something read from JSON is a list of strings."""
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


def _path(kind: str, place: Path) -> Path:
    name = os.fsencode(place.absolute())
    return cache_folder() / "scans" / f"{kind}-{hashlib.sha256(name).hexdigest()[:32]}.json"


def _read_listings(root: Path) -> dict[str, tuple[Stamp, Listing]]:
    stored = load("folders", root)
    known: dict[str, tuple[Stamp, Listing]] = {}
    with suppress(TypeError, ValueError, AttributeError):
        for place, (mtime_ns, ctime_ns, inode, size, folders, files) in stored.items():
            if not is_names(folders) or not is_names(files):
                return {}
            stamp = Stamp(mtime_ns, ctime_ns, inode, size)
            known[place] = (stamp, Listing(tuple(folders), tuple(files)))
        return known
    return {}


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def _now_ns() -> int:
    return time.time_ns()
