"""A training run: trains a network on images by a recipe, and writes the folder of the run."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from squeezekit.confidence import Temperature
from squeezekit.data.dataset import Split, split_once
from squeezekit.data.folders import ImageSet, imbalance_warning, match
from squeezekit.data.held_out import Memory, memory_of
from squeezekit.data.photos import name_of
from squeezekit.errors import InputError
from squeezekit.evaluation import Evaluation, evaluate, with_fitted_temperature
from squeezekit.files import LOCK, alone_in, check_writable, remove_half_written, write_whole
from squeezekit.interop import safetensors_file
from squeezekit.interop.weights import RUN_WEIGHTS, SO_FAR
from squeezekit.progress import Note, Progress, silent, silent_note
from squeezekit.runtime.classifier import from_network
from squeezekit.sqz.network import Network
from squeezekit.trainable.network import TrainableNetwork
from squeezekit.training.batches import TrainingData
from squeezekit.training.checkpoint import FILE_NAME, Checkpoints
from squeezekit.training.class_changes import ClassChange
from squeezekit.training.fitted_head import with_fitted_head
from squeezekit.training.loop import EpochResult, fit
from squeezekit.training.recipe import Recipe
from squeezekit.training.stuck import told_of


@dataclass(frozen=True, eq=False)
class Cure:
    """What to start again with if training is stuck, once.

    Attributes:
        recipe: instead of the run's own.
        network: makes what to train by it, with the same labels.
    """

    recipe: Recipe
    network: Callable[[], Network]


@dataclass(frozen=True, eq=False)
class Run:
    """The result of a training run.

    Attributes:
        network: the trained network.
        evaluation: on the held-out images.
        temperature: in its last layer, fitted to held-out images; None where it could not be.
        results: one an epoch.
        start: of the fitted last layer before training, as epoch 0; None where none was fitted.
        seconds: wall time of it all.
        recipe: the recipe that it was trained by.
        data: the training images.
        class_images: int64 (classes,), how many training images of each class were found.
        parts: the images to train on, to choose the epoch by, and those of `evaluation`.
        folder: the folder of the run.
        writes: whether this process writes what the run leaves: the first one of `torchrun` does.
        changes: how each class does now, beside what training began with; empty if that knew none.
    """

    network: Network
    evaluation: Evaluation
    temperature: Temperature | None
    results: list[EpochResult]
    start: EpochResult | None
    seconds: float
    recipe: Recipe
    data: TrainingData
    class_images: npt.NDArray[np.int64]
    parts: Split
    folder: Path
    writes: bool
    changes: tuple[ClassChange, ...] = ()

    @property
    def compared(self) -> list[EpochResult]:
        """The results from that of the start on, where there is one."""
        return [*([] if self.start is None else [self.start]), *self.results]

    @property
    def summary(self) -> str:
        """The accuracy, with what chance leaves open, and what it took, for people."""
        low, high = self.evaluation.top1_interval
        return (
            f"top-1 {self.evaluation.top1:.1f} (95% interval {low:.1f} to {high:.1f}) on "
            f"{self.evaluation.images} held-out images after {len(self.results)} epochs, "
            f"{self.seconds:.0f} s"
        )

    def as_json(self) -> dict[str, Any]:
        """Folder, accuracy in percent, epochs and seconds, for `json.dumps`."""
        names = ("top1", "top5", "top1_interval", "top5_interval", "balanced_top1", "images")
        return {
            "run": str(self.folder),
            **{name: getattr(self.evaluation, name) for name in names},
            "confidence": self.temperature and self.temperature.as_json(),
            "epochs": len(self.results),
            "seconds": self.seconds,
            "classes": [dataclasses.asdict(change) for change in self.changes],
        }


def train_run(
    network: Network,
    data: Path | ImageSet,
    out: Path,
    recipe: Recipe,
    *,
    teacher: Network | None = None,
    masked: bool = False,
    fresh_head: bool = False,
    resume: bool = False,
    validates: bool = True,
    title: str = "",
    cure: Cure | None = None,
    progress: Progress = silent,
    note: Note = silent_note,
) -> Run:
    """Train a network and write a folder with weights, recipe and results.

    Writes `recipe.json`; `photos.csv` (every photo, and whether it was used to train, to choose or
    to measure; everything made from the run keeps to this list); `results.csv` (a line after each
    epoch); `checkpoint.pt` (every minute and after each epoch); at the end `weights.safetensors`;
    and TensorBoard's logs if `tensorboard` is installed. Under `torchrun` only the first process
    writes.

    Args:
        network: what to train; its labels are the class folders.
        data: the folder of images, or a set of them.
        out: the folder of the run: new or empty.
        recipe: how to train.
        teacher: a network with the same preprocessing and classes, to learn from.
        masked: keep the zeros among its weights exactly zero.
        fresh_head: its last layer knows nothing of the classes yet; the recipe may have it fitted.
        resume: go on where the run in `out` was interrupted; the arguments must be the same.
        validates: measure the network after each epoch; it is at the end in any case.
        title: what people call it, on pages and in its file; the data folder's name where empty.
        cure: what to start again with, once, if nothing is learned (see `stuck`); None goes on.
        progress: called during decoding, training and evaluation.
        note: called with a sentence about skipped images, and with warnings.

    Raises:
        InputError: if the data cannot be used, `out` holds a run already, or another process
            trains there.
    """
    if teacher is not None:
        _check_teacher(teacher, network)
    writes = os.environ.get("RANK", "0") == "0"
    if writes:
        if out.is_dir():
            with alone_in(out):  # a second process is told at once
                pass
        _check_folder(out, resume)
    with ExitStack() as held:

        def claim() -> None:
            if writes:
                held.enter_context(alone_in(out))
                _check_folder(out, resume)  # again: reading the images takes time

        return _trained(
            network, data, out, recipe, teacher, masked, fresh_head, validates, resume, title,
            cure, writes, claim, progress, note,
        )  # fmt: skip


def _trained(
    network: Network,
    data: Path | ImageSet,
    out: Path,
    recipe: Recipe,
    teacher: Network | None,
    masked: bool,
    fresh_head: bool,
    validates: bool,
    resume: bool,
    title: str,
    cure: Cure | None,
    writes: bool,
    claim: Callable[[], None],
    progress: Progress,
    note: Note,
) -> Run:
    """The run. Before it writes, it claims the folder, so that no other process writes there."""
    start = time.perf_counter()
    if cure is not None and resume and _settings_in(out) == _settings(cure.recipe):
        note("this run was stuck, and has started again")
        network, recipe, cure = cure.network(), cure.recipe, None
    labels = network.metadata.labels
    marks = network.metadata.trained_on
    if teacher is not None:
        marks = tuple(dict.fromkeys((*marks, *teacher.metadata.trained_on)))
    # Photos that an interrupted run has seen count as seen, even if the folder changed since.
    memory = memory_of(marks, out) if resume else Memory(marks)
    fits = recipe.fit_head and fresh_head
    chooses = recipe.chooses_epoch or (fits and recipe.keep == "guarded" and validates)
    parts = split_once(data, recipe.seed, memory=memory, chooses=chooses, progress=progress)
    parts = parts.matched(lambda images: match(images, labels))

    def named(made: Network) -> Network:
        made = parts.remembered_by(made)
        metadata = dataclasses.replace(made.metadata, title=title or name_of(data))
        return dataclasses.replace(made, metadata=metadata)

    network = named(network)
    found = parts.training
    for sentence in (*parts.notes, *_told_of(parts)):
        note(sentence)
    if warning := imbalance_warning(found):
        note(warning)
    training = TrainingData(found, network.metadata.preprocessing, progress=progress)
    for sentence in training.skipped:
        note(f"skipped: {sentence}")
    claim()
    fitted = with_fitted_head(network, training, recipe, progress) if fits else None
    net = TrainableNetwork(network if fitted is None else fitted.network)
    if masked:
        net.mask_zeros()

    def measured(images: ImageSet) -> Callable[[TrainableNetwork], Evaluation]:
        # ONNX Runtime: several times as quick as torch, and what the network will be used with.
        return lambda net: evaluate(from_network(net.to_network()), images, progress=progress)

    before = None
    if fitted is not None:
        top1 = measured(parts.choosing)(net).top1 if validates else None
        before = EpochResult(0, fitted.loss, 0.0, fitted.top1, top1, fitted.seconds)

    def attempt(net: TrainableNetwork, recipe: Recipe, resume: bool) -> list[EpochResult]:
        """Train by a recipe; raises `_StuckError` if nothing is learned and there is a cure."""
        told: list[EpochResult] = []
        if writes:
            write_whole(out / "recipe.json", _settings(recipe).encode())
        with _tensorboard(out if writes else None) as log:

            def on_epoch(result: EpochResult) -> None:
                told.append(result)
                if result.warning and cure is not None and recipe is not cure.recipe:
                    raise _StuckError
                if not writes:
                    return
                _write_results(out / "results.csv", told)
                log(result)
                if result.warning:
                    note(result.warning)

            def on_kept(kept: TrainableNetwork) -> None:
                if writes:  # for whoever cannot wait for the end, or interrupts it
                    so_far = kept.to_network().with_step(
                        f"epoch {len(told) + (before is None)} of {recipe.epochs}, not finished"
                    )
                    safetensors_file.write(so_far, out / SO_FAR)

            if before is not None and not (resume and (out / SO_FAR).exists()):
                on_kept(net)
            return fit(
                net,
                training,
                recipe,
                validate=measured(parts.choosing) if validates else None,
                start=before,
                teacher=None if teacher is None else TrainableNetwork(teacher),
                checkpoints=Checkpoints(out / FILE_NAME, resume=resume),
                progress=progress,
                on_epoch=on_epoch,
                on_kept=on_kept,
                began=start,
            )

    if writes:
        parts.write_list(out)
    try:
        results = attempt(net, recipe, resume)
    except _StuckError as stuck:
        if cure is None:
            raise AssertionError("only a run with a cure stops") from stuck
        note(f"nothing was learned: it starts again, with {told_of(cure.recipe, recipe)}")
        if writes:
            for name in (FILE_NAME, SO_FAR, "results.csv"):
                (out / name).unlink(missing_ok=True)
        recipe = cure.recipe
        net = TrainableNetwork(named(cure.network()))
        if masked:
            net.mask_zeros()
        before = None
        results = attempt(net, recipe, resume=False)
    if recipe.minutes is not None and len(results) < recipe.epochs:
        note(
            f"the {recipe.minutes:g} minutes were enough for {len(results)} of {recipe.epochs} "
            "epochs; the learning rate fell as it does in all of them"
        )
    step = (
        f"trained on {training.images} photos of {name_of(data)}, {len(results)} epochs, "
        f"{date.today()}"
    )
    trained = net.to_network()
    trained, temperature = with_fitted_temperature(
        trained.with_step(step), parts.choosing, progress=progress, note=note
    )
    if temperature is not None:
        trained = trained.with_step(str(temperature))
    if writes:
        safetensors_file.write(trained, out / RUN_WEIGHTS)
        (out / SO_FAR).unlink(missing_ok=True)
    evaluation = evaluate(from_network(trained), parts.measuring, progress=progress)
    return Run(
        network=trained,
        evaluation=evaluation,
        temperature=temperature,
        results=results,
        start=before,
        seconds=time.perf_counter() - start,
        recipe=recipe,
        data=training,
        class_images=np.bincount(found.targets, minlength=len(labels)),
        parts=parts,
        folder=out,
        writes=writes,
    )


class _StuckError(Exception):
    """Training has learned nothing, and there is a cure."""


def _settings(recipe: Recipe) -> str:
    return json.dumps(dataclasses.asdict(recipe), indent=2)


def _settings_in(out: Path) -> str:
    """The recipe of the run in a folder; empty if there is none."""
    path = out / "recipe.json"
    return path.read_text() if path.is_file() else ""


def _told_of(parts: Split) -> list[str]:
    if not parts.chooses:
        return []
    return [
        f"{len(parts.choosing):,} held-out photos choose the epoch to keep, "
        f"{len(parts.measuring):,} others measure the accuracy"
    ]


def _check_teacher(teacher: Network, network: Network) -> None:
    if teacher.metadata.preprocessing != network.metadata.preprocessing:
        raise InputError(
            f"the teacher {teacher.metadata.name} prepares images in another way than "
            f"{network.metadata.name}"
        )
    if teacher.metadata.labels != network.metadata.labels:
        raise InputError(f"the teacher {teacher.metadata.name} has other labels than the data")


def _check_folder(out: Path, resume: bool) -> None:
    """Refuse, before anything is decoded, a folder that cannot be written to after the training."""
    remove_half_written(out)
    if out.exists() and (not out.is_dir() or {path.name for path in out.iterdir()} - {LOCK}):
        if not out.is_dir() or not (out / "recipe.json").exists():
            raise InputError(f"{out} exists and is not an empty folder: name another one")
        if not resume:
            raise InputError(f"{out} holds a run: add --resume to go on with it, or name another")
    nearest = next(place for place in (out, *out.absolute().parents) if place.exists())
    check_writable(nearest / RUN_WEIGHTS)


@contextmanager
def _tensorboard(out: Path | None) -> Iterator[Callable[[EpochResult], None]]:
    """A function that logs a result for TensorBoard, if it is installed and there is a folder."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        out = None
    if out is None:
        yield lambda result: None
        return
    folder = out / "tensorboard"
    # A resumed run reports its earlier results again; if logged twice, they are drawn twice.
    shutil.rmtree(folder, ignore_errors=True)
    with SummaryWriter(str(folder)) as board:

        def log(result: EpochResult) -> None:
            for name in ("loss", "learning_rate", "train_top1", "val_top1"):
                value = getattr(result, name)
                if value is not None:
                    board.add_scalar(name, value, result.epoch)
            board.flush()

        yield log


def _write_results(path: Path, results: list[EpochResult]) -> None:
    text = io.StringIO()
    fields = [field.name for field in dataclasses.fields(EpochResult)]
    writer = csv.DictWriter(text, fields, lineterminator="\n")
    writer.writeheader()
    writer.writerows(dataclasses.asdict(result) for result in results)
    write_whole(path, text.getvalue().encode())
