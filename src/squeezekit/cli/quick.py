"""`predict`, and a parser for its plain form: loading typer takes longer than one prediction."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from squeezekit.cli.output import has_colors, note, print_json
from squeezekit.errors import InputError
from squeezekit.report.answers import predictions_text
from squeezekit.text import json_line, shown

if TYPE_CHECKING:
    from squeezekit.runtime.classifier import Classifier, Prediction
    from squeezekit.runtime.stated import Stated

_STDIN = Path("-")


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
    from squeezekit.cli.opened import opened

    stdin = asked.stdin or asked.images == (_STDIN,)
    named = bool(asked.images) and asked.images != (_STDIN,)
    if named + stdin + (asked.camera is not None) != 1:
        raise InputError("name images or folders, - for paths from stdin, or --camera N")
    paths = _images_in(asked.images) if named else []
    classifier = opened(
        asked.file, asked.threads, asked.backend, asked.precision, asked.preprocessing
    )
    if stdin:
        _answer_lines(classifier.predict_each(_paths_from_stdin(), asked.top))
    elif asked.camera is not None:
        _watch(classifier, asked.camera, asked.top)
    elif asked.as_json:
        _print_all(asked.file, classifier.predict_each(paths, asked.top))
    else:
        _show_all(classifier.predict_each(paths, asked.top))


_Answers = Iterable[tuple[Any, "list[Prediction] | InputError"]]


def _paths_from_stdin() -> Iterator[str]:
    # Not by sys.stdin: Python cannot end while another thread waits for that one.
    with open(sys.stdin.fileno(), "rb", closefd=False) as stream:
        for line in stream:  # a path is bytes, of any encoding
            if path := line.rstrip(b"\r\n"):
                yield os.fsdecode(path)


def _images_in(named: Sequence[Path]) -> list[Path]:
    """The images themselves, and those in folders, at any depth."""
    if _STDIN in named:
        raise InputError("- stands alone: paths come from stdin or from the command line")
    paths: list[Path] = []
    for path in named:
        if not path.is_dir():
            paths.append(path)
            continue
        from squeezekit.data.folders import images_below

        paths += images_below(path)
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
    failed, total = 0, 0
    for image, answer in answers:
        total += 1
        if isinstance(answer, InputError):
            failed += 1
            note(str(answer))
        else:
            print(predictions_text(str(image), answer, colored=has_colors()))
    _all_classified(failed, total)


def _all_classified(failed: int, total: int) -> None:
    if failed:
        raise InputError(f"{failed} of {total} images could not be classified")


def _answer_lines(answers: _Answers) -> None:
    """A line of JSON for each image, as soon as it is answered; or the reason why it is broken."""
    for image, answer in answers:
        if isinstance(answer, InputError):
            line: dict[str, Any] = {"image": str(image), "error": shown(str(answer))}
        else:
            line = {"image": str(image), "top": [dataclasses.asdict(p) for p in answer]}
        print(json_line(line, sys.stdout.encoding), flush=True)


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
