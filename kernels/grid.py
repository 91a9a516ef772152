"""Steady states of a product: R deployments × L lengths × C concurrencies, each term on the axes that it depends on.

The formulas are those of `kernels.steady.steady`, on the coefficients of `kernels.coefficients`: what is left for the
cells is element by element. Each stage is a jitted function of its own: XLA would compute an intermediate of one stage
anew in each of its uses, which takes twenty times as long. Weights in host memory are not among it.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array, lax

from kernels.coefficients import Deployment, Served, Unit
from kernels.economics import n_devices, power_w
from kernels.experts import experts_of_step
from kernels.loop import (
    Work,
    by_grid,
    closed_loop,
    full_tokens,
    mixing,
    prompt_chunks,
    running_sequences,
    utilization,
)
from kernels.roofline import smooth_max_by
from kernels.step import busy_ranks, communication_s, launch_s, linear_s, micro_batches, scheduler_s
from kernels.types import HEAD, Memory, Workload, pytree

# LLVM takes half of a processor's 512 bits unless asked, and four instructions where a minimum has to hand on what is
# no number; elsewhere this asks for nothing.
WIDE = {"xla_cpu_prefer_vector_width": 512, "xla_cpu_enable_fast_min_max": True}
Ways = tuple[bool, bool, bool]  # whether some layout of the grid has attention-DP, pipeline stages, EP
# (seconds,), or (seconds, bytes, FLOPs of a rank, FLOPs of experts, which span the ranks)
Spent = tuple[Array, ...]


@pytree
class Amounts:
    """One step: sequences that decode; prompts on each of so many ranks, from their first token."""

    n_decode: Array | float
    n_prompts: Array | float
    n_ranks: Array | float


@pytree
class Batch:
    """What runs at once in a replica, and two of its steps."""

    running: Array  # sequences
    chunk: Array  # prefill tokens of a mixed step
    share: Array  # of mixed steps
    mixed: Amounts
    filled: Amounts  # a step as full of prompts as can be


@pytree
class Cells:
    """Figures of R × L × C cells; some arrays have an axis of length 1."""

    memory: Memory
    running_sequences: Array
    ttft_s: Array
    tpot_s: Array
    e2e_s: Array
    requests_per_s: Array
    mbu_frac: Array
    mfu_frac: Array
    power_w: Array
    n_devices: Array


def narrowed(of: Deployment, ways: Ways) -> Deployment:
    """With the number 1 for what no layout has more of, so that what depends on it is not compiled."""
    none = {name: 1.0 for name, some in zip(("dp", "pp", "ep"), ways, strict=True) if not some}
    routing = of.routing if ways[2] else replace(of.routing, n_ranks=1.0)
    return replace(of, layout=replace(of.layout, **none), routing=routing)


@partial(jax.jit, static_argnames="ways", compiler_options=WIDE)
def batch(of: Deployment, at: Served, load: Workload, ways: Ways) -> Batch:
    """What runs at once."""
    of = narrowed(of, ways)
    engine, layout, prompt = of.engine, of.layout, load.prompt_tokens
    running = running_sequences(engine, layout, load, at.held)
    chunk, share = mixing(engine, layout, running, prompt, load.output_tokens)
    filled = Amounts(
        0.5 * engine.mixes_prefill * (running - 1.0), full_tokens(engine, layout, load, running) / prompt, 1.0
    )
    return Batch(running, chunk, share, Amounts(running, chunk / prompt, 1.0), filled)


@partial(jax.jit, static_argnames="ways", compiler_options=WIDE)
def steps(of: Deployment, at: Served, prompt: Array, batch: Batch, ways: Ways) -> tuple[dict[str, Array], Spent, Spent]:
    """(seconds of the steps of `closed_loop`, what a step of decode and one of prefill spend)."""
    of = narrowed(of, ways)
    chunk = 1.0 / prompt_chunks(of.engine, prompt)
    of_step = partial(step, of, at, prompt)
    decode, alone = (
        of_step(Amounts(batch.running, 0.0, 1.0), False, True),
        of_step(Amounts(0.0, chunk, 1.0), True, True),
    )
    mixed, filled = (of_step(amounts, True, False) for amounts in (batch.mixed, batch.filled))
    ranks = Amounts(0.0, chunk, busy_ranks(of.layout, batch.running))
    wave = of_step(ranks, True, False) if ways[0] else alone
    of_each = {"decode": decode, "alone": alone, "wave": wave, "mixed": mixed, "filled": filled}
    return {name: spent[0] for name, spent in of_each.items()}, decode[1:], alone[1:]


def step(of: Deployment, at: Served, prompt: Array, amounts: Amounts, eager: bool, counted: bool) -> Spent:
    """(seconds,) of a step; counted: with its bytes and FLOPs, see `Spent`. eager: it has prompts."""
    engine, layout, ranks = of.engine, of.layout, amounts.n_ranks
    n_prompts = amounts.n_prompts * ranks
    in_prefill = jnp.maximum(amounts.n_prompts, 1.0) * ranks if eager else 0.0
    n_sequences = amounts.n_decode + in_prefill
    of_stage = 1.0 / micro_batches(engine, layout, n_sequences)
    of_rank = of_stage / busy_ranks(layout, n_sequences * of_stage)
    tokens = amounts.n_decode + n_prompts * prompt
    rows, logits = tokens * of_rank, (amounts.n_decode + n_prompts) * of_rank
    loads = [(amounts.n_decode * of_rank, at.decode)]
    if eager:  # the cache is read once a chunk, see kernels.work.prefill_load
        reads = jnp.maximum(amounts.n_prompts, 0.5 * (1.0 + amounts.n_prompts)) * ranks
        loads += [(n_prompts * of_rank, at.prompt), (reads * of_rank, at.reads), (in_prefill * of_rank, of.sequence)]
    spent = dense(of, rows, logits, loads, counted)
    spent = lax.cond(jnp.any(of.routing.n_experts > 0), partial(routed, of, tokens * of_stage), _same, spent)
    kinds = range(1, len(at.decode.memory_s))
    some = (jnp.any(one.memory_s[i] + one.compute_s[i] > 0) for _, one in loads for i in kinds)
    spent = lax.cond(functools.reduce(jnp.logical_or, some), partial(cached, of, kinds, loads), _same, spent)
    busy = spent[0] + communication_s(of.model, of.device, engine, layout, rows)[0]
    apart = True if eager else amounts.n_decode * of_rank * layout.pp > engine.graph_tokens
    seconds = busy + launch_s(of.launches, apart, busy) + scheduler_s(engine, layout, n_sequences)
    return seconds, *spent[1:]


def _same(spent: Spent) -> Spent:
    return spent


def dense(of: Deployment, rows: Array, logits: Array, loads: list[tuple[Array, Unit]], counted: bool) -> Spent:
    """Of the dense GEMMs and attention."""
    gemms = [(part, logits if i == HEAD else rows) for i, part in enumerate(of.gemms)]
    busy = sum(slower(of, *linear_s(part, 1.0, n)) for part, n in gemms) + cached_s(of, 0, loads)
    if not counted:
        return (busy,)
    flops = sum(n * part.flops_per_row for part, n in gemms) + sum(n * one.flops for n, one in loads)
    return busy, of.gemm_bytes + sum(n * one.bytes for n, one in loads), flops, jnp.zeros_like(flops)


def routed(of: Deployment, tokens: Array, spent: Spent) -> Spent:
    """With the routed experts of so many tokens."""
    on_rank, rows = experts_of_step(of.routing, tokens)
    busy = spent[0] + slower(of, *linear_s(of.expert, on_rank, rows))
    if len(spent) == 1:
        return (busy,)
    return busy, spent[1] + on_rank * of.expert.bytes, spent[2], spent[3] + rows * of.expert.flops_per_row


def cached(of: Deployment, kinds: Iterable[int], loads: list[tuple[Array, Unit]], spent: Spent) -> Spent:
    """With the indexer and recurrent state, whose bytes and FLOPs are with attention's."""
    return spent[0] + sum(cached_s(of, i, loads) for i in kinds), *spent[1:]


def cached_s(of: Deployment, i: int, loads: list[tuple[Array, Unit]]) -> Array:
    """Seconds on a rank of attention, indexer or recurrent state."""
    memory_s, compute_s = (sum(n * getattr(one, name)[i] for n, one in loads) for name in ("memory_s", "compute_s"))
    return slower(of, memory_s, compute_s)


def slower(of: Deployment, memory_s: Array, compute_s: Array) -> Array:
    """Seconds of what takes so long alone, overlapped as in its engine."""
    return smooth_max_by(of.roots, memory_s, compute_s, of.engine.sharpness)


@partial(jax.jit, static_argnames="ways", compiler_options=WIDE)
def finish(
    of: Deployment, at: Served, load: Workload, batch: Batch, ways: Ways, seconds: dict[str, Array], decode: Spent,
    prefill: Spent,
) -> Cells:  # fmt: skip
    """The loop of these steps."""
    of = narrowed(of, ways)
    device, engine, layout, running = of.device, of.engine, of.layout, batch.running
    times = {f"{name}_s": s for name, s in seconds.items()}
    loop = closed_loop(engine, layout, load, running, batch.chunk, batch.share, **times, choose=by_grid)
    work = Work(decode[0], decode[1] + decode[2], prefill[1] / layout.dp + prefill[2])
    used = utilization(device, engine, layout, load, running, work, of.peak, loop.rate_per_s)
    mbu, mfu = (frac * loop.busy_frac for frac in used)
    count = n_devices(layout)
    return Cells(
        memory=at.memory,
        running_sequences=running * layout.replicas * loop.busy_frac,
        ttft_s=loop.ttft_s,
        tpot_s=loop.tpot_s,
        e2e_s=loop.e2e_s,
        requests_per_s=loop.rate_per_s * layout.replicas * loop.busy_frac,
        mbu_frac=mbu,
        mfu_frac=mfu,
        power_w=power_w(device, engine, mbu, mfu) * count,
        n_devices=count,
    )


def grid(of: Deployment, at: Served, load: Workload, ways: Ways) -> Cells:
    """All cells of `coefficients`."""
    together = batch(of, at, load, ways)
    return finish(of, at, load, together, ways, *steps(of, at, load.prompt_tokens, together, ways))
