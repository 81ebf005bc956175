"""The method best on networks other than the published one: SqueezeNet v1.1 and AlexNet.

    python bench/other_networks.py DATA ALEXNET OUT.json

v1.1 is trained here, from scratch at 128 pixels for 30 epochs; ALEXNET is trained on DATA already,
as `squeezekit reproduce table2` leaves it. Neither is pruned. Rounded as the command does it by
itself, without any training, and measured on the other photos of DATA.
"""

from __future__ import annotations

import dataclasses
import sys
import tempfile
from pathlib import Path

from own_photos import squeezekit
from record import record

from squeezekit.data.dataset import split
from squeezekit.models import catalogue
from squeezekit.train import recipe as recipes
from squeezekit.train.run import train_run

EPOCHS = 30
INPUT_SIZE = 128


def trained(data: Path, run: Path) -> Path:
    """SqueezeNet v1.1 in a folder of a run."""
    recipe = dataclasses.replace(
        recipes.modern(), epochs=EPOCHS, batch=32, learning_rate=0.05, warmup_epochs=1, ema=0.98
    )
    network = catalogue.create(
        "squeezenet-1.1",
        input_size=INPUT_SIZE,
        labels=split(data, "train", 0).classes,
        variant=recipe.variant,
    )
    train_run(network, data, run, recipe, progress=lambda task, done, total: None, note=print)
    return run


def compressed(weights: Path, data: Path, out: Path) -> dict:
    """What the command says of its stages."""
    small = squeezekit("compress", weights, "--method", "best", "--data", data, "-o", out)
    first, last = small["stages"][0], small["stages"][-1]
    return {
        "stages": small["stages"],
        "times_smaller": round(first["file_bytes"] / last["file_bytes"], 1),
        "seconds": small["whole_seconds"],
    }


def main(data: Path, alexnet: Path, out: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        networks = {
            "SqueezeNet v1.1": trained(data, Path(folder, "run")),
            "AlexNet": alexnet,
        }
        results = {
            name: compressed(weights, data, Path(folder, f"{i}.sqz"))
            for i, (name, weights) in enumerate(networks.items())
        }
    record(out, {"networks": results})


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]))
