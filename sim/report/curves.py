"""Latency and goodput against load: the panels that pictures of simulations and of capacity share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from sim.objectives import PERCENTILES, Objectives
from sim.report.figure import INK
from sim.report.number import show
from sim.results import Result
from sim.serving.replications import interval_names

WIDE = 30  # loads that span so much are drawn on a logarithmic axis
_METRICS = ("ttft", "tpot", "e2e")
_UNSTEADY, _SHORT = "unstable or unfinished", "run too short"  # marks of levels


def against_load(
    panels: np.ndarray, results: Mapping[str, Result], colors: Mapping[str, tuple[str, str]], objectives: Objectives,
    load: str,
) -> None:  # fmt: skip
    """Draw TTFT, TPOT and E2E, and goodput, against the load: a panel each.

    Solid is the highest percentile that the objectives limit (p99 where they limit none), with its confidence interval
    as a band; dashed is p50. A hollow marker is a level that is unstable or unfinished, a cross one whose run is too
    short; a dotted line is a limit.
    """
    for axes, metric in zip(panels, _METRICS, strict=False):
        tail = _tail(metric, objectives)
        for label, result in results.items():
            _curve(axes, result, metric, tail, *colors[label])
        axes.set_ylabel(metric.upper())
        lines = [Line2D([], [], color=INK, label=f"p{tail}"), Line2D([], [], color=INK, linestyle="--", label="p50")]
        _legend(axes, lines + _limits(axes, metric, tail, objectives))
        if axes.lines:
            _log_axis(axes, "y", seconds)
    for label, result in results.items():
        load_and_rate = result["load"], result["goodput_requests_per_s"]
        panels[3].plot(*load_and_rate, "-", color=colors[label][0])
        _markers(panels[3], result, load_and_rate[1], *colors[label])
    marked = {mark for result in results.values() for mark, kept in _marks(result).items() if mark and kept.any()}
    if marked:
        looks = {mark: _look(mark, "o") for mark in sorted(marked)}
        _legend(
            panels[3], [Line2D([], [], label=mark, color=INK, linestyle="", **look) for mark, look in looks.items()]
        )
    panels[0].set_title("Against load")
    panels[3].set_ylabel("goodput, requests/s")
    panels[3].set_xlabel(load)
    panels[3].set_ylim(bottom=0)
    if any(np.ptp(np.log(result["load"])) > np.log(WIDE) for result in results.values()):
        _log_axis(panels[3], "x", lambda value, _: f"{value:g}")


def _log_axis(axes: Axes, which: str, told: Callable[[float, int], str]) -> None:
    """A logarithmic axis that has several numbers on it, however few decades it spans."""
    getattr(axes, f"set_{which}scale")("log")
    low, high = getattr(axes, f"get_{which}lim")()
    axis = axes.yaxis if which == "y" else axes.xaxis
    subs = (1.0,) if high > 300 * low else (1.0, 2.0, 5.0) if high > 4 * low else tuple(np.arange(1.0, 10.0))
    axis.set_major_locator(LogLocator(subs=subs))
    axis.set_minor_locator(LogLocator(subs=tuple(np.arange(1.0, 10.0)), numticks=100))
    axis.set_major_formatter(FuncFormatter(told))
    axis.set_minor_formatter(NullFormatter())


def seconds(value: float, _: int) -> str:
    """A tick: "200 ms", "5 s"."""
    return f"{value:,.3g} s" if value >= 1 or value == 0 else f"{1000 * value:,.3g} ms"


def _tail(metric: str, objectives: Objectives) -> int:
    """The highest percentile of a metric that is limited, above the median; 99 where none is."""
    limited = [q for q in PERCENTILES if q > 50 and getattr(objectives, f"{metric}_p{q}_s") is not None]
    return max(limited, default=99)


def _curve(axes: Axes, result: Result, metric: str, tail: int, color: str, marker: str) -> None:
    load, name = result["load"], f"{metric}_p{tail}_s"
    if not np.isfinite(result[name]).any():
        return
    axes.plot(load, result[f"{metric}_p50_s"], "--", color=color, linewidth=1.4)
    axes.plot(load, result[name], "-", color=color, linewidth=1.8)
    low, high = interval_names(name)
    if low in result:
        axes.fill_between(load, result[low], result[high], color=color, alpha=0.15, linewidth=0)
    _markers(axes, result, result[name], color, marker)


def _markers(axes: Axes, result: Result, values: np.ndarray, color: str, marker: str) -> None:
    for mark, of in _marks(result).items():
        kept = of & np.isfinite(values)
        if kept.any():  # the layout would make room for a line without points
            look = _look(mark, marker)
            axes.plot(result["load"][kept], values[kept], linestyle="", color=color, clip_on=False, **look)


def _marks(result: Result) -> dict[str, np.ndarray]:
    """Which levels are unstable or unfinished, which are of too short a run, and under "" all others."""
    steady = (result["queue_growth_requests_per_s"] == 0) & result["complete"]
    short = steady & (result["doubt"] != "")
    return {"": steady & ~short, _UNSTEADY: ~steady, _SHORT: short}


def _look(mark: str, marker: str) -> dict[str, Any]:
    """Of markers: those of the deployment, hollow where unsteady; a cross where the run is too short."""
    look: dict[str, Any] = {"marker": "x" if mark == _SHORT else marker, "markersize": 5.5}
    return look | {"markerfacecolor": "white"} if mark == _UNSTEADY else look


def _limits(axes: Axes, metric: str, tail: int, objectives: Objectives) -> list[Line2D]:
    """Draw the limits of what is drawn solid, of the median, and of each request; what the legend says of them."""
    of = {f"p{tail}": f"{metric}_p{tail}_s", "p50": f"{metric}_p50_s", "each request": f"{metric}_s"}
    limits = {told: limit for told, name in of.items() if (limit := getattr(objectives, name)) is not None}
    look: dict[str, Any] = {"color": INK, "linewidth": 1.0, "linestyle": ":"}
    for limit in limits.values():
        axes.axhline(limit, **look)
    return [Line2D([], [], label=f"{told} at most {show('s', limit)}", **look) for told, limit in limits.items()]


def _legend(axes: Axes, lines: list[Line2D]) -> None:
    """Above the panel, where it covers nothing."""
    place: dict[str, Any] = {
        "loc": "lower right",
        "bbox_to_anchor": (1.0, 1.0),
        "borderaxespad": 0.0,
        "ncols": len(lines),
    }
    axes.legend(handles=lines, frameon=False, fontsize=8, **place).set_in_layout(False)
