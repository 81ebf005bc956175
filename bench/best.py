"""The method best on the published network: bytes against divergence and accuracy.

    python bench/best.py [--prices 1.5e-9 1.4e-8]

Calibrates on the files of `imagenet-500` whose number divides by 4, without their labels, and
measures on the others. NNCodec's figures (version 2, with bias correction from 63 images) were
measured before, on 250 images of ImageNet that may be others, and are not run again here. With
`--prices` it measures only these, and keeps the points that OUT has from the same commit.
"""

from __future__ import annotations

import json
import resource
import statistics
import time
from pathlib import Path

import numpy as np
from common import (
    COMMIT,
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
from squeezekit.compression.rounder import Rounder, divergence_of
from squeezekit.evaluation import evaluate
from squeezekit.runtime.classifier import from_network
from squeezekit.sqz import container
from squeezekit.sqz.network import SharedTensor

PRICES = (1.5e-9, 1.4e-8, 3.75e-8, 5.5e-8, 1e-7, 1.8e-7, 3.2e-7)

NNCODEC = (  # bytes, divergence
    (341_938, 0.090), (342_889, 0.076), (330_017, 0.094), (298_304, 0.315), (288_057, 0.336),
    (256_677, 0.747),
)  # fmt: skip


def main(data: Path, out: Path, prices: list[float]) -> None:
    network = published(data)
    ours, others = halves(imagenet(data, network.metadata))
    network = without_labels(network)
    preprocessing = network.metadata.preprocessing
    logits = logits_on(pixels_of(others, preprocessing))
    original = evaluate(from_network(network), others)
    reference = logits(network)
    start = time.perf_counter()
    rounder = Rounder(network, pixels_of(ours, preprocessing), Best(mirror=True))
    curvature_seconds = time.perf_counter() - start
    earlier = json.loads(out.read_text()) if out.exists() else {"commit": None}
    points = earlier["points"] if earlier["commit"] == COMMIT else []
    points = [point for point in points if point["price"] not in prices]
    for price in prices:
        start = time.perf_counter()
        point = rounder.round(price)
        seconds = time.perf_counter() - start
        encoded = container.encode(point.network, "entropy")
        found = container.decode(encoded)
        measured = evaluate(from_network(found), others)
        answers = logits(found)
        points.append(
            {
                "file_bytes": len(encoded),
                "divergence_nats": round(divergence_of(reference, answers), 4),
                "top1": measured.top1,
                "top5": measured.top5,
                "same_top1_as_float32_percent": round(
                    100 * float((answers.argmax(1) == reference.argmax(1)).float().mean()), 1
                ),
                "price": price,
                "seconds": round(seconds, 1),
                "decode_seconds_one_core": round(decode_seconds(encoded), 4),
                "payload_over_order0_entropy": round(payload_over_order0(encoded), 4),
            }
        )
        print(json.dumps(points[-1]), flush=True)
    points.sort(key=lambda point: point["price"])
    record(
        out,
        {
            "network": "published SqueezeNet v1.0, without labels in the file",
            "calibration_images": len(ours),
            "held_out_images": len(others),
            "float32": {"top1": original.top1, "top5": original.top5},
            "curvature_seconds": round(curvature_seconds, 1),
            "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
            "points": points,
            "bytes_over_nncodec_at_equal_divergence": [
                {
                    "nncodec_bytes": size,
                    "divergence": d,
                    "ratio": round(bytes_at(points, d) / size, 3),
                }
                for size, d in NNCODEC
            ],
        },
    )


def decode_seconds(encoded: bytes) -> float:
    """Median of reading the whole file's tensors, one after the other."""
    view, times = memoryview(encoded), []
    for _ in range(7):
        start = time.perf_counter()
        for tensor in container.read_head(encoded).records:
            container.decode_tensor(tensor, view)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def payload_over_order0(encoded: bytes) -> float:
    """Bytes of the shared tensors' payloads, tables and all, over the entropy of their levels."""
    view, payload, order0 = memoryview(encoded), 0, 0.0
    for tensor in container.read_head(encoded).records:
        decoded = container.decode_tensor(tensor, view)
        if isinstance(decoded, SharedTensor):
            counts = np.unique(decoded.levels, return_counts=True)[1]
            share = counts / decoded.levels.size
            order0 -= float((counts * np.log2(share)).sum()) / 8
            payload += tensor.payload_bytes
    return payload / order0


def bytes_at(points: list[dict[str, float]], divergence: float) -> float:
    """Bytes at a divergence, between the points of the curve (linear in both logarithms)."""
    curve = sorted((p["divergence_nats"], p["file_bytes"]) for p in points)
    nats, sizes = np.log(np.array(curve)).T
    return float(np.exp(np.interp(np.log(divergence), nats, sizes)))


if __name__ == "__main__":
    parser = options(__doc__, result="best_published_network.json")
    parser.add_argument("--prices", type=float, nargs="*", default=list(PRICES), help="of a bit")
    arguments = parser.parse_args()
    main(arguments.data, arguments.out, arguments.prices)
