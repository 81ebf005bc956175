"""Writes the invalid files of this folder, and errors.json: the name of the error for each.

python tests/corpus/make.py. The name is written down here by hand, from docs/format.md: the readers
are held to it by tests/test_corpus.py, not the other way round.
"""

from __future__ import annotations

import json
import struct
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path[:0] = map(str, (HERE.parent, HERE.parents[1] / "samples"))

from sqz_parts import (  # noqa: E402
    GOOD,
    HEADER_BYTES,
    deflated,
    files,
    forged,
    put_together,
    sized,
    taken_apart,
    varint,
    with_graph,
    with_head,
    with_metadata,
)
from sqz_parts import skeleton as whole_graph  # noqa: E402
from test_closed_graph import (  # noqa: E402
    OTHERS,
    SPOILED,
    loop,
    other_operator,
    reading,
    spoiled,
)

from squeezekit.sqz import container  # noqa: E402
from squeezekit.sqz.coders import entropy  # noqa: E402

Case = tuple[str, str, bytes]
"""Name of the file, name of the error (two where either may be found first), bytes."""


def headers() -> Iterator[Case]:
    sqz = files()[0]
    yield "empty", "NotSqzError", b""
    yield "no-sqz", "NotSqzError", b"\x89PNG\r\n\x1a\n" + bytes(40)
    yield "text", "NotSqzError", b"version https://git-lfs.github.com/spec/v1\n"
    yield "magic-only", "TruncatedError", sqz[:4]
    yield "half-a-header", "TruncatedError", sqz[:20]
    yield "cut-in-head", "TruncatedError", sqz[:100]
    yield "cut-by-a-byte", "TruncatedError", sqz[:-1]
    yield "a-byte-too-many", "TrailingBytesError", sqz + b"\0"
    yield "twice", "TrailingBytesError", sqz + sqz
    yield "version-9", "VersionError", sqz[:4] + b"\x09" + sqz[5:]
    yield "head-checksum", "ChecksumError", sqz[:20] + bytes([sqz[20] ^ 1]) + sqz[21:]
    yield "head-bit", "ChecksumError", sqz[:40] + bytes([sqz[40] ^ 4]) + sqz[41:]
    yield "payload-bit", "ChecksumError", sqz[:-3] + bytes([sqz[-3] ^ 1]) + sqz[-2:]
    yield "head-past-the-end", "LengthError", sqz[:12] + b"\xff\xff\xff\x7f" + sqz[16:]
    yield "version-0", "HeadError", sealed(sqz, 4, b"\0")
    yield "codec-7", "HeadError", sealed(sqz, 6, b"\7")
    yield "reserved", "HeadError", sealed(sqz, 7, b"\1")


def sealed(sqz: bytes, at: int, change: bytes) -> bytes:
    """With a header changed and its checksum right."""
    stored = int.from_bytes(sqz[12:16], "little")
    header = sqz[:at] + change + sqz[at + len(change) : 20]
    checksum = zlib.crc32(sqz[HEADER_BYTES : HEADER_BYTES + stored], zlib.crc32(header))
    return header + struct.pack("<I", checksum) + sqz[HEADER_BYTES:]


def heads() -> Iterator[Case]:
    sqz = files()[0]
    header, raw, payloads = taken_apart(sqz)
    yield "no-deflate", "HeadError", put_together(header, b"\xff" * 40, len(raw), payloads)
    yield (
        "deflate-too-short",
        "LengthError",
        put_together(header, deflated(raw), len(raw) + 1, payloads),
    )
    yield (
        "deflate-too-long",
        "LengthError",
        put_together(header, deflated(raw), len(raw) - 1, payloads),
    )
    yield (
        "deflate-and-more",
        "LengthError",
        put_together(header, deflated(raw) + b"\0", len(raw), payloads),
    )
    yield "head-and-more", "TrailingBytesError", with_head(sqz, raw + b"\0")
    yield "head-cut", "LengthError", with_head(sqz, raw[:-9])
    yield "empty-head", "LengthError", with_head(sqz, b"")
    yield "endless-varint", "LengthError", with_head(sqz, b"\xff" * 11 + raw)
    yield (
        "payload-left-over",
        "TrailingBytesError",
        put_together(header, deflated(raw), len(raw), payloads + b"\0"),
    )
    yield (
        "payload-missing",
        "LengthError",
        put_together(header, deflated(raw), len(raw), payloads[:-1]),
    )
    name = sized(b"conv.weight")
    for title, error, record in (
        ("coder-200", "CoderError", name + b"\xc8"),
        ("name-no-utf8", "HeadError", sized(b"conv.weigh\xff")),
        ("nine-axes", "LengthError", name + b"\x00\x09"),
    ):
        at = raw.rindex(name)
        yield title, error, with_head(sqz, raw[:at] + record + raw[at + len(record) :])
    at = raw.rindex(sized(b"conv.bias"))
    twice = raw[:at] + name + raw[at + 10 :]
    yield "one-name-twice", "HeadError", with_head(sqz, twice)


def metadata() -> Iterator[Case]:
    sqz = files()[0]

    def case(title: str, text: object) -> Case:
        data = text if isinstance(text, bytes) else json.dumps(text).encode()
        return f"metadata-{title}", "HeadError", with_metadata(sqz, data)

    how = GOOD["preprocessing"]
    yield case("no-json", b"{")
    yield case("no-object", [])
    yield case("cut", json.dumps(GOOD).encode()[:-1])
    yield case("no-utf8", b'{"name":"\xff"}')
    yield case("no-name", {k: v for k, v in GOOD.items() if k != "name"})
    yield case("name-a-number", {**GOOD, "name": 7})
    yield case("no-preprocessing", {k: v for k, v in GOOD.items() if k != "preprocessing"})
    yield case("crop-a-text", {**GOOD, "preprocessing": {**how, "crop": "4"}})
    yield case("crop-true", {**GOOD, "preprocessing": {**how, "crop": True}})
    yield case("crop-0", {**GOOD, "preprocessing": {**how, "crop": 0}})
    yield case("resize-below-crop", {**GOOD, "preprocessing": {**how, "resize": 3}})
    yield case("std-0", {**GOOD, "preprocessing": {**how, "std": [0]}})
    yield case("mean-of-3-for-1", {**GOOD, "preprocessing": {**how, "mean": [0, 0, 0]}})
    yield case("colour-unknown", {**GOOD, "preprocessing": {**how, "color": "CMYK"}})
    yield case("mode-unknown", {**GOOD, "preprocessing": {**how, "resize_mode": "magic"}})
    yield case("labels-a-text", {**GOOD, "labels": "ab"})
    yield case("labels-numbers", {**GOOD, "labels": [1, 2]})
    yield case("ids-too-few", {**GOOD, "label_ids": ["a"]})
    yield case("range-turned", {**GOOD, "activations": {"a": [2, 1]}})
    yield case("range-tiny", {**GOOD, "activations": {"a": [-1e-46, 0]}})
    yield case("range-huge", {**GOOD, "activations": {"a": [-3e38, 3e38]}})
    yield case("range-of-3", {**GOOD, "activations": {"a": [0, 1, 2]}})
    yield case("trained-on-a-number", {**GOOD, "trained_on": 3})
    yield case("deep", json.dumps(GOOD)[:-1].encode() + b',"x":' + b"[" * 100 + b"]" * 100 + b"}")
    yield (
        "metadata-3-labels-of-2",
        "GraphError",
        with_metadata(sqz, json.dumps({**GOOD, "labels": ["a", "b", "c"]}).encode()),
    )


def graphs() -> Iterator[Case]:
    yield "graph-none", "GraphError", with_graph(b"")
    yield "graph-no-protobuf", "GraphError", with_graph(b"\xff" * 30)
    yield "graph-cut", "GraphError", with_graph(whole_graph().SerializeToString()[:-4])
    yield "graph-reads-a-file", "GraphError", forged(reading("canary"))
    # Either may be found first: an unknown operator, or a graph within an attribute.
    yield "graph-loops", "OperatorError GraphError", forged(loop())
    for name in SPOILED:
        yield f"graph-{name.replace(' ', '-')}", "GraphError", forged(spoiled(name))
    for name in OTHERS:
        error = "GraphError" if name in ("with a graph", "with a tensor") else "OperatorError"
        yield f"operator-{name.replace(' ', '-')}", error, forged(other_operator(name))


def payloads() -> Iterator[Case]:
    """Payloads that do not decode, with right checksums: one for each coder."""
    for sqz, coder in zip(
        (files()[i] for i in (0, 2, 6, 7)), ("entropy", "dense", "shared", "huffman"), strict=True
    ):
        header, raw, stored = taken_apart(sqz)
        record = max(container.read_head(sqz).records, key=lambda one: one.payload_bytes)
        start = record.offset - (len(sqz) - len(stored))
        payload = stored[start : start + record.payload_bytes]
        values = container.decode(sqz).values()[record.name].copy()
        values.flat[0], values.flat[1] = np.inf, np.nan
        no_numbers = {
            "entropy": entropy.encode_floats(values)[1],
            "dense": values.astype("<f4").tobytes(),
        }
        for title, changed in (
            ("short", payload[:-6]),
            ("long", payload + b"\0\0"),
            ("empty", b""),
            *(("not-finite", data) for kind, data in no_numbers.items() if kind == coder),
        ):
            before = varint(record.payload_bytes) + struct.pack("<I", record.checksum)
            after = varint(len(changed)) + struct.pack("<I", zlib.crc32(changed))
            head = raw.replace(before, after, 1)
            rest = stored[:start] + changed + stored[start + record.payload_bytes :]
            yield (
                f"{coder}-{title}",
                "CoderError",
                put_together(header, deflated(head), len(head), rest),
            )


def cases() -> list[Case]:
    return [*headers(), *heads(), *metadata(), *graphs(), *payloads()]


def main() -> None:
    for old in HERE.glob("*.sqz"):
        old.unlink()
    found = cases()
    for name, _, data in found:
        (HERE / f"{name}.sqz").write_bytes(data)
    errors = {f"{name}.sqz": error for name, error, _ in found}
    (HERE / "errors.json").write_text(json.dumps(errors, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
