"""`read` and `write`: find the kind of a file, and call the module that reads or writes it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from squeezekit.errors import InputError
from squeezekit.interop import file_kinds, pretrained
from squeezekit.models.fold import fold_batch_norm
from squeezekit.progress import Progress, silent
from squeezekit.runtime.preprocessing import (
    Given,
    Note,
    as_stated,
    settled,
    silent_note,
    size_asked,
    without_assumption,
)
from squeezekit.sqz.container import CoderName
from squeezekit.sqz.limits import DEFAULT, Limits, check_file_bytes
from squeezekit.sqz.network import Network, share_equal_values

RUN_WEIGHTS = "weights.safetensors"
"""The weights' file in the folder of a training run."""

SO_FAR = "so_far.safetensors"
"""The best weights so far in the folder of a run that is not finished; gone when it is."""

KINDS = (
    ".sqz, .onnx, .safetensors, .pth, .pt, .net, .caffemodel, .tflite, or the folder of a training "
    "run"
)
READ = (".onnx", ".safetensors", ".pth", ".pt", ".net", ".caffemodel", ".tflite")
"""The endings of foreign files that `read` reads."""

_NAMES = ", ".join(pretrained.PRETRAINED)


def read(
    path: Path | str,
    *,
    prototxt: Path | str | None = None,
    preprocessing: Given = None,
    output: str | None = None,
    labels: Sequence[str] = (),
    limits: Limits | None = DEFAULT,
    progress: Progress = silent,
    note: Note = silent_note,
) -> Network:
    """Read a network from any file or folder that holds one, or by the name of published weights.

        net = sk.read("model.onnx")
        net = sk.read("han-2016")        # published weights, fetched once
        net = sk.read("run")             # the folder of a training run
        net = sk.read("mnist.onnx", preprocessing=Stated(scale=1))

    How images are prepared comes from the caller, else from the file, else from Hugging Face's
    preprocessor_config.json or timm's config.json beside it. Else it is assumed, and a note says so
    (`runtime.preprocessing.settled`). The last line of provenance says where it came from.

    Args:
        path: a `.sqz`; an ONNX model; safetensors (ours, or a state dict); a `.pth` state dict
            (read with weights_only=True); the authors' `.net`; a `.caffemodel`; a `.tflite`; the
            folder of a training run; or, where no such file exists, a name from
            `pretrained.PRETRAINED`, fetched if need be.
        prototxt: the prototxt of a `.caffemodel`; None is the one beside it.
        preprocessing: how images are prepared, all of it or only what you know. It overrides what
            the file says.
        output: the output that scores classes, for an ONNX model with several outputs.
        labels: one or two names, which an ONNX model with one output needs (see `onnx_file.read`).
        limits: how much the file may ask for; None trusts it. All kinds of files have a limit of
            bytes; those that state a graph of their own have all limits.
        progress: called during a download.
        note: called with a line if the preprocessing was found beside the file, or is assumed.

    Raises:
        InputError: if there is no such file, it holds no network, it cannot be downloaded, or the
            preprocessing does not fit the network.
        UnsupportedError: if it holds a network that cannot be read yet.
        FormatError: if it is a damaged `.sqz`; a LimitError if it asks for too much.
    """
    published = str(path) in pretrained.PRETRAINED and not Path(path).exists()
    path = weights_file(path, progress)
    if path.name == SO_FAR:
        note(
            f"the training in {path.parent} is not finished: these are its weights so far; "
            "train --resume finishes it"
        )
    check_file_bytes(path, limits)
    stated = as_stated(preprocessing)
    if prototxt is not None and path.suffix.lower() != ".caffemodel":
        raise InputError(f"{path}: a prototxt belongs to a .caffemodel")
    output = output or (None if stated is None else stated.output)
    if output is not None and path.suffix.lower() != ".onnx":
        raise InputError(f"{path}: only an .onnx file can have an output named")
    if path.suffix.lower() == ".onnx":
        from squeezekit.interop import onnx_file

        network = onnx_file.read(
            path,
            input_size=size_asked(path, stated),
            output=output,
            labels=labels,
            limits=limits,
        )
    else:
        network = _read(path, prototxt, limits)
    if published:  # its preprocessing is known
        network = dataclasses.replace(network, metadata=without_assumption(network.metadata))
    ours = path.suffix.lower() == ".sqz" or published
    metadata = settled(network.metadata, path, stated, note, foreign=not ours)
    return dataclasses.replace(network, metadata=metadata)


def _read(path: Path, prototxt: Path | str | None, limits: Limits | None) -> Network:
    kind = path.suffix.lower()
    if kind in READ:
        file_kinds.require_network(path)
    match kind:
        case ".sqz":
            from squeezekit.sqz import container

            return container.read(path, limits)
        case ".safetensors":
            from squeezekit.interop import safetensors_file

            return safetensors_file.read(path, limits)
        case ".tflite":
            from squeezekit.interop import tflite_file

            return tflite_file.read(path, limits)
        case ".pth" | ".pt":
            from squeezekit.interop import torchvision

            return torchvision.read(path)
        case ".net":
            from squeezekit.interop import han

            return han.read(path)
        case ".caffemodel":
            from squeezekit.interop import caffe

            return caffe.read(path, prototxt)
    raise InputError(f"{path}: is not a file that squeezekit reads ({KINDS})")


def load_network(path: Path | str, progress: Progress = silent) -> Network:
    """The same as `read`."""
    return read(path, progress=progress)


def as_network(
    source: object,
    *,
    preprocessing: Given = None,
    limits: Limits | None = DEFAULT,
    progress: Progress = silent,
    note: Note = silent_note,
) -> Network:
    """The network of any object that holds one, or that `read` reads.

    Args:
        source: a Network; an object that has one (the result of `compress`, a training run); the
            torch module of `Network.to_torch`; or a path or a name for `read`.
        preprocessing: as in `read`; refused if nothing is read.
        limits: as in `read`.
        progress: called during a download.
        note: called with what `read` assumes.

    Raises:
        InputError: as in `read`, or if this holds no network.
    """
    if isinstance(source, (str, Path)):
        return read(
            source, preprocessing=preprocessing, limits=limits, progress=progress, note=note
        )
    if preprocessing is not None:
        raise InputError(
            "preprocessing can be given for a file only: a Network has its own in its metadata"
        )
    if isinstance(source, Network):
        return source
    if isinstance(held := getattr(source, "network", None), Network):
        return held
    if callable(given := getattr(source, "to_network", None)):
        network = given()
        assert isinstance(network, Network)
        return network
    kind = type(source).__name__
    if hasattr(source, "state_dict") and hasattr(source, "forward"):
        raise InputError(
            f"{kind} is a torch module: make a network of it by squeezekit.from_torch(module, "
            "example), with a batch of its inputs as the example"
        )
    raise InputError(
        f"{kind} is not a network: give a Network, a path, or a name of published weights"
    )


def write(
    network: object, path: Path | str, *, coder: CoderName | None = None, int8: bool = False
) -> Path:
    """Write a network in the format that the file's ending names.

        sk.write(net, "pets.sqz")
        sk.write("pets.sqz", "pets.onnx")

    `.sqz` is squeezekit's own format. `.onnx` runs in other runtimes, `.tflite` on
    phones (TensorFlow Lite, LiteRT). `.safetensors` holds tensors
    for other programs. `.html` is one web page that classifies photos, offline. A `.sqz` and a page
    have their batch norms folded into the layers before them; nothing else changes.

    Args:
        network: a Network, or anything that `read` takes.
        path: the file to write. It appears whole or not at all.
        coder: for a `.sqz` or a page: "entropy" (smallest), "huffman" (as in the paper) or "dense".
            None is the one that the network was compressed for, or "entropy".
        int8: write an `.onnx` or a `.tflite` that computes in int8. (A calibrated `.sqz` does so
            without it.) The network must come from `calibrate`.

    Returns:
        The path.

    Raises:
        InputError: if the ending names no format, the format has no such option, the network has
            no ranges of activations for int8, or the file cannot be written.
        UnsupportedError: if the format cannot hold the network.
    """
    path = Path(path)
    kind = writable(path, coder=coder, int8=int8)
    used: CoderName = coder or getattr(network, "coder", None) or "entropy"
    network = as_network(network)
    if int8 and not network.metadata.activations:
        raise InputError("int8 needs ranges of activations: calibrate the network on photos first")
    match kind:
        case ".sqz":
            from squeezekit.sqz import container

            container.write(as_stored(network), path, used)
        case ".html":
            from squeezekit.interop import page_file

            page_file.write(as_stored(network), path, used)
        case ".onnx":
            from squeezekit.interop import onnx_file

            onnx_file.write(network, path, int8=int8)
        case ".tflite":
            from squeezekit.interop import tflite_writer

            tflite_writer.write(network, path, int8=int8)
        case ".safetensors":
            from squeezekit.interop import safetensors_file

            safetensors_file.write(network, path)
    return path


def writable(path: Path | str, *, coder: str | None = None, int8: bool = False) -> str:
    """Check, before any work, that `write` can write this file with these options.

    Returns:
        The kind of the file: its ending in lower case.

    Raises:
        InputError: if it cannot.
    """
    path = Path(path)
    kind = path.suffix.lower()
    if kind not in WRITTEN:
        raise InputError(f"{path}: must end in {', '.join(WRITTEN[:-1])} or {WRITTEN[-1]}")
    if coder is not None and kind not in (".sqz", ".html"):
        raise InputError(f"{path}: only a .sqz or a .html has a coder")
    if coder is not None and coder not in get_args(CoderName):
        raise InputError(f"there is no coder {coder!r}: use {', '.join(get_args(CoderName))}")
    if int8 and kind not in (".sqz", ".onnx", ".tflite"):
        raise InputError(f"{path}: only a .sqz, an .onnx or a .tflite can run in int8")
    if kind == ".tflite":
        from squeezekit.interop.tflite_graph import package

        package(path)
    if not path.parent.is_dir():
        raise InputError(f"{path}: there is no folder {path.parent}")
    return kind


WRITTEN = (".sqz", ".onnx", ".tflite", ".safetensors", ".html")
"""The endings of the files that `write` writes."""


def as_stored(network: Network) -> Network:
    """The network as a `.sqz` holds it: batch norms folded, equal values shared."""
    return share_equal_values(fold_batch_norm(network))


def weights_file(path: Path | str, progress: Progress = silent) -> Path:
    """The file that `read` reads: this file, the one in the folder of a run, or one by its name.

    Raises:
        InputError: if there is none.
    """
    name, path = str(path), Path(path)
    if path.is_dir():
        return weights_in_run(path)
    if path.exists():
        return path
    if name in pretrained.PRETRAINED:
        return pretrained.fetch(name, progress=progress)
    raise InputError(f"{path}: there is no such file, and no pretrained network ({_NAMES})")


def weights_in_run(folder: Path) -> Path:
    """The weights' file in the folder of a training run, finished or not.

    Raises:
        InputError: if there is none.
    """
    for name in (RUN_WEIGHTS, SO_FAR):
        if (folder / name).is_file():
            return folder / name
    raise InputError(f"{folder}: is not the folder of a training run (it has no {RUN_WEIGHTS})")


def run_folder(path: object) -> Path | None:
    """The folder of the training run that weights are in; None if they are in none.

    Args:
        path: the folder itself, or its `weights.safetensors`. For anything else the answer is None.
    """
    if not isinstance(path, (str, Path)):
        return None
    path = Path(path)
    folder = path.parent if path.name in (RUN_WEIGHTS, SO_FAR) else path
    return folder if any((folder / name).is_file() for name in (RUN_WEIGHTS, SO_FAR)) else None


def file_bytes(path: Path | str) -> int:
    """Size on disk of what `read` reads, in bytes; for an ONNX model with its external files."""
    file = weights_file(path)
    if file.suffix.lower() != ".onnx":
        return file.stat().st_size
    from squeezekit.interop import onnx_file

    return onnx_file.file_bytes(file)
