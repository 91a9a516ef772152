"""Closed-loop steady state: TTFT, TPOT and tokens per second of a concurrency level."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array

from kernels.loop import (
    Work,
    busy_ranks,
    closed_loop,
    full_tokens,
    kept_tokens,
    mean_context,
    mixing,
    prompt_chunks,
    running_sequences,
    utilization,
)
from kernels.memory import rank_cache_bytes, sequences_in
from kernels.step import step_time
from kernels.types import (
    COMMUNICATION,
    HOST,
    ROUTED,
    Device,
    Engine,
    Layout,
    Memory,
    Model,
    Steady,
    StepTime,
    Workload,
)
from kernels.work import combine, decode_load, prefill_load


def steady(model: Model, device: Device, engine: Engine, layout: Layout, load: Workload, mem: Memory) -> Steady:
    """Steady state of `concurrency` closed-loop users over the replicas; mem: `memory` of the same arguments.

    R sequences run: concurrency, capped by what the KV cache holds and by the engine. A request takes the front end,
    a wait in line, its own prefill, and (O − 1)·TPOT; throughput is the least of users / that time, R / the time in a
    slot, and what prefill alone can do (asymptotic bounds of closed queueing networks: Denning and Buzen, 1978). What
    exceeds a bound waits: by Little's law a request spends users / throughput in all. TTFT is the mean over n_requests.
    """
    filled = kept_tokens(engine, load)
    held = sequences_held(model, layout, mem, load, filled)
    running = running_sequences(engine, layout, load, held)
    chunk, share = mixing(engine, layout, running, load.prompt_tokens, load.output_tokens)
    steps = five_steps(model, device, engine, layout, load, running, chunk)
    decode, alone = steps[:2]
    loop = closed_loop(engine, layout, load, running, chunk, share, *(step.total_s for step in steps))
    work = work_of_loop(layout, decode, alone)
    mbu, mfu = utilization(device, engine, layout, load, running, work, highest_peak(model, device), loop.rate_per_s)
    return Steady(
        running_sequences=running * layout.replicas * loop.busy_frac,
        ttft_s=loop.ttft_s,
        tpot_s=loop.tpot_s,
        itl_s=loop.tpot_s,
        e2e_s=loop.e2e_s,
        decode_step_s=decode.total_s,
        prefill_s=loop.prefill_s,
        requests_per_s=loop.rate_per_s * layout.replicas * loop.busy_frac,
        mbu_frac=mbu * loop.busy_frac,
        mfu_frac=mfu * loop.busy_frac,
        decode=decode,
        prefill=alone,
    )


def five_steps(
    model: Model, device: Device, engine: Engine, layout: Layout, load: Workload, running: Array, chunk: Array
) -> tuple[StepTime, ...]:
    """One mapped kernel for: decode; a prompt (or an equal chunk of it) on one rank; on every busy rank; decode and
    prefill in one step; a full step of prompts, beside which half of the others decode.
    """
    prompt = load.prompt_tokens
    zero = jnp.zeros_like(prompt)
    decode = decode_load(model, running, mean_context(load))
    part = 1.0 / prompt_chunks(engine, prompt)
    alone = prefill_load(model, prompt * part, zero, part)
    wave = jax.tree.map(lambda amount: amount * busy_ranks(layout, running), alone)
    mixed = combine(decode, prefill_load(model, chunk, zero, chunk / prompt))
    tokens = full_tokens(engine, layout, load, running)
    beside = decode_load(model, 0.5 * engine.mixes_prefill * (running - 1.0), mean_context(load))
    filled = combine(beside, prefill_load(model, tokens, zero, tokens / prompt))
    loads = jax.tree.map(lambda *parts: jnp.stack(parts), decode, alone, wave, mixed, filled)
    steps = jax.vmap(step_time, in_axes=(None, None, None, None, 0))(model, device, engine, layout, loads)
    return tuple(jax.tree.map(lambda part, i=i: part[i], steps) for i in range(5))


def sequences_held(model: Model, layout: Layout, mem: Memory, load: Workload, tokens: Array) -> Array:
    """Sequences of `tokens` cached tokens that one replica's KV pool holds."""
    kv, state = rank_cache_bytes(model, layout, tokens)
    from_memory = sequences_in(mem.pool_bytes, kv + state)
    return jnp.floor(jnp.minimum(from_memory, load.kv_pool_tokens / tokens)) * layout.dp


def work_of_loop(layout: Layout, decode: StepTime, prefill: StepTime) -> Work:
    """What counts as useful of two steps."""
    operation = jnp.arange(len(decode.bytes))
    own_memory = (operation != HOST) & (operation != COMMUNICATION)
    spread = jnp.where(operation == ROUTED, 1.0, 1.0 / layout.dp)
    return Work(
        decode_bytes=jnp.sum(decode.bytes * own_memory),
        decode_flops=jnp.sum(decode.flops * own_memory),
        prefill_flops=jnp.sum(prefill.flops * own_memory * spread),
    )


def highest_peak(model: Model, device: Device) -> Array:
    """Peak FLOP/s of the fastest unit that multiplies weights of this model."""
    dense = jnp.max(device.peak_flops_per_s[model.gemm_kernel])
    routed = jnp.where(model.n_moe_layers > 0, device.peak_flops_per_s[model.expert_kernel], 0.0)
    return jnp.maximum(dense, routed)
