"""Pictures of a simulation: queue, batch, KV cache and TTFT over time, and latency against load."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter

from sim.report.figure import INK, check_file, looks, save, styled
from sim.results import Result
from sim.serving.metrics import queue_length
from sim.serving.replications import interval_names
from sim.serving.runs import Run

_POINTS = 800  # of a line over time
_DOTS = 3000  # requests that are drawn
_OVER_TIME = ("waiting requests", "running requests", "KV cache in use", "TTFT")
OVER_LOAD = (("ttft", "TTFT"), ("tpot", "TPOT"), ("e2e", "E2E"))
Runs = Mapping[tuple[str, float], Sequence[Run]]


def load_plot(
    results: Mapping[str, Result], summary: Result, runs: Runs, path: str | os.PathLike[str], title: str = ""
) -> None:
    """Draw the timeline of each deployment's first replication, at the highest load that keeps to the objectives (the
    lowest, where none does), and where there are several loads, p50 and p99 of TTFT, TPOT and E2E against them.

    A band is the confidence interval of a p99; a hollow marker is a level that is unstable or unfinished.
    """
    file = check_file(path)
    shown = {row["label"]: row["max_load"] or float(results[row["label"]]["load"][0]) for row in summary.rows()}
    drawn = {label: at for label, at in shown.items() if (label, at) in runs}
    colors = looks(list(results))
    several = max(len(result["load"]) for result in results.values()) > 1
    with styled():
        figure = Figure(figsize=(13 if several else 8, 9), layout="constrained")
        panels = figure.subplots(4, 2 if several else 1, squeeze=False, sharex="col")
        for label, at in drawn.items():
            _timeline(panels[:, 0], runs[label, at][0], colors[label][0])
        _time_axes(panels[:, 0])
        if several:
            against_load(panels[:, 1], results, colors)
        unit = summary.details["load"]
        handles = [
            Line2D(
                [], [], color=colors[name][0], marker=colors[name][1], markersize=5.5, label=_label(name, drawn, unit)
            )
            for name in results
        ]
        figure.legend(handles=handles, loc="outside lower left", ncols=2 if several else 1, frameon=False, fontsize=9)
        if title:
            figure.suptitle(title, fontweight="bold", x=0.01, ha="left")
        save(figure, file)


def _label(name: str, drawn: Mapping[str, float], unit: str) -> str:
    return f"{name} (over time: at {drawn[name]:g} {unit})" if name in drawn else f"{name}: does not fit"


def _timeline(panels: np.ndarray, run: Run, color: str) -> None:
    """Queue, requests started but not done, and KV cache as steps; TTFT as a dot for each request at its arrival.

    The KV cache is known at the steps with which requests end, and drawn as constant in between.
    """
    at = np.linspace(0.0, max(outcome.clock_s for outcome in run.outcomes), _POINTS)
    blocks = run.served.rules.n_blocks * run.served.replicas
    started, finished = (np.sort(times[~np.isnan(times)]) for times in (run.scheduled_s, run.finish_s))
    running = np.searchsorted(started, at, "right") - np.searchsorted(finished, at, "right")
    held = np.sum([_steps(o.timeline["clock_s"], o.timeline["blocks"], at) for o in run.outcomes], axis=0) / blocks
    lines = (_steps(*queue_length(run), at), running, np.where(running > 0, held, 0.0))
    for axes, values in zip(panels, lines, strict=False):
        axes.plot(at, values, color=color, linewidth=1.2)
    every = -(-len(run.arrival_s) // _DOTS)
    panels[3].plot(run.arrival_s[::every], run.ttft_s[::every], ".", color=color, markersize=3, alpha=0.5)


def _steps(times: np.ndarray, values: np.ndarray, at: np.ndarray) -> np.ndarray:
    """The value of a step function that has `values` from `times` on, and 0 before."""
    return np.concatenate([[0.0], values])[np.searchsorted(times, at, "right")]


def _time_axes(panels: np.ndarray) -> None:
    for axes, name in zip(panels, _OVER_TIME, strict=True):
        axes.set_ylabel(name)
        axes.set_ylim(bottom=0)
    panels[2].yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.3g} %"))
    panels[3].yaxis.set_major_formatter(FuncFormatter(_seconds))
    panels[0].set_title("Over time")
    panels[3].set_xlabel("seconds since the start")


def against_load(panels: np.ndarray, results: Mapping[str, Result], colors: Mapping[str, tuple[str, str]]) -> None:
    """Draw p50 and p99 of TTFT, TPOT and E2E, and goodput, against the load: a panel each."""
    for axes, (metric, name) in zip(panels, OVER_LOAD, strict=False):
        for label, result in results.items():
            _curve(axes, result, metric, *colors[label])
        axes.set_ylabel(name)
        if axes.lines:
            axes.set_yscale("log")
        axes.yaxis.set_major_formatter(FuncFormatter(_seconds))
        axes.yaxis.set_minor_formatter(FuncFormatter(lambda value, _: ""))
    lines = [Line2D([], [], color=INK, label="p99"), Line2D([], [], color=INK, linestyle="--", label="p50")]
    lines.append(Line2D([], [], color=INK, linestyle="", marker="o", markerfacecolor="white", label="unstable"))
    panels[0].legend(handles=lines, frameon=False, fontsize=9, loc="best")
    panels[0].set_title("Against load")
    for label, result in results.items():
        color, marker = colors[label]
        panels[3].plot(result["load"], result["goodput_requests_per_s"], f"-{marker}", color=color, markersize=5.5)
    panels[3].set_ylabel("goodput, requests/s")
    panels[3].set_xlabel(next(iter(results.values())).details["load"])
    panels[3].set_ylim(bottom=0)


def _curve(axes: Axes, result: Result, metric: str, color: str, marker: str) -> None:
    load, tail = result["load"], f"{metric}_p99_s"
    if not np.isfinite(result[tail]).any():
        return
    axes.plot(load, result[f"{metric}_p50_s"], "--", color=color, linewidth=1.4)
    axes.plot(load, result[tail], "-", color=color, linewidth=1.8)
    low, high = interval_names(tail)
    if low in result:
        axes.fill_between(load, result[low], result[high], color=color, alpha=0.15, linewidth=0)
    steady = (result["queue_growth_requests_per_s"] == 0) & result["complete"]
    for kept, face in ((steady, color), (~steady, "white")):
        axes.plot(load[kept], result[tail][kept], marker, color=color, markerfacecolor=face, markersize=5.5)


def _seconds(value: float, _: int) -> str:
    return f"{value:,.3g} s" if value >= 1 or value == 0 else f"{1000 * value:,.3g} ms"
