"""Scenario files: a situation, its workload and objectives, and the deployments to compare, read from TOML.

Everything in a file is checked before anything is computed, and all problems are reported together.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from math import prod
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, ValidationInfo, field_validator, model_validator

from sim import catalog
from sim.engines import engine
from sim.fields import Count, Label, Levels, Names, Table, Text, Usd
from sim.formats import kv_format
from sim.objectives import Objectives
from sim.toml_errors import Problems, Source, contradict, read_tables
from sim.traffic.tables import TABLES as TRAFFIC_TABLES
from sim.traffic.tables import Traffic

ROUND_ROBIN = "round-robin"
Router = Literal["round-robin", "least-outstanding", "shortest-queue"]


class Workload(Table):
    """What is asked: tokens of one request, and how many requests are in flight.

    `concurrency` lists the levels to evaluate; `users` instead asks for 1, 2, 4, ... up to that many.
    `context_tokens` is the longest sequence that must fit, at least prompt and output.
    Beside `[traffic]` only what that leaves open is needed: the lengths, where it has none, and never a level.
    """

    prompt_tokens: Count | None = None
    output_tokens: Count | None = None
    context_tokens: Count | None = None
    concurrency: Levels | None = None
    users: Count | None = None

    @model_validator(mode="after")
    def _check(self) -> Workload:
        problems = {}
        length = (self.prompt_tokens or 0) + (self.output_tokens or 0)
        if self.context_tokens is not None and self.context_tokens < length:
            problems["context_tokens"] = f"{self.context_tokens} is below prompt_tokens + output_tokens = {length}"
        if self.users is not None and self.concurrency is not None:
            problems["users"] = "give either users or concurrency, not both"
        if any(low >= high for low, high in pairwise(self.concurrency or ())):
            problems["concurrency"] = "levels must increase, such as [1, 8, 32]"
        contradict(problems)
        return self

    @property
    def levels(self) -> tuple[int, ...]:
        """Concurrency levels to evaluate, increasing."""
        if self.concurrency is not None:
            return self.concurrency
        assert self.users is not None
        return (*(2**i for i in range((self.users - 1).bit_length())), self.users)


class Deployment(Table):
    """One way to serve the workload. What is absent is left to `sim.estimate`.

    `gpu_layers` (llama.cpp's `-ngl`) keeps the other layers in host memory, `cpu_moe_frac` that part of the experts.
    `usd_per_gpu_hour` replaces the catalogue's price, `kv_blocks` (what the engine's log counts) the room for the KV
    cache that follows from memory. `router` says which replica of a simulation gets a request: the next in turn, the
    one with the fewest requests outstanding, or the one with the fewest that were not started yet.
    `capacity_scheduler_policy` is TensorRT-LLM's, in a simulation: to reserve prompt and output, or to evict;
    `watermark` is vLLM's: the share of the KV blocks that admission leaves free while something runs (default 0).
    """

    label: Label = ""
    model: Text
    hardware: Text
    engine: Text | None = None
    gpus: Count | None = None
    tp: Count | None = None
    pp: Count | None = None
    ep: Count | None = None
    dp: Count | None = None
    replicas: Count | None = None
    weights: Text = "native"
    kv: Text | None = None
    gpu_layers: Annotated[int, Field(ge=0, le=10**6)] | None = None
    cpu_moe_frac: Annotated[float, Field(ge=0, le=1)] = 0.0
    usd_per_gpu_hour: Usd | None = None
    max_num_batched_tokens: Count | None = None
    max_num_seqs: Count | None = None
    gpu_memory_utilization: Annotated[float, Field(gt=0, le=1)] | None = None
    kv_blocks: Count | None = None
    router: Router = ROUND_ROBIN
    capacity_scheduler_policy: Literal["GUARANTEED_NO_EVICT", "MAX_UTILIZATION"] | None = None
    watermark: Annotated[float, Field(ge=0, lt=1)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _label(cls, table: Any) -> Any:
        if not isinstance(table, dict) or "label" in table:
            return table
        parts = [part for part in (table.get("model"), table.get("hardware")) if isinstance(part, str)]
        named = len(parts) == 2 and all(part.isprintable() for part in parts)
        return {**table, "label": " on ".join(parts)} if named else table

    @model_validator(mode="after")
    def _check(self) -> Deployment:
        if self.gpus is None:
            return self
        given = {"tp": self.tp, "pp": self.pp, "dp": self.dp, "replicas": self.replicas}
        known = {name: count for name, count in given.items() if count is not None}
        needed = prod(known.values())
        wrong = self.gpus % needed if len(known) < len(given) else self.gpus - needed
        terms = " x ".join(f"{name} {count}" for name, count in known.items())
        must = "must be a multiple of" if len(known) < len(given) else "must equal"
        contradict({"gpus": f"{self.gpus} {must} {terms} = {needed}"} if wrong else {})
        return self


class Recommend(Table):
    """Limits of the recommendation that accompanies the comparison; the workload and objectives are the scenario's."""

    hardware: Names | None = None
    models: Names | None = None
    engines: Names | None = None
    precision_floor: Text = "int4"
    max_usd: Usd | None = None
    top: Count = 10


class Scenario(Table):
    """A scenario file. `defaults` of the file are already merged into `deployments`.

    `profile` (a path from the scenario's folder, or "none") and `interval` are as in `sim.estimate`.
    With `[traffic]` the scenario is one for `sim.simulate`.
    """

    name: Text
    description: str = ""
    traffic: Traffic | None = None
    workload: Workload
    objectives: Objectives = Objectives()
    deployments: Annotated[tuple[Deployment, ...], Field(min_length=1, strict=False, alias="deployment")]
    recommend: Recommend | None = None
    profile: Text | None = None
    interval: Annotated[float, Field(gt=0, lt=1)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _traffic_is_workload(cls, table: Any) -> Any:
        return {"workload": {}, **table} if isinstance(table, dict) and table.get("traffic") is not None else table

    @field_validator("workload")
    @classmethod
    def _enough(cls, workload: Workload, info: ValidationInfo) -> Workload:
        traffic = info.data.get("traffic")
        recorded = traffic is not None and traffic.arrivals == "trace"
        problems = {}
        for side in ("prompt", "output") if not recorded and "traffic" in info.data else ():
            told = getattr(workload, f"{side}_tokens") or (traffic and getattr(traffic, side))
            if not told:
                instead = f" (or [traffic.{side}] in its place)" if traffic else ""
                problems[f"{side}_tokens"] = f"required key is missing{instead}"
        if info.data.get("traffic", ...) is None and workload.users is None and workload.concurrency is None:
            problems["concurrency"] = "required key is missing (or users in its place)"
        contradict(problems)
        return workload

    @field_validator("objectives", "recommend", "interval")
    @classmethod
    def _of_the_kind(cls, value: Any, info: ValidationInfo) -> Any:
        traffic = info.data.get("traffic", ...)
        if traffic is None and isinstance(value, Objectives):
            what = "is for a simulation: write [traffic], or remove it"
            contradict({name: what for name in value.of_a_simulation})
        if traffic not in (None, ...) and value is not None and not isinstance(value, Objectives):
            raise ValueError("does not go with [traffic]: remove it")
        return value

    @model_validator(mode="after")
    def _check(self) -> Scenario:
        labels = [deployment.label for deployment in self.deployments]
        twice = sorted({label for label in labels if labels.count(label) > 1})
        quoted = " and ".join(f'"{label}"' for label in twice)
        problems = {"deployment": f"more than one is labelled {quoted}: give each its own label"} if twice else {}
        contradict(problems | self._routers())
        return self

    def _routers(self) -> dict[str, str]:
        """What is wrong with a router that looks at the replicas, and other settings that are for a simulation."""
        for key in ("router", "capacity_scheduler_policy", "watermark") if self.traffic is None else ():
            given = [getattr(deployment, key) for deployment in self.deployments]
            if told := [value for value in given if value not in (None, ROUND_ROBIN)]:
                shown = f'"{told[0]}"' if isinstance(told[0], str) else f"{told[0]:g}"
                return {"deployment": f"{key} = {shown} is for a simulation: write [traffic], or remove it"}
        asked = [deployment.router for deployment in self.deployments if deployment.router != ROUND_ROBIN]
        if asked and self.traffic is not None and self.traffic.users:
            what = "is for requests that arrive by themselves; users of a closed loop stay with their replica"
            return {"deployment": f'router = "{asked[0]}" {what}: remove it, or give requests_per_s'}
        return {}


TABLES: dict[str, type[Table]] = {
    "": Scenario,
    "workload": Workload,
    "objectives": Objectives,
    "defaults": Deployment,
    "deployment": Deployment,
    "recommend": Recommend,
    **TRAFFIC_TABLES,
}


def _weights(name: str) -> None:
    if name.lower() != "native":
        catalog.fmt(name)


LOOK_UPS: dict[str, Callable[[str], object]] = {
    "model": catalog.model,
    "hardware": catalog.machine,
    "engine": engine,
    "weights": _weights,
    "kv": kv_format,
}


def load_scenario(source: Source) -> Scenario:
    """The scenario of a TOML file, or of its tables as a mapping, valid and with names that the catalogue knows; else
    RoofcastError with all problems.
    """
    raw, problems = read_tables(source, TABLES, "scenario")
    catalog.models()  # what is wrong with the user's own rows is not this file's fault, and is said on its own
    scenario = None
    try:
        scenario = Scenario.model_validate(_merged(raw, problems))
        _check_names(scenario, problems)
    except ValidationError as error:
        for problem in error.errors():
            problems.add_invalid(problem)
    problems.raise_if_any()
    assert scenario is not None
    return scenario


def _merged(raw: dict[str, Any], problems: Problems) -> dict[str, Any]:
    """The file's tables with `defaults` laid under each deployment."""
    tables = {name: value for name, value in raw.items() if name != "defaults"}
    defaults = raw.get("defaults", {})
    if not isinstance(defaults, dict):
        problems.add(("defaults",), "expected a table")
    elif isinstance(tables.get("deployment"), list):
        tables["deployment"] = [defaults | own if isinstance(own, dict) else own for own in tables["deployment"]]
    return tables


def _check_names(scenario: Scenario, problems: Problems) -> None:
    for index, deployment in enumerate(scenario.deployments):
        for key, look_up in LOOK_UPS.items():
            if (name := getattr(deployment, key)) is not None:
                problems.add_unknown(("deployment", index, key), look_up, name)
    if scenario.recommend is not None:
        problems.add_unknown(("recommend", "precision_floor"), catalog.fmt, scenario.recommend.precision_floor)
        for key, look_up in (("models", catalog.model), ("hardware", catalog.machine), ("engines", engine)):
            for name in getattr(scenario.recommend, key) or ():
                problems.add_unknown(("recommend", key), look_up, name)
