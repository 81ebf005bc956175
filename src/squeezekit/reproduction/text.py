"""A reproduced table in the terminal."""

from __future__ import annotations

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from squeezekit.report import numbers
from squeezekit.reproduction.result import Reproduction, Unit, Value


def written(number: float | str | None, unit: Unit) -> str:
    """A value as people read it; a dash where there is none."""
    if number is None:
        return "-"
    if isinstance(number, str):
        return number
    match unit:
        case "count" | "bytes":
            return numbers.count(round(number))
        case "times":
            return numbers.times(number)
        case "percent":
            return numbers.percent(number)
        case "points":
            return numbers.points(number)
        case _:
            return f"{number:.3g}"


def brief(number: float | str, unit: Unit) -> str:
    """The paper's value: it prints bytes with two or three digits, and so do we."""
    return (
        numbers.size(number)
        if unit == "bytes" and not isinstance(number, str)
        else written(number, unit)
    )


def ours(value: Value, unit: Unit) -> str:
    """Our value, with its spread where there is one."""
    text = written(value.ours, unit)
    return text if value.spread is None else f"{text} ± {value.spread:.1f}"


def deviation(value: Value, unit: Unit) -> str:
    """Of ours from the paper's: points, or percent; empty if nothing can be compared."""
    found = value.deviation(unit)
    if found is None:
        return ""
    if unit in ("percent", "points"):
        return numbers.points(found)
    return "=" if found == 0 else f"{found:+.1f}%".replace("-", "−")


def reproduction_table(result: Reproduction) -> Group:
    """The table, below each value the paper's and what ours deviates by, and the notes."""
    table = Table(
        title=result.title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD,
        pad_edge=False, padding=(0, 1, 0, 0),
    )  # fmt: skip
    table.add_column("")
    for column in result.columns:
        table.add_column(column.title, justify="right")
    for row in result.rows:
        cells = [_cell(row.values[column.key], column.unit) for column in result.columns]
        table.add_row(Text(row.name, "bold"), *cells)
    key = Text("Below each value: the paper's, and what ours deviates by.\n", "cyan")
    return Group(table, key, *(Text(f"{note}\n", "dim") for note in result.notes))


def _cell(value: Value, unit: Unit) -> Text:
    text = Text(ours(value, unit))
    if value.paper is not None:
        text.append(f"\n{brief(value.paper, unit)}", "cyan")
        if found := deviation(value, unit):
            text.append(f" {found}", "dim")
    return text
