"""The verbs that look at networks and rewrite them, and the one that looks at photos."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from squeezekit.cli import common
from squeezekit.runtime.stated import Stated
from squeezekit.sqz.limits import DEFAULT


def models(as_json: common.Json = False) -> None:
    """List the networks that can be made by name."""
    from squeezekit.models import catalogue
    from squeezekit.report import tables

    found = catalogue.described()
    common.answer(as_json, found, lambda: tables.models_table(found))


def cost(
    model: Annotated[str, typer.Argument(help="A name from `squeezekit models`, or WEIGHTS.")],
    input_size: Annotated[
        int | None, typer.Option(help="Pixels per side. Default: the model's.")
    ] = None,
    classes: Annotated[int | None, typer.Option(help="Outputs; the model's.")] = None,
    as_json: common.Json = False,
) -> None:
    """Count parameters, multiply-accumulates and bytes, layer by layer (the paper's Table 1)."""
    from squeezekit.front import cost as cost_of
    from squeezekit.report import tables

    name, found = cost_of(model, classes=classes, input_size=input_size)
    common.answer(
        as_json, {"model": name, **dataclasses.asdict(found)}, lambda: tables.cost_table(found)
    )  # fmt: skip


def info(
    file: Annotated[Path, typer.Argument(help="A .sqz file.", show_default=False)],
    limits: common.Limited = DEFAULT,
    as_json: common.Json = False,
) -> None:
    """Show what a .sqz file holds, and where every byte of it went."""
    from squeezekit.report import tables
    from squeezekit.report.contents import contents_of

    found = contents_of(file, limits)
    common.answer(as_json, found.as_json(), lambda: tables.info_table(found))


@common.states_preprocessing
def export(
    weights: common.Weights,
    out: Annotated[Path, typer.Argument(help="OUT.sqz, .onnx, .tflite, .safetensors or .html.")],
    coder: Annotated[
        str | None, typer.Option(help="For a .sqz: entropy (the default), huffman or dense.")
    ] = None,
    labels: common.Labels = None,
    prototxt: Annotated[
        Path | None, typer.Option(help="For a .caffemodel. Default: the one beside it.")
    ] = None,
    int8: Annotated[
        bool,
        typer.Option(
            "--int8", help="Write a .sqz that can run in int8, or an int8 .onnx or .tflite."
        ),
    ] = False,
    data: Annotated[
        Path | None, typer.Option("--data", help="Photos to calibrate int8 on; any will do.")
    ] = None,
    limits: common.Limited = DEFAULT,
    preprocessing: Stated | None = None,
) -> None:
    """Write the same network in another format, without loss; a .sqz has its batch norms folded.

    A .html is one web page that classifies photos, offline, with the .sqz inside.
    """
    from squeezekit import artifacts

    with common.progress_shown() as progress:
        artifacts.export(
            weights, out, coder=coder, labels=labels, prototxt=prototxt, int8=int8, photos=data,
            preprocessing=preprocessing, limits=limits, progress=progress, note=common.note,
        )  # fmt: skip
    common.say(f"{out}: {out.stat().st_size:,} bytes")


@common.states_preprocessing
def check(
    data: Annotated[Path, typer.Argument(help="Class folders, or shards.", show_default=False)],
    weights: Annotated[
        Path | None,
        typer.Option(
            help="WEIGHTS to judge the labels: any network that was not trained on these photos."
        ),
    ] = None,
    report: common.Page = None,
    seed: common.Seed = 0,
    as_json: common.Json = False,
    preprocessing: Stated | None = None,
) -> None:
    """Look for copies, blank, tiny and broken photos, rare classes and wrong labels."""
    from squeezekit import artifacts
    from squeezekit.report import tables

    with common.progress_shown() as progress:
        checked = artifacts.check(
            data, weights, seed=seed, preprocessing=preprocessing, report=report,
            command=common.typed_command(), progress=progress, note=common.note,
        )  # fmt: skip
    common.answer(
        as_json, {**checked.as_json(), "report": report and str(report)},
        lambda: tables.check_table(checked), common.seen(report),
    )  # fmt: skip
