"""Frees the batch: a graph that was exported for one image, or for four, takes any number."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from onnx import NodeProto
from onnx.shape_inference import InferenceError

from squeezekit.interop.onnx_import.draft import attributes, new_node, refuse
from squeezekit.interop.onnx_import.evaluate import inferred
from squeezekit.interop.onnx_import.walk import BATCH, Rewriter, Shape, Walk

_ALONG = ("ArgMax", "ArgMin", "Concat", "Gather", "LogSoftmax", "Softmax", "Split", "TopK")
"""Operators that work along one axis, by the attribute `axis`."""

_AXIS = {"ArgMax": 0, "ArgMin": 0, "Gather": 0, "Split": 0}
"""Its default, where that is not the last one."""


def freeing(own: Mapping[str, Shape], own_batch: int) -> Rewriter:
    """A rewriter for a walk with BATCH images.

    Args:
        own: the shapes of values in the model as it was, with its own number of images.
        own_batch: that number; 1 for a model that leaves it open.

    Returns:
        What has Reshape, Squeeze and the like keep images apart, and refuses nodes that mix them.
    """

    def rewrite(walk: Walk, node: NodeProto) -> list[NodeProto] | None:
        if node.domain or not node.input or not walk.is_image_data(node.input[0]):
            _check_constants(walk, node, own_batch)
            return None
        if node.op_type in ("Reshape", "Flatten", "Squeeze", "Unsqueeze"):
            return _reshape(walk, node, own)
        if node.op_type == "Slice":
            return _slice(walk, node)
        if node.op_type == "Gather" and own_batch == 1:
            rows = _rows_gathered(walk, node)
            if rows is not None:
                return rows
        _check_axis(walk, node)
        _check_constants(walk, node, own_batch)
        return None

    return rewrite


def batch_axes(shape: Shape) -> list[int]:
    """The axes of a shape that hold the batch."""
    return [axis for axis, size in enumerate(shape) if size and size % BATCH == 0]


def freed(given: Shape, own_given: Shape, own_result: Shape) -> Shape | None:
    """What a reshape gives for BATCH images, if it gave `own_result` for the model's own number.

    Values lie in the same order before and after, so the batch begins where as many values stand
    before it as did.
    """
    axes = batch_axes(given)
    if len(axes) != 1 or len(given) != len(own_given):
        return None
    (axis,) = axes
    outer, images = math.prod(own_given[:axis]), own_given[axis]
    for i, size in enumerate(own_result):
        if math.prod(own_result[:i]) == outer and images and size % images == 0:
            freed = (*own_result[:i], size // images * given[axis], *own_result[i + 1 :])
            return freed if math.prod(freed) == math.prod(given) else None
    return None


def _reshape(walk: Walk, node: NodeProto, own: Mapping[str, Shape]) -> list[NodeProto] | None:
    """Write any operator that only reshapes as a Flatten or Reshape for any number of images."""
    given = walk.shape_of(node, node.input[0])
    result = None
    by_batch = len(node.input) > 1 and node.input[1] in walk.by_batch
    if not by_batch and node.input[0] in own and node.output[0] in own:
        result = freed(given, own[node.input[0]], own[node.output[0]])
    if result is None:
        result = _as_stated(walk, node)
    if result == given:
        walk.same(node.output[0], node.input[0])
        return []
    axes = batch_axes(result)
    if batch_axes(given) and len(axes) != 1:
        raise refuse(node, "does not keep the images of a batch apart")
    if len(result) == 2 and axes == [0] and result[0] == given[0]:
        settled = new_node("Flatten", node.input[:1], node.output, node.name, axis=1)
    elif node.op_type == "Unsqueeze":
        return None
    else:
        target = [-1 if axis in axes else size for axis, size in enumerate(result)]
        if 0 in target:
            raise refuse(node, "gives a shape without values: not supported")
        shape = walk.draft.constant(target, np.int64, f"{node.name}.shape")
        settled = new_node("Reshape", [node.input[0], shape], node.output, node.name)
    if (settled.op_type, settled.input, settled.attribute) == (
        node.op_type, node.input, node.attribute,
    ):  # fmt: skip
        return None
    return _once(walk, settled)


def _once(walk: Walk, node: NodeProto) -> list[NodeProto]:
    """Take a node into the walk as it is now."""
    walk.take(node)
    return []


def _as_stated(walk: Walk, node: NodeProto) -> Shape:
    numbers = {name: v for name in node.input if (v := walk.value(name)) is not None}
    if any(name and name not in numbers for name in node.input[1:]):
        raise refuse(node, "computes a shape from the images: not supported")
    walk.know_types(node)
    try:
        kinds = inferred(node, walk.types, numbers)
    except InferenceError:
        raise refuse(
            node, "has its number of images in its shape, and where is not to be told"
        ) from None
    shape = tuple(dim.dim_value for dim in kinds[node.output[0]].tensor_type.shape.dim)
    if math.prod(shape) != math.prod(walk.shape_of(node, node.input[0])):
        raise refuse(node, "has its number of images in its shape, and where is not to be told")
    return shape


def _rows_gathered(walk: Walk, node: NodeProto) -> list[NodeProto] | None:
    """A Gather from all values of the only image in a row, as torch exports `as_strided`."""
    given, indices = walk.shape_of(node, node.input[0]), walk.value(node.input[1])
    if len(given) != 1 or indices is None or not indices.size or attributes(node).get("axis", 0):
        return None
    count = given[0] // BATCH
    if given[0] % BATCH or indices.shape[:1] != (1,) or not 0 <= indices.min() <= indices.max():
        return None
    if indices.max() >= count:
        return None
    draft = walk.draft
    last = draft.fresh(f"{node.name}.row")
    flat = draft.constant([-1, count], np.int64, f"{node.name}.count")
    walk.take(new_node("Reshape", [node.input[0], flat], [last], last))
    if indices.reshape(-1).tolist() != list(range(count)):
        row, last = last, draft.fresh(f"{node.name}.chosen")
        places = draft.constant(indices.reshape(-1), np.int64, f"{node.name}.places")
        walk.take(new_node("Gather", [row, places], [last], last, axis=1))
    shape = draft.constant([-1, *indices.shape[1:]], np.int64, f"{node.name}.shape")
    return _once(walk, new_node("Reshape", [last, shape], node.output, node.name))


def _slice(walk: Walk, node: NodeProto) -> list[NodeProto] | None:
    """Leave out the axes of which a Slice takes all; that of the batch must be among them."""
    given = walk.shape_of(node, node.input[0])
    values = [walk.value(name) if name else None for name in node.input[1:]]
    if len(values) < 2 or values[0] is None or values[1] is None:
        raise refuse(node, "computes from the images what it takes: not supported")
    starts, ends = values[0].tolist(), values[1].tolist()
    axes = values[2].tolist() if len(values) > 2 and values[2] is not None else range(len(starts))
    steps = values[3].tolist() if len(values) > 3 and values[3] is not None else [1] * len(starts)
    kept = [
        (start, end, axis % len(given), step)
        for start, end, axis, step in zip(starts, ends, axes, steps, strict=True)
        if not (step == 1 and start in (0, -given[axis]) and end >= given[axis])
    ]
    if not kept:
        walk.same(node.output[0], node.input[0])
        return []
    if set(batch_axes(given)) & {axis for _, _, axis, _ in kept}:
        raise refuse(node, "takes some of the images of a batch: not supported")
    if any(name in walk.by_batch for name in node.input):
        parts = [
            walk.draft.constant(part, np.int64, f"{node.name}.{what}")
            for what, part in zip(
                ("starts", "ends", "axes", "steps"), zip(*kept, strict=True), strict=True
            )
        ]
        node.input[:] = [node.input[0], *parts]
    return None


def _check_axis(walk: Walk, node: NodeProto) -> None:
    """Refuse what works along the batch."""
    given = walk.shape_of(node, node.input[0])
    settings = attributes(node)
    if node.op_type in _ALONG:
        axes = [settings.get("axis", _AXIS.get(node.op_type, -1))]
    elif node.op_type.startswith("Reduce"):
        stated = walk.value(node.input[1]) if len(node.input) > 1 and node.input[1] else None
        axes = list(range(len(given))) if stated is None else stated.tolist()
    else:
        return
    if set(batch_axes(given)) & {axis % len(given) for axis in axes}:
        raise refuse(node, "joins or chooses from the images of a batch: not supported")


def _check_constants(walk: Walk, node: NodeProto, own_batch: int) -> None:
    """Refuse constants that are as many as the model's images were."""
    shapes = [walk.shape(name) for name in node.input if name]
    rank = max((len(shape) for shape in shapes if shape is not None), default=0)
    images = {
        axis - len(shape)
        for name, shape in zip((n for n in node.input if n), shapes, strict=True)
        if shape is not None and walk.is_image_data(name)
        for axis in batch_axes(shape)
    }
    joins = node.op_type == "Concat"
    if not joins and (node.op_type not in _ELEMENTWISE or own_batch == 1):
        return
    for name in node.input[2:] if node.op_type == "Gemm" else node.input:
        shape = walk.draft.constants[name].shape if name in walk.draft.constants else ()
        if len(shape) == rank and any(shape[axis] == own_batch for axis in images):
            raise refuse(node, f"has the model's batch of {own_batch} in the constant {name!r}")


_ELEMENTWISE = ("Add", "Div", "Gemm", "Max", "Min", "Mul", "PRelu", "Pow", "Sub", "Sum", "Where")
