"""The method best on networks other than the published one: SqueezeNet v1.1 and AlexNet.

    python bench/other_networks.py DATA ALEXNET OUT.json

v1.1 is trained here, from scratch at 128 pixels for 30 epochs; ALEXNET is trained on DATA already,
as `squeezekit reproduce table2` leaves it. Neither is pruned. Rounded as the command does it by
itself, without any training, and measured on the other photos of DATA.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from from_scratch import recipe, trained
from own_photos import squeezekit
from record import record

EPOCHS = 30


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
        run = Path(folder, "run")
        trained(data, run, recipe(EPOCHS))
        networks = {"SqueezeNet v1.1": run, "AlexNet": alexnet}
        results = {
            name: compressed(weights, data, Path(folder, f"{i}.sqz"))
            for i, (name, weights) in enumerate(networks.items())
        }
    record(out, {"networks": results})


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]))
