"""Fuzz the C library: build native/fuzz.c, start from small networks, write down what came of it.

python bench/fuzz.py [--seconds 1500]. Needs clang with libFuzzer. Writes bench/results/fuzz.json;
what crashes is left in the working folder, and makes this fail.
"""

import argparse
import re
import subprocess
import sys
import tempfile
import zlib
from pathlib import Path

from record import record

from squeezekit.models.builder import GraphBuilder
from squeezekit.models.fold import fold_batch_norm
from squeezekit.models.squeezenet import SqueezeNetConfig, squeezenet
from squeezekit.sqz import container
from squeezekit.sqz.coders import text
from squeezekit.sqz.network import Metadata, Preprocessing, SharedTensor

ROOT = Path(__file__).resolve().parent.parent


def small_networks():
    """Every operator, in few bytes."""
    for bypass in ("none", "simple", "complex"):
        yield squeezenet(
            SqueezeNetConfig(
                classes=3, input_size=19, channels=1 if bypass == "none" else 3, conv1_filters=4,
                conv1_kernel=3, fires=3, base_e=8, incr_e=4, pool_after=("conv1", "fire2"),
                bypass=bypass, conv10_pad=1,
            ),
            labels=("a", "b\u00e4", "c"),
        )  # fmt: skip
    net = GraphBuilder(3, 12, 12)  # what AlexNet has and SqueezeNets have not
    x = net.lrn("norm1", net.relu("relu1", net.max_pool("pool1", net.image, 3, 2)), 3)
    x = net.average_pool("pool2", net.conv("conv2", x, 6, 3, pad=1, groups=3), 2, 1)
    x = net.linear("fc3", net.dropout("drop3", net.flatten("flatten", x), 0.5), 4)
    yield net.build(x, Metadata("small", Preprocessing(crop=12, resize=14, resize_mode="warp")))


def rounded(network):
    """With few distinct weights, as after weight sharing; wide layers cut to what is small."""
    tensors = {
        name: SharedTensor.from_values((tensor * 8).round() / 8)
        for name, tensor in network.tensors.items()
        if tensor.size < 20_000
    }
    return network.with_tensors(tensors)


def seeds(folder):
    count = 0
    for network in map(fold_batch_norm, small_networks()):
        for version in (network, rounded(network)):
            for coder in ("entropy", "huffman", "dense"):
                sqz = container.encode(version, coder)
                if len(sqz) > 150_000:
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


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=1500)
    parser.add_argument("--out", type=Path, default=ROOT / "bench/results/fuzz.json")
    args = parser.parse_args()
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
        count = seeds(folder / "corpus")
        done = subprocess.run(
            [folder / "fuzz", f"-max_total_time={args.seconds}", "-max_len=65536", "-timeout=60",
             "-rss_limit_mb=2048", "-print_final_stats=1", f"-artifact_prefix={Path.cwd()}/",
             folder / "corpus"],
            capture_output=True, text=True,
        )  # fmt: skip
        last = [line for line in done.stderr.splitlines() if "cov:" in line][-1]
        stats = dict(re.findall(r"stat::(\w+):\s+(\d+)", done.stderr))
        corpus = len(list((folder / "corpus").iterdir()))
    if done.returncode:
        sys.exit(done.stderr[-6000:])
    record(
        args.out,
        {
            "seconds": args.seconds,
            "sanitizers": "address, undefined",
            "findings": 0,
            "executions": int(stats["number_of_executed_units"]),
            "seeds": count,
            "corpus": corpus,
            "edges_covered": int(re.search(r"cov: (\d+)", last)[1]),
            "peak_mebibytes": int(stats["peak_rss_mb"]),
        },
    )


if __name__ == "__main__":
    main()
