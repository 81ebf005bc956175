"""The page of a compression: what `squeezekit compress --report` writes."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from squeezekit.confidence import Temperature
from squeezekit.evaluation import Evaluation
from squeezekit.report import numbers
from squeezekit.report.made import how_it_was_made
from squeezekit.report.page import Step, report_of, write_page

if TYPE_CHECKING:  # only its fields are needed, and torch is not
    from squeezekit.compression.stages import Stage


def write_compress_report(
    page: Path,
    sqz: Path,
    stages: Sequence[Stage],
    evaluation: Evaluation | None,
    *,
    command: str,
    seconds: float,
    before: Evaluation | None = None,
    unseen: bool = False,
    temperature: Temperature | None = None,
) -> None:
    """Write the page.

    Args:
        page: where to.
        sqz: the compressed file.
        stages: the stages of the compression, float32 first.
        evaluation: the evaluation of the file; None if there were no images.
        command: the command that was typed.
        seconds: how long it took.
        before: evaluation of the network before, on the same images.
        unseen: whether it is known that the network was not trained on these.
        temperature: in the file, fitted to held-out images; None where it was not.

    Raises:
        InputError: if the page cannot be written.
    """
    images = "" if evaluation is None else f"{numbers.count(evaluation.images)} held out"
    report = report_of(
        sqz,
        stages,
        evaluation=evaluation,
        before=before,
        unseen=unseen,
        temperature=temperature,
        epochs=(),
        made=how_it_was_made(command, seconds, images),
        next_steps=_next_steps(shlex.quote(str(sqz))),
        next_title="Next: use it",
        next_lead="The file is all that is needed, and nothing of training.",
    )
    write_page(report, page)


def _next_steps(sqz: str) -> list[Step]:
    return [
        Step("Classify an image", f"squeezekit predict {sqz} photo.jpg"),
        Step("See where every byte went", f"squeezekit info {sqz}"),
        Step("Measure on other images", f"squeezekit evaluate {sqz} --data OTHER"),
    ]
