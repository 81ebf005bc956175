"""A short run from scratch with the recipe `modern` on `imagenette-mini`: it learns.

    python bench/from_scratch.py

SqueezeNet v1.1 with batch norms at 128 pixels, 12 epochs; a shorter run than the recipe's needs a
smaller batch, warm-up and memory of its average.
"""

from __future__ import annotations

import dataclasses
import math
import tempfile
import time
from pathlib import Path

from common import options, record

from squeezekit.data.dataset import split
from squeezekit.models import catalogue
from squeezekit.training import recipe as recipes
from squeezekit.training.recipe import Recipe
from squeezekit.training.run import Run, train_run

EPOCHS = 12
INPUT_SIZE = 128


def recipe(epochs: int) -> Recipe:
    """`modern`, for a few hundred photos."""
    return dataclasses.replace(
        recipes.modern(), epochs=epochs, batch=32, learning_rate=0.05, warmup_epochs=1, ema=0.98
    )


def trained(data: Path, run: Path, recipe: Recipe) -> Run:
    """SqueezeNet v1.1 in a folder of a run."""
    network = catalogue.create(
        "squeezenet-1.1",
        input_size=INPUT_SIZE,
        labels=split(data, "train", 0).classes,
        variant=recipe.variant,
    )
    return train_run(
        network, data, run, recipe, progress=lambda task, done, total: None, note=print
    )


def main(data: Path, out: Path) -> None:
    modern = recipe(EPOCHS)
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        run = trained(data, Path(folder) / "run", modern)
    epochs = [
        {"epoch": r.epoch, "loss": r.loss, "train_top1": r.train_top1, "val_top1": r.val_top1}
        for r in run.results
    ]
    for epoch in epochs:
        print(epoch)
    record(
        out,
        {
            "recipe": dataclasses.asdict(modern),
            "loss_of_guessing": math.log(len(run.network.metadata.labels)),
            "last_loss": epochs[-1]["loss"],
            "val_top1": run.evaluation.top1,
            "val_images": run.evaluation.images,
            "seconds": time.perf_counter() - start,
            "epochs": epochs,
        },
    )


if __name__ == "__main__":
    arguments = options(__doc__, result="from_scratch_imagenette_mini.json").parse_args()
    main(arguments.data / "imagenette-mini", arguments.out)
