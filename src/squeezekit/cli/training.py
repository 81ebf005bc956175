"""The verbs that train and measure: demo, train, evaluate."""

from __future__ import annotations

import dataclasses
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
    images_of,
    labelled,
    name_skipped,
    note,
    open_weights,
    print_json,
    progress_shown,
    run_report,
    terminal,
)
from squeezekit.cli.preprocessing import states_preprocessing
from squeezekit.errors import InputError
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
    model: Annotated[str | None, typer.Option(help="A name from `squeezekit models`.")] = None,
    init: Annotated[
        Path | None, typer.Option(help="WEIGHTS to start from; the last layer is made anew.")
    ] = None,
    recipe: Annotated[
        str | None, typer.Option(help="plain, modern, paper, finetune, distill or dsd.")
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="key=value; changes the recipe.")
    ] = None,
    teacher: Annotated[
        Path | None, typer.Option(help="WEIGHTS with the same classes, to learn from as well.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the interrupted run in OUT.")
    ] = False,
    seed: Seed = 0,
    as_json: Json = False,
    preprocessing: Stated | None = None,
) -> None:
    """Train a network on a folder of images; Ctrl-C leaves a run that --resume goes on with."""
    from squeezekit.interop.weights import load_network
    from squeezekit.training import recipe as recipes
    from squeezekit.training.run import is_pruned, start_of, train_run

    name = recipe or ("plain" if init is None else "finetune")
    chosen = recipes.named(name)
    chosen = recipes.with_settings(dataclasses.replace(chosen, seed=seed), settings or [])
    if name == "dsd" and (init is None or teacher is not None):
        raise InputError("the recipe dsd starts from trained weights (--init), without a teacher")
    start = start_of(
        data, model=model, init=init, seed=seed, variant=chosen.variant,
        preprocessing=preprocessing, note=note,
    )  # fmt: skip
    network = start.network
    console = terminal(quiet=as_json)
    try:
        with progress_shown() as progress:
            if name == "dsd":
                from squeezekit.compression.dsd import REDENSE, dsd_run

                run = dsd_run(network, data, out, chosen, resume, progress, note)
            else:
                if masked := init is not None and is_pruned(network):
                    note(f"{init} is pruned: its zeros stay zero")
                teaching = None if teacher is None else load_network(teacher)
                if name == "finetune" and start.knows_classes and teaching is None:
                    note(f"{init} knows these classes, and stays the teacher of its new weights")
                    teaching = network
                run = train_run(
                    network,
                    data,
                    out,
                    chosen,
                    teacher=teaching,
                    masked=masked,
                    resume=resume,
                    progress=progress,
                    note=note,
                )
    except KeyboardInterrupt:
        note(f"squeezekit: interrupted; the same command with --resume goes on with {out}")
        raise typer.Exit(INTERRUPTED) from None
    if name == "dsd":
        out = out / REDENSE
    if not run.writes:  # the first process of `torchrun` speaks for all
        return
    report = run_report(run, out, data)
    if as_json:
        print_json(
            {
                "run": str(out),
                "report": None if report is None else str(report),
                "top1": run.evaluation.top1,
                "top5": run.evaluation.top5,
                "images": run.evaluation.images,
                "epochs": len(run.results),
                "seconds": run.seconds,
            }
        )
        return
    console.print(
        f"top-1 {run.evaluation.top1:.1f} on {run.evaluation.images} held-out images "
        f"after {len(run.results)} epochs, {run.seconds:.0f} s"
    )
    if report is not None:
        console.print(f"see: {report}", soft_wrap=True)
    console.print(f"next: squeezekit compress {out} --data {data} -o model.sqz", soft_wrap=True)


@states_preprocessing
def evaluate(
    weights: Weights,
    data: Data,
    part: Annotated[
        str, typer.Option(help="train, val, test or all; auto: val if DIR is split, else all.")
    ] = "auto",
    labels: Labels = None,
    backend: Annotated[
        str | None,
        typer.Option(help="onnxruntime, openvino (quicker for int8) or torch."),
    ] = None,
    precision: Precision = None,
    limit: Annotated[int | None, typer.Option(help="Evaluate this many images.")] = None,
    threads: Threads = None,
    as_json: Json = False,
    preprocessing: Stated | None = None,
) -> None:
    """Measure top-1 and top-5 accuracy on class folders."""
    from squeezekit.data.labelling import matched
    from squeezekit.evaluation import evaluate as evaluate_on
    from squeezekit.interop.weights import file_bytes
    from squeezekit.report import tables

    images = images_of(data, part)
    classifier = open_weights(weights, backend, threads, precision, preprocessing)
    metadata = labelled(classifier, labels, images, data)
    with progress_shown() as progress:
        result = evaluate_on(classifier, matched(images, metadata), limit=limit, progress=progress)
    name_skipped(result)
    size = file_bytes(weights)
    if as_json:
        print_json({**accuracy(result), "file_bytes": size, "seconds": result.seconds})
    else:
        terminal().print(tables.evaluation_table(result, size))
