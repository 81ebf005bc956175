"""From a file to a classifier: a `.sqz` is decoded while what will run it is being imported."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from squeezekit.errors import InputError
from squeezekit.sqz.coders.compiled import compiled

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
    note: Note | None = None,
) -> Classifier:
    """Open a `.sqz` or `.onnx` file.

    An ONNX file that squeezekit did not write has no labels, and where neither the caller nor a
    config beside it states the preprocessing, it is given torchvision's at its own input size.

    Args:
        path: the file.
        threads: how many threads one batch may use; all cores where None.
        backend: "onnxruntime" or "openvino". Where None, the one that will answer quickest once it
            has started: OpenVINO for int8, if it is installed, else ONNX Runtime.
        precision: "int8" or "float"; where None, int8 if the file was calibrated for it.
        preprocessing: what is known of it, or all of it; comes before what the file says.
        note: told a line where the preprocessing was found beside the file, or is assumed.

    Raises:
        InputError: where the file is missing or is neither, the backend is not installed, or int8
            is asked of a file that was not calibrated.
        FormatError: where it is damaged.
        UnsupportedError: where its input is not one batch of square images.
    """
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path} is a folder, not a .sqz or .onnx file")
    if not path.is_file():
        raise InputError(f"{path} does not exist")
    suffix = path.suffix.lower()
    if suffix == ".sqz":
        classifier = _load_sqz(path, threads, backend, precision)
        if preprocessing is not None:
            from squeezekit.runtime.preprocessing import as_stated, settled

            if classifier.precision == "int8":
                raise InputError(
                    f"{path}: was calibrated for int8 with its own preprocessing; state another "
                    "one with precision float"
                )
            stated = as_stated(preprocessing)
            classifier.metadata = settled(classifier.metadata, path, stated, foreign=False)
        return classifier
    if suffix == ".onnx":
        from squeezekit.runtime.classifier import from_onnx
        from squeezekit.runtime.preprocessing import as_stated, silent_note

        stated = as_stated(preprocessing)
        return from_onnx(path, threads, backend, precision, stated, note or silent_note)
    raise InputError(f"{path} is neither a .sqz nor an .onnx file")


def _load_sqz(
    path: Path, threads: int | None, backend: str | None, precision: str | None
) -> Classifier:
    with ThreadPoolExecutor(1) as pool:
        pool.submit(compiled)  # which WebAssembly takes as long for as numpy to be imported
        from squeezekit.sqz.container import read

        reading = pool.submit(read, path)
        from squeezekit.runtime.classifier import from_network, prepare_imports

        prepare_imports(backend)
        network = reading.result()
    classifier = from_network(network, threads, backend, precision)
    classifier.file_bytes = path.stat().st_size
    return classifier
