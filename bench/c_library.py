"""The C library beside ONNX Runtime, on one thread: time for an image, memory, code.

    python bench/c_library.py [--rounds 60]

The library is built by clang -O3 and called in this process. It and ONNX Runtime run in turns, with
floats and in int8; a time is the median of all rounds, a ratio the median of the rounds' ratios.
"""

import ctypes
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
import onnxruntime
from common import ROOT, options, published, record

import squeezekit as sk
from squeezekit.models.catalogue import create
from squeezekit.models.fold import fold_batch_norm
from squeezekit.runtime.calibration import calibrated
from squeezekit.runtime.int8 import int8_model
from squeezekit.sqz import container
from squeezekit.sqz.graph import attach

PRECISIONS = {"float": 1, "int8": 2}
MEMORY = 1


class Library:
    """A file, open in the C library."""

    def __init__(self, library, data, precision):
        self.run = library.sqz_run
        self.net, self.data = ctypes.create_string_buffer(1024), data
        self.size, self.memory = ctypes.c_size_t(0), None
        while True:
            where = ctypes.addressof(self.memory) if self.memory else None
            error = library.sqz_open_as(
                self.net, PRECISIONS[precision], data, ctypes.c_size_t(len(data)),
                ctypes.c_void_p(where), ctypes.byref(self.size),
            )  # fmt: skip
            if error != MEMORY:
                break
            self.memory = ctypes.create_string_buffer(self.size.value + 16)
        assert not error
        sizes = np.frombuffer(self.net, np.uint64, 4, 32).tolist()
        names = ("plan", "weights", "opening", "running")
        self.bytes = dict(zip(names, sizes, strict=True)) | {"all": self.size.value}
        self.classes = int(np.frombuffer(self.net, np.int32, 1, 8)[0])

    def __call__(self, image):
        output = np.empty(self.classes, np.float32)
        self.run(self.net, ctypes.c_void_p(image.ctypes.data), ctypes.c_void_p(output.ctypes.data))
        return output


def session(model):
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = 1
    settings.inter_op_num_threads = 1
    made = onnxruntime.InferenceSession(model, settings, providers=["CPUExecutionProvider"])
    name = made.get_inputs()[0].name
    return lambda image: made.run(None, {name: image[None]})[0].reshape(-1)


def race(library, network, rounds):
    how = network.metadata.preprocessing
    rng = np.random.default_rng(0)
    images = rng.normal(size=(3, how.channels, how.crop, how.crop)).astype(np.float32)
    network = calibrated(fold_batch_norm(network), images)
    data = container.encode(network)
    ways = {f"C {p}": Library(library, data, p) for p in PRECISIONS}
    ways["onnxruntime float"] = session(attach(network.graph, network.values()))
    ways["onnxruntime int8"] = session(int8_model(network))
    outputs = {name: run(images[0]) for name, run in ways.items()}
    times = {name: [] for name in ways}
    for _ in range(rounds):
        for name, run in ways.items():
            start = time.perf_counter()
            run(images[0])
            times[name].append(1000 * (time.perf_counter() - start))
    ratio = {
        p: float(np.median(np.divide(times[f"C {p}"], times[f"onnxruntime {p}"])))
        for p in PRECISIONS
    }
    apart = {
        p: float(abs(outputs[f"C {p}"] - outputs[f"onnxruntime {p}"]).max()) for p in PRECISIONS
    }
    return {
        "milliseconds": {name: round(float(np.median(t)), 2) for name, t in times.items()},
        "C_of_onnxruntime": {p: round(r, 2) for p, r in ratio.items()},
        "largest_difference": apart,
        "largest_output": float(abs(outputs["C float"]).max()),
        "memory_bytes": {p: ways[f"C {p}"].bytes for p in PRECISIONS},
    }


def main():
    parser = options(__doc__)
    parser.add_argument("--rounds", type=int, default=60)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "sqz.so"
        sources = sorted((ROOT / "native" / "sqz").glob("*.c"))
        flags = ["-std=c99", "-O3", "-fPIC", "-shared"]
        subprocess.run(["clang", *flags, *sources, "-o", path], check=True)
        library = ctypes.CDLL(str(path))
    folder = args.data / "networks"
    networks = {
        "squeezenet-1.0 at 227": published(args.data),
        "squeezenet-1.1 at 128": create("squeezenet-1.1", input_size=128, seed=1),
        "squeezenet-1.1 at 224": create("squeezenet-1.1", input_size=224, seed=1),
        "squeezenet-digits": create("squeezenet-digits", seed=1),
        "MobileNetV1 0.25 at 128": sk.read(folder / "mobilenet_v1_0.25_128_quant.tflite"),
        "MobileNetV1 0.5 at 160": sk.read(folder / "mobilenet_v1_0.5_160_quant.tflite"),
    }
    record(args.out, {name: race(library, n, args.rounds) for name, n in networks.items()})


if __name__ == "__main__":
    main()
