"""A deployment at the levels of its traffic: means over replications, their intervals, and which level keeps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sim.config import Scenario
from sim.objectives import Objectives
from sim.report.number import RECORDED, show_load
from sim.results import Result
from sim.serving.metrics import UNITS, metrics
from sim.serving.misses import doubt, missed, misses
from sim.serving.replications import interval_names, mean_and_interval
from sim.serving.runs import Run
from sim.serving.stability import in_flight_growth, queue_growth
from sim.traffic import Traffic

AT_LEVEL = (
    "ttft_mean_s", "ttft_p99_s", "tpot_mean_s", "tpot_p95_s", "requests_per_s", "output_tokens_per_s", "goodput_frac",
    "usd_per_hour", "usd_per_mtok", "joules_per_token",
)  # fmt: skip
NO_INTERVAL = ("n_requests", "n_warmup")  # known beforehand
MAXIMA = ("queue_max", "running_max", "kv_max_frac")  # over all replications, without an interval
GROWTH = {"queue_growth_requests_per_s": queue_growth, "in_flight_growth_requests_per_s": in_flight_growth}
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
    row |= {name: found(runs) for name, found in GROWTH.items()}
    row["complete"] = all(run.complete for run in runs)
    wrong, doubtful = misses(row, objectives), doubt(row, runs)
    verdict = ", ".join(miss.sentence for miss in wrong) or "keeps to the objectives"
    return row | {"keeps": not wrong, "doubt": doubtful, "verdict": "; ".join(filter(None, [verdict, doubtful]))}


def unfit_row(level: float, why: str) -> Row:
    """The row of a level of a deployment that does not fit."""
    nothing = dict.fromkeys((*UNITS, *GROWTH), np.nan)
    known = {"complete": False, "keeps": False, "doubt": "", "verdict": why}
    return {"load": float(level), "fits": False, **nothing, **known}


def results_of(rows: Sequence[Row], unit: str) -> Result:
    """The rows as columns; details["load"] says what the load counts."""
    columns = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    known = {"load": unit, "doubt": "", "verdict": "", **dict.fromkeys(GROWTH, "1/s"), **UNITS}
    ends = {end: UNITS[name] for name in UNITS for end in interval_names(name)}
    units = {name: known.get(name, ends.get(name, "1")) for name in columns}
    return Result(columns, units, details={"load": unit})


def summary_of(scenario: Scenario, traffic: Traffic, results: Mapping[str, Result]) -> Result:
    """One row per deployment: the highest level that keeps to the objectives, the figures there, and a verdict."""
    rows = []
    for deployment in scenario.deployments:
        levels = results[deployment.label].rows()
        beyond = next((i for i, row in enumerate(levels) if not row["keeps"]), len(levels))
        rows.append(
            {
                "label": deployment.label,
                "model": deployment.model,
                "hardware": deployment.hardware,
                "fits": levels[0]["fits"],
                "max_load": levels[beyond - 1]["load"] if beyond else 0.0,
                **{name: results[deployment.label][name][max(beyond - 1, 0)] for name in AT_LEVEL},
                "verdict": _verdict(levels, beyond, load_unit(traffic)),
            }
        )
    columns = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    known = {"max_load": load_unit(traffic), "fits": "1", **UNITS}
    notes = dict.fromkeys(note for result in results.values() for note in result.provenance)
    return Result(columns, {name: known.get(name, "") for name in columns}, tuple(notes), {"load": load_unit(traffic)})


def _verdict(levels: Sequence[Row], beyond: int, unit: str) -> str:
    """One sentence: up to which level the objectives hold, what the first one misses that does not, and what makes
    that doubtful.
    """
    at = [show_load(row["load"], unit) for row in levels]
    if beyond == len(levels):
        doubtful = [f"; at {load}: {row['doubt']}" for load, row in zip(at, levels, strict=True) if row["doubt"]]
        return f"yes, at every level up to {at[-1]}" + "".join(doubtful[-1:])
    if beyond == 0:
        told = f"no, at {at[0]}: {levels[0]['verdict']}"
    else:
        doubt_at_best = levels[beyond - 1]["doubt"]
        told = f"up to {at[beyond - 1]}" + (f" ({doubt_at_best})" if doubt_at_best else "")
        told += f"; at {at[beyond]}: {missed(levels[beyond])}"
    again = next((load for load, row in zip(at[beyond:], levels[beyond:], strict=True) if row["keeps"]), None)
    return told if again is None else f"{told}; keeps again at {again}"
