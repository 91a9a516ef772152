"""Kernels of work, memory and one step in float32 against the float64 oracle that counts one by one."""

from __future__ import annotations

import math

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernels import collectives
from kernels.memory import cache_bytes, memory, rank_cache_bytes, weight_bytes
from kernels.roofline import divide, smooth_max
from kernels.types import Device, Engine, Layout, Model
from kernels.work import clipped_pairs
from tests import draw, steps
from tests.oracle import collectives as slow_collectives
from tests.oracle import memory as slow_memory
from tests.oracle import step as slow_step
from tests.oracle import work as slow_work
from tests.oracle.layers import plain

RTOL = 2e-6
pytestmark = pytest.mark.usefixtures("no_nans")


def close(found: object, expected: object, rtol: float = RTOL, atol: float = 0.0) -> None:
    """Both agree, element by element."""
    np.testing.assert_allclose(np.asarray(found, np.float64), np.asarray(expected, np.float64), rtol=rtol, atol=atol)


def f32(value: float) -> np.float32:
    """The value as `lower` passes it."""
    return np.float32(value)


@given(draw.between(1e-9, 1e3), draw.between(1e-9, 1e3), draw.between(1, 50))
def test_smooth_max_is_a_p_norm(a: float, b: float, p: float) -> None:
    close(jax.jit(smooth_max)(f32(a), f32(b), f32(p)), slow_step.p_norm(a, b, p))


@pytest.mark.parametrize(("amount", "rate", "seconds"), [(6, 3, 2), (0, 3, 0), (0, 0, 0), (1, 0, math.inf)])
def test_divide(amount: float, rate: float, seconds: float) -> None:
    assert float(divide(f32(amount), f32(rate))) == seconds


@given(st.integers(1, 512), st.data(), draw.between(1, 1e5), draw.between(1e-3, 3))
def test_distinct_experts(n_experts: int, data: st.DataObject, n_tokens: float, skew: float) -> None:
    chosen = data.draw(st.integers(1, n_experts))
    found = jax.jit(steps.experts_hit)(f32(n_experts), f32(chosen), f32(n_tokens), f32(skew))
    close(found, slow_work.distinct_experts(n_experts, chosen, n_tokens, skew))


@given(st.integers(0, 5000), st.integers(0, 3000), st.sampled_from([0, 1, 128, 2048, 4096, math.inf]))
def test_clipped_pairs(depth: int, n_tokens: int, limit: float) -> None:
    close(jax.jit(clipped_pairs)(f32(depth), f32(n_tokens), f32(limit)), slow_work.pairs(depth, n_tokens, limit))


@given(draw.models(), st.integers(0, 20000), draw.layouts())
def test_cache_bytes(model: Model, tokens: int, layout: Layout) -> None:
    close(jax.jit(cache_bytes)(model, f32(tokens)), slow_memory.cache(model, tokens))
    share = max(slow_memory.stages(float(model.n_layers), float(layout.pp))) / float(model.n_layers)
    share *= 1.0 - float(layout.host_layer_frac)
    whole = slow_memory.cache(model, tokens, int(layout.tp))
    close(jax.jit(rank_cache_bytes)(model, layout, f32(tokens)), [share * part for part in whole])


@given(draw.models(), draw.layouts())
def test_weight_bytes(model: Model, layout: Layout) -> None:
    close(jax.jit(weight_bytes)(model, layout), slow_memory.weights(model, layout))


@given(draw.models(), draw.devices(), draw.engines(), draw.layouts(), draw.workloads())
def test_memory(model, device, engine, layout, load) -> None:
    found = jax.jit(memory)(model, device, engine, layout, load)
    expected = slow_memory.memory(model, device, engine, layout, load)
    for name, value in vars(expected).items():
        # A pool is a difference of large numbers: its error is relative to them.
        large = expected.usable_bytes + expected.weights_bytes + expected.host_bytes + float(device.host_memory_bytes)
        atol = RTOL * large if name.endswith("pool_bytes") else 0.0
        close(getattr(found, name), value, atol=atol)


@given(draw.models(), draw.devices(), draw.engines(), draw.layouts(), draw.workloads())
def test_max_sequences(model, device, engine, layout, load) -> None:
    found = plain(jax.jit(memory)(model, device, engine, layout, load))
    each = found.sequence_kv_bytes + found.sequence_state_bytes
    stated = np.floor(float(load.kv_pool_tokens) / float(load.context_tokens))
    in_host = float(layout.host_layer_frac) * sum(slow_memory.cache(model, int(load.context_tokens)))
    room = float(device.host_memory_bytes) - found.host_bytes

    def held(rounding: float) -> float:
        on_device = slow_memory.held_sequences(found.pool_bytes * rounding, each)
        at_host = slow_memory.held_sequences(room * rounding, in_host) if layout.host_layer_frac > 0 else np.inf
        return min(on_device, at_host, stated, 1e9) if room >= 0 else 0.0

    # A quotient within float32 of a whole number may be floored either way.
    least, most = sorted((held(1 - RTOL), held(1 + RTOL)))
    assert least <= found.max_sequences / float(layout.dp) / float(layout.replicas) <= most * (1 + RTOL)


many = st.sampled_from([1, 2, 4, 8, 16, 128])


@given(draw.between(1, 1e10), many, draw.devices(), draw.engines())
def test_all_reduce(n_bytes: float, ranks: int, device: Device, engine: Engine) -> None:
    found = jax.jit(collectives.all_reduce)(f32(n_bytes), f32(ranks), device, engine)
    close(found, slow_collectives.all_reduce(n_bytes, ranks, plain(device), plain(engine)))


@given(draw.between(1, 1e10), st.integers(1, 12), many, draw.devices(), draw.engines())
def test_all_to_all(n_bytes: float, chosen: int, ranks: int, device: Device, engine: Engine) -> None:
    found = jax.jit(collectives.all_to_all)(f32(n_bytes), f32(chosen), f32(ranks), device, engine)
    close(found, slow_collectives.all_to_all(n_bytes, chosen, ranks, plain(device), plain(engine)))


@given(draw.between(1, 1e10), draw.devices(), draw.engines())
def test_point_to_point(n_bytes: float, device: Device, engine: Engine) -> None:
    found = jax.jit(collectives.point_to_point)(f32(n_bytes), device, engine)
    close(found, slow_collectives.point_to_point(n_bytes, plain(device), plain(engine)))


@given(draw.models(), draw.devices(), draw.engines(), draw.layouts(), steps.groups, steps.prompts)
def test_step(model, device, engine, layout, decode, prefill) -> None:
    found = steps.step((model, device, engine, layout), decode, prefill)
    one_by_one = [(1, context) for n, context in decode for _ in range(n)]
    batch = slow_work.Batch(one_by_one, [(1, depth, n) for depth, n in prefill])
    expected = slow_step.step(model, device, engine, layout, batch)
    for name in ("bytes", "flops", "seconds", "total_s"):
        close(getattr(found, name), getattr(expected, name))
