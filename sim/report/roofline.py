"""The roofline of a machine with the operations of a step placed on it (Williams et al. 2009, CACM 52(4))."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, NullFormatter

from sim.report.figure import INK, check_file, looks, save, styled
from sim.report.labels import place_labels
from sim.report.number import prefixed, significant
from sim.results import Result

_CLOSE = 1.4  # ratio of two roofs below which the label of the lower one goes under its line


def roofline_plot(
    operations: Result,
    peak_flops_per_s: Mapping[str, float],
    bandwidth_bytes_per_s: float,
    title: str,
    path: str | os.PathLike[str],
) -> None:
    """Draw min(peak, I·B) over arithmetic intensity I, and each operation group at (FLOPs/bytes, FLOPs/seconds).

    peak_flops_per_s: one roof per format that the machine multiplies in. Area of a marker: share of its phase's time.
    Groups without FLOPs or bytes (collectives, fixed times) have no place on it and are named below.
    """
    file = check_file(path)
    rows = [row for row in operations.rows() if row["bytes"] and row["flops"] and row["seconds"]]
    with styled():
        figure = Figure(figsize=(10, 6.6), layout="constrained")
        axes = figure.subplots()
        axes.set(title=title, xlabel=_xlabel(operations), ylabel="attained FLOP/s", xscale="log", yscale="log")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
        axes.yaxis.set_major_formatter(FuncFormatter(_power))
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_minor_formatter(NullFormatter())
        _limits(axes, rows, peak_flops_per_s, bandwidth_bytes_per_s)
        labels = _operations(axes, rows, operations.rows())
        figure.draw_without_rendering()
        _roofs(axes, peak_flops_per_s, bandwidth_bytes_per_s)
        place_labels(figure, axes, labels)
        save(figure, file)


def _limits(axes: Axes, rows: Sequence[dict[str, Any]], peaks: Mapping[str, float], bandwidth: float) -> None:
    ridges = [peak / bandwidth for peak in peaks.values()]
    intensities = [row["flops"] / row["bytes"] for row in rows] + ridges
    attained = [row["flops"] / row["seconds"] for row in rows] + list(peaks.values())
    axes.set_xlim(min(intensities) / 5, max(intensities) * 8)
    axes.set_ylim(min(attained) / 5, max(attained) * 3)


def _roofs(axes: Axes, peaks: Mapping[str, float], bandwidth: float) -> None:
    """One roof per distinct peak, with the formats that reach it, and the slope of the memory below the highest."""
    names: dict[float, list[str]] = {}
    for name, peak in sorted(peaks.items()):
        names.setdefault(peak, []).append(name)
    (left, right), bottom, top = axes.get_xlim(), axes.get_ylim()[0], max(names)
    for peak, formats in names.items():
        axes.plot([peak / bandwidth, right], [peak, peak], color=INK, linewidth=1.6)
        text = f"{', '.join(formats)}: {prefixed(peak, 'FLOP/s')}"
        below = any(peak < other < _CLOSE * peak for other in names)
        offset = (-4, -12 if below else 4)
        axes.annotate(text, (right, peak), offset, textcoords="offset points", ha="right", color=INK, fontsize=9)
    start = max(left, bottom / bandwidth)
    axes.plot([start, top / bandwidth], [start * bandwidth, top], color=INK, linewidth=1.6)
    middle = start**0.3 * (top / bandwidth) ** 0.7
    (x0, y0), (x1, y1) = axes.transData.transform([(start, start * bandwidth), (top / bandwidth, top)])
    axes.annotate(
        f"memory: {prefixed(bandwidth, 'B/s')}",
        (middle, middle * bandwidth),
        (-4, 4),
        textcoords="offset points",
        rotation=math.degrees(math.atan2(y1 - y0, x1 - x0)),
        rotation_mode="anchor",
        ha="center",
        color=INK,
        fontsize=9,
    )


def _operations(
    axes: Axes, rows: Sequence[dict[str, Any]], all_rows: Sequence[dict[str, Any]]
) -> list[tuple[float, float, str, str]]:
    """Draw the markers and their legend; returns (x, y, text, color) of the label that each needs."""
    phases = looks(list(dict.fromkeys(row["phase"] for row in all_rows)))
    total = {phase: sum(row["seconds"] or 0.0 for row in all_rows if row["phase"] == phase) for phase in phases}
    labels = []
    for row in rows:
        color, marker = phases[row["phase"]]
        x, y, share = row["flops"] / row["bytes"], row["flops"] / row["seconds"], row["seconds"] / total[row["phase"]]
        axes.scatter([x], [y], s=30 + 400 * share, color=color, marker=marker, alpha=0.7, edgecolor="white", zorder=3)
        labels.append((x, y, f"{row['operation']} {significant(100 * share)}%", color))
    handles = [
        Line2D([], [], color=color, marker=marker, linestyle="", label=f"{phase} (area and %: share of its time)")
        for phase, (color, marker) in phases.items()
    ]
    axes.legend(handles=handles, loc="lower right", frameon=False, fontsize=9)
    return labels


def _xlabel(operations: Result) -> str:
    apart = [row for row in operations.rows() if row["seconds"] and not (row["bytes"] and row["flops"])]
    names = dict.fromkeys(str(row["operation"]) for row in apart)
    label = "arithmetic intensity, FLOP/byte"
    return f"{label}\nwithout a place here: {', '.join(names)}" if names else label


def _power(value: float, _: int) -> str:
    number, prefix = prefixed(value, "").split(" ")
    return f"{float(number):g} {prefix}".rstrip()
