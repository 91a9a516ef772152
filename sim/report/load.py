"""Pictures of a simulation: queue, batch, KV cache and TTFT over time, and latency against load."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator

from sim.config import Scenario
from sim.report.curves import against_load, seconds
from sim.report.figure import check_file, looks, save, styled
from sim.report.number import show_load
from sim.results import Result
from sim.serving.metrics import queue_length
from sim.serving.runs import Run
from sim.units import S_PER_HOUR

_POINTS = 800  # of a line over time
_DOTS = 3000  # requests that are drawn
_OVER_TIME = ("waiting requests", "running requests", "KV cache in use", "TTFT")
Runs = Mapping[tuple[str, float], Sequence[Run]]


def load_plot(
    results: Mapping[str, Result], summary: Result, runs: Runs, path: str | os.PathLike[str], scenario: Scenario
) -> None:
    """Draw the timeline of each deployment's first replication, at the highest load that keeps to the objectives (the
    lowest, where none does), and where there are several loads, latencies and goodput against them.
    """
    file = check_file(path)
    shown = {row["label"]: row["max_load"] or float(results[row["label"]]["load"][0]) for row in summary.rows()}
    drawn = {label: at for label, at in shown.items() if (label, at) in runs}
    colors = looks(list(results))
    several = max(len(result["load"]) for result in results.values()) > 1
    with styled():
        figure = Figure(figsize=(13 if several else 8, 9), layout="constrained")
        panels = figure.subplots(4, 2 if several else 1, squeeze=False, sharex="col")
        _over_time(panels[:, 0], {label: runs[label, at][0] for label, at in drawn.items()}, colors)
        if several:
            fitting = {label: result for label, result in results.items() if label in drawn}
            against_load(panels[:, 1], fitting, colors, scenario.objectives, summary.details["load"])
        handles = [
            Line2D([], [], color=colors[name][0], marker=colors[name][1], markersize=5.5, label=label)
            for name, label in _labels(summary, drawn).items()
        ]
        figure.legend(handles=handles, loc="outside lower left", ncols=2 if several else 1, frameon=False, fontsize=9)
        figure.suptitle(scenario.name, fontweight="bold", x=0.01, ha="left")
        save(figure, file)


def _labels(summary: Result, drawn: Mapping[str, float]) -> dict[str, str]:
    """Of each deployment, its name and at which load it is drawn over time."""
    labels = {}
    for row in summary.rows():
        name = row["label"]
        labels[name] = f"{name}: does not fit"
        if name in drawn:
            missed = "" if row["max_load"] else ", which misses the objectives"
            labels[name] = f"{name} (over time: at {show_load(drawn[name], summary.details['load'])}{missed})"
    return labels


def _over_time(panels: np.ndarray, runs: Mapping[str, Run], colors: Mapping[str, tuple[str, str]]) -> None:
    """A panel each: waiting and running requests, KV cache, TTFT; in seconds, or in hours where there are many."""
    ends = {label: max(outcome.clock_s for outcome in run.outcomes) for label, run in runs.items()}
    unit, unit_s = ("hours", S_PER_HOUR) if max(ends.values(), default=0.0) > 2 * S_PER_HOUR else ("seconds", 1.0)
    for label, run in runs.items():
        _timeline(panels, run, ends[label], unit_s, colors[label][0])
    for axes, name in zip(panels, _OVER_TIME, strict=True):
        axes.set_ylabel(name)
        axes.set_ylim(bottom=0)
    for axes in panels[:2]:
        axes.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
    panels[2].yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.3g} %"))
    panels[3].yaxis.set_major_formatter(FuncFormatter(seconds))
    panels[0].set_title("Over time")
    panels[3].set_xlabel(f"{unit} since the start")


def _timeline(panels: np.ndarray, run: Run, end_s: float, unit_s: float, color: str) -> None:
    """Queue, requests started but not done, and KV cache as steps; TTFT as a dot for each request at its arrival.

    The KV cache is known at the steps with which requests end, and drawn as constant in between.
    """
    at = np.linspace(0.0, end_s, _POINTS)
    blocks = run.served.rules.n_blocks * run.served.replicas
    started, finished = (np.sort(times[~np.isnan(times)]) for times in (run.scheduled_s, run.finish_s))
    running = np.searchsorted(started, at, "right") - np.searchsorted(finished, at, "right")
    held = np.sum([_steps(o.timeline["clock_s"], o.timeline["blocks"], at) for o in run.outcomes], axis=0) / blocks
    lines = (_steps(*queue_length(run), at), running, np.where(running > 0, held, 0.0))
    for axes, values in zip(panels, lines, strict=False):
        axes.plot(at / unit_s, values, color=color, linewidth=1.2)
    every = -(-len(run.arrival_s) // _DOTS)
    panels[3].plot(run.arrival_s[::every] / unit_s, run.ttft_s[::every], ".", color=color, markersize=3, alpha=0.5)


def _steps(times: np.ndarray, values: np.ndarray, at: np.ndarray) -> np.ndarray:
    """The value of a step function that has `values` from `times` on, and 0 before."""
    return np.concatenate([[0.0], values])[np.searchsorted(times, at, "right")]
