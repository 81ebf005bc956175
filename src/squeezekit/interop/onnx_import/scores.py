"""Finds the output that scores classes, by shape and by use, and tells what its numbers are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from onnx import NodeProto, TensorProto, TypeProto

from squeezekit.errors import InputError, UnsupportedError
from squeezekit.interop.onnx_import.draft import Draft, new_node
from squeezekit.interop.onnx_import.evaluate import shape_in
from squeezekit.interop.onnx_import.source import Array

Meaning = Literal["logits", "probabilities", "sigmoid", "logit"]
"""What scores are: of several classes, or the one number that is for the second of two."""

_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16)
_SUM_TOLERANCE = 1e-3
_PASSING = (
    "Cast", "Clip", "Dropout", "Flatten", "Identity", "Reshape", "Squeeze", "Transpose",
    "Unsqueeze",
)  # fmt: skip
"""Operators that a softmax or sigmoid may have behind it, and still be the end."""


_BENT = ("Elu", "Exp", "HardSwish", "LeakyRelu", "Relu", "Softplus", "Tanh")
"""Activations behind which a number is no logit."""


def choose(draft: Draft, types: Mapping[str, TypeProto], batch: int, name: str | None) -> str:
    """The public name of the output that scores classes.

    Args:
        draft: with its outputs.
        types: the types of values, for `batch` images.
        batch: how many images the types are for.
        name: the name of the output that the user chose, if they did.

    Raises:
        InputError: if there is no output of that name.
        UnsupportedError: if none scores classes, or several do.
    """
    if name is not None:
        if name not in draft.outputs:
            raise InputError(f"has no output {name!r}, but {_listed(draft.outputs)}")
        _require_scores(name, types.get(draft.outputs[name]), batch)
        _require_no_features(draft, types, batch, name)
        return name
    if len(draft.outputs) == 1:
        (only,) = draft.outputs
        _require_scores(only, types.get(draft.outputs[only]), batch)
        return only
    scoring = [
        public
        for public, value in draft.outputs.items()
        if _why_none(types.get(value), batch) is None
    ]
    below = _below(draft, [draft.outputs[public] for public in scoring])
    last = [public for public in scoring if draft.outputs[public] not in below]
    if len(last) == 1:
        return last[0]
    described = ", ".join(
        f"{public} {_sizes(types.get(value))}" for public, value in draft.outputs.items()
    )
    which = "several of its outputs could be" if last else "none of its outputs is"
    raise UnsupportedError(
        f"{which} scores of classes ({described}); name the one that is: --output NAME"
    )


def _listed(names: Mapping[str, str]) -> str:
    return ", ".join(repr(name) for name in names)


def _require_scores(public: str, kind: TypeProto | None, batch: int) -> None:
    reason = _why_none(kind, batch)
    if reason is not None:
        raise UnsupportedError(f"is no classifier; its output {public!r} {reason}")


def _require_no_features(
    draft: Draft, types: Mapping[str, TypeProto], batch: int, name: str
) -> None:
    """Refuse an output of another size that scores are made of."""
    chosen = draft.outputs[name]
    for public, value in draft.outputs.items():
        if _why_none(types.get(value), batch) is not None or value == chosen:
            continue
        sizes = {_sizes(types.get(value)), _sizes(types.get(chosen))}
        if len(sizes) == 2 and chosen in _below(draft, [chosen, value]):
            raise UnsupportedError(
                f"is no classifier by its output {name!r}, which holds features: {public!r} is "
                "made of them"
            )


def _sizes(kind: TypeProto | None) -> str:
    shape = None if kind is None else shape_in(kind)
    return "(?)" if shape is None else f"({', '.join(map(str, ('N', *shape[1:])))})"


def _why_none(kind: TypeProto | None, batch: int) -> str | None:
    """Why an output cannot be scores: one number a class, for each image."""
    if kind is None or not kind.HasField("tensor_type"):
        return "has a shape that is not known"
    if kind.tensor_type.elem_type not in _FLOATS:
        name = TensorProto.DataType.Name(kind.tensor_type.elem_type).lower()
        return f"holds labels or the like ({name})"
    shape = shape_in(kind)
    if shape is None:
        return "has a shape that is not known"
    if not shape or shape[0] != batch:
        if batch == 1 and len(shape) == 1:
            return None  # one image, and its axis is gone
        return f"has the shape {_sizes(kind)}"
    if any(size != 1 for size in shape[2:]) or 0 in shape:
        return f"has the shape {_sizes(kind)}"
    return None


def _below(draft: Draft, values: Sequence[str]) -> set[str]:
    """Those of some values that others of them are made of."""
    makers = {name: node for node in draft.nodes for name in node.output}
    found: set[str] = set()
    for value in values:
        seen = {value}
        queue = [value]
        while queue:
            maker = makers.get(queue.pop())
            for name in maker.input if maker is not None else ():
                if name not in seen:
                    seen.add(name)
                    queue.append(name)
        found |= (seen - {value}) & set(values)
    return found


def meaning_of(draft: Draft, value: str, scores: Array) -> Meaning:
    """What scores are, going by what the network gave.

    Args:
        draft: the graph.
        value: the value that is its output.
        scores: (N, classes) for different images.

    Raises:
        UnsupportedError: if they are no scores of classes that exclude each other.
    """
    end = _end(draft, value)
    if scores.shape[1] == 1:
        return _meaning_of_one(end, scores)
    sums = scores.sum(axis=1, dtype=np.float64)
    if scores.min() >= 0.0 and np.abs(sums - 1.0).max() <= _SUM_TOLERANCE:
        return "probabilities"
    if end is not None and end.op_type in ("Mul", "Div") and scores.min() >= 0.0:
        scaled = _end(draft, end.input[0])
        if scaled is not None and scaled.op_type == "Softmax":
            raise UnsupportedError(
                f"gives scores that sum to {sums.mean():.4g}: probabilities in another unit are "
                "not supported"
            )
    if end is not None and end.op_type in ("Sigmoid", "HardSigmoid"):
        raise UnsupportedError(
            f"scores each class on its own (node {end.name!r} is a {end.op_type}), so that several "
            "or none may be true of an image: not supported"
        )
    lengths = np.square(scores, dtype=np.float64).sum(axis=1)
    if np.abs(lengths - 1.0).max() <= _SUM_TOLERANCE and scores.min() < 0.0:
        raise UnsupportedError("is no classifier; its output holds features of length 1")
    return "logits"


def _meaning_of_one(end: NodeProto | None, scores: Array) -> Meaning:
    """What the only number of each image is."""
    if end is not None and end.op_type == "Sigmoid":
        return "sigmoid"
    if end is not None and end.op_type in _BENT:
        raise UnsupportedError(
            f"has one output that node {end.name!r} makes, a {end.op_type}: only a sigmoid, or "
            "nothing behind the last layer, tells two classes"
        )
    if scores.min() >= 0.0 and scores.max() <= 1.0:
        raise UnsupportedError(
            "is no classifier; its one output lies between 0 and 1 and is no sigmoid"
        )
    return "logit"


def _end(draft: Draft, value: str) -> NodeProto | None:
    """The node that makes a value, seen through what may stand behind it."""
    makers = {name: node for node in draft.nodes for name in node.output}
    node = makers.get(value)
    while node is not None and node.op_type in _PASSING:
        node = makers.get(node.input[0])
    return node


def end_in_softmax(draft: Draft, public: str) -> bool:
    """Have the network end in its softmax: what only rounds or clips behind it goes.

    Returns:
        Whether anything went. The caller compares, and takes it back where it mattered.
    """
    end = _end(draft, draft.outputs[public])
    makers = {name: node for node in draft.nodes for name in node.output}
    node, mattered = makers.get(draft.outputs[public]), False
    while node is not None and node is not end:
        mattered |= node.op_type in ("Clip", "Cast")
        node = makers.get(node.input[0])
    if end is None or end.op_type != "Softmax" or not mattered:
        return False
    draft.outputs[public] = end.output[0]
    return True


def to_two_classes(draft: Draft, public: str, rank: int, meaning: Meaning) -> None:
    """Have a network with one output score two classes: 0, and the logit of the second.

    The softmax of (0, z) is the sigmoid of z, so that it runs like any other network.
    """
    value = draft.outputs[public]
    if meaning == "sigmoid":
        end = _end(draft, value)
        assert end is not None
        value = end.input[0]
    column = value
    if rank != 2:
        column = draft.fresh(f"{public}.column")
        flat = draft.constant([-1, 1], np.int64, f"{public}.shape")
        draft.nodes.append(new_node("Reshape", [value, flat], [column], column))
    weight = draft.constant([[0.0], [1.0]], np.float32, f"{public}.two")
    both = draft.fresh(f"{public}.logits")
    draft.nodes.append(new_node("Gemm", [column, weight], [both], both, transB=1))
    draft.outputs[public] = both
