"""The command line: verbs only; each imports what it needs when it runs."""

from __future__ import annotations

import dataclasses
import json
import shlex
import sys
import time
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast, get_args

import typer

from squeezekit import __version__
from squeezekit.errors import FormatError, InputError, SqueezekitError

if TYPE_CHECKING:
    from rich.console import Console

    from squeezekit.data.folders import ImageSet
    from squeezekit.evaluate import Evaluated, Evaluation
    from squeezekit.progress import Progress
    from squeezekit.sqz.container import CoderName
    from squeezekit.sqz.network import Metadata
    from squeezekit.train.run import Run

_PIPE_WIDTH = 140

BAD_INPUT = 2
"""Exit code where something that was handed in cannot be used."""

INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it."""

app = typer.Typer(
    help="Train a small image classifier, shrink it to a few hundred kilobytes, ship it anywhere.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Weights = Annotated[
    Path,
    typer.Argument(
        help="A network: .sqz, .onnx, .safetensors, .pth, .net, or the folder of a training run.",
        show_default=False,
    ),
]
Data = Annotated[
    Path,
    typer.Option(
        "--data",
        help="Class folders or WebDataset shards (*.tar), split into train/val/test or not.",
        show_default=False,
    ),
]
OptionalData = Annotated[Path | None, typer.Option("--data", help="A folder of class folders.")]
Labels = Annotated[
    Path | None,
    typer.Option("--labels", help="Names of the outputs, in order: .txt, .tsv or .json."),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object, and nothing else.")]
Seed = Annotated[int, typer.Option(help="Of everything that is random.", min=0)]
Threads = Annotated[int | None, typer.Option(help="Threads of the network; all cores if absent.")]


def main() -> None:
    """Run the command line; a user's mistake is one sentence on stderr and exit code 2."""
    try:
        app()
    except SqueezekitError as error:
        print(f"squeezekit: {error}", file=sys.stderr)
        sys.exit(BAD_INPUT)
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in _TRAINING_PACKAGES:
            raise
        print(f"squeezekit: this needs {missing}: pip install 'squeezekit[train]'", file=sys.stderr)
        sys.exit(BAD_INPUT)


_TRAINING_PACKAGES = {"torch", "matplotlib", "sklearn", "jinja2", "safetensors"}


def _version(asked: bool) -> None:
    if asked:
        print(f"squeezekit {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    pass


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for the results.")] = Path("demo"),
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Train, compress and evaluate on the built-in digits, and write a report."""
    from squeezekit.demo import run_demo

    with _progress() as progress:
        result = run_demo(out, seed, progress=progress, console=_console(quiet=as_json))
    if as_json:
        _print_json(
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


@app.command()
def models(as_json: Json = False) -> None:
    """List the networks that can be made by name."""
    from squeezekit.models.catalogue import MODELS, create
    from squeezekit.report import tables

    found = {
        name: {
            "description": model.description,
            "input_size": model.config.input_size,
            "parameters": create(name).parameters,
        }
        for name, model in MODELS.items()
    }
    if as_json:
        _print_json(found)
    else:
        _console().print(tables.models_table(found))


@app.command()
def cost(
    model: Annotated[str, typer.Argument(help="A name from `squeezekit models`, or WEIGHTS.")],
    input_size: Annotated[int | None, typer.Option(help="Pixels a side; the model's own.")] = None,
    classes: Annotated[int | None, typer.Option(help="Outputs; the model's own.")] = None,
    as_json: Json = False,
) -> None:
    """Count parameters, multiply-accumulates and bytes, layer by layer (the paper's Table 1)."""
    from squeezekit.interop.weights import load_network
    from squeezekit.models import catalogue
    from squeezekit.models.cost import cost as cost_of
    from squeezekit.report import tables

    if model not in catalogue.MODELS and Path(model).exists():
        if input_size is not None or classes is not None:
            raise InputError("--input-size and --classes are for models by name")
        network = load_network(model)
    else:
        network = catalogue.create(model, classes=classes, input_size=input_size)
    counted = cost_of(network)
    if as_json:
        _print_json({"model": network.metadata.name, **dataclasses.asdict(counted)})
    else:
        _console().print(tables.cost_table(counted))


@app.command()
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
) -> None:
    """Train a network on a folder of images; Ctrl-C leaves a run that --resume goes on with."""
    from squeezekit.interop.weights import load_network
    from squeezekit.train import recipe as recipes
    from squeezekit.train.run import first_network, train_run

    name = recipe or ("plain" if init is None else "finetune")
    chosen = recipes.named(name)
    chosen = recipes.with_settings(dataclasses.replace(chosen, seed=seed), settings or [])
    if name == "dsd" and (init is None or teacher is not None):
        raise InputError("the recipe dsd starts from trained weights (--init), without a teacher")
    network = first_network(data, model=model, init=init, seed=seed, variant=chosen.variant)
    console = _console(quiet=as_json)
    try:
        with _progress() as progress:
            if name == "dsd":
                from squeezekit.compress.dsd import REDENSE, dsd_run

                run = dsd_run(network, data, out, chosen, resume, progress, _note)
            else:
                run = train_run(
                    network,
                    data,
                    out,
                    chosen,
                    teacher=None if teacher is None else load_network(teacher),
                    resume=resume,
                    progress=progress,
                    note=_note,
                )
    except KeyboardInterrupt:
        _note(f"squeezekit: interrupted; the same command with --resume goes on with {out}")
        raise typer.Exit(INTERRUPTED) from None
    if name == "dsd":
        out = out / REDENSE
    if not run.writes:  # the first process of `torchrun` speaks for all
        return
    report = _run_report(run, out, data)
    if as_json:
        _print_json(
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


@app.command()
def evaluate(
    weights: Weights,
    data: Data,
    part: Annotated[
        str, typer.Option(help="train, val, test or all; auto: val if DIR is split, else all.")
    ] = "auto",
    labels: Labels = None,
    backend: Annotated[str, typer.Option(help="onnxruntime or torch.")] = "onnxruntime",
    limit: Annotated[int | None, typer.Option(help="Evaluate this many images.")] = None,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Measure top-1 and top-5 accuracy on class folders."""
    from squeezekit.data.labelling import matched
    from squeezekit.evaluate import evaluate as evaluate_on
    from squeezekit.interop.weights import file_bytes
    from squeezekit.report import tables

    images = _images(data, part)
    classifier = _open(weights, backend, threads)
    metadata = _with_labels(classifier, labels, images, data)
    with _progress() as progress:
        result = evaluate_on(classifier, matched(images, metadata), limit=limit, progress=progress)
    _name_skipped(result)
    size = file_bytes(weights)
    if as_json:
        _print_json({**_accuracy(result), "file_bytes": size, "seconds": result.seconds})
    else:
        _console().print(tables.evaluation_table(result, size))


@app.command()
def compress(
    weights: Weights,
    out: Annotated[Path, typer.Option("--out", "-o", help="The .sqz file to write.")],
    data: OptionalData = None,
    method: Annotated[str, typer.Option(help="deep (Deep Compression, Han et al. 2016).")] = "deep",
    bits: Annotated[int | None, typer.Option(help="Of a weight's index into its table.")] = None,
    density: Annotated[
        str | None, typer.Option(help="Share of weights kept: 0.3, or table1 for the paper's.")
    ] = None,
    coder: Annotated[str, typer.Option(help="entropy, or huffman as in the paper.")] = "entropy",
    epochs: Annotated[int | None, typer.Option(help="Of retraining after each pruning.")] = None,
    labels: Labels = None,
    report: Annotated[
        Path | None, typer.Option(help="Write a page about it: stages, bytes, mistakes (.html).")
    ] = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Shrink a network to one .sqz file; with --data it is retrained and measured."""
    from squeezekit.compress.deep import deep_compression
    from squeezekit.compress.on_folder import deep_config, folder_task
    from squeezekit.interop.weights import load_network
    from squeezekit.report import tables
    from squeezekit.runtime.classifier import from_network
    from squeezekit.sqz import container

    if method != "deep":
        raise InputError(f"there is no method {method!r} yet: use deep")
    if out.suffix.lower() != ".sqz":
        raise InputError(f"{out}: the name of the file to write must end in .sqz")
    _check_writable(out)
    if report is not None:
        _check_writable(report)
    start = time.perf_counter()
    network = load_network(weights)
    images = None if data is None else _images(data, "all")
    network = dataclasses.replace(
        network, metadata=_with_labels(from_network(network), labels, images, data)
    )
    config = deep_config(
        network,
        bits=bits,
        density=density,
        epochs=epochs,
        coder=_coder(coder),
        retrain=data is not None,
        seed=seed,
    )
    evaluation = None
    with _progress() as progress:
        if data is None:
            stages = deep_compression(network, config, progress=progress)
        else:
            task = folder_task(network.metadata, data, seed, progress, _note)
            stages = deep_compression(network, config, task.data, task.measure, progress)
        container.write(stages[-1].network, out, config.coder)
        if data is not None and report is not None:
            evaluation = task.measure(container.read(out))
    if report is not None:
        from squeezekit.report.compress_report import write_compress_report

        seconds = time.perf_counter() - start
        write_compress_report(report, out, stages, evaluation, command=_typed(), seconds=seconds)
    if as_json:
        _print_json(
            {
                "report": None if report is None else str(report),
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
        _console().print(tables.stage_table(stages, 4 * network.parameters))
        _console().print(f"next: squeezekit predict {out} photo.jpg", soft_wrap=True)


@app.command()
def info(
    file: Annotated[Path, typer.Argument(help="A .sqz file.", show_default=False)],
    as_json: Json = False,
) -> None:
    """Show what a .sqz file holds, and where every byte of it went."""
    from squeezekit.files import read_bytes
    from squeezekit.report import tables
    from squeezekit.report.contents import contents

    data = read_bytes(file)
    try:
        found = contents(data)
    except FormatError as error:
        raise type(error)(f"{file}: {error}") from None
    if as_json:
        _print_json(found.as_json())
    else:
        _console().print(tables.info_table(found))


@app.command()
def predict(
    file: Annotated[Path, typer.Argument(help="A .sqz or .onnx file.", show_default=False)],
    images: Annotated[list[Path], typer.Argument(help="Images.", show_default=False)],
    top: Annotated[int, typer.Option(help="How many classes to show.", min=1)] = 5,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Classify images; needs no torch."""
    from squeezekit.runtime.classifier import load

    classifier = load(file, threads)
    answers, failed = [], 0
    for image in images:
        try:
            answers.append((image, classifier(image, top)))
        except InputError as error:
            failed += 1
            _note(str(error))
    if as_json:
        _print_json(
            {
                "file": str(file),
                "predictions": [
                    {"image": str(image), "top": [dataclasses.asdict(p) for p in found]}
                    for image, found in answers
                ],
            }
        )
    else:
        from squeezekit.report import tables

        for image, found in answers:
            _console().print(tables.predictions_table(str(image), found))
    if failed:
        raise InputError(f"{failed} of {len(images)} images could not be classified")


@app.command()
def export(
    weights: Weights,
    out: Annotated[Path, typer.Argument(help="OUT.onnx, OUT.safetensors or OUT.sqz.")],
    coder: Annotated[str, typer.Option(help="Of a .sqz: entropy, huffman or dense.")] = "entropy",
    labels: Labels = None,
) -> None:
    """Write the same network in another format, without loss; a .sqz has batch norms folded."""
    from squeezekit.interop.weights import load_network
    from squeezekit.runtime.classifier import from_network

    network = load_network(weights)
    metadata = _with_labels(from_network(network), labels, None, None)
    network = dataclasses.replace(network, metadata=metadata)
    match out.suffix.lower():
        case ".sqz":
            from squeezekit.models.fold import fold_batch_norm
            from squeezekit.sqz import container
            from squeezekit.sqz.network import share_equal_values

            network = share_equal_values(fold_batch_norm(network))
            container.write(network, out, _coder(coder))
        case ".onnx":
            from squeezekit.interop import onnx_file

            onnx_file.write(network, out)
        case ".safetensors":
            from squeezekit.interop import safetensors_file

            safetensors_file.write(network, out)
        case _:
            raise InputError(f"{out}: must end in .sqz, .onnx or .safetensors")
    _console().print(f"{out}: {out.stat().st_size:,} bytes", soft_wrap=True)


# ------------------------------------------------------------------------ what verbs have in common


def _open(weights: Path, backend: str, threads: int | None) -> Evaluated:
    """A classifier of any weights; `.onnx` files run as they are, so that any of them can."""
    from squeezekit.interop.weights import load_network

    if backend == "torch":
        import torch

        from squeezekit.trainable import TorchClassifier

        if threads is not None:
            torch.set_num_threads(threads)
        return TorchClassifier(load_network(weights))
    if backend != "onnxruntime":
        raise InputError(f"there is no backend {backend!r}: use onnxruntime or torch")
    from squeezekit.runtime.classifier import from_network, load

    if weights.suffix.lower() in (".sqz", ".onnx"):
        return load(weights, threads)
    return from_network(load_network(weights), threads)


def _images(data: Path, part: str) -> ImageSet:
    from squeezekit.data.dataset import is_split, split

    parts = ("train", "val", "test", "all")
    if part == "auto":
        part = "val" if is_split(data) else "all"
    if part not in parts:
        raise InputError(f"there is no part {part!r}: use {', '.join(parts)} or auto")
    images = split(data, cast(Any, part))
    for name in images.empty:
        _note(f"the class folder {name} in {images.root} holds no image")
    return images


def _with_labels(
    classifier: Evaluated, labels: Path | None, images: ImageSet | None, data: Path | None
) -> Metadata:
    from squeezekit.data.labelling import with_labels
    from squeezekit.evaluate import outputs

    return with_labels(
        classifier.metadata,
        outputs(classifier),
        labels_file=labels,
        image_set=images,
        data_dir=data,
    )


def _run_report(run: Run, out: Path, data: Path) -> Path | None:
    """Leave page and model card in the folder of a run: the training stands whether or not."""
    if not run.writes:
        return None
    try:
        from squeezekit.report.run_report import write_run_report

        return write_run_report(run, out, data=data, command=_typed())
    except Exception as error:
        _note(f"squeezekit: the weights are in {out}, but the report could not be made: {error}")
        return None


def _typed() -> str:
    """The command as it was typed."""
    return shlex.join(["squeezekit", *sys.argv[1:]])


def _coder(name: str) -> CoderName:
    from squeezekit.sqz.container import CoderName

    if name not in get_args(CoderName):
        raise InputError(f"there is no coder {name!r}: use {', '.join(get_args(CoderName))}")
    return cast(CoderName, name)


def _check_writable(out: Path) -> None:
    """Fail before hours of work, not after them."""
    if not out.parent.is_dir():
        raise InputError(f"{out}: there is no folder {out.parent}")


def _accuracy(result: Evaluation) -> dict[str, Any]:
    return {
        "top1": result.top1,
        "top5": result.top5,
        "images": result.images,
        "skipped": list(result.skipped),
    }


def _name_skipped(result: Evaluation) -> None:
    for sentence in result.skipped:
        _note(f"skipped: {sentence}")


def _progress() -> AbstractContextManager[Progress]:
    from squeezekit.report.progress_bar import progress_bar

    return progress_bar()


def _console(*, quiet: bool = False) -> Console:
    from rich.console import Console

    # A pipe or a file has no width of its own: give the tables the room that they need.
    return Console(quiet=quiet, width=None if sys.stdout.isatty() else _PIPE_WIDTH)


def _note(text: str) -> None:
    print(text, file=sys.stderr)


def _print_json(content: dict[str, Any]) -> None:
    print(json.dumps(content, ensure_ascii=False, allow_nan=False))
