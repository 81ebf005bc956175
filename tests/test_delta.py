"""Updates: bit for bit, small, refused for any other file, and as docs/format.md describes them."""

import dataclasses
import hashlib
import random
import struct
import zlib

import numpy as np
import pytest
import reference_decoder
from damaged_files import damaged
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from small_networks import small_alexnet, small_squeezenet

import squeezekit as sk
from squeezekit import errors
from squeezekit.models.builder import GraphBuilder
from squeezekit.sqz import container
from squeezekit.sqz.coders import entropy, grid, moved
from squeezekit.sqz.network import Metadata, Network, Preprocessing, SharedTensor

HEADER = 85


def shared(network: Network, seed=0, steps=7) -> Network:
    """With levels as rounding leaves them: most of them zero, few values."""
    rng = np.random.default_rng(seed)
    found = {}
    for name, tensor in network.tensors.items():
        if len(tensor.shape) > 1:
            table = np.unique(np.append(np.float16(rng.normal(0, 0.1, 2 * steps)), 0))
            zero = int(np.searchsorted(table, 0))
            levels = np.rint(rng.laplace(0, 1.1, tensor.shape)).clip(-zero, len(table) - 1 - zero)
            levels, table = levels.astype(np.int32), table.astype(np.float32)
            found[name] = SharedTensor(levels, table, zero)
    return network.with_tensors(found)


def with_some_moved(network: Network, share=0.03, seed=1) -> Network:
    """With a share of all levels, and of all other numbers, changed."""
    rng = np.random.default_rng(seed)
    found = {}
    for name, tensor in network.tensors.items():
        if isinstance(tensor, SharedTensor):
            moves = rng.choice((-1, 1), tensor.shape) * (rng.random(tensor.shape) < share)
            most = len(tensor.centroids) - 1 - tensor.zero
            levels = (tensor.levels + moves).clip(-tensor.zero, most).astype(np.int32)
            found[name] = SharedTensor(levels, tensor.centroids, tensor.zero)
        else:
            chosen = rng.random(tensor.shape) < share
            found[name] = np.where(chosen, tensor * np.float32(1.25), tensor)
    return network.with_tensors(found)


def pair(share=0.03):
    old = shared(small_squeezenet())
    return container.encode(old), container.encode(with_some_moved(old, share))


def entropy_bits(share):
    return -share * np.log2(share) - (1 - share) * np.log2(1 - share)


# ------------------------------------------------------------------------------ what it is for


def test_an_update_gives_the_new_file_bit_for_bit_and_is_small():
    old, new = pair()
    update = sk.delta(old, new)
    assert sk.apply(old, update) == new
    weights = container.decode(new).parameters
    # Which weights moved, and which way, cannot be told in less than this; the head comes on top.
    least = weights * (entropy_bits(0.03) + 0.03) / 8
    assert len(update) < 1.5 * least + 400 < len(new) / 2


def test_of_the_same_network_it_has_at_most_200_bytes():
    old, _ = pair()
    assert len(sk.delta(old, old)) <= 200
    network = container.decode(old)
    told = container.encode(network.with_step("looked at again"))
    update = sk.delta(old, told)
    assert sk.apply(old, update) == told
    assert len(update) <= 200


@pytest.mark.parametrize("coder", ["entropy", "huffman", "dense"])
@pytest.mark.parametrize("coder_of_old", ["entropy", "dense"])
def test_any_coder_and_any_change(coder, coder_of_old):
    """Tensors of other shapes, other classes, other networks: it may be large, and is right."""
    start = shared(small_squeezenet())
    whole = {n: np.float32(0.25) * np.rint(8 * v) for n, v in start.values().items() if v.ndim > 1}
    for after in (
        with_some_moved(start, 0.5), shared(start, 5, 4), small_squeezenet(labels=("a", "b")),
        small_squeezenet(), small_alexnet(), start.with_tensors(whole),
        dataclasses.replace(start, metadata=dataclasses.replace(start.metadata, title="shop")),
    ):  # fmt: skip
        old, new = container.encode(start, coder_of_old), container.encode(after, coder)
        for one, other in ((old, new), (new, old)):
            assert sk.apply(one, sk.delta(one, other)) == other


def test_of_files_that_another_encoder_made():
    """What squeezekit would write in other bytes is stored as it is."""
    start = shared(small_squeezenet())
    new = container.encode(with_some_moved(start))
    stored, raw = container.stored_head(new)
    payloads = [
        new[r.offset : r.offset + r.payload_bytes] for r in container.read_head(new).records
    ]
    deflate = zlib.compressobj(1, zlib.DEFLATED, -15)
    head = dataclasses.replace(stored, codec=1, stored=deflate.compress(raw) + deflate.flush())
    other = container.put_together(head, payloads)
    assert container.encode(container.decode(other)) != other
    old = container.encode(start)
    assert sk.apply(old, sk.delta(old, other)) == other
    assert sk.apply(other, sk.delta(other, old)) == old


def test_files_and_bytes_alike(tmp_path):
    old, new = pair()
    (tmp_path / "old.sqz").write_bytes(old)
    (tmp_path / "new.sqz").write_bytes(new)
    update = sk.delta(tmp_path / "old.sqz", str(tmp_path / "new.sqz"), tmp_path / "u.sqzd")
    assert (tmp_path / "u.sqzd").read_bytes() == update == sk.delta(old, new)
    out = tmp_path / "again.sqz"
    assert sk.apply(tmp_path / "old.sqz", tmp_path / "u.sqzd", out) == new == out.read_bytes()
    sk.apply(tmp_path / "old.sqz", tmp_path / "u.sqzd", tmp_path / "old.sqz")  # in place
    assert (tmp_path / "old.sqz").read_bytes() == new


# ------------------------------------------------------------------------------- what is refused


def test_any_other_file_is_refused(tmp_path):
    old, new = pair()
    other = container.encode(shared(small_squeezenet(), 9))
    update = sk.delta(old, new)
    path = tmp_path / "other.sqz"
    path.write_bytes(other)
    with pytest.raises(errors.InputError, match=r"other\.sqz: the update is for another file"):
        sk.apply(path, update, tmp_path / "out.sqz")
    with pytest.raises(errors.InputError, match="has this update already"):
        sk.apply(new, update)
    assert [p.name for p in tmp_path.iterdir()] == ["other.sqz"]


def test_what_is_no_file_of_its_kind_is_refused(tmp_path):
    old, new = pair()
    update = sk.delta(old, new)
    for ask, said in (
        (lambda: sk.delta(old, update), "not a .sqz file"),
        (lambda: sk.apply(old, new), "not a .sqzd file"),
        (lambda: sk.delta(old, new, tmp_path / "u.sqz"), "must end in .sqzd"),
        (lambda: sk.apply(old, update, tmp_path / "u.sqzd"), "must end in .sqz"),
        (lambda: sk.delta(old, tmp_path / "none.sqz"), "no such file"),
        (lambda: sk.delta(container.decode(old), new), "Network is no file"),
        (lambda: sk.delta(old, new, limits=sk.Limits(weights=10)), "limit"),
        (lambda: sk.apply(old, update, limits=sk.Limits(weights=10)), "limit"),
        (lambda: sk.apply(old, sealed(update, at=4, byte=2)), "version 2"),
    ):
        with pytest.raises(errors.SqueezekitError, match=said):
            ask()
    assert not list(tmp_path.iterdir())


def sealed(update: bytes, at: int | None = None, byte: int = 0) -> bytes:
    """With its length and its CRC-32 as they should be, after a change of one byte, if any."""
    data = bytearray(update)
    if at is not None:
        data[at] = byte
    data[8:12] = struct.pack("<I", len(data))
    data[12:16] = struct.pack("<I", zlib.crc32(data[16:], zlib.crc32(data[:12])))
    return bytes(data)


def test_a_damaged_update_ends_in_an_error_of_ours_and_leaves_the_old_file(tmp_path):
    """Whether its checksum shows that or was made to fit."""
    old, new = pair(0.2)
    path, out = tmp_path / "old.sqz", tmp_path / "out.sqz"
    path.write_bytes(old)
    update, rng, said = sk.delta(old, new), random.Random(4), set()
    for i in range(400):
        if i % 4 == 0:
            bad = damaged(rng, update)
        else:
            bad = sealed(update[:HEADER] + damaged(rng, update[HEADER:]))
        try:
            made = sk.apply(path, bad, out)
        except errors.FormatError as error:
            said.add(type(error))
            assert not out.exists()
        else:
            assert made == new
            out.unlink()
    assert path.read_bytes() == old
    assert {errors.ChecksumError, errors.CoderError, errors.LengthError} <= said


def test_the_size_of_the_new_file_and_its_sha256_must_be_right():
    old, new = pair()
    update = sk.delta(old, new)
    for change in (slice(48, 80), slice(80, 84)):
        bad = bytearray(update)
        bad[change] = bytes(len(bad[change]))
        with pytest.raises(errors.FormatError):
            sk.apply(old, sealed(bad))


def test_a_file_that_may_not_be_opened_is_not_made():
    """Limits hold before the first tensor is made: the weights are those of a larger network."""
    start = shared(small_squeezenet())
    old, new = container.encode(start), container.encode(with_some_moved(start))
    update = sk.delta(old, new)
    fits = sk.Limits(weights=start.parameters)
    assert sk.apply(old, update, limits=fits) == new
    large = container.encode(shared(small_alexnet()))
    update = sk.delta(old, large)
    with pytest.raises(errors.LimitError, match="weights"):
        sk.apply(old, update, limits=fits)


def test_an_update_cannot_promise_bytes_to_be_let_do_more():
    """Limits grow with a file, and not with what a header says of one that is not there."""
    net = GraphBuilder(3, 40, 40)
    how = Preprocessing(crop=40, resize=40)
    large = net.build(net.linear("fc", net.flatten("flat", net.image), 1000), Metadata("x", how))
    nothing = SharedTensor(np.zeros((1000, 4800), np.int32), np.float32([0, 1]), 0)
    new = container.encode(large.with_tensors({"fc.weight": nothing}))
    old = container.encode(shared(small_squeezenet()))
    update = bytearray(sk.delta(old, new, limits=None))
    assert len(update) < 5000
    update[80:84] = struct.pack("<I", 1 << 29)
    with pytest.raises(errors.LimitError, match="4,801,000 weights"):
        sk.apply(old, sealed(update))


# --------------------------------------------------------------------------- as the format says


LEVELS = st.integers(-40, 40) | st.integers(-2, 2)


@given(
    npst.array_shapes(min_dims=1, max_dims=5, max_side=5).flatmap(
        lambda shape: st.tuples(*(npst.arrays(np.int32, shape, elements=LEVELS) for _ in "ab"))
    ),
    st.booleans(),
)
@settings(deadline=None)
def test_levels_are_coded_as_the_format_says(both, alike):
    old, other = both
    new = np.where(np.random.default_rng(0).random(old.shape) < 0.8, old, other) if alike else other
    most = [max(-int(min(old.min(), new.min())), 0), max(int(max(old.max(), new.max())), 0)]
    payload = moved.encode_levels(new, old, *most)
    assert np.array_equal(moved.decode_levels(memoryview(payload), old, *most), new)
    dimensions = entropy.as_matrix_of_kernels(old.shape)
    told = reference_decoder.moved_levels(payload, old.reshape(-1).tolist(), dimensions, *most)
    assert told == new.reshape(-1).tolist()
    with pytest.raises(errors.CoderError):
        moved.decode_levels(memoryview(payload + b"\0"), old, *most)


@given(
    st.integers(0, 23),
    npst.array_shapes(max_dims=3, max_side=9).flatmap(
        lambda shape: st.tuples(*(npst.arrays(np.uint32, shape) for _ in "ab"))
    ),
)
@settings(deadline=None)
def test_floats_are_coded_as_the_format_says(drop, both):
    old, other = (bits.view(np.float32) for bits in both)
    bits = np.where(both[1] % 3 == 0, both[0], both[1]) >> np.uint32(drop) << np.uint32(drop)
    payload = moved.encode_floats(bits.view(np.float32), old, drop)
    back = moved.decode_floats(memoryview(payload), old, drop).view(np.uint32)
    assert np.array_equal(back, bits)
    told = reference_decoder.moved_floats(payload, both[0].reshape(-1).tolist(), drop)
    assert told == bits.reshape(-1).tolist()
    assert other.shape == back.shape


@given(st.binary(max_size=120), st.binary(max_size=120))
@settings(deadline=None)
def test_text_is_coded_as_the_format_says(known, data):
    data += known[::2] + known
    payload = moved.encode_text(data, known)
    assert moved.decode_text(memoryview(payload), len(data), known) == data
    assert reference_decoder.text(payload, len(data), known) == data


@given(
    npst.arrays(np.float32, 40, elements=st.floats(width=32, allow_nan=True)),
    st.sets(st.floats(width=32, allow_nan=False, allow_infinity=False), max_size=9),
)
@settings(deadline=None)
def test_old_levels_are_those_of_the_nearest_centroids(values, centroids):
    table = np.array(sorted(c for c in centroids if c != 0), np.float32)
    levels = moved.levels_like(values, table)
    negatives = int((table < 0).sum())
    for value, level in zip(values, levels, strict=True):
        place = reference_decoder.ordered(int(value.view(np.uint32)))
        sign_bit = bool(value.view(np.uint32) >> 31)
        gaps = [
            (abs(place - reference_decoder.ordered(int(c.view(np.uint32)))), i)
            for i, c in enumerate(table)
            if (c < 0) == sign_bit and value != 0
        ]
        nearest = min(gaps)[1] - negatives if gaps else None
        assert level == (0 if nearest is None else nearest + (nearest >= 0))


def test_old_levels_of_a_grid():
    values = np.array([0.0, -0.0, 0.25, 0.375, -0.62, 1e30, -np.inf, np.nan], np.float32)
    most = grid.MOST_WHOLE
    assert moved.whole_like(values, 0.25).tolist() == [0, 0, 1, 2, -2, most, -most, 0]


def test_golden_streams():
    """Bytes of the first release, which every later one must read."""
    old = np.array([[0, 1, -2, 0, 5, 0], [3, 0, 0, -1, 0, 0]], np.int32)
    new = np.array([[0, 1, -3, 0, 4, 1], [3, 0, -2, 0, 0, 0]], np.int32)
    assert moved.encode_levels(new, old, 4, 5) == GOLDEN_LEVELS
    floats = np.float32([0.5, -1.25, 3]), np.float32([0.5, -1.0, 2.5])
    assert moved.encode_floats(*floats, 13) == GOLDEN_FLOATS
    assert moved.encode_text(b"the same, but", b"the same and") == GOLDEN_TEXT


GOLDEN_LEVELS = bytes.fromhex("db663025")
GOLDEN_FLOATS = bytes.fromhex("98f94b28")
GOLDEN_TEXT = bytes.fromhex("839c0d5d7cf0311572")


def test_golden_update():
    """Every field of the header, and the parts behind it, by hand."""
    start = shared(small_squeezenet())
    old, new = container.encode(start), container.encode(start.with_step("x"))
    update = sk.delta(old, new)
    assert update[:8] == b"\x89SQD\x01\x00\x00\x00"
    assert struct.unpack_from("<I", update, 8) == (len(update),)
    assert struct.unpack_from("<I", update, 12) == (
        zlib.crc32(update[16:], zlib.crc32(update[:12])),
    )
    assert update[16:80] == hashlib.sha256(old).digest() + hashlib.sha256(new).digest()
    assert struct.unpack_from("<I", update, 80) == (len(new),)
    assert update[84:88] == bytes([1, *container.VERSION, 1])  # a text; the metadata is another
    metadata = [container.stored_head(file)[1] for file in (old, new)]
    known, told = (raw[: raw.index(b"}", raw.index(b"provenance")) + 1] for raw in metadata)
    size = update[88] & 127 | update[89] << 7
    coded = update[91 : 91 + update[90]]
    assert size == len(told)
    assert reference_decoder.text(coded, size, known) == told
    assert update[91 + update[90] :] == bytes(len(start.tensors))  # all payloads are copied
