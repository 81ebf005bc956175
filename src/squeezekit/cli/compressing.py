"""The verbs that shrink a network: compress, and sensitivity, which says how far."""

from __future__ import annotations

import json
import shlex
import time
from pathlib import Path
from typing import Annotated

import typer

from squeezekit.cli.common import (
    Data,
    Json,
    Labels,
    Weights,
    check_writable,
    note,
    print_json,
    progress_shown,
    say,
    terminal,
    typed_command,
)
from squeezekit.cli.method_options import configured, given
from squeezekit.cli.preprocessing import states_preprocessing
from squeezekit.errors import InputError
from squeezekit.runtime.stated import Stated


@states_preprocessing
def compress(
    context: typer.Context,
    weights: Weights,
    out: Annotated[Path, typer.Option("--out", "-o", help="The .sqz file to write.")],
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
    labels: Labels = None,
    report: Annotated[
        Path | None,
        typer.Option(help="Write a page about the result: stages, bytes, mistakes (.html)."),
    ] = None,
    as_json: Json = False,
    preprocessing: Stated | None = None,
) -> None:
    """Shrink a network to one .sqz file, and measure it on --data. Run it again to go on."""
    from squeezekit.compression import front
    from squeezekit.compression.methods import named
    from squeezekit.compression.work import Work
    from squeezekit.report import tables
    from squeezekit.sqz import container

    settings = given(context)
    curve = Path(settings["curve"]) if "curve" in settings else None
    config = configured(named(method), settings)
    if curve is not None and curve.suffix.lower() != ".html":
        raise InputError(f"{curve}: the name of the page must end in .html")
    if out.suffix.lower() != ".sqz":
        raise InputError(f"{out}: the name of the file to write must end in .sqz")
    for path in (out, report, curve):
        if path is not None:
            check_writable(path)
    start = time.perf_counter()
    work = Work(out.with_name(f"{out.name}.work"))
    try:
        with work.alone(), progress_shown() as progress:
            small = front.compress(
                weights, data, config, labels=labels, int8=int8, preprocessing=preprocessing,
                work=work, progress=progress, note=note,
            )  # fmt: skip
            container.write(small.network, out, small.coder)
            work.forget()
    except KeyboardInterrupt:
        if work.files():
            note(f"interrupted: the same command goes on from {work.folder}")
        raise
    for warning in small.warnings:
        note(f"warning: {warning}")
    seconds = time.perf_counter() - start
    if curve is not None and small.curve is not None:
        from squeezekit.report.curve_report import write_curve_report

        write_curve_report(
            curve, small.curve.points, small.stages[0], small.network.metadata,
            command=typed_command(), seconds=seconds,
        )  # fmt: skip
    if report is not None:
        from squeezekit.report.compress_report import write_compress_report

        write_compress_report(
            report, out, small.stages, small.evaluation, command=typed_command(), seconds=seconds,
            before=small.before, unseen=small.unseen,
        )  # fmt: skip
    if as_json:
        print_json({"report": None if report is None else str(report), **small.as_json()})
    else:
        terminal().print(tables.stage_table(small.stages, 4 * small.stages[0].network.parameters))
        if small.accuracy:
            say(small.accuracy)
        if small.goal:
            say(f"{out} is {small.goal}.")
        say(f"next: {shlex.join(['squeezekit', 'predict', str(out), 'photo.jpg'])}")


@states_preprocessing
def sensitivity(
    weights: Weights,
    data: Data,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Write densities for `compress --density` (.json)."),
    ] = None,
    report: Annotated[Path | None, typer.Option(help="Write a page with the curves.")] = None,
    max_drop: Annotated[
        float, typer.Option(help="Points of top-1 that pruning one layer alone may lose.", min=0)
    ] = 1.0,
    limit: Annotated[int | None, typer.Option(help="Measure on only this many images.")] = None,
    labels: Labels = None,
    as_json: Json = False,
    preprocessing: Stated | None = None,
) -> None:
    """Measure how far each layer alone can be pruned, and choose densities from that."""
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
