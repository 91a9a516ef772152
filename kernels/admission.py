"""Who joins the next step of the event simulator, and who gives its memory back."""

from __future__ import annotations

from dataclasses import replace

import jax.numpy as jnp
from jax import Array

from kernels.serving_types import (
    ENTRY,
    FREED,
    GENERATED,
    LAST,
    LOST,
    MARK,
    NEVER,
    PHASE,
    PREEMPTED,
    SCHEDULED,
    TOTALS,
    Candidate,
    Edit,
    Forming,
    Hits,
    Lane,
    Policy,
)
from kernels.step_table import StepTable, chunk_seconds
from kernels.types import pytree


def admits(policy: Policy, lane: Lane, arrives_s: Array) -> Array:
    """Whether a turn looks at a prompt: one that is under way, or the head of the line."""
    forming = lane.forming
    looks = (lane.n_decode == 0) | (lane.step % policy.admission_steps == 0)
    waits = (arrives_s <= lane.clock_s) & ~forming.preempted & looks
    return ((lane.partial >= 0) | waits) & (forming.left_tokens > 0) & ~forming.closed


def overfull(policy: Policy, lane: Lane, may_admit: Array) -> Array:
    """Whether decode lacks blocks for this step; where prefill pauses it, decode comes only after all admission."""
    over = lane.used_blocks + lane.need_blocks > policy.n_blocks
    return over & (policy.mixes_prefill | ((lane.forming.n_chunks == 0) & ~may_admit))


@pytree
class Plan:
    """The next chunk of a candidate. (B,) each."""

    depth: Array  # tokens computed, or found in the cache
    n_tokens: Array
    n_all: Array  # tokens until it generates
    ends: Array  # bool: the chunk is the last
    taken: Array  # blocks
    popped: Array  # blocks of those that hold nothing of its own yet
    fits: Array


def blocks_of(policy: Policy, n_tokens: Array) -> Array:
    """Blocks of a sequence beside the shared prefix."""
    return -(-n_tokens // policy.block_tokens) - policy.prefix_blocks


def popped_by_then(policy: Policy, lane: Lane) -> Array:
    """(B,) blocks taken from behind the half-filled ones once decode has its own of this step, which comes first."""
    return lane.popped + jnp.maximum(first_blocks(policy, lane) - lane.front, 0)


def first_blocks(policy: Policy, lane: Lane) -> Array:
    """(B,) blocks that decode takes before prompts do."""
    return jnp.where(policy.mixes_prefill, lane.need_blocks, 0)


def plan_chunk(policy: Policy, lane: Lane, one: Candidate, middle: Array, hits: Hits | None = None) -> Plan:
    """What the candidate would compute in this step, and whether it is let in. hits: where prompts share, by a tree."""
    forming = lane.forming
    n_all = one.prompt + one.whole[:, GENERATED]
    hits = own_hits(policy, lane, one, middle) if hits is None else hits
    depth = jnp.where(middle, lane.partial_tokens, hits.depth * policy.block_tokens)
    n_tokens = jnp.minimum(n_all - depth, forming.left_tokens)
    upto, held = blocks_of(policy, depth + n_tokens), blocks_of(policy, depth)
    all_of_it = blocks_of(policy, one.prompt + one.output)
    at_once, by_now = jnp.where(middle, all_of_it, hits.held), jnp.where(middle, held, hits.held)
    taken = jnp.where(policy.reserves, all_of_it - at_once, upto - by_now)
    running = lane.n_decode + forming.n_logits
    gate = jnp.where(policy.reserves, all_of_it, jnp.where(policy.whole_gate, blocks_of(policy, n_all), upto))
    gate = gate + jnp.where((running > 0) & policy.whole_gate & ~policy.reserves, policy.watermark_blocks, 0)
    gate = gate - hits.held
    free = policy.n_blocks - lane.used_blocks - first_blocks(policy, lane)
    fits = jnp.where(middle, taken <= free, (gate <= free) & (running < policy.max_sequences))
    return Plan(depth, n_tokens, n_all, depth + n_tokens == n_all, taken, taken - hits.free, fits)


def own_hits(policy: Policy, lane: Lane, one: Candidate, middle: Array) -> Hits:
    """The system prompt, and what is left of the candidate's own blocks since it was preempted."""
    left = one.times[:, MARK] - popped_by_then(policy, lane)
    own = jnp.clip(left, 0, one.whole[:, FREED]).astype(jnp.int32)
    own = jnp.where(policy.caches_prefix & ~middle, own, 0)
    shared = jnp.where((lane.seen > 0) & policy.caches_prefix, policy.prefix_blocks, 0)
    return Hits(own + shared, jnp.zeros_like(own), own)


def pop(lane: Lane, n_blocks: Array) -> Lane:
    """The free queue without its first blocks."""
    soft = jnp.minimum(lane.front, n_blocks)
    return replace(lane, front=lane.front - soft, popped=lane.popped + (n_blocks - soft))


def entry_of(policy: Policy, one: Candidate, phase: Array, n_phases: int) -> Array:
    """(B, PHASE + P) what leaves with a sequence. phase: its cached tokens - step, while it decodes."""
    final = one.prompt + one.output - 1
    n_blocks = blocks_of(policy, jnp.where(policy.reserves, final + 1, final)) - one.shared
    half = (final % policy.block_tokens > 0) | policy.reserves
    one_hot = jnp.arange(n_phases)[None] == (phase % policy.block_tokens)[:, None]
    columns = jnp.stack([jnp.zeros_like(final), jnp.ones_like(final), final, n_blocks, half.astype(jnp.int32)], axis=1)
    return jnp.concatenate([columns, one_hot & ~policy.reserves[:, None]], axis=1).astype(jnp.int32)


def preempt(policy: Policy, lane: Lane, one: Candidate, where: Array, middle: Array, over: Array) -> tuple[Lane, Edit]:
    """The last request that runs gives up its blocks and goes to the head of the line; one that is done is passed.

    over: because decode lacks blocks; else it is a prompt that lacks them itself, after decode has taken its own.
    """
    last = one.whole[:, LAST]
    out, decoding = where & (middle | (last >= lane.step)), where & ~middle & (last >= lane.step)
    n_generated = one.output - (last - lane.step + 1)
    computed = jnp.where(middle, lane.partial_tokens, one.prompt + n_generated - 1)
    half = computed % policy.block_tokens > 0
    full = jnp.maximum(computed // policy.block_tokens - policy.prefix_blocks - one.shared, 0)
    n_blocks = jnp.maximum(blocks_of(policy, computed) - one.shared, 0)  # those of edges are released with them
    free = policy.n_blocks - lane.used_blocks
    forming = lane.forming
    whole = one.whole.at[:, FREED].set(full).at[:, PREEMPTED].add(1)
    whole = jnp.where(decoding[:, None], whole.at[:, LAST].set(NEVER).at[:, GENERATED].set(n_generated), whole)
    times = one.times.at[:, MARK].set((lane.popped + free - lane.front + full).astype(float))
    joined = decoding & (lane.joined > 0)  # whoever joins decode while it stands still is behind all others
    joined_s = lane.joined_since_s / jnp.maximum(lane.joined, 1)
    token_s = jnp.where(joined, joined_s, lane.clock_s - lane.paused_s)
    times = jnp.where(decoding[:, None], times.at[:, LOST].set(token_s), times)
    entry = entry_of(policy, one, computed - lane.step, lane.phases.shape[1])
    after = replace(
        lane,
        phases=lane.phases - jnp.where(decoding[:, None], entry[:, PHASE:], 0),
        head=jnp.where(where, one.request, lane.head),
        n_decode=lane.n_decode - decoding,
        context_sum=lane.context_sum - jnp.where(decoding, computed, 0),
        need_blocks=lane.need_blocks - (decoding & (computed % policy.block_tokens == 0)),
        used_blocks=lane.used_blocks - jnp.where(out, n_blocks, 0),
        front=lane.front + (out & half & (over | ~policy.mixes_prefill)),
        partial=jnp.where(out, -1, lane.partial),
        joined=lane.joined - joined,
        joined_since_s=lane.joined_since_s - jnp.where(joined, joined_s, 0.0),
        forming=replace(
            forming,
            preempted=forming.preempted | out,
            closed=forming.closed | where,
            returned=forming.returned + (out & half & ~over & policy.mixes_prefill),
            left_tokens=forming.left_tokens + (decoding & policy.mixes_prefill),
        ),
    )
    return after, Edit(out, one.request, whole, times, decoding, last, -entry)


def admit(
    policy: Policy, lane: Lane, one: Candidate, plan: Plan, where: Array, middle: Array, late: Array
) -> tuple[Lane, Edit]:
    """The candidate's chunk joins the step. late: the entry that released it has no other request to release."""
    ends = where & plan.ends
    fresh = where & ~middle
    with_step = jnp.where(policy.mixes_prefill, lane.step, lane.step - 1)  # without decode, a step does not count
    generated = one.whole[:, GENERATED]
    last = with_step + one.output - generated - 1
    entry = entry_of(policy, one, plan.n_all - with_step - 1, lane.phases.shape[1])
    at_once = (last < lane.step) & ~policy.mixes_prefill
    new = fresh & (lane.head == lane.seen)
    seen = lane.seen + new
    whole = jnp.where(
        ends[:, None], one.whole.at[:, LAST].set(jnp.where(at_once, -2 - lane.n_started, last)), one.whole
    )
    whole = jnp.where((ends & (generated == 0))[:, None], whole.at[:, ENTRY].set(lane.n_started), whole)
    times = jnp.where(new[:, None], one.times.at[:, SCHEDULED].set(lane.clock_s), one.times)
    hits = {"hit_tokens": jnp.where(fresh, plan.depth, 0), "prompt_hit_tokens": jnp.where(new, plan.depth, 0)}
    found = jnp.stack([hits.get(name, jnp.zeros_like(plan.depth)) for name in TOTALS], axis=1)
    lane = pop(lane, jnp.where(where, plan.popped, 0))
    after = replace(
        lane,
        phases=lane.phases + jnp.where(ends[:, None], entry[:, PHASE:], 0),
        head=lane.head + fresh,
        seen=seen,
        source=lane.source + (new & (seen > policy.users) & late),
        used_blocks=lane.used_blocks + jnp.where(where, plan.taken, 0),
        partial=jnp.where(where, jnp.where(ends, -1, one.request), lane.partial),
        partial_tokens=jnp.where(where, plan.depth + plan.n_tokens, lane.partial_tokens),
        totals=lane.totals + found,
    )
    now = ends & (last < lane.step + policy.mixes_prefill)
    ending = after.forming.ending + jnp.where(now[:, None], entry, 0)
    after = replace(after, forming=replace(after.forming, ending=ending))
    return after, Edit(where, one.request, whole, times, ends & ~now, last, entry)


def add_chunk(table: StepTable, which: Array, forming: Forming, one: Candidate, plan: Plan, where: Array) -> Forming:
    """The forming step with a chunk more."""
    ends = where & plan.ends
    memory, compute, work = chunk_seconds(table, which, plan.depth.astype(float), plan.n_tokens.astype(float))
    n_tokens = jnp.where(where, plan.n_tokens, 0)
    resumed = ends & (one.whole[:, GENERATED] > 0)
    return replace(
        forming,
        left_tokens=forming.left_tokens - n_tokens,
        n_tokens=forming.n_tokens + n_tokens,
        n_chunks=forming.n_chunks + where,
        n_logits=forming.n_logits + ends,
        n_first=forming.n_first + (ends & ~resumed),
        context_added=forming.context_added + jnp.where(ends, plan.n_all, 0),
        stalled_since_s=forming.stalled_since_s + jnp.where(resumed, one.times[:, LOST], 0.0),
        chunk_memory_s=forming.chunk_memory_s + jnp.where(where[:, None], memory, 0.0),
        chunk_compute_s=forming.chunk_compute_s + jnp.where(where[:, None], compute, 0.0),
        chunk_work=forming.chunk_work + jnp.where(where[:, None], work, 0.0),
    )
