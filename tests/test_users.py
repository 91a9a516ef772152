"""Users who begin and think each in their own time: beside the loop of users who are all alike, and beside queues."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from sim.serving.lanes import Lane, Rules, serve
from sim.serving.users import converse
from sim.traffic import Traffic, draw
from tests.oracle.replica import LinearCost
from tests.oracle.scenarios import Scenario, scenarios
from tests.oracle.scheduler import simulate
from tests.serving_tables import linear_table
from tests.test_serving import straight, tied
from tests.test_serving_laws import close, lane_from


@given(scenarios())
@settings(max_examples=30)
def test_users_who_are_alike_are_those_of_the_loop(scenario: Scenario) -> None:
    assume(scenario.requests.users > 0)
    assume(not tied(scenario.requests, simulate(scenario.requests, scenario.policy, straight(scenario.cost))))
    lane = lane_from(scenario)
    (expected,) = serve([lane])
    found = converse(lane, np.zeros(lane.users), np.full(len(lane.arrival_s), lane.think_s))
    assert found.complete
    close(expected, found)


@given(scenarios(), st.integers(0, 2**32 - 1))
@settings(max_examples=30)
def test_each_asks_when_it_is_ready_and_the_rest_is_an_open_loop(scenario: Scenario, seed: int) -> None:
    """Arrivals are starts, and answers and thoughts later; served as an open loop they come to the same."""
    assume(scenario.requests.users > 0)
    rng, lane = np.random.default_rng(seed), lane_from(scenario)
    thought_s = rng.exponential(10 * scenario.cost.step_s, len(lane.arrival_s))
    ready_s = np.sort(rng.uniform(0, 30 * scenario.cost.step_s, lane.users))
    found = converse(lane, ready_s, thought_s)
    kept = ~found.refused
    arrival_s = found.arrival_s[kept]
    answers = np.sort(found.finish_s[kept]) + thought_s[: kept.sum()]
    np.testing.assert_allclose(arrival_s, np.sort(np.concatenate([ready_s, answers]))[: kept.sum()], rtol=1e-12)
    (again,) = serve([replace(lane, users=0, arrival_s=np.where(kept, found.arrival_s, 0.0))])
    for name in ("scheduled_s", "first_token_s", "finish_s"):
        np.testing.assert_allclose(getattr(again, name), getattr(found, name), rtol=1e-9)


def test_what_users_do_is_drawn_of_the_seed() -> None:
    given_ = {"users": [5, 50], "think_s": 20.0, "n_requests": 5000, "replications": 2,
              "prompt": {"tokens": 10}, "output": {"tokens": 5}}  # fmt: skip
    traffic = Traffic.model_validate(given_)
    few, many, other = (draw(traffic, *at) for at in ((5.0, 0), (50.0, 0), (5.0, 1)))
    assert few.ready_s is not None and few.thought_s is not None and many.thought_s is not None
    assert few.ready_s.tolist() == [0.0, 4.0, 8.0, 12.0, 16.0]  # over one think_s, unless ramp_up_s is given
    assert (few.warmup, many.warmup) == (10, 100)
    assert few.thought_s.mean() == pytest.approx(20, rel=0.05)
    assert few.thought_s.std() == pytest.approx(20, rel=0.05)
    np.testing.assert_array_equal(few.thought_s, many.thought_s)
    assert other.thought_s is not None and not np.array_equal(few.thought_s, other.thought_s)
    at_once = Traffic.model_validate({**given_, "ramp_up_s": 0.0, "think_cv": 0.0, "warmup_requests": 0})
    assert draw(at_once, 5.0).ready_s is None and draw(at_once, 5.0).warmup == 0


def test_a_turn_among_many_users_costs_little_more_than_among_few() -> None:
    """It must not go over all of them: 32,768 would take a hundred times as long as 64."""
    n = 32_768
    cost, one = LinearCost(1e-3, 1e-6, 1e-9, 1e-7, 1e-7, 0, 1e-7), np.ones(n, np.int32)
    lane = Lane(linear_table(cost), Rules(16, 10_000, 2048, 256), np.zeros(n), one, one)
    rng, took = np.random.default_rng(1), {}
    for users in (64, n):
        ready_s, thought_s = np.arange(users) * 1.0, rng.exponential(users, n)
        for _ in range(2):  # the first compiles
            start = time.perf_counter()
            assert converse(replace(lane, users=users), ready_s, thought_s).complete
            took[users] = time.perf_counter() - start
    assert took[n] < 15 * took[64]
