"""Training speed: our loop against a plain float32 PyTorch loop, in turn, in one run.

    python bench/training_speed.py

The photos are those of `imagenette-mini`. Network (v1.0 at 227), batch (32) and images are the
same. The plain loop is a process of its own, because ours changes how its process keeps memory; the
kinds of ours take turns in one process, so that they differ in nothing else. Each time is that of
the second of two epochs, all that an epoch needs included. What the machine does besides changes
from minute to minute: ratios are taken within a round of all kinds; their median counts.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import torch
from common import options, record
from torch import nn
from torch.nn import functional as F

from squeezekit.data.dataset import split
from squeezekit.models import catalogue
from squeezekit.sqz.network import CAFFE
from squeezekit.trainable.network import TrainableNetwork
from squeezekit.training.batches import TrainingData
from squeezekit.training.loop import fit
from squeezekit.training.recipe import Recipe

BATCH = 32
IMAGES = 160
ROUNDS = 5
RECIPE = Recipe(epochs=2, batch=BATCH, learning_rate=0.001)
KINDS = {
    "plain_float32": "a plain loop on tensors in memory",
    "ours_bf16": "our loop, batches made from pixels in memory: every epoch but the first",
    "ours_bf16_jpeg": "our loop, each image decoded from its JPEG, as in the first epoch",
    "ours_bf16_tensors": "our loop on tensors in memory",
    "ours_float32_tensors": "the same in float32",
}


class Tensors:
    """Ready float32 batches in memory, for the loop alone."""

    fingerprint = "tensors"

    def __init__(self, batches: list, classes: int) -> None:
        self.batches, self.classes = batches, classes

    def steps(self, batch: int) -> int:
        return len(self.batches)

    def epoch(self, *args, **kwargs):
        return iter(self.batches)

    def inputs(self, images: torch.Tensor) -> torch.Tensor:
        return images


def ours(network, data, precision: str) -> float:
    """Images a second of our loop."""
    recipe = dataclasses.replace(RECIPE, precision=precision)
    results = fit(TrainableNetwork(network), data, recipe)
    return BATCH * data.steps(BATCH) / results[-1].seconds


class Fire(nn.Module):
    """As torch users write it, ReLUs in place."""

    def __init__(self, before: int, squeeze: int, expand: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(before, squeeze, 1)
        self.expand1x1 = nn.Conv2d(squeeze, expand, 1)
        self.expand3x3 = nn.Conv2d(squeeze, expand, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.relu(self.squeeze(x))
        return torch.cat([self.relu(self.expand1x1(x)), self.relu(self.expand3x3(x))], 1)


def plain_network(classes: int) -> nn.Module:
    """SqueezeNet v1.0 in plain PyTorch."""
    pool = partial(nn.MaxPool2d, 3, 2, ceil_mode=True)
    return nn.Sequential(
        nn.Conv2d(3, 96, 7, 2), nn.ReLU(inplace=True), pool(),
        Fire(96, 16, 64), Fire(128, 16, 64), Fire(128, 32, 128), pool(),
        Fire(256, 32, 128), Fire(256, 48, 192), Fire(384, 48, 192), Fire(384, 64, 256), pool(),
        Fire(512, 64, 256), nn.Dropout(0.5), nn.Conv2d(512, classes, 1), nn.ReLU(inplace=True),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(),
    )  # fmt: skip


def plain(net: nn.Module, batches: list) -> float:
    """Images a second of the loop that everybody writes first: float32, tensors in memory."""
    optimizer = torch.optim.SGD(net.parameters(), lr=0.001, momentum=0.9)
    net.train()
    for _ in range(RECIPE.epochs):
        start = time.perf_counter()
        for images, targets in batches:
            optimizer.zero_grad()
            F.cross_entropy(net(images), targets).backward()
            optimizer.step()
    return BATCH * len(batches) / (time.perf_counter() - start)


def measured(kinds: list[str], folder: Path) -> dict[str, float]:
    """Images a second of some of KINDS."""
    found = split(folder, "train")
    found = found.subset(range(0, len(found), max(len(found) // IMAGES, 1))[:IMAGES])
    network = catalogue.create("squeezenet-1.0", labels=found.classes, preprocessing=CAFFE)
    cached = TrainingData(found, CAFFE)
    batches = [
        (cached.inputs(pixels).contiguous(), targets) for pixels, targets in cached.epoch(0, RECIPE)
    ]
    tensors = Tensors(batches, cached.classes)
    data = {
        "ours_bf16": cached,
        "ours_bf16_jpeg": TrainingData(found, CAFFE, cache_bytes=0),
        "ours_bf16_tensors": tensors,
        "ours_float32_tensors": tensors,
    }
    return {
        kind: plain(plain_network(cached.classes), batches)
        if kind == "plain_float32"
        else ours(network, data[kind], kind.split("_")[1])
        for kind in kinds
    }


def ratio(figures: dict[str, list[float]], ours: str, other: str) -> dict:
    """Of the rounds: the median, the least and the greatest."""
    each = [a / b for a, b in zip(figures[ours], figures[other], strict=True)]
    return {
        "median": round(statistics.median(each), 3),
        "least": round(min(each), 3),
        "most": round(max(each), 3),
    }


def main(folder: Path, out: Path) -> None:
    figures: dict[str, list[float]] = {kind: [] for kind in KINDS}
    ours = [kind for kind in KINDS if kind != "plain_float32"]
    for number in range(ROUNDS):
        for kinds in (["plain_float32"], ours[number % 2 :] + ours[: number % 2]):
            command = [
                sys.executable,
                __file__,
                "--data",
                folder.parent,
                "--kinds",
                ",".join(kinds),
            ]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            for kind, found in json.loads(done.stdout).items():
                figures[kind].append(found)
                print(f"{kind}: {found:.2f} images a second", flush=True)
    record(
        out,
        {
            "network": "squeezenet-1.0 at 227",
            "batch": BATCH,
            "images_per_second": {k: [round(x, 2) for x in v] for k, v in figures.items()},
            "ours_bf16_over_plain_float32": ratio(figures, "ours_bf16", "plain_float32"),
            "step_bf16_over_plain_float32": ratio(figures, "ours_bf16_tensors", "plain_float32"),
            "ours_float32_over_plain_float32": ratio(
                figures, "ours_float32_tensors", "plain_float32"
            ),
            "jpeg_over_tensors": ratio(figures, "ours_bf16_jpeg", "ours_bf16_tensors"),
            "pixels_over_tensors": ratio(figures, "ours_bf16", "ours_bf16_tensors"),
        },
    )


if __name__ == "__main__":
    parser = options(__doc__, result="training_speed_cpu.json")
    parser.add_argument("--kinds", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    photos = arguments.data / "imagenette-mini"
    if arguments.kinds:
        print(json.dumps(measured(arguments.kinds.split(","), photos)))
    else:
        main(photos, arguments.out)
