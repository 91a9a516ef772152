"""The event simulator against the reference scheduler, request by request."""

from __future__ import annotations

from dataclasses import asdict, replace
from itertools import chain

import numpy as np
from hypothesis import assume, given

from sim.serving.lanes import Lane, Outcome, Rules, serve
from sim.traffic.requests import Hashes
from tests.oracle.replica import LinearCost, Policy, Reference, Requests
from tests.oracle.scenarios import Scenario, scenarios
from tests.oracle.scheduler import simulate
from tests.serving_tables import linear_table

TIE = 1e-9  # of a time


def straight(cost: LinearCost) -> LinearCost:
    """A cost that a step table can hold: a decoding sequence costs at least what a token, chunk and logit do."""
    return replace(cost, sequence_s=cost.sequence_s + cost.token_s + cost.chunk_s + cost.finish_s)


def lane_of(requests: Requests, policy: Policy, cost: LinearCost) -> Lane:
    """The simulator's view of a scenario of the reference."""
    return Lane(
        linear_table(cost), Rules(**asdict(policy)), requests.arrival_s, requests.prompt_tokens,
        requests.output_tokens, requests.users, requests.think_s, hashes=hashes_of(requests) if requests.ids else None,
    )  # fmt: skip


def hashes_of(requests: Requests) -> Hashes:
    """The reference's names of pieces of prompts, as the simulator has them."""
    offsets = np.concatenate([[0], np.cumsum([len(ids) for ids in requests.ids])])
    return Hashes(offsets, np.array(list(chain.from_iterable(requests.ids)), np.int64), requests.id_tokens)


def same(outcome: Outcome, reference: Reference) -> None:
    """Integers identical, times to 1e-9."""
    np.testing.assert_array_equal(outcome.refused, reference.refused)
    np.testing.assert_array_equal(outcome.n_preemptions, reference.n_preemptions)
    assert outcome.complete
    assert outcome.n_steps == len(reference.steps)
    for name in ("scheduled_s", "first_token_s", "finish_s", "arrival_s"):
        np.testing.assert_allclose(
            getattr(outcome, name), getattr(reference, name), rtol=1e-9, atol=1e-12, err_msg=name
        )
    same_latencies(outcome, reference)


def same_latencies(outcome: Outcome, reference: Reference) -> None:
    """As many inter-token latencies, and their sum, but for the width of a bin."""
    low, high = outcome.itl_edges_s[:-1], outcome.itl_edges_s[1:]
    assert outcome.itl_tokens.sum() == len(reference.itl_s)
    expected = reference.itl_s.sum() * (1 + np.array([-1e-9, 1e-9]))
    assert np.dot(outcome.itl_tokens, low) <= expected[1]
    assert np.dot(outcome.itl_tokens, high) >= expected[0]


def tied(requests: Requests, reference: Reference) -> bool:
    """Whether a user's thought ends with a step, to rounding.

    The step that such an arrival joins hangs on the last digit of sums of seconds, which the simulator adds up stride
    by stride and the reference step by step.
    """
    arrival_s = reference.arrival_s[np.nan_to_num(reference.arrival_s) > 0]
    if not requests.users or not requests.think_s or not len(arrival_s):
        return False
    clock_s = np.array([step.clock_s for step in reference.steps])
    after = np.searchsorted(clock_s, arrival_s)
    near = [clock_s[np.clip(after + i, 0, len(clock_s) - 1)] for i in (-1, 0)]
    return bool(np.min(np.abs(arrival_s - near) / near) < TIE)


@given(scenarios())
def test_simulator_is_the_reference(scenario: Scenario) -> None:
    cost = straight(scenario.cost)
    reference = simulate(scenario.requests, scenario.policy, cost)
    assume(not tied(scenario.requests, reference))
    (outcome,) = serve([lane_of(scenario.requests, scenario.policy, cost)])
    same(outcome, reference)
