"""Each runtime as somebody would use it who has only that, in a script that starts by itself.

    python peers.py first PEER FOLDER IMAGE THREADS                  the first answer, and an end
    python peers.py steady PEER FOLDER IMAGE THREADS BATCH SECONDS   what comes after it
    python peers.py save-torch FOLDER                                the weights as torch keeps them

FOLDER is what `prepare` wrote. The peers import nothing of squeezekit, and only what they need.
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

if TYPE_CHECKING:
    from torch import Tensor, nn

Floats = npt.NDArray[np.float32]
Run = Callable[[Floats], Floats]
"""From a batch (N, C, H, W) to scores of N rows."""

_WARM_UP = 3
_FEWEST = 5


def prepared(image: Path, how: dict[str, Any]) -> Floats:
    """An image as the network takes it, float32 (1, C, crop, crop), the short way."""
    with Image.open(image) as file:
        photo = ImageOps.exif_transpose(file).convert("L" if how["color"] == "L" else "RGB")
    size, crop = how["resize"], how["crop"]
    if how["resize_mode"] == "warp":
        width = height = size
    else:
        short = min(photo.size)
        width, height = (size * side // short for side in photo.size)
    photo = photo.resize((width, height), Image.Resampling[how["interpolation"].upper()])
    left, top = (width - crop) // 2, (height - crop) // 2
    pixels = np.asarray(photo.crop((left, top, left + crop, top + crop)), np.float32)
    pixels = pixels.reshape(crop, crop, -1)  # (H, W, C)
    if how["color"] == "BGR":
        pixels = pixels[:, :, ::-1]
    x = (pixels * how["scale"] - how["mean"]) / how["std"]
    return np.ascontiguousarray(x.transpose(2, 0, 1)[None], np.float32)


def load_squeezekit(folder: Path, threads: int) -> Run:
    """Ours; its first answer is taken from the command line instead."""
    from squeezekit.interop.opening import load

    return load(folder / "model.sqz", threads).logits


def load_onnxruntime(folder: Path, threads: int) -> Run:
    """ONNX Runtime on the .onnx."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(
        folder / "model.onnx", options, providers=["CPUExecutionProvider"]
    )
    name = session.get_inputs()[0].name
    return lambda batch: session.run(None, {name: batch})[0]


def load_openvino(folder: Path, threads: int) -> Run:
    """OpenVINO on the .onnx, at its own precision: bf16 where the processor computes in it."""
    import openvino

    settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads}
    model = openvino.Core().compile_model(folder / "model.onnx", "CPU", settings)
    return lambda batch: model(batch)[0]


def load_torch(folder: Path, threads: int, *, bf16: bool = False) -> Run:
    """PyTorch: the modules, then the weights from a state dict."""
    import torch

    torch.set_num_threads(threads)
    network = torch_network(json.loads((folder / "model.json").read_text()))
    network.load_state_dict(torch.load(folder / "model.pth", weights_only=True))
    network.eval()
    if bf16:
        network.to(dtype=torch.bfloat16)
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def run(batch: Floats) -> Floats:
        images = torch.from_numpy(batch)
        if bf16:
            images = images.to(dtype=torch.bfloat16, memory_format=torch.channels_last)
        with torch.inference_mode():
            scores: Floats = network(images).float().numpy()
        return scores

    return run


PEERS: dict[str, tuple[str, Callable[[Path, int], Run]]] = {
    "squeezekit": ("squeezekit.runtime.classifier", load_squeezekit),
    "onnxruntime": ("onnxruntime", load_onnxruntime),
    "openvino": ("openvino", load_openvino),
    "torch": ("torch", load_torch),
    "torch-bf16": ("torch", partial(load_torch, bf16=True)),
}
"""By name: the module that it imports, and how it loads a network."""


def torch_network(model: dict[str, Any]) -> nn.Module:
    """A network of torch's own modules, from `prepare.plain_form`."""
    import torch
    from torch import nn

    nodes = model["nodes"]
    last = {name: i for i, node in enumerate(nodes) for name in node["inputs"]}
    uses = Counter(name for node in nodes for name in node["inputs"])
    layers = [_torch_layer(node, model["shapes"], uses) for node in nodes]

    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList(layer for layer in layers if isinstance(layer, nn.Module))

        def forward(self, x: Tensor) -> Tensor:
            values = {model["input"]: x}
            for i, (node, layer) in enumerate(zip(nodes, layers, strict=True)):
                names = [name for name in node["inputs"] if name in values]
                values[node["output"]] = layer(*(values[name] for name in names))
                for name in names:
                    if last[name] == i:
                        values.pop(name, None)
            return torch.flatten(values[model["output"]], 1)

    return Plain()


def _torch_layer(
    node: dict[str, Any], shapes: dict[str, list[int]], uses: Counter[str]
) -> Callable[..., Tensor]:
    import torch
    from torch import nn

    settings, operator = node["settings"], node["operator"]
    match operator:
        case "Conv":
            filters, channels, *_ = shapes[node["inputs"][1]]
            groups = settings.get("group", 1)
            return nn.Conv2d(
                channels * groups,
                filters,
                _pair(settings["kernel_shape"]),
                _pair(settings.get("strides", [1, 1])),
                _padding(settings),
                _pair(settings.get("dilations", [1, 1])),
                groups,
                len(node["inputs"]) > 2,
            )
        case "Gemm":
            outputs, inputs = shapes[node["inputs"][1]][:: 1 if settings.get("transB") else -1]
            return nn.Linear(inputs, outputs, len(node["inputs"]) > 2)
        case "BatchNormalization":
            (channels,) = shapes[node["inputs"][1]]
            return nn.BatchNorm2d(channels, settings.get("epsilon", 1e-5))
        case "Relu":
            return nn.ReLU(inplace=uses[node["inputs"][0]] == 1)
        case "MaxPool":
            return nn.MaxPool2d(
                _pair(settings["kernel_shape"]),
                _pair(settings.get("strides", [1, 1])),
                _padding(settings),
                ceil_mode=bool(settings.get("ceil_mode")),
            )
        case "AveragePool":
            return nn.AvgPool2d(
                _pair(settings["kernel_shape"]),
                _pair(settings.get("strides", [1, 1])),
                _padding(settings),
                bool(settings.get("ceil_mode")),
                bool(settings.get("count_include_pad")),
            )
        case "GlobalAveragePool":
            return nn.AdaptiveAvgPool2d(1)
        case "LRN":
            alpha, beta, bias = (settings.get(k, d) for k, d in _LRN_DEFAULTS.items())
            return nn.LocalResponseNorm(settings["size"], alpha, beta, bias)
        case "Dropout":
            return nn.Dropout()
        case "Softmax":
            return nn.Softmax(1)
        case "Flatten":
            return nn.Flatten(settings.get("axis", 1))
        case "Concat":
            return lambda *parts: torch.cat(parts, settings["axis"])
        case "Add":
            return torch.add
        case "Identity":
            return nn.Identity()
    sys.exit(f"the script for torch has no {operator} ({node['output']})")


_LRN_DEFAULTS = {"alpha": 1e-4, "beta": 0.75, "bias": 1.0}


def _pair(sizes: list[int]) -> tuple[int, int]:
    across, down = sizes
    return across, down


def _padding(settings: dict[str, Any]) -> tuple[int, int]:
    top, left, bottom, right = settings.get("pads", [0, 0, 0, 0])
    if (top, left) != (bottom, right) or settings.get("auto_pad", "NOTSET") != "NOTSET":
        sys.exit("the script for torch pads opposite sides alike only")
    return top, left


def save_torch(folder: Path) -> None:
    """Write `model.pth`, the state dict that torch's users have."""
    import torch

    model = json.loads((folder / "model.json").read_text())
    network = torch_network(model)
    weights = np.load(folder / "weights.npz")
    layers = [node for node in model["nodes"] if node["operator"] in _WITH_WEIGHTS]
    modules = [m for m in network.modules() if type(m).__name__ in _WITH_WEIGHTS.values()]
    for node, module in zip(layers, modules, strict=True):
        names = ("weight", "bias", "running_mean", "running_var")
        for name, tensor in zip(names, node["inputs"][1:], strict=False):
            value = torch.from_numpy(weights[tensor])
            if (
                node["operator"] == "Gemm"
                and name == "weight"
                and not node["settings"].get("transB")
            ):
                value = value.T
            getattr(module, name).data.copy_(value)
    torch.save(network.state_dict(), folder / "model.pth")


_WITH_WEIGHTS = {"Conv": "Conv2d", "Gemm": "Linear", "BatchNormalization": "BatchNorm2d"}


def _top1(scores: Floats) -> int:
    return int(scores[0].reshape(-1).argmax())


def _timed(run: Run, batch: Floats, seconds: float) -> list[float]:
    """Seconds that each of many calls takes."""
    for _ in range(_WARM_UP):
        run(batch)
    times: list[float] = []
    while len(times) < _FEWEST or sum(times) < seconds:
        start = time.perf_counter()
        run(batch)
        times.append(time.perf_counter() - start)
    return times


def _first(peer: str, folder: Path, image: Path, threads: int) -> dict[str, Any]:
    run = PEERS[peer][1](folder, threads)
    how = json.loads((folder / "model.json").read_text())["preprocessing"]
    return {"top1": _top1(run(prepared(image, how)))}


def _steady(
    peer: str, folder: Path, image: Path, threads: int, batch: int, seconds: float
) -> dict[str, Any]:
    module, load = PEERS[peer]
    import_module(module)
    start = time.perf_counter()
    run = load(folder, threads)
    load_seconds = time.perf_counter() - start
    how = json.loads((folder / "model.json").read_text())["preprocessing"]
    x = prepared(image, how)
    times = _timed(run, np.repeat(x, batch, axis=0), seconds)
    return {
        "top1": _top1(run(x)),
        "load_seconds": load_seconds,
        "latency_seconds": _timed(run, x, seconds),
        "images_per_second": batch * len(times) / sum(times),
    }


def main(arguments: list[str]) -> None:
    """Do what the module's docstring says; one line of JSON on stdout."""
    match arguments:
        case ["first", peer, folder, image, threads]:
            print(json.dumps(_first(peer, Path(folder), Path(image), int(threads))), flush=True)
        case ["steady", peer, folder, image, threads, batch, seconds]:
            how_many = (int(threads), int(batch), float(seconds))
            print(json.dumps(_steady(peer, Path(folder), Path(image), *how_many)), flush=True)
        case ["save-torch", folder]:
            save_torch(Path(folder))


if __name__ == "__main__":
    main(sys.argv[1:])
