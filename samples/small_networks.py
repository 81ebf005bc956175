"""Small networks for what has to run many of them: every operator of the catalogue, few weights."""

import dataclasses
import struct
import zlib

import numpy as np
from onnx import helper

from squeezekit.models.builder import GraphBuilder
from squeezekit.models.fold import fold_batch_norm
from squeezekit.models.squeezenet import SqueezeNetConfig, squeezenet
from squeezekit.runtime.int8 import needed_ranges
from squeezekit.sqz.coders import text
from squeezekit.sqz.graph import parse
from squeezekit.sqz.network import CAFFE, Metadata, Network, Preprocessing, SharedTensor

LABELS = ("tench, Tinca tinca", 'a "quoted" \\ one', "b\u00e4r \U0001f43b")


def small_squeezenet(bypass="none", channels=3, size=41, labels=LABELS, **settings):
    config = SqueezeNetConfig(
        classes=len(labels), channels=channels, input_size=size, conv1_filters=5, conv1_kernel=5,
        fires=3, base_e=12, incr_e=6, squeeze_ratio=0.25, pct_3x3=0.6, bypass=bypass,
        pool_after=("conv1", "fire2"), **settings,
    )  # fmt: skip
    return fold_batch_norm(spread(squeezenet(config, labels=labels, seed=3)))


def small_alexnet(size=67):
    """CaffeNet's operators: groups, LRN, flattening of more than one pixel, fully connected."""
    net = GraphBuilder(3, size, size)
    x = net.relu("relu1", net.conv("conv1", net.image, 8, 11, stride=4))
    x = net.lrn("norm1", net.max_pool("pool1", x, 3, 2))
    x = net.relu("relu2", net.conv("conv2", x, 12, 5, pad=2, groups=2, bias=1.0))
    x = net.average_pool("pool2", net.lrn("norm2", x, 3, 0.5, 0.6), 2, 1)
    x = net.dropout("drop3", net.relu("relu3", net.linear("fc3", net.flatten("flat", x), 21)), 0.5)
    how = Preprocessing(crop=size, resize=size + 9, resize_mode="warp", color="BGR", scale=1.0,
                        mean=CAFFE.mean, std=CAFFE.std)  # fmt: skip
    return spread(net.build(net.linear("fc4", x, 6), Metadata("small alexnet", how)))


def with_softmax(network: Network) -> Network:
    """The same with a Softmax behind it."""
    model = parse(network.graph)
    last = next(node for node in model.graph.node if "logits" in node.output)
    last.output[:] = ["before"]
    model.graph.node.append(helper.make_node("Softmax", ["before"], ["logits"], axis=1))
    metadata = Metadata("softmax", network.metadata.preprocessing, output="probabilities")
    return Network(model.SerializeToString(), network.tensors, metadata)


def spread(network: Network) -> Network:
    """With biases that are not all the same, so that every one of them matters."""
    rng = np.random.default_rng(8)
    return network.with_tensors(
        {
            name: tensor + rng.normal(0, 0.05, tensor.shape).astype(np.float32)
            for name, tensor in network.tensors.items()
            if tensor.ndim == 1
        }
    )


def shared(network: Network) -> Network:
    """With few distinct weights, as Deep Compression leaves them: on no uniform grid."""
    return network.with_tensors(
        {
            name: SharedTensor.from_values(np.sinh((tensor * 16).round() / 16))
            for name, tensor in network.tensors.items()
        }
    )


def ranged(network: Network) -> Network:
    """The same with ranges of activations, for int8."""
    ranges = dict.fromkeys(needed_ranges(network), (-1.0, 2.5))
    metadata = dataclasses.replace(network.metadata, activations=ranges)
    return dataclasses.replace(network, metadata=metadata)


def small_networks() -> dict[str, Network]:
    return {
        "plain": small_squeezenet(),
        "simple": small_squeezenet("simple", size=38),
        "complex": small_squeezenet("complex", batch_norm=True),
        "grey, padded as Caffe's": small_squeezenet(channels=1, conv10_pad=1, conv1_pad=2),
        "alexnet": small_alexnet(),
        "softmax": with_softmax(small_squeezenet(final_relu=False)),
    }


def with_deflated_head(sqz: bytes) -> bytes:
    """The same file with its head deflated, as it is easily taken apart."""
    stored, raw = struct.unpack_from("<2I", sqz, 12)
    if sqz[6] == 1:
        return sqz
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    head = deflate.compress(text.decode(sqz[24 : 24 + stored], raw)) + deflate.flush()
    size = len(sqz) - stored + len(head)
    header = sqz[:6] + b"\1\0" + struct.pack("<3I", size, len(head), raw)
    checksum = struct.pack("<I", zlib.crc32(head, zlib.crc32(header)))
    return header + checksum + head + sqz[24 + stored :]


def on_grids(network: Network) -> Network:
    """With weights and biases of 8 bits, as quantised networks have them."""
    tensors = {}
    for name, tensor in network.tensors.items():
        scale = np.float32(max(np.abs(tensor).max() / 127, 2.0**-20))
        tensors[name] = scale * np.rint(tensor / scale).astype(np.float32) + np.float32(0)
    return network.with_tensors(tensors)
