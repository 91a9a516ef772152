"""When requests arrive in an open loop: t = G(u / rate), of a process u of one request per second on average.

u is drawn first and does not know the rate. Hence levels of load share their random numbers: request i of a level
twice as high arrives at half the time, or, where G follows a clock, at what that clock makes of half the time. G is the
inverse of the cumulated rate, t ↦ ∫ λ(s) ds with λ of mean 1 over its period; without a clock G(v) = v.
(Lewis and Shedler 1979, section 1; common random numbers: Law, Simulation Modeling and Analysis, section 11.2.)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from sim.bounds import MOST_REQUESTS
from sim.errors import RoofcastError, sentence
from sim.traffic.tables import Traffic
from sim.units import HOURS_PER_DAY, S_PER_HOUR

BLOCK = 65_536
PEAK_HOUR, SWING = 15.0, 0.5  # of the default day
Gaps = Callable[[np.random.Generator, int, int], np.ndarray]  # (generator, index of the first, how many) -> (n,)


def arrival_s(traffic: Traffic, rate_per_s: float, generator: np.random.Generator) -> np.ndarray:
    """(N,) float64 arrival times of an open loop at this mean rate, nondecreasing from 0."""
    clock = _clock(traffic)
    horizon_s = traffic.horizon_s
    most = np.inf if horizon_s is None else rate_per_s * clock.elapsed(np.array([horizon_s]))[0]
    process = _process(_gaps(traffic), generator, traffic.most_requests, most)
    found = np.maximum.accumulate(clock.time_of(process / rate_per_s)) if len(process) else process
    return found if horizon_s is None else found[found <= horizon_s]


def _process(gaps: Gaps, generator: np.random.Generator, n_most: int | None, most: float) -> np.ndarray:
    """Times of the process u, to the time `most`; drawn in order, so that a longer run begins with a shorter one."""
    kept: list[np.ndarray] = []
    n, last = 0, 0.0
    while (n_most is None or n < n_most) and last <= most:
        if n > MOST_REQUESTS:
            what = f"more than {MOST_REQUESTS:,} requests arrive in duration_s, and no more are drawn"
            raise RoofcastError(sentence(what, "traffic.duration_s", "shorten it, or lower requests_per_s"))
        now = BLOCK if n_most is None else min(BLOCK, n_most - n)
        kept.append(gaps(generator, n, now))
        n, last = n + now, last + float(kept[-1].sum())
    found = np.cumsum(np.concatenate(kept))
    return found[: np.searchsorted(found, most, side="right")]


def _gaps(traffic: Traffic) -> Gaps:
    """Gaps before each request of the process u, of mean 1."""
    if traffic.arrivals == "gamma":
        assert traffic.cv is not None
        variance = traffic.cv**2
        return lambda generator, at, n: generator.standard_gamma(1 / variance, n) * variance
    if traffic.arrivals == "deterministic" or traffic.burst_size:
        size = traffic.burst_size or 1
        return lambda generator, at, n: _even(np.arange(at, at + n), size)
    return lambda generator, at, n: generator.standard_exponential(n)


def _even(index: np.ndarray, size: int) -> np.ndarray:
    """`size` requests at 0, as many at `size`, and so on."""
    return np.where((index % size == 0) & (index > 0), float(size), 0.0)


@dataclass(frozen=True)
class Clock:
    """A rate of mean 1 that is constant between the edges of a period and begins `start_s` into it.

    edges_s: (K + 1,) from 0; rates: (K,) >= 0, or empty for a rate that is always 1.
    """

    edges_s: np.ndarray
    rates: np.ndarray
    start_s: float = 0.0

    @property
    def _cumulated(self) -> np.ndarray:
        return np.concatenate([[0.0], np.cumsum(self.rates * np.diff(self.edges_s))])

    def elapsed(self, t_s: np.ndarray) -> np.ndarray:
        """∫ from 0 to t of the rate: of a process of one request per second the mean number until then."""
        if not len(self.rates):
            return t_s
        return self._integral(t_s + self.start_s) - self._integral(np.array([self.start_s]))[0]

    def time_of(self, elapsed: np.ndarray) -> np.ndarray:
        """The inverse of `elapsed`, at its latest where the rate is zero for a while."""
        if not len(self.rates):
            return elapsed
        cumulated, period_s = self._cumulated, self.edges_s[-1]
        whole, rest = np.divmod(elapsed + self._integral(np.array([self.start_s]))[0], cumulated[-1])
        busy = np.flatnonzero(self.rates)
        phase = busy[np.searchsorted(cumulated[busy], rest, side="right") - 1]
        within_s = self.edges_s[phase] + (rest - cumulated[phase]) / self.rates[phase]
        return np.maximum(whole * period_s + within_s - self.start_s, 0.0)

    def _integral(self, t_s: np.ndarray) -> np.ndarray:
        cumulated = self._cumulated
        whole, rest = np.divmod(t_s, self.edges_s[-1])
        phase = np.searchsorted(self.edges_s[1:-1], rest, side="right")
        return whole * cumulated[-1] + cumulated[phase] + self.rates[phase] * (rest - self.edges_s[phase])


def _clock(traffic: Traffic) -> Clock:
    if traffic.arrivals == "daily":
        hours = np.arange(HOURS_PER_DAY)
        cosine = 1 + SWING * np.cos(2 * np.pi * (hours + 0.5 - PEAK_HOUR) / HOURS_PER_DAY)
        edges_s = np.arange(HOURS_PER_DAY + 1) * S_PER_HOUR
        return _of_mean_one(edges_s, np.array(traffic.hourly or cosine), (traffic.start_hour or 0.0) * S_PER_HOUR)
    if traffic.on_s is not None and traffic.off_s is not None:
        edges_s = np.array([0.0, traffic.on_s, traffic.on_s + traffic.off_s])
        return _of_mean_one(edges_s, np.array([1.0, traffic.off_frac or 0.0]), 0.0)
    return Clock(np.zeros(1), np.empty(0))


def _of_mean_one(edges_s: np.ndarray, rates: np.ndarray, start_s: float) -> Clock:
    return Clock(edges_s, rates * edges_s[-1] / np.sum(rates * np.diff(edges_s)), start_s)
