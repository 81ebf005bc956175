"""The verbs that look at networks and rewrite them, and the one that looks at photos."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from squeezekit.cli.common import (
    Json,
    Labels,
    Seed,
    Weights,
    check_writable,
    coder_named,
    labelled,
    note,
    print_json,
    progress_shown,
    say,
    terminal,
    typed_command,
)
from squeezekit.cli.preprocessing import states_preprocessing
from squeezekit.errors import FormatError, InputError
from squeezekit.runtime.stated import Stated

if TYPE_CHECKING:
    from squeezekit.sqz.network import Network


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
        print_json(found)
    else:
        terminal().print(tables.models_table(found))


def cost(
    model: Annotated[str, typer.Argument(help="A name from `squeezekit models`, or WEIGHTS.")],
    input_size: Annotated[
        int | None, typer.Option(help="Pixels per side. Default: the model's.")
    ] = None,
    classes: Annotated[int | None, typer.Option(help="Outputs; the model's.")] = None,
    as_json: Json = False,
) -> None:
    """Count parameters, multiply-accumulates and bytes, layer by layer (the paper's Table 1)."""
    from squeezekit.interop.weights import read
    from squeezekit.models import catalogue
    from squeezekit.models.cost import cost as cost_of
    from squeezekit.report import tables

    if model not in catalogue.MODELS and Path(model).exists():
        if classes is not None:
            raise InputError("--classes is for models by name")
        network = read(
            model, preprocessing=None if input_size is None else Stated(input_size=input_size)
        )
    else:
        network = catalogue.create(model, classes=classes, input_size=input_size)
    counted = cost_of(network)
    if as_json:
        print_json({"model": network.metadata.name, **dataclasses.asdict(counted)})
    else:
        terminal().print(tables.cost_table(counted))


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
        print_json(found.as_json())
    else:
        terminal().print(tables.info_table(found))


@states_preprocessing
def export(
    weights: Weights,
    out: Annotated[Path, typer.Argument(help="OUT.sqz, .onnx, .safetensors or .html.")],
    coder: Annotated[
        str | None, typer.Option(help="For a .sqz: entropy (the default), huffman or dense.")
    ] = None,
    labels: Labels = None,
    prototxt: Annotated[
        Path | None, typer.Option(help="For a .caffemodel. Default: the one beside it.")
    ] = None,
    int8: Annotated[
        bool, typer.Option("--int8", help="Write a .sqz that can run in int8, or an int8 .onnx.")
    ] = False,
    data: Annotated[
        Path | None, typer.Option("--data", help="Photos to calibrate int8 on; any will do.")
    ] = None,
    preprocessing: Stated | None = None,
) -> None:
    """Write the same network in another format, without loss; a .sqz has its batch norms folded.

    A .html is one web page that classifies photos, offline, with the .sqz inside.
    """
    from squeezekit.interop.weights import read, writable, write
    from squeezekit.runtime.labels import read_labels

    chosen = None if coder is None else coder_named(coder)
    if data is not None and not int8:
        raise InputError("--data is only for --int8, which is calibrated on these photos")
    writable(out, coder=chosen, int8=int8)
    names = () if labels is None else read_labels(labels)[0]
    network = read(weights, prototxt=prototxt, preprocessing=preprocessing, labels=names, note=note)
    if len(names) != 1 or len(network.metadata.labels) != 2:  # else of one output, for that class
        network = dataclasses.replace(network, metadata=labelled(network, labels, None, None))
    if int8:
        network = _with_ranges(network, data)
    write(network, out, coder=chosen, int8=int8)
    say(f"{out}: {out.stat().st_size:,} bytes")


def _with_ranges(network: Network, data: Path | None) -> Network:
    """The network with ranges for int8: its own, or measured on images."""
    from squeezekit.data.dataset import unlabelled
    from squeezekit.models.fold import fold_batch_norm
    from squeezekit.runtime.calibration import calibrated, calibration_images

    network = fold_batch_norm(network)
    if data is None:
        if not network.metadata.activations:
            raise InputError("int8 must be calibrated on photos: add --data DIR")
        return network
    images = calibration_images(unlabelled(data).paths, network.metadata.preprocessing)
    with progress_shown() as progress:
        return calibrated(network, images, progress)


@states_preprocessing
def check(
    data: Annotated[Path, typer.Argument(help="Class folders, or shards.", show_default=False)],
    weights: Annotated[
        Path | None,
        typer.Option(
            help="WEIGHTS to judge the labels: any network that was not trained on these photos."
        ),
    ] = None,
    report: Annotated[
        Path | None, typer.Option(help="Write a page with small copies of the photos (.html).")
    ] = None,
    seed: Seed = 0,
    as_json: Json = False,
    preprocessing: Stated | None = None,
) -> None:
    """Look for copies, blank, tiny and broken photos, rare classes and wrong labels."""
    import time

    from squeezekit.data.check import check as check_photos
    from squeezekit.report import tables

    if report is not None:
        check_writable(report)
    if preprocessing is not None and weights is None:
        raise InputError("preprocessing describes the network that --weights names: name one")
    start = time.perf_counter()
    classifier = None
    if weights is not None:
        from squeezekit.interop.weights import read
        from squeezekit.runtime.classifier import from_network

        classifier = from_network(read(weights, preprocessing=preprocessing, note=note))
    with progress_shown() as progress:
        checked = check_photos(data, classifier=classifier, seed=seed, progress=progress)
    if report is not None:
        from squeezekit.report.check_report import write_check_report

        seconds = time.perf_counter() - start
        write_check_report(report, checked, data, command=typed_command(), seconds=seconds)
    if as_json:
        print_json({**checked.as_json(), "report": None if report is None else str(report)})
        return
    terminal().print(tables.check_table(checked))
    if report is not None:
        say(f"see: {report}")
