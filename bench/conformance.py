"""Networks from many hands through every executor: as ONNX Runtime has them, or refused.

    python bench/conformance.py [--folder FOLDER]

Exports the architectures of `bench/architectures.py` by torch's default and legacy exporters, takes
the classifiers in the installed onnx package's tests, and every .onnx below FOLDER. For each, the
file by ONNX Runtime, image by image, beside the `.sqz` made of it, torch, and the C library as the
page runs it: the scores as a share of their range, the five best classes, or the sentence that it
is refused by. Needs `pip install onnxscript`.
"""

from __future__ import annotations

import json
import logging
import tempfile
import traceback
import warnings
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from architectures import ARCHITECTURES, SIZE
from common import options, record

from squeezekit.errors import SqueezekitError
from squeezekit.interop import onnx_file
from squeezekit.interop.page_runtime import PageRuntime
from squeezekit.interop.weights import as_stored
from squeezekit.runtime.classifier import from_network
from squeezekit.sqz import container
from squeezekit.sqz.network import Network
from squeezekit.trainable.network import TorchClassifier

TOLERANCE = 1e-4
LARGE = 5_000_000
"""Networks of more weights are stored as plain floats: coding them would take minutes."""


def exported(folder: Path) -> list[tuple[str, Path]]:
    """The architectures, by both of torch's exporters."""
    files = []
    for name, make in ARCHITECTURES.items():
        torch.manual_seed(0)
        module = make()
        module.train()
        with torch.no_grad():
            module(torch.randn(16, 3, SIZE, SIZE))  # so that batch norms know something
        module.eval()
        for exporter, settings in (("default", {}), ("legacy", {"dynamo": False})):
            path = folder / f"{name}, {exporter}.onnx"
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                torch.onnx.export(
                    module, (torch.zeros(1, 3, SIZE, SIZE),), path, verbose=False, **settings
                )
            files.append((f"{name} (torch, {exporter} exporter)", path))
    return files


def shipped() -> list[tuple[str, Path]]:
    """The classifiers among the onnx package's tests; their weights are one number a tensor."""
    folder = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
    return [(f"{path.stem} (onnx)", path) for path in sorted(folder.glob("light_*.onnx"))]


def original(path: Path, images: np.ndarray, classes: int) -> np.ndarray:
    """What ONNX Runtime makes of the file itself, (N, classes), in batches of its own size."""
    model = onnx.load(path)
    for node in model.graph.node:
        if node.op_type == "Dropout":
            del node.input[2:]  # dropout in training mode has no answer
    stored = {t.name for t in model.graph.initializer}
    used = {name for node in model.graph.node for name in node.input}
    for value in [v for v in model.graph.input if v.name not in stored and v.name not in used]:
        model.graph.input.remove(value)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    image = session.get_inputs()[0]
    size = image.shape[0] if isinstance(image.shape[0], int) else 1
    rows = []
    for one in images:
        results = session.run(None, {image.name: np.repeat(one[None], size, axis=0)})
        scores = [r.reshape(size, -1)[0] for r in results if r.size == size * classes]
        rows.append(scores[-1])
    return np.stack(rows)


def off(wanted: np.ndarray, got: np.ndarray) -> float:
    """The largest difference as a share of the range of an image's scores.

    Or of a tenth of the largest score, where that is more: the weights of the onnx package's models
    are one number a tensor, so that all classes have one score.
    """
    ranges = np.maximum(np.ptp(wanted, axis=1), 1e-1 * np.abs(wanted).max(axis=1)) + 1e-30
    return float((np.abs(wanted - got).max(axis=1) / ranges).max())


def same_best(wanted: np.ndarray, got: np.ndarray) -> bool:
    """Whether the five best are the same, but for scores that are as good as equal."""
    for a, b in zip(wanted, got, strict=True):
        close = 2 * TOLERANCE * (np.ptp(a) + 1e-30) + 1e-12
        first, second = np.argsort(-a, kind="stable")[:5], np.argsort(-b, kind="stable")[:5]
        if (np.abs(a[first] - a[second]) > close).any():
            return False
    return True


def in_torch(network: Network, images: np.ndarray) -> np.ndarray:
    logits = TorchClassifier(network).logits(images)
    if network.metadata.output == "logits":
        return logits
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def tried(path: Path) -> dict:
    """One network through all executors."""
    row: dict = {}
    try:
        network = onnx_file.read(path)
    except SqueezekitError as error:
        return {"refused": str(error).replace(f"{path}: ", "")}
    size, channels = network.metadata.preprocessing.crop, network.metadata.preprocessing.channels
    images = np.random.default_rng(7).standard_normal((3, channels, size, size), np.float32)
    coder = "entropy" if network.parameters < LARGE else "dense"
    sqz = container.encode(as_stored(network), coder)
    stored = container.decode(sqz)
    classifier = from_network(stored, precision="float")
    found = classifier.logits(images)
    if network.metadata.output == "probabilities":
        found = np.exp(found)
    wanted = original(path, images, found.shape[1])
    row |= {"parameters": network.parameters, "sqz_bytes": len(sqz), "off": {}}
    answers = {".sqz": found}
    for name, run in (
        ("torch", lambda: in_torch(network, images)),
        ("C", lambda: np.stack([PageRuntime(sqz).logits(image) for image in images[:1]])),
    ):
        try:
            answers[name] = run()
        except SqueezekitError as error:
            row[f"refused by {name}"] = str(error)
    for name, got in answers.items():
        row["off"][name] = float(f"{off(wanted[: len(got)], got):.2g}")
        if not same_best(wanted[: len(got)], got) or not row["off"][name] <= TOLERANCE:
            row.setdefault("wrong", []).append(name)
    return row


logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # which torchvision it misses


def main(out: Path, folder: Path | None) -> None:
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        files = exported(Path(temporary)) + shipped()
        if folder is not None:
            files += [(f"{p.stem} (at hand)", p) for p in sorted(folder.rglob("*.onnx"))]
        for name, path in files:
            try:
                row = tried(path)
            except Exception as error:
                traceback.print_exc()
                row = {"traceback": f"{type(error).__name__}: {error}"}
            rows.append({"network": name, **row})
            print(json.dumps(rows[-1]), flush=True)
    record(
        out,
        {
            "tolerance": TOLERANCE,
            "networks": len(rows),
            "same": sum("off" in row and "wrong" not in row for row in rows),
            "same_in_c_too": sum("C" in row.get("off", ()) and "wrong" not in row for row in rows),
            "refused": sum("refused" in row for row in rows),
            "wrong": sum("wrong" in row for row in rows),
            "tracebacks": sum("traceback" in row for row in rows),
            "rows": rows,
        },
    )


if __name__ == "__main__":
    parser = options(__doc__, data=False)
    parser.add_argument("--folder", type=Path, help="of more .onnx files")
    arguments = parser.parse_args()
    main(arguments.out, arguments.folder)
