"""Bytes and FLOPs of a step, sequence by sequence and token by token."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np

from tests.oracle.layers import fullest_share, padded_share


@dataclass(frozen=True)
class Batch:
    """The sequences of one step: (count, cached tokens) of those that decode, (count, cached, new tokens) of those
    that prefill. A count below one is one of several equal chunks of a prompt, at its mean depth: so much of the whole
    prompt's work.
    """

    decode: list[tuple[float, float]] = field(default_factory=list)
    prefill: list[tuple[float, float, int]] = field(default_factory=list)
    copies: float = 1.0  # as many such batches at once, on ranks of their own

    @property
    def n_sequences(self) -> float:
        """Sequences that get at least one token."""
        return self.copies * (sum(row[0] for row in self.decode) + sum(max(row[0], 1.0) for row in self.prefill))

    @property
    def n_logits(self) -> float:
        """Tokens whose successor is sampled: one a sequence, but of a prompt only in its last chunk."""
        return self.copies * (sum(row[0] for row in self.decode) + sum(row[0] for row in self.prefill))

    @property
    def n_tokens(self) -> float:
        """Tokens of the step."""
        return self.copies * (sum(row[0] for row in self.decode) + sum(count * n for count, _, n in self.prefill))


def pairs(depth: float, n_tokens: int, limit: float) -> float:
    """Attention pairs of `n_tokens` tokens after `depth` cached ones, each seeing itself and what came before."""
    seen = depth + 1.0 + np.arange(n_tokens, dtype=np.float64)
    return float(np.sum(np.minimum(seen, limit)))


def distinct_experts(n_experts: float, chosen: float, n_tokens: float, skew: float) -> float:
    """Experts hit at least once, by integrating over the Gamma law of their popularity.

    An expert of popularity λ (mean 1, variance c) is missed by a token with the chance exp(−a·λ); a is such that the
    mean over λ of one token's miss is 1 − k/E. Trapezoidal rule in log λ, where the integrand is analytic and decays.
    """
    if n_experts == 0:
        return 0.0
    if chosen == n_experts:
        return n_experts if n_tokens > 0 else 0.0
    shape = 1.0 / skew
    low, high = -2.0 * (60.0 * skew + math.sqrt(120.0 * skew)), min(math.sqrt(240.0 * skew), 6.0)
    log_popularity, step = np.linspace(low, high, 4001, retstep=True)
    popularity = np.exp(log_popularity)
    log_density = shape * (log_popularity - popularity) + shape * math.log(shape) - math.lgamma(shape)
    weight = np.exp(log_density) * step
    a = ((1.0 - chosen / n_experts) ** -skew - 1.0) / skew
    return n_experts * float(np.sum(weight * -np.expm1(-a * n_tokens * popularity)))


def layer_work(layer: SimpleNamespace, batch: Batch, tp: float) -> SimpleNamespace:
    """Bytes and FLOPs of one layer's attention, indexer and state on the fullest TP rank."""
    out = SimpleNamespace(cache=0.0, scores=0.0, decode_flops=0.0, prefill_flops=0.0, index=0.0, index_flops=0.0)
    for count, tokens in batch.decode:
        _add(out, count, _decode_one(layer, tokens))
    for count, depth, n in batch.prefill:
        own = n if count >= 1.0 else 0.5 * (1.0 + count) * n  # the first of m chunks reads 1/m of it, the last all
        _add(out, max(count, 1.0), _prefill_reads(layer, depth, own))
        _add(out, count, _prefill_flops(layer, depth, n))
    for name, value in vars(out).items():
        setattr(out, name, batch.copies * value)
    written = layer.local_entry_bytes + layer.entry_bytes / layer.tokens_per_entry
    out.cache += batch.n_tokens * written
    out.cache *= fullest_share(layer.attn_kv_heads, tp)
    heads = padded_share(layer.attn_heads, layer.attn_min_heads, tp)
    out.scores *= heads * layer.attn_heads
    out.decode_flops *= heads
    out.prefill_flops *= heads
    states = fullest_share(layer.state_heads, tp)
    out.state = batch.n_sequences * layer.state_bytes * layer.state_passes * states
    out.state_flops = batch.n_tokens * layer.state_flops_per_token * states
    return out


def _add(out: SimpleNamespace, count: float, one: dict[str, float]) -> None:
    """Adds `count` sequences of one kind."""
    for name, value in one.items():
        setattr(out, name, getattr(out, name) + count * value)


def _decode_one(layer: SimpleNamespace, tokens: float) -> dict[str, float]:
    """One new token: it reads its window, all or the best entries of the global stream, and every indexer key."""
    windowed = min(tokens, layer.window_tokens)
    entries = tokens / layer.tokens_per_entry
    attended = min(entries, layer.topk_entries)
    in_window = windowed if layer.local_entry_bytes else 0.0
    in_stream = attended if layer.entry_bytes else 0.0
    return {
        "cache": windowed * layer.local_entry_bytes + attended * layer.entry_bytes,
        "index": entries * layer.index_entry_bytes,
        "scores": in_window + in_stream,
        "decode_flops": layer.decode_flops_per_entry * (in_window + in_stream),
        "index_flops": layer.index_flops_per_entry * entries,
    }


def _prefill_reads(layer: SimpleNamespace, depth: float, n: float) -> dict[str, float]:
    """Cache behind one prompt, and of `n` of its own tokens, read once for all of them."""
    ratio = layer.tokens_per_entry
    window = min(depth, layer.window_tokens) + n
    return {
        "cache": window * layer.local_entry_bytes + (depth + n) / ratio * layer.entry_bytes,
        "index": (depth + n) / ratio * layer.index_entry_bytes,
    }


def _prefill_flops(layer: SimpleNamespace, depth: float, n: int) -> dict[str, float]:
    """Pairs of the new tokens of one prompt: each attends by itself."""
    ratio = layer.tokens_per_entry
    in_window = pairs(depth, n, layer.window_tokens) if layer.local_entry_bytes else 0.0
    in_stream = pairs(depth, n, layer.topk_entries * ratio) / ratio if layer.entry_bytes else 0.0
    return {
        "scores": in_window + in_stream,
        "prefill_flops": layer.prefill_flops_per_pair * (in_window + in_stream),
        "index_flops": layer.index_flops_per_entry * pairs(depth, n, math.inf) / ratio,
    }


def attention_work(layers: list[SimpleNamespace], batch: Batch, tp: float) -> Iterator[SimpleNamespace]:
    """`layer_work` of every layer; equal layers are counted once and repeated."""
    known: dict[tuple, SimpleNamespace] = {}
    for layer in layers:
        key = tuple(vars(layer).values())
        if key not in known:
            known[key] = layer_work(layer, batch, tp)
        yield known[key]
