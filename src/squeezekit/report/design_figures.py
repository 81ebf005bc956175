"""Figures of a design space: what its trials reached, and which metaparameters decided it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter, NullLocator

from squeezekit.report import numbers
from squeezekit.report.drawing import (
    AFTER,
    BEFORE,
    GRID,
    INK,
    MUTED,
    PAPER,
    STYLE,
    WIDTH,
    as_svg,
    bare,
)
from squeezekit.report.tables import DesignFigures

_WIDE = 2 * WIDTH
_MOST_LABELS = 12
CLOSE = 3.0
"""A design counts as good if it is at most this many points of top-1 below the best."""

_BAND = 12.0
"""Designs are drawn down to this many points of top-1 below the best; worse ones are left out."""


@mpl.rc_context(STYLE)
def pareto_front(results: Sequence[DesignFigures], varied: str | None = None) -> str:
    """Bytes of the file (log scale) against top-1; dots are as large as their MACs are many.

    Args:
        results: the results of all finished trials, at least one.
        varied: a metaparameter whose value is written at each point, where there are few.
    """
    figure = pareto_figure(results, varied)
    best = max(results, key=lambda r: r.top1)
    least = min(results, key=lambda r: r.file_bytes)
    alt = (
        f"Bytes against top-1 of {len(results)} trials, {sum(r.on_front for r in results)} of them "
        f"on the Pareto front, from {numbers.size(least.file_bytes)} and {least.top1:.1f}% to "
        f"{numbers.size(best.file_bytes)} and {best.top1:.1f}%."
    )
    return as_svg(figure, "pareto", alt)


@mpl.rc_context(STYLE)
def pareto_figure(results: Sequence[DesignFigures], varied: str | None = None) -> Figure:
    """The same as a figure of matplotlib, which can be saved as a picture."""
    figure = Figure(figsize=(_WIDE, 5.0), layout="constrained")
    axes = figure.add_subplot()
    bare(axes)
    axes.set_facecolor("none")
    best, worst = max(r.top1 for r in results), min(r.top1 for r in results)
    lowest = max(worst, best - _BAND)
    shown = [r for r in results if r.top1 >= lowest]
    largest = max(math.log(r.macs + 2) for r in results)
    groups = (
        ("searched", [r for r in shown if not r.given and not r.on_front], BEFORE, "o", 2),
        ("Pareto front of top-1, bytes and MACs", _searched_front(shown), AFTER, "o", 4),
        ("the paper's metaparameters", [r for r in shown if r.given], INK, "s", 5),
    )
    for label, group, color, marker, order in groups:
        if group:
            sizes = [130 * (math.log(r.macs + 2) / largest) ** 4 for r in group]
            axes.scatter(
                [r.file_bytes for r in group], [r.top1 for r in group], s=sizes, color=color,
                marker=marker, label=label, zorder=order, edgecolor=PAPER, linewidth=0.8,
            )  # fmt: skip
    _staircase(axes, [r for r in shown if not r.given] or shown, AFTER, "-")
    _staircase(axes, [r for r in shown if r.given], INK, ":")
    if varied is not None and len(shown) <= _MOST_LABELS:
        for r in shown:
            axes.annotate(
                written(r.values[varied]), (r.file_bytes, r.top1), (0, 10),
                textcoords="offset points", ha="center", fontsize=10.5, color=INK,
            )  # fmt: skip
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(mpl.ticker.LogLocator(base=10, subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: _round_size(x)))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}%" if y <= 100 else ""))
    axes.set_ylim(lowest - 0.06 * (best - lowest) - 0.1, best + 0.12 * (best - lowest) + 0.1)
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    hidden = len(results) - len(shown)
    axes.set_xlabel("file" + (f" ({hidden} trials lie below)" if hidden else ""))
    axes.set_ylabel("top-1 of the file")
    legend = axes.legend(loc="lower right", frameon=False, labelcolor=INK, fontsize=10.5)
    for handle in legend.legend_handles:
        handle.set_sizes([55])  # type: ignore[union-attr]
    return figure


def _searched_front(results: Sequence[DesignFigures]) -> list[DesignFigures]:
    return [r for r in results if r.on_front and not r.given]


def _staircase(axes: Axes, results: Sequence[DesignFigures], color: str, style: str) -> None:
    """The best accuracy for each number of bytes, as a staircase."""
    corners: list[DesignFigures] = []
    for r in sorted(results, key=lambda r: (r.file_bytes, -r.top1)):
        if not corners or r.top1 > corners[-1].top1:
            corners.append(r)
    if len(corners) > 1:
        axes.step(
            [r.file_bytes for r in corners], [r.top1 for r in corners],
            where="post", color=color, linestyle=style, linewidth=1.6, zorder=3,
        )  # fmt: skip


@mpl.rc_context(STYLE)
def parallel_coordinates(results: Sequence[DesignFigures], names: Sequence[str]) -> str:
    """A line a trial through an axis a metaparameter, and what came of it.

    Args:
        results: the results of all finished trials; those on the front and within CLOSE points of
            the best stand out.
        names: the names of the metaparameters, in the order of their axes.
    """
    close = max(r.top1 for r in results) - CLOSE
    axes_of: dict[str, list[Any]] = {
        **{name: [r.values[name] for r in results] for name in names},
        "top-1, %": [r.top1 for r in results],
        "bytes": [r.file_bytes for r in results],
        "MACs": [r.macs for r in results],
    }
    figure = Figure(figsize=(_WIDE, 4.6), layout="constrained")
    axes = figure.add_subplot()
    places = np.stack([_places(values) for values in axes_of.values()], axis=1)  # (trials, axes)
    # Trials with the same few values would hide each other's lines.
    places[:, : len(names)] += np.random.default_rng(0).uniform(
        -0.012, 0.012, (len(results), len(names))
    )
    for r, line in zip(results, places, strict=True):
        if r.given:
            axes.plot(line, color=INK, linewidth=1.2, linestyle=":", zorder=3)
        elif r.on_front and r.top1 >= close:
            axes.plot(line, color=AFTER, linewidth=1.3, alpha=0.85, zorder=2)
        else:
            axes.plot(line, color=BEFORE, linewidth=0.9, alpha=0.6, zorder=1)
    for place, (name, values) in enumerate(axes_of.items()):
        axes.axvline(place, color=GRID, linewidth=1.0, zorder=0)
        _ends(axes, place, name, values)
    axes.set_xlim(-0.35, len(axes_of) - 0.65)
    axes.set_ylim(-0.09, 1.09)
    axes.set_axis_off()
    near = sum(r.on_front and r.top1 >= close for r in results)
    alt = (
        f"Parallel coordinates of {len(names)} metaparameters of {len(results)} trials, {near} of "
        f"them on the Pareto front within {CLOSE:g} points of the best."
    )
    return as_svg(figure, "parallel", alt)


def _places(values: Sequence[Any]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Where values stand on an axis from 0 to 1: logarithmic where they span decades."""
    if isinstance(values[0], str):
        known = sorted(set(values), key=_order)
        return np.array([known.index(v) for v in values]) / max(len(known) - 1, 1)
    numbers_of = np.array(values, np.float64)
    if numbers_of.min() > 0 and numbers_of.max() >= 8 * numbers_of.min():
        numbers_of = np.log(numbers_of)
    span = float(np.ptp(numbers_of))
    return (numbers_of - numbers_of.min()) / span if span else np.full(len(values), 0.5)


def _order(word: str) -> tuple[int, str]:
    words = ("none", "simple", "complex")
    return (words.index(word) if word in words else len(words), word)


def _ends(axes: Axes, place: int, name: str, values: Sequence[Any]) -> None:
    """An axis's name, and its least and greatest value."""
    least, most = (
        (min(values, key=_order), max(values, key=_order))
        if isinstance(values[0], str)
        else (min(values), max(values))
    )
    for y, text, align in ((-0.035, least, "top"), (1.035, most, "bottom")):
        axes.text(place, y, written(text), ha="center", va=align, fontsize=9.5, color=MUTED)
    axes.text(
        place, -0.12, name.replace("_", "\n", 1) if len(name) > 6 else name,
        ha="center", va="top", fontsize=10, color=INK,
    )  # fmt: skip


@mpl.rc_context(STYLE)
def importances(shares: Mapping[str, Mapping[str, float]]) -> str:
    """Bars: what share each metaparameter has in the differences of each result.

    Args:
        shares: 0 to 1, by metaparameter, by result ("top-1").
    """
    sums: dict[str, float] = {}
    for of_result in shares.values():
        for name, share in of_result.items():
            sums[name] = sums.get(name, 0.0) + share
    names = sorted(sums, key=lambda name: sums[name])
    figure = Figure(figsize=(_WIDE, 0.9 + 0.27 * len(names)), layout="constrained")
    panels = figure.subplots(1, len(shares), sharey=True, squeeze=False)[0]
    for axes, (result, of_result) in zip(panels, shares.items(), strict=True):
        bare(axes)
        widths = [of_result.get(name, 0.0) for name in names]
        axes.barh(names, widths, height=0.7, color=AFTER)
        for name, width in zip(names, widths, strict=True):
            axes.annotate(
                f"{100 * width:.0f}%", (width, name), (5, 0), textcoords="offset points",
                va="center", fontsize=10, color=MUTED,
            )  # fmt: skip
        axes.set_title(result, fontsize=11.5, color=INK, loc="left")
        axes.set_xlim(0, 1.2 * max(max(widths), 0.01))
        axes.set_xticks([])
        axes.tick_params(axis="y", labelcolor=INK)
        axes.spines["bottom"].set_visible(False)
    alt = "; ".join(
        f"{result} depends most on {max(of_result, key=lambda n: of_result[n])}"
        for result, of_result in shares.items()
    )
    return as_svg(figure, "importance", f"Importance of {len(names)} metaparameters: {alt}.")


@mpl.rc_context(STYLE)
def sweep(results: Sequence[DesignFigures], varied: str) -> str:
    """A grid's metaparameter against top-1 and, below, bytes: the paper's figure 3."""
    figure = Figure(figsize=(WIDTH, 3.6), layout="constrained")
    above, below = figure.subplots(2, sharex=True, height_ratios=(3, 2))
    ordered = sorted(results, key=lambda r: _sortable(r.values[varied]))
    ticks = [written(r.values[varied]) for r in ordered]
    above.plot(ticks, [r.top1 for r in ordered], color=AFTER, linewidth=2, marker="o")
    below.bar(ticks, [r.file_bytes for r in ordered], width=0.6, color=BEFORE)
    above.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
    above.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}%"))
    below.yaxis.set_major_locator(MaxNLocator(2))
    below.yaxis.set_major_formatter(FuncFormatter(lambda y, _: _round_size(y)))
    above.set_ylabel("top-1")
    below.set_ylabel("file")
    below.set_xlabel(varied)
    for axes in (above, below):
        bare(axes)
        axes.grid(axis="y", color=GRID, linewidth=0.8)
        axes.set_axisbelow(True)
    figure.align_ylabels()
    points = "; ".join(
        f"{tick} {r.top1:.1f}%, {numbers.size(r.file_bytes)}"
        for tick, r in zip(ticks, ordered, strict=True)
    )
    return as_svg(figure, "sweep", f"Top-1 and bytes by {varied}: {points}.")


def _round_size(file_bytes: float) -> str:
    """Bytes of a tick: 5 kB."""
    figure, _, unit = numbers.size(file_bytes).partition(" ")
    return f"{float(figure):g} {unit}"


def _sortable(value: object) -> tuple[float, tuple[int, str]]:
    return (0.0, _order(value)) if isinstance(value, str) else (float(str(value)), (0, ""))


def written(value: object) -> str:
    """A value as short as it can be read: 0.125, 1.25 M, none."""
    if isinstance(value, str):
        return value
    number = float(str(value))
    return numbers.many(number) if number >= 1000 else f"{number:.3g}"
