"""Training speed: our loop against a plain float32 PyTorch loop, in turn, in one run.

    python bench/training_speed.py DATA OUT.json

DATA is a folder of class folders. Network (v1.0 at 227), batch (32) and images are the same.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
import sys
import time
from pathlib import Path

import torch
from record import record
from torch.nn import functional as F

from squeezekit.data.dataset import split
from squeezekit.models import catalogue
from squeezekit.sqz.network import CAFFE
from squeezekit.train.batches import TrainingData
from squeezekit.train.loop import fit
from squeezekit.train.recipe import Recipe
from squeezekit.trainable import TrainableNetwork

BATCH = 32
IMAGES = 320
ROUNDS = 3


def ours(network, data, recipe: Recipe) -> float:
    """Images a second of one epoch of our loop, batches made from 8-bit pixels included."""
    net = TrainableNetwork(network)
    times = []
    fit(net, data, recipe, progress=lambda *_: times.append(time.perf_counter()))
    return BATCH * (len(times) - 2) / (times[-1] - times[1])  # the first iteration warms up


def plain(network, images: torch.Tensor, targets: torch.Tensor) -> float:
    """Images a second of the loop that everybody writes first: float32, tensors in memory."""
    net = TrainableNetwork(network)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.001, momentum=0.9)
    net.train()
    times = []
    for start in range(0, len(images), BATCH):
        optimizer.zero_grad()
        logits = net(images[start : start + BATCH])
        F.cross_entropy(logits, targets[start : start + BATCH]).backward()
        optimizer.step()
        times.append(time.perf_counter())
    return BATCH * (len(times) - 1) / (times[-1] - times[0])


def main(folder: Path, out: Path) -> None:
    found = split(folder, "train")
    found = found.subset(range(0, len(found), max(len(found) // IMAGES, 1))[:IMAGES])
    network = catalogue.create("squeezenet-1.0", labels=found.classes, preprocessing=CAFFE)
    data = TrainingData(found, CAFFE)
    recipe = Recipe(epochs=1, batch=BATCH, learning_rate=0.001, precision="bf16")
    batches = list(data.epoch(0, recipe))
    images = torch.cat([batch[0] for batch in batches])
    targets = torch.cat([batch[1] for batch in batches])
    figures: dict[str, list[float]] = {"ours_bf16": [], "ours_float32": [], "plain_float32": []}
    for _ in range(ROUNDS):
        figures["plain_float32"].append(plain(network, images, targets))
        figures["ours_bf16"].append(ours(network, data, recipe))
        figures["ours_float32"].append(
            ours(network, data, dataclasses.replace(recipe, precision="float32"))
        )
    ratios = [a / b for a, b in zip(figures["ours_bf16"], figures["plain_float32"], strict=True)]
    record(
        out,
        {
            "network": "squeezenet-1.0 at 227",
            "batch": BATCH,
            "images_per_second": {k: [round(x, 2) for x in v] for k, v in figures.items()},
            "ours_bf16_over_plain_float32": {
                "median": round(statistics.median(ratios), 2),
                "each": [round(ratio, 2) for ratio in ratios],
            },
        },
    )
    print(json.dumps(json.loads(out.read_text()), indent=2))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
