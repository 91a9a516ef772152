"""Random small scenarios of one replica, as a hypothesis strategy: ordinary, idle, crowded and odd ones."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
from hypothesis import strategies as st

from tests.oracle.replica import LinearCost, Policy, Requests, linear_cost

LONGEST_PROMPT, LONGEST_OUTPUT, LONGEST_PREFIX = 200, 80, 70
OUTPUTS, CROWDED_OUTPUTS = [(1, 1), (1, 8), (1, LONGEST_OUTPUT)], [(1, LONGEST_OUTPUT), (40, LONGEST_OUTPUT)]
Lengths = list[tuple[int, int]]  # (prompt, output) tokens of each request


class Scenario(NamedTuple):
    """What `simulate` takes, in its order."""

    requests: Requests
    policy: Policy
    cost: LinearCost


@st.composite
def scenarios(draw: st.DrawFn, most_requests: int = 60) -> Scenario:
    """Scenarios of 1 to `most_requests` requests. Every prompt is longer than the system prompt that it begins with.

    No two events tie, except where they do so by the rules: simultaneous arrivals, and no time to think.
    Half of the scenarios are crowded: outputs are long, and few of those that run together find the blocks to finish.
    """
    cost = linear_cost(draw(st.integers(0, 2**32 - 1)))
    crowded = draw(st.booleans())
    prefix = draw(st.just(0) | st.integers(1, LONGEST_PREFIX))
    lengths = draw(length_lists(most_requests, prefix + 1, crowded))
    block_tokens = draw(st.sampled_from([1, 4, 16, 32]))
    return Scenario(draw(loops(lengths, cost)), draw(policies(lengths, block_tokens, prefix, crowded)), cost)


@st.composite
def length_lists(draw: st.DrawFn, most_requests: int, least_prompt: int, crowded: bool) -> Lengths:
    """All of one length, or each of its own; some with prompts or outputs that are all short."""
    longest_prompt = draw(st.sampled_from([least_prompt, least_prompt + 20, LONGEST_PROMPT]))
    least_output, longest_output = draw(st.sampled_from(CROWDED_OUTPUTS if crowded else OUTPUTS))
    one = st.tuples(st.integers(least_prompt, longest_prompt), st.integers(least_output, longest_output))
    n = draw(st.integers(most_requests // 6 + 1 if crowded else 1, most_requests))
    one_for_all = draw(st.sampled_from([False, False, True]))
    return [draw(one)] * n if one_for_all else draw(st.lists(one, min_size=n, max_size=n))


@st.composite
def loops(draw: st.DrawFn, lengths: Lengths, cost: LinearCost) -> Requests:
    """Open loop with gaps from none to many steps, or a closed one with up to 20 users."""
    n = len(lengths)
    tick_s = cost.step_s * draw(st.sampled_from([0.1234567, 1.0987654, 10.345678]))
    prompts, outputs = np.array(lengths).T
    if draw(st.booleans()):
        think_s = tick_s * draw(st.sampled_from([0, 1, 30]))
        return Requests(np.zeros(n), prompts, outputs, draw(st.integers(1, 20)), think_s)
    gap = draw(st.sampled_from([st.just(0), st.integers(0, 3), st.integers(0, 50), st.sampled_from([0, 0, 0, 200])]))
    return Requests(tick_s * np.cumsum(draw(st.lists(gap, min_size=n, max_size=n))), prompts, outputs)


@st.composite
def policies(draw: st.DrawFn, lengths: Lengths, block_tokens: int, prefix_tokens: int, crowded: bool) -> Policy:
    """All flags; a pool from barely enough for the largest request to plenty, now and then too small for some."""
    needs = [-(-(prompt + output) // block_tokens) for prompt, output in lengths]
    largest = max(needs)
    some = st.integers(min(needs), max(largest - 1, min(needs)))
    pools = [st.integers(largest, largest + 3), st.integers(largest, 4 * largest), some]
    if not crowded:
        pools.append(st.integers(largest, largest + sum(needs)))
    mixes_prefill, max_sequences = draw(st.booleans()), draw(st.integers(4 if crowded else 1, 32))
    return Policy(
        block_tokens=block_tokens,
        n_blocks=draw(draw(st.sampled_from(pools))),
        max_batched_tokens=draw(st.integers(max(max_sequences, 8) if mixes_prefill else 8, 256)),
        max_sequences=max_sequences,
        mixes_prefill=mixes_prefill,
        reserves=draw(st.booleans()) and not crowded,
        whole_gate=draw(st.booleans()),
        watermark_blocks=draw(st.sampled_from([0, 0, 1, 5])),
        prefix_tokens=prefix_tokens,
        admission_steps=draw(st.sampled_from([1] * 9 + [2, 3, 4, 5, 6, 7])),
        caches_prefix=draw(st.booleans()),
    )


@st.composite
def sharing(draw: st.DrawFn, most_requests: int = 60) -> Scenario:
    """Scenarios whose prompts are named piece by piece: each takes up another's names for a while, then its own."""
    requests, policy, cost = draw(scenarios(most_requests))
    id_tokens = draw(st.sampled_from([1, 2, 4]).map(lambda n: n * policy.block_tokens) | st.integers(5, 70))
    fresh = iter(range(10**6))
    named: list[tuple[int, ...]] = []
    for prompt in requests.prompt_tokens:
        n = -(-int(prompt) // id_tokens)
        other = named[draw(st.integers(0, len(named) - 1))] if named and draw(st.integers(0, 4)) else ()
        kept = other[: draw(st.sampled_from([n, n, n // 2, 1]))]
        named.append(kept[:n] + tuple(next(fresh) for _ in range(n - len(kept[:n]))))
    asked = replace(requests, ids=tuple(named), id_tokens=id_tokens)
    return Scenario(asked, replace(policy, prefix_tokens=0, caches_prefix=True), cost)
