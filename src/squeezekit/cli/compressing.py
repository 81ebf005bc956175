"""The verbs that shrink a network: compress, and sensitivity, which says how far."""

from __future__ import annotations

import dataclasses
import json
import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from squeezekit.cli.common import (
    Data,
    Json,
    Labels,
    OptionalData,
    Seed,
    Weights,
    check_writable,
    coder_named,
    images_of,
    labelled,
    note,
    print_json,
    progress_shown,
    say,
    terminal,
    typed_command,
)
from squeezekit.cli.preprocessing import states_preprocessing
from squeezekit.errors import InputError
from squeezekit.runtime.stated import Stated

if TYPE_CHECKING:
    from squeezekit.compression.search import CurvePoint


@states_preprocessing
def compress(
    weights: Weights,
    out: Annotated[Path, typer.Option("--out", "-o", help="The .sqz file to write.")],
    data: OptionalData = None,
    method: Annotated[
        str,
        typer.Option(
            help="deep (Deep Compression, retrains), best (smallest file without training), "
            "prune or svd."
        ),
    ] = "deep",
    bits: Annotated[int | None, typer.Option(help="Of a weight's index into its table.")] = None,
    density: Annotated[
        str | None,
        typer.Option(
            help="Share of weights kept: 0.3, table1 for the paper's, or what `squeezekit "
            "sensitivity` wrote (.json)."
        ),
    ] = None,
    energy: Annotated[
        float | None, typer.Option(help="svd: share of each weight's squares kept, such as 0.9.")
    ] = None,
    target_bytes: Annotated[
        int | None, typer.Option(help="best, svd: of the file, or a little less.", min=1)
    ] = None,
    max_drop: Annotated[
        float | None, typer.Option(help="best: points of top-1 that may be lost.", min=0)
    ] = None,
    coder: Annotated[str, typer.Option(help="entropy, or huffman as in the paper.")] = "entropy",
    epochs: Annotated[
        int | None, typer.Option(help="Of each retraining; best retrains only with it.")
    ] = None,
    minutes: Annotated[
        float | None, typer.Option(help="best: of retraining, instead of --epochs.", min=0)
    ] = None,
    finetune: Annotated[
        Path | None,
        typer.Option(help="best: retrain on all images of this folder; labels do not matter."),
    ] = None,
    mirror: Annotated[
        bool,
        typer.Option("--mirror", help="best: look at photos mirrored too; better, twice the time."),
    ] = False,
    int8: Annotated[
        bool, typer.Option("--int8", help="Calibrate on --data, so that the file runs in int8.")
    ] = False,
    labels: Labels = None,
    report: Annotated[
        Path | None, typer.Option(help="Write a page about it: stages, bytes, mistakes (.html).")
    ] = None,
    curve: Annotated[
        Path | None,
        typer.Option(help="best: draw accuracy against bytes (.html), and a .json beside it."),
    ] = None,
    seed: Seed = 0,
    as_json: Json = False,
    preprocessing: Stated | None = None,
) -> None:
    """Shrink a network to one .sqz file; with --data it is retrained and measured."""
    from squeezekit.compression.methods import Asked, int8_stage, named
    from squeezekit.compression.recovery import forget, left_by
    from squeezekit.compression.task import folder_task
    from squeezekit.data.dataset import unlabelled
    from squeezekit.interop.weights import read
    from squeezekit.report import tables
    from squeezekit.runtime.classifier import from_network
    from squeezekit.sqz import container

    compressed = named(method)
    if curve is not None and method != "best":
        raise InputError("--curve goes with --method best")
    if curve is not None and curve.suffix.lower() != ".html":
        raise InputError(f"{curve}: the name of the page must end in .html")
    if method != "best" and (minutes is not None or finetune is not None or mirror):
        raise InputError("--minutes, --finetune and --mirror go with --method best")
    points: list[CurvePoint] = []
    checkpoint = out.with_name(f"{out.name}.training")
    asked = Asked(
        bits, density, energy, target_bytes, max_drop, epochs, minutes,
        None if finetune is None else unlabelled(finetune), mirror, checkpoint,
        coder_named(coder), seed,
        None if curve is None else points.extend,
    )  # fmt: skip
    if out.suffix.lower() != ".sqz":
        raise InputError(f"{out}: the name of the file to write must end in .sqz")
    for path in (out, report, curve):
        if path is not None:
            check_writable(path)
    if int8 and data is None:
        raise InputError("--int8 needs --data: images to calibrate on, labels do not matter")
    start = time.perf_counter()
    network = read(weights, preprocessing=preprocessing, note=note)
    # Ranges that it may have are those of the weights as they were.
    network = dataclasses.replace(network, metadata=network.metadata.uncalibrated())
    images = None if data is None else images_of(data, "all")
    network = dataclasses.replace(
        network, metadata=labelled(from_network(network), labels, images, data)
    )
    evaluation = None
    with progress_shown() as progress:
        task = None
        if data is not None:
            by_class = method != "best"  # which needs no labels
            task = folder_task(network.metadata, data, seed, progress, note, by_class=by_class)
        try:
            stages = compressed(network, asked, task, progress)
        except KeyboardInterrupt:
            if left := left_by(checkpoint):
                note(f"interrupted: the same command goes on from {left[0]}")
            raise
        if int8 and task is not None:
            stages += int8_stage(stages[-1].network, asked.coder, task, progress)
        container.write(stages[-1].network, out, asked.coder)
        forget(checkpoint)
        if task is not None and report is not None:
            evaluation = task.measure(container.read(out))
    if curve is not None:
        from squeezekit.report.curve_report import write_curve_report

        seconds = time.perf_counter() - start
        write_curve_report(
            curve, points, stages[0], network.metadata, command=typed_command(), seconds=seconds
        )
    if report is not None:
        from squeezekit.report.compress_report import write_compress_report

        seconds = time.perf_counter() - start
        write_compress_report(
            report, out, stages, evaluation, command=typed_command(), seconds=seconds
        )
    if as_json:
        print_json(
            {
                "report": None if report is None else str(report),
                "curve": None if curve is None else [dataclasses.asdict(p) for p in points],
                "file_bytes": stages[-1].file_bytes,
                "stages": [
                    {
                        "stage": stage.name,
                        "file_bytes": stage.file_bytes,
                        "top1": stage.top1,
                        "top5": stage.top5,
                    }
                    for stage in stages
                ],
            }
        )
    else:
        terminal().print(tables.stage_table(stages, 4 * network.parameters))
        say(f"next: {shlex.join(['squeezekit', 'predict', str(out), 'photo.jpg'])}")


@states_preprocessing
def sensitivity(
    weights: Weights,
    data: Data,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Write densities for compress (.json).")
    ] = None,
    report: Annotated[Path | None, typer.Option(help="Write a page with the curves.")] = None,
    max_drop: Annotated[
        float, typer.Option(help="Points of top-1 that each layer may lose alone.", min=0)
    ] = 1.0,
    limit: Annotated[int | None, typer.Option(help="Measure on this many images.")] = None,
    labels: Labels = None,
    as_json: Json = False,
    preprocessing: Stated | None = None,
) -> None:
    """Measure how far each layer can be pruned alone, and choose densities by it."""
    from squeezekit.files import write_whole
    from squeezekit.front import sensitivity as sensitivity_of
    from squeezekit.report import tables

    for path in (out, report):
        if path is not None:
            check_writable(path)
    if out is not None and out.suffix.lower() != ".json":
        raise InputError(f"{out}: the name of the file to write must end in .json")
    start = time.perf_counter()
    with progress_shown() as progress:
        found = sensitivity_of(
            weights, data, labels=labels, limit=limit, preprocessing=preprocessing,
            progress=progress, note=note,
        )  # fmt: skip
    content = found.as_json(max_drop)
    if out is not None:
        write_whole(out, (json.dumps(content, indent=2) + "\n").encode())
    if report is not None:
        from squeezekit.interop.weights import read
        from squeezekit.report.page import Step
        from squeezekit.report.sensitivity_report import write_sensitivity_report

        densities = out or "densities.json"
        steps = [
            Step(
                "Prune and retrain by these densities",
                f"squeezekit compress {weights} --data {data} --density {densities} -o small.sqz",
            )
        ]
        seconds = time.perf_counter() - start
        write_sensitivity_report(
            report, found, read(weights, preprocessing=preprocessing).metadata,
            max_drop=max_drop, command=typed_command(), seconds=seconds, next_steps=steps,
        )  # fmt: skip
    if as_json:
        print_json({**content, "report": None if report is None else str(report)})
    else:
        terminal().print(
            tables.sensitivity_table(found.baseline, found.curves, content["densities"])
        )
