"""Folds batch norms into the layers before them: the same network with fewer nodes."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping

import numpy as np
import onnx
from onnx import NodeProto

from squeezekit.sqz.graph import parse
from squeezekit.sqz.network import Floats, Network, Tensor, tensor_values
from squeezekit.sqz.nodes import WeightedNode, read_nodes, weighted_nodes

EPSILON = 1e-5
"""ONNX's default of what is added to the variance."""


def fold_batch_norm(network: Network) -> Network:
    """Fold every BatchNormalization after a convolution or linear layer into its weight and bias.

    y = scale * (W x + b - mean) / sqrt(var + eps) + bias is again such a layer: with
    f = scale / sqrt(var + eps) per filter, its weight is f W and its bias f (b - mean) + bias.

    Batch norms elsewhere stay, as do those whose layer has a second user. A folded weight
    that was shared becomes a plain one: the factors differ from filter to filter.
    """
    model = parse(network.graph)
    tensors: dict[str, Tensor] = dict(network.tensors)
    layers = {layer.node.output: layer for layer in weighted_nodes(read_nodes(model), tensors)}
    protos = {node.output[0]: node for node in model.graph.node}
    uses = Counter(name for node in model.graph.node for name in node.input)
    uses.update(value.name for value in model.graph.output)
    folded = []
    for norm in model.graph.node:
        layer = layers.get(norm.input[0]) if norm.op_type == "BatchNormalization" else None
        if layer is None or not _foldable(layer, norm, uses, tensors):
            continue
        conv = protos[layer.node.output]
        _fold(conv, norm, tensors)
        _rewire(model, conv, norm)
        folded.append(norm)
    for norm in folded:
        model.graph.node.remove(norm)
    # In the order of their use, as if the network had been built so.
    order = [name for node in model.graph.node for name in node.input if name in tensors]
    tensors = {name: tensors[name] for name in dict.fromkeys(order)}
    graph = model.SerializeToString(deterministic=True)
    metadata = network.metadata.uncalibrated() if folded else network.metadata
    return dataclasses.replace(network, graph=graph, tensors=tensors, metadata=metadata)


def _foldable(
    layer: WeightedNode, norm: NodeProto, uses: Counter[str], tensors: Mapping[str, Tensor]
) -> bool:
    """Whether the layer is y = W x + b with W as (outputs, ...), and nothing else uses any part."""
    return (
        layer.alone
        and (layer.node.op == "Conv" or (layer.node.op == "Gemm" and layer.plain))
        and layer.out_axis == 0
        and len(norm.output) == 1
        and uses[layer.node.output] == 1
        and all(name in tensors and uses[name] == 1 for name in norm.input[1:])
    )


def _fold(conv: NodeProto, norm: NodeProto, tensors: dict[str, Tensor]) -> None:
    """Compute the new weight and bias, in float64, in place of the old ones."""
    scale, shift, mean, var = (
        tensor_values(tensors[name]).astype(np.float64) for name in norm.input[1:]
    )
    weight = tensor_values(tensors[conv.input[1]]).astype(np.float64)
    if len(conv.input) < 3 or not conv.input[2]:
        name = conv.input[1].removesuffix(".weight") + ".bias"
        conv.input[:] = [conv.input[0], conv.input[1], name]
        tensors[name] = np.zeros(len(weight), np.float32)
    bias = tensor_values(tensors[conv.input[2]]).astype(np.float64)
    epsilon = next((a.f for a in norm.attribute if a.name == "epsilon"), EPSILON)
    factor = scale / np.sqrt(var + epsilon)
    tensors[conv.input[1]] = _float32(weight * factor.reshape(-1, *[1] * (weight.ndim - 1)))
    tensors[conv.input[2]] = _float32(factor * (bias - mean) + shift)


def _float32(values: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> Floats:
    return np.ascontiguousarray(values, np.float32)


def _rewire(model: onnx.ModelProto, conv: NodeProto, norm: NodeProto) -> None:
    """Let the users of the batch norm use the convolution."""
    old, new = norm.output[0], conv.output[0]
    if old in (value.name for value in model.graph.output):
        conv.output[0] = new = old  # the graph's output keeps its name
    for node in model.graph.node:
        node.input[:] = [new if name == old else name for name in node.input]
