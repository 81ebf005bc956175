"""Updates: their bytes and the accuracy, after retraining on more photos; damaged updates.

    python bench/delta.py [--photos DIR --apart DIR] [--more 0.2] [--work DIR] [--damaged 200000]

A network is fine-tuned on PHOTOS without the share `--more` of each class, and compressed to
120,000 bytes: the file that is out there. Then it is retrained on all of PHOTOS, from that file
and from its run before compression, and compressed freely and to be like the file, at several
prices of a bit. All are measured on APART, which nothing has seen. Without `--photos` it takes the
two parts of `imagenette-mini`. `--work` keeps what is made, and goes on from there.
"""

from __future__ import annotations

import hashlib
import random
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import common
from damaged_files import damaged_update, update_files

import squeezekit as sk
from squeezekit.errors import SqueezekitError
from squeezekit.sqz import container
from squeezekit.sqz.network import CAFFE, SharedTensor

TARGET_BYTES = 120_000
EPOCHS = 8
PRICES = (8e-8, 4e-7, 2e-8, 4e-6)
START = Path("networks", "squeezenet-1.1-caffe.safetensors")


def parts(photos: Path, more: float, work: Path) -> None:
    """Links to the photos: without a share of each class in `base`, all of them in `all`."""
    for folder in sorted(path for path in photos.iterdir() if path.is_dir()):
        files = sorted(folder.iterdir())
        few = files[: len(files) - round(more * len(files))]
        for name, chosen in (("base", few), ("all", files)):
            (work / name / folder.name).mkdir(parents=True, exist_ok=True)
            for file in chosen:
                link = work / name / folder.name / file.name
                if not link.exists():
                    link.symlink_to(file.resolve())


def trained(work: Path, name: str, photos: str, init: object) -> Path:
    if not (work / name / "weights.safetensors").exists():
        start = time.perf_counter()
        sk.train(
            work / photos, work / name, init=init, epochs=EPOCHS, resume=(work / name).exists()
        )
        print(f"{name}: trained in {time.perf_counter() - start:.0f} s", flush=True)
    return work / name


def compressed(work: Path, name: str, run: Path, photos: str, config: sk.Best) -> Path:
    file = work / name
    if not file.exists():
        start = time.perf_counter()
        sk.write(sk.compress(run, work / photos, config), file)
        print(f"{name}: compressed in {time.perf_counter() - start:.0f} s", flush=True)
    return file


def moved(old: Path, new: Path) -> dict[str, Any]:
    """How many levels differ."""
    before, after = (container.decode(path.read_bytes()).tensors for path in (old, new))
    pairs = [(before[name], tensor) for name, tensor in after.items() if name in before]
    both = [p for p in pairs if all(isinstance(tensor, SharedTensor) for tensor in p)]
    return {
        "levels": sum(a.size for a, _ in both),
        "moved": sum(int((a.levels != b.levels).sum()) for a, b in both),
        "tables_kept": sum(a.centroids.tobytes() == b.centroids.tobytes() for a, b in both),
        "tables": len(both),
    }


def told(old: Path, new: Path, apart: Path) -> dict[str, Any]:
    update = sk.delta(old, new)
    assert sk.apply(old, update) == new.read_bytes()
    size = new.stat().st_size
    found = sk.evaluate(new, apart, part="all")
    return {
        "file_bytes": size,
        "update_bytes": len(update),
        "update_percent": round(100 * len(update) / size, 2),
        "top1": round(found.top1, 2),
        "top1_interval": [round(end, 1) for end in found.top1_interval],
        **moved(old, new),
    }


def damage(old: Path, update: bytes, new: bytes, count: int, seed: int = 1) -> dict[str, Any]:
    """Damaged updates; most with their checksum mended, so that the damage is decoded."""
    rng, said, slowest = random.Random(seed), Counter[str](), 0.0
    before = hashlib.sha256(old.read_bytes()).hexdigest()
    out = old.with_name("out.sqz")
    for _ in range(count):
        bad = damaged_update(rng, update)
        start = time.process_time()
        try:
            made = sk.apply(old, bad, out)
        except SqueezekitError as error:
            said[type(error).__name__] += 1
            assert not out.exists()
        else:
            assert made == new == out.read_bytes()
            said["applied, and right"] += 1
            out.unlink()
        slowest = max(slowest, time.process_time() - start)
    assert hashlib.sha256(old.read_bytes()).hexdigest() == before
    return {
        "updates": count,
        "ends": dict(said.most_common()),
        "old_file_unchanged": True,
        "slowest_cpu_seconds": round(slowest, 3),
    }


def main() -> None:
    parser = common.options(__doc__)
    parser.add_argument("--photos", type=Path, help="class folders, to train on")
    parser.add_argument("--apart", type=Path, help="the same class folders, to measure on")
    parser.add_argument("--more", type=float, default=0.2, help="share of new photos")
    parser.add_argument("--work", type=Path, help="a folder to keep what is made")
    parser.add_argument("--prices", type=float, nargs="*", default=PRICES, help="nats a bit")
    parser.add_argument(
        "--starts",
        nargs="*",
        default=("file", "run"),
        choices=("file", "run"),
        help="what the retraining begins with",
    )
    parser.add_argument("--damaged", type=int, default=200_000, help="how many damaged updates")
    args = parser.parse_args()
    if (args.photos is None) != (args.apart is None):
        parser.error("--photos and --apart belong together")
    photos = args.photos or args.data / "imagenette-mini" / "train"
    apart = args.apart or args.data / "imagenette-mini" / "val"
    with tempfile.TemporaryDirectory() as folder:
        work = args.work or Path(folder)
        work.mkdir(parents=True, exist_ok=True)
        parts(photos, args.more, work)
        start = sk.read(args.data / START, preprocessing=CAFFE)
        first = trained(work, "run1", "base", start)
        old = compressed(work, "old.sqz", first, "base", sk.Best(target_bytes=TARGET_BYTES))
        figures: dict[str, Any] = {
            "photos": sum(1 for _ in (work / "base").rglob("*.*")),
            "photos_retrained_on": sum(1 for _ in (work / "all").rglob("*.*")),
            "old": {
                "file_bytes": old.stat().st_size,
                "top1": round(sk.evaluate(old, apart, part="all").top1, 2),
            },
            "unchanged_update_bytes": len(sk.delta(old, old)),
            "one_more_line_of_provenance_update_bytes": len(
                sk.delta(old, container.encode(sk.read(old).with_step("looked at again")))
            ),
        }
        free_config = sk.Best(target_bytes=TARGET_BYTES)
        configs = {"free, 120,000 bytes": ("free", free_config)}
        for price in args.prices:
            config = sk.Best(like=old, price=price)
            configs[f"like, {price:g} nats a bit"] = (f"like-{price:g}", config)
        configs["like, usual settings"] = ("like", sk.Best(like=old))
        for source in args.starts:
            init, run_name = {"file": (old, "run2"), "run": (first, "run3")}[source]
            run = trained(work, run_name, "all", init)
            top1 = round(sk.evaluate(run, apart, part="all").top1, 2)
            rows = {"before compression": {"top1": top1}}
            figures[f"retrained_from_the_{source}"] = rows
            for name, (short, config) in configs.items():
                new = compressed(work, f"{run_name}-{short}.sqz", run, "all", config)
                rows[name] = told(old, new, apart)
                print(source, name, rows[name], flush=True)
                common.record(args.out, figures)
        if args.damaged:
            small = work / "small.sqz"
            small.write_bytes(update_files()[0])
            new = max(update_files()[1:5], key=lambda file: len(sk.delta(small, file)))
            figures["damaged"] = damage(small, sk.delta(small, new), new, args.damaged)
            new = (work / "run2-free.sqz").read_bytes()
            figures["damaged_of_a_real_one"] = damage(
                old, sk.delta(old, new), new, args.damaged // 400
            )
    common.record(args.out, figures)


if __name__ == "__main__":
    main()
