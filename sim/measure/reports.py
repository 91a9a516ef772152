"""Readers of the reports of GuideLLM and of AIPerf and genai-perf, and of what `mlx_lm.benchmark` prints."""

from __future__ import annotations

import re
from typing import Any

from sim import units
from sim.measure import cells, names
from sim.measure.build import PER_MS, Figure, deployment, measurement, split, stated_deployment
from sim.measure.checkpoints import checkpoint
from sim.measure.harness import loop
from sim.measure.rows import Defaults, Load, Measurement, Quantity, Raw, Unusable, all_stated

# GuideLLM's inter-token latency is (last - first token) / (tokens - 1) of a request, which is TPOT; its own "time per
# output token" holds the first token too.
GUIDELLM: dict[str, tuple[Quantity, float]] = {
    "time_to_first_token_ms": ("ttft_s", PER_MS),
    "inter_token_latency_ms": ("tpot_s", PER_MS),
    "request_latency": ("e2e_s", 1.0),
    "output_tokens_per_second": ("output_tokens_per_s", 1.0),
    "tokens_per_second": ("total_tokens_per_s", 1.0),
}
# AIPerf's inter-token latency is (request latency - TTFT) / (output tokens - 1): TPOT as well.
AIPERF: dict[str, Quantity] = {
    "time_to_first_token": "ttft_s",
    "inter_token_latency": "tpot_s",
    "request_latency": "e2e_s",
    "output_token_throughput": "output_tokens_per_s",
}
COUNTED = ("prompt_token_count", "output_token_count", "input_sequence_length", "output_sequence_length",
           "request_count", "error_request_count")  # fmt: skip
PER_UNIT = {"ns": PER_MS / units.MICRO, "us": 1.0 / units.MICRO, "ms": PER_MS, "s": 1.0, "sec": 1.0}
_MLX_RUN = re.compile(r"(\w+)=([\d.eE+-]+)")


def read_guidellm(raw: Raw, defaults: Defaults) -> list[Measurement]:
    """One benchmark of a GuideLLM report (0.3 and later): streams in flight, mean over successful requests."""
    run = raw.entry
    config = run.get("config") or run.get("args") or {}
    strategy = config.get("strategy") or {}
    metrics = run.get("metrics") or {}
    totals = metrics.get("request_totals") or (run.get("run_stats") or {}).get("requests_made") or {}
    prompt, output = (_mean(metrics, name) for name in ("prompt_token_count", "output_token_count"))
    load = loop(
        _streams(strategy), totals.get("successful"), totals.get("errored"),
        cells.length(prompt, "prompt_token_count"), cells.length(output, "output_token_count"),
    )  # fmt: skip
    ran = stated_deployment(_backend_model(run, config), "", defaults)
    told = {name: _mean(metrics, name) for name in GUIDELLM}
    figures = [
        Figure(f"metrics.{name}.successful.mean", cells.figure(told[name], name), *kind, stat="mean")
        for name, kind in GUIDELLM.items()
        if told[name]
    ]
    return [measurement(raw, "guidellm", "A", ran, load, figure) for figure in figures]


def read_aiperf(raw: Raw, defaults: Defaults) -> list[Measurement]:
    """`profile_export_aiperf.json` or genai-perf's export: means over a run of so many users."""
    run, config = raw.entry, raw.entry.get("input_config") or {}
    if run.get("was_cancelled"):
        raise Unusable("cut short", "was_cancelled")
    stimulus = {**(config.get("loadgen") or {}), **((config.get("perf_analyzer") or {}).get("stimulus") or {})}
    users = stimulus.get("concurrency")
    if users is None or stimulus.get("request_rate"):
        raise Unusable("open loop" if stimulus.get("request_rate") else "load not stated", "no concurrency")
    prompt, output = (cells.length(_average(run, f"{end}_sequence_length"), end) for end in ("input", "output"))
    users = users[0] if isinstance(users, list) else users
    done = _average(run, "request_count") or users
    load = loop(users, done, _average(run, "error_request_count"), prompt, output)
    named = (config.get("endpoint") or {}).get("model_names") or config.get("model_names") or config.get("model") or ""
    model = named[0] if isinstance(named, list) and named else named
    ran = stated_deployment(str(model or ""), "", defaults)
    figures = [_aiperf_figure(run, name, quantity) for name, quantity in AIPERF.items() if _average(run, name)]
    return [measurement(raw, "aiperf", "A", ran, load, figure) for figure in figures]


def not_read(run: dict[str, Any]) -> list[str]:
    """Figures of a GuideLLM or AIPerf result that no measurement is made of: "request_throughput (requests/sec)"."""
    metrics = run.get("metrics")
    if isinstance(metrics, dict):
        ended = {name: found.get("successful") for name, found in metrics.items() if isinstance(found, dict)}
        stated = [name for name, found in ended.items() if isinstance(found, dict) and found.get("mean") is not None]
        return [name for name in stated if name not in (*GUIDELLM, *COUNTED)]
    averages = {name: found for name, found in run.items() if isinstance(found, dict) and found.get("avg") is not None}
    others = {name: found.get("unit") for name, found in averages.items() if name not in (*AIPERF, *COUNTED)}
    return [f"{name} ({unit})" if unit else name for name, unit in others.items()]


def read_mlx(raw: Raw, defaults: Defaults) -> list[Measurement]:
    """The averages that `mlx_lm.benchmark` prints: prompt and generation tokens/s, over the batch."""
    row = raw.columns
    batch = cells.count(cells.text(row, "batch_size", "1"), "batch_size")
    prompt, output = (cells.length(row.get(name), name) for name in ("prompt_tokens", "generation_tokens"))
    (model, found), machine = all_stated(
        lambda: checkpoint(defaults.model or ""), lambda: names.stated_machine(defaults.hardware or "")
    )
    weights = names.weights(defaults.weights, "mlx", model.id) if defaults.weights else names.canonical(model, found)
    ran = split(
        deployment(model, machine, names.engine(defaults.engine or "mlx"), weights, defaults.kv or ""), defaults
    )
    rates = [cells.figure(row.get(name), name) for name in ("prompt_tps", "generation_tps")]
    prefill = Figure("prompt_tps", rates[0], "prefill_s", scale=batch * prompt, inverse=True, stat="mean")
    decode = Figure("generation_tps", rates[1], "decode_step_s", scale=float(batch), inverse=True, stat="mean")
    return [
        measurement(raw, "mlx-lm", "A", ran, Load(batch, prompt, 1.0), prefill),
        measurement(raw, "mlx-lm", "A", ran, Load(batch, prompt, output), decode),
    ]


def mlx_runs(lines: list[str]) -> list[tuple[int, dict[str, str]]]:
    """(line, columns) of every run in what the program printed: its shape, then its averages over the trials."""
    shape: dict[str, str] = {}
    found = []
    for number, line in enumerate(lines, 1):
        if "Timing with" in line:
            shape = dict(_MLX_RUN.findall(line.rstrip(". ")))
        elif line.startswith("Averages:"):
            found.append((number, {**shape, **dict(_MLX_RUN.findall(line))}))
    return found


def _streams(strategy: dict[str, Any]) -> int | None:
    kind = strategy.get("type_") or strategy.get("strategy_type")
    if kind == "synchronous":
        return 1
    if kind not in ("concurrent", "throughput"):
        raise Unusable("open loop" if kind else "load not stated", str(kind or "no strategy"))
    users = strategy.get("streams") or strategy.get("max_concurrency")
    if users is None:
        raise Unusable("load not stated", "throughput without max_concurrency")
    return cells.count(users, "streams")


def _backend_model(run: dict[str, Any], config: dict[str, Any]) -> str:
    """Versions from 0.4 on keep the model with the backend's settings, 0.3 with the worker."""
    backend, worker = config.get("backend"), run.get("worker")
    told = [backend.get("model") if isinstance(backend, dict) else None]
    told.append(worker.get("backend_model") if isinstance(worker, dict) else None)
    return str(next(filter(None, told), ""))


def _mean(metrics: dict[str, Any], name: str) -> Any:
    successful = (metrics.get(name) or {}).get("successful") or {}
    return successful.get("mean")


def _average(run: dict[str, Any], name: str) -> Any:
    found = run.get(name)
    return found.get("avg") if isinstance(found, dict) else found


def _aiperf_figure(run: dict[str, Any], name: str, quantity: Quantity) -> Figure:
    unit = str(run[name].get("unit", "")) if isinstance(run[name], dict) else ""
    scale = PER_UNIT.get(unit, PER_MS) if quantity.endswith("_s") and "per_s" not in quantity else 1.0
    column = f"{name}.avg" if isinstance(run[name], dict) else name
    return Figure(column, cells.figure(_average(run, name), name), quantity, scale, stat="mean")
