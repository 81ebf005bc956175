"""How library code speaks: a Progress is told how far work is, a Note a sentence for people."""

from collections.abc import Callable
from typing import Protocol

Note = Callable[[str], None]
"""Told a sentence that people should read: photos that were skipped, what was assumed."""


class Progress(Protocol):
    """Called often; must be quick. `task` stays the same from 0 to `total`."""

    def __call__(self, task: str, done: int, total: int) -> None:
        """Report that `done` of `total` steps of `task` are done."""


def silent(task: str, done: int, total: int) -> None:
    """Report nothing."""


def silent_note(text: str) -> None:
    """Tell nobody."""


def renamed(task: str, progress: Progress) -> Progress:
    """The same progress, under one name for all tasks."""
    return lambda _, done, total: progress(task, done, total)
