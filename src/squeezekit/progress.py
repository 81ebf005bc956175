"""How long work reports its progress: a function that is called with what, how far, of how much."""

from typing import Protocol


class Progress(Protocol):
    """Called often; must be quick. `task` stays the same from 0 to `total`."""

    def __call__(self, task: str, done: int, total: int) -> None:
        """Report that `done` of `total` steps of `task` are done."""


def silent(task: str, done: int, total: int) -> None:
    """Report nothing."""
