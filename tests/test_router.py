"""Routers between replicas: against a plain dispatcher over the reference scheduler, laws, and bad input."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sim
from sim.serving.lanes import Rules, serve
from sim.serving.router import dispatch
from sim.serving.runs import deal, gather
from sim.traffic.requests import Requests
from tests.oracle.replica import LinearCost, Policy, linear_cost
from tests.oracle.scenarios import Scenario, scenarios, sharing
from tests.oracle.scheduler import Replica, Request
from tests.serving_tables import linear_table
from tests.test_serving import hashes_of, straight
from tests.test_simulate import DEPLOYMENT, ONE, scenario

ROUTERS = ("least-outstanding", "shortest-queue")
LONGEST = 10**6


def fleet(rules: Rules, cost: LinearCost, replicas: int, router: str) -> Any:
    """As much of a deployment as a dispatcher needs."""
    return SimpleNamespace(table=linear_table(cost), rules=rules, replicas=replicas, router=router, front_s=0.0)


def plainly_dispatched(
    arrival_s: np.ndarray, lengths: list[tuple], policy: Policy, cost: LinearCost, replicas: int, router: str
) -> tuple[list[int], list[Request]]:
    """Who gets what, and what becomes of it: each arrival is looked at on its own, and every request counted."""
    engines, mine = [Replica(policy, cost) for _ in range(replicas)], [[] for _ in range(replicas)]
    chosen, asked = [], []
    for i, (at_s, (prompt, output, *names)) in enumerate(zip(arrival_s.tolist(), lengths, strict=True)):
        for engine in engines:
            while (engine.waiting or engine.running) and engine.clock_s < at_s:
                engine.step()
        outstanding = [sum(not one.finish_s <= at_s for one in its) for its in mine]
        queue = [sum(np.isnan(one.scheduled_s) for one in its) for its in mine]
        loads = list(zip(queue, outstanding, strict=True)) if router == "shortest-queue" else outstanding
        to = loads.index(min(loads))
        request = Request(i, at_s, prompt, output, *names)
        asked.append(request)
        chosen.append(to)
        if policy.holds(prompt, output):
            if not engines[to].waiting and not engines[to].running:
                engines[to].clock_s = max(engines[to].clock_s, at_s)
            engines[to].waiting.append(request)
            mine[to].append(request)
    for engine in engines:
        while engine.waiting or engine.running:
            engine.step()
    return chosen, asked


@given(scenarios() | sharing(), st.sampled_from([2, 3, 4]), st.sampled_from(ROUTERS))
@settings(max_examples=100)
def test_dispatcher_is_the_plain_one(found: Scenario, replicas: int, router: str) -> None:
    cost, asked = straight(found.cost), found.requests
    hashes = hashes_of(asked) if asked.ids else None
    requests = Requests(asked.arrival_s, asked.prompt_tokens, asked.output_tokens, "drawn", hashes=hashes)
    served = fleet(Rules(**asdict(found.policy)), cost, replicas, router)
    replica, outcomes = dispatch(served, requests, LONGEST)
    run = gather(served, requests, replica, outcomes)
    names = [(ids, asked.id_tokens) for ids in asked.ids] or [()] * len(requests)
    both = zip(asked.prompt_tokens.tolist(), asked.output_tokens.tolist(), names, strict=True)
    lengths = [(prompt, output, *named) for prompt, output, named in both]
    chosen, expected = plainly_dispatched(asked.arrival_s, lengths, found.policy, cost, replicas, router)
    assert replica.tolist() == chosen and run.complete
    for name in ("scheduled_s", "first_token_s", "finish_s"):
        times = [getattr(request, name) for request in expected]
        np.testing.assert_allclose(getattr(run, name), times, rtol=1e-9, atol=1e-12, err_msg=name)
    assert run.n_preemptions.tolist() == [request.n_preemptions for request in expected]


def bursts(seed: int, n: int = 600) -> Requests:
    """Ten requests at a time, that keep three replicas of `RULES` busy for two thirds of the time."""
    rng = np.random.default_rng(seed)
    at_s = np.repeat(np.cumsum(rng.exponential(3.0, n // 10)), 10)
    return Requests(at_s, rng.integers(20, 900, n).astype(np.int32), rng.integers(1, 300, n).astype(np.int32), "bursts")


RULES = Rules(block_tokens=16, n_blocks=400, max_batched_tokens=512, max_sequences=8)
COST = replace(linear_cost(1), sequence_s=3e-3)


@pytest.mark.parametrize("router", ROUTERS)
def test_one_replica_behind_a_router_is_that_replica(router: str) -> None:
    requests, served = bursts(0), fleet(RULES, COST, 1, router)
    replica, (routed,) = dispatch(served, requests, LONGEST)
    lanes, alone = deal(served, requests, LONGEST)
    (outcome,) = serve(lanes)
    np.testing.assert_array_equal(replica, alone)
    for name in ("arrival_s", "scheduled_s", "first_token_s", "finish_s", "n_preemptions", "itl_tokens"):
        assert getattr(routed, name).tobytes() == getattr(outcome, name).tobytes(), name
    assert (routed.n_steps, routed.clock_s, routed.totals) == (outcome.n_steps, outcome.clock_s, outcome.totals)


def test_a_router_that_looks_waits_no_longer_than_one_that_does_not() -> None:
    waits: dict[str, list[float]] = {}
    for seed in range(5):
        requests = bursts(seed)
        for router in (*ROUTERS, "round-robin"):
            served = fleet(RULES, COST, 3, router)
            if router in ROUTERS:
                run = gather(served, requests, *dispatch(served, requests, LONGEST))
            else:
                lanes, replica = deal(served, requests, LONGEST)
                run = gather(served, requests, replica, serve(lanes))
            assert run.complete and np.isfinite(run.finish_s).all()
            waits.setdefault(router, []).append(float((run.scheduled_s - run.arrival_s).mean()))
    in_turn = np.array(waits["round-robin"])
    assert in_turn.min() > 0.1
    for router in ROUTERS:
        assert (np.array(waits[router]) <= in_turn).all(), router


@pytest.mark.parametrize("router", ROUTERS)
def test_refused_requests_take_no_place(router: str) -> None:
    requests = bursts(1)
    requests.prompt_tokens[::7] = 100 * RULES.n_blocks  # no replica can hold them
    requests.output_tokens[3] = LONGEST  # nor the context
    served = fleet(RULES, COST, 2, router)
    replica, outcomes = dispatch(served, requests, LONGEST)
    run = gather(served, requests, replica, outcomes)
    assert run.refused[::7].all() and run.too_long.tolist() == [i == 3 for i in range(600)]
    np.testing.assert_array_equal(np.isnan(run.finish_s), run.refused)
    kept = ~run.refused
    without = Requests(requests.arrival_s[kept], requests.prompt_tokens[kept], requests.output_tokens[kept], "kept")
    assert dispatch(served, without, LONGEST)[0].tolist() == replica[kept].tolist()


def test_simulate_routes_and_says_so(tmp_path: Path) -> None:
    three = {**DEPLOYMENT, "replicas": 3}
    each = [{**three, "label": router, "router": router} for router in (*ROUTERS, "round-robin")]
    told: list[tuple[str, int, int]] = []
    traffic = {**ONE, "requests_per_s": 40.0, "n_requests": 200}
    found = sim.simulate(scenario(tmp_path / "a.toml", traffic, *each), progress=lambda *a: told.append(a))
    assert told[-1] == ("requests", 600, 600)
    (turn,) = found.runs["round-robin", 40.0]
    assert turn.replica.tolist() == [i % 3 for i in range(200)]
    for router in ROUTERS:
        (run,) = found.runs[router, 40.0]
        assert set(run.replica.tolist()) == {0, 1, 2} and run.replica.tolist() != turn.replica.tolist()
        assert run.complete and np.isfinite(run.ttft_s).all()
    assert any("in each of 3 replicas, which get a request when" in note for note in found.summary.provenance)


@pytest.mark.parametrize(
    ("traffic", "router", "says"),
    [
        (ONE, "random", 'router: expected "round-robin"'),
        ({"users": 4, "prompt": {"tokens": 9}, "output": {"tokens": 9}}, "shortest-queue", "users of a closed loop"),
        (None, "least-outstanding", 'router = "least-outstanding" is for a simulation: write [traffic]'),
    ],
)
def test_bad_input_is_a_sentence(
    run: Callable[..., tuple[int, str, str]], tmp_path: Path, traffic: dict[str, Any] | None, router: str, says: str
) -> None:
    path = tmp_path / "x.toml"
    plain = {"prompt_tokens": 10, "output_tokens": 10, "concurrency": 1}
    scenario(
        path, traffic or {}, {**DEPLOYMENT, "replicas": 2, "router": router}, **({} if traffic else {"workload": plain})
    )
    path.write_text(path.read_text().replace("traffic = {}\n", ""))
    code, out, err = run("simulate", str(path))
    assert (code, out) == (2, "") and says in err and len(err.splitlines()) == 1
