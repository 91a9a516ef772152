"""From names and numbers, as people give them, to a Setup and Points: checks everything, and says all that is wrong."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from sim import catalog, profiles, units
from sim.bounds import MOST_DEVICES
from sim.catalog import Machine
from sim.engines import EngineRow, check_runs_on, engine, engines, limits, memory_frac
from sim.errors import RoofcastError, sentence
from sim.formats import WeightPlan, check_engine_runs, kv_format, row_kernels, weight_plan
from sim.layouts import Parallel, fill, n_layers
from sim.lower import NO_LIMIT, lower_device, lower_engine, lower_model
from sim.money import Rate, device_rate
from sim.numbers import broadcast
from sim.params import is_moe
from sim.point import Point, Setup
from sim.schema import ModelRow

AUTO_ENGINES = ("mlx", "vllm", "llamacpp")
REQUIRED = ("concurrency", "prompt", "output")


@dataclass(frozen=True)
class Request:
    """A checked call: rows, pytrees, and the numbers broadcast to one shape."""

    model: ModelRow
    machine: Machine
    engine: EngineRow
    plan: WeightPlan
    kv: str
    rate: Rate
    shape: tuple[int, ...]
    numbers: dict[str, np.ndarray]  # flat, int64 or float64
    profile: profiles.Profile | None
    setup: Setup
    points: Point
    notes: tuple[str, ...]


def build(
    model: str,
    hardware: str,
    *,
    engine: str | None,
    weights: str,
    kv: str | None,
    pay: str | None = None,
    profile: profiles.Source = None,
    **numbers: Any,
) -> Request:
    """Resolves the names, checks and broadcasts the numbers (see sim.estimate), and lowers them."""
    look_ups = (lambda: catalog.model(model), lambda: catalog.machine(hardware), lambda: profiles.named(profile))
    row, machine, calibrated = named(*look_ups)
    plan = weight_plan(row, weights)
    runs = choose_engine(engine, machine, plan, row)
    given, shape = broadcast({n: value for n, value in numbers.items() if value is not None or n in REQUIRED})
    check_offload(given, runs, machine, row)
    n_devices, machine = machine.n_devices, machine_for(machine, given)
    given.update(layouts(given, n_devices, machine.link.domain_devices, runs, row))
    given.setdefault("context", given["prompt"] + given["output"])
    check_context(given)
    kv_name = kv_format(kv)
    rate = device_rate(machine, pay)
    lowered = lower_engine(runs, machine, calibrated, profiles.kind_of(row))
    setup = Setup(lower_model(row, plan, kv_name, runs), lower_device(machine, runs), lowered)
    points = to_points(given, runs, machine, row, rate)
    notes = tuple(n for n in (*machine.notes, model_note(row), rate.note) if n)
    return Request(row, machine, runs, plan, kv_name, rate, shape, given, calibrated, setup, points, notes)


def named(*look_ups: Callable[[], Any]) -> list[Any]:
    """What each look-up finds; RoofcastError with what is wrong with all names, not only with the first."""
    found, problems = [], []
    for look_up in look_ups:
        try:
            found.append(look_up())
        except RoofcastError as error:
            problems += error.problems
    if problems:
        raise RoofcastError(*dict.fromkeys(problems))
    return found


def choose_engine(name: str | None, machine: Machine, plan: WeightPlan, row: ModelRow) -> EngineRow:
    """The named engine, checked; or the first of MLX, vLLM and llama.cpp that runs the format on this machine."""
    if name is not None:
        chosen = engine(name)
        check_runs_on(chosen, machine.device)
        check_engine_runs(plan, chosen, row)
        return chosen
    for candidate in (engines()[i] for i in AUTO_ENGINES):
        if machine.device.vendor in candidate.vendors and row_kernels(plan, row) <= set(candidate.kernels):
            return candidate
    here = ", ".join(e.id for e in engines().values() if machine.device.vendor in e.vendors)
    what = f"no engine runs {plan.name} weights of {row.name} on {machine.device.name}"
    raise RoofcastError(sentence(what, "weights", f"name a format of {here}"))


def machine_for(machine: Machine, given: Mapping[str, np.ndarray]) -> Machine:
    """The machine grown to the devices that are asked for, so that its link is that of the largest layout.

    Where that many devices have no common link, replicas may stand apart: the machine is then that of one replica.
    """
    names = [n for n in ("tp", "pp", "dp", "replicas") if n in given]
    asked = int(np.prod([given[n] for n in names], axis=0).max()) if names else 1
    count = int(given["gpus"].max()) if "gpus" in given else max(machine.n_devices, asked)
    if "gpus" not in given and asked > machine.n_devices > 1:
        what = f"tp·pp·dp·replicas = {asked} is more than the {machine.n_devices} devices of the machine"
        raise RoofcastError(sentence(what, "hardware", f"give gpus = {asked} as well, or another layout"))
    if count > MOST_DEVICES:
        raise RoofcastError(sentence(f"expected at most {MOST_DEVICES} devices, found {count}", "gpus"))
    if count == machine.n_devices:
        return machine
    copies = int(given["replicas"].min()) if "replicas" in given else 1
    try:
        grown = catalog.machine_of(machine.device, count)
    except RoofcastError:
        if copies == 1:
            raise
        grown = catalog.machine_of(machine.device, -(-count // copies))
    return replace(grown, notes=machine.notes)


def layouts(
    given: Mapping[str, np.ndarray], n_devices: int, domain: int, runs: EngineRow, row: ModelRow
) -> dict[str, np.ndarray]:
    """Full layouts, one for each distinct combination that is asked for; without gpus, of at least `n_devices`."""
    names = ("gpus", "tp", "pp", "ep", "dp", "replicas")
    size = len(given["concurrency"])
    columns = [given.get(n, np.zeros(size)).astype(int) for n in names]
    filled: dict[tuple, Parallel] = {}
    for combo in dict.fromkeys(zip(*(c.tolist() for c in columns), strict=True)):
        asked = Parallel(*(v or None for v in combo[1:]))
        gpus = combo[0] or max(n_devices, asked.n_devices)
        filled[combo] = fill(asked, gpus, runs, row, domain)
    full = [filled[combo] for combo in zip(*(c.tolist() for c in columns), strict=True)]
    return {n: np.asarray([getattr(p, n) for p in full], np.float64) for n in names[1:]}


def check_offload(given: Mapping[str, np.ndarray], runs: EngineRow, machine: Machine, row: ModelRow) -> None:
    """Raises where weights are to lie in host memory and the engine, the machine or the model cannot have that."""
    layers = "gpu_layers" in given and bool(np.any(given["gpu_layers"] < n_layers(row)))
    experts = "cpu_moe_frac" in given and bool(np.any(given["cpu_moe_frac"] > 0))
    where = "gpu_layers" if layers else "cpu_moe_frac"
    problems = []
    if (layers or experts) and not runs.offloads:
        able = " or ".join(e.id for e in engines().values() if e.offloads)
        hint = f"take engine {able}, or leave {where} out"
        problems.append(sentence(f"{runs.name} keeps no weights in host memory", where, hint))
    if (layers or experts) and machine.host is None:
        what = f"{machine.device.name} has no host memory beside its own"
        problems.append(sentence(what, where, f"leave {where} out"))
    if experts and not is_moe(row):
        problems.append(sentence(f"{row.name} has no routed experts", "cpu_moe_frac", "take gpu_layers"))
    if problems:
        raise RoofcastError(*problems)


def check_context(given: Mapping[str, np.ndarray]) -> None:
    """Raises where a context is shorter than the prompt and output it must hold."""
    short = given["context"] < given["prompt"] + given["output"]
    if np.any(short):
        i = int(np.argmax(short))
        need = given["prompt"][i] + given["output"][i]
        what = f"{given['context'][i]:g} tokens cannot hold prompt + output = {need:g}"
        raise RoofcastError(sentence(what, "context", f"take context of at least {need:g}"))


def to_points(given: Mapping[str, np.ndarray], runs: EngineRow, machine: Machine, row: ModelRow, rate: Rate) -> Point:
    """The numbers as float32 columns, with the engine's defaults where nothing is given."""
    size = len(given["concurrency"])
    default = limits(runs, machine.device)

    def column(name: str, fallback: float | np.ndarray) -> np.ndarray:
        return np.asarray(given.get(name, np.full(size, fallback)), np.float32)

    layers = np.float32(n_layers(row))
    budget = column("max_num_batched_tokens", default.max_batched_tokens)
    combos = list(zip(*(c.tolist() for c in (budget, column("tp", 1), column("pp", 1), column("dp", 1))), strict=True))
    shares = {combo: memory_frac(runs, machine.device, *combo) for combo in dict.fromkeys(combos)}
    blocks = column("kv_blocks", NO_LIMIT) * runs.block_tokens
    rented = column("price", np.nan) / units.S_PER_HOUR
    owned = np.isnan(rented)
    return Point(
        **{n: column(n, 1) for n in ("tp", "pp", "ep", "dp", "replicas", "concurrency")},
        host_layer_frac=1 - np.minimum(column("gpu_layers", layers), layers) / layers,
        host_expert_frac=column("cpu_moe_frac", 0),
        prompt_tokens=column("prompt", 1),
        output_tokens=column("output", 1),
        context_tokens=column("context", 1),
        kv_pool_tokens=blocks,
        n_requests=column("n_requests", NO_LIMIT),
        length_spread=column("length_spread", 0),
        max_batched_tokens=budget,
        max_sequences=column("max_num_seqs", default.max_sequences),
        mixes_prefill=column("mixed_chunk", runs.mixes_prefill),
        admission_steps=column("admission_steps", runs.admission_steps),
        memory_frac=column("gpu_memory_utilization", np.asarray([shares[combo] for combo in combos])),
        usd_per_device_s=np.where(owned, rate.usd_per_device_s, rented).astype(np.float32),
        usd_per_joule=np.where(owned, rate.usd_per_joule, 0.0).astype(np.float32),
    )


def model_note(row: ModelRow) -> str:
    """A sentence where the model is only the guide's."""
    if row.status == "exists":
        return ""
    return f"{row.name} is named by the sizing guide but does not exist; nearest: {row.nearest}; {row.note}"
