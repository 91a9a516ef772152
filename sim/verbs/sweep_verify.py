"""The second stage of a sweep: cells of its Pareto front in the event simulator, beside their closed form."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from sim.config import Scenario
from sim.results import Result
from sim.serving.batch import Tell
from sim.sweeps.spec import Spec
from sim.verbs.estimate import estimate
from sim.verbs.simulate import simulate_many

MOST_SIMULATED = 8
ROUNDS = 8  # requests of each user
LAYOUT = ("tp", "pp", "ep", "dp", "replicas")
LIMITS: dict[str, Callable[[float], float]] = {
    "max_num_batched_tokens": int, "max_num_seqs": int, "gpu_memory_utilization": float,
}  # fmt: skip
COMPARED = {"ttft": "ttft_mean_s", "tpot": "tpot_mean_s"}


def verify(front: Result, spec: Spec, progress: Tell | None = None) -> Result:
    """Simulates up to eight cells from end to end of a front, as benchmarks do: all users begin at once, then loop.

    One row each: TTFT and TPOT (means, in seconds) of the closed form for as many requests, those simulated, and by
    what part the closed form is above (`ttft_off_frac`, `tpot_off_frac`).
    """
    rows = front.rows()
    at = np.linspace(0, len(rows) - 1, min(len(rows), MOST_SIMULATED)).round().astype(int)
    chosen = [rows[i] for i in at]
    found = simulate_many([_scenario(row) for row in chosen], profile=spec.profile, progress=progress)
    names = ["model", "hardware", *LAYOUT, "engine", "weights", "kv", *(name for name in LIMITS if name in front)]
    names += ["prompt_tokens", "output_tokens", "context_tokens", "concurrency"]
    columns: dict[str, Any] = {name: front[name][at] for name in names}
    closed = [_closed(row, spec) for row in chosen]
    for metric, mean in COMPARED.items():
        told = np.array([float(one[f"{metric}_s"]) for one in closed])
        seen = np.array([float(result[mean][0]) for one in found for result in one.results.values()])
        columns |= {
            f"{metric}_s": told,
            f"{metric}_simulated_s": seen,
            f"{metric}_off_frac": np.round(told / seen - 1, 4),
        }
    units = {name: front.units.get(name, "s" if name.endswith("_s") else "1") for name in columns}
    return Result({name: np.asarray(values) for name, values in columns.items()}, units)


def _scenario(row: Mapping[str, Any]) -> Scenario:
    """The closed loop of a cell, with its deployment as it was filled in."""
    deployment = {name: row[name] for name in ("model", "hardware", "engine", "weights", "kv", *LAYOUT)}
    users = row["concurrency"]
    return Scenario.model_validate({
        "name": f"{row['model']} on {row['hardware']}",
        "traffic": {"users": [users], "n_requests": ROUNDS * users, "warmup_requests": 0},
        "workload": {name: row[name] for name in ("prompt_tokens", "output_tokens", "context_tokens")},
        "deployment": [deployment | {"gpus": row["n_gpus"]} | _limits(row)],
    })  # fmt: skip


def _limits(row: Mapping[str, Any]) -> dict[str, float]:
    """The engine's limits, where the sweep states them."""
    return {name: kind(row[name]) for name, kind in LIMITS.items() if row.get(name) is not None}


def _closed(row: Mapping[str, Any], spec: Spec) -> Result:
    """The closed form of as many requests as are simulated."""
    names = {name: row[name] for name in ("engine", "weights", "kv", "concurrency", *LAYOUT)}
    lengths = {name: row[f"{name}_tokens"] for name in ("prompt", "output", "context")}
    return estimate(
        row["model"], row["hardware"], gpus=row["n_gpus"], **names, **lengths, **_limits(row), pay=spec.pay,
        n_requests=ROUNDS * row["concurrency"], profile=spec.profile,
    )  # fmt: skip
