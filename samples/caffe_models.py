"""Networks of ours as Caffe's files: a .caffemodel, and a prototxt beside it."""

from google.protobuf import text_format
from onnx import helper

from squeezekit.interop.caffe_schema import NetParameter
from squeezekit.models.squeezenet import SqueezeNetConfig, squeezenet
from squeezekit.sqz.graph import parse

KINDS = {
    "Conv": "Convolution", "Relu": "ReLU", "MaxPool": "Pooling", "GlobalAveragePool": "Pooling",
    "Concat": "Concat", "Add": "Eltwise", "Dropout": "Dropout", "LRN": "LRN",
    "Gemm": "InnerProduct", "Flatten": "Flatten",
}  # fmt: skip


V1 = {"Convolution": "CONVOLUTION", "ReLU": "RELU", "Pooling": "POOLING", "Concat": "CONCAT",
      "Eltwise": "ELTWISE", "Dropout": "DROPOUT", "LRN": "LRN", "InnerProduct": "INNER_PRODUCT",
      "Flatten": "FLATTEN", "Softmax": "SOFTMAX"}  # fmt: skip


def caffe_net(network, *, v1=False, legacy_blobs=False):
    """A network of ours as Caffe's message: every layer with its blobs."""
    values = network.values()
    net = NetParameter(name="written", input=["data"])
    size = network.metadata.preprocessing
    net.input_shape.add().dim.extend([1, size.channels, size.crop, size.crop])
    nodes = parse(network.graph).graph.node
    tops = {"image": "data"}
    for node in nodes:
        layer = (net.layers if v1 else net.layer).add(name=node.name.replace(".", "/"))
        kind = KINDS[node.op_type]
        layer.type = getattr(type(layer), V1[kind]) if v1 else kind
        layer.bottom.extend(tops[name] for name in node.input if name in tops)
        # Caffe's networks compute ReLU and dropout in place.
        in_place = node.op_type in ("Relu", "Dropout")
        tops[node.output[0]] = layer.bottom[0] if in_place else node.name
        layer.top.append(tops[node.output[0]])
        fill(layer, node)
        for name in node.input:
            if name in values and not name.endswith("ratio"):
                add_blob(layer, values[name], legacy=legacy_blobs)
    layer = (net.layers if v1 else net.layer).add(name="prob", top=["prob"])
    layer.bottom.append(tops["logits"])
    layer.type = type(layer).SOFTMAX if v1 else "Softmax"
    return net


def fill(layer, node):
    get = lambda name, default: next(  # noqa: E731
        (helper.get_attribute_value(a) for a in node.attribute if a.name == name), default
    )
    match node.op_type:
        case "Conv":
            p = layer.convolution_param
            p.kernel_size.append(get("kernel_shape", None)[0])
            p.stride.append(get("strides", [1])[0])
            p.pad.append(get("pads", [0])[0])
            p.group = get("group", 1)
            p.bias_term = len(node.input) > 2
        case "MaxPool":
            p = layer.pooling_param
            p.kernel_size, p.stride = get("kernel_shape", None)[0], get("strides", None)[0]
        case "GlobalAveragePool":
            layer.pooling_param.pool = 1
            layer.pooling_param.global_pooling = True
        case "LRN":
            p = layer.lrn_param
            p.local_size, p.alpha, p.beta = get("size", 5), get("alpha", 1), get("beta", 1)


def add_blob(layer, values, *, legacy=False):
    blob = layer.blobs.add()
    blob.data.extend(values.ravel().tolist())
    if legacy:
        dims = (*(1,) * (4 - values.ndim), *values.shape)
        blob.num, blob.channels, blob.height, blob.width = dims
    else:
        blob.shape.dim.extend(values.shape)
    match type(layer).DESCRIPTOR.name, layer.type:
        case (_, "Convolution" | 4) if values.ndim == 4:
            layer.convolution_param.num_output = len(values)
        case (_, "InnerProduct" | 14) if values.ndim == 2:
            layer.inner_product_param.num_output = len(values)


def write(net, folder, *, prototxt="deploy.prototxt"):
    """The .caffemodel, and a prototxt without blobs beside it."""
    folder.mkdir(exist_ok=True)
    (folder / "net.caffemodel").write_bytes(net.SerializeToString())
    if prototxt:
        definition = NetParameter()
        definition.CopyFrom(net)
        for layer in [*definition.layer, *definition.layers]:
            del layer.blobs[:]
        text = text_format.MessageToString(definition)
        text += "force_backward: true\n# Caffe has more settings than we read\n"
        (folder / prototxt).write_text(text)
    return folder / "net.caffemodel"


def small(bypass="complex"):
    config = SqueezeNetConfig(
        name="small", classes=7, input_size=35, conv1_filters=12, conv1_kernel=7, fires=4,
        pool_after=("conv1", "fire3"), base_e=16, incr_e=8, squeeze_ratio=0.5, bypass=bypass,
        conv10_pad=1,
    )  # fmt: skip
    return squeezenet(config, seed=3)
