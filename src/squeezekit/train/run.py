"""A training run: from a folder of images, a network and a recipe to the folder of the run."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from squeezekit.data.dataset import split
from squeezekit.data.folders import imbalance_warning, match, require_classes
from squeezekit.errors import InputError
from squeezekit.evaluate import Evaluation, evaluate
from squeezekit.files import write_whole
from squeezekit.interop import safetensors_file
from squeezekit.interop.weights import RUN_WEIGHTS, load_network
from squeezekit.models import catalogue
from squeezekit.models.head import start_from, with_new_head
from squeezekit.progress import Progress, silent
from squeezekit.sqz.network import Network
from squeezekit.train.batches import TrainingData
from squeezekit.train.loop import EpochResult, fit
from squeezekit.train.recipe import Recipe
from squeezekit.trainable import TorchClassifier, TrainableNetwork

DEFAULT_MODEL = "squeezenet-1.1"

Note = Callable[[str], None]
"""Told a sentence that the user should read."""


@dataclass(frozen=True, eq=False)
class Run:
    """What a training run gave.

    Attributes:
        network: the trained network.
        evaluation: on the held-out images.
        results: one an epoch.
        seconds: wall time of it all.
    """

    network: Network
    evaluation: Evaluation
    results: list[EpochResult]
    seconds: float


def first_network(
    data: Path, *, model: str | None = None, init: Path | None = None, seed: int = 0
) -> Network:
    """The network that training starts from, with the class folders as its labels.

    Args:
        data: the folder of images.
        model: a name from the catalogue; where None, the one that `init` holds, or v1.1.
        init: weights to start from: with `model`, those of the same name and shape are taken over;
            without, the whole network with a new last layer.
        seed: of the fresh weights.

    Raises:
        InputError: where nothing fits, or there is only one class.
    """
    images = split(data, "train", seed)
    require_classes(images)
    source = None if init is None else load_network(init)
    if model is None and source is not None:
        network = with_new_head(source, images.classes, seed)
        return dataclasses.replace(
            network, metadata=network.metadata.with_step(f"last layer made anew for {data.name}")
        )
    network = catalogue.create(model or DEFAULT_MODEL, labels=images.classes, seed=seed)
    if source is None:
        return network
    network, taken = start_from(network, source)
    if not taken:
        raise InputError(f"{init} has no weight of the same name and shape as {model}")
    return network


def train_run(
    network: Network,
    data: Path,
    out: Path,
    recipe: Recipe,
    *,
    progress: Progress = silent,
    note: Note = lambda text: None,
) -> Run:
    """Train a network and leave a folder with weights, recipe and results.

    Writes `weights.safetensors`, `recipe.json` and `results.csv` (a line an epoch, as they come).

    Args:
        network: what to train; its labels are the class folders.
        data: the folder of images.
        out: the folder of the run: new or empty.
        recipe: how to train.
        progress: told of decoding, training and evaluation.
        note: told of skipped images and of warnings.

    Raises:
        InputError: where the data cannot be used, or `out` holds a run already.
    """
    start = time.perf_counter()
    _make_folder(out)
    labels = network.metadata.labels
    preprocessing = network.metadata.preprocessing
    held_out = match(split(data, "val", recipe.seed, progress), labels)
    images = match(split(data, "train", recipe.seed, progress), labels)
    if warning := imbalance_warning(images):
        note(warning)
    training = TrainingData(images, preprocessing, progress=progress)
    for sentence in training.skipped:
        note(f"skipped: {sentence}")
    write_whole(out / "recipe.json", json.dumps(dataclasses.asdict(recipe), indent=2).encode())
    net = TrainableNetwork(network)
    results: list[EpochResult] = []

    def measure(net: TrainableNetwork) -> Evaluation:
        return evaluate(TorchClassifier(net), held_out, progress=progress)

    def on_epoch(result: EpochResult) -> None:
        results.append(result)
        _write_results(out / "results.csv", results)
        if result.warning:
            note(result.warning)

    fit(net, training, recipe, validate=measure, progress=progress, on_epoch=on_epoch)
    step = f"trained on {data.resolve().name}: {training.images} images, {recipe.epochs} epochs"
    trained = net.to_network()
    trained = dataclasses.replace(trained, metadata=trained.metadata.with_step(step))
    safetensors_file.write(trained, out / RUN_WEIGHTS)
    evaluation = measure(net)
    return Run(trained, evaluation, results, time.perf_counter() - start)


def _make_folder(out: Path) -> None:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out} exists and is not an empty folder: name another one")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{out} cannot be made ({error.strerror})") from None


def _write_results(path: Path, results: list[EpochResult]) -> None:
    text = io.StringIO()
    fields = [field.name for field in dataclasses.fields(EpochResult)]
    writer = csv.DictWriter(text, fields, lineterminator="\n")
    writer.writeheader()
    writer.writerows(dataclasses.asdict(result) for result in results)
    write_whole(path, text.getvalue().encode())
