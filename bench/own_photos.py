"""A folder of photos to one small file: fine-tune the published network, round it, predict.

    python bench/own_photos.py SHARED_DATA OUT.json

The README's walk-through, as a user would type it, on `imagenette-mini`.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from record import record

TARGET_BYTES = 120_000
EPOCHS = 4
WITHOUT_TORCH = (
    "import sys; sys.modules['torch'] = None\n"
    "import squeezekit; print(squeezekit.load(sys.argv[1])(sys.argv[2])[0].label)"
)


def squeezekit(*arguments: object) -> dict:
    """Run a command; what it answers, and how long it took."""
    start = time.perf_counter()
    command = [sys.executable, "-m", "squeezekit", *map(str, arguments), "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    return {**json.loads(done.stdout), "whole_seconds": round(time.perf_counter() - start, 1)}


def main(shared: Path, out: Path) -> None:
    photos = shared / "imagenette-mini"
    weights = shared / "han-2016" / "compressed_SqueezeNet.net"
    with tempfile.TemporaryDirectory() as folder:
        run, file = Path(folder, "run"), Path(folder, "small.sqz")
        trained = squeezekit(
            "train", "--data", photos, "--init", weights, "--recipe", "finetune", "--out", run
        )
        small = squeezekit(
            "compress", run, "--method", "best", "--data", photos,
            "--target-bytes", TARGET_BYTES, "--epochs", EPOCHS, "-o", file,
        )  # fmt: skip
        measured = squeezekit("evaluate", file, "--data", photos)
        photo = sorted((photos / "val").rglob("*.JPEG"))[0]
        predicted = subprocess.run(
            [sys.executable, "-c", WITHOUT_TORCH, str(file), str(photo)],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
    record(
        out,
        {
            "train": {key: trained[key] for key in ("top1", "top5", "images", "epochs")},
            "train_seconds": trained["whole_seconds"],
            "compress": small["stages"],
            "compress_seconds": small["whole_seconds"],
            "file": {key: measured[key] for key in ("file_bytes", "top1", "top5", "images")},
            "predicted_without_torch": {photo.parent.name: predicted.stdout.strip()},
        },
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
