"""What a sweep has beyond its tables where it is asked for: crossovers, elasticities, and what was simulated."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from sim.report.number import ABSENT, show
from sim.report.sweep_table import AXIS_WORDS, HEADINGS, MOST_ROWS, SETTING, Drawn, setting, titled
from sim.report.table import Column, grid
from sim.results import Result
from sim.sweeps.spec import AXES

_ELASTIC = ("output_tokens_per_s", "usd_per_mtok", "tpot_s", "ttft_s")
_LATENCIES = {"ttft": "TTFT", "tpot": "TPOT"}
_CROSSING = (Column("low", "from"), Column("high", "to"), Column("at", "at"), Column("event", "what happens"))
_AT = (
    "At: of a lead, where lines through the two grid points cross on logarithmic scales; "
    "of the limits, the last or the first grid point that keeps to them."
)


def crossover_tables(result: Result, title: str) -> RenderableType:
    """For each question: between which grid points the lead changes, or a value ceases or begins to keep to limits."""
    tables: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for row in result.rows():
        asked = tuple(row[name] for name in ("objective", "between", "along"))
        told = {name: f"{row[name]:,.10g}" for name in ("low", "high")} | {"at": f"{round(row['at'], 1):,.10g}"}
        tables.setdefault(asked, []).append(told | {"event": event(row)})
    parts: list[RenderableType] = [Text(title, style="bold"), Text(_AT)]
    for (objective, between, along), rows in tables.items():
        what = f"\n{HEADINGS[objective]} by {AXIS_WORDS.get(between, between)} along {AXIS_WORDS.get(along, along)}"
        parts += [Text(what), grid(_CROSSING, rows[:MOST_ROWS])]
        parts += [Text(f"and {len(rows) - MOST_ROWS:,} more: --format json has all")] if len(rows) > MOST_ROWS else []
    return Group(*parts)


def event(row: dict[str, Any]) -> str:
    """A row of `sim.sweeps.crossover` in words."""
    if row["event"] == "order changes":
        return f"{row['after']} takes the lead from {row['before']}"
    stops = row["event"] == "stops"
    own, other = (row["before"], row["after"]) if stops else (row["after"], row["before"])
    told = f"{own} ceases to keep to the limits" if stops else f"{own} begins to keep to the limits"
    return f"{told}; best of the others: {other}" if other else f"{told}; no other does"


def sensitivity_table(result: Result, title: str) -> RenderableType:
    """A table for each figure, a row for each cell: percent of the figure for one percent more of each parameter."""
    cells: dict[int, dict[str, Any]] = {}
    for row in result.rows():
        cell = cells.setdefault(row["index"], row)
        for figure in _ELASTIC:
            cell[f"{figure} {row['parameter']}"] = _elasticity(row[f"{figure}_elasticity"])
    shown = list(cells.values())[:MOST_ROWS]
    columns, same = setting(shown, [name for name in AXES if name in result])
    tables = []
    for figure in _ELASTIC:
        found = [Drawn(name, [row[f"{figure} {name}"] for row in shown]) for name in _once(result["parameter"])]
        what = f"{title}: percent more {HEADINGS[figure]} for one percent more"
        tables.append(titled(what, same, [*columns, *found]))
    return Group(*tables)


def _once(values: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(map(str, values)))


def _elasticity(value: float | None) -> str:
    return ABSENT if value is None else f"{value:+.2f}"


def verified_table(result: Result, title: str) -> RenderableType:
    """TTFT and TPOT of cells of the front as the closed form has them, as simulated, and by what part it is above."""
    rows = result.rows()
    columns, same = setting(rows, [name for name in SETTING if name == "layout" or name in result])
    for metric, heading in _LATENCIES.items():
        for name, head in ((f"{metric}_s", heading), (f"{metric}_simulated_s", "simu-\nlated")):
            columns.append(Drawn(head, [show(name, row[name]) for row in rows]))
        columns.append(Drawn("", [_signed(row[f"{metric}_off_frac"]) for row in rows]))
    return titled(f"{title}: closed form, simulation, and how far the first is off", same, columns)


def _signed(share: float | None) -> str:
    return ABSENT if share is None else f"{share:+.1%}"
