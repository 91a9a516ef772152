"""Seconds of any engine step by look-up: the step-time model of one deployment, tabulated for the event simulator.

What depends on the tokens of a step (GEMMs, experts, collectives, host) is a table over tokens; what depends on
contexts (attention, indexer, recurrent state) is a sum over sequences and is a table over the context; the rest is a
few scalars. Both tables have knots at 0, 1 .. 16 and then sixteen to the octave, and are straight between them.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from kernels.loop import in_flight
from kernels.roofline import smooth_max
from kernels.step import LaunchParts, launch_parts, launch_s, step_time
from kernels.types import (
    ATTENTION,
    COMMUNICATION,
    HEAD,
    HOST,
    INDEXER,
    ROUTED,
    STATE,
    Device,
    Engine,
    Layout,
    Load,
    Model,
    StepTime,
    pytree,
)
from kernels.work import decode_load, prefill_load

PER_OCTAVE = 16
N_KNOTS = PER_OCTAVE * 21 + 1  # up to 2^24 tokens
CACHED = np.array([ATTENTION, INDEXER, STATE])  # the operations that depend on contexts: (A,)
A = len(CACHED)
# Columns of `by_context`: of a decoding sequence of x cached tokens, seconds of all, seconds by operation, bytes and
# FLOPs; what a chunk of prompt reads of the x tokens behind it, seconds and bytes; its x-th token, and all up to it:
# seconds in which scores are stored, seconds of compute, FLOPs.
DECODE, DECODE_MEMORY, DECODE_COMPUTE = 0, slice(1, 1 + A), slice(1 + A, 1 + 2 * A)
DECODE_WORK, BEHIND, BEHIND_BYTES = slice(1 + 2 * A, 3 + 2 * A), slice(3 + 2 * A, 3 + 3 * A), 3 + 3 * A
TOKEN, UP_TO = slice(4 + 3 * A, 6 + 4 * A), slice(6 + 4 * A, 8 + 5 * A)
N_COLUMNS = 8 + 5 * A
RANK, STAGE = slice(0, None, 2), slice(1, None, 2)  # of `by_tokens`: GEMMs and collectives; experts and host memory


@pytree
class StepTable:
    """Step times of one deployment. A leading axis batches tables. X: knots, A: operations of CACHED."""

    by_tokens: Array  # (X, 6) seconds, bytes and FLOPs of T tokens, in the columns RANK and STAGE; FLOPs and bytes are
    # the device's own
    by_context: Array  # (X, N_COLUMNS)
    token_memory_s: Array  # (A,) what each token of a prompt reads and writes of itself
    token_bytes: Array
    head_s: Array  # (2, 2) of the output head, memory and compute: of any step, and of each logit
    head_work: Array  # (2,) bytes of it, FLOPs of each logit
    launches: LaunchParts
    graph_tokens: Array
    sharpness: Array
    step_s: Array
    sequence_s: Array
    flights: Array  # micro-batches of a pipeline at most
    pp: Array
    dp: Array


def knots() -> np.ndarray:
    """(X,) tokens of the knots: 0, 1 .. 32, 34 .. 64 by 2, 68 .. 128 by 4, and so on."""
    index = np.arange(N_KNOTS)
    octave = np.maximum(index // PER_OCTAVE - 1, 0)
    return (index - PER_OCTAVE * octave) * 2.0**octave


def position(tokens: Array) -> tuple[Array, Array]:
    """(Index of the knot at or below, share of the way to the next) of a number of tokens."""
    mantissa, exponent = jnp.frexp(tokens)
    place = jnp.where(tokens < PER_OCTAVE, tokens, PER_OCTAVE * (exponent - 5) + 2 * PER_OCTAVE * mantissa)
    index = jnp.clip(place.astype(jnp.int32), 0, N_KNOTS - 2)
    return index, place - index


@jax.jit
def step_table(model: Model, device: Device, engine: Engine, layout: Layout) -> StepTable:
    """The table of a deployment: `kernels.step.step_time` at each knot. Unbatched; in float64 where x64 is on.

    Layers computed by the host are not tabulated: their time is not a sum over sequences.
    """
    wide = lambda a: a.astype(float) if jnp.issubdtype(a.dtype, jnp.floating) else a  # noqa: E731
    model, device, engine, layout = jax.tree.map(wide, jax.tree.map(jnp.asarray, (model, device, engine, layout)))
    flights = in_flight(engine, layout)
    steps = _steps(model, device, engine, layout, layout.dp * flights)
    by_context, token_memory, token_bytes = _by_context(steps, engine)
    head = steps["logits"]
    rows = [jnp.stack([t[0, HEAD], t[1, HEAD] - t[0, HEAD]]) for t in (head.memory_s, head.compute_s)]
    return StepTable(
        by_tokens=_by_tokens(steps),
        by_context=by_context,
        token_memory_s=token_memory,
        token_bytes=token_bytes,
        head_s=jnp.stack(rows),
        head_work=jnp.stack([head.bytes[0, HEAD], head.flops[1, HEAD]]),
        launches=launch_parts(model, engine),
        graph_tokens=engine.graph_tokens,
        sharpness=engine.sharpness,
        step_s=engine.step_s,
        sequence_s=engine.sequence_s,
        flights=flights,
        pp=layout.pp,
        dp=layout.dp,
    )


def _steps(model: Model, device: Device, engine: Engine, layout: Layout, ways: Array) -> dict[str, StepTime]:
    """Steps at the knots in which each rank of each micro-batch has the load of one sequence, in one mapped call."""
    x = jnp.asarray(knots())
    one, zero = jnp.ones_like(x), jnp.zeros_like(x)
    decoding, adding = (jax.vmap(partial(f, model)) for f in (decode_load, prefill_load))
    before = adding(one, jnp.maximum(x - 1.0, 0.0), one)
    plain = replace(decoding(x, zero), n_logit_tokens=zero, n_sequences=one)
    loads = {
        "rank": plain,
        "stage": replace(plain, n_decode_tokens=x / layout.dp),
        "logits": replace(plain, n_decode_tokens=one, n_logit_tokens=x),
        "decode": decoding(one, x),
        "behind": adding(zero, x, one),
        "token": before,
        "scored": before,
    }
    score_bytes = jnp.stack([engine.score_bytes * (name in ("decode", "scored")) for name in loads])
    stacked = jax.tree.map(lambda *parts: jnp.concatenate(parts) * ways, *loads.values())

    def seconds(load: Load, scores: Array) -> StepTime:
        return step_time(model, device, replace(engine, score_bytes=scores), layout, load)

    steps = jax.vmap(seconds)(stacked, jnp.repeat(score_bytes, len(x)))
    cut = lambda i: jax.tree.map(lambda a: a[i * len(x) : (i + 1) * len(x)], steps)  # noqa: E731
    return {name: cut(i) for i, name in enumerate(loads)}


def _by_tokens(steps: dict[str, StepTime]) -> Array:
    rank, stage = steps["rank"].seconds, steps["stage"].seconds
    dense = jnp.sum(rank[:, :HEAD], axis=1) + rank[:, COMMUNICATION]
    work = [
        column
        for amount in ("bytes", "flops")
        for column in (
            jnp.sum(getattr(steps["rank"], amount)[:, :HEAD], axis=1),
            getattr(steps["stage"], amount)[:, ROUTED],
        )
    ]
    return jnp.stack([dense, stage[:, ROUTED] + stage[:, HOST], *work], axis=1)


def _by_context(steps: dict[str, StepTime], engine: Engine) -> tuple[Array, Array, Array]:
    """(by_context, token_memory_s, token_bytes) of a StepTable."""
    memory, compute = ({n: getattr(s, f)[:, CACHED] for n, s in steps.items()} for f in ("memory_s", "compute_s"))
    scores = jnp.sum(memory["scored"] - memory["token"], axis=1, keepdims=True)
    n_bytes, flops = (
        {n: jnp.sum(getattr(s, f)[:, CACHED], axis=1, keepdims=True) for n, s in steps.items()}
        for f in ("bytes", "flops")
    )
    token = jnp.concatenate([scores, compute["token"], flops["token"]], axis=1).at[0].set(0.0)
    gap = jnp.diff(jnp.asarray(knots()))[:, None]
    slope = jnp.diff(token, axis=0) / gap
    more = 0.5 * gap * (2.0 * token[:-1] + slope * (gap + 1.0))
    up_to = jnp.concatenate([jnp.zeros((1, 2 + A)), jnp.cumsum(more, axis=0)])
    total = jnp.sum(smooth_max(memory["decode"], compute["decode"], engine.sharpness), axis=1, keepdims=True)
    decode = [total, memory["decode"], compute["decode"], n_bytes["decode"], flops["decode"]]
    table = jnp.concatenate([*decode, memory["behind"], n_bytes["behind"], token, up_to], axis=1)
    return table, memory["token"][1] - memory["behind"][0], (n_bytes["token"][1] - n_bytes["behind"][0])[0]


def at(table: Array, which: Array, tokens: Array) -> tuple[Array, Array, Array, Array]:
    """Rows of (M, X, C) tables about a number of tokens: (row below, rise to the next, share of the way, gap)."""
    index, share = position(tokens)
    flat = table.reshape(-1, table.shape[-1])
    start = which * N_KNOTS + index
    low = flat[start]
    gap = jnp.exp2(jnp.maximum(index // PER_OCTAVE - 1, 0).astype(share.dtype))
    return low, flat[start + 1] - low, share, gap


def chunk_seconds(table: StepTable, which: Array, depth: Array, n_tokens: Array) -> tuple[Array, Array, Array]:
    """Of `n_tokens` prompt tokens behind `depth` cached ones: (memory, compute) seconds, (B, A) each, and (B, 2) bytes
    and FLOPs.
    """
    first, last = (_up_to(table, which, x) for x in (depth, depth + n_tokens))
    low, rise, share, _ = at(table.by_context, which, depth)
    behind, pairs = low + rise * share[:, None], last - first
    memory = behind[:, BEHIND] + n_tokens[:, None] * table.token_memory_s[which]
    n_bytes = behind[:, BEHIND_BYTES] + n_tokens * table.token_bytes[which]
    work = jnp.stack([n_bytes, pairs[:, -1]], axis=1)
    return memory + pairs[:, :1] * (jnp.arange(A) == 0)[None], pairs[:, 1:-1], work


def _up_to(table: StepTable, which: Array, tokens: Array) -> Array:
    """(B, 2 + A) TOKEN summed over the first tokens of a prompt, along a straight line from the knot below."""
    low, rise, share, gap = at(table.by_context, which, tokens)
    slope, done = rise[:, TOKEN] / gap[:, None], (share * gap)[:, None]
    return low[:, UP_TO] + 0.5 * done * (2.0 * low[:, TOKEN] + slope * (done + 1.0))


@pytree
class Batch:
    """What a step holds, (B,) each; chunk_*: sums over its chunks of prompt, (B, A), and bytes and FLOPs, (B, 2)."""

    n_decode: Array
    mean_context: Array  # of the decoding sequences
    n_prefill_tokens: Array
    n_chunks: Array
    n_logits: Array
    chunk_memory_s: Array
    chunk_compute_s: Array
    chunk_work: Array


@pytree
class Step:
    """One step and those after it, as long as only decode goes on. (B,) each."""

    seconds: Array
    growth_s: Array  # by which each step is longer than the one before
    straight: Array  # for so many steps; one only, with prompts, or launched kernel by kernel
    work: Array  # (B, 2) bytes and FLOPs of a device, averaged over the replica's
    work_growth: Array


def batch_seconds(table: StepTable, which: Array, batch: Batch) -> Step:
    """A step of each lane."""
    plain = replace(table, by_tokens=table.head_s, by_context=table.head_s)
    one = jax.tree.map(lambda a: a[which], plain)
    n_sequences = batch.n_decode + batch.n_chunks
    parts = jnp.clip(n_sequences / one.dp, 1.0, one.flights)
    ranks = jnp.clip(n_sequences / parts, 1.0, one.dp)
    of_rank = 1.0 / (parts * ranks)
    tokens = batch.n_decode + batch.n_prefill_tokens
    low, rise, share, _ = at(table.by_tokens, which, tokens * of_rank)
    dense = (low + rise * share[:, None])[:, RANK]
    low, rise, share, _ = at(table.by_tokens, which, tokens / parts)
    experts = (low + rise * share[:, None])[:, STAGE]
    rows = batch.n_logits * of_rank
    head = smooth_max(*(one.head_s[:, i, 0] + one.head_s[:, i, 1] * rows for i in (0, 1)), one.sharpness)
    low, rise, share, gap = at(table.by_context, which, batch.mean_context)
    context = low + rise * share[:, None]
    decoding = (batch.n_decode * of_rank)[:, None]
    prompts = batch.n_prefill_tokens > 0
    mixed = jnp.sum(_cached(one, batch, context, decoding, of_rank), axis=1)
    cached = jnp.where(prompts, mixed, decoding[:, 0] * context[:, DECODE])
    eager = prompts | (batch.n_decode * of_rank * one.pp > one.graph_tokens)
    busy = dense[:, 0] + experts[:, 0] + head + cached
    scheduler = one.step_s + one.sequence_s * n_sequences / jnp.clip(n_sequences, 1.0, one.dp)
    own = dense[:, 1:] + one.head_work * jnp.stack([jnp.ones_like(rows), rows], axis=1)
    own = own + decoding * context[:, DECODE_WORK] + batch.chunk_work * of_rank[:, None]
    of_device = (parts / one.pp)[:, None]
    busy_ranks = (ranks / one.dp)[:, None]
    slope = rise / gap[:, None]
    return Step(
        seconds=busy + launch_s(one.launches, eager, busy) + scheduler,
        growth_s=decoding[:, 0] * slope[:, DECODE],
        straight=1.0 + jnp.where(eager, 0.0, jnp.floor((1.0 - share) * gap)),
        work=of_device * (busy_ranks * own + experts[:, 1:]),
        work_growth=of_device * busy_ranks * decoding * slope[:, DECODE_WORK],
    )


def _cached(one: StepTable, batch: Batch, context: Array, decoding: Array, of_rank: Array) -> Array:
    """(B, A) seconds of CACHED in a step with prompts."""
    return smooth_max(
        decoding * context[:, DECODE_MEMORY] + batch.chunk_memory_s * of_rank[:, None],
        decoding * context[:, DECODE_COMPUTE] + batch.chunk_compute_s * of_rank[:, None],
        one.sharpness[:, None],
    )
