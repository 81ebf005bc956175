"""Whether ncnn runs what `export` writes: converted by pnnx, and compared with ONNX Runtime.

    python bench/ncnn_runs.py [--images 100]

Needs `pip install ncnn pnnx`.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from common import PUBLISHED, options, record

import squeezekit
from squeezekit.runtime.images import prepare_file


def main() -> None:
    parser = options(__doc__, result="ncnn.json")
    parser.add_argument("--images", type=int, default=100)
    args = parser.parse_args()
    photos = sorted((args.data / "imagenet-500").glob("*/*.jpg"))[: args.images]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        net = args.data / PUBLISHED
        command = [sys.executable, "-m", "squeezekit", "export", net, folder / "f.onnx"]
        subprocess.run(command, check=True)
        classifier = squeezekit.load(folder / "f.onnx")
        crop = classifier.metadata.preprocessing.crop
        converted = converter()
        subprocess.run(
            [converted, "f.onnx", f"inputshape=[1,3,{crop},{crop}]", "fp16=0"],
            cwd=folder, check=True, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        batch = np.stack(
            [prepare_file(photo, classifier.metadata.preprocessing) for photo in photos]
        )
        logits = classifier.logits(batch)
        theirs = ncnn_outputs(folder / "f.ncnn", batch)
    same = sum(
        np.array_equal(np.argsort(-a)[:5], np.argsort(-b)[:5])
        for a, b in zip(theirs, logits, strict=True)
    )
    figures = {
        "network": "squeezenet-1.0 at 227 (the authors' published file)",
        "ncnn": version("ncnn"),
        "pnnx": version("pnnx"),
        "images": len(photos),
        "same_top5": same,
        "largest_difference_of_logits": float(np.abs(theirs - logits).max()),
    }
    record(args.out, figures)
    print(figures)


def converter() -> Path:
    """pnnx's program, which lies in its package."""
    found = find_spec("pnnx")
    if found is None or found.origin is None:
        raise SystemExit("pip install ncnn pnnx")
    program = Path(found.origin).with_name("pnnx")
    program.chmod(0o755)
    return program


def ncnn_outputs(path: Path, batch: np.ndarray) -> np.ndarray:
    """The network's outputs for each image, computed in float32."""
    import ncnn

    net = ncnn.Net()
    for option in ("fp16_packed", "fp16_storage", "fp16_arithmetic", "bf16_storage"):
        setattr(net.opt, f"use_{option}", False)
    if net.load_param(f"{path}.param") or net.load_model(f"{path}.bin"):
        raise SystemExit("ncnn cannot load what pnnx converted")
    outputs = []
    for image in batch:
        run = net.create_extractor()
        run.input(net.input_names()[0], ncnn.Mat(np.ascontiguousarray(image)).clone())
        error, output = run.extract(net.output_names()[0])
        if error:
            raise SystemExit("ncnn cannot run the network")
        outputs.append(np.array(output).ravel())
    return np.stack(outputs)


if __name__ == "__main__":
    main()
