"""A closed loop whose users begin and think each in their own time: who is ready first asks next.

`kernels.serving` by itself knows users that all begin at once and think equally long, so that answers release requests
in their order. Here the times at which users will ask are a table; users are alike, so that it is enough to know how
many wait for an answer.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array

from kernels.serving import advance
from kernels.serving_types import Policy, Requests, State
from kernels.step_table import StepTable


@partial(jax.jit, donate_argnums=(3, 4, 5))
def ask(
    table: StepTable, which: Array, policy: Policy, asked: Requests, state: State, ready_s: Array, thought_s: Array,
    n_requests: Array, n_turns: Array,
) -> tuple[Requests, State, Array, Array]:  # fmt: skip
    """After n_turns turns, of which some ask and the others are the lane's: what is asked by then, the lane, when users
    are ready, and the turns taken, which are fewer once all is done.

    asked: one lane (B = 1) with the tokens of all requests, of which n_requests are asked so far. ready_s: (U,) when
    each user asks, inf of those who wait; U may be above the number of users. thought_s: (N,) thought before what the
    n-th answer releases. n_requests: of the lane in all.
    """

    def going(carry: tuple[Requests, State, Array, Array]) -> Array:
        return (carry[3] < n_turns) & (carry[1].lane.n_done[0] < n_requests)

    def body(carry: tuple[Requests, State, Array, Array]) -> tuple[Requests, State, Array, Array]:
        asked, state, ready_s, turns = carry
        n, first = asked.n_requests[0], jnp.argmin(ready_s)
        at_s = jnp.where(n < n_requests, ready_s[first], jnp.inf)
        before = state.lane.n_done[0]
        state, taken = advance(table, which, policy, asked, state, jnp.ones_like(turns), at_s)
        asks = taken == 0  # the lane is there, or idle until then
        arrival_s = asked.arrival_s.at[0, n].set(jnp.where(asks, at_s, asked.arrival_s[0, n]), mode="drop")
        asked = replace(asked, arrival_s=arrival_s, n_requests=asked.n_requests + asks)
        ready_s = ready_s.at[first].set(jnp.where(asks, jnp.inf, ready_s[first]))
        ready_s = answered(ready_s, thought_s, before, state.lane.n_done[0], state.lane.clock_s[0])
        return asked, state, ready_s, turns + 1

    return jax.lax.while_loop(going, body, (asked, state, ready_s, jnp.zeros_like(n_turns)))


def answered(ready_s: Array, thought_s: Array, before: Array, after: Array, clock_s: Array) -> Array:
    """(U,) with as many of those who wait for an answer as have one now: they ask after a thought."""
    rank = jnp.cumsum(jnp.isinf(ready_s)) - 1 + before
    thought = thought_s[jnp.clip(rank, 0, len(thought_s) - 1)]
    return jnp.where(jnp.isinf(ready_s) & (rank < after), clock_s + thought, ready_s)
