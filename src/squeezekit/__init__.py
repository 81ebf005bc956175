"""squeezekit: train a small image classifier, shrink it, ship it anywhere.

    import squeezekit
    classify = squeezekit.load("model.sqz")
    classify("photo.jpg")[0].label

Everything else is in the subpackages; `load` needs neither torch nor anything else of training.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from squeezekit.runtime.classifier import Classifier
    from squeezekit.runtime.preprocessing import Given, Note

__version__ = "0.1.0"
__all__ = ["__version__", "load"]


def load(
    path: Path | str,
    threads: int | None = None,
    backend: str | None = None,
    precision: str | None = None,
    *,
    preprocessing: Given = None,
    note: Note | None = None,
) -> Classifier:
    """Open a `.sqz` or `.onnx` file as a classifier; see `interop.opening.load`."""
    from squeezekit.interop.opening import load as load_classifier

    return load_classifier(
        path, threads, backend, precision, preprocessing=preprocessing, note=note
    )
