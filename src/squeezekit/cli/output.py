"""What the command line prints: tables, JSON, notes, exit codes; without the parser of verbs."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

from squeezekit.text import json_line, shown

if TYPE_CHECKING:
    from rich.console import Console

_PIPE_WIDTH = 140

BAD_INPUT = 2
"""Exit code if some input cannot be used."""

INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it."""


def terminal(*, quiet: bool = False) -> Console:
    """Where tables go."""
    from rich.console import Console

    # A pipe or a file has no width: make tables as wide as they need.
    return Console(quiet=quiet, width=None if sys.stdout.isatty() else _PIPE_WIDTH)


def has_colors() -> bool:
    """Whether standard output can show colours, and is allowed to (https://no-color.org)."""
    shows = os.name != "nt" or "WT_SESSION" in os.environ  # old consoles of Windows do not
    asked_not_to = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return sys.stdout.isatty() and shows and not asked_not_to


def say(text: str) -> None:
    """Print one line on stdout, of any length; paths are printed as they are."""
    print(shown(text))


def note(text: str) -> None:
    """Print one line on stderr, without control characters."""
    print(shown(text), file=sys.stderr)


def print_json(content: dict[str, Any]) -> None:
    """Print one JSON object on stdout."""
    print(json_line(content, sys.stdout.encoding))
