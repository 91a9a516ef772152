"""The part of a run that its figures are over: which requests, and from when to when."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sim.serving.runs import Run


@dataclass(frozen=True)
class Window:
    """The requests after the warm-up, and the seconds from the first of them to arrive to the last one.

    While requests arrive a deployment is at its load: what starts it, and what it works off when nothing comes any
    more, is left out of rates and means. In a closed loop each replica has users of its own: there it is from when all
    replicas have warmed up to when the first of them has no further arrivals, so that nobody who should ask is missing.
    Where by the last arrival fewer than half of these requests are done, the time goes on until as many are left as
    were done by then, with the engine's front end (or to the bound that the run met): of a batch that is offered
    at once to the last token, and of an overload the less, the more was done, so that no figure jumps here.
    """

    measured: np.ndarray  # (N,) bool
    start_s: float
    end_s: float

    @property
    def seconds(self) -> float:
        """How long it is."""
        return self.end_s - self.start_s

    def within(self, times_s: np.ndarray) -> np.ndarray:
        """Which of these times, NaN among them, are in it, its ends included."""
        return (times_s >= self.start_s) & (times_s <= self.end_s)

    def done(self, finish_s: np.ndarray) -> np.ndarray:
        """Which of these are done in it: not with its very start, so that of answers that come together, again and
        again, as many are counted as there are rounds.
        """
        return (finish_s > self.start_s) & (finish_s <= self.end_s)


def measured_of(run: Run) -> np.ndarray:
    """(N,) bool: requests after the warm-up."""
    return np.arange(len(run.refused)) >= run.requests.warmup


def window_of(run: Run) -> Window:
    """The window of a run; NaN seconds where nothing ran."""
    measured = measured_of(run)
    arrives = _arrives(run)
    if not arrives.any():
        return Window(measured, np.nan, np.nan)
    start, end = _ends(run, arrives)
    finish, n = np.sort(run.finish_s[measured]), int(np.count_nonzero(arrives))  # NaN last
    by_then = int(np.count_nonzero(finish <= end))
    if end <= start or 2 * by_then < n:
        reached = np.count_nonzero(~np.isnan(finish)) >= n - by_then
        last = finish[n - by_then - 1] if reached else max(outcome.clock_s for outcome in run.outcomes)
        start, end = float(run.arrival_s[arrives].min()), float(last) + run.served.front_s
    return Window(measured, start, end)


def arrivals_s(run: Run) -> float:
    """Seconds for which requests arrive after the warm-up, in a closed loop at all replicas; 0 where nothing does."""
    arrives = _arrives(run)
    start, end = _ends(run, arrives) if arrives.any() else (0.0, 0.0)
    return max(end - start, 0.0)


def _arrives(run: Run) -> np.ndarray:
    """(N,) bool: requests after the warm-up that came to be asked, and were not refused."""
    return measured_of(run) & ~run.refused & ~np.isnan(run.arrival_s)


def _ends(run: Run, arrives: np.ndarray) -> tuple[float, float]:
    """First and last arrival of these; of the replicas of a closed loop the latest first and the earliest last one."""
    shares = [arrives]
    if run.requests.users:
        shares = [arrives & (run.replica == i) for i in np.unique(run.replica[arrives])]
    arrived = [run.arrival_s[share] for share in shares]
    return max(float(one.min()) for one in arrived), min(float(one.max()) for one in arrived)
