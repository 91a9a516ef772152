"""Laws of work, roofline and one step, over random models, devices, engines, layouts and batches."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernels.roofline import smooth_max
from kernels.types import ATTENTION, COMMUNICATION, GEMM_GROUPS, HOST, INDEXER, LAUNCH, ROUTED, STATE, Layout
from kernels.work import clipped_pairs
from tests import draw, rows, steps

SLACK = 1.0 + 3e-6  # float32
pytestmark = pytest.mark.usefixtures("no_nans")
machines = st.tuples(draw.models(), draw.devices(), draw.engines(), draw.layouts())
alone = st.tuples(draw.models(), draw.devices(), draw.engines(), st.just(rows.layout()))
factors = draw.between(1.01, 100)


def f32(*values: float) -> tuple[np.float32, ...]:
    """The values as `lower` passes them."""
    return tuple(np.float32(v) for v in values)


def times(pytree: Any, factor: float, *names: str) -> Any:
    """The pytree with these fields multiplied."""
    return replace(pytree, **{name: np.float32(factor) * getattr(pytree, name) for name in names})


seconds = draw.between(1e-9, 1e3)


@given(seconds, seconds, draw.between(1, 50), factors)
def test_smooth_max_lies_between_the_maximum_and_the_sum(a: float, b: float, p: float, sharper: float) -> None:
    found = float(jax.jit(smooth_max)(*f32(a, b, p)))
    assert max(a, b) / SLACK <= found <= (a + b) * SLACK
    assert found == float(jax.jit(smooth_max)(*f32(b, a, p)))
    assert float(jax.jit(smooth_max)(*f32(a, b, p * sharper))) <= found * SLACK
    assert float(jax.jit(smooth_max)(*f32(a, 0, p))) == np.float32(a)


experts_hit = jax.jit(steps.experts_hit)
sizes = st.integers(2, 512).flatmap(lambda e: st.tuples(st.just(e), st.integers(1, e)))
skews = draw.between(1e-3, 3)


@given(sizes, draw.between(1, 1e5), skews)
def test_distinct_experts_lie_between_those_of_one_token_and_all(size: tuple, tokens: float, skew: float) -> None:
    n_experts, chosen = size
    found = float(experts_hit(*f32(n_experts, chosen, tokens, skew)))
    assert chosen / SLACK <= found <= min(n_experts, chosen * tokens) * SLACK


@given(sizes, skews)
def test_one_token_hits_exactly_its_own_experts(size: tuple, skew: float) -> None:
    assert float(experts_hit(*f32(*size, 1, skew))) == pytest.approx(size[1], rel=3e-6)
    assert float(experts_hit(*f32(*size, 0, skew))) == 0.0


@given(sizes, draw.between(1, 1e5), draw.between(1e-3, 1), draw.between(1.01, 6))
def test_more_tokens_hit_more_experts_and_skew_fewer(size: tuple, tokens: float, skew: float, more: float) -> None:
    found = float(experts_hit(*f32(*size, tokens, skew)))
    assert float(experts_hit(*f32(*size, tokens * more, skew))) >= found / SLACK
    assert float(experts_hit(*f32(*size, tokens, skew * more))) <= found * SLACK


@given(st.integers(2, 512), st.integers(1, 1000))
def test_without_skew_routing_is_uniform(n_experts: int, tokens: int) -> None:
    chosen = max(n_experts // 16, 1)
    uniform = n_experts * (1.0 - (1.0 - chosen / n_experts) ** tokens)
    assert float(experts_hit(*f32(n_experts, chosen, tokens, 0))) == pytest.approx(uniform, rel=1e-3)


@given(st.integers(0, 5000), st.integers(0, 3000), st.integers(0, 3000), st.sampled_from([1, 128, 2048, np.inf]))
def test_chunks_of_a_prompt_have_the_pairs_of_the_whole(depth: int, first: int, second: int, limit: float) -> None:
    pairs = jax.jit(clipped_pairs)
    parts = float(pairs(*f32(depth, first, limit))) + float(pairs(*f32(depth + first, second, limit)))
    assert float(pairs(*f32(depth, first + second, limit))) == pytest.approx(parts, rel=1e-6)


FASTER = {
    "memory": ("bandwidth_bytes_per_s",),
    "compute": ("peak_flops_per_s", "attention_flops_per_s", "vector_flops_per_s"),
    "links": ("link_bytes_per_s", "allreduce_bytes_per_s", "scale_out_bytes_per_s"),
    "host": ("host_bandwidth_bytes_per_s", "host_flops_per_s", "pcie_bytes_per_s"),
}


@pytest.mark.parametrize("part", FASTER)
@given(machines, steps.groups, steps.prompts, factors)
def test_a_faster_device_is_never_slower(part: str, machine: tuple, decode, prefill, factor: float) -> None:
    model, device, engine, layout = machine
    faster = steps.step((model, times(device, factor, *FASTER[part]), engine, layout), decode, prefill)
    base = steps.step(machine, decode, prefill)
    assert faster.total_s <= base.total_s * SLACK
    # Launches show only as far as they take longer than the work behind which they hide.
    assert np.all(np.delete(faster.seconds, LAUNCH) <= np.delete(base.seconds, LAUNCH) * SLACK)


LONGER = ("layer_s", "eager_layer_s", "ungraphed_layer_s", "moe_layer_s", "mla_layer_s", "linear_layer_s",
          "indexer_layer_s", "gemm_launch_s", "expert_launch_s", "attention_launch_s", "activation_passes",
          "expert_passes", "step_s", "sequence_s", "allreduce_s", "allreduce_log2_s", "allreduce_ramp_s")  # fmt: skip


@given(machines, steps.groups, steps.prompts, draw.between(1.01, 10))
def test_longer_fixed_times_are_never_faster(machine: tuple, decode, prefill, factor: float) -> None:
    model, device, engine, layout = machine
    slower = steps.step((model, device, times(engine, factor, *LONGER), layout), decode, prefill)
    assert slower.total_s * SLACK >= steps.step(machine, decode, prefill).total_s


@given(machines, st.integers(1, 40), st.integers(0, 9000), st.integers(1, 2000))
def test_more_work_is_never_faster(machine: tuple, n: int, context: int, tokens: int) -> None:
    # A fuller batch fills more of a pipeline's stages, and its micro-batches are then smaller: so one stage.
    machine = (*machine[:-1], replace(machine[-1], pp=np.float32(1)))
    base = steps.step(machine, [(n, context)]).total_s
    assert steps.step(machine, [(n + 1, context)]).total_s * SLACK >= base
    assert steps.step(machine, [(n, context + 100)]).total_s * SLACK >= base
    # Attention-DP ranks are taken to be equally loaded, so a small prompt beside a long context would dilute it.
    machine = (*machine[:-1], replace(machine[-1], dp=np.float32(1), ep=np.float32(1)))
    base = steps.step(machine, [(n, context)]).total_s
    assert steps.step(machine, [(n, context)], [(0, tokens)]).total_s * SLACK >= base


@given(machines, steps.groups, steps.prompts)
def test_no_operation_beats_the_peaks(machine: tuple, decode, prefill) -> None:
    model, device, _, _ = machine
    found = steps.step(machine, decode, prefill)
    here = slice(0, COMMUNICATION)
    assert np.all(found.bytes[here] <= found.seconds[here] * device.bandwidth_bytes_per_s * SLACK)
    peaks = [*device.peak_flops_per_s[model.gemm_kernel], device.peak_flops_per_s[model.expert_kernel]]
    peaks += [device.attention_flops_per_s] * 3
    assert np.all(found.flops[here] <= found.seconds[here] * np.asarray(peaks) * SLACK)
    assert found.bytes[here].sum() <= found.total_s * device.bandwidth_bytes_per_s * SLACK


@given(alone, steps.groups, steps.prompts)
def test_one_device_does_not_communicate(machine: tuple, decode, prefill) -> None:
    found = steps.step(machine, decode, prefill)
    assert found.seconds[COMMUNICATION] == found.bytes[COMMUNICATION] == 0.0
    assert found.seconds[HOST] == found.bytes[HOST] == 0.0


@given(alone)
def test_one_token_without_context_reads_each_active_weight_once(machine: tuple) -> None:
    model = machine[0]
    found = steps.step(machine, [(1, 0)])
    active = model.n_moe_layers * model.n_experts_per_token
    gemms = slice(0, len(GEMM_GROUPS))
    np.testing.assert_allclose(found.bytes[gemms], model.gemm_bytes, rtol=3e-6)
    np.testing.assert_allclose(found.flops[gemms], 2.0 * model.gemm_params, rtol=3e-6)
    np.testing.assert_allclose(found.bytes[ROUTED], active * model.expert_bytes, rtol=3e-6)
    np.testing.assert_allclose(found.flops[ROUTED], 2.0 * active * model.expert_params, rtol=3e-6)
    assert found.bytes[INDEXER] == found.flops[INDEXER] == 0.0


@given(machines, steps.groups, steps.prompts, st.sampled_from([0.125, 0.5, 2.0, 16.0]))
def test_time_is_measured_in_any_unit(machine: tuple, decode, prefill, unit: float) -> None:
    model, device, engine, layout = machine
    rates = [n for n in vars(device) if n.endswith("_per_s")]
    latencies = [n for n in vars(device) if n.endswith("latency_s")]
    device = times(times(device, unit, *rates), 1.0 / unit, *latencies)
    engine = times(engine, 1.0 / unit, *(n for n in vars(engine) if n.endswith("_s")))
    found = steps.step((model, device, engine, layout), decode, prefill)
    expected = steps.step(machine, decode, prefill)
    np.testing.assert_allclose(found.seconds * unit, expected.seconds, rtol=3e-6)
    np.testing.assert_array_equal(found.bytes, expected.bytes)


def split_model(machine: tuple, heads: float) -> tuple:
    """The machine with a model of which TP can split everything evenly, and with experts evenly loaded."""
    model, device, engine, layout = machine
    even = np.full_like(model.attn_heads, heads)
    whole = {"attn_heads": even, "attn_kv_heads": even, "state_heads": even}
    model = replace(model, **whole, gemm_replicated_frac=np.zeros_like(model.gemm_replicated_frac))
    unindexed = {"index_entry_bytes": 0 * even, "index_flops_per_entry": 0 * even, "attn_min_heads": 0 * even + 1}
    model = replace(model, **unindexed)
    return model, device, replace(engine, expert_imbalance=np.float32(0)), layout


@given(machines, st.integers(1, 40), st.integers(0, 9000), st.sampled_from([2, 4, 8, 16]), st.booleans())
def test_tp_shards_sum_to_the_whole(machine: tuple, n: int, context: int, tp: int, by_expert: bool) -> None:
    model, device, engine, _ = split_model(machine, 32)
    shards = rows.layout(tp=tp, ep=tp if by_expert else 1)
    sharded = steps.step((model, device, engine, shards), [(n, context)], [(0, 100)])
    whole = steps.step((model, device, engine, rows.layout()), [(n, context)], [(0, 100)])
    split = [o for o in range(COMMUNICATION) if o != ROUTED or not by_expert]
    np.testing.assert_allclose(sharded.bytes[split] * tp, whole.bytes[split], rtol=3e-6)
    np.testing.assert_allclose(sharded.flops[:COMMUNICATION] * tp, whole.flops[:COMMUNICATION], rtol=3e-6)
    assert sharded.bytes[ROUTED] * tp >= whole.bytes[ROUTED] / SLACK  # of its experts a rank reads whole ones


@given(machines, st.integers(1, 10), st.integers(0, 9000), st.sampled_from([2, 4, 8]))
def test_attention_dp_splits_sequences_and_repeats_weights(machine: tuple, n: int, context: int, dp: int) -> None:
    model, device, engine, _ = split_model(machine, 32)
    layout: Layout = rows.layout(dp=dp, ep=dp)
    split = steps.step((model, device, engine, layout), [(n * dp, context)])
    whole = steps.step((model, device, engine, rows.layout()), [(n * dp, context)])
    repeated, shared = slice(0, len(GEMM_GROUPS)), slice(ATTENTION, STATE + 1)
    np.testing.assert_allclose(split.bytes[repeated], whole.bytes[repeated], rtol=3e-6)
    np.testing.assert_allclose(split.bytes[shared] * dp, whole.bytes[shared], rtol=3e-6)
    assert split.bytes[ROUTED] * dp >= whole.bytes[ROUTED] / SLACK
    np.testing.assert_allclose(split.flops[: STATE + 1] * dp, whole.flops[: STATE + 1], rtol=3e-6)
