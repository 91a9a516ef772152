"""From which value along an axis another choice is the best: from how many users a mixture of experts is cheaper than a
dense model, or from which context one fits no more."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from sim.errors import RoofcastError, did_you_mean, sentence, shown
from sim.results import Result
from sim.sweeps.blocks import Sweeper
from sim.sweeps.plan import Plan, plan
from sim.sweeps.run import in_process, run
from sim.sweeps.spec import AXES, FIGURE_UNITS, LENGTH_AXES, OBJECTIVES, Spec

ALONG = {**dict.fromkeys(LENGTH_AXES, "tokens"), "concurrency": "1"}
TEXTS = ("event", "before", "after")
COLUMNS = (*TEXTS, "at", "low", "high", "before_low", "before_high", "after_low", "after_high")


def crossover(of: Plan, along: str, between: str | Sequence, objective: str | None = None) -> Result:
    """Where, along one of ALONG, another of the values of an axis has the least objective, best over all other axes.

    between: an axis, or (axis, value, value, ...) of its values. objective: default: the first of the sweep.

    One row for each event between neighbouring grid points `low` and `high`. "order changes": `after` has the least in
    place of `before`, at `at`, where lines through the logarithms of axis and objective cross. "stops": `before` keeps
    to the limits and fits up to `at` = `low`, and not at `high`, where `after` is the best; "starts": `after` does from
    `at` = `high` on, beside `before`, the best of the others there. Neither says who leads.
    before_low, ... are the objectives of the two at low and high; NaN: none.
    details["values"] has the least of each value at each grid point, and the index of its cell in details["plan"].

    Raises RoofcastError where an axis or a value is none of the sweep's, or there is nothing to compare.
    """
    axis, *chosen = [between] if isinstance(between, str) else between
    objective = objective or of.spec.minimize[0]
    _check(of.spec, along, axis, chosen, objective)
    values = tuple(chosen) or getattr(of.spec, axis)
    changes: dict[str, Any] = {axis: values, "by": (axis, along), "minimize": (objective,), "top": 1}
    own = plan(replace(of.spec, **changes))
    points, best, index = _least(own, along, axis, values)
    names = [str(value) for value in values]
    events = sorted([*_changes(points, best), *_ends(points, best)], key=lambda event: event[4])
    rows = [_row(names, points, best, *event) for event in events]
    unit = dict(zip(COLUMNS, (*[""] * 3, *[ALONG[along]] * 3, *[FIGURE_UNITS[objective]] * 4), strict=True))
    columns = {name: np.asarray([row[name] for row in rows], str if name in TEXTS else float) for name in COLUMNS}
    told = (f"least {objective} of each {axis} along {along}, over all other axes of the sweep",)
    grid = {axis: np.repeat(names, len(points)), along: np.tile(points, len(names)), objective: best.ravel()}
    units = {axis: "", along: ALONG[along], objective: FIGURE_UNITS[objective], "index": "1"}
    return Result(columns, unit, told, {"values": Result({**grid, "index": index.ravel()}, units, told), "plan": own})


def _check(spec: Spec, along: str, axis: str, chosen: Sequence, objective: str) -> None:
    """Raises RoofcastError with everything that is wrong."""
    problems = []
    for where, name, known in (("along", along, tuple(ALONG)), ("between", axis, AXES),
                               ("objective", objective, OBJECTIVES)):  # fmt: skip
        if name not in known:
            hint = did_you_mean(str(name), known) or f"known are {', '.join(known)}"
            problems.append(sentence(f"nothing is called {shown(name)} here", where, hint))
    if not problems and axis == along:
        problems.append(sentence(f"is the same axis as along, {shown(along)}", "between"))
    if not problems:
        values = getattr(spec, axis)
        listed = ", ".join(map(str, values))
        problems += [sentence(f"{shown(v)} is not on the axis {axis}", "between", f"it has {listed}")
                     for v in chosen if v not in values]  # fmt: skip
        if len(set(chosen or values)) < 2:
            problems.append(sentence(f"one value of {axis} is nothing to compare", "between", "give two or more"))
        if len(spec.axes[along]) < 2:
            problems.append(sentence(f"the axis {along} of the sweep has one value", "along", "give it several"))
    if problems:
        raise RoofcastError(*problems)


def _least(own: Plan, along: str, axis: str, values: tuple) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """((X,) points of the axis in order, (V, X) least of the objective, infinite where there is none, its index)."""
    sweeper = Sweeper(own)
    part = run(own, in_process(lambda i, hint: (sweeper.evaluate(i, hint), None)))
    group, at = _groups(own)
    points = np.unique(at[along]).astype(float)
    best, index = np.full((len(values), len(points)), np.inf), np.full((len(values), len(points)), -1)
    for number, value, point in zip(group, at[axis], at[along], strict=True):
        place = values.index(value), np.searchsorted(points, point)
        best[place], index[place] = part.best[0, number], part.best_index[0, number]
    return points, best, index


def _groups(own: Plan) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """(numbers of the groups, values on every axis of one cell of each)."""
    dims = ("deployments", "lengths", "concurrency", "prices")
    firsts = [np.unique(own.group_axes[dim][0], return_index=True) for dim in dims]
    strides = [own.group_axes[dim][1] for dim in dims]
    numbers = np.meshgrid(*(ids * n for n, (ids, _) in zip(strides, firsts, strict=True)), indexing="ij")
    places = np.meshgrid(*(first for _, first in firsts), indexing="ij")
    cells = np.ravel_multi_index(tuple(place.ravel() for place in places), own.shape)
    return np.sum(numbers, axis=0).ravel(), own.coordinates(cells)


def _changes(points: np.ndarray, best: np.ndarray) -> Iterator[tuple]:
    """Where another value has the least, of two that there are on both sides; a tie leaves the order as it is."""
    winner = -1
    for k in range(len(points)):
        before = winner
        if winner < 0 or best[winner, k] > best[:, k].min():
            winner = int(np.argmin(best[:, k]))
        if not np.isfinite(best[winner, k]):
            winner = -1
        pair = (before, winner)
        if min(pair) >= 0 and before != winner and np.isfinite(best[pair, k - 1 : k + 1]).all():
            gap = np.diff(np.log(best[pair, k - 1 : k + 1]), axis=0)[0]  # from above 0 to below
            at = points[k - 1] * (points[k] / points[k - 1]) ** (gap[0] / (gap[0] - gap[1]))
            yield "order changes", before, winner, at, k


def _ends(points: np.ndarray, best: np.ndarray) -> Iterator[tuple]:
    """Where a value begins or ends to keep to the limits and fit, beside the best of the others."""
    there = np.isfinite(best)
    for v, k in np.argwhere(there[:, 1:] != there[:, :-1]):
        stops = there[v, k]
        others = np.where(np.arange(len(best)) == v, np.inf, best[:, k + 1] if stops else best[:, k])
        other = int(np.argmin(others)) if np.isfinite(others).any() else -1
        pair, at = ((v, other), points[k]) if stops else ((other, v), points[k + 1])
        yield "stops" if stops else "starts", *pair, at, k + 1


def _row(
    names: list[str], points: np.ndarray, best: np.ndarray, event: str, before: int, after: int, at: float, k: int
) -> dict[str, Any]:
    row: dict[str, Any] = {"event": event, "at": at, "low": points[k - 1], "high": points[k]}
    for side, v in (("before", before), ("after", after)):
        row[side] = names[v] if v >= 0 else ""
        for end, place in (("low", k - 1), ("high", k)):
            value = best[v, place] if v >= 0 else np.nan
            row[f"{side}_{end}"] = value if np.isfinite(value) else np.nan
    return row
