"""Dense-sparse-dense training on the digits, beside a network that trained dense all the while.

    python bench/dsd.py

8 epochs in each phase, seeds 0, 1 and 2; the other network has as many in all.
"""

from __future__ import annotations

import dataclasses
import statistics
import tempfile
import time
from pathlib import Path

import torch
from common import options, record

from squeezekit.compression.dsd import DsdConfig, dsd, nonzero_weights
from squeezekit.compression.prune import prune, uniform
from squeezekit.data import dataset
from squeezekit.data.digits import write_digits
from squeezekit.evaluation import Evaluation, evaluate
from squeezekit.models import catalogue
from squeezekit.runtime.classifier import from_network
from squeezekit.sqz.network import Network
from squeezekit.trainable.network import TrainableNetwork
from squeezekit.training import recipe as recipes
from squeezekit.training.batches import TrainingData
from squeezekit.training.loop import fit

SEEDS = (0, 1, 2)
EPOCHS = 8


def main(out: Path) -> None:
    torch.set_num_threads(1)
    start = time.perf_counter()
    runs = [figures(seed) for seed in SEEDS]
    names = [phase["name"] for phase in runs[0]["phases"]]
    means = {
        name: statistics.mean(run["phases"][i]["top1"] for run in runs)
        for i, name in enumerate(names)
    }
    record(
        out,
        {
            "epochs_a_phase": EPOCHS,
            "runs": runs,
            "mean_top1": means,
            "seconds": time.perf_counter() - start,
        },
    )
    for name, top1 in means.items():
        print(f"{name:24} {top1:.2f}")


def figures(seed: int) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        write_digits(folder, seed)
        train, held_out = (dataset.split(Path(folder), part) for part in ("train", "val"))
        network = catalogue.create("squeezenet-digits", labels=train.classes, seed=seed)
        data = TrainingData(train, network.metadata.preprocessing)

        def measure(network: Network) -> Evaluation:
            return evaluate(from_network(network), held_out)

        recipe = dataclasses.replace(recipes.digits(), epochs=EPOCHS, seed=seed)
        phases = dsd(network, DsdConfig(dense=recipe, sparse=recipe), data, measure)
        masked = prune(phases[0].network, uniform(network, DsdConfig().density)).values()
        sparse = phases[1].network.values()
        net = TrainableNetwork(network)
        fit(net, data, dataclasses.replace(recipe, epochs=3 * EPOCHS))
        control = net.to_network()
        return {
            "seed": seed,
            "held_out_images": len(held_out),
            "mask_held": all(not sparse[name][masked[name] == 0].any() for name in masked),
            "phases": [
                *({"name": p.name, "top1": p.top1, "nonzero": p.nonzero} for p in phases),
                {
                    "name": "dense, three times long",
                    "top1": measure(control).top1,
                    "nonzero": nonzero_weights(control),
                },
            ],
        }


if __name__ == "__main__":
    main(options(__doc__, result="dsd_digits.json", data=False).parse_args().out)
