"""`sim.simulate`: what happens to the users of a deployment under traffic, event by event."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from sim.config import Scenario
from sim.errors import RoofcastError, sentence, shown
from sim.objectives import Objectives
from sim.profiles import Source
from sim.results import Result
from sim.serving.batch import Asked, Tell, serve_runs
from sim.serving.levels import level_row, load_unit, results_of, summary_of, unfit_row
from sim.serving.runs import Run
from sim.verbs.deployments import placed
from sim.verbs.plan import File, Plan, plan_of
from sim.verbs.stated import check_progress


@dataclass(frozen=True)
class Simulation:
    """A scenario with traffic, and how each of its deployments fares at each level of load.

    results: by label, one row per level: means over the replications, and where there are several the ends of their
    95 % confidence intervals (`ttft_p99_low_s`, `ttft_p99_high_s`). summary: one row per deployment, its figures those
    of `max_load`, the highest level that keeps to the objectives, as do all below it; where the lowest does not, that
    is 0 and they are those of the lowest. runs: by label, level and replication, every request; none where the
    deployment does not fit.
    """

    scenario: Scenario
    results: dict[str, Result]
    summary: Result
    runs: dict[tuple[str, float], tuple[Run, ...]]


def simulate(
    scenario: Scenario | File,
    *,
    seed: int | None = None,
    replications: int | None = None,
    profile: Source = None,
    progress: Tell | None = None,
) -> Simulation:
    """Serves the traffic of a scenario on each of its deployments: of its file, of its tables as a mapping, or as read.

    seed, replications and profile stand in place of the scenario's own. A path in a scenario begins at its file.
    Every latency has the engine's front end in it. Requests that the context or the KV cache cannot hold are refused,
    and counted. A run that makes no headway ends at its bound and is called unfinished; a level whose queue grows
    throughout is called unstable, with the rate (sim.serving.stability says by which test); `doubt` says of a level why
    its run is too short for its figures (sim.serving.misses).

    RoofcastError with all problems where there is no traffic, a trace cannot be read, or a deployment is none.
    """
    (found,) = simulate_many([scenario], seed=seed, replications=replications, profile=profile, progress=progress)
    return found


def simulate_many(
    scenarios: Sequence[Scenario | File],
    *,
    seed: int | None = None,
    replications: int | None = None,
    profile: Source = None,
    progress: Tell | None = None,
) -> list[Simulation]:
    """As `simulate`, of several scenarios in one batch, which is faster than one after the other."""
    if progress is not None:
        check_progress(progress)
    several = [scenarios] if isinstance(scenarios, Scenario | str | os.PathLike | Mapping) else scenarios
    if not isinstance(several, Iterable):
        raise RoofcastError(sentence(f"expected a list of scenarios, found {shown(several)}", "scenarios"))
    problems: list[str] = []
    plans = []
    for scenario in several:
        with placed("", problems):
            plans.append(plan_of(scenario, seed, replications, profile))
    if problems:
        raise RoofcastError(*dict.fromkeys(problems))
    runs = _run(plans, progress)
    return [_simulation(plan, of) for plan, of in zip(plans, runs, strict=True)]


def _run(plans: Sequence[Plan], progress: Tell | None) -> list[dict[tuple[str, float], tuple[Run, ...]]]:
    """Every deployment, level and replication of every scenario, in one batch."""
    asked, keys = [], []
    for number, plan in enumerate(plans):
        for label, one in plan.served.items():
            most = plan.longest(one)
            for level, replications in plan.requests.items():
                asked += [Asked(one, requests, most) for requests in replications]
                keys += [(number, label, level)] * len(replications)
    runs: list[dict[tuple[str, float], tuple[Run, ...]]] = [{} for _ in plans]
    for (number, label, level), run in zip(keys, serve_runs(asked, progress), strict=True):
        runs[number][label, level] = (*runs[number].get((label, level), ()), run)
    return runs


def _simulation(plan: Plan, runs: dict[tuple[str, float], tuple[Run, ...]]) -> Simulation:
    objectives: Objectives = plan.scenario.objectives
    results = {}
    for deployment in plan.scenario.deployments:
        label = deployment.label
        if label in plan.unfit:
            rows = [unfit_row(level, plan.unfit[label]) for level in plan.traffic.levels]
        else:
            rows = [level_row(level, runs[label, level], objectives) for level in plan.traffic.levels]
        result = results_of(rows, load_unit(plan.traffic))
        results[label] = replace(result, provenance=plan.provenance(label))
    return Simulation(plan.scenario, results, summary_of(plan.scenario, plan.traffic, results), runs)
