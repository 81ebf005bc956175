"""`predict`, and a parser for its plain form: loading typer takes longer than one prediction."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from squeezekit.cli.output import has_colors, note, print_json
from squeezekit.data.sources import STDIN, images_named, paths_from
from squeezekit.errors import InputError
from squeezekit.report.answers import as_json_object, predictions_text
from squeezekit.text import json_line

if TYPE_CHECKING:
    from squeezekit.runtime.classifier import Prediction


def plainly_asked(arguments: Sequence[str]) -> dict[str, Any] | None:
    """The arguments of `predict FILE IMAGE... [--top N] [--threads N] [--json]`.

    None for anything else, also for mistakes and --help: typer parses that.
    """
    if arguments[:1] != ["predict"]:
        return None
    paths: list[Path] = []
    asked: dict[str, Any] = {}
    words = iter(arguments[1:])
    for word in words:
        if word == "--json":
            asked["as_json"] = True
        elif word in ("--top", "--threads"):
            value = next(words, "")
            if not (value.isascii() and value.isdecimal() and int(value) > 0):
                return None
            asked[word.removeprefix("--")] = int(value)
        elif word.startswith("-") or not word:
            return None
        else:
            paths.append(Path(word))
    return None if len(paths) < 2 else {"file": paths[0], "images": paths[1:], **asked}


def predict(
    file: Path,
    images: Sequence[Path] = (),
    *,
    top: int = 5,
    stdin: bool = False,
    camera: int | None = None,
    as_json: bool = False,
    **how: Any,  # noqa: ANN401 - what `load` takes
) -> None:
    """Classify images and print what they show; see the verb's options.

    Raises:
        InputError: if the file, or any of the images, cannot be used; the others are answered.
    """
    from squeezekit.classifying import load

    stdin = stdin or tuple(images) == (STDIN,)
    named = bool(images) and tuple(images) != (STDIN,)
    if named + stdin + (camera is not None) != 1:
        raise InputError("name images or folders, - for paths from stdin, or --camera N")
    paths = images_named(images) if named else []
    classifier = load(file, **how, note=note)
    if stdin:
        _print_lines(classifier.predict_each(paths_from(sys.stdin.fileno()), top))
    elif camera is not None:
        from squeezekit.runtime.camera import answers

        with suppress(KeyboardInterrupt):  # the one way to end it
            _print_lines(answers(classifier, camera, top))
    else:
        _print_all(file, classifier.predict_each(paths, top), as_json)


_Answers = Iterable[tuple[Any, "list[Prediction] | InputError"]]


def _print_all(file: Path, answers: _Answers, as_json: bool) -> None:
    found, failed, total = [], 0, 0
    for total, (image, answer) in enumerate(answers, 1):  # noqa: B007 - the last one counts
        if isinstance(answer, InputError):
            failed += 1
            note(str(answer))
        elif as_json:
            found.append(as_json_object(image, answer))
        else:
            print(predictions_text(str(image), answer, colored=has_colors()))
    if as_json:
        print_json({"file": str(file), "predictions": found})
    if failed:
        raise InputError(f"{failed} of {total} images could not be classified")


def _print_lines(answers: _Answers) -> None:
    """A line of JSON for each image, as soon as it is answered; or the reason why it is broken."""
    for image, answer in answers:
        print(json_line(as_json_object(image, answer), sys.stdout.encoding), flush=True)
