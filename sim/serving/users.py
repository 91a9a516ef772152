"""Users of a closed loop who begin and think each in their own time."""

from __future__ import annotations

from dataclasses import replace

import jax
import numpy as np

from kernels import serving, users
from sim.serving.lanes import SLICE_TURNS, Lane, Progress, lower, most, power, shape
from sim.serving.outcomes import Outcome, outcomes


def converse(lane: Lane, ready_s: np.ndarray, thought_s: np.ndarray, progress: Progress | None = None) -> Outcome:
    """What becomes of the requests of a lane's users.

    ready_s: (users,) when each asks first; thought_s: (N,) seconds thought before what the n-th answer releases.
    """
    keep = ~lane.rules.refuses(lane.prompt_tokens + lane.output_tokens)
    n, n_kept = shape(lane, keep)[0], int(keep.sum())
    open_lane = replace(lane, users=0, think_s=0.0)
    ready = np.full(power(max(len(ready_s), 64)), np.inf)
    ready[: len(ready_s)] = ready_s
    bound, taken, done = most(lane, keep) + 2 * n_kept, 0, 0
    with jax.enable_x64(True):
        tables, which, policy, asked = lower([(open_lane, keep)], n)
        state = serving.start(policy, asked, *shape(lane, keep)[1:], 2 * n)
        asked = jax.tree.map(jax.numpy.asarray, replace(asked, n_requests=np.zeros(1, np.int32)))
        those, thoughts = users.arrive(jax.numpy.asarray(ready)), np.resize(thought_s, n)
        while True:
            slice_ = np.int64(min(SLICE_TURNS, bound - taken))
            asked, state, those, turns = users.ask(
                tables, which, policy, asked, state, those, thoughts, np.int32(n_kept), slice_
            )
            taken += int(turns)
            now = int(state.lane.n_done[0])
            if progress is not None:
                progress(now - done)
            done = now
            if int(turns) < slice_ or taken >= bound:
                break
        arrival_s = np.full(len(keep), np.nan)
        arrival_s[np.flatnonzero(keep)[: int(asked.n_requests[0])]] = asked.arrival_s[0, : int(asked.n_requests[0])]
    (found,) = outcomes(jax.tree.map(np.asarray, state), [(replace(open_lane, arrival_s=arrival_s), keep)])
    return found
