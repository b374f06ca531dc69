"""What a benchmark found: tables for people, values for the goals, bars for the chart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Table:
    """Rows of text under a title; the first column is on the left, all others on the right."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]

    def __str__(self) -> str:
        """As Markdown, laid out for whoever reads it as it is."""
        widths = [max(len(row[at]) for row in (self.columns, *self.rows)) for at in range(len(self.columns))]
        rules = ["-" * width if at == 0 else "-" * (width - 1) + ":" for at, width in enumerate(widths)]
        return "\n".join(self._line(row, widths) for row in (self.columns, rules, *self.rows))

    @staticmethod
    def _line(row: Sequence[str], widths: Sequence[int]) -> str:
        cells = [
            f"{text:<{width}}" if at == 0 else f"{text:>{width}}"
            for at, (text, width) in enumerate(zip(row, widths, strict=True))
        ]
        return "| " + " | ".join(cells) + " |"


@dataclass(frozen=True)
class Bar:
    """A bar of the chart."""

    label: str
    #: Microseconds over the bare app.
    value: float
    ours: bool
    #: Whether nothing is remembered: the token is checked anew for each request.
    anew: bool = False


@dataclass
class Report:
    """What one benchmark found."""

    tables: list[Table] = field(default_factory=list)
    #: By the names that the goals use.
    values: dict[str, float] = field(default_factory=dict)
    bars: list[Bar] = field(default_factory=list)
    #: Sentences about what could not be measured here, and what to install.
    missing: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        return {
            "tables": [
                {"title": table.title, "columns": list(table.columns), "rows": [list(row) for row in table.rows]}
                for table in self.tables
            ],
            "values": self.values,
            "bars": [[bar.label, bar.value, bar.ours, bar.anew] for bar in self.bars],
            "missing": self.missing,
        }

    @classmethod
    def from_json(cls, kept: Any) -> Report:
        return cls(
            [Table(table["title"], table["columns"], table["rows"]) for table in kept["tables"]],
            kept["values"],
            [Bar(*bar) for bar in kept["bars"]],
            kept["missing"],
        )
