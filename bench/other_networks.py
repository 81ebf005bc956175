"""The method best on networks other than the published one: SqueezeNet v1.1 and AlexNet.

    python bench/other_networks.py --alexnet FILE

v1.1 is trained here on `imagenette-mini`, from scratch at 128 pixels for 30 epochs; FILE is an
AlexNet that is trained on it already, as `squeezekit reproduce table2` leaves it. Neither is
pruned. Rounded as the command does it by itself, without any training, and measured on the held-out
photos.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from common import options, record, squeezekit
from from_scratch import recipe, trained

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
    parser = options(__doc__)
    parser.add_argument("--alexnet", type=Path, required=True, help="its weights")
    arguments = parser.parse_args()
    main(arguments.data / "imagenette-mini", arguments.alexnet, arguments.out)
