"""Laws of the closed loop and its costs, over random machines and workloads."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernels.economics import economics
from kernels.loop import mixing
from kernels.memory import memory
from kernels.steady import steady
from kernels.types import Device, Economics, Steady
from tests import draw

SLACK = 1.0 + 1e-5  # float32
DOLLARS = np.float32(1e-3), np.float32(1e-7)
pytestmark = pytest.mark.usefixtures("no_nans")
machines = st.tuples(draw.models(), draw.devices(), draw.engines(), draw.layouts(), draw.workloads())
roomy = st.tuples(draw.models(), draw.devices(), draw.engines(), draw.layouts(hosts=False, dps=(1,)), draw.workloads())


@jax.jit
def _loop(model, device, engine, layout, load, usd_per_s, usd_per_j) -> tuple[Steady, Economics]:
    state = steady(model, device, engine, layout, load, memory(model, device, engine, layout, load))
    return state, economics(device, engine, layout, load, state, usd_per_s, usd_per_j)


def loop(machine: tuple) -> Steady:
    """The steady state as numpy."""
    return jax.tree.map(np.asarray, _loop(*machine, *DOLLARS)[0])


def costs(machine: tuple, usd_per_s: float, usd_per_j: float) -> Economics:
    """Costs at these prices, as numpy."""
    return jax.tree.map(np.asarray, _loop(*machine, np.float32(usd_per_s), np.float32(usd_per_j))[1])


def times(pytree: Any, factor: float, *names: str) -> Any:
    """The pytree with these fields multiplied."""
    return replace(pytree, **{name: np.float32(factor) * getattr(pytree, name) for name in names})


def with_users(machine: tuple, users: float) -> tuple:
    """The machine with so many users for each replica."""
    layout, load = machine[3:]
    return *machine[:-1], replace(load, concurrency=np.float32(users) * layout.replicas)


@given(machines)
def test_littles_law(machine: tuple) -> None:
    load = machine[-1]
    found = loop(machine)
    assert float(found.requests_per_s * found.e2e_s) == pytest.approx(float(load.concurrency), rel=1e-5)


@given(machines)
def test_a_request_is_its_first_token_and_the_others(machine: tuple) -> None:
    found, output = loop(machine), machine[-1].output_tokens
    assert float(found.ttft_s + (output - 1) * found.tpot_s) == pytest.approx(float(found.e2e_s), rel=1e-5)
    assert found.tpot_s > 0.0
    assert found.ttft_s >= machine[2].request_s
    assert found.tpot_s >= found.decode_step_s / SLACK


@given(machines)
def test_a_lone_user_waits_for_nobody(machine: tuple) -> None:
    found = loop(with_users(machine, 1))
    assert float(found.tpot_s) == pytest.approx(float(found.decode_step_s), rel=1e-6)
    assert float(found.ttft_s) == pytest.approx(float(machine[2].request_s + found.prefill_s), rel=1e-5)


@given(machines, st.integers(2, 9))
def test_replicas_do_not_know_of_each_other(machine: tuple, n: int) -> None:
    *rest, layout, load = machine
    one = loop((*rest, replace(layout, replicas=np.float32(1)), load))
    many = loop((*rest, replace(layout, replicas=np.float32(n)), times(load, n, "concurrency")))
    assert float(many.requests_per_s) == pytest.approx(n * float(one.requests_per_s), rel=1e-5)
    for name in ("ttft_s", "tpot_s", "e2e_s", "mbu_frac", "mfu_frac"):
        assert float(getattr(many, name)) == pytest.approx(float(getattr(one, name)), rel=1e-4), name


@given(machines, st.integers(2, 9))
def test_idle_replicas_change_nothing_for_a_lone_user(machine: tuple, n: int) -> None:
    *rest, layout, load = machine
    load = replace(load, concurrency=np.float32(1))
    one, many = (loop((*rest, replace(layout, replicas=np.float32(r)), load)) for r in (1, n))
    for name in ("ttft_s", "tpot_s", "e2e_s", "requests_per_s"):
        assert float(getattr(many, name)) == pytest.approx(float(getattr(one, name)), rel=1e-5), name


FASTER = {
    "memory": ("bandwidth_bytes_per_s",),
    "compute": ("peak_flops_per_s", "attention_flops_per_s", "vector_flops_per_s"),
    "links": ("link_bytes_per_s", "allreduce_bytes_per_s", "scale_out_bytes_per_s"),
}


@pytest.mark.parametrize("part", FASTER)
@given(machines, draw.between(1.01, 10))
def test_a_faster_device_serves_tokens_no_slower(part: str, machine: tuple, factor: float) -> None:
    """Only TTFT may grow: where decode is faster, the users of a closed loop are back in line sooner."""
    model, device, *rest = machine
    base, faster = loop(machine), loop((model, times(device, factor, *FASTER[part]), *rest))
    for name in ("tpot_s", "decode_step_s", "prefill_s", "e2e_s"):
        assert getattr(faster, name) <= getattr(base, name) * SLACK, name
    assert faster.requests_per_s >= base.requests_per_s / SLACK


@given(machines, draw.between(1.01, 100))
def test_more_users_wait_longer(machine: tuple, factor: float) -> None:
    more = (*machine[:-1], times(machine[-1], factor, "concurrency"))
    assert loop(more).e2e_s >= loop(machine).e2e_s / SLACK


@given(roomy, st.sampled_from([1, 2, 3, 8, 50, 300]), st.sampled_from([2, 3, 10]))
def test_more_users_never_lower_the_throughput(machine: tuple, users: int, factor: int) -> None:
    """On one rank and stage; to 3 %, as the steps that a fuller batch spends on prompts are counted as a mean."""
    machine = (*machine[:3], replace(machine[3], pp=np.float32(1)), machine[4])
    few, many = (loop(with_users(machine, n)).requests_per_s for n in (users, users * factor))
    assert many >= 0.97 * few


@given(roomy, st.integers(1000, 4000), draw.between(1, 16))
def test_users_who_wait_do_not_slow_down_those_who_run(machine: tuple, users: int, more: float) -> None:
    """Beyond what memory or the engine lets run, more users change only the wait."""
    base, crowd = loop(with_users(machine, users)), loop(with_users(machine, round(users * more)))
    running = base.running_sequences / machine[3].replicas
    assert running > 0.99 * users or crowd.requests_per_s >= base.requests_per_s * 0.99


@given(machines, draw.between(1.5, 4))
def test_longer_outputs_and_prompts_take_longer(machine: tuple, factor: float) -> None:
    base = loop(with_users(machine, 1)).e2e_s
    for name in ("prompt_tokens", "output_tokens"):
        longer = (*machine[:-1], times(machine[-1], factor, name, "context_tokens"))
        assert loop(with_users(longer, 1)).e2e_s >= base / SLACK, name


@given(machines, st.sampled_from([0.125, 0.5, 2.0, 16.0]))
def test_time_is_measured_in_any_unit(machine: tuple, unit: float) -> None:
    model, device, engine, layout, load = machine
    rates = [n for n in vars(device) if n.endswith("_per_s")]
    latencies = [n for n in vars(device) if n.endswith("latency_s")]
    device = times(times(device, unit, *rates), 1.0 / unit, *latencies)
    engine = times(engine, 1.0 / unit, *(n for n in vars(engine) if n.endswith("_s")))
    base, found = loop(machine), loop((model, device, engine, layout, load))
    for name in ("ttft_s", "tpot_s", "e2e_s", "decode_step_s", "prefill_s"):
        assert float(getattr(found, name)) * unit == pytest.approx(float(getattr(base, name)), rel=1e-4), name
    assert float(found.requests_per_s) == pytest.approx(unit * float(base.requests_per_s), rel=1e-4)
    assert float(found.mbu_frac) == pytest.approx(float(base.mbu_frac), rel=1e-4)


def one_rate(device: Device) -> Device:
    """The device with units that are all as fast as that of attention."""
    return replace(device, peak_flops_per_s=np.full_like(device.peak_flops_per_s, device.attention_flops_per_s))


@given(machines)
def test_no_device_is_used_beyond_its_peaks(machine: tuple) -> None:
    model, device, *rest = machine
    found = loop((model, one_rate(device), *rest))
    assert 0.0 <= found.mbu_frac <= SLACK
    assert 0.0 <= found.mfu_frac <= SLACK


@given(roomy)
def test_as_many_prompts_are_prefilled_as_outputs_end(machine: tuple) -> None:
    """While a request spends its prefill and its O steps, R prompts pass in mixed steps of c tokens at most. On one
    stage: the steps of a prompt through several overlap.
    """
    model, device, engine, layout, load = machine
    engine, layout = replace(engine, mixes_prefill=np.float32(1)), replace(layout, pp=np.float32(1))
    load = replace(load, prompt_tokens=load.prompt_tokens + 64, context_tokens=load.context_tokens + 64)
    running = loop((model, device, engine, layout, load)).running_sequences / layout.replicas
    chunk, share = (float(n) for n in mixing(engine, layout, running, load.prompt_tokens, load.output_tokens))
    budget = float(engine.max_batched_tokens)
    assert chunk + running <= budget * SLACK
    stay = load.output_tokens + max(load.prompt_tokens / (budget - running), 1.0)
    prefilled = chunk * share * stay
    assert 0.9 <= (prefilled + 1.0) / ((running - 1.0) * load.prompt_tokens + 1.0) <= 1.001


@given(machines, draw.between(1e-5, 1e-2), draw.between(1e-9, 1e-6), draw.between(1.0, 10))
def test_a_dearer_device_is_never_cheaper(machine: tuple, usd_per_s: float, usd_per_j: float, factor: float) -> None:
    base = costs(machine, usd_per_s, usd_per_j)
    for dearer in (costs(machine, usd_per_s * factor, usd_per_j), costs(machine, usd_per_s, usd_per_j * factor)):
        for name in ("usd_per_hour", "usd_per_output_token", "usd_per_token"):
            assert getattr(dearer, name) >= getattr(base, name) / SLACK
        assert dearer.power_w == base.power_w


@given(machines, draw.between(1e-5, 1e-2), draw.between(1e-9, 1e-6))
def test_tokens_pay_for_the_hour(machine: tuple, usd_per_s: float, usd_per_j: float) -> None:
    device, layout, load = machine[1], machine[3], machine[4]
    found, money = loop(machine), costs(machine, usd_per_s, usd_per_j)
    outputs = found.requests_per_s * load.output_tokens * 3600.0
    tokens = found.requests_per_s * (load.output_tokens + load.prompt_tokens) * 3600.0
    assert float(money.usd_per_output_token * outputs) == pytest.approx(float(money.usd_per_hour), rel=1e-5)
    assert float(money.usd_per_token * tokens) == pytest.approx(float(money.usd_per_hour), rel=1e-5)
    n_devices = layout.tp * layout.pp * layout.dp * layout.replicas
    assert n_devices * device.idle_w <= money.power_w * SLACK
    assert money.power_w <= n_devices * (device.tdp_w + device.host_power_w) * SLACK
    assert float(money.joules_per_token * outputs) == pytest.approx(float(money.power_w) * 3600.0, rel=1e-5)


def run_of(machine: tuple, n_requests: float, spread: float = 1.0) -> Steady:
    """The steady state of a benchmark of so many requests for each user."""
    load = machine[-1]
    asked = {"n_requests": np.float32(n_requests) * load.concurrency, "length_spread": np.float32(spread)}
    return loop((*machine[:-1], replace(load, **asked)))


@given(machines, st.sampled_from([1, 10, 1000]))
def test_a_run_differs_from_the_endless_loop_in_its_first_tokens_alone(machine: tuple, n: int) -> None:
    endless, found = loop(machine), run_of(machine, n)
    assert float(found.requests_per_s * found.e2e_s) <= float(machine[-1].concurrency) * SLACK
    assert found.requests_per_s <= endless.requests_per_s * SLACK
    assert found.ttft_s >= machine[2].request_s
    for name in ("running_sequences", "decode_step_s", "prefill_s"):
        assert getattr(found, name) == getattr(endless, name), name


@given(machines)
def test_a_long_run_of_many_lengths_is_an_endless_loop(machine: tuple) -> None:
    machine = (*machine[:2], replace(machine[2], lockstep_frac=np.float32(0)), *machine[3:])
    endless, found = loop(machine), run_of(machine, 1e6)
    for name in ("ttft_s", "tpot_s", "e2e_s"):
        assert float(getattr(found, name)) == pytest.approx(float(getattr(endless, name)), rel=1e-3), name


@given(machines, st.sampled_from([2, 10, 100]))
def test_a_lone_user_needs_no_opening(machine: tuple, n: int) -> None:
    machine = with_users(machine, 1)
    assert float(run_of(machine, n).ttft_s) == pytest.approx(float(loop(machine).ttft_s), rel=1e-5)


@given(machines, st.integers(2, 50))
def test_who_looks_seldom_keeps_waiting(machine: tuple, steps: int) -> None:
    model, device, engine, *rest = machine
    often, seldom = (loop((model, device, replace(engine, admission_steps=np.float32(n)), *rest)) for n in (1, steps))
    assert seldom.ttft_s + SLACK - 1.0 >= often.ttft_s / SLACK or seldom.tpot_s < often.tpot_s
