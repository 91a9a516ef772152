"""Bytes and FLOPs of one step, from aggregates of its batch."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array
from jax.scipy.special import ndtri

from kernels.types import Load, Model

MOST_ENTRIES = 1e12  # more than any context holds
ACTIVATION_BYTES = 2.0  # residual stream in 16 bits, in every engine of the catalogue


def distinct_experts(n_experts: Array, n_experts_per_token: Array, n_tokens: Array, skew: Array) -> Array:
    """Expected number of distinct experts of a layer that a step's tokens hit.

    Uniform independent routing gives E·(1 − (1 − k/E)^T). Real routers prefer some experts: with popularity drawn
    from a Gamma law of squared variation c, the chance that an expert is missed by T tokens is
    P₀(T) = (1 + T·((1 − k/E)^(−c) − 1))^(−1/c), which is exact at T = 0 and T = 1 and uniform as c → 0.
    Source: negative-binomial mixture; c against power-law routing of measured MoE kernels (see docs/physics.md).
    """
    miss_one = jnp.log1p(-jnp.minimum(n_experts_per_token / jnp.maximum(n_experts, 1.0), 1.0 - 1e-6))
    c = jnp.maximum(skew, 1e-3)
    log_missed = -jnp.log1p(n_tokens * jnp.expm1(-c * miss_one)) / c
    return -n_experts * jnp.expm1(log_missed)


def activations(n_tokens: Array, n_gemms: Array | float, params: Array, model: Model) -> Array:
    """Bytes that tokens bring to some GEMMs and take from them: 2·T·Σ(k + n) = 2·T·(N·d + P/d).

    Every one of the N weight matrices k × n has the hidden size d on one side, and so P/d in all on the other.
    """
    return ACTIVATION_BYTES * n_tokens * (n_gemms * model.hidden_size + params / model.hidden_size)


def most_of_ranks(n_ranks: Array) -> Array:
    """Expected largest of n standard normal deviates: Φ⁻¹((n − 3/8) / (n + 1/4)) (Blom, 1958); 0 for one."""
    return ndtri((n_ranks - 0.375) / (n_ranks + 0.25))


def fullest_rank(
    model: Model, n_tokens: Array, hit: Array, n_ranks: Array, skew: Array, imbalance: Array
) -> tuple[Array, Array]:
    """(Distinct experts, rows) of the fullest of n EP ranks in a step of T tokens that hits `hit` experts of a layer.

    Random placement spreads f·E/n experts a rank by √((n − 1)/(f·E)) of their mean: 1 − (1 − f)^(1 + g) of a rank's
    experts, g the spread of the fullest, tends to f·(1 + g) for few and to all for many. Rows spread with their number
    and, however many, with the popularity of experts (squared variation c = skew): √((n − 1)·(c/E + 1/(T·k))).
    imbalance scales both spreads: 1 as random, 0 as balanced as an expert balancer can.
    """
    most = imbalance * most_of_ranks(n_ranks)
    others = jnp.maximum(n_ranks - 1.0, 0.5)  # a lone rank has no spread: most = 0, and a finite gradient
    n_experts = jnp.maximum(model.n_experts, 1.0)
    filled = jnp.clip(hit / n_experts, 1e-9, 1.0 - 1e-6)
    more = most * jnp.sqrt(others / (filled * n_experts))
    experts = -n_experts / n_ranks * jnp.expm1((1.0 + more) * jnp.log1p(-filled))
    rows = n_tokens * model.n_experts_per_token
    spread = most * jnp.sqrt(others * (skew / n_experts + 1.0 / jnp.maximum(rows, 1.0)))
    fullest = jnp.minimum(rows / n_ranks * (1.0 + spread), rows)
    return jnp.where(hit > 0, jnp.clip(experts, jnp.minimum(hit, 1.0), n_experts / n_ranks), 0.0), fullest


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
