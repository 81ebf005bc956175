"""Damaged files through every reader: none may end in a foreign exception or a wrong answer.

    python bench/damage.py [--seconds 360] [--add]

In turns, until the time is over: 250 `.sqz` files of floats and 250 of int8, then 100 files of
every other kind (10 of `.net`, which are large); images at the end. Half of the `.sqz` files have
damage anywhere, half have their checksums mended. Python opens and runs each `.sqz` as `predict`
does, and the C library too, built with the sanitizers (native/judge.c; needs clang); one of 25
also goes through the page's build. They must agree on whether it can be read and on the scores, and
every small tensor of the entropy coder must be what samples/reference_decoder.py, a second decoder
in plain Python, makes of it. The limits are 0.5 CPU seconds a file and 150 MB beyond the readers
themselves; of an image, which may be large, 10 CPU seconds. Each finding leaves its file in the
working folder as damage-KIND-N. With --add the counts are added to those that the result has.
"""

from __future__ import annotations

import fcntl
import json
import math
import random
import re
import resource
import struct
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from common import COMMIT, ROOT, options, record
from damaged_files import READERS, Reader, damaged, float_sqz, int8_sqz, mended_sqz, refused
from reference_decoder import floats
from small_networks import small_squeezenet

from squeezekit.errors import LimitError, SqueezekitError
from squeezekit.interop.page_runtime import PageRuntime
from squeezekit.runtime.classifier import from_network
from squeezekit.sqz import container

MOST_SECONDS, MOST_SECONDS_OF_IMAGE, MOST_MEGABYTES = 0.5, 10, 150
SQZ = {"sqz float": float_sqz, "sqz int8": int8_sqz}
IN_SQZ = ("container", "head", "int8", "backends", "c")
OTHERS = [name for name in READERS if name not in (*IN_SQZ, "images")]
EACH_TURN = 250
EACH_TURN_OF_OTHERS = dict.fromkeys(OTHERS, 100) | {"net": 10}
SECONDS_OF_IMAGES = 0.05
"""Of all; they come last, as many pixels take more memory than all else."""
PAGE_OF = 25
_REFERENCE_NUMBERS = 400
"""Of a tensor, for the decoder in plain Python."""
_C_LIMIT = 13  # SQZ_LIMIT


def megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


class Tally:
    """What came of the files of one kind."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.most_seconds = MOST_SECONDS_OF_IMAGE if kind == "images" else MOST_SECONDS
        self.counts: Counter[str] = Counter(files=0)
        self.findings: Counter[str] = Counter()
        self.slowest = 0.0

    def found(self, what: str, data: bytes) -> None:
        what = re.sub(r"[0-9]+", "#", what)[:160]
        if what not in self.findings:
            Path(f"damage-{self.kind}-{len(self.findings)}".replace(" ", "-")).write_bytes(data)
            print(self.kind, what, flush=True)
        self.findings[what] += 1

    def timed(self, reader: Reader, data: bytes) -> None:
        """Read, or refused by an error of ours."""
        self.counts["files"] += 1
        start = time.process_time()
        try:
            error = refused(reader, data)
        except Exception as other:
            self.found(f"{type(other).__name__}: {other}", data)
            return
        self.took(time.process_time() - start, data)
        self.counts["read" if error is None else "refused"] += 1

    def took(self, seconds: float, data: bytes) -> None:
        self.slowest = max(self.slowest, seconds)
        if seconds > self.most_seconds:
            self.found("over the limit of CPU seconds", data)

    def as_json(self) -> dict[str, Any]:
        return {
            **self.counts,
            "slowest_cpu_seconds": round(self.slowest, 3),
            "findings": dict(self.findings),
        }


# ------------------------------------------------------------------------------------------ .sqz


@dataclass
class Judged:
    """What Python made of a `.sqz`.

    Attributes:
        data: the file.
        error: why it was refused; None if it was read.
        image: float32 (channels, crop, crop), what it was asked; empty if it was not read.
        scores: float32 (classes,), or None where no runtime takes the network.
        is_int8: whether it runs in int8, as it has ranges of activations.
    """

    data: bytes
    error: type[SqueezekitError] | None = None
    image: np.ndarray = field(default_factory=lambda: np.empty(0, np.float32))
    scores: np.ndarray | None = None
    is_int8: bool = False


def judged(data: bytes, tally: Tally) -> Judged | None:
    """Open a file and ask it, as `predict` does; None after a finding."""
    tally.counts["files"] += 1
    start = time.process_time()
    mine = Judged(data)
    try:
        network = container.decode(data)
        how = network.metadata.preprocessing
        image = np.linspace(-1, 1, how.channels * how.crop**2, dtype=np.float32)
        mine.image = image.reshape(how.channels, how.crop, how.crop)
        tally.counts["read"] += 1
        mine.is_int8 = bool(network.metadata.activations)  # what predict and C take by themselves
        mine.scores = from_network(network, 1, "onnxruntime").logits(mine.image[None])[0]
    except SqueezekitError as error:
        if not mine.image.size:
            mine.error = type(error)
            tally.counts["refused"] += 1
        else:
            tally.counts["not_run"] += 1
    except Exception as error:
        tally.found(f"{type(error).__name__}: {error}", data)
        return None
    tally.took(time.process_time() - start, data)
    if mine.error is None:
        by_second_decoder(data, network, tally)
    return mine


def by_second_decoder(data: bytes, network: container.Network, tally: Tally) -> None:
    for one in container.read_head(data).records:
        if one.coder == "entropy-float" and math.prod(one.shape) <= _REFERENCE_NUMBERS:
            payload = data[one.offset : one.offset + one.payload_bytes]
            bits = floats(payload, math.prod(one.shape), one.parameters[0])
            mine = np.asarray(network.tensors[one.name], "<f4").tobytes()
            if struct.pack(f"<{len(bits)}I", *bits) != mine:
                tally.found("a tensor that the second decoder decodes otherwise", data)
            tally.counts["tensors_by_second_decoder"] += 1


class CLibrary:
    """The C library with the sanitizers, in a process of its own."""

    def __init__(self, folder: Path) -> None:
        self._program = folder / "judge"
        subprocess.run(
            ["clang", "-g", "-O1", "-std=c99", "-fsanitize=address,undefined",
             "-fno-sanitize-recover=all", ROOT / "native/judge.c",
             *sorted((ROOT / "native/sqz").glob("*.c")), "-o", self._program],
            check=True,
        )  # fmt: skip

    def judge(self, files: list[Judged]) -> Iterator[tuple[int, float, float, np.ndarray]]:
        """Of each file its sqz_error, CPU seconds, megabytes and scores.

        Raises:
            RuntimeError: where a sanitizer found something.
        """
        said = b"".join(
            struct.pack("<2I", len(one.data), one.image.size) + one.data + one.image.tobytes()
            for one in files
        )
        done = subprocess.run([self._program], input=said, capture_output=True)
        if done.returncode:
            raise RuntimeError(done.stderr.decode(errors="replace")[:2000])
        at = 0
        for _ in files:
            error, microseconds, memory, count = struct.unpack_from("<4I", done.stdout, at)
            scores = np.frombuffer(done.stdout, "<f4", count, at + 16)
            yield error, microseconds / 1e6, memory / 1e6, scores
            at += 16 + 4 * count


def both_alike(files: list[Judged], c: CLibrary, tally: Tally) -> None:
    """Python and C judge files alike, and where they read one, say the same."""
    try:
        verdicts = list(c.judge(files))
    except RuntimeError:
        for one in files:  # which of them it was
            try:
                list(c.judge([one]))
            except RuntimeError as error:
                tally.found(f"a sanitizer of C: {error}", one.data)
        return
    for mine, (error, seconds, memory, scores) in zip(files, verdicts, strict=True):
        tally.took(seconds, mine.data)
        if memory > MOST_MEGABYTES:
            tally.found("over the limit of megabytes in C", mine.data)
        limited = mine.error is LimitError or error == _C_LIMIT
        runs = mine.error is None and (mine.scores is not None or error == 0)
        if runs != (error == 0) and not limited:
            tally.found(f"judged unlike: Python {mine.error}, C {error}", mine.data)
        if mine.error is not None or error:
            continue
        if len(scores) == 0:
            tally.found("C takes an image of another size", mine.data)
        elif mine.scores is not None:
            tally.counts["scores_compared"] += 1
            if not alike(mine, scores):
                tally.found("scores that Python and C compute otherwise", mine.data)


def alike(mine: Judged, theirs: np.ndarray) -> bool:
    """As far as two orders of summation may differ, or in int8 a step of the layer before.

    Huge and endless numbers are not compared.
    """
    scores, least = mine.scores, 0.05 if mine.is_int8 else 1e-4
    with np.errstate(all="ignore"):
        scale = max(1.0, float(np.abs(scores[np.isfinite(scores)]).max(initial=0)))
        if scale >= 1e30 or not np.isfinite(scores).all():
            return True
        return np.allclose(scores, theirs, rtol=1e-3, atol=least * scale, equal_nan=True)


def page_alike(mine: Judged, tally: Tally) -> None:
    """The page's build judges as Python does."""
    tally.counts["through_the_page"] += 1
    try:
        scores = PageRuntime(mine.data).logits(mine.image) if mine.image.size else None
        if scores is None:
            PageRuntime(mine.data)
            if mine.error is not LimitError:
                tally.found(f"judged unlike: Python {mine.error}, the page reads it", mine.data)
        elif mine.scores is not None and not alike(mine, scores):
            tally.found("scores that Python and the page compute otherwise", mine.data)
    except LimitError:
        pass
    except SqueezekitError as error:
        if mine.scores is not None:
            tally.found(f"judged unlike: Python reads it, the page {type(error)}", mine.data)


def turn_of_sqz(rng: random.Random, tally: Tally, c: CLibrary) -> None:
    seeds = SQZ[tally.kind]()
    files = []
    for number in range(EACH_TURN):
        mended = number % 2
        tally.counts["checksums_mended"] += mended
        data = (mended_sqz if mended else damaged)(rng, rng.choice(seeds))
        mine = judged(data, tally)
        if mine is not None:
            files.append(mine)
            if number % PAGE_OF == 0:
                page_alike(mine, tally)
    both_alike(files, c, tally)


# ------------------------------------------------------------------------------------------ all


def warmed_up() -> None:
    """The memory of the libraries themselves."""
    from_network(small_squeezenet()).logits(np.zeros((1, 3, 41, 41), np.float32))
    for reader in READERS.values():
        for seed in reader.seeds():
            refused(reader, seed)


def run(seconds: float, seed: int) -> dict[str, Any]:
    """What came of one seed."""
    rng = random.Random(seed)
    tallies = {kind: Tally(kind) for kind in [*SQZ, *OTHERS, "images"]}
    warmed_up()
    with tempfile.TemporaryDirectory() as folder:
        c = CLibrary(Path(folder))
        start, before, turns = time.monotonic(), megabytes(), 0
        while time.monotonic() < start + (1 - SECONDS_OF_IMAGES) * seconds:
            turns += 1
            for kind in SQZ:
                turn_of_sqz(rng, tallies[kind], c)
            for kind, count in EACH_TURN_OF_OTHERS.items():
                seeds = READERS[kind].seeds()
                for _ in range(count):
                    data = READERS[kind].damage(rng, rng.choice(seeds))
                    tallies[kind].timed(READERS[kind], data)
    beyond = megabytes() - before
    seeds = READERS["images"].seeds()
    while time.monotonic() < start + seconds:
        data = READERS["images"].damage(rng, rng.choice(seeds))
        tallies["images"].timed(READERS["images"], data)
    return {
        "runs": [{"seed": seed, "seconds": seconds, "turns": turns, "commit": COMMIT}],
        "megabytes_beyond_the_start": round(beyond, 1),
        "kinds": {kind: tally.as_json() for kind, tally in tallies.items()},
    }


def together(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """Counts added up; of times and memory the largest."""
    kinds = {}
    for kind in new["kinds"]:
        one, other = old["kinds"].get(kind, {}), new["kinds"][kind]
        counts = Counter({k: v for k, v in one.items() if isinstance(v, int)})
        counts.update({k: v for k, v in other.items() if isinstance(v, int)})
        findings = Counter(one.get("findings", {})) + Counter(other["findings"])
        slowest = max(one.get("slowest_cpu_seconds", 0), other["slowest_cpu_seconds"])
        kinds[kind] = {**counts, "slowest_cpu_seconds": slowest, "findings": dict(findings)}
    memory = "megabytes_beyond_the_start"
    return {
        "runs": old["runs"] + new["runs"],
        memory: max(old[memory], new[memory]),
        "kinds": kinds,
    }


def main() -> None:
    parser = options(__doc__, data=False)
    parser.add_argument("--seconds", type=float, default=360)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--add", action="store_true", help="to what --out has")
    args = parser.parse_args()
    figures = new = run(args.seconds, args.seed)
    with Path(tempfile.gettempdir(), "squeezekit-damage.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two processes may add to one result
        if args.add and args.out.exists():
            figures = together(json.loads(args.out.read_text()), new)
        kinds = figures["kinds"]
        figures = {
            "limits": {
                "cpu_seconds": MOST_SECONDS,
                "cpu_seconds_of_an_image": MOST_SECONDS_OF_IMAGE,
                "megabytes": MOST_MEGABYTES,
            },
            "sqz_files": sum(kinds[kind]["files"] for kind in SQZ),
            "other_files": sum(kinds[kind]["files"] for kind in [*OTHERS, "images"]),
            "findings": sum(sum(kind["findings"].values()) for kind in kinds.values()),
            **figures,
        }
        record(args.out, figures)
    found = any(kind["findings"] for kind in new["kinds"].values())
    if found or new["megabytes_beyond_the_start"] > MOST_MEGABYTES:
        sys.exit(1)


if __name__ == "__main__":
    main()
