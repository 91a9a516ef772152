"""Readers of the results of serving harnesses: vLLM's and SGLang's. Each result is one run, of one model and one load.

Of a run's statistics the mean is taken, else the median; percentiles are left. A forecast is of a closed loop, so a
run at a rate of requests is not used.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from typing import Any

from sim.measure import cells, names
from sim.measure.build import PER_MS, Figure, measurement, stated, stated_deployment
from sim.measure.rows import Bad, Defaults, Deployment, Load, Measurement, Quantity, Raw, Unusable, all_stated

LATENCIES: dict[str, tuple[Quantity, float]] = {
    "ttft_ms": ("ttft_s", PER_MS),
    "tpot_ms": ("tpot_s", PER_MS),
    "itl_ms": ("itl_s", PER_MS),
    "e2el_ms": ("e2e_s", PER_MS),
    "e2e_latency_ms": ("e2e_s", PER_MS),
}
RATES: dict[str, Quantity] = {
    "output_throughput": "output_tokens_per_s",
    "total_token_throughput": "total_tokens_per_s",
    "total_throughput": "total_tokens_per_s",
}
MOST_FAILED = 0.05  # share of requests, beyond which a run says little of the load it names
ADDS_UP = 0.05


def read_vllm_serve(raw: Raw, defaults: Defaults) -> list[Measurement]:
    """`vllm bench serve --save-result`: a run at `max_concurrency`, or with all requests at once."""
    run = raw.entry
    if any(name.startswith("spec_decode") for name in run):
        raise Unusable("speculative decoding", "the run counts draft tokens")
    ran = stated_deployment(str(run.get("model_id") or ""), "vllm", _noted(run, defaults))
    return [measurement(raw, "vllm", "A", ran, _loop(run), figure) for figure in _figures(run)]


def read_sglang(raw: Raw, defaults: Defaults) -> list[Measurement]:
    """SGLang's `bench_serving --output-file`: as vLLM's, with the server's own arguments where they were saved."""
    run, server = raw.entry, raw.entry.get("server_info") or {}
    if (run.get("accept_length") or 1.0) > 1.0 or server.get("speculative_algorithm"):
        raise Unusable("speculative decoding", str(server.get("speculative_algorithm") or "accept_length above 1"))
    if server.get("disaggregation_mode") not in (None, "null", ""):
        raise Unusable("disaggregated", str(server["disaggregation_mode"]))
    engine = {"trt": "trtllm"}.get(str(run.get("backend")), str(run.get("backend") or "sglang").partition("-")[0])
    model = str(server.get("model_path") or run.get("model_id") or "")
    ran = _as_served(stated_deployment(model, engine, _server_defaults(server, defaults)), server, defaults)
    load = replace(_loop(run), limits=_server_limits(server))
    return [measurement(raw, "sglang", "A", ran, load, figure) for figure in _figures(run)]


def read_vllm_latency(raw: Raw, defaults: Defaults) -> list[Measurement]:
    """`vllm bench latency --output-json`: seconds of one batch; only the command line says its shape."""
    shape = (partial(stated, defaults, name) for name in ("concurrency", "prompt", "output"))
    ran, batch, prompt, output = all_stated(lambda: stated_deployment("", "vllm", defaults), *shape)
    load = Load(batch, float(prompt), float(output), n_requests=float(batch))
    figure = Figure("avg_latency", cells.figure(raw.entry["avg_latency"], "avg_latency"), "e2e_s", stat="mean")
    return [measurement(raw, "vllm", "A", ran, load, figure)]


def read_vllm_throughput(raw: Raw, defaults: Defaults) -> list[Measurement]:
    """`vllm bench throughput --output-json`: prompt and output tokens/s of requests that are all offered at once."""
    run = raw.entry
    n_requests = cells.count(run["num_requests"], "num_requests")
    both = cells.figure(run["total_num_tokens"], "total_num_tokens") / n_requests
    ran, output = all_stated(
        lambda: stated_deployment("", "vllm", defaults),
        lambda: both - defaults.prompt if defaults.prompt and not defaults.output else stated(defaults, "output"),
    )
    prompt = defaults.prompt or both - output
    if min(prompt, output) <= 0 or abs((prompt + output) / both - 1) > ADDS_UP:
        what = f"prompt {prompt:g} and output {output:g} are not the {both:g} tokens of a request that the file counts"
        raise Bad("contradictory lengths", what, "state the mean lengths of the run")
    figure = Figure("tokens_per_second", cells.figure(run["tokens_per_second"], "tokens_per_second"),
                    "total_tokens_per_s", stat="mean")  # fmt: skip
    load = Load(n_requests, float(prompt), float(output), n_requests=float(n_requests))
    return [measurement(raw, "vllm", "A", ran, load, figure)]


def loop(users: Any, completed: Any, failed: Any, prompt: float, output: float) -> Load:
    """A closed loop of `users`; all requests at once where none is named. Refused where too many requests failed."""
    done = cells.count(completed, "completed requests")
    lost = float(failed or 0)
    if lost > MOST_FAILED * (done + lost):
        raise Unusable("requests failed", f"{lost:g} of {done + lost:g}")
    concurrency = done if users is None else cells.count(users, "concurrency")
    return Load(min(concurrency, done), prompt, output, n_requests=float(done))


def _loop(run: dict[str, Any]) -> Load:
    rate = run.get("request_rate", "inf")
    endless = rate == "inf" or (isinstance(rate, float) and math.isinf(rate))
    if not endless or run.get("ramp_up_strategy"):
        raise Unusable("open loop", f"request_rate {rate}")
    done = cells.count(run.get("completed"), "completed")
    prompt, output = (cells.figure(run.get(n), n) / done for n in ("total_input_tokens", "total_output_tokens"))
    failed = run.get("failed") or max(float(run.get("num_prompts") or 0) - done, 0.0)
    return loop(run.get("max_concurrency"), done, failed, prompt, output)


def _figures(run: dict[str, Any]) -> list[Figure]:
    found = []
    for name, (quantity, scale) in LATENCIES.items():
        stat = next((s for s in ("mean", "median") if run.get(f"{s}_{name}") is not None), None)
        if stat and not (run[f"{stat}_{name}"] == 0 and name in ("tpot_ms", "itl_ms")):
            column = f"{stat}_{name}"
            found.append(Figure(column, cells.figure(run[column], column), quantity, scale, stat=stat))
    rates = {name: quantity for name, quantity in RATES.items() if run.get(name) is not None}
    return found + [Figure(n, cells.figure(run[n], n), quantity, stat="mean") for n, quantity in rates.items()]


def _noted(run: dict[str, Any], defaults: Defaults) -> Defaults:
    """The command line's statements, completed by parallelism that `--metadata tp=8` has put into the result."""
    keys = {"tp": ("tp", "tensor_parallel_size"), "pp": ("pp", "pipeline_parallel_size"),
            "dp": ("dp", "data_parallel_size")}  # fmt: skip
    told = {
        own: next((run[name] for name in spelled if str(run.get(name)).isdigit()), None)
        for own, spelled in keys.items()
    }
    fresh: dict[str, Any] = {
        own: cells.count(n, own) for own, n in told.items() if n is not None and getattr(defaults, own) is None
    }
    return replace(defaults, **fresh)


def _server_defaults(server: dict[str, Any], defaults: Defaults) -> Defaults:
    """The command line's statements, completed by the arguments that the server reports of itself.

    Its tp_size names a group, of which attention in dp parts has 1/dp.
    """
    attention = bool(server.get("enable_dp_attention"))
    parts = {"tp": "tp_size", "pp": "pp_size", "ep": "ep_size", "dp" if attention else "replicas": "dp_size"}
    told: dict[str, Any] = {own: cells.count(server[name], name) for own, name in parts.items() if server.get(name)}
    if attention and told.get("tp", 1) % told.get("dp", 1) == 0:
        told["tp"] = told.get("tp", 1) // told.get("dp", 1)
    cache = str(server.get("kv_cache_dtype") or "auto")
    if cache != "auto":
        told["kv"] = "fp8" if cache.startswith("fp8") else cache
    return replace(defaults, **{own: value for own, value in told.items() if getattr(defaults, own) is None})


def _as_served(ran: Deployment, server: dict[str, Any], defaults: Defaults) -> Deployment:
    """In the format that the server reports, where the command line states none."""
    quantized = names.tables()["server_quantization"].get(str(server.get("quantization")))
    if not quantized or defaults.weights:
        return ran
    return replace(ran, weights=names.precision(quantized, ran.model))


def _server_limits(server: dict[str, Any]) -> dict[str, float]:
    told = {
        "max_num_seqs": "max_running_requests",
        "max_num_batched_tokens": "chunked_prefill_size",
        "gpu_memory_utilization": "mem_fraction_static",
    }
    return {own: float(server[name]) for own, name in told.items() if (server.get(name) or 0) > 0}
