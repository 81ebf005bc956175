"""The verbs that use a finished file: predict."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from squeezekit.cli import quick
from squeezekit.cli.common import Json, Threads


def predict(
    file: Annotated[Path, typer.Argument(help="A .sqz or .onnx file.", show_default=False)],
    images: Annotated[list[Path], typer.Argument(help="Images.", show_default=False)],
    top: Annotated[int, typer.Option(help="How many classes to show.", min=1)] = 5,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Classify images; needs no torch."""
    quick.predict(quick.Asked(file, tuple(images), top, threads, as_json))
