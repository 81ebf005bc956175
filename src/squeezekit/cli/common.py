"""What the verbs have in common: the app, their shared options, and how they answer."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from squeezekit.cli.config_options import takes
from squeezekit.cli.output import INTERRUPTED as INTERRUPTED
from squeezekit.cli.output import note as note
from squeezekit.cli.output import print_json as print_json
from squeezekit.cli.output import say as say
from squeezekit.cli.output import terminal as terminal
from squeezekit.sqz.limits import Limits, limits_named
from squeezekit.text import encodable

if TYPE_CHECKING:
    from rich.console import RenderableType

    from squeezekit.progress import Progress

app = typer.Typer(
    help="Train a small image classifier, shrink it to a few hundred kilobytes, ship it anywhere.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Weights = Annotated[
    Path,
    typer.Argument(
        help="A network: .sqz, .onnx, .safetensors, .pth, .net, .caffemodel, .tflite, or the "
        "folder of a training run.",
        show_default=False,
    ),
]
Runnable = Annotated[
    Path,
    typer.Argument(
        help="A .sqz or .onnx file, or the folder of a training run.", show_default=False
    ),
]
Data = Annotated[
    Path,
    typer.Option(
        "--data",
        help="Class folders or WebDataset shards (*.tar), split into train/val/test or not.",
        show_default=False,
    ),
]
Labels = Annotated[
    Path | None,
    typer.Option("--labels", help="Names of the outputs, in order: .txt, .tsv or .json."),
]
Page = Annotated[Path | None, typer.Option("--report", help="Write a page about it (.html).")]
Limit = Annotated[int | None, typer.Option(help="Measure on only this many images.")]
Settings = Annotated[list[str] | None, typer.Option("--set", help="Change the recipe: key=value.")]
Limited = Annotated[
    Limits | None,
    typer.Option(parser=limits_named, metavar="none", show_default=False, help="Trust the file."),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object, and nothing else.")]
Seed = Annotated[int, typer.Option(help="Starts all random numbers.", min=0)]
Threads = Annotated[int | None, typer.Option(help="Threads for the network. Default: all cores.")]
Precision = Annotated[
    str | None, typer.Option(help="float or int8. Default: int8 if the file is calibrated for it.")
]

states_preprocessing = takes(
    "preprocessing",
    "runtime.stated:Stated",
    panel="What the network's file does not say, or says wrong",
)
"""For verbs that read a network."""


def typed_command() -> str:
    """The command as it was typed."""
    return encodable(shlex.join(["squeezekit", *sys.argv[1:]]))


@contextmanager
def progress_shown(interrupted: str = "") -> Iterator[Progress]:
    """Show progress on stderr, where a person sees it.

    Args:
        interrupted: what to say after Ctrl-C; where empty, nothing is said here.
    """
    from squeezekit.report.progress_bar import progress_bar

    try:
        with progress_bar() as progress:
            yield progress
    except KeyboardInterrupt:
        if not interrupted:
            raise
        note(f"squeezekit: interrupted; {interrupted}")
        raise typer.Exit(INTERRUPTED) from None


def answer(
    as_json: bool,
    content: Mapping[str, Any],
    shown: Callable[[], RenderableType] | None,
    *lines: str,
) -> None:
    """Print what a verb found: one JSON object, or a table and lines for people.

    Args:
        as_json: which of the two.
        content: the object.
        shown: makes the table.
        lines: below it; empty ones are left out.
    """
    if as_json:
        print_json(dict(content))
        return
    if shown is not None:
        terminal().print(shown())
    for line in filter(None, lines):
        say(line)


def seen(page: Path | None) -> str:
    """The line that names a page that was written."""
    return "" if page is None else f"see: {page}"


def following(*words: object) -> str:
    """The line that names the command that people want next."""
    return f"next: {shlex.join(['squeezekit', *map(str, words)])}"
