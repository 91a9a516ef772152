"""Bytes and FLOPs of one step, from aggregates of its batch."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array

from kernels.types import Load, Model

MOST_ENTRIES = 1e12  # more than any context holds
ACTIVATION_BYTES = 2.0  # residual stream in 16 bits, in every engine of the catalogue


def activations(n_tokens: Array, n_gemms: Array | float, params: Array, model: Model) -> Array:
    """Bytes that tokens bring to some GEMMs and take from them: 2·T·Σ(k + n) = 2·T·(N·d + P/d).

    Every one of the N weight matrices k × n has the hidden size d on one side, and so P/d in all on the other.
    """
    return ACTIVATION_BYTES * n_tokens * (n_gemms * model.hidden_size + params / model.hidden_size)


def clipped_pairs(depth: Array, n_tokens: Array, limit: Array) -> Array:
    """Σ over i = 1..n of min(depth + i, limit): attention pairs of n tokens in a row, each seeing at most `limit`.

    Written without the difference of two large sums, which float32 would lose.
    """
    growing = jnp.clip(limit - depth, 0.0, n_tokens)
    finite = jnp.where(jnp.isfinite(limit), limit, 0.0)
    return growing * depth + 0.5 * growing * (growing + 1.0) + (n_tokens - growing) * finite


def decode_load(model: Model, n_sequences: Array, context_tokens: Array) -> Load:
    """A step in which `n_sequences` sequences of `context_tokens` cached tokens each generate one token."""
    zero = jnp.zeros_like(model.attn_layers)
    entries = context_tokens / model.tokens_per_entry
    return Load(
        n_decode_tokens=n_sequences,
        n_prefill_tokens=jnp.zeros_like(n_sequences),
        n_logit_tokens=n_sequences,
        n_sequences=n_sequences,
        local_entries=n_sequences * jnp.minimum(context_tokens, model.window_tokens),
        global_entries=n_sequences * jnp.minimum(entries, model.topk_entries),
        index_entries=n_sequences * entries,
        prefill_pairs=zero,
        prefill_index_pairs=zero,
        prefill_local_entries=zero,
        prefill_global_entries=zero,
    )


def prefill_load(model: Model, n_tokens: Array, depth: Array, n_prompts: Array) -> Load:
    """A step in which `n_prompts` sequences with `depth` cached tokens each add `n_tokens / n_prompts` prompt tokens.

    Fewer than one prompt stands for a share of one, at its mean depth: its tokens, its attention, its share of the
    logits. The cache is read once a chunk: what lies behind the prompt, and (1 + m)/2m of it, on average, for 1/m.
    """
    zero = jnp.zeros_like(model.attn_layers)
    each = n_tokens / jnp.maximum(n_prompts, 1e-6)
    behind, reads = jnp.maximum(n_prompts, 1.0), jnp.maximum(n_prompts, 0.5 * (1.0 + n_prompts))
    ratio = model.tokens_per_entry
    local = jnp.where(model.local_entry_bytes > 0, clipped_pairs(depth, each, model.window_tokens), 0.0)
    most = jnp.minimum(model.topk_entries, MOST_ENTRIES) * ratio  # finite, for the sake of its gradient
    seen = clipped_pairs(depth, each, most) / ratio
    everything = clipped_pairs(depth, each, jnp.full_like(ratio, jnp.inf)) / ratio
    return Load(
        n_decode_tokens=jnp.zeros_like(n_tokens),
        n_prefill_tokens=n_tokens,
        n_logit_tokens=n_prompts,
        n_sequences=behind,
        local_entries=zero,
        global_entries=zero,
        index_entries=zero,
        prefill_pairs=n_prompts * (local + jnp.where(model.entry_bytes > 0, seen, 0.0)),
        prefill_index_pairs=n_prompts * everything,
        prefill_local_entries=behind * jnp.minimum(depth, model.window_tokens) + reads * each,
        prefill_global_entries=(behind * depth + reads * each) / ratio,
    )


def combine(a: Load, b: Load) -> Load:
    """The step that does both."""
    return jax.tree.map(jnp.add, a, b)


def divide_load(load: Load, ways: Array) -> Load:
    """The share of one of `ways` equal parts."""
    return jax.tree.map(lambda x: x / ways, load)


def kv_bytes_read(model: Model, load: Load, shard: Array) -> tuple[Array, Array]:
    """Bytes of KV cache that one rank reads and writes, and bytes of indexer keys. shard: (K,) share of a rank."""
    local = (load.local_entries + load.prefill_local_entries) * model.local_entry_bytes
    globl = (load.global_entries + load.prefill_global_entries) * model.entry_bytes
    new = (load.n_decode_tokens + load.n_prefill_tokens) * (
        model.local_entry_bytes + model.entry_bytes / model.tokens_per_entry
    )
    cache = jnp.sum(model.attn_layers * shard * (local + globl + new))
    index = jnp.sum(model.attn_layers * model.index_entry_bytes * (load.index_entries + load.prefill_global_entries))
    return cache, index


def attention_flops(model: Model, load: Load, shard: Array) -> tuple[Array, Array, Array]:
    """FLOPs of one rank: (decode scores and values, prefill scores and values, indexer). shard: (K,) of heads."""
    decode = model.decode_flops_per_entry * (
        jnp.where(model.local_entry_bytes > 0, load.local_entries, 0.0)
        + jnp.where(model.entry_bytes > 0, load.global_entries, 0.0)
    )
    prefill = model.prefill_flops_per_pair * load.prefill_pairs
    index = model.index_flops_per_entry * (load.index_entries + load.prefill_index_pairs)
    weighted = model.attn_layers * shard
    return jnp.sum(weighted * decode), jnp.sum(weighted * prefill), jnp.sum(model.attn_layers * index)


def attention_scores(model: Model, load: Load, shard: Array) -> Array:
    """Scores of one rank: a head and a pair of tokens each. shard: (K,) of heads."""
    local = jnp.where(model.local_entry_bytes > 0, load.local_entries, 0.0)
    globl = jnp.where(model.entry_bytes > 0, load.global_entries, 0.0)
    return jnp.sum(model.attn_layers * shard * model.attn_heads * (local + globl + load.prefill_pairs))


def state_work(model: Model, load: Load, shard: Array) -> tuple[Array, Array]:
    """Bytes and FLOPs of recurrent states on one rank. shard: (K,) share of the heads."""
    moved = jnp.sum(model.attn_layers * shard * model.state_bytes * model.state_passes) * load.n_sequences
    tokens = load.n_decode_tokens + load.n_prefill_tokens
    return moved, jnp.sum(model.attn_layers * shard * model.state_flops_per_token) * tokens
