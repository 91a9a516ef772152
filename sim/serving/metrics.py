"""The figures of a run, under their names in the field."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from kernels.economics import power_w
from sim import units
from sim.objectives import PERCENTILES
from sim.serving.runs import Run
from sim.serving.window import Window, window_of

LATENCIES = ("ttft", "tpot", "itl", "e2e")
UNITS = {
    **{f"{metric}_{what}_s": "s" for metric in LATENCIES for what in ("mean", *(f"p{q}" for q in PERCENTILES))},
    "requests_per_s": "1/s", "output_tokens_per_s": "tokens/s", "total_tokens_per_s": "tokens/s",
    "goodput_requests_per_s": "1/s", "goodput_frac": "1",
    "queue_mean": "1", "queue_max": "1", "running_mean": "1", "running_max": "1", "kv_mean_frac": "1",
    "kv_max_frac": "1", "prefix_hit_frac": "1",
    "n_preemptions": "1", "n_steps": "1", "busy_frac": "1", "mfu_frac": "1", "mbu_frac": "1",
    "power_w": "W", "joules_per_token": "J/token", "usd_per_hour": "USD/h", "usd_per_mtok": "USD/Mtok",
    "usd_per_mtok_total": "USD/Mtok", "n_requests": "1", "n_warmup": "1", "n_finished": "1", "n_refused_context": "1",
    "n_refused_kv": "1", "refused_frac": "1", "duration_s": "s",
}  # fmt: skip


def metrics(run: Run, limits: Mapping[str, float]) -> dict[str, float]:
    """One value for each of UNITS; NaN where nothing tells it. limits: seconds a request keeps to, by metric.

    Latencies and the share of goodput are over the requests after the warm-up, ITL over their tokens; rates, costs, and
    means and maxima of queue, batch and KV cache over the `duration_s` of sim.serving.window. The counts of requests
    are of the whole run.
    """
    window = window_of(run)
    done = window.done(run.finish_s)
    return {
        **_latencies(run, window),
        **_rates(run, window, done, limits),
        **_queue(run, window),
        **_batch(run, window),
        **_costs(run, window, done),
        "n_requests": float(len(done)),
        "n_warmup": float(np.count_nonzero(~window.measured)),
        "n_finished": float(np.count_nonzero(~np.isnan(run.finish_s))),
        "n_refused_context": float(run.too_long.sum()),
        "n_refused_kv": float((run.refused & ~run.too_long).sum()),
        "refused_frac": float(run.refused[window.measured].mean()),
        "duration_s": window.seconds,
    }


def _latencies(run: Run, window: Window) -> dict[str, float]:
    columns: dict[str, float] = {}
    for metric in ("ttft", "tpot", "e2e"):
        known = getattr(run, f"{metric}_s")[window.measured]
        known = known[~np.isnan(known)]
        values = [known.mean(), *np.percentile(known, PERCENTILES)] if len(known) else [np.nan] * 5
        columns |= _named(metric, values)
    edges = run.outcomes[0].itl_edges_s
    tokens = np.sum([outcome.itl_tokens for outcome in run.outcomes], axis=0)
    return columns | _named("itl", [_itl_mean(run, window), *histogram_percentiles(edges, tokens, PERCENTILES)])


def _named(metric: str, values: list[float]) -> dict[str, float]:
    names = ("mean", *(f"p{q}" for q in PERCENTILES))
    return {f"{metric}_{name}_s": float(value) for name, value in zip(names, values, strict=True)}


def _itl_mean(run: Run, window: Window) -> float:
    """Over tokens, from the requests themselves: exact, where the histogram has bins."""
    counted = window.measured & ~np.isnan(run.finish_s)
    gaps = (run.requests.output_tokens[counted] - 1).sum()
    return float((run.finish_s - run.first_token_s)[counted].sum() / gaps) if gaps else np.nan


def histogram_percentiles(edges: np.ndarray, counts: np.ndarray, percentiles: tuple[int, ...]) -> np.ndarray:
    """(Q,) percentiles of a histogram of (H,) counts between (H + 1,) edges, interpolated within their bin."""
    total = counts.sum()
    if total == 0:
        return np.full(len(percentiles), np.nan)
    below = np.concatenate([[0.0], np.cumsum(counts)])
    wanted = np.asarray(percentiles) / 100 * total
    bins = np.searchsorted(below[1:], wanted)
    inside = (wanted - below[bins]) / counts[bins]
    return edges[bins] + inside * (edges[bins + 1] - edges[bins])


def _rates(run: Run, window: Window, done: np.ndarray, limits: Mapping[str, float]) -> dict[str, float]:
    """Throughput, and goodput: the requests that keep to every limit. An output of one token has no TPOT to keep."""
    good = ~np.isnan(run.finish_s)
    for metric, limit in limits.items():
        good &= ~(getattr(run, f"{metric}_s") > limit)
    prompt, output = run.requests.prompt_tokens[done], run.requests.output_tokens[done]
    return {
        "requests_per_s": done.sum() / window.seconds,
        "output_tokens_per_s": output.sum() / window.seconds,
        "total_tokens_per_s": (prompt.sum() + output.sum()) / window.seconds,
        "goodput_requests_per_s": (good & done).sum() / window.seconds,
        "goodput_frac": good[window.measured].mean(),
    }


def _queue(run: Run, window: Window) -> dict[str, float]:
    """Requests that have arrived and were not started yet; a preempted request is not counted again."""
    times, length = queue_length(run)
    spans = np.diff(np.clip(times, window.start_s, window.end_s))
    return {
        "queue_mean": float((length[:-1] * spans).sum()) / window.seconds,
        "queue_max": float(length[window.within(times)].max(initial=0)),
    }


def queue_length(run: Run) -> tuple[np.ndarray, np.ndarray]:
    """(M,) clock and (M,) length of the queue from then on."""
    arrived = np.sort(run.arrival_s[~run.refused & ~np.isnan(run.arrival_s)])
    started = np.sort(run.scheduled_s[~np.isnan(run.scheduled_s)])
    ends = [outcome.clock_s for outcome in run.outcomes]
    times = np.unique(np.concatenate([arrived, started, ends]))
    return times, np.searchsorted(arrived, times, "right") - np.searchsorted(started, times, "right")


def _total(run: Run, window: Window, name: str) -> float:
    """What the replicas have of it in the window; between two steps with which requests end it grows evenly."""
    at = np.array([window.start_s, window.end_s])
    begin = np.nanmin(run.arrival_s, initial=np.inf)
    whole = 0.0
    for outcome in run.outcomes:
        clock = np.concatenate([[begin], outcome.timeline["clock_s"], [outcome.clock_s]])
        by_then = np.concatenate([[0.0], outcome.timeline[name], [outcome.totals[name]]])
        whole += float(np.diff(np.interp(at, clock, by_then))[0])
    return whole


def _batch(run: Run, window: Window) -> dict[str, float]:
    """Of all replicas, idle ones too. Maxima are over the steps with which requests end."""
    outcomes, rules = run.outcomes, run.served.rules
    blocks = rules.n_blocks * run.served.replicas
    inside = [window.within(outcome.timeline["clock_s"]) for outcome in outcomes]
    most = {
        name: sum(float(o.timeline[name][at].max(initial=0)) for o, at in zip(outcomes, inside, strict=True))
        for name in ("running", "blocks")
    }
    shared = rules.prefix_blocks * len(outcomes) / blocks  # from the first prompt on
    return {
        "running_mean": _total(run, window, "running_s") / window.seconds,
        "running_max": most["running"],
        "kv_mean_frac": _total(run, window, "blocks_s") / (blocks * window.seconds) + shared,
        "kv_max_frac": most["blocks"] / blocks,
        "prefix_hit_frac": _prefix_hits(run, window),
        "n_preemptions": float(run.n_preemptions[window.measured].sum()),
        "n_steps": _total(run, window, "n_steps"),
        "busy_frac": _total(run, window, "busy_s") / (run.served.replicas * window.seconds),
    }


def _prefix_hits(run: Run, window: Window) -> float:
    """Tokens of prompts that were cached when they were first started, over all of these prompts' tokens, in the
    window, at whose ends the former are interpolated; NaN of an engine without a prefix cache.
    """
    started = run.requests.prompt_tokens[window.within(run.scheduled_s)].sum()
    if not (run.served.rules.caches_prefix and started):
        return np.nan
    return min(_total(run, window, "prompt_hit_tokens") / float(started), 1.0)


def utilization(run: Run, window: Window) -> tuple[float, float]:
    """MFU and MBU in the window: what its steps multiply and move, over what the devices could in that time at peak.

    The totals of a lane are those of one device of a replica.
    """
    served = run.served
    could = served.replicas * window.seconds
    mfu = _total(run, window, "flops") / (could * served.peak_flops_per_s)
    return mfu, _total(run, window, "bytes") / (could * float(served.device.bandwidth_bytes_per_s))


def _costs(run: Run, window: Window, done: np.ndarray) -> dict[str, float]:
    """Cost and energy of the devices in the window, to the tokens of what is done in it."""
    served = run.served
    mfu, mbu = utilization(run, window)
    watts = served.n_devices * float(power_w(served.device, served.engine, np.float32(mbu), np.float32(mfu)))
    electricity = served.usd_per_joule * watts if served.usd_per_joule else 0.0
    usd_per_s = served.usd_per_device_s * served.n_devices + electricity
    prompt, output = run.requests.prompt_tokens[done].sum(), run.requests.output_tokens[done].sum()
    per_output, per_token = (window.seconds / n if n else np.nan for n in (float(output), float(output + prompt)))
    return {
        "mfu_frac": mfu,
        "mbu_frac": mbu,
        "power_w": watts,
        "joules_per_token": watts * per_output,
        "usd_per_hour": usd_per_s * units.S_PER_HOUR,
        "usd_per_mtok": usd_per_s * per_output * units.MILLION,
        "usd_per_mtok_total": usd_per_s * per_token * units.MILLION,
    }
