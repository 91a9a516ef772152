"""Replicas behind a router that looks at them: the least outstanding, or the shortest queue."""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np

from kernels import serving
from kernels.routing import route
from kernels.serving_types import State
from sim.serving.deployment import Served
from sim.serving.lanes import Lane, Progress, lower, most, power, rows, shape
from sim.serving.outcomes import Outcome, outcomes
from sim.serving.runs import LONGER_THAN_CONTEXT, fitting, lanes_of
from sim.traffic.requests import Requests

SLICE_REQUESTS = 4096  # between two reports of progress, a fifth of a second


def dispatch(
    served: Served, requests: Requests, context_tokens: int, progress: Progress | None = None
) -> tuple[np.ndarray, list[Outcome]]:
    """(N,) the replica of each request of an open loop, and the outcome of each replica.

    A request that every replica refuses is sent like any other, and takes no place. A request that is longer than the
    context is not sent.
    """
    replica = np.where(fitting(requests, context_tokens), 0, LONGER_THAN_CONTEXT)
    (whole,) = lanes_of(served, requests, replica, 1)
    keep = ~whole.rules.refuses(whole.prompt_tokens + whole.output_tokens)
    chosen, state = _routed(served, whole, keep, progress or (lambda n: None))
    replica[replica == 0] = chosen
    lanes = lanes_of(served, requests, replica, served.replicas)
    return replica, outcomes(state, [(lane, keep[chosen == i]) for i, lane in enumerate(lanes)])


def _routed(served: Served, whole: Lane, keep: np.ndarray, progress: Progress) -> tuple[np.ndarray, State]:
    """(N,) the replica of each request that is sent, and the state in which the replicas end."""
    n, ring, phases = shape(whole, np.ones_like(keep))
    mine, tree = rows(whole, keep)
    arrival_s = np.full(n + 1, np.inf)  # an arrival at the end of time ends all
    tokens = np.zeros((n + 1, mine.shape[1]), np.int32)
    n_sent = len(keep)
    arrival_s[:n_sent] = whole.arrival_s
    tokens[:n_sent][keep] = mine
    fixed = (np.int32(served.replicas), served.router == "shortest-queue", np.int64(most(whole, keep)))
    chosen, done = np.zeros(n_sent + 1, np.int64), 0
    with jax.enable_x64(True):
        tables, which, policy, dealt = lower([(whole, np.zeros_like(keep))] * power(served.replicas), n)
        share = int(keep[: whole.warmup].sum()) // served.replicas
        policy = replace(policy, warmup=np.full_like(policy.warmup, share))
        if tree is not None:
            dealt.tree[:, : len(tree)] = tree
        state, dealt = serving.start(policy, dealt, ring, phases, 2 * n), jax.tree.map(jnp.asarray, dealt)
        for first in range(0, n_sent + 1, SLICE_REQUESTS):
            span = (np.int32(first), np.int32(min(first + SLICE_REQUESTS, n_sent + 1)))
            dealt, state, to = route(tables, which, policy, dealt, state, arrival_s, tokens, *span, *fixed)
            chosen[slice(*span)] = np.asarray(to)[slice(*span)]
            now = int(state.lane.n_done.sum())
            progress(now - done)
            done = now
        return chosen[:-1], jax.tree.map(np.asarray, state)
