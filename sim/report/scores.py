"""Forecasts beside measurements and error tables as people read them, and what a validation leaves out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from sim.breakdown import ALL
from sim.errors import clipped
from sim.measure.rows import LONGEST_REASON
from sim.report.number import significant
from sim.report.table import Column, grid
from sim.results import Result

MOST_DETAILS = 3
MOST_LINES = 12
MOST_FORECASTS = 12  # figures, up to which each is shown
_FORECASTS = (
    Column("model", "model"),
    Column("machine", "hardware"),
    Column("of", "quantity"),
    Column("load", "load: users x\nprompt+output"),
    Column("stated", "measured"),
    Column("forecast", "predicted"),
)
_ERRORS = (
    Column("rows", "rows"),
    Column("median_frac", "median\n|error|"),
    Column("mean_frac", "mean\n|error|"),
    Column("bias_frac", "bias"),
    Column("p90_frac", "90 % are\nwithin"),
    Column("rank", "rank cor-\nrelation"),
)


def forecasts_view(rows: list[dict[str, Any]], level: float | None) -> list[RenderableType]:
    """Each forecast beside its measurement where few figures are used, nothing otherwise; rows: of `sim.validate`."""
    used = [row for row in rows if row["used"]]
    if len(used) > MOST_FORECASTS:
        return []
    interval = [] if level is None else [Column("interval", f"{100 * level:g} %\ninterval")]
    columns = [*_FORECASTS, *interval, Column("error_frac", "error")]
    lines = [row | _setting(row) | _figures(row) for row in used]
    return [grid(columns, lines, "Forecasts beside measurements"), Text("")]


def _setting(row: dict[str, Any]) -> dict[str, str]:
    """The load as `16 x 1,000+200`: users, and the prompt (before a decode: cached) and output tokens of each."""
    lengths = [row["prompt_tokens"], *([] if row["quantity"].startswith("prefill") else [row["output_tokens"]])]
    onto = f" onto {row['depth_tokens']:,.0f}" if row["depth_tokens"] else ""
    quantity = row["quantity"].removesuffix("_tokens_per_s").removesuffix("_s").removesuffix("_step")
    return {"of": quantity, "load": f"{row['concurrency']:,} x {'+'.join(f'{n:,.0f}' for n in lengths)}{onto}"}


def _figures(row: dict[str, Any]) -> dict[str, str]:
    """Those in the unit of the file, which is told once."""
    known = {name: significant(row[name]) for name in ("measured", "predicted", "low", "high") if row[name] is not None}
    ends = f"{known['low']} to {known['high']}" if "low" in known else ""
    measured = f"{known['measured']} {row['unit'].replace('tokens', 'tok')}"
    return {"stated": measured, "forecast": known["predicted"], "interval": ends}


def scores_view(scores: Result, title: str, level: float | None, whole: bool) -> Group:
    """A table for each of `by`; of the long ones the largest groups, unless `whole`."""
    rows = scores.rows()
    coverage = () if level is None else (Column("coverage_frac", f"in the {100 * level:g} %\ninterval"),)
    parts: list[RenderableType] = [Text(title, style="bold")]
    tables = dict.fromkeys("quantity" if row["by"] == ALL else row["by"] for row in rows)
    for table in tables:
        own = [row for row in rows if row["by"] == table or (table == "quantity" and row["by"] == ALL)]
        shown = own if whole else own[:MOST_LINES]
        columns = [Column("group", table)] + ([Column("quantity", "quantity")] if table != "quantity" else [])
        parts += [Text(""), grid([*columns, *_ERRORS, *coverage], _named_once(shown))]
        if len(shown) < len(own):
            parts.append(Text(f"and {len(own) - len(shown)} more: --by {table} lists all"))
    return Group(*parts)


def unused_view(n_used: int, unused: Mapping[str, int], rows: list[dict[str, Any]]) -> Group:
    """How many figures were used, and the others by reason, with the commonest details of each; rows: of the result."""
    told = [f"{n_used:,} figures used, {sum(unused.values()):,} rows or figures not{':' if unused else ''}"]
    details: dict[str, Counter[str]] = {}
    for row in rows:
        if not row["used"] and row["detail"]:
            details.setdefault(row["reason"], Counter())[row["detail"]] += 1
    for reason, n in unused.items():
        common = [
            clipped(detail, most=LONGEST_REASON)
            for detail, _ in details.get(reason, Counter()).most_common(MOST_DETAILS)
        ]
        told.append(f"- {n:,} {reason}" + (f": {'; '.join(common)}" if common else ""))
    return Group(Text(""), *map(Text, told))


def _named_once(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows with a group's name in its first line only."""
    names = [row["group"] for row in rows]
    return [row | {"group": name if i == 0 or names[i - 1] != name else " "} for i, (row, name) in enumerate(
        zip(rows, names, strict=True))]  # fmt: skip
