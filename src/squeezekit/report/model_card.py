"""The model card of a training run: what it is, how it was made, how far to trust it."""

from __future__ import annotations

import dataclasses
import html
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from squeezekit.report import numbers
from squeezekit.report.classes import ClassResult, class_results
from squeezekit.report.made import today, versions
from squeezekit.sqz.network import Preprocessing

if TYPE_CHECKING:  # only its fields are needed, and torch is not
    from squeezekit.training.recipe import Recipe
    from squeezekit.training.run import Run

MOST_ROWS = 100
"""With more classes than this, the card has a table of the least accurate, and the names of all."""

_LEAST_ACCURATE = 20
_FEW_IMAGES = 20


def model_card(run: Run, data_name: str) -> str:
    """The card as Markdown; names from files and folders are escaped in it.

    Args:
        run: a finished training.
        data_name: what the data is called: its folder's name, without where it lies.
    """
    metadata, evaluation = run.network.metadata, run.evaluation
    results = class_results(evaluation, metadata.labels, run.class_images)
    name = _escaped(metadata.name)
    sections = [
        f"# {_escaped(metadata.title or data_name)}",
        f"An image classifier: a {name} convolutional network with "
        f"{numbers.count(run.network.parameters)} weights, trained by squeezekit on {today()} from "
        f"{numbers.count(run.data.images)} photos. For each photo it gives a probability to each "
        f"of {numbers.count(len(metadata.labels))} classes.",
        "## Accuracy",
        _accuracy(run),
        "## Classes",
        *_classes(results, metadata.labels),
        "## Data",
        _data(run, data_name),
        "## Input and preprocessing",
        "\n".join(f"{i}. {step}." for i, step in enumerate(in_words(metadata.preprocessing), 1)),
        "squeezekit does this itself; it is written in the weights file, in every file made "
        "of it, and here for those who do without squeezekit.",
        "## Training",
        "The recipe, in the words that `squeezekit train --set` takes:",
        "```\n" + "\n".join(settings(run.recipe)) + "\n```",
        f"It took {numbers.duration(run.seconds)} for {len(run.results)} epochs, with "
        f"{versions()}.",
        "## Where the weights come from",
        _provenance(run),
        "## Limits",
        "\n".join(f"- {sentence}" for sentence in _limits(run, results)),
        "## Use",
        _USE.strip(),
    ]
    return "\n\n".join(sections) + "\n"


def settings(recipe: Recipe) -> list[str]:
    """A recipe as key=value, as `--set` reads it."""
    fields = dataclasses.asdict(recipe)
    augmentation = fields.pop("augmentation")
    return [f"{name}={_value(value)}" for name, value in (fields | augmentation).items()]


def in_words(preprocessing: Preprocessing) -> list[str]:
    """The steps from an image file to the network's input, each a sentence without its full stop.

    The last one tells the shape of the input.
    """
    p = preprocessing
    color = {
        "RGB": "converted to RGB",
        "BGR": "converted to RGB, with the channels then in the order blue, green, red",
        "L": "converted to greyscale",
    }[p.color]
    size = (
        f"to {p.resize} x {p.resize} pixels, whatever its proportions"
        if p.resize_mode == "warp"
        else f"so that its short side has {p.resize} pixels"
    )
    crop = (
        f"The middle {p.crop} x {p.crop} pixels are cut out"
        if p.crop < p.resize or p.resize_mode == "short_side"
        else "Nothing is cut off"
    )
    scale = f"1/{1 / p.scale:g}" if p.scale < 1 else f"{p.scale:g}"
    return [
        f"The image is turned upright as its EXIF block says, and {color}, 8 bits a channel; "
        "what is transparent becomes white",
        f"It is resized {size} ({p.interpolation}, antialiased)",
        crop,
        f"Each value is multiplied by {scale}; then the mean ({_numbers(p.mean)}) is subtracted "
        f"and the result divided by ({_numbers(p.std)}), channel by channel",
        f"The input has the shape (N, {p.channels}, {p.crop}, {p.crop}), float32",
    ]


def _accuracy(run: Run) -> str:
    evaluation = run.evaluation
    right = round(evaluation.top1 * evaluation.images / 100)
    low, high = evaluation.top1_interval
    lines = [
        "| on held-out images | |",
        "|---|---|",
        f"| top-1 accuracy | {evaluation.top1:.1f}% |",
    ]
    if len(run.network.metadata.labels) > evaluation.ranked.shape[1]:
        lines.append(f"| top-5 accuracy | {evaluation.top5:.1f}% |")
    lines += [
        f"| images | {numbers.count(evaluation.images)} |",
        f"| classified right | {numbers.count(right)} |",
        f"| 95% interval of top-1 (Wilson) | {low:.1f}% to {high:.1f}% |",
    ]
    return "\n".join(lines)


def _classes(results: Sequence[ClassResult], labels: Sequence[str]) -> list[str]:
    """The table of classes; of many, the least accurate, and the names of all."""
    if len(labels) <= MOST_ROWS:
        return [_class_table(results)]
    return [
        f"The {_LEAST_ACCURATE} least accurate of {numbers.count(len(labels))}:",
        _class_table(results[:_LEAST_ACCURATE]),
        "All, in the order of the outputs: " + "; ".join(_escaped(label) for label in labels) + ".",
    ]


def _class_table(results: Sequence[ClassResult]) -> str:
    rows = [
        f"| {_escaped(c.label)} | {numbers.count(c.trained)} | {numbers.count(c.images)} "
        f"| {numbers.percent(c.accuracy)} |"
        for c in results
    ]
    head = "| class | training images | held-out images | right, % |\n|---|--:|--:|--:|\n"
    return head + "\n".join(rows)


def _data(run: Run, data_name: str) -> str:
    skipped = len(run.data.skipped) + len(run.evaluation.skipped)
    text = (
        f"{_escaped(data_name)}: {numbers.count(run.data.images)} photos to train on and "
        f"{numbers.count(run.evaluation.images)} to measure with, which training has not seen."
    )
    if run.parts.chooses:
        text += (
            f" {numbers.count(len(run.parts.choosing))} others were held out too and chose the "
            "epoch whose weights were kept."
        )
    elif run.recipe.chooses_epoch:
        text += (
            " (But they decided which epoch's weights were kept, so that the accuracy is "
            "flattering: there were too few photos for two parts.)"
        )
    if skipped:
        text += f" Not counted: {numbers.count(skipped)} that could not be read."
    return text


def _provenance(run: Run) -> str:
    metadata = run.network.metadata
    steps = [f"{i}. {_escaped(step)}" for i, step in enumerate(metadata.provenance, 1)]
    if metadata.licence:
        licence = (
            f"Licence of the weights that training started from: {_escaped(metadata.licence)}."
        )
    elif len(steps) > 1:
        licence = "The licence of the weights that training started from is not known."
    else:
        licence = "Training started from random weights."
    images = "The images have rights of their own, which squeezekit does not know."
    return "\n".join(steps) + f"\n\n{licence} {images}"


def _limits(run: Run, results: Sequence[ClassResult]) -> list[str]:
    limits = [
        "It always answers one of its classes, also for images of none of them.",
        "Its probabilities are not calibrated: 90% does not mean right nine times out of ten.",
        "The accuracy holds for images like the held-out ones. Another camera, light or place "
        "can lower it: measure it on images of your own (`squeezekit evaluate`).",
    ]
    measured = [c for c in results if c.accuracy is not None]
    worst = measured[0]
    if worst.right < worst.images:
        limits.append(
            f"Its least accurate class is {_escaped(worst.label)}: {worst.right} of "
            f"{worst.images} held-out images right."
        )
    if unmeasured := len(results) - len(measured):
        limits.append(
            f"{numbers.count(unmeasured)} of its classes had no held-out image: nothing is known "
            "of how well it tells them."
        )
    if few := sum(c.trained < _FEW_IMAGES for c in results):
        limits.append(
            f"{numbers.count(few)} of its classes had fewer than {_FEW_IMAGES} images to learn "
            "from."
        )
    warnings = [result.warning for result in run.results if result.warning]
    return limits + [f"A warning of its training: {_escaped(text)}" for text in warnings[-1:]]


def _numbers(values: Sequence[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)


def _value(value: object) -> str:
    """A setting's value as `--set` reads it."""
    if value is None or isinstance(value, bool):
        return str(value).lower()
    return str(value)


def _escaped(text: str) -> str:
    """A text that shows as it is in Markdown, in a table too."""
    plain = html.escape(numbers.shown(text), quote=False)
    return re.sub(r"([\\`*_\[\]|~#])", r"\\\1", plain)


_USE = """
`weights.safetensors` holds the network's graph, its weights, labels and preprocessing. In the
folder of this card:

```
squeezekit evaluate weights.safetensors --data DIR               # accuracy on other images
squeezekit compress weights.safetensors --data DIR -o model.sqz  # one small file
squeezekit predict model.sqz photo.jpg                           # needs no torch
squeezekit export weights.safetensors model.onnx                 # for ONNX Runtime and others
```

```python
import squeezekit

classify = squeezekit.load("model.sqz")
print(classify("photo.jpg")[0].label)
```
"""
