"""`compress --method best --target-bytes` now beside an earlier commit: CPU seconds, bytes, memory.

    python bench/best_speed.py [--against 36a259b] [--only v1.1] [--threads 1] [--photos 250]

Both commits run the same command line on the same files, each in a process of its own: the
published SqueezeNet v1.0, the authors' v1.1, and MobileNetV2, as `.onnx` files with labels. They
take turns of five seconds, and whoever has no turn is stopped, so that other work on the machine
slows down both alike. Files of `imagenet-500` whose number divides by 4 calibrate; the others
measure top-1 and the divergence from the original. CPU seconds are those of the process and its
children, user's and system's; wall seconds count its own turns only. `--only` measures one network,
and keeps what the file of results has of the others.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import common

TURN_SECONDS = 5

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


def write_photos(images, count: int, folder: Path) -> None:
    """The two halves as the folders `train` and `val`, which both commits read."""
    ours, others = common.halves(images)
    ours = ours.subset([i * len(ours) // count for i in range(count)])
    for part, half in (("train", ours), ("val", others)):
        for path in map(Path, map(str, half.paths)):
            (folder / part / path.parent.name).mkdir(parents=True, exist_ok=True)
            shutil.copy(path, folder / part / path.parent.name / path.name)


class Compression:
    """The command with the sources of one commit, stopped until it has a turn."""

    def __init__(
        self, source: Path, weights: Path, photos: Path, target: int, threads: int, out: Path
    ) -> None:
        command = [sys.executable, "-m", "squeezekit", "compress", weights, "--method", "best"]
        command += ["--data", photos, "--target-bytes", str(target), "-o", out, "--json"]
        environment = {**os.environ, "PYTHONPATH": str(source), "OMP_NUM_THREADS": str(threads)}
        environment["SQUEEZEKIT_CACHE"] = str(out.with_suffix(".cache"))
        self.source, self.out, self.said = source, out, out.with_suffix(".json")
        with self.said.open("w") as said:
            self.process = subprocess.Popen(command, stdout=said, env=environment)
        self.process.send_signal(signal.SIGSTOP)
        self.wall, self.figures = 0.0, None

    def turn(self) -> bool:
        """Let it run for a while; True once it has ended."""
        start = time.perf_counter()
        self.process.send_signal(signal.SIGCONT)
        while (elapsed := time.perf_counter() - start) < TURN_SECONDS:
            found, status, used = os.wait4(self.process.pid, os.WNOHANG)
            if found:
                self.wall += elapsed
                self._end(status, used)
                return True
            time.sleep(0.05)
        self.process.send_signal(signal.SIGSTOP)
        self.wall += time.perf_counter() - start
        return False

    def _end(self, status: int, used: resource.struct_rusage) -> None:
        self.process.returncode = os.waitstatus_to_exitcode(status)
        if status:
            raise SystemExit(f"compress failed with the sources in {self.source}")
        stages = json.loads(self.said.read_text())["stages"]
        self.figures = {
            "cpu_seconds": round(used.ru_utime + used.ru_stime, 1),
            "wall_seconds": round(self.wall, 1),
            "peak_memory_bytes": used.ru_maxrss * 1024,
            "file_bytes": self.out.stat().st_size,
            "top1_before": stages[0]["top1"],
            "top1": stages[-1]["top1"],
        }


def in_turns(running: list[Compression]) -> None:
    """Run them to their ends."""
    try:
        while running:
            running = [each for each in running if not each.turn()]
    finally:
        for each in running:
            each.process.kill()


def main() -> None:
    parser = common.options(__doc__)
    parser.add_argument("--against", default="36a259b", help="a commit")
    parser.add_argument("--only", help="of the networks whose name has this")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--photos", type=int, default=250, help="to calibrate with, at most 250")
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
            write_photos(images, args.photos, folder / "photos")
            logits = common.logits_on(
                common.pixels_of(common.halves(images)[1], network.metadata.preprocessing)
            )
            reference = logits(network)
            row = {"target_bytes": target, "calibration_images": args.photos}
            both = {
                which: Compression(
                    source, weights, folder / "photos", target, args.threads,
                    folder / f"{which}.sqz",
                )
                for which, source in sources.items()
            }  # fmt: skip
            in_turns(list(both.values()))
            for which, one in both.items():
                row[which] = one.figures
                answers = logits(container.read(one.out))
                row[which]["divergence_nats"] = round(divergence_of(reference, answers), 4)
                print(f"{name}, {which}: {json.dumps(row[which])}", flush=True)
            for figure in ("cpu_seconds", "wall_seconds"):
                row[f"{figure}_now_over_before"] = round(
                    row["now"][figure] / row["before"][figure], 3
                )
            row["now_of_target"] = round(row["now"]["file_bytes"] / target, 4)
            row["load_average"] = round(os.getloadavg()[0], 2)
            row["commit"] = common.COMMIT
            rows[name] = row
    common.record(
        args.out,
        {
            "against": args.against,
            "held_out_images": 250,
            "threads": args.threads,
            "networks": rows,
        },
    )


if __name__ == "__main__":
    main()
