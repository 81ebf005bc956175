"""The tensor coders: lossless on anything, golden bytes, and as docs/format.md describes them."""

import heapq
import shutil
import subprocess
import zlib
from pathlib import Path

import numpy as np
import pytest
import reference_decoder
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from squeezekit.errors import CoderError
from squeezekit.sqz.coders import compiled, dense, engine, entropy, grid, half, huffman, text
from squeezekit.sqz.network import SharedTensor, tensor_values

NATIVE = Path(__file__).parent.parent / "native"
CODERS = Path(engine.__file__).parent
ROUNDING = CODERS.parents[1] / "compression" / "compiled"


@pytest.fixture(scope="module", params=["machine code", "WebAssembly"], autouse=True)
def host(request):
    """Everything here holds of both, so they agree with each other too."""
    if request.param == "machine code":
        found = compiled.library(CODERS / "coders-x86_64-linux.so")
        if found is None:
            pytest.skip("there is no machine code for this machine")
    else:
        found = compiled.module(CODERS / "coders.wasm")
    engine._local.coders = engine.code_of(found, engine._WORKSPACES)
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


@st.composite
def grids(draw):
    """A tensor as a quantised network has it, plain or shared: scale times whole numbers."""
    shape = draw(npst.array_shapes(min_dims=1, max_dims=5, max_side=7))
    most = draw(st.sampled_from([1, 7, 127, 255, 70_000]))
    whole = draw(npst.arrays(np.int32, shape, elements=st.integers(-most, most)))
    scale = np.float32(draw(st.floats(2.0**-40, 2.0**20, width=32)))
    values = scale * whole.astype(np.float32)
    return SharedTensor.from_values(values) if draw(st.booleans()) else values


def bits(tensor):
    return tensor_values(tensor).view(np.uint32)


@given(grids())
@settings(deadline=None)
def test_grids_are_lossless(tensor):
    found = grid.find(tensor)
    if found is None:  # where its smallest number is large, or it is no larger than chance
        return
    parameters, payload = grid.encode(tensor, *found)
    back = grid.decode(tensor.shape, parameters, memoryview(payload))
    assert type(back) is type(tensor)
    assert np.array_equal(bits(back), bits(tensor))
    if isinstance(tensor, SharedTensor):
        assert same(back, tensor)


@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 100, 255]), st.floats(2.0**-20, 10, width=32))
@settings(deadline=None, max_examples=30)
def test_grids_of_eight_bits_are_found(seed, most, scale):
    """As tflite's reader makes them: a float32 product of a float32 scale and q - zero."""
    whole = np.random.default_rng(seed).integers(-most, most + 1, (20, 10, 3, 3))
    values = np.float32(scale) * whole.astype(np.float32) + np.float32(0)
    for tensor in (values, SharedTensor.from_values(values)):
        found = grid.find(tensor)
        assert found is not None
        assert np.array_equal(found[1], whole // max(np.gcd.reduce(whole, axis=None), 1))


def test_what_is_no_grid_is_none():
    rng = np.random.default_rng(0)
    for values in (rng.normal(size=300), rng.uniform(size=(9, 9)), [0.5, -0.0], [np.nan], [np.inf]):
        assert grid.find(np.array(values, np.float32)) is None
    spare = SharedTensor(np.array([0, 1], np.int32), np.array([0, 1, 2], np.float32), 0)
    assert grid.find(spare) is None  # its centroid 2 would be lost


@pytest.mark.parametrize(
    ("shape", "most"), [((7,), 60_000), ((50, 30), 255), ((20, 1, 3, 3), 127), ((3, 2, 2, 3, 3), 9)]
)
def test_grid_coder_is_what_the_format_says(shape, most):
    rng = np.random.default_rng(len(shape))
    whole = np.rint(np.clip(rng.normal(scale=most / 4, size=shape), -most, most)).astype(np.int32)
    whole[rng.random(shape) < 0.1] = 0
    _, payload = grid.encode(np.zeros(shape, np.float32), np.float32(1), whole)
    decoded = reference_decoder.whole(payload, entropy.as_matrix_of_kernels(shape))
    assert decoded == whole.reshape(-1).tolist()


def test_grid_of_many_places_is_what_the_format_says():
    """Beyond 65,536 columns, places share their column's means."""
    whole = np.random.default_rng(3).integers(-3, 4, (2, 70_000), dtype=np.int32)
    parameters, payload = grid.encode(np.zeros_like(whole, np.float32), np.float32(0.5), whole)
    back = grid.decode(whole.shape, parameters, memoryview(payload))
    assert np.array_equal(tensor_values(back), whole * np.float32(0.5))


def test_forged_grids_are_refused():
    whole = np.arange(-4, 5, dtype=np.int32)
    plain = np.zeros(9, np.float32)
    parameters, payload = grid.encode(plain, np.float32(0.25), whole)
    assert parameters == bytes.fromhex("0000803e00")
    for wrong in (
        parameters[:4], parameters + b"\0", parameters[:4] + b"\2",
        np.float32(np.nan).tobytes() + b"\0", np.float32(-1).tobytes() + b"\0",
        np.float32(1e-40).tobytes() + b"\0", np.float32(1e32).tobytes() + b"\0",
    ):  # fmt: skip
        with pytest.raises(CoderError):
            grid.decode((9,), wrong, memoryview(payload))
    with pytest.raises(CoderError, match="cannot be"):
        grid.encode(plain, np.float32(1), whole << 21)  # up to 2^23
    for shared_or_not in (b"\0", b"\1"):
        assert grid.decode((0, 3), parameters[:4] + shared_or_not, memoryview(b"\x80")).size == 0


@given(st.binary(max_size=400))
@example(b"")
@example(b'["n01440764","n01443537","n01484850"]' * 9)
@settings(deadline=None)
def test_text_is_lossless_and_what_the_format_says(data):
    payload = text.encode(data)
    assert text.decode(payload, len(data)) == data
    assert reference_decoder.text(payload, len(data)) == data
    with pytest.raises(CoderError):
        text.decode(payload + b"\0", len(data))
    with pytest.raises(CoderError):
        text.decode(payload, text.MOST_BYTES + 1)


def test_labels_take_less_than_deflated():
    rng = np.random.default_rng(0)
    ids = "\n".join(f"n{number:08}" for number in np.sort(rng.integers(10**6, 10**7, 500))).encode()
    assert len(text.encode(ids)) < 0.8 * len(zlib.compress(ids, 9))


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
    whole = np.array([[3, -100, 7, 0], [5, -90, 7, 1], [0, -128, 255, -70_000]], np.int32)
    found = grid.find(np.float32(0.1) * whole.astype(np.float32))
    assert grid.encode(tensor, *found) == GOLDEN_GRID
    assert text.encode(b'{"labels":["cat","catfish","cat"]}') == GOLDEN_TEXT


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

GOLDEN_TEXT = bytes.fromhex("8621ef2c30e4b767d76e6000fdc7f06bed632a04ce96c55ea32fe07be6")
GOLDEN_GRID = (
    bytes.fromhex("cdcccc3d01"),
    bytes.fromhex("500429b3b6a9b39866e1da2998c41741"),
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
        (lambda t: grid.encode(t, np.float32(0.5), t.levels), grid.decode),
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
    assert compiled.library(CODERS / "coders-x86_64-linux.so") is None
    monkeypatch.setattr(compiled, "_made", [])
    assert isinstance(compiled.compiled(), tuple)


def test_where_machine_code_cannot_be_loaded_the_sandbox_is(tmp_path):
    assert compiled.library(tmp_path / "coders-x86_64-linux.so") is None


@pytest.mark.parametrize(
    ("build", "committed"),
    [
        ("coders", CODERS / "coders.wasm"),
        ("coders-x86_64-linux", CODERS / "coders-x86_64-linux.so"),
        ("rounding", ROUNDING / "rounding.wasm"),
        ("rounding-x86_64-linux", ROUNDING / "rounding-x86_64-linux.so"),
    ],
)
def test_what_is_committed_is_built_from_the_source(build, committed, tmp_path):
    clang = shutil.which("clang")
    if clang is None or shutil.which("wasm-ld") is None or shutil.which("ld.lld") is None:
        pytest.skip("clang and lld are not installed")
    version = subprocess.run([clang, "--version"], capture_output=True, text=True, check=True)
    if "clang version 14." not in version.stdout:
        pytest.skip("the committed file was built by clang 14; another gives other bytes")
    subprocess.run([NATIVE / "build.sh", build, tmp_path / "built"], check=True)
    assert (tmp_path / "built").read_bytes() == committed.read_bytes()
