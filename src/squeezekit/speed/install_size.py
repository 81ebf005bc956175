"""Bytes that packages take on disk, with everything that they require."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


def install_bytes(packages: Iterable[str]) -> int:
    """Size of the installed files of packages and of all that these require, each once.

    Optional requirements (extras) do not count, nor do compiled `.pyc` files, nor Python itself.

    Raises:
        metadata.PackageNotFoundError: if one is not installed.
    """
    return sum(map(_own_bytes, closure(packages).values()))


def closure(packages: Iterable[str]) -> dict[str, metadata.Distribution]:
    """Packages and all that they require, transitively, on this platform; by normalized name."""
    found: dict[str, metadata.Distribution] = {}
    waiting = [(name, frozenset[str]()) for name in packages]
    seen = set(waiting)
    while waiting:
        name, extras = waiting.pop()
        distribution = metadata.distribution(name)
        found[canonicalize_name(name)] = distribution
        for text in distribution.requires or ():
            needed = Requirement(text)
            wanted = (needed.name, frozenset(needed.extras))
            if wanted not in seen and _applies(needed, extras):
                seen.add(wanted)
                waiting.append(wanted)
    return found


def _applies(requirement: Requirement, extras: frozenset[str]) -> bool:
    marker = requirement.marker
    return marker is None or any(marker.evaluate({"extra": extra}) for extra in ("", *extras))


def _own_bytes(distribution: metadata.Distribution) -> int:
    files = {Path(str(distribution.locate_file(file))) for file in distribution.files or ()}
    if canonicalize_name(distribution.name) == "squeezekit":
        # Where it is developed, its files lie elsewhere, and the distribution only points to them.
        files |= set(Path(__file__).parents[1].rglob("*"))
    return sum(path.stat().st_size for path in files if path.is_file() and path.suffix != ".pyc")
