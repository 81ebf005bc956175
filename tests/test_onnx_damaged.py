"""Models that were damaged at random: one sentence each, or an answer that was compared."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_onnx_rewritings import STEPS, baked, built, by_shape, by_steps, flatten, within_if

from squeezekit.errors import SqueezekitError
from squeezekit.interop import onnx_file

OPERATORS = (
    "ArgMax", "BatchNormalization", "Cast", "Clip", "Concat", "Conv", "Dropout", "Foo", "Gather",
    "Gemm", "GroupNormalization", "If", "LRN", "Loop", "MaxPool", "NonZero", "Pad", "Relu",
    "Reshape", "Resize", "Shape", "Slice", "Softmax", "Split", "Squeeze", "TopK", "Transpose",
)  # fmt: skip
ATTRIBUTES = ("axis", "axes", "kernel_shape", "pads", "to", "perm", "value", "group", "then_branch")
NUMBERS = (0, 1, -1, 3, 7, 99, 2**33, 2**40)


def some(rng, values):
    return values[int(rng.integers(len(values)))]


def without_an_attribute(model, node, rng):
    if node.attribute:
        del node.attribute[int(rng.integers(len(node.attribute)))]


def with_another_attribute(model, node, rng):
    attribute = node.attribute.add()
    attribute.name, attribute.type = some(rng, ATTRIBUTES), int(rng.integers(1, 8))
    attribute.ints.extend(int(some(rng, NUMBERS)) for _ in range(rng.integers(4)))
    attribute.i = some(rng, NUMBERS)


def with_other_numbers(model, node, rng):
    if node.attribute:
        attribute = some(rng, node.attribute)
        attribute.i = some(rng, NUMBERS)
        attribute.ints[:] = [some(rng, NUMBERS) for _ in range(rng.integers(5))]


def with_another_operator(model, node, rng):
    node.op_type = some(rng, OPERATORS)


def with_another_input(model, node, rng):
    names = [name for one in model.graph.node for name in (*one.input, *one.output)]
    if node.input:
        node.input[int(rng.integers(len(node.input)))] = some(rng, [*names, "", "nothing"])


def with_other_outputs(model, node, rng):
    names = [name for one in model.graph.node for name in one.output]
    node.output[:] = [some(rng, [*names, ""]) for _ in range(rng.integers(3))]


def without_it(model, node, rng):
    model.graph.node.remove(node)


def of_another_domain(model, node, rng):
    node.domain = some(rng, ("com.microsoft", "ai.onnx", "ai.onnx.ml"))


def with_another_tensor(model, node, rng):
    tensor = some(rng, model.graph.initializer)
    kind = rng.integers(3)
    if kind == 0:
        tensor.dims[:] = [some(rng, NUMBERS) for _ in range(rng.integers(5))]
    elif kind == 1:
        tensor.data_type = int(rng.integers(26))
    else:
        tensor.raw_data = rng.bytes(len(tensor.raw_data))


def of_another_size(model, node, rng):
    dims = model.graph.input[0].type.tensor_type.shape.dim
    dims[int(rng.integers(4))].dim_value = some(rng, NUMBERS)


def of_another_version(model, node, rng):
    model.opset_import[0].version = some(rng, (0, 1, 7, 11, 21, 26, 99, -5))


DAMAGES = [
    without_an_attribute, with_another_attribute, with_other_numbers, with_another_operator,
    with_another_input, with_other_outputs, without_it, of_another_domain, with_another_tensor,
    of_another_size, of_another_version,
]  # fmt: skip


@settings(max_examples=150, suppress_health_check=list(HealthCheck))
@given(
    seed=st.integers(0, 2**32 - 1),
    steps=st.lists(st.sampled_from(STEPS), max_size=3),
    how=st.sampled_from([flatten, by_shape, by_steps, baked(1, True, 0)]),
    branch=st.booleans(),
    damages=st.lists(st.sampled_from(DAMAGES), min_size=1, max_size=3),
    flipped=st.lists(st.floats(0, 1, exclude_max=True), max_size=3),
)
def test_no_damage_is_a_traceback(tmp_path_factory, seed, steps, how, branch, damages, flipped):
    rng = np.random.default_rng(seed)
    model = built(seed, steps, how)
    if branch:
        model = within_if(model, rng)
    for damage in damages:
        if model.graph.node:
            damage(model, some(rng, model.graph.node), rng)
    data = bytearray(model.SerializeToString())
    for place in flipped:
        data[int(place * len(data))] ^= 1 << int(rng.integers(8))
    path = tmp_path_factory.mktemp("damaged") / "model.onnx"
    path.write_bytes(data)
    said = None
    try:
        network = onnx_file.read(path)
    except SqueezekitError as error:
        said = str(error)
    if said is None:
        assert network.tensors
    else:
        assert str(path) in said
        assert "\n" not in said


def test_names_that_are_no_text(tmp_path):
    data = built(0, []).SerializeToString()
    path = tmp_path / "model.onnx"
    path.write_bytes(data.replace(b"/Conv", b"\xff\xfeonv").replace(b"/Gemm", b"\xff\xfeemm"))
    with pytest.raises(SqueezekitError):
        onnx_file.read(path)
