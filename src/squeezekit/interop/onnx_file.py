"""ONNX files: reads any float32 image classifier, and writes networks for other programs."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, cast

import onnx

from squeezekit.errors import GraphError, HeadError, InputError, UnsupportedError
from squeezekit.files import write_whole
from squeezekit.interop.onnx_import.pipeline import Asked, imported
from squeezekit.interop.onnx_import.source import files_beside
from squeezekit.runtime.images import default_preprocessing
from squeezekit.runtime.int8 import int8_model
from squeezekit.runtime.preprocessing import with_assumption
from squeezekit.sqz.graph import attach, split
from squeezekit.sqz.graph_reader import read_graph
from squeezekit.sqz.limits import DEFAULT, Limits, check_file_bytes
from squeezekit.sqz.metadata_json import from_json, to_json
from squeezekit.sqz.network import Floats, Metadata, Network

METADATA_KEY = "squeezekit"
"""Under this key of the model's metadata_props stands the network's metadata, as JSON."""


def read(
    path: Path | str,
    *,
    input_size: int | None = None,
    output: str | None = None,
    labels: Sequence[str] = (),
    quantised: bool = False,
    limits: Limits | None = DEFAULT,
) -> Network:
    """Read a classifier: it takes one image and gives one number for each class.

    The graph is rewritten with the operators that squeezekit has, for any number of images. Then it
    and the original run in ONNX Runtime on one random image and on three. If the scores differ by
    more than 1e-4 of their range, the model is refused. If its rows are positive and sum to 1, it
    is marked as giving probabilities. A model with one output becomes one with two classes, by its
    sigmoid. Files from squeezekit keep their labels and preprocessing; other models get
    torchvision's preprocessing at their input size.

    Args:
        path: the path of the `.onnx`; weights stored beside it are read too.
        input_size: height and width in pixels, for a model that leaves them open.
        output: the name of the output that scores classes, for a model with several that could.
        labels: one or two names of classes, for a model with one output: the class that it stands
            for, or both classes with that one last.
        quantised: accept a model that computes in integers. It can only be run.
        limits: how much it may ask for; None trusts it.

    Raises:
        InputError: if the file is no ONNX model, its external data is missing or outside of its
            folder, the input size is needed, or not the one given, or there is no such output.
        UnsupportedError: if the model is no classifier of one image, its weights are not
            float32, or it cannot be brought in right; names the node and the reason.
        LimitError: if it asks for more memory or work than a file of its size may
            (`sqz.limits.Limits`); nothing of it is run before that is known.
    """
    asked = Asked(input_size, output, labels, quantised, limits)
    check_file_bytes(Path(path), limits)
    found = imported(path, asked)
    metadata = _own_metadata(path, found.properties)
    if metadata is None:
        metadata = with_assumption(
            Metadata(
                name=Path(path).stem,
                preprocessing=default_preprocessing(found.size, found.channels),
                labels=_two_names(labels, found.two_classes),
            )
        )
    elif (metadata.preprocessing.crop, metadata.preprocessing.channels) != (
        found.size, found.channels,
    ):  # fmt: skip
        raise InputError(f"{path}: its preprocessing does not fit its input")
    means = cast(Literal["logits", "probabilities"], found.output)
    graph, tensors = split(found.model)
    if not quantised:
        _require_closed(path, graph, tensors)
    return Network(graph, dict(tensors), dataclasses.replace(metadata, output=means))


def file_bytes(path: Path | str) -> int:
    """Size on disk of a model, including the files beside it that hold its weights, in bytes.

    Raises:
        InputError: if the file is no ONNX model.
    """
    return sum(file.stat().st_size for file in (Path(path), *files_beside(path)))


def write(network: Network, path: Path | str, *, int8: bool = False) -> None:
    """Write a network as an ONNX file that any runtime reads; shared weights become plain floats.

    Args:
        network: any.
        path: the path of the `.onnx`.
        int8: with QuantizeLinear and DequantizeLinear around every layer and int8 weights, by the
            ranges in `metadata.activations`: runtimes that know the pattern compute in integers.

    Raises:
        InputError: if the file cannot be written, or the network has no ranges for int8.
        UnsupportedError: if its operator set is too old for int8.
    """
    metadata = network.metadata.uncalibrated() if int8 else network.metadata
    whole = int8_model(network) if int8 else attach(network.graph, network.values())
    model = onnx.load_model_from_string(whole)
    model.metadata_props.add(key=METADATA_KEY, value=to_json(metadata))
    onnx.checker.check_model(model)
    write_whole(path, model.SerializeToString(deterministic=True))


def _require_closed(path: Path | str, graph: bytes, tensors: Mapping[str, Floats]) -> None:
    """Refuse what a `.sqz` may not hold."""
    try:
        read_graph(graph, tensors)
    except GraphError as error:
        raise UnsupportedError(f"{path}: {error}") from None


def _own_metadata(path: Path | str, properties: dict[str, str]) -> Metadata | None:
    if METADATA_KEY not in properties:
        return None
    try:
        return from_json(properties[METADATA_KEY])
    except HeadError as error:
        raise InputError(f"{path}: its squeezekit metadata is damaged ({error})") from None


def _two_names(labels: Sequence[str], two_classes: bool) -> tuple[str, ...]:
    """The names of the two classes of a model with one output."""
    if not two_classes:
        return ()
    return (f"not {labels[0]}", labels[0]) if len(labels) == 1 else tuple(labels)
