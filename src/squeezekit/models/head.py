"""Replaces a network's last layer, for other classes than it was trained for."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
from onnx import NodeProto

from squeezekit.errors import UnsupportedError
from squeezekit.sqz.graph import parse
from squeezekit.sqz.network import Floats, Network, Tensor, tensor_values
from squeezekit.sqz.nodes import WeightedNode, read_nodes, weighted_nodes

HEAD_STD = 0.01
"""Standard deviation of a new head's weights, as of the paper's conv10."""


def with_new_head(
    network: Network,
    labels: tuple[str, ...],
    seed: int = 0,
    known: Mapping[int, int] | None = None,
) -> Network:
    """The network with a new last layer of `len(labels)` outputs; every other weight stays.

    Args:
        network: must end in a convolution or a fully connected layer.
        labels: the new outputs' names.
        seed: the seed of the fresh weights.
        known: which of the new outputs the network has already, and as which of its own: these
            keep their weights.

    Raises:
        UnsupportedError: if the network does not end in a layer of its own: a convolution or a
            fully connected one, and behind it nothing that fixes the number of classes.
    """
    model = parse(network.graph)
    layers = weighted_nodes(read_nodes(model), network.tensors)
    if not layers:
        raise UnsupportedError(f"{network.metadata.name} has no layer to replace")
    head = layers[-1]
    axis, name = head.out_axis, head.weight
    shape = list(network.tensors[name].shape)
    old, shape[axis] = shape[axis], len(labels)
    rng = np.random.default_rng(seed)
    tensors: dict[str, Tensor] = dict(network.tensors)
    fresh = rng.standard_normal(shape, np.float32) * np.float32(HEAD_STD)
    tensors[name] = _kept(fresh, tensor_values(network.tensors[name]), axis, known or {})
    for bias in _biases(head, list(model.graph.node), network, old):
        values = tensor_values(network.tensors[bias])
        tensors[bias] = _kept(np.zeros(len(labels), np.float32), values, 0, known or {})
    outputs = [node.output[0] for node in model.graph.node]
    behind = list(model.graph.node)[outputs.index(head.node.output) + 1 :]
    if any(node.op_type == "Reshape" for node in behind):
        raise UnsupportedError(
            f"{network.metadata.name} reshapes its outputs, so it cannot get a new last layer"
        )
    del model.graph.value_info[:]
    for dim in model.graph.output[0].type.tensor_type.shape.dim[1:2]:
        dim.dim_value = len(labels)
    metadata = dataclasses.replace(network.metadata, labels=labels, label_ids=())
    graph = model.SerializeToString(deterministic=True)
    return dataclasses.replace(network, graph=graph, tensors=tensors, metadata=metadata)


def without_relu_behind_head(network: Network) -> Network:
    """The network without a ReLU right behind its last layer, if there is one.

    Behind such a ReLU a class may die for good, and the layer is not a linear classifier.
    """
    model = parse(network.graph)
    head = weighted_nodes(read_nodes(model), network.tensors)[-1]
    users = [node for node in model.graph.node if head.node.output in node.input]
    relus = [node for node in users if node.op_type == "Relu"]
    outputs = {value.name for value in model.graph.output}
    if len(users) != 1 or not relus or outputs & {head.node.output, relus[0].output[0]}:
        return network
    for node in model.graph.node:
        names = [head.node.output if n == relus[0].output[0] else n for n in node.input]
        node.input[:] = names
    model.graph.node.remove(relus[0])
    graph = model.SerializeToString(deterministic=True)
    metadata = network.metadata.uncalibrated()
    return dataclasses.replace(network, graph=graph, metadata=metadata)


def bias_of_head(network: Network) -> str | None:
    """The name of the tensor that is added to the last layer's outputs; None without any."""
    model = parse(network.graph)
    head = weighted_nodes(read_nodes(model), network.tensors)[-1]
    outputs = network.tensors[head.weight].shape[head.out_axis]
    return next(iter(_biases(head, list(model.graph.node), network, outputs)), None)


def _kept(new: Floats, old: Floats, axis: int, known: Mapping[int, int]) -> Floats:
    """The new values with those of known outputs in their places along an axis."""
    rows = np.moveaxis(new, axis, 0)
    for output, before in known.items():
        rows[output] = np.moveaxis(old, axis, 0)[before]
    return new


def start_from(network: Network, source: Network) -> tuple[Network, list[str]]:
    """Take over the weights of another network wherever name and shape are the same.

    Returns:
        The network, and the names of the tensors that it took.
    """
    taken = {
        name: tensor
        for name, tensor in source.tensors.items()
        if name in network.tensors and network.tensors[name].shape == tensor.shape
    }
    return network.with_tensors(taken), list(taken)


def _biases(head: WeightedNode, nodes: list[NodeProto], network: Network, size: int) -> list[str]:
    """The bias of the layer, or that of an Add right behind it."""
    names = list(head.node.inputs[2:3])
    for node in nodes:
        if node.op_type == "Add" and head.node.output in node.input:
            names += [name for name in node.input if name in network.tensors]
    return [
        name for name in names if name in network.tensors and network.tensors[name].size == size
    ]
