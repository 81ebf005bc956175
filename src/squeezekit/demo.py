"""The demo: trains, compresses and evaluates on the built-in digits, and writes a report."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.text import Text

from squeezekit.compression import deep
from squeezekit.compression.stages import Stage
from squeezekit.data import dataset
from squeezekit.data.digits import write_digits
from squeezekit.data.folders import ImageSet
from squeezekit.errors import InputError
from squeezekit.evaluation import Evaluation, evaluate
from squeezekit.files import alone_in
from squeezekit.interop import safetensors_file
from squeezekit.models import catalogue
from squeezekit.progress import Progress, silent
from squeezekit.report import numbers, tables
from squeezekit.report.made import how_it_was_made
from squeezekit.report.page import Report, Step, report_of, write_page
from squeezekit.runtime.classifier import from_network
from squeezekit.runtime.loading import load
from squeezekit.sqz import container
from squeezekit.sqz.network import Network
from squeezekit.trainable.network import TorchClassifier, TrainableNetwork
from squeezekit.training import recipe
from squeezekit.training.batches import TrainingData
from squeezekit.training.loop import EpochResult, fit

MODEL = "squeezenet-digits"


@dataclass(frozen=True)
class DemoResult:
    """What the demo measured, and where its files are.

    Attributes:
        float_top1: percent of held-out digits that the float32 network gets right.
        sqz_top1: the same of the `.sqz` file, through ONNX Runtime.
        float_bytes: the size in bytes of the parameters as float32.
        file_bytes: the size in bytes of the `.sqz` file.
        seconds: how long everything took.
        page: the report, one HTML file.
        sqz: the compressed network.
        stages: the stages of the compression, float32 first.
    """

    float_top1: float
    sqz_top1: float
    float_bytes: int
    file_bytes: int
    seconds: float
    page: Path
    sqz: Path
    stages: tuple[Stage, ...]

    def as_json(self) -> dict[str, Any]:
        """What was measured, for `json.dumps`."""
        return {
            "float_top1": self.float_top1,
            "top1": self.sqz_top1,
            "float_bytes": self.float_bytes,
            "file_bytes": self.file_bytes,
            "seconds": self.seconds,
            "report": str(self.page),
            "sqz": str(self.sqz),
        }


def run_demo(
    out: Path,
    seed: int = 0,
    progress: Progress = silent,
    console: Console | None = None,
) -> DemoResult:
    """Run the demo: under two minutes on two cores.

    Leaves in `out`: digits/ (the images), weights.safetensors (the trained network), digits.sqz
    and report.html.

    Args:
        out: a folder; made where it does not exist, and what an earlier demo left is replaced.
        seed: the seed of the split, the first weights and the training.
        progress: called for every task.
        console: where the tables and what to type next are printed; nothing is where None.

    Raises:
        InputError: if the folder cannot be written, or a package of squeezekit[train] is
            missing.
    """
    with alone_in(out):
        return _demo(out, seed, progress, console)


def _demo(out: Path, seed: int, progress: Progress, console: Console | None) -> DemoResult:
    start = time.perf_counter()
    train, held_out = _digits(out / "digits", seed)
    with _one_thread():
        network, epochs = _trained(train, held_out, seed, progress)
        stages = _compressed(network, train, held_out, progress)
    safetensors_file.write(network, out / "weights.safetensors")
    sqz = out / "digits.sqz"
    container.write(stages[-1].network, sqz)
    evaluation = evaluate(load(sqz), held_out)
    seconds = time.perf_counter() - start
    report = report_of(
        sqz,
        stages,
        unseen=True,
        evaluation=evaluation,
        epochs=epochs,
        made=how_it_was_made(
            f"squeezekit demo --out {out} --seed {seed}",
            seconds,
            f"{numbers.count(len(train))} to train on, {numbers.count(len(held_out))} held out",
        ),
        next_steps=_next_steps(),
    )
    result = DemoResult(
        float_top1=_top1(stages[0]),
        sqz_top1=evaluation.top1,
        float_bytes=report.file.float_bytes,
        file_bytes=report.file.file_bytes,
        seconds=seconds,
        page=out / "report.html",
        sqz=sqz,
        stages=tuple(stages),
    )
    write_page(report, result.page)
    if console is not None:
        _print(console, result, report, held_out)
    return result


@contextmanager
def _one_thread() -> Iterator[None]:
    """Use one thread: for 8x8 images more gain little, and lose much if other programs run."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _digits(directory: Path, seed: int) -> tuple[ImageSet, ImageSet]:
    """The digits as files, for training and held out."""
    try:
        for earlier in directory.glob("*/[0-9]/[0-9][0-9][0-9][0-9].png"):
            earlier.unlink()  # another seed splits them otherwise
    except OSError as error:
        raise InputError(f"{directory} cannot be written ({error.strerror})") from None
    write_digits(directory, seed)
    return dataset.split(directory, "train"), dataset.split(directory, "val")


def _trained(
    train: ImageSet, held_out: ImageSet, seed: int, progress: Progress
) -> tuple[Network, list[EpochResult]]:
    network = catalogue.create(MODEL, labels=train.classes, seed=seed)
    net = TrainableNetwork(network)
    epochs = fit(
        net,
        TrainingData(train, network.metadata.preprocessing),
        dataclasses.replace(recipe.digits(), seed=seed),
        validate=lambda net: evaluate(TorchClassifier(net), held_out),
        progress=lambda _, done, total: progress("train float32", done, total),
    )
    trained = net.to_network()
    step = f"trained on scikit-learn's digits, {len(train)} images, {len(epochs)} epochs"
    return trained.with_step(step), epochs


def _compressed(
    network: Network, train: ImageSet, held_out: ImageSet, progress: Progress
) -> list[Stage]:
    def measure(network: Network) -> Evaluation:
        return evaluate(from_network(network), held_out)

    data = TrainingData(train, network.metadata.preprocessing)
    return deep.deep_compression(network, deep.digits(), data, measure, progress).list


def _top1(stage: Stage) -> float:
    assert stage.top1 is not None, "every stage of the demo is measured"
    return stage.top1


def _next_steps() -> list[Step]:
    return [
        Step(
            "Train on your photos: DIR holds one folder of images a class",
            "squeezekit train --data DIR --model squeezenet-1.1 --out RUN",
        ),
        Step(
            "Compress what you trained to one small file",
            "squeezekit compress RUN --data DIR -o model.sqz",
        ),
        Step("Use the file; this needs no torch", "squeezekit predict model.sqz photo.jpg"),
    ]


def _print(console: Console, result: DemoResult, report: Report, held_out: ImageSet) -> None:
    console.print(tables.stage_table(result.stages, result.float_bytes))
    console.print(
        f"[bold]{numbers.count(result.float_bytes)} bytes of float32 weights are now a file of "
        f"{numbers.count(result.file_bytes)} bytes, "
        f"{numbers.times(result.float_bytes / result.file_bytes)} smaller.[/]\n"
        f"Of {len(held_out)} held-out digits the file gets "
        f"{numbers.percent(result.sqz_top1)}% right; the float32 network got "
        f"{numbers.percent(result.float_top1)}%. All of it took "
        f"{numbers.duration(result.seconds)}.\n",
        highlight=False,
    )
    example = held_out.paths[0]
    _print_steps(
        console,
        "See it:",
        [
            Step("the report, in a browser", str(result.page)),
            Step("a prediction", f"squeezekit predict {result.sqz} {example}"),
            Step("where every byte went", f"squeezekit info {result.sqz}"),
        ],
    )
    _print_steps(console, "Your own folder:", report.next_steps)


def _print_steps(console: Console, title: str, steps: Sequence[Step]) -> None:
    console.print(f"[bold]{title}")
    for step in steps:
        console.print(Text(f"  # {step.what}", "dim"), soft_wrap=True)
        console.print(Text(f"  {step.command}"), soft_wrap=True)
    console.print()
