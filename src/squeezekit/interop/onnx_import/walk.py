"""One walk through a graph at one batch size: what is known beforehand is computed, the rest typed.

The walk that frees the batch takes a large prime for the number of images: a size that it divides
is that of a batch, wherever in the graph it comes up, and every other size is plain.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

import numpy as np
from onnx import NodeProto, TensorProto, TypeProto, helper
from onnx.defs import SchemaError
from onnx.shape_inference import InferenceError

from squeezekit.errors import InputError, UnsupportedError
from squeezekit.interop.onnx_import.branches import branch_of
from squeezekit.interop.onnx_import.draft import Draft, attributes, refuse
from squeezekit.interop.onnx_import.evaluate import (
    MOST_IN_SHAPES,
    MOST_NUMBERS,
    computed,
    inferred,
    shape_in,
    type_of,
)
from squeezekit.interop.onnx_import.raising import raised
from squeezekit.interop.onnx_import.source import Array

BATCH = 1_000_003
"""The prime that stands for the number of images; no size in a network is so large a multiple."""

Shape = tuple[int, ...]
Rewriter = Callable[["Walk", NodeProto], "list[NodeProto] | None"]
"""Changes a node in place, or gives others in its stead; an empty list where it is not needed."""

_MOST_STEPS = 400_000
_CHOOSING = (
    "Cast", "Concat", "Flatten", "Gather", "Identity", "Reshape", "Slice", "Split", "Squeeze",
    "Transpose", "Unsqueeze",
)  # fmt: skip


@dataclass
class Walk:
    """The state of a walk.

    Attributes:
        draft: the draft that is walked through; its nodes are replaced.
        batch: how many images.
        rewriters: asked about each node in turn.
        strict: whether a node whose inputs do not fit stops the walk, or only has no type.
        types: by value, as far as the walk is.
        known: integers that hang on shapes only, by value; not among the draft's constants.
        by_batch: those of them that hang on the number of images.
        troubles: why nodes have no types, in a walk that is not strict.
        most_numbers: that may still be computed from constants.
    """

    draft: Draft
    batch: int
    rewriters: tuple[Rewriter, ...] = ()
    strict: bool = True
    types: dict[str, TypeProto] = field(default_factory=dict)
    known: dict[str, Array] = field(default_factory=dict)
    by_batch: set[str] = field(default_factory=set)
    troubles: list[UnsupportedError] = field(default_factory=list)
    most_numbers: int = MOST_NUMBERS
    _same: dict[str, str] = field(default_factory=dict)
    _walked: list[NodeProto] = field(default_factory=list)

    def shape(self, name: str) -> Shape | None:
        """The sizes of a value, or None if one is not known."""
        if name in self.draft.constants:
            return self.draft.constants[name].shape
        return shape_in(self.types[name]) if name in self.types else None

    def shape_of(self, node: NodeProto, name: str) -> Shape:
        """The sizes of a value that a node needs.

        Raises:
            UnsupportedError: naming the node, where they are not known.
        """
        shape = self.shape(name)
        if shape is None:
            raise refuse(node, f"is given {name!r}, whose shape is not known beforehand")
        return shape

    def value(self, name: str) -> Array | None:
        """The numbers of a value, where they are known beforehand."""
        return self.draft.constants.get(name, self.known.get(name))

    def same(self, name: str, as_name: str) -> None:
        """Let all that use a value use another one."""
        self._same[name] = as_name

    def _now(self, name: str) -> str:
        """The value that a name stands for by now."""
        while name in self._same:
            name = self._same[name]
        return name

    def is_image_data(self, name: str) -> bool:
        """Whether a value hangs on the images, and not only on their number or size."""
        return bool(name) and self.value(name) is None

    def run(self, image_type: TypeProto) -> None:
        """Walk through the whole graph."""
        self.types[self.draft.image] = image_type
        queue = deque(self.draft.nodes)
        steps = 0
        while queue:
            steps += 1
            if steps > _MOST_STEPS:
                raise UnsupportedError("it is larger than any supported network")
            node = queue.popleft()
            node.input[:] = [self._now(name) for name in node.input]
            more = self._step(node)
            queue.extendleft(reversed(more))
        self.draft.nodes = self._walked
        self.draft.outputs = {
            public: self._now(name) for public, name in self.draft.outputs.items()
        }

    def _stop(self, node: NodeProto, reason: str) -> None:
        """Stop the walk at a node, or remember why it goes on without its types."""
        if self.strict:
            raise refuse(node, reason)
        self.troubles.append(refuse(node, reason))

    def _step(self, node: NodeProto) -> list[NodeProto]:
        """Take one node; gives those to take instead."""
        if node.op_type == "If" and not node.domain:
            return self._branch(node)
        try:
            others = raised(node, self.draft, lambda name: self.shape_of(node, name))
        except (IndexError, ValueError, ZeroDivisionError):
            raise refuse(node, "does not fit what it is given") from None
        except UnsupportedError as error:
            if self.strict:
                raise
            self.troubles.append(error)
            self._walked.append(node)
            return []
        if others != [node]:
            return others
        if self._is_nothing(node) or self._is_known(node):
            return []
        for rewriter in self.rewriters:
            try:
                others_or_none = rewriter(self, node)
            except (IndexError, KeyError, ValueError, ZeroDivisionError):
                raise refuse(node, "does not fit what it is given") from None
            if others_or_none is not None:
                return others_or_none
        self.take(node)
        return []

    def take(self, node: NodeProto) -> None:
        """Take a node into the graph as it is, and find the types of its outputs."""
        self._type(node)
        self._walked.append(node)

    def _branch(self, node: NodeProto) -> list[NodeProto]:
        """The nodes of the branch that an If takes."""
        condition = self.value(node.input[0])
        if condition is None or node.input[0] in self.by_batch or condition.size != 1:
            what = "the number of images" if condition is not None else "the images"
            self._stop(node, f"takes a branch that hangs on {what}: not supported")
            self._walked.append(node)
            return []
        nodes, results = branch_of(node, bool(condition.reshape(-1)[0]), self.draft)
        for name, result in zip(node.output, results, strict=False):
            self.same(name, result)
        return nodes

    def _is_nothing(self, node: NodeProto) -> bool:
        """Take nodes out that pass their input on."""
        if node.domain:
            return False
        nothing = node.op_type in ("Identity", "Dropout")
        if node.op_type == "Cast" and node.input[0] in self.types:
            nothing = (
                attributes(node)["to"] == self.types[node.input[0]].tensor_type.elem_type
                and self.value(node.input[0]) is None
            )
        if nothing:
            self.same(node.output[0], node.input[0])
        return nothing

    def _is_known(self, node: NodeProto) -> bool:
        """Compute a node whose inputs are known, or that only asks for a shape."""
        asks = node.op_type in ("Shape", "Size") and not node.domain
        if asks and self.is_image_data(node.input[0]) and self.shape(node.input[0]) is not None:
            self._know_shape(node)
            return True
        if not all(not name or self.value(name) is not None for name in node.input):
            return False
        inputs = [self.value(name) if name else None for name in node.input]
        of_shapes = any(name in self.known for name in node.input)
        values = computed(node, inputs, MOST_IN_SHAPES if of_shapes else self.most_numbers)
        if values is None:
            return False
        if not of_shapes:
            self.most_numbers -= sum(array.size for array in values)
            self.draft.constants |= dict(zip(node.output, values, strict=True))
            return True
        tainted = any(name in self.by_batch for name in node.input)
        for name, array in zip(node.output, values, strict=True):
            self._know(name, array, tainted and not self._chooses_plainly(node, array))
        return True

    def _chooses_plainly(self, node: NodeProto, array: Array) -> bool:
        return node.op_type in _CHOOSING and not self._of_batch(array)

    def _of_batch(self, array: Array) -> bool:
        """Whether numbers hang on the number of images, going by themselves."""
        if self.batch != BATCH or array.dtype.kind not in "iuf":
            return False
        if array.dtype.kind == "f":
            return bool((np.abs(array) >= BATCH // 2).any())
        return bool(((array % BATCH == 0) & (array != 0)).any())

    def _know_shape(self, node: NodeProto) -> None:
        shape = cast(Shape, self.shape(node.input[0]))
        settings = attributes(node)
        if node.op_type == "Size":
            array = np.array(int(np.prod(shape, dtype=np.int64)), np.int64)
        else:
            array = np.array(shape[settings.get("start", 0) : settings.get("end")], np.int64)
        self._know(node.output[0], array, self._of_batch(array))

    def _know(self, name: str, array: Array, by_batch: bool) -> None:
        if self.batch == BATCH and not by_batch:
            self.draft.constants[name] = array
            return
        self.known[name] = array
        self.types[name] = type_of(array)
        if by_batch:
            self.by_batch.add(name)

    def know_types(self, node: NodeProto) -> None:
        """Have the types of a node's inputs at hand.

        Raises:
            UnsupportedError: if one has none.
        """
        for name in node.input:
            if name in self.draft.constants and name not in self.types:
                self.types[name] = type_of(self.draft.constants[name])
            if self.strict and name and name not in self.types:
                raise refuse(node, f"uses {name!r}, which nothing gives in inference")

    def _type(self, node: NodeProto) -> None:
        self.know_types(node)
        numbers = {name: v for name in node.input if (v := self.value(name)) is not None}
        try:
            found = inferred(node, self.types, numbers)
            self.types |= found
            if any(name not in found or self.shape(name) is None for name in node.output if name):
                self._stop(node, "gives values whose shape is not known beforehand")
        except SchemaError:
            self._stop(node, "is an operator that is not supported")
        except InferenceError as error:
            self._stop(node, _reason(error))

    def settle(self) -> None:
        """Make integers that were computed from shapes constants, where nodes still use them.

        Raises:
            UnsupportedError: if they hang on the number of images.
        """
        for node in self.draft.nodes:
            for name in node.input:
                if name in self.by_batch:
                    raise refuse(node, "computes with the number of images: not supported")
        for name in self.draft.outputs.values():
            if name in self.known or name in self.draft.constants:
                raise InputError(f"its output {name!r} does not depend on the images")


def float_type(shape: tuple[int, ...], kind: int = TensorProto.FLOAT) -> TypeProto:
    """The type of an array of floats."""
    return helper.make_tensor_type_proto(kind, shape)


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split()).replace("[ShapeInferenceError]", "").strip()
    return f"does not fit what it is given ({text})"
