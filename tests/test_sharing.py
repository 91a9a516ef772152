"""Prompts that share blocks, named by ids: the event simulator against the reference scheduler, and laws."""

from __future__ import annotations

from dataclasses import replace
from itertools import chain

import numpy as np
from hypothesis import assume, given

from sim.serving.lanes import Lane, serve
from sim.traffic.requests import Hashes
from tests.oracle.scenarios import Scenario, sharing
from tests.oracle.scheduler import simulate
from tests.test_serving import lane_of, same, straight, tied


@given(sharing())
def test_simulator_is_the_reference(scenario: Scenario) -> None:
    requests, policy, cost = scenario
    reference = simulate(requests, policy, straight(cost))
    assume(not tied(requests, reference))
    (outcome,) = serve([lane_from(scenario)])
    same(outcome, reference)
    assert outcome.totals["prompt_hit_tokens"] == reference.n_hit.sum()
