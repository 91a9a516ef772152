"""The event simulator against the reference scheduler, request by request."""

from __future__ import annotations

from dataclasses import asdict, replace

import numpy as np
from hypothesis import given

from sim.serving.lanes import Lane, Outcome, Rules, serve
from tests.oracle.replica import LinearCost, Policy, Reference, Requests
from tests.oracle.scenarios import Scenario, scenarios
from tests.oracle.scheduler import simulate
from tests.serving_tables import linear_table


def straight(cost: LinearCost) -> LinearCost:
    """A cost that a step table can hold: a decoding sequence costs at least what a token, chunk and logit do."""
    return replace(cost, sequence_s=cost.sequence_s + cost.token_s + cost.chunk_s + cost.finish_s)


def lane_of(requests: Requests, policy: Policy, cost: LinearCost) -> Lane:
    """The simulator's view of a scenario of the reference."""
    return Lane(
        linear_table(cost), Rules(**asdict(policy)), requests.arrival_s, requests.prompt_tokens,
        requests.output_tokens, requests.users, requests.think_s,
    )  # fmt: skip


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


@given(scenarios())
def test_simulator_is_the_reference(scenario: Scenario) -> None:
    cost = straight(scenario.cost)
    reference = simulate(scenario.requests, scenario.policy, cost)
    (outcome,) = serve([lane_of(scenario.requests, scenario.policy, cost)])
    same(outcome, reference)
