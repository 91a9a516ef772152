"""What deployments can bear, as a table and as a picture."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from typing import Any

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from rich.console import Group, RenderableType
from rich.text import Text

from sim.config import Scenario
from sim.report.curves import against_load
from sim.report.figure import check_file, looks, save, styled
from sim.report.number import show_found, show_load
from sim.report.table import Column, grid
from sim.results import Result

_FOUND = (
    Column("label", "deployment"),
    Column("found", "highest\nload"),
    Column("n_devices", "devices"),
    Column("limited_by", "limited by"),
    Column("ttft_p99_s", "TTFT\np99"),
    Column("tpot_p95_s", "TPOT\np95"),
    Column("output_tokens_per_s", "tok/s", unit_in_heading=True),
    Column("usd_per_hour", "$/h", unit_in_heading=True),
    Column("usd_per_mtok", "$/Mtok", unit_in_heading=True),
)
_TRIED = (
    Column("at", "load"),
    Column("ttft_p50_s", "TTFT\np50"),
    Column("ttft_p99_s", "TTFT\np99"),
    Column("tpot_p50_s", "TPOT\np50"),
    Column("tpot_p95_s", "TPOT\np95"),
    Column("goodput_frac", "goodput"),
    Column("keeps", "keeps"),
)


def capacity_view(name: str, results: Mapping[str, Result], summary: Result, fewest: bool) -> RenderableType:
    """One row per deployment and a sentence on each, then the loads that were tried of each."""
    rows = summary.rows()
    found = [row | {"found": show_found(*_found(row))} for row in rows]
    heading = "fewest\nreplicas" if fewest else "highest\nload"
    columns = [Column(c.name, heading) if c.name == "found" else c for c in _FOUND]
    parts: list[RenderableType] = [Text(name, style="bold"), grid(columns, found), Text("")]
    if not fewest:
        parts.append(Text(f"Load: {summary.details['load']}"))
    parts += [Text(f"{row['label']}: {row['verdict']}") for row in rows]
    tried = Column("at", "replicas" if fewest else "load")
    for label, result in results.items():
        if result["fits"].any():
            lines = [row | {"at": f"{row['load']:g}"} for row in result.rows()]
            parts.append(grid([tried, *_TRIED[1:]], lines, f"\n{label}: what was tried"))
    return Group(*parts)


def capacity_plot(
    results: Mapping[str, Result], summary: Result, path: str | os.PathLike[str], scenario: Scenario
) -> None:
    """Draw latencies and goodput against what was tried, and a vertical line at what was found: the highest load, or
    the fewest replicas.
    """
    file = check_file(path)
    colors = looks(list(results))
    fitting = {label: result for label, result in results.items() if result["fits"].any()}
    fewest = "max_load" not in summary
    found = {row["label"]: _found(row) for row in summary.rows()}
    with styled():
        figure = Figure(figsize=(8, 9), layout="constrained")
        panels = figure.subplots(4, 1, sharex=True)
        against_load(panels, fitting, colors, scenario.objectives, summary.details["tried"])
        panels[0].set_title("Against replicas" if fewest else "Against load")
        for label, (at, _) in found.items():
            for axes in panels if at else ():
                axes.axvline(at, color=colors[label][0], linewidth=1.4, alpha=0.6)
        handles = [
            Line2D([], [], color=colors[label][0], marker=colors[label][1], label=_legend(label, *at, summary, fitting))
            for label, at in found.items()
        ]
        figure.legend(handles=handles, loc="outside lower left", ncols=1, frameon=False, fontsize=9)
        figure.suptitle(scenario.name, fontweight="bold", x=0.01, ha="left")
        save(figure, file)


def _found(row: Mapping[str, Any]) -> tuple[float, str]:
    """The highest load, or the fewest replicas, 0 where there is none; and "≤" or "≥" where it is but a bound."""
    if "max_load" in row:
        return row["max_load"], "≤" if row["at_most"] else ""
    return row["replicas"], "≥" if row["at_least"] else ""


def _legend(label: str, at: float, bound: str, summary: Result, fitting: Collection[str]) -> str:
    """What was found of a deployment, which a vertical line shows."""
    if label not in fitting:
        return f"{label}: does not fit"
    what = " ".join(filter(None, ["highest" if "max_load" in summary else "fewest", bound]))
    return f"{label}: {what} {show_load(at, summary.details['tried'])}" if at else f"{label}: none keeps"
