"""Computes what a graph will cost from its head alone: all shapes, the work of one image, memory.

It is a small shape inference over the closed list (`operators.OPERATORS`). So the cost is known
before anything of a file is decoded, and before another library sees its graph.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from squeezekit.errors import GraphError, LengthError, OperatorError
from squeezekit.sqz.graph_reader import Graph, Setting
from squeezekit.sqz.nodes import Node

MOST_ELEMENTS = 1 << 28
"""Of any one value, for each image."""

_MOST_AXES = 8
_FLOAT_BYTES = 4

Shape = tuple[int, ...]
_Ints = np.ndarray[tuple[Any, ...], np.dtype[np.int64]]


@dataclass(frozen=True)
class Cost:
    """What one run of a graph takes.

    Attributes:
        shapes: the shapes of every value that a node makes, and of the input.
        macs: multiply-accumulates, and what pooling and LRN add up.
        memory: bytes of the values that live at once, at most; weights are not among them.
    """

    shapes: Mapping[str, Shape]
    macs: int
    memory: int


@dataclass(frozen=True)
class _Value:
    """What is known of a value.

    Attributes:
        shape: the shape of it.
        kind: "f" for float32, "i" for whole numbers, "b" for truth.
        ints: its numbers, where they are whole and known.
        stored: whether it is a tensor of the file or a setting: the same for any batch.
    """

    shape: Shape
    kind: str = "f"
    ints: _Ints | None = None
    stored: bool = False


class _Run:
    """One node that is looked at.

    Attributes:
        work: what it computes; see `Cost.macs`.
        scratch: elements that it may need beside its inputs and outputs.
    """

    def __init__(self, node: Node, inputs: Sequence[_Value | None]) -> None:
        self.node = node
        self.inputs = inputs
        self.work = 0
        self.scratch = 0

    def get(self, name: str, default: Any) -> Any:  # noqa: ANN401
        return self.node.attributes.get(name, default)

    @property
    def x(self) -> _Value:
        found = self.inputs[0]
        assert found is not None
        return found

    def given(self, position: int) -> _Value | None:
        return self.inputs[position] if position < len(self.inputs) else None

    def unfit(self, what: str) -> GraphError:
        return GraphError(f"node {self.node.name!r} ({self.node.op}): {what}")

    def unsupported(self, what: str) -> OperatorError:
        return OperatorError(f"node {self.node.name!r} ({self.node.op}) uses {what}: not supported")

    def floats(self, rank: int | None = None) -> Shape:
        """The shape of the first input, which must be float32."""
        if self.x.kind != "f":
            raise self.unsupported("whole numbers")
        if rank is not None and len(self.x.shape) != rank:
            raise self.unfit(f"takes {rank} axes, not {self.x.shape}")
        return self.x.shape

    def all_floats(self) -> list[Shape]:
        if any(value is None or value.kind != "f" for value in self.inputs):
            raise self.unsupported("whole numbers")
        return [value.shape for value in self.inputs if value is not None]

    def axis(self, default: int, rank: int) -> int:
        """The attribute "axis", counted from the front."""
        return self.place(self.get("axis", default), rank)

    def place(self, axis: int, rank: int) -> int:
        if not -rank <= axis < rank:
            raise self.unfit(f"there is no axis {axis} of {rank}")
        return axis % rank

    def numbers(self, name: str, position: int, *, any_batch: bool = True) -> list[int] | None:
        """Whole numbers that are an attribute in older operator sets and an input in newer ones.

        With `any_batch` they must not depend on how many images there are.
        """
        if name in self.node.attributes:
            if self.given(position) is not None:
                raise self.unfit(f"has its {name} twice")
            return [int(number) for number in self.node.attributes[name]]
        value = self.given(position)
        if value is None:
            return None
        if value.ints is None or (any_batch and not value.stored) or len(value.shape) > 1:
            raise self.unsupported(f"{name} that are not stored in the graph")
        return [int(number) for number in value.ints.reshape(-1)]

    def single(self, position: int) -> None:
        """A setting that must be one stored number, where it is given."""
        value = self.given(position)
        if value is not None and (not value.stored or math.prod(value.shape) != 1):
            raise self.unsupported("a setting that is not one stored number")


_Infer = Callable[[_Run], list[_Value]]


# ------------------------------------------------------------------------------------ one by one


def _same(run: _Run) -> list[_Value]:
    return [_Value(run.floats())]


def _broadcast(run: _Run) -> list[_Value]:
    return [_Value(_together(run, run.all_floats()))]


def _together(run: _Run, shapes: Sequence[Shape]) -> Shape:
    rank = max(map(len, shapes))
    padded = [(1,) * (rank - len(shape)) + shape for shape in shapes]
    out = []
    for sizes in zip(*padded, strict=True):
        wide = {size for size in sizes if size != 1}
        if len(wide) > 1:
            raise run.unfit(f"shapes {', '.join(map(str, shapes))} do not fit each other")
        out.append(wide.pop() if wide else 1)
    return tuple(out)


def _prelu(run: _Run) -> list[_Value]:
    x, slope = run.all_floats()
    if _together(run, [x, slope]) != x:
        raise run.unfit(f"slopes {slope} do not fit {x}")
    return [_Value(x)]


def _clip(run: _Run) -> list[_Value]:
    run.single(1)
    run.single(2)
    return _same(run)


def _dropout(run: _Run) -> list[_Value]:
    run.single(1)
    run.single(2)
    training = run.given(2)
    if training is not None and (training.ints is None or training.ints.any()):
        raise run.unsupported("training")
    return _same(run)


def _batch_norm(run: _Run) -> list[_Value]:
    x, *parameters = run.all_floats()
    if len(x) < 2 or any(shape != (x[1],) for shape in parameters):
        raise run.unfit(f"its parameters {parameters} do not fit {x}")
    return [_Value(x)]


def _lrn(run: _Run) -> list[_Value]:
    shape = run.floats(4)
    if "size" not in run.node.attributes:
        raise run.unfit("has no size")
    run.work = math.prod(shape) * min(run.node.attributes["size"], shape[1])
    return [_Value(shape)]


def _softmax(run: _Run) -> list[_Value]:
    shape = run.floats()
    run.axis(-1 if run.node.opset >= 13 else 1, len(shape))
    return [_Value(shape)]


# --------------------------------------------------------------------------------------- windows


def _windows(run: _Run, size: Shape, kernel: Sequence[int]) -> Shape:
    """Height and width behind windows of `kernel`; see `trainable.operators`."""
    stride, dilation = run.get("strides", [1, 1]), run.get("dilations", [1, 1])
    pads = run.get("pads", [0, 0, 0, 0])
    auto = run.get("auto_pad", b"NOTSET")
    if len(kernel) != 2 or len(stride) != 2 or len(dilation) != 2 or len(pads) != 4:
        raise run.unsupported("windows that do not have two axes")
    if auto != b"NOTSET" and any(pads):
        raise run.unfit("has pads beside auto_pad")
    out, padded = [], 1
    for i in range(2):
        span = (kernel[i] - 1) * dilation[i] + 1
        head, tail = pads[i], pads[i + 2]
        if auto in (b"SAME_UPPER", b"SAME_LOWER"):
            count = -(-size[i] // stride[i])
            head, tail = 0, max((count - 1) * stride[i] + span - size[i], 0)
        room = size[i] + head + tail
        if room < span:
            raise run.unfit(f"a window of {span} does not fit into {room}")
        count = (room - span) // stride[i] + 1
        if run.get("ceil_mode", 0):
            count = -(-(room - span) // stride[i]) + 1
            # The last window has to start inside the image or its padding in front.
            count -= (count - 1) * stride[i] >= size[i] + head
        out.append(count)
        padded *= max(room, (count - 1) * stride[i] + span)
    if padded > math.prod(size):
        run.scratch = padded * math.prod(run.x.shape[:2])
    return out[0], out[1]


def _conv(run: _Run) -> list[_Value]:
    x, weight, *rest = run.all_floats() if run.given(2) else run.all_floats()[:2]
    if len(x) != 4 or len(weight) != 4:
        raise run.unsupported(f"{max(len(weight) - 2, 0)}-dimensional kernels")
    group, filters = run.get("group", 1), weight[0]
    if x[1] != weight[1] * group or filters % group:
        raise run.unfit(f"weights {weight} in {group} groups do not fit {x[1]} channels")
    if tuple(run.get("kernel_shape", weight[2:])) != weight[2:]:
        raise run.unfit(f"weights {weight} are not what kernel_shape says")
    if any(shape != (filters,) for shape in rest):
        raise run.unfit(f"biases {rest[0]} do not fit {filters} filters")
    size = _windows(run, x[2:], weight[2:])
    run.work = x[0] * math.prod(weight) * math.prod(size)
    return [_Value((x[0], filters, *size))]


def _pool(run: _Run) -> list[_Value]:
    shape = run.floats(4)
    if "kernel_shape" not in run.node.attributes:
        raise run.unfit("has no kernel_shape")
    kernel = run.node.attributes["kernel_shape"]
    size = _windows(run, shape[2:], kernel)
    if any(pad >= kernel[i % 2] for i, pad in enumerate(run.get("pads", []))):
        raise run.unfit("a window lies in the padding as a whole")
    if run.node.op == "AveragePool" and any(d != 1 for d in run.get("dilations", [])):
        raise run.unsupported("dilations")
    run.work = shape[0] * shape[1] * math.prod(size) * math.prod(kernel)
    return [_Value((*shape[:2], *size))]


def _global_pool(run: _Run) -> list[_Value]:
    return [_Value((*run.floats(4)[:2], 1, 1))]


# -------------------------------------------------------------------------------- matrix products


def _gemm(run: _Run) -> list[_Value]:
    a, b, *rest = run.all_floats() if run.given(2) else run.all_floats()[:2]
    if len(a) != 2 or len(b) != 2:
        raise run.unfit(f"multiplies {a} and {b}")
    a = a[::-1] if run.get("transA", 0) else a
    b = b[::-1] if run.get("transB", 0) else b
    if a[1] != b[0]:
        raise run.unfit(f"multiplies {a} and {b}")
    out = (a[0], b[1])
    if rest and _together(run, [rest[0], out]) != out:
        raise run.unfit(f"biases {rest[0]} do not fit {out}")
    run.work = math.prod(a) * b[1]
    return [_Value(out)]


def _matmul(run: _Run) -> list[_Value]:
    a, b = run.all_floats()
    if not a or not b:
        raise run.unfit(f"multiplies {a} and {b}")
    left = a if len(a) > 1 else (1, *a)
    right = b if len(b) > 1 else (*b, 1)
    if left[-1] != right[-2]:
        raise run.unfit(f"multiplies {a} and {b}")
    many = _together(run, [left[:-2], right[:-2]]) if len(left) + len(right) > 4 else ()
    out = (*many, *left[-2:-1][: len(a) - 1], *right[-1:][: len(b) - 1])
    run.work = math.prod(many) * left[-2] * left[-1] * right[-1]
    return [_Value(out)]


# ----------------------------------------------------------------------------------------- moving


def _identity(run: _Run) -> list[_Value]:
    return [run.x]


def _cast(run: _Run) -> list[_Value]:
    kind = {1: "f", 6: "i", 7: "i"}.get(run.get("to", 0))
    if kind is None or (kind == "i" and run.x.ints is None):
        raise run.unsupported("a type other than float32")
    return [_Value(run.x.shape, kind, None if kind == "f" else run.x.ints, run.x.stored)]


def _concat(run: _Run) -> list[_Value]:
    values = [value for value in run.inputs if value is not None]
    first = values[0]
    if "axis" not in run.node.attributes:
        raise run.unfit("has no axis")
    axis = run.axis(0, len(first.shape))
    rest = {(*value.shape[:axis], 0, *value.shape[axis + 1 :]) for value in values}
    if len(rest) > 1 or len({value.kind for value in values}) > 1:
        raise run.unfit(f"shapes {', '.join(str(v.shape) for v in values)} do not fit each other")
    size = sum(value.shape[axis] for value in values)
    ints = None
    if all(value.ints is not None for value in values):
        ints = np.concatenate([value.ints for value in values if value.ints is not None], axis)
    shape = (*first.shape[:axis], size, *first.shape[axis + 1 :])
    return [_Value(shape, first.kind, ints, all(value.stored for value in values))]


def _flatten(run: _Run) -> list[_Value]:
    shape = run.floats()
    axis = run.get("axis", 1)
    if not -len(shape) <= axis <= len(shape):
        raise run.unfit(f"there is no axis {axis} of {len(shape)}")
    axis = axis + len(shape) if axis < 0 else axis
    return [_Value((math.prod(shape[:axis]), math.prod(shape[axis:])))]


def _reshape(run: _Run) -> list[_Value]:
    target = run.numbers("shape", 1, any_batch=False)
    size = math.prod(run.x.shape)
    if target is None or len(target) > _MOST_AXES or target.count(-1) > 1 or min(target) < -1:
        raise run.unfit(f"cannot have the shape {target}")
    out = list(target)
    for i, number in enumerate(out):
        if number == 0 and not run.get("allowzero", 0):
            if i >= len(run.x.shape):
                raise run.unfit(f"cannot turn {run.x.shape} to {target}")
            out[i] = run.x.shape[i]
    known = math.prod(number for number in out if number != -1)
    if -1 in out and known > 0 and not size % known:
        out[out.index(-1)] = size // known
    if math.prod(out) != size or min(out, default=1) < 1:
        raise run.unfit(f"cannot turn {run.x.shape} to {target}")
    ints = None if run.x.ints is None else run.x.ints.reshape(out)
    return [_Value(tuple(out), run.x.kind, ints, run.x.stored)]


def _squeeze(run: _Run) -> list[_Value]:
    shape, axes = run.x.shape, run.numbers("axes", 1)
    rank = len(shape)
    gone = [i for i in range(rank) if shape[i] == 1]
    if axes is not None:
        gone = [run.place(axis, rank) for axis in axes]
    if any(shape[i] != 1 for i in gone):
        raise run.unfit(f"axes {axes} of {shape} are not 1")
    out = tuple(size for i, size in enumerate(shape) if i not in gone)
    return [_Value(out, run.x.kind, _reshaped(run.x.ints, out), run.x.stored)]


def _unsqueeze(run: _Run) -> list[_Value]:
    axes = run.numbers("axes", 1) or []
    rank = len(run.x.shape) + len(axes)
    new = {run.place(axis, rank) for axis in axes}
    if len(new) != len(axes) or rank > _MOST_AXES:
        raise run.unfit(f"cannot have new axes {axes}")
    old = iter(run.x.shape)
    out = tuple(1 if i in new else next(old) for i in range(rank))
    return [_Value(out, run.x.kind, _reshaped(run.x.ints, out), run.x.stored)]


def _reshaped(ints: _Ints | None, shape: Shape) -> _Ints | None:
    return None if ints is None else ints.reshape(shape)


def _transpose(run: _Run) -> list[_Value]:
    shape = run.x.shape
    order = run.get("perm", list(range(len(shape)))[::-1])
    if sorted(order) != list(range(len(shape))):
        raise run.unfit(f"cannot order {len(shape)} axes as {order}")
    ints = None if run.x.ints is None else run.x.ints.transpose(order)
    return [_Value(tuple(shape[i] for i in order), run.x.kind, ints, run.x.stored)]


def _pad(run: _Run) -> list[_Value]:
    shape, pads = run.floats(), run.numbers("pads", 1) or []
    run.single(2)
    if len(pads) != 2 * len(shape):
        raise run.unfit(f"{len(pads)} pads do not fit {shape}")
    out = []
    for i, size in enumerate(shape):
        head, tail = pads[i], pads[i + len(shape)]
        if run.get("mode", b"constant") == b"reflect" and max(head, tail) >= size:
            raise run.unfit("reflects more than there is")
        if size + min(head, 0) + min(tail, 0) < 1:
            raise run.unfit("leaves nothing")
        out.append(size + head + tail)
    return [_Value(tuple(out))]


def _reduce(run: _Run) -> list[_Value]:
    shape, axes = run.floats(), run.numbers("axes", 1)
    if not axes:
        axes = [] if run.get("noop_with_empty_axes", 0) else list(range(len(shape)))
    gone = {run.place(axis, len(shape)) for axis in axes}
    if run.get("keepdims", 1):
        return [_Value(tuple(1 if i in gone else size for i, size in enumerate(shape)))]
    return [_Value(tuple(size for i, size in enumerate(shape) if i not in gone))]


def _shape(run: _Run) -> list[_Value]:
    sizes = np.array(run.x.shape[slice(run.get("start", 0), run.get("end", None))], np.int64)
    return [_Value(sizes.shape, "i", sizes)]


def _gather(run: _Run) -> list[_Value]:
    indices = run.given(1)
    axis = run.axis(0, len(run.x.shape))
    size = run.x.shape[axis]
    if indices is None or indices.ints is None or not indices.stored:
        raise run.unsupported("indices that are not stored in the graph")
    if ((indices.ints < -size) | (indices.ints >= size)).any():
        raise run.unfit(f"an index lies outside of {size}")
    out = (*run.x.shape[:axis], *indices.shape, *run.x.shape[axis + 1 :])
    ints = None if run.x.ints is None else np.asarray(run.x.ints.take(indices.ints, axis))
    return [_Value(out, run.x.kind, ints, run.x.stored)]


def _slice(run: _Run) -> list[_Value]:
    starts, ends = run.numbers("starts", 1), run.numbers("ends", 2)
    if starts is None or ends is None:
        raise run.unfit("has no starts or no ends")
    axes = run.numbers("axes", 3)
    steps = run.numbers("steps", 4) or [1] * len(starts)
    axes = list(range(len(starts))) if axes is None else axes
    rank = len(run.x.shape)
    places = [run.place(axis, rank) for axis in axes]
    if not len(starts) == len(ends) == len(axes) == len(steps) == len(set(places)):
        raise run.unfit("starts, ends, axes and steps do not fit each other")
    if any(step < 1 for step in steps):
        raise run.unsupported("steps that are not positive")
    where = [slice(None)] * rank
    for axis, *bounds in zip(places, starts, ends, steps, strict=True):
        where[axis] = slice(*bounds)
    out = tuple(
        len(range(*part.indices(size))) for part, size in zip(where, run.x.shape, strict=True)
    )
    ints = None if run.x.ints is None else run.x.ints[tuple(where)]
    return [_Value(out, run.x.kind, ints, run.x.stored)]


def _split(run: _Run) -> list[_Value]:
    shape = run.floats()
    axis = run.axis(0, len(shape))
    sizes, parts = run.numbers("split", 1), len(run.node.outputs)
    if run.get("num_outputs", parts) != parts:
        raise run.unfit(f"has {parts} outputs")
    if sizes is None:
        each = -(-shape[axis] // parts)
        sizes = [each] * (parts - 1) + [shape[axis] - each * (parts - 1)]
    if len(sizes) != parts or sum(sizes) != shape[axis]:
        raise run.unfit(f"cannot split {shape[axis]} into {sizes}")
    return [_Value((*shape[:axis], size, *shape[axis + 1 :])) for size in sizes]


_INFER: dict[str, _Infer] = {
    **dict.fromkeys(
        ("Elu", "Erf", "Exp", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu", "Mish", "Neg",
         "Relu", "Sigmoid", "Softplus", "Sqrt", "Tanh"), _same,
    ),
    **dict.fromkeys(("Add", "Div", "Mul", "Pow", "Sub", "Sum"), _broadcast),
    **dict.fromkeys(("AveragePool", "MaxPool"), _pool),
    **dict.fromkeys(("GlobalAveragePool", "GlobalMaxPool"), _global_pool),
    **dict.fromkeys(("LogSoftmax", "Softmax"), _softmax),
    **dict.fromkeys(("ReduceMax", "ReduceMean", "ReduceSum"), _reduce),
    "BatchNormalization": _batch_norm, "Cast": _cast, "Clip": _clip, "Concat": _concat,
    "Conv": _conv, "Dropout": _dropout, "Flatten": _flatten, "Gather": _gather, "Gemm": _gemm,
    "Identity": _identity, "LRN": _lrn, "MatMul": _matmul, "PRelu": _prelu, "Pad": _pad,
    "Reshape": _reshape, "Shape": _shape, "Slice": _slice, "Split": _split, "Squeeze": _squeeze,
    "Transpose": _transpose, "Unsqueeze": _unsqueeze,
}  # fmt: skip


# -------------------------------------------------------------------------------------- the whole


def cost(graph: Graph, tensors: Mapping[str, Shape], image: Shape) -> Cost:
    """What one run takes.

    Args:
        graph: as `graph_reader.read_graph` gives it.
        tensors: shapes of the weights by name.
        image: shape of the input, (N, C, H, W).

    Raises:
        GraphError: if shapes do not fit each other.
        LengthError: if a value is larger than any may be.
        OperatorError: if they cannot be known before the graph runs.
    """
    values = {graph.input.name: _Value(image)}
    values |= {name: _Value(shape, stored=True) for name, shape in tensors.items()}
    values |= {name: _setting(setting) for name, setting in graph.settings.items()}
    last = {name: i for i, node in enumerate(graph.nodes) for name in node.inputs}
    last[graph.output.name] = len(graph.nodes)
    leaving: dict[int, list[str]] = {}
    for name, i in last.items():
        leaving.setdefault(i, []).append(name)
    shapes = {graph.input.name: image}
    living = {graph.input.name: math.prod(image)}
    alive = most = math.prod(image)
    work = 0
    for i, node in enumerate(graph.nodes):
        run = _Run(node, [values[name] if name else None for name in node.inputs])
        for name, value in zip(node.outputs, _inferred(run, image[0]), strict=False):
            values[name] = value
            shapes[name] = value.shape
            if name in last:
                living[name] = math.prod(value.shape)
                alive += living[name]
        work += run.work
        most = max(most, alive + run.scratch)
        for name in leaving.get(i, ()):
            alive -= living.pop(name, 0)
    return Cost(shapes, work, _FLOAT_BYTES * most)


def _inferred(run: _Run, images: int) -> list[_Value]:
    most = images * MOST_ELEMENTS
    values = _INFER[run.node.op](run)
    for value in values:
        if len(value.shape) > _MOST_AXES or min(value.shape, default=1) < 1:
            raise run.unfit(f"makes a value of shape {value.shape}")
        if max(math.prod(value.shape), run.scratch) > most:
            raise LengthError(
                f"node {run.node.name!r} ({run.node.op}) makes more than {most} numbers"
            )
    return values


def _setting(setting: Setting) -> _Value:
    kind = {"f": "f", "b": "b"}.get(setting.dtype.kind, "i")
    ints = None if kind == "f" else setting.astype(np.int64)
    return _Value(setting.shape, kind, ints, True)
