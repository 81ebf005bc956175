"""Decides a network's preprocessing: by the caller, its file, a config beside it, or a default."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

from squeezekit.errors import InputError
from squeezekit.progress import Note as Note
from squeezekit.progress import silent_note as silent_note
from squeezekit.runtime import preprocessing_config
from squeezekit.runtime.stated import Stated, described
from squeezekit.sqz.network import Metadata, Preprocessing

ASSUMED = "preprocessing assumed, as nothing states it: "
"""How the line of provenance begins of a network whose file says nothing about its images."""

Given: TypeAlias = Stated | Preprocessing | Mapping[str, Any] | None
"""What a caller knows of a preprocessing: some of it, also by the names of the fields; or all."""


def as_stated(given: Given) -> Stated | None:
    """What a caller gave.

    Raises:
        InputError: if a name is no field of `Stated`, or a value is impossible.
    """
    if isinstance(given, Preprocessing):
        return Stated.of(given)
    if not isinstance(given, Mapping):
        return given
    names = [one.name for one in dataclasses.fields(Stated)]
    if strange := [name for name in given if name not in names]:
        raise InputError(f"preprocessing has no {strange[0]!r}; it has {', '.join(names)}")
    return Stated(**given)


def assumed(metadata: Metadata) -> bool:
    """True if the preprocessing is only assumed."""
    return any(step.startswith(ASSUMED) for step in metadata.provenance)


def with_assumption(metadata: Metadata) -> Metadata:
    """The metadata of a network whose file says nothing about its images, so marked."""
    return metadata.with_step(ASSUMED + described(metadata.preprocessing))


def without_assumption(metadata: Metadata) -> Metadata:
    """The metadata of a network whose preprocessing is known after all."""
    steps = tuple(step for step in metadata.provenance if not step.startswith(ASSUMED))
    return dataclasses.replace(metadata, provenance=steps)


def size_asked(path: Path | str, stated: Stated | None) -> int | None:
    """Height and width in pixels for a network that leaves them open, where anything states them.

    Args:
        path: the path of the weights; a config beside them (see `preprocessing_config`) may say it.
        stated: by the caller, who is asked first.

    Raises:
        InputError: if a config beside the weights cannot be used.
    """
    if stated is not None and stated.size is not None:
        return stated.size
    found = _beside(path)
    return None if found is None else found[0].size


def settled(
    metadata: Metadata,
    path: Path | str,
    stated: Stated | None = None,
    note: Note = silent_note,
    *,
    foreign: bool = True,
) -> Metadata:
    """The metadata of foreign weights with the preprocessing that is meant.

    The caller comes first, then what the file says itself, then a config beside it (Hugging Face's
    preprocessor_config.json, timm's config.json), then what is assumed. What was not in the file
    becomes a line of provenance.

    Args:
        metadata: as the reader of the file gave it; `with_assumption` where the file says nothing.
        path: the path of the weights.
        stated: by the caller.
        note: called with a line where anything was assumed, or found beside the file.
        foreign: whether there may be a config beside the file, and an assumption is news.

    Raises:
        InputError: if what is stated does not fit the network, or cannot be expressed.
    """
    guessed = assumed(metadata)
    preprocessing, sources = metadata.preprocessing, []
    if foreign and guessed and (found := _beside(path)):
        config, where = found
        if stated is not None and stated.size is not None:
            config = dataclasses.replace(config, crop=None, input_size=None)
        preprocessing = _fitted(config, preprocessing, f"{where}: ", assumed=True)
        note(f"{path}: its images are prepared as {where.name} beside it says")
        sources, guessed = [f"from {where.name}"], False
    if stated is not None and stated.says:
        preprocessing = _fitted(stated, preprocessing, f"{path}: ", assumed=guessed)
        rest = "; the rest assumed" if guessed else ""
        sources.append(f"stated: {stated.says}{rest}")
    if not sources:
        if foreign and guessed:
            note(
                f"{path}: nothing states how its images are prepared; assumed: "
                f"{described(preprocessing)}; state it by --color, --resize, --scale, --mean, --std"
            )
        return metadata
    if preprocessing != metadata.preprocessing:
        metadata = metadata.uncalibrated()  # the activations were those of other inputs
    metadata = dataclasses.replace(without_assumption(metadata), preprocessing=preprocessing)
    return metadata.with_step(f"preprocessing {', '.join(sources)}: {described(preprocessing)}")


def _beside(path: Path | str) -> tuple[Stated, Path] | None:
    found = preprocessing_config.beside(Path(path))
    if found is None:
        return None
    fields, where = found
    try:
        return Stated(**fields), where
    except InputError as error:
        raise InputError(f"{where}: {error}") from None


def _fitted(stated: Stated, base: Preprocessing, prefix: str, *, assumed: bool) -> Preprocessing:
    try:
        return stated.over(base, assumed=assumed)
    except InputError as error:
        raise InputError(f"{prefix}{error}") from None
