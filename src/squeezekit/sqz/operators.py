"""The closed list: every operator that the graph of a `.sqz` may have, with its attributes.

A graph is data, not a program: nothing outside of this list is ever handed to what runs it. The
list is ONNX's names and meanings, operator sets 7 to 26, without anything that runs a graph within
a graph, makes a tensor of a size that a number in the file states, or reads a file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, cast

Kind = Literal["int", "ints", "float", "text"]

OLDEST_OPSET, NEWEST_OPSET = 7, 26


@dataclass(frozen=True)
class Attribute:
    """What an attribute may be.

    Attributes:
        kind: the kind of its value.
        least, most: the least and the greatest of each of its numbers.
        texts: that it may be, where it is a text.
    """

    kind: Kind
    least: int = 0
    most: int = 0
    texts: tuple[bytes, ...] = ()

    def takes(self, value: object) -> bool:
        """Whether the attribute may have this value, which has its kind."""
        if self.kind == "text":
            return value in self.texts
        if self.kind == "float":
            assert isinstance(value, float)
            return value - value == 0.0  # neither infinite nor a NaN
        numbers = cast("list[int]", value if isinstance(value, list) else [value])
        return all(self.least <= number <= self.most for number in numbers)


@dataclass(frozen=True)
class Operator:
    """What a node with this operator may look like.

    Attributes:
        least, most: numbers of inputs, optional ones included.
        attributes: by name; a node has no others.
        outputs: that it may have.
        optional: positions of inputs that may be left out by an empty name.
    """

    least: int
    most: int
    attributes: Mapping[str, Attribute]
    outputs: int = 1
    optional: tuple[int, ...] = ()


MOST_INPUTS = 8192
"""Of one node, and of all nodes together."""

_MOST_PIXELS = 1 << 16
_FLAG = Attribute("int", 0, 1)
_NO = Attribute("int", 0, 0)
_YES = Attribute("int", 1, 1)
_NUMBER = Attribute("float")
_AXIS = Attribute("int", -8, 7)
_AXES = Attribute("ints", -8, 7)
_SIZES = Attribute("ints", 1, _MOST_PIXELS)
_PADS = Attribute("ints", 0, _MOST_PIXELS)
_ANY = Attribute("ints", -(1 << 63), (1 << 63) - 1)
_AUTO_PAD = Attribute("text", texts=(b"NOTSET", b"VALID", b"SAME_UPPER", b"SAME_LOWER"))
_WINDOW = {
    "auto_pad": _AUTO_PAD, "dilations": _SIZES, "kernel_shape": _SIZES, "pads": _PADS,
    "strides": _SIZES,
}  # fmt: skip
_REDUCE = Operator(
    1, 2, {"axes": _AXES, "keepdims": _FLAG, "noop_with_empty_axes": _FLAG}, optional=(1,)
)


def _plain(inputs: int) -> Operator:
    return Operator(inputs, inputs, {})


OPERATORS: dict[str, Operator] = {
    "Add": _plain(2),
    "AveragePool": Operator(1, 1, {**_WINDOW, "ceil_mode": _FLAG, "count_include_pad": _FLAG}),
    "BatchNormalization": Operator(
        5, 5, {"epsilon": _NUMBER, "momentum": _NUMBER, "spatial": _YES, "training_mode": _NO}
    ),
    "Cast": Operator(1, 1, {"to": Attribute("int", 1, 7), "saturate": _FLAG}),
    "Clip": Operator(1, 3, {"max": _NUMBER, "min": _NUMBER}, optional=(1, 2)),
    "Concat": Operator(1, MOST_INPUTS, {"axis": _AXIS}),
    "Conv": Operator(2, 3, {**_WINDOW, "group": Attribute("int", 1, _MOST_PIXELS)}, optional=(2,)),
    "Div": _plain(2),
    "Dropout": Operator(
        1, 3, {"ratio": _NUMBER, "seed": Attribute("int", -(1 << 63), (1 << 63) - 1)},
        optional=(1, 2),
    ),
    "Elu": Operator(1, 1, {"alpha": _NUMBER}),
    "Erf": _plain(1),
    "Exp": _plain(1),
    "Flatten": Operator(1, 1, {"axis": _AXIS}),
    "Gather": Operator(2, 2, {"axis": _AXIS}),
    "Gelu": Operator(1, 1, {"approximate": Attribute("text", texts=(b"none", b"tanh"))}),
    "Gemm": Operator(
        2, 3, {"alpha": _NUMBER, "beta": _NUMBER, "transA": _FLAG, "transB": _FLAG}, optional=(2,)
    ),
    "GlobalAveragePool": _plain(1),
    "GlobalMaxPool": _plain(1),
    "HardSigmoid": Operator(1, 1, {"alpha": _NUMBER, "beta": _NUMBER}),
    "HardSwish": _plain(1),
    "Identity": _plain(1),
    "LRN": Operator(
        1, 1,
        {"alpha": _NUMBER, "beta": _NUMBER, "bias": _NUMBER,
         "size": Attribute("int", 1, _MOST_PIXELS)},
    ),
    "LeakyRelu": Operator(1, 1, {"alpha": _NUMBER}),
    "LogSoftmax": Operator(1, 1, {"axis": _AXIS}),
    "MatMul": _plain(2),
    "MaxPool": Operator(1, 1, {**_WINDOW, "ceil_mode": _FLAG, "storage_order": _NO}),
    "Mish": _plain(1),
    "Mul": _plain(2),
    "Neg": _plain(1),
    "PRelu": _plain(2),
    "Pad": Operator(
        1, 3,
        {"mode": Attribute("text", texts=(b"constant", b"reflect", b"edge")), "pads": _ANY,
         "value": _NUMBER},
        optional=(2,),
    ),
    "Pow": _plain(2),
    "ReduceMax": _REDUCE,
    "ReduceMean": _REDUCE,
    "ReduceSum": _REDUCE,
    "Relu": _plain(1),
    "Reshape": Operator(2, 2, {"allowzero": _FLAG}),
    "Shape": Operator(1, 1, {"start": _AXIS, "end": _AXIS}),
    "Sigmoid": _plain(1),
    "Slice": Operator(
        1, 5, {"axes": _AXES, "ends": _ANY, "starts": _ANY}, optional=(3, 4)
    ),
    "Softmax": Operator(1, 1, {"axis": _AXIS}),
    "Softplus": _plain(1),
    "Split": Operator(
        1, 2, {"axis": _AXIS, "num_outputs": Attribute("int", 1, 1024), "split": _PADS},
        outputs=1024, optional=(1,),
    ),
    "Sqrt": _plain(1),
    "Squeeze": Operator(1, 2, {"axes": _AXES}, optional=(1,)),
    "Sub": _plain(2),
    "Sum": Operator(1, MOST_INPUTS, {}),
    "Tanh": _plain(1),
    "Transpose": Operator(1, 1, {"perm": Attribute("ints", 0, 7)}),
    "Unsqueeze": Operator(1, 2, {"axes": _AXES}),
}  # fmt: skip
