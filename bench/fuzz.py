"""Fuzz one reader of strangers' files, or all of them, and write down what came of it.

    python bench/fuzz.py READER [--seconds 60]

READER is one of samples/damaged_files.py (container, graph, head, metadata, int8, backends, c,
delta, onnx, safetensors, pth, caffe, tflite, net, labels, images), "all" of these, or "library":
the C library by libFuzzer under sanitizers, which needs clang. Python readers are fuzzed by
atheris, led by coverage, where it is installed (pip install atheris), else by damage to small
files from a seed. A finding is any exception that is not a SqueezekitError: its file is left in
the working folder as fuzz-READER-N, and this fails.
"""

from __future__ import annotations

import argparse
import importlib.util
import random
import re
import subprocess
import sys
import tempfile
import time
import traceback
import zlib
from pathlib import Path
from typing import Any

from common import ROOT, options, record

# ------------------------------------------------------------------------------- Python's readers


def by_damage(name: str, seconds: float) -> dict[str, Any]:
    """Damage to seeds by a seeded generator, until the time is over."""
    from damaged_files import READERS, refused

    reader, rng = READERS[name], random.Random(name)
    seeds = reader.seeds()
    until = time.monotonic() + seconds
    executions = read = 0
    findings: dict[str, str] = {}
    while time.monotonic() < until:
        data = reader.damage(rng, rng.choice(seeds))
        executions += 1
        try:
            read += refused(reader, data) is None
        except Exception:
            where = traceback.format_exc().splitlines()
            key = " ".join(line.strip() for line in where if line.startswith("  File"))
            if key not in findings:
                findings[key] = where[-1]
                Path(f"fuzz-{name}-{len(findings)}").write_bytes(data)
    return {
        "by": "damage",
        "executions": executions,
        "read": read,
        "findings": sorted(findings.values()),
    }


def by_atheris(name: str, seconds: int) -> dict[str, Any]:
    """In a process of its own, which atheris ends."""
    with tempfile.TemporaryDirectory() as corpus:
        done = subprocess.run(
            [sys.executable, __file__, name, "--seconds", str(seconds), "--corpus", corpus],
            capture_output=True, text=True,
        )  # fmt: skip
    stats = dict(re.findall(r"stat::(\w+):\s+(\d+)", done.stderr))
    edges = re.findall(r"cov: (\d+)", done.stderr)
    findings = re.findall(r"=== Uncaught Python exception: ===\n(.*)", done.stdout + done.stderr)
    if done.returncode and not findings:
        findings = [done.stderr[-600:]]
    return {
        "by": "atheris",
        "executions": int(stats.get("number_of_executed_units", 0)),
        "edges": int(edges[-1]) if edges else 0,
        "peak_mebibytes": int(stats.get("peak_rss_mb", 0)),
        "findings": findings,
    }


def run_atheris(name: str, seconds: int, corpus: Path) -> None:
    """Never returns."""
    import atheris

    with atheris.instrument_imports(include=["squeezekit"]):
        from damaged_files import READERS, refused
    reader = READERS[name]
    seeds = reader.seeds()
    for i, seed in enumerate(seeds):
        (corpus / f"seed-{i}").write_bytes(seed)

    def mutated(data: bytes, most: int, seed: int) -> bytes:
        rng = random.Random(seed)
        changed = (
            reader.damage(rng, rng.choice(seeds))
            if rng.random() < 0.3
            else atheris.Mutate(data, most)
        )
        return changed[:most]

    def one(data: bytes) -> None:
        refused(reader, data)

    atheris.Setup(
        [sys.argv[0], f"-max_total_time={seconds}", "-max_len=65536", "-timeout=30",
         "-rss_limit_mb=4096", "-print_final_stats=1", f"-artifact_prefix=fuzz-{name}-",
         str(corpus)],
        one, custom_mutator=mutated,
    )  # fmt: skip
    atheris.Fuzz()


# ------------------------------------------------------------------------------------ C's library


def library_seeds(folder: Path) -> int:
    """Small networks by every coder and in int8, and every operator of the C library."""
    from operator_graphs import networks
    from small_networks import ranged, shared, small_networks

    from squeezekit.sqz import container
    from squeezekit.sqz.coders import text

    made = [(network, coder) for network in networks() for coder in ("dense",)]
    for network in small_networks().values():
        made += [(n, c) for n in (network, shared(network)) for c in ("entropy", "huffman")]
        made.append((ranged(shared(network)), "entropy"))
    count = 0
    for network, coder in made:
        sqz = container.encode(network, coder)
        if len(sqz) > 65_000:
            continue
        stored = int.from_bytes(sqz[12:16], "little")
        coded, raw = sqz[24 : 24 + stored], int.from_bytes(sqz[16:20], "little")
        is_text = sqz[6] == 2
        head = text.decode(coded, raw) if is_text else zlib.decompress(coded, -15)
        split = b"\x01" + len(head).to_bytes(2, "little") + head + sqz[24 + stored :]
        for kind, data in (("file", b"\x00" + sqz), ("head", split)):
            (folder / f"{count}-{coder}-{kind}").write_bytes(data)
            count += 1
    return count


def library(seconds: int) -> dict[str, Any]:
    """The C library by libFuzzer."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        sources = sorted((ROOT / "native/sqz").glob("*.c"))
        subprocess.run(
            ["clang", "-g", "-O1", "-std=c99", "-fsanitize=fuzzer,address,undefined",
             "-fno-sanitize-recover=all", "-DFUZZING_BUILD_MODE_UNSAFE_FOR_PRODUCTION",
             ROOT / "native/fuzz.c", *sources, "-o", folder / "fuzz"],
            check=True,
        )  # fmt: skip
        (folder / "corpus").mkdir()
        count = library_seeds(folder / "corpus")
        done = subprocess.run(
            [folder / "fuzz", f"-max_total_time={seconds}", "-max_len=65536", "-timeout=60",
             "-rss_limit_mb=2048", "-print_final_stats=1", f"-artifact_prefix={Path.cwd()}/",
             folder / "corpus"],
            capture_output=True, text=True,
        )  # fmt: skip
        corpus = len(list((folder / "corpus").iterdir()))
    if done.returncode:
        sys.exit(done.stderr[-6000:])
    last = [line for line in done.stderr.splitlines() if "cov:" in line][-1]
    stats = dict(re.findall(r"stat::(\w+):\s+(\d+)", done.stderr))
    return {
        "seconds": seconds,
        "sanitizers": "address, undefined",
        "findings": 0,
        "executions": int(stats["number_of_executed_units"]),
        "seeds": count,
        "corpus": corpus,
        "edges_covered": int(re.search(r"cov: (\d+)", last)[1]),
        "peak_mebibytes": int(stats["peak_rss_mb"]),
    }


def main() -> None:
    parser = options(__doc__, data=False, result="fuzz_READER.json")
    parser.add_argument("reader")
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--corpus", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    out = args.out.with_name(args.out.name.replace("READER", args.reader))
    if args.corpus:
        run_atheris(args.reader, args.seconds, args.corpus)
    if args.reader == "library":
        figures = library(args.seconds)
        print(figures)
        record(out, figures)
        return
    from damaged_files import READERS

    names = list(READERS) if args.reader == "all" else [args.reader]
    if not set(names) <= READERS.keys():
        parser.error(f"there is no reader {args.reader}: {', '.join(READERS)}, all, library")
    led = importlib.util.find_spec("atheris") is not None
    results = {}
    for name in names:
        results[name] = (by_atheris if led else by_damage)(name, args.seconds)
        print(name, results[name], flush=True)
    record(out, {"seconds_each": args.seconds, "readers": results})
    if any(result["findings"] for result in results.values()):
        sys.exit(1)


if __name__ == "__main__":
    main()
