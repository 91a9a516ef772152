"""How many steps of the event simulator go on undisturbed, how long they take, and what they leave behind."""

from __future__ import annotations

from dataclasses import replace

import jax.numpy as jnp
from jax import Array

from kernels.serving_types import COUNT, NEVER, Lane, Policy
from kernels.step_table import Batch, StepTable, batch_seconds
from kernels.types import pytree

HORIZON = 32  # steps that a stride looks ahead in the calendar
BINS, BINS_PER_OCTAVE, SHORTEST_S = 1024, 32, 1e-6  # of the histogram: 2 % wide, up to 4,000 s


@pytree
class Stride:
    """Steps that are run at once. (B,) each."""

    n_steps: Array  # that decode takes; 0 where it stands still
    n_decode: Array  # sequences in each
    seconds: Array  # of all
    step_s: Array  # mean
    n_blocks: Array  # that they take
    clock_s: Array  # at the end
    work: Array  # (B, 2) bytes and FLOPs of a device


def measure(table: StepTable, which: Array, policy: Policy, lane: Lane, soon: Array, arrival: Array) -> Stride:
    """The next stride. soon: (B, HORIZON) sequences that end with each of the next steps."""
    forming = lane.forming
    prompts = forming.n_tokens > 0
    n_decode = jnp.where(policy.mixes_prefill | ~prompts, lane.n_decode, 0)
    mean = lane.context_sum / jnp.maximum(lane.n_decode, 1)
    counts = [n_decode, mean, forming.n_tokens, forming.n_chunks, n_decode + forming.n_logits]
    chunks = (forming.chunk_memory_s, forming.chunk_compute_s, forming.chunk_work)
    batch = Batch(*(a.astype(float) for a in counts), *chunks)
    step = batch_seconds(table, which, batch)
    first, growth = step.seconds, step.growth_s
    ahead = blocks_ahead(policy, lane)
    leaves = jnp.where(jnp.any(soon > 0, axis=1), jnp.argmax(soon > 0, axis=1) + 1, HORIZON)
    n_steps = jnp.minimum(jnp.minimum(step.straight, leaves), until_full(policy, lane, ahead))
    looks = jnp.where(policy.admission_steps > 1, policy.admission_steps - lane.step % policy.admission_steps, NEVER)
    n_steps = jnp.minimum(n_steps, looks)
    gap = jnp.where(lane.n_decode < policy.max_sequences, arrival - lane.clock_s, jnp.inf)
    n_steps = jnp.minimum(n_steps, until(gap, first, growth))
    alone = prompts | forming.preempted | (lane.paused_s > 0)  # the next step may hold others
    n_steps = jnp.where(alone, 1, jnp.maximum(n_steps, 1)).astype(jnp.int32)
    pairs = 0.5 * n_steps * (n_steps - 1.0)
    seconds = n_steps * first + growth * pairs
    taken = jnp.where(prompts, lane.need_blocks, within(policy, ahead, n_steps))
    still = prompts & ~policy.mixes_prefill
    return Stride(
        n_steps=jnp.where(still, 0, n_steps),
        n_decode=n_decode,
        seconds=seconds,
        step_s=seconds / n_steps,
        n_blocks=jnp.where(still, 0, taken),
        clock_s=lane.clock_s + seconds,
        work=n_steps[:, None] * step.work + pairs[:, None] * step.work_growth,
    )


def blocks_ahead(policy: Policy, lane: Lane) -> Array:
    """(B, P) blocks that decode takes in each of the next steps, for one round of phases; the rest is 0."""
    ahead = jnp.arange(lane.phases.shape[1], dtype=jnp.int32)[None]
    index = (-(lane.step[:, None] + ahead)) % policy.block_tokens[:, None]
    counts = jnp.take_along_axis(lane.phases, index, axis=1)
    return jnp.where(ahead < policy.block_tokens[:, None], counts, 0)


def within(policy: Policy, ahead: Array, n_steps: Array) -> Array:
    """Blocks that n steps take."""
    rest = (n_steps % policy.block_tokens)[:, None]
    some = jnp.sum(jnp.where(jnp.arange(ahead.shape[1])[None] < rest, ahead, 0), axis=1, dtype=jnp.int32)
    return n_steps // policy.block_tokens * jnp.sum(ahead, axis=1, dtype=jnp.int32) + some


def until_full(policy: Policy, lane: Lane, ahead: Array) -> Array:
    """Steps for which the free blocks last."""
    free = policy.n_blocks - lane.used_blocks
    each = jnp.sum(ahead, axis=1, dtype=jnp.int32)
    rounds = jnp.minimum(free // jnp.maximum(each, 1), HORIZON)
    left = free - rounds * each
    in_round = jnp.arange(ahead.shape[1])[None] < policy.block_tokens[:, None]
    lasting = (jnp.cumsum(ahead, axis=1) <= left[:, None]) & in_round
    steps = rounds * policy.block_tokens + jnp.sum(lasting, axis=1, dtype=jnp.int32)
    return jnp.where(each > 0, steps, NEVER)


def until(gap_s: Array, first_s: Array, growth_s: Array) -> Array:
    """Fewest steps n, of seconds first + i·growth, that take at least gap: n·first + growth·n·(n − 1)/2 ≥ gap."""
    half = first_s - 0.5 * growth_s
    gap = jnp.clip(gap_s, 0.0, HORIZON * (first_s + HORIZON * growth_s))
    root = 2.0 * gap / (half + jnp.sqrt(half * half + 2.0 * growth_s * gap))
    n = jnp.maximum(jnp.floor(root), 1.0)
    for _ in range(2):
        n = jnp.where(n * first_s + 0.5 * growth_s * n * (n - 1.0) >= gap_s, n, n + 1.0)
    return n


def latencies(lane: Lane, stride: Stride, running: Array, clock: Array) -> tuple[Array, Array]:
    """(B, 3) bins and weights of the inter-token latencies: of sequences that decode, joined, or were resumed."""
    forming = lane.forming
    joined = jnp.where(stride.n_steps > 0, lane.joined, 0)
    stalled = forming.n_logits - forming.n_first
    weights = jnp.stack([(stride.n_decode - joined) * stride.n_steps, joined, stalled], axis=1)
    seconds = [
        stride.step_s + lane.paused_s,
        clock - lane.joined_since_s / jnp.maximum(joined, 1),
        clock - forming.stalled_since_s / jnp.maximum(stalled, 1),
    ]
    bins = jnp.log2(jnp.maximum(jnp.stack(seconds, axis=1) / SHORTEST_S, 1.0)) * BINS_PER_OCTAVE
    return jnp.minimum(bins.astype(jnp.int32), BINS - 1), jnp.where(running[:, None], weights, 0)


def paused(lane: Lane, stride: Stride, running: Array, clock: Array) -> Lane:
    """For how long decode has stood still, and who joined it meanwhile."""
    n_new = lane.forming.n_logits - lane.forming.ending[:, COUNT]
    still = running & (stride.n_steps == 0) & (lane.n_decode + n_new > 0)
    n_new = jnp.where(still, n_new, 0)
    moved = running & (stride.n_steps > 0)
    return replace(
        lane,
        paused_s=jnp.where(moved, 0.0, lane.paused_s + jnp.where(still, stride.seconds, 0.0)),
        joined=jnp.where(moved, 0, lane.joined + n_new),
        joined_since_s=jnp.where(moved, 0.0, lane.joined_since_s + n_new * clock),
    )


def amounts(lane: Lane, stride: Stride) -> Array:
    """(B, len(TOTALS)) what a stride adds."""
    forming = lane.forming
    running = lane.n_decode + forming.n_chunks
    blocks = lane.used_blocks + stride.n_blocks * 0.5
    values = [stride.seconds, running * stride.seconds, blocks * stride.seconds, forming.n_tokens,
              stride.n_decode * stride.n_steps, jnp.zeros_like(running), jnp.zeros_like(running),
              jnp.maximum(stride.n_steps, 1), stride.work[:, 0], stride.work[:, 1]]  # fmt: skip
    return jnp.stack([value.astype(float) for value in values], axis=1)
