"""A closed loop whose users begin and think each in their own time: who is ready first asks next.

`kernels.serving` by itself knows users that all begin at once and think equally long, so that answers release requests
in their order. Here the times at which users will ask are a table, in rows of which the least is kept, so that a turn
among U users costs √U. Users are alike: any of those who wait may have the next answer.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from kernels.serving import advance
from kernels.serving_types import Policy, Requests, State
from kernels.step_table import StepTable


class Users(NamedTuple):
    """Who asks next, and who waits for an answer."""

    ready_s: Array  # (R, C) when each asks, inf of those who wait
    least_s: Array  # (R,) the least of each row
    waiting: Array  # (R·C,) places of those who wait, the first n_waiting
    n_waiting: Array


def arrive(ready_s: Array) -> Users:
    """Users who ask first at ready_s, (U,) with U a power of two; inf: there is none."""
    square = jnp.reshape(ready_s, (1 << (len(ready_s).bit_length() // 2), -1))
    return Users(square, square.min(axis=1), jnp.zeros(len(ready_s), jnp.int32), jnp.zeros((), jnp.int32))


@partial(jax.jit, donate_argnums=(3, 4, 5))
def ask(
    table: StepTable, which: Array, policy: Policy, asked: Requests, state: State, users: Users, thought_s: Array,
    n_requests: Array, n_turns: Array,
) -> tuple[Requests, State, Users, Array]:  # fmt: skip
    """After n_turns turns, of which some ask and the others are the lane's: what is asked by then, the lane, the users,
    and the turns taken, which are fewer once all is done.

    asked: one lane (B = 1) with the tokens of all requests, of which n_requests are asked so far. thought_s: (N,)
    thought before what the n-th answer releases. n_requests: of the lane in all.
    """

    def going(carry: tuple[Requests, State, Users, Array]) -> Array:
        return (carry[3] < n_turns) & (carry[1].lane.n_done[0] < n_requests)

    def body(carry: tuple[Requests, State, Users, Array]) -> tuple[Requests, State, Users, Array]:
        asked, state, users, turns = carry
        n, before = asked.n_requests[0], state.lane.n_done[0]
        at_s = jnp.where(n < n_requests, users.least_s.min(), jnp.inf)
        state, taken = advance(table, which, policy, asked, state, jnp.ones_like(turns), at_s)
        asks = taken == 0  # the lane is there, or idle until then
        arrival_s = asked.arrival_s.at[0, n].set(jnp.where(asks, at_s, asked.arrival_s[0, n]), mode="drop")
        asked = replace(asked, arrival_s=arrival_s, n_requests=asked.n_requests + asks)
        users = answered(gone(users, asks), thought_s, before, state.lane.n_done[0], state.lane.clock_s[0])
        return asked, state, users, turns + 1

    return jax.lax.while_loop(going, body, (asked, state, users, jnp.zeros_like(n_turns)))


def gone(users: Users, asks: Array) -> Users:
    """Where one asks, the first who was to: it waits."""
    row = jnp.argmin(users.least_s)
    column = jnp.argmin(users.ready_s[row])
    own = users.ready_s[row].at[column].set(jnp.where(asks, jnp.inf, users.least_s[row]))
    place = jnp.where(asks, row * users.ready_s.shape[1] + column, -1).astype(jnp.int32)
    return Users(
        ready_s=users.ready_s.at[row].set(own),
        least_s=users.least_s.at[row].set(own.min()),
        waiting=users.waiting.at[jnp.where(asks, users.n_waiting, len(users.waiting))].set(place, mode="drop"),
        n_waiting=users.n_waiting + asks,
    )


def answered(users: Users, thought_s: Array, before: Array, after: Array, clock_s: Array) -> Users:
    """As many of those who wait as have an answer now: they ask after a thought."""

    def thinks(n: Array, users: Users) -> Users:
        row, column = jnp.divmod(users.waiting[users.n_waiting - 1], users.ready_s.shape[1])
        at_s = clock_s + thought_s[jnp.minimum(n, len(thought_s) - 1)]
        return users._replace(
            ready_s=users.ready_s.at[row, column].set(at_s),
            least_s=users.least_s.at[row].min(at_s),
            n_waiting=users.n_waiting - 1,
        )

    return jax.lax.fori_loop(before, after, thinks, users)
