"""From a network and the ranges of its activations to an ONNX graph that runs in 8-bit integers.

Weights become symmetric int8 with a scale for each filter, activations uint8 with a scale and a
zero point for each tensor, biases int32 (Jacob et al. 2018, "Quantization and Training of Neural
Networks for Efficient Integer-Arithmetic-Only Inference").
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from squeezekit.errors import GraphError, InputError, UnsupportedError
from squeezekit.sqz.graph import parse
from squeezekit.sqz.network import Floats, Network
from squeezekit.sqz.nodes import opset, read_nodes, weighted_nodes

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

Array = npt.NDArray[Any]

OLDEST_OPSET = 13
"""Before it, DequantizeLinear has no scale for each filter."""

_ACTIVATIONS = ("Relu", "Clip")
_MOVING = (
    "Concat", "Dropout", "Flatten", "Identity", "MaxPool", "Reshape", "Squeeze", "Transpose",
    "Unsqueeze",
)  # fmt: skip
"""These only move or choose values. With one range for input and output they do so with codes."""

_LARGEST_WEIGHT = 127
_LARGEST_BIAS = 2.0**30  # half of what int32 holds; the sum of products has the other half


def needed_ranges(network: Network) -> dict[str, tuple[str, ...]]:
    """The activations that are uint8 when the network runs in int8: what goes in and out of layers.

    Returns:
        For each range that is needed, under the name of the first tensor that has it, the tensors
        whose values it must hold. Tensors that a MaxPool, Concat or the like joins have one range.
    """
    plan = _Plan(parse(network.graph), network.values())
    made: dict[str, tuple[str, ...]] = {}
    for name in plan.quantised:
        if name not in plan.moved:
            made[plan.range_of[name]] = (*made.get(plan.range_of[name], ()), name)
    return made


def require_layers(network: Network) -> None:
    """Find out before any work whether there is anything to run in int8.

    Raises:
        InputError: if there is not.
    """
    if not needed_ranges(network):
        raise InputError("the network has no convolution or matrix product to run in int8")


def int8_model(network: Network) -> bytes:
    """Serialize a network as an ONNX model with QuantizeLinear and DequantizeLinear in it.

    Args:
        network: has the ranges in `metadata.activations` (see `calibration.calibrated`).

    Raises:
        InputError: if the network has no ranges.
        GraphError: if it has some, but not those that its graph needs.
        UnsupportedError: if the graph's operator set is too old.
    """
    ranges = network.metadata.activations
    if not ranges:
        raise InputError(
            "the network has no activation ranges, which int8 needs: "
            "compress or export it with --int8 --data DIR"
        )
    model = parse(network.graph)
    version = opset(model)
    if version < OLDEST_OPSET:
        raise UnsupportedError(
            f"the graph uses ONNX operator set {version}; int8 needs {OLDEST_OPSET} or later"
        )
    values = network.values()
    plan = _Plan(model, values)
    missing = [name for name in plan.range_of.values() if name not in ranges]
    if missing:
        raise GraphError(f"the file has no activation range of {missing[0]}, which int8 needs")
    scales = {name: _Scale.of(*ranges[of]) for name, of in plan.range_of.items()}
    _Writer(plan, values, scales).rewrite(model)
    return bytes(model.SerializeToString(deterministic=True))


class _Plan:
    """Which tensors of a graph are uint8, and which share their range.

    Attributes:
        layers: by output, the convolutions and matrix products with stored weights of their own.
        results: by the same, what they are for: the output of the activation behind, or their own.
        quantised: tensors that are uint8, in the order in which they are made.
        moved: those among them that are moved or chosen from others.
        range_of: by tensor, the first one that has the same range.
    """

    def __init__(self, model: ModelProto, values: Mapping[str, Floats]) -> None:
        nodes, outputs = model.graph.node, [value.name for value in model.graph.output]
        uses = Counter([name for node in nodes for name in node.input] + outputs)
        layers = {
            layer.node.output
            for layer in weighted_nodes(read_nodes(model), values)
            if layer.alone and layer.plain
        }
        self.layers = {node.output[0]: node for node in nodes if node.output[0] in layers}
        self.results = {name: name for name in self.layers}
        for node in nodes:
            source = node.input[0] if node.op_type in _ACTIVATIONS else None
            if source in self.layers and uses[source] == 1:
                self.results[source] = node.output[0]
        wanted = {layer.input[0] for layer in self.layers.values()} | set(self.results.values())
        for node in reversed(nodes):  # what is moved or added to be uint8 is uint8 before
            if node.output[0] in wanted and node.op_type in (*_MOVING, "Add"):
                wanted.update(_data_inputs(node, values))
        for node in nodes:
            if node.op_type in _MOVING and wanted.issuperset(_data_inputs(node, values)):
                wanted.add(node.output[0])
        order = [value.name for value in model.graph.input] + [node.output[0] for node in nodes]
        self.quantised = [name for name in order if name in wanted and name not in outputs]
        makers = {node.output[0]: node for node in nodes if node.op_type in _MOVING}
        self.moved = {name: makers[name] for name in self.quantised if name in makers}
        self.range_of = {name: name for name in self.quantised}
        for name, node in self.moved.items():
            self._join([name, *_data_inputs(node, values)])

    def _join(self, names: list[str]) -> None:
        joined = {self.range_of[name] for name in names if name in self.range_of}
        first = min(joined, key=self.quantised.index)
        self.range_of |= {name: first for name, of in self.range_of.items() if of in joined}


def _data_inputs(node: NodeProto, values: Mapping[str, Floats]) -> list[str]:
    """The inputs that hold activations: not weights, and not settings such as a shape."""
    inputs = node.input if node.op_type in ("Concat", "Add") else node.input[:1]
    return [name for name in inputs if name not in values]


@dataclass(frozen=True)
class _Scale:
    """How uint8 stands for numbers: value = (code - zero) * step."""

    step: np.float32
    zero: np.uint8

    @classmethod
    def of(cls, low: float, high: float) -> _Scale:
        """The scale whose codes span a range of metadata; 0 gets a code of its own."""
        step = np.float32((high - low) / 255)
        return cls(step, np.uint8(np.rint(-low / float(step)).clip(0, 255)))


class _Writer:
    """Rewrites a graph: tensor x goes by "x.codes", 8 bits, to "x.rounded", which its users use."""

    def __init__(
        self, plan: _Plan, values: Mapping[str, Floats], scales: Mapping[str, _Scale]
    ) -> None:
        self._plan, self._values, self._scales = plan, values, scales
        self._rounded = set(scales)
        self._nodes: list[NodeProto] = []
        self._stored: dict[str, Array] = {}

    def rewrite(self, model: ModelProto) -> None:
        """Change the model in place, and put its numbers in."""
        from onnx import numpy_helper

        graph = model.graph
        for value in graph.input:
            self._round(value.name)
        # Codes that begin at 0 carry a ReLU out by being rounded: its layer makes its output.
        relus = {
            node.input[0]: node.output[0]
            for node in graph.node
            if node.op_type == "Relu"
            and self._plan.results.get(node.input[0]) == node.output[0]
            and node.output[0] in self._scales
            and self._scales[node.output[0]].zero == 0
        }
        for node in graph.node:
            if node.op_type == "Relu" and node.input[0] in relus:
                continue
            if node.output[0] in self._plan.layers:
                self._store_weights(node)
            node.input[:] = [f"{n}.rounded" if n in self._rounded else n for n in node.input]
            node.output[0] = relus.get(node.output[0], node.output[0])
            self._nodes.append(node)
            self._round(node.output[0])
        used = {name for node in self._nodes for name in node.input}
        stored = {name: value for name, value in self._values.items() if name in used}
        graph.ClearField("node")
        graph.node.extend(self._nodes)
        for name, array in {**stored, **self._stored}.items():
            graph.initializer.append(numpy_helper.from_array(array, name))

    def _round(self, name: str) -> None:
        """Put a tensor through uint8, where it is to be."""
        from onnx import helper

        if name not in self._scales:
            return
        scale = self._scales[name]
        grid = [f"{name}.step", f"{name}.zero"]
        self._stored |= {grid[0]: np.array(scale.step), grid[1]: np.array(scale.zero)}
        codes = f"{name}.codes"
        self._nodes += [
            helper.make_node("QuantizeLinear", [name, *grid], [codes], codes),
            helper.make_node("DequantizeLinear", [codes, *grid], [f"{name}.rounded"]),
        ]

    def _store_weights(self, layer: NodeProto) -> None:
        """Store a layer's weight as int8 and its bias as int32, and have the layer use these."""
        weight = self._values[layer.input[1]]
        bias = self._values[layer.input[2]] if len(layer.input) > 2 and layer.input[2] else None
        if not all(np.isfinite(values).all() for values in (weight, bias) if values is not None):
            raise GraphError(f"node {layer.name!r} has weights that are not finite: int8 has none")
        input_step = float(self._scales[layer.input[0]].step)
        filters = layer.op_type == "Conv"  # matrix products have one scale for all
        steps = _weight_steps(weight.reshape(len(weight) if filters else 1, -1))
        if bias is not None:  # a large one beside small weights needs a larger unit
            largest = np.abs(bias) if filters else np.abs(bias).max(keepdims=True)
            steps = np.maximum(steps, largest / (input_step * _LARGEST_BIAS))
        by_column = not filters and not any(a.name == "transB" and a.i for a in layer.attribute)
        rows = np.moveaxis(weight, -1, 0) if by_column else weight  # one for each output
        codes = _rounded(rows.reshape(len(rows), -1) / steps[:, np.newaxis]).reshape(rows.shape)
        codes = np.moveaxis(codes, 0, -1) if by_column else codes
        self._store(layer.input[1], codes.astype(np.int8), steps if filters else steps[0])
        if bias is not None:
            steps = steps * input_step
            codes = np.rint(bias / steps)
            self._store(layer.input[2], codes.astype(np.int32), steps if filters else steps[0])

    def _store(self, name: str, codes: Array, steps: Array) -> None:
        from onnx import helper

        inputs = [f"{name}.codes", f"{name}.step", f"{name}.zero"]
        stored = (codes, np.asarray(steps, np.float32), np.zeros(np.shape(steps), codes.dtype))
        self._stored |= dict(zip(inputs, stored, strict=True))
        node = helper.make_node("DequantizeLinear", inputs, [f"{name}.rounded"])
        if np.ndim(steps):
            node.attribute.append(helper.make_attribute("axis", 0))
        self._nodes.append(node)
        self._rounded.add(name)


def _weight_steps(rows: Floats) -> npt.NDArray[np.float64]:
    """The step of each row's int8 codes: its largest weight gets the largest code."""
    largest = np.abs(rows).max(axis=1).astype(np.float64)
    return np.where(largest > 0, largest, 1.0) / _LARGEST_WEIGHT


def _rounded(rows: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Round to whole numbers so that each row keeps its sum, as nearly as whole numbers can.

    Activations behind a ReLU have a mean above 0, with which the errors of a row add up: rounding a
    few numbers the other way, those that were nearest to it, costs less than it saves (Guo et al.
    2022, "SQuant", which does so for each kernel as well). Zeros stay zeros.
    """
    codes = np.rint(rows)
    errors = rows - codes
    missing = np.rint(errors.sum(axis=1, keepdims=True))
    gain = errors * np.sign(missing)
    order = np.argsort(-gain, axis=1, kind="stable")
    rank = np.argsort(order, axis=1, kind="stable")
    turned = (rank < np.abs(missing)) & (gain > 0)
    return np.where(turned, codes + np.sign(missing), codes)
