"""Writes the results of a reproduction: the page with the table and its figure, and the JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from squeezekit.files import make_folder, write_whole
from squeezekit.report import figures, numbers
from squeezekit.report.figures import LayerBytes, Series
from squeezekit.report.html import render
from squeezekit.report.made import how_it_was_made
from squeezekit.report.page import Step
from squeezekit.reproduction.result import Reproduction, Row
from squeezekit.reproduction.text import brief, deviation, ours
from squeezekit.sqz.network import CAFFE, Metadata

PAGE, JSON = "report.html", "results.json"
"""What is written into the folder."""

_HEADINGS = {
    "table1": "Table 1,",
    "table2": "Table 2,",
    "table3": "Table 3,",
    "figure3": "Figure 3,",
}
_LEADS = {
    "table1": "How many weights of each layer of SqueezeNet v1.0 Deep Compression keeps: counted "
    "in the network itself, beside what the paper prints.",
    "table2": "AlexNet and SqueezeNet were trained, and made small by each of the methods that the "
    "paper compares. Every size is that of a whole file on disk, and every accuracy was measured "
    "from that file.",
    "table3": "SqueezeNet without bypass connections, with simple and with complex ones, trained "
    "alike and from several seeds.",
    "figure3": "SqueezeNets that differ in one metaparameter, trained alike: what their squeeze "
    "ratio and their share of 3x3 filters cost in size and bring in accuracy.",
}


def write_results(result: Reproduction, out: Path, command: str) -> Path:
    """Write results.json and report.html into a folder, which is made where it is missing.

    Returns:
        The page.

    Raises:
        InputError: if it cannot be written.
    """
    make_folder(out)
    text = json.dumps({"command": command, **result.as_json()}, indent=2, allow_nan=False)
    write_whole(out / JSON, (text + "\n").encode())
    write_whole(out / PAGE, page(result, command).encode())
    return out / PAGE


@dataclass(frozen=True)
class _Cell:
    """Our value, the paper's, and what ours deviates by; empty if there is none."""

    ours: str
    paper: str
    deviation: str


@dataclass(frozen=True)
class _Line:
    name: str
    cells: list[_Cell]
    last: bool


def page(result: Reproduction, command: str) -> str:
    """The HTML text of a reproduction's page."""
    drawn = _figures(result)
    return render(
        "reproduction.html.jinja",
        result=result,
        metadata=Metadata("Iandola et al. 2016, SqueezeNet", CAFFE),
        heading=(_HEADINGS[result.name], _where(result)),
        lead=_LEADS[result.name],
        rows=[_line(result, row) for row in result.rows],
        figures={name: Markup(svg) for name, (_, svg) in drawn.items()},  # noqa: S704
        captions={name: caption for name, (caption, _) in drawn.items()},
        made=how_it_was_made(command, result.seconds),
        next_title="Next",
        next_lead="The same command goes on where it was interrupted, and does nothing twice.",
        next_steps=[
            Step("The numbers for a program", f"{JSON}, beside this page"),
            Step("Make your own network small", "squeezekit compress RUN --data DIR -o small.sqz"),
        ],
    )


def _where(result: Reproduction) -> str:
    if result.name == "table1":
        return "read from the file"
    return f"on {Path(str(result.settings['data'])).name}" if "data" in result.settings else "again"


def _line(result: Reproduction, row: Row) -> _Line:
    cells = []
    for column in result.columns:
        value, unit = row.values[column.key], column.unit
        paper = "" if value.paper is None else brief(value.paper, unit)
        cells.append(_Cell(ours(value, unit), paper, deviation(value, unit)))
    return _Line(row.name, cells, last=row.name == "total")


# ----------------------------------------------------------------------------------------- figures


def _figures(result: Reproduction) -> Mapping[str, tuple[str, str]]:
    """Caption and SVG by name."""
    return {
        "table1": _kept_by_layer,
        "table2": _size_against_loss,
        "table3": _gains,
        "figure3": _sweeps,
    }[result.name](result)


def _numbers(row: Row, key: str) -> tuple[float, float]:
    """Ours and the paper's; not a number where there is none."""
    value = row.values[key]
    mine, paper = (
        float(v) if isinstance(v, int | float) else float("nan") for v in (value.ours, value.paper)
    )
    return mine, paper


def _kept_by_layer(result: Reproduction) -> Mapping[str, tuple[str, str]]:
    layers = [
        LayerBytes(
            row.name, int(_numbers(row, "parameters")[0]), int(_numbers(row, "after_pruning")[0])
        )
        for row in result.rows
        if row.name != "total"
    ]
    svg = figures.bytes_per_layer(layers, numbers.many)
    return {"layers": ("Parameters of each module, and what is left of them", svg)}


def _size_against_loss(result: Reproduction) -> Mapping[str, tuple[str, str]]:
    drawn = {}
    for network in ("AlexNet", "SqueezeNet"):
        rows = [row for row in result.rows if row.name.partition(",")[0] == network]
        series = [
            Series(
                ("paper (ImageNet)", "ours")[who],
                [(_numbers(r, "own_times")[1 - who], _numbers(r, "change")[1 - who]) for r in rows],
                [_short(row.name) for row in rows] if who else (),
                strong=bool(who),
            )
            for who in (0, 1)
        ]
        steps = "; ".join(
            f"{row.name}: {_numbers(row, 'own_times')[0]:.1f} times smaller, "
            f"{_numbers(row, 'change')[0]:+.1f} points"
            for row in rows
        )
        svg = figures.lines(
            network.lower(), series, "times smaller than its float32", "top-1, change in points",
            steps, log=True, x_format="{:g}x".format, y_format=_signed, least_height=4.0,
        )  # fmt: skip
        drawn[network.lower()] = (f"{network}: what smaller files cost", svg)
    return drawn


def _signed(points: float) -> str:
    return f"{points:+g}".replace("-", "−") if points else "0"


def _short(name: str) -> str:
    method = name.rpartition(", ")[2]
    return method.removeprefix("Deep Compression ") if method[-1] == "t" else method


def _gains(result: Reproduction) -> Mapping[str, tuple[str, str]]:
    seeds = result.details["top1_by_seed"]
    names = [row.name for row in result.rows]
    base, _ = _numbers(result.rows[0], "top1")
    paper = [(i, _numbers(row, "gain")[1]) for i, row in enumerate(result.rows)]
    means = [(i, _numbers(row, "gain")[0]) for i, row in enumerate(result.rows)]
    each = [(i, top1 - base) for i, name in enumerate(names) for top1 in seeds[name]]
    svg = figures.lines(
        "gains",
        [
            Series("paper (ImageNet)", paper, strong=False),
            Series("", each, joined=False),
            Series(f"ours, mean of {len(seeds[names[0]])} seeds", means),
        ],
        "", "top-1, points against vanilla",
        "; ".join(f"{name}: {gain:+.1f} points" for name, (_, gain) in
                  zip(names, means, strict=True)),
        x_names=names, y_format=_signed,
    )  # fmt: skip
    return {"gains": ("What bypass connections gain; a dot a seed", svg)}


def _sweeps(result: Reproduction) -> Mapping[str, tuple[str, str]]:
    drawn = {}
    for sweep in ("squeeze ratio", "share of 3x3"):
        rows = [row for row in result.rows if row.name.startswith(sweep)]
        if not rows:
            continue
        series = [
            Series(
                ("paper (ImageNet)", "ours")[who],
                [(_numbers(r, "size")[1 - who], _numbers(r, "top5")[1 - who]) for r in rows],
                [row.name.removeprefix(sweep).strip() for row in rows] if who else (),
                strong=bool(who),
            )
            for who in (0, 1)
        ]
        alt = "; ".join(
            f"{row.name}: {_numbers(row, 'size')[0]:g} MiB, {_numbers(row, 'top5')[0]:.1f}%"
            for row in rows
        )
        name = sweep.replace(" ", "-")
        svg = figures.lines(name, series, "MiB at 1000 classes", "top-5", alt)
        drawn[name] = (f"Over the {sweep}{' filters' if '3x3' in sweep else ''}", svg)
    return drawn
