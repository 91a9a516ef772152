"""A deployment at the levels of its traffic: means over replications, their intervals, and which level keeps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sim.config import Scenario
from sim.objectives import Objectives
from sim.report.number import RECORDED, show, show_load, significant
from sim.results import Result
from sim.serving.metrics import UNITS, metrics
from sim.serving.replications import interval_names, mean_and_interval
from sim.serving.runs import Run
from sim.serving.stability import queue_growth
from sim.traffic import Traffic

AT_LEVEL = (
    "ttft_mean_s", "ttft_p99_s", "tpot_mean_s", "tpot_p95_s", "requests_per_s", "output_tokens_per_s", "goodput_frac",
    "usd_per_hour", "usd_per_mtok", "joules_per_token",
)  # fmt: skip
NO_INTERVAL = ("n_requests",)  # known beforehand
MAXIMA = ("queue_max", "running_max", "kv_max_frac")  # over all replications, without an interval
Row = dict[str, Any]


def load_unit(traffic: Traffic) -> str:
    """What the levels of the traffic count."""
    return "requests/s" if traffic.requests_per_s else "users" if traffic.users else RECORDED


def level_row(level: float, runs: Sequence[Run], objectives: Objectives) -> Row:
    """The figures of one level over its replications, whether they keep to the objectives, and a verdict."""
    limits = objectives.of_a_request
    found = [metrics(run, limits) for run in runs]
    row: Row = {"load": float(level), "fits": True}
    for name in UNITS:
        values = np.array([one[name] for one in found], float)
        row[name], *ends = mean_and_interval(values)
        if name in MAXIMA:
            row[name] = float(values.max())
        elif len(runs) > 1 and name not in NO_INTERVAL:
            row |= dict(zip(interval_names(name), ends, strict=True))
    row["queue_growth_requests_per_s"] = queue_growth(runs)
    row["complete"] = all(run.complete for run in runs)
    wrong = missed(row, objectives)
    return row | {"keeps": not wrong, "verdict": ", ".join(wrong) or "keeps to the objectives"}


def unfit_row(level: float, why: str) -> Row:
    """The row of a level of a deployment that does not fit."""
    nothing = dict.fromkeys((*UNITS, "queue_growth_requests_per_s"), np.nan)
    return {"load": float(level), "fits": False, **nothing, "complete": False, "keeps": False, "verdict": why}


def missed(row: Mapping[str, Any], objectives: Objectives) -> list[str]:
    """What a level misses, in words and numbers; what makes all figures doubtful first."""
    wrong = []
    growth = row["queue_growth_requests_per_s"]
    if growth > 0:
        wrong.append(f"unstable: the queue grows by {f'{growth:.2g}' if growth < 10 else f'{growth:,.0f}'} requests/s")
    if not row["complete"]:
        done = f"{significant(row['n_finished'])} of {significant(row['n_requests'])} requests"
        wrong.append(f"unfinished: the run met its bound with {done} done")
    elif row["n_finished"] == 0:
        wrong.append("no request is served: all are longer than the context or the KV cache")
    if row["n_finished"] > 0:
        limits = [*objectives.percentiles, ("usd_per_hour", objectives.max_usd_per_hour)]
        for name, limit in limits:
            if limit is not None and not row[name] <= limit:
                wrong.append(f"{_called(name)}{show(name, row[name])} is above {show(name, limit)}")
        least = objectives.least_goodput_frac
        if row["goodput_frac"] < least:
            share = f"{show('frac', row['goodput_frac'])} of requests"
            wrong.append(f"{share} keep to {_limits(objectives)}, fewer than {show('frac', least)}")
    return wrong


def excesses(row: Mapping[str, Any], objectives: Objectives) -> dict[str, float]:
    """Each objective that a level misses, and by what part of it: {"TTFT p99": 0.02} where that is 2 % above its limit.

    Of an unstable queue that is its growth over the rate at which requests are done; of an unfinished run, infinite.
    """
    over = {}
    if row["queue_growth_requests_per_s"] > 0:
        over["stability"] = row["queue_growth_requests_per_s"] / row["requests_per_s"]
    if not row["complete"] or row["n_finished"] == 0:
        return over | {"requests that are not served": np.inf}
    for name, limit in (*objectives.percentiles, ("usd_per_hour", objectives.max_usd_per_hour)):
        if limit is not None and not row[name] <= limit:
            over[_called(name).strip() or "$/h"] = row[name] / limit - 1
    least = objectives.least_goodput_frac
    return over | ({"goodput": 1 - row["goodput_frac"] / least} if row["goodput_frac"] < least else {})


def _called(name: str) -> str:
    """ "TTFT p99 " of ttft_p99_s."""
    parts = name.split("_")
    return f"{parts[0].upper()} {parts[1]} " if len(parts) == 3 and parts[1].startswith("p") else ""


def _limits(objectives: Objectives) -> str:
    told = [f"{metric.upper()} {show('s', limit)}" for metric, limit in objectives.of_a_request.items()]
    return " and ".join(told) or "no limit"


def results_of(rows: Sequence[Row], unit: str) -> Result:
    """The rows as columns; details["load"] says what the load counts."""
    columns = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    known = {"load": unit, "verdict": "", "queue_growth_requests_per_s": "1/s", **UNITS}
    ends = {end: UNITS[name] for name in UNITS for end in interval_names(name)}
    units = {name: known.get(name, ends.get(name, "1")) for name in columns}
    return Result(columns, units, details={"load": unit})


def summary_of(scenario: Scenario, traffic: Traffic, results: Mapping[str, Result]) -> Result:
    """One row per deployment: the highest level that keeps to the objectives, the figures there, and a verdict."""
    rows = []
    for deployment in scenario.deployments:
        levels = results[deployment.label].rows()
        best = max((i for i, row in enumerate(levels) if row["keeps"]), default=None)
        rows.append(
            {
                "label": deployment.label,
                "model": deployment.model,
                "hardware": deployment.hardware,
                "fits": levels[0]["fits"],
                "max_load": 0.0 if best is None else levels[best]["load"],
                **{name: results[deployment.label][name][best or 0] for name in AT_LEVEL},
                "verdict": _verdict(levels, best, load_unit(traffic)),
            }
        )
    columns = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    known = {"max_load": load_unit(traffic), "fits": "1", **UNITS}
    notes = dict.fromkeys(note for result in results.values() for note in result.provenance)
    return Result(columns, {name: known.get(name, "") for name in columns}, tuple(notes), {"load": load_unit(traffic)})


def _verdict(levels: Sequence[Row], best: int | None, unit: str) -> str:
    """One sentence: up to which level the objectives hold, and what the next one misses."""
    if best is None:
        return f"no, at {show_load(levels[0]['load'], unit)}: {levels[0]['verdict']}"
    if best + 1 == len(levels):
        return f"yes, at every level up to {show_load(levels[-1]['load'], unit)}"
    beyond = levels[best + 1]
    return f"up to {show_load(levels[best]['load'], unit)}; at {show_load(beyond['load'], unit)}: {beyond['verdict']}"
