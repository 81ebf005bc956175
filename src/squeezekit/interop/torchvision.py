"""State dicts of torchvision's SqueezeNets and AlexNet, read without running any pickled code."""

from __future__ import annotations

import dataclasses
import io
import pickle
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from squeezekit.errors import InputError, UnsupportedError
from squeezekit.files import read_bytes
from squeezekit.models.builder import GraphBuilder, constant
from squeezekit.models.squeezenet import squeezenet, v1_0, v1_1
from squeezekit.runtime.preprocessing import with_assumption
from squeezekit.sqz.network import TORCHVISION, Floats, Metadata, Network, Tensor


@dataclass(frozen=True)
class _Architecture:
    """One of torchvision's networks.

    Attributes:
        name: torchvision's.
        build: makes the network for a number of classes, with any weights.
        layers: torchvision's name of each of our layers.
        head: the layer that has one output a class.
        features: that the head takes.
        body: weights and biases of all other layers together.
    """

    name: str
    build: Callable[[int], Network]
    layers: Mapping[str, str]
    head: str
    features: int
    body: int

    def keys(self) -> set[str]:
        return {f"{layer}.{part}" for layer in self.layers.values() for part in ("weight", "bias")}


def read(path: Path | str) -> Network:
    """Read a `.pth`: a state dict, perhaps under "state_dict" and with "module." before its names.

    Raises:
        InputError: if the file is not from torch.save, holds more than tensors, shapes do not fit,
            or torch is missing.
        UnsupportedError: if it holds another network.
    """
    try:
        import torch
    except ImportError:
        raise InputError("reading a .pth needs torch: pip install squeezekit[train]") from None

    data = read_bytes(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd files, which get their sentence below
            loaded = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise InputError(
            f"{path}: is damaged, or holds more than tensors, which could run any code; "
            "save only its state_dict()"
        ) from None
    except Exception as error:  # torch raises whatever it trips over in a damaged file
        first_line = str(error).partition("\n")[0]
        raise InputError(f"{path}: is not a file of torch.save ({first_line})") from None
    for wrapper in ("state_dict", "model_state_dict", "model"):
        if isinstance(loaded, Mapping) and isinstance(loaded.get(wrapper), Mapping):
            loaded = loaded[wrapper]
    if not isinstance(loaded, Mapping):
        raise InputError(f"{path}: holds no state dict")
    given = {name: value for name, value in loaded.items() if isinstance(value, torch.Tensor)}
    if sum(value.numel() for value in given.values()) > len(data):  # by strides of 0, for example
        raise InputError(f"{path}: states more numbers than it holds")
    try:
        state = {
            str(name).removeprefix("module."): value.detach().float().numpy()
            for name, value in given.items()
        }
    except (RuntimeError, NotImplementedError, TypeError) as error:
        first_line = str(error).partition("\n")[0]
        raise InputError(f"{path}: holds tensors that are no plain arrays ({first_line})") from None
    return from_state_dict(state, path)


def from_state_dict(state: Mapping[str, Floats], source: Path | str) -> Network:
    """Recognise a network by the names of its tensors, and build it.

    The number of classes is that of the weights; labels are unknown.

    Args:
        state: float32 arrays by torchvision's names.
        source: what the weights came from, for messages and provenance.

    Raises:
        InputError: if a tensor has another shape than in torchvision's network.
        UnsupportedError: if the names are not those of a network that is known.
    """
    for architecture in _ARCHITECTURES:
        if architecture.keys() == set(state):
            return _converted(architecture, state, source)
    known = ", ".join(architecture.name for architecture in _ARCHITECTURES)
    raise UnsupportedError(
        f"{source}: its tensors are not those of torchvision's {known}; "
        "export other networks to ONNX"
    )


def _converted(
    architecture: _Architecture, state: Mapping[str, Floats], source: Path | str
) -> Network:
    classes = state[f"{architecture.layers[architecture.head]}.bias"].size
    # Names alone must not make room for a network that the file has no numbers for.
    needed = architecture.body + classes * (architecture.features + 1)
    numbers = sum(values.size for values in state.values())
    if numbers < needed // 2:  # of others the tensor that does not fit is named below
        raise InputError(
            f"{source}: holds {numbers:,} numbers where torchvision's {architecture.name} "
            f"has {needed:,}"
        )
    network = architecture.build(classes)
    tensors: dict[str, Tensor] = {}
    for name, old in network.tensors.items():
        layer, _, part = name.rpartition(".")
        key = f"{architecture.layers[layer]}.{part}"
        if state[key].shape != old.shape:
            raise InputError(
                f"{source}: {key} has the shape {state[key].shape}, "
                f"but {old.shape} in torchvision's {architecture.name}"
            )
        tensors[name] = np.ascontiguousarray(state[key], np.float32)
    provenance = (f"{Path(source).name}: a state dict of torchvision's {architecture.name}",)
    metadata = dataclasses.replace(network.metadata, provenance=provenance)
    return dataclasses.replace(network.with_tensors(tensors), metadata=with_assumption(metadata))


def _squeezenet_layers(fires: tuple[int, ...]) -> dict[str, str]:
    """Our layers' names to torchvision's, given the places of fire2, fire3, ... in `features`."""
    layers = {"conv1": "features.0"}
    for i, place in enumerate(fires, start=2):
        layers[f"fire{i}.squeeze1x1"] = f"features.{place}.squeeze"
        layers[f"fire{i}.expand1x1"] = f"features.{place}.expand1x1"
        layers[f"fire{i}.expand3x3"] = f"features.{place}.expand3x3"
    return layers | {"conv10": "classifier.1"}


def _alexnet(classes: int) -> Network:
    """The AlexNet of torchvision, its weights zero.

    It has no groups, no LRN, and other widths than Caffe's (Krizhevsky 2014). Its adaptive pool
    to 6x6 does nothing at the input size of 224, and is left out.
    """
    net, empty = GraphBuilder(3, 224, 224), constant(0.0)
    x = net.conv("conv1", net.image, 64, 11, stride=4, pad=2, init=empty)
    x = net.relu("conv1.relu", x)
    x = net.max_pool("pool1", x, 3, 2, ceil=False)  # (N, 64, 27, 27)
    x = net.relu("conv2.relu", net.conv("conv2", x, 192, 5, pad=2, init=empty))
    x = net.max_pool("pool2", x, 3, 2, ceil=False)  # (N, 192, 13, 13)
    for name, filters in (("conv3", 384), ("conv4", 256), ("conv5", 256)):
        x = net.relu(f"{name}.relu", net.conv(name, x, filters, 3, pad=1, init=empty))
    x = net.max_pool("pool5", x, 3, 2, ceil=False)  # (N, 256, 6, 6)
    x = net.flatten("flatten", x)  # (N, 9216)
    for name, drop in (("fc6", "drop5"), ("fc7", "drop6")):
        x = net.dropout(drop, x, 0.5)
        x = net.relu(f"{name}.relu", net.linear(name, x, 4096, init=empty))
    x = net.linear("fc8", x, classes, init=empty)
    return net.build(x, Metadata("alexnet-torchvision", TORCHVISION))


_ARCHITECTURES = (
    _Architecture(
        "squeezenet1_0",
        lambda classes: squeezenet(v1_0(classes)),
        _squeezenet_layers((3, 4, 5, 7, 8, 9, 10, 12)),
        head="conv10",
        features=512,
        body=735_424,
    ),
    _Architecture(
        "squeezenet1_1",
        lambda classes: squeezenet(v1_1(classes)),
        _squeezenet_layers((3, 4, 6, 7, 9, 10, 11, 12)),
        head="conv10",
        features=512,
        body=722_496,
    ),
    _Architecture(
        "alexnet",
        _alexnet,
        {
            "conv1": "features.0", "conv2": "features.3", "conv3": "features.6",
            "conv4": "features.8", "conv5": "features.10",
            "fc6": "classifier.1", "fc7": "classifier.4", "fc8": "classifier.6",
        },
        head="fc8",
        features=4096,
        body=57_003_840,
    ),
)  # fmt: skip
