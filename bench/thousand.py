"""240,000 bytes for the published network: rounding, recovery by distillation, rounding again.

    python bench/thousand.py [--images FOLDER] [--epochs 3]

Calibrates on the files of `imagenet-500` whose number divides by 4, recovers on them and on the
folder of images (`photos-6k`, if none is named), all without labels, and measures on the other
files of `imagenet-500`. Files that are named ILSVRC2012_val_* are left out, as they may be among
what others measure on. Given the same images and number of threads it makes the same file, byte for
byte; it can be interrupted.
"""

from __future__ import annotations

import dataclasses
import hashlib
import time
from pathlib import Path

import numpy as np
import torch
from common import (
    halves,
    imagenet,
    logits_on,
    options,
    pixels_of,
    published,
    record,
    without_labels,
)

from squeezekit.compression.best import Best
from squeezekit.compression.rounder import divergence_of
from squeezekit.compression.task import Task
from squeezekit.compression.work import Work
from squeezekit.data.photos import any_images
from squeezekit.sqz import container

TARGET_BYTES = 240_000


def main(data: Path, folder: Path, out: Path, epochs: int) -> None:
    network = published(data)
    ours, others = halves(imagenet(data, network.metadata))
    network = without_labels(network)
    found = any_images(folder, network.metadata)
    paths = (
        *(path for path in found.paths if not Path(str(path)).name.startswith("ILSVRC2012_val_")),
        *ours.paths,
    )
    images = dataclasses.replace(found, paths=paths, targets=np.zeros(len(paths), np.int64))
    shown = [0.0]

    def progress(task: str, done: int, total: int) -> None:
        if time.perf_counter() - shown[0] > 30:
            shown[0] = time.perf_counter()
            print(f"{task} {done} of {total}", flush=True)

    task = Task(ours, others, network.metadata.preprocessing, progress, print)
    work = Work(out.with_name(out.name + ".work"))
    config = Best(target_bytes=TARGET_BYTES, epochs=epochs, finetune=images)
    start = time.perf_counter()
    stages = config.compressed(network, task, work, progress).list
    seconds = time.perf_counter() - start
    logits = logits_on(pixels_of(others, network.metadata.preprocessing))
    reference = logits(network)
    encoded = container.encode(stages[-1].network, "entropy")
    out.with_suffix(".sqz").write_bytes(encoded)
    record(
        out,
        {
            "network": "published SqueezeNet v1.0, without labels in the file",
            "calibration_images": len(ours),
            "recovery_images": len(images),
            "recovery_epochs": epochs,
            "threads": torch.get_num_threads(),
            "held_out_images": len(others),
            "sha256": hashlib.sha256(encoded).hexdigest(),
            "seconds": round(seconds, 1),
            "stages": [
                {
                    "stage": stage.name,
                    "file_bytes": stage.file_bytes,
                    "divergence_nats": round(divergence_of(reference, logits(stage.network)), 4),
                    "top1": stage.top1,
                    "top5": stage.top5,
                    "seconds": round(stage.seconds, 1),
                }
                for stage in stages
            ],
        },
    )
    work.forget()


if __name__ == "__main__":
    parser = options(__doc__)
    parser.add_argument("--images", type=Path, help="photos to train on, without labels")
    parser.add_argument("--epochs", type=int, default=3)
    arguments = parser.parse_args()
    folder = arguments.images or arguments.data / "photos-6k"
    main(arguments.data, folder, arguments.out, arguments.epochs)
