"""Damaged files through every reader: none may end in a foreign exception or a wrong answer.

    python bench/damage.py [--seconds 360] [--seed 1]

Half of the time goes to `.sqz` files, of floats and of int8: half of them with damage anywhere,
half with their checksums mended. Python and C (as the page has it) judge each, and must agree on
whether it can be read. Where both read it, they must give the same scores, and every small tensor
of the entropy coder must be what samples/reference_decoder.py, a second decoder in plain Python,
makes of it. Damaged files of every other kind go through their readers. The limits are 0.5 CPU
seconds a file and 150 MB beyond the readers themselves; of an image, which may be large, 10 CPU
seconds.
"""

from __future__ import annotations

import math
import random
import resource
import struct
import sys
import time
from collections import Counter
from typing import Any

import numpy as np
from common import options, record
from damaged_files import READERS, Reader, damaged_sqz, float_sqz, int8_sqz, refused
from reference_decoder import floats
from small_networks import small_squeezenet

from squeezekit.errors import LimitError, SqueezekitError
from squeezekit.interop.page_runtime import PageRuntime
from squeezekit.runtime.classifier import from_network
from squeezekit.sqz import container

MOST_SECONDS, MOST_SECONDS_OF_IMAGE, MOST_MEGABYTES = 0.5, 10, 150
IN_SQZ = ("container", "head", "int8", "backends", "c")
_REFERENCE_NUMBERS = 400
"""Of a tensor, for the decoder in plain Python."""


def megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


class Tally:
    """What came of the files of one kind."""

    def __init__(self, most_seconds: float) -> None:
        self.most_seconds = most_seconds
        self.counts: Counter[str] = Counter()
        self.findings: Counter[str] = Counter()
        self.slowest = 0.0

    def timed(self, reader: Reader, data: bytes) -> bool:
        """Whether the file was read."""
        start = time.process_time()
        try:
            error = refused(reader, data)
        except Exception as found:
            self.findings[f"{type(found).__name__}: {str(found)[:120]}"] += 1
            return False
        seconds = time.process_time() - start
        self.slowest = max(self.slowest, seconds)
        if seconds > self.most_seconds:
            self.findings["over the limit of CPU seconds"] += 1
        self.counts["read" if error is None else "refused"] += 1
        return error is None

    def as_json(self) -> dict[str, Any]:
        return {
            "files": self.counts.total() + self.findings.total(),
            **self.counts,
            "slowest_cpu_seconds": round(self.slowest, 3),
            "findings": dict(self.findings),
        }


def both_alike(data: bytes, tally: Tally) -> None:
    """Python and C judge a `.sqz` alike, and where they read it, say the same."""
    python, c = kind_of(container.decode, data), kind_of(PageRuntime, data)
    if isinstance(python, type) or isinstance(c, type):
        if LimitError in (python, c):
            return
        if isinstance(python, type) != isinstance(c, type):
            tally.findings[f"judged unlike: Python {python}, C {c}"] += 1
        return
    tally.counts["compared"] += 1
    head = container.read_head(data)
    for one in head.records:
        if one.coder == "entropy-float" and math.prod(one.shape) <= _REFERENCE_NUMBERS:
            payload = data[one.offset : one.offset + one.payload_bytes]
            bits = floats(payload, math.prod(one.shape), one.parameters[0])
            mine = np.asarray(python.tensors[one.name], "<f4").tobytes()
            if struct.pack(f"<{len(bits)}I", *bits) != mine:
                tally.findings["a tensor that the second decoder decodes otherwise"] += 1
            tally.counts["tensors_by_second_decoder"] += 1
    how = python.metadata.preprocessing
    image = np.linspace(-1, 1, how.channels * how.crop**2, dtype=np.float32)
    image = image.reshape(how.channels, how.crop, how.crop)
    try:
        scores = from_network(python, 1, "onnxruntime", "float").logits(image[None])[0]
    except SqueezekitError:
        tally.counts["not_run"] += 1
        return
    theirs = c.logits(image)
    with np.errstate(all="ignore"):
        scale = max(1.0, float(np.abs(scores[np.isfinite(scores)]).max(initial=0)))
        same = np.allclose(scores, theirs, rtol=1e-3, atol=1e-4 * scale, equal_nan=True)
    if not same and np.isfinite(scores).all() and scale < 1e30:
        tally.findings["scores that Python and C compute otherwise"] += 1


def kind_of(read: Any, data: bytes) -> Any:
    """What is read, or the class of the error."""
    try:
        return read(data)
    except SqueezekitError as error:
        return type(error)


def main() -> None:
    parser = options(__doc__, data=False)
    parser.add_argument("--seconds", type=float, default=360)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    rng = random.Random(args.seed)
    kinds: dict[str, list[bytes]] = {"sqz float": float_sqz(), "sqz int8": int8_sqz()}
    others = {name: reader for name, reader in READERS.items() if name not in IN_SQZ}
    share = dict.fromkeys(kinds, args.seconds / 4)
    assert list(others)[-1] == "images"
    share |= {name: args.seconds / 2 / len(others) for name in others}
    tallies = {
        name: Tally(MOST_SECONDS_OF_IMAGE if name == "images" else MOST_SECONDS) for name in share
    }
    from_network(small_squeezenet()).logits(np.zeros((1, 3, 41, 41), np.float32))
    for name, reader in READERS.items():  # the memory of the libraries themselves
        for seed in reader.seeds():
            refused(reader, seed)
        assert name
    before = beyond = megabytes()
    for name, seconds in share.items():
        tally, until = tallies[name], time.monotonic() + seconds
        reader = READERS["backends"] if name in kinds else others[name]
        seeds = kinds.get(name) or reader.seeds()
        while time.monotonic() < until:
            seed = rng.choice(seeds)
            data = damaged_sqz(rng, seed) if name in kinds else reader.damage(rng, seed)
            tally.timed(reader, data)
            if name in kinds:
                try:
                    both_alike(data, tally)
                except Exception as found:
                    tally.findings[f"{type(found).__name__}: {str(found)[:120]}"] += 1
        print(name, tally.as_json(), flush=True)
        if name != "images":  # the last: as many pixels as an image may have take more
            beyond = megabytes()
    beyond -= before
    figures = {
        "seconds": args.seconds,
        "seed": args.seed,
        "limits": {
            "cpu_seconds": MOST_SECONDS,
            "cpu_seconds_of_an_image": MOST_SECONDS_OF_IMAGE,
            "megabytes": MOST_MEGABYTES,
        },
        "files": sum(tally.counts["read"] + tally.counts["refused"] for tally in tallies.values()),
        "findings": sum(tally.findings.total() for tally in tallies.values()),
        "megabytes_beyond_the_start": round(beyond, 1),
        "kinds": {name: tally.as_json() for name, tally in tallies.items()},
    }
    record(args.out, figures)
    if figures["findings"] or beyond > MOST_MEGABYTES:
        sys.exit(1)


if __name__ == "__main__":
    main()
