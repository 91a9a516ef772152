"""Laws of the event simulator that need no reference: what is conserved, what is bounded, what does not matter."""

from __future__ import annotations

import re
from dataclasses import astuple, fields, replace

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels import serving
from kernels.serving_types import COUNT, DATE, DATED, State
from sim.serving.lanes import Group, Lane, Outcome, Rules, lower, outcomes, serve
from tests.oracle.replica import LinearCost, linear_cost
from tests.oracle.scenarios import Scenario, scenarios
from tests.serving_tables import linear_table
from tests.test_serving import lane_of, straight

N, RING, PHASES = 64, 128, 32  # shapes that hold any of the random scenarios
RTOL = 1e-9


def lane_from(scenario: Scenario) -> Lane:
    """A random scenario as a lane."""
    return lane_of(scenario.requests, scenario.policy, straight(scenario.cost))


def grouped(lanes: list[Lane]) -> Group:
    """Lanes with the requests of each that are served."""
    return [(lane, ~lane.rules.refuses(lane.prompt_tokens + lane.output_tokens)) for lane in lanes]


def in_step(lanes: list[Lane], n_turns: int = 10**6) -> list[Outcome]:
    """Outcomes of lanes that take their turns together, as on a GPU."""
    group = grouped(lanes)
    with jax.enable_x64(True):
        tables, which, policy, requests = lower(group, N)
        state = serving.start(policy, requests, RING, PHASES, 2 * N)
        state, _ = serving.advance(tables, which, policy, requests, state, n_turns)
        return outcomes(jax.tree.map(np.asarray, state), group)


def each(lane: Lane, n: int, ring: int, phases: int) -> Outcome:
    """The outcome of a lane in tables of other sizes."""
    group = grouped([lane])
    with jax.enable_x64(True):
        tables, which, policy, requests = lower(group, n)
        state = serving.start(policy, requests, ring, phases, 2 * n)
        state, _ = serving.advance(tables, which, policy, requests, state, 10**6)
        return outcomes(jax.tree.map(np.asarray, state), group)[0]


def arrays(outcome: Outcome) -> dict[str, np.ndarray]:
    """All that an outcome holds, by name."""
    parts = {f.name: getattr(outcome, f.name) for f in fields(outcome)}
    parts |= {f"timeline {k}": v for k, v in parts.pop("timeline").items()}
    return {name: np.asarray(list(v.values()) if isinstance(v, dict) else v) for name, v in parts.items()}


def identical(one: Outcome, other: Outcome) -> None:
    """The same bytes."""
    for (name, a), b in zip(arrays(one).items(), arrays(other).values(), strict=True):
        assert a.dtype == b.dtype and a.tobytes() == b.tobytes(), name


def close(one: Outcome, other: Outcome, scale: float = 1.0, shift_s: float = 0.0) -> None:
    """Integers identical, times equal but for a factor, or a delay, to rounding."""
    assert one.n_steps == other.n_steps
    np.testing.assert_array_equal(one.n_preemptions, other.n_preemptions)
    for name in ("arrival_s", "scheduled_s", "first_token_s", "finish_s"):
        expected = scale * getattr(one, name) + shift_s
        np.testing.assert_allclose(getattr(other, name), expected, RTOL, 1e-12, err_msg=name)


@given(scenarios())
def test_no_request_is_lost_or_done_twice(scenario: Scenario) -> None:
    lane = lane_from(scenario)
    (outcome,) = serve([lane])
    done = np.isfinite(outcome.finish_s)
    np.testing.assert_array_equal(done, ~outcome.refused)
    assert outcome.complete
    ended = outcome.timeline["done"]
    assert np.all(np.diff(ended, prepend=0) > 0) and ended[-1:].sum() == done.sum()
    clock = outcome.timeline["clock_s"]  # each step with which sequences end, with as many as it ends
    at = np.repeat(clock, np.diff(ended, prepend=0).astype(int))
    np.testing.assert_array_equal(at, np.sort(outcome.finish_s[done]))


@given(scenarios())
def test_tokens_out_are_tokens_asked(scenario: Scenario) -> None:
    """A token comes of each step of a sequence in decode, and of each prompt that ends, recomputed ones included."""
    lane = lane_from(scenario)
    (outcome,) = serve([lane])
    asked = lane.output_tokens[~outcome.refused]
    assert outcome.itl_tokens.sum() == (asked - 1).sum()
    rest = asked.sum() - outcome.totals["decode_tokens"] - len(asked)
    assert 0 <= rest <= outcome.n_preemptions.sum()
    prompts = lane.prompt_tokens[~outcome.refused].sum()
    computed = outcome.totals["prefill_tokens"] + outcome.totals["hit_tokens"]
    assert computed >= prompts
    if not outcome.n_preemptions.any():
        assert computed == prompts


@given(scenarios())
def test_times_of_a_request_are_in_order(scenario: Scenario) -> None:
    """First come, first served; every TTFT positive; the last token with the first only where there is one."""
    lane = lane_from(scenario)
    (outcome,) = serve([lane])
    kept = ~outcome.refused
    arrival, scheduled, first, finish = (
        getattr(outcome, name)[kept] for name in ("arrival_s", "scheduled_s", "first_token_s", "finish_s")
    )
    assert np.all(np.diff(arrival) >= 0) and np.all(np.diff(scheduled) >= 0)
    assert np.all(scheduled >= arrival) and np.all(first > scheduled) and np.all(finish >= first)
    np.testing.assert_array_equal(finish == first, lane.output_tokens[kept] == 1)
    assert np.all(np.diff(outcome.timeline["clock_s"]) > 0)
    assert 0.0 <= outcome.totals["busy_s"] <= outcome.clock_s * (1 + RTOL)
    assert np.max(finish, initial=0.0) == outcome.clock_s


@given(scenarios())
@settings(max_examples=12)
def test_every_turn_keeps_the_books(scenario: Scenario) -> None:
    """Blocks never above the total, the clock never back, the calendar in step with the batch; all empty at the end."""
    lane = lane_from(scenario)
    with jax.enable_x64(True):
        tables, which, policy, requests = lower(grouped([lane]), N)
        state, clock_s, n_done = serving.start(policy, requests, RING, PHASES, 2 * N), 0.0, 0
        while int(state.lane.n_done[0]) < int(requests.n_requests[0]):
            state, _ = serving.advance(tables, which, policy, requests, state, 1)
            now = jax.tree.map(np.asarray, state)
            keeps_books(now, lane)
            assert now.lane.clock_s[0] >= clock_s and now.lane.n_done[0] >= n_done
            clock_s, n_done = now.lane.clock_s[0], now.lane.n_done[0]
    small = jax.tree.map(np.asarray, state.lane)
    for name in ("used_blocks", "n_decode", "context_sum", "need_blocks"):
        assert getattr(small, name)[0] == 0, name
    assert not np.any(small.phases)


def keeps_books(state: State, lane: Lane) -> None:
    """What holds between any two turns."""
    small = jax.tree.map(lambda a: a[0], state.lane)
    n_running = small.n_decode + small.forming.n_logits
    date, count = np.divmod(state.leaving[0], DATED)
    row = state.calendar[0]
    ending = small.forming.ending[COUNT]
    assert np.sum(count[date >= small.step]) + ending == n_running
    assert np.sum(row[row[:, DATE] >= small.step, COUNT]) + ending == n_running
    assert 0 <= small.used_blocks + lane.rules.prefix_blocks <= lane.rules.n_blocks
    assert 0 <= n_running + (small.partial >= 0) <= lane.rules.max_sequences
    assert 0 <= small.n_done <= small.seen <= len(lane.arrival_s)
    assert 0 <= small.forming.left_tokens <= lane.rules.max_batched_tokens


@given(st.lists(scenarios(), min_size=2, max_size=5))
@settings(max_examples=15)
def test_a_lane_alone_is_a_lane_among_others(chosen: list[Scenario]) -> None:
    lanes = [lane_from(scenario) for scenario in chosen]
    for lane, together in zip(lanes, serve(lanes), strict=True):
        identical(serve([lane])[0], together)


@given(st.tuples(*[scenarios()] * 4))
@settings(max_examples=10)
def test_lanes_in_step_are_lanes_one_by_one(chosen: tuple[Scenario, ...]) -> None:
    """Two compilations, which round differently in the last digit."""
    lanes = [lane_from(scenario) for scenario in chosen]
    for alone, together in zip(serve(lanes), in_step(lanes), strict=True):
        close(alone, together)


@given(scenarios())
def test_room_to_spare_changes_nothing(scenario: Scenario) -> None:
    lane = lane_from(scenario)
    small, large = each(lane, N, RING, PHASES), each(lane, 4 * N, 8 * RING, 2 * PHASES)
    identical(small, large)
    identical(serve([lane])[0], small)


@given(scenarios())
def test_time_has_no_unit(scenario: Scenario) -> None:
    """All costs, arrivals and thinking twice as long: all results twice as long."""
    requests, policy, cost = scenario
    doubled = replace(requests, arrival_s=2.0 * requests.arrival_s, think_s=2.0 * requests.think_s)
    twice = LinearCost(*(2.0 * seconds for seconds in astuple(straight(cost))))
    (one,), (other,) = serve([lane_from(scenario)]), serve([lane_of(doubled, policy, twice)])
    close(one, other, scale=2.0)


@given(scenarios(), st.floats(0.0, 100.0))
def test_time_has_no_origin(scenario: Scenario, shift_s: float) -> None:
    requests, policy, cost = scenario
    if not requests.users:
        later = lane_of(replace(requests, arrival_s=requests.arrival_s + shift_s), policy, straight(cost))
        close(serve([lane_from(scenario)])[0], serve([later])[0], shift_s=shift_s)


@given(scenarios(), st.integers(1, 400))
def test_a_bound_on_turns_is_marked(scenario: Scenario, n_turns: int) -> None:
    """What was reached by then is as it would have been; the rest has no times."""
    lane = lane_from(scenario)
    (whole,), (cut,) = serve([lane]), serve([lane], most_turns=n_turns)
    done = np.isfinite(cut.finish_s)
    np.testing.assert_array_equal(cut.finish_s[done], whole.finish_s[done])
    assert cut.complete == bool(np.all(done | cut.refused))
    assert cut.clock_s <= whole.clock_s


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="the flag is one of XLA's for CPUs")
def test_the_loop_of_a_lane_is_one_kernel() -> None:
    """A lane's loop is called, not dispatched operation by operation, which would take ten times as long; and no turn
    copies a table.
    """
    few = np.arange(1, 4)
    lane = Lane(linear_table(linear_cost(0)), Rules(16, 100, 2048, 8), few * 1.0, few, few)
    with jax.enable_x64(True):
        tables, which, policy, requests = lower(grouped([lane]), N)
        state = serving.start(policy, requests, RING, PHASES, 2 * N)
        compiled = serving.advance.lower(tables, which, policy, requests, state, 10**6).compile().as_text()
    assert "xla_cpu_small_call" in compiled
    for name in ("leaving", "calendar", "whole", "times", "started", "ended"):
        shape = ",".join(map(str, getattr(state, name).shape))
        assert not re.search(rf"\[{shape}\]\S* copy\(", compiled), name
