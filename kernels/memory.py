"""What fits: weights, KV cache, recurrent state, activations and the engine's reservation, in bytes per device."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array

from kernels.roofline import divide
from kernels.step import expert_ranks, kv_shard
from kernels.types import Device, Engine, Layout, Memory, Model, Workload
from kernels.work import ACTIVATION_BYTES

ROUNDING = 4e-7  # of float32: as many sequences as just fit are not one fewer
BISECTIONS = 34  # of a context up to 2^31 tokens, to less than one token


def stage_share(model: Model, layout: Layout) -> Array:
    """Share of the layers on the fullest pipeline stage: ⌈L / pp⌉ / L."""
    return jnp.ceil(model.n_layers / layout.pp) / model.n_layers


def weight_bytes(model: Model, layout: Layout) -> tuple[Array, Array]:
    """(bytes on the fullest device, bytes in host memory of the whole replica)."""
    share = (1.0 - model.gemm_replicated_frac) / layout.tp + model.gemm_replicated_frac
    dense = jnp.sum(model.gemm_bytes * share)
    ep, within = expert_ranks(layout)
    experts = model.n_moe_layers * model.n_experts * model.expert_bytes
    stage = stage_share(model, layout) * (1.0 - layout.host_layer_frac)
    on_device = stage * (dense + (1.0 - layout.host_expert_frac) * experts / (ep * within))
    at_host = layout.host_layer_frac * (jnp.sum(model.gemm_bytes) + experts)
    at_host = at_host + (1.0 - layout.host_layer_frac) * layout.host_expert_frac * experts
    return on_device + model.table_bytes / layout.tp, at_host


def cache_bytes(model: Model, context_tokens: Array) -> tuple[Array, Array]:
    """(KV cache, recurrent state) of one sequence over all layers, whole: no parallelism, no page padding.

    Per layer: e_local·min(S, W) + e·⌊S/r⌋ + e_index·⌊S/r⌋, and a constant state.
    """
    kv, state = _cache_per_layer(model, context_tokens)
    return jnp.sum(kv), jnp.sum(state)


def _cache_per_layer(model: Model, context_tokens: Array) -> tuple[Array, Array]:
    entries = jnp.floor(context_tokens / model.tokens_per_entry)
    local = model.local_entry_bytes * jnp.minimum(context_tokens, model.window_tokens)
    kv = local + model.entry_bytes * entries
    index = model.index_entry_bytes * model.index_stored_frac * entries
    return model.attn_layers * model.attn_stored_frac * (kv + index), model.attn_layers * model.state_bytes


def rank_cache_bytes(model: Model, layout: Layout, context_tokens: Array) -> tuple[Array, Array]:
    """(KV cache, recurrent state) of one sequence on the fullest device that holds it."""
    kv, state = _cache_per_layer(model, context_tokens)
    stage = stage_share(model, layout) * (1.0 - layout.host_layer_frac)
    kv_rank = jnp.sum(kv * kv_shard(model.attn_kv_heads, layout.tp))
    return stage * kv_rank, stage * jnp.sum(state * kv_shard(model.state_heads, layout.tp))


def activation_bytes(model: Model, engine: Engine, layout: Layout) -> Array:
    """Peak of a full step: 4 residual-wide and 3 FFN-wide vectors a token, and the logits of all sequences.

    Logits are gathered whole on the rank that samples. An engine whose memory fraction leaves activations outside
    (SGLang) counts none.
    """
    width = 4.0 * model.hidden_size + 3.0 * model.ffn_width / layout.tp
    logits = engine.max_sequences * model.vocab_size * engine.logit_bytes_per_sequence
    return engine.counts_activations * (ACTIVATION_BYTES * engine.max_batched_tokens * width + logits)


def pool_bytes(model: Model, device: Device, engine: Engine, layout: Layout) -> Array:
    """Bytes of the fullest device for the KV cache; none where its weights do not fit."""
    weights, _ = weight_bytes(model, layout)
    activations = activation_bytes(model, engine, layout)
    return device.memory_bytes * engine.memory_frac - weights - activations - engine.reserve_bytes


def memory(model: Model, device: Device, engine: Engine, layout: Layout, load: Workload) -> Memory:
    """Budget of the fullest device, and how many sequences of the asked context it holds over the replicas."""
    weights, at_host = weight_bytes(model, layout)
    activations = activation_bytes(model, engine, layout)
    usable = device.memory_bytes * engine.memory_frac
    pool = pool_bytes(model, device, engine, layout)
    kv, state = rank_cache_bytes(model, layout, paged(engine, load.context_tokens))
    stated = jnp.floor(load.kv_pool_tokens / jnp.maximum(load.context_tokens, 1.0))
    most = jnp.minimum(jnp.floor(sequences_in(pool, kv + state) * (1.0 + ROUNDING)), stated)
    room = device.host_memory_bytes - at_host
    host_kv = layout.host_layer_frac * sum(cache_bytes(model, load.context_tokens))
    most = jnp.where(layout.host_layer_frac > 0, jnp.minimum(most, jnp.floor(divide(room, host_kv))), most)
    return Memory(
        usable_bytes=usable,
        weights_bytes=weights,
        host_bytes=at_host,
        activation_bytes=activations,
        reserve_bytes=engine.reserve_bytes,
        pool_bytes=pool,
        host_pool_bytes=room,
        sequence_kv_bytes=kv,
        sequence_state_bytes=state,
        max_sequences=jnp.where(at_host > device.host_memory_bytes, 0.0, most) * layout.dp * layout.replicas,
    )


def paged(engine: Engine, tokens: Array) -> Array:
    """Tokens rounded up to whole KV blocks."""
    return jnp.ceil(tokens / engine.block_tokens) * engine.block_tokens


def sequences_in(pool_bytes: Array, sequence_bytes: Array) -> Array:
    """How many sequences a pool holds (0 for a negative pool; a model without any cache is not limited by it)."""
    per = jnp.where(sequence_bytes > 0, sequence_bytes, 1.0)
    return jnp.where(pool_bytes <= 0, 0.0, jnp.where(sequence_bytes > 0, pool_bytes / per, 1e9))


def longest_context(model: Model, engine: Engine, layout: Layout, mem: Memory, n_sequences: Array) -> Array:
    """Most tokens that each of `n_sequences` of one attention-DP rank can cache in whole blocks, at most its limit.

    Bisection: the cache grows monotonically with the context, but in steps and kinks (windows, compression).
    """
    n = jnp.maximum(n_sequences, 1.0)

    def halve(_, interval):
        low, high = interval
        middle = jnp.floor(0.5 * (low + high))
        kv, state = rank_cache_bytes(model, layout, paged(engine, middle))
        at_host = layout.host_layer_frac * sum(cache_bytes(model, middle))
        fits = (n * (kv + state) <= mem.pool_bytes) & (n * at_host <= jnp.maximum(mem.host_pool_bytes, 0.0))
        return jnp.where(fits, middle, low), jnp.where(fits, high, middle)

    top = model.max_context_tokens + 1.0
    low, _ = jax.lax.fori_loop(0, BISECTIONS, halve, (jnp.zeros_like(top), top))
    return jnp.where(mem.pool_bytes > 0, low, 0.0)
