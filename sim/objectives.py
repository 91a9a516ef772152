"""The `[objectives]` of a scenario file: what a deployment must keep to."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field

from sim.fields import Seconds, Table, Usd

ATTAINMENT_FRAC = 0.9  # of requests, as in DistServe (arXiv:2401.09670, section 2.2)
PER_REQUEST = ("ttft", "tpot", "e2e")
PERCENTILES = (50, 90, 95, 99)


class Objectives(Table):
    """What a deployment must keep to; an absent limit is no limit.

    Without traffic `ttft_s` and `tpot_s` limit the figures of a concurrency level. With traffic they and `e2e_s` limit
    each request: those that keep to all of them are goodput, and `goodput_frac` of the requests must be (default 0.9).
    `ttft_p99_s` and its like limit percentiles over the requests of a run (of ITL: over its tokens). Where a metric has
    no limit for each request, goodput holds them to that of its highest percentile, if that is above the median.
    """

    ttft_s: Seconds | None = None
    tpot_s: Seconds | None = None
    e2e_s: Seconds | None = None
    goodput_frac: Annotated[float, Field(gt=0, le=1)] | None = None
    ttft_p50_s: Seconds | None = None
    ttft_p90_s: Seconds | None = None
    ttft_p95_s: Seconds | None = None
    ttft_p99_s: Seconds | None = None
    tpot_p50_s: Seconds | None = None
    tpot_p90_s: Seconds | None = None
    tpot_p95_s: Seconds | None = None
    tpot_p99_s: Seconds | None = None
    itl_p50_s: Seconds | None = None
    itl_p90_s: Seconds | None = None
    itl_p95_s: Seconds | None = None
    itl_p99_s: Seconds | None = None
    e2e_p50_s: Seconds | None = None
    e2e_p90_s: Seconds | None = None
    e2e_p95_s: Seconds | None = None
    e2e_p99_s: Seconds | None = None
    max_usd_per_hour: Usd | None = None

    @property
    def percentiles(self) -> Iterator[tuple[str, float]]:
        """Name and limit of each percentile that is limited: ("ttft_p99_s", 2.0)."""
        for metric in ("ttft", "tpot", "itl", "e2e"):
            for q in PERCENTILES:
                if (limit := getattr(self, f"{metric}_p{q}_s")) is not None:
                    yield f"{metric}_p{q}_s", limit

    @property
    def of_a_request(self) -> dict[str, float]:
        """Limits of every single request, by metric: "ttft", "tpot", "e2e"."""
        given = dict(self.percentiles)
        limits = {}
        for metric in PER_REQUEST:
            own = getattr(self, f"{metric}_s")
            tails = [limit for q in PERCENTILES if q > 50 and (limit := given.get(f"{metric}_p{q}_s")) is not None]
            if own is not None or tails:
                limits[metric] = tails[-1] if own is None else own
        return limits

    @property
    def least_goodput_frac(self) -> float:
        """Share of the requests that must be goodput: 0 where neither it nor a limit for each request is given."""
        if self.goodput_frac is not None:
            return self.goodput_frac
        single = any(getattr(self, f"{metric}_s") is not None for metric in PER_REQUEST)
        return ATTAINMENT_FRAC if single else 0.0

    @property
    def most_refused_frac(self) -> float:
        """Share of the requests that may be refused: a refused one keeps to no limit, so that those of which a
        percentile, or goodput_frac, says nothing are the most; 1 - ATTAINMENT_FRAC where neither is given.
        """
        given = [int(name.split("_p")[1].removesuffix("_s")) for name, _ in self.percentiles]
        least = max([ATTAINMENT_FRAC if self.goodput_frac is None else self.goodput_frac, *(q / 100 for q in given)])
        return round(1 - least, 9)  # 0.1, not 0.0999...

    @property
    def of_a_simulation(self) -> tuple[str, ...]:
        """Keys that only a simulation can be held to."""
        single = [name for name in ("e2e_s", "goodput_frac") if getattr(self, name) is not None]
        return (*single, *(name for name, _ in self.percentiles))
