"""Commands killed at random moments (-9 and TERM), or on a full disk, and then given once more.

    python bench/kill.py [--kills 100] [--full-disks 50]

Each command runs on 200 of scikit-learn's digits in a fork of a process that has loaded torch, is
killed at any time between its start and its usual end, and is run again: what it leaves must be
what a run that was left alone leaves, byte for byte where nothing measures time, and no file more.
On the full disk a random call that brings a file to the disk fails. About ten minutes.
"""

from __future__ import annotations

import csv
import errno
import hashlib
import itertools
import json
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from common import options, record

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(
    [
        "squeezekit.cli.verbs",
        "squeezekit.compression.methods",
        "squeezekit.exploration.run",
        "squeezekit.report.run_report",
        "sklearn",
    ]
)
SIGNALS = {"-9": signal.SIGKILL, "TERM": signal.SIGTERM}
LEFTOVERS = (".*", "*.part", "*.lock", "*.training*", "*-journal")


@dataclass(frozen=True)
class Case:
    """A command.

    Attributes:
        name: of it.
        command: its words, for the folder that it writes to.
        leaves: what it leaves there that must be the same each time.
    """

    name: str
    command: Callable[[Path], list[str]]
    leaves: Callable[[Path], object]


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def run_leaves(out: Path) -> object:
    with (out / "results.csv").open() as file:
        rows = [{**row, "seconds": None} for row in csv.DictReader(file)]
    return digest(out / "weights.safetensors"), rows


def study_leaves(out: Path) -> object:
    return {path.name: digest(path) for path in (out / "networks").iterdir()}


def cases(data: Path, run: Path) -> list[Case]:
    def compress(method: str, *more: str) -> Case:
        return Case(
            " ".join(["compress --method", method, *more]),
            lambda out: [
                "compress", str(run), "--data", str(data), "--method", method,
                "-o", str(out / "m.sqz"), *more,
            ],
            lambda out: digest(out / "m.sqz"),
        )  # fmt: skip

    return [
        Case("train", lambda out: train(data, out), run_leaves),
        compress("deep", "--epochs", "1"),
        compress("prune", "--epochs", "1"),
        compress("svd"),
        compress("best", "--target-bytes", "20000"),
        Case(
            "explore (SQLite)",
            lambda out: [
                "explore", "--data", str(data), "--out", str(out), "--space", "sr",
                "--trials", "2", "--epochs", "1",
            ],
            study_leaves,
        ),
        *(
            Case(
                f"export {suffix}",
                lambda out, suffix=suffix: ["export", str(run), str(out / f"m{suffix}")],
                lambda out, suffix=suffix: digest(out / f"m{suffix}"),
            )
            for suffix in (".sqz", ".onnx", ".safetensors", ".html")
        ),
    ]  # fmt: skip


def train(data: Path, out: Path) -> list[str]:
    return [
        "train", "--data", str(data), "--out", str(out), "--model", "squeezenet-digits",
        "--recipe", "digits", "--set", "epochs=6", "--set", "precision=float32", "--resume",
    ]  # fmt: skip


def command_line(words: list[str], said: str, full_at: int | None) -> None:
    """The command, in a process of its own; its output goes to a file."""
    number = itertools.count()

    def failing(real: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object, **options: object) -> object:
            if next(number) == full_at:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return real(*arguments, **options)

        return call

    if full_at is not None:
        os.fsync, os.replace = failing(os.fsync), failing(os.replace)
    output = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(output, 1)
    os.dup2(output, 2)
    import torch

    torch.set_num_threads(1)
    from squeezekit.cli import main

    sys.argv = ["squeezekit", *words]
    main()


def started(case: Case, out: Path, said: Path, full_at: int | None = None) -> FORKS.Process:
    out.mkdir(exist_ok=True)
    process = FORKS.Process(target=command_line, args=(case.command(out), str(said), full_at))
    process.start()
    return process


def finished(case: Case, out: Path, said: Path) -> object:
    """Run it to its end; what it leaves."""
    process = started(case, out, said)
    process.join()
    if process.exitcode:
        return f"exit status {process.exitcode}: {said.read_text()[-500:]}"
    left = sorted(str(p.relative_to(out)) for glob in LEFTOVERS for p in out.rglob(glob))
    return f"leftovers: {left}" if left else case.leaves(out)


def main(out: Path, kills: int, full_disks: int, only: str | None, skip: str | None) -> None:
    chance = random.Random(0)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        data, run, said = folder / "digits", folder / "run", folder / "said.txt"
        few_digits(data)
        start = Case("train", lambda out: train(data, out), run_leaves)
        assert not isinstance(finished(start, run, said), str), said.read_text()
        found = [each for each in cases(data, run) if (only is None or only in each.name)]
        found = [each for each in found if skip is None or skip not in each.name]
        whole = {}
        for case in found:
            first = finished(case, folder / "warm", said)
            shutil.rmtree(folder / "warm")
            began = time.perf_counter()
            again = finished(case, folder / "whole", said)
            whole[case.name] = (again, time.perf_counter() - began)
            shutil.rmtree(folder / "whole")
            assert first == again, (case.name, first, again)
            assert not isinstance(again, str) or len(again) == 64, (case.name, again)
            print(f"{case.name}: {whole[case.name][1]:.1f} s", file=sys.stderr)
        results = []
        for number in range(kills + full_disks):
            case = found[number % len(found)]
            expected, seconds = whole[case.name]
            place = folder / "out"
            full = number >= kills
            how = "full disk" if full else list(SIGNALS)[number // len(found) % 2]
            process = started(case, place, said, chance.randrange(12) if full else None)
            process.join(None if full else chance.uniform(0, seconds))
            if process.exitcode is None:
                os.kill(process.pid, SIGNALS[how])
                process.join()
            status, words = process.exitcode, said.read_text()
            done = not isinstance(expected, str) or len(expected) == 64
            if status == 0:  # it says that it is done: so it must be
                done = case.leaves(place) == expected
            after = finished(case, place, said)
            shutil.rmtree(place)
            results.append(
                {"command": case.name, "how": how, "status": status,
                 "same": after == expected and done}
            )  # fmt: skip
            if not results[-1]["same"]:
                results[-1] |= {"said": words[-300:], "then": str(after)[-500:]}
            print(f"{number + 1}: {results[-1]}", file=sys.stderr)
    kinds = sorted({(each["command"], each["how"]) for each in results})
    record(
        out,
        {
            "kills": kills,
            "killed_before_the_end": sum(
                each["how"] in SIGNALS and each["status"] != 0 for each in results
            ),
            "full_disks": full_disks,
            "same_result_and_no_leftovers": sum(each["same"] for each in results),
            "by_command": [
                {
                    "command": command,
                    "how": how,
                    "times": len(
                        these := [r for r in results if (r["command"], r["how"]) == (command, how)]
                    ),
                    "same": sum(each["same"] for each in these),
                    "exit_statuses": sorted({each["status"] for each in these}),
                }
                for command, how in kinds
            ],
            "others": [each for each in results if not each["same"]],
        },
    )
    print(json.dumps(json.loads(out.read_text()), indent=2))


def few_digits(folder: Path) -> None:
    """Fifteen of each class to train on, five held out."""
    from squeezekit.data.digits import write_digits

    write_digits(folder)
    for part, count in (("train", 15), ("val", 5)):
        for images in (folder / part).iterdir():
            for image in sorted(images.iterdir())[count:]:
                image.unlink()


if __name__ == "__main__":
    parser = options(__doc__, data=False)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--full-disks", type=int, default=50)
    parser.add_argument("--only", help="commands whose name has this")
    parser.add_argument("--skip", help="not those whose name has this")
    arguments = parser.parse_args()
    main(arguments.out, arguments.kills, arguments.full_disks, arguments.only, arguments.skip)
