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
from kernels.serving_types import Policy, Requests
from kernels.step_table import StepTable
from kernels.stride import HORIZON
from sim.serving.outcomes import Outcome, outcomes
from sim.serving.sharing import prefix_tree
from sim.traffic.requests import Hashes

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
        """Which sequences of so many tokens, prompt and output, no empty cache can hold.

        The last token is never written to it, but an engine that reserves has a place for it.
        """
        return -(-(n_tokens - (not self.reserves)) // self.block_tokens) > self.n_blocks


@dataclass(frozen=True)
class Lane:
    """One replica and its N requests, in order of arrival. In a closed loop (users > 0) arrivals are not looked at."""

    table: StepTable
    rules: Rules
    arrival_s: np.ndarray
    prompt_tokens: np.ndarray
    output_tokens: np.ndarray
    users: int = 0
    think_s: float = 0.0  # from a last token to the next request of that user, with the engine's front end
    warmup: int = 0  # first requests; the inter-token latencies until the next one starts are not counted
    hashes: Hashes | None = None  # what its prompts share

    @property
    def shares(self) -> bool:
        """Whether its prompts may find one another's blocks in the cache."""
        return self.hashes is not None and self.rules.caches_prefix


def serve(lanes: Sequence[Lane], *, most_turns: int | None = None, progress: Progress | None = None) -> list[Outcome]:
    """Runs all lanes: on a CPU one after the other on each core, on an accelerator all of one shape in step.

    most_turns bounds each; by default it only stops what makes no headway.
    """
    served = [~lane.rules.refuses(lane.prompt_tokens + lane.output_tokens) for lane in lanes]
    in_step = jax.default_backend() != "cpu"
    by_shape: dict[tuple[tuple[int, int, int], bool], list[int]] = {}
    for i, (lane, keep) in enumerate(zip(lanes, served, strict=True)):
        by_shape.setdefault((shape(lane, keep), lane.shares), []).append(i)
    finished: dict[int, Outcome] = {}

    def work(job: tuple[tuple[int, int, int], list[int]]) -> None:
        room, ids = job
        group = [(lanes[i], served[i]) for i in ids]
        run = _in_turn if not in_step and len(ids) > 1 else _in_slices
        finished.update(zip(ids, run(group, room, most_turns, progress), strict=True))

    jobs = [(room, ids) for (room, _), all_ids in by_shape.items() for ids in _portions(all_ids, room, in_step)]
    with ThreadPoolExecutor(1 if in_step else n_workers()) as pool:
        list(pool.map(work, jobs))
    return [finished[i] for i in range(len(lanes))]


def _portions(ids: list[int], room: tuple[int, int, int], in_step: bool) -> list[list[int]]:
    """Lanes of one shape that are run by one call: many of few requests, else each by itself, in slices."""
    n_portions = 1 if in_step else len(ids)
    if not in_step and len(ids) >= FEW_LANES and room[0] * room[1] <= SMALL_ROOM:
        n_portions = -(-len(ids) // LANES_OF_A_CALL)
    return [ids[i::n_portions] for i in range(n_portions)]


def n_workers() -> int:
    """Cores that may be used."""
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


def power(n: int) -> int:
    """The next power of two."""
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
    return tables, which, _policy(group), _requests(group, n)


def _bound(group: Group, most_turns: int | None) -> int:
    return max(most(lane, keep) for lane, keep in group) if most_turns is None else most_turns


def most(lane: Lane, keep: np.ndarray) -> int:
    """Turns that suffice for a lane unless most work is done over and over: some for each request, chunk and token."""
    prompt, output = lane.prompt_tokens[keep].astype(np.int64), lane.output_tokens[keep].astype(np.int64)
    return int(20 * (prompt // lane.rules.max_batched_tokens + output + 4).sum()) + 1000


def _tables(tables: list[StepTable]) -> tuple[StepTable, np.ndarray]:
    """Distinct tables, stacked, and which one each lane has."""
    index = {id(table): i for i, table in reversed(list(enumerate(tables)))}
    firsts = sorted(set(index.values()))
    place = {first: i for i, first in enumerate(firsts)}
    grown = firsts + [firsts[-1]] * (power(len(firsts)) - len(firsts))
    stacked = jax.tree.map(lambda *parts: np.array(parts), *(tables[i] for i in grown))
    return stacked, np.array([place[index[id(table)]] for table in tables], np.int32)


def _policy(group: Group) -> Policy:
    lanes = [lane for lane, _ in group]
    rules = [lane.rules for lane in lanes]
    names = [f.name for f in fields(Policy) if f.name not in ("users", "think_s", "warmup", "n_blocks")]
    columns = {name: np.array([getattr(r, name) for r in rules]) for name in names}
    return Policy(
        **{name: values if values.dtype == bool else values.astype(np.int32) for name, values in columns.items()},
        n_blocks=np.array([r.n_blocks - r.prefix_blocks for r in rules], np.int32),
        users=np.array([lane.users for lane in lanes], np.int32),
        think_s=np.array([lane.think_s for lane in lanes], np.float64),
        warmup=np.array([int(keep[: lane.warmup].sum()) for lane, keep in group], np.int32),
    )


def _requests(group: Group, n: int) -> Requests:
    arrival = np.zeros((len(group), n))
    shares = any(lane.shares for lane, _ in group)
    tokens = np.zeros((len(group), n, 4 if shares else 2), np.int32)
    tokens[:, :, :2] = 1
    tree = np.zeros((len(group), n, 3), np.int32) if shares else None
    for i, (lane, keep) in enumerate(group):
        count = int(keep.sum())
        arrival[i, :count] = lane.arrival_s[keep]
        own, shared = rows(lane, keep)
        tokens[i, :count, : own.shape[1]] = own
        if tree is not None and shared is not None:
            tree[i, :count] = shared
    return Requests(arrival, tokens, np.array([int(keep.sum()) for _, keep in group], np.int32), tree)


def rows(lane: Lane, keep: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """(K, 2) prompt and output tokens of the requests that are served, and None; where prompts share, (K, 4) with the
    place of each in the (K, 3) tree of what they share.
    """
    prompt, output = lane.prompt_tokens[keep], lane.output_tokens[keep]
    if lane.hashes is None or not lane.rules.caches_prefix:
        return np.stack([prompt, output], axis=1), None
    tree, places = prefix_tree(lane.hashes.take(np.flatnonzero(keep), prompt), prompt, lane.rules.block_tokens)
    return np.concatenate([np.stack([prompt, output], axis=1), places], axis=1), tree
