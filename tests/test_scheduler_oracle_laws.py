"""Laws of the reference scheduler on random scenarios, and that these are as crowded and odd as they should be."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
from hypothesis import given, settings

from tests.oracle.replica import Reference
from tests.oracle.scenarios import Scenario, scenarios
from tests.oracle.scheduler import simulate


def lengths(scenario: Scenario, found: Reference) -> tuple[np.ndarray, np.ndarray]:
    """(prompt, output) tokens of the requests that are served."""
    requests = scenario.requests
    return requests.prompt_tokens[~found.refused], requests.output_tokens[~found.refused]


def same(a: Reference, b: Reference, scale: float = 1.0) -> None:
    """Two records are equal, the times of the second so many times the first's."""
    for name in ("arrival_s", "scheduled_s", "first_token_s", "finish_s"):
        np.testing.assert_array_equal(scale * getattr(a, name), getattr(b, name), err_msg=name)
    timeless = [[replace(step, seconds=0.0, clock_s=0.0) for step in found.steps] for found in (a, b)]
    assert timeless[0] == timeless[1]


@given(scenarios())
def test_tokens_out_are_tokens_asked(scenario):
    found = simulate(*scenario)
    prompts, outputs = lengths(scenario, found)
    sampled = sum(step.n_decode + sum(finishes for *_, finishes in step.chunks) for step in found.steps)
    assert sampled == outputs.sum()
    assert len(found.itl_s) == (outputs - 1).sum()
    lived = np.nansum(found.finish_s - found.first_token_s)
    np.testing.assert_allclose(found.itl_s.sum(), lived, rtol=1e-9, atol=1e-12)
    prefilled = sum(n for step in found.steps for _, n, _ in step.chunks)
    if not (scenario.policy.caches_prefix or found.n_preemptions.any()):
        assert prefilled == prompts.sum()
        stored = np.concatenate([np.arange(p, p + o - 1) for p, o in zip(prompts, outputs, strict=True)] or [[]])
        assert sum(step.sum_context for step in found.steps) == stored.sum()


@given(scenarios())
def test_time_goes_forward_and_nobody_overtakes(scenario):
    found = simulate(*scenario)
    for earlier, later in (("arrival_s", "scheduled_s"), ("scheduled_s", "first_token_s")):
        assert np.all((getattr(found, earlier) <= getattr(found, later))[~found.refused])
    assert np.all((found.scheduled_s < found.first_token_s)[~found.refused])
    assert np.all((found.first_token_s <= found.finish_s)[~found.refused])
    for name in ("arrival_s", "scheduled_s", "first_token_s"):
        assert np.all(np.diff(getattr(found, name)[~found.refused]) >= 0), name
    clock = np.array([0.0] + [step.clock_s for step in found.steps])
    assert np.all(np.diff(clock) > 0)
    assert found.busy_s <= clock[-1] * (1 + 1e-12)


@given(scenarios())
def test_a_step_keeps_its_limits(scenario):
    found, policy = simulate(*scenario), scenario.policy
    for step in found.steps:
        prefill = sum(n for _, n, _ in step.chunks)
        assert prefill + step.n_decode * policy.mixes_prefill <= policy.max_batched_tokens
        assert policy.mixes_prefill or not (step.chunks and step.n_decode)
        assert step.n_decode + len(step.chunks) <= step.n_running <= policy.max_sequences
        assert 0 < step.n_blocks <= found.max_blocks <= policy.n_blocks
        assert all(depth >= 0 and n > 0 for depth, n, _ in step.chunks)
        assert policy.caches_prefix or step.n_blocks * policy.block_tokens >= step.sum_context
        assert all(finishes for *_, finishes in step.chunks[:-1])  # only the last prompt is cut short
    assert sum(step.n_preempted for step in found.steps) == found.n_preemptions.sum()
    assert not (policy.reserves and found.n_preemptions.any())


@given(scenarios())
def test_a_closed_loop_keeps_its_users(scenario):
    requests, found = scenario.requests, simulate(*scenario)
    if requests.users:
        arrival, finish = found.arrival_s[~found.refused], np.sort(found.finish_s[~found.refused])
        np.testing.assert_array_equal(arrival[: requests.users], 0.0)
        np.testing.assert_array_equal(
            arrival[requests.users :], finish[: len(arrival[requests.users :])] + requests.think_s
        )
        assert found.max_running <= requests.users
    else:
        np.testing.assert_array_equal(found.arrival_s, requests.arrival_s)


@given(scenarios())
def test_requests_one_at_a_time_queue_as_lindley_says(scenario):
    """finish_i = max(arrival_i, finish_(i−1)) + service_i, with a service that follows from the lengths alone."""
    policy = replace(scenario.policy, max_sequences=1, caches_prefix=False)
    found = simulate(scenario.requests, policy, scenario.cost)
    clock = 0.0
    for i in np.flatnonzero(~found.refused):
        prompt, output = int(scenario.requests.prompt_tokens[i]), int(scenario.requests.output_tokens[i])
        starts = range(0, prompt, policy.max_batched_tokens)
        ends = [min(start + policy.max_batched_tokens, prompt) for start in starts]
        chunks = [(start, end - start, end == prompt) for start, end in zip(starts, ends, strict=True)]
        service = sum(scenario.cost(0, 0, [chunk]) for chunk in chunks)
        service += sum(scenario.cost(1, context, []) for context in range(prompt, prompt + output - 1))
        clock = max(clock, found.arrival_s[i]) + service
        np.testing.assert_allclose(found.finish_s[i], clock, rtol=1e-11)


@given(scenarios())
def test_the_unit_of_time_changes_nothing(scenario):
    requests, policy, cost = scenario
    slower = replace(requests, arrival_s=8.0 * requests.arrival_s, think_s=8.0 * requests.think_s)
    same(simulate(*scenario), simulate(slower, policy, lambda *batch: 8.0 * cost(*batch)), 8.0)


@given(scenarios())
def test_with_room_for_all_the_rules_of_blocks_change_nothing(scenario):
    requests, policy, cost = scenario
    tokens = requests.prompt_tokens + requests.output_tokens
    roomy = replace(policy, n_blocks=int(sum(policy.blocks(int(n)) for n in tokens)), caches_prefix=False)
    found = simulate(requests, replace(roomy, reserves=False, watermark_blocks=0), cost)
    assert not found.n_preemptions.any()
    others = ({"whole_gate": not policy.whole_gate}, {"caches_prefix": True, "prefix_tokens": 0})
    for other in others:
        same(found, simulate(requests, replace(roomy, reserves=False, watermark_blocks=0, **other), cost))
    reserved = simulate(requests, replace(roomy, reserves=True), cost)
    np.testing.assert_array_equal(found.finish_s, reserved.finish_s)


@given(scenarios())
def test_without_a_cache_the_system_prompt_is_like_any_other(scenario):
    requests, policy, cost = scenario
    plain = replace(policy, caches_prefix=False)
    same(simulate(requests, plain, cost), simulate(requests, replace(plain, prefix_tokens=0), cost))


def kinds(scenario: Scenario, found: Reference) -> dict[str, int]:
    """What a scenario may be an example of, and 1 if it is."""
    requests, policy = scenario.requests, scenario.policy
    mode = "mixed" if policy.mixes_prefill else "prefill first"
    held = {
        f"{mode}, preempts": found.n_preemptions.any(),
        f"{mode}, preempts again": (found.n_preemptions > 1).any(),
        "a resumed request hits": policy.prefix_tokens < policy.block_tokens and hits(found),
        "the system prompt is hit": policy.prefix_tokens >= policy.block_tokens and hits(found),
        "reserves": policy.reserves,
        "blocks all in use": found.max_blocks == policy.n_blocks,
        "refuses": found.refused.any(),
        "closed loop": requests.users > 0,
        "idle between": bool(found.steps) and found.busy_s < 0.9 * found.steps[-1].clock_s,
        "simultaneous": not requests.users and (np.diff(requests.arrival_s) == 0).any(),
        "equal lengths": len(requests.arrival_s) > 5 and len(set(requests.output_tokens.tolist())) == 1,
    }
    return {kind: int(is_one) for kind, is_one in held.items()}


def hits(found: Reference) -> bool:
    """Whether some admission began with tokens from the cache: fewer chunks begin at 0 than requests are admitted."""
    from_nothing = sum(depth == 0 for step in found.steps for depth, *_ in step.chunks)
    return from_nothing < (~found.refused).sum() + found.n_preemptions.sum()


def test_the_random_scenarios_are_of_every_kind():
    seen: Counter[str] = Counter()

    @settings(max_examples=300)
    @given(scenarios())
    def look(scenario: Scenario) -> None:
        found = simulate(*scenario)
        seen.update(kinds(scenario, found))

    look()
    assert {kind: n for kind, n in seen.items() if n < 3} == {}
