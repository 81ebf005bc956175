"""The page of a compression: one HTML file that needs nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from squeezekit.confidence import Temperature
from squeezekit.evaluation import Evaluation, change
from squeezekit.files import read_bytes, write_whole
from squeezekit.models.cost import Cost, cost
from squeezekit.report import figures
from squeezekit.report.classes import confused_pairs
from squeezekit.report.contents import FileContents, contents
from squeezekit.report.figures import EpochFigures
from squeezekit.report.html import render
from squeezekit.report.mistakes import worst_mistakes
from squeezekit.report.reliability_figure import reliability_diagram
from squeezekit.report.tables import StageFigures, top1_change

if TYPE_CHECKING:  # its figures and its network are needed, and torch is not
    from squeezekit.compression.stages import Stage


@dataclass(frozen=True)
class Step:
    """Something to type next.

    Attributes:
        what: what it does, in a few words.
        command: the command line.
    """

    what: str
    command: str


@dataclass(frozen=True, eq=False)
class Report:
    """Everything that a page shows; texts may come from anywhere, all are escaped.

    Attributes:
        file_name: the name of the `.sqz`.
        file: where its bytes went.
        evaluation: the evaluation of the file, on held-out images; None without any.
        before: of the network before compression, on the same images; None if it is not known.
        temperature: fitted to held-out images, for the file; None where it was not.
        unseen: whether it is known that the network was not trained on those images.
        labels: a name a class.
        stages: the stages of the compression, float32 first.
        cost: the cost of the compressed network, layer by layer.
        epochs: the epochs of the float network's training; may be empty.
        made: how it was made, by what it is called ("command", "seconds").
        next_steps: what to type next.
        next_title, next_lead: what stands above them.
    """

    file_name: str
    file: FileContents
    evaluation: Evaluation | None
    labels: Sequence[str]
    stages: Sequence[StageFigures]
    cost: Cost
    epochs: Sequence[EpochFigures]
    made: Mapping[str, str]
    next_steps: Sequence[Step]
    before: Evaluation | None = None
    unseen: bool = False
    temperature: Temperature | None = None
    next_title: str = "Next: your own folder"
    next_lead: str = (
        "One folder of images a class is all it takes; they are split for you where you have not "
        "split them."
    )


def report_of(sqz: Path, stages: Sequence[Stage], **more: Any) -> Report:  # noqa: ANN401
    """A report with all that the file itself tells.

    Args:
        sqz: the file.
        stages: of its compression, float32 first.
        more: the other fields of `Report`.

    Raises:
        FormatError: if the file cannot be read.
    """
    file = contents(read_bytes(sqz))
    return Report(
        file_name=sqz.name, file=file, labels=file.metadata.labels, stages=stages,
        cost=cost(stages[-1].network), **more,
    )  # fmt: skip


def write_page(report: Report, path: Path | str) -> None:
    """Write the page of a report, whole or not at all.

    Raises:
        InputError: if the file cannot be written.
    """
    write_whole(path, page(report).encode())


def page(report: Report) -> str:
    """The HTML text of a report's page."""
    evaluation = report.evaluation
    return render(
        "page.html.jinja",
        report=report,
        file=report.file,
        metadata=report.file.metadata,
        evaluation=evaluation,
        change=None
        if evaluation is None or report.before is None
        else change(report.before, evaluation),
        temperature=report.temperature,
        measured="Measured from the file itself",
        labels=report.labels,
        first=report.stages[0],
        smaller=report.file.float_bytes / report.file.file_bytes,
        changes=[top1_change(report.stages, stage) for stage in report.stages],
        largest_stage=max(stage.file_bytes for stage in report.stages),
        figures={name: Markup(svg) for name, svg in _figures(report).items()},  # noqa: S704
        mistakes=[] if evaluation is None else worst_mistakes(evaluation, report.labels),
        pairs=[] if evaluation is None else confused_pairs(evaluation, report.labels),
        layers=_layers(report),
        made=report.made,
        next_title=report.next_title,
        next_lead=report.next_lead,
        next_steps=report.next_steps,
    )


@dataclass(frozen=True)
class _Layer:
    """A row of the table of layers."""

    name: str
    kind: str
    output: str
    parameters: int
    nonzero: int
    macs: int
    file_bytes: int


def _layers(report: Report) -> list[_Layer]:
    """The layers that have weights or compute something."""
    payloads: dict[str, int] = {}
    kernels: dict[str, str] = {}
    for tensor in report.file.tensors:
        layer = tensor.name.rpartition(".")[0]
        payloads[layer] = payloads.get(layer, 0) + tensor.payload_bytes
        if len(tensor.shape) == 4:
            kernels[layer] = f" {tensor.shape[2]}x{tensor.shape[3]}"
    return [
        _Layer(
            name=layer.name,
            kind=layer.op + kernels.get(layer.name, ""),
            output="x".join(map(str, layer.output_shape)),
            parameters=layer.parameters,
            nonzero=layer.nonzero,
            macs=layer.macs,
            file_bytes=payloads.get(layer.name, 0),
        )
        for layer in report.cost.layers
        if layer.parameters or layer.macs
    ]


def _figures(report: Report) -> dict[str, str]:
    """SVG by name; matplotlib escapes every text in it. Empty where there is nothing to draw."""
    evaluation = report.evaluation
    return {
        "layers": figures.bytes_per_layer(
            figures.layer_bytes(
                {t.name: (4 * t.weights, t.payload_bytes) for t in report.file.tensors}
            )
        ),
        "confusion": ""
        if evaluation is None
        else figures.confusion_matrix(evaluation.targets, evaluation.ranked[:, 0], report.labels),
        "reliability": ""
        if report.temperature is None
        else reliability_diagram(report.temperature),
        "stages": figures.bytes_and_accuracy(report.stages),
        "learning": figures.learning_curve(report.epochs) if report.epochs else "",
    }
