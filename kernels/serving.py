"""Continuous batching, event by event: requests arrive, wait, prefill in chunks, decode together, fill the cache, go.

One lane is one engine replica with its requests, in order of arrival. First come, first served keeps every request that
runs ahead of all that wait, so that the line is one number: `head`, the next to be admitted, which moves back over
requests that are preempted. In decode all sequences advance by one token a step: the step of a sequence's last token is
known when its prefill ends, and a calendar (a ring indexed by step) holds what leaves when. A turn of the loop costs
the same however many sequences run.

Each turn a lane preempts one request, or admits one, or runs a step, or runs a stride: steps of pure decode in which
nothing arrives, leaves or runs out. The axis of lanes is written out; writes of lanes that have ended are dropped. A
turn reads its rows of the tables first and writes them last, so that no table is ever copied.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array

from kernels import prefixes
from kernels.admission import Plan, add_chunk, admit, admits, overfull, plan_chunk, pop, preempt
from kernels.serving_tables import Rows, add, enter, mark, put, read, take
from kernels.serving_types import (
    BLOCKS,
    COUNT,
    DATED,
    END_TOTALS,
    HALF,
    LAST,
    NEVER,
    PHASE,
    TOKENS,
    TOTALS,
    Edit,
    Forming,
    Lane,
    Policy,
    Requests,
    State,
)
from kernels.step_table import A, StepTable
from kernels.stride import BINS, Stride, amounts, latencies, measure, paused
from kernels.types import T

HISTOGRAMS = ("decoded", "joined", "resumed")


@partial(jax.jit, static_argnames=("ring", "n_phases", "entries"))
def start(policy: Policy, requests: Requests, ring: int, n_phases: int, entries: int) -> State:
    """All lanes at time 0. ring: a power of two above every output and HORIZON; n_phases: at least every block.

    entries: room for steps with first tokens: N, or 2·N where prefill pauses decode.
    """
    b, n = requests.tokens.shape[:2]
    zero = jnp.zeros(b, jnp.int32)
    wide, real = zero.astype(jnp.int64), jnp.zeros(b)
    lane = Lane(
        clock_s=real, step=zero, head=zero, seen=zero, source=zero, n_done=zero, n_started=zero, n_ended=zero,
        n_decode=zero, context_sum=wide, need_blocks=zero, used_blocks=zero, front=zero, popped=wide, partial=zero - 1,
        partial_tokens=zero, paused_s=real, joined=zero, joined_since_s=real,
        phases=jnp.zeros((b, n_phases), jnp.int32), totals=jnp.zeros((b, len(TOTALS))),
        forming=form(policy, zero, n_phases), paid=None if requests.tree is None else wide,
    )  # fmt: skip
    return State(
        lane=lane,
        leaving=jnp.full((b, ring), -DATED, jnp.int64),
        calendar=jnp.full((b, ring, PHASE + n_phases), -1, jnp.int32),
        whole=jnp.zeros((b, n, 5), jnp.int32).at[:, :, LAST].set(NEVER),
        times=jnp.zeros((b, n, 3)),
        started=jnp.zeros((b, entries)),
        ended=jnp.zeros((b, n, END_TOTALS + len(TOTALS))),
        **{name: jnp.zeros((b, BINS), jnp.int64) for name in HISTOGRAMS},
        runs=None if requests.tree is None else prefixes.fresh_runs(policy, n, ring),
    )


def form(policy: Policy, n_decode: Array, n_phases: int) -> Forming:
    """An empty step: the budget that decode leaves."""
    zero, amount, no = jnp.zeros_like(n_decode), jnp.zeros((len(n_decode), A)), jnp.zeros(len(n_decode), bool)
    return Forming(
        left_tokens=(policy.max_batched_tokens - policy.mixes_prefill * n_decode).astype(jnp.int32),
        n_tokens=zero, preempted=no, closed=no, returned=zero, n_chunks=zero, n_logits=zero, n_first=zero,
        context_added=zero.astype(jnp.int64), ending=jnp.zeros((len(zero), PHASE + n_phases), jnp.int32),
        stalled_since_s=jnp.zeros(len(n_decode)), chunk_memory_s=amount, chunk_compute_s=amount,
        chunk_work=jnp.zeros((len(n_decode), 2)),
    )  # fmt: skip


@partial(jax.jit, donate_argnums=(4,))
def advance(
    table: StepTable, which: Array, policy: Policy, requests: Requests, state: State, n_turns: Array,
    until_s: Array | None = None,
) -> tuple[State, Array]:  # fmt: skip
    """The lanes after at most n_turns turns, and how many were taken. table: (M, ...); which: (B,) of a lane.

    until_s: (B,) or (), where more requests may yet come: a lane whose clock is there takes no turn, and one that is
    idle goes no further.
    """

    def going(carry: tuple[State, Array]) -> Array:
        return (carry[1] < n_turns) & jnp.any(live(requests, carry[0].lane, until_s))

    def body(carry: tuple[State, Array]) -> tuple[State, Array]:
        return turn(table, which, policy, requests, carry[0], until_s), carry[1] + 1

    return jax.lax.while_loop(going, body, (state, jnp.zeros_like(n_turns)))


@partial(jax.jit, static_argnames=("ring", "n_phases"))
def serve_each(
    table: StepTable, which: Array, policy: Policy, requests: Requests, n_turns: Array, ring: int, n_phases: int
) -> State:
    """Lanes one after the other, each in a loop of its own from its start, of at most n_turns turns."""

    def serve(lane: tuple[Array, Policy, Requests]) -> State:
        own, rules, asked = jax.tree.map(lambda a: a[None], lane)
        state, _ = advance(
            table, own, rules, asked, start(rules, asked, ring, n_phases, 2 * asked.tokens.shape[1]), n_turns
        )
        return jax.tree.map(lambda a: a[0], state)

    return jax.lax.map(serve, (which, policy, requests))


def live(requests: Requests, lane: Lane, until_s: Array | None) -> Array:
    """(B,) lanes that have work, and have not reached their bound."""
    works = lane.n_done < requests.n_requests
    return works if until_s is None else works & (lane.clock_s < until_s)


def turn(
    table: StepTable, which: Array, policy: Policy, requests: Requests, state: State, until_s: Array | None
) -> State:
    """One turn of every lane."""
    lane, middle = state.lane, state.lane.partial >= 0
    going = live(requests, lane, until_s)
    rows = read(policy, requests, state, going)
    one = rows.one
    may_admit = admits(policy, lane, rows.arrives_s)
    over = overfull(policy, lane, may_admit)
    before, hits = prefixes.look(policy, requests, state, one, going & may_admit & ~over & ~middle)
    plan = plan_chunk(policy, before.lane, one, middle, hits)
    preempting = going & (over | (may_admit & middle & ~plan.fits))
    admitting = going & may_admit & ~preempting
    skipping = admitting & ~middle & (one.whole[:, LAST] < lane.step)
    joining = admitting & plan.fits & ~skipping
    lane, edit = change(table, which, policy, before.lane, rows, plan, joining, preempting, over)
    lane, runs = prefixes.follow(policy, requests, before, lane, one, edit, joining, joining & plan.ends, preempting)
    forming = lane.forming
    forming = replace(forming, closed=forming.closed | (admitting & ~plan.fits & ~skipping))
    lane = replace(lane, head=lane.head + skipping, forming=forming)
    arrival = jnp.where(joining & ~middle, rows.next_arrives_s, rows.arrives_s)
    more = skipping | (joining & (forming.left_tokens > 0) & ~forming.preempted & (arrival <= lane.clock_s))
    short = (lane.used_blocks + lane.need_blocks > policy.n_blocks) & (lane.forming.n_chunks == 0)
    where = going & ~preempting & ~more & ~short
    arrival = arrival if until_s is None else jnp.minimum(arrival, until_s)
    stride = jax.lax.cond(
        jnp.any(where), lambda: measure(table, which, policy, lane, rows.soon, arrival), lambda: still(lane)
    )
    return run(policy, requests, replace(state, lane=lane, runs=runs), edit, stride, where, arrival, rows.soon)


def change(
    table: StepTable, which: Array, policy: Policy, lane: Lane, rows: Rows, plan: Plan, joining: Array,
    preempting: Array, over: Array,
) -> tuple[Lane, Edit]:  # fmt: skip
    """The lanes with their candidate admitted, or preempted, and what that writes."""
    one, middle, no = rows.one, lane.partial >= 0, preempting & False
    nothing = Edit(no, one.request, one.whole, one.times, no, one.request, jnp.zeros_like(lane.forming.ending))

    def joined(lane: Lane) -> tuple[Lane, Edit]:
        lane, edit = admit(policy, lane, one, plan, joining, middle, rows.done <= lane.seen + 1 - policy.users)
        return replace(lane, forming=add_chunk(table, which, lane.forming, one, plan, joining)), edit

    def removed(lane: Lane, edit: Edit) -> tuple[Lane, Edit]:
        lane, own = preempt(policy, lane, one, preempting, middle, over)
        return lane, either(preempting, own, edit)

    lane, edit = jax.lax.cond(jnp.any(joining), joined, lambda lane: (lane, nothing), lane)
    return jax.lax.cond(jnp.any(preempting), removed, lambda lane, edit: (lane, edit), lane, edit)


def either(where: Array, first: T, second: T) -> T:
    """Of two pytrees the lanes of the first, and elsewhere those of the second."""
    return jax.tree.map(lambda a, b: jnp.where(where.reshape(-1, *[1] * (a.ndim - 1)), a, b), first, second)


def still(lane: Lane) -> Stride:
    """No stride."""
    zero, none = jnp.zeros_like(lane.step), jnp.zeros_like(lane.clock_s)
    work = jnp.zeros_like(lane.forming.chunk_work)
    return Stride(n_steps=zero, n_decode=zero, seconds=none, step_s=none, n_blocks=zero, clock_s=none, work=work)


def run(
    policy: Policy, requests: Requests, state: State, edit: Edit, stride: Stride, where: Array, arrival_s: Array,
    soon: Array,
) -> State:  # fmt: skip
    """Writes the edit, and runs the stride; where nothing runs, the clock goes to the next arrival."""
    lane, forming = state.lane, state.lane.forming
    idle = where & (lane.n_decode == 0) & (forming.n_tokens == 0)
    running = where & ~idle
    clock = jnp.where(running, stride.clock_s, lane.clock_s)
    clock = jnp.where(idle, jnp.maximum(arrival_s, clock), clock)
    last = lane.step + jnp.where(running, stride.n_steps, 0) - 1
    moving = running & (stride.n_steps > 0)
    due = moving & (jnp.take_along_axis(soon, jnp.maximum(stride.n_steps - 1, 0)[:, None], axis=1)[:, 0] > 0)
    slot = last & (state.leaving.shape[1] - 1)
    leaves = jax.lax.cond(jnp.any(due), lambda: take(state.calendar, slot), lambda: jnp.zeros_like(edit.entry))
    leaves = jnp.where(due[:, None], leaves, 0) + jnp.where(running[:, None], forming.ending, 0)
    gone = leaves[:, COUNT] > 0
    # Always true, which XLA cannot know: the writes wait for the reads, and the tables need no copy.
    dated = edit.dated & (leaves[:, COUNT] >= 0) & (soon[:, 0] >= 0)
    noted = running & ((forming.n_first > 0) | (gone & (stride.n_steps == 0)))
    after = settle(policy, paused(lane, stride, running, clock), stride, leaves, running, where, clock)
    after = replace(after, n_started=lane.n_started + noted)
    after, runs = prefixes.let_go(policy, requests, after, state.runs, running, last)
    held = [lane.n_decode + forming.n_logits, lane.used_blocks + stride.n_blocks]
    entry = jnp.stack([a.astype(float) for a in (last, clock, after.n_done, *held)], axis=1)
    entry = jnp.concatenate([entry, after.totals], axis=1)
    bins, weights = latencies(lane, stride, running & (lane.seen > policy.warmup), clock)
    return State(
        lane=after,
        leaving=put(state.leaving, dated, edit.last_step, edit.entry[:, COUNT], mark),
        calendar=put(state.calendar, dated, edit.last_step, edit.entry, enter),
        whole=put(state.whole, edit.where, edit.request, edit.whole),
        times=put(state.times, edit.where, edit.request, edit.times),
        started=put(state.started, noted, lane.n_started, clock),
        ended=put(state.ended, gone, lane.n_ended, entry),
        runs=runs,
        **{
            name: put(getattr(state, name), weights[:, i] > 0, bins[:, i], weights[:, i], add)
            for i, name in enumerate(HISTOGRAMS)
        },
    )


def settle(
    policy: Policy, lane: Lane, stride: Stride, leaves: Array, running: Array, where: Array, clock: Array
) -> Lane:
    """The small part after a stride, and after what leaves with it."""
    forming = lane.forming
    add = lambda value: jnp.where(running, value, 0)  # noqa: E731
    phases = lane.phases - leaves[:, PHASE:]
    step = lane.step + add(stride.n_steps)
    n_decode = lane.n_decode + add(forming.n_logits) - leaves[:, COUNT]
    lane = pop(lane, add(stride.n_blocks))
    need = jnp.take_along_axis(phases, ((-step) % policy.block_tokens)[:, None], axis=1)[:, 0]
    return replace(
        lane,
        clock_s=clock,
        step=step,
        n_done=lane.n_done + leaves[:, COUNT],
        n_ended=lane.n_ended + (leaves[:, COUNT] > 0),
        n_decode=n_decode,
        context_sum=lane.context_sum
        + add(stride.n_decode * stride.n_steps + forming.context_added)
        - leaves[:, TOKENS],
        need_blocks=jnp.where(where, need, lane.need_blocks),
        used_blocks=lane.used_blocks + add(stride.n_blocks) - leaves[:, BLOCKS],
        front=lane.front + leaves[:, HALF] + add(forming.returned),
        phases=phases,
        totals=lane.totals + jnp.where(running[:, None], amounts(lane, stride), 0.0),
        forming=either(where, form(policy, n_decode, phases.shape[1]), forming),
    )
