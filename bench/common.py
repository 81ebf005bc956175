"""What every script here shares: its options, where data lies, and how a result is written down."""

from __future__ import annotations

import argparse
import dataclasses
import importlib.metadata
import json
import os
import platform
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch

    from squeezekit.data.folders import ImageSet
    from squeezekit.sqz.network import Floats, Metadata, Network, Preprocessing

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT / "samples"))  # small networks and damaged files, as the tests have them
RESULTS = ROOT / "bench" / "results"
PUBLISHED = Path("han-2016", "compressed_SqueezeNet.net")
"""The authors' network, in the folder of data."""


# --------------------------------------------------------------------------------------- options


def options(
    doc: str | None, *, result: str | None = None, data: bool = True
) -> argparse.ArgumentParser:
    """The options that all scripts have: `--out`, and `--data` where real data are needed.

    Args:
        doc: of the script; `--help` shows it.
        result: the usual name of the result, if it is not the script's.
        data: whether the script needs real data.
    """
    usual = RESULTS / (result or f"{Path(sys.argv[0]).stem}.json")
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    if data:
        parser.add_argument(
            "--data", type=Path, default=data_folder(),
            help="the folder of real networks and photos (default: $SQUEEZEKIT_TEST_DATA, or "
            "shared/data beside the checkout)",
        )  # fmt: skip
    parser.add_argument(
        "--out", type=Path, default=usual,
        help=f"the result, as JSON (default: bench/results/{usual.name})",
    )  # fmt: skip
    return parser


def data_folder() -> Path:
    """Where the tests find real data, too."""
    return Path(os.environ.get("SQUEEZEKIT_TEST_DATA", ROOT.parent / "shared" / "data"))


# --------------------------------------------------------------------------------------- results


def commit() -> str:
    """What is checked out, and whether anything but results was changed since."""

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", "-C", ROOT, *words], capture_output=True, text=True
        ).stdout.strip()

    changed = git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!bench/results")
    return git("rev-parse", "HEAD") + (" with changes" if changed else "")


COMMIT = commit()
"""At the start: a run may take hours."""


def record(out: Path, figures: dict[str, Any]) -> None:
    """Write figures with what is needed to believe them: command, commit, machine, versions."""
    content = {
        "command": " ".join(["python", f"bench/{Path(sys.argv[0]).name}", *_words(sys.argv[1:])]),
        "commit": COMMIT,
        "machine": {
            "system": f"{platform.system()} {platform.machine()}",
            "processor": _processor(),
            "cores": os.cpu_count(),
            "load_average": round(os.getloadavg()[0], 2),
            "python": platform.python_version(),
        },
        "versions": {
            name: importlib.metadata.version(name)
            for name in ("squeezekit", "torch", "onnxruntime", "numpy", "pillow", "wasmtime")
        },
        **figures,
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(content, indent=2) + "\n")


def _words(arguments: list[str]) -> list[str]:
    """Of the command; paths by their names, as it does not matter where a folder lay."""
    return [shlex.quote(re.sub(r"[^ ]*/(?=[^ /]+)", "", word)) for word in arguments]


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor()


def squeezekit(*arguments: object) -> dict[str, Any]:
    """Run a command of squeezekit; what it says in JSON, and how long it took."""
    import time

    start = time.perf_counter()
    command = [sys.executable, "-m", "squeezekit", *map(str, arguments), "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    return {**json.loads(done.stdout), "whole_seconds": round(time.perf_counter() - start, 1)}


# ---------------------------------------------------------------------- the authors' network


def labelled(path: Path, data: Path) -> Network:
    """A network of ImageNet from any file, with the names of its classes."""
    from squeezekit.data.labelling import with_labels
    from squeezekit.interop.weights import load_network

    network = load_network(path)
    names = data / "imagenet-classes.tsv"
    metadata = with_labels(network.metadata, network.outputs, labels_file=names)
    return dataclasses.replace(network, metadata=metadata)


def published(data: Path) -> Network:
    """The authors' published SqueezeNet v1.0."""
    return labelled(data / PUBLISHED, data)


def without_labels(network: Network) -> Network:
    """The same, as the codecs that it is compared with store no names."""
    metadata = dataclasses.replace(network.metadata, labels=(), label_ids=())
    return dataclasses.replace(network, metadata=metadata)


def imagenet(data: Path, metadata: Metadata) -> ImageSet:
    """`imagenet-500`, with targets as a network numbers its classes."""
    from squeezekit.data.folders import scan
    from squeezekit.data.labelling import matched

    return matched(scan(data / "imagenet-500"), metadata)


def halves(images: ImageSet) -> tuple[ImageSet, ImageSet]:
    """Two halves of `imagenet-500`: files whose number divides by 4, to calibrate; the others."""
    numbers = [int(Path(str(path)).stem) for path in images.paths]
    ours = images.subset([i for i, n in enumerate(numbers) if n % 4 == 0])
    others = images.subset([i for i, n in enumerate(numbers) if n % 4])
    return ours, others


def pixels_of(images: ImageSet, preprocessing: Preprocessing) -> Floats:
    """All of them, prepared: (N, C, H, W)."""
    from squeezekit.runtime.images import open_image, prepare

    return np.stack([prepare(open_image(path), preprocessing) for path in images.paths])


def logits_on(pixels: Floats) -> Callable[[Network], torch.Tensor]:
    """What a network answers on these images: logits (N, classes)."""
    import torch

    from squeezekit.runtime.classifier import from_network

    def logits(network: Network) -> torch.Tensor:
        classifier = from_network(network)
        parts = np.array_split(pixels, 10)
        return torch.from_numpy(np.concatenate([classifier.logits(part) for part in parts]))

    return logits
