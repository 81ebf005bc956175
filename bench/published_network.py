"""The authors' published network in every lossless form: bytes, decode time, and the same answers.

python bench/published_network.py
"""

from __future__ import annotations

import gzip
import json
import lzma
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
from common import PUBLISHED, imagenet, options, published, record

from squeezekit.evaluation import evaluate
from squeezekit.runtime.classifier import from_network
from squeezekit.runtime.loading import load
from squeezekit.sqz import container
from squeezekit.trainable.network import TorchClassifier


def main(data: Path, out: Path) -> None:
    network = published(data)
    images = imagenet(data, network.metadata)
    raw = (data / PUBLISHED).read_bytes()
    file_bytes = {
        "published .net": len(raw),
        "gzip -9": len(gzip.compress(raw, 9)),
        "xz -9": len(lzma.compress(raw, preset=9 | lzma.PRESET_EXTREME)),
    }
    decode_seconds = {}
    for coder in ("entropy", "huffman", "dense"):
        encoded = container.encode(network, coder)
        file_bytes[f".sqz {coder}"] = len(encoded)
        container.decode(encoded)  # the first call compiles the coders
        times = []
        for _ in range(7):
            start = time.perf_counter()
            decoded = container.decode(encoded)
            times.append(time.perf_counter() - start)
        decode_seconds[coder] = statistics.median(times)
        for name, values in network.values().items():
            same = np.array_equal(values.view(np.uint32), decoded.values()[name].view(np.uint32))
            assert same, f"{name} is not bit for bit the same"

    with tempfile.TemporaryDirectory() as folder:
        container.write(network, Path(folder) / "net.sqz")
        ways = {
            "torch": TorchClassifier(network),
            "onnxruntime": from_network(network),
            ".sqz": load(Path(folder) / "net.sqz"),
        }
        results = {name: evaluate(way, images) for name, way in ways.items()}
    first = results["torch"].ranked
    accuracy = {
        name: {
            "top1": result.top1,
            "top5": result.top5,
            "images": result.images,
            "same_top5_as_torch": int((result.ranked == first).all(axis=1).sum()),
        }
        for name, result in results.items()
    }
    record(out, {"file_bytes": file_bytes, "decode_seconds": decode_seconds, "accuracy": accuracy})
    print(json.dumps(json.loads(out.read_text()), indent=2))


if __name__ == "__main__":
    arguments = options(__doc__).parse_args()
    main(arguments.data, arguments.out)
