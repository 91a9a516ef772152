"""The figures of a run, under their names in the field."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from kernels.economics import power_w
from sim import units
from sim.objectives import PERCENTILES
from sim.serving.outcomes import Outcome
from sim.serving.runs import Run

LATENCIES = ("ttft", "tpot", "itl", "e2e")
UNITS = {
    **{f"{metric}_{what}_s": "s" for metric in LATENCIES for what in ("mean", *(f"p{q}" for q in PERCENTILES))},
    "requests_per_s": "1/s", "output_tokens_per_s": "tokens/s", "total_tokens_per_s": "tokens/s",
    "goodput_requests_per_s": "1/s", "goodput_frac": "1",
    "queue_mean": "1", "queue_max": "1", "running_mean": "1", "running_max": "1", "kv_mean_frac": "1",
    "kv_max_frac": "1", "prefix_hit_frac": "1",
    "n_preemptions": "1", "n_steps": "1", "busy_frac": "1", "mfu_frac": "1", "mbu_frac": "1",
    "power_w": "W", "joules_per_token": "J/token", "usd_per_hour": "USD/h", "usd_per_mtok": "USD/Mtok",
    "usd_per_mtok_total": "USD/Mtok", "n_requests": "1", "n_finished": "1", "n_refused_context": "1",
    "n_refused_kv": "1", "duration_s": "s",
}  # fmt: skip


def metrics(run: Run, limits: Mapping[str, float]) -> dict[str, float]:
    """One value for each of UNITS; NaN where nothing tells it. limits: seconds a request keeps to, by metric.

    Latencies are over the requests that came that far, ITL over tokens. Rates are over `duration_s`, from the first
    arrival to the last token; shares and means of queue, batch and KV cache are over that time, too.
    """
    duration = _duration(run)
    done = ~np.isnan(run.finish_s)
    return {
        **_latencies(run),
        **_rates(run, done, duration, limits),
        **_queue(run, duration),
        **_batch(run, duration),
        **_costs(run, done, duration),
        "n_requests": float(len(done)),
        "n_finished": float(done.sum()),
        "n_refused_context": float(run.too_long.sum()),
        "n_refused_kv": float((run.refused & ~run.too_long).sum()),
        "duration_s": duration,
    }


def _duration(run: Run) -> float:
    """Seconds from the first arrival to the last token, or to the bound that a run met; NaN where nothing ran."""
    ran = run.arrival_s[~run.refused & ~np.isnan(run.arrival_s)]
    ends = [outcome.clock_s for outcome in run.outcomes if not outcome.complete]
    ends += run.finish_s[~np.isnan(run.finish_s)].tolist()
    return max(ends) - float(ran.min()) + run.served.front_s if len(ran) and ends else np.nan


def _latencies(run: Run) -> dict[str, float]:
    columns: dict[str, float] = {}
    for metric in ("ttft", "tpot", "e2e"):
        known = getattr(run, f"{metric}_s")
        known = known[~np.isnan(known)]
        values = [known.mean(), *np.percentile(known, PERCENTILES)] if len(known) else [np.nan] * 5
        columns |= _named(metric, values)
    edges = run.outcomes[0].itl_edges_s
    tokens = np.sum([outcome.itl_tokens for outcome in run.outcomes], axis=0)
    return columns | _named("itl", [_itl_mean(run), *histogram_percentiles(edges, tokens, PERCENTILES)])


def _named(metric: str, values: list[float]) -> dict[str, float]:
    names = ("mean", *(f"p{q}" for q in PERCENTILES))
    return {f"{metric}_{name}_s": float(value) for name, value in zip(names, values, strict=True)}


def _itl_mean(run: Run) -> float:
    """Over tokens, from the requests themselves: exact, where the histogram has bins."""
    gaps = np.where(np.isnan(run.finish_s), 0, run.requests.output_tokens - 1).sum()
    return float(np.nansum(run.finish_s - run.first_token_s) / gaps) if gaps else np.nan


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


def _rates(run: Run, done: np.ndarray, duration: float, limits: Mapping[str, float]) -> dict[str, float]:
    """Throughput, and goodput: the requests that keep to every limit. An output of one token has no TPOT to keep."""
    good = done.copy()
    for metric, limit in limits.items():
        good &= ~(getattr(run, f"{metric}_s") > limit)
    prompt, output = run.requests.prompt_tokens[done], run.requests.output_tokens[done]
    return {
        "requests_per_s": done.sum() / duration,
        "output_tokens_per_s": output.sum() / duration,
        "total_tokens_per_s": (prompt.sum() + output.sum()) / duration,
        "goodput_requests_per_s": good.sum() / duration,
        "goodput_frac": good.mean(),
    }


def _queue(run: Run, duration: float) -> dict[str, float]:
    """Requests that have arrived and were not started yet; a preempted request is not counted again."""
    times, length = queue_length(run)
    return {"queue_mean": float((length[:-1] * np.diff(times)).sum()) / duration, "queue_max": float(length.max())}


def queue_length(run: Run) -> tuple[np.ndarray, np.ndarray]:
    """(M,) clock and (M,) length of the queue from then on."""
    arrived = np.sort(run.arrival_s[~run.refused & ~np.isnan(run.arrival_s)])
    started = np.sort(run.scheduled_s[~np.isnan(run.scheduled_s)])
    ends = [outcome.clock_s for outcome in run.outcomes]
    times = np.unique(np.concatenate([arrived, started, ends]))
    return times, np.searchsorted(arrived, times, "right") - np.searchsorted(started, times, "right")


def _total(outcomes: tuple[Outcome, ...], name: str) -> float:
    return sum(outcome.totals[name] for outcome in outcomes)


def _batch(run: Run, duration: float) -> dict[str, float]:
    """Maxima are over the steps with which requests end."""
    outcomes, blocks = run.outcomes, run.served.rules.n_blocks * len(run.outcomes)
    most = {name: sum(float(o.timeline[name].max(initial=0)) for o in outcomes) for name in ("running", "blocks")}
    return {
        "running_mean": _total(outcomes, "running_s") / duration,
        "running_max": most["running"],
        "kv_mean_frac": _total(outcomes, "blocks_s") / (blocks * duration),
        "kv_max_frac": most["blocks"] / blocks,
        "prefix_hit_frac": _prefix_hits(run),
        "n_preemptions": float(run.n_preemptions.sum()),
        "n_steps": float(sum(outcome.n_steps for outcome in outcomes)),
        "busy_frac": _total(outcomes, "busy_s") / (len(outcomes) * duration),
    }


def _prefix_hits(run: Run) -> float:
    """Tokens of prompts that were cached when they were first started, over all of these prompts' tokens; NaN of an
    engine without a prefix cache.
    """
    started = run.requests.prompt_tokens[~np.isnan(run.scheduled_s)].sum()
    return _total(run.outcomes, "prompt_hit_tokens") / started if run.served.rules.caches_prefix and started else np.nan


def utilization(run: Run, duration: float) -> tuple[float, float]:
    """MFU and MBU over the run: what its steps multiply and move, over what the devices could in that time at peak.

    The totals of a lane are those of one device of a replica.
    """
    served = run.served
    could = served.replicas * duration
    mfu = _total(run.outcomes, "flops") / (could * served.peak_flops_per_s)
    return mfu, _total(run.outcomes, "bytes") / (could * float(served.device.bandwidth_bytes_per_s))


def _costs(run: Run, done: np.ndarray, duration: float) -> dict[str, float]:
    """Cost and energy of the devices over the run, to its tokens."""
    served = run.served
    mfu, mbu = utilization(run, duration)
    watts = served.n_devices * float(power_w(served.device, served.engine, np.float32(mbu), np.float32(mfu)))
    electricity = served.usd_per_joule * watts if served.usd_per_joule else 0.0
    usd_per_s = served.usd_per_device_s * served.n_devices + electricity
    prompt, output = run.requests.prompt_tokens[done].sum(), run.requests.output_tokens[done].sum()
    per_output, per_token = (duration / n if n else np.nan for n in (float(output), float(output + prompt)))
    return {
        "mfu_frac": mfu,
        "mbu_frac": mbu,
        "power_w": watts,
        "joules_per_token": watts * per_output,
        "usd_per_hour": usd_per_s * units.S_PER_HOUR,
        "usd_per_mtok": usd_per_s * per_output * units.MILLION,
        "usd_per_mtok_total": usd_per_s * per_token * units.MILLION,
    }
