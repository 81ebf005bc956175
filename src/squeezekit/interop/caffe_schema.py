"""Caffe's protocol buffers, as far as classifiers need them: messages built without a compiler.

From caffe.proto (BVLC, BSD-2-Clause); field numbers are all that a file holds of it.
"""

from __future__ import annotations

from typing import Any, TypeAlias

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_PACKAGE = "squeezekit.caffe"
_Field = descriptor_pb2.FieldDescriptorProto

Message: TypeAlias = Any
"""A message: its class is made at run time, and no type checker knows it."""

# Message: {field: (number, type)}. A type is a scalar, or the name of a message or an enumeration;
# a "*" in front is repeated, and a default may follow after "=".
_MESSAGES: dict[str, dict[str, tuple[int, str]]] = {
    "BlobShape": {"dim": (1, "*int64")},
    "BlobProto": {
        "num": (1, "int32"), "channels": (2, "int32"), "height": (3, "int32"),
        "width": (4, "int32"), "data": (5, "*float"), "shape": (7, "BlobShape"),
        "double_data": (8, "*double"),
    },
    "NetStateRule": {"phase": (1, "Phase")},
    "TransformationParameter": {
        "scale": (1, "float=1"), "crop_size": (3, "uint32"), "mean_file": (4, "string"),
        "mean_value": (5, "*float"),
    },
    # What stood here before there was a transform_param.
    "DataParameter": {
        "scale": (2, "float=1"), "mean_file": (3, "string"), "crop_size": (5, "uint32"),
    },
    "ImageDataParameter": {
        "scale": (2, "float=1"), "mean_file": (3, "string"), "crop_size": (5, "uint32"),
        "new_height": (9, "uint32"), "new_width": (10, "uint32"), "is_color": (11, "bool=true"),
    },
    "ConvolutionParameter": {
        "num_output": (1, "uint32"), "bias_term": (2, "bool=true"), "pad": (3, "*uint32"),
        "kernel_size": (4, "*uint32"), "group": (5, "uint32=1"), "stride": (6, "*uint32"),
        "pad_h": (9, "uint32"), "pad_w": (10, "uint32"), "kernel_h": (11, "uint32"),
        "kernel_w": (12, "uint32"), "stride_h": (13, "uint32"), "stride_w": (14, "uint32"),
        "dilation": (18, "*uint32"),
    },
    "PoolingParameter": {
        "pool": (1, "PoolMethod"), "kernel_size": (2, "uint32"), "stride": (3, "uint32=1"),
        "pad": (4, "uint32"), "kernel_h": (5, "uint32"), "kernel_w": (6, "uint32"),
        "stride_h": (7, "uint32"), "stride_w": (8, "uint32"), "pad_h": (9, "uint32"),
        "pad_w": (10, "uint32"), "global_pooling": (12, "bool"), "round_mode": (13, "RoundMode"),
    },
    "LRNParameter": {
        "local_size": (1, "uint32=5"), "alpha": (2, "float=1"), "beta": (3, "float=0.75"),
        "norm_region": (4, "NormRegion"), "k": (5, "float=1"),
    },
    "InnerProductParameter": {
        "num_output": (1, "uint32"), "bias_term": (2, "bool=true"), "axis": (5, "int32=1"),
        "transpose": (6, "bool"),
    },
    "EltwiseParameter": {"operation": (1, "EltwiseOp=SUM"), "coeff": (2, "*float")},
    "ConcatParameter": {"axis": (2, "int32=1"), "concat_dim": (1, "uint32=1")},
    "DropoutParameter": {"dropout_ratio": (1, "float=0.5")},
    "ReLUParameter": {"negative_slope": (1, "float=0")},
    "BatchNormParameter": {"eps": (3, "float=1e-5")},
    "ScaleParameter": {
        "axis": (1, "int32=1"), "num_axes": (2, "int32=1"), "bias_term": (4, "bool=false"),
    },
    "InputParameter": {"shape": (1, "*BlobShape")},
    "LayerParameter": {
        "name": (1, "string"), "type": (2, "string"), "bottom": (3, "*string"),
        "top": (4, "*string"), "blobs": (7, "*BlobProto"), "include": (8, "*NetStateRule"),
        "exclude": (9, "*NetStateRule"), "transform_param": (100, "TransformationParameter"),
        "concat_param": (104, "ConcatParameter"),
        "convolution_param": (106, "ConvolutionParameter"), "data_param": (107, "DataParameter"),
        "image_data_param": (115, "ImageDataParameter"),
        "dropout_param": (108, "DropoutParameter"), "eltwise_param": (110, "EltwiseParameter"),
        "inner_product_param": (117, "InnerProductParameter"),
        "lrn_param": (118, "LRNParameter"), "pooling_param": (121, "PoolingParameter"),
        "relu_param": (123, "ReLUParameter"), "batch_norm_param": (139, "BatchNormParameter"),
        "scale_param": (142, "ScaleParameter"), "input_param": (143, "InputParameter"),
    },
    "V1LayerParameter": {
        "bottom": (2, "*string"), "top": (3, "*string"), "name": (4, "string"),
        "type": (5, "V1LayerType"), "blobs": (6, "*BlobProto"),
        "concat_param": (9, "ConcatParameter"), "convolution_param": (10, "ConvolutionParameter"),
        "data_param": (11, "DataParameter"), "image_data_param": (15, "ImageDataParameter"),
        "dropout_param": (12, "DropoutParameter"),
        "inner_product_param": (17, "InnerProductParameter"), "lrn_param": (18, "LRNParameter"),
        "pooling_param": (19, "PoolingParameter"), "eltwise_param": (24, "EltwiseParameter"),
        "relu_param": (30, "ReLUParameter"), "include": (32, "*NetStateRule"),
        "exclude": (33, "*NetStateRule"), "transform_param": (36, "TransformationParameter"),
    },
    "NetParameter": {
        "name": (1, "string"), "layers": (2, "*V1LayerParameter"), "input": (3, "*string"),
        "input_dim": (4, "*int32"), "input_shape": (8, "*BlobShape"),
        "layer": (100, "*LayerParameter"),
    },
}  # fmt: skip

# Names are those of newer layers' types, in the order of V1's numbers; some are far from its words.
V1_TYPES = (
    "None", "Accuracy", "BNLL", "Concat", "Convolution", "Data", "Dropout", "EuclideanLoss",
    "Flatten", "HDF5Data", "HDF5Output", "Im2col", "ImageData", "InfogainLoss", "InnerProduct",
    "LRN", "MultinomialLogisticLoss", "Pooling", "ReLU", "Sigmoid", "Softmax", "SoftmaxWithLoss",
    "Split", "TanH", "WindowData", "Eltwise", "Power", "SigmoidCrossEntropyLoss", "HingeLoss",
    "MemoryData", "ArgMax", "Threshold", "DummyData", "Slice", "MVN", "AbsVal", "Silence",
    "ContrastiveLoss", "Exp", "Deconvolution",
)  # fmt: skip
_V1_WORDS = (
    "NONE", "ACCURACY", "BNLL", "CONCAT", "CONVOLUTION", "DATA", "DROPOUT", "EUCLIDEAN_LOSS",
    "FLATTEN", "HDF5_DATA", "HDF5_OUTPUT", "IM2COL", "IMAGE_DATA", "INFOGAIN_LOSS",
    "INNER_PRODUCT", "LRN", "MULTINOMIAL_LOGISTIC_LOSS", "POOLING", "RELU", "SIGMOID", "SOFTMAX",
    "SOFTMAX_LOSS", "SPLIT", "TANH", "WINDOW_DATA", "ELTWISE", "POWER",
    "SIGMOID_CROSS_ENTROPY_LOSS", "HINGE_LOSS", "MEMORY_DATA", "ARGMAX", "THRESHOLD",
    "DUMMY_DATA", "SLICE", "MVN", "ABSVAL", "SILENCE", "CONTRASTIVE_LOSS", "EXP", "DECONVOLUTION",
)  # fmt: skip

# Enumerations live inside the message that uses them, so that their words do not clash.
_ENUMS: dict[str, tuple[str, tuple[str, ...]]] = {
    "Phase": ("NetStateRule", ("TRAIN", "TEST")),
    "PoolMethod": ("PoolingParameter", ("MAX", "AVE", "STOCHASTIC")),
    "RoundMode": ("PoolingParameter", ("CEIL", "FLOOR")),
    "NormRegion": ("LRNParameter", ("ACROSS_CHANNELS", "WITHIN_CHANNEL")),
    "EltwiseOp": ("EltwiseParameter", ("PROD", "SUM", "MAX")),
    "V1LayerType": ("V1LayerParameter", _V1_WORDS),
}

_SCALARS = {
    "int32": _Field.TYPE_INT32, "int64": _Field.TYPE_INT64, "uint32": _Field.TYPE_UINT32,
    "float": _Field.TYPE_FLOAT, "double": _Field.TYPE_DOUBLE, "bool": _Field.TYPE_BOOL,
    "string": _Field.TYPE_STRING,
}  # fmt: skip


def _file() -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto(
        name="squeezekit/caffe.proto", package=_PACKAGE, syntax="proto2"
    )
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for enum, (home, words) in _ENUMS.items():
            if home == name:
                values = message.enum_type.add(name=enum).value
                for number, word in enumerate(words):
                    values.add(name=word, number=number)
        for field, (number, kind) in fields.items():
            _add_field(message, field, number, kind)
    return file


def _add_field(message: descriptor_pb2.DescriptorProto, name: str, number: int, kind: str) -> None:
    repeated = kind.startswith("*")
    kind, _, default = kind.removeprefix("*").partition("=")
    field = message.field.add(
        name=name,
        number=number,
        label=_Field.LABEL_REPEATED if repeated else _Field.LABEL_OPTIONAL,
    )
    if kind in _SCALARS:
        field.type = _SCALARS[kind]
        field.options.packed = repeated and kind in ("float", "double", "int64")
    elif kind in _ENUMS:
        field.type = _Field.TYPE_ENUM
        field.type_name = f".{_PACKAGE}.{_ENUMS[kind][0]}.{kind}"
    else:
        field.type = _Field.TYPE_MESSAGE
        field.type_name = f".{_PACKAGE}.{kind}"
    if default:
        field.default_value = default


_pool = descriptor_pool.DescriptorPool()
_pool.Add(_file())


def _class(name: str) -> Message:
    return message_factory.GetMessageClass(_pool.FindMessageTypeByName(f"{_PACKAGE}.{name}"))


NetParameter: Message = _class("NetParameter")
"""A whole network: the root of both kinds of file."""

BlobProto: Message = _class("BlobProto")
"""An array of numbers, and the whole of a `.binaryproto`."""


def layers_of(net: Message) -> list[Message]:
    """The layers of a network in order, of either generation."""
    return [*net.layer, *net.layers]


def layer_type(layer: Message) -> str:
    """What a layer does, by the newer name."""
    return layer.type if isinstance(layer.type, str) else V1_TYPES[layer.type]
