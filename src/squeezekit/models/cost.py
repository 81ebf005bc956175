"""What a network costs: parameters and multiply-accumulates, layer by layer, from its graph."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, shape_inference

from squeezekit.errors import UnsupportedError
from squeezekit.sqz.graph import parse
from squeezekit.sqz.network import Floats, Network

BYTES_A_PARAMETER = 4
"""Of float32."""


@dataclass(frozen=True)
class LayerCost:
    """One node of the graph.

    Attributes:
        name: the name of the layer; what its tensors' names begin with where it has weights.
        op: ONNX operator.
        output_shape: without the batch axis: (C, H, W) or (features,).
        parameters: numbers in the tensors that this node is the first to use.
        nonzero: those that are not exactly zero.
        density: share of nonzero ones in the weight, biases aside; 1 where there is none.
        macs: multiply-accumulates for one image, of convolutions and matrix products; biases,
            pooling and activations are not counted, and zeros are, as they are computed.
        float_bytes: the size in bytes of the parameters as float32.
    """

    name: str
    op: str
    output_shape: tuple[int, ...]
    parameters: int
    nonzero: int
    density: float
    macs: int
    float_bytes: int


@dataclass(frozen=True)
class ModuleCost:
    """A row of the paper's Table 1: a layer or a fire module.

    Attributes:
        name: "conv1", "fire2", ...
        output_shape: of its last node.
        parameters, nonzero, macs, float_bytes: sums over its layers.
        densities: the densities of each of its weights, in the order of the graph: ("squeeze1x1",
            1.0), ...; the name is "" for a module that is a single layer.
    """

    name: str
    output_shape: tuple[int, ...]
    parameters: int
    nonzero: int
    macs: int
    float_bytes: int
    densities: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class Cost:
    """The whole network.

    Attributes:
        parameters, nonzero, macs, float_bytes: sums over the layers.
        layers: every node, in the graph's order.
        modules: the layers with weights and the pools, grouped as in the paper's Table 1.
    """

    parameters: int
    nonzero: int
    macs: int
    float_bytes: int
    layers: tuple[LayerCost, ...]
    modules: tuple[ModuleCost, ...]


def cost(network: Network) -> Cost:
    """Count parameters and multiply-accumulates for one image.

    Raises:
        UnsupportedError: if the shapes in the graph cannot be known.
    """
    values = network.values()
    model = parse(network.graph)
    shapes = _shapes(model, values)
    unseen = dict(values)
    layers = []
    for node in model.graph.node:
        own = {name: unseen.pop(name) for name in node.input if name in unseen}
        layers.append(_layer(node, own, shapes))
    return Cost(
        parameters=sum(layer.parameters for layer in layers),
        nonzero=sum(layer.nonzero for layer in layers),
        macs=sum(layer.macs for layer in layers),
        float_bytes=sum(layer.float_bytes for layer in layers),
        layers=tuple(layers),
        modules=tuple(_modules(layers)),
    )


def _layer(
    node: NodeProto, own: Mapping[str, Floats], shapes: Mapping[str, tuple[int, ...]]
) -> LayerCost:
    parameters = sum(values.size for values in own.values())
    weights = [values for values in own.values() if values.ndim >= 2]
    size = sum(weight.size for weight in weights)
    try:
        output, macs = shapes[node.output[0]], _macs(node, shapes)
    except KeyError as error:
        raise UnsupportedError(
            f"the cost of node {node.name!r} ({node.op_type}) cannot be counted: "
            f"the shape of {error.args[0]!r} is not known"
        ) from None
    return LayerCost(
        name=_name(node, own),
        op=node.op_type,
        output_shape=output[1:],
        parameters=parameters,
        nonzero=sum(int(np.count_nonzero(values)) for values in own.values()),
        density=sum(int(np.count_nonzero(w)) for w in weights) / size if size else 1.0,
        macs=macs,
        float_bytes=BYTES_A_PARAMETER * parameters,
    )


def _name(node: NodeProto, own: Iterable[str]) -> str:
    """What the tensors are called after, else the node's name, else that of its output."""
    for tensor in own:
        if tensor.endswith(".weight"):
            return tensor.removesuffix(".weight")
    return node.name or node.output[0]


def _macs(node: NodeProto, shapes: Mapping[str, tuple[int, ...]]) -> int:
    output = shapes[node.output[0]]
    if node.op_type == "Conv":  # every weight once a place, for (N, C, H, W) with N = 1
        return math.prod(shapes[node.input[1]]) * math.prod(output[2:])
    if node.op_type in ("Gemm", "MatMul"):  # every output is a sum over the inner axis
        transposed = any(a.name == "transA" and a.i for a in node.attribute)
        inner = shapes[node.input[0]][0 if transposed else -1]
        return inner * math.prod(output)
    return 0


def _shapes(model: onnx.ModelProto, values: Mapping[str, Floats]) -> dict[str, tuple[int, ...]]:
    """Shapes of all values of the graph for a batch of one image; unknown ones are left out."""
    for name, tensor in values.items():
        model.graph.input.append(
            helper.make_tensor_value_info(name, TensorProto.FLOAT, tensor.shape)
        )
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    del model.graph.value_info[:]
    for output in model.graph.output:  # stated for a batch of N
        output.type.tensor_type.ClearField("shape")
    inferred = shape_inference.infer_shapes(model, data_prop=True).graph
    infos = [*inferred.input, *inferred.value_info, *inferred.output]
    return {
        info.name: tuple(dim.dim_value for dim in info.type.tensor_type.shape.dim)
        for info in infos
        if info.type.tensor_type.HasField("shape")
        and all(dim.HasField("dim_value") for dim in info.type.tensor_type.shape.dim)
    }


# ------------------------------------------------------------------------------------- table 1

# Layers of one module share what stands before the first dot: fire2.squeeze1x1, fire2.concat.
_MODULE = re.compile(r"(?P<module>(?:conv|fire|fc)\d+)\.")


def _modules(layers: Iterable[LayerCost]) -> list[ModuleCost]:
    groups: dict[str, list[LayerCost]] = {}
    for layer in layers:
        match = _MODULE.match(layer.name)
        groups.setdefault(match["module"] if match else layer.name, []).append(layer)
    return [
        _module(name, group)
        for name, group in groups.items()
        if any(layer.parameters or "Pool" in layer.op for layer in group)
    ]


def _module(name: str, layers: list[LayerCost]) -> ModuleCost:
    return ModuleCost(
        name=name,
        output_shape=layers[-1].output_shape,
        parameters=sum(layer.parameters for layer in layers),
        nonzero=sum(layer.nonzero for layer in layers),
        macs=sum(layer.macs for layer in layers),
        float_bytes=sum(layer.float_bytes for layer in layers),
        densities=tuple(
            (layer.name.removeprefix(name).removeprefix("."), layer.density)
            for layer in layers
            if layer.op in ("Conv", "Gemm", "MatMul") and layer.parameters
        ),
    )
