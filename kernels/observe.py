"""What a benchmark measures, as one vector: the link between the forecast and its calibration."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array

from kernels.memory import memory
from kernels.prefill import prefill_at_depth_s
from kernels.steady import steady
from kernels.types import Device, Engine, Layout, Model, Workload

QUANTITIES = (
    "tpot_s", "ttft_s", "itl_s", "e2e_s", "decode_step_s", "prefill_s", "output_tokens_per_s", "total_tokens_per_s",
)  # fmt: skip


def observe(model: Model, device: Device, engine: Engine, layout: Layout, load: Workload, depth_tokens: Array) -> Array:
    """(Q,) quantities of a closed loop, in the order of QUANTITIES; unbatched.

    prefill_s is that of `concurrency` prompts at once, each onto `depth_tokens` cached tokens, and nothing else.
    """
    state = steady(model, device, engine, layout, load, memory(model, device, engine, layout, load))
    tokens = load.output_tokens
    return jnp.stack([
        state.tpot_s,
        state.ttft_s,
        state.itl_s,
        state.e2e_s,
        state.decode_step_s,
        prefill_at_depth_s(model, device, engine, layout, load.concurrency, load.prompt_tokens, depth_tokens),
        state.requests_per_s * tokens,
        state.requests_per_s * (tokens + load.prompt_tokens),
    ])  # fmt: skip
