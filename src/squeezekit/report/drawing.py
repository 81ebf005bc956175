"""What all figures share: colours, style, and how they become SVG for a page."""

from __future__ import annotations

import io
import re
import warnings
from html import escape
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from squeezekit.report import numbers

# Figures are drawn in these colours, and each becomes a CSS variable of the page (with itself as
# what is used outside any page), so that light and dark are the page's business.
INK, MUTED, GRID, BEFORE, AFTER, PAPER = (
    "#2a2621", "#6d665c", "#e3ddd2", "#cdc5b7", "#c8450a", "#fffdf9",
)  # fmt: skip
_VARIABLES = {
    INK: "ink", MUTED: "muted", GRID: "line", BEFORE: "before", AFTER: "accent",
    PAPER: "paper",
}  # fmt: skip

STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "squeezekit",  # the same ids each time
    "text.parse_math": False,  # a dollar in a label is a dollar
    "font.size": 12,
    "axes.labelsize": 11,
    "axes.edgecolor": GRID,
    "axes.labelcolor": MUTED,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "text.color": INK,
}

WIDTH = 5.6
"""Inches: half the page on a desk, and not so wide that a phone would make the text tiny."""


def new_figure(height: float) -> tuple[Figure, Axes]:
    """A figure of half a page's width, with this height in inches."""
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    axes = figure.add_subplot()
    bare(axes)
    return figure, axes


def bare(axes: Axes) -> None:
    """Leave nothing of the frame but the line at the bottom."""
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(length=0)


def as_svg(figure: Figure, name: str, alt: str) -> str:
    """The figure as one <svg> element to be placed into HTML, described by `alt`."""
    file = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with warnings.catch_warnings():  # the page's font has what matplotlib's lacks
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        figure.savefig(file, format="svg", transparent=True, metadata=nothing)
    svg = file.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, count=1, flags=re.DOTALL)
    svg = re.sub(r" font-family: [^;\"]*;", "", svg)
    svg = re.sub(r'(id="|url\(#|href="#)', rf"\g<1>{name}-", svg)
    for color, variable in _VARIABLES.items():
        svg = svg.replace(color, f"var(--{variable}, {color})")
    view_box = re.search(r'viewBox="[^"]*"', svg)
    assert view_box is not None
    label = escape(numbers.shown(alt))
    head = f'<svg class="figure" role="img" aria-label="{label}" {view_box.group()}>'
    return re.sub(r"<svg.*?>", lambda _: head, svg, count=1, flags=re.DOTALL)


def shortened(text: str, most: int = 22) -> str:
    """A name, shortened to at most `most` characters."""
    return text if len(text) <= most else f"{text[: most - 1]}…"
