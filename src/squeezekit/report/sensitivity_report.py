"""The page of `squeezekit sensitivity`: how far each layer can be pruned alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from markupsafe import Markup

from squeezekit.files import write_whole
from squeezekit.report import figures
from squeezekit.report.html import render
from squeezekit.report.made import how_it_was_made
from squeezekit.report.page import Step
from squeezekit.sqz.network import Metadata

if TYPE_CHECKING:  # only its fields are needed, and torch is not
    from squeezekit.compression.sensitivity import Sensitivity


@dataclass(frozen=True)
class _Layer:
    name: str
    weights: int
    top1: list[float]
    chosen: float


def write_sensitivity_report(
    page: Path,
    found: Sensitivity,
    metadata: Metadata,
    *,
    max_drop: float,
    command: str,
    seconds: float,
    next_steps: list[Step],
) -> None:
    """Write the page.

    Raises:
        InputError: if it cannot be written.
    """
    chosen = found.densities(max_drop)
    layers = [
        _Layer(_layer(name), found.sizes[name], [top1 for _, top1 in curve], chosen[name])
        for name, curve in found.curves.items()
    ]
    svg = figures.sensitivity_curves(
        {_layer(name): curve for name, curve in found.curves.items()},
        found.baseline,
        found.baseline - max_drop,
    )
    html = render(
        "sensitivity.html.jinja",
        metadata=metadata,
        images=found.images,
        baseline=found.baseline,
        max_drop=max_drop,
        named=min(figures.NAMED_CURVES, len(layers)),
        densities=[density for density, _ in next(iter(found.curves.values()))],
        layers=layers,
        weights=sum(layer.weights for layer in layers),
        kept=sum(layer.weights * layer.chosen for layer in layers),
        figures={"sensitivity": Markup(svg)},  # noqa: S704
        made=how_it_was_made(command, seconds),
        next_title="Next: prune by these densities",
        next_lead="Compressing takes them from the .json file.",
        next_steps=next_steps,
    )
    write_whole(page, html.encode())


def _layer(tensor: str) -> str:
    return tensor.removesuffix(".weight")
