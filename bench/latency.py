"""Latency of one image: ours beside torch, ONNX Runtime and OpenVINO run directly; int8 accuracy.

    python bench/latency.py [--rounds 20] [--calls 40] [--images 500]

Every runtime has a
process of its own with two threads; they take turns, a few calls each, in an order that is drawn
anew in every round, and whoever has no turn is stopped (SIGSTOP), so that none of its threads
disturbs another's. The network of v1.1 has random weights: they do not change what is computed.
int8 of the others is ONNX Runtime's static quantisation with its defaults, filter by filter; all
are calibrated on the same images of imagenette-mini/train.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from common import imagenet, options, published, record

from squeezekit.data import dataset
from squeezekit.interop import onnx_file
from squeezekit.models.catalogue import create
from squeezekit.runtime.calibration import IMAGES, calibrated, calibration_images
from squeezekit.runtime.classifier import from_network, ranked
from squeezekit.runtime.images import prepare_file
from squeezekit.runtime.loading import load
from squeezekit.sqz import container
from squeezekit.sqz.network import Floats, Network

THREADS = 2
WARM_UP = 5  # calls at the beginning of every turn that do not count
Call = Callable[[Floats], object]


# ----------------------------------------------------------------- the runtimes, each in a process


def torch_float(folder: Path) -> Call:
    return _torch(folder, "float32")


def torch_bf16(folder: Path) -> Call:
    return _torch(folder, "bfloat16")


def _torch(folder: Path, dtype: str) -> Call:
    import torch

    from squeezekit.trainable.network import TrainableNetwork

    torch.set_num_threads(THREADS)
    kind = getattr(torch, dtype)
    net = TrainableNetwork(onnx_file.read(folder / "float.onnx")).eval().to(kind)
    net = net.to(memory_format=torch.channels_last)

    def call(image: Floats) -> object:
        with torch.inference_mode():
            x = torch.from_numpy(image).to(kind).contiguous(memory_format=torch.channels_last)
            return net(x).float().numpy()

    return call


def _onnxruntime(model: Path) -> Call:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = THREADS
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return lambda image: session.run(None, {"image": image})


def _openvino(model: Path) -> Call:
    import openvino

    core = openvino.Core()
    read = core.read_model(model)
    read.reshape([1, *list(read.inputs[0].partial_shape)[1:]])
    settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": THREADS}
    request = core.compile_model(read, "CPU", settings).create_infer_request()
    return lambda image: request.infer([image], share_inputs=True)


def _ours(folder: Path, backend: str | None, precision: str | None) -> Call:
    return load(folder / "net.sqz", THREADS, backend, precision).logits


PEERS: Mapping[str, Callable[[Path], Call]] = {
    "torch float32": torch_float,
    "torch bf16": torch_bf16,
    "onnxruntime float": lambda folder: _onnxruntime(folder / "float.onnx"),
    "onnxruntime int8": lambda folder: _onnxruntime(folder / "usual_int8.onnx"),
    "openvino float": lambda folder: _openvino(folder / "float.onnx"),
    "openvino int8": lambda folder: _openvino(folder / "usual_int8.onnx"),
}
OURS: Mapping[str, Callable[[Path], Call]] = {
    "ours": lambda folder: _ours(folder, None, None),
    **{
        f"ours {backend} {precision}": lambda folder, b=backend, p=precision: _ours(folder, b, p)
        for backend in ("onnxruntime", "openvino")
        for precision in ("float", "int8")
    },
}


def serve(name: str, folder: Path, size: int) -> None:
    """Answer each number on stdin with the times of so many calls, in milliseconds."""
    call = {**PEERS, **OURS}[name](folder)
    image = np.random.default_rng(0).normal(0, 1, (1, 3, size, size)).astype(np.float32)
    for _ in range(WARM_UP):
        call(image)
    print("ready", flush=True)
    for line in sys.stdin:
        milliseconds = []
        for _ in range(WARM_UP + int(line)):
            start = time.perf_counter()
            call(image)
            milliseconds.append(1e3 * (time.perf_counter() - start))
        print(json.dumps(milliseconds[WARM_UP:]), flush=True)


class Runtime:
    """A runtime in a process that runs only when it has its turn."""

    def __init__(self, name: str, folder: Path, size: int) -> None:
        command = [sys.executable, __file__, "--serve", name, str(folder), str(size)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        if self._line() != "ready":
            raise SystemExit(f"{name} did not start")
        self._process.send_signal(signal.SIGSTOP)

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def turn(self, calls: int) -> list[float]:
        assert self._process.stdin is not None
        self._process.send_signal(signal.SIGCONT)
        print(calls, file=self._process.stdin, flush=True)
        answer = self._line()
        self._process.send_signal(signal.SIGSTOP)
        return [float(ms) for ms in json.loads(answer)]

    def end(self) -> None:
        self._process.kill()
        self._process.communicate()


@contextlib.contextmanager
def running(folder: Path, size: int) -> Iterator[dict[str, Runtime]]:
    runtimes: dict[str, Runtime] = {}
    try:
        for name in [*PEERS, *OURS]:
            runtimes[name] = Runtime(name, folder, size)
        yield runtimes
    finally:
        for runtime in runtimes.values():
            runtime.end()


def latency(folder: Path, size: int, rounds: int, calls: int) -> dict[str, Any]:
    """Median and p99 of each runtime, and ours against the quickest of the others."""
    times: dict[str, list[float]] = {name: [] for name in [*PEERS, *OURS]}
    order = random.Random(0)
    with running(folder, size) as runtimes:
        start = time.perf_counter()
        for done in range(1, rounds + 1):
            for name in order.sample(list(runtimes), len(runtimes)):
                times[name] += runtimes[name].turn(calls)
            left = (time.perf_counter() - start) / done * (rounds - done)
            print(f"\rround {done} of {rounds}, {left:.0f} s left ", end="", file=sys.stderr)
    print(file=sys.stderr)
    milliseconds = {
        name: {
            "median_ms": round(float(np.median(values)), 3),
            "p99_ms": round(float(np.percentile(values, 99)), 3),
        }
        for name, values in times.items()
    }
    median = {name: figures["median_ms"] for name, figures in milliseconds.items()}
    fastest = min(PEERS, key=median.__getitem__)
    return {
        "milliseconds": milliseconds,
        "fastest_other": fastest,
        "speed_against_the_fastest_other": {
            name: round(median[fastest] / median[name], 3) for name in OURS
        },
    }


# ------------------------------------------------------------------------------------- accuracy


def accuracy(network: Network, folder: Path, data: Path, images: int) -> dict[str, Any]:
    """top-1, top-5, agreement and divergence of every way of int8 from float on imagenet-500."""
    found = imagenet(data, network.metadata)
    found = found.subset(np.arange(images) * len(found) // images)
    ways = {
        "float": from_network(network, THREADS, "onnxruntime", "float"),
        "openvino float": from_network(network, THREADS, "openvino", "float"),
        "int8": from_network(network, THREADS, "onnxruntime", "int8"),
        "openvino int8": from_network(network, THREADS, "openvino", "int8"),
        "onnxruntime's own int8": load(folder / "usual_int8.onnx", THREADS),
    }
    logits: dict[str, list[Floats]] = {name: [] for name in ways}
    for path in found.paths:
        image = prepare_file(path, network.metadata.preprocessing)[np.newaxis]
        for name, way in ways.items():
            logits[name].append(way.logits(image))
    expected = np.concatenate(logits["float"])
    return {
        "images": len(found),
        **{
            name: _against(np.concatenate(parts), expected, found.targets)
            for name, parts in logits.items()
        },
    }


def _against(logits: Floats, expected: Floats, targets: Any) -> dict[str, float]:
    hits = ranked(logits, 5) == targets[:, np.newaxis]
    before, after = _log_softmax(expected), _log_softmax(logits)
    return {
        "top1": round(100 * float(hits[:, 0].mean()), 2),
        "top5": round(100 * float(hits.any(axis=1).mean()), 2),
        "same_top1_as_float": round(
            100 * float((logits.argmax(axis=1) == expected.argmax(axis=1)).mean()), 2
        ),
        "divergence_nats": round(float((np.exp(before) * (before - after)).sum(axis=1).mean()), 5),
    }


def _log_softmax(logits: Floats) -> Any:
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


# ---------------------------------------------------------------------------------- the whole run


def prepared(network: Network, folder: Path, data: Path, count: int) -> Network:
    """Write the network in every form that a runtime takes; gives it with its ranges."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    paths = dataset.split(data / "imagenette-mini", "train").paths
    images = calibration_images(paths, network.metadata.preprocessing, count)

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._images = iter(images)

        def get_next(self) -> dict[str, Floats] | None:
            image = next(self._images, None)
            return None if image is None else {"image": image[np.newaxis]}

    folder.mkdir()
    onnx_file.write(network, folder / "float.onnx")
    quant_pre_process(folder / "float.onnx", folder / "preprocessed.onnx")
    quantize_static(
        folder / "preprocessed.onnx",
        folder / "usual_int8.onnx",
        Reader(),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
    )
    network = calibrated(network, images)
    container.write(network, folder / "net.sqz")
    return network


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--calls", type=int, default=40)
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--calibration", type=int, default=IMAGES)
    args = parser.parse_args()
    networks = {
        "squeezenet-1.0 at 227": published(args.data),
        "squeezenet-1.1 at 224": create("squeezenet-1.1", input_size=224),
    }
    figures: dict[str, Any] = {
        "threads": THREADS,
        "rounds": args.rounds,
        "calls_a_turn": args.calls,
        "openvino": importlib.metadata.version("openvino"),
    }
    with tempfile.TemporaryDirectory() as temporary:
        for number, (name, network) in enumerate(networks.items()):
            folder = Path(temporary) / str(number)
            network = prepared(network, folder, args.data, args.calibration)
            size = network.metadata.preprocessing.crop
            figures[name] = latency(folder, size, args.rounds, args.calls)
            if number == 0:
                figures["accuracy"] = accuracy(network, folder, args.data, args.images)
    record(args.out, figures)
    print(json.dumps(json.loads(args.out.read_text()), indent=2))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        serve(sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]))
    else:
        main()
