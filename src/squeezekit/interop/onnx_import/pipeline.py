"""Imports ONNX models: normalises them, frees the batch size, finds the scores, compares."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from onnx import ModelProto, TensorProto, ValueInfoProto, helper

from squeezekit.errors import GraphError, InputError, LimitError, UnsupportedError
from squeezekit.interop.onnx_import import compare, idioms, scores
from squeezekit.interop.onnx_import.batch import batch_axes, freeing
from squeezekit.interop.onnx_import.compare import Original, random_images, require_same
from squeezekit.interop.onnx_import.costs import most_folded, require_affordable
from squeezekit.interop.onnx_import.draft import (
    Draft,
    attributes,
    draft_of,
    new_node,
    refuse,
    to_model,
    wanted_by,
)
from squeezekit.interop.onnx_import.joining import join_biases, join_lrns, join_reshapes
from squeezekit.interop.onnx_import.source import Array, is_quantised, load
from squeezekit.interop.onnx_import.walk import BATCH, Shape, Walk, float_type
from squeezekit.sqz.limits import DEFAULT, Limits
from squeezekit.sqz.network import Floats
from squeezekit.sqz.operators import OPERATORS

QUANTISED = frozenset({"QuantizeLinear", "DequantizeLinear"})
"""Beside those that a `.sqz` may have, where the model runs in integers and stays an ONNX model."""

_WEIGHTS = ("float32", "int64", "int32", "bool")
_MOST_IMAGES, _MOST_PIXELS = 1024, 4096
"""The most images at a time, and pixels per side: the comparison must fit into memory."""

_MOST_CHECKED = 4
"""How many random images are used to find out what the scores are."""


@dataclass(frozen=True)
class Imported:
    """An imported model.

    Attributes:
        model: one input (N, C, S, S), one output (N, classes), N open.
        size: S.
        channels: C.
        output: what the scores are.
        two_classes: whether these were made of the model's one output.
        properties: the model's own metadata_props.
    """

    model: ModelProto
    size: int
    channels: int
    output: str
    two_classes: bool
    properties: dict[str, str]


@dataclass(frozen=True)
class Asked:
    """What the user states about a model.

    Attributes:
        input_size: height and width in pixels, for a model that leaves them open.
        output: name of the output that scores classes, where there are several.
        labels: names of classes; a model with one output needs one or two.
        quantised: whether a model that computes in integers may come through, to be run as it is.
        limits: how much the model may ask for; None trusts it.
    """

    input_size: int | None = None
    output: str | None = None
    labels: Sequence[str] = ()
    quantised: bool = False
    limits: Limits | None = DEFAULT


def imported(path: Path | str, asked: Asked) -> Imported:
    """Import a model, or say in one sentence why that is impossible.

    Raises:
        InputError: see `onnx_file.read`.
        UnsupportedError: see `onnx_file.read`.
        LimitError: see `onnx_file.read`.
    """
    model = load(path)
    try:
        return brought_in(model, asked)
    except (InputError, UnsupportedError, LimitError) as error:
        raise type(error)(f"{path}: {error}") from None


@np.errstate(all="ignore")  # the comparison finds values that are not numbers
def brought_in(model: ModelProto, asked: Asked) -> Imported:
    """The same for a model in memory.

    Raises:
        InputError: as `imported`, without the name of a file.
        UnsupportedError: as `imported`, without the name of a file.
        LimitError: as `imported`, without the name of a file.
    """
    if not asked.quantised and (node := is_quantised(model)) is not None:
        raise UnsupportedError(f"is quantised already ({node.op_type}); give the float32 model")
    image = _image_of(model)
    takes = _Takes.of(model, image, asked.input_size)
    begun = draft_of(model, image.name)
    half = _widen(begun, takes)
    if takes.last:
        inner = begun.image
        begun.image = begun.fresh(f"{inner}.channels_first")
        begun.nodes.insert(
            0, new_node("Transpose", [begun.image], [inner], begun.image, perm=[0, 2, 3, 1])
        )
    own_batch = takes.batch or 1
    most = most_folded(model.ByteSize(), asked.limits)
    own = Walk(begun.copy(), own_batch, strict=False, most_numbers=most)
    own.run(float_type((own_batch, takes.channels, takes.size, takes.size)))
    require_affordable(own, own_batch, model.ByteSize(), asked.limits)
    wanted = asked.output or (next(iter(begun.outputs)) if len(begun.outputs) == 1 else None)
    if wanted in begun.outputs and own.shape(own.draft.outputs[wanted]) is None and own.troubles:
        raise own.troubles[0]
    public = scores.choose(own.draft, own.types, own_batch, asked.output)
    shapes = {name: s for name in own.types if (s := own.shape(name)) is not None}
    original = _original(model, image, public, takes)

    draft = begun.copy()
    draft.outputs = {public: begun.outputs[public]}
    draft.prune()
    walk = _freed(draft, shapes, own_batch, takes, most)
    _require_supported(draft, asked.quantised)
    images, answers = _answers(original, takes)
    meaning = scores.meaning_of(draft, draft.outputs[public], answers)
    coarse = half or is_quantised(model) is not None
    tolerance = compare.COARSE_TOLERANCE if coarse else compare.TOLERANCE

    def finished(draft: Draft) -> ModelProto:
        rank = walk.shape(draft.outputs[public]) or (BATCH, 2)
        shape: tuple[int | str, ...] = ("N", *rank[1:])
        if meaning in ("sigmoid", "logit"):
            shape = ("N", 2)
        made = to_model(
            draft, ("N", takes.channels, takes.size, takes.size), {draft.outputs[public]: shape}
        )
        require_same(
            original,
            lambda batch: (
                answers[: len(batch)]
                if len(batch) == 1 or original.batch == 1
                else original.scores(batch)
            ),
            made.SerializeToString(),
            _undone(meaning),
            images,
            tolerance,
        )
        return made

    if meaning in ("sigmoid", "logit"):
        if len(asked.labels) not in (1, 2):
            raise UnsupportedError(
                f"has one output ({public!r}), a yes or no: name the class that it is for, or both "
                "classes, the other one first, by labels (export WEIGHTS OUT --labels FILE)"
            )
        rank = len(walk.shape_of(draft.nodes[-1], draft.outputs[public]))
        scores.to_two_classes(draft, public, rank, meaning)
    elif meaning == "probabilities":
        shorter = draft.copy()
        if scores.end_in_softmax(shorter, public):
            shorter.prune()
            try:
                return _result(finished(shorter), takes, meaning, model)
            except UnsupportedError:
                pass  # what stands behind the softmax matters
    draft.prune()
    return _result(finished(draft), takes, meaning, model)


def _result(
    made: ModelProto, takes: _Takes, meaning: scores.Meaning, model: ModelProto
) -> Imported:
    output = "probabilities" if meaning == "probabilities" else "logits"
    properties = {entry.key: entry.value for entry in model.metadata_props}
    two = meaning in ("sigmoid", "logit")
    return Imported(made, takes.size, takes.channels, output, two, properties)


def _undone(meaning: scores.Meaning) -> Callable[[Array], Array]:
    """From what the network gives to what the model gives."""
    if meaning == "sigmoid":
        return lambda both: 1.0 / (1.0 + np.exp(both[:, :1] - both[:, 1:]))
    if meaning == "logit":
        return lambda both: both[:, 1:] - both[:, :1]
    return lambda output: output


def _freed(
    draft: Draft, shapes: dict[str, Shape], own_batch: int, takes: _Takes, most: int
) -> Walk:
    """Walk through with any number of images, and rewrite on the way."""
    rewriters = (freeing(shapes, own_batch), idioms.rewrite)
    walk = Walk(draft, BATCH, rewriters, most_numbers=most)
    walk.run(float_type((BATCH, takes.channels, takes.size, takes.size)))
    walk.settle()
    for public, value in draft.outputs.items():
        shape = walk.shape(value)
        if shape is None or batch_axes(shape)[:1] != [0] or shape[0] != BATCH:
            raise UnsupportedError(
                f"its output {public!r} does not keep the images of a batch apart"
            )
    draft.prune()
    join_lrns(draft)
    join_reshapes(walk)
    join_biases(draft)
    draft.prune()
    return walk


def _require_supported(draft: Draft, quantised: bool) -> None:
    allowed = OPERATORS.keys() | (QUANTISED if quantised else ())
    for node in draft.nodes:
        if node.domain or node.op_type not in allowed:
            domain = f" of {node.domain}" if node.domain else ""
            raise refuse(node, f"is an operator{domain} that is not supported")
    for name, array in draft.constants.items():
        if str(array.dtype) not in _WEIGHTS and not quantised:
            raise UnsupportedError(f"{name} is {array.dtype}; only float32 weights can be read")


def _answers(original: Original, takes: _Takes) -> tuple[Floats, Floats]:
    """Random images, and what the model says to each: (N, C, H, W) and (N, scores).

    Raises:
        UnsupportedError: if the model does not run, or gives no numbers.
    """
    for wide in (True, False):  # a model of small inputs may overflow at large ones
        images = random_images(_MOST_CHECKED, takes.channels, takes.size, wide=wide)
        try:
            # One by one, so that it does not matter how a model shapes its results.
            rows = [original.scores(images[i : i + 1]) for i in range(len(images))]
        except GraphError as error:
            raise UnsupportedError(
                f"cannot be compared, because the original does not run ({error})"
            ) from None
        scored = np.concatenate([np.asarray(row, np.float32).reshape(1, -1) for row in rows])
        if np.isfinite(scored).all():
            return images, scored
    raise UnsupportedError("gives numbers that are not finite for random images")


# ---------------------------------------------------------------------------- what the model takes


def _image_of(model: ModelProto) -> ValueInfoProto:
    """The one input that is used."""
    graph = model.graph
    stored = {tensor.name for tensor in graph.initializer}
    used = {name for node in graph.node for name in wanted_by(node)}
    inputs = [value for value in graph.input if value.name not in stored]
    wanted = [value for value in inputs if value.name in used]
    if len(wanted) != 1:
        names = ", ".join(value.name for value in wanted) or "none"
        raise UnsupportedError(f"needs exactly one input, an image, but has {names}")
    image: ValueInfoProto = wanted[0]
    return image


@dataclass(frozen=True)
class _Takes:
    """What goes into a model.

    Attributes:
        batch: how many images at a time; None for any number.
        channels, size: the channels and the size of an image.
        last: whether channels are the last axis.
        kind: the kind of its numbers.
    """

    batch: int | None
    channels: int
    size: int
    last: bool
    kind: int

    @classmethod
    def of(cls, model: ModelProto, image: ValueInfoProto, input_size: int | None) -> _Takes:
        kind = image.type.tensor_type
        dims = [dim.dim_value if dim.HasField("dim_value") else 0 for dim in kind.shape.dim]
        if kind.elem_type not in (TensorProto.FLOAT, TensorProto.FLOAT16) or len(dims) != 4:
            raise UnsupportedError(f"its input {image.name} is not a float32 batch of images")
        last = dims[1] not in (1, 3) and dims[3] in (1, 3)
        if last:
            dims = [dims[0], dims[3], dims[1], dims[2]]
        channels = dims[1] or _channels_of_first_conv(model, image.name)
        if channels not in (1, 3):
            raise UnsupportedError(f"takes {channels} channels; only 1 and 3 are supported")
        if dims[0] > _MOST_IMAGES:
            raise UnsupportedError(f"takes {dims[0]} images at a time; at most {_MOST_IMAGES}")
        size = _size(dims[2:], input_size)
        if size > _MOST_PIXELS:
            raise UnsupportedError(f"takes images of {size} pixels a side; at most {_MOST_PIXELS}")
        return cls(max(dims[0], 0) or None, channels, size, last, kind.elem_type)

    def layout(self, images: Floats) -> Floats:
        """Images (N, C, H, W) float32, as the model takes them."""
        laid = np.ascontiguousarray(np.moveaxis(images, 1, 3)) if self.last else images
        return laid.astype(helper.tensor_dtype_to_np_dtype(self.kind), copy=False)


def _size(sides: list[int], input_size: int | None) -> int:
    known = {side for side in sides if side > 0}
    if len(known) > 1:
        raise UnsupportedError(f"takes images of {sides[0]} x {sides[1]}, not square ones")
    if not known:
        if input_size is None:
            raise InputError("leaves its input size open; name one, such as --input-size 224")
        return input_size
    (size,) = known
    if input_size not in (None, size):
        raise InputError(f"takes images of {size} pixels, not {input_size}")
    return size


def _channels_of_first_conv(model: ModelProto, image: str) -> int:
    shapes = {tensor.name: tensor.dims for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Conv" and node.input[0] == image and node.input[1] in shapes:
            return int(shapes[node.input[1]][1])
    return 0


def _widen(draft: Draft, takes: _Takes) -> bool:
    """Have a model in float16 compute in float32; returns whether it was one."""
    halves = [name for name, array in draft.constants.items() if array.dtype == np.float16]
    if not halves and takes.kind == TensorProto.FLOAT:
        return False
    for name in halves:
        draft.constants[name] = draft.constants[name].astype(np.float32)
    for node in draft.nodes:
        if node.op_type == "Cast" and attributes(node).get("to") == TensorProto.FLOAT16:
            node.ClearField("attribute")
            node.attribute.append(helper.make_attribute("to", TensorProto.FLOAT))
    return True


def _original(model: ModelProto, image: ValueInfoProto, public: str, takes: _Takes) -> Original:
    """The model with nothing in it but what one output needs, to be run beside the network."""
    kept = ModelProto()
    kept.CopyFrom(model)
    graph = kept.graph
    chosen = [value for value in graph.output if value.name == public]
    makers = {name: i for i, node in enumerate(graph.node) for name in node.output if name}
    needed: set[int] = set()
    queue = [public]
    while queue:
        i = makers.get(queue.pop())
        if i is not None and i not in needed:
            needed.add(i)
            queue += wanted_by(graph.node[i])
    nodes = [graph.node[i] for i in sorted(needed)]
    stored = {tensor.name for tensor in graph.initializer}
    inputs = [v for v in graph.input if v.name in stored or v.name == image.name]
    for field, values in (("node", nodes), ("input", inputs), ("output", chosen)):
        copies = [type(value).FromString(value.SerializeToString()) for value in values]
        graph.ClearField(field)
        getattr(graph, field).extend(copies)
    del graph.value_info[:]
    return Original(kept, image.name, public, takes.batch, takes.layout)
