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


def hashes_of(ids: tuple[tuple[int, ...], ...], id_tokens: int) -> Hashes:
    """The reference's ids as the simulator has them."""
    offsets = np.concatenate([[0], np.cumsum([len(one) for one in ids])]).astype(np.int64)
    return Hashes(offsets, np.array(list(chain.from_iterable(ids)), np.int64), id_tokens)


def lane_from(scenario: Scenario) -> Lane:
    """A random scenario as a lane."""
    requests, policy, cost = scenario
    lane = lane_of(requests, policy, straight(cost))
    return replace(lane, hashes=hashes_of(requests.ids, requests.id_tokens))


@given(sharing())
def test_simulator_is_the_reference(scenario: Scenario) -> None:
    requests, policy, cost = scenario
    reference = simulate(requests, policy, straight(cost))
    assume(not tied(requests, reference))
    (outcome,) = serve([lane_from(scenario)])
    same(outcome, reference)
    assert outcome.totals["prompt_hit_tokens"] == reference.n_hit.sum()
