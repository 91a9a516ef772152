"""`sim.fits`: the memory verdict per precision, and the nearest thing that does fit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from sim import catalog, errors, units
from sim.catalog import Machine
from sim.engines import EngineRow, check_runs_on, engine, engines
from sim.errors import RoofcastError, expect_names, sentence
from sim.formats import row_kernels, weight_bytes, weight_plan
from sim.layouts import n_layers
from sim.numbers import broadcast
from sim.params import count, is_moe
from sim.point import Answer, evaluate
from sim.profiles import PRIORS
from sim.request import AUTO_ENGINES, Request, build, named
from sim.results import Result
from sim.schema import ModelRow

Number = Any  # a scalar or anything numpy makes an array of
Step = tuple[str, EngineRow]

LADDER = ("native", "bf16", "fp8", "int8", "q8_0", "mlx8", "q6_k", "mlx6", "q5_k_m", "mlx5", "nvfp4", "mxfp4",
          "int4_g128", "q4_k_m", "mlx4", "q3_k_m", "mlx3", "q2_k", "iq2_xxs")  # fmt: skip
COUNTS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)
SHARES = np.arange(0, 41) / 40.0
UNITS = {
    "weights": "", "engine": "", "bits_per_weight": "bits", "n_gpus": "1", "context_tokens": "tokens",
    "concurrency": "1", "weights_bytes": "bytes", "kv_bytes": "bytes", "state_bytes": "bytes",
    "activation_bytes": "bytes", "reserve_bytes": "bytes", "needed_bytes": "bytes", "usable_bytes": "bytes",
    "free_bytes": "bytes", "fits": "1", "max_sequences": "1", "max_context_tokens": "tokens", "verdict": "",
    "nearest": "",
}  # fmt: skip


def fits(
    model: str,
    hardware: str,
    *,
    engine: str | None = None,
    gpus: Number = None,
    context: Number = 4096,
    concurrency: Number = 1,
    kv: str | None = None,
    weights: Sequence[str] | None = None,
) -> Result:
    """Memory verdict of `model` on `hardware` for each precision that an engine runs there, best quality first.

    Bytes are on the fullest device, for `concurrency` sequences of `context` tokens. Where a precision does not fit,
    `nearest` names what does: fewer bits, more devices, a shorter context, or part of the weights in host memory.
    weights: formats to judge (default: a ladder from native to 2 bits). Columns have the shape (formats, *shape that
    gpus, context and concurrency broadcast to).
    """
    numbers = {"context": context, "concurrency": concurrency} | ({} if gpus is None else {"gpus": gpus})
    given, shape = broadcast(numbers)
    if given["context"].min() < 2:
        raise RoofcastError(sentence(f"expected at least 2 tokens, found {given['context'].min():g}", "context"))
    row, machine = named(lambda: catalog.model(model), lambda: catalog.machine(hardware))
    steps = _steps(row, machine, engine, expect_names(weights, "weight formats") or LADDER)
    loads = [dict(zip(given, map(int, load), strict=True)) for load in zip(*given.values(), strict=True)]
    tables = [_table(row, hardware, steps, kv, **load) for load in loads]
    flat = {name: np.asarray([[r[name] for r in rows] for rows, _ in tables]) for name in UNITS}
    columns = {name: column.T.reshape(len(steps), *shape) for name, column in flat.items()}
    return Result(columns, dict(UNITS), tuple(dict.fromkeys(note for _, notes in tables for note in notes)))


def _steps(row: ModelRow, machine: Machine, named_engine: str | None, formats: Sequence[str]) -> list[Step]:
    """Each format that an engine runs on the machine, with that engine."""
    if named_engine is not None:
        check_runs_on(engine(named_engine), machine.device)
    vendor = machine.device.vendor
    steps = [(name, runs) for name in formats for runs in _engines_for(row, name, vendor, named_engine)[:1]]
    if not steps:
        able = [engine(named_engine)] if named_engine else [e for e in engines().values() if vendor in e.vendors]
        here = ", ".join(e.id for e in able)
        what = f"no engine of {here} runs {', '.join(formats)} weights of {row.name} on {machine.device.name}"
        raise RoofcastError(sentence(what, "weights"))
    return steps


def _table(
    row: ModelRow, hardware: str, steps: list[Step], kv: str | None, context: int, concurrency: int,
    gpus: int | None = None,
) -> tuple[list[dict[str, Any]], tuple[str, ...]]:  # fmt: skip
    """The verdicts of all formats under one load, and notes on them."""
    shared = {"prompt": context - 1, "output": 1, "concurrency": concurrency, "kv": kv, "profile": PRIORS}
    rows = []
    for name, runs in steps:
        request = build(row.id, hardware, engine=runs.id, weights=name, gpus=gpus, **shared)
        rows.append(_judge(request, evaluate(request.setup, request.points)))
    best = next((r for r in rows if r["fits"]), None)
    for verdict, (name, runs) in zip(rows, steps, strict=True):
        if not verdict["fits"]:
            call = {"model": row.id, "hardware": hardware, "engine": runs.id, "weights": name, **shared}
            verdict["nearest"] = _nearest(call, gpus, verdict, best, row)
    device = request.machine.device
    memory = f"memory: {request.machine.n_devices} x {device.name}, bytes on the fullest device"
    return rows, (*request.notes[:-1], memory)


def _engines_for(row: ModelRow, name: str, vendor: str, named: str | None) -> list[EngineRow]:
    """Engines that run the format on the vendor's devices: the named one, or the usual ones in order."""
    usual = [engine(named)] if named else [engines()[i] for i in AUTO_ENGINES]
    needed = row_kernels(weight_plan(row, name), row)
    return [e for e in usual if vendor in e.vendors and needed <= set(e.kernels)]


def _judge(request: Request, found: Answer) -> dict[str, Any]:
    """The row of one precision."""
    mem = found.memory
    given = request.numbers
    per_rank = np.ceil(given["concurrency"] / given["replicas"] / given["dp"])[0]
    parts = {
        "weights_bytes": mem.weights_bytes[0],
        "kv_bytes": mem.sequence_kv_bytes[0] * per_rank,
        "state_bytes": mem.sequence_state_bytes[0] * per_rank,
        "activation_bytes": mem.activation_bytes[0],
        "reserve_bytes": mem.reserve_bytes[0],
    }
    needed = float(sum(parts.values()))
    usable = float(mem.usable_bytes[0])
    why = int(found.why[0])
    fit = needed <= usable and not why & errors.INFEASIBLE
    counts = count(request.model)
    return {
        "weights": request.plan.name,
        "engine": request.engine.id,
        "bits_per_weight": 8.0 * weight_bytes(counts, request.plan) / counts.total,
        "n_gpus": int(found.n_devices[0]),
        "context_tokens": int(given["context"][0]),
        "concurrency": int(given["concurrency"][0]),
        **{name: float(value) for name, value in parts.items()},
        "needed_bytes": needed,
        "usable_bytes": usable,
        "free_bytes": usable - needed,
        "fits": fit,
        "max_sequences": int(min(mem.max_sequences[0], 2**31)),
        "max_context_tokens": int(found.max_context_tokens[0]),
        "verdict": "fits" if fit else _verdict(why),
        "nearest": "",
    }


def _verdict(why: int) -> str:
    reasons = errors.why_reasons(why)
    return "; ".join(reasons) if reasons else "this many sequences do not fit beside the weights"


def _nearest(call: dict, gpus: int | None, row: dict, best: dict | None, model: ModelRow) -> str:
    """What fits instead, nearest first, as one sentence."""
    ways = []
    if row["max_sequences"] >= 1 and row["max_context_tokens"] > 0:
        ways.append(f"a context of {row['max_context_tokens']:,} tokens")
    if best is not None:
        ways.append(f"{best['weights']} weights ({best['weights_bytes'] / units.GB:.3g} GB a device)")
    devices = _more_devices(call, row["n_gpus"])
    if devices:
        ways.append(f"{devices} devices")
    offload = _offload(call, gpus, model)
    if offload:
        ways.append(offload)
    return "; or ".join(ways) if ways else "nothing near: take a smaller model or a larger machine"


def _try(call: dict, **numbers: Any) -> np.ndarray | None:
    """Which of an array of variations fit; None where the machine or the layout cannot be had."""
    try:
        request = build(**call, **numbers)
    except RoofcastError:
        return None
    found = evaluate(request.setup, request.points)
    enough = found.memory.max_sequences >= request.numbers["concurrency"]
    return enough & ((found.why & errors.INFEASIBLE) == 0)


def _more_devices(call: dict, n_gpus: int) -> int | None:
    """The smallest larger count of the same device that fits this precision."""
    for n in (c for c in COUNTS if c > n_gpus):
        fit = _try(call, gpus=n)
        if fit is not None and fit[0]:
            return n
    return None


def _offload(call: dict, gpus: int | None, model: ModelRow) -> str:
    """The least of the weights in host memory that makes the rest fit, under an engine that can offload."""
    if not engine(call["engine"]).offloads:
        return ""
    if is_moe(model):
        fit = _try(call, gpus=gpus, cpu_moe_frac=SHARES)
        if fit is not None and fit.any():
            return f"{SHARES[int(np.argmax(fit))]:.0%} of the routed experts in host memory"
    layers = np.arange(n_layers(model) + 1)
    fit = _try(call, gpus=gpus, gpu_layers=layers[::-1])
    if fit is not None and fit.any():
        return f"{int(np.argmax(fit))} of {len(layers) - 1} layers in host memory"
    return ""
