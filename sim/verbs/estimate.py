"""`sim.estimate`: memory, latency, throughput, cost and energy of a model on a machine."""

from __future__ import annotations

from typing import Any

import numpy as np

from kernels.types import OPERATIONS
from sim import errors, profiles, units
from sim.catalog import Machine
from sim.engines import efficiency
from sim.intervals import BOUNDED, bounds, check_level, end, note
from sim.point import Answer, evaluate
from sim.request import Request, build
from sim.results import Result

Number = Any  # a scalar or anything numpy makes an array of

UNITS = {
    "concurrency": "1", "prompt_tokens": "tokens", "output_tokens": "tokens", "context_tokens": "tokens",
    "n_gpus": "1", "tp": "1", "pp": "1", "ep": "1", "dp": "1", "replicas": "1",
    "fits": "1", "why": "bits", "bound": "",
    "usable_bytes": "bytes", "weights_bytes": "bytes", "host_bytes": "bytes", "kv_bytes": "bytes",
    "state_bytes": "bytes", "activation_bytes": "bytes", "reserve_bytes": "bytes", "free_bytes": "bytes",
    "max_sequences": "1", "max_context_tokens": "tokens", "running_sequences": "1",
    "ttft_s": "s", "tpot_s": "s", "itl_s": "s", "e2e_s": "s", "decode_step_s": "s", "prefill_s": "s",
    "user_tokens_per_s": "tokens/s", "output_tokens_per_s": "tokens/s", "prefill_tokens_per_s": "tokens/s",
    "total_tokens_per_s": "tokens/s", "requests_per_s": "1/s", "mbu_frac": "1", "mfu_frac": "1", "power_w": "W",
    "joules_per_token": "J/token", "usd_per_hour": "USD/h", "usd_per_mtok": "USD/Mtok",
    "usd_per_mtok_total": "USD/Mtok",
}  # fmt: skip
COUNTS = ("concurrency", "prompt_tokens", "output_tokens", "context_tokens", "n_gpus", "tp", "pp", "ep", "dp",
          "replicas", "max_sequences", "max_context_tokens")  # fmt: skip


def estimate(
    model: str,
    hardware: str,
    *,
    engine: str | None = None,
    weights: str = "native",
    kv: str | None = None,
    pay: str | None = None,
    gpus: Number = None, tp: Number = None, pp: Number = None, ep: Number = None, dp: Number = None,
    replicas: Number = None,
    concurrency: Number = 1, prompt: Number = 512, output: Number = 128, context: Number = None,
    price: Number = None,
    gpu_layers: Number = None, cpu_moe_frac: Number = None,
    max_num_batched_tokens: Number = None, max_num_seqs: Number = None, gpu_memory_utilization: Number = None,
    kv_blocks: Number = None,
    n_requests: Number = None, length_spread: Number = None, admission_steps: Number = None,
    mixed_chunk: Number = None, profile: profiles.Source = None, interval: float | None = None,
) -> Result:  # fmt: skip
    """Forecasts closed-loop serving of `concurrency` users of `model` on `hardware`.

    Every number is a scalar or an array; all broadcast to one shape, which every column of the result has.
    What is left open is filled in: engine and layout by the machine, context = prompt + output, price from the
    catalogue. dp is attention data parallelism inside a replica; replicas are independent copies. Layers beyond
    gpu_layers are computed by the host from its memory; cpu_moe_frac is the share of routed experts kept there.
    pay is "rent" or "buy" (price over four years, plus electricity), price USD per device-hour in place of both;
    kv_blocks stands for what the memory would hold. n_requests is how many a benchmark sends that starts with all
    users at once: TTFT is the mean over them, with that opening in it (default: an endless loop). length_spread is the
    range of their lengths over its mean; admission_steps, how many decode steps the engine lets pass between two looks
    at new prompts; mixed_chunk, 1 where prompts share steps with decode and 0 where they pause it. Memory columns are
    bytes on the fullest device. Where nothing fits, times are NaN and `why` says why; an output of one token has no
    TPOT. details["operations"] holds the operation groups of a decode and a prefill step, for the first that fits.

    profile: the file of a calibrated profile (default: the shipped one; "none": the catalogue's efficiencies as they
    are). interval: a level such as 0.8; adds columns `tpot_low_s`, `tpot_high_s` and so on, between which that share
    of measurements lies, for the latencies and for the tokens per second of a user, of the output and in total.
    A quantity without an interval table of its own in the profile has that of tpot_s; end-to-end time and the total
    tokens per second, which follow from the output's, have the output's.

    Raises RoofcastError with a sentence for everything that is wrong with the arguments.
    """
    request = build(
        model, hardware, engine=engine, weights=weights, kv=kv, pay=pay, gpus=gpus, tp=tp, pp=pp, ep=ep, dp=dp,
        replicas=replicas, concurrency=concurrency, prompt=prompt, output=output, context=context, price=price,
        gpu_layers=gpu_layers, cpu_moe_frac=cpu_moe_frac, max_num_batched_tokens=max_num_batched_tokens,
        max_num_seqs=max_num_seqs, gpu_memory_utilization=gpu_memory_utilization, kv_blocks=kv_blocks,
        n_requests=n_requests, length_spread=length_spread, admission_steps=admission_steps, mixed_chunk=mixed_chunk,
        profile=profile,
    )  # fmt: skip
    return answered(request, None if interval is None else check_level(interval, request.profile))


def answered(request: Request, level: float | None = None) -> Result:
    """The columns of a request, with the ends of their intervals where a level is given."""
    found = evaluate(request.setup, request.points)
    columns = {**_asked(request, found), **_memory(request, found), **_speed(request, found)}
    of, notes = dict(UNITS), provenance(request)
    details: dict[str, Any] = {"title": title(request)}
    if level is not None:
        columns |= bounds(request, columns, level, lambda answer: _speed(request, answer))
        of |= {end(name, which): UNITS[name] for name in BOUNDED for which in ("low", "high")}
        notes += (note(level),)
        details["interval"] = level
    if columns["fits"].any():
        details["operations"] = operations_result(request, found, int(np.argmax(columns["fits"])))
    return Result({name: _finish(name, columns[name], request.shape) for name in of}, of, notes, details)


def _finish(name: str, column: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Reshaped to the arguments' shape, counts as integers."""
    flat = np.asarray(column)
    if name in COUNTS:
        flat = np.nan_to_num(flat, posinf=2**31).astype(np.int64)
    return flat.reshape(shape)


def _asked(request: Request, found: Answer) -> dict[str, np.ndarray]:
    given = request.numbers
    layout = {name: given[name] for name in ("tp", "pp", "ep", "dp", "replicas", "concurrency")}
    lengths = {f"{name}_tokens": given[name] for name in ("prompt", "output", "context")}
    feasible = (found.why & errors.INFEASIBLE) == 0
    return {**layout, **lengths, "n_gpus": found.n_devices, "fits": feasible, "why": found.why}


def _memory(request: Request, found: Answer) -> dict[str, np.ndarray]:
    """Bytes on the fullest device, with as many sequences of the whole context as run and fit (at least one)."""
    mem = found.memory
    held = np.maximum(np.minimum(found.steady.running_sequences, mem.max_sequences), 1.0)
    per_rank = np.ceil(held / (request.numbers["replicas"] * request.numbers["dp"]))
    kv = mem.sequence_kv_bytes * per_rank
    state = mem.sequence_state_bytes * per_rank
    return {
        "usable_bytes": mem.usable_bytes,
        "weights_bytes": mem.weights_bytes,
        "host_bytes": mem.host_bytes,
        "kv_bytes": kv,
        "state_bytes": state,
        "activation_bytes": mem.activation_bytes,
        "reserve_bytes": mem.reserve_bytes,
        "free_bytes": mem.pool_bytes - kv - state,
        "max_sequences": mem.max_sequences,
        "max_context_tokens": np.floor(found.max_context_tokens),
    }


def _speed(request: Request, found: Answer) -> dict[str, np.ndarray]:
    """Latency, throughput, cost and energy; NaN where the configuration does not fit."""
    given, steady, money = request.numbers, found.steady, found.economics
    output_rate = steady.requests_per_s * given["output"]
    gap_s = np.where(given["output"] > 1, steady.tpot_s, np.nan)
    total_rate = steady.requests_per_s * (given["output"] + given["prompt"])
    columns = {
        "running_sequences": steady.running_sequences,
        "ttft_s": steady.ttft_s,
        "tpot_s": gap_s,
        "itl_s": np.where(given["output"] > 1, steady.itl_s, np.nan),
        "e2e_s": steady.e2e_s,
        "decode_step_s": steady.decode_step_s,
        "prefill_s": steady.prefill_s,
        "user_tokens_per_s": 1.0 / gap_s,
        "output_tokens_per_s": output_rate,
        "prefill_tokens_per_s": given["prompt"] / steady.prefill_s,
        "total_tokens_per_s": total_rate,
        "requests_per_s": steady.requests_per_s,
        "mbu_frac": steady.mbu_frac,
        "mfu_frac": steady.mfu_frac,
        "power_w": money.power_w,
        "joules_per_token": money.joules_per_token,
        "usd_per_hour": money.usd_per_hour,
        "usd_per_mtok": money.usd_per_output_token * units.MILLION,
        "usd_per_mtok_total": money.usd_per_token * units.MILLION,
    }
    feasible = (found.why & errors.INFEASIBLE) == 0
    nothing = {name: np.where(feasible, column, np.nan) for name, column in columns.items()}
    return {**nothing, "bound": np.where(feasible, bound_names(found), "")}


def bound_names(found: Answer) -> np.ndarray:
    """ "attention memory", "dense FFN compute", "communication": the longest operation of a decode step."""
    names = []
    for operation, by_memory in found.bound.tolist():
        what = OPERATIONS[operation]
        timed = operation < OPERATIONS.index("communication")
        names.append(f"{what} ({'memory' if by_memory else 'compute'})" if timed else what)
    return np.asarray(names)


def operations_result(request: Request, found: Answer, index: int) -> Result:
    """Every operation group of the decode step and of the prefill step of one configuration, per rank."""
    rows = []
    for phase, step in (("decode", found.steady.decode), ("prefill", found.steady.prefill)):
        for o, operation in enumerate(OPERATIONS):
            seconds, n_bytes, flops = (float(part[index, o]) for part in (step.seconds, step.bytes, step.flops))
            if seconds > 0:
                by_memory = step.memory_s[index, o] >= step.compute_s[index, o]
                timed = o < OPERATIONS.index("communication")
                rows.append(
                    (
                        phase,
                        operation,
                        n_bytes,
                        flops,
                        seconds,
                        ("memory" if by_memory else "compute") if timed else "fixed",
                    )
                )
    names = ("phase", "operation", "bytes", "flops", "seconds", "bound")
    columns = {name: np.asarray(values) for name, values in zip(names, zip(*rows, strict=True), strict=True)}
    return Result(
        columns, {"phase": "", "operation": "", "bytes": "bytes", "flops": "FLOP", "seconds": "s", "bound": ""}
    )


def title(request: Request) -> str:
    """Model, format, device and engine in one line."""
    return f"{request.model.name}, {request.plan.name}, on {request.machine.device.name} with {request.engine.name}"


def _links(machine: Machine) -> str:
    """What joins the devices of a node, and what joins the nodes where there are several."""
    within = machine.link.type
    if machine.nodes == 1:
        return within
    return f"{within}, {machine.nodes} nodes at {machine.scale_out_gb_per_s:g} GB/s a device each way between them"


def provenance(request: Request) -> tuple[str, ...]:
    """Where the figures come from: rows, formats, efficiencies, price, and what was assumed."""
    row, device, runs = request.model, request.machine.device, request.engine
    _, used = efficiency(runs.id, device)
    return (
        f"model: {row.name} ({row.confidence}; {'; '.join(row.sources)})",
        f"hardware: {request.machine.n_devices} x {device.name} over {_links(request.machine)}",
        f"engine: {runs.name} {runs.version}; weights {request.plan.name}, KV cache {request.kv} bit",
        *(f"efficiency ({e.confidence}, engine {e.engine}, device {e.device}): {e.source}" for e in used),
        profiles.provenance(request.profile, runs.id, device),
        *request.notes,
    )
