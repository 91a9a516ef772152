"""The part of a run that its figures are over: which requests, and from when to when."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sim.serving.runs import Run


@dataclass(frozen=True)
class Window:
    """The requests after the warm-up, and the seconds from the first of them to arrive to the last one.

    While requests arrive a deployment is at its load: what starts it, and what it works off when nothing comes any
    more, is left out of rates and means. Where by the last arrival fewer than half of these requests are done, the time
    goes on to the last token (or to the bound that the run met), with the engine's front end: batches that are offered
    at once have no other.
    """

    measured: np.ndarray  # (N,) bool
    start_s: float
    end_s: float

    @property
    def seconds(self) -> float:
        """How long it is."""
        return self.end_s - self.start_s

    def within(self, times_s: np.ndarray) -> np.ndarray:
        """Which of these times, NaN among them, are in it."""
        return (times_s >= self.start_s) & (times_s <= self.end_s)


def measured_of(run: Run) -> np.ndarray:
    """(N,) bool: requests after the warm-up."""
    return np.arange(len(run.refused)) >= run.requests.warmup


def window_of(run: Run) -> Window:
    """The window of a run; NaN seconds where nothing ran."""
    measured = measured_of(run)
    arrived = run.arrival_s[measured & ~run.refused & ~np.isnan(run.arrival_s)]
    if not len(arrived):
        return Window(measured, np.nan, np.nan)
    start, end = float(arrived.min()), float(arrived.max())
    finish = run.finish_s[measured]
    if end <= start or 2 * np.count_nonzero(finish <= end) < len(arrived):
        ends = [outcome.clock_s for outcome in run.outcomes if not outcome.complete]
        ends += finish[~np.isnan(finish)].tolist()
        end = max(ends) + run.served.front_s if ends else np.nan
    return Window(measured, start, end)


def arrivals_s(run: Run) -> float:
    """Seconds from the first arrival after the warm-up to the last; 0 where nothing arrives."""
    arrived = run.arrival_s[measured_of(run) & ~run.refused & ~np.isnan(run.arrival_s)]
    return float(np.ptp(arrived)) if len(arrived) else 0.0
