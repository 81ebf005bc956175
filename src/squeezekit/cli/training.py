"""The verbs that train and measure: demo, train, evaluate."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from squeezekit.cli.common import (
    Data,
    Json,
    Labels,
    Limit,
    Limited,
    Precision,
    Seed,
    Settings,
    Threads,
    Weights,
    answer,
    following,
    note,
    progress_shown,
    seen,
    states_preprocessing,
    terminal,
    typed_command,
)
from squeezekit.runtime.stated import Stated
from squeezekit.sqz.limits import DEFAULT


def demo(
    out: Annotated[Path, typer.Option(help="Folder for the results.")] = Path("demo"),
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Train, compress and evaluate on the built-in digits, and write a report."""
    from squeezekit.demo import run_demo

    with progress_shown() as progress:
        result = run_demo(out, seed, progress=progress, console=terminal(quiet=as_json))
    answer(as_json, result.as_json(), None)


@states_preprocessing
def train(
    data: Data,
    out: Annotated[Path, typer.Option(help="Folder of the run, new or empty.")],
    model: Annotated[
        str | None,
        typer.Option(
            help="A name from `squeezekit models`. Default: as --init, or squeezenet-1.1."
        ),
    ] = None,
    init: Annotated[
        Path | None, typer.Option(help="WEIGHTS to start from; they get a new last layer.")
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            help="finetune (the default with trained weights; refine, if they know the classes), "
            "scratch (the default without), plain, modern, paper, distill or dsd."
        ),
    ] = None,
    settings: Settings = None,
    minutes: Annotated[float | None, typer.Option(help="Stop in this time, well trained.")] = None,
    teacher: Annotated[
        Path | None, typer.Option(help="WEIGHTS with the same classes, to learn from as well.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the interrupted run in OUT.")
    ] = False,
    name: Annotated[
        str, typer.Option(help="The network's name on pages. Default: the name of DIR.")
    ] = "",
    seed: Seed = 0,
    as_json: Json = False,
    preprocessing: Stated | None = None,
) -> None:
    """Train a network on photos. After Ctrl-C, the same command with --resume goes on."""
    from squeezekit.front import training_run
    from squeezekit.report.run_report import page_of
    from squeezekit.training import recipe as recipes

    with progress_shown(f"the same command with --resume goes on with {out}") as progress:
        run = training_run(
            data, out, model=model, init=init, recipe=recipe, teacher=teacher, resume=resume,
            seed=seed, title=name, settings=recipes.parsed(settings or [], minutes=minutes),
            preprocessing=preprocessing, progress=progress, note=note, command=typed_command(),
        )  # fmt: skip
    if not run.writes:  # the first process of `torchrun` speaks for all
        return
    page = page_of(run)
    answer(
        as_json, {**run.as_json(), "report": page and str(page)}, None,
        run.summary, seen(page), following("compress", out, "--data", data, "-o", "model.sqz"),
    )  # fmt: skip


@states_preprocessing
def evaluate(
    weights: Weights,
    data: Data,
    part: Annotated[
        str,
        typer.Option(
            help="val, test or auto leave out photos that it was trained on; train or all keep "
            "them. auto: val if DIR is split, else all."
        ),
    ] = "auto",
    labels: Labels = None,
    backend: Annotated[
        str | None,
        typer.Option(help="onnxruntime, openvino (faster for int8) or torch."),
    ] = None,
    precision: Precision = None,
    limit: Limit = None,
    threads: Threads = None,
    limits: Limited = DEFAULT,
    as_json: Json = False,
    preprocessing: Stated | None = None,
) -> None:
    """Measure top-1 and top-5 accuracy on class folders."""
    from squeezekit.front import evaluate as evaluate_on
    from squeezekit.interop.weights import file_bytes
    from squeezekit.report import tables

    with progress_shown() as progress:
        result = evaluate_on(
            weights, data, part=part, labels=labels, limit=limit, backend=backend, threads=threads,
            precision=precision, preprocessing=preprocessing, limits=limits,
            progress=progress, note=note,
        )  # fmt: skip
    for sentence in result.skipped:
        note(f"skipped: {sentence}")
    size = file_bytes(weights)
    answer(
        as_json, {**result.as_json(), "file_bytes": size},
        lambda: tables.evaluation_table(result, size),
    )  # fmt: skip
