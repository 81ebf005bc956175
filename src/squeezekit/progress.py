"""How library code reports: it calls a Progress with numbers, and a Note with sentences."""

from collections.abc import Callable
from typing import Protocol

Note = Callable[[str], None]
"""Called with a sentence that people should read: photos that were skipped, what was assumed."""


class Progress(Protocol):
    """It is called often, so it must be fast. `task` stays the same from 0 to `total`."""

    def __call__(self, task: str, done: int, total: int) -> None:
        """Report that `done` of `total` steps of `task` are done."""


def silent(task: str, done: int, total: int) -> None:
    """Report nothing."""


def silent_note(text: str) -> None:
    """Tell nobody."""


def renamed(task: str, progress: Progress) -> Progress:
    """The same progress, with one name for all tasks."""
    return lambda _, done, total: progress(task, done, total)
