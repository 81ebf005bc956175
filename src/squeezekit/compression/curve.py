"""The rate-accuracy curve of a network: how good it is at several numbers of bytes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class CurvePoint:
    """How good a network is at one size.

    Attributes:
        price: the price of a bit, in nats.
        file_bytes: the size of its `.sqz`, or of the update to it (see `Best.like`).
        divergence: how far its outputs are from the original's, in nats per image.
        top1, top5: accuracy on held-out images, in percent.
    """

    price: float
    file_bytes: int
    divergence: float
    top1: float
    top5: float


@dataclass(frozen=True, repr=False)
class Curve:
    """Accuracy against bytes.

    Attributes:
        before: top-1 of the network before compression, in percent.
        points: the largest file first.
        paid: what the bytes are those of: "file" or "update".
    """

    before: float
    points: tuple[CurvePoint, ...]
    paid: str = "file"

    def plot(self) -> Figure:
        """A matplotlib figure: top-1 in percent against bytes. Notebooks show it."""
        from squeezekit.compression.notebook_figure import NotebookFigure

        figure = NotebookFigure(figsize=(5.6, 3.2), layout="constrained")
        axes = figure.add_subplot()
        sizes = [point.file_bytes / 1000 for point in self.points]
        axes.axhline(self.before, color="0.7", label=f"before: {self.before:.1f}%")
        axes.plot(sizes, [point.top1 for point in self.points], marker="o", label="top-1")
        axes.set_xlabel(f"{self.paid}, in kB")
        axes.set_ylabel("top-1, in percent")
        axes.legend()
        return figure

    def __repr__(self) -> str:
        each = ", ".join(f"{point.file_bytes:,}: {point.top1:.1f}" for point in self.points)
        return f"Curve(bytes: top-1 in percent; {each}; before {self.before:.1f})"
