"""A reproduced table: rows of values, ours and the paper's, and the difference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Unit = Literal["count", "bytes", "MiB", "percent", "points", "times", "text"]
"""How a column's numbers are written, and compared: percentages by difference, others by ratio."""


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        key: in the JSON.
        title: for people.
        unit: the unit of its values.
    """

    key: str
    title: str
    unit: Unit


@dataclass(frozen=True)
class Value:
    """A cell.

    Attributes:
        ours: measured; None if it could not be.
        paper: printed in the paper; None if it prints none.
        spread: standard deviation over several seeds, where there were any.
    """

    ours: float | str | None
    paper: float | str | None = None
    spread: float | None = None

    def deviation(self, unit: Unit) -> float | None:
        """Ours from the paper's: points for percentages, percent for everything else."""
        if not isinstance(self.ours, int | float) or not isinstance(self.paper, int | float):
            return None
        if unit in ("percent", "points"):
            return self.ours - self.paper
        return 100 * (self.ours / self.paper - 1)


@dataclass(frozen=True)
class Row:
    """A row: its name, and a value by column key."""

    name: str
    values: Mapping[str, Value]


@dataclass(frozen=True)
class Reproduction:
    """A reproduced table.

    Attributes:
        name: "table2".
        title: for people.
        columns, rows: the columns and rows of the table.
        notes: sentences that belong below it: where it differs from the paper and why.
        settings: everything that it was made with, as JSON takes it.
        details: more, for the JSON only.
        seconds: how long it took, over all the runs it was made in.
    """

    name: str
    title: str
    columns: Sequence[Column]
    rows: Sequence[Row]
    notes: Sequence[str]
    settings: Mapping[str, Any] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0

    def as_json(self) -> dict[str, Any]:
        """The same as JSON takes it: {"ours", "paper", "deviation", "spread"} a cell."""
        return {
            "name": self.name,
            "title": self.title,
            "rows": [
                {
                    "row": row.name,
                    **{
                        column.key: {
                            "ours": value.ours,
                            "paper": value.paper,
                            "deviation": value.deviation(column.unit),
                            **({} if value.spread is None else {"spread": value.spread}),
                        }
                        for column in self.columns
                        for value in [row.values[column.key]]
                    },
                }
                for row in self.rows
            ],
            "notes": list(self.notes),
            "settings": dict(self.settings),
            "details": dict(self.details),
            "seconds": self.seconds,
        }
