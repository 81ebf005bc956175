"""A search over every metaparameter on the digits, by two workers on one PostgreSQL, one killed.

    python bench/explore_digits.py [--trials 100] [--epochs 15] [--picture docs/explore.png]

Both workers run the same command. One is killed (SIGKILL) once half of the trials are done, and
started again half a minute later. The digits are split in three: a fifth is held out to test, and
has no part in the search; of the rest, a quarter decides which networks are good. The page of the
first worker is left beside OUT.json.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

from common import ROOT, options, record
from postgres import cluster

from squeezekit.data.digits import write_digits
from squeezekit.exploration.page import beaten
from squeezekit.exploration.run import Result
from squeezekit.report.design_figures import pareto_figure


def main(out: Path, picture: Path, trials: int, epochs: int) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, cluster() as url:
        data = Path(folder, "digits")
        split_in_three(data)
        command = [
            *(sys.executable, "-m", "squeezekit", "explore", "--space", "all", "--json"),
            *("--data", str(data), "--trials", str(trials), "--epochs", str(epochs)),
            *("--storage", url),
        ]
        start = time.perf_counter()
        first, second = (Worker(command, Path(folder, name)) for name in ("first", "second"))
        try:
            killed = kill_halfway(second, url, trials)
            time.sleep(30)
            second.start()
            content = first.result()
            second.result()
        finally:
            first.process.kill()
            second.process.kill()
        seconds = time.perf_counter() - start
        attempts = attempts_by_ticket(url)
        shutil.copy(Path(folder, "first", "report.html"), out.with_suffix(".html"))
    results = [Result(**trial) for trial in content["finished"]]
    pairs = [pair for pair in beaten(results) if pair.best is not None]
    figures = {
        "trials": trials,
        "epochs": epochs,
        "workers": 2,
        "killed": killed,
        "finished": len(results),
        "stopped": len(content["stopped"]),
        "failed": len(content["failed"]),
        "attempts": {str(n): count for n, count in sorted(Counter(attempts.values()).items())},
        "on_front": sum(result.on_front for result in results),
        "paper_points": len(pairs),
        "paper_points_beaten": sum(p.best.top1 > p.paper.top1 for p in pairs),
        "paper_points_beaten_on_test": sum(p.best.test_top1 > p.paper.test_top1 for p in pairs),
        "against_paper": [
            {who: brief(result) for who, result in (("paper", p.paper), ("found", p.best))}
            for p in pairs
        ],
        "seconds": seconds,
        "stopped_why": content["stopped"],
        "failed_why": content["failed"],
        "results": content["finished"],
    }
    record(out, figures)
    draw(results, picture)
    print(json.dumps({k: v for k, v in figures.items() if k not in ("results", "stopped_why")}))
    assert len(attempts) == trials
    assert figures["finished"] + figures["stopped"] + figures["failed"] == trials


def split_in_three(data: Path) -> None:
    """What `write_digits` holds out becomes test, and every fourth of the others val."""
    write_digits(data)
    (data / "val").rename(data / "test")
    for folder in sorted((data / "train").iterdir()):
        target = data / "val" / folder.name
        target.mkdir(parents=True)
        for image in sorted(folder.iterdir())[::4]:
            image.rename(target / image.name)


class Worker:
    """A process that runs the command with a folder of its own."""

    def __init__(self, command: list[str], out: Path) -> None:
        self.command, self.out = [*command, "--out", str(out)], out
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(
            self.command,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            text=True,
        )

    def result(self) -> dict[str, Any]:
        printed, _ = self.process.communicate()
        assert self.process.returncode == 0
        return json.loads(printed)


def kill_halfway(worker: Worker, url: str, trials: int) -> dict[str, int]:
    """Kill a worker in the middle of a trial, as soon as half of them are done.

    Returns:
        How many trials were done then, and how many the database has as running.
    """
    earlier: list[tuple[Any, ...]] = []
    while True:
        time.sleep(2)
        running = rows(url, "SELECT trial_id FROM trials WHERE state = 'RUNNING' ORDER BY trial_id")
        half_done = count(url, "state NOT IN ('RUNNING', 'WAITING')") >= trials // 2
        if half_done and len(running) == 2 and running == earlier:
            break
        earlier = running
        assert worker.process.poll() is None, "the worker ended too soon"
    worker.process.send_signal(signal.SIGKILL)
    worker.process.wait()
    return {
        "trials_done": count(url, "state NOT IN ('RUNNING', 'WAITING')"),
        "trials_running": count(url, "state = 'RUNNING'"),
    }


def count(url: str, condition: str) -> int:
    return rows(url, f"SELECT count(*) FROM trials WHERE {condition}")[0][0]


def attempts_by_ticket(url: str) -> dict[str, int]:
    """How many trials the database has of each ticket."""
    tickets = rows(url, "SELECT value_json FROM trial_user_attributes WHERE key = 'ticket'")
    return dict(Counter(ticket for (ticket,) in tickets))


def rows(url: str, query: str) -> list[tuple[Any, ...]]:
    import psycopg

    with closing(psycopg.connect(url)) as connection:
        try:
            return connection.execute(query).fetchall()
        except psycopg.errors.UndefinedTable:  # the workers are only just starting
            return [(0,)]


def brief(result: Result) -> dict[str, Any]:
    return {
        name: getattr(result, name) for name in ("trial", "file_bytes", "top1", "test_top1", "macs")
    }


def draw(results: list[Result], picture: Path) -> None:
    figure = pareto_figure(results)
    figure.savefig(picture, dpi=130, facecolor="#fffdf9")


if __name__ == "__main__":
    parser = options(__doc__, data=False)
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--picture", type=Path, default=ROOT / "docs" / "explore.png")
    arguments = parser.parse_args()
    main(arguments.out, arguments.picture, arguments.trials, arguments.epochs)
