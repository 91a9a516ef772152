"""Prompts that share blocks, named by ids: the event simulator against the reference scheduler, laws, and Mooncake."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import sim
from kernels import serving
from sim.serving.lanes import Lane, Rules, lower, serve
from sim.serving.sharing import prefix_tree
from sim.traffic.requests import Hashes
from sim.traffic.trace import read_trace
from tests.oracle.replica import LinearCost, Policy, Reference, Requests, linear_cost
from tests.oracle.scenarios import Scenario, sharing
from tests.oracle.scheduler import simulate
from tests.serving_tables import linear_table
from tests.test_serving import hashes_of, lane_of, same, straight, tied
from tests.test_serving_laws import PHASES, RING, N, close, each, grouped, identical, in_step, lane_from
from tests.test_simulate import DEPLOYMENT, scenario


def chains(scenario: Scenario, i: int) -> list[tuple]:
    """What names the shared blocks of a prompt: for each the ids up to its end."""
    requests, b = scenario.requests, scenario.policy.block_tokens
    ends = range(b, int(requests.prompt_tokens[i]), b)
    return [(requests.ids[i][: -(-end // requests.id_tokens)], end) for end in ends]


def endless_hits(scenario: Scenario, served: np.ndarray) -> int:
    """Tokens that a cache which forgets nothing would have of the prompts, each after all that come before it."""
    known: set[tuple] = set()
    blocks = 0
    for i in np.flatnonzero(served):
        mine = chains(scenario, i)
        blocks += next((k for k, chain in enumerate(mine) if chain not in known), len(mine))
        known.update(mine)
    return blocks * scenario.policy.block_tokens


@given(sharing())
def test_simulator_is_the_reference(scenario: Scenario) -> None:
    requests, policy, cost = scenario
    reference = simulate(requests, policy, straight(cost))
    assume(not tied(requests, reference))
    (outcome,) = serve([lane_from(scenario)])
    same(outcome, reference)
    assert outcome.totals["prompt_hit_tokens"] == reference.n_hit.sum()
    chunks = sum(n for step in reference.steps for _, n, _ in step.chunks)
    assert outcome.totals["prefill_tokens"] == chunks
    np.testing.assert_allclose(outcome.totals["running_s"], reference.running_s, rtol=1e-9)


@given(sharing())
def test_hits_are_of_the_prompt_and_of_what_came_before(scenario: Scenario) -> None:
    (outcome,) = serve([lane_from(scenario)])
    served = ~outcome.refused
    hits = outcome.totals["prompt_hit_tokens"]
    assert 0 <= hits <= min(endless_hits(scenario, served), (scenario.requests.prompt_tokens[served] - 1).sum())
    assert hits <= outcome.totals["hit_tokens"]


@given(sharing())
def test_a_cache_with_room_for_all_forgets_nothing(scenario: Scenario) -> None:
    requests, policy, cost = scenario
    tokens = requests.prompt_tokens + requests.output_tokens
    roomy = replace(policy, n_blocks=sum(policy.blocks(int(n)) for n in tokens))
    (outcome,) = serve([lane_of(requests, roomy, straight(cost))])
    assert not outcome.n_preemptions.any()
    assert outcome.totals["prompt_hit_tokens"] == endless_hits(scenario, ~outcome.refused)


@given(sharing())
def test_ids_that_nobody_shares_change_nothing(scenario: Scenario) -> None:
    """Nor do ids in an engine without a prefix cache."""
    requests, policy, cost = scenario
    apart = tuple(tuple(range(100 * i, 100 * i + len(ids))) for i, ids in enumerate(requests.ids))
    assume(all(len(ids) < 100 for ids in apart))
    (named,) = serve([lane_of(replace(requests, ids=apart), policy, straight(cost))])
    (plain,) = serve([lane_of(replace(requests, ids=()), policy, straight(cost))])
    close(named, plain)
    uncached = replace(policy, caches_prefix=False)
    lanes = [lane_of(replace(requests, ids=ids), uncached, straight(cost)) for ids in (requests.ids, ())]
    identical(*serve(lanes))


@given(st.tuples(*[sharing()] * 4))
@settings(max_examples=15)
def test_lanes_in_step_are_lanes_one_by_one(chosen: tuple[Scenario, ...]) -> None:
    lanes = [lane_from(scenario) for scenario in chosen]
    lanes[2] = replace(lanes[2], hashes=None)
    for alone, together in zip(serve(lanes), in_step(lanes), strict=True):
        close(alone, together)
        assert alone.totals["prompt_hit_tokens"] == together.totals["prompt_hit_tokens"]


@given(sharing())
@settings(max_examples=20)
def test_room_to_spare_changes_nothing(scenario: Scenario) -> None:
    lane = lane_from(scenario)
    identical(each(lane, N, RING, PHASES), each(lane, 4 * N, 8 * RING, 2 * PHASES))


@given(sharing())
@settings(max_examples=20)
def test_all_blocks_are_free_at_the_end(scenario: Scenario) -> None:
    lane = lane_from(scenario)
    with jax.enable_x64(True):
        tables, which, policy, requests = lower(grouped([lane]), N)
        state = serving.start(policy, requests, RING, PHASES, 2 * N)
        state, _ = serving.advance(tables, which, policy, requests, state, 10**6)
    assert int(state.lane.used_blocks[0]) == 0
    runs = np.asarray(state.runs[0])
    assert runs[0, 3] == 1 and not runs[1:N, 3].any()  # nobody holds an edge but the root
    queue, row = [], runs[0, 1]
    while row:
        queue.append(row)
        row = runs[row, 1]
    owed = int(state.lane.popped[0] - state.lane.paid[0])
    assert runs[queue, 2].sum() + int(state.lane.front[0]) - owed == lane.rules.n_blocks
    assert (runs[queue, 2] > 0).all()
    assert not np.delete(runs[: 2 * N + 1, 2], queue).any()


@given(sharing())
def test_the_tree_holds_what_two_prompts_have_in_common(scenario: Scenario) -> None:
    requests, b = scenario.requests, scenario.policy.block_tokens
    tree, places = prefix_tree(hashes_of(requests), requests.prompt_tokens, b)
    paths = []
    for leaf, end in places:
        path = []
        while leaf:
            path.append(leaf)
            assert tree[leaf, 2] > 0 and tree[leaf, 1] + tree[leaf, 2] == end
            leaf, end = tree[leaf, :2]
        assert end == 0
        paths.append(path)
    for i in range(min(len(paths), 12)):
        for j in range(i):
            mine, other = chains(scenario, i), chains(scenario, j)
            common = next((k for k, pair in enumerate(zip(mine, other, strict=False)) if pair[0] != pair[1]), None)
            common = min(len(mine), len(other)) if common is None else common
            assert tree[list(set(paths[i]) & set(paths[j])), 2].sum() == common


def kinds(scenario: Scenario, found: Reference) -> dict[str, bool]:
    """What a scenario may be an example of."""
    hits, preempts = found.n_hit.any(), found.n_preemptions.any()
    forgets = found.n_hit.sum() < endless_hits(scenario, ~found.refused)
    mode = "mixed" if scenario.policy.mixes_prefill else "prefill first"
    return {
        f"{mode}, hits and preempts": hits and preempts,
        f"{mode}, hits and forgets": hits and forgets,
        "all three, with ids that blocks do not divide": hits and preempts and forgets
        and scenario.requests.id_tokens % scenario.policy.block_tokens > 0,
        "reserves and hits": scenario.policy.reserves and hits,
        "closed loop": scenario.requests.users > 0 and hits,
    }  # fmt: skip


def test_the_random_scenarios_are_of_every_kind() -> None:
    seen: Counter[str] = Counter()

    @settings(max_examples=300)
    @given(sharing())
    def look(scenario: Scenario) -> None:
        seen.update({kind: int(is_one) for kind, is_one in kinds(scenario, simulate(*scenario)).items()})

    look()
    assert {kind: n for kind, n in seen.items() if n < 5} == {}


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="the flag is one of XLA's for CPUs")
def test_the_loop_of_a_lane_is_one_kernel() -> None:
    """And no turn copies a table, nor is a prompt looked for where no lane shares any."""
    three = np.array([100, 101, 102])
    ids = Hashes(np.array([0, 2, 4, 6]), np.array([1, 2, 1, 2, 1, 3]), 64)
    lane = Lane(linear_table(linear_cost(0)), Rules(16, 100, 2048, 8), three * 1.0, three, three - 90, hashes=ids)
    with jax.enable_x64(True):
        tables, which, policy, requests = lower(grouped([lane]), N)
        state = serving.start(policy, requests, RING, PHASES, 2 * N)
        compiled = serving.advance.lower(tables, which, policy, requests, state, 10**6).compile().as_text()
        assert lower(grouped([replace(lane, hashes=None)]), N)[3].tree is None
    assert "xla_cpu_small_call" in compiled
    for name in ("leaving", "calendar", "whole", "times", "started", "ended", "runs"):
        shape = ",".join(map(str, getattr(state, name).shape))
        assert not re.search(rf"\[{shape}\]\S* copy\(", compiled), name


def recorded(trace: Path, n_requests: int, n_blocks: int, slower: float) -> Scenario:
    """The first requests of a Mooncake trace, on an engine of so many blocks."""
    found = read_trace(trace, first=n_requests)
    assert found.hashes is not None and found.prompt_tokens is not None and found.output_tokens is not None
    pairs = zip(found.hashes.offsets, found.hashes.offsets[1:], strict=False)
    ids = tuple(tuple(found.hashes.ids[a:b].tolist()) for a, b in pairs)
    lengths = found.prompt_tokens.astype(int), found.output_tokens.astype(int)
    asked = Requests(slower * found.arrival_s, *lengths, ids=ids, id_tokens=found.hashes.block_tokens)
    cost = LinearCost(0.005, 0.0002, 2e-8, 1e-5, 3e-5, 1e-10, 1e-5)
    return Scenario(asked, Policy(16, n_blocks, 8192, 256, caches_prefix=True), cost)


@pytest.mark.parametrize("name", ["conversation", "synthetic"])
def test_mooncake_is_served_as_by_the_reference(shared: Path, name: str) -> None:
    """Small caches, which forget most; some requests are preempted."""
    trace = shared / "traces" / f"mooncake_{name}_trace.jsonl.gz"
    for n_blocks, slower in ((30_000, 2.0), (9_000, 4.0)):
        requests, policy, cost = recorded(trace, 300, n_blocks, slower)
        reference = simulate(requests, policy, cost)
        (outcome,) = serve([lane_of(requests, policy, cost)])
        same(outcome, reference)
        assert outcome.totals["prompt_hit_tokens"] == reference.n_hit.sum() > 0


def test_a_larger_cache_forgets_less_of_mooncake(shared: Path) -> None:
    """Up to one that forgets nothing."""
    trace, hits = shared / "traces" / "mooncake_conversation_trace.jsonl.gz", []
    for n_blocks in (20_000, 100_000, 400_000, 1_600_000):
        requests, policy, cost = recorded(trace, 1500, n_blocks, 4.0)
        (outcome,) = serve([lane_of(requests, policy, cost)])
        hits.append(outcome.totals["prompt_hit_tokens"])
    assert hits == sorted(hits) and hits[0] < 0.5 * hits[-1]
    assert hits[-1] == endless_hits(Scenario(requests, policy, cost), ~outcome.refused)


def test_an_answer_tells_how_much_of_the_prompts_was_cached(shared: Path, tmp_path: Path) -> None:
    """And where nothing is cached, that the ids go unused."""
    path = str(shared / "traces" / "mooncake_conversation_trace.jsonl.gz")
    traffic = {"path": path, "first": 200, "time_scale": 0.5}
    own = {**DEPLOYMENT, "hardware": "h100-sxm", "weights": "bf16"}
    cached, plain = ({**own, "engine": name, "label": name} for name in ("vllm", "llama.cpp"))
    found = sim.simulate(scenario(tmp_path / "x.toml", traffic, cached, plain))
    (share,) = found.results["vllm"]["prefix_hit_frac"]
    assert 0.02 < share < 0.5
    assert np.isnan(found.results["llama.cpp"]["prefix_hit_frac"]).all()
    told = ["hash_ids" in " ".join(found.results[label].provenance) for label in ("vllm", "llama.cpp")]
    assert told == [False, True]
