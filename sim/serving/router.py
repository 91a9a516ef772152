"""Replicas behind a router that looks at them: the least outstanding, or the shortest queue."""

from __future__ import annotations

import jax
import numpy as np

from kernels import serving
from kernels.routing import route
from sim.serving.deployment import Served
from sim.serving.lanes import Outcome, Progress, lower, most, outcomes, power, shape, to_the_end
from sim.serving.runs import LONGER_THAN_CONTEXT, fitting, lanes_of
from sim.traffic.requests import Requests

SLICE_REQUESTS = 4096  # between two reports of progress, about half a second


def dispatch(
    served: Served, requests: Requests, context_tokens: int, progress: Progress | None = None
) -> tuple[np.ndarray, list[Outcome]]:
    """(N,) the replica of each request of an open loop, and the outcome of each replica.

    A request that every replica refuses is sent like any other, and takes no place. A request that is longer than the
    context is not sent.
    """
    sent = np.flatnonzero(fitting(requests, context_tokens))
    whole = lanes_of(served, requests, np.where(fitting(requests, context_tokens), 0, LONGER_THAN_CONTEXT), 1)[0]
    keep = ~whole.rules.refuses(whole.prompt_tokens.astype(np.int64) + whole.output_tokens)
    n, ring, phases = shape(whole, np.ones_like(keep))
    empty = [(whole, np.zeros_like(keep))] * power(served.replicas)
    bound = most(whole, keep)
    with jax.enable_x64(True):
        tables, which, policy, dealt = lower(empty, n)
        state, dealt = serving.start(policy, dealt, ring, phases, 2 * n), jax.tree.map(jax.numpy.asarray, dealt)
        arrival_s, tokens = np.zeros(n), np.zeros((n, 2), np.int32)
        arrival_s[: len(sent)] = whole.arrival_s
        tokens[: len(sent)] = np.stack([whole.prompt_tokens, whole.output_tokens], axis=1) * keep[:, None]
        fixed = (np.int32(served.replicas), served.router == "shortest-queue", np.int64(bound))
        chosen, done = np.zeros(len(sent), np.int64), 0
        for first in range(0, len(sent), SLICE_REQUESTS):
            last = min(first + SLICE_REQUESTS, len(sent))
            span = (np.int32(first), np.int32(last))
            dealt, state, to = route(tables, which, policy, dealt, state, arrival_s, tokens, *span, *fixed)
            chosen[first:last] = np.asarray(to)[first:last]
            now = int(state.lane.n_done.sum())
            if progress is not None:
                progress(now - done)
            done = now
        ended = to_the_end(tables, which, policy, dealt, state, bound, progress)
    replica = np.full(len(requests), LONGER_THAN_CONTEXT)
    replica[sent] = chosen
    lanes = lanes_of(served, requests, replica, served.replicas)
    group = [(lane, keep[chosen == i]) for i, lane in enumerate(lanes)]
    return replica, outcomes(ended, group)
