"""`sim.capacity`: the highest load, or the fewest replicas, with which deployments keep to their objectives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from sim.bounds import MOST_RATE
from sim.config import ROUND_ROBIN, Deployment, Scenario
from sim.errors import RoofcastError, sentence
from sim.objectives import Objectives
from sim.profiles import Source
from sim.results import Result
from sim.serving.batch import Asked, Tell, serve_runs
from sim.serving.capacities import Found, capacity_summary
from sim.serving.deployment import Served
from sim.serving.levels import level_row, load_unit, results_of, unfit_row
from sim.serving.misses import misses
from sim.serving.search import Axis
from sim.serving.trials import Trials
from sim.traffic import Requests
from sim.traffic.tables import DEFAULT_REQUESTS, ROUNDS_OF_USERS
from sim.units import S_PER_HOUR
from sim.verbs.deployments import SAME_NAME
from sim.verbs.estimate import estimate
from sim.verbs.plan import File, Plan, drawn, place_of, plan_of
from sim.verbs.stated import check_progress

MOST_ROUNDS = 12
MOST_USERS, MOST_REPLICAS = 100_000, 1024
BATCHES = 2.0 ** np.arange(13)  # concurrency levels of the closed form


@dataclass(frozen=True)
class Capacity:
    """A scenario with traffic, and what each of its deployments can bear.

    results: by label, one row per load (or number of replicas) that was tried, as in a Simulation. summary: one row
    per deployment: `max_load`, or with `fewest` `replicas` and `n_devices`, 0 where there is none; what limits it, and
    by what part that is missed at the next load tried; between which loads replications disagree; the figures there.
    """

    scenario: Scenario
    results: dict[str, Result]
    summary: Result
    fewest: bool


def capacity(
    scenario: Scenario | File,
    *,
    fewest: bool = False,
    seed: int | None = None,
    replications: int | None = None,
    profile: Source = None,
    progress: Tell | None = None,
) -> Capacity:
    """The highest load at which each deployment of a scenario keeps to its objectives and its queue does not grow.

    The load is requests/s, users (each asks at least 20 times), or times the recorded rate of a trace. Grids of loads
    are simulated at once, first around what the closed form of `sim.estimate` gives, then between the highest
    that keeps and the lowest that does not, until these are 1 % apart. All see the same random numbers. Around what is
    found it is searched again with longer runs, until these find the same, or would be too long (sim.serving.trials).

    fewest: instead the fewest replicas at the highest load that the scenario names. The other arguments are those of
    `sim.simulate`, as are its errors; a scenario must limit a latency.
    """
    if progress is not None:
        check_progress(progress)
    plan = plan_of(scenario, seed, replications, profile)
    _check(plan, place_of(scenario))
    limits = plan.scenario.objectives
    if fewest:  # more replicas cost more: that limit is not one that they can keep to
        limits = limits.model_copy(update={"max_usd_per_hour": None})
    searches = {
        deployment.label: Trials(_axis(plan, deployment, fewest))
        for deployment in plan.scenario.deployments
        if deployment.label in plan.served
    }
    going = dict(searches)
    while going:
        _search(plan, going, limits, fewest, progress)
        searches |= going
        longer = {label: _longer(plan, label, one, fewest) for label, one in going.items() if not one.settled}
        going = {label: one for label, one in longer.items() if one is not None}
    return _answer(plan, searches, fewest)


def _search(
    plan: Plan, searches: Mapping[str, Trials], limits: Objectives, fewest: bool, progress: Tell | None
) -> None:
    """Rounds, until there is nothing more to try."""
    again = max(one.times for one in searches.values())
    longer = f", runs up to {again:.2g} times as long" if again > 1 else ""
    for i in range(MOST_ROUNDS):
        wanted = {label: one.wanted for label, one in searches.items()}
        if not any(wanted.values()):
            break
        _round(plan, searches, wanted, limits, fewest, progress, f"round {i + 1}{longer}")


def _longer(plan: Plan, label: str, one: Trials, fewest: bool) -> Trials | None:
    """A search with longer runs; a trace ends, and a day has its hours."""
    if plan.traffic.arrivals in ("trace", "daily"):
        return None
    served, (best, _) = plan.served[label], one.ends
    assert best is not None
    replicas = int(best) if fewest else served.replicas
    routed = replicas > 1 and served.router != ROUND_ROBIN
    return one.longer(replicas, len(plan.requests[plan.traffic.levels[-1]]), routed)


def _check(plan: Plan, place: str) -> None:
    objectives = plan.scenario.objectives
    if not objectives.of_a_request and not any(objectives.percentiles):
        what, hint = "there is no latency to keep to", 'write ttft_p99_s = "1s", tpot_p95_s = "50ms" or the like'
        raise RoofcastError(sentence(what, sentence("objectives", place), hint))


def _axis(plan: Plan, deployment: Deployment, fewest: bool) -> Axis:
    """Around the load that the closed form gives, or the replicas that it takes for the load of the scenario."""
    traffic, level, served = plan.traffic, plan.traffic.levels[-1], plan.served[deployment.label]
    rate, in_flight = _steady(plan, deployment)
    (first, *_), thinking = plan.requests[level], traffic.think_s or 0.0
    start = in_flight + rate * thinking if traffic.users else rate
    if traffic.arrivals == "trace":
        lasts = first.arrival_s[-1] - first.arrival_s[0]
        start = rate * lasts / len(first) * level if lasts > 0 else 1.0
    if fewest:
        need = served.replicas * level / start
        return Axis(min(max(need, 1), MOST_REPLICAS), 1, MOST_REPLICAS, whole=True, rising=False)
    if served.usd_per_device_s * served.n_devices * S_PER_HOUR > (plan.scenario.objectives.max_usd_per_hour or np.inf):
        return Axis(traffic.levels[0], traffic.levels[0], traffic.levels[0])  # too dear at any load: one tells
    if traffic.users:
        return Axis(min(max(start, 1), MOST_USERS), 1, MOST_USERS, whole=True)
    return Axis(start, start / 2**12, MOST_RATE)


def _steady(plan: Plan, deployment: Deployment) -> tuple[float, float]:
    """Requests/s and sequences in flight of the largest batch that keeps to the limits in the steady closed form."""
    numbers = plan.asked[deployment.label].numbers
    found = estimate(
        deployment.model, deployment.hardware, **{name: getattr(deployment, name) for name in SAME_NAME},
        concurrency=BATCHES, price=deployment.usd_per_gpu_hour, profile=plan.profile,
        **{name: int(numbers[name][0]) for name in ("prompt", "output", "context")},
    )  # fmt: skip
    objectives = plan.scenario.objectives
    keeps = np.ones(len(BATCHES), bool)
    for metric, limit in objectives.of_a_request.items():
        alone = metric == "tpot" and numbers["output"][0] == 1  # an output of one token has no TPOT to keep
        keeps &= alone | (found[f"{metric}_s"] <= limit)
    best = int(np.flatnonzero(keeps)[-1]) if keeps.any() else 0
    rate = float(found["requests_per_s"][best])
    return (rate, float(BATCHES[best])) if np.isfinite(rate) else (1.0, 1.0)


def _round(
    plan: Plan, searches: Mapping[str, Trials], wanted: Mapping[str, list[float]], limits: Objectives, fewest: bool,
    progress: Tell | None, what: str,
) -> None:  # fmt: skip
    """Simulates all that is wanted in one batch, and notes it."""
    level = plan.traffic.levels[-1]
    of = {label: [level if fewest else value for value in values] for label, values in wanted.items()}
    loads = {(at, searches[label].times) for label in wanted for at in of[label]}
    requests = {load: _requests(plan, *load) for load in sorted(loads)}
    asked = [
        Asked(_copies(plan.served[label], value if fewest else None), one, plan.longest(plan.served[label]))
        for label, values in wanted.items()
        for value, at in zip(values, of[label], strict=True)
        for one in requests[at, searches[label].times]
    ]
    runs = iter(serve_runs(asked, progress, what))
    for label, values in wanted.items():
        search = searches[label]
        for value, at in zip(values, of[label], strict=True):
            own = [next(runs) for _ in requests[at, search.times]]
            row = level_row(value, own, limits)
            search.rows[value] = row | {"over": {miss.name: miss.part for miss in misses(row, limits)}}
            alone = own if len(own) > 1 else []
            search.votes[value] = [level_row(value, [run], limits)["keeps"] for run in alone]


def _copies(served: Served, n: float | None) -> Served:
    return served if n is None else served.with_replicas(int(n))


def _requests(plan: Plan, load: float, times: float) -> list[Requests]:
    """The requests of one load, in each replication, of runs so many times as long."""
    traffic = plan.traffic
    if traffic.users:
        n = max(traffic.n_requests or DEFAULT_REQUESTS, ROUNDS_OF_USERS * int(load))
        changes: dict[str, Any] = {"users": (int(load),), "n_requests": round(n * times)}
    else:
        changes = {"time_scale" if traffic.arrivals == "trace" else "requests_per_s": (load,)}
        if times > 1 and traffic.most_requests is not None:
            changes["n_requests"] = round(traffic.most_requests * times)
        if times > 1 and traffic.duration_s is not None:
            changes["duration_s"] = traffic.duration_s * times
    (found,) = drawn(plan.scenario, traffic.model_copy(update=changes), plan.folder).values()
    return found


def _answer(plan: Plan, searches: Mapping[str, Trials], fewest: bool) -> Capacity:
    unit = "replicas" if fewest else load_unit(plan.traffic)
    results, found = {}, {}
    for deployment in plan.scenario.deployments:
        label = deployment.label
        if label in searches:
            rows = [{k: v for k, v in row.items() if k != "over"} for row in searches[label].all_rows()]
            most = plan.scenario.objectives.max_usd_per_hour if fewest else None
            found[label] = Found(searches[label], plan.served[label], most)
        else:
            rows = [unfit_row(plan.traffic.levels[-1], plan.unfit[label])]
        results[label] = replace(results_of(rows, unit), provenance=plan.provenance(label, searched=True))
    notes = tuple(dict.fromkeys(note for result in results.values() for note in result.provenance))
    summary = capacity_summary(plan.scenario, found, results, unit, fewest, load_unit(plan.traffic))
    return Capacity(plan.scenario, results, replace(summary, provenance=notes), fewest)
