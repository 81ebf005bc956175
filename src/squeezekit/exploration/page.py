"""The page of an exploration: Pareto front, what its designs have in common, what decides."""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import optuna
from markupsafe import Markup
from optuna.trial import FrozenTrial

from squeezekit.exploration.run import Exploration, Result
from squeezekit.files import write_whole
from squeezekit.report import design_figures
from squeezekit.report.html import render
from squeezekit.report.made import how_it_was_made
from squeezekit.report.page import Step

PAGE = "report.html"
"""Its name in the folder of the exploration."""

_FEWEST_TO_RANK = 20
"""Of fewer trials, importances would be noise."""


@dataclass(frozen=True)
class Beaten:
    """A trial with the paper's metaparameters, and the best that the search has for its bytes."""

    paper: Result
    best: Result | None


def write_page(exploration: Exploration, path: Path, *, command: str) -> None:
    """Write the page, whole or not at all; nothing where no trial is finished.

    Args:
        exploration: as it stands.
        path: where to.
        command: the command that was typed, without a password.

    Raises:
        InputError: if the file cannot be written.
    """
    if exploration.finished:
        write_whole(path, page(exploration, command=command).encode())


def page(exploration: Exploration, *, command: str) -> str:
    """The HTML text; arguments as of `write_page`."""
    results = exploration.results
    best = max(results, key=lambda result: (result.top1, -result.file_bytes))
    return render(
        "explore.html.jinja",
        exploration=exploration,
        metadata={"name": exploration.name, "licence": "", "provenance": ()},
        results=results,
        front=sorted((r for r in results if r.on_front), key=lambda r: -r.top1),
        close=design_figures.CLOSE,
        best=best,
        small=_small(results, best),
        beaten=beaten(results),
        stopped=exploration.stopped,
        failed=exploration.failed,
        done=sum(ticket.done for ticket in exploration.tickets),
        varied=list(exploration.space.ranges),
        written=design_figures.written,
        figures={name: Markup(svg) for name, svg in _figures(exploration, results).items()},  # noqa: S704
        made=how_it_was_made(command, exploration.seconds, exploration.images),
        next_title="Next: use what was found",
        next_lead="Each trial left the file that was measured, where its worker ran.",
        next_steps=_next_steps(exploration.folder / best.file),
    )


def beaten(results: Sequence[Result]) -> list[Beaten]:
    """For each trial with the paper's metaparameters, what the search has for as many bytes."""
    searched = [result for result in results if not result.given]
    pairs = []
    for paper in sorted((r for r in results if r.given), key=lambda r: -r.file_bytes):
        fit = [result for result in searched if result.file_bytes <= paper.file_bytes]
        pairs.append(Beaten(paper, max(fit, key=lambda r: r.top1, default=None)))
    return pairs


def _small(results: Sequence[Result], best: Result) -> Result:
    """The smallest within a point of the best."""
    near = [result for result in results if result.top1 >= best.top1 - 1.0]
    return min(near, key=lambda result: result.file_bytes)


def _figures(exploration: Exploration, results: Sequence[Result]) -> dict[str, str]:
    """SVG by name; empty if there is nothing to draw."""
    is_grid = exploration.space.is_grid
    varied = next(iter(exploration.space.ranges))
    return {
        "pareto": design_figures.pareto_front(results, varied if is_grid else None),
        "sweep": design_figures.sweep(results, varied) if is_grid else "",
        "parallel": ""
        if is_grid
        else design_figures.parallel_coordinates(results, list(exploration.space.ranges)),
        "importance": ""
        if is_grid or len(results) < _FEWEST_TO_RANK
        else design_figures.importances(importances(exploration)),
    }


def importances(exploration: Exploration) -> dict[str, dict[str, float]]:
    """The share that each metaparameter has in the differences of each result: 0 to 1.

    By functional analysis of variance over a random forest (Hutter et al. 2014).
    """
    study = exploration.study()

    def shares(of: Callable[[FrozenTrial], float]) -> dict[str, float]:
        evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
        return optuna.importance.get_param_importances(study, evaluator=evaluator, target=of)

    return {
        "top-1": shares(lambda trial: trial.values[0]),
        "bytes": shares(lambda trial: math.log(trial.values[1])),
        "MACs": shares(lambda trial: math.log(trial.values[2])),
    }


def _next_steps(file: Path) -> list[Step]:
    path = shlex.quote(str(file))
    return [
        Step(
            "Classify an image with the most accurate one", f"squeezekit predict {path} photo.jpg"
        ),
        Step("See where its bytes went", f"squeezekit info {path}"),
        Step("Measure it on other images", f"squeezekit evaluate {path} --data OTHER"),
    ]
