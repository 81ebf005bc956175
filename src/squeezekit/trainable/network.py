"""A torch module that runs a network's ONNX graph, and so makes any network trainable again.

The graph stays what it is; only its weights become modules, which say how they may change: freely,
under a pruning mask, or through a shared codebook (Han et al. 2016, "Deep Compression").
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping

import torch
from onnx import numpy_helper
from torch import Tensor, nn

from squeezekit.sqz.graph import parse
from squeezekit.sqz.network import Floats, Metadata, Network, SharedTensor
from squeezekit.sqz.nodes import Node, trainable_names, weight_names, weighted_nodes
from squeezekit.trainable.operators import OPERATORS, supported
from squeezekit.trainable.rewrites import (
    with_relus_behind_pools,
    with_relus_in_place,
    without_softmax,
)
from squeezekit.trainable.weights import Fixed, Free, Masked, Shared, Weight, Weights, to_numpy


class TrainableNetwork(nn.Module):
    """A network whose graph torch runs.

    Plain tensors become Free weights and SharedTensors Shared ones; constants and running
    statistics are Fixed. A final Softmax is left out, so that the result is always logits.

    Attributes:
        metadata: the network's own.
        weights: `Weight` modules by tensor name.
        nodes: what is computed, in order; each has one output.
        input_name, output_name: the names of the images and of the result, among the nodes' values.

    Raises:
        UnsupportedError: if the graph has an operator that is not supported, naming it.
    """

    def __init__(self, network: Network) -> None:
        super().__init__()
        model = parse(network.graph)
        self.metadata: Metadata = network.metadata.uncalibrated()
        self._graph = network.graph
        self.input_name = model.graph.input[0].name
        self.output_name = model.graph.output[0].name
        self.nodes = supported(model)
        if network.metadata.output == "probabilities":
            self.nodes = without_softmax(self.nodes, self.output_name)
        self.nodes = with_relus_behind_pools(self.nodes, self.output_name)
        self.nodes = with_relus_in_place(self.nodes, self.output_name)
        # Shapes and settings: small, used as Python numbers or broadcast from 0 dimensions.
        self._constants = {
            tensor.name: torch.tensor(numpy_helper.to_array(tensor))
            for tensor in model.graph.initializer
        }
        self._last_use = {name: i for i, node in enumerate(self.nodes) for name in node.inputs}
        self._weight_names = weight_names(network)
        trainable = trainable_names(self.nodes, network.tensors)
        self.weights = Weights()
        for name, tensor in network.tensors.items():
            if isinstance(tensor, SharedTensor):
                self.weights[name] = Shared.of(tensor)
            else:
                self.weights[name] = (Free if name in trainable else Fixed)(tensor)

    def forward(
        self, images: Tensor, also: Collection[str] | None = None
    ) -> Tensor | tuple[Tensor, ...]:
        """Images (N, C, H, W) float32 to logits (N, classes).

        Args:
            images: prepared.
            also: names of other values that are given behind the logits; None gives no tuple.
        """
        logits, *others = self._values_of(images, (self.output_name, *(also or ())))
        logits = logits.flatten(1)  # (N, classes)
        return logits if also is None else (logits, *others)

    def value(self, images: Tensor, wanted: str) -> Tensor:
        """One of the values that nodes give, for images (N, C, H, W) float32; none behind it."""
        return self._values_of(images, (wanted,))[0]

    def seen_by_layers(self) -> list[str]:
        """The names of the values that layers multiply by their weights, without the images."""
        tensors = {name: weight() for name, weight in self.weights.items()}
        seen = (layer.node.inputs[0] for layer in weighted_nodes(self.nodes, tensors))
        return [name for name in dict.fromkeys(seen) if name != self.input_name]

    def _values_of(self, images: Tensor, wanted: Collection[str]) -> list[Tensor]:
        values: dict[str, Tensor] = {self.input_name: images}
        for i, node in enumerate(self.nodes):
            if all(name in values for name in wanted):
                break
            values[node.output] = self.computed(node, values)
            for name in node.inputs:
                if self._last_use[name] == i and name not in wanted:
                    values.pop(name, None)  # lets torch reuse the memory
        return [values[name] for name in wanted]

    def computed(self, node: Node, values: Mapping[str, Tensor]) -> Tensor:
        """A node's output; a ReLU may overwrite its input, which no other node wants."""
        inputs = [self._value(name, values) for name in node.inputs]
        return OPERATORS[node.op](node, inputs, self.training)

    def _value(self, name: str, values: Mapping[str, Tensor]) -> Tensor | None:
        if not name:
            return None  # ONNX's way to leave an optional input out
        if name in values:
            return values[name]
        return self.weights[name]() if name in self.weights else self._constants[name]

    def set_weight(self, name: str, weight: Weight) -> None:
        """Replace how a tensor may change: `Free`, `Masked` or `Shared`.

        Raises:
            KeyError: if the network has no tensor of that name.
            ValueError: if the shape differs.
        """
        old = self.weights[name]()
        if weight().shape != old.shape:
            raise ValueError(f"{name} has shape {tuple(old.shape)}, not {tuple(weight().shape)}")
        self.weights[name] = weight.to(old.device)

    def mask_zeros(self) -> None:
        """Keep zero weights exactly zero (shared weights do that already)."""
        for name in self._weight_names:
            if not isinstance(self.weights[name], Shared):
                values = to_numpy(self.weights[name]())
                self.set_weight(name, Masked(values, values != 0.0))

    def weight_names(self) -> list[str]:
        """The tensors that convolutions and matrix products multiply by, in the graph's order."""
        return list(self._weight_names)

    def head_names(self) -> list[str]:
        """The tensors of the last layer: its weight, and its bias where it has one."""
        tensors = {name: weight() for name, weight in self.weights.items()}
        last = weighted_nodes(self.nodes, tensors)[-1:]
        return [name for layer in last for name in (layer.weight, layer.bias) if name]

    def to_network(self) -> Network:
        """The network with the present weights; Shared ones keep their codebook."""
        tensors = {name: weight.to_tensor() for name, weight in self.weights.items()}
        return Network(self._graph, tensors, self.metadata)


class TorchClassifier:
    """A network run by torch, with the interface of `runtime.classifier.Classifier`.

    Attributes:
        metadata: the network's; its output is always "logits", as TrainableNetwork gives them.
        pixels: how many pixels an image may have; None is as many as Pillow decodes.
    """

    def __init__(self, network: Network | TrainableNetwork) -> None:
        self._net = network if isinstance(network, TrainableNetwork) else TrainableNetwork(network)
        self.metadata = dataclasses.replace(self._net.metadata, output="logits")
        self.pixels: int | None = None

    def logits(self, batch: Floats) -> Floats:
        """Images float32 (N, C, H, W), prepared, to logits float32 (N, classes)."""
        parameter = next(self._net.parameters(), None)
        device = None if parameter is None else parameter.device
        was_training = self._net.training
        self._net.eval()
        with torch.inference_mode():
            logits = to_numpy(self._net(torch.tensor(batch, device=device)))
        self._net.train(was_training)
        return logits
