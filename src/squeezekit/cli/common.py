"""What the verbs have in common: the app, their shared options, and how they speak."""

from __future__ import annotations

import shlex
import sys
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast, get_args

import typer

from squeezekit.cli.output import BAD_INPUT as BAD_INPUT
from squeezekit.cli.output import INTERRUPTED as INTERRUPTED
from squeezekit.cli.output import note as note
from squeezekit.cli.output import print_json as print_json
from squeezekit.cli.output import say as say
from squeezekit.cli.output import terminal as terminal
from squeezekit.errors import InputError
from squeezekit.files import check_writable as check_writable
from squeezekit.text import encodable

if TYPE_CHECKING:
    from squeezekit.data.folders import ImageSet
    from squeezekit.evaluation import Evaluated, Evaluation
    from squeezekit.progress import Progress
    from squeezekit.sqz.container import CoderName
    from squeezekit.sqz.network import Metadata, Network

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
        help="A network: .sqz, .onnx, .safetensors, .pth, .net, .caffemodel, .tflite, or the "
        "folder of a training run.",
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
Seed = Annotated[int, typer.Option(help="Starts all random numbers.", min=0)]
Threads = Annotated[int | None, typer.Option(help="Threads for the network. Default: all cores.")]
Precision = Annotated[
    str | None, typer.Option(help="float or int8. Default: int8 if the file is calibrated for it.")
]


def images_of(data: Path, part: str) -> ImageSet:
    """The images of a part of a data folder; says which class folders are empty."""
    from squeezekit.data.dataset import images_of as found

    return found(data, part, note)


def labelled(
    classifier: Network | Evaluated, labels: Path | None, images: ImageSet | None, data: Path | None
) -> Metadata:
    """A classifier's metadata, with class names where any can be found."""
    from squeezekit.evaluation import labelled as labelled_by

    return labelled_by(classifier, labels=labels, images=images, data=data, note=note)


def typed_command() -> str:
    """The command as it was typed."""
    return encodable(shlex.join(["squeezekit", *sys.argv[1:]]))


def coder_named(name: str) -> CoderName:
    """A coder of the `.sqz` by name."""
    from squeezekit.sqz.container import CoderName

    if name not in get_args(CoderName):
        raise InputError(f"there is no coder {name!r}: use {', '.join(get_args(CoderName))}")
    return cast(CoderName, name)


def accuracy(result: Evaluation) -> dict[str, Any]:
    """The part of an evaluation that every `--json` has."""
    return {
        "top1": result.top1,
        "top5": result.top5,
        "top1_interval": result.top1_interval,
        "top5_interval": result.top5_interval,
        "images": result.images,
        "trained_on": result.trained_on,
        "left_out": result.left_out,
        "skipped": list(result.skipped),
    }


def name_skipped(result: Evaluation) -> None:
    """Say which images could not be read."""
    for sentence in result.skipped:
        note(f"skipped: {sentence}")


def progress_shown() -> AbstractContextManager[Progress]:
    """A progress bar on stderr, where a person sees it."""
    from squeezekit.report.progress_bar import progress_bar

    return progress_bar()
