"""The Pareto front of a sweep, and the best against one of its axes, as panels of a picture."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from sim.report.figure import INK, PALETTE, looks
from sim.report.labels import place_labels
from sim.report.number import show
from sim.report.sweep_table import AXIS_WORDS, HEADINGS, column_of

WIDE = 30.0  # ratio of the ends of a range from which on a scale is logarithmic
_MOST_LABELS, _MOST_LINES = 12, len(PALETTE)


def wide(low: float, high: float) -> bool:
    """Whether a range of values asks for a logarithmic scale."""
    return bool(low > 0 and high > WIDE * low)


def front(figure: Figure, axes: Axes, rows: Sequence[Mapping[str, Any]], objectives: Sequence[str]) -> None:
    """The front's points by its first two objectives, named where the model or the machine changes along it."""
    x, y = (column_of(name) for name in (objectives[1], objectives[0]))
    known = [row for row in rows if row[x] is not None and row[y] is not None]
    points = sorted(known, key=lambda row: (row[x], row[y]))
    names = list(dict.fromkeys(row["model"] for row in points))
    few = looks(names) if len(names) <= len(PALETTE) else dict.fromkeys(names, (PALETTE[0], "o"))
    if len(objectives) == 2:
        steps = [(at, high[y]) for high, low in pairwise(points) for at in (high[x], low[x])]
        axes.plot(*zip(*steps, (points[-1][x], points[-1][y]), strict=True), color="#bbbbbb", linewidth=1.2)
    for name, (color, marker) in few.items():
        own = [row for row in points if row["model"] == name]
        label = name if len(names) <= len(PALETTE) else None
        axes.plot([r[x] for r in own], [r[y] for r in own], marker, color=color, markersize=5.5, label=label)
    for axis, name, which in ((axes.xaxis, x, "x"), (axes.yaxis, y, "y")):
        values = [row[name] for row in points]
        scale(axes, which, axis, name, min(values), max(values))
    axes.margins(0.12)
    axes.set(xlabel=HEADINGS[objectives[1]], ylabel=HEADINGS[objectives[0]], title="Pareto front")
    if len(names) <= len(PALETTE):
        axes.legend(frameon=False, fontsize=9, loc="upper right")
    labels = [(r[x], r[y], _place(r, len(names) > len(PALETTE)), few[r["model"]][0]) for r in _told_apart(points)]
    place_labels(figure, axes, labels, fontsize=8)


def _told_apart(points: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Points at which the model or the machine is another than before; of too many, some spread over all."""
    keys = [(row["model"], row.get("hardware")) for row in points]
    turns = [row for i, row in enumerate(points) if i == 0 or keys[i] != keys[i - 1]]
    at = np.unique(np.linspace(0, len(turns) - 1, min(len(turns), _MOST_LABELS)).round().astype(int))
    return [turns[i] for i in at]


def _place(row: Mapping[str, Any], with_model: bool) -> str:
    count = row.get("n_gpus", 1)
    machine = row["hardware"] if count == 1 or str(row["hardware"])[0].isdigit() else f"{count}x {row['hardware']}"
    return f"{row['model']}\n{machine}" if with_model else str(machine)


def curves(
    figure: Figure, axes: Axes, xs: Sequence[float], lines: Mapping[str, np.ndarray], along: str, objective: str
) -> None:
    """The best value of an objective against an axis, one line each; marked where another line becomes the lowest.

    Of many lines those that are lowest somewhere have a color, and the nearest to them; the others are grey.
    """
    lines = {name: values for name, values in lines.items() if np.isfinite(values).any()}
    table = np.stack(list(lines.values()))
    chosen = leaders(table)[:_MOST_LINES]
    names = list(lines)
    for i in range(len(names)):
        if i not in chosen:
            axes.plot(xs, table[i], color="#cccccc", linewidth=0.9, zorder=1)
    for name, (color, marker) in looks([names[i] for i in chosen]).items():
        many = len(xs) > 40
        axes.plot(xs, lines[name], "-" if many else f"{marker}-", color=color, markersize=4.5, label=name)
    for at in turns(table):
        axes.axvline(xs[at], color=INK, linewidth=0.9, linestyle=":", zorder=0)
        axes.annotate(f"{xs[at]:,g}", (xs[at], 1), xycoords=("data", "axes fraction"), fontsize=8, color=INK,
                      ha="left", va="top", xytext=(2, -1), textcoords="offset points")  # fmt: skip
    scale(axes, "x", axes.xaxis, along, min(xs), max(xs))
    scale(axes, "y", axes.yaxis, objective, float(np.nanmin(table)), float(np.nanmax(table)))
    words = AXIS_WORDS.get(along, along)
    axes.set(xlabel=words, ylabel=HEADINGS[objective], title=f"Best {HEADINGS[objective]} against {words}")
    if len(names) > 1:
        handles, told = axes.get_legend_handles_labels()
        if len(chosen) < len(names):
            handles.append(axes.plot([], [], color="#cccccc")[0])
            told.append(f"{len(names) - len(chosen)} others")
        axes.legend(handles, told, facecolor="white", edgecolor="none", framealpha=0.85, fontsize=9, loc="best")


def leaders(table: np.ndarray) -> list[int]:
    """Lines (rows) that are lowest anywhere, in that order, then the others from the nearest to the lowest."""
    lowest = np.fmin.reduce(table)
    some = np.isfinite(lowest)
    first = [int(np.nanargmin(table[:, i])) for i in np.flatnonzero(some)]
    excess = np.where(np.isfinite(table[:, some]), table[:, some] / lowest[some], np.inf).min(axis=1)
    return list(dict.fromkeys((*first, *np.argsort(excess, kind="stable").tolist())))


def turns(table: np.ndarray) -> list[int]:
    """Columns from which on another line is the lowest than in the column before."""
    some = np.flatnonzero(np.isfinite(np.fmin.reduce(table)))
    first = [int(np.nanargmin(table[:, i])) for i in some]
    return [int(some[i]) for i in range(1, len(some)) if first[i] != first[i - 1]]


def scale(axes: Axes, which: str, axis: Any, column: str, low: float, high: float) -> None:
    """A logarithmic scale for a wide range, and ticks with units."""
    if wide(low, high):
        axes.set(**{f"{which}scale": "log"})
        subs = (1.0,) if high > 1000 * low else (1.0, 2.0, 5.0)
        axis.set_major_locator(LogLocator(base=10, subs=subs, numticks=12))
        axis.set_minor_formatter(NullFormatter())
    axis.set_major_formatter(FuncFormatter(lambda value, _: tick(column, value)))


def tick(column: str, value: float) -> str:
    """`$0.05`, `20 ms`: the unit of what is paid for stands beside the axis."""
    if column in AXIS_WORDS or column in ("n_gpus", "n_devices"):
        return f"{value:,g}"
    text = f"${value:,g}" if column.startswith("usd_") else show(column, value)
    return re.sub(r"(\.\d*?)0+(?=\D|$)", lambda match: match[1].removesuffix("."), text)
