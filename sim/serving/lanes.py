"""Lanes: what one engine replica is asked, by which rules and at what cost, and what became of each request.

The only caller of `kernels.serving`. Shapes are rounded up to a few sizes, so that few are compiled.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields

import jax
import numpy as np

from kernels import serving
from kernels.serving_types import (
    END_BLOCKS,
    END_CLOCK,
    END_DONE,
    END_RUNNING,
    END_STEP,
    ENTRY,
    LAST,
    PREEMPTED,
    SCHEDULED,
    TOTALS,
    Policy,
    Requests,
    State,
)  # fmt: skip
from kernels.step_table import StepTable
from kernels.stride import BINS, BINS_PER_OCTAVE, HORIZON, SHORTEST_S

LANES_OF_A_CALL, FEW_LANES = 64, 16
SMALL_ROOM = 1 << 22  # requests times steps of the calendar, of lanes of which many fit into one call
SLICE_TURNS = 1 << 18  # turns between two reports of progress, about half a second
Group = list[tuple["Lane", np.ndarray]]  # lanes of one shape, and (N,) which requests of each are served
Progress = Callable[[int], None]  # told how many requests are done since it was last called


@dataclass(frozen=True)
class Rules:
    """The scheduler of an engine as numbers; see kernels.serving_types.Policy."""

    block_tokens: int
    n_blocks: int  # usable ones
    max_batched_tokens: int
    max_sequences: int
    mixes_prefill: bool = True
    reserves: bool = False
    whole_gate: bool = True
    watermark_blocks: int = 0
    prefix_tokens: int = 0  # of a system prompt that all prompts begin with, and none of them is
    admission_steps: int = 1
    caches_prefix: bool = True

    @property
    def prefix_blocks(self) -> int:
        """Full blocks of the shared prompt."""
        return self.prefix_tokens // self.block_tokens if self.caches_prefix else 0

    def refuses(self, n_tokens: np.ndarray) -> np.ndarray:
        """Which sequences of so many tokens, prompt and output, no empty cache can hold."""
        return -(-n_tokens // self.block_tokens) > self.n_blocks


@dataclass(frozen=True)
class Lane:
    """One replica and its N requests, in order of arrival. In a closed loop (users > 0) arrivals are not looked at."""

    table: StepTable
    rules: Rules
    arrival_s: np.ndarray
    prompt_tokens: np.ndarray
    output_tokens: np.ndarray
    users: int = 0
    think_s: float = 0.0


@dataclass(frozen=True)
class Outcome:
    """What became of a lane's requests, (N,) each; NaN for those that were refused or not reached."""

    arrival_s: np.ndarray
    scheduled_s: np.ndarray
    first_token_s: np.ndarray
    finish_s: np.ndarray
    n_preemptions: np.ndarray
    refused: np.ndarray
    complete: bool  # False: the run met its bound before the last request was done
    n_steps: int
    clock_s: float
    totals: dict[str, float]  # kernels.serving_types.TOTALS
    itl_edges_s: np.ndarray  # (H + 1,) of the histogram of inter-token latencies
    itl_tokens: np.ndarray  # (H,)
    timeline: dict[str, np.ndarray]  # clock_s, running, blocks at each step with which sequences ended


def serve(lanes: Sequence[Lane], *, most_turns: int | None = None, progress: Progress | None = None) -> list[Outcome]:
    """Runs all lanes: on a CPU one after the other on each core, on an accelerator all of one shape in step.

    most_turns bounds each; by default it only stops what makes no headway.
    """
    served = [~lane.rules.refuses(lane.prompt_tokens + lane.output_tokens) for lane in lanes]
    in_step = jax.default_backend() != "cpu"
    by_shape: dict[tuple[int, int, int], list[int]] = {}
    for i, (lane, keep) in enumerate(zip(lanes, served, strict=True)):
        by_shape.setdefault(shape(lane, keep), []).append(i)
    finished: dict[int, Outcome] = {}

    def work(job: tuple[tuple[int, int, int], list[int]]) -> None:
        room, ids = job
        group = [(lanes[i], served[i]) for i in ids]
        run = _in_turn if not in_step and len(ids) > 1 else _in_slices
        finished.update(zip(ids, run(group, room, most_turns, progress), strict=True))

    jobs = [(room, ids) for room, all_ids in by_shape.items() for ids in _portions(all_ids, room, in_step)]
    with ThreadPoolExecutor(1 if in_step else _n_workers()) as pool:
        list(pool.map(work, jobs))
    return [finished[i] for i in range(len(lanes))]


def _portions(ids: list[int], room: tuple[int, int, int], in_step: bool) -> list[list[int]]:
    """Lanes of one shape that are run by one call: many of few requests, else each by itself, in slices."""
    n_portions = 1 if in_step else len(ids)
    if not in_step and len(ids) >= FEW_LANES and room[0] * room[1] <= SMALL_ROOM:
        n_portions = -(-len(ids) // LANES_OF_A_CALL)
    return [ids[i::n_portions] for i in range(n_portions)]


def _n_workers() -> int:
    return max(1, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


def shape(lane: Lane, keep: np.ndarray) -> tuple[int, int, int]:
    """Room for requests, steps of the calendar and phases of a lane, of which `keep` are served: rounded up far, since
    room costs little (100 bytes a request), and another compilation seconds.
    """
    longest = int(lane.output_tokens[keep].max(initial=1))
    return (
        _rounded(int(keep.sum()), 1024, 4),
        _rounded(max(longest + 2, 2 * HORIZON), 512, 8),
        _rounded(lane.rules.block_tokens, 32, 8),
    )


def _rounded(n: int, least: int, factor: int) -> int:
    """The first of least, least·factor, least·factor² ... that is at least n."""
    while least < n:
        least *= factor
    return least


def _power(n: int) -> int:
    return 1 << (n - 1).bit_length()


def _in_slices(
    group: Group, room: tuple[int, int, int], most_turns: int | None, progress: Progress | None
) -> list[Outcome]:
    """Lanes that take their turns together, so many at a time."""
    n, ring, phases = room
    bound = _bound(group, most_turns)
    with jax.enable_x64(True):
        tables, which, policy, requests = lower(group, n)
        state = serving.start(policy, requests, ring, phases, 2 * n)
        taken = done = 0
        while True:
            slice_ = min(SLICE_TURNS, bound - taken)
            state, turns = serving.advance(tables, which, policy, requests, state, slice_)
            taken += int(turns)
            now = int(state.lane.n_done.sum())
            if progress is not None:
                progress(now - done)
            done = now
            if int(turns) < slice_ or taken >= bound:
                return outcomes(jax.tree.map(np.asarray, state), group)


def _in_turn(
    group: Group, room: tuple[int, int, int], most_turns: int | None, progress: Progress | None
) -> list[Outcome]:
    """Lanes one after the other, in one call for LANES_OF_A_CALL of them, the missing ones without requests."""
    n, ring, phases = room
    tables, which, policy, requests = lower(group, n)
    grow = lambda a: np.resize(a, (LANES_OF_A_CALL, *a.shape[1:]))  # noqa: E731
    which, policy, requests = jax.tree.map(grow, (which, policy, requests))
    requests.n_requests[len(group) :] = 0
    with jax.enable_x64(True):
        state = serving.serve_each(tables, which, policy, requests, _bound(group, most_turns), ring, phases)
        state = jax.tree.map(np.asarray, state)
    if progress is not None:
        progress(int(state.lane.n_done.sum()))
    return outcomes(state, group)


def lower(group: Group, n: int) -> tuple[StepTable, np.ndarray, Policy, Requests]:
    """What `kernels.serving` takes of lanes, filled up to n requests each: tables, which of them, rules, requests."""
    tables, which = _tables([lane.table for lane, _ in group])
    policy = _policy([lane.rules for lane, _ in group], [lane for lane, _ in group])
    return tables, which, policy, _requests(group, n)


def outcomes(state: State, group: Group) -> list[Outcome]:
    """What became of the requests of lanes, from the state that they ended in, as numpy arrays."""
    return [_outcome(jax.tree.map(lambda a, i=i: a[i], state), *one) for i, one in enumerate(group)]


def _bound(group: Group, most_turns: int | None) -> int:
    """Turns that suffice unless most work is done over and over: some for each request, chunk and token of a lane."""
    if most_turns is not None:
        return most_turns
    work = []
    for lane, keep in group:
        prompt, output = lane.prompt_tokens[keep].astype(np.int64), lane.output_tokens[keep].astype(np.int64)
        work.append(int((prompt // lane.rules.max_batched_tokens + output + 4).sum()))
    return 20 * max(work) + 1000


def _tables(tables: list[StepTable]) -> tuple[StepTable, np.ndarray]:
    """Distinct tables, stacked, and which one each lane has."""
    index = {id(table): i for i, table in reversed(list(enumerate(tables)))}
    firsts = sorted(set(index.values()))
    place = {first: i for i, first in enumerate(firsts)}
    grown = firsts + [firsts[-1]] * (_power(len(firsts)) - len(firsts))
    stacked = jax.tree.map(lambda *parts: np.array(parts), *(tables[i] for i in grown))
    return stacked, np.array([place[index[id(table)]] for table in tables], np.int32)


def _policy(rules: list[Rules], lanes: list[Lane]) -> Policy:
    kinds = {"mixes_prefill": bool, "reserves": bool, "whole_gate": bool, "caches_prefix": bool}
    columns = {
        f.name: np.array([getattr(r, f.name) for r in rules], kinds.get(f.name, np.int32))
        for f in fields(Policy)
        if f.name not in ("users", "think_s", "n_blocks")
    }
    return Policy(
        **columns,
        n_blocks=np.array([r.n_blocks - r.prefix_blocks for r in rules], np.int32),
        users=np.array([lane.users for lane in lanes], np.int32),
        think_s=np.array([lane.think_s for lane in lanes], np.float64),
    )


def _requests(group: Group, n: int) -> Requests:
    arrival = np.zeros((len(group), n))
    tokens = np.ones((len(group), n, 2), np.int32)
    for i, (lane, keep) in enumerate(group):
        count = int(keep.sum())
        arrival[i, :count] = lane.arrival_s[keep]
        tokens[i, :count] = np.stack([lane.prompt_tokens[keep], lane.output_tokens[keep]], axis=1)
    return Requests(arrival, tokens, np.array([int(keep.sum()) for _, keep in group], np.int32))


def _outcome(state: State, lane: Lane, keep: np.ndarray) -> Outcome:
    """The outcome of one lane from its state, as numpy arrays without the axis of lanes."""
    n, small = int(keep.sum()), state.lane
    whole, times = state.whole[:n], state.times[:n]
    ended = state.ended[: int(small.n_ended)]
    last = whole[:, LAST]
    done = last < int(small.step)
    entry = np.searchsorted(ended[:, END_STEP], last)
    finish = np.where(
        done & (last >= 0), ended[np.minimum(entry, len(ended) - 1), END_CLOCK] if len(ended) else np.nan, np.nan
    )
    at_once = last < -1
    finish[at_once] = state.started[-2 - last[at_once]]
    started = done | (whole[:, PREEMPTED] > 0) | (last < 2**31 - 1)
    arrival = lane.arrival_s[keep] if not lane.users else _released(ended, lane, n)

    def spread(values: np.ndarray, empty: float = np.nan) -> np.ndarray:
        whole_lane = np.full(len(keep), empty, values.dtype)
        whole_lane[keep] = values
        return whole_lane

    return Outcome(
        arrival_s=np.where(keep, spread(arrival), lane.arrival_s if not lane.users else np.nan),
        scheduled_s=spread(np.where(np.arange(n) < int(small.seen), times[:, SCHEDULED], np.nan)),
        first_token_s=spread(np.where(done | started & (last < 2**31 - 1), state.started[whole[:, ENTRY]], np.nan)),
        finish_s=spread(finish),
        n_preemptions=spread(whole[:, PREEMPTED], 0),
        refused=~keep,
        complete=int(small.n_done) == n,
        n_steps=int(small.totals[TOTALS.index("n_steps")]),
        clock_s=float(small.clock_s),
        totals=dict(zip(TOTALS, small.totals.tolist(), strict=True)),
        itl_edges_s=SHORTEST_S * 2.0 ** (np.arange(BINS + 1) / BINS_PER_OCTAVE),
        itl_tokens=state.decoded + state.joined + state.resumed,
        timeline={
            "clock_s": ended[:, END_CLOCK], "running": ended[:, END_RUNNING],
            "blocks": ended[:, END_BLOCKS] + lane.rules.prefix_blocks, "done": ended[:, END_DONE],
        },
    )  # fmt: skip


def _released(ended: np.ndarray, lane: Lane, n: int) -> np.ndarray:
    """Arrivals of a closed loop: the first users at 0, then each after the completion that released it."""
    counts = np.diff(ended[:, END_DONE], prepend=0).astype(int)
    later = np.repeat(ended[:, END_CLOCK], counts) + lane.think_s
    return np.concatenate([np.zeros(min(lane.users, n)), later, np.full(n, np.nan)])[:n]
