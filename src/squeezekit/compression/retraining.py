"""Trains a compressed network: zeros stay zero, and shared weights stay shared."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import numpy as np
import onnx
from onnx import numpy_helper

from squeezekit.progress import Progress, silent
from squeezekit.sqz.graph import parse
from squeezekit.sqz.network import Network, tensor_values
from squeezekit.sqz.nodes import weight_names
from squeezekit.trainable.network import TrainableNetwork
from squeezekit.training.batches import TrainingData
from squeezekit.training.checkpoint import Checkpoints
from squeezekit.training.loop import fit
from squeezekit.training.recipe import Recipe


def retrained(
    network: Network,
    data: TrainingData,
    recipe: Recipe,
    original: Network | None = None,
    *,
    checkpoints: Checkpoints | None = None,
    progress: Progress = silent,
) -> Network:
    """Train a compressed network.

    Zero weights stay exactly zero, and shared weights keep their levels while the centroids move.
    Dropout is weaker if the layer behind it has fewer weights. There is no dropout if the network
    learns only the original's answers, which are given without dropout.

    Args:
        network: the network to train.
        data: training images.
        recipe: how; its `distillation` says how much the original's outputs count, which tell
            more about a few hundred images than their labels do.
        original: the network as it was before compression, which this one should give the same
            answers as; None trains on the labels alone.
        checkpoints: where to resume from and to save to; None does neither.
        progress: called for each iteration.

    Returns:
        The trained network; its graph is that of `network`.
    """
    teacher = TrainableNetwork(original) if original and recipe.distillation else None
    if teacher is not None and recipe.distillation == 1.0:
        net = TrainableNetwork(_with_dropout(network, lambda model, value: 0.0))
    else:
        net = TrainableNetwork(with_scaled_dropout(network))
    net.mask_zeros()
    fit(net, data, recipe, teacher=teacher, checkpoints=checkpoints, progress=progress)
    return dataclasses.replace(net.to_network(), graph=network.graph)


def with_scaled_dropout(network: Network) -> Network:
    """The network with dropout ratios scaled to its sparsity: r * sqrt(density).

    The density is that of the layer which the dropped values feed: with fewer connections there is
    less to keep from over-fitting (Han et al. 2015, section 3.2).
    """

    def factor(model: onnx.ModelProto, value: str) -> float:
        return math.sqrt(_density_behind(network, model, value))

    return _with_dropout(network, factor)


def _with_dropout(network: Network, factor: Callable[[onnx.ModelProto, str], float]) -> Network:
    """With dropout ratios multiplied by a factor, of the graph and the node's output."""
    model = parse(network.graph)
    settings = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type != "Dropout":
            continue
        by = factor(model, node.output[0])
        for attribute in node.attribute:
            if attribute.name == "ratio":  # before opset 12
                attribute.f *= by
        if len(node.input) > 1 and node.input[1] in settings:
            ratio = settings[node.input[1]]
            scaled = numpy_helper.to_array(ratio) * np.float32(by)
            ratio.CopyFrom(numpy_helper.from_array(scaled.astype(np.float32), ratio.name))
    return dataclasses.replace(network, graph=model.SerializeToString(deterministic=True))


def _density_behind(network: Network, model: onnx.ModelProto, value: str) -> float:
    """Density of the first weight that multiplies `value`, seen through other nodes; 1 if none."""
    weights = set(weight_names(network))
    for node in model.graph.node:  # in order, so that what follows `value` comes later
        if value not in node.input:
            continue
        for name in weights.intersection(node.input):
            values = tensor_values(network.tensors[name])
            return float(np.count_nonzero(values)) / values.size
        value = node.output[0]
    return 1.0
