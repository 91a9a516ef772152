"""What became of the requests of lanes, from the state that their simulation ended in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import jax
import numpy as np

from kernels.serving_types import (
    END_BLOCKS,
    END_CLOCK,
    END_DONE,
    END_RUNNING,
    END_STEP,
    END_TOTALS,
    ENTRY,
    GENERATED,
    LAST,
    NEVER,
    PREEMPTED,
    SCHEDULED,
    TOTALS,
    State,
)
from kernels.stride import BINS, BINS_PER_OCTAVE, SHORTEST_S

if TYPE_CHECKING:
    from sim.serving.lanes import Group, Lane


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
    timeline: dict[str, np.ndarray]  # clock_s, running, blocks, done, TOTALS by each step with which sequences ended


def outcomes(state: State, group: Group) -> list[Outcome]:
    """What became of the requests of lanes, from the state that they ended in, as numpy arrays."""
    return [_outcome(jax.tree.map(lambda a, i=i: a[i], state), *one) for i, one in enumerate(group)]


def _outcome(state: State, lane: Lane, keep: np.ndarray) -> Outcome:
    """The outcome of one lane from its state, as numpy arrays without the axis of lanes."""
    n, small = int(keep.sum()), state.lane
    whole, ended = state.whole[:n], state.ended[: int(small.n_ended)]
    arrival = _released(ended, lane, n) if lane.users else lane.arrival_s[keep]
    scheduled = np.where(np.arange(n) < int(small.seen), state.times[:n, SCHEDULED], np.nan)
    first, finish = _times(state, whole, ended)

    def spread(values: np.ndarray, empty: float = np.nan) -> np.ndarray:
        all_of_it = np.full(len(keep), empty, values.dtype)
        all_of_it[keep] = values
        return all_of_it

    return Outcome(
        arrival_s=np.where(keep, spread(arrival), np.nan if lane.users else lane.arrival_s),
        scheduled_s=spread(scheduled),
        first_token_s=spread(first),
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
            **{name: ended[:, END_TOTALS + i] for i, name in enumerate(TOTALS)},
        },
    )  # fmt: skip


def _times(state: State, whole: np.ndarray, ended: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(N,) seconds of first and of last tokens; NaN where a request did not come to them."""
    last, generated = whole[:, LAST], whole[:, GENERATED]
    has_first = (last != NEVER) | (generated > 0)
    first = np.where(has_first, state.started[whole[:, ENTRY]], np.nan)
    finish = np.full(len(last), np.nan)
    by_step = (last >= 0) & (last < int(state.lane.step))
    finish[by_step] = ended[np.searchsorted(ended[:, END_STEP], last[by_step]), END_CLOCK]
    at_once = last < -1
    finish[at_once] = state.started[-2 - last[at_once]]
    return first, finish


def _released(ended: np.ndarray, lane: Lane, n: int) -> np.ndarray:
    """Arrivals of a closed loop: the first users at 0, then each after the completion that released it."""
    counts = np.diff(ended[:, END_DONE], prepend=0).astype(int)
    later = np.repeat(ended[:, END_CLOCK], counts) + lane.think_s
    return np.concatenate([np.zeros(min(lane.users, n)), later, np.full(n, np.nan)])[:n]
