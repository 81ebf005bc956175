"""The reliability diagram: how often answers of each confidence are right."""

from __future__ import annotations

import matplotlib as mpl
from matplotlib.ticker import PercentFormatter

from squeezekit.confidence import BINS, Reliability, Temperature
from squeezekit.report.drawing import AFTER, BEFORE, GRID, INK, MUTED, STYLE, as_svg, new_figure


@mpl.rc_context(STYLE)
def reliability_diagram(temperature: Temperature) -> str:
    """Accuracy against confidence in bins, before and after the temperature, as SVG.

    The area of a dot is the number of photos. On the diagonal answers are as often right as they
    say; below it the network is too sure.
    """
    figure, axes = new_figure(height=3.4)
    axes.plot([0, 1], [0, 1], color=GRID, linewidth=1.2, zorder=1)
    parts = (
        ("before", temperature.before, BEFORE),
        ("with the temperature", temperature.after, AFTER),
    )
    for name, found, color in parts:
        _dots(axes, found, name, color)
    axes.set_xlim(0, 1.02)
    axes.set_ylim(0, 1.06)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.set_xlabel("confidence")
    axes.set_ylabel("right")
    axes.legend(loc="upper left", frameon=False, labelcolor=INK, fontsize=10.5)
    axes.tick_params(colors=MUTED)
    return as_svg(
        figure,
        "reliability",
        f"Share of right answers by confidence in {BINS} bins: expected calibration error "
        f"{temperature.before.error:.3f} before the temperature, {temperature.after.error:.3f} "
        "with it.",
    )


def _dots(axes: mpl.axes.Axes, found: Reliability, name: str, color: str) -> None:
    total = max(sum(found.images), 1)
    full = [i for i, count in enumerate(found.images) if count]
    axes.plot(
        [found.confidence[i] for i in full],
        [found.accuracy[i] for i in full],
        color=color, linewidth=1.2, label=f"{name}: error {found.error:.3f}", zorder=2,
    )  # fmt: skip
    axes.scatter(
        [found.confidence[i] for i in full],
        [found.accuracy[i] for i in full],
        s=[12 + 260 * found.images[i] / total for i in full],
        color=color, zorder=3,
    )  # fmt: skip
