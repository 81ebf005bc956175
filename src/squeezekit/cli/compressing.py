"""The verbs that shrink a network: compress, and sensitivity, which says how far."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from squeezekit.cli import common
from squeezekit.cli.config_options import takes
from squeezekit.config_fields import Typed
from squeezekit.runtime.stated import Stated
from squeezekit.sqz.limits import DEFAULT


def _densities(text: str) -> object:
    from squeezekit.compression.prune import densities

    return densities(text)


_TYPED = {
    "density": Typed(
        _densities,
        told="Or table1 (the paper's), or a .json file that `sensitivity` wrote.",
    ),
    "curve": Typed(Path, told="Written to this page (.html), and as .json beside it."),
}


@takes("settings", "compression.methods:METHODS", panel="Settings of the methods", typed=_TYPED)
@common.states_preprocessing
def compress(
    weights: common.Weights,
    out: Annotated[Path, typer.Option("--out", "-o", help="The .sqz file to write.")],
    settings: dict[str, Any],
    data: Annotated[
        Path | None,
        typer.Option(
            "--data",
            help="Photos: class folders, split or not; any folder if the method needs no labels.",
            show_default=False,
        ),
    ] = None,
    method: Annotated[
        str,
        typer.Option(
            help="best (the smallest file), deep (Deep Compression, retrains), prune or svd."
        ),
    ] = "best",
    int8: Annotated[
        bool, typer.Option("--int8", help="Calibrate on --data, so that the file runs in int8.")
    ] = False,
    labels: common.Labels = None,
    report: common.Page = None,
    limits: common.Limited = DEFAULT,
    as_json: common.Json = False,
    preprocessing: Stated | None = None,
) -> None:
    """Shrink a network to one .sqz file, and measure it on --data. Run it again to go on."""
    from squeezekit import artifacts
    from squeezekit.compression.methods import configured
    from squeezekit.report import tables

    page = settings.get("curve")
    config = configured(method, settings if page is None else {**settings, "curve": True})
    with common.progress_shown() as progress:
        small = artifacts.compress(
            weights, data, config, out, labels=labels, int8=int8, preprocessing=preprocessing,
            limits=limits, report=report, curve=page, command=common.typed_command(),
            progress=progress, note=common.note,
        )  # fmt: skip
    for warning in small.warnings:
        common.note(f"warning: {warning}")
    common.answer(
        as_json, {**small.as_json(), "report": report and str(report)},
        lambda: tables.stage_table(small.stages, 4 * small.stages[0].network.parameters),
        small.accuracy, small.goal and f"{out} is {small.goal}.",
        common.following("predict", out, "photo.jpg"),
    )  # fmt: skip


@common.states_preprocessing
def sensitivity(
    weights: common.Weights,
    data: common.Data,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Write densities for `compress --density` (.json)."),
    ] = None,
    report: common.Page = None,
    max_drop: Annotated[
        float, typer.Option(help="Points of top-1 that pruning one layer alone may lose.", min=0)
    ] = 1.0,
    limit: common.Limit = None,
    labels: common.Labels = None,
    as_json: common.Json = False,
    preprocessing: Stated | None = None,
) -> None:
    """Measure how far each layer alone can be pruned, and choose densities from that."""
    from squeezekit import artifacts
    from squeezekit.report import tables

    with common.progress_shown() as progress:
        found = artifacts.sensitivity(
            weights, data, out, max_drop=max_drop, labels=labels, limit=limit, report=report,
            preprocessing=preprocessing, command=common.typed_command(), progress=progress,
            note=common.note,
        )  # fmt: skip
    common.answer(
        as_json, {**found.as_json(max_drop), "report": report and str(report)},
        lambda: tables.sensitivity_table(found.baseline, found.curves, found.densities(max_drop)),
    )  # fmt: skip
