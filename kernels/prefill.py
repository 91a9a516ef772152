"""Seconds to prefill prompts behind what is already cached, with nothing else running."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array

from kernels.loop import prompt_chunks, through_stages
from kernels.memory import weight_bytes
from kernels.step import step_time
from kernels.types import Device, Engine, Layout, Model
from kernels.work import decode_load, prefill_load


def prefill_at_depth_s(
    model: Model,
    device: Device,
    engine: Engine,
    layout: Layout,
    n_prompts: Array,
    prompt_tokens: Array,
    depth: Array,
) -> Array:
    """Seconds of `n_prompts` prompts of `prompt_tokens` tokens each, behind `depth` cached tokens of their own.

    m = ⌈n·P / B⌉ equal chunks of at most the token budget B (llama.cpp: n_ubatch), each at the mean depth of all, and
    following each other through the stages of a pipeline. An engine that runs the last token of a prompt by itself
    (mlx-lm) adds a decode step; one that makes the weights resident at each call adds their bytes.
    """
    apart = jnp.where(prompt_tokens > 1.0, engine.last_token_alone, 0.0)
    before = prompt_tokens - apart
    chunks = prompt_chunks(engine, n_prompts * before)
    chunk = prefill_load(model, n_prompts * before / chunks, depth, n_prompts / chunks)
    last = decode_load(model, n_prompts, depth + prompt_tokens)
    together = step_time(model, device, engine, layout, chunk).total_s * through_stages(engine, layout, chunks)
    by_itself = step_time(model, device, engine, layout, last).total_s * apart
    resident, _ = weight_bytes(model, layout)
    return together + by_itself + engine.residency_s_per_byte * resident
