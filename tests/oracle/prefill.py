"""Seconds of prompts alone, step by step."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from kernels.types import Device, Engine, Layout, Model
from tests.oracle.layers import plain
from tests.oracle.memory import weights
from tests.oracle.steady import passes
from tests.oracle.step import step
from tests.oracle.work import Batch


def prefill_s(
    model: Model, device: Device, engine: Engine, layout: Layout, n_prompts: int, prompt: int, depth: int
) -> float:
    """Equal chunks of the prompts but for a last token that the engine leaves for a step of its own; and the weights
    made resident at the start.
    """
    e, x = plain(engine), plain(layout)
    apart = int(e.last_token_alone) if prompt > 1 else 0
    n_chunks = math.ceil(n_prompts * (prompt - apart) / e.max_batched_tokens)
    chunk = Batch(prefill=[(n_prompts / n_chunks, depth, prompt - apart)])
    seconds = step(cached(model) if apart else model, device, engine, layout, chunk).total_s * passes(e, x, n_chunks)
    if apart:
        seconds += step(model, device, engine, layout, Batch([(n_prompts, depth + prompt)])).total_s
    return seconds + e.residency_s_per_byte * weights(model, layout)[0]


def cached(model: Model) -> Model:
    """The model without the layers that only read a cache, and without its head."""
    m = plain(model)
    in_layers = [params * part for params, part in zip(m.gemm_params, m.gemm_caching_frac, strict=True)]
    in_bytes = [n_bytes * part for n_bytes, part in zip(m.gemm_bytes, m.gemm_caching_frac, strict=True)]
    kinds = [n if stored else 0.0 for n, stored in zip(m.attn_layers, m.attn_stored_frac, strict=True)]
    return replace(
        model,
        gemm_params=np.asarray(in_layers),
        gemm_bytes=np.asarray(in_bytes),
        attn_layers=np.asarray(kinds),
        n_blocks=np.asarray(m.n_blocks // m.n_layers * m.caching_layers),
    )
