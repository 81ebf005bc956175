"""The verbs that train and measure: demo, train, evaluate."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from squeezekit.cli.common import (
    INTERRUPTED,
    Data,
    Json,
    Labels,
    Precision,
    Seed,
    Threads,
    Weights,
    accuracy,
    name_skipped,
    note,
    print_json,
    progress_shown,
    say,
    terminal,
    typed_command,
)
from squeezekit.cli.preprocessing import states_preprocessing
from squeezekit.runtime.stated import Stated


def demo(
    out: Annotated[Path, typer.Option(help="Folder for the results.")] = Path("demo"),
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Train, compress and evaluate on the built-in digits, and write a report."""
    from squeezekit.demo import run_demo

    with progress_shown() as progress:
        result = run_demo(out, seed, progress=progress, console=terminal(quiet=as_json))
    if as_json:
        print_json(
            {
                "float_top1": result.float_top1,
                "top1": result.sqz_top1,
                "float_bytes": result.float_bytes,
                "file_bytes": result.file_bytes,
                "seconds": result.seconds,
                "report": str(result.page),
                "sqz": str(result.sqz),
            }
        )


@states_preprocessing
def train(
    data: Data,
    out: Annotated[Path, typer.Option(help="Folder of the run, new or empty.")],
    model: Annotated[
        str | None,
        typer.Option(
            help="A name from `squeezekit models`. Default: that of --init, or squeezenet-1.1."
        ),
    ] = None,
    init: Annotated[
        Path | None, typer.Option(help="WEIGHTS to start from; they get a new last layer.")
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            help="plain (the default), finetune (the default with --init), modern, paper, distill "
            "or dsd."
        ),
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="Change the recipe: key=value.")
    ] = None,
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
    from squeezekit.report.run_report import PAGE
    from squeezekit.training import recipe as recipes

    console = terminal(quiet=as_json)
    try:
        with progress_shown() as progress:
            run = training_run(
                data, out, model=model, init=init, recipe=recipe, teacher=teacher, resume=resume,
                seed=seed, title=name, settings=recipes.parsed(settings or []),
                preprocessing=preprocessing,
                progress=progress, note=note, command=typed_command(),
            )  # fmt: skip
    except KeyboardInterrupt:
        note(f"squeezekit: interrupted; the same command with --resume goes on with {out}")
        raise typer.Exit(INTERRUPTED) from None
    if not run.writes:  # the first process of `torchrun` speaks for all
        return
    out, page = run.folder, run.folder / PAGE
    report = page if page.exists() else None
    if as_json:
        print_json(
            {
                "run": str(out),
                "report": None if report is None else str(report),
                "top1": run.evaluation.top1,
                "top5": run.evaluation.top5,
                "top1_interval": run.evaluation.top1_interval,
                "top5_interval": run.evaluation.top5_interval,
                "images": run.evaluation.images,
                "epochs": len(run.results),
                "seconds": run.seconds,
            }
        )
        return
    low, high = run.evaluation.top1_interval
    console.print(
        f"top-1 {run.evaluation.top1:.1f} (95% interval {low:.1f} to {high:.1f}) on "
        f"{run.evaluation.images} held-out images after {len(run.results)} epochs, "
        f"{run.seconds:.0f} s"
    )
    if report is not None:
        say(f"see: {report}")
    following = ["squeezekit", "compress", str(out), "--data", str(data), "-o", "model.sqz"]
    say(f"next: {shlex.join(following)}")


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
    limit: Annotated[int | None, typer.Option(help="Evaluate only this many images.")] = None,
    threads: Threads = None,
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
            precision=precision, preprocessing=preprocessing, progress=progress, note=note,
        )  # fmt: skip
    name_skipped(result)
    size = file_bytes(weights)
    if as_json:
        print_json({**accuracy(result), "file_bytes": size, "seconds": result.seconds})
    else:
        terminal().print(tables.evaluation_table(result, size))
