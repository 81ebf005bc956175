"""`compress --method best --target-bytes` now beside an earlier commit: CPU seconds, bytes, memory.

    python bench/best_speed.py [--against 36a259b] [--only v1.1] [--threads 1]

Both commits run the same command line on the same files, one after the other, each in a process of
its own: the published SqueezeNet v1.0, the authors' v1.1, and MobileNetV2, as `.onnx` files with
labels. Files of `imagenet-500` whose number divides by 4 calibrate (250); the others measure top-1
and the divergence from the original. CPU seconds are those of the process and its children, user's
and system's: other work on the machine changes them far less than the time on the clock. `--only`
measures one network, and keeps what the file of results has of the others.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import common

NETWORKS = {  # file in the folder of data, bytes asked for
    "SqueezeNet v1.0, published": (common.PUBLISHED, 240_000),
    "SqueezeNet v1.1": (Path("networks", "squeezenet-1.1-caffe.safetensors"), 200_000),
    "MobileNetV2 1.0 at 224": (Path("networks", "mobilenet_v2_1.0_224_quant.tflite"), 1_000_000),
}


def unpacked(commit: str, folder: Path) -> Path:
    """The sources of a commit, to be put on PYTHONPATH."""
    archive = subprocess.run(
        ["git", "-C", common.ROOT, "archive", commit, "src"], stdout=subprocess.PIPE, check=True
    )
    subprocess.run(["tar", "-x", "-C", folder], input=archive.stdout, check=True)
    return folder / "src"


def write_photos(images, folder: Path) -> None:
    """The two halves as the folders `train` and `val`, which both commits read."""
    for part, half in zip(("train", "val"), common.halves(images), strict=True):
        for path in map(Path, map(str, half.paths)):
            (folder / part / path.parent.name).mkdir(parents=True, exist_ok=True)
            shutil.copy(path, folder / part / path.parent.name / path.name)


def compress(source: Path, weights: Path, photos: Path, target: int, threads: int, out: Path):
    """Run the command with the sources of one commit; what it took."""
    command = [sys.executable, "-m", "squeezekit", "compress", weights, "--method", "best"]
    command += ["--data", photos, "--target-bytes", str(target), "-o", out, "--json"]
    environment = {**os.environ, "PYTHONPATH": str(source), "OMP_NUM_THREADS": str(threads)}
    environment["SQUEEZEKIT_CACHE"] = str(out.with_suffix(".cache"))
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True)
    assert process.stdout is not None
    said = process.stdout.read()
    _, status, used = os.wait4(process.pid, 0)
    wall = time.perf_counter() - start
    if status:
        raise SystemExit(f"compress failed with the sources in {source}")
    stages = json.loads(said)["stages"]
    return {
        "cpu_seconds": round(used.ru_utime + used.ru_stime, 1),
        "wall_seconds": round(wall, 1),
        "peak_memory_bytes": used.ru_maxrss * 1024,
        "file_bytes": out.stat().st_size,
        "top1_before": stages[0]["top1"],
        "top1": stages[-1]["top1"],
    }


def main() -> None:
    parser = common.options(__doc__)
    parser.add_argument("--against", default="36a259b", help="a commit")
    parser.add_argument("--only", help="of the networks whose name has this")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    from squeezekit.compression.rounder import divergence_of
    from squeezekit.interop import onnx_file
    from squeezekit.sqz import container

    rows = json.loads(args.out.read_text())["networks"] if args.only and args.out.exists() else {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        sources = {"before": unpacked(args.against, folder), "now": common.ROOT / "src"}
        for name, (file, target) in NETWORKS.items():
            if args.only and args.only not in name:
                continue
            network = common.labelled(args.data / file, args.data)
            weights = folder / "network.onnx"
            onnx_file.write(network, weights)
            images = common.imagenet(args.data, network.metadata)
            write_photos(images, folder / "photos")
            logits = common.logits_on(
                common.pixels_of(common.halves(images)[1], network.metadata.preprocessing)
            )
            reference = logits(network)
            row = {"target_bytes": target}
            for which, source in sources.items():
                out = folder / f"{which}.sqz"
                row[which] = compress(source, weights, folder / "photos", target, args.threads, out)
                answers = logits(container.read(out))
                row[which]["divergence_nats"] = round(divergence_of(reference, answers), 4)
                print(f"{name}, {which}: {json.dumps(row[which])}", flush=True)
            for figure in ("cpu_seconds", "wall_seconds"):
                row[f"{figure}_now_over_before"] = round(
                    row["now"][figure] / row["before"][figure], 3
                )
            row["now_of_target"] = round(row["now"]["file_bytes"] / target, 4)
            row["commit"] = common.COMMIT
            rows[name] = row
    common.record(
        args.out,
        {
            "against": args.against,
            "calibration_images": 250,
            "held_out_images": 250,
            "threads": args.threads,
            "networks": rows,
        },
    )


if __name__ == "__main__":
    main()
