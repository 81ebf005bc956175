"""Small `.sqz` files of every coder, taken apart and put together again with right checksums."""

import dataclasses
import functools
import json
import struct
import zlib

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from small_networks import on_grids, shared, small_alexnet, small_squeezenet, with_deflated_head

from squeezekit.models.builder import GraphBuilder
from squeezekit.runtime.int8 import needed_ranges
from squeezekit.sqz import container, metadata_json
from squeezekit.sqz.network import Metadata, Preprocessing

CANARY = b"the canary sings: " + bytes(range(14)) * 20
HOW = Preprocessing(crop=8, resize=8)
HEADER_BYTES = 24


def model(nodes=(), initializers=(), **settings):
    """A classifier of 3 classes, its colours' means times `w`, with more nodes behind them."""
    nodes = [
        helper.make_node("GlobalAveragePool", ["image"], ["pool"], "pool"),
        helper.make_node("Flatten", ["pool"], ["flat"], "flat"),
        helper.make_node("Mul", ["flat", "w"], ["scores"], "scale"),
        *nodes,
    ]
    last = nodes[-1].output[0]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, 8, 8])],
        [helper.make_tensor_value_info(last, TensorProto.FLOAT, ["N", 3])],
        [numpy_helper.from_array(np.ones(3, np.float32), "w"), *initializers],
    )
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8, **settings
    )


def laughs(depth=30):
    """Functions that call each other twice: 2^depth nodes, or without end."""
    whole = model([helper.make_node("f0", ["scores"], ["laughs"], domain="own")])
    whole.opset_import.append(helper.make_opsetid("own", 1))
    for i in range(depth):
        inner = f"f{i + 1}" if i + 1 < depth else "Relu"
        domain = "own" if i + 1 < depth else ""
        nodes = [
            helper.make_node(inner, ["x"], ["y"], domain=domain),
            helper.make_node(inner, ["y"], ["z"], domain=domain),
        ]
        opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
        whole.functions.append(helper.make_function("own", f"f{i}", ["x"], ["z"], nodes, opsets))
    return whole


def forged(skeleton: onnx.ModelProto) -> bytes:
    """A `.sqz` around any graph: the writer itself would refuse most of them."""
    names = [t.name for t in skeleton.graph.initializer if t.name == "w"]
    for tensor in [t for t in skeleton.graph.initializer if t.name == "w"]:
        skeleton.graph.initializer.remove(tensor)
    weights = np.ones(3, "<f4").tobytes()
    text = metadata_json.to_json(Metadata("x", HOW)).encode()
    graph = skeleton.SerializeToString()
    record = b"\x01w\x00\x01\x03\x00\x0c" + struct.pack("<I", zlib.crc32(weights))
    raw = sized(text) + sized(graph) + varint(len(names))
    raw += record * len(names)
    deflate = zlib.compressobj(wbits=-15)
    stored = deflate.compress(raw) + deflate.flush()
    payload = weights * len(names)
    start = b"\x89SQZ\x01\x00\x01\x00" + struct.pack(
        "<3I", 24 + len(stored) + len(payload), len(stored), len(raw)
    )
    return start + struct.pack("<I", zlib.crc32(start + stored)) + stored + payload


@functools.cache
def files():
    """Small files of every coder, with all that metadata may hold."""
    net = GraphBuilder(1, 4, 4)
    x = net.relu("relu", net.conv("conv", net.image, 3, 2))
    x = net.linear("fc", net.flatten("flat", net.global_average_pool("pool", x)), 2)
    how = Preprocessing(crop=4, resize=5, color="L", mean=(0.5,), std=(0.25,))
    tiny = net.build(x, Metadata("tiny", how, ("\u00e4", 'b"\\'), ("n1", "n2"), licence="CC0"))
    ranges = dict.fromkeys(needed_ranges(tiny), (-1.0, 2.5))
    with_ranges = dataclasses.replace(
        tiny, metadata=dataclasses.replace(tiny.metadata, activations=ranges)
    )
    networks = [
        tiny,
        with_ranges,
        shared(tiny),
        shared(small_alexnet(35)),
        shared(small_squeezenet()),
        on_grids(small_squeezenet()),
    ]
    return [container.encode(n, c) for n in networks for c in ("entropy", "huffman", "dense")]


def taken_apart(sqz):
    """Header, inflated head, payloads; the header is that of a file whose head is deflated."""
    sqz = with_deflated_head(sqz)
    stored = int.from_bytes(sqz[12:16], "little")
    head = zlib.decompress(sqz[HEADER_BYTES : HEADER_BYTES + stored], -15)
    return sqz[:HEADER_BYTES], head, sqz[HEADER_BYTES + stored :]


def put_together(header, stored, raw_bytes, payloads):
    """A file whose lengths and checksum of the head are right."""
    header = bytearray(header)
    header[8:12] = (HEADER_BYTES + len(stored) + len(payloads)).to_bytes(4, "little")
    header[12:16] = len(stored).to_bytes(4, "little")
    header[16:20] = raw_bytes.to_bytes(4, "little")
    header[20:24] = zlib.crc32(stored, zlib.crc32(header[:20])).to_bytes(4, "little")
    return bytes(header) + stored + payloads


def deflated(raw, level=9, strategy=0):
    deflate = zlib.compressobj(level, zlib.DEFLATED, -15, strategy=strategy)
    return deflate.compress(raw) + deflate.flush()


def with_head(sqz, raw):
    header, _, payloads = taken_apart(sqz)
    return put_together(header, deflated(raw), len(raw), payloads)


def with_metadata(sqz, text):
    """The same file with other metadata."""
    raw = taken_apart(sqz)[1]
    size, at = read_varint(raw)
    assert json.loads(raw[at : at + size])
    return with_head(sqz, sized(text) + raw[at + size :])


def read_varint(data):
    value = 0
    for at, byte in enumerate(data):
        value |= (byte & 127) << 7 * at
        if byte < 128:
            return value, at + 1
    raise AssertionError


def varint(number):
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


def sized(data):
    return varint(len(data)) + data


GOOD = {
    "name": "n",
    "preprocessing": {
        "crop": 4, "resize": 5, "resize_mode": "warp", "color": "L", "interpolation": "bicubic",
        "scale": 0.5, "mean": [1], "std": [1e-3],
    },
    "labels": ["a", "b"],
}  # fmt: skip


def skeleton():
    """A graph whose weights lie outside of it."""
    whole = model()
    del whole.graph.initializer[:]
    return whole


def with_graph(graph):
    """A file around any graph, with the tensor `w` that it needs."""
    sqz = forged(model())
    header, raw, payloads = taken_apart(sqz)
    size, at = read_varint(raw)
    start = at + size
    old, more = read_varint(raw[start:])
    raw = raw[:start] + sized(graph) + raw[start + more + old :]
    return put_together(header, deflated(raw), len(raw), payloads)
