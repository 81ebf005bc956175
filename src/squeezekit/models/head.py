"""A network's last layer: replaced for other classes, freed of its ReLU, or scaled."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
from onnx import NodeProto

from squeezekit.errors import UnsupportedError
from squeezekit.sqz.coders import grid
from squeezekit.sqz.graph import parse
from squeezekit.sqz.network import Floats, Network, SharedTensor, Tensor, tensor_values
from squeezekit.sqz.nodes import RESHAPING, WeightedNode, read_nodes, weighted_nodes
from squeezekit.sqz.tensors import mantissa_bits, with_mantissa

_LET_FACTORS_THROUGH = (
    *RESHAPING, "Relu", "LeakyRelu", "GlobalAveragePool", "AveragePool", "GlobalMaxPool", "MaxPool",
    "ReduceMean", "Dropout", "Slice", "Gather",
)  # fmt: skip
_HALF_STEPS = 15
_MOST_STEPS = 1024
"""Whole numbers of a quantised network are smaller."""

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


def linear_head(network: Network) -> tuple[Network, Floats, Floats]:
    """The network under its last layer, and the layer as a linear classifier of averaged values.

    Returns:
        A network whose output is the layer's input; the weight (classes, features); the bias
        (classes,).

    Raises:
        UnsupportedError: if the layer is not one pixel wide, or more than a mean is behind it.
    """
    model = parse(network.graph)
    nodes = read_nodes(model)
    layers = weighted_nodes(nodes, network.tensors)
    name = network.metadata.name
    if not layers:
        raise UnsupportedError(f"{name} has no layer of its own at its end")
    head = layers[-1]
    shape = network.tensors[head.weight].shape
    outputs = shape[head.out_axis]
    biases = _biases(head, list(model.graph.node), network, outputs)
    number = [node.output for node in nodes].index(head.node.output)
    means = (*RESHAPING, "GlobalAveragePool", "AveragePool", "ReduceMean", "Dropout", "Add")
    behind = [node for node in nodes[number + 1 :] if node.op not in means]
    one_pixel = len(shape) == 2 or (set(shape[2:]) == {1} and head.groups == 1)
    strides, pads = set(head.node.get("strides", [1])), head.node.get("pads", [0])
    if behind or not one_pixel or strides != {1} or any(pads) or not head.plain or len(biases) != 1:
        what = f"{behind[0].op} behind its last layer" if behind else "a last layer of another kind"
        raise UnsupportedError(f"{name} has {what}: that takes no further class")
    weight = tensor_values(network.tensors[head.weight])
    matrix = weight.T if head.transposed else weight.reshape(outputs, -1)
    del model.graph.node[number:]
    used = {each for node in model.graph.node for each in node.input}
    del model.graph.output[:], model.graph.value_info[:]
    model.graph.output.add().name = head.node.inputs[0]
    model.graph.output[0].type.tensor_type.elem_type = 1
    kept = [each for each in model.graph.initializer if each.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    metadata = dataclasses.replace(network.metadata, labels=(), label_ids=(), output="logits")
    body = dataclasses.replace(
        network,
        graph=model.SerializeToString(deterministic=True),
        tensors={each: tensor for each, tensor in network.tensors.items() if each in used},
        metadata=metadata.uncalibrated(),
    )
    return body, np.ascontiguousarray(matrix), tensor_values(network.tensors[biases[0]]).reshape(-1)


def with_one_more_output(
    network: Network, row: npt.NDArray[np.float64], bias: float, label: str
) -> Network:
    """The network with one more class behind its own; see `linear_head` for what it must end in.

    Where weights share values, the new row gets at most 31 values of its own.

    Args:
        network: any network whose head is linear.
        row: (features,), the weights of the class.
        bias: its bias.
        label: its name, and its id where there are ids.
    """
    model = parse(network.graph)
    head = weighted_nodes(read_nodes(model), network.tensors)[-1]
    old = network.tensors[head.weight]
    outputs = old.shape[head.out_axis]
    (bias_name,) = _biases(head, list(model.graph.node), network, outputs)
    old_bias = tensor_values(network.tensors[bias_name])
    shared = isinstance(old, SharedTensor)
    new = np.asarray(row, np.float32)
    if shared:
        step = with_mantissa(np.abs(new).max(initial=1e-30, keepdims=True) / _HALF_STEPS, 8)
        new = with_mantissa(step * np.rint(new / step), 10)
    shape = list(old.shape)
    shape[head.out_axis] = 1
    joined = np.concatenate([tensor_values(old), new.reshape(shape)], axis=head.out_axis)
    last = with_mantissa(np.array([bias], np.float32), 10 if shared else 23)
    tensors = {
        **network.tensors,
        head.weight: SharedTensor.from_values(joined) if shared else joined,
        bias_name: np.concatenate([old_bias.reshape(-1), last]).reshape(
            [-1 if size == outputs else size for size in old_bias.shape]
        ),
    }
    if any(node.op_type == "Reshape" for node in model.graph.node):
        raise UnsupportedError(f"{network.metadata.name} reshapes, so it cannot get another class")
    del model.graph.value_info[:]
    for dim in model.graph.output[0].type.tensor_type.shape.dim[1:2]:
        dim.dim_value = outputs + 1
    known = network.metadata
    metadata = dataclasses.replace(
        known,
        labels=(*known.labels, label),
        label_ids=(*known.label_ids, label) if known.label_ids else (),
    ).uncalibrated()
    graph = model.SerializeToString(deterministic=True)
    return dataclasses.replace(network, graph=graph, tensors=tensors, metadata=metadata)


def bias_of_head(network: Network) -> str | None:
    """The name of the tensor that is added to the last layer's outputs; None without any."""
    model = parse(network.graph)
    head = weighted_nodes(read_nodes(model), network.tensors)[-1]
    outputs = network.tensors[head.weight].shape[head.out_axis]
    return next(iter(_biases(head, list(model.graph.node), network, outputs)), None)


def with_scaled_outputs(network: Network, factor: float) -> Network:
    """The network with the weight and the bias of its last layer multiplied by a positive number.

    So its logits are multiplied too, where what follows the layer (a ReLU, a mean, a softmax at
    the end) lets positive factors through. The ranges of int8 behind it keep step. Tables and grids
    of shared values keep their levels, and the length of their numbers: the file keeps its size.

    Raises:
        UnsupportedError: if the network has no layer of its own, or something else follows it.
    """
    model = parse(network.graph)
    nodes = read_nodes(model)
    layers = weighted_nodes(nodes, network.tensors)
    if not layers:
        raise UnsupportedError(f"{network.metadata.name} has no layer to scale")
    head = layers[-1]
    outputs = network.tensors[head.weight].shape[head.out_axis]
    names = [head.weight, *_biases(head, list(model.graph.node), network, outputs)]
    behind = {head.node.output}
    for node in nodes:
        if not behind & set(node.inputs):
            continue
        ends = node.op in ("Softmax", "LogSoftmax") and node.output == model.graph.output[0].name
        adds = node.op == "Add" and bool(set(names) & set(node.inputs))
        if not ends and not adds and node.op not in _LET_FACTORS_THROUGH:
            raise UnsupportedError(
                f"{node.op} ({node.name}), behind the last layer of {network.metadata.name}, does "
                "not let a factor through"
            )
        behind |= set(node.outputs)
    ranges = {
        name: (low * factor, high * factor) if name in behind else (low, high)
        for name, (low, high) in network.metadata.activations.items()
    }
    scaled = network.with_tensors({name: _scaled(network.tensors[name], factor) for name in names})
    metadata = dataclasses.replace(network.metadata, activations=ranges)
    return dataclasses.replace(scaled, metadata=metadata)


def _scaled(tensor: Tensor, factor: float) -> Tensor:
    """A tensor times a positive number, as cheap to store as before."""
    found = grid.find(tensor)
    # Numbers with few mantissa bits are a grid too, but a grid of another step has long numbers.
    if found is not None and np.abs(found[1]).max(initial=0) <= _MOST_STEPS:
        step, whole = np.float32(found[0] * np.float32(factor)), found[1].astype(np.float32)
        if not isinstance(tensor, SharedTensor):
            return np.asarray(step * whole, np.float32)
        used = np.unique(np.append(whole, np.float32(0)))  # the centroids, all of them
        return SharedTensor(tensor.levels, np.asarray(step * used, np.float32), tensor.zero)
    values = tensor.centroids if isinstance(tensor, SharedTensor) else tensor
    product = np.asarray(values * np.float32(factor), np.float32)
    bits = mantissa_bits(values)
    if not isinstance(tensor, SharedTensor):
        return with_mantissa(product, bits)
    table = with_mantissa(product, bits)
    while bits < 23 and not np.all(table[1:] > table[:-1]):  # two became one
        bits += 1
        table = with_mantissa(product, bits)
    return SharedTensor(tensor.levels, table, tensor.zero)


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
