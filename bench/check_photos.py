"""`check` on imagenette-mini with planted faults: copies, and labels that are wrong.

    python bench/check_photos.py

100 photos get a copy in the other part: a
quarter to three quarters of its size, saved again as JPEG at a quality of 40 to 90, PNG or WebP,
and mirrored every second time. Then 5% of the labels are changed to another class, with three
seeds; a network of ImageNet judges them by its scores.
"""

from __future__ import annotations

import json
import random
import shutil
import tempfile
import time
from pathlib import Path

from common import options, record
from PIL import Image, ImageOps

from squeezekit.data.check import check
from squeezekit.interop.weights import load_network
from squeezekit.runtime.classifier import from_network

NETWORKS = ("squeezenet-1.1-caffe.safetensors", "mobilenet_v1_0.5_160_quant.safetensors")
COPIES, WRONG, SEEDS = 100, 0.05, 3


def plant_copies(folder: Path, chance: random.Random) -> dict[str, str]:
    """Original of each copy, by their places."""
    planted = {}
    photos = sorted(folder.glob("*/*/*"))
    for i, photo in enumerate(chance.sample(photos, COPIES)):
        image = Image.open(photo).convert("RGB")
        share = chance.uniform(0.25, 0.75)
        copy = image.resize((round(image.width * share), round(image.height * share)))
        if i % 2:
            copy = ImageOps.mirror(copy)
        part, label = photo.relative_to(folder).parts[:2]
        suffix = (".jpg", ".png", ".webp")[i % 3]
        place = folder / ("val" if part == "train" else "train") / label / f"copy-{i}{suffix}"
        copy.save(place, **({} if suffix == ".png" else {"quality": chance.randint(40, 90)}))
        planted[str(place)] = str(photo)
    return planted


def plant_labels(folder: Path, chance: random.Random) -> set[str]:
    """Move photos to another class; their new places."""
    photos = sorted(folder.glob("*/*/*"))
    moved = set()
    for photo in chance.sample(photos, round(WRONG * len(photos))):
        others = [each for each in photo.parents[1].iterdir() if each != photo.parent]
        place = chance.choice(sorted(others)) / f"moved-{photo.parent.name}-{photo.name}"
        photo.rename(place)
        moved.add(str(place))
    return moved


def main(data: Path, out: Path) -> None:
    source = data / "imagenette-mini"
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "photos"
        shutil.copytree(source, folder)
        before = check(folder)
        planted = plant_copies(folder, random.Random(0))
        start = time.perf_counter()
        found = check(folder)
        seconds = time.perf_counter() - start
        places = [{str(photo.file) for photo in group} for group in found.copies]
        hits = sum(
            any({copy, original} <= group for group in places) for copy, original in planted.items()
        )
        expected = len(before.copies) + COPIES
        labels = []
        for name in NETWORKS:
            network = data / "networks" / name
            classifier = from_network(load_network(network), 1)
            for seed in range(SEEDS):
                shutil.rmtree(folder)
                shutil.copytree(source, folder)
                moved = plant_labels(folder, random.Random(seed))
                judged = check(folder, classifier=classifier).mislabelled
                right = sum(str(each.photo.file) in moved for each in judged)
                labels.append(
                    {
                        "network": name, "seed": seed, "wrong": len(moved),
                        "named": len(judged), "right": right,
                        "recall": round(right / len(moved), 3),
                        "precision": round(right / max(len(judged), 1), 3),
                    }
                )  # fmt: skip
    record(
        out,
        {
            "photos": found.photos,
            "copies": {
                "planted": COPIES,
                "found": hits,
                "groups_before": len(before.copies),
                "groups": len(found.copies),
                "groups_at_most": expected,
                "seconds": round(seconds, 2),
            },
            "labels": labels,
        },
    )
    print(json.dumps(json.loads(out.read_text()), indent=2))


if __name__ == "__main__":
    arguments = options(__doc__).parse_args()
    main(arguments.data, arguments.out)
