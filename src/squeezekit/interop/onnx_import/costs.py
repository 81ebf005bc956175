"""What running an ONNX model takes, held to the limits of a file before it is run."""

from __future__ import annotations

import math

from onnx import NodeProto

from squeezekit.interop.onnx_import.draft import attributes
from squeezekit.interop.onnx_import.walk import Shape, Walk
from squeezekit.sqz.limits import TRUSTED, Limits

_FLOAT_BYTES = 4


def require_affordable(walk: Walk, images: int, file_bytes: int, limits: Limits | None) -> None:
    """Refuse a model that asks for more than files of its size may.

    Args:
        walk: through all of the model, so that the shapes of its values are known.
        images: that go through it at once.
        file_bytes: of the model with all its weights.
        limits: how much it may ask for; None trusts it.

    Raises:
        LimitError: if it asks for too much memory or work.
    """
    limits, nodes = limits or TRUSTED, walk.draft.nodes
    last = {name: i for i, node in enumerate(nodes) for name in node.input}
    last |= dict.fromkeys(walk.draft.outputs.values(), len(nodes))
    living = {walk.draft.image: _size(walk, walk.draft.image)}
    macs = memory = 0
    for i, node in enumerate(nodes):
        macs += _work(walk, node)
        made = {name: _size(walk, name) for name in node.output if name}
        memory = max(memory, sum(living.values()) + sum(made.values()))
        living |= made
        for name in (*node.input, *made):
            if last.get(name, i) <= i:
                living.pop(name, None)
    limits.check("file_bytes", file_bytes, file_bytes)
    limits.check("macs", macs // images, file_bytes)
    limits.check("memory", _FLOAT_BYTES * memory // images, file_bytes)


def _size(walk: Walk, name: str) -> int:
    """Numbers in a value; 0 where its shape is not known, which is refused later on."""
    return math.prod(walk.shape(name) or (0,))


def _work(walk: Walk, node: NodeProto) -> int:
    """Multiply-accumulates, and what windows add up."""
    shapes = [walk.shape(name) for name in node.input]
    made = sum(_size(walk, name) for name in node.output if name)
    match node.op_type:
        case "Conv" | "ConvInteger" | "QLinearConv":
            weight = shapes[3 if node.op_type == "QLinearConv" else 1]
            return made * math.prod((weight or (0,))[1:])
        case "Gemm":
            flipped = attributes(node).get("transA", 0)
            return made * _axis(shapes[0], 0 if flipped else -1)
        case "MatMul" | "MatMulInteger" | "QLinearMatMul":
            return made * _axis(shapes[0], -1)
        case "MaxPool" | "AveragePool" | "LpPool":
            return made * math.prod(map(int, attributes(node).get("kernel_shape", (1,))))
        case "LRN":
            return made * int(attributes(node).get("size", 1))
    return made + sum(map(_numbers, shapes))


def _numbers(shape: Shape | None) -> int:
    return math.prod(shape or (0,))


def _axis(shape: Shape | None, axis: int) -> int:
    return shape[axis] if shape else 0


def most_folded(file_bytes: int, limits: Limits | None) -> int:
    """Numbers that may be computed from a model's constants, which would be its weights."""
    return (limits or TRUSTED).most("weights", file_bytes)
