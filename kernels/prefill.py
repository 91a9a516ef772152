"""Seconds to prefill prompts behind what is already cached, with nothing else running."""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
from jax import Array

from kernels.memory import weight_bytes
from kernels.steady import prompt_chunks, through_stages
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
    adds a decode step, and runs the others only as far as something is cached (mlx-lm: its arrays are evaluated when
    they are used). One that makes the weights resident at each call adds their bytes.
    """
    apart = jnp.where(prompt_tokens > 1.0, engine.last_token_alone, 0.0)
    before = prompt_tokens - apart
    chunks = prompt_chunks(engine, n_prompts * before)
    chunk = prefill_load(model, n_prompts * before / chunks, depth, n_prompts / chunks)
    last = decode_load(model, n_prompts, depth + prompt_tokens)
    some = jax.tree.map(lambda a, b: jnp.where(apart > 0, a, b), caching_part(model), model)
    together = step_time(some, device, engine, layout, chunk).total_s * through_stages(engine, layout, chunks)
    by_itself = step_time(model, device, engine, layout, last).total_s * apart
    resident, _ = weight_bytes(model, layout)
    return together + by_itself + engine.residency_s_per_byte * resident


def caching_part(model: Model) -> Model:
    """The layers up to the last that stores a cache: Gemma 4 E2B's last 20 of 35 read another's. No MoE has such."""
    return replace(
        model,
        gemm_params=model.gemm_params * model.gemm_caching_frac,
        gemm_bytes=model.gemm_bytes * model.gemm_caching_frac,
        attn_layers=model.attn_layers * model.attn_stored_frac,
        n_blocks=model.n_blocks * (model.caching_layers / model.n_layers),
    )
