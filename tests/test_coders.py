"""The tensor coders: lossless on anything, golden bytes, and as docs/format.md describes them."""

import heapq
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import reference_decoder
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from squeezekit.errors import CoderError
from squeezekit.sqz.coders import compiled, dense, engine, entropy, half, huffman
from squeezekit.sqz.network import SharedTensor

NATIVE = Path(__file__).parent.parent / "native"


@pytest.fixture(scope="module", params=["machine code", "WebAssembly"], autouse=True)
def host(request):
    """Everything here holds of both, so they agree with each other too."""
    if request.param == "machine code":
        library = compiled.library()
        if library is None:
            pytest.skip("there is no machine code for this machine")
        engine._local.coders = engine.LibraryCoders(library)
    else:
        engine._local.coders = engine.SandboxCoders(*compiled.module())
    yield request.param
    del engine._local.coders


def shared(rng, shape, density=0.3, centroids=15, zero=7):
    table = np.sort(rng.normal(size=centroids)).astype(np.float32)
    table[zero] = 0
    table[:zero] = -np.abs(table[:zero] - 1)
    table[zero + 1 :] = np.abs(table[zero + 1 :]) + 1
    table = np.unique(table)
    zero = int(np.flatnonzero(table == 0)[0])
    levels = np.rint(rng.laplace(scale=len(table) / 8, size=shape))
    levels = np.clip(levels, -zero, len(table) - 1 - zero).astype(np.int32)
    levels[rng.random(shape) > density] = 0
    return SharedTensor(levels, table, zero)


@st.composite
def shared_tensors(draw):
    shape = draw(npst.array_shapes(min_dims=1, max_dims=5, max_side=7))
    negatives = draw(st.lists(st.floats(-100, -(2.0**-100), width=32), unique=True, max_size=9))
    positives = draw(st.lists(st.floats(2.0**-100, 100, width=32), unique=True, max_size=9))
    table = np.array(sorted([*negatives, 0.0, *positives]), np.float32)
    levels = draw(
        npst.arrays(np.int32, shape, elements=st.integers(-len(negatives), len(positives)))
    )
    return SharedTensor(levels, table, len(negatives))


def same(a: SharedTensor, b: SharedTensor):
    return (
        np.array_equal(a.levels, b.levels)
        and np.array_equal(a.centroids, b.centroids)
        and a.zero == b.zero
    )


@given(shared_tensors())
@settings(deadline=None)
def test_shared_coders_are_lossless(tensor):
    for coder, decode in (
        (entropy.encode_shared, entropy.decode_shared),
        (huffman.encode, huffman.decode),
    ):
        parameters, payload = coder(tensor)
        assert same(decode(tensor.shape, parameters, memoryview(payload)), tensor)


@given(npst.arrays(np.uint32, npst.array_shapes(max_dims=4, max_side=9)))
@settings(deadline=None)
def test_float_coders_keep_every_bit(bits):
    values = bits.view(np.float32)  # NaN, infinities, -0.0 and subnormal numbers among them
    for coder, decode in (
        (entropy.encode_floats, entropy.decode_floats),
        (dense.encode, dense.decode),
    ):
        parameters, payload = coder(values)
        back = decode(values.shape, parameters, memoryview(payload))
        assert np.array_equal(back.view(np.uint32), bits)


@given(npst.arrays(np.float16, npst.array_shapes(max_side=9)))
def test_half_keeps_what_it_says_fits(values):
    full = values.astype(np.float32)
    if half.fits(full):
        parameters, payload = half.encode(full)
        assert len(payload) == 2 * full.size
        back = half.decode(full.shape, parameters, memoryview(payload))
        assert np.array_equal(back.view(np.uint32), full.view(np.uint32))
    assert half.fits(full) or np.isnan(values).any()
    assert not half.fits(np.array([0.1], np.float32))
    assert not half.fits(np.array([1e6], np.float32))


@pytest.mark.parametrize("shape", [(1,), (50, 60), (20, 12, 3, 3), (6, 5, 5, 7), (4, 3, 2, 3, 3)])
def test_entropy_coder_is_what_the_format_says(shape):
    tensor = shared(np.random.default_rng(len(shape)), shape)
    parameters, payload = entropy.encode_shared(tensor)
    table, levels = reference_decoder.shared(
        payload,
        entropy.as_matrix_of_kernels(shape),
        int.from_bytes(parameters[:2], "little"),
        parameters[2],
    )
    assert np.array_equal(np.array(table, np.float32), np.delete(tensor.centroids, tensor.zero))
    assert levels == tensor.levels.reshape(-1).tolist()


def test_large_magnitudes_are_what_the_format_says():
    table = np.arange(-1500, 1501).astype(np.float32)
    levels = np.random.default_rng(5).integers(-1500, 1501, (7, 100), dtype=np.int32)
    parameters, payload = entropy.encode_shared(SharedTensor(levels, table, 1500))
    centroids, drop = int.from_bytes(parameters[:2], "little"), parameters[2]
    assert drop == 13  # 1500 needs 10 of the 23 bits of a mantissa
    decoded = reference_decoder.shared(payload, (7, 100, 1, 1), centroids, drop)
    assert decoded == (np.delete(table, 1500).tolist(), levels.reshape(-1).tolist())


def test_float_coder_is_what_the_format_says():
    rng = np.random.default_rng(1)
    values = rng.normal(size=400).astype(np.float32) * (rng.random(400) < 0.5)
    for array in (values, values.astype(np.float16).astype(np.float32)):
        parameters, payload = entropy.encode_floats(array)
        bits = reference_decoder.floats(payload, 400, parameters[0])
        assert np.array_equal(np.array(bits, np.uint32), array.astype(np.float32).view(np.uint32))
        assert (parameters[0] >= 13) == (array is not values)


def test_golden_streams():
    """Files in the world hold these very bytes: a change here is a new format version."""
    levels = np.array([[[[0, 1, 0], [-2, 0, 0], [1, 1, 0]]], [[[0, 0, 3], [0, -1, 0], [0, 0, 1]]]])
    tensor = SharedTensor(
        levels.astype(np.int32), np.array([-0.5, -0.25, 0, 0.25, 0.5, 1.5], np.float32), 2
    )
    assert entropy.encode_shared(tensor) == GOLDEN_ENTROPY
    assert huffman.encode(tensor) == GOLDEN_HUFFMAN
    values = np.array([1.0, 0.0, -2.5, np.inf, -0.0, 1e-40], np.float32)
    assert entropy.encode_floats(values) == GOLDEN_FLOATS


GOLDEN_ENTROPY = (
    bytes.fromhex("050016"),
    bytes.fromhex("dbf3dec13e7b9a3f0bbed7"),
)
GOLDEN_HUFFMAN = (
    bytes.fromhex("05000000000001"),
    bytes.fromhex("000000bf000080be0000803e0000003f0000c03fca280233010262e0"),
)
GOLDEN_FLOATS = (
    bytes.fromhex("01"),
    bytes.fromhex("603fffff8e5aeca1e726cbd99876c2cace7ad260"),
)


def test_golden_huffman_by_hand():
    """Worked by hand from docs/format.md: one gap of 16 zeros, two centroids."""
    levels = np.zeros(40, np.int32)
    levels[[16, 17, 39]] = 1, -1, 1
    tensor = SharedTensor(levels, np.array([-1, 0, 1], np.float32), 1)
    gaps = huffman._gaps(np.flatnonzero(levels))
    assert gaps.tolist() == [15, 1, 0, 15, 6]
    parameters, payload = huffman.encode(tensor)
    assert parameters == b"\x02\x00" + b"\x00\x00\x00\x00" + b"\x01"  # a bitmap of 5 bytes wins
    assert payload == (
        b"\x00\x00\x80\xbf\x00\x00\x80\x3f"  # -1, 1
        b"\x00\x00\x03\x00\x80"  # bits 16, 17, 39
        b"\x11"  # both codes have 1 bit
        b"\xa0"  # 1 0 1
    )


def test_entropy_coder_beats_order_0_entropy_with_its_table_counted():
    tensor = shared(np.random.default_rng(0), (64, 32, 3, 3), density=0.33)
    counts = np.unique(tensor.levels, return_counts=True)[1]
    p = counts / counts.sum()
    order_0_bytes = -(p * np.log2(p)).sum() * tensor.size / 8
    parameters, payload = entropy.encode_shared(tensor)
    assert len(parameters) + len(payload) < 1.01 * order_0_bytes + 4 * len(counts)


def test_structure_is_found():
    """Dead rows and columns, which pruning leaves, cost next to nothing."""
    rng = np.random.default_rng(0)
    tensor = shared(rng, (128, 128), density=1.0)
    levels = tensor.levels * (rng.random((128, 1)) < 0.5) * (rng.random(128) < 0.5)
    sparse = SharedTensor(levels.astype(np.int32), tensor.centroids, tensor.zero)
    shuffled = SharedTensor(
        rng.permutation(levels.reshape(-1)).reshape(128, 128).astype(np.int32),
        tensor.centroids,
        tensor.zero,
    )
    structured, without = (len(entropy.encode_shared(t)[1]) for t in (sparse, shuffled))
    assert structured < 0.8 * without


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=300))
def test_huffman_lengths_are_optimal(counts):
    counts = np.array(counts, np.int64)
    lengths = huffman.code_lengths(counts, longest=40).astype(np.int64)
    heap = [int(c) for c in counts if c]
    cost = heap[0] if len(heap) == 1 else 0
    heapq.heapify(heap)
    while len(heap) > 1:  # Huffman's own algorithm: the cost is the sum of all merged weights
        merged = heapq.heappop(heap) + heapq.heappop(heap)
        cost += merged
        heapq.heappush(heap, merged)
    assert (lengths * counts).sum() == cost
    assert ((lengths > 0) == (counts > 0)).all()


def test_huffman_lengths_obey_their_limit():
    fibonacci = [1, 1]
    while len(fibonacci) < 40:
        fibonacci.append(fibonacci[-1] + fibonacci[-2])
    lengths = huffman.code_lengths(np.array(fibonacci))
    assert lengths.max() == huffman.LONGEST_CODE
    assert (0.5 ** lengths.astype(float)).sum() == 1.0


@given(shared_tensors(), st.data())
@settings(deadline=None, max_examples=200)
def test_damaged_payloads_give_an_error_or_a_valid_tensor(tensor, data):
    """The checksum finds damage; behind it, a forged payload must still not break anything."""
    for coder, decode in (
        (entropy.encode_shared, entropy.decode_shared),
        (huffman.encode, huffman.decode),
    ):
        parameters, payload = coder(tensor)
        forged = bytearray(payload)
        for _ in range(data.draw(st.integers(1, 3))):
            if forged:
                forged[data.draw(st.integers(0, len(forged) - 1))] = data.draw(st.integers(0, 255))
        cut = data.draw(st.integers(0, len(forged)))
        for attack in (bytes(forged), bytes(forged[:cut]), bytes(forged) + b"\x00\x01"):
            try:
                result = decode(tensor.shape, parameters, memoryview(attack))
            except CoderError:
                continue
            assert result.values().shape == tensor.shape


def test_leftover_payload_is_refused():
    tensor = shared(np.random.default_rng(0), (8, 8))
    for coder, decode in (
        (entropy.encode_shared, entropy.decode_shared),
        (huffman.encode, huffman.decode),
    ):
        parameters, payload = coder(tensor)
        with pytest.raises(CoderError):
            decode(tensor.shape, parameters, memoryview(payload + b"\x00"))
        with pytest.raises(CoderError):
            decode(tensor.shape, parameters, memoryview(payload[: len(payload) // 2]))
        with pytest.raises(CoderError):
            decode(tensor.shape, parameters + b"\x00", memoryview(payload))


def test_a_sandbox_can_be_asked_for(monkeypatch):
    monkeypatch.setenv("SQUEEZEKIT_SANDBOX", "1")
    assert compiled.library() is None
    monkeypatch.setattr(compiled, "_made", [])
    assert isinstance(compiled.compiled(), tuple)


def test_where_machine_code_cannot_be_loaded_the_sandbox_is(monkeypatch, tmp_path):
    monkeypatch.setattr(compiled, "__file__", str(tmp_path / "compiled.py"))
    assert compiled.library() is None


@pytest.mark.parametrize(
    ("build", "name"),
    [("coders", "coders.wasm"), ("coders-x86_64-linux", "coders-x86_64-linux.so")],
)
def test_what_is_committed_is_built_from_the_source(build, name, tmp_path):
    clang = shutil.which("clang")
    if clang is None or shutil.which("wasm-ld") is None or shutil.which("ld.lld") is None:
        pytest.skip("clang and lld are not installed")
    version = subprocess.run([clang, "--version"], capture_output=True, text=True, check=True)
    if "clang version 14." not in version.stdout:
        pytest.skip("the committed file was built by clang 14; another gives other bytes")
    subprocess.run([NATIVE / "build.sh", build, tmp_path / name], check=True)
    committed = Path(engine.__file__).with_name(name)
    assert (tmp_path / name).read_bytes() == committed.read_bytes()
