"""Predictions as JSON and as text with bars; without rich, whose loading would delay answers."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from unicodedata import combining, east_asian_width

from squeezekit.errors import InputError
from squeezekit.report import numbers

if TYPE_CHECKING:
    from squeezekit.runtime.classifier import Prediction

_BAR_CELLS = 24
_MOST_LABEL_CELLS = 40
_EIGHTHS = "▏▎▍▌▋▊▉"


def as_json_object(image: object, answer: Sequence[Prediction] | InputError) -> dict[str, Any]:
    """What an image shows, best first, or why it cannot be told, as `predict --json` has it."""
    if isinstance(answer, InputError):
        return {"image": str(image), "error": str(answer)}
    return {"image": str(image), "top": [dataclasses.asdict(each) for each in answer]}


def predictions_text(image: str, predictions: Sequence[Prediction], *, colored: bool) -> str:
    """What an image may show, most probable first, with a bar for each class.

    Args:
        image: its name, the first line.
        predictions: a line each.
        colored: with the escape sequences of terminals.
    """
    labels = [_shortened(numbers.shown(prediction.label)) for prediction in predictions]
    width = max(map(_cells, labels), default=0)
    lines = [_styled(numbers.shown(image), "36", colored)]  # cyan
    for rank, (label, prediction) in enumerate(zip(labels, predictions, strict=True)):
        filled = label + " " * (width - _cells(label))
        percent = f"{100 * prediction.probability:.1f}%"
        bar = _bar(prediction.probability)
        # The first in bold with a green bar, the others' bars grey.
        words = _styled(f"{filled} {percent:>6}", "1" if rank == 0 else "", colored)
        lines.append(f"{words}  {_styled(bar, '90' if rank else '32', colored)}".rstrip())
    return "\n".join(lines)


def _bar(share: float) -> str:
    whole, eighths = divmod(round(share * _BAR_CELLS * 8), 8)
    return "█" * whole + (_EIGHTHS[eighths - 1] if eighths else "")


def _styled(text: str, code: str, colored: bool) -> str:
    return f"\x1b[{code}m{text}\x1b[0m" if colored and code and text else text


def _cells(text: str) -> int:
    """How many columns of a terminal a text takes; Chinese characters take two."""
    return sum(0 if combining(c) else 2 if east_asian_width(c) in ("W", "F") else 1 for c in text)


def _shortened(text: str) -> str:
    if _cells(text) <= _MOST_LABEL_CELLS:
        return text
    while _cells(text) >= _MOST_LABEL_CELLS:
        text = text[:-1]
    return text + "…"
