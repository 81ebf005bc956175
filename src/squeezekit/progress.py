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


def renamed(name: str, progress: Progress, *, only: str | None = None) -> Progress:
    """The same progress, with one name for all tasks, or for `only` this one."""
    return lambda task, done, total: progress(
        name if only in (None, task) else task, done, total
    )  # fmt: skip


def prefixed(prefix: str, progress: Progress) -> Progress:
    """The same progress, with the names of all tasks after a prefix."""
    return lambda task, done, total: progress(f"{prefix}{task}", done, total)
