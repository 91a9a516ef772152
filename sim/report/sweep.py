"""What a sweep found, for reading: before it starts, how large it is; after it, its answers as tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.text import Text

from sim.report.number import ABSENT, prefixed, show, significant
from sim.report.table import Column, grid, pairs
from sim.report.verdict import layout_line
from sim.results import Result
from sim.sweeps.spec import AT_LEAST
from sim.units import HOURS_PER_DAY, S_PER_HOUR

if TYPE_CHECKING:
    from sim.sweeps.cost import Cost
    from sim.sweeps.plan import Plan
    from sim.sweeps.spec import Spec
    from sim.verbs.sweep import Sweep

HEADINGS = {
    "usd_per_mtok": "$/Mtok", "usd_per_hour": "$/h", "tpot_s": "TPOT", "ttft_s": "TTFT", "e2e_s": "E2E",
    "joules_per_token": "J/token", "power_w": "power", "n_devices": "devices",
    "user_tokens_per_s": "tok/s/user", "output_tokens_per_s": "tok/s",
}  # fmt: skip
AXIS_WORDS = {
    "model": "model", "weights": "weights", "kv": "KV", "hardware": "hardware", "gpus": "GPUs", "engine": "engine",
    "tp": "TP", "pp": "PP", "ep": "EP", "dp": "DP", "prompt_tokens": "prompt tokens", "output_tokens": "output tokens",
    "context_tokens": "context tokens", "concurrency": "concurrent users", "usd_per_gpu_hour": "USD per GPU-hour",
    "usd_factor": "price factor",
}  # fmt: skip
_BARE = ("usd_per_mtok", "usd_per_hour", "joules_per_token", "user_tokens_per_s", "output_tokens_per_s")
_SETTING = (
    Column("model", "model"), Column("hardware", "hardware"), Column("engine", "engine"),
    Column("formats", "weights"), Column("lengths", "tokens"), Column("concurrency", "users"),
)  # fmt: skip
_HOLDS = {
    "engine": ("engine",), "formats": ("weights", "kv"), "concurrency": ("concurrency",),
    "lengths": ("prompt_tokens", "output_tokens", "context_tokens"),
}  # fmt: skip
_REASONS = {
    "weights": "the weights do not fit",
    "kv": "not one sequence fits beside the weights",
    "context": "the context is beyond the model's limit",
    "price": "no price is known",
}
_ELASTIC = ("output_tokens_per_s", "usd_per_mtok")
_SIMULATED = (
    Column("model", "model"), Column("hardware", "hardware"), Column("weights", "weights"),
    Column("lengths", "tokens"), Column("concurrency", "users"),
    Column("ttft_s", "TTFT"), Column("ttft_simulated_s", "simu-\nlated"), Column("ttft_off", ""),
    Column("tpot_s", "TPOT"), Column("tpot_simulated_s", "simu-\nlated"), Column("tpot_off", ""),
)  # fmt: skip
_FEW, _BAR_CELLS, _MOST_ROWS = 6, 24, 40


def dry_view(plan: Plan, cost: Cost) -> RenderableType:
    """Axes with their counts, deployments, combinations refused by reason, cells, blocks, and what it will take."""
    spec = plan.spec
    axes = [(name, f"{len(values):,}", _listed(name, values)) for name, values in swept(spec)]
    columns = [Column(name, name) for name in ("axis", "values", "from")]
    rows = [dict(zip(("axis", "values", "from"), row, strict=True)) for row in axes]
    size = [
        ("deployments", f"{plan.n_rows:,}"), ("configurations", f"{plan.n_cells:,}"),
        ("blocks", f"{len(plan.blocks):,}"),
        ("memory, about", prefixed(cost.memory_bytes, "B", lowest=0)), ("time, about", _long(cost.seconds)),
        ("of that, to build the deployments", _long(cost.build_s)),
        ("compilation before that, where it is not cached", show("s", cost.compile_s)),
    ]  # fmt: skip
    parts: list[RenderableType] = [Text(spec.name, style="bold"), grid(columns, rows), Text(""), pairs(size)]
    return Group(*parts, *_refused(plan.rows.refused))


def _long(seconds: float) -> str:
    """`7.20 h`: a duration in the largest unit of which there are two."""
    lengths = {"days": HOURS_PER_DAY * S_PER_HOUR, "h": S_PER_HOUR, "min": S_PER_HOUR / 60}
    fits = ((unit, seconds / length) for unit, length in lengths.items() if seconds >= 2 * length)
    unit, n = next(fits, ("s", seconds))
    return show("s", seconds) if unit == "s" else f"{significant(n)} {unit}"


def swept(spec: Spec) -> Iterator[tuple[str, tuple]]:
    """Axes that the sweep's file gives a value of its own."""
    usual = {field.name: field.default for field in fields(spec)}
    return ((name, values) for name, values in spec.axes.items() if values != usual[name])


def _listed(axis: str, values: Sequence[Any]) -> str:
    words = [f"{value:,g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)
             for value in values]  # fmt: skip
    return ", ".join(words) if len(words) <= _FEW else f"{', '.join(words[:3])}, ... {words[-1]}"


def _refused(refused: Mapping[str, int]) -> Iterator[Text]:
    if refused:
        yield Text(f"\n{sum(refused.values()):,} combinations cannot be built:")
    ranked = sorted(refused.items(), key=lambda item: -item[1])
    yield from (Text(f"- {number:,}: {reason}") for reason, number in ranked[:_FEW])
    if len(ranked) > _FEW:
        yield Text(f"- {sum(number for _, number in ranked[_FEW:]):,} for {len(ranked) - _FEW:,} other reasons")


def sweep_view(answer: Sweep) -> RenderableType:
    """How much was swept, the best of each group, the top, the Pareto front, and why the others fail."""
    spec = answer.plan.spec
    parts: list[RenderableType] = [Text(spec.name, style="bold"), Text(speed_line(answer))]
    if not len(answer.top.rows()):
        parts.append(Text("\nNo configuration keeps to the limits.", style="red"))
    else:
        parts += _best(answer.best, spec)
        parts.append(_table(answer.top, spec, f"\nTop {len(answer.top.rows())} by {HEADINGS[spec.minimize[0]]}"))
        goals = " and ".join(HEADINGS[name] for name in spec.minimize)
        parts += [_table(answer.front, spec, f"\nPareto front of {goals}")] if len(spec.minimize) > 1 else []
    parts.append(failures_table(answer.failures, spec.limits))
    for title, result in further(answer).items():
        parts.append(_DRAWN[title](result, f"\n{title}"))
    return Group(*parts)


def further(answer: Sweep) -> dict[str, Result]:
    """Tables that a sweep has where they were asked for, by title."""
    found = {"Crossovers": answer.crossovers, "Sensitivities": answer.sensitivities, "Verified": answer.verified}
    return {title: result for title, result in found.items() if result is not None and len(result.rows())}


def speed_line(answer: Sweep) -> str:
    """`1,234 configurations of 12 deployments in 2.1 s, 31 M/s; compiled before that in 3.2 s`."""
    n, took = answer.plan.n_cells, max(answer.seconds, 1e-9)
    rate = prefixed(n / took, "", lowest=0).strip()
    swept = f"{n:,} configurations of {answer.plan.n_rows:,} deployments in {show('s', took)}, {rate}/s"
    return f"{swept}; compiled before that in {show('s', answer.compile_s)}"


def _best(best: Result, spec: Spec) -> list[RenderableType]:
    """One table for each objective."""
    rows = best.rows()
    each = " and ".join(AXIS_WORDS.get(name, name) for name in spec.by)
    of = f"of each {each}" if spec.by else "of all"
    tables: list[RenderableType] = []
    for objective in spec.minimize:
        own = [row for row in rows if row.get("objective", spec.minimize[0]) == objective]
        if own:
            tables.append(_rows_table(own, best, spec, f"\nBest {HEADINGS[objective]} {of}", objective))
    return tables


def _table(result: Result, spec: Spec, title: str) -> RenderableType:
    return _rows_table(result.rows(), result, spec, title, spec.minimize[0])


def _rows_table(rows: list[dict[str, Any]], result: Result, spec: Spec, title: str, first: str) -> RenderableType:
    """Groups first, then the machine with its layout below and what else varies, then the figures."""
    several = {name for name, values in spec.axes.items() if len(values) > 1}
    several |= {"engine"} if len({row["engine"] for row in rows}) > 1 else set()
    groups = [Column(column_of(n), _heading(n), unit_in_heading=True) for n in spec.by if column_of(n) in result]
    shown = {column.name for column in groups}
    always = ("model", "hardware")
    setting = [c for c in _SETTING if c.name not in shown and (c.name in always or several & set(_HOLDS[c.name]))]
    goals = dict.fromkeys((first, *spec.minimize, *spec.limits, "ttft_s", "tpot_s", "usd_per_mtok"))
    names = {column_of(name): name for name in goals}
    figures = [Column(c, HEADINGS[n], unit_in_heading=n in _BARE) for c, n in names.items() if c in result]
    table = grid([*groups, *setting, *figures], [row | _combined(row) for row in rows[:_MOST_ROWS]], title)
    more = len(rows) - _MOST_ROWS
    return Group(table, Text(f"and {more:,} more: --format csv has all")) if more > 0 else table


def _combined(row: Mapping[str, Any]) -> dict[str, str]:
    """Columns that say several things: `h100-sxm` over `2 x TP4`, `fp8` over `KV 8`, `1,024+256`."""
    lengths = f"{row['prompt_tokens']:,}+{row['output_tokens']:,}"
    if row["context_tokens"] != row["prompt_tokens"] + row["output_tokens"]:
        lengths += f"\nof {row['context_tokens']:,}"
    kv = "" if row["kv"] == "16" else f"\nKV {row['kv']}"
    hardware = f"{row['hardware']}{layout_line(row)}"
    return {"hardware": hardware, "formats": f"{row['weights']}{kv}", "lengths": lengths}


def column_of(axis: str) -> str:
    """The column of a sweep's tables that has the values of an axis, or an objective."""
    return {"gpus": "n_gpus", "n_devices": "n_gpus"}.get(axis, axis)


def _heading(axis: str) -> str:
    return AXIS_WORDS.get(axis, axis.replace("_", " ")).replace(" ", "\n")


def failures_table(failures: Result, limits: Mapping[str, float]) -> RenderableType:
    """Reasons with a bar each: the cells (configurations) of which it is the first, and those it alone rules out."""
    rows = [row for row in failures.rows() if row["cells"]]
    if not rows:
        return Text("\nEvery configuration keeps to the limits.")
    most = max(row["share"] for row in rows)
    lines = [
        {
            "why": _reason(row["reason"], limits),
            "share": show("share_frac", row["share"]),
            "bar": "█" * max(round(_BAR_CELLS * row["share"] / most), 1),
            "cells": row["cells"],
            "alone": row["alone"],
        }
        for row in sorted(rows, key=lambda row: -row["cells"])
    ]
    columns = (
        Column("why", "why configurations fail"), Column("bar", ""), Column("share", "share"),
        Column("cells", "cells"), Column("alone", "this alone"),
    )  # fmt: skip
    return grid(columns, lines, "\nFailures")


def _reason(name: str, limits: Mapping[str, float]) -> str:
    """`TPOT above 50.0 ms`; other reasons in a sentence."""
    if name not in limits:
        return _REASONS.get(name, name)
    what = HEADINGS.get(name, "purchase")
    return f"{what} {'below' if name in AT_LEAST else 'above'} {show(name, limits[name])}"


def crossover_table(result: Result, title: str) -> RenderableType:
    """Where the order of values changes, and where one stops or starts keeping to the limits."""
    columns = [Column(name, name) for name in ("along", "between", "objective", "event", "at", "before", "after")]
    return _titled(title, grid(columns, result.rows()[:_MOST_ROWS]))


def sensitivity_table(result: Result, title: str) -> RenderableType:
    """A row for each cell: percent of tokens/s, then of $/Mtok, for one percent more of each parameter."""
    cells: dict[int, dict[str, Any]] = {}
    for row in result.rows():
        cell = cells.setdefault(row["index"], row)
        for figure in _ELASTIC:
            cell[f"{figure} {row['parameter']}"] = _elasticity(row[f"{figure}_elasticity"])
    parameters = dict.fromkeys(result["parameter"].tolist())
    setting = [Column(name, word) for name, word in (("model", "model"), ("hardware", "hardware"))]
    setting += [Column("concurrency", "users")] if "concurrency" in result else []
    shown = list(cells.values())[:_MOST_ROWS]
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
        | {f"{metric}_off": _signed(row[f"{metric}_off_frac"]) for metric in ("ttft", "tpot")}
        for row in result.rows()
    ]  # fmt: skip
    return _titled(f"{title}: closed form, simulation, and how far the first is off", grid(_SIMULATED, rows))


def _titled(title: str, table: RenderableType) -> RenderableType:
    """A title that may be wider than its table."""
    return Group(Text(title, style="bold"), table)


def _signed(share: float | None) -> str:
    return ABSENT if share is None else f"{share:+.1%}"


_DRAWN = {"Crossovers": crossover_table, "Sensitivities": sensitivity_table, "Verified": verified_table}
