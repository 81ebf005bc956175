"""squeezekit: train a small image classifier, shrink it to a few hundred KB, ship it anywhere.

    import squeezekit as sk

    net = sk.train("photos", out="run")                      # a Network, and the folder of the run
    small = sk.compress(net, "photos", sk.Best(target_bytes=120_000))
    print(small, sk.evaluate(small, "photos").top1)
    sk.write(small, "pets.sqz")                            # or .onnx, .tflite, .html
    sk.load("pets.sqz")("photo.jpg")[0].label

Networks: `load` opens a file to classify with. `read` reads a file as a `Network`, to work on it.
`from_torch` makes a `Network` of a torch module. `write` writes one in any format.
Work: `train`, `compress` (by `Best`, `Deep`, `Prune` or `Svd`), `calibrate` (int8), `evaluate`,
`sensitivity`, `explore`, `reproduce`. `check` looks for faults in photos before you train.
Updates: `delta` makes what turns one `.sqz` into another; `apply` does it.

Every function that needs a network takes a `Network`, or the path of any file that `read` reads.
Every function that needs photos takes a folder, an array, PIL images or the batches of a loader
(see `Photos`). Each part is imported when it is first used, so `load` imports neither torch nor
anything else that only training needs.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:  # for people's editors and type checkers; Python goes by `_WHERE`
    from squeezekit.classifying import load as load
    from squeezekit.classifying import with_unknown as with_unknown
    from squeezekit.compression.best import Best as Best
    from squeezekit.compression.curve import Curve as Curve
    from squeezekit.compression.deep import Deep as Deep
    from squeezekit.compression.front import Compressed as Compressed
    from squeezekit.compression.front import compress as compress
    from squeezekit.compression.method import Method as Method
    from squeezekit.compression.pruning import Prune as Prune
    from squeezekit.compression.svd import Svd as Svd
    from squeezekit.data.check import check as check
    from squeezekit.data.photos import Photos as Photos
    from squeezekit.errors import FormatError as FormatError
    from squeezekit.errors import InputError as InputError
    from squeezekit.errors import SqueezekitError as SqueezekitError
    from squeezekit.errors import UnsupportedError as UnsupportedError
    from squeezekit.evaluation import Evaluation as Evaluation
    from squeezekit.exploration.front import explore as explore
    from squeezekit.exploration.run import ExploreConfig as ExploreConfig
    from squeezekit.front import calibrate as calibrate
    from squeezekit.front import evaluate as evaluate
    from squeezekit.front import sensitivity as sensitivity
    from squeezekit.front import train as train
    from squeezekit.front import training_run as training_run
    from squeezekit.interop.torch_module import from_torch as from_torch
    from squeezekit.interop.weights import read as read
    from squeezekit.interop.weights import write as write
    from squeezekit.report.progress_bar import progress_bar as progress_bar
    from squeezekit.reproduction.run import ReproduceConfig as ReproduceConfig
    from squeezekit.reproduction.run import reproduce as reproduce
    from squeezekit.runtime.classifier import Classifier as Classifier
    from squeezekit.runtime.classifier import Prediction as Prediction
    from squeezekit.runtime.stated import Stated as Stated
    from squeezekit.sqz.delta import apply as apply
    from squeezekit.sqz.delta import delta as delta
    from squeezekit.sqz.limits import Limits as Limits
    from squeezekit.sqz.network import Metadata as Metadata
    from squeezekit.sqz.network import Network as Network
    from squeezekit.sqz.network import Preprocessing as Preprocessing
    from squeezekit.training.recipe import Augmentation as Augmentation
    from squeezekit.training.recipe import Recipe as Recipe

_WHERE = {
    "Augmentation": "training.recipe",
    "Best": "compression.best",
    "Classifier": "runtime.classifier",
    "Compressed": "compression.front",
    "Curve": "compression.curve",
    "Deep": "compression.deep",
    "Evaluation": "evaluation",
    "ExploreConfig": "exploration.run",
    "FormatError": "errors",
    "InputError": "errors",
    "Limits": "sqz.limits",
    "Metadata": "sqz.network",
    "Network": "sqz.network",
    "Method": "compression.method",
    "Photos": "data.photos",
    "Prediction": "runtime.classifier",
    "Preprocessing": "sqz.network",
    "Prune": "compression.pruning",
    "Recipe": "training.recipe",
    "ReproduceConfig": "reproduction.run",
    "SqueezekitError": "errors",
    "Stated": "runtime.stated",
    "Svd": "compression.svd",
    "UnsupportedError": "errors",
    "apply": "sqz.delta",
    "calibrate": "front",
    "check": "data.check",
    "compress": "compression.front",
    "delta": "sqz.delta",
    "explore": "exploration.front",
    "evaluate": "front",
    "from_torch": "interop.torch_module",
    "load": "classifying",
    "progress_bar": "report.progress_bar",
    "read": "interop.weights",
    "reproduce": "reproduction.run",
    "sensitivity": "front",
    "train": "front",
    "training_run": "front",
    "write": "interop.weights",
    "with_unknown": "classifying",
}
"""The module that each public name comes from."""

__all__ = ["__version__", *_WHERE]


def __getattr__(name: str) -> object:
    """Import a public name when it is first used (PEP 562)."""
    if name not in _WHERE:
        raise AttributeError(f"module 'squeezekit' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"squeezekit.{_WHERE[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
