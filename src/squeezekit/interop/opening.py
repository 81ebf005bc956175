"""`load`: opens a `.sqz` or an `.onnx` file as a classifier."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from squeezekit.errors import InputError
from squeezekit.runtime import loading
from squeezekit.sqz.limits import DEFAULT, TRUSTED, Limits

if TYPE_CHECKING:
    from squeezekit.runtime.classifier import Classifier
    from squeezekit.runtime.preprocessing import Given, Note


def load(
    path: Path | str,
    threads: int | None = None,
    backend: str | None = None,
    precision: str | None = None,
    *,
    preprocessing: Given = None,
    output: str | None = None,
    labels: Sequence[str] = (),
    limits: Limits | None = DEFAULT,
    note: Note | None = None,
) -> Classifier:
    """Open a `.sqz` or `.onnx` file to classify with.

        classify = sk.load("pets.sqz")
        classify("photo.jpg")[0].label

    An ONNX file is imported as `onnx_file.read` does it: it is compared with what ONNX Runtime
    answers for the file itself, or refused. So it answers like a `.sqz` made from it.

    Args:
        path: the file.
        threads: how many threads one batch may use; None is all cores.
        backend: "onnxruntime" or "openvino"; see `runtime.loading.load`.
        precision: "int8" or "float"; see `runtime.loading.load`. An `.onnx` runs as it is.
        preprocessing: how images are prepared, all of it or only what you know. It overrides what
            the file says.
        output: the output that scores classes, for an `.onnx` with several outputs.
        labels: the names of the classes of an `.onnx` with one output; see `onnx_file.read`.
        limits: how much the file may ask for, and how many pixels an image may have. None trusts
            the file.
        note: called with a line if the preprocessing was found beside the file, or is assumed.

    Raises:
        InputError: see `runtime.loading.load` and `onnx_file.read`.
        FormatError: if a `.sqz` is damaged.
        UnsupportedError: see `onnx_file.read`.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    output = output or getattr(preprocessing, "output", None)
    if suffix != ".onnx" or not path.is_file():
        if path.is_file() and suffix != ".sqz":
            raise InputError(f"{path} is neither a .sqz nor an .onnx file")
        if output is not None:
            raise InputError(f"{path}: only an .onnx file can have an output named")
        return loading.load(
            path, threads, backend, precision, preprocessing=preprocessing, limits=limits
        )
    if precision not in (None, "float"):
        raise InputError(f"{path}: an .onnx file runs as it is; choose a precision for a .sqz")
    from squeezekit.interop import onnx_file
    from squeezekit.runtime.classifier import from_network
    from squeezekit.runtime.preprocessing import as_stated, settled, silent_note, size_asked

    stated = as_stated(preprocessing)
    size = size_asked(path, stated)
    network = onnx_file.read(
        path, input_size=size, output=output, labels=labels, quantised=True, limits=limits
    )
    metadata = settled(network.metadata, path, stated, note or silent_note)
    network = dataclasses.replace(network, metadata=metadata)
    classifier = from_network(network, threads, backend or "onnxruntime", "float")
    classifier.file_bytes = onnx_file.file_bytes(path)
    classifier.pixels = (limits or TRUSTED).pixels
    return classifier
