"""The README's commands on a folder of photos, measured on other photos that nothing has seen.

    python bench/own_photos.py --photos DIR --apart DIR [--train "--init F"] [--compress "..."]

Runs the block of "Your own photos" in README.md as it stands there; `--train` and `--compress` add
words to its lines. Then measures the run and the file on APART, with intervals, and beside them
what a linear classifier reaches: a logistic regression (scikit-learn) on the features under the
last layer of each network of `--linear`. Without `--photos` it takes the two parts of
`imagenette-mini`.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import common
import numpy as np

LINEAR = (
    "squeezenet-1.1-caffe.safetensors",
    "mobilenet_v1_0.5_160_quant.safetensors",
    "mobilenet_v2_1.0_224_quant.tflite",
)
"""Starts at hand, in `networks`."""

PENALTIES = (0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
"""Of the logistic regression, as scikit-learn's C."""


def readme_lines() -> list[list[str]]:
    """The words of the commands under "Your own photos"."""
    text = (common.ROOT / "README.md").read_text(encoding="utf-8")
    section = text.split("\n## Your own photos\n")[1].split("\n## ")[0]
    lines = re.findall(r"^squeezekit (.*)$", section, re.MULTILINE)
    return [shlex.split(line) for line in lines]


def run_lines(photos: Path, apart: Path, more: dict[str, list[str]], folder: Path) -> list[dict]:
    """Type the README's commands in a folder where they find what they name."""
    photos, apart = photos.resolve(), apart.resolve()
    (folder / "photos").symlink_to(photos, target_is_directory=True)
    first = min(path for path in apart.rglob("*") if path.is_file())
    shutil.copy(first, folder / "new-photo.jpg")
    done = []
    for words in readme_lines():
        words = [*words, *more.get(words[0], [])]
        start, before = time.perf_counter(), os.times()
        process = subprocess.run(
            [sys.executable, "-m", "squeezekit", *words],
            cwd=folder, stdout=subprocess.PIPE, text=True, check=True,
        )  # fmt: skip
        after = os.times()
        used = after.children_user + after.children_system
        used -= before.children_user + before.children_system
        said = [line.rstrip() for line in process.stdout.splitlines() if line.strip("─ ")]
        done.append(
            {
                "command": shlex.join(["squeezekit", *(Path(word).name for word in words)]),
                "wall_minutes": round((time.perf_counter() - start) / 60, 2),
                "cpu_minutes": round(used / 60, 2),
                "said": said,
            }
        )
        print(f"{done[-1]['command']}: {done[-1]['wall_minutes']} min", flush=True)
    return done


def features(weights: Path, images) -> np.ndarray:
    """What reaches a network's last layer, averaged over places: (N, features)."""
    import torch

    from squeezekit.interop.weights import load_network
    from squeezekit.sqz.nodes import weighted_nodes
    from squeezekit.trainable.network import TrainableNetwork

    network = load_network(weights)
    net = TrainableNetwork(network).eval()
    head = weighted_nodes(net.nodes, {name: get() for name, get in net.weights.items()})[-1]
    rows = []
    for start in range(0, len(images), 25):
        part = images.subset(range(start, min(start + 25, len(images))))
        pixels = torch.from_numpy(common.pixels_of(part, network.metadata.preprocessing))
        with torch.inference_mode():
            values = net.value(pixels, head.node.inputs[0])
        rows.append(values.flatten(2).mean(2) if values.ndim == 4 else values.flatten(1))
    return torch.cat(rows).numpy()


def linear_classifier(weights: Path, train, test) -> dict:
    """A logistic regression on frozen features; its penalty is chosen on the training photos."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV

    start = time.perf_counter()
    x, y = features(weights, train), features(weights, test)
    x, y = (each / x.std(0).mean() for each in (x, y))
    search = GridSearchCV(LogisticRegression(max_iter=2000), {"C": PENALTIES}, cv=4)
    search.fit(x, train.targets)
    hits = search.predict(y) == test.targets
    return {
        "start": weights.name,
        "top1": round(100 * float(hits.mean()), 2),
        "penalty_C": search.best_params_["C"],
        "wall_minutes": round((time.perf_counter() - start) / 60, 2),
    }


def main() -> None:
    parser = common.options(__doc__, result="own_photos_NAME.json")
    parser.add_argument("--photos", type=Path, help="class folders, to train on")
    parser.add_argument("--apart", type=Path, help="the same class folders, to measure on")
    parser.add_argument("--name", help="of the set (default: of the folder that holds PHOTOS)")
    parser.add_argument("--train", default="", help="more words for the line `train`")
    parser.add_argument("--compress", default="", help="more words for the line `compress`")
    parser.add_argument(
        "--linear", type=Path, nargs="*", help="starts of linear classifiers (default: three)"
    )
    args = parser.parse_args()
    if (args.photos is None) != (args.apart is None):
        parser.error("--photos and --apart belong together")
    from squeezekit.data.folders import match, scan
    from squeezekit.evaluation import change
    from squeezekit.front import evaluate

    mini = args.data / "imagenette-mini"
    photos, apart = args.photos or mini / "train", args.apart or mini / "val"
    name = args.name or photos.resolve().parent.name.replace("-", "_")
    train = scan(photos)
    test = match(scan(apart), train.classes)
    more = {"train": shlex.split(args.train), "compress": shlex.split(args.compress)}
    starts = args.linear
    if starts is None:
        starts = [args.data / "networks" / each for each in LINEAR]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        lines = run_lines(photos, apart, more, folder)
        before = evaluate(folder / "run", apart, part="all")
        after = evaluate(folder / "pets.sqz", apart, part="all")
        file_bytes = (folder / "pets.sqz").stat().st_size
    changed = change(before, after)
    linear = [linear_classifier(start, train, test) for start in starts]
    common.record(
        args.out.with_name(args.out.name.replace("NAME", name)),
        {
            "set": name,
            "photos": len(train),
            "classes": len(train.classes),
            "apart": len(test),
            "lines": lines,
            "file_bytes": file_bytes,
            "trained": accuracy(before),
            "compressed": accuracy(after),
            "change_points": round(changed.points, 2),
            "change_interval": [round(each, 2) for each in changed.interval],
            "linear_classifiers": linear,
        },
    )
    print(f"{before.top1:.1f} -> {after.top1:.1f} at {file_bytes:,} bytes; linear: {linear}")


def accuracy(found) -> dict:
    return {
        "top1": round(found.top1, 2),
        "top1_interval": [round(each, 2) for each in found.top1_interval],
        "images": found.images,
    }


if __name__ == "__main__":
    main()
