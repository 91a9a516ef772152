"""`sim.run`: every deployment of a scenario at every concurrency level, and which of them keeps to the objectives."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from sim import errors
from sim.config import Deployment, Scenario, load_scenario
from sim.errors import RoofcastError, sentence
from sim.intervals import check_level
from sim.objectives import Objectives
from sim.profiles import Source, named
from sim.report.number import show
from sim.results import Result
from sim.verbs.deployments import SAME_NAME, placed, profile_of
from sim.verbs.estimate import estimate
from sim.verbs.plan import File, folder_of, place_of
from sim.verbs.recommend import recommend
from sim.verbs.simulate import Simulation, simulate

SUMMARY_UNITS = {
    "label": "",
    "model": "",
    "hardware": "",
    "fits": "1",
    "max_concurrency": "1",
    "ttft_s": "s",
    "tpot_s": "s",
    "output_tokens_per_s": "tokens/s",
    "usd_per_hour": "USD/h",
    "usd_per_mtok": "USD/Mtok",
    "verdict": "",
}
AT_LEVEL = ("ttft_s", "tpot_s", "output_tokens_per_s", "usd_per_hour", "usd_per_mtok")


@dataclass(frozen=True)
class ScenarioResult:
    """A scenario, the estimate of each deployment over its concurrency levels, by label, and one row about each.

    The summary's figures are those at `max_concurrency`, the highest level that keeps to the objectives; where none
    does, that is 0 and the figures are those of the lowest level.
    """

    scenario: Scenario
    results: dict[str, Result]
    summary: Result
    recommendation: Result | None = None


def run(source: File, *, profile: Source = None, interval: float | None = None) -> ScenarioResult | Simulation:
    """Evaluates a scenario's file, or its tables as a mapping; RoofcastError with all problems where that cannot be.

    profile and interval are as in sim.estimate, and stand in place of the file's own. A scenario with traffic is
    simulated, see sim.simulate, and has no such interval.
    """
    scenario = load_scenario(source)
    if scenario.traffic is not None:
        if interval is not None:
            what = "is for estimates; a simulation has confidence intervals over its replications"
            raise RoofcastError(sentence(what, "interval", "leave it out, or remove [traffic]"))
        return simulate(source, profile=profile)
    results: dict[str, Result] = {}
    problems: list[str] = []
    place = place_of(source)
    own = place if profile is None else ""
    profile = profile_of(scenario, folder_of(source)) if profile is None else profile
    level = scenario.interval if interval is None else interval
    with placed(own, problems):
        calibrated = named(profile)
        level = None if level is None else check_level(level, calibrated)
    if problems:
        raise RoofcastError(*problems)
    for deployment in scenario.deployments:
        with placed(f'{place}: deployment "{deployment.label}"', problems):
            results[deployment.label] = evaluate(deployment, scenario, profile, level)
    recommended = None
    with placed(f"{place}: recommend", problems):
        recommended = recommendation(scenario, profile, level)
    if problems:
        raise RoofcastError(*problems)
    return ScenarioResult(scenario, results, summary(scenario, results), recommended)


def evaluate(deployment: Deployment, scenario: Scenario, profile: Source, interval: float | None) -> Result:
    """The deployment's estimate over the levels, its `why` telling which objectives each level misses."""
    workload, objectives = scenario.workload, scenario.objectives
    given = {name: getattr(deployment, name) for name in SAME_NAME}
    result = estimate(
        deployment.model,
        deployment.hardware,
        **given,
        concurrency=np.array(workload.levels),
        prompt=workload.prompt_tokens,
        output=workload.output_tokens,
        context=workload.context_tokens,
        price=deployment.usd_per_gpu_hour,
        profile=profile,
        interval=interval,
    )
    late = result["ttft_s"] > (np.inf if objectives.ttft_s is None else objectives.ttft_s)
    slow = result["tpot_s"] > (np.inf if objectives.tpot_s is None else objectives.tpot_s)
    why = result["why"] | np.where(late, errors.TTFT_MISSED, 0) | np.where(slow, errors.TPOT_MISSED, 0)
    return dataclasses.replace(result, columns={**result.columns, "why": why})


def summary(scenario: Scenario, results: Mapping[str, Result]) -> Result:
    """One row per deployment: the highest level that keeps to the objectives, the figures there, and a verdict."""
    rows = [_row(deployment, results[deployment.label], scenario.objectives) for deployment in scenario.deployments]
    columns = {name: np.array([row[name] for row in rows]) for name in SUMMARY_UNITS}
    notes = dict.fromkeys(note for result in results.values() for note in result.provenance)
    return Result(columns, dict(SUMMARY_UNITS), tuple(notes))


def _row(deployment: Deployment, result: Result, objectives: Objectives) -> dict[str, Any]:
    levels = result.rows()
    missed = [_missed(level, objectives) for level in levels]
    best = max((i for i, reasons in enumerate(missed) if not reasons), default=None)
    return {name: result[name][best or 0] for name in AT_LEVEL} | {
        "label": deployment.label,
        "model": deployment.model,
        "hardware": deployment.hardware,
        "fits": bool(result["fits"].any()),
        "max_concurrency": 0 if best is None else int(result["concurrency"][best]),
        "verdict": _verdict(levels, missed, best),
    }


def _missed(level: Mapping[str, Any], objectives: Objectives) -> list[str]:
    """What the deployment misses at a level, in words and numbers."""
    if not level["fits"]:
        return [_why_not(level)]
    limits = (
        ("TTFT ", "ttft_s", objectives.ttft_s),
        ("TPOT ", "tpot_s", None if level["tpot_s"] is None else objectives.tpot_s),  # an output of one token
        ("", "usd_per_hour", objectives.max_usd_per_hour),
    )
    over = [
        (what, name, limit) for what, name, limit in limits if limit is not None and not _within(level[name], limit)
    ]
    return [f"{what}{show(name, level[name])} is above {show(name, limit)}" for what, name, limit in over]


def _why_not(level: Mapping[str, Any]) -> str:
    if level["why"] & errors.CONTEXT_TOO_LONG:
        return errors.why_reasons(errors.CONTEXT_TOO_LONG)[0]
    reason = errors.why_reasons(level["why"] & errors.INFEASIBLE)[0]
    return f"{reason}, {show('bytes', -level['free_bytes'])} short on the fullest device"


def _within(value: float | None, limit: float) -> bool:
    return value is not None and value <= limit


def _verdict(levels: list[dict[str, Any]], missed: list[list[str]], best: int | None) -> str:
    """One sentence: up to which level the objectives hold, how many run at a time there, what the next one misses."""
    asked = [level["concurrency"] for level in levels]
    if best is None:
        return f"no, at {asked[0]}: {', '.join(missed[0])}"
    running = int(levels[best]["running_sequences"])
    waiting = f", {running} at a time" if running < asked[best] else ""
    if best + 1 == len(levels):
        return f"yes, at every level up to {asked[best]}{waiting}"
    return f"up to {asked[best]}{waiting}; at {asked[best + 1]}: {', '.join(missed[best + 1])}"


def recommendation(scenario: Scenario, profile: Source, interval: float | None) -> Result | None:
    """What `sim.recommend` finds for the scenario's highest level, where the file asks for it."""
    limits, workload, objectives = scenario.recommend, scenario.workload, scenario.objectives
    if limits is None:
        return None
    assert workload.prompt_tokens is not None and workload.output_tokens is not None  # there is no traffic
    return recommend(
        users=workload.levels[-1],
        prompt=workload.prompt_tokens,
        output=workload.output_tokens,
        context=workload.context_tokens,
        ttft_s=objectives.ttft_s,
        tpot_s=objectives.tpot_s,
        usd_per_hour=objectives.max_usd_per_hour,
        usd=limits.max_usd,
        hardware=limits.hardware,
        models=limits.models,
        engines=limits.engines,
        precision_floor=limits.precision_floor,
        top=limits.top,
        profile=profile,
        interval=interval,
    )
