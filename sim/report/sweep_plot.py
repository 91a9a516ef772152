"""Pictures of a sweep: the best over two axes as a heat map, the Pareto front, and the best against one axis."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from sim.report.figure import INK, check_file, save, styled
from sim.report.number import bare
from sim.report.sweep_lines import curves, front, tick, wide
from sim.report.sweep_table import AXIS_WORDS, HEADINGS, column_of
from sim.results import Result

if TYPE_CHECKING:
    from sim.sweeps.spec import Spec
    from sim.verbs.sweep import Sweep

_WIDTH, _LINE, _LEAST, _MOST = 10.0, 0.3, 3.2, 14.0
_MOST_WRITTEN, _MOST_TICKS = 240, 24
Draw = Callable[[Figure, Axes], None]


@dataclass(frozen=True)
class Grid:
    """The best values over two axes. values: (len(ys), len(xs)), not-a-number where nothing keeps to the limits."""

    objective: str
    x: str
    y: str
    xs: Sequence[Any]
    ys: Sequence[Any]
    values: np.ndarray


def sweep_plot(answer: Sweep, path: str | os.PathLike[str]) -> None:
    """Draw, one below another, what the answers hold.

    With two axes in `by`: a heat map of the best value of the first objective, and that value against the axis of
    numbers, one line for each value of the other. With two objectives: their Pareto front.
    """
    file = check_file(path)
    spec = answer.plan.spec
    panels: list[tuple[float, Draw]] = []
    found = best_grid(answer.best, spec)
    if found is not None and len(found.ys) > 1:
        panels.append((min(max(_LINE * len(found.ys) + 1.5, _LEAST), _MOST), partial(heat_map, found=found)))
    if found is not None and _is_number(found.xs):
        lines = {_told(found.y, y): row for y, row in zip(found.ys, found.values, strict=True)}
        panels.append((5.0, partial(curves, xs=found.xs, lines=lines, along=found.x, objective=found.objective)))
    if len(spec.minimize) > 1 and len(answer.front.rows()):
        panels.append((5.6, partial(front, rows=answer.front.rows(), objectives=spec.minimize)))
    with styled():
        heights = [height for height, _ in panels] or [_LEAST]
        figure = Figure(figsize=(_WIDTH, sum(heights) + 0.5), layout="constrained")
        places = figure.subplots(len(heights), 1, squeeze=False, height_ratios=heights).ravel()
        figure.suptitle(spec.name, fontweight="bold", x=0.01, ha="left")
        for axes, (_, draw) in zip(places, panels, strict=False):
            draw(figure, axes)
        if not panels:
            what = "by names no axis of several values" if answer.top.rows() else "nothing keeps to the limits"
            places[0].set(xticks=[], yticks=[])
            places[0].text(0.5, 0.5, f"nothing to draw: {what}", transform=places[0].transAxes, ha="center", color=INK)
        save(figure, file)


def best_grid(best: Result, spec: Spec) -> Grid | None:
    """The best values of the first objective over the first two axes of `by` that have several values.

    Numbers run to the right and names down; of the other axes of `by` the best is taken. With one such axis, of
    numbers, the grid has one line; None where there is nothing to put on it.
    """
    axes = [name for name in spec.by if len(spec.axes[name]) > 1][:2]
    numbers = [name for name in axes if _is_number(spec.axes[name])]
    if not axes or (len(axes) == 1 and not numbers):
        return None
    x = numbers[-1] if numbers else axes[-1]
    y = next((name for name in axes if name != x), x)
    rows = best.rows()
    xs = _values(x, spec, rows)
    ys = [spec.name] if y == x else _values(y, spec, rows)
    values = np.full((len(ys), len(xs)), np.nan)
    objective = spec.minimize[0]
    for row in rows:
        value = row[column_of(objective)]
        if row.get("objective", objective) == objective and value is not None:
            at = (0 if y == x else ys.index(row[column_of(y)]), xs.index(row[column_of(x)]))
            values[at] = np.fmin(values[at], value)
    return Grid(objective, x, y, xs, ys, values) if np.isfinite(values).any() else None


def _values(axis: str, spec: Spec, rows: Sequence[Mapping[str, Any]]) -> list[Any]:
    """Values of an axis, those of which no row is left too: numbers increasing, names as given."""
    values = list(dict.fromkeys([*spec.axes[axis], *(row[column_of(axis)] for row in rows)]))
    return sorted(values) if _is_number(values) else values


def heat_map(figure: Figure, axes: Axes, found: Grid) -> None:
    """Colors from dark, best, to light; logarithmic over a wide range; hatched where nothing keeps to the limits."""
    low, high = np.nanmin(found.values), np.nanmax(found.values)
    norm = LogNorm(low, high) if wide(low, high) else Normalize(low, high)
    axes.set_facecolor("#eeeeee")
    axes.patch.set(hatch="///", edgecolor="#bbbbbb", linewidth=0)
    drawn = axes.pcolormesh(np.ma.masked_invalid(found.values), norm=norm, cmap="viridis", rasterized=True)
    axes.grid(False)
    axes.invert_yaxis()
    for name, values, axis in ((found.x, found.xs, axes.xaxis), (found.y, found.ys, axes.yaxis)):
        step = -(-len(values) // (_MOST_TICKS if axis is axes.xaxis else 2 * _MOST_TICKS))
        axis.set_ticks(np.arange(len(values))[::step] + 0.5, [_told(name, value) for value in values[::step]])
    axes.tick_params(length=0)
    if max(len(_told(found.x, value)) for value in found.xs) * len(found.xs) > 100:
        axes.tick_params(axis="x", rotation=90 if len(found.xs) > 12 else 30)
    axes.set_xlabel(AXIS_WORDS.get(found.x, found.x))
    bar = figure.colorbar(drawn, ax=axes, pad=0.01, label=HEADINGS[found.objective])
    bar.ax.yaxis.set_major_formatter(lambda value, _: tick(found.objective, value))
    bar.ax.yaxis.set_minor_formatter(lambda value, _: "")
    if found.values.size <= _MOST_WRITTEN and len(found.xs) <= _MOST_TICKS:
        _write(axes, found, norm)
    if not np.isfinite(found.values).all():
        unfit = Patch(facecolor="#eeeeee", edgecolor="#bbbbbb", hatch="///", label="nothing keeps to the limits")
        axes.legend(handles=[unfit], loc="lower right", bbox_to_anchor=(1, 1), frameon=False, fontsize=9)
    axes.set_title(f"Best {HEADINGS[found.objective]}")


def _write(axes: Axes, found: Grid, norm: Normalize) -> None:
    """The value in each cell."""
    size = min(8.0, 120 / len(found.xs))
    for (j, i), value in np.ndenumerate(found.values):
        if np.isfinite(value):
            color = "white" if norm(value) < 0.6 else "black"
            text = bare(found.objective, float(value))
            axes.text(i + 0.5, j + 0.5, text, ha="center", va="center", fontsize=size, color=color)


def _is_number(values: Sequence[Any]) -> bool:
    return all(isinstance(value, Real) for value in values)


def _told(axis: str, value: Any) -> str:
    return f"{value:,g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)
