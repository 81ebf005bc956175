"""`compress`, the function that makes a network small, and its result."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from contextlib import nullcontext
from html import escape
from pathlib import Path
from typing import Any

from squeezekit.compression.best import Best
from squeezekit.compression.curve import Curve
from squeezekit.compression.method import Method
from squeezekit.compression.stages import Stage, Stages
from squeezekit.compression.task import Task, folder_task
from squeezekit.compression.work import Work
from squeezekit.confidence import Temperature
from squeezekit.data.dataset import split
from squeezekit.data.folders import ImageSet
from squeezekit.data.held_out import Memory, memory_of
from squeezekit.data.photos import UNLABELLED, Photos, any_images, folder_or_set
from squeezekit.errors import InputError
from squeezekit.evaluation import Change, Evaluation, change, outputs
from squeezekit.evaluation import labelled as labelled_by
from squeezekit.interop.weights import read, run_folder
from squeezekit.models.fold import fold_batch_norm
from squeezekit.progress import Progress, silent
from squeezekit.runtime.calibration import IMAGES, calibrated
from squeezekit.runtime.classifier import from_network
from squeezekit.runtime.int8 import require_layers
from squeezekit.runtime.preprocessing import Given, Note, silent_note
from squeezekit.sqz import container
from squeezekit.sqz.container import CoderName
from squeezekit.sqz.limits import DEFAULT, Limits
from squeezekit.sqz.network import Metadata, Network

FAR = 0.5
"""Nats per image. A network that diverges this much often gives another answer: at 0.66 a
fine-tuned one lost 20 of its 94 points of top-1 (docs/decisions.md, 2026-11-23)."""


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Compressed:
    """The result of a compression.

    Attributes:
        network: what the file holds.
        coder: the coder of the file.
        stages: the steps on the way, the float32 network first.
        curve: accuracy against bytes, if it was asked for; `curve.plot()` draws it.
        evaluation: how the small network does on held-out photos; None if there are no labels.
        before: how the original network does on the same photos.
        temperature: in the last layer of the small network, fitted to held-out photos; None where
            it could not be.
        unseen: whether that network says what it was trained on, and these photos are not of it.
        goal: why this file was chosen, in a few words; "" if a setting says it already.
        warnings: sentences that a user must know before using the file.
    """

    network: Network
    coder: CoderName
    stages: tuple[Stage, ...]
    curve: Curve | None
    evaluation: Evaluation | None
    before: Evaluation | None
    temperature: Temperature | None
    unseen: bool
    goal: str
    warnings: tuple[str, ...]

    @property
    def file_bytes(self) -> int:
        """The size of the whole `.sqz` in bytes."""
        return self.stages[-1].file_bytes

    @property
    def change(self) -> Change | None:
        """How the accuracy changed, photo by photo; None if nothing was measured."""
        if self.before is None or self.evaluation is None:
            return None
        return change(self.before, self.evaluation)

    @property
    def accuracy(self) -> str:
        """The accuracy and its change, with 95% intervals; "" if nothing was measured."""
        found, changed = self.evaluation, self.change
        if found is None or changed is None:
            return ""
        (low, high), (least, most) = found.top1_interval, changed.interval
        seen = "that it was never trained on" if self.unseen else "held out of the compression"
        return (
            f"top-1 {found.top1:.1f}% (95% interval {low:.1f} to {high:.1f}) on {found.images:,} "
            f"photos {seen}; {changed.points:+.1f} points ({least:+.1f} to {most:+.1f}), "
            f"{changed.gained} photos won and {changed.lost} lost"
        )

    def encoded(self) -> bytes:
        """The bytes of the `.sqz`."""
        return container.encode(self.network, self.coder)

    def as_json(self) -> dict[str, Any]:
        """Bytes, stages with accuracy in percent, curve, goal and warnings, for `json.dumps`."""
        return {
            "file_bytes": self.file_bytes,
            "goal": self.goal,
            "warnings": list(self.warnings),
            **self._accuracy_as_json(),
            "curve": self.curve and [dataclasses.asdict(point) for point in self.curve.points],
            "stages": [
                {"stage": s.name, "file_bytes": s.file_bytes, "top1": s.top1, "top5": s.top5}
                for s in self.stages
            ],
        }

    def _accuracy_as_json(self) -> dict[str, Any]:
        if self.evaluation is None or (changed := self.change) is None:
            return {}
        return {
            "images": self.evaluation.images,
            "unseen": self.unseen,
            "balanced_top1": self.evaluation.balanced_top1,
            "calibration_error": self.evaluation.reliability.error,
            "confidence": self.temperature and self.temperature.as_json(),
            "top1_interval": self.evaluation.top1_interval,
            "change": dataclasses.asdict(changed),
        }

    def __repr__(self) -> str:
        first, last = self.stages[0], self.stages[-1]
        times = first.file_bytes / last.file_bytes
        told = [
            self.network.metadata.name,
            f"{last.file_bytes:,} bytes, {times:.1f} times smaller than float32",
        ]
        if self.evaluation is not None:
            told.append(
                f"top-1 {last.top1:.1f}% (before {first.top1:.1f}%) on "
                f"{self.evaluation.images} held-out photos"
            )
        return f"Compressed({'; '.join([*told, *self.warnings])})"

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{escape(stage.name)}</td><td>{stage.file_bytes:,}</td>"
            f"<td>{_percent(stage.top1)}</td><td>{_percent(stage.top5)}</td></tr>"
            for stage in self.stages
        )
        lines = "".join(f"<p>{escape(line)}</p>" for line in (self.goal, *self.warnings) if line)
        head = "".join(f"<th>{name}</th>" for name in ("stage", "bytes", "top-1 %", "top-5 %"))
        return f"<table><tr>{head}</tr>{rows}</table>{lines}"


def compress(
    network: Network | Path | str,
    photos: Photos | None = None,
    config: Method | None = None,
    *,
    labels: Path | str | Sequence[str] | None = None,
    int8: bool = False,
    preprocessing: Given = None,
    limits: Limits | None = DEFAULT,
    work: Work | Path | str | None = None,
    progress: Progress = silent,
    note: Note = silent_note,
) -> Compressed:
    """Make a network small.

        small = sk.compress(net, "photos", sk.Best(target_bytes=120_000))

    Args:
        network: the network to compress, or a file or a folder that holds one.
        photos: photos of the kind that the network is for, in any form (see `data.photos.Photos`).
            If they have labels, some are held out to measure the accuracy. None: no photos.
        config: the method and its settings, such as `Best(target_bytes=120_000)`; None is `Best()`.
        labels: names of the network's outputs, in order, or a file of them (.txt, .tsv, .json).
            None takes the network's own names, or those of the photos' folders.
        int8: measure the ranges of activations on the photos, so that the file can run in int8.
        preprocessing: how the network's images are prepared, if its file does not say it.
        limits: how much the file may ask for; None trusts it.
        work: a folder to keep finished parts in. After an interruption the same call goes on from
            there, and removes it at the end. If it is a `Work`, its owner locks and removes it.
        progress: called during everything that takes long.
        note: called with a sentence about photos that cannot be used.

    Raises:
        InputError: if the settings, the photos and the network do not fit each other.
        UnsupportedError: if something in the network cannot be compressed.
    """
    config = Best() if config is None else config
    if int8 and photos is None:
        raise InputError("int8 needs photos to measure the ranges of activations on")
    run = run_folder(network)
    if not isinstance(network, Network):
        network = read(
            network, preprocessing=preprocessing, limits=limits, progress=progress, note=note
        )
    # If the network has ranges, they belong to the weights before compression.
    network = dataclasses.replace(network, metadata=network.metadata.uncalibrated())
    if not network.parameters:
        raise InputError(f"{network.metadata.name} has no weights to make smaller")
    if int8:
        require_layers(fold_batch_norm(network))
    data = None
    if photos is not None:
        data = folder_or_set(photos, network.metadata, outputs(from_network(network)))
    network = dataclasses.replace(network, metadata=_labelled(network, labels, data, config, note))
    unseen = bool(network.metadata.trained_on)
    task = None if data is None else _task(network.metadata, data, config, run, progress, note)
    if task is not None:
        network = task.remembered(network, *config.more_photos(network.metadata))
    given = isinstance(work, Work)
    kept = work if isinstance(work, Work) else Work(None if work is None else Path(work))
    with nullcontext() if given else kept.alone():
        stages = config.compressed(network, task, kept, progress)
        temperature = _settled(stages, task, config, unseen, note)
        if int8 and task is not None:
            ranges = calibrated(stages.list[-1].network, task.calibration(IMAGES), progress)
            stages.add("int8", ranges, config.coder)
        if not given:
            kept.forget()
    small = stages.list[-1].network
    return Compressed(
        network=small,
        coder=config.coder,
        stages=tuple(stages.list),
        curve=stages.curve,
        evaluation=stages.measured(small),
        before=stages.measured(stages.list[0].network),
        temperature=temperature,
        unseen=unseen,
        goal=stages.goal,
        warnings=_warnings(stages, outputs(from_network(small))),
    )


def _settled(
    stages: Stages, task: Task | None, config: Method, unseen: bool, note: Note
) -> Temperature | None:
    """Put a temperature into the last network, and say why not where it cannot be."""
    small = stages.list[-1].network
    if task is None or not task.labelled:
        return None
    if not unseen:  # it may be surer of these photos than of others
        note(
            "no temperature is fitted, so probabilities may be too high: nothing tells whether the "
            "network was trained on these photos"
        )
        return None
    settled, temperature = task.with_fitted_temperature(small)
    if temperature is None:
        return None
    told = settled.with_step(str(temperature))
    most = getattr(config, "target_bytes", None)
    for network in (told, settled):
        if most is None or len(container.encode(network, config.coder)) <= most:
            stages.replace_last(network, config.coder)
            return temperature
    note(f"the file has no temperature: with it, it would have more than {most:,} bytes")
    return None


def _labelled(
    network: Network,
    labels: Path | str | Sequence[str] | None,
    data: Path | ImageSet | None,
    config: Method,
    note: Note,
) -> Metadata:
    """The metadata with class names, if any can be found."""
    if labels is not None and not isinstance(labels, (Path, str)):
        names, count = tuple(labels), outputs(from_network(network))
        if len(names) != count:
            raise InputError(f"there are {len(names)} labels, but the network has {count} outputs")
        return dataclasses.replace(network.metadata, labels=names, label_ids=())
    file = None if labels is None else Path(labels)
    images = None
    if data is not None and file is None:
        try:
            images = split(data, "all")
        except InputError:  # no class folders
            images = None
    try:
        return labelled_by(network, labels=file, images=images, data=data, note=note)
    except InputError as error:
        if config.learns_labels or file is not None:
            raise
        note(f"the class folders are not used as labels: {error}")
        return network.metadata


def _task(
    metadata: Metadata,
    data: Path | ImageSet,
    config: Method,
    run: Path | None,
    progress: Progress,
    note: Note,
) -> Task:
    """The photos with their labels, or without them if the method needs none."""
    memory = Memory(metadata.trained_on) if run is None else memory_of(metadata.trained_on, run)
    if config.learns_labels:
        return folder_task(
            metadata, data, config.seed, progress, note, memory=memory, chooses=config.chooses
        )
    if not (isinstance(data, ImageSet) and data.classes == UNLABELLED):
        try:
            return folder_task(
                metadata, data, config.seed, progress, note,
                memory=memory, by_class=False, chooses=config.chooses,
            )  # fmt: skip
        except InputError as error:
            note(f"no accuracy is measured: {error}")
    images = any_images(data, metadata)
    return Task(images, images, metadata.preprocessing, progress, note, labelled=False)


def _warnings(stages: Stages, classes: int) -> tuple[str, ...]:
    """Warnings if more than half of the accuracy beyond guessing is lost."""
    first, last = stages.list[0], stages.list[-1]
    if first.top1 is None or last.top1 is None:
        if stages.divergence is not None and stages.divergence > FAR:
            return (
                f"the outputs diverge from the original's by {stages.divergence:.2g} nats an "
                "image: many answers will differ; allow more bytes",
            )
        return ()
    chance = 100 / classes
    if first.top1 > chance and last.top1 - chance < (first.top1 - chance) / 2:
        return (
            f"the accuracy fell from {first.top1:.1f}% to {last.top1:.1f}% on held-out photos: "
            "this file is of little use; allow more bytes, or retrain longer",
        )
    return ()


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"
