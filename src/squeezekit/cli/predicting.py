"""The verbs that use a finished file: predict."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from squeezekit.cli.common import Json, Threads, note, print_json, terminal
from squeezekit.errors import InputError


def predict(
    file: Annotated[Path, typer.Argument(help="A .sqz or .onnx file.", show_default=False)],
    images: Annotated[list[Path], typer.Argument(help="Images.", show_default=False)],
    top: Annotated[int, typer.Option(help="How many classes to show.", min=1)] = 5,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Classify images; needs no torch."""
    from squeezekit.runtime.classifier import load

    classifier = load(file, threads)
    answers, failed = [], 0
    for image in images:
        try:
            answers.append((image, classifier(image, top)))
        except InputError as error:
            failed += 1
            note(str(error))
    if as_json:
        print_json(
            {
                "file": str(file),
                "predictions": [
                    {"image": str(image), "top": [dataclasses.asdict(p) for p in found]}
                    for image, found in answers
                ],
            }
        )
    else:
        from squeezekit.report import tables

        for image, found in answers:
            terminal().print(tables.predictions_table(str(image), found))
    if failed:
        raise InputError(f"{failed} of {len(images)} images could not be classified")
