"""`predict`, and a parser for its plain form: typer alone takes longer to load than an answer."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from squeezekit.cli.output import has_colors, note, print_json
from squeezekit.errors import InputError
from squeezekit.report.answers import predictions_text


@dataclass(frozen=True)
class Asked:
    """What a prediction was asked for; see the verb's options."""

    file: Path
    images: tuple[Path, ...]
    top: int = 5
    threads: int | None = None
    as_json: bool = False


def plainly_asked(arguments: Sequence[str]) -> Asked | None:
    """What `predict FILE IMAGE... [--top N] [--threads N] [--json]` asks for.

    None for all else, mistakes and help included: typer understands the same words alike, and more.
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
    return Asked(paths[0], tuple(paths[1:]), as_json=as_json, **numbers)


def predict(asked: Asked) -> None:
    """Classify images and print what they show.

    Raises:
        InputError: where the file, or any of the images, cannot be used; the others are answered.
    """
    from squeezekit.runtime.classifier import load

    classifier = load(asked.file, asked.threads)
    answers, failed = [], 0
    for image in asked.images:
        try:
            answers.append((image, classifier(image, asked.top)))
        except InputError as error:
            failed += 1
            note(str(error))
    if asked.as_json:
        print_json(
            {
                "file": str(asked.file),
                "predictions": [
                    {"image": str(image), "top": [dataclasses.asdict(p) for p in found]}
                    for image, found in answers
                ],
            }
        )
    else:
        for image, found in answers:
            print(predictions_text(str(image), found, colored=has_colors()))
    if failed:
        raise InputError(f"{failed} of {len(asked.images)} images could not be classified")
