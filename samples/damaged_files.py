"""Every reader of a stranger's file, small files that it reads, and ways to damage these."""

from __future__ import annotations

import functools
import io
import json
import random
import struct
import tempfile
import warnings
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import sqz_parts
from operator_graphs import networks
from PIL import Image
from sqz_parts import GOOD, files, laughs, model

from squeezekit.errors import SqueezekitError
from squeezekit.interop import caffe, han, onnx_file, safetensors_file, tflite_file, torchvision
from squeezekit.interop.opening import load
from squeezekit.interop.page_runtime import PageRuntime
from squeezekit.models.squeezenet import squeezenet, v1_0, v1_1
from squeezekit.runtime import images, labels
from squeezekit.runtime.calibration import calibrated
from squeezekit.runtime.classifier import from_network
from squeezekit.runtime.int8 import int8_model
from squeezekit.sqz import container, delta, metadata_json
from squeezekit.sqz.coders import text
from squeezekit.sqz.graph_reader import read_graph
from squeezekit.sqz.network import Preprocessing, share_equal_values

_BYTES = b'\x00\x01\x7f\x80\xff"\\{}[],:-.0e'


def damaged(rng: random.Random, data: bytes) -> bytes:
    """One to four places changed: bits, bytes, numbers; left out, put in, repeated or cut off."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 3, 4))):
        at = rng.randrange(len(changed) + 1)
        kind = rng.randrange(8)
        if kind == 0:
            changed[at:at] = rng.randbytes(rng.randint(1, 4))
        elif kind == 1:
            del changed[at : at + rng.choice((1, 1, 2, 4, 8))]
        elif kind == 2 and at < len(changed):
            changed[at] ^= 1 << rng.randrange(8)
        elif kind == 3:
            changed[at : at + 1] = bytes([rng.choice(_BYTES)])
        elif kind == 4:
            changed[at:at] = changed[at : at + rng.randint(1, 40)]
        elif kind == 5:
            number = rng.choice((0, 1, -1, 255, 1 << 15, (1 << 31) - 1, -(1 << 31), 1 << 28))
            changed[at : at + 4] = struct.pack("<i", number)
        elif kind == 6 and rng.random() < 0.2:
            del changed[at:]
        elif at < len(changed):
            changed[at] = rng.randrange(256)
    return bytes(changed)


def damaged_sqz(rng: random.Random, sqz: bytes) -> bytes:
    """A `.sqz` with damage anywhere, or in one part with every checksum and length mended."""
    if rng.random() < 0.5:
        return damaged(rng, sqz)
    return mended_sqz(rng, sqz)


def mended_sqz(rng: random.Random, sqz: bytes) -> bytes:
    """A `.sqz` with damage in its head or one payload, and every checksum and length mended."""
    header, stored, raw, payloads, records = _parts(sqz)
    part = rng.random()
    if part < 0.1:  # what the head is coded as
        return sqz_parts.put_together(header, damaged(rng, stored), len(raw), payloads)
    if part < 0.5:
        raw = damaged(rng, raw)
    elif records:
        start, size, checksum = rng.choice(records)
        payload = damaged(rng, payloads[start : start + size])
        before = sqz_parts.varint(size) + struct.pack("<I", checksum)
        after = sqz_parts.varint(len(payload)) + struct.pack("<I", zlib.crc32(payload))
        raw = raw.replace(before, after, 1)
        payloads = payloads[:start] + payload + payloads[start + size :]
    if header[6] == _TEXT_HEAD and len(raw) <= text.MOST_BYTES:
        return sqz_parts.put_together(header, text.encode(raw), len(raw), payloads)
    header = header[:6] + b"\x01" + header[7:]
    return sqz_parts.put_together(header, sqz_parts.deflated(raw, 1), len(raw), payloads)


_TEXT_HEAD = 2


@functools.cache
def _parts(sqz: bytes) -> tuple[bytes, bytes, bytes, bytes, list[tuple[int, int, int]]]:
    """Header, stored head, head, payloads, and of each payload start, bytes and checksum."""
    header = sqz[: sqz_parts.HEADER_BYTES]
    behind = sqz_parts.HEADER_BYTES + int.from_bytes(sqz[12:16], "little")
    stored, payloads = sqz[sqz_parts.HEADER_BYTES : behind], sqz[behind:]
    _, raw, _ = sqz_parts.taken_apart(sqz)
    records = [
        (record.offset - behind, record.payload_bytes, record.checksum)
        for record in container.read_head(sqz).records
    ]
    return header, stored, raw, payloads, records


@functools.cache
def float_sqz() -> list[bytes]:
    """Small files of every coder."""
    return files()


@functools.cache
def int8_sqz() -> list[bytes]:
    """The like, calibrated for int8."""
    how = np.random.default_rng(1).normal(size=(4, 1, 4, 4)).astype(np.float32)
    network = calibrated(container.decode(files()[0]), how)
    return [container.encode(network, coder) for coder in ("entropy", "huffman", "dense")]


@functools.cache
def _folder() -> Path:
    folder = tempfile.TemporaryDirectory(prefix="damaged-")
    _kept.append(folder)
    return Path(folder.name)


_kept: list[tempfile.TemporaryDirectory[str]] = []


def _as_file(name: str, read: Callable[[Path], object]) -> Callable[[bytes], object]:
    def with_file(data: bytes) -> object:
        path = _folder() / name
        path.write_bytes(data)
        return read(path)

    return with_file


def _written(name: str, write: Callable[[Path], object]) -> bytes:
    path = _folder() / name
    write(path)
    return path.read_bytes()


# ---------------------------------------------------------------------------------------- seeds


def _tiny() -> container.Network:
    return container.decode(files()[0])


def _caffemodels() -> list[bytes]:
    from caffe_models import caffe_net, small
    from caffe_models import write as written

    found = []
    for v1 in (False, True):
        path = written(caffe_net(small(), v1=v1), _folder() / "caffe")
        found.append(b"m" + path.read_bytes())
        found.append(b"p" + (path.parent / "deploy.prototxt").read_bytes())
    return found


def _read_caffe(data: bytes) -> object:
    """A damaged model, or a damaged prototxt beside a whole one."""
    net = (_folder() / "caffe") / "net.caffemodel"
    (whole, text) = (found[1:] for found in _caffe_seeds()[:2])
    first, rest = data[:1], data[1:]
    net.write_bytes(whole if first == b"p" else rest)
    (net.parent / "deploy.prototxt").write_bytes(rest if first == b"p" else text)
    return caffe.read(net)


@functools.cache
def _caffe_seeds() -> list[bytes]:
    return _caffemodels()


def _squeezenet_by_torchvision() -> dict[str, np.ndarray]:
    """SqueezeNet 1.1 of one class by torchvision's names, a byte a weight."""
    places = {f"fire{i}": place for i, place in enumerate((3, 4, 6, 7, 9, 10, 11, 12), start=2)}
    layers = {"conv1": "features.0", "conv10": "classifier.1"}
    state = {}
    for name, tensor in squeezenet(v1_1(1)).tensors.items():
        layer, _, part = name.rpartition(".")
        fire, _, within = layer.partition(".")
        within = within.replace("squeeze1x1", "squeeze")
        theirs = f"features.{places[fire]}.{within}" if within else layers[layer]
        state[f"{theirs}.{part}"] = np.ones(tensor.shape, np.uint8)
    return state


def _pth() -> list[bytes]:
    import torch

    whole = {n: torch.from_numpy(values) for n, values in _squeezenet_by_torchvision().items()}
    state = {"a.weight": torch.zeros(3, 2), "a.bias": torch.ones(3)}
    found = []
    for content, zipped in ((whole, True), (state, True), (state, False), ({"model": state}, True)):
        stream = io.BytesIO()
        torch.save(content, stream, _use_new_zipfile_serialization=zipped)
        found.append(stream.getvalue())
    return found


def _safetensors() -> list[bytes]:
    from safetensors.numpy import save

    whole = _written("seed.safetensors", lambda path: safetensors_file.write(_tiny(), path))
    return [whole, save({"a": np.zeros((2, 3), np.float32), "b": np.zeros(2, np.float16)})]


def _updates() -> list[bytes]:
    """From the first of `update_files` to each."""
    return [delta.delta(update_files()[0], new) for new in update_files()]


@functools.cache
def update_files() -> list[bytes]:
    """The old file, and new ones: what coders 3, 4 and 5 code, and another network."""
    start = container.decode(float_sqz()[0])
    found = [start]
    for factor in (np.float32(1.5), np.float32(0.25)):
        changed = {n: np.rint(8 * v) * factor for n, v in start.values().items()}
        found.append(start.with_tensors(changed))
        found.append(share_equal_values(start.with_tensors(changed)))
    return [*map(container.encode, found), *float_sqz()[1:3]]


def damaged_update(rng: random.Random, update: bytes) -> bytes:
    """Damage anywhere, or behind the header with length and checksum mended."""
    if rng.random() < 0.3:
        return damaged(rng, update)
    at = rng.choice((84, len(update) // 2))  # the latter half is mostly tensors
    data = bytearray(update[:at] + damaged(rng, update[at:]))
    data[8:12] = struct.pack("<I", len(data))
    data[12:16] = struct.pack("<I", zlib.crc32(data[16:], zlib.crc32(data[:12])))
    return bytes(data)


def _onnx() -> list[bytes]:
    # opened as they are by `predict`: a plain one, one that squeezekit wrote, one with functions
    own = _written("own.onnx", lambda path: onnx_file.write(_tiny(), path))
    return [model().SerializeToString(), own, laughs(3).SerializeToString()]


def _net() -> list[bytes]:
    """SqueezeNet's layers without one stored weight, as its authors lay them out."""
    network = squeezenet(v1_0())
    outs = [tensor.shape[0] for name, tensor in network.tensors.items() if name.endswith("weight")]
    layers = b"".join(bytes(4 * 256 + 4 * out) + b"\x01\x02\x03" for out in outs)
    return [struct.pack(f"<{len(outs)}I", *[2] * len(outs)) + layers]


def _tflite() -> list[bytes]:
    from tflite_models import small

    return [small()]


def _images() -> list[bytes]:
    noise = np.random.default_rng(0).integers(0, 256, (9, 11, 3), np.uint8)
    found = []
    for kind in ("PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF", "PPM"):
        for mode in ("RGB", "L"):
            stream = io.BytesIO()
            exif = Image.Exif()
            exif[274] = 6
            Image.fromarray(noise).convert(mode).save(stream, kind, exif=exif)
            found.append(stream.getvalue())
    return found


def _labels() -> list[bytes]:
    return [
        b"tcat\ndog\n", b"tn01440764 tench, Tinca\nn01443537 goldfish\n",
        b"v0\tn01440764\ttench\n1\tn01443537\tgoldfish\n", b"vindex\tname\n0\tcat\n1\tdog\n",
        b'j["cat", "dog"]', b'j{"0": ["n1", "cat"], "1": ["n2", "d\\u00f6g"]}',
    ]  # fmt: skip


def _graphs() -> list[bytes]:
    """Each behind the number of the tensors that it uses."""
    return [
        bytes([len(one.tensors)]) + one.graph for one in networks()[::2] if len(one.tensors) < 9
    ]


def _read_graph(data: bytes) -> object:
    return read_graph(data[1:], {f"w{i}": None for i in range(data[0] if data else 0)})


def _read_labels(data: bytes) -> object:
    ending = {b"t": "txt", b"v": "tsv", b"j": "json"}.get(data[:1], "txt")
    path = _folder() / f"labels.{ending}"
    path.write_bytes(data[1:])
    return labels.read_labels(path)


def _metadata() -> list[bytes]:
    known = {"photos": 5, "held_out": 1, "marks": "BAEAgA==", "exceptions": ""}
    more = {**GOOD, "title": "t", "trained_on": [known], "activations": {"a": [-1, 2]}}
    return [json.dumps(GOOD).encode(), json.dumps(more).encode()]


def _read_image(data: bytes) -> object:
    return images.prepare_file(io.BytesIO(data), Preprocessing(crop=4, resize=5))


def _open(data: bytes) -> object:
    """Opened as `predict` opens it, and asked once."""
    network = container.decode(data)
    how = network.metadata.preprocessing
    ask = np.zeros((1, how.channels, how.crop, how.crop), np.float32)
    return from_network(network, threads=1, backend="onnxruntime").logits(ask)


# -------------------------------------------------------------------------------------- readers


@dataclass(frozen=True)
class Reader:
    """What reads a kind of file.

    Attributes:
        seeds: makes files that it reads.
        read: reads a file's bytes; damage may only end in a SqueezekitError.
        damage: of a seed.
    """

    seeds: Callable[[], list[bytes]]
    read: Callable[[bytes], object]
    damage: Callable[[random.Random, bytes], bytes] = damaged


READERS = {
    "container": Reader(float_sqz, container.decode, damaged_sqz),
    "graph": Reader(_graphs, _read_graph, lambda rng, seed: seed[:1] + damaged(rng, seed[1:])),
    "head": Reader(
        lambda: [container.encode(one, "dense") for one in networks()[::3]],
        container.read_head,
        damaged_sqz,
    ),
    "metadata": Reader(
        _metadata, lambda data: metadata_json.from_json(data.decode(errors="surrogateescape"))
    ),
    "int8": Reader(int8_sqz, lambda data: int8_model(container.decode(data)), damaged_sqz),
    "backends": Reader(lambda: [*int8_sqz(), *float_sqz()], _open, damaged_sqz),
    "c": Reader(lambda: [*int8_sqz(), *float_sqz()], PageRuntime, damaged_sqz),
    "delta": Reader(_updates, lambda data: delta.apply(update_files()[0], data), damaged_update),
    "onnx": Reader(_onnx, _as_file("net.onnx", load)),
    "safetensors": Reader(_safetensors, _as_file("net.safetensors", safetensors_file.read)),
    "pth": Reader(_pth, _as_file("net.pth", torchvision.read)),
    "caffe": Reader(_caffe_seeds, _read_caffe, lambda rng, seed: seed[:1] + damaged(rng, seed[1:])),
    "tflite": Reader(_tflite, _as_file("net.tflite", tflite_file.read)),
    "net": Reader(_net, _as_file("squeezenet.net", han.read)),
    "labels": Reader(_labels, _read_labels),
    "images": Reader(_images, _read_image),
}


def refused(reader: Reader, data: bytes) -> SqueezekitError | None:
    """Why a reader refuses a file; None if it reads it. Any other exception is a fault."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            reader.read(data)
        except SqueezekitError as error:
            return error
    return None
