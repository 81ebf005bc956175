"""The published network as a small file, every way side by side: bytes and accuracy.

    python bench/small_files.py

Files of `imagenet-500` whose number divides by 4 calibrate, without labels; the others measure.
Needs `pip install zstandard`. Nothing here is retrained; `bench/best.py` measures `--method best`
on the same images.
"""

from __future__ import annotations

import gzip
import json
import lzma
import tempfile
from pathlib import Path

import numpy as np
import onnx
from common import PUBLISHED, halves, imagenet, options, published, record, without_labels
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static

from squeezekit.compression.deep import Deep, deep_compression
from squeezekit.evaluation import evaluate
from squeezekit.runtime import backends
from squeezekit.runtime.calibration import calibrated, calibration_images
from squeezekit.runtime.classifier import Classifier, from_network
from squeezekit.runtime.int8 import int8_model
from squeezekit.sqz import container
from squeezekit.sqz.graph import attach


class Reader(CalibrationDataReader):
    """Prepared images, one by one, as ONNX Runtime's quantiser takes them."""

    def __init__(self, name: str, images: np.ndarray) -> None:
        self._left = iter([{name: image[None]} for image in images])

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._left, None)


def main(data: Path, out: Path) -> None:
    import zstandard

    network = published(data)
    ours, others = halves(imagenet(data, network.metadata))
    network = without_labels(network)
    metadata = network.metadata
    calibration = calibration_images(ours.paths, metadata.preprocessing, len(ours))
    raw = (data / PUBLISHED).read_bytes()
    original = evaluate(from_network(network), others)
    rows = []

    def add(name: str, size: int, result=original) -> None:
        rows.append({"file": name, "bytes": size, "top1": result.top1, "top5": result.top5})
        print(json.dumps(rows[-1]), flush=True)

    def add_sqz(name: str, network, coder="entropy") -> None:
        encoded = container.encode(network, coder)
        add(name, len(encoded), evaluate(from_network(container.decode(encoded)), others))

    def measured(path: Path):
        return evaluate(
            Classifier(backends.start("onnxruntime", path.read_bytes(), None), metadata), others
        )

    with tempfile.TemporaryDirectory() as folder:
        plain, quantised, own = (Path(folder, f"{n}.onnx") for n in ("plain", "int8", "own"))
        plain.write_bytes(attach(network.graph, network.values()))
        add("float32 .onnx", plain.stat().st_size)
        inputs = onnx.load(plain).graph.input
        quantize_static(
            plain, quantised, Reader(inputs[0].name, calibration[:100]),
            quant_format=QuantFormat.QDQ, per_channel=True,
        )  # fmt: skip
        add("int8 .onnx, ONNX Runtime's quantiser", quantised.stat().st_size,
            measured(quantised))  # fmt: skip
        with_ranges = calibrated(network, calibration[:100])
        own.write_bytes(int8_model(with_ranges))
        add("int8 .onnx, squeezekit", own.stat().st_size, measured(own))
    add("published .net", len(raw))
    add("gzip -9 of it", len(gzip.compress(raw, 9)))
    add("zstd -22 of it", len(zstandard.ZstdCompressor(level=22).compress(raw)))
    add("xz -9e of it", len(lzma.compress(raw, preset=9 | lzma.PRESET_EXTREME)))
    add_sqz(".sqz, Huffman", network, "huffman")
    add_sqz(".sqz, entropy coder", network)
    for bits in (6, 5):
        config = Deep(bits=bits, retrain=None, centroids=None)
        add_sqz(f"--method deep --bits {bits}", deep_compression(network, config).list[-1].network)
    record(
        out,
        {
            "network": "published SqueezeNet v1.0, without labels in the file",
            "calibration_images": len(ours),
            "held_out_images": len(others),
            "rows": rows,
        },
    )


if __name__ == "__main__":
    arguments = options(__doc__).parse_args()
    main(arguments.data, arguments.out)
