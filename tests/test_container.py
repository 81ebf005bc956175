"""The `.sqz` file: whole, exact, and a named error for every way of being broken."""

import contextlib
import dataclasses
import resource
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from small_networks import with_deflated_head
from sqz_parts import files

from squeezekit import errors
from squeezekit.sqz import container, graph, metadata_json
from squeezekit.sqz.network import CAFFE, Metadata, Network, SharedTensor

HEADER = 24


def network() -> Network:
    rng = np.random.default_rng(0)
    model = helper.make_model(
        helper.make_graph(
            [
                helper.make_node("Conv", ["image", "c.weight", "c.bias"], ["c"], "c"),
                helper.make_node("GlobalAveragePool", ["c"], ["pool"], "pool"),
                helper.make_node("Flatten", ["pool"], ["logits"], "flatten"),
            ],
            "net",
            [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, 8, 8])],
            [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 4])],
        ),
        opset_imports=[helper.make_opsetid("", 17)],
    )
    weight = np.round(rng.normal(size=(4, 3, 3, 3)), 1) * (rng.random((4, 3, 3, 3)) < 0.5)
    preprocessing = dataclasses.replace(CAFFE, crop=8, resize=8)
    return Network(
        model.SerializeToString(),
        {
            "c.weight": SharedTensor.from_values(weight.astype(np.float32)),
            "c.bias": rng.normal(size=4).astype(np.float32),
        },
        Metadata("tiny", preprocessing, ("a", "b", "ü", "d"), provenance=("made by a test",)),
    )


def assert_same(a: Network, b: Network):
    assert a.graph == b.graph
    assert a.metadata == b.metadata
    assert list(a.tensors) == list(b.tensors)
    for name, values in a.values().items():
        assert np.array_equal(values.view(np.uint32), b.values()[name].view(np.uint32)), name


@pytest.mark.parametrize("coder", ["entropy", "huffman", "dense"])
def test_round_trip(coder, tmp_path):
    path = tmp_path / "net.sqz"
    size = container.write(network(), path, coder)
    assert size == path.stat().st_size == len(path.read_bytes())
    assert_same(container.read(path), network())
    assert [p.name for p in tmp_path.iterdir()] == ["net.sqz"]


@pytest.mark.parametrize("coder", ["entropy", "huffman", "dense"])
def test_sections_tile_the_file(coder):
    data = container.encode(network(), coder)
    head = container.read_head(data)
    at = 0
    for section in container.sections(head):
        assert section.offset == at
        at += section.size
    assert at == len(data)


def test_version_is_the_least_that_will_do():
    """So that readers of version 1 go on to read what they can."""
    whole = np.random.default_rng(1).integers(-99, 99, (4, 3, 3, 3)).astype(np.float32)
    net = network().with_tensors({"c.weight": whole * np.float32(0.1)})
    for coder, version in (("dense", (1, 0)), ("huffman", (1, 0)), ("entropy", (2, 0))):
        data = container.encode(net, coder)
        assert container.read_head(data).version == version
        assert tuple(data[4:6]) == version


@pytest.mark.parametrize("kind", ["flipped", "cut", "longer", "size", "version", "too large"])
def test_forged_heads_of_text(kind):
    """Checksums made right again: an error by name, or what still is a file."""
    data = container.encode(network())
    assert data[6] == 2
    stored = struct.unpack_from("<I", data, 12)[0]
    for at in range(24, 24 + stored, 7):
        if kind == "flipped":
            forged = data[:at] + bytes([data[at] ^ 1 << at % 8]) + data[at + 1 :]
        elif kind == "cut":
            forged = header(header(data, 8, len(data) - 1), 12, stored - 1)
            forged = forged[:at] + forged[at + 1 :]
        elif kind == "longer":
            forged = header(header(data, 8, len(data) + 1), 12, stored + 1)
            forged = forged[: 24 + stored] + bytes([at % 3]) + forged[24 + stored :]
        else:
            at, value, size = {
                "size": (16, at, 4),
                "version": (4, 1, 1),
                "too large": (16, 2**18 + 1, 4),
            }[kind]
            forged = header(data, at, value, size)
        with pytest.raises(errors.FormatError) as caught:
            container.decode(restamp(forged))
        assert kind != "version" or isinstance(caught.value, errors.HeadError)
        assert kind != "too large" or isinstance(caught.value, errors.LengthError)


def test_file_by_hand():
    """A file put together from docs/format.md, byte by byte."""
    net = network()
    bias = net.tensors["c.bias"].astype("<f4").tobytes()
    weight = net.tensors["c.weight"].values().astype("<f4").tobytes()
    text = metadata_json.to_json(net.metadata).encode()
    raw = b"".join(
        [
            varint(len(text)), text, varint(len(net.graph)), net.graph,
            b"\x02",
            b"\x06c.bias", b"\x00", b"\x01\x04", b"\x00", b"\x10",
            struct.pack("<I", zlib.crc32(bias)),
            b"\x08c.weight", b"\x00", b"\x04\x04\x03\x03\x03", b"\x00", b"\xb0\x03",
            struct.pack("<I", zlib.crc32(weight)),
        ]
    )  # fmt: skip
    deflate = zlib.compressobj(wbits=-15)
    stored = deflate.compress(raw) + deflate.flush()
    start = b"\x89SQZ\x01\x00\x01\x00" + struct.pack(
        "<3I", HEADER + len(stored) + len(bias) + len(weight), len(stored), len(raw)
    )
    data = start + struct.pack("<I", zlib.crc32(start + stored)) + stored + bias + weight
    decoded = container.decode(data)
    assert decoded.metadata == net.metadata
    for name, values in net.values().items():
        assert np.array_equal(decoded.tensors[name], values)


def varint(value):
    out = b""
    while value > 127:
        out += bytes([value & 127 | 128])
        value >>= 7
    return out + bytes([value])


def forge(data: bytes, change) -> bytes:
    """The file with its inflated head changed, and all lengths and checksums made right again."""
    data = with_deflated_head(data)
    stored_bytes = struct.unpack_from("<I", data, 12)[0]
    raw = change(zlib.decompress(data[HEADER : HEADER + stored_bytes], -15))
    deflate = zlib.compressobj(wbits=-15)
    stored = deflate.compress(raw) + deflate.flush()
    payloads = data[HEADER + stored_bytes :]
    return restamp(
        data[:8]
        + struct.pack("<4I", HEADER + len(stored) + len(payloads), len(stored), len(raw), 0)
        + stored
        + payloads
    )


def restamp(data: bytes) -> bytes:
    """The file with the right checksum of its header and head."""
    stored_bytes = struct.unpack_from("<I", data, 12)[0]
    checksum = zlib.crc32(data[HEADER : HEADER + stored_bytes], zlib.crc32(data[:20]))
    return data[:20] + struct.pack("<I", checksum) + data[24:]


def header(data: bytes, at: int, value: int, size: int = 4) -> bytes:
    return data[:at] + value.to_bytes(size, "little") + data[at + size :]


def replaced(old: bytes, new: bytes):
    def change(raw):
        assert raw.count(old) == 1
        return raw.replace(old, new)

    return change


RECORD = b"\x08c.weight\x03\x04\x04\x03\x03\x03"  # name, entropy coder, four axes 4, 3, 3, 3
BIAS = b"\x06c.bias\x04\x01\x04"
HUGE = varint(2**63)

ATTACKS = {
    "empty": (lambda d: b"", errors.NotSqzError),
    "wrong magic": (lambda d: b"PK\x03\x04" + d[4:], errors.NotSqzError),
    "another file": (lambda d: b"hello world" * 50, errors.NotSqzError),
    "magic only": (lambda d: d[:4], errors.TruncatedError),
    "header cut": (lambda d: d[:20], errors.TruncatedError),
    "last byte cut": (lambda d: d[:-1], errors.TruncatedError),
    "trailing byte": (lambda d: d + b"\x00", errors.TrailingBytesError),
    "version of the future": (lambda d: restamp(header(d, 4, 3, 1)), errors.VersionError),
    "version 0": (lambda d: restamp(header(d, 4, 0, 1)), errors.HeadError),
    "unknown head codec": (lambda d: restamp(header(d, 6, 9, 1)), errors.HeadError),
    "file of 4 GiB": (lambda d: restamp(header(d, 8, 2**32 - 1)), errors.TruncatedError),
    "head of 4 GiB": (lambda d: header(d, 12, 2**32 - 1), errors.LengthError),
    "bomb": (lambda d: restamp(header(d, 16, 2**32 - 1)), errors.LengthError),
    "inflates to less": (lambda d: restamp(header(d, 16, 10**6)), errors.LengthError),
    "inflates to more": (lambda d: restamp(header(d, 16, 100)), errors.LengthError),
    "head flipped": (lambda d: d[:30] + bytes([d[30] ^ 1]) + d[31:], errors.ChecksumError),
    "payload flipped": (lambda d: d[:-3] + bytes([d[-3] ^ 1]) + d[-2:], errors.ChecksumError),
    "no deflate": (
        lambda d: restamp(d[:HEADER] + b"\xff" * len(d[HEADER:])),
        errors.HeadError,
    ),
    "metadata not JSON": (lambda d: forge(d, replaced(b'{"name"', b'["name"')), errors.HeadError),
    "metadata not UTF-8": (lambda d: forge(d, replaced(b"tiny", b"ti\xffy")), errors.HeadError),
    "metadata of 2^63 bytes": (lambda d: forge(d, lambda r: HUGE + r[2:]), errors.LengthError),
    "varint without end": (lambda d: forge(d, lambda r: b"\xff" * 30), errors.LengthError),
    "name of 2^63 bytes": (
        lambda d: forge(d, replaced(RECORD, HUGE + RECORD[1:])),
        errors.LengthError,
    ),
    "axis of 2^63": (
        lambda d: forge(d, replaced(RECORD, RECORD[:-1] + HUGE)),
        errors.LengthError,
    ),
    "too many weights": (
        lambda d: forge(d, replaced(RECORD, RECORD[:-2] + varint(2**20) + varint(2**20))),
        errors.LengthError,
    ),
    "2^63 axes": (
        lambda d: forge(d, replaced(RECORD, RECORD[:-5] + HUGE + RECORD[-4:])),
        errors.LengthError,
    ),
    "overlapping: a payload longer than it is": (
        lambda d: forge(d, grown_payload),
        errors.LengthError,
    ),
    "a hole after the last payload": (
        lambda d: restamp(header(d + b"hole", 8, len(d) + 4)),
        errors.TrailingBytesError,
    ),
    "bytes after the records": (
        lambda d: forge(d, lambda r: r + b"more"),
        errors.TrailingBytesError,
    ),
    "records cut": (lambda d: forge(d, lambda r: r[:-6]), errors.LengthError),
    "two tensors of one name": (
        lambda d: forge(d, replaced(BIAS, b"\x08c.weight\x04\x01\x04")),
        errors.HeadError,
    ),
    "unknown coder": (
        lambda d: forge(d, replaced(BIAS, b"\x06c.bias\x63\x01\x04")),
        errors.CoderError,
    ),
    "wrong coder": (
        lambda d: forge(d, replaced(BIAS, b"\x06c.bias\x00\x01\x04")),
        errors.CoderError,
    ),
    "wrong shape": (
        lambda d: forge(d, replaced(BIAS, b"\x06c.bias\x04\x01\x7f")),
        errors.GraphError,
    ),
}  # fmt: skip


def grown_payload(raw: bytes) -> bytes:
    at = raw.index(RECORD) + len(RECORD) + 4  # past the parameters
    assert raw[at] & 127 < 127
    return raw[:at] + bytes([raw[at] + 1]) + raw[at + 1 :]


@pytest.mark.parametrize("attack", ATTACKS)
def test_attacks(attack):
    damage, error = ATTACKS[attack]
    data = damage(with_deflated_head(container.encode(network())))
    with pytest.raises(error) as caught:
        container.decode(data)
    assert type(caught.value) is error
    assert "\n" not in str(caught.value)


def test_every_truncation_and_flip_is_found():
    data = container.encode(network())
    for end in range(len(data)):
        with pytest.raises(errors.FormatError):
            container.decode(data[:end])
    for at in range(len(data)):
        for bit in range(8):
            damaged = bytearray(data)
            damaged[at] ^= 1 << bit
            with pytest.raises(errors.FormatError):
                container.decode(bytes(damaged))


@given(st.binary(max_size=300))
@settings(deadline=None)
def test_forged_heads_never_break_the_reader(raw):
    """A head of random bytes with right lengths and checksums."""
    with pytest.raises(errors.FormatError):
        container.decode(forge(container.encode(network()), lambda _: raw))


@given(st.data())
@settings(deadline=None, max_examples=200)
def test_forged_records_never_break_the_reader(data):
    """A head whose checksums are right and whose bytes are not."""

    def change(raw):
        forged = bytearray(raw)
        for _ in range(data.draw(st.integers(1, 4))):
            at = data.draw(st.integers(len(raw) - 60, len(raw) - 1))
            forged[at] = data.draw(st.integers(0, 255))
        return bytes(forged)

    with contextlib.suppress(errors.FormatError):
        container.decode(forge(container.encode(network()), change))


def test_published_network_damaged(shared_data):
    """Truncation at every 997th byte and 2,000 flips: a named error, quickly, in little memory."""
    from squeezekit.interop import han

    data = container.encode(han.read(shared_data / "han-2016" / "compressed_SqueezeNet.net"))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for end in range(0, len(data), 997):
        with pytest.raises(errors.FormatError):
            container.decode(data[:end])
    rng = np.random.default_rng(0)
    for at in rng.integers(0, len(data), 2000).tolist():
        damaged = bytearray(data)
        damaged[at] ^= int(rng.integers(1, 256))
        with pytest.raises(errors.FormatError):
            container.decode(bytes(damaged))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000


def test_published_network_sizes(shared_data):
    from squeezekit.interop import han

    net = han.read(shared_data / "han-2016" / "compressed_SqueezeNet.net")
    entropy, huffman = container.encode(net), container.encode(net, "huffman")
    assert len(entropy) <= 545_000
    assert len(huffman) <= 575_000
    assert_same(container.decode(entropy), net)
    assert_same(container.decode(huffman), net)


@pytest.mark.parametrize("coder", ["entropy", "huffman", "dense"])
@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite_are_not_written(number, coder):
    """Runtimes would differ in what they make of them."""
    broken = container.decode(files()[0]).with_tensors({"fc.bias": np.float32([0, number])})
    with pytest.raises(errors.InputError, match=r"fc\.bias"):
        container.encode(broken, coder)


def test_read_names_the_file(tmp_path):
    path = tmp_path / "broken.sqz"
    path.write_bytes(b"no")
    with pytest.raises(errors.NotSqzError, match=r"broken\.sqz"):
        container.read(path)
    with pytest.raises(errors.InputError, match="there is no such file"):
        container.read(tmp_path / "missing.sqz")


def test_write_leaves_the_old_file_where_it_fails(tmp_path, monkeypatch):
    path = tmp_path / "net.sqz"
    path.write_bytes(b"old")
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError(28, "disk full")))
    with pytest.raises(errors.InputError, match="disk full"):
        container.write(network(), path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(errors.InputError, match="cannot be written"):
        container.write(network(), tmp_path / "no" / "such" / "folder.sqz")


def test_attach_equals_the_onnx_library():
    import onnx

    net = network()
    model = onnx.load_model_from_string(graph.attach(net.graph, net.values()))
    onnx.checker.check_model(model, full_check=True)
    skeleton, tensors = graph.split(model)
    assert tensors.keys() == net.tensors.keys()
    for name, values in net.values().items():
        assert np.array_equal(tensors[name], values)
    assert graph.parse(skeleton).graph.node == model.graph.node
