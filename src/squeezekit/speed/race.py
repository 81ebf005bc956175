"""Runs squeezekit and every other installed runtime in turn, each in its own processes."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from squeezekit.errors import InputError
from squeezekit.progress import Progress, silent
from squeezekit.speed.install_size import install_bytes

OURS = "squeezekit"

_PEERS = Path(__file__).with_name("peers.py")
_SAMPLE_SIZE = (500, 375)


@dataclass(frozen=True)
class Contestant:
    """A way from a file to an answer.

    Attributes:
        name: its key in `peers.PEERS`.
        about: its name in words; bf16 has its channels last, which is its fastest way.
        file: what it reads of the prepared folder.
        packages: what `pip install` would be asked for.
    """

    name: str
    about: str
    file: str
    packages: tuple[str, ...]

    @property
    def is_installed(self) -> bool:
        """Whether this Python has its packages."""
        return find_spec(self.packages[0]) is not None


CONTESTANTS = (
    Contestant(OURS, "squeezekit", "model.sqz", ("squeezekit",)),
    Contestant("onnxruntime", "ONNX Runtime", "model.onnx", ("onnxruntime", "numpy", "pillow")),
    Contestant("openvino", "OpenVINO", "model.onnx", ("openvino", "numpy", "pillow")),
    Contestant("torch", "PyTorch float32", "model.pth", ("torch", "numpy", "pillow")),
    Contestant("torch-bf16", "PyTorch bf16", "model.pth", ("torch", "numpy", "pillow")),
)


@dataclass(frozen=True)
class RaceConfig:
    """How much to measure.

    Attributes:
        rounds: how often each contestant has its turn, after one turn that does not count.
        threads: the number of threads that each may use.
        batch: images at a time when throughput is measured.
        seconds: of latency, and as many of throughput, that are measured in a turn; where 0, only
            cold starts are.
    """

    rounds: int = 7
    threads: int = 2
    batch: int = 16
    seconds: float = 1.0

    def __post_init__(self) -> None:
        for name in ("rounds", "threads", "batch"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1, not {getattr(self, name)}")
        if not 0 <= self.seconds < float("inf"):
            raise InputError(f"seconds must be at least 0, not {self.seconds:g}")


@dataclass
class Figures:
    """What was measured of one contestant; lists have one entry a round.

    Attributes:
        failed: why it has no figures, or empty.
        top1: the index of its first answer.
        file_bytes, install_bytes: of its file; of its packages and all that they require.
        cold_start_seconds: from the start of a process to its first answer on stdout.
        peak_bytes: the most memory that such a process had resident; empty if that cannot be
            told.
        load_seconds: from a file to a network that can run, its libraries loaded before.
        latency_seconds: of each single image, of all rounds together; without preprocessing.
        images_per_second: in batches.
    """

    contestant: Contestant
    failed: str = ""
    top1: int | None = None
    file_bytes: int = 0
    install_bytes: int = 0
    cold_start_seconds: list[float] = field(default_factory=list)
    peak_bytes: list[float] = field(default_factory=list)
    load_seconds: list[float] = field(default_factory=list)
    latency_seconds: list[float] = field(default_factory=list)
    images_per_second: list[float] = field(default_factory=list)

    def summary(self) -> dict[str, float]:
        """One number for each measure there is, by its name: medians, and the 99th percentile."""
        found: dict[str, float] = {
            "file_bytes": self.file_bytes,
            "install_bytes": self.install_bytes,
        }
        for name in ("cold_start_seconds", "load_seconds", "images_per_second", "peak_bytes"):
            if values := getattr(self, name):
                found[name] = statistics.median(values)
        if self.latency_seconds:
            found["latency_p50_seconds"] = float(np.percentile(self.latency_seconds, 50))
            found["latency_p99_seconds"] = float(np.percentile(self.latency_seconds, 99))
        return found

    def as_json(self) -> dict[str, Any]:
        """Everything, with what each round gave; of the latencies how many there were."""
        if self.failed:
            return {"failed": self.failed}
        each = ("cold_start_seconds", "load_seconds", "images_per_second", "peak_bytes")
        return {
            "top1": self.top1,
            **self.summary(),
            "latencies": len(self.latency_seconds),
            "rounds": {name: values for name in each if (values := getattr(self, name))},
        }


def race(
    weights: str | Path,
    config: RaceConfig | None = None,
    *,
    image: Path | None = None,
    contestants: Sequence[Contestant] = CONTESTANTS,
    progress: Progress = silent,
) -> list[Figures]:
    """Measure all contestants that are installed, taking turns, so that noise hits all alike.

    Args:
        weights: see `interop.weights.load_network`.
        config: see RaceConfig.
        image: what they classify; None is a generated one.
        contestants: who runs; ours must be among them.
        progress: called for every turn.

    Returns:
        Figures in the order of the contestants; a peer that fails has its reason there.

    Raises:
        InputError: if the weights or the image cannot be read, or ours fails.
    """
    config = config or RaceConfig()
    with tempfile.TemporaryDirectory(prefix="squeezekit-bench-") as temporary:
        folder = Path(temporary)
        _checked([sys.executable, "-P", "-m", "squeezekit.speed.prepare", str(weights), folder])
        if image is None:
            image = folder / "sample.jpg"
            sample_image().save(image)
        figures = [Figures(contestant) for contestant in contestants if contestant.is_installed]
        if any(each.contestant.file == "model.pth" for each in figures):
            _checked([sys.executable, "-P", _PEERS, "save-torch", folder])
        for each in figures:
            each.file_bytes = (folder / each.contestant.file).stat().st_size
            each.install_bytes = install_bytes(each.contestant.packages)
        turns = [(turn, each) for turn in range(-1, config.rounds) for each in figures]
        for done, (turn, each) in enumerate(turns):
            progress("measuring", done, len(turns))
            if not each.failed:
                _take_turn(each, folder, image, config, counts=turn >= 0)
        progress("measuring", len(turns), len(turns))
    return figures


def _take_turn(
    figures: Figures, folder: Path, image: Path, config: RaceConfig, *, counts: bool
) -> None:
    name, threads = figures.contestant.name, str(config.threads)
    where = (name, folder, image, threads)
    try:
        seconds, peak_bytes = _cold_start(_first(*where), threads)
        steady: dict[str, Any] = {}
        if config.seconds > 0 or not counts:
            script = [sys.executable, "-P", _PEERS, "steady", *where, config.batch, config.seconds]
            steady = json.loads(_output(script, threads))
    except _PeerError as error:
        if name == OURS:
            raise InputError(str(error)) from None
        figures.failed = str(error)
        return
    if not counts:  # it brought files into the system's cache
        figures.top1 = steady["top1"]
        return
    figures.cold_start_seconds.append(seconds)
    if peak_bytes is not None:
        figures.peak_bytes.append(peak_bytes)
    if config.seconds > 0:
        figures.load_seconds.append(steady["load_seconds"])
        figures.latency_seconds += steady["latency_seconds"]
        figures.images_per_second.append(steady["images_per_second"])


def race_report(figures: Sequence[Figures], config: RaceConfig) -> dict[str, Any]:
    """A whole race: how it was run, on what, everything measured, and the others' ratios to ours.

    A ratio is theirs divided by ours, of each measure in `Figures.summary`.
    """
    ours = next(each for each in figures if each.contestant.name == OURS).summary()
    packages = sorted({each.contestant.packages[0] for each in figures})
    return {
        **dataclasses.asdict(config),
        "machine": {
            "system": f"{platform.system()} {platform.machine()}",
            "cores": os.cpu_count(),
            "python": platform.python_version(),
        },
        "versions": {package: metadata.version(package) for package in packages},
        "contestants": {each.contestant.name: each.as_json() for each in figures},
        "same_top1": len({each.top1 for each in figures if not each.failed}) == 1,
        "ratios": {
            each.contestant.name: {
                name: v / ours[name] for name, v in each.summary().items() if name in ours
            }
            for each in figures
            if not each.failed and each.contestant.name != OURS
        },
    }


def remarks(figures: Sequence[Figures]) -> list[str]:
    """A sentence for each contestant that failed, or gives another class than ours."""
    told = []
    for each in figures:
        if each.failed:
            told.append(f"{each.contestant.about} could not take part: {each.failed}")
        elif each.top1 != figures[0].top1:
            told.append(f"{each.contestant.about} gives another class ({each.top1}) than {OURS}")
    return told


def ratio(theirs: Sequence[float], ours: Sequence[float]) -> dict[str, float]:
    """Of the medians, and the least and the greatest of the ratios of each round."""
    each = [a / b for a, b in zip(theirs, ours, strict=True)]
    return {
        "of_medians": statistics.median(theirs) / statistics.median(ours),
        "least": min(each),
        "most": max(each),
    }


def sample_image() -> Image.Image:
    """A photo-sized picture of smooth colours, the same every time."""
    coarse = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(_SAMPLE_SIZE, Image.Resampling.BICUBIC)


def _first(name: str, folder: Path, image: Path, threads: str) -> list[Any]:
    if name != OURS:
        return [sys.executable, "-P", _PEERS, "first", name, folder, image, threads]
    command = ["predict", folder / "model.sqz", image, "--threads", threads]
    return [sys.executable, "-P", "-m", "squeezekit", *command]


class _PeerError(Exception):
    """A process ended badly; the last line that it wrote to stderr."""


def _cold_start(command: Sequence[Any], threads: str) -> tuple[float, int | None]:
    """Seconds until the answer is on stdout, and the process's peak of memory in bytes."""
    with tempfile.TemporaryFile("w+") as stderr:
        start = time.perf_counter()
        process = subprocess.Popen(  # noqa: S603
            [str(word) for word in command],
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            encoding="utf-8",
            env=_environment(threads),
        )
        with process:
            try:
                assert process.stdout is not None
                process.stdout.readline()
                seconds = time.perf_counter() - start
                process.stdout.read()
                peak_bytes = _ended(process)
            except BaseException:
                process.kill()
                raise
        if process.returncode:
            stderr.seek(0)
            raise _PeerError(_last_line(stderr.read()))
        return seconds, peak_bytes


def _ended(process: subprocess.Popen[str]) -> int | None:
    """Wait for a process, and say how many bytes it had resident at most, where that is known.

    Linux counts from the fork on, so that a peak below this process's own cannot be told: nothing
    large is ever loaded into it.
    """
    if sys.platform == "win32":
        process.wait()
        return None
    import resource

    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    unit = 1 if sys.platform == "darwin" else 1024
    return usage.ru_maxrss * unit if usage.ru_maxrss > own else None


def _output(command: Sequence[Any], threads: str) -> str:
    done = subprocess.run(  # noqa: S603
        [str(word) for word in command],
        capture_output=True,
        text=True,
        encoding="utf-8",
        env=_environment(threads),
    )
    if done.returncode:
        raise _PeerError(_last_line(done.stderr))
    return done.stdout


def _checked(command: Sequence[Any]) -> None:
    try:
        _output(command, str(os.cpu_count()))
    except _PeerError as error:
        raise InputError(str(error)) from None


def _environment(threads: str) -> Mapping[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": threads, "PYTHONIOENCODING": "utf-8"}


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1].removeprefix("squeezekit: ") if lines else "it ended without a word"
