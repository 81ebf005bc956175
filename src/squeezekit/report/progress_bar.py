"""Progress in a terminal: bars while tasks run, and one line for each that is done."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rich import progress as rich_progress
from rich.console import Console
from rich.markup import escape

from squeezekit.progress import Progress


@contextmanager
def progress_bar(console: Console | None = None) -> Iterator[Progress]:
    """Show the progress of everything that happens inside the `with`.

    Args:
        console: where to show it. None is standard error, so that standard output stays clean. If
            it is not a terminal, there are no bars, only a line for each task that is done.

    Yields:
        A Progress. A task that begins while another runs is a part of it: it has its own bar below
        the other, but leaves no line.
    """
    console = console or Console(stderr=True)
    if not console.is_terminal:
        yield _Tasks(console)
        return
    columns = (
        rich_progress.TextColumn("{task.description}"),
        rich_progress.BarColumn(bar_width=32),
        rich_progress.TaskProgressColumn(),
        rich_progress.TimeElapsedColumn(),
        rich_progress.TextColumn("[dim]left"),
        rich_progress.TimeRemainingColumn(),
    )
    with rich_progress.Progress(*columns, console=console, transient=True) as bars:
        yield _Tasks(console, bars)


@dataclass(frozen=True)
class _Open:
    """A task that runs."""

    name: str
    start: float
    bar: rich_progress.TaskID | None


class _Tasks:
    """A Progress that keeps the running tasks, outermost first."""

    def __init__(self, console: Console, bars: rich_progress.Progress | None = None) -> None:
        self._console = console
        self._bars = bars
        self._open: list[_Open] = []

    def __call__(self, task: str, done: int, total: int) -> None:
        current = self._find(task) or self._begin(task, total)
        if self._bars is not None and current.bar is not None:
            self._bars.update(current.bar, completed=done, total=total)
        if done >= total:
            self._end()
            if not self._open:
                seconds = time.perf_counter() - current.start
                self._console.print(f"[green]✓[/] {escape(task)} [dim]{seconds:.1f} s[/]")

    def _find(self, name: str) -> _Open | None:
        if all(running.name != name for running in self._open):
            return None
        while self._open[-1].name != name:  # a part that never said it was done
            self._end()
        return self._open[-1]

    def _begin(self, name: str, total: int) -> _Open:
        bar = None if self._bars is None else self._bars.add_task(escape(name), total=total)
        self._open.append(_Open(name, time.perf_counter(), bar))
        return self._open[-1]

    def _end(self) -> None:
        bar = self._open.pop().bar
        if self._bars is not None and bar is not None:
            self._bars.remove_task(bar)
