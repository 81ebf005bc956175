"""Tables for the terminal, built from plain data; nothing here loads torch or matplotlib."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from squeezekit.report import numbers
from squeezekit.runtime.stated import described

if TYPE_CHECKING:  # the tables need their fields only
    from squeezekit.data.check import Checked
    from squeezekit.evaluation import Evaluation
    from squeezekit.models.cost import Cost, ModuleCost
    from squeezekit.report.contents import FileContents

_MOST_PARTS = 4


class StageFigures(Protocol):
    """What a table shows of a stage of compression; `compression.stages.Stage` is one."""

    @property
    def name(self) -> str:
        """What was done."""

    @property
    def file_bytes(self) -> int:
        """Size of the whole file after it."""

    @property
    def top1(self) -> float | None:
        """Percent right after it, None if there were no images to tell."""

    @property
    def top5(self) -> float | None:
        """Percent with the truth among five."""


class DesignFigures(Protocol):
    """What is shown of a design that was tried; `explore.run.Result` is one."""

    @property
    def trial(self) -> int:
        """Its number."""

    @property
    def top1(self) -> float:
        """Percent, of the file."""

    @property
    def file_bytes(self) -> int:
        """Of the whole file."""

    @property
    def macs(self) -> int:
        """Multiply-accumulates of an image."""

    @property
    def on_front(self) -> bool:
        """Whether no other is better in all three."""

    @property
    def given(self) -> bool:
        """Whether it was set, and not searched for: the paper's metaparameters."""

    @property
    def values(self) -> Mapping[str, Any]:
        """Of its metaparameters."""


def models_table(models: Mapping[str, Mapping[str, Any]]) -> Table:
    """The networks of the catalogue.

    Args:
        models: by name; "description", "input_size" in pixels and "parameters" of each.
    """
    table = _table("Model", "Input", "Parameters", "float32 MB")
    table.add_column("")
    for name, model in models.items():
        parameters = model["parameters"]
        table.add_row(
            f"[bold]{name}",
            f"{model['input_size']}x{model['input_size']}",
            numbers.count(parameters),
            f"{4 * parameters / 1e6:.1f}",
            Text(model["description"], "dim"),
        )
    return table


def cost_table(cost: Cost) -> Table:
    """Every layer and fire module as a row, in the columns of the paper's Table 1.

    Filters and density are those of a module's convolutions in their order: squeeze1x1, expand1x1
    and expand3x3 of a fire module. Biases count among the weights; kB are those of float32.
    """
    filters = {layer.name: layer.output_shape[0] for layer in cost.layers if layer.output_shape}
    table = _table("Layer", "Output", "Filters", "Density %", "Weights", "Nonzero", "MACs", "kB")
    for module in cost.modules:
        table.add_row(
            Text(numbers.shown(module.name)),
            "x".join(map(str, module.output_shape)),
            _each([str(filters.get(name, "?")) for name in _weight_layers(module)]),
            _each([f"{100 * density:.0f}" for _, density in module.densities]),
            *(_amounts(module) if module.parameters else ()),
        )
    table.add_section()
    table.add_row(
        "[bold]total",
        "",
        "",
        f"{100 * cost.nonzero / max(cost.parameters, 1):.0f}",
        *(f"[bold]{amount}" for amount in _amounts(cost)),
    )
    return table


def _amounts(cost: Cost | ModuleCost) -> tuple[str, ...]:
    return (
        numbers.count(cost.parameters),
        numbers.count(cost.nonzero),
        numbers.many(cost.macs),
        f"{cost.float_bytes / 1000:,.0f}",
    )


def _weight_layers(module: ModuleCost) -> list[str]:
    return [f"{module.name}.{part}" if part else module.name for part, _ in module.densities]


def _each(values: Sequence[str]) -> str:
    """One value a convolution, while there are few enough to be read."""
    return "/".join(values) if len(values) <= _MOST_PARTS else f"({len(values)} layers)"


def stage_table(stages: Sequence[StageFigures], float_bytes: int) -> Table:
    """The stages of a compression: what each did to the bytes and to the accuracy.

    Args:
        stages: in order; the accuracy of the first is what the others' change is from.
        float_bytes: what the network's parameters take as float32.
    """
    table = _table("Stage", "Bytes", "Smaller", "Top-1 %", "Top-5 %", "Change")
    for stage in stages:
        table.add_row(
            Text(numbers.shown(stage.name)),
            numbers.count(stage.file_bytes),
            numbers.times(float_bytes / stage.file_bytes),
            numbers.percent(stage.top1),
            numbers.percent(stage.top5),
            _change(top1_change(stages, stage)),
        )
    return table


def top1_change(stages: Sequence[StageFigures], stage: StageFigures) -> float | None:
    """Points of top-1 gained (or lost) since the first stage; None if either is not known."""
    before = stages[0].top1
    return None if before is None or stage.top1 is None else stage.top1 - before


def sensitivity_table(
    baseline: float,
    curves: Mapping[str, Sequence[tuple[float, float]]],
    densities: Mapping[str, float],
) -> Table:
    """Top-1 with one layer pruned alone, by density, and the density chosen for it.

    Args:
        baseline: top-1 of the unpruned network, in percent.
        curves: by tensor name, (density, top-1).
        densities: chosen, by tensor name.
    """
    measured = [density for density, _ in next(iter(curves.values()))]
    table = _table("Layer", "100%", *(f"{100 * d:g}%" for d in measured), "Chosen")
    for name, curve in curves.items():
        table.add_row(
            Text(numbers.shown(name.removesuffix(".weight"))),
            numbers.percent(baseline),
            *(numbers.percent(top1) for _, top1 in curve),
            f"[bold]{100 * densities[name]:.1f}%",
        )
    return table


def info_table(file: FileContents) -> Group:
    """Where every byte of a `.sqz` went; the rows add up to the file."""
    table = _table("Part", "Coder", "Shape", "Nonzero", "Bits each", "Bytes", "Share")
    blank = [""] * 4

    def bytes_and_share(part: int) -> tuple[str, str]:
        return numbers.count(part), numbers.share(part, file.file_bytes)

    table.add_row("header", *blank, *bytes_and_share(file.header_bytes))
    for name, part in file.head_parts.items():
        table.add_row(_HEAD_PARTS[name], *blank, *bytes_and_share(part))
    table.add_section()
    for tensor in file.tensors:
        table.add_row(
            Text(numbers.shown(tensor.name)),
            tensor.coder,
            "x".join(map(str, tensor.shape)),
            numbers.count(tensor.nonzero),
            f"{tensor.bits_per_weight:.2f}",
            *bytes_and_share(tensor.payload_bytes),
        )
    table.add_section()
    table.add_row(
        "[bold]file",
        "",
        "",
        numbers.count(file.nonzero),
        f"{8 * file.file_bytes / max(file.parameters, 1):.2f}",
        f"[bold]{numbers.count(file.file_bytes)}",
        "100%",
    )
    return Group(_about(file), table)


_HEAD_PARTS = {
    "metadata": "labels, preprocessing",
    "graph": "graph",
    "records": "tensor records",
}


def _about(file: FileContents) -> Text:
    metadata = file.metadata
    lines = [
        f"{metadata.name}: {numbers.count(file.parameters)} parameters in "
        f"{numbers.count(file.file_bytes)} bytes, "
        f"{numbers.times(file.float_bytes / file.file_bytes)} smaller than as float32",
        f"images: {described(metadata.preprocessing)}",
        f"{len(metadata.labels) or 'no'} labels; licence {metadata.licence or 'not stated'}",
        *(["calibrated: runs in int8, and in float"] if metadata.activations else []),
        *(f"- {step}" for step in metadata.provenance),
    ]
    return Text("\n".join(numbers.shown(line) for line in lines) + "\n")


def front_table(results: Sequence[DesignFigures]) -> Table:
    """The finished trials of an exploration that no other beats in all, smallest first.

    Args:
        results: the results of all finished trials.
    """
    table = _table("Trial", "Bytes", "Top-1 %", "MACs")
    table.add_column("")
    for result in sorted(results, key=lambda result: result.file_bytes):
        if result.on_front:
            table.add_row(
                str(result.trial),
                numbers.count(result.file_bytes),
                numbers.percent(result.top1),
                numbers.many(result.macs),
                Text("the paper's metaparameters" if result.given else "", "dim"),
            )
    return table


def check_table(checked: Checked) -> Table:
    """What was found among photos: how much of each kind, and the first of it."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("Found")
    table.add_column("", justify="right")
    table.add_column("For example", overflow="fold")
    copies = [(group, f"{group[0].file} and {group[1].file}") for group in checked.copies]
    rows: list[tuple[str, list[str]]] = [
        ("copies", [words for _, words in copies]),
        ("- in more than one part", [w for g, w in copies if g in checked.across_parts]),
        ("- in more than one class", [w for g, w in copies if g in checked.across_classes]),
        ("blank", [str(photo.file) for photo in checked.blank]),
        ("tiny", [str(photo.file) for photo in checked.tiny]),
        ("broken", [reason for _, reason in checked.unreadable]),
        ("rare classes", [f"{name}: {count}" for name, count in checked.rare.items()]),
    ]
    if checked.mislabelled is not None:
        examples = [f"{e.photo.file}: {e.suggested}?" for e in checked.mislabelled]
        rows.append(("probably another class", examples))
    for name, found in rows:
        example = Text(found[0] if found else "", "dim")
        table.add_row(name, numbers.count(len(found)), example)
    table.caption = f"of {numbers.count(checked.photos)} photos"
    return table


def evaluation_table(evaluation: Evaluation, file_bytes: int | None = None) -> Table:
    """Accuracy, how many images it was measured on, and how long that took."""
    table = Table(box=box.SIMPLE_HEAD, show_header=False, pad_edge=False)
    table.add_column(style="dim")
    table.add_column(justify="right", style="bold")
    for what, percent, (low, high) in (
        ("top-1", evaluation.top1, evaluation.top1_interval),
        ("top-5", evaluation.top5, evaluation.top5_interval),
    ):
        table.add_row(what, f"{percent:.2f}%")
        table.add_row("  95% interval", f"{low:.1f} to {high:.1f}%")
    table.add_row("balanced top-1", f"{evaluation.balanced_top1:.2f}%")
    table.add_row("calibration error", f"{evaluation.reliability.error:.3f}")
    table.add_row("images", numbers.count(evaluation.images))
    if evaluation.trained_on:
        table.add_row("trained on", f"[yellow]{numbers.count(evaluation.trained_on)} of them")
    if evaluation.left_out:
        table.add_row("left out", f"{numbers.count(evaluation.left_out)} others")
    if evaluation.skipped:
        table.add_row("skipped", f"[yellow]{numbers.count(len(evaluation.skipped))}")
    if file_bytes is not None:
        table.add_row("file", f"{numbers.count(file_bytes)} bytes")
    table.add_row("time", numbers.duration(evaluation.seconds))
    speed = evaluation.images / max(evaluation.seconds, 1e-9)
    table.add_row("speed", f"{numbers.count(round(speed))} images/s")
    return table


def speed_table(figures: Mapping[str, Mapping[str, float]], ours: str) -> Table:
    """Runtimes side by side: each figure, how many times ours it is, and the best in bold.

    Args:
        figures: by runtime, then by measure, as `speed.race.Figures.summary` names these.
        ours: which of the runtimes the others are compared to.
    """
    best = {
        measure: (max if measure == "images_per_second" else min)(
            (found[measure] for found in figures.values() if measure in found), default=None
        )
        for measure in _MEASURES
    }
    shown = {measure: what for measure, what in _MEASURES.items() if best[measure] is not None}
    table = _table("", *(title for title, _ in shown.values()))
    for name, found in figures.items():
        cells = []
        for measure, (_, written) in shown.items():
            if measure not in found:
                cells.append(Text("-"))
                continue
            value = found[measure]
            text = Text(written(value), "bold green" if value == best[measure] else "")
            if name != ours and measure in figures[ours]:
                text.append(f"\n{numbers.rate(value / figures[ours][measure])}x", "not bold dim")
            cells.append(text)
        table.add_row(Text(name, "bold" if name == ours else ""), *cells)
    return table


_MEASURES: dict[str, tuple[str, Callable[[float], str]]] = {
    "file_bytes": ("File", numbers.size),
    "install_bytes": ("Install", numbers.size),
    "cold_start_seconds": ("Cold\nstart", numbers.brief),
    "load_seconds": ("Load", numbers.brief),
    "latency_p50_seconds": ("p50", numbers.brief),
    "latency_p99_seconds": ("p99", numbers.brief),
    "images_per_second": ("Images\n/s", numbers.rate),
    "peak_bytes": ("Memory", numbers.size),
}


def _table(first: str, *others: str) -> Table:
    """A table that fits into 80 columns: only the first column, a name, may be folded."""
    table = Table(
        box=box.SIMPLE_HEAD,
        header_style="bold",
        pad_edge=False,
        show_edge=False,
        padding=(0, 1, 0, 0),
    )
    table.add_column(first, overflow="fold")
    for name in others:
        text = name in ("Coder", "Shape", "Output")
        table.add_column(name, justify="left" if text else "right", no_wrap=True)
    return table


def _change(change: float | None) -> RenderableType:
    text = numbers.points(change)
    return Text(text, "red" if change is not None and change < -1.0 else "")
