"""Cold start: from a process's start to its first answer, ours and the other runtimes', in turn.

    python bench/cold_start.py [--rounds 9] [--threads 2] [--coder huffman]

Ours is `squeezekit predict F.sqz PHOTO.jpg`, with its table, of the authors' published network;
torch's is the script in src/squeezekit/speed/peers.py, which loads the same weights. Each turn
starts fresh processes; their files are in the system's cache.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from common import PUBLISHED, options, record

from squeezekit.report.progress_bar import progress_bar
from squeezekit.speed.race import OURS, RaceConfig, race, race_report, ratio


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--coder", choices=("entropy", "huffman"), default="entropy")
    args = parser.parse_args()
    photo = min((args.data / "imagenet-500").glob("*/*.jpg"))
    config = RaceConfig(rounds=args.rounds, threads=args.threads, seconds=0)
    with tempfile.TemporaryDirectory() as folder, progress_bar() as progress:
        sqz = Path(folder) / "published.sqz"
        net = args.data / PUBLISHED
        labels = args.data / "imagenet-classes.tsv"
        # In another process: what is large here would count with the memory of the contestants.
        export = [sys.executable, "-m", "squeezekit", "export", net, sqz, "--labels", labels]
        export += ["--coder", args.coder]
        subprocess.run(export, check=True)
        figures = race(sqz, config, image=photo, progress=progress)
    each = {f.contestant.name: f.cold_start_seconds for f in figures if not f.failed}
    report = {
        "network": "squeezenet-1.0 at 227 (the authors' published file)",
        "coder": args.coder,
        "photo": f"{photo.parent.name}/{photo.name}",
        **race_report(figures, config),
        "cold_start_over_ours": {
            name: ratio(seconds, each[OURS]) for name, seconds in each.items() if name != OURS
        },
    }
    record(args.out, report)
    print(json.dumps(report["cold_start_over_ours"], indent=2))


if __name__ == "__main__":
    main()
