"""What a sweep found, for reading: before it starts, how large it is; after it, its answers as tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.text import Text

from sim.report.number import many, prefixed, show, significant
from sim.report.sweep_further import crossover_tables, sensitivity_table, verified_table
from sim.report.sweep_table import AXIS_WORDS, HEADINGS, rows_table, same_everywhere
from sim.report.table import Column, grid, pairs
from sim.results import Result
from sim.sweeps.rows import by_kind
from sim.sweeps.spec import AT_LEAST
from sim.units import HOURS_PER_DAY, S_PER_HOUR

if TYPE_CHECKING:
    from sim.sweeps.cost import Cost
    from sim.sweeps.plan import Plan
    from sim.sweeps.spec import Spec
    from sim.verbs.sweep import Sweep

_REASONS = {
    "weights": "the weights do not fit",
    "kv": "not one sequence fits beside the weights",
    "context": "the context is beyond the model's limit",
    "price": "no price is known",
}
_FEW, _BAR_CELLS = 6, 8


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
        yield Text(f"\n{many(sum(refused.values()), 'combination')} cannot be built:")
    yield from (Text(f"- {kind}") for kind in by_kind(refused))


def sweep_view(answer: Sweep) -> RenderableType:
    """How much was swept, the best of each group, the top, the Pareto front, and why the others fail."""
    spec = answer.plan.spec
    parts: list[RenderableType] = [Text(spec.name, style="bold"), Text(speed_line(answer)), Text(same_everywhere(spec))]
    if not len(answer.top.rows()):
        parts.append(Text("\nNo configuration keeps to the limits.", style="red"))
    else:
        parts += _best(answer.best, spec)
        rows, first = answer.top.rows(), spec.minimize[0]
        parts.append(rows_table(rows, spec, f"\nTop {len(rows)} by {HEADINGS[first]}", first))
        goals = " and ".join(HEADINGS[name] for name in spec.minimize)
        if len(spec.minimize) > 1:
            parts.append(rows_table(answer.front.rows(), spec, f"\nPareto front of {goals}", first))
    parts.append(failures_table(answer.failures, spec.limits))
    for title, result in further(answer).items():
        parts.append(_DRAWN[title](result, f"\n{title}"))
    return Group(*parts)


def further(answer: Sweep) -> dict[str, Result]:
    """Tables that a sweep has where they were asked for, by title."""
    found = {"Crossovers": answer.crossovers, "Sensitivities": answer.sensitivities, "Verified": answer.verified}
    return {title: result for title, result in found.items() if result is not None and len(result.rows())}


def speed_line(answer: Sweep) -> str:
    """`1,234 configurations of 12 deployments in 2.1 s, 31 M/s; compiled before that in 3.2 s`; stored ones apart."""
    n, stored, took = answer.plan.n_cells, answer.stored, max(answer.seconds, 1e-9)
    swept = f"{many(n, 'configuration')} of {many(answer.plan.n_rows, 'deployment')}"
    if stored == n:
        return f"{swept}, all of which were stored"
    rate = prefixed((n - stored) / took, "", lowest=0).strip()
    swept += f", {n - stored:,} of them computed now," if stored else ""
    compiled = f"; compiled before that in {show('s', answer.compile_s)}" if answer.compile_s else ""
    return f"{swept} in {show('s', took)}, {rate}/s{compiled}"


def _best(best: Result, spec: Spec) -> list[RenderableType]:
    """One table for each objective."""
    rows = best.rows()
    each = " and ".join(AXIS_WORDS.get(name, name) for name in spec.by)
    of = f"of each {each}" if spec.by else "of all"
    tables: list[RenderableType] = []
    for objective in spec.minimize:
        own = [row for row in rows if row.get("objective", spec.minimize[0]) == objective]
        if own:
            tables.append(rows_table(own, spec, f"\nBest {HEADINGS[objective]} {of}", objective))
    return tables


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


_DRAWN = {"Crossovers": crossover_tables, "Sensitivities": sensitivity_table, "Verified": verified_table}
