"""The verbs that use a finished file: predict."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from squeezekit.cli.common import Json, Precision, Threads, note, print_json, terminal
from squeezekit.errors import InputError

if TYPE_CHECKING:
    from squeezekit.runtime.classifier import Classifier, Prediction

_STDIN = Path("-")


def predict(
    file: Annotated[Path, typer.Argument(help="A .sqz or .onnx file.", show_default=False)],
    images: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Images, and folders of images; - reads paths from stdin, a line each, and "
            "answers each with a line of JSON.",
            show_default=False,
        ),
    ] = None,
    top: Annotated[int, typer.Option(help="How many classes to show.", min=1)] = 5,
    stdin: Annotated[bool, typer.Option("--stdin", help="The same as -.")] = False,
    camera: Annotated[
        int | None,
        typer.Option(help="Classify what this camera sees until Ctrl-C; needs opencv.", min=0),
    ] = None,
    threads: Threads = None,
    backend: Annotated[
        str, typer.Option(help="onnxruntime, which starts quickest, or openvino.")
    ] = "onnxruntime",
    precision: Precision = None,
    as_json: Json = False,
) -> None:
    """Classify images; needs no torch."""
    from squeezekit.runtime.classifier import load

    stdin = stdin or images == [_STDIN]
    if (bool(images) and images != [_STDIN]) + stdin + (camera is not None) != 1:
        raise InputError("name images or folders, or - for paths from stdin, or a --camera")
    paths = [] if stdin or camera is not None else _images_in(images or [])
    classifier = load(file, threads, backend, precision)
    if stdin:
        _answer_lines(classifier.predict_each(_paths_from_stdin(), top))
    elif camera is not None:
        _watch(classifier, camera, top)
    elif as_json:
        _print_all(file, classifier.predict_each(paths, top))
    else:
        _show_all(classifier.predict_each(paths, top))


_Answers = Iterable[tuple[Any, "list[Prediction] | InputError"]]


def _paths_from_stdin() -> Iterator[str]:
    # Not by sys.stdin: Python cannot end while another thread waits for that one.
    with open(sys.stdin.fileno(), encoding=sys.stdin.encoding, closefd=False) as stream:
        for line in stream:
            if path := line.rstrip("\r\n"):
                yield path


def _images_in(named: list[Path]) -> list[Path]:
    """The images themselves, and those in folders, at any depth."""
    from squeezekit.data.folders import IMAGE_SUFFIXES

    if _STDIN in named:
        raise InputError("- stands alone: paths come from stdin or from the command line")
    paths: list[Path] = []
    for path in named:
        if not path.is_dir():
            paths.append(path)
            continue
        inside = [p for p in path.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES]
        if not inside:
            raise InputError(f"{path}: there is no image (such as .jpg or .png) in this folder")
        paths += sorted(inside)
    return paths


def _print_all(file: Path, answers: _Answers) -> None:
    found, failed = [], 0
    for image, answer in answers:
        if isinstance(answer, InputError):
            failed += 1
            note(str(answer))
        else:
            found.append({"image": str(image), "top": [dataclasses.asdict(p) for p in answer]})
    print_json({"file": str(file), "predictions": found})
    _all_classified(failed, failed + len(found))


def _show_all(answers: _Answers) -> None:
    from squeezekit.report import tables

    console, failed, total = terminal(), 0, 0
    for image, answer in answers:
        total += 1
        if isinstance(answer, InputError):
            failed += 1
            note(str(answer))
        else:
            console.print(tables.predictions_table(str(image), answer))
    _all_classified(failed, total)


def _all_classified(failed: int, total: int) -> None:
    if failed:
        raise InputError(f"{failed} of {total} images could not be classified")


def _answer_lines(answers: _Answers) -> None:
    """A line of JSON for each image, as soon as it is known; a broken one gets its reason."""
    for image, answer in answers:
        if isinstance(answer, InputError):
            line: dict[str, Any] = {"image": str(image), "error": str(answer)}
        else:
            line = {"image": str(image), "top": [dataclasses.asdict(p) for p in answer]}
        print(json.dumps(line, ensure_ascii=False, allow_nan=False), flush=True)


def _watch(classifier: Classifier, camera: int, top: int) -> None:
    """Answer each frame with a line of JSON, until Ctrl-C."""

    def answers() -> Iterator[tuple[str, list[Prediction]]]:
        for number, frame in enumerate(frames(camera)):
            yield f"frame {number}", classifier(frame, top)

    from squeezekit.runtime.camera import frames

    try:
        _answer_lines(answers())
    except KeyboardInterrupt:  # the one way to end it
        return
