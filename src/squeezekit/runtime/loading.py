"""Opens a `.sqz` as a classifier: it is decoded while the backend is being imported."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from squeezekit.errors import InputError
from squeezekit.sqz.coders.compiled import compiled
from squeezekit.sqz.limits import DEFAULT, TRUSTED, Limits

if TYPE_CHECKING:
    from squeezekit.runtime.classifier import Classifier
    from squeezekit.runtime.preprocessing import Given


def load(
    path: Path | str,
    threads: int | None = None,
    backend: str | None = None,
    precision: str | None = None,
    *,
    preprocessing: Given = None,
    limits: Limits | None = DEFAULT,
) -> Classifier:
    """Open a `.sqz` file; `interop.opening.load` opens `.onnx` files too.

    Args:
        path: the file.
        threads: how many threads one batch may use; None is all cores.
        backend: "onnxruntime" or "openvino". None is the one that answers fastest once it has
            started: OpenVINO for int8, if it is installed, else ONNX Runtime.
        precision: "int8" or "float"; None is int8 if the file was calibrated for it.
        preprocessing: how images are prepared, all of it or only what you know. It overrides what
            the file says.
        limits: how much the file may ask for, and how many pixels an image may have. None trusts
            the file.

    Raises:
        InputError: if the file is missing or not a .sqz, the backend is not installed, or int8 is
            asked for and the file was not calibrated.
        FormatError: if it is damaged; a LimitError if it asks for too much.
        UnsupportedError: if its input is not one batch of square images.
    """
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path} is a folder, not a .sqz file")
    if not path.is_file():
        raise InputError(f"{path} does not exist")
    if path.suffix.lower() != ".sqz":
        raise InputError(f"{path} is not a .sqz file")
    classifier = _load_sqz(path, threads, backend, precision, limits)
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


def _load_sqz(
    path: Path,
    threads: int | None,
    backend: str | None,
    precision: str | None,
    limits: Limits | None,
) -> Classifier:
    with ThreadPoolExecutor(1) as pool:
        pool.submit(compiled)  # which WebAssembly takes as long for as numpy to be imported
        from squeezekit.sqz.container import read

        reading = pool.submit(read, path, limits)
        from squeezekit.runtime.classifier import from_network, prepare_imports

        prepare_imports(backend)
        network = reading.result()
    classifier = from_network(network, threads, backend, precision)
    classifier.file_bytes = path.stat().st_size
    classifier.pixels = (limits or TRUSTED).pixels
    return classifier
