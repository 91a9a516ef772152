"""A router: each request goes, as it arrives, to the replica that has least to do at that moment.

The replicas are the lanes of one state. At each arrival all of them are advanced to it; a step that is under way then
is taken whole, but what ends with it has not ended yet.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array

from kernels.serving import advance
from kernels.serving_tables import take
from kernels.serving_types import END_CLOCK, END_DONE, Policy, Requests, State
from kernels.step_table import StepTable

FIRST = 1 << 31  # weight of what is compared first


@partial(jax.jit, donate_argnums=(3, 4))
def route(
    table: StepTable, which: Array, policy: Policy, dealt: Requests, state: State, arrival_s: Array, tokens: Array,
    first: Array, last: Array, n_replicas: Array, by_queue: Array, most_turns: Array,
) -> tuple[Requests, State, Array]:  # fmt: skip
    """Deals requests first to last - 1 of all; gives what is dealt by then, the replicas, and (N,) who got which.

    dealt: of each replica so far, with room for all; arrival_s: (N,) in order; tokens: (N, 2) of prompt and output, or
    (N, 4) with places in the tree of what prompts share; 0 for a request that every replica refuses; it is sent, and
    takes no place. by_queue: to the shortest queue, where it is as long to the one with the fewest outstanding; else to
    the fewest outstanding. Ties go to the lowest index. n_replicas: lanes beyond them get nothing. most_turns: of all
    replicas between two arrivals.
    """

    def body(i: Array, carry: tuple[Requests, State, Array]) -> tuple[Requests, State, Array]:
        dealt, state, to = carry
        at_s = arrival_s[i]
        state, _ = advance(table, which, policy, dealt, state, most_turns, at_s)
        outstanding = dealt.n_requests - done_by(state, at_s)
        queue = jnp.where(by_queue, dealt.n_requests - state.lane.seen, 0).astype(jnp.int64)
        load = jnp.where(jnp.arange(len(queue)) < n_replicas, queue * FIRST + outstanding, FIRST * FIRST)
        chosen = jnp.argmin(load).astype(jnp.int32)
        return append(dealt, chosen, at_s, tokens[i]), state, to.at[i].set(chosen)

    return jax.lax.fori_loop(first, last, body, (dealt, state, jnp.zeros(arrival_s.shape, jnp.int32)))


def done_by(state: State, at_s: Array) -> Array:
    """(B,) requests done by a time that no lane has passed by more than a step."""
    lane = state.lane
    last = take(state.ended, lane.n_ended - 1)
    before = jnp.where(lane.n_ended > 1, take(state.ended, lane.n_ended - 2)[:, END_DONE], 0).astype(jnp.int32)
    return jnp.where((lane.n_ended > 0) & (last[:, END_CLOCK] > at_s), before, lane.n_done)


def append(dealt: Requests, to: Array, at_s: Array, tokens: Array) -> Requests:
    """With one request more, unless it has no tokens, in the lane `to`."""
    sent = (jnp.arange(len(dealt.n_requests)) == to) & (tokens[0] > 0)
    row, at = jnp.where(tokens[0] > 0, to, len(sent)), dealt.n_requests[to]
    return replace(
        dealt,
        arrival_s=dealt.arrival_s.at[row, at].set(at_s, mode="drop"),
        tokens=dealt.tokens.at[row, at].set(tokens, mode="drop"),
        n_requests=dealt.n_requests + sent,
    )
