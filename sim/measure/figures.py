"""Reader of Roofcast's own table, with a figure a row: the columns of docs/measurements.md."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from sim.errors import did_you_mean
from sim.measure import cells, names
from sim.measure.build import NAMED, PER_MS, Figure, cells_or_stated, deployment, measurement, split
from sim.measure.rows import Bad, Defaults, Deployment, Load, Measurement, Quantity, Raw, Unusable, all_stated

REQUIRED = ("model", "hardware", "engine", "quantity", "value")
MARKS = ("quantity", "value")
QUANTITIES: dict[str, tuple[Quantity, float]] = {
    "tpot_ms": ("tpot_s", PER_MS),
    "ttft_ms": ("ttft_s", PER_MS),
    "itl_ms": ("itl_s", PER_MS),
    "e2e_s": ("e2e_s", 1.0),
    "decode_step_ms": ("decode_step_s", PER_MS),
    "prefill_ms": ("prefill_s", PER_MS),
    "output_tokens_per_s": ("output_tokens_per_s", 1.0),
    "total_tokens_per_s": ("total_tokens_per_s", 1.0),
}
RATES: dict[str, Quantity] = {"decode_tokens_per_s": "decode_step_s", "prefill_tokens_per_s": "prefill_s"}
STATS = ("mean", "median", "unspecified")
COUNTS = ("max_num_batched_tokens", "max_num_seqs", "kv_blocks", "admission_steps")
AMOUNTS = ("gpu_memory_utilization", "length_spread", "mixed_chunk")
DEGREES = ("tp", "pp", "ep", "dp", "replicas")
LENGTHS = ("prompt_tokens", "output_tokens", "context_depth")
OPTIONAL = ("n_devices", "weights", "kv", "concurrency", "n_requests", "stat", "tier", *DEGREES, *LENGTHS, *COUNTS,
            *AMOUNTS)  # fmt: skip


def read_row(raw: Raw, defaults: Defaults) -> list[Measurement]:
    """The figure of a row; of cells that are empty, what the command line states."""
    row = raw.columns
    name, stat = cells.text(row, "quantity"), cells.text(row, "stat", "unspecified")
    if name not in QUANTITIES and name not in RATES:
        known = (*QUANTITIES, *RATES)
        hint = did_you_mean(name, known) or f"known are {', '.join(known)}"
        raise Bad("unknown quantity", f"quantity is {name or 'empty'}", hint)
    if stat not in STATS:
        raise Unusable("a percentile", f"{stat} {name}")
    ran, load = all_stated(lambda: _ran(row, defaults), lambda: _load(row, name, defaults))
    value = cells.figure(row.get("value"), "value")
    if name in RATES:
        tokens = load.concurrency * (load.prompt if name.startswith("prefill") else 1.0)
        figure = Figure("value", value, RATES[name], scale=float(tokens), inverse=True, stat=stat)
    else:
        quantity, scale = QUANTITIES[name]
        figure = Figure("value", value, quantity, scale, stat=stat)
    return [measurement(raw, "table", cells.text(row, "tier", "B"), ran, load, figure)]


def _ran(row: dict[str, str], defaults: Defaults) -> Deployment:
    """What ran: on all of the machine, split as the engine does it, where the row states no parallelism."""
    model_name, engine_name, hardware = cells_or_stated(row, defaults, NAMED)
    model, engine = names.model(model_name), names.engine(engine_name)
    weights = names.canonical(model, cells.text(row, "weights", defaults.weights or "native"))
    degrees: dict[str, Any] = {name: _count(row, name) or getattr(defaults, name) for name in DEGREES}
    n_devices = _count(row, "n_devices") or 1
    machine = names.stated_machine(hardware, n_devices)
    ran = split(
        deployment(model, machine, engine, weights, cells.text(row, "kv", defaults.kv or "")), Defaults(**degrees)
    )
    if ran.tp * ran.pp * ran.dp * ran.replicas != names.n_devices(ran.machine):
        found = f"{ran.machine}: tp {ran.tp}, pp {ran.pp}, dp {ran.dp}, replicas {ran.replicas}"
        raise Unusable("contradictory parallelism", found)
    return ran if ran.moe else replace(ran, ep=1)


def _load(row: dict[str, str], name: str, defaults: Defaults) -> Load:
    """Lengths: of decode, what is cached before the first token and how many follow; of a prefill, its own tokens."""
    users = _count(row, "concurrency") or defaults.concurrency or 1
    offered = cells.text(row, "n_requests")
    limits = {of: float(cells.count(found, of)) for of in COUNTS if (found := cells.text(row, of))}
    limits |= {of: cells.amount(found, of) for of in AMOUNTS if (found := cells.text(row, of))}
    depth = cells.amount(cells.text(row, "context_depth", "0"), "context_depth")
    if name.startswith("decode"):
        [output] = _lengths(row, defaults, "output")
        load = Load(users, max(depth, 1.0), max(output - (depth == 0), 1.0), limits=limits)
    else:
        needed = ("prompt",) if name.startswith("prefill") else ("prompt", "output")
        prompt, output = [*_lengths(row, defaults, *needed), 1.0][:2]
        load = Load(users, prompt, output, depth=depth if name.startswith("prefill") else 0.0, limits=limits)
    return replace(load, n_requests=cells.figure(offered, "n_requests")) if offered else load


def _lengths(row: dict[str, str], defaults: Defaults, *needed: str) -> list[float]:
    columns = {name: f"{name}_tokens" for name in needed}
    return [cells.figure(found, columns[name]) for name, found in zip(
        columns, cells_or_stated(row, defaults, columns), strict=True)]  # fmt: skip


def _count(row: dict[str, str], name: str) -> int | None:
    stated = cells.text(row, name)
    return cells.count(stated, name) if stated else None
