"""The authors' published network in every lossless form: bytes, decode time, and the same answers.

    python bench/published_network.py DATA OUT.json

DATA holds han-2016/compressed_SqueezeNet.net, imagenet-500 and imagenet-classes.tsv.
"""

from __future__ import annotations

import dataclasses
import gzip
import json
import lzma
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from record import record

from squeezekit.data import dataset
from squeezekit.data.labelling import matched
from squeezekit.evaluation import evaluate
from squeezekit.interop import han
from squeezekit.runtime.classifier import from_network
from squeezekit.runtime.labels import read_labels
from squeezekit.runtime.loading import load
from squeezekit.sqz import container
from squeezekit.trainable.network import TorchClassifier


def main(data: Path, out: Path) -> None:
    published = data / "han-2016" / "compressed_SqueezeNet.net"
    network = han.read(published)
    labels, label_ids = read_labels(data / "imagenet-classes.tsv")
    metadata = dataclasses.replace(network.metadata, labels=labels, label_ids=label_ids)
    network = dataclasses.replace(network, metadata=metadata)
    images = matched(dataset.split(data / "imagenet-500", "all"), metadata)

    raw = published.read_bytes()
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
    main(Path(sys.argv[1]), Path(sys.argv[2]))
