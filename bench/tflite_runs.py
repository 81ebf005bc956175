"""TensorFlow Lite files written here, in LiteRT beside ONNX Runtime: bytes, answers, and time.

    python bench/tflite_runs.py

Networks: the authors' v1.0 and v1.1, and MobileNetV1 0.25 and 0.5, which were .tflite before.
Answers on 100 photos that int8 was not calibrated on. Times are medians of single images on one
thread, each round with all contestants in turn.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
from ai_edge_litert.interpreter import Interpreter
from common import options, published, record
from PIL import Image

import squeezekit as sk
from squeezekit.runtime.images import prepare_file

PHOTOS, CALIBRATION, ROUNDS = 100, 100, 15


def by_litert(path: Path) -> Callable[[np.ndarray], np.ndarray]:
    lite = Interpreter(str(path), num_threads=1)
    lite.allocate_tensors()
    taken, given = lite.get_input_details()[0], lite.get_output_details()[0]

    def run(image: np.ndarray) -> np.ndarray:
        lite.set_tensor(taken["index"], image)
        lite.invoke()
        return lite.get_tensor(given["index"])[0]

    return run


def by_onnx_runtime(path: Path) -> Callable[[np.ndarray], np.ndarray]:
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, settings, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda image: session.run(None, {name: image})[0].reshape(-1)


def measured(network: sk.Network, folder: Path, photos: list[Path]) -> dict:
    how = network.metadata.preprocessing
    images = [prepare_file(photo, how) for photo in photos]
    found = {}
    for kind in ("float", "int8"):
        runs = {}
        for ending, open_file in ((".onnx", by_onnx_runtime), (".tflite", by_litert)):
            path = sk.write(network, folder / f"net{ending}", int8=kind == "int8")
            last = ending == ".tflite"
            turned = [
                np.ascontiguousarray(
                    (x[::-1] if how.color == "BGR" else x).transpose(1, 2, 0) if last else x
                )[np.newaxis]
                for x in images
            ]
            runs[ending] = (open_file(path), turned, path.stat().st_size)
        answers = {
            ending: np.array([run(image) for image in turned])
            for ending, (run, turned, _) in runs.items()
        }
        ours, theirs = answers[".tflite"], answers[".onnx"]
        times: dict[str, list[float]] = {ending: [] for ending in runs}
        for i in range(ROUNDS):
            for ending, (run, turned, _) in runs.items():
                start = time.perf_counter()
                run(turned[i])
                times[ending].append(time.perf_counter() - start)
        top5 = [
            set(np.argsort(-a)[:5]) == set(np.argsort(-b)[:5])
            for a, b in zip(ours, theirs, strict=True)
        ]
        found[kind] = {
            "tflite_bytes": runs[".tflite"][2],
            "onnx_bytes": runs[".onnx"][2],
            "photos": len(images),
            "same_top1": int((ours.argmax(1) == theirs.argmax(1)).sum()),
            "same_top5": sum(top5),
            "largest_difference_of_range": float(np.abs(ours - theirs).max() / np.ptp(theirs)),
            "mean_difference_of_range": float(np.abs(ours - theirs).mean() / np.ptp(theirs)),
            "milliseconds": {
                ending: round(1000 * statistics.median(values), 2)
                for ending, values in times.items()
            },
        }
    return found


def opened(path: Path) -> Image.Image:
    with Image.open(path) as image:
        return image.convert("RGB")


def main(data: Path, out: Path) -> None:
    photos = sorted((data / "imagenet-500").rglob("*.jp*g"))
    calibration, photos = photos[0::5][:CALIBRATION], photos[1::5][:PHOTOS]
    folder = data / "networks"
    networks = {
        "SqueezeNet v1.0": published(data),
        "SqueezeNet v1.1": sk.read(folder / "squeezenet-1.1-caffe.safetensors"),
        "MobileNetV1 0.25 at 128": sk.read(folder / "mobilenet_v1_0.25_128_quant.tflite"),
        "MobileNetV1 0.5 at 160": sk.read(folder / "mobilenet_v1_0.5_160_quant.tflite"),
    }
    results = {}
    for name, network in networks.items():
        ready = sk.calibrate(network, [opened(path) for path in calibration])
        with tempfile.TemporaryDirectory() as place:
            results[name] = measured(ready, Path(place), photos)
    record(out, {"networks": results})


if __name__ == "__main__":
    arguments = options(__doc__).parse_args()
    main(arguments.data, arguments.out)
