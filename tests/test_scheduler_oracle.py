"""The reference scheduler against cases worked by hand: every rule alone, in steps of one second each."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from tests.oracle.blocks import BrokenInvariant, Pool
from tests.oracle.replica import LinearCost, Policy, Reference, Requests, linear_cost
from tests.oracle.scheduler import simulate

PREFILL_FIRST = {"mixes_prefill": False}
TIGHT = {"n_blocks": 4, "max_batched_tokens": 4, "whole_gate": False}


def asked(lengths: Sequence[tuple[int, int]], arrival_s: Sequence[float] = (), **loop: float) -> Requests:
    """Requests of (prompt, output) tokens; they all arrive at 0 unless told."""
    times = np.array(arrival_s or np.zeros(len(lengths)), dtype=float)
    return Requests(times, *np.array(lengths).reshape(-1, 2).T, **loop)


def serve(requests: Requests | list[tuple[int, int]], **policy: int) -> Reference:
    """Blocks of 4 tokens, 100 of them, 16 tokens a step and 8 sequences, where the policy does not say otherwise."""
    rules = {"block_tokens": 4, "n_blocks": 100, "max_batched_tokens": 16, "max_sequences": 8} | policy
    return simulate(requests if isinstance(requests, Requests) else asked(requests), Policy(**rules), lambda *_: 1.0)


def batches(found: Reference) -> list[tuple]:
    """(context of the decoding sequences, chunks) of every step; an empty step of decode has no context."""
    return [(step.sum_context, *step.chunks) for step in found.steps]


def test_a_long_prompt_is_cut_to_the_budget():
    found = serve([(10, 2)], max_batched_tokens=4)
    assert batches(found) == [(0, (0, 4, False)), (0, (4, 4, False)), (0, (8, 2, True)), (10,)]
    assert (found.scheduled_s, found.first_token_s, found.finish_s) == (0.0, 3.0, 4.0)
    assert [step.n_blocks for step in found.steps] == [1, 2, 3, 3]


def test_decode_comes_first_and_prompts_share_what_is_left():
    found = serve([(4, 3), (10, 3)], max_batched_tokens=6)
    first, second = (0, (0, 4, True), (0, 2, False)), (4, (2, 5, False))
    assert batches(found) == [first, second, (5, (7, 3, True)), (10,), (11,)]
    assert found.first_token_s.tolist() == [1.0, 3.0]
    assert found.itl_s.tolist() == [1.0] * 4
    assert (found.busy_s, found.running_s, found.blocks_s) == (5.0, 8.0, 2 + 4 + 5 + 3 + 3)


def test_a_request_waits_for_the_end_of_the_step_in_which_it_arrives():
    found = serve(asked([(4, 1)] * 4, [0.0, 0.5, 1.0, 7.25]))
    assert found.scheduled_s.tolist() == [0.0, 1.0, 1.0, 7.25]
    assert found.finish_s.tolist() == [1.0, 2.0, 2.0, 8.25]
    assert found.busy_s == 3.0


def test_sequences_are_limited():
    found = serve([(4, 2)] * 3, max_sequences=1)
    assert found.scheduled_s.tolist() == [0.0, 2.0, 4.0]
    assert found.max_running == 1


def test_the_last_is_preempted_and_keeps_what_it_has_generated():
    found = serve([(4, 8), (4, 8)], n_blocks=4)
    assert batches(found)[4:] == [(14,), (8,), (9,), (10,), (0, (0, 9, True)), (9,), (10,)]
    assert [step.n_preempted for step in found.steps] == [0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0]
    assert found.n_preemptions.tolist() == [0, 1]
    assert found.first_token_s.tolist() == [1.0, 1.0]
    assert found.scheduled_s.tolist() == [0.0, 0.0]
    assert found.finish_s.tolist() == [8.0, 11.0]
    assert sorted(found.itl_s) == [1.0] * 13 + [4.0]
    assert found.max_blocks == 4


def test_a_resumed_request_hits_what_has_not_been_evicted():
    """Its two full blocks go to the queue, the second in front, where the other request takes it."""
    found = serve([(4, 8), (4, 8)], n_blocks=4, caches_prefix=True)
    assert batches(found)[8:] == [(0, (4, 5, True)), (9,), (10,)]
    longer = serve([(4, 8), (8, 8)], n_blocks=5, caches_prefix=True)
    assert [step.n_preempted for step in longer.steps] == [0] * 5 + [1] + [0] * 5
    assert batches(longer)[8:] == [(0, (8, 5, True)), (13,), (14,)]


def test_nobody_is_admitted_in_a_step_that_preempts_and_a_chunked_prompt_preempts_itself():
    found = serve([(4, 8), (4, 8)], **TIGHT)
    sixth, seventh, eighth, ninth = found.steps[5:9]
    assert (sixth.n_preempted, sixth.n_blocks, sixth.chunks) == (1, 3, [])  # a chunk of 3 tokens would fit
    assert (seventh.n_preempted, seventh.n_blocks, seventh.chunks) == (0, 4, [(0, 3, False)])
    assert (eighth.n_preempted, eighth.n_decode, eighth.n_blocks, eighth.chunks) == (1, 1, 3, [])
    assert ninth.chunks == [(0, 4, False)]
    assert found.n_preemptions.tolist() == [0, 2]
    assert found.first_token_s.tolist() == [1.0, 3.0]
    assert found.finish_s.tolist() == [8.0, 14.0]


def test_victims_return_in_their_order():
    """The third makes room for the first, then the second for itself; each has one block that is not shared."""
    found = serve([(5, 9), (5, 9), (5, 9)], n_blocks=4, prefix_tokens=4, caches_prefix=True)
    assert [step.n_preempted for step in found.steps] == [0] * 4 + [2] + [0] * 14
    assert found.n_preemptions.tolist() == [0, 1, 1]
    assert found.finish_s.tolist() == [9.0, 14.0, 19.0]
    assert batches(found)[9] == (0, (4, 5, True))


@pytest.mark.parametrize("whole, scheduled_s", [(True, [0.0, 4.0]), (False, [0.0, 0.0])])
def test_the_gate_asks_for_the_whole_sequence_or_for_the_chunk(whole, scheduled_s):
    found = serve([(4, 4), (13, 1)], n_blocks=4, max_batched_tokens=8, whole_gate=whole)
    assert found.scheduled_s.tolist() == scheduled_s
    assert found.n_preemptions.tolist() == [0, 0 if whole else 2]


@pytest.mark.parametrize("watermark, scheduled_s", [(1, [0.0, 0.0]), (2, [0.0, 2.0]), (50, [0.0, 2.0])])
def test_the_watermark_stays_free_while_something_runs(watermark, scheduled_s):
    found = serve([(4, 2), (8, 2)], n_blocks=4, watermark_blocks=watermark)
    assert found.scheduled_s.tolist() == scheduled_s


def test_nobody_overtakes_the_head_of_the_line():
    found = serve([(8, 4), (12, 1), (1, 1)], n_blocks=4)
    assert found.scheduled_s.tolist() == [0.0, 4.0, 4.0]


def test_a_system_prompt_is_computed_and_held_once():
    requests = asked([(16, 1), (15, 1), (14, 1)], [0.0, 0.0, 5.5])
    cached = serve(requests, prefix_tokens=11, caches_prefix=True, max_batched_tokens=24)
    assert batches(cached) == [(0, (0, 16, True), (8, 7, True)), (0, (8, 6, True))]
    assert [step.n_blocks for step in cached.steps] == [4 + 2, 4]
    plain = serve(requests, prefix_tokens=11, max_batched_tokens=24)
    assert batches(plain) == [(0, (0, 16, True), (0, 8, False)), (0, (8, 7, True)), (0, (0, 14, True))]


def test_a_generated_token_is_no_part_of_the_system_prompt():
    found = serve(asked([(7, 4), (12, 1)], [0.0, 3.5]), prefix_tokens=8, caches_prefix=True)
    assert batches(found)[-1] == (0, (4, 8, True))


def test_the_last_token_is_computed_even_if_its_block_is_cached():
    found = serve([(8, 1), (8, 1)], prefix_tokens=8, caches_prefix=True)
    assert batches(found) == [(0, (0, 8, True), (4, 4, True))]
    assert found.max_blocks == 3


def test_a_free_hit_is_taken_from_the_free_blocks():
    """The first waits with two cached blocks in the queue: they count as free once, not twice."""
    found = serve(asked([(12, 2), (12, 2)], [0.0, 3.0]), n_blocks=4, prefix_tokens=8, caches_prefix=True)
    assert batches(found)[2:] == [(0, (8, 4, True)), (12,)]
    assert found.max_blocks == 4


def test_reserved_blocks_are_held_from_admission_on():
    found = serve([(4, 8), (4, 4)], n_blocks=4, reserves=True)
    assert found.scheduled_s.tolist() == [0.0, 8.0]
    assert [step.n_blocks for step in found.steps] == [3] * 8 + [2] * 4
    assert not found.n_preemptions.any()


def test_prefill_first_stops_decode():
    found = serve(asked([(4, 3), (10, 2), (2, 1)], [0.0, 0.5, 0.5]), max_batched_tokens=4, **PREFILL_FIRST)
    chunks = [((0, 4, True),), ((0, 4, False),), ((4, 4, False),), ((8, 2, True), (0, 2, True))]
    assert batches(found) == [*((0, *c) for c in chunks), (4 + 10,), (5,)]
    assert found.itl_s.tolist() == [4.0, 1.0, 1.0]
    assert [step.n_decode for step in found.steps] == [0, 0, 0, 0, 2, 1]


def test_prefill_first_decodes_beyond_the_budget():
    found = serve([(4, 2)] * 3, max_batched_tokens=2, **PREFILL_FIRST)
    assert [step.n_decode for step in found.steps] == [0] * 6 + [3]


def test_prefill_first_preempts_in_decode():
    found = serve([(4, 8), (4, 8)], n_blocks=4, **PREFILL_FIRST)
    assert batches(found)[4:] == [(14,), (8,), (9,), (10,), (0, (0, 9, True)), (9,), (10,)]
    assert found.n_preemptions.tolist() == [0, 1]


def test_prefill_first_a_prompt_without_blocks_gives_way_to_decode():
    found = serve([(4, 4), (13, 1)], **TIGHT, **PREFILL_FIRST)
    assert [step.n_decode for step in found.steps] == [0, 0, 0, 0, 1, 0, 0, 1, 0, 0, 1, 0, 0, 0, 0]
    assert found.n_preemptions.tolist() == [0, 3]
    assert found.finish_s.tolist() == [11.0, 15.0]


def test_the_line_is_looked_at_every_so_many_steps_while_something_decodes():
    requests = asked([(4, 8), (4, 1), (4, 1)], [0.0, 1.5, 9.25])
    found = serve(requests, admission_steps=3)
    assert found.scheduled_s.tolist() == [0.0, 3.0, 9.25]  # step 8 would be none to look at, but nothing decodes
    assert serve(requests).scheduled_s.tolist() == [0.0, 2.0, 9.25]


def test_prefill_first_looks_by_steps_of_decode_and_goes_on_with_a_prompt():
    requests = asked([(4, 9), (10, 1), (4, 1)], [0.0, 1.5, 4.5])
    found = serve(requests, admission_steps=3, max_batched_tokens=4, **PREFILL_FIRST)
    assert found.scheduled_s.tolist() == [0.0, 4.0, 6.0]
    assert [step.n_decode for step in found.steps] == [0, 1, 1, 1, 0, 0, 0, 0, 1, 1, 1, 1, 1]


def test_a_closed_loop_thinks_between_requests():
    found = serve(asked([(4, 2), (4, 2), (4, 1), (4, 3), (4, 1)], [9.0] * 5, users=2, think_s=0.5))
    assert found.arrival_s.tolist() == [0.0, 0.0, 2.5, 2.5, 4.0]
    assert found.scheduled_s.tolist() == [0.0, 0.0, 2.5, 2.5, 4.5]
    assert found.finish_s.tolist() == [2.0, 2.0, 3.5, 5.5, 5.5]


def test_a_closed_loop_without_thought_goes_on_at_once():
    found = serve(asked([(4, 2)] * 3, users=1))
    assert found.scheduled_s.tolist() == [0.0, 2.0, 4.0]


@pytest.mark.parametrize("loop, arrival_s", [({}, [0.0, 1.0, 1.0]), ({"users": 1}, [np.nan, 0.0, 2.0])])
def test_what_can_never_fit_is_refused_at_the_door(loop, arrival_s):
    fits = serve(asked([(12, 5)]), n_blocks=4)  # the last token is not written to the cache
    assert fits.finish_s.tolist() == [5.0] and fits.max_blocks == 4
    assert serve(asked([(12, 5)]), n_blocks=4, reserves=True).refused.all()
    found = serve(asked([(12, 6), (12, 2), (4, 1)], [0.0, 1.0, 1.0], **loop), n_blocks=4)
    assert found.refused.tolist() == [True, False, False]
    np.testing.assert_array_equal(found.arrival_s, arrival_s)
    assert np.isnan(found.finish_s).tolist() == [True, False, False]
    assert found.steps[0].chunks[0] == (0, 12, True)


def test_nothing_to_do():
    for found in (serve([]), serve([(400, 4)], n_blocks=2)):
        assert (found.steps, found.busy_s, found.max_blocks) == ([], 0.0, 0)


def test_linear_cost():
    cost = LinearCost(1.0, 10.0, 100.0, 1e3, 1e4, 1e5, 1e6)
    assert cost(2, 3, [(4, 2, False), (0, 2, True)]) == 1 + 20 + 300 + 2e3 + 4e4 + 1e5 * (10 + 2) + 1e6
    assert linear_cost(1) == linear_cost(1) != linear_cost(2)


@pytest.mark.parametrize("seconds", [0.0, -1.0, np.nan, np.inf])
def test_a_clock_that_does_not_advance_is_noticed(seconds):
    with pytest.raises(BrokenInvariant, match="a step takes"):
        simulate(asked([(4, 1)]), Policy(4, 4, 4, 4), lambda *_: seconds)


def test_free_blocks_queue_by_what_they_hold():
    """A partial block is taken first, then what was free before, then full blocks, the last of a sequence first."""
    pool = Pool(4)
    full, later, partial = held = pool.allocate(3)
    (other,) = pool.queue
    pool.fill(full, (0, 0))
    pool.fill(later, (0, 1))
    pool.release(held)
    assert list(pool.queue) == [partial, other, later, full]
    pool.share([later])
    assert (list(pool.queue), pool.n_used) == ([partial, other, full], 1)
    pool.allocate(3)
    assert [pool.find((0, i)) for i in range(2)] == [None, later]


def test_blocks_are_watched():
    pool = Pool(2)
    (block,) = pool.allocate(1)
    pool.fill(block, (0, 0))
    for misuse in (lambda: pool.allocate(2), lambda: pool.fill(block, (0, 1)), lambda: pool.release([block, block])):
        with pytest.raises(BrokenInvariant):
            misuse()


@pytest.mark.parametrize(
    "make",
    [
        lambda: asked([(0, 1)]),
        lambda: asked([(1, 0)]),
        lambda: asked([(1, 1)] * 2, [1.0, 0.0]),
        lambda: asked([(1, 1)], [-1.0]),
        lambda: asked([(1, 1)], users=-1),
        lambda: Policy(0, 1, 1, 1),
        lambda: Policy(1, 1, 1, 1, watermark_blocks=-1),
    ],
)
def test_bad_input(make):
    with pytest.raises(ValueError, match="expected"):
        make()
