"""A scenario made ready for simulations: its traffic drawn, its deployments resolved, or all that is wrong with it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError
from scipy.special import stdtrit

from sim import catalog
from sim.config import Deployment, Scenario, load_scenario
from sim.errors import RoofcastError, sentence, shown
from sim.profiles import Source, named
from sim.request import Request, build
from sim.serving.deployment import Served, served
from sim.serving.levels import load_unit
from sim.serving.replications import CONFIDENCE, ENOUGH_REPLICATIONS
from sim.traffic import Requests, Traffic, draw
from sim.verbs.deployments import SAME_NAME, placed, profile_of
from sim.verbs.estimate import provenance

File = str | os.PathLike[str] | Mapping[str, Any]  # of a scenario, or its tables
_ROUTED = {
    "round-robin": "requests in turn",
    "least-outstanding": "a request when they have the fewest outstanding",
    "shortest-queue": "a request when they have the fewest that were not started",
}
_OWN = {"capacity_scheduler_policy": "trtllm", "watermark": "vllm"}  # settings that one engine has


@dataclass(frozen=True)
class Plan:
    """A scenario made ready: its traffic by level and replication, its deployments by label, or why they do not fit."""

    scenario: Scenario
    traffic: Traffic
    requests: dict[float, list[Requests]]
    asked: dict[str, Request]
    served: dict[str, Served]
    unfit: dict[str, str]
    folder: Path  # where paths in the scenario begin
    profile: Source

    def longest(self, one: Served) -> int:
        """Tokens of the longest sequence that a deployment takes."""
        return min(self.scenario.workload.context_tokens or one.context_tokens, one.context_tokens)

    def provenance(self, label: str, searched: bool = False) -> tuple[str, ...]:
        """As for an estimate; then the traffic, the KV cache, what is approximate, and over what the figures are taken.

        searched: loads of a search were simulated, and not (all) those of the file.
        """
        first = self.requests[self.traffic.levels[0]][0]
        notes = [*provenance(self.asked[label]), self._traffic(searched), self._context(label)]
        if label in self.served:
            one = self.served[label]
            blocks = "1 token" if one.rules.block_tokens == 1 else f"{one.rules.block_tokens} tokens"
            told = "as stated" if one.blocks_from == "stated" else "from memory"
            copies = f" in each of {one.replicas} replicas, which get {_ROUTED[one.router]}" if one.replicas > 1 else ""
            notes.append(f"KV cache of {label}: {one.rules.n_blocks:,} blocks of {blocks}, {told}{copies}")
            notes += one.notes
            if first.hashes is not None and not one.rules.caches_prefix:
                notes.append(f"hash_ids of the trace are not used: {self.asked[label].engine.name} caches no prefix")
        return (*notes, *_of_replications(self.traffic))

    def _traffic(self, searched: bool) -> str:
        """How many requests each level has, and in words those of the first run."""
        first = self.requests[self.traffic.levels[0]][0].provenance
        if searched:
            return f"traffic of the file's first level, and alike at the loads that were tried: {first}"
        if len(self.traffic.levels) == 1:
            return f"traffic: {first}"
        counts = sorted({len(one) for runs in self.requests.values() for one in runs})
        each = " to ".join(f"{n:,}" for n in dict.fromkeys((counts[0], counts[-1])))
        levels = ", ".join(f"{level:g}" for level in self.traffic.levels)
        return f"traffic: {each} requests a run, at {levels} {load_unit(self.traffic)}; of the first: {first}"

    def _context(self, label: str) -> str:
        """The longest sequence that the engine is set up for, and why it is that."""
        request, stated = self.asked[label], self.scenario.workload.context_tokens
        taken = int(request.numbers["context"][0])
        longest = "all that the model takes" if taken == request.model.max_context_tokens else "the longest drawn"
        if stated is not None:
            return f"context: {stated:,} tokens, as stated"
        return f"context of {label}: {taken:,} tokens, {longest}"


def place_of(given: Scenario | File) -> str:
    """Where the problems of a scenario are: its file, if it has one."""
    return "" if isinstance(given, Scenario) else "scenario" if isinstance(given, Mapping) else str(given)


def folder_of(given: Scenario | File) -> Path:
    """Where the paths in a scenario begin: at its file, or here."""
    return Path() if isinstance(given, Scenario | Mapping) else Path(given).parent


def plan_of(given: Scenario | File, seed: int | None, replications: int | None, profile: Source) -> Plan:
    """The scenario read, its traffic drawn, its deployments resolved; RoofcastError with all that is wrong."""
    scenario = given if isinstance(given, Scenario) else load_scenario(given)
    folder, place = folder_of(given), place_of(given)
    if scenario.traffic is None:
        hint = "write [traffic] with requests_per_s, users or path, or take roofcast run"
        raise RoofcastError(sentence("there is no traffic to simulate", sentence("traffic", place), hint))
    traffic = _with(scenario.traffic, seed, replications)
    problems: list[str] = []
    source = profile_of(scenario, folder) if profile is None else profile
    requests: dict[float, list[Requests]] = {}
    with placed(place, problems):
        named(source)
        requests = drawn(scenario, traffic, folder)
    asked: dict[str, Request] = {}
    for deployment in scenario.deployments if not problems else ():
        with placed(": ".join(filter(None, [place, f'deployment "{deployment.label}"'])), problems):
            asked[deployment.label] = _asked(deployment, scenario, requests, source)
            _check_able(deployment, asked[deployment.label])
    if problems:
        raise RoofcastError(*problems)
    return Plan(scenario, traffic, requests, asked, *_ready(scenario, asked, traffic), folder, source)


def _of_replications(traffic: Traffic) -> list[str]:
    n = traffic.replications
    if n == 1:
        return ["confidence interval: n/a with one replication"]
    if not traffic.random:
        what = f"all {n} replications are the same, since nothing in the traffic is drawn at random"
        return [f"confidence interval: n/a: {what}: one was run"]
    several = [f"means, maxima, and 95 % confidence intervals (Student's t) over {n} replications with different seeds"]
    if n < ENOUGH_REPLICATIONS:
        t = float(stdtrit(n - 1, (1 + CONFIDENCE) / 2))
        told = f"{n} replications tell little of chance (Student's t = {t:.1f})"
        several.append(f"{told}: take at least {ENOUGH_REPLICATIONS}")
    return several


def _check_able(deployment: Deployment, request: Request) -> None:
    """Raises where a setting of one engine is given to another, or layers to the host."""
    if np.any(request.points.host_layer_frac > 0):
        hint = "keep all layers on the device, or leave experts alone to the host with cpu_moe_frac"
        raise RoofcastError(sentence("the simulator has no times of layers on the host", "gpu_layers", hint))
    for key, home in _OWN.items():
        if getattr(deployment, key) is not None and request.engine.id != home:
            hint = f'take engine = "{home}", or leave the key out'
            raise RoofcastError(sentence(f"{request.engine.name} has no such setting", key, hint))


def _ready(scenario: Scenario, asked: dict[str, Request], traffic: Traffic) -> tuple[dict[str, Served], dict[str, str]]:
    """Each deployment ready for traffic, or why it cannot be."""
    by_label = {deployment.label: deployment for deployment in scenario.deployments}
    prefix_tokens = traffic.system_prompt_tokens or 0
    ready, unfit = {}, {}
    for label, request in asked.items():
        try:
            own = by_label[label]
            evicts = own.capacity_scheduler_policy == "MAX_UTILIZATION"
            share = own.watermark or 0.0
            ready[label] = served(request, 0, prefix_tokens, own.router, evicts, share)
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


def drawn(scenario: Scenario, traffic: Traffic, folder: Path) -> dict[float, list[Requests]]:
    """The requests of each level of the traffic, and of each replication; of one, where nothing is random."""
    workload = scenario.workload
    fixed = {"prompt_tokens": workload.prompt_tokens, "output_tokens": workload.output_tokens}
    n = traffic.replications if traffic.random else 1
    return {level: [draw(traffic, level, i, **fixed, folder=folder) for i in range(n)] for level in traffic.levels}


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
