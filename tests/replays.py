"""Measured serving runs, replayed by the event simulator with the settings of their harness."""

from __future__ import annotations

import numpy as np

from sim import profiles
from sim.measure import Measurement
from sim.request import build
from sim.serving.deployment import Served, served
from sim.serving.lanes import Lane, Outcome


def closed_loop(row: Measurement, profile: profiles.Source = None) -> tuple[Served, Lane]:
    """A harness that offers ten requests a user at once, of equal lengths or uniform in a range about the mean."""
    request = build(
        row.model, row.machine, engine=row.engine, weights=row.weights, kv=row.kv, profile=profile,
        tp=row.tp, pp=row.pp, ep=row.ep, dp=row.dp, replicas=row.replicas, concurrency=row.concurrency,
        prompt=round(row.prompt), output=round(row.output), n_requests=row.n_requests, **row.limits,
    )  # fmt: skip
    found = served(request)
    users = row.concurrency // row.replicas
    n = 10 * users
    rng, width = np.random.default_rng(row.line), row.limits.get("length_spread", 0.0)
    prompt, output = (
        np.maximum(np.round(mean * (1.0 + width * (rng.random(n) - 0.5))), 1).astype(int)
        for mean in (row.prompt, row.output)
    )
    return found, Lane(found.table, found.rules, np.zeros(n), prompt, output, users, found.front_s)


def ttft_s(found: Served, outcome: Outcome) -> np.ndarray:
    """(N,) seconds to the first token, with the engine's front end."""
    return outcome.first_token_s - outcome.arrival_s + found.front_s


def e2e_s(found: Served, outcome: Outcome) -> np.ndarray:
    """(N,) seconds to the last token."""
    return outcome.finish_s - outcome.arrival_s + found.front_s


def tpot_s(lane: Lane, outcome: Outcome) -> np.ndarray:
    """(N,) seconds per output token after the first; NaN where there is no other."""
    gaps = np.where(lane.output_tokens > 1, lane.output_tokens - 1, np.nan)
    return (outcome.finish_s - outcome.first_token_s) / gaps
