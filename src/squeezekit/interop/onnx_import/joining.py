"""Several nodes made one: a bias goes into its layer, torch's way to LRN becomes an LRN."""

from __future__ import annotations

import numpy as np
from onnx import NodeProto

from squeezekit.interop.onnx_import.draft import Draft, attributes, new_node
from squeezekit.interop.onnx_import.walk import Walk


def join_biases(draft: Draft) -> None:
    """Put an Add of one number for each filter into the Conv or Gemm before it.

    Only where that layer has no bias of its own, and nothing else uses it.
    """
    uses = draft.uses()
    makers = {node.output[0]: node for node in draft.nodes}
    joined: set[str] = set()
    for node in draft.nodes:
        layer, bias = _layer_and_bias(node, makers, draft)
        if layer is None or uses[layer.output[0]] != 1:
            continue
        outputs = _outputs(layer, draft)
        spread = [1, outputs, 1, 1] if layer.op_type == "Conv" else [1, outputs]
        values = draft.constants[bias]
        shape = [1] * (len(spread) - values.ndim) + list(values.shape)
        if outputs is None or shape != spread:
            continue
        own = bias if uses[bias] == 1 and values.ndim == 1 else draft.fresh(bias)
        draft.constants[own] = np.ascontiguousarray(values.reshape(-1))
        layer.input.append(own)
        joined.add(node.output[0])
        layer.output[0] = node.output[0]
        makers[node.output[0]] = layer
    draft.nodes = [n for n in draft.nodes if n.op_type != "Add" or n.output[0] not in joined]


def join_reshapes(walk: Walk) -> None:
    """Have the last of several reshapes take what the first was given."""
    draft = walk.draft
    makers: dict[str, NodeProto] = {}
    same: dict[str, str] = {}
    kept = []
    for node in draft.nodes:
        node.input[:] = [same.get(name, name) for name in node.input]
        if node.op_type in ("Flatten", "Reshape"):
            first = node.input[0]
            while first in makers:
                first = makers[first].input[0]
            before, behind = walk.shape(first), walk.shape(node.output[0])
            if before is not None and before == behind:
                same[node.output[0]] = first
                continue
            if before is not None and behind is not None and first != node.input[0]:
                flat = len(behind) == 2 and before[0] == behind[0]
                if flat:
                    node = new_node("Flatten", [first], node.output, node.name, axis=1)
                elif node.op_type == "Reshape" and 0 not in draft.constants[node.input[1]]:
                    node.input[0] = first
        if node.op_type in ("Flatten", "Reshape", "Squeeze", "Unsqueeze"):
            makers[node.output[0]] = node
        kept.append(node)
    draft.nodes = kept
    draft.outputs = {public: same.get(name, name) for public, name in draft.outputs.items()}


def join_lrns(draft: Draft) -> None:
    """Make an LRN of the nodes that torch exports for one (Krizhevsky et al. 2012, section 3.3).

    x / (k + alpha * a)^beta, where a averages the squares of x over neighbouring channels, by a
    pool over the first of three axes.
    """
    uses = draft.uses()
    makers = {node.output[0]: node for node in draft.nodes}
    for i, node in enumerate(draft.nodes):
        found = _lrn(node, makers, draft) if node.op_type == "Div" else None
        if found is None or uses[node.input[1]] != 1:
            continue
        settings, x = found
        draft.nodes[i] = new_node("LRN", [x], node.output, node.name, **settings)


def _lrn(
    node: NodeProto, makers: dict[str, NodeProto], draft: Draft
) -> tuple[dict[str, object], str] | None:
    x, value = node.input
    settings: dict[str, object] = {}
    for op, name in (("Pow", "beta"), ("Add", "bias"), ("Mul", "alpha")):
        maker = makers.get(value)
        stored = draft.constants.get(maker.input[1]) if maker and maker.op_type == op else None
        if maker is None or stored is None or stored.size != 1:
            return None
        value, settings[name] = maker.input[0], float(stored.reshape(-1)[0])
    steps: list[NodeProto] = []
    while len(steps) < 3:
        maker = makers.get(value)
        if maker is None:
            return None
        if maker.op_type not in ("Reshape", "Squeeze", "Unsqueeze"):
            steps.append(maker)
        value = maker.input[0]
    if [step.op_type for step in steps] != ["AveragePool", "Pad", "Mul"]:
        return None
    pool, pad, square = steps
    kernel = attributes(pool)["kernel_shape"]
    pads = draft.constants.get(pad.input[1])
    size = kernel[0]
    around = [0, 0, size // 2, 0, 0] * 2
    if kernel != [size, 1, 1] or size % 2 == 0 or pads is None or pads.tolist() != around:
        return None
    return (settings | {"size": size}, x) if list(square.input) == [x, x] else None


def _layer_and_bias(
    node: NodeProto, makers: dict[str, NodeProto], draft: Draft
) -> tuple[NodeProto | None, str]:
    if node.op_type != "Add" or node.domain:
        return None, ""
    for made, stored in (tuple(node.input), tuple(node.input)[::-1]):
        layer = makers.get(made)
        if layer is not None and stored in draft.constants and _outputs(layer, draft):
            return layer, stored
    return None, ""


def _outputs(layer: NodeProto, draft: Draft) -> int | None:
    """How many filters a layer without bias has."""
    if layer.op_type not in ("Conv", "Gemm") or len(layer.input) != 2:
        return None
    weight = draft.constants.get(layer.input[1])
    if weight is None:
        return None
    turned = layer.op_type == "Gemm" and not any(
        a.name == "transB" and a.i for a in layer.attribute
    )
    return int(weight.shape[1 if turned else 0])
