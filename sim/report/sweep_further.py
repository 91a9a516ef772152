"""What a sweep has beyond its tables where it is asked for: crossovers, elasticities, and what was simulated."""

from __future__ import annotations

from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from sim.report.number import ABSENT
from sim.report.sweep_table import AXIS_WORDS, HEADINGS, MOST_ROWS, heading, varied
from sim.report.table import Column, grid
from sim.report.verdict import layout_line
from sim.results import Result
from sim.sweeps.spec import AXES

LIMITS = ("context_tokens", "max_num_batched_tokens", "max_num_seqs", "gpu_memory_utilization")
_ELASTIC = ("output_tokens_per_s", "usd_per_mtok")
_SETTING = (Column("model", "model"), Column("hardware", "hardware"), Column("weights", "weights"))
_SIMULATED = (
    Column("lengths", "tokens"), Column("concurrency", "users"),
    Column("ttft_s", "TTFT"), Column("ttft_simulated_s", "simu-\nlated"), Column("ttft_off", ""),
    Column("tpot_s", "TPOT"), Column("tpot_simulated_s", "simu-\nlated"), Column("tpot_off", ""),
)  # fmt: skip
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
    """A row for each cell: percent of tokens/s, then of $/Mtok, for one percent more of each parameter."""
    cells: dict[int, dict[str, Any]] = {}
    for row in result.rows():
        cell = cells.setdefault(row["index"], row)
        for figure in _ELASTIC:
            cell[f"{figure} {row['parameter']}"] = _elasticity(row[f"{figure}_elasticity"])
    parameters = dict.fromkeys(result["parameter"].tolist())
    shown = list(cells.values())[:MOST_ROWS]
    named = [Column(name, heading(name)) for name in ("model", "hardware")]
    setting = [*named, *varied(shown, [name for name in AXES if name not in ("model", "hardware")])]
    tables = [
        _titled(
            f"{title}: percent more {HEADINGS[figure]} for one percent more",
            grid([*setting, *(Column(f"{figure} {name}", name) for name in parameters)], shown),
        )
        for figure in _ELASTIC
    ]
    return Group(*tables)


def _elasticity(value: float | None) -> str:
    return ABSENT if value is None else f"{value:+.2f}"


def verified_table(result: Result, title: str) -> RenderableType:
    """TTFT and TPOT of cells of the front as the closed form has them, as simulated, and by what part it is above."""
    rows = [
        row | {"lengths": f"{row['prompt_tokens']:,}+{row['output_tokens']:,}"}
        | {"hardware": f"{row['hardware']}{layout_line(row)}"}
        | {f"{metric}_off": _signed(row[f"{metric}_off_frac"]) for metric in ("ttft", "tpot")}
        for row in result.rows()
    ]  # fmt: skip
    columns = [*_SETTING, *varied(rows, ("engine", "kv", *LIMITS)), *_SIMULATED]
    return _titled(f"{title}: closed form, simulation, and how far the first is off", grid(columns, rows))


def _titled(title: str, table: RenderableType) -> RenderableType:
    """A title that may be wider than its table."""
    return Group(Text(title, style="bold"), table)


def _signed(share: float | None) -> str:
    return ABSENT if share is None else f"{share:+.1%}"
