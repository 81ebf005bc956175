"""The verb that measures: bench."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

from squeezekit.cli.common import (
    INTERRUPTED,
    Json,
    Weights,
    check_writable,
    note,
    print_json,
    progress_shown,
    terminal,
    typed_command,
)
from squeezekit.cli.preprocessing import states_preprocessing
from squeezekit.errors import InputError
from squeezekit.runtime.stated import Stated


@states_preprocessing
def bench(
    weights: Weights,
    image: Annotated[
        Path | None, typer.Option(help="The image to classify. Default: a generated one.")
    ] = None,
    rounds: Annotated[int, typer.Option(help="How many turns each runtime has.", min=1)] = 7,
    threads: Annotated[int, typer.Option(help="Threads that each runtime may use.", min=1)] = 2,
    batch: Annotated[int, typer.Option(help="Images per batch for throughput.", min=1)] = 16,
    seconds: Annotated[
        float, typer.Option(help="How long each turn measures latency, and throughput.", min=0.01)
    ] = 1.0,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="Write everything measured as JSON.")
    ] = None,
    as_json: Json = False,
    preprocessing: Stated | None = None,
) -> None:
    """Compare squeezekit with every other runtime that is installed on this machine.

    ONNX Runtime, OpenVINO and PyTorch run the same weights as their users would run them. They take
    turns, each turn in new processes: bytes, cold start, load, latency, throughput, memory.
    """
    from squeezekit.files import write_whole
    from squeezekit.report import tables
    from squeezekit.speed.race import OURS, RaceConfig, race, race_report

    if out is not None:
        check_writable(out)
    if image is not None and not image.is_file():
        raise InputError(f"{image}: there is no such file")
    config = RaceConfig(rounds=rounds, threads=threads, batch=batch, seconds=seconds)
    try:
        with progress_shown() as progress, TemporaryDirectory() as folder:
            # The race reads a file in processes of its own, which are told nothing else.
            read_by_it = weights
            if preprocessing is not None:
                from squeezekit.interop.weights import read, write  # memory, which the race counts

                read_by_it = write(
                    read(weights, preprocessing=preprocessing, note=note),
                    Path(folder, "stated.sqz"),
                )
            figures = race(read_by_it, config, image=image, progress=progress)
    except KeyboardInterrupt:
        note("squeezekit: interrupted; nothing was left behind")
        raise typer.Exit(INTERRUPTED) from None
    report = {"weights": str(weights), "command": typed_command(), **race_report(figures, config)}
    if out is not None:
        write_whole(out, (json.dumps(report, indent=2) + "\n").encode())
    if as_json:
        print_json(report)
        return
    finished = [each for each in figures if not each.failed]
    summaries = {each.contestant.about: each.summary() for each in finished}
    terminal().print(tables.speed_table(summaries, figures[0].contestant.about))
    for each in figures:
        if each.failed:
            note(f"{each.contestant.about} could not take part: {each.failed}")
        elif each.top1 != figures[0].top1:
            note(f"{each.contestant.about} gives another class ({each.top1}) than {OURS}")
