"""A run that is killed or interrupted at ten random moments ends as one that was left alone."""

import csv
import errno
import itertools
import multiprocessing
import os
import signal
import stat
import sys
import time

import numpy as np
import pytest
from PIL import Image

from squeezekit.cli.output import BAD_INPUT, INTERRUPTED
from squeezekit.interop.weights import load_network

FORKS = multiprocessing.get_context("forkserver")
"""Every process is a fork of one that has loaded torch already, and nothing else done."""

FORKS.set_forkserver_preload(
    ["squeezekit.cli", "squeezekit.compression.dsd", "squeezekit.report.run_report", "sklearn"]
)

INTERRUPTIONS = 10
EPOCHS = 8


def train(arguments, began, die_writing, full_disk):
    """The command line, in a process of its own; it may kill itself in the middle of a write.

    Or find that there is no room for that one.
    """
    from squeezekit.cli import main

    real, number = os.fsync, itertools.count()

    def fsync(handle):
        if stat.S_ISREG(os.fstat(handle).st_mode) and next(number) == die_writing:
            if full_disk:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.kill(os.getpid(), signal.SIGKILL)
        real(handle)

    os.fsync = fsync
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    sys.argv = ["squeezekit", *arguments]
    began.set()
    try:
        main()
    finally:  # a signal that comes later is no interruption of the run
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Noise, so that the order that it is seen in changes every weight."""
    folder = tmp_path_factory.mktemp("photos")
    random = np.random.default_rng(0)
    for name in ("a", "b"):
        (folder / name).mkdir()
        for i in range(30):
            pixels = random.integers(0, 256, (8, 8), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def start(photos):
    """Start or resume the run in a folder: `start(out)` gives the process."""

    def start(out, die_writing=None, full_disk=False):
        arguments = [
            "train", "--data", str(photos), "--out", str(out), "--model", "squeezenet-digits",
            "--set", f"epochs={EPOCHS}", "--set", "batch=8", "--set", "precision=float32",
            "--set", "ema=0.9", "--resume",
        ]  # fmt: skip
        began = FORKS.Event()
        process = FORKS.Process(target=train, args=(arguments, began, die_writing, full_disk))
        process.start()
        began.wait(60)  # until then multiprocessing would answer a signal, not the command
        return process

    return start


@pytest.fixture(scope="module")
def whole(start, tmp_path_factory):
    """The folder of a run that was left alone, and the seconds that it took."""
    out = tmp_path_factory.mktemp("whole") / "run"
    for again in (out.with_name("first"), out):  # the first one starts the fork server
        began = time.monotonic()
        process = start(again)
        process.join()
        assert process.exitcode == 0
    assert same(out.with_name("first"), out)
    return out, time.monotonic() - began


def same(one, other):
    """Whether two runs have the same weights and the same history, bit for bit."""
    first, second = (load_network(out).values() for out in (one, other))
    histories = []
    for out in (one, other):
        with (out / "results.csv").open() as file:
            histories.append([{**row, "seconds": None} for row in csv.DictReader(file)])
    assert len(histories[0]) == EPOCHS
    return histories[0] == histories[1] and all(
        np.array_equal(values, second[name]) for name, values in first.items()
    )


def finish(out, start, whole):
    """Resume the run to its end, and compare."""
    process = start(out)
    process.join()
    assert process.exitcode == 0
    assert same(out, whole)
    assert not list(out.glob(".*"))


@pytest.mark.parametrize(
    "number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM], ids=["kill -9", "Ctrl-C", "kill"]
)
def test_ten_interruptions_cost_nothing(start, whole, tmp_path, number):
    """At any time from the start of the command on; a run that comes to its end is begun anew."""
    expected, seconds = whole
    random = np.random.default_rng(int(number))
    runs, interrupted = [tmp_path / "0"], 0
    while interrupted < INTERRUPTIONS:
        process = start(runs[-1])
        process.join(float(random.uniform(0, seconds)))
        if process.exitcode is None:
            os.kill(process.pid, number)
            process.join()
        if process.exitcode:
            interrupted += 1
            assert process.exitcode == -number or (
                number != signal.SIGKILL and process.exitcode == INTERRUPTED
            )
        else:
            assert same(runs[-1], expected)
            runs.append(tmp_path / str(len(runs)))
    finish(runs[-1], start, expected)


def test_kill_9_in_the_middle_of_ten_writes_costs_nothing(start, whole, tmp_path):
    """Of checkpoints and of what else a run leaves: each is seen whole or not at all."""
    expected, _ = whole
    random = np.random.default_rng(0)
    out = tmp_path / "run"
    for write in (0, *random.integers(1, 10, INTERRUPTIONS - 1).tolist()):
        process = start(out, die_writing=write)
        process.join()
        assert process.exitcode == -signal.SIGKILL
        assert list(out.glob(".*.part"))
    finish(out, start, expected)


def test_a_full_disk_at_ten_writes_costs_nothing(start, whole, tmp_path):
    """It is said, what was there is still there, and the run goes on when there is room."""
    expected, _ = whole
    random = np.random.default_rng(1)
    out = tmp_path / "run"
    for write in (0, *random.integers(1, 10, INTERRUPTIONS - 1).tolist()):
        process = start(out, die_writing=write, full_disk=True)
        process.join()
        assert process.exitcode == BAD_INPUT
        assert not list(out.glob(".*"))
    finish(out, start, expected)


def test_a_run_belongs_to_one_process(start, whole, tmp_path):
    """The second one is told so, and the first is not disturbed."""
    expected, _ = whole
    out = tmp_path / "run"
    first = start(out)
    until = time.monotonic() + 120
    while not (out / "results.csv").exists():  # it trains
        assert time.monotonic() < until
        time.sleep(0.01)
    os.kill(first.pid, signal.SIGSTOP)
    second = start(out)
    second.join()
    assert second.exitcode == BAD_INPUT
    os.kill(first.pid, signal.SIGCONT)
    first.join()
    assert first.exitcode == 0
    assert same(out, expected)
