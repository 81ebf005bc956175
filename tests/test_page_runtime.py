"""The C library, as the WebAssembly of the page: the same as ONNX Runtime and Pillow."""

import dataclasses
import shutil
import subprocess
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from small_networks import (
    on_grids,
    shared,
    small_networks,
    small_squeezenet,
    with_deflated_head,
)

from squeezekit.errors import FormatError, InputError, UnsupportedError
from squeezekit.interop import page_runtime
from squeezekit.interop.page_runtime import PageRuntime
from squeezekit.models.builder import GraphBuilder
from squeezekit.models.catalogue import MODELS, create
from squeezekit.models.fold import fold_batch_norm
from squeezekit.runtime.classifier import from_network
from squeezekit.runtime.images import prepare
from squeezekit.sqz import container
from squeezekit.sqz.graph import parse
from squeezekit.sqz.metadata_json import from_json
from squeezekit.sqz.network import Metadata, Network, Preprocessing

NATIVE = Path(__file__).parent.parent / "native"
SMALL = small_networks()


def noise(network, seed=0):
    how = network.metadata.preprocessing
    shape = (how.channels, how.crop, how.crop)
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def assert_same(network, data):
    x = noise(network)
    expected = from_network(network, 1)._run(x[np.newaxis])[0]
    runtime = PageRuntime(data)
    assert np.ptp(expected) > 1e-4  # something to tell apart
    for _ in range(2):  # nothing of the first run is left for the second
        assert abs(runtime.logits(x) - expected).max() <= 1e-4 * abs(expected).max()


@pytest.mark.parametrize("name", sorted(set(MODELS) - {"alexnet"}))
def test_catalogue_gives_what_onnxruntime_gives(name):
    size = None if name == "squeezenet-digits" else 71
    network = fold_batch_norm(create(name, classes=11, input_size=size, seed=1))
    assert_same(network, container.encode(network, "dense"))


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("coder", ["entropy", "huffman", "dense"])
def test_small_networks_of_every_coder(name, coder):
    for network in (SMALL[name], shared(SMALL[name])):
        assert_same(network, container.encode(network, coder))


def test_half_floats():
    network = small_squeezenet()
    halves = network.with_tensors(
        {
            name: (tensor * 1e-3).astype(np.float16).astype(np.float32)  # subnormal ones too
            for name, tensor in network.tensors.items()
            if name.endswith("bias")
        }
    )
    assert_same(halves, container.encode(halves, "dense"))


def test_published_network(shared_data):
    from squeezekit.interop.weights import load_network

    network = load_network(shared_data / "han-2016" / "compressed_SqueezeNet.net")
    data = container.encode(network)
    assert_same(network, data)
    assert PageRuntime(data).memory_bytes < 14 << 20


def test_metadata_arrives():
    network = small_squeezenet()
    runtime = PageRuntime(container.encode(network))
    assert runtime.classes == 3
    assert from_json(runtime.metadata_json) == network.metadata


@st.composite
def preprocessings(draw):
    color = draw(st.sampled_from(["RGB", "BGR", "L"]))
    crop = draw(st.sampled_from([1, 16, 23]))
    channels = 1 if color == "L" else 3
    return Preprocessing(
        crop=crop,
        resize=crop + draw(st.integers(0, 9)),
        resize_mode=draw(st.sampled_from(["warp", "short_side"])),
        color=color,
        interpolation=draw(st.sampled_from(["nearest", "bilinear", "bicubic"])),
        scale=draw(st.sampled_from([1.0, 1 / 255, 1e-3])),
        mean=tuple(draw(st.sampled_from([0.485, -3.25, 117.0])) for _ in range(channels)),
        std=tuple(draw(st.sampled_from([0.229, 1.0, 58.4])) for _ in range(channels)),
    )


@given(preprocessings(), st.integers(1, 90), st.integers(1, 90), st.integers(0, 2**32 - 1))
@settings(max_examples=150)
def test_images_become_inputs_as_pillow_resizes_them(how, width, height, seed):
    runtime = PageRuntime(container.encode(with_preprocessing(how)))
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 4), np.uint8)
    expected = prepare(Image.fromarray(pixels[..., :3]), how)
    np.testing.assert_array_equal(runtime.prepared(pixels, expected.shape), expected)


def with_preprocessing(how):
    net = GraphBuilder(how.channels, how.crop, how.crop)
    x = net.global_average_pool("pool", net.image)
    return net.build(net.flatten("flat", x), Metadata("mean", how))


def test_large_image_in_strips():
    how = Preprocessing(crop=50, resize=60)
    runtime = PageRuntime(container.encode(with_preprocessing(how)))
    pixels = np.random.default_rng(1).integers(0, 256, (1500, 2100, 4), np.uint8)
    expected = prepare(Image.fromarray(pixels[..., :3]), how)
    np.testing.assert_array_equal(runtime.prepared(pixels, expected.shape), expected)


def test_a_sliver_is_refused():
    runtime = PageRuntime(container.encode(with_preprocessing(Preprocessing(crop=50, resize=60))))
    with pytest.raises(InputError, match="1 x 50000 pixels"):
        runtime.prepared(np.zeros((50_000, 1, 4), np.uint8), (3, 50, 50))


def changed(network, change):
    model = parse(network.graph)
    change(model.graph)
    return Network(model.SerializeToString(), network.tensors, network.metadata)


def test_graphs_that_cannot_be_are_refused():
    def unknown_input(graph):
        graph.node[3].input[0] = "nowhere"

    def twice(graph):
        graph.node[3].output[0] = graph.node[2].output[0]

    def no_output(graph):
        del graph.output[:]

    for change in (unknown_input, twice, no_output):
        with pytest.raises(FormatError):
            PageRuntime(container.encode(changed(small_squeezenet(), change)))
    wrong = dataclasses.replace(
        small_squeezenet(),
        metadata=dataclasses.replace(
            small_squeezenet().metadata, preprocessing=Preprocessing(crop=40, resize=50)
        ),
    )
    with pytest.raises(FormatError):
        PageRuntime(container.encode(wrong))


@given(st.data())
@settings(max_examples=150)
def test_damage_is_found(data):
    sqz = bytearray(DAMAGED)
    if data.draw(st.booleans()):
        del sqz[data.draw(st.integers(0, len(sqz) - 1)) :]
    else:
        sqz[data.draw(st.integers(0, len(sqz) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(FormatError):
        PageRuntime(bytes(sqz))


DAMAGED = with_deflated_head(container.encode(shared(small_squeezenet())))


@given(st.data())
@settings(max_examples=150)
def test_forged_payloads_give_an_error_or_numbers(data):
    """The checksum is right, and the payload is not: an error or numbers, but never a trap."""
    head = container.read_head(DAMAGED)
    record = data.draw(st.sampled_from(head.records))
    payload = bytearray(DAMAGED[record.offset : record.offset + record.payload_bytes])
    for _ in range(data.draw(st.integers(1, 3))):
        payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.integers(0, 255))
    forged = forge(head, record, bytes(payload))
    try:
        runtime = PageRuntime(forged)
    except (FormatError, UnsupportedError):
        return
    assert runtime.logits(noise(small_squeezenet())).shape == (3,)


def forge(head, changed_record, payload):
    sqz = bytearray(DAMAGED)
    start = changed_record.offset
    sqz[start : start + changed_record.payload_bytes] = payload
    stored = head.stored_bytes
    raw = bytearray(zlib.decompress(sqz[24 : 24 + stored], -15))
    at = raw.index(changed_record.checksum.to_bytes(4, "little"))
    raw[at : at + 4] = zlib.crc32(payload).to_bytes(4, "little")
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = deflate.compress(raw) + deflate.flush()
    header = bytearray(sqz[:24])
    header[8:12] = (24 + len(packed) + len(sqz) - 24 - stored).to_bytes(4, "little")
    header[12:16] = len(packed).to_bytes(4, "little")
    header[20:24] = zlib.crc32(packed, zlib.crc32(header[:20])).to_bytes(4, "little")
    return bytes(header) + packed + bytes(sqz[24 + stored :])


def test_inflate_reads_every_kind_of_block():
    """Stored, fixed and dynamic Huffman codes, as zlib makes them of the same head."""
    network = small_squeezenet()
    sqz = with_deflated_head(container.encode(network))
    stored = container.read_head(sqz).stored_bytes
    raw = zlib.decompress(sqz[24 : 24 + stored], -15)
    expected = PageRuntime(sqz).logits(noise(network))
    for level, strategy in ((0, 0), (1, 0), (9, 0), (9, zlib.Z_FIXED), (9, zlib.Z_HUFFMAN_ONLY)):
        deflate = zlib.compressobj(level, zlib.DEFLATED, -15, strategy=strategy)
        packed = deflate.compress(raw) + deflate.flush()
        header = bytearray(sqz[:24])
        header[8:12] = (len(sqz) - stored + len(packed)).to_bytes(4, "little")
        header[12:16] = len(packed).to_bytes(4, "little")
        header[20:24] = zlib.crc32(packed, zlib.crc32(header[:20])).to_bytes(4, "little")
        runtime = PageRuntime(bytes(header) + packed + sqz[24 + stored :])
        np.testing.assert_array_equal(runtime.logits(noise(network)), expected)


def test_committed_webassembly_is_built_from_the_source(tmp_path):
    clang = shutil.which("clang")
    if clang is None or shutil.which("wasm-ld") is None:
        pytest.skip("clang and wasm-ld are not installed")
    version = subprocess.run([clang, "--version"], capture_output=True, text=True, check=True)
    if "clang version 14." not in version.stdout:
        pytest.skip("the committed files were built by clang 14; another gives other bytes")
    builds = {
        "page": page_runtime.build(),
        "page-float": page_runtime.packed_build("float"),
        "page-int8": page_runtime.packed_build("int8"),
    }
    for name, committed in builds.items():
        subprocess.run([NATIVE / "build.sh", name, tmp_path / name], check=True)
        assert (tmp_path / name).read_bytes() == committed


@pytest.mark.parametrize("name", SMALL)
def test_grids_are_what_python_says(name):
    """The scale times whole numbers, in C and in Python: the same to the last bit."""
    network = on_grids(SMALL[name])
    data = container.encode(network)
    coders = [record.coder for record in container.read_head(data).records]
    assert coders.count("entropy-grid") > len(coders) / 2
    image = noise(network)
    plain = PageRuntime(container.encode(network, "dense")).logits(image)
    assert np.array_equal(PageRuntime(data).logits(image), plain)
    assert_same(network, data)
