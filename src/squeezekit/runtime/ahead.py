"""Works on the next items in threads, a little ahead of the caller."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from queue import Full, Queue
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

_MOST = 8
"""Items that are worked on, or done, before they are asked for."""


def ahead(work: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[tuple[Item, Result]]:
    """Each item with its result, in order; an error is raised when its item's turn comes.

    A separate thread takes the items. It may wait for the next one for ever, but results do not
    wait with it. It is a daemon, so that Ctrl-C ends the program even then.
    """
    coming: Queue[tuple[Item, Future[Result]] | BaseException | None] = Queue(_MOST)
    stopped = threading.Event()

    def put(what: tuple[Item, Future[Result]] | BaseException | None) -> bool:
        while not stopped.is_set():
            try:
                coming.put(what, timeout=0.1)
                return True
            except Full:
                continue
        return False

    with ThreadPoolExecutor(min(_MOST, os.cpu_count() or 1)) as pool:

        def draw() -> None:
            try:
                for item in items:
                    if not put((item, pool.submit(work, item))):
                        return
                put(None)
            except BaseException as error:  # of the iterable: whoever asks for results gets it
                put(error)

        threading.Thread(target=draw, daemon=True).start()
        try:
            while (what := coming.get()) is not None:
                if isinstance(what, BaseException):
                    raise what
                yield what[0], what[1].result()
        finally:
            stopped.set()
