"""The page of `squeezekit compress --curve`: accuracy against the bytes of the file."""

from __future__ import annotations

import dataclasses
import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from markupsafe import Markup

from squeezekit.files import write_whole
from squeezekit.report import figures, numbers
from squeezekit.report.html import render
from squeezekit.report.made import how_it_was_made
from squeezekit.report.page import Step
from squeezekit.report.tables import StageFigures
from squeezekit.sqz.network import Metadata

if TYPE_CHECKING:  # only its fields are needed, and torch is not
    from squeezekit.compression.curve import CurvePoint


def write_curve_report(
    page: Path,
    points: Sequence[CurvePoint],
    original: StageFigures,
    metadata: Metadata,
    *,
    command: str,
    seconds: float,
    paid: str = "file",
) -> None:
    """Write the page, and the points as JSON beside it.

    Args:
        page: ends in .html; the other file has its name with .json.
        points: the points of the curve.
        original: the network before, measured.
        metadata: the metadata of the network.
        command: the command that was typed.
        seconds: how long it took.
        paid: what the bytes of the points are those of, "file" or "update".

    Raises:
        InputError: if they cannot be written.
    """
    points = sorted(points, key=lambda point: -point.file_bytes)
    before = original.top1
    assert before is not None
    html = render(
        "curve.html.jinja",
        metadata=metadata,
        original=original,
        points=points,
        paid=paid,
        figures={"curve": Markup(_drawn(points, before, paid))},  # noqa: S704
        made=how_it_was_made(command, seconds),
        next_title="Next: choose a size",
        next_lead="The command for each point of the curve.",
        next_steps=[
            Step(
                f"{numbers.count(point.file_bytes)} bytes, {numbers.percent(point.top1)}% right",
                _command(command, point.file_bytes),
            )
            for point in points
        ],
    )
    content = {
        "original": {"file_bytes": original.file_bytes, "top1": before, "top5": original.top5},
        "points": [dataclasses.asdict(point) for point in points],
    }
    write_whole(page.with_suffix(".json"), (json.dumps(content, indent=2) + "\n").encode())
    write_whole(page, html.encode())


def _command(typed: str, file_bytes: int) -> str:
    """What was typed, for a file of that size instead of a curve."""
    words, kept = shlex.split(typed), []
    while words:
        word = words.pop(0)
        if word.partition("=")[0] in ("--curve", "--target-bytes", "--max-drop"):
            if "=" not in word and words and not words[0].startswith("-"):
                words.pop(0)
        else:
            kept.append(word)
    return shlex.join([*kept, "--target-bytes", str(file_bytes)])


def _drawn(points: Sequence[CurvePoint], before: float, paid: str) -> str:
    ends = points[0].file_bytes, points[-1].file_bytes
    sizes = "; ".join(f"{numbers.size(p.file_bytes)}, {p.top1:.1f}%" for p in points)
    return figures.lines(
        "curve",
        [
            figures.Series(
                f"before: {before:.1f}%", [(end, before) for end in ends], strong=False
            ),
            figures.Series("top-1 of the file", [(p.file_bytes, p.top1) for p in points]),
        ],
        f"bytes of the {paid}",
        "top-1",
        f"Top-1 accuracy by size of the {paid}: {sizes}.",
        x_format=numbers.size,
    )  # fmt: skip
