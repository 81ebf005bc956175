"""Opens what predict and serve classify with: a .sqz or .onnx file, or the weights of a run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from squeezekit.cli.output import note

if TYPE_CHECKING:
    from squeezekit.runtime.classifier import Classifier
    from squeezekit.runtime.preprocessing import Given


def opened(
    path: Path,
    threads: int | None = None,
    backend: str | None = None,
    precision: str | None = None,
    preprocessing: Given = None,
) -> Classifier:
    """Open a `.sqz` or `.onnx` file, or the folder of a training run (or the weights in it).

    Raises:
        InputError: see `interop.opening.load` and `interop.weights.read`.
    """
    if path.is_dir() or path.suffix.lower() == ".safetensors":
        from squeezekit.interop.weights import read, run_folder, weights_file

        if run_folder(path) is not None:
            from squeezekit.models.fold import fold_batch_norm
            from squeezekit.runtime.classifier import from_network

            network = read(path, preprocessing=preprocessing, note=note)
            classifier = from_network(fold_batch_norm(network), threads, backend, precision)
            classifier.file_bytes = weights_file(path).stat().st_size
            return classifier
    from squeezekit.interop.opening import load

    return load(path, threads, backend, precision, preprocessing=preprocessing, note=note)
