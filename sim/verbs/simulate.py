"""`sim.simulate`: what happens to the users of a deployment under traffic, event by event."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from sim import catalog
from sim.config import Deployment, Scenario, load_scenario
from sim.errors import RoofcastError, sentence, shown
from sim.objectives import Objectives
from sim.profiles import Source, named
from sim.request import Request, build
from sim.results import Result
from sim.serving.deployment import Served, served
from sim.serving.lanes import Lane, serve
from sim.serving.levels import level_row, results_of, summary_of, unfit_row
from sim.serving.runs import Run, deal, gather
from sim.traffic import Requests, Traffic, draw
from sim.verbs.deployments import SAME_NAME, placed, profile_of
from sim.verbs.estimate import provenance
from sim.verbs.stated import check_progress

File = str | os.PathLike[str]
Progress = Callable[[str, int, int], None]  # what, requests done, requests in all


@dataclass(frozen=True)
class Simulation:
    """A scenario with traffic, and how each of its deployments fares at each level of load.

    results: by label, one row per level: means over the replications, and where there are several the ends of their
    95 % confidence intervals (`ttft_p99_low_s`, `ttft_p99_high_s`). summary: one row per deployment, its figures those
    of `max_load`, the highest level that keeps to the objectives; where none does, that is 0 and they are those of the
    lowest. runs: by label, level and replication, every request; none where the deployment does not fit.
    """

    scenario: Scenario
    results: dict[str, Result]
    summary: Result
    runs: dict[tuple[str, float], tuple[Run, ...]]


@dataclass(frozen=True)
class _Plan:
    """A scenario made ready: its traffic by level and replication, its deployments by label, or why they do not fit."""

    scenario: Scenario
    traffic: Traffic
    requests: dict[float, list[Requests]]
    asked: dict[str, Request]
    served: dict[str, Served]
    unfit: dict[str, str]


def simulate(
    scenario: Scenario | File,
    *,
    seed: int | None = None,
    replications: int | None = None,
    profile: Source = None,
    progress: Progress | None = None,
) -> Simulation:
    """Serves the traffic of a scenario (its file, or as read by sim.config) on each of its deployments.

    seed, replications and profile stand in place of the scenario's own. A path in a scenario begins at its file.
    Every latency has the engine's front end in it. Requests that the context or the KV cache cannot hold are refused,
    and counted. A run that makes no headway ends at its bound and is called unfinished; a level whose queue grows
    throughout is called unstable, with the rate (sim.serving.stability says by which test).

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
    progress: Progress | None = None,
) -> list[Simulation]:
    """As `simulate`, of several scenarios in one batch, which is faster than one after the other."""
    if progress is not None:
        check_progress(progress)
    several = [scenarios] if isinstance(scenarios, Scenario | str | os.PathLike) else scenarios
    problems: list[str] = []
    plans = []
    for scenario in several:
        with placed("", problems):
            plans.append(_plan(scenario, seed, replications, profile))
    if problems:
        raise RoofcastError(*dict.fromkeys(problems))
    runs = _run(plans, progress)
    return [_simulation(plan, of) for plan, of in zip(plans, runs, strict=True)]


def _plan(given: Scenario | File, seed: int | None, replications: int | None, profile: Source) -> _Plan:
    """The scenario read, its traffic drawn, its deployments resolved; RoofcastError with all that is wrong."""
    scenario, path = (given, Path()) if isinstance(given, Scenario) else (load_scenario(given), Path(given))
    place = "" if isinstance(given, Scenario) else str(given)
    if scenario.traffic is None:
        hint = "write [traffic] with requests_per_s, users or path, or take roofcast run"
        raise RoofcastError(sentence("there is no traffic to simulate", sentence("traffic", place), hint))
    traffic = _with(scenario.traffic, seed, replications)
    problems: list[str] = []
    source = profile_of(scenario, path) if profile is None else profile
    requests: dict[float, list[Requests]] = {}
    with placed(place, problems):
        named(source)
        requests = _drawn(scenario, traffic, path.parent)
    asked: dict[str, Request] = {}
    for deployment in scenario.deployments if not problems else ():
        with placed(": ".join(filter(None, [place, f'deployment "{deployment.label}"'])), problems):
            asked[deployment.label] = _asked(deployment, scenario, requests, source)
    if problems:
        raise RoofcastError(*problems)
    return _Plan(scenario, traffic, requests, asked, *_ready(asked, traffic.system_prompt_tokens or 0))


def _ready(asked: dict[str, Request], prefix_tokens: int) -> tuple[dict[str, Served], dict[str, str]]:
    """Each deployment ready for traffic, or why it cannot be."""
    ready, unfit = {}, {}
    for label, request in asked.items():
        try:
            ready[label] = served(request, prefix_tokens=prefix_tokens)
        except RoofcastError as error:
            unfit[label] = "; ".join(error.problems)
    return ready, unfit


def _with(traffic: Traffic, seed: int | None, replications: int | None) -> Traffic:
    """The traffic with another seed, or so many replications."""
    changes = {key: value for key, value in (("seed", seed), ("replications", replications)) if value is not None}
    if not changes:
        return traffic
    try:
        return Traffic.model_validate(traffic.model_dump(exclude_none=True) | changes)
    except ValidationError as error:
        first = error.errors()[0]
        told: dict[str, str] = first.get("ctx", {}).get("problems") or {
            str(first["loc"][0]): f"{first['msg'].lower()}, got {shown(first['input'])}"
        }
        raise RoofcastError(*(sentence(what, key) for key, what in told.items())) from None


def _drawn(scenario: Scenario, traffic: Traffic, folder: Path) -> dict[float, list[Requests]]:
    workload = scenario.workload
    fixed = {"prompt_tokens": workload.prompt_tokens, "output_tokens": workload.output_tokens}
    return {
        level: [draw(traffic, level, i, **fixed, folder=folder) for i in range(traffic.replications)]
        for level in traffic.levels
    }


def _asked(
    deployment: Deployment, scenario: Scenario, requests: dict[float, list[Requests]], profile: Source
) -> Request:
    """The deployment resolved: for one request of mean lengths, and a context that holds the longest of all."""
    lengths = [(r.prompt_tokens, r.output_tokens) for runs in requests.values() for r in runs]
    longest = max(int((prompt.astype(np.int64) + output).max()) for prompt, output in lengths)
    prompt, output = (round(float(np.mean([side.mean() for side in sides]))) for sides in zip(*lengths, strict=True))
    model = catalog.model(deployment.model)
    context = scenario.workload.context_tokens or max(min(longest, model.max_context_tokens), 2)
    output = max(min(output, context // 2), 1)
    return build(
        deployment.model,
        deployment.hardware,
        **{name: getattr(deployment, name) for name in SAME_NAME},
        concurrency=1,
        prompt=max(min(prompt, context - output), 1),
        output=output,
        context=context,
        price=deployment.usd_per_gpu_hour,
        profile=profile,
    )


def _run(plans: Sequence[_Plan], progress: Progress | None) -> list[dict[tuple[str, float], tuple[Run, ...]]]:
    """Every deployment, level and replication of every scenario, in one call of `serve`."""
    lanes: list[Lane] = []
    dealt: list[tuple[int, str, float, Requests, np.ndarray, slice]] = []
    for number, plan in enumerate(plans):
        for label, one in plan.served.items():
            own = plan.scenario.workload.context_tokens
            most = min(own or one.context_tokens, one.context_tokens)
            for level, replications in plan.requests.items():
                for requests in replications:
                    new, replica = deal(one, requests, most)
                    dealt.append((number, label, level, requests, replica, slice(len(lanes), len(lanes) + len(new))))
                    lanes += new
    outcomes = serve(lanes, progress=_counted(lanes, progress))
    runs: list[dict[tuple[str, float], tuple[Run, ...]]] = [{} for _ in plans]
    for number, label, level, requests, replica, mine in dealt:
        run = gather(plans[number].served[label], requests, replica, outcomes[mine])
        runs[number][label, level] = (*runs[number].get((label, level), ()), run)
    return runs


def _counted(lanes: Sequence[Lane], progress: Progress | None) -> Callable[[int], None] | None:
    if progress is None:
        return None
    total, done = sum(len(lane.prompt_tokens) for lane in lanes), 0

    def tell(n: int) -> None:
        nonlocal done
        done += n
        progress("requests", done, total)

    return tell


def _simulation(plan: _Plan, runs: dict[tuple[str, float], tuple[Run, ...]]) -> Simulation:
    objectives: Objectives = plan.scenario.objectives
    results = {}
    for deployment in plan.scenario.deployments:
        label = deployment.label
        if label in plan.unfit:
            rows = [unfit_row(level, plan.unfit[label]) for level in plan.traffic.levels]
        else:
            rows = [level_row(level, runs[label, level], objectives) for level in plan.traffic.levels]
        result = results_of(rows, plan.traffic)
        results[label] = replace(result, provenance=_provenance(plan, label))
    return Simulation(plan.scenario, results, summary_of(plan.scenario, plan.traffic, results), runs)


def _provenance(plan: _Plan, label: str) -> tuple[str, ...]:
    """As for an estimate; then the traffic, the KV cache, and over what the figures were taken."""
    first = plan.requests[plan.traffic.levels[0]][0]
    notes = [*provenance(plan.asked[label]), f"traffic: {first.provenance}"]
    if label in plan.served:
        one = plan.served[label]
        told = "as stated" if one.blocks_from == "stated" else "from memory"
        copies = f" in each of {one.replicas} replicas, which get requests in turn" if one.replicas > 1 else ""
        notes.append(
            f"KV cache of {label}: {one.rules.n_blocks:,} blocks of {one.rules.block_tokens} tokens, {told}{copies}"
        )
    if first.hashes is not None:
        notes.append("hash_ids of the trace are not used: no prompt shares blocks with another")
    n = plan.traffic.replications
    several = f"means and 95 % confidence intervals (Student's t) over {n} replications with different seeds"
    notes.append(several if n > 1 else "confidence interval: n/a with one replication")
    return tuple(notes)
