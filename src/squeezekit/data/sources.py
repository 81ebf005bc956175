"""Where photos to classify come from: names and folders, or a stream of paths."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from squeezekit.errors import InputError

STDIN = Path("-")
"""Stands for paths from standard input."""


def images_named(named: Sequence[Path]) -> list[Path]:
    """The images themselves, and those in folders, at any depth.

    Raises:
        InputError: where a folder has none, or `STDIN` is among others.
    """
    if STDIN in named:
        raise InputError("- stands alone: paths come from stdin or from the command line")
    paths: list[Path] = []
    for path in named:
        if not path.is_dir():
            paths.append(path)
            continue
        from squeezekit.data.folders import images_below

        paths += images_below(path)
    return paths


def paths_from(descriptor: int) -> Iterator[str]:
    """Paths from an open file, a line each, of any encoding, as soon as they come."""
    # Not by sys.stdin: Python cannot end while another thread waits for that one.
    with open(descriptor, "rb", closefd=False) as stream:
        for line in stream:
            if path := line.rstrip(b"\r\n"):
                yield os.fsdecode(path)
