"""The second stage of a sweep: cells of its front served request by request, beside what the closed form says."""

from __future__ import annotations

from typing import Any

import numpy as np

from sim.config import Scenario
from sim.errors import RoofcastError
from sim.results import Result
from sim.sweep.plan import Plan
from sim.sweep.spec import ROW_AXES
from sim.verbs.simulate import simulate_many

MOST = 32  # cells, spread evenly over the front
ROUNDS, LEAST, MOST_REQUESTS = 20, 200, 100_000  # requests of each user, and in all
PAIRS = (("ttft_s", "ttft_mean_s"), ("tpot_s", "tpot_mean_s"), ("output_tokens_per_s", "output_tokens_per_s"))


def verified(planned: Plan, front: Result, index: np.ndarray) -> Result:
    """For cells of the front, their figures, those of `sim.simulate`, and simulated / closed form − 1.

    index: of the rows of `front`. Users start one after another over the time of a request, and ask again at once; all
    lengths are equal. Of a front of more than MOST cells, as many are taken, from end to end.
    """
    chosen = np.unique(np.linspace(0, len(index) - 1, min(MOST, len(index))).astype(int)) if len(index) else []
    rows = [row for row in (_row(planned, front, index[i], i) for i in chosen) if row]
    names = list(rows[0]) if rows else ["model"]
    units = {name: "1" if name.endswith("_error") else front.units.get(name.removeprefix("simulated_"), "1")
             for name in names}  # fmt: skip
    return Result({name: np.asarray([row[name] for row in rows]) for name in names}, units)


def _row(planned: Plan, front: Result, index: int, i: int) -> dict[str, Any] | None:
    told = {name: front[name][i] for name in ("model", "hardware", "weights", "prompt_tokens", "output_tokens",
                                              "concurrency")}  # fmt: skip
    try:
        (run,) = simulate_many([scenario_of(planned, index, float(front["e2e_s"][i]))])
    except RoofcastError:
        return None  # what the simulator does not model
    (result,) = run.results.values()
    for ours, theirs in PAIRS:
        closed, simulated = float(front[ours][i]), float(result[theirs][0])
        told |= {ours: closed, f"simulated_{ours}": simulated, f"{ours}_error": simulated / closed - 1.0}
    return told


def scenario_of(planned: Plan, index: int, e2e_s: float) -> Scenario:
    """A closed loop of as many users as a cell has, on its deployment."""
    spec = planned.spec
    at = {name: values[0] for name, values in planned.coordinates(np.asarray([index])).items()}
    deployment = {name: _plain(at[name]) for name in ROW_AXES if at[name] is not None}
    users = int(at["concurrency"])
    lengths = {name: int(at[name]) for name in ("prompt_tokens", "output_tokens", "context_tokens")}
    n_requests = int(np.clip(ROUNDS * users, LEAST, MOST_REQUESTS))
    return Scenario.model_validate({
        "name": spec.name,
        "traffic": {"users": [users], "n_requests": n_requests, "ramp_up_s": e2e_s},
        "workload": lengths,
        "deployment": [deployment],
        "profile": spec.profile,
    })  # fmt: skip


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value
