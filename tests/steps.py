"""Steps of random batches: some sequences decode, some prompts prefill."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import strategies as st

from kernels.experts import distinct_experts, hit_growth
from kernels.step import step_time
from kernels.types import Device, Engine, Layout, Load, Model, StepTime
from kernels.work import combine, decode_load, prefill_load

N_GROUPS, N_PROMPTS = 3, 2
Rows = list[tuple[int, int]]
groups = st.lists(st.tuples(st.integers(1, 40), st.integers(0, 9000)), max_size=N_GROUPS)
prompts = st.lists(st.tuples(st.integers(0, 5000), st.integers(1, 2000)), max_size=N_PROMPTS)


def experts_hit(n_experts: jax.Array, chosen: jax.Array, n_tokens: jax.Array, skew: jax.Array) -> jax.Array:
    """Distinct experts of a layer that a step's tokens hit, each `chosen` of all."""
    return distinct_experts(n_experts, hit_growth(n_experts, chosen, skew), n_tokens, skew)


@jax.jit
def _step(model: Model, device: Device, engine: Engine, layout: Layout, decode, prefill) -> StepTime:
    loads: list[Load] = [decode_load(model, n, context) for n, context in decode]
    for depth, n in prefill:
        here = jnp.where(n > 0, 1.0, 0.0).astype(n.dtype)
        loads.append(jax.tree.map(lambda amount, here=here: here * amount, prefill_load(model, n, depth, here)))
    return step_time(model, device, engine, layout, functools.reduce(combine, loads))


def step(machine: tuple[Model, Device, Engine, Layout], decode: Rows, prefill: Rows = ()) -> StepTime:  # type: ignore[assignment]
    """The kernels' step of (sequences, context) rows that decode and (depth, tokens) rows that prefill, as numpy."""
    found = _step(*machine, _padded(decode, N_GROUPS), _padded(list(prefill), N_PROMPTS))
    return jax.tree.map(np.asarray, found)


def _padded(rows: Rows, size: int) -> np.ndarray:
    """(size, 2) float32; rows of zeros stand for none."""
    return np.asarray(rows + [(0, 0)] * (size - len(rows)), np.float32)
