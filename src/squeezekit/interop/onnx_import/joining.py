"""Two nodes made one: a bias that is added behind its layer goes into the layer."""

from __future__ import annotations

import numpy as np
from onnx import NodeProto

from squeezekit.interop.onnx_import.draft import Draft


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
