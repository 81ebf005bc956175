"""The C library judges files as Python does: the same ones, by errors of the same names."""

import dataclasses
import json
import math
import random
import zlib

import numpy as np
import onnx
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from operator_graphs import Graph, networks
from sqz_parts import (
    GOOD,
    HEADER_BYTES,
    deflated,
    files,
    forged,
    model,
    put_together,
    read_varint,
    sized,
    skeleton,
    taken_apart,
    varint,
    with_graph,
    with_head,
    with_metadata,
)
from test_closed_graph import OTHERS, SPOILED, loop, other_operator, reading, spoiled

from squeezekit.errors import (
    FormatError,
    GraphError,
    HeadError,
    LimitError,
    OperatorError,
    UnsupportedError,
)
from squeezekit.interop.page_runtime import PageRuntime
from squeezekit.sqz import container


def verdict(read, data):
    """The name of the error, or None where the file is read."""
    try:
        read(data)
    except (FormatError, UnsupportedError) as error:
        return type(error)
    return None


GRAPH = (GraphError, OperatorError)


def assert_alike(data):
    """By the same error; C may find more in the graph: shapes, and operators that it lacks."""
    python, c = verdict(container.decode, data), verdict(PageRuntime, data)
    if python is LimitError:  # of the reader's own choice
        return
    if python in GRAPH:
        assert c in GRAPH
    else:
        assert c == python or c in GRAPH


def damaged(data, bytes_):
    """Some bytes changed, left out, put in or repeated."""
    changed = bytearray(bytes_)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, max(len(changed) - 1, 0)))
        kind = data.draw(st.integers(0, 4))
        if not changed or kind == 0:
            changed[at:at] = data.draw(st.binary(min_size=1, max_size=3))
        elif kind == 1:
            del changed[at : at + data.draw(st.integers(1, 4))]
        elif kind == 2:
            changed[at] ^= 1 << data.draw(st.integers(0, 7))
        elif kind == 3:
            changed[at] = data.draw(st.sampled_from(b'\x00\x01\x7f\x80\xff"\\{}[],:-.0e'))
        else:
            changed[at:at] = changed[at : at + data.draw(st.integers(1, 40))]
    return bytes(changed)


SOME = settings(max_examples=400, deadline=None)


@given(st.data())
@SOME
def test_damaged_files(data):
    assert_alike(damaged(data, data.draw(st.sampled_from(files()))))


@given(st.data())
@SOME
def test_damaged_headers_with_a_right_checksum(data):
    sqz = data.draw(st.sampled_from(files()))
    header = bytearray(damaged(data, sqz[:20])[:20].ljust(20, b"\0"))
    stored = int.from_bytes(header[12:16], "little")
    rest = sqz[HEADER_BYTES:]
    checksum = zlib.crc32(rest[:stored], zlib.crc32(header)).to_bytes(4, "little")
    assert_alike(bytes(header) + checksum + rest)


@given(st.data())
@SOME
def test_damaged_heads_with_a_right_checksum(data):
    sqz = data.draw(st.sampled_from(files()))
    assert_alike(with_head(sqz, damaged(data, taken_apart(sqz)[1])))


@given(st.data())
@SOME
def test_damaged_deflate_with_a_right_checksum(data):
    sqz = data.draw(st.sampled_from(files()))
    header, raw, payloads = taken_apart(sqz)
    kinds = [(0, 0), (9, 0), (9, zlib.Z_FIXED), (9, zlib.Z_HUFFMAN_ONLY)]
    stored = damaged(data, deflated(raw, *data.draw(st.sampled_from(kinds))))
    stated = len(raw) + data.draw(st.sampled_from([0, 0, 0, -1, 1, -len(raw)]))
    assert_alike(put_together(header, stored, stated, payloads))


@given(st.data())
@SOME
def test_damaged_metadata(data):
    sqz = data.draw(st.sampled_from(files()[:6]))
    raw = taken_apart(sqz)[1]
    size, at = read_varint(raw)
    assert_alike(with_metadata(sqz, damaged(data, raw[at : at + size])))


@pytest.mark.parametrize("first", ["[-1.0,-1.0,2.5]", "[1.0,2.5]", "[-1.0,1.0]", "null", "[]"])
def test_ranges_that_a_later_one_replaces_are_judged_too(first):
    """Found by the test above."""
    for sqz in files()[:6]:
        raw = taken_apart(sqz)[1]
        size, at = read_varint(raw)
        metadata = raw[at : at + size]
        if b'"activations":{' in metadata:
            twice = metadata.replace(
                b'"activations":{', b'"activations":{"relu":%b,' % first.encode()
            )
            assert_alike(with_metadata(sqz, twice))
            return
    pytest.fail("no file has ranges")


@given(st.data())
@SOME
def test_damaged_payloads_with_right_checksums(data):
    sqz = data.draw(st.sampled_from(files()))
    header, raw, payloads = taken_apart(sqz)
    record = data.draw(st.sampled_from(container.read_head(sqz).records))
    start = record.offset - (len(sqz) - len(payloads))
    payload = damaged(data, payloads[start : start + record.payload_bytes])
    before, size = record.checksum.to_bytes(4, "little"), varint(record.payload_bytes)
    after = zlib.crc32(payload).to_bytes(4, "little")
    raw = raw.replace(size + before, varint(len(payload)) + after)
    rest = payloads[:start] + payload + payloads[start + record.payload_bytes :]
    assert_alike(put_together(header, deflated(raw), len(raw), rest))


# ------------------------------------------------------------------------------------ metadata


NUMBERS = [
    "0", "-0", "1", "4", "4.0", "4e0", "1e999", "-1e999", "1e-999", "3e-320", "123456e-320", "NaN",
    "Infinity", "-Infinity", "true", "null", '"4"', "[]", "{}", "01", "1.", ".5", "+1", "-", "1e",
    "1e+", "0x4", "65536", "65537", "4" * 4300, "4" * 4301, "4" * 4301 + ".0",
    "99999999999999999999", "1" + "0" * 400, "0." + "0" * 400 + "1", "1_0",
]  # fmt: skip

STRINGS = ['"logits"', '"l\\u006fgits"', '"\\ud83d\\ude00"', '"\\ud83d"', '"\\ude00"', '"\\ud83dx"',
           '"\\ud83d\\u0041"', '"\\q"', '"\\u12g4"', '"\\u123"', '"a\tb"', '"\x7f"', '"', "'a'",
           '"\u00e4\U0001f600"', '"\\/\\b\\f\\n\\r\\t"', "null", "[]", '"warp" ', '"RGB"',
           '"probabilities"']  # fmt: skip


@pytest.mark.parametrize("value", NUMBERS)
@pytest.mark.parametrize("key", ["crop", "resize", "scale", "mean", "std", "more"])
def test_numbers_of_metadata(key, value):
    good = json.loads(json.dumps(GOOD))
    how = good["preprocessing"]
    how[key] = ["@"] if isinstance(how.get(key), list) else "@"
    assert_alike(with_metadata(files()[0], json.dumps(good).replace('"@"', value).encode()))


@pytest.mark.parametrize("value", STRINGS)
@pytest.mark.parametrize("key", ["name", "labels", "licence", "output", "resize_mode", "more"])
def test_strings_of_metadata(key, value):
    good = json.loads(json.dumps(GOOD))
    where = good["preprocessing"] if key == "resize_mode" else good
    where[key] = ["@", "b"] if key == "labels" else "@"
    assert_alike(with_metadata(files()[0], json.dumps(good).replace('"@"', value).encode()))


@pytest.mark.parametrize(
    "activations",
    ["[]", "{}", '{"a":[0,1]}', '{"a":[0,0]}', '{"a":[0]}', '{"a":[0,1,2]}', '{"a":[1,2]}',
     '{"a":[-2,-1]}', '{"a":[-1,NaN]}', '{"a":[-1e999,1]}', '{"a":[0,true]}', '{"\\ud800":[0,1]}',
     '{"a":[0,1e-46]}', '{"a":[-1e-30,0]}', '{"a":[0,7.88e-31]}', '{"a":[0,7.89e-31]}',
     '{"a":[0,1e30]}', '{"a":[-1.2e30,1]}', '{"a":[-1e30,1e30]}', '{"a":[-1e308,1e308]}'],
)  # fmt: skip
def test_ranges_of_metadata(activations):
    text = json.dumps({**GOOD, "activations": "@"}).replace('"@"', activations)
    assert_alike(with_metadata(files()[0], text.encode()))


MARKS = ["", "BAEAgA==", "AAEAgA==", "FwEAgA==", "GAEAgA==", "BAEA", "BAEAgA", "BAEAgA=",
         "BA==gAEA", "====", "BAE*gA==", "\u00e4AEAgA==", "BAEAgICA", "A" * 120_000,
         "BAEA" * 22_000, "B"]  # fmt: skip


@pytest.mark.parametrize("marks", MARKS)
def test_marks_of_photos(marks):
    for key in ("marks", "exceptions"):
        known = {"photos": 5, "held_out": 1, "marks": "BAEAgA==", "exceptions": "", key: marks}
        assert_alike(
            with_metadata(files()[0], json.dumps({**GOOD, "trained_on": [known]}).encode())
        )


@pytest.mark.parametrize("value", [*NUMBERS, "2147483647", "2147483648", "-1"])
@pytest.mark.parametrize("key", ["photos", "held_out", "every"])
def test_counts_of_photos(key, value):
    known = {"photos": 5, "held_out": 1, "marks": "BAEAgA==", "exceptions": "", key: "@"}
    text = json.dumps({**GOOD, "trained_on": [known]}).replace('"@"', value)
    assert_alike(with_metadata(files()[0], text.encode()))


@pytest.mark.parametrize("value", ["{}", "[[]]", "[{}]", "null", '[{"photos": 1}]', "[]"])
def test_lists_of_trainings(value):
    text = json.dumps({**GOOD, "trained_on": "@"}).replace('"@"', value)
    assert_alike(with_metadata(files()[0], text.encode()))


@pytest.mark.parametrize(
    "text",
    [b"", b" ", b"{", b"{}", b"[]", b"null", b"\xef\xbb\xbf{}", b"\xff", b"\xed\xa0\x80", b"{} {}",
     json.dumps(GOOD).encode("utf-16"), json.dumps(GOOD, indent=4).encode(),
     json.dumps(GOOD).encode() + b"\n", json.dumps(GOOD).encode() + b"x",
     json.dumps(GOOD).replace("crop", "cr\\u006fp").encode(),
     json.dumps(GOOD).replace("{", '{"crop":1,"name":3,', 1).encode(),
     json.dumps(GOOD).replace("}", ',"crop":1}', 1).encode(),
     json.dumps(GOOD)[:-1].encode() + b',"deep":' + b"[" * 40 + b"]" * 40 + b"}",
     json.dumps(GOOD)[:-1].encode() + b',"deep":' + b"[" * 100 + b"]" * 100 + b"}",
     json.dumps(GOOD)[:-1].encode() + b',"deep":' + b"[" * 100_000 + b"}",
     json.dumps({**GOOD, "label_ids": ["a"]}).encode(), json.dumps(GOOD)[:40].encode()],
)  # fmt: skip
def test_texts_of_metadata(text):
    sqz = with_metadata(files()[0], text)
    assert verdict(container.decode, sqz) in (None, GraphError, HeadError)
    assert_alike(sqz)


# --------------------------------------------------------------------------------------- graph


@pytest.mark.parametrize("name", SPOILED)
def test_graphs_that_no_file_may_have(name):
    sqz = forged(spoiled(name))
    assert verdict(container.decode, sqz) is GraphError
    assert verdict(PageRuntime, sqz) is GraphError


@pytest.mark.parametrize("name", OTHERS)
def test_operators_outside_of_the_closed_list(name):
    sqz = forged(other_operator(name))
    assert verdict(PageRuntime, sqz) is verdict(container.decode, sqz)


def test_graphs_that_are_programs():
    for graph in (loop(), reading("/etc/hostname")):
        assert verdict(PageRuntime, forged(graph)) in GRAPH


@pytest.mark.parametrize("shape", [(3, 3, 2, 0), (3, 3, 0, 2), (3, 0, 2, 2), (0, 3, 2, 2)])
@pytest.mark.parametrize("group", [1, 3])
def test_weights_without_numbers(shape, group):
    """A kernel that kernel_shape states is not one that is there."""
    conv = helper.make_node("Conv", ["image", "w"], ["y"], kernel_shape=[2, 2], group=group)
    shape = (shape[0], shape[1] // group, *shape[2:])
    raw = sized(b"w") + b"\x00\x04" + bytes(shape) + sized(b"") + b"\x00" + bytes(4)
    whole = model()
    del whole.graph.node[:], whole.graph.initializer[:]
    whole.graph.node.append(conv)
    whole.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", TensorProto.FLOAT, None))
    header, head, _ = taken_apart(forged(model()))
    size, at = read_varint(head)
    head = head[: at + size] + sized(whole.SerializeToString()) + b"\x01" + raw
    sqz = put_together(header, deflated(head), len(head), b"")
    assert verdict(PageRuntime, sqz) is GraphError


def test_an_empty_list_within_a_list_is_no_number():
    """Numbers of an attribute may come in several pieces, and one of these may be empty."""
    whole = skeleton()
    pool = helper.make_node("MaxPool", ["image"], ["y"], kernel_shape=[1, 1], pads=[0, 0, 0, 9])
    whole.graph.node[0].CopyFrom(pool)
    whole.graph.node[1].input[0] = "y"
    graph = whole.SerializeToString()
    last = b"\x40\x09"  # one of the ints, which becomes an empty list of them
    assert graph.count(last) == 1
    sqz = with_graph(graph.replace(last, b"\x42\x00"))
    assert verdict(container.decode, sqz) is OperatorError
    assert verdict(PageRuntime, sqz) in GRAPH


@given(st.data())
@SOME
def test_damaged_graphs(data):
    assert_alike(with_graph(damaged(data, skeleton().SerializeToString())))


def test_a_slice_of_nothing_stated():
    whole = skeleton()
    whole.graph.node[0].CopyFrom(helper.make_node("Slice", ["image"], ["y"]))
    whole.graph.node[1].input[0] = "y"
    sqz = with_graph(whole.SerializeToString())
    assert verdict(container.decode, sqz) is verdict(PageRuntime, sqz) is GraphError


def test_a_graph_that_is_whole_is_read():
    sqz = with_graph(skeleton().SerializeToString())
    assert verdict(container.decode, sqz) is verdict(PageRuntime, sqz) is None


NUMBERS_OF_GRAPHS = [
    0, 1, 2, 3, 4, 6, 8, -1, -2, -3, 9, 36, 108, 255, 65_535, 65_536, 1 << 28, (1 << 31) - 1,
    1 << 31, (1 << 63) - 1, -(1 << 63),
]  # fmt: skip


def changed(rng, network):
    """The graph, and the shapes of its tensors, with one to three things changed."""
    whole = onnx.load_model_from_string(network.graph)
    shapes = {name: list(np.shape(tensor)) for name, tensor in network.values().items()}
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        node, kind = rng.choice(whole.graph.node), rng.randrange(6)
        other = rng.choice(onnx.load_model_from_string(rng.choice(networks()).graph).graph.node)
        if kind == 0 and shapes:
            sizes = shapes[rng.choice(list(shapes))]
            change_list(rng, sizes, [n for n in NUMBERS_OF_GRAPHS if 0 <= n <= 1 << 28])
            del sizes[8:]
        elif kind == 1 and node.attribute:
            attribute = rng.choice(node.attribute)
            numbers = list(attribute.ints)
            change_list(rng, numbers, NUMBERS_OF_GRAPHS)
            if attribute.type == onnx.AttributeProto.INTS:
                attribute.ClearField("ints")
                attribute.ints.extend(numbers)
            elif attribute.type == onnx.AttributeProto.INT:
                attribute.i = rng.choice(NUMBERS_OF_GRAPHS)
        elif kind == 2 and whole.graph.initializer:
            tensor = rng.choice(whole.graph.initializer)
            numbers = numpy_helper.to_array(tensor).copy()
            if numbers.size and numbers.dtype == np.int64:
                numbers.flat[rng.randrange(numbers.size)] = rng.choice(NUMBERS_OF_GRAPHS)
                tensor.CopyFrom(numpy_helper.from_array(numbers, tensor.name))
        elif kind == 3:
            node.op_type = other.op_type
        elif kind == 4:
            made = [name for one in whole.graph.node for name in one.output]
            node.input[rng.randrange(len(node.input))] = rng.choice([*made, *shapes, "image", ""])
        else:
            node.attribute.extend(other.attribute[:1])
    return whole, shapes


def change_list(rng, numbers, values):
    kind = rng.randrange(3)
    if numbers and kind == 0:
        numbers[rng.randrange(len(numbers))] = rng.choice(values)
    elif numbers and kind == 1:
        numbers.pop(rng.randrange(len(numbers)))
    else:
        numbers.insert(rng.randrange(len(numbers) + 1), rng.choice(values))


@pytest.mark.parametrize("seed", range(5))
def test_changed_graphs(seed):
    """Not as bytes but as graphs, so that most changes are of what things mean."""
    rng = random.Random(seed)
    header = taken_apart(files()[0])[0]
    text = {**GOOD, "preprocessing": {**GOOD["preprocessing"], "crop": 6, "resize": 6}}
    text["preprocessing"] |= {"color": "RGB", "mean": [0, 0, 0], "std": [1, 1, 1]}
    del text["labels"]
    read = 0
    for _ in range(200):
        whole, shapes = changed(rng, rng.choice(networks()))
        records = []
        payloads = b""
        for name, shape in shapes.items():
            count = math.prod(shape)
            payload = np.ones(count if count < 4000 else 0, "<f4").tobytes()
            sizes = b"".join(map(varint, shape))
            records.append(sized(name.encode()) + b"\0" + varint(len(shape)) + sizes + b"\0")
            records.append(varint(len(payload)) + zlib.crc32(payload).to_bytes(4, "little"))
            payloads += payload
        head = sized(json.dumps(text).encode()) + sized(whole.SerializeToString())
        head += varint(len(shapes)) + b"".join(records)
        sqz = put_together(header, deflated(head, 1), len(head), payloads)
        assert_alike(sqz)
        read += verdict(PageRuntime, sqz) is None
    assert 20 < read < 180


# ------------------------------------------------------------------------------------- records


@pytest.mark.parametrize(
    "change",
    [
        (b"conv.weight", b"conv.weigh\xff"),  # a name that is not UTF-8
        (b"conv.weight", b"conv.bias\x00\x01"),
        (b"\x0bconv.weight\x04", b"\x0bconv.weight\x09"),  # a coder that there is not
    ],
)
def test_records(change):
    for sqz in files()[:6]:
        raw = taken_apart(sqz)[1]
        at = raw.rindex(change[0][:12])
        assert_alike(with_head(sqz, raw[:at] + raw[at:].replace(*change)))


@pytest.mark.parametrize(
    "shape", [(1 << 28, 1 << 28, 0), (1 << 28, 2), (1 << 28,), (0,), (1 << 29,)]
)
def test_shapes(shape):
    record = sized(b"w") + b"\x00" + bytes([len(shape)]) + b"".join(map(varint, shape))
    record += sized(b"") + varint(0) + bytes(4)
    header, raw, _ = taken_apart(files()[0])
    size, at = read_varint(raw)
    graph, more = read_varint(raw[at + size :])
    raw = raw[: at + size + more + graph] + b"\x01" + record
    assert_alike(put_together(header, deflated(raw), len(raw), b""))


@given(st.binary(max_size=60))
@example(b"")
@SOME
def test_no_files_at_all(data):
    assert_alike(data)
    assert_alike(b"\x89SQZ" + data)


def test_what_is_alike_is_also_read():
    """The comparison above would hold as well if nothing were ever read."""
    for sqz in files():
        assert verdict(PageRuntime, sqz) is None
    assert np.isfinite(PageRuntime(files()[0]).logits(np.zeros((1, 4, 4), np.float32))).all()


# -------------------------------------------------------------------------------------- limits


def asking(filters=1, kernel=1, size=8, pads=0, features=0, labels=(), pool=False):
    """A small file of a network that may be large."""
    g = Graph(np.random.default_rng(0), size=size)
    g.node("Conv", g.weight(np.zeros((filters, 3, kernel, kernel))), pads=[pads] * 4)
    if pool:
        g.node("MaxPool", kernel_shape=[kernel, kernel], pads=[kernel - 1] * 4, ceil_mode=1)
    g.node("Relu")
    g.node("GlobalAveragePool")
    g.node("Flatten")
    if features:
        g.node("Gemm", g.weight(np.zeros((filters, features))))
    network = g.network()
    metadata = dataclasses.replace(network.metadata, labels=tuple(labels))
    return container.encode(dataclasses.replace(network, metadata=metadata))


@pytest.mark.parametrize(
    ("settings", "refused"),
    [
        ({"filters": 1000, "features": 4400}, False),
        ({"filters": 1000, "features": 4600}, True),  # weights
        ({"filters": 100, "kernel": 21, "size": 256}, False),
        ({"filters": 150, "kernel": 31, "size": 256}, True),  # multiply-accumulates
        ({"filters": 3, "size": 1024, "pads": 600}, True),  # padding
        ({"filters": 9, "labels": ["x" * 65_000] * 9}, False),
        ({"filters": 20, "labels": ["x" * 65_000] * 20}, True),  # texts
    ],
)
def test_files_that_ask_for_much(settings, refused):
    sqz = asking(**settings)
    assert verdict(container.decode, sqz) is (LimitError if refused else None)
    assert verdict(PageRuntime, sqz) is (LimitError if refused else None)


@pytest.mark.parametrize("settings", [{}, {"kernel": 3}, {"kernel": 3, "pads": 1},
                                      {"kernel": 3, "pool": True}])  # fmt: skip
def test_memory_is_counted_alike(settings):
    """From below the limit to above it."""
    found = []
    for filters in range(1, 14):
        sqz = asking(filters=filters, size=1024, **settings)
        found.append(verdict(container.decode, sqz))
        if found[-1] is None:
            continue  # a gibibyte of runtime for nothing
        assert verdict(PageRuntime, sqz) is found[-1] is LimitError
    assert {None, LimitError} == set(found)
    last = len(found) - found[::-1].index(None)
    assert verdict(PageRuntime, asking(filters=last, size=1024, **settings)) is None


LABELS = [
    ["a"], ["a", "b"], ["a"] * 3, ["x" * 65_536, "b", "c"], ["x" * 65_537, "b", "c"],
    ["\u00e4" * 65_536, "", ""],
]  # fmt: skip


@pytest.mark.parametrize("labels", LABELS)
def test_labels_fit_the_outputs(labels):
    sqz = asking(filters=3)
    text = json.dumps({**json.loads(metadata_of(sqz)), "labels": labels}).encode()
    assert_alike(with_metadata(sqz, text))
    fits = len(labels) == 3 and max(map(len, labels)) <= 65_536
    assert (verdict(PageRuntime, with_metadata(sqz, text)) is None) == fits


def metadata_of(sqz):
    raw = taken_apart(sqz)[1]
    size, at = read_varint(raw)
    return raw[at : at + size]


def test_images_of_a_batch_are_by_themselves():
    """What turns any number of images into one answer, or mixes them, is refused."""

    def merged(g):
        g.node("Reshape", g.ints(1, -1))

    def summed(g):
        g.node("ReduceSum", g.ints(0, 2, 3), keepdims=0)

    def swapped(g):
        g.node("Transpose", perm=[1, 0, 2, 3])

    for change in (merged, summed, swapped):
        g = Graph(np.random.default_rng(0))
        change(g)
        graph = helper.make_graph(
            g.nodes,
            "g",
            [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, 8, 8])],
            [helper.make_tensor_value_info(g.last, TensorProto.FLOAT, None)],
            g.weights,
        )
        opsets = [helper.make_opsetid("", 17)]
        sqz = forged(helper.make_model(graph, opset_imports=opsets, ir_version=8))
        assert verdict(container.decode, sqz) is GraphError
        assert verdict(PageRuntime, sqz) is GraphError
