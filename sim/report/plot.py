"""Throughput and cost against concurrency, as a picture."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, NullLocator

from sim.report.figure import INK, check_file, looks, save, styled
from sim.results import Result

_MOST_TICKS = 12
_SPLIT_BY = {"prompt_tokens": "prompt", "output_tokens": "output", "context_tokens": "context"}


def throughput_plot(results: Mapping[str, Result], path: str | os.PathLike[str], title: str = "") -> None:
    """Draw tokens/s (in total, per user) and $/Mtok against concurrency; one color per label, loads that fit only.

    A hollow marker says that memory holds fewer sequences than are asked for, so that requests wait; a band is the
    interval, where the results have one.
    """
    file = check_file(path)
    with styled():
        figure = Figure(figsize=(11, 5.4), layout="constrained")
        speed, cost = figure.subplots(1, 2)
        curves = _curves(results)
        for label, (color, marker) in looks(list(curves)).items():
            _curve(speed, curves[label], "output_tokens_per_s", color, marker, "-")
            _curve(speed, curves[label], "user_tokens_per_s", color, marker, "--")
            _curve(cost, curves[label], "usd_per_mtok", color, marker, "-")
        levels = sorted({int(level) for result in results.values() for level in np.ravel(result["concurrency"])})
        _axes(speed, levels, "Throughput", "output tokens/s", "no load fits", "{:,g}")
        _axes(cost, levels, "Cost", "USD per million output tokens", "no load fits, or no price is known", "${:,g}")
        _legends(figure, speed, list(curves), [label for label in results if not results[label]["fits"].any()])
        if title:
            figure.suptitle(title, fontweight="bold", x=0.01, ha="left")
        save(figure, file)


def _curves(results: Mapping[str, Result]) -> dict[str, list[dict[str, Any]]]:
    """The rows of each curve by concurrency: loads that fit, set apart where more than concurrency differs."""
    apart: dict[str, list[dict[str, Any]]] = {}
    for label, result in results.items():
        rows = [row for row in result.rows() if row["fits"]]
        keys: list[str] = []
        for key in _SPLIT_BY:
            if key in result and len(_distinct(rows, [*keys, key])) > max(len(_distinct(rows, keys)), 1):
                keys.append(key)
        for row in rows:
            name = ", ".join([label, *(f"{_SPLIT_BY[key]} {row[key]:,}" for key in keys)])
            apart.setdefault(name, []).append(row)
    return {name: sorted(rows, key=lambda row: row["concurrency"]) for name, rows in apart.items()}


def _distinct(rows: Sequence[dict[str, Any]], keys: Sequence[str]) -> set[tuple[Any, ...]]:
    return {tuple(row[key] for key in keys) for row in rows}


def _curve(axes: Axes, rows: Sequence[dict[str, Any]], column: str, color: str, marker: str, line: str) -> None:
    points = [(row["concurrency"], row[column], _waits(row)) for row in rows if row.get(column)]
    if not points:
        return
    axes.plot([x for x, _, _ in points], [y for _, y, _ in points], line, color=color, linewidth=1.8)
    low, high = (column.replace("_tokens_per_s", f"_{end}_tokens_per_s") for end in ("low", "high"))
    if low != column and low in rows[0]:
        levels = [row["concurrency"] for row in rows]
        ends = [row[low] for row in rows], [row[high] for row in rows]
        axes.fill_between(levels, *ends, color=color, alpha=0.15, linewidth=0)
    for hollow, face in ((False, color), (True, "white")):
        kept = [(x, y) for x, y, waits in points if waits == hollow]
        axes.plot([x for x, _ in kept], [y for _, y in kept], marker, color=color, markerfacecolor=face, markersize=5.5)


def _waits(row: Mapping[str, Any]) -> bool:
    running = row.get("running_sequences")
    return running is not None and running < row["concurrency"]


def _axes(axes: Axes, levels: list[int], title: str, unit: str, absence: str, form: str) -> None:
    """Logarithmic scales, with a tick at each concurrency as far as there is room."""
    axes.set(title=title, xscale="log", xlabel="concurrent requests", ylabel=unit)
    axes.set_xticks(levels[:: -(-len(levels) // _MOST_TICKS)])
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.xaxis.set_minor_locator(NullLocator())
    if not axes.lines:
        axes.set_yticks([])
        axes.text(0.5, 0.5, f"nothing to draw: {absence}", transform=axes.transAxes, ha="center", color=INK)
        return
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    widen = max((100 * low / high) ** 0.5, 1.0)
    axes.set_ylim(low / widen, high * widen)
    axes.yaxis.set_major_formatter(_tick(form))
    axes.yaxis.set_minor_formatter(FuncFormatter(lambda value, _: ""))


def _tick(form: str) -> FuncFormatter:
    return FuncFormatter(lambda value, _: form.format(value))


def _legends(figure: Figure, speed: Axes, labels: list[str], unfit: list[str]) -> None:
    """What the lines mean, inside the first panel if it has any; which deployment each color is, below."""
    handles = [Line2D([], [], color=c, marker=m, markersize=5.5, label=name) for name, (c, m) in looks(labels).items()]
    handles += [Line2D([], [], linestyle="", label=f"{name}: does not fit") for name in unfit]
    longest = max(len(str(handle.get_label())) for handle in handles)
    columns = max(1, min(3, 150 // (longest + 6)))
    figure.legend(handles=handles, loc="outside lower left", ncols=columns, frameon=False, fontsize=9)
    if labels:
        lines = [
            Line2D([], [], color=INK, label="in total"),
            Line2D([], [], color=INK, linestyle="--", label="per user"),
            Line2D([], [], color=INK, linestyle="", marker="o", markerfacecolor="white", label="memory full"),
        ]
        speed.legend(handles=lines, frameon=False, fontsize=9, loc="best")
