"""`Network`: an ONNX graph, its tensors, and metadata; without torch."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from squeezekit.sqz.graph import stated_outputs
from squeezekit.sqz.tensors import Floats as Floats
from squeezekit.sqz.tensors import Levels as Levels
from squeezekit.sqz.tensors import SharedTensor as SharedTensor
from squeezekit.sqz.tensors import Tensor as Tensor
from squeezekit.sqz.tensors import tensor_values as tensor_values
from squeezekit.sqz.trained_on import TrainedOn
from squeezekit.text import encodable

Range = tuple[float, float]


LEAST_RANGE, LARGEST_RANGE = 2.0**-100, 2.0**100
"""How wide a range of activations may be: steps of int8, times those of weights, are far from the
ends of float32. No short decimal number comes near these powers, so all readers judge alike."""


def check_range(name: str, low: float, high: float) -> None:
    """Refuse a range of activations that int8 cannot use.

    Raises:
        ValueError: if it does not hold 0, or is too narrow or too wide.
    """
    if not low <= 0 <= high or not LEAST_RANGE <= high - low <= LARGEST_RANGE:
        raise ValueError(f"the activations of {name} cannot range from {low} to {high}")


@dataclass(frozen=True)
class Preprocessing:
    """How an image is prepared for the network, in this order.

    1. It is turned upright (EXIF) and converted to 8-bit `color`.
    2. It is resized with `interpolation` (antialiased, as Pillow does), either to exactly
       `resize` x `resize` ("warp") or so that its short side is `resize` ("short_side").
    3. Its centre of `crop` x `crop` is cut out.
    4. x = (pixel * scale - mean) / std for each channel, channels in the order of `color`.

    Attributes:
        crop: height and width of the network's input, in pixels.
        resize: size in pixels before the crop; at least `crop`.
        resize_mode: "warp" does not keep the aspect ratio; "short_side" does.
        color: order of the channels: "RGB", "BGR" or one channel "L".
        interpolation: "nearest", "bilinear" or "bicubic".
        scale: what the 8-bit pixel value is multiplied by; 1/255 gives 0..1.
        mean, std: one value for each channel, in the order of `color`, in units of pixel * scale.
    """

    crop: int
    resize: int
    resize_mode: Literal["warp", "short_side"] = "short_side"
    color: Literal["RGB", "BGR", "L"] = "RGB"
    interpolation: Literal["nearest", "bilinear", "bicubic"] = "bilinear"
    scale: float = 1 / 255
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)

    def __post_init__(self) -> None:
        choices: tuple[tuple[object, tuple[str, ...]], ...] = (
            (self.resize_mode, ("warp", "short_side")),
            (self.color, ("RGB", "BGR", "L")),
            (self.interpolation, ("nearest", "bilinear", "bicubic")),
        )
        for value, allowed in choices:
            if value not in allowed:
                raise ValueError(f"{value!r} is not one of {', '.join(allowed)}")
        if not 1 <= self.crop <= self.resize <= 65_536:
            raise ValueError(f"crop {self.crop} and resize {self.resize} do not fit each other")
        if len(self.mean) != self.channels or len(self.std) != self.channels:
            raise ValueError(f"mean and std must have {self.channels} values for {self.color}")
        numbers = np.array([self.scale, *self.mean, *self.std], dtype=np.float64)
        if not np.all(np.isfinite(numbers)) or 0.0 in self.std or self.scale == 0.0:
            raise ValueError("scale and std must be finite and not zero, mean finite")

    @property
    def channels(self) -> int:
        """Number of input channels: 1 for "L", else 3."""
        return 1 if self.color == "L" else 3


CAFFE = Preprocessing(
    crop=227, resize=256, resize_mode="warp", color="BGR", scale=1.0,
    mean=(104.0, 117.0, 123.0), std=(1.0, 1.0, 1.0),
)  # fmt: skip
"""The preprocessing of the SqueezeNet and AlexNet authors' Caffe networks (train_val.prototxt)."""

TORCHVISION = Preprocessing(crop=224, resize=256)
"""The preprocessing of torchvision's ImageNet classifiers."""


@dataclass(frozen=True)
class Metadata:
    """Everything that a prediction needs in addition to the graph and the weights.

    Attributes:
        name: the name of the architecture ("squeezenet-1.0").
        preprocessing: how an image becomes an input.
        labels: one name for each class, in the order of the outputs; empty if unknown.
        label_ids: one id for each class (WordNet ids for ImageNet), or empty.
        output: whether the graph ends in "logits" (softmax follows) or "probabilities".
        licence: SPDX id or text of the weights' licence; empty if unknown.
        provenance: where the weights come from and what was done to them, one line for each step.
        activations: the smallest and the largest value of each tensor between layers, for int8 (see
            `runtime.int8`), by the tensor's name; empty if the network was not calibrated.
        trained_on: fingerprints of the photos it has seen, one entry for each training; empty if
            unknown.
        title: what its owner calls it ("my shop"); may be empty.
    """

    name: str
    preprocessing: Preprocessing
    labels: tuple[str, ...] = ()
    label_ids: tuple[str, ...] = ()
    output: Literal["logits", "probabilities"] = "logits"
    licence: str = ""
    provenance: tuple[str, ...] = ()
    activations: Mapping[str, Range] = field(default_factory=dict, hash=False)
    trained_on: tuple[TrainedOn, ...] = ()
    title: str = ""

    def __post_init__(self) -> None:
        # Names of files and folders end up here, and a file must be able to hold all of them.
        for field_name in ("name", "licence", "title"):
            object.__setattr__(self, field_name, encodable(getattr(self, field_name)))
        for field_name in ("labels", "label_ids", "provenance"):
            texts = tuple(encodable(text) for text in getattr(self, field_name))
            object.__setattr__(self, field_name, texts)
        for name, (low, high) in self.activations.items():
            check_range(name, low, high)
        if self.output not in ("logits", "probabilities"):
            raise ValueError(f"output {self.output!r} is neither logits nor probabilities")
        if self.labels and self.label_ids and len(self.labels) != len(self.label_ids):
            raise ValueError(f"{len(self.labels)} labels, but {len(self.label_ids)} label ids")

    def with_step(self, step: str) -> Metadata:
        """The same with one more line of provenance."""
        return dataclasses.replace(self, provenance=(*self.provenance, step))

    def uncalibrated(self) -> Metadata:
        """The same without ranges of activations, for when the weights change."""
        return dataclasses.replace(self, activations={}) if self.activations else self


@dataclass(frozen=True, eq=False)
class Network:
    """A classifier: an ONNX graph without its weights, the weights by name, and the metadata.

    All parts of squeezekit pass networks around in this form. Treat it as immutable: make a changed
    one with `with_tensors` or `dataclasses.replace`.

    Attributes:
        graph: a serialized ONNX ModelProto without the weights (see `sqz.graph`). It has one input
            of shape (N, C, H, W) with symbolic N. Its first output is (N, classes), or any shape
            that flattens to it.
        tensors: float32 arrays or SharedTensors, by the names that the graph's nodes use.
        metadata: labels, preprocessing, provenance.
    """

    graph: bytes
    tensors: Mapping[str, Tensor]
    metadata: Metadata

    def with_step(self, step: str) -> Network:
        """The same with one more line of provenance."""
        return dataclasses.replace(self, metadata=self.metadata.with_step(step))

    def with_tensors(self, changed: Mapping[str, Tensor]) -> Network:
        """The same network with some tensors replaced; their shapes must stay.

        It loses its ranges of activations, which were measured with the old tensors.

        Raises:
            KeyError: if a name is not one of the network's tensors.
            ValueError: if a shape differs.
        """
        for name, tensor in changed.items():
            if tensor.shape != self.tensors[name].shape:
                raise ValueError(
                    f"tensor {name} has shape {self.tensors[name].shape}, not {tensor.shape}"
                )
        return dataclasses.replace(
            self, tensors={**self.tensors, **changed}, metadata=self.metadata.uncalibrated()
        )

    def values(self) -> dict[str, Floats]:
        """Every tensor as float32."""
        return {name: tensor_values(tensor) for name, tensor in self.tensors.items()}

    @property
    def parameters(self) -> int:
        """Number of weights and biases, pruned ones included."""
        return sum(tensor.size for tensor in self.tensors.values())

    @property
    def nonzero(self) -> int:
        """Number of weights and biases that are not exactly zero."""
        return sum(int(np.count_nonzero(values)) for values in self.values().values())

    @property
    def outputs(self) -> int | None:
        """How many classes it has, as its graph says; None if the graph does not say it."""
        return stated_outputs(self.graph)

    def to_torch(self) -> Any:  # noqa: ANN401 - whose type would need torch
        """The network as a torch module (`trainable.network.TrainableNetwork`).

            module = net.to_torch()              # an nn.Module: (N, C, H, W) to logits (N, classes)
            ...                                  # train it
            net = module.to_network()

        Raises:
            UnsupportedError: if the graph has an operator that squeezekit cannot run in torch.
        """
        # Imported by name: no module of this layer may import torch, or a module that does.
        return importlib.import_module("squeezekit.trainable.network").TrainableNetwork(self)

    def __repr__(self) -> str:
        p, classes = self.metadata.preprocessing, self.outputs
        return (
            f"Network({self.metadata.name!r}: {classes or '?'} classes, images {p.channels} x "
            f"{p.crop} x {p.crop}, {self.parameters:,} parameters, {self.nonzero:,} not zero)"
        )


def share_equal_values(network: Network) -> Network:
    """Turn tensors with few distinct values into shared ones, bit for bit the same.

    So a network that has lost its codebooks, for example in an ONNX file, becomes a small file
    again.
    """
    found: dict[str, Tensor] = {}
    for name, tensor in network.tensors.items():
        if isinstance(tensor, SharedTensor) or not np.all(np.isfinite(tensor)):
            continue
        distinct = len(np.unique(tensor))
        minus_zeros = np.signbit(tensor) & (tensor == 0.0)
        if _DISTINCT_PAYS * distinct <= tensor.size and not minus_zeros.any():
            found[name] = SharedTensor.from_values(tensor)
    return dataclasses.replace(network, tensors={**network.tensors, **found})


_DISTINCT_PAYS = 8
"""A table of values is worth its bytes if each value is used by at least this many weights."""


def unshared(network: Network) -> Network:
    """The same network as plain float32 tensors, without tables of shared values."""
    tensors = {name: tensor_values(tensor) for name, tensor in network.tensors.items()}
    return dataclasses.replace(network, tensors=tensors)
