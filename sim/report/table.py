"""Tables for people: which columns of a Result to show, under which heading, and the look of a table."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import IO, Any, Literal

from rich.console import Console, Group, JustifyMethod
from rich.table import Table
from rich.text import Text

from sim.report.number import bare, show
from sim.results import Result

PIPE_WIDTH = 100
LABEL_WIDTH = 40  # of the first column; a longer one would leave no room for the figures


@dataclass(frozen=True)
class Column:
    """A column to show: its name in the Result, its heading, and whether the heading carries the unit."""

    name: str
    heading: str
    unit_in_heading: bool = False

    def cell(self, value: Any) -> str:
        """Text of one value."""
        return bare(self.name, value) if self.unit_in_heading else show(self.name, value)


SETTING = (
    Column("label", "deployment"),
    Column("model", "model"),
    Column("hardware", "hardware"),
    Column("engine", "engine"),
    Column("weights", "weights"),
    Column("kv", "KV"),
    Column("n_gpus", "GPUs"),
    Column("tp", "TP"),
    Column("pp", "PP"),
    Column("ep", "EP"),
    Column("dp", "DP"),
    Column("replicas", "replicas"),
    Column("prompt_tokens", "prompt\ntokens", unit_in_heading=True),
    Column("output_tokens", "output\ntokens", unit_in_heading=True),
    Column("context_tokens", "context\ntokens", unit_in_heading=True),
)
SPEED = (
    Column("ttft_s", "TTFT"),
    Column("tpot_s", "TPOT"),
    Column("user_tokens_per_s", "tok/s\n/user", unit_in_heading=True),
    Column("output_tokens_per_s", "tok/s", unit_in_heading=True),
    Column("bound", "bound by"),
    Column("usd_per_mtok", "$/Mtok", unit_in_heading=True),
    Column("joules_per_token", "J/token", unit_in_heading=True),
)


def console(file: IO[str]) -> Console:
    """A console that writes to `file`: styled only on a terminal and without NO_COLOR, 100 columns wide elsewhere."""
    styles: Literal["auto"] | None = None if os.environ.get("NO_COLOR") else "auto"
    width = None if file.isatty() else PIPE_WIDTH
    return Console(file=file, width=width, color_system=styles, highlight=False, emoji=False, markup=False)


def grid(columns: Sequence[Column], rows: Iterable[dict[str, Any]], title: str = "") -> Table:
    """Rows under headings; numbers to the right, text to the left."""
    rows = list(rows)
    table = Table(title=title or None, title_justify="left", title_style="bold", box=None, pad_edge=False)
    for column in columns:
        text = rows and all(isinstance(row[column.name], str) for row in rows)
        justify: JustifyMethod = "left" if text else "right"
        first = not table.columns
        whole = first and all(len(column.cell(row[column.name])) <= LABEL_WIDTH for row in rows)
        style: dict[str, Any] = {"justify": justify, "header_style": "bold", "overflow": "fold"}
        table.add_column(column.heading, **style, no_wrap=whole, max_width=LABEL_WIDTH if first else None)
    for row in rows:
        table.add_row(*(Text(column.cell(row[column.name])) for column in columns))
    return table


def pairs(rows: Iterable[tuple[str, str]]) -> Table:
    """Names and values side by side."""
    table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2, 0, 2))
    table.add_column(justify="left")
    table.add_column(justify="right")
    for name, value in rows:
        table.add_row(Text(name), Text(value))
    return table


def varying(result: Result, columns: Iterable[Column]) -> list[Column]:
    """Those columns that the result has and whose value is not the same in every row."""
    rows = result.rows()
    present = [column for column in columns if column.name in result]
    return [column for column in present if len({row[column.name] for row in rows}) > 1]


def card(result: Result) -> Group:
    """Figures of one row of the catalogue, one a line, each with its unit, confidence and the number of its source."""
    rows = result.rows()
    sources = [source for source in dict.fromkeys(row["source"] for row in rows) if source]
    lines = [
        {
            "figure": row["figure"],
            "value": show(row["figure"], row["value"]),
            "confidence": row["confidence"],
            "source": f"[{sources.index(row['source']) + 1}]" if row["source"] else "",
        }
        for row in rows
    ]
    columns = [Column(name, name) for name in ("figure", "value", "confidence", "source")]
    notes = [Text(f"[{number}] {source}") for number, source in enumerate(sources, 1)]
    return Group(grid(columns, lines, result.details["title"]), Text(""), *notes)
