"""`predict`, and a parser for its plain form: loading typer takes longer than one prediction."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from squeezekit.cli.output import has_colors, note, print_json
from squeezekit.data.sources import STDIN, images_named, paths_from
from squeezekit.errors import InputError
from squeezekit.report.answers import as_json_object, predictions_text
from squeezekit.sqz.limits import DEFAULT, Limits
from squeezekit.text import json_line

if TYPE_CHECKING:
    from squeezekit.runtime.classifier import Prediction
    from squeezekit.runtime.stated import Stated


@dataclass(frozen=True)
class Asked:
    """The arguments of `predict`; see the verb's options."""

    file: Path
    images: tuple[Path, ...]
    top: int = 5
    threads: int | None = None
    as_json: bool = False
    stdin: bool = False
    camera: int | None = None
    backend: str = "onnxruntime"
    precision: str | None = None
    preprocessing: Stated | None = None
    limits: Limits | None = DEFAULT


def plainly_asked(arguments: Sequence[str]) -> Asked | None:
    """The arguments of `predict FILE IMAGE... [--top N] [--threads N] [--json]`.

    None for anything else, also for mistakes and --help: typer parses that.
    """
    if arguments[:1] != ["predict"]:
        return None
    paths: list[Path] = []
    numbers: dict[str, int] = {}
    as_json = False
    words = iter(arguments[1:])
    for word in words:
        if word == "--json":
            as_json = True
        elif word in ("--top", "--threads"):
            value = next(words, "")
            if not (value.isascii() and value.isdecimal() and int(value) > 0):
                return None
            numbers[word.removeprefix("--")] = int(value)
        elif word.startswith("-") or not word:
            return None
        else:
            paths.append(Path(word))
    if len(paths) < 2:
        return None
    top, threads = numbers.get("top", 5), numbers.get("threads")
    return Asked(paths[0], tuple(paths[1:]), top, threads, as_json)


def predict(asked: Asked) -> None:
    """Classify images and print what they show.

    Raises:
        InputError: if the file, or any of the images, cannot be used; the others are answered.
    """
    from squeezekit.classifying import load

    stdin = asked.stdin or asked.images == (STDIN,)
    named = bool(asked.images) and asked.images != (STDIN,)
    if named + stdin + (asked.camera is not None) != 1:
        raise InputError("name images or folders, - for paths from stdin, or --camera N")
    paths = images_named(asked.images) if named else []
    classifier = load(
        asked.file, asked.threads, asked.backend, asked.precision,
        preprocessing=asked.preprocessing, limits=asked.limits, note=note,
    )  # fmt: skip
    if stdin:
        _print_lines(classifier.predict_each(paths_from(sys.stdin.fileno()), asked.top))
    elif asked.camera is not None:
        from squeezekit.runtime.camera import answers

        try:
            _print_lines(answers(classifier, asked.camera, asked.top))
        except KeyboardInterrupt:  # the one way to end it
            return
    else:
        _print_all(classifier.predict_each(paths, asked.top), asked)


_Answers = Iterable[tuple[Any, "list[Prediction] | InputError"]]


def _print_all(answers: _Answers, asked: Asked) -> None:
    found, failed, total = [], 0, 0
    for total, (image, answer) in enumerate(answers, 1):  # noqa: B007 - the last one counts
        if isinstance(answer, InputError):
            failed += 1
            note(str(answer))
        elif asked.as_json:
            found.append(as_json_object(image, answer))
        else:
            print(predictions_text(str(image), answer, colored=has_colors()))
    if asked.as_json:
        print_json({"file": str(asked.file), "predictions": found})
    if failed:
        raise InputError(f"{failed} of {total} images could not be classified")


def _print_lines(answers: _Answers) -> None:
    """A line of JSON for each image, as soon as it is answered; or the reason why it is broken."""
    for image, answer in answers:
        print(json_line(as_json_object(image, answer), sys.stdout.encoding), flush=True)
