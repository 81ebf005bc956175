"""Small files of networks that nobody pruned: bytes, accuracy and divergence on 750 photos.

    python bench/small.py [--network v1.1] [--target-bytes 350000] [--more 750] [--minutes 8]

Calibrates on the files of `imagenet-500` whose number divides by 4, and on `--more` photos of
`photos-6k`, all without labels. `--minutes` trains on all of `photos-6k`. It measures on the other
250 files of `imagenet-500` and on the 500 of `nips17`, which nothing else has seen. It can be
interrupted; the same command goes on. Each run adds its points to OUT.
"""

from __future__ import annotations

import dataclasses
import json
import resource
import sys
import time
from pathlib import Path

import numpy as np
from common import (
    COMMIT,
    PUBLISHED,
    halves,
    imagenet,
    labelled,
    logits_on,
    options,
    pixels_of,
    record,
    without_labels,
)

from squeezekit.compression.best import Best
from squeezekit.compression.rounder import divergence_of
from squeezekit.compression.task import Task
from squeezekit.compression.work import Work
from squeezekit.data.folders import ImageSet, scan
from squeezekit.data.labelling import matched
from squeezekit.data.photos import any_images
from squeezekit.evaluation import change, evaluate
from squeezekit.runtime.classifier import from_network
from squeezekit.sqz import container
from squeezekit.sqz.network import Network

NETWORKS = {
    "v1.0": PUBLISHED,
    "v1.1": Path("networks", "squeezenet-1.1-caffe.safetensors"),
    "mobilenet-0.5": Path("networks", "mobilenet_v1_0.5_160_quant.safetensors"),
    "mobilenet-0.25": Path("networks", "mobilenet_v1_0.25_128_quant.safetensors"),
}


def joined(first: ImageSet, second: ImageSet) -> ImageSet:
    """Two sets of the same classes as one."""
    return dataclasses.replace(
        first,
        paths=(*first.paths, *second.paths),
        targets=np.concatenate([first.targets, second.targets]),
    )


class Judge:
    """The 750 photos, and what the original answers there."""

    def __init__(self, original: Network, photos: ImageSet) -> None:
        pixels = pixels_of(photos, original.metadata.preprocessing)
        self._photos, self._original = photos, original
        self._logits = logits_on(pixels)
        self._reference = self._logits(original)
        self.before = evaluate(from_network(original), photos)

    def figures(self, encoded: bytes) -> dict[str, object]:
        """Of a file, with the labels of the original."""
        small = container.decode(encoded, None)
        small = dataclasses.replace(small, metadata=self._original.metadata)
        found = evaluate(from_network(small), self._photos)
        changed = change(self.before, found)
        return {
            "file_bytes": len(encoded),
            "top1": round(found.top1, 2),
            "top5": round(found.top5, 2),
            "top1_change": round(changed.points, 2),
            "interval": [round(end, 2) for end in changed.interval],
            "top5_change": round(found.top5 - self.before.top5, 2),
            "divergence_nats": round(divergence_of(self._reference, self._logits(small)), 4),
            "weights_left": small.nonzero,
        }


def main(
    data: Path, out: Path, name: str, targets: list[int], more: int, settings: dict[str, object]
) -> None:
    network = labelled(data / NETWORKS[name], data)
    ours, others = halves(imagenet(data, network.metadata))
    nips = matched(scan(data / "nips17"), network.metadata)
    judge = Judge(network, joined(others, nips))
    network = without_labels(network)
    varied = any_images(data / "photos-6k", network.metadata)
    chosen = varied.subset(np.linspace(0, len(varied) - 1, more).astype(int))
    calibration = joined(ours, dataclasses.replace(chosen, classes=ours.classes))
    shown = [0.0]

    def progress(task: str, done: int, total: int) -> None:
        if time.perf_counter() - shown[0] > 20:
            shown[0] = time.perf_counter()
            print(f"  {task} {done} of {total}", file=sys.stderr, flush=True)

    task = Task(
        calibration, calibration, network.metadata.preprocessing, progress, print, labelled=False
    )
    earlier = json.loads(out.read_text())["points"] if out.exists() else []
    for target in targets:
        config = Best(
            target_bytes=target, calibration_images=len(calibration),
            finetune=varied if "minutes" in settings else None, **settings,
        )  # fmt: skip
        start = time.perf_counter()
        work = Work(out.with_name(f"{out.name}.{name}.{more}.work"))
        stages = config.compressed(network, task, work, progress).list
        seconds = time.perf_counter() - start
        encoded = container.encode(stages[-1].network, "entropy")
        out.with_name(f"{out.stem}.{name}.{target}.sqz").write_bytes(encoded)
        point = {
            "network": name,
            "target_bytes": target,
            "calibration_photos": len(calibration),
            **settings,
            **judge.figures(encoded),
            "seconds": round(seconds, 1),
            "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
            "commit": COMMIT,
        }
        print(json.dumps(point), flush=True)
        earlier.append(point)
        record(out, {"float32": {"top1": judge.before.top1, "top5": judge.before.top5},
                     "points": earlier})  # fmt: skip


if __name__ == "__main__":
    parser = options(__doc__)
    parser.add_argument("--network", choices=NETWORKS, default="v1.1")
    parser.add_argument("--target-bytes", type=int, nargs="+", default=[350_000])
    parser.add_argument("--more", type=int, default=0, help="photos of photos-6k to calibrate with")
    parser.add_argument("--minutes", type=float, help="to train for")
    parser.add_argument("--mirror", action="store_true", help="calibrate on mirrored photos too")
    arguments = parser.parse_args()
    settings = {
        name: value for name in ("minutes", "mirror") if (value := getattr(arguments, name))
    }
    main(
        arguments.data, arguments.out, arguments.network, arguments.target_bytes, arguments.more,
        settings,
    )  # fmt: skip
