"""Nodes of older operator sets, written as operator set 21 has them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from onnx import NodeProto, helper

from squeezekit.interop.onnx_import.draft import Draft, attributes, new_node, refuse

Shape = tuple[int, ...]
Raiser = Callable[[NodeProto, Draft, Callable[[str], Shape]], "list[NodeProto] | None"]

_LEAST, _MOST = float(np.finfo(np.float32).min), float(np.finfo(np.float32).max)


def raised(node: NodeProto, draft: Draft, shape_of: Callable[[str], Shape]) -> list[NodeProto]:
    """A node as operator set 21 has it: itself, perhaps changed, or several.

    Args:
        node: is changed in place.
        draft: whose `version` the node is of; gets the constants that were attributes.
        shape_of: tells the shape of a value at this place of the graph.

    Raises:
        UnsupportedError: if the older operator did what no newer one does.
    """
    raiser = _RAISERS.get(node.op_type)
    if raiser is None or node.domain:
        return [node]
    return raiser(node, draft, shape_of) or [node]


def _take(node: NodeProto, name: str) -> object:
    """Remove an attribute, and give its value, or None."""
    for attribute in node.attribute:
        if attribute.name == name:
            value: object = helper.get_attribute_value(attribute)
            node.attribute.remove(attribute)
            return value
    return None


def _to_input(
    node: NodeProto, draft: Draft, name: str, position: int, dtype: type[np.generic]
) -> None:
    """Move an attribute to where the newer operator has an input."""
    value = _take(node, name)
    if value is None:
        return
    while len(node.input) < position:
        node.input.append("")
    del node.input[position:]
    node.input.append(draft.constant(value, dtype, f"{node.name}.{name}"))


def _axes_to_input(node: NodeProto, draft: Draft, shape_of: Callable[[str], Shape]) -> None:
    _to_input(node, draft, "axes", 1, np.int64)


def _clip(node: NodeProto, draft: Draft, shape_of: Callable[[str], Shape]) -> None:
    if draft.version >= 11:
        return
    low, high = _take(node, "min"), _take(node, "max")
    del node.input[1:]
    node.input.append(
        draft.constant(_LEAST if low is None else low, np.float32, f"{node.name}.min")
    )
    node.input.append(
        draft.constant(_MOST if high is None else high, np.float32, f"{node.name}.max")
    )


def _batch_norm(node: NodeProto, draft: Draft, shape_of: Callable[[str], Shape]) -> None:
    if _take(node, "spatial") == 0:
        raise refuse(node, "normalises every pixel by its own numbers (spatial=0): not supported")
    _take(node, "momentum")  # of training


def _pad(node: NodeProto, draft: Draft, shape_of: Callable[[str], Shape]) -> None:
    if draft.version < 11:
        value = _take(node, "value")
        _to_input(node, draft, "pads", 1, np.int64)
        node.input.append(
            draft.constant(0.0 if value is None else value, np.float32, f"{node.name}.value")
        )
    elif len(node.input) > 3 and node.input[3]:
        known = [draft.constants.get(node.input[i]) for i in (1, 3)]
        if known[0] is None or known[1] is None:
            return
        rank, axes = len(shape_of(node.input[0])), known[1].tolist()
        pads = np.zeros((2, rank), np.int64)
        pads[:, [axis % rank for axis in axes]] = known[0].reshape(2, -1)
        node.input[1] = draft.constant(pads.reshape(-1), np.int64, f"{node.name}.pads")
        del node.input[3:]


def _slice(node: NodeProto, draft: Draft, shape_of: Callable[[str], Shape]) -> None:
    for position, name in enumerate(("starts", "ends", "axes"), start=1):
        _to_input(node, draft, name, position, np.int64)


def _split(node: NodeProto, draft: Draft, shape_of: Callable[[str], Shape]) -> None:
    _to_input(node, draft, "split", 1, np.int64)
    _take(node, "num_outputs")
    if len(node.input) < 2 or not node.input[1]:
        axis = attributes(node).get("axis", 0)
        size, parts = shape_of(node.input[0])[axis], len(node.output)
        each = -(-size // parts)
        sizes = [max(min(each, size - i * each), 0) for i in range(parts)]
        del node.input[1:]
        node.input.append(draft.constant(sizes, np.int64, f"{node.name}.split"))


def _softmax(
    node: NodeProto, draft: Draft, shape_of: Callable[[str], Shape]
) -> list[NodeProto] | None:
    """Older ones flatten everything from their axis on, and normalise over all of that."""
    if draft.version >= 13:
        return None
    axis = _take(node, "axis")
    shape = shape_of(node.input[0])
    first = (1 if axis is None else int(str(axis))) % len(shape)
    if all(size == 1 for size in shape[first + 1 :]):
        node.attribute.append(helper.make_attribute("axis", first))
        return None
    if first != 1:
        raise refuse(node, f"normalises over all axes from {first} on: not supported")
    flat, even = (draft.fresh(f"{node.output[0]}.{part}") for part in ("flat", "even"))
    back = draft.constant([0, *shape[1:]], np.int64, f"{node.name}.shape")
    return [
        new_node("Flatten", [node.input[0]], [flat], f"{node.name}.flat", axis=1),
        new_node(node.op_type, [flat], [even], node.name, axis=-1),
        new_node("Reshape", [even, back], node.output, f"{node.name}.back"),
    ]


_RAISERS: dict[str, Raiser] = {
    "BatchNormalization": _batch_norm,
    "Clip": _clip,
    "LogSoftmax": _softmax,
    "Pad": _pad,
    "ReduceL1": _axes_to_input,
    "ReduceL2": _axes_to_input,
    "ReduceMax": _axes_to_input,
    "ReduceMean": _axes_to_input,
    "ReduceMin": _axes_to_input,
    "ReduceProd": _axes_to_input,
    "ReduceSum": _axes_to_input,
    "ReduceSumSquare": _axes_to_input,
    "Slice": _slice,
    "Softmax": _softmax,
    "Split": _split,
    "Squeeze": _axes_to_input,
    "Unsqueeze": _axes_to_input,
}
