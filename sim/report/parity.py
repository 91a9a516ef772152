"""Predicted against measured, as a picture."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from sim.report.figure import INK, check_file, looks, save, styled
from sim.results import Result

BAND_FRAC = 0.25
MOST_COLUMNS = 4
MANY_POINTS = 500
MANY_TICKS = 60.0  # ratio of the ends of an axis from which on powers of ten suffice
WORDS = {"tpot": "TPOT", "ttft": "TTFT", "itl": "ITL", "e2e": "End to end"}


def parity_plot(result: Result, path: str | os.PathLike[str], title: str = "") -> None:
    """Draw a panel for each quantity, logarithmic on both axes, one color per engine; result: of `sim.validate`."""
    file = check_file(path)
    points = result.details["points"].tolist()
    rows = [row | {"point": point} for row, point in zip(result.rows(), points, strict=True) if row["used"]]
    quantities = _by_size(row["quantity"] for row in rows)
    appearance = looks(_by_size(row["engine"] for row in rows))
    n_columns = min(len(quantities), MOST_COLUMNS)
    n_lines = -(-len(quantities) // n_columns)
    with styled():
        figure = Figure(figsize=(max(3.6 * n_columns, 5.6), 3.7 * n_lines + 0.6), layout="constrained")
        panels = figure.subplots(n_lines, n_columns, squeeze=False).ravel()
        for panel, quantity in zip(panels, quantities, strict=False):
            _panel(panel, quantity, [row for row in rows if row["quantity"] == quantity], appearance)
        for panel in panels[len(quantities) :]:
            panel.set_axis_off()
        handles: list[Any] = [
            Line2D([], [], linestyle="", color=color, marker=marker, markersize=5, label=name)
            for name, (color, marker) in appearance.items()
        ]
        handles += [Line2D([], [], color=INK, label="as measured"),
                    Patch(color=INK, alpha=0.12, linewidth=0, label=f"within {100 * BAND_FRAC:g} %")]  # fmt: skip
        figure.legend(handles=handles, loc="outside lower left", ncols=min(len(handles), 2 * n_columns), frameon=False)
        if title:
            figure.suptitle(title, fontweight="bold", x=0.01, ha="left")
        save(figure, file)


def _by_size(names: Any) -> list[str]:
    """Distinct names, the most frequent first."""
    found, counts = np.unique(list(names), return_counts=True)
    return [str(found[i]) for i in np.argsort(-counts, kind="stable")]


def _title(quantity: str) -> str:
    name = quantity.removesuffix("_tokens_per_s").removesuffix("_s")
    words = WORDS.get(name, name.replace("_", " ").capitalize())
    return f"{words} rate" if quantity.endswith("_tokens_per_s") else words


def _panel(axes: Axes, quantity: str, rows: Sequence[dict[str, Any]], appearance: dict[str, tuple[str, str]]) -> None:
    unit = "tokens/s" if quantity.endswith("tokens_per_s") else "s"
    points = np.asarray([row["point"] for row in rows])
    low, high = points.min() / 1.4, points.max() * 1.4
    ends = np.asarray([low, high])
    axes.fill_between(ends, ends / (1 + BAND_FRAC), ends * (1 + BAND_FRAC), color=INK, alpha=0.12, linewidth=0)
    axes.plot(ends, ends, color=INK, linewidth=0.9)
    many = len(rows) > MANY_POINTS
    size, shade = (2.2, 0.35) if many else (4.0, 0.75)
    engines = np.asarray([row["engine"] for row in rows])
    for name, (color, marker) in appearance.items():
        own = points[engines == name]
        axes.plot(*own.T, marker, color=color, markersize=size, alpha=shade, markeredgewidth=0, rasterized=many)
    axes.set(xscale="log", yscale="log", xlim=(low, high), ylim=(low, high), aspect="equal")
    axes.set(xlabel=f"measured, {unit}", ylabel=f"predicted, {unit}")
    median = np.median(np.abs(points[:, 1] / points[:, 0] - 1))
    axes.set_title(_title(quantity), fontsize=10)
    axes.text(
        0.04, 0.96, f"{len(rows):,} rows\nmedian error {100 * median:.0f} %", transform=axes.transAxes, va="top",
        fontsize=9, bbox={"facecolor": "white", "alpha": 0.7, "linewidth": 0, "pad": 1.5},
    )  # fmt: skip
    subs = (1.0,) if high > MANY_TICKS * low else (1.0, 2.0, 5.0)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(base=10, subs=subs, numticks=6))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
        axis.set_minor_formatter(NullFormatter())
