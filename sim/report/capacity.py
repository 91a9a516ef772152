"""What deployments can bear, as a table and as a picture."""

from __future__ import annotations

import os
from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from rich.console import Group, RenderableType
from rich.text import Text

from sim.config import Scenario
from sim.objectives import Objectives
from sim.report.figure import INK, check_file, looks, save, styled
from sim.report.load import OVER_LOAD, against_load
from sim.report.number import show
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
    found = [row | {"found": f"{row['replicas' if fewest else 'max_load']:g}"} for row in rows]
    heading = "fewest\nreplicas" if fewest else "highest\nload"
    columns = [Column(c.name, heading) if c.name == "found" else c for c in _FOUND]
    parts: list[RenderableType] = [Text(name, style="bold"), grid(columns, found), Text("")]
    if not fewest:
        parts.append(Text(f"The load is in {summary.details['load']}."))
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
    """Draw p50 and p99 of TTFT, TPOT and E2E, and goodput, against what was tried, and mark what was found.

    A vertical line is the highest load (or the fewest replicas); horizontal lines are the objectives.
    """
    file = check_file(path)
    colors = looks(list(results))
    rows = summary.rows()
    found = {row["label"]: row["max_load" if "max_load" in summary else "replicas"] for row in rows}
    with styled():
        figure = Figure(figsize=(8, 9), layout="constrained")
        panels = figure.subplots(4, 1, sharex=True)
        against_load(panels, {label: result for label, result in results.items() if result["fits"].any()}, colors)
        panels[0].set_title("Against load" if "max_load" in summary else "Against replicas")
        panels[3].set_xlabel(summary.details["tried"])
        if any(np.ptp(np.log(result["load"])) > np.log(30) for result in results.values()):
            panels[3].set_xscale("log")
        for label, at in found.items():
            for axes in panels if at else ():
                axes.axvline(at, color=colors[label][0], linewidth=1.4, alpha=0.6)
        _limits(panels, scenario.objectives)
        handles = [
            Line2D([], [], color=colors[label][0], marker=colors[label][1], label=f"{label}: {at:g}")
            for label, at in found.items()
        ]
        figure.legend(handles=handles, loc="outside lower left", ncols=2, frameon=False, fontsize=9)
        figure.suptitle(scenario.name, fontweight="bold", x=0.01, ha="left")
        save(figure, file)


def _limits(panels: np.ndarray, objectives: Objectives) -> None:
    """A line for each limit of a metric, with its percentile; without one, of each request."""
    names = [(name, limit) for name, limit in objectives.percentiles]
    single = ((f"{metric}_s", getattr(objectives, f"{metric}_s")) for metric, _ in OVER_LOAD)
    names += [(name, limit) for name, limit in single if limit is not None]
    for name, limit in names:
        metric, *percentile = name.removesuffix("_s").split("_")
        for axes, (shown, _) in zip(panels, OVER_LOAD, strict=False):
            if shown == metric:
                axes.axhline(limit, color=INK, linewidth=1, linestyle=":")
                told = " ".join([*percentile, "at most", show("s", limit)])
                axes.annotate(told, (0.995, limit), xycoords=("axes fraction", "data"), ha="right", va="bottom",
                              fontsize=8, color=INK)  # fmt: skip
