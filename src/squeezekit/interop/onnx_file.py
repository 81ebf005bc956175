"""ONNX files: reads any float32 image classifier, and writes networks for other programs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx.inliner
from google.protobuf.message import DecodeError
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from squeezekit.errors import HeadError, InputError, UnsupportedError
from squeezekit.files import read_bytes, write_whole
from squeezekit.runtime import foreign_onnx
from squeezekit.runtime.images import default_preprocessing
from squeezekit.runtime.int8 import int8_model
from squeezekit.runtime.preprocessing import with_assumption
from squeezekit.sqz.graph import attach, split
from squeezekit.sqz.metadata_json import from_json, to_json
from squeezekit.sqz.network import Metadata, Network
from squeezekit.sqz.nodes import opset

METADATA_KEY = "squeezekit"
"""Under this key of the model's metadata_props stands the network's metadata, as JSON."""

OLDEST_OPSET = 7
"""Older operator sets broadcast differently; ONNX Runtime does not read them either."""

_INTEGERS = (TensorProto.INT64, TensorProto.INT32, TensorProto.BOOL)


def read(path: Path | str, *, input_size: int | None = None) -> Network:
    """Read a classifier: one image in, one number a class out.

    The batch axis becomes symbolic, height and width are fixed, constants become initializers,
    and outputs beside the first go, with what only they need. A model that ends in a Softmax is
    marked as giving probabilities. What squeezekit wrote comes back with labels and preprocessing;
    other models get torchvision's preprocessing at their input size.

    Args:
        path: of the `.onnx`; weights stored beside it are read too.
        input_size: height and width in pixels, for a model that leaves them open.

    Raises:
        InputError: where the file is no ONNX model, its external data is missing, or the input
            size is needed, or not the one given.
        UnsupportedError: where the model is no classifier of one image, or its weights are not
            float32.
    """
    model = _load(path)
    _require_float32(path, model)
    metadata = _own_metadata(path, model)
    _strip(model)
    _constants_to_initializers(model)
    _keep_first_output(model)
    size, channels = _fix_input(path, model, metadata, input_size)
    _free_batch(model)
    _state_output(path, model)
    if metadata is None:
        metadata = with_assumption(
            Metadata(
                name=Path(path).stem,
                preprocessing=default_preprocessing(size, channels),
                output="probabilities" if _ends_in_softmax(model) else "logits",
            )
        )
    elif metadata.preprocessing.crop != size or metadata.preprocessing.channels != channels:
        raise InputError(f"{path}: its preprocessing does not fit its input")
    graph, tensors = split(model)
    return Network(graph, dict(tensors), metadata)


def write(network: Network, path: Path | str, *, int8: bool = False) -> None:
    """Write a network as an ONNX file that any runtime reads; shared weights become plain floats.

    Args:
        network: any.
        path: of the `.onnx`.
        int8: with QuantizeLinear and DequantizeLinear around every layer and int8 weights, by the
            ranges in `metadata.activations`: runtimes that know the pattern compute in integers.

    Raises:
        InputError: where the file cannot be written, or the network has no ranges for int8.
        UnsupportedError: where its operator set is too old for int8.
    """
    metadata = network.metadata.uncalibrated() if int8 else network.metadata
    whole = int8_model(network) if int8 else attach(network.graph, network.values())
    model = onnx.load_model_from_string(whole)
    model.metadata_props.add(key=METADATA_KEY, value=to_json(metadata))
    onnx.checker.check_model(model)
    write_whole(path, model.SerializeToString(deterministic=True))


# ---------------------------------------------------------------------------------------- reading


def _load(path: Path | str) -> ModelProto:
    data = read_bytes(path)
    foreign_onnx.check(Path(path), data)
    model = ModelProto()
    try:
        model.ParseFromString(data)
    except DecodeError:
        raise InputError(f"{path}: is not an ONNX model") from None
    if not model.graph.node or not model.graph.output:
        raise InputError(f"{path}: is not an ONNX model (it has no graph)")
    for output in model.graph.output:
        output.type.tensor_type.shape.SetInParent()  # the checker wants one; `_state_output` too
    try:
        onnx.load_external_data_for_model(model, str(Path(path).parent))
        onnx.checker.check_model(model)
    except (OSError, ValueError, onnx.checker.ValidationError) as error:
        stored_outside = any(
            tensor.data_location == TensorProto.EXTERNAL for tensor in model.graph.initializer
        )
        first_line = str(error).strip().partition("\n")[0]
        what = "the file with its weights cannot be read" if stored_outside else "is damaged"
        raise InputError(f"{path}: {what} ({first_line})") from None
    if model.functions:
        model = onnx.inliner.inline_local_functions(model)
    version = opset(model)
    if version < OLDEST_OPSET:
        raise UnsupportedError(
            f"{path}: uses ONNX operator set {version}; "
            f"export it again with {OLDEST_OPSET} or later"
        )
    return model


def _require_float32(path: Path | str, model: ModelProto) -> None:
    for node in model.graph.node:
        if "Quantize" in node.op_type or "Integer" in node.op_type or "QLinear" in node.op_type:
            raise UnsupportedError(
                f"{path}: is quantised already ({node.op_type}); hand in the float32 model"
            )
    for tensor in model.graph.initializer:
        if tensor.data_type not in (TensorProto.FLOAT, *_INTEGERS):
            kind = TensorProto.DataType.Name(tensor.data_type).lower()
            raise UnsupportedError(
                f"{path}: {tensor.name} is {kind}; only float32 weights can be read"
            )


def _strip(model: ModelProto) -> None:
    """Remove what exporters leave for people: it can be longer than the graph."""
    del model.metadata_props[:]
    del model.graph.metadata_props[:]
    del model.graph.value_info[:]
    model.graph.doc_string = model.doc_string = ""
    for node in model.graph.node:
        node.doc_string = ""
        del node.metadata_props[:]


def _constants_to_initializers(model: ModelProto) -> None:
    """Weights may hide in Constant nodes; `split` looks for them among the initializers."""
    for node in [node for node in model.graph.node if node.op_type == "Constant"]:
        value = _constant(node)
        if value is not None:
            value.name = node.output[0]
            model.graph.initializer.append(value)
            model.graph.node.remove(node)


def _constant(node: NodeProto) -> TensorProto | None:
    attribute = node.attribute[0]
    value = helper.get_attribute_value(attribute)
    if attribute.name == "value":
        assert isinstance(value, TensorProto)
        return value
    kinds = {
        "value_float": np.float32, "value_floats": np.float32,
        "value_int": np.int64, "value_ints": np.int64,
    }  # fmt: skip
    if attribute.name not in kinds:
        return None
    return numpy_helper.from_array(np.array(value, kinds[attribute.name]))


def _keep_first_output(model: ModelProto) -> None:
    """Drop further outputs (auxiliary classifiers, masks) and what only they need."""
    graph = model.graph
    del graph.output[1:]
    needed = {graph.output[0].name}
    for node in reversed(list(graph.node)):  # the nodes are in topological order
        if needed.intersection(node.output):
            needed.update(node.input)
        else:
            graph.node.remove(node)
    unneeded = [tensor for tensor in graph.initializer if tensor.name not in needed]
    for tensor in unneeded:
        graph.initializer.remove(tensor)


def _own_metadata(path: Path | str, model: ModelProto) -> Metadata | None:
    for entry in model.metadata_props:
        if entry.key == METADATA_KEY:
            try:
                return from_json(entry.value)
            except HeadError as error:
                raise InputError(f"{path}: its squeezekit metadata is damaged ({error})") from None
    return None


def _fix_input(
    path: Path | str, model: ModelProto, metadata: Metadata | None, input_size: int | None
) -> tuple[int, int]:
    """Find the image among the inputs and make it (N, C, H, W); returns H = W, and C."""
    graph = model.graph
    stored = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in stored]
    if len(inputs) != 1:
        names = ", ".join(value.name for value in inputs) or "none"
        raise UnsupportedError(f"{path}: needs exactly one input, an image, but has {names}")
    image = inputs[0]
    kind = image.type.tensor_type
    dims = [dim.dim_value if dim.HasField("dim_value") else 0 for dim in kind.shape.dim]
    if kind.elem_type != TensorProto.FLOAT or len(dims) != 4:
        raise UnsupportedError(f"{path}: its input {image.name} is not a float32 batch of images")
    if dims[1] not in (1, 3) and dims[3] in (1, 3):
        dims = [dims[0], dims[3], dims[1], dims[2]]
        image_name = _channels_first(model, image.name)
    else:
        image_name = image.name
    channels = dims[1] or _channels_of_first_conv(model, image.name)
    if channels not in (1, 3):
        raise UnsupportedError(f"{path}: takes {channels} channels; only 1 and 3 are supported")
    size = _size(path, dims[2:], metadata, input_size)
    fixed = helper.make_tensor_value_info(
        image_name, TensorProto.FLOAT, ["N", channels, size, size]
    )
    del graph.input[:]
    graph.input.append(fixed)
    return size, channels


def _size(
    path: Path | str, sides: list[int], metadata: Metadata | None, input_size: int | None
) -> int:
    known = {side for side in sides if side > 0}
    if len(known) > 1:
        raise UnsupportedError(f"{path}: takes images of {sides[0]} x {sides[1]}, not square ones")
    if not known:
        if input_size is None and metadata is None:
            raise InputError(f"{path}: leaves its input size open; name one, such as 224")
        known = {input_size or (metadata.preprocessing.crop if metadata else 0)}
    size = known.pop()
    if input_size not in (None, size):
        raise InputError(f"{path}: takes images of {size} pixels, not {input_size}")
    return size


def _channels_first(model: ModelProto, image: str) -> str:
    """Put a Transpose in front of a graph that wants (N, H, W, C)."""
    name = f"{image}.channels_first"
    model.graph.node.insert(0, helper.make_node("Transpose", [name], [image], perm=[0, 2, 3, 1]))
    return name


def _channels_of_first_conv(model: ModelProto, image: str) -> int:
    shapes = {tensor.name: tensor.dims for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Conv" and node.input[0] == image and node.input[1] in shapes:
            return int(shapes[node.input[1]][1])
    return 0


def _free_batch(model: ModelProto) -> None:
    """Let a graph that was exported for one image take any number.

    A Reshape to (1, ...) copies the batch axis instead.
    """
    settings = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        target = settings.get(node.input[1]) if node.op_type == "Reshape" else None
        if target is None:
            continue
        shape = numpy_helper.to_array(target).copy()
        if shape.size > 1 and shape[0] == 1 and 0 not in shape:
            shape[0] = 0  # "as the input's"
            target.CopyFrom(numpy_helper.from_array(shape, target.name))


def _state_output(path: Path | str, model: ModelProto) -> None:
    """State the output's shape anew, as far as it can be inferred: (N, classes), then ones."""
    output = model.graph.output[0]
    output.type.tensor_type.ClearField("shape")
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True).graph.output[0]
    tensor = inferred.type.tensor_type
    shape: list[str | int | None] = ["N", None]
    if tensor.HasField("shape"):
        dims = [d.dim_value if d.HasField("dim_value") else None for d in tensor.shape.dim]
        if len(dims) < 2 or any(size not in (1, None) for size in dims[2:]):
            sizes = ", ".join("?" if size is None else str(size) for size in dims)
            raise UnsupportedError(f"{path}: is no classifier; its output has the shape ({sizes})")
        shape = ["N", *dims[1:]]
    output.CopyFrom(helper.make_tensor_value_info(output.name, TensorProto.FLOAT, shape))


def _ends_in_softmax(model: ModelProto) -> bool:
    """Whether the output is a Softmax, perhaps reshaped."""
    makers = {name: node for node in model.graph.node for name in node.output}
    node = makers.get(model.graph.output[0].name)
    while node is not None and node.op_type in ("Identity", "Flatten", "Reshape", "Squeeze"):
        node = makers.get(node.input[0])
    return node is not None and node.op_type == "Softmax"
