"""Figures as SVG text that takes a page's font, its width, and its light or dark colours."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

from squeezekit.report import numbers
from squeezekit.report.drawing import (
    AFTER,
    BEFORE,
    GRID,
    INK,
    MUTED,
    STYLE,
    WIDTH,
    as_svg,
    bare,
    new_figure,
    shortened,
)
from squeezekit.report.tables import StageFigures

MOST_LAYERS = 24
"""Layers beyond are drawn as one bar, the smallest ones."""

MOST_CLASSES = 20
"""A confusion matrix of more classes could not be read, and is not drawn."""

NAMED_CURVES = 5
"""Curves of a figure of many that are named."""


@dataclass(frozen=True)
class LayerBytes:
    """A layer before and after compression.

    Attributes:
        name: for people ("fire2").
        float_bytes: the size in bytes of its weights and biases as float32.
        file_bytes: the size in bytes of the same in the file.
    """

    name: str
    float_bytes: int
    file_bytes: int


class EpochFigures(Protocol):
    """What a learning curve shows of an epoch; `train.loop.EpochResult` is one."""

    @property
    def epoch(self) -> int:
        """Its number, from 1."""

    @property
    def train_top1(self) -> float:
        """Percent right in training."""

    @property
    def val_top1(self) -> float | None:
        """Percent right on held-out images, None without any."""


class TrainingFigures(EpochFigures, Protocol):
    """What a curve of the loss shows as well."""

    @property
    def loss(self) -> float:
        """Mean over the training batches."""

    @property
    def learning_rate(self) -> float:
        """Of its last iteration."""


@dataclass(frozen=True)
class Series:
    """A line, or points, of a figure.

    Attributes:
        name: for the legend; empty leaves it out.
        points: (x, y), in order.
        labels: one a point, or none.
        strong: in the colour that the eye goes to.
        joined: by a line.
    """

    name: str
    points: Sequence[tuple[float, float]]
    labels: Sequence[str] = ()
    strong: bool = True
    joined: bool = True


def layer_bytes(bytes_by_tensor: Mapping[str, tuple[int, int]]) -> list[LayerBytes]:
    """Sum the tensors of each layer, or of each module such as fire2: what its names begin with.

    Args:
        bytes_by_tensor: (float_bytes, file_bytes) by tensor name, in the order of the network.

    Returns:
        At most MOST_LAYERS: where there are more, the smallest ones become one.
    """
    sums: dict[str, tuple[int, int]] = {}
    for tensor, (before, after) in bytes_by_tensor.items():
        layer = tensor.partition(".")[0]
        old = sums.get(layer, (0, 0))
        sums[layer] = (old[0] + before, old[1] + after)
    layers = [LayerBytes(name, *both) for name, both in sums.items()]
    if len(layers) <= MOST_LAYERS:
        return layers
    by_size = sorted(layers, key=lambda layer: -layer.float_bytes)
    small = by_size[MOST_LAYERS - 1 :]
    rest = LayerBytes(
        f"{len(small)} smaller layers",
        sum(layer.float_bytes for layer in small),
        sum(layer.file_bytes for layer in small),
    )
    return [layer for layer in layers if layer not in small] + [rest]


@mpl.rc_context(STYLE)
def bytes_per_layer(
    layers: Sequence[LayerBytes], written: Callable[[float], str] = numbers.size
) -> str:
    """Bars: each layer's bytes in the file, in front of what they were as float32.

    Args:
        layers: in order.
        written: how their numbers are, where they are no bytes.
    """
    figure, axes = new_figure(height=0.5 + 0.29 * len(layers))
    places = np.arange(len(layers))
    before = [layer.float_bytes for layer in layers]
    after = [layer.file_bytes for layer in layers]
    axes.barh(places, before, height=0.72, color=BEFORE)
    axes.barh(places, after, height=0.72, color=AFTER)
    for place, layer in enumerate(layers):
        axes.annotate(
            f"{written(layer.float_bytes)} → {written(layer.file_bytes)}",
            (layer.float_bytes, place),
            (5, 0),
            textcoords="offset points",
            va="center",
            fontsize=10.5,
            color=MUTED,
        )
    axes.set_yticks(places, [numbers.shown(shortened(layer.name)) for layer in layers])
    axes.tick_params(axis="y", labelcolor=INK)
    axes.set_xlim(0, 1.5 * max(before))
    axes.set_xticks([])
    axes.invert_yaxis()
    axes.spines["bottom"].set_visible(False)
    largest = max(layers, key=lambda layer: layer.file_bytes)
    alt = (
        f"{len(layers)} layers before and after. The largest in the file is "
        f"{largest.name}: {written(largest.float_bytes)} as float32, "
        f"{written(largest.file_bytes)} in the file."
    )
    return as_svg(figure, "layers", alt)


@mpl.rc_context(STYLE)
def bytes_and_accuracy(stages: Sequence[StageFigures]) -> str:
    """A line from stage to stage: the bytes of the file (log scale) against top-1.

    Returns:
        An empty text where no accuracy is known.
    """
    known = [(stage, stage.top1) for stage in stages if stage.top1 is not None]
    if not known:
        return ""
    figure, axes = new_figure(height=2.9)
    sizes = [stage.file_bytes for stage, _ in known]
    top1 = [value for _, value in known]
    axes.plot(sizes, top1, color=BEFORE, linewidth=2, zorder=1)
    axes.scatter(sizes, top1, s=46, color=AFTER, zorder=2)
    for number, (stage, value) in enumerate(known):
        up = number % 2 == 0
        axes.annotate(
            f"{shortened(numbers.shown(stage.name))}\n{numbers.size(stage.file_bytes)}",
            (stage.file_bytes, value),
            (0, 9 if up else -9),
            textcoords="offset points",
            ha="center",
            va="bottom" if up else "top",
            fontsize=10.5,
            color=INK,
        )
    middle, half = (max(top1) + min(top1)) / 2, (max(top1) - min(top1)) / 2
    half = max(1.9 * half, 1.0)
    axes.set_ylim(middle - half, middle + half)
    axes.set_xscale("log")
    axes.set_xlim(max(sizes) * 1.9, min(sizes) / 1.9)  # smaller is to the right
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: numbers.size(x)))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}%" if y <= 100 else ""))
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    axes.set_xlabel("file, smaller to the right")
    axes.set_ylabel("top-1")
    steps = "; ".join(
        f"{stage.name} {numbers.size(stage.file_bytes)}, {value:.1f}%" for stage, value in known
    )
    return as_svg(figure, "stages", f"Size of the file and top-1 accuracy by stage: {steps}.")


@mpl.rc_context(STYLE)
def learning_curve(epochs: Sequence[EpochFigures]) -> str:
    """Top-1 of training and held-out images over the epochs."""
    figure, axes = new_figure(height=2.6)
    numbers_of = [result.epoch for result in epochs]
    train = [result.train_top1 for result in epochs]
    held_out = [(result.epoch, result.val_top1) for result in epochs if result.val_top1 is not None]
    dots = _dots(epochs)
    axes.plot(numbers_of, train, color=BEFORE, label="training images, as augmented", **dots)
    if held_out:
        axes.plot(*zip(*held_out, strict=True), color=AFTER, label="held-out images", **dots)
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}%"))
    known = [value for _, value in held_out] or train
    least, most = min(_early(train), _early(known)), max(*train, *known)
    axes.set_ylim(max(least - 3, -1), 101 if most > 60 else 1.6 * most + 1)
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    axes.set_xlabel("epoch")
    axes.set_ylabel("top-1")
    axes.legend(
        loc="lower right" if most > 60 else "upper right",
        frameon=False,
        labelcolor=INK,
        fontsize=10.5,
    )
    last = f"{held_out[-1][1]:.1f}% of held-out" if held_out else f"{train[-1]:.1f}% of training"
    return as_svg(
        figure, "learning", f"Top-1 accuracy over {len(epochs)} epochs, ending at {last} images."
    )


@mpl.rc_context(STYLE)
def loss_curve(epochs: Sequence[TrainingFigures]) -> str:
    """The loss over the epochs, and below it the learning rate."""
    figure = Figure(figsize=(WIDTH, 2.6), layout="constrained")
    above, below = figure.subplots(2, sharex=True, height_ratios=(5, 2))
    numbers_of = [result.epoch for result in epochs]
    losses = [result.loss for result in epochs]
    above.plot(numbers_of, losses, color=AFTER, **_dots(epochs))
    above.set_ylim(0, 1.12 * max(_early(losses, largest=True), losses[-1], 1e-9))
    above.set_ylabel("loss")
    below.plot(
        numbers_of, [result.learning_rate for result in epochs], color=BEFORE, **_dots(epochs)
    )
    below.set_ylim(0, 1.25 * max(result.learning_rate for result in epochs))
    below.yaxis.set_major_locator(MaxNLocator(2))
    below.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
    below.set_ylabel("rate")
    below.set_xlabel("epoch")
    below.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    for axes in (above, below):
        bare(axes)
        axes.grid(axis="y", color=GRID, linewidth=0.8)
    figure.align_ylabels()
    alt = f"Loss over {len(epochs)} epochs, from {losses[0]:.3g} to {losses[-1]:.3g}."
    return as_svg(figure, "loss", alt)


def _early(values: Sequence[float], *, largest: bool = False) -> float:
    """The least (or the largest) value but for the first epochs, which say little."""
    return sorted(values, reverse=largest)[len(values) // 10]


def _dots(epochs: Sequence[object]) -> dict[str, Any]:
    """A line of few epochs shows where they are; one epoch would be no line at all."""
    return {"linewidth": 2, "marker": "o" if len(epochs) <= 3 else None, "markersize": 5}


@mpl.rc_context(STYLE)
def lines(
    name: str,
    series: Sequence[Series],
    x_label: str,
    y_label: str,
    alt: str,
    *,
    log: bool = False,
    x_names: Sequence[str] = (),
    x_format: Callable[[float], str] = "{:g}".format,
    y_format: Callable[[float], str] = "{:g}%".format,
    least_height: float = 0.0,
) -> str:
    """Several series in one figure.

    Args:
        name: the name of the figure on its page.
        series: what to draw, the quiet ones first.
        x_label: the label of the axis.
        y_label: the label of the axis.
        alt: the figure in words.
        log: whether x is on a log scale.
        x_names: names of x = 0, 1, ... where x is no number.
        x_format: how a number at the axis is written.
        y_format: the same.
        least_height: of the y axis, so that what is chance does not look like much.
    """
    figure, axes = new_figure(height=2.9)
    for one in series:
        x, y = zip(*one.points, strict=True)
        axes.plot(
            x, y, color=AFTER if one.strong else BEFORE, label=one.name or None, linewidth=2,
            linestyle="-" if one.joined else "none", marker="o",
            markersize=5.5 if one.joined else 4, alpha=1.0 if one.joined else 0.5,
            zorder=3 if one.strong else 2,
        )  # fmt: skip
        for label, place in zip(one.labels, one.points, strict=False):
            axes.annotate(
                numbers.shown(shortened(label)), place, (0, 8), textcoords="offset points",
                ha="center", fontsize=10, color=INK if one.strong else MUTED,
            )  # fmt: skip
    if log:
        axes.set_xscale("log")
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    if x_names:
        axes.set_xticks(range(len(x_names)), list(x_names))
        axes.set_xlim(-0.5, len(x_names) - 0.5)
        axes.tick_params(axis="x", labelcolor=INK)
    else:
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: x_format(x)))
        if not log:
            axes.xaxis.set_major_locator(MaxNLocator(5))  # as many as long numbers leave room for
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: y_format(y)))
    axes.margins(x=0.09, y=0.16)
    low, high = axes.get_ylim()
    missing = max(least_height - (high - low), 0.0)
    axes.set_ylim(low - missing / 2, high + missing / 2)
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    if any(one.name for one in series):
        axes.legend(
            loc="lower left", bbox_to_anchor=(0, 1), ncols=2, frameon=False, labelcolor=INK,
            fontsize=10.5, borderaxespad=0,
        )  # fmt: skip
    return as_svg(figure, name, alt)


@mpl.rc_context(STYLE)
def sensitivity_curves(
    curves: Mapping[str, Sequence[tuple[float, float]]], baseline: float, allowed: float
) -> str:
    """Accuracy against density, each layer pruned alone (Han et al. 2015, figure 6).

    Args:
        curves: by layer, (density, top-1 in percent); the most sensitive ones are named.
        baseline: top-1 without pruning.
        allowed: the least top-1 that a layer alone may go down to.
    """
    figure, axes = new_figure(height=3.6)
    loss = {layer: sum(baseline - top1 for _, top1 in points) for layer, points in curves.items()}
    named = sorted(curves, key=lambda layer: -loss[layer])[:NAMED_CURVES]
    for layer, points in curves.items():
        strong = layer in named
        x, y = zip((1.0, baseline), *points, strict=True)
        axes.plot(
            [100 * density for density in x], y, color=AFTER if strong else BEFORE,
            linewidth=1.8 if strong else 1.2, marker="o", markersize=3.5 if strong else 2.5,
            alpha=1.0 if strong else 0.8, zorder=3 if strong else 2,
        )  # fmt: skip
    _name_ends(axes, {layer: curves[layer][-1] for layer in named})
    axes.axhline(allowed, color=MUTED, linewidth=1, linestyle=(0, (4, 4)), zorder=1)
    axes.annotate(
        f"allowed: {allowed:.1f}%", (1, allowed), (0, 3), xycoords=("axes fraction", "data"),
        textcoords="offset points", ha="right", va="bottom", fontsize=10, color=MUTED,
    )  # fmt: skip
    axes.set_xscale("log")
    least = min(density for points in curves.values() for density, _ in points)
    axes.set_xlim(110, 100 * least / 2.4)  # fewer weights to the right, and room for the names
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}%" if x <= 100 else ""))
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}%"))
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    axes.set_xlabel("weights kept in one layer")
    axes.set_ylabel("top-1")
    worst = ", ".join(named[:3])
    return as_svg(
        figure, "sensitivity",
        f"Top-1 against the density of each of {len(curves)} layers alone, from {baseline:.1f}%. "
        f"The most sensitive are {worst}.",
    )  # fmt: skip


def _name_ends(axes: Axes, ends: Mapping[str, tuple[float, float]]) -> None:
    """Write the names of curves behind their ends, not on top of each other."""
    low, high = axes.get_ylim()
    gap, last = (high - low) / 17, -np.inf
    for layer, (density, top1) in sorted(ends.items(), key=lambda end: end[1][1]):
        last = max(top1, last + gap)
        axes.annotate(
            numbers.shown(shortened(layer)), (100 * density, top1), (100 * density / 1.06, last),
            va="center", ha="left", fontsize=10, color=INK,
        )  # fmt: skip


@mpl.rc_context(STYLE)
def confusion_matrix(
    targets: npt.NDArray[np.int64], predicted: npt.NDArray[np.int64], labels: Sequence[str]
) -> str:
    """How often each class (a row) was taken for each other (a column).

    Args:
        targets: (N,) true class indices.
        predicted: (N,) those that the network gave.
        labels: a name a class.

    Returns:
        An empty text where there are more than MOST_CLASSES.
    """
    if len(labels) > MOST_CLASSES:
        return ""
    matrix = np.zeros((len(labels), len(labels)), np.int64)
    np.add.at(matrix, (targets, predicted), 1)
    figure, axes = new_figure(height=WIDTH * 0.92)
    rows = np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    for (row, column), number in np.ndenumerate(matrix):
        _cell(axes, row, column, int(number), float(number / rows[row, 0]), len(labels))
    names = [numbers.shown(shortened(label, 14)) for label in labels]
    upright = all(len(name) <= 3 for name in names)
    axes.set_xticks(range(len(labels)), names, rotation=0 if upright else 90)
    axes.set_yticks(range(len(labels)), names)
    axes.tick_params(labelcolor=INK)
    axes.set_xlim(-0.5, len(labels) - 0.5)
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.set_aspect("equal")
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    for side in axes.spines.values():
        side.set_visible(False)
    return as_svg(figure, "confusion", _confusion_in_words(targets, predicted, labels))


def _cell(axes: Axes, row: int, column: int, number: int, share: float, classes: int) -> None:
    """Right answers in a quiet colour, mistakes in the loud one: they are what one looks for."""
    right = row == column
    opacity = 0.0 if number == 0 else (0.25 + 0.6 * share if right else 0.35 + 0.45 * share)
    axes.add_patch(
        Rectangle(
            (column - 0.47, row - 0.47), 0.94, 0.94,
            facecolor=GRID if number == 0 else BEFORE if right else AFTER,
            alpha=0.35 if number == 0 else opacity,
            linewidth=0,
        )
    )  # fmt: skip
    if number:
        axes.text(
            column, row, str(number),
            ha="center", va="center", fontsize=11.5 if classes <= 12 else 8, color=INK,
        )  # fmt: skip


def _confusion_in_words(
    targets: npt.NDArray[np.int64], predicted: npt.NDArray[np.int64], labels: Sequence[str]
) -> str:
    wrong = np.flatnonzero(targets != predicted)
    summary = f"Confusion matrix of {len(targets)} images, {len(wrong)} of them mistaken."
    if not len(wrong):
        return summary
    pairs, counts = np.unique(
        np.stack([targets[wrong], predicted[wrong]], axis=1), axis=0, return_counts=True
    )
    target, guess = pairs[counts.argmax()]
    return (
        f"{summary} Most often ({counts.max()} times) {labels[target]} was taken for "
        f"{labels[guess]}."
    )
