"""Writes the page and the model card of a training run."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from markupsafe import Markup
from PIL import Image

from squeezekit.files import write_whole
from squeezekit.models.cost import cost
from squeezekit.report import figures, numbers
from squeezekit.report.classes import class_results, confused_pairs
from squeezekit.report.html import render
from squeezekit.report.made import how_it_was_made
from squeezekit.report.mistakes import worst_mistakes
from squeezekit.report.model_card import in_words, model_card, settings
from squeezekit.report.page import Step
from squeezekit.report.reliability_figure import reliability_diagram
from squeezekit.report.thumbnails import Thumbnail, thumbnail

if TYPE_CHECKING:  # only its fields are needed
    from squeezekit.training.run import Run

PAGE, CARD = "report.html", "MODEL_CARD.md"
"""The names of both in the folder of the run."""

_SAMPLE_IMAGES = 24
_CLASSES_IN_SIGHT = 20
_MOST_NAMED, _MOST_CHARACTERS = 12, 160


@dataclass(frozen=True)
class Seen:
    """An image as the network saw it in training, and the label it was to learn."""

    label: str
    image: Thumbnail


def page_of(run: Run) -> Path | None:
    """The page in the folder of a run; None where it could not be made."""
    page = run.folder / PAGE
    return page if page.exists() else None


def write_run_report(run: Run, out: Path, *, data: Path, command: str) -> Path:
    """Write MODEL_CARD.md and report.html into the folder of a finished run.

    Args:
        run: what the training gave.
        out: its folder.
        data: the folder of images; the card has its name only, the page the command too.
        command: the command that was typed.

    Returns:
        The page.

    Raises:
        InputError: if the folder cannot be written.
    """
    name = data.resolve().name
    write_whole(out / CARD, model_card(run, name).encode())
    path = out / PAGE
    write_whole(path, run_page(run, out, data=data, command=command).encode())
    return path


def run_page(run: Run, out: Path, *, data: Path, command: str) -> str:
    """The HTML text of a run's page; arguments as of `write_run_report`."""
    network, evaluation = run.network, run.evaluation
    labels = network.metadata.labels
    results = class_results(evaluation, labels, run.class_images)
    right = round(evaluation.top1 * evaluation.images / 100)
    return render(
        "run.html.jinja",
        run=run,
        metadata=network.metadata,
        evaluation=evaluation,
        temperature=run.temperature,
        measured="Measured on the held-out images",
        title=network.metadata.title or data.resolve().name,
        classes_in_words=_in_words(labels),
        labels=labels,
        right=right,
        interval=evaluation.top1_interval,
        has_top5=len(labels) > evaluation.ranked.shape[1],
        best=_best_epoch(run),
        warnings=list(dict.fromkeys(r.warning for r in run.results if r.warning)),
        skipped=[*run.data.skipped, *evaluation.skipped],
        macs=cost(network).macs,
        figures={name: Markup(svg) for name, svg in _figures(run).items()},  # noqa: S704
        mistakes=worst_mistakes(evaluation, labels),
        pairs=confused_pairs(evaluation, labels),
        in_sight=results[:_CLASSES_IN_SIGHT],
        out_of_sight=results[_CLASSES_IN_SIGHT:],
        sample=_sample(run),
        settings=settings(run.recipe),
        preprocessing=in_words(network.metadata.preprocessing),
        made=how_it_was_made(
            command,
            run.seconds,
            _photos(run),
        ),
        next_title="Next: make it small",
        next_lead="The weights become one small file that needs no torch to be used.",
        next_steps=_next_steps(out, data),
    )


def _in_words(labels: Sequence[str]) -> str:
    """The classes by name, as far as there is room for them."""
    named = list(labels[:_MOST_NAMED])
    while len(named) > 2 and sum(map(len, named)) > _MOST_CHARACTERS:
        named.pop()
    left = len(labels) - len(named)
    if left:
        return f"{', '.join(named)} and {numbers.count(left)} more"
    return f"{', '.join(named[:-1])} and {named[-1]}" if len(named) > 1 else named[0]


def _best_epoch(run: Run) -> int | None:
    """The first epoch with the best top-1 on held-out images."""
    known = [(result.val_top1, -result.epoch) for result in run.results if result.val_top1]
    return -max(known)[1] if known else None


def _photos(run: Run) -> str:
    """How many there were, and what for."""
    parts = [f"{numbers.count(run.data.images)} to train on"]
    if run.parts.chooses:
        parts.append(f"{numbers.count(len(run.parts.choosing))} to choose the epoch by")
    return ", ".join([*parts, f"{numbers.count(run.evaluation.images)} to measure with"])


def _figures(run: Run) -> dict[str, str]:
    evaluation, epochs = run.evaluation, run.compared
    return {
        "learning": figures.learning_curve(epochs) if epochs else "",
        "reliability": "" if run.temperature is None else reliability_diagram(run.temperature),
        "loss": figures.loss_curve(epochs) if epochs else "",
        "confusion": figures.confusion_matrix(
            evaluation.targets, evaluation.ranked[:, 0], run.network.metadata.labels
        ),
    }


def _sample(run: Run) -> list[Seen]:
    """A batch of the first epoch, after augmentation."""
    if run.recipe.epochs == 0:
        return []
    few = dataclasses.replace(run.recipe, batch=min(_SAMPLE_IMAGES, run.recipe.batch), accumulate=1)
    labels = run.network.metadata.labels
    images, targets = next(iter(run.data.epoch(0, few)))  # (n, H, W, 3) or (n, H, W), (n,)
    return [
        Seen(
            labels[int(target)],
            thumbnail(Image.fromarray(image.numpy())),
        )
        for image, target in zip(images, targets, strict=True)
    ]


def _next_steps(out: Path, data: Path) -> list[Step]:
    return [
        Step(
            "Compress what you trained, with a page like this one",
            f"squeezekit compress {shlex.quote(str(out))} --data {shlex.quote(str(data))} "
            "-o model.sqz --report model.html",
        ),
        Step("Use the file", "squeezekit predict model.sqz photo.jpg"),
        Step(
            "Measure on other images",
            f"squeezekit evaluate {shlex.quote(str(out))} --data OTHER",
        ),
    ]
