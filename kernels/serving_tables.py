"""The tables of the event simulator: what a turn reads of them, and how it writes them."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

from kernels.admission import admits, overfull
from kernels.serving_types import (
    DATE,
    DATED,
    END_CLOCK,
    END_DONE,
    LAST,
    LEAF,
    NEVER,
    SHARED,
    Candidate,
    Policy,
    Requests,
    State,
)  # fmt: skip
from kernels.stride import HORIZON
from kernels.types import pytree


@pytree
class Rows:
    """What a turn needs of the tables."""

    one: Candidate
    arrives_s: Array  # (B,) of the head of the line
    next_arrives_s: Array  # (B,) of the request behind it
    done: Array  # (B,) requests done with the step that released the head
    soon: Array  # (B, HORIZON) sequences that end with each of the next steps


def read(policy: Policy, requests: Requests, state: State, going: Array) -> Rows:
    """The rows of the next turn. going: (B,) lanes that take one."""
    lane = state.lane
    middle = lane.partial >= 0
    arrives_s, next_s, done = arrivals(policy, requests, state)
    last = overfull(policy, lane, admits(policy, lane, arrives_s)) & ~middle
    request = jnp.where(middle, lane.partial, lane.head - last)
    tokens = take(requests.tokens, request)
    b = len(request)
    unknown = jnp.zeros((b, 5), jnp.int32).at[:, LAST].set(NEVER), jnp.zeros((b, 3))
    seen = jnp.any(request < lane.seen)
    known = jax.lax.cond(seen, lambda: (take(state.whole, request), take(state.times, request)), lambda: unknown)
    alone = (jnp.zeros_like(request), None) if requests.tree is None else (tokens[:, SHARED], tokens[:, LEAF])
    one = Candidate(request, tokens[:, 0], tokens[:, 1], *known, *alone)
    ring = state.leaving.shape[1]
    slots = (lane.step[:, None] + jnp.arange(HORIZON, dtype=jnp.int32)[None]) & (ring - 1)
    flat = jnp.arange(b, dtype=jnp.int32)[:, None] * ring + slots
    found = jax.lax.cond(
        jnp.any(going), lambda: state.leaving.reshape(-1)[flat], lambda: jnp.zeros(flat.shape, jnp.int64)
    )
    dates = lane.step[:, None].astype(jnp.int64) + jnp.arange(HORIZON)[None]
    soon = jnp.where(found // DATED == dates, found % DATED, 0).astype(jnp.int32)
    return Rows(one, arrives_s, next_s, done, soon)


def arrivals(policy: Policy, requests: Requests, state: State) -> tuple[Array, Array, Array]:
    """(B,) each: when the head of the line arrives, and the request after it, inf where that is not known yet; and how
    many requests were done with the step that released the head of a closed loop.
    """
    lane = state.lane

    def released() -> tuple[Array, Array, Array]:
        entry, after = take(state.ended, lane.source), take(state.ended, lane.source + 1)
        times = [
            jnp.where(lane.source + i < lane.n_ended, e[:, END_CLOCK] + policy.think_s, jnp.inf)
            for i, e in enumerate((entry, after))
        ]
        spent = entry[:, END_DONE] <= lane.head + 1 - policy.users
        beyond = (lane.head == lane.seen) & (lane.head >= policy.users) & spent
        early = [(lane.head + i < policy.users) | (lane.head + i < lane.seen) for i in range(2)]
        second = jnp.where(beyond, times[1], times[0])
        return jnp.where(early[0], 0.0, times[0]), jnp.where(early[1], 0.0, second), entry[:, END_DONE]

    def given() -> tuple[Array, Array, Array]:
        return (
            take(requests.arrival_s, lane.head),
            take(requests.arrival_s, lane.head + 1),
            jnp.zeros_like(lane.clock_s),
        )

    def chosen() -> tuple[Array, ...]:
        return tuple(jnp.where(policy.users > 0, *pair) for pair in zip(released(), given(), strict=True))

    found = jax.lax.cond(jnp.any(policy.users > 0), chosen, given)
    both = [jnp.where(lane.head + i < requests.n_requests, found[i], jnp.inf) for i in range(2)]
    return both[0], both[1], found[2]


def take(a: Array, index: Array) -> Array:
    """(B, ...) one element, or row, of each lane of (B, N, ...)."""
    flat = a.reshape(a.shape[0] * a.shape[1], *a.shape[2:])
    return flat[jnp.arange(len(a), dtype=jnp.int32) * a.shape[1] + jnp.clip(index, 0, a.shape[1] - 1)]


def add(old: Array, _: Array, more: Array) -> Array:
    """A count with more."""
    return old + more


def mark(old: Array, date: Array, count: Array) -> Array:
    """An entry of `leaving` with `count` more sequences that end with step `date`."""
    return jnp.where(old // DATED == date, old, date.astype(jnp.int64) * DATED) + count


def enter(old: Array, date: Array, entry: Array) -> Array:
    """A row of the calendar with an entry more that ends with step `date`."""
    day = date[:, None]
    kept = jnp.where(old[:, DATE, None] == day, old, day * (jnp.arange(old.shape[1]) == DATE)[None])
    return kept + entry


def put(
    a: Array, where: Array, index: Array, value: Array, change: Callable[[Array, Array, Array], Array] | None = None
) -> Array:
    """(B, N, ...) with one element, or row, of those lanes replaced: by value, or by change(old, index, value) at index
    modulo N. One lane needs no scatter, which XLA cannot put into a loop that is one kernel.
    """
    b, n = a.shape[:2]
    flat = a.reshape(b * n, *a.shape[2:])
    value = jnp.broadcast_to(jnp.asarray(value).astype(a.dtype), (b, *a.shape[2:]))
    place = index if change is None else index & (n - 1)
    if b > 1:
        at = jnp.arange(b, dtype=jnp.int32) * n + place
        new = value if change is None else change(flat[jnp.clip(at, 0, b * n - 1)], index, value)
        at = jnp.where(where, at, b * n)
        return flat.at[at].set(new.astype(a.dtype), mode="drop", unique_indices=True).reshape(a.shape)
    at = jnp.clip(place[0], 0, n - 1)
    old = jax.lax.dynamic_slice_in_dim(flat, at, 1)
    new = value if change is None else change(old, index, value)
    return jax.lax.dynamic_update_slice_in_dim(flat, jnp.where(where[0], new.astype(a.dtype), old), at, 0).reshape(
        a.shape
    )
