"""A TensorFlow Lite graph in the making: its tensors, its operators, and what is in int8 so far."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from squeezekit.errors import UnsupportedError
from squeezekit.sqz.nodes import Node, read_nodes

Array = np.ndarray[tuple[Any, ...], np.dtype[Any]]
Shape = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Tensor:
    """One tensor to write.

    Attributes:
        name: for people.
        shape: with the channels last; N is 1.
        values: of a stored one; None where an operator computes it.
        kind: float32, int8 or int32.
        scale, zero: of a quantised one, value = scale * (code - zero); one scale, or one a slice.
        axis: the axis of these slices.
    """

    name: str
    shape: Shape
    values: Array | None = None
    kind: type[np.generic] = np.float32
    scale: Array | None = None
    zero: int = 0
    axis: int = 0


@dataclass(frozen=True)
class Operator:
    """One operator to write: its inputs and outputs are numbers of tensors."""

    kind: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: Mapping[str, int | float] = field(default_factory=dict)
    int8: bool = False


@dataclass(frozen=True, eq=False)
class Lowered:
    """A whole graph to write."""

    tensors: list[Tensor]
    operators: list[Operator]
    image: int
    scores: int


@dataclass(frozen=True)
class Codes:
    """A value that is int8: its tensor, and how the codes stand for numbers."""

    number: int
    step: float
    zero: int


@dataclass(frozen=True)
class Coded:
    """A weight that is stored in whole numbers."""

    codes: Array
    steps: Array


@dataclass(frozen=True)
class Goal:
    """Where the result of an int8 operator goes: through an activation, into these codes."""

    codes: str
    step: float
    zero: int
    activation: int
    passed: tuple[str, ...]


NONE, RELU, N1_TO_1, RELU6 = 0, 1, 2, 3
SAME, VALID = 0, 1


class Lowering:
    """Goes through the nodes of a graph once; an int8 graph as `runtime.int8` writes it.

    Attributes:
        stored: values that the file holds, by name.
        real: computed values in float32, by name, as numbers of tensors.
        codes: those in int8, under the names of their codes and of what the codes stand for.
        coded: stored weights in whole numbers, by the name of what they stand for.
        done: names of values that an earlier operator took care of.
    """

    def __init__(self, model: onnx.ModelProto, shapes: Mapping[str, Shape]) -> None:
        self.nodes = read_nodes(model)
        self.shapes = shapes
        self.stored: dict[str, Array] = {
            tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer
        }
        self.tensors: list[Tensor] = []
        self.operators: list[Operator] = []
        self.real: dict[str, int] = {}
        self.codes: dict[str, Codes] = {}
        self.coded: dict[str, Coded] = {}
        self.done: set[str] = set()
        self.image = next(v.name for v in model.graph.input if v.name not in self.stored)
        self.scores = model.graph.output[0].name
        self.users: dict[str, list[Node]] = {}
        for node in self.nodes:
            for name in node.inputs:
                self.users.setdefault(name, []).append(node)

    def run(self, lower_of: Mapping[str, Callable[[Lowering, Node], None]]) -> Lowered:
        """Go through all nodes.

        Args:
            lower_of: what writes each of ONNX's operators.

        Raises:
            UnsupportedError: if one has no counterpart, naming its node.
        """
        self.real[self.image] = self.value(self.image)
        for node in self.nodes:
            if node.output in self.done:
                continue
            lower = lower_of.get(node.op)
            if lower is None:
                raise node.unsupported("an operator that a .tflite has no counterpart of")
            lower(self, node)
        scores, shape = self.real_of(self.scores), self.shapes[self.scores]
        if len(shape) != 2:
            scores = self.by_channel(scores, shape, self.scores)
            sizes = self.constant(f"{self.scores}.sizes", np.array([1, -1], np.int32))
            row = (1, math.prod(shape))
            scores = self.made("RESHAPE", [scores, sizes], f"{self.scores}.row", row)
        return Lowered(self.tensors, self.operators, self.real[self.image], scores)

    # ------------------------------------------------------------------------------ whole numbers

    def quantize(self, node: Node) -> None:
        """From float32 to codes."""
        x, step, zero = node.inputs
        goal = self.coded_tensor(node.output, x, float(self.stored[step]), self.zero(zero))
        self.emit("QUANTIZE", [self.real_of(x)], goal.number)

    def dequantize(self, node: Node) -> None:
        """From codes to float32: remembered, and done where float32 is wanted."""
        codes, step = node.inputs[0], node.inputs[1]
        if codes in self.stored:
            self.coded[node.output] = Coded(self.stored[codes], self.stored[step])
        else:
            self.codes[node.output] = self.codes[codes]

    def zero(self, name: str) -> int:
        """A stored zero point of uint8, as int8 has it."""
        return int(self.stored[name]) - 128  # from uint8 to int8

    def coded_tensor(self, codes: str, of: str, step: float, zero: int) -> Codes:
        """A new tensor for codes."""
        shape = channels_last(self.shapes[of])
        tensor = Tensor(codes, shape, None, np.int8, np.array([step], np.float32), zero)
        self.codes[codes] = Codes(self.add(tensor), step, zero)
        return self.codes[codes]

    def goal(self, node: Node, activations: bool) -> Goal | None:
        """Where a node's result goes, if it becomes codes at once and nothing else."""
        passed = [node.output]
        activation = NONE
        after = self.only_user(node.output)
        if activations and after is not None and (kind := self.activation(after)) is not None:
            activation = kind
            passed.append(after.output)
            after = self.only_user(after.output)
        if after is None or after.op != "QuantizeLinear":
            return None
        zero = self.zero(after.inputs[2])
        step = float(self.stored[after.inputs[1]])
        if activation == NONE and zero == -128:
            activation = RELU  # what the codes cannot say otherwise; the same result
        return Goal(after.output, step, zero, activation, tuple(passed))

    def only_user(self, name: str) -> Node | None:
        """The node that alone uses a value; None if there are others, or it is the output."""
        users = self.users.get(name, [])
        return users[0] if len(users) == 1 and name != self.scores else None

    def activation(self, node: Node) -> int | None:
        """The activation that a layer before this node can carry out itself."""
        if node.op == "Relu":
            return RELU
        if node.op == "Clip":
            return {(0.0, 6.0): RELU6, (-1.0, 1.0): N1_TO_1}.get(self.bounds(node))
        return None

    def bounds(self, node: Node) -> tuple[float, float]:
        """The bounds of a Clip."""
        given = [*node.inputs[1:], "", ""][:2]
        low, high = (
            float(self.stored_value(node, name).ravel()[0]) if name else node.get(key, default)
            for name, key, default in zip(given, ("min", "max"), (-math.inf, math.inf), strict=True)
        )
        return low, high

    def whole(self, node: Node, inputs: Sequence[str], activations: bool = False) -> Goal | None:
        """The goal of a node that can be computed in int8; None if it is computed in float32."""
        if any(name not in self.codes for name in inputs):
            return None
        return self.goal(node, activations)

    def moved(self, node: Node, inputs: Sequence[str]) -> Goal | None:
        """The same for a node that only moves codes: its result must have its inputs' scale."""
        goal = self.whole(node, inputs)
        if goal is None:
            return None
        alike = all(
            (self.codes[name].step, self.codes[name].zero) == (goal.step, goal.zero)
            for name in inputs
        )
        return goal if alike else None

    def into(self, goal: Goal) -> int:
        """The tensor of a goal; the nodes on the way there are done."""
        self.done |= {*goal.passed, goal.codes}
        return self.coded_tensor(goal.codes, goal.passed[-1], goal.step, goal.zero).number

    # -------------------------------------------------------------------------------------- parts

    def of(self, name: str) -> str:
        """The value that a name of the int8 graph stands for."""
        return name if name in self.shapes else name.rpartition(".")[0]

    def image_shape(self, node: Node, name: str) -> Shape:
        """The shape (N, C, H, W) of a node's input."""
        shape = self.shapes[self.of(name)]
        if len(shape) != 4:
            raise node.unsupported(f"{shape}, which is not an image")
        return shape

    def pair(self, node: Node, name: str) -> tuple[int, int]:
        """An attribute for height and width; 1 by default."""
        height, width = node.get(name, (1, 1))
        return height, width

    def stored_value(self, node: Node | None, name: str) -> Array:
        """A value that the file holds."""
        if name in self.stored:
            return self.stored[name]
        if node is not None:
            raise node.unsupported("a computed value where a .tflite needs a stored one")
        raise UnsupportedError(f"{name} is computed, and a .tflite needs it stored")

    def real_of(self, name: str) -> int:
        """The tensor of a value in float32; codes are converted once."""
        if name not in self.real:
            if name not in self.codes:
                raise UnsupportedError(f"{name} is stored, and a .tflite needs it computed")
            number = self.codes[name].number
            self.real[name] = self.made("DEQUANTIZE", [number], name, self.tensors[number].shape)
        return self.real[name]

    def finish(
        self, node: Node, goal: Goal | None, kind: str, inputs: list[int], **options: int | float
    ) -> None:
        """Write a node's last operator, in int8 where it has a goal."""
        if goal is not None:
            return self.emit(kind, inputs, self.into(goal), **options)
        self.real[node.output] = self.value(node.output)
        return self.emit(kind, inputs, self.real[node.output], **options)

    def value(self, name: str) -> int:
        """A new tensor for a computed value."""
        return self.add(Tensor(name, channels_last(self.shapes[name])))

    def made(self, kind: str, inputs: list[int], name: str, shape: Shape) -> int:
        """A new tensor, with the operator that computes it."""
        number = self.add(Tensor(name, shape))
        self.emit(kind, inputs, number)
        return number

    def constant(self, name: str, values: Array) -> int:
        """A new tensor that is stored."""
        values = np.ascontiguousarray(values)
        return self.add(Tensor(name, values.shape, values, values.dtype.type))

    def add(self, tensor: Tensor) -> int:
        """Take a tensor in; its number."""
        self.tensors.append(tensor)
        return len(self.tensors) - 1

    def emit(self, kind: str, inputs: list[int], output: int, **options: int | float) -> None:
        """Write one operator."""
        whole = any(self.tensors[number].kind is np.int8 for number in (*inputs, output))
        self.operators.append(Operator(kind, tuple(inputs), (output,), options, whole))

    def by_channel(self, source: int, shape: Shape, name: str) -> int:
        """An image channel by channel, as what flattens it expects; other values as they are."""
        if len(shape) != 4 or shape[2:] == (1, 1) or shape[1] == 1:
            return source
        order = self.constant(f"{name}.order", np.array([0, 3, 1, 2], np.int32))
        turned = dataclasses.replace(self.tensors[source], name=f"{name}.turned", shape=shape)
        number = self.add(turned)
        self.emit("TRANSPOSE", [source, order], number)
        return number


def channels_last(shape: Shape) -> Shape:
    """A shape with the channels last."""
    return (shape[0], *shape[2:], shape[1]) if len(shape) == 4 else shape


def whole_tensor(name: str, codes: Array, steps: Array, axis: int) -> Tensor:
    """A stored tensor of codes whose zero is 0, with one step or one for each slice of an axis."""
    scale = np.atleast_1d(steps).astype(np.float32)
    codes = np.ascontiguousarray(codes)
    return Tensor(name, codes.shape, codes, codes.dtype.type, scale, 0, axis)
