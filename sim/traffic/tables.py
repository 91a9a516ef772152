"""The tables `[traffic]`, `[traffic.prompt]` and `[traffic.output]` of a scenario file."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from sim.bounds import LEAST_CV, LEAST_RATE, MOST_RATE, MOST_REQUESTS, MOST_TOKENS
from sim.fields import Levels, Pause, Seconds, Table, Text, listed
from sim.toml_errors import contradict
from sim.traffic.contradictions import lengths_problems, traffic_problems
from sim.traffic.formats import FormatName
from sim.units import HOURS_PER_DAY, S_PER_HOUR

Arrivals = Literal["poisson", "gamma", "deterministic", "bursts", "daily", "closed", "trace"]
Tokens = Annotated[int, Field(gt=0, le=MOST_TOKENS)]
Number = Annotated[int, Field(gt=0, le=MOST_REQUESTS)]
Rates = Annotated[
    tuple[Annotated[float, Field(ge=LEAST_RATE, le=MOST_RATE)], ...],
    BeforeValidator(listed),
    Field(min_length=1, max_length=1000, strict=False),
]
Hourly = Annotated[
    tuple[Annotated[float, Field(ge=0, le=1e6)], ...],
    Field(max_length=1000, strict=False),
]
DEFAULT_REQUESTS = 1000  # as benchmark clients ask by default
ROUNDS_OF_USERS = 20  # requests of each user by default


class Lengths(Table):
    """Lengths in tokens, of prompts or of outputs. What is given says which of these they are:

    | keys | length |
    |---|---|
    | `tokens` | always the same |
    | `mean_tokens`, `cv`; or `median_tokens`, `p95_tokens`; or `mu`, `sigma` of the logarithm | lognormal |
    | `min_tokens`, `max_tokens` and nothing else | uniform, both ends included |
    | `path`, with `column` where it is not the table's own | drawn from the rows of a trace, each as likely |

    A lognormal or drawn length beyond `min_tokens` or `max_tokens` is set to it; the mean given is that before.
    """

    tokens: Tokens | None = None
    mean_tokens: Annotated[float, Field(ge=1, le=MOST_TOKENS)] | None = None
    cv: Annotated[float, Field(gt=0, le=100)] | None = None
    median_tokens: Annotated[float, Field(ge=1, le=MOST_TOKENS)] | None = None
    p95_tokens: Annotated[float, Field(ge=1, le=MOST_TOKENS)] | None = None
    mu: Annotated[float, Field(ge=-20, le=20)] | None = None
    sigma: Annotated[float, Field(gt=0, le=20)] | None = None
    min_tokens: Tokens | None = None
    max_tokens: Tokens | None = None
    path: Text | None = None
    column: Literal["prompt_tokens", "output_tokens"] | None = None

    @model_validator(mode="after")
    def _check(self) -> Lengths:
        contradict(lengths_problems(self.model_dump(exclude_none=True)))
        return self


class Traffic(Table):
    """How requests arrive, and how long they are.

    | `arrivals` | keys | when requests arrive |
    |---|---|---|
    | "poisson" (default) | `requests_per_s` | independently of each other |
    | "gamma" | and `cv` | with gaps of this coefficient of variation: above 1 in clusters, below 1 evenly |
    | "deterministic" | `requests_per_s` | every 1 / requests_per_s seconds |
    | "bursts" | and `burst_size` | so many at once, every burst_size / requests_per_s seconds |
    | "bursts" | and `on_s`, `off_s`, `off_frac` | Poisson for on_s; for off_s at that part of the rate, by default none |
    | "daily" | and `hourly`, `start_hour` | Poisson, at a rate that follows the hour: 24 multipliers, by default a cosine that is highest at 15 h and a third as high at 3 h |
    | "closed" (default with `users`) | `users`, `think_s`, `think_cv`, `ramp_up_s` | after one of the users has an answer and has thought: exponential of mean `think_s`, or a gamma variate of another coefficient of variation, 0 for always `think_s`; users begin evenly over `ramp_up_s`, by default one `think_s` |
    | "trace" (default with `path`) | `path`, `format`, `skip`, `first`, `sort`, `time_scale` | as recorded, on a clock `time_scale` times as fast |

    `requests_per_s` is the mean rate, of "bursts" over whole periods and of "daily" over a whole day: a run of a few
    hours has the rate of those hours, from `start_hour` on (default: midnight). It, `users` and `time_scale` may be
    lists of levels, to draw a curve of latency against load. The first `warmup_requests` are served and left out of the
    figures; in a closed loop these are by default twice the users, elsewhere none. A run ends after `n_requests` or
    `duration_s` of arrivals, whichever is first. Prompts and
    outputs beyond `max_prompt_tokens` and `max_output_tokens` are cut. `system_prompt_tokens` are the first of every
    prompt and the same in all; a shorter prompt is lengthened to one token more. Lengths that are not given are those of the workload.
    """  # noqa: E501

    arrivals: Arrivals = "poisson"
    requests_per_s: Rates | None = None
    cv: Annotated[float, Field(ge=LEAST_CV, le=100)] | None = None
    burst_size: Number | None = None
    on_s: Seconds | None = None
    off_s: Seconds | None = None
    off_frac: Annotated[float, Field(ge=0, lt=1)] | None = None
    hourly: Hourly | None = None
    start_hour: Annotated[float, Field(ge=0, lt=HOURS_PER_DAY)] | None = None
    users: Levels | None = None
    think_s: Pause | None = None
    think_cv: Annotated[float, Field(ge=0, le=100)] | None = None
    ramp_up_s: Pause | None = None
    path: Text | None = None
    format: FormatName | None = None
    skip: Annotated[int, Field(ge=0)] | None = None
    first: Number | None = None
    sort: bool | None = None
    time_scale: Rates | None = None
    warmup_requests: Annotated[int, Field(ge=0, le=MOST_REQUESTS)] | None = None
    n_requests: Number | None = None
    duration_s: Seconds | None = None
    max_prompt_tokens: Tokens | None = None
    max_output_tokens: Tokens | None = None
    system_prompt_tokens: Tokens | None = None
    prompt: Lengths | None = None
    output: Lengths | None = None
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    replications: Annotated[int, Field(gt=0, le=10_000)] = 1

    @model_validator(mode="before")
    @classmethod
    def _arrivals(cls, table: Any) -> Any:
        if not isinstance(table, dict) or "arrivals" in table:
            return table
        told = next((kind for key, kind in (("users", "closed"), ("path", "trace")) if key in table), "poisson")
        return {**table, "arrivals": told}

    @model_validator(mode="after")
    def _check(self) -> Traffic:
        problems = traffic_problems(self.model_dump(exclude_none=True))
        for key in ("requests_per_s", "users", "time_scale"):
            if any(low >= high for low, high in pairwise(getattr(self, key) or ())):
                problems[key] = "levels must increase, such as [1, 2, 4]"
        if "n_requests" not in problems and self.users and self.n_requests and self.n_requests < self.users[-1]:
            problems["n_requests"] = f"{self.n_requests} is below the {self.users[-1]} users, who ask once each"
        contradict(problems)
        return self

    @property
    def levels(self) -> tuple[float, ...]:
        """Levels of load, increasing: requests/s, users, or how much faster than recorded a trace is replayed."""
        return self.requests_per_s or self.users or self.time_scale or (1.0,)

    @property
    def random(self) -> bool:
        """Whether anything is drawn at random; without, all replications would be the same."""
        even = self.arrivals in ("deterministic", "closed", "trace") or self.burst_size is not None
        fixed = all(side is None or side.tokens is not None for side in (self.prompt, self.output))
        return not (even and fixed) or self.thinks_at_random

    @property
    def thinks_at_random(self) -> bool:
        """Whether a closed loop draws how long its users think."""
        return bool(self.think_s) and self.think_cv != 0

    @property
    def most_requests(self) -> int | None:
        """How many requests to draw at most; None where duration_s or the trace's end decides."""
        if self.n_requests is not None or self.arrivals in ("daily", "trace") or self.duration_s is not None:
            return self.n_requests
        return max(DEFAULT_REQUESTS, ROUNDS_OF_USERS * self.users[-1]) if self.users else DEFAULT_REQUESTS

    @property
    def horizon_s(self) -> float | None:
        """Seconds of arrivals at most; a day of daily traffic, unless anything else is said."""
        if self.duration_s is None and self.n_requests is None and self.arrivals == "daily":
            return HOURS_PER_DAY * S_PER_HOUR
        return self.duration_s


TABLES: dict[str, type[Table]] = {"traffic": Traffic, "traffic.prompt": Lengths, "traffic.output": Lengths}
