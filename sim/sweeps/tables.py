"""The tables of a sweep's file: `[axes]`, `[limits]` and `[answers]`."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from sim.bounds import MOST_DEVICES, MOST_TOKENS
from sim.fields import Count, Names, Seconds, Table, Text, Usd, listed
from sim.toml_errors import contradict

MOST_VALUES = 100_000  # of one axis
MOST_TOP = 10_000


_MANY: Any = Field(min_length=1, max_length=MOST_VALUES, strict=False)
Counts = Annotated[tuple[Count, ...], _MANY]
Devices = Annotated[tuple[Annotated[int, Field(gt=0, le=MOST_DEVICES)], ...], _MANY]
Tokens = Annotated[tuple[Annotated[int, Field(gt=0, le=MOST_TOKENS)], ...], _MANY]
Fractions = Annotated[tuple[Annotated[float, Field(gt=0, le=1)], ...], _MANY]
Prices = Annotated[tuple[Usd, ...], _MANY]
Words = Annotated[Names, BeforeValidator(listed)]


class Axes(Table):
    """Every axis has a value, a list, a range, or (of names) a slice of the catalogue: their product is swept.

    | axes | values | left out |
    |---|---|---|
    | `model` | names, "all", "all:moe", "all:dense", "current" | is required |
    | `hardware` | names as "8x-h100", "all", "all:VENDOR", "all:FAMILY" as `roofcast hardware` shows them | is required |
    | `engine` | names, "all" | one that runs the format there |
    | `weights` | formats, "native", "all" | as published |
    | `kv` | 16, 8, 4, "all" | the engine's own, 16 |
    | `gpus`, `tp`, `pp`, `ep`, `dp`, `replicas` | counts | filled in, as in `sim.estimate` |
    | `max_num_batched_tokens`, `max_num_seqs`, `gpu_memory_utilization` | the engine's limits | its own defaults |
    | `prompt_tokens`, `output_tokens`, `concurrency` | counts | 512, 128, 1 |
    | `context_tokens` | counts, each at least prompt + output | prompt + output |
    | `usd_per_gpu_hour`, or `usd_factor` on the catalogue's | USD, factors | the catalogue's, as `pay` says |
    """  # noqa: E501

    model: Names
    weights: Names = ("native",)
    kv: Names | None = None
    hardware: Names
    gpus: Devices | None = None
    engine: Names | None = None
    tp: Devices | None = None
    pp: Devices | None = None
    ep: Devices | None = None
    dp: Devices | None = None
    replicas: Devices | None = None
    max_num_batched_tokens: Counts | None = None
    max_num_seqs: Counts | None = None
    gpu_memory_utilization: Fractions | None = None
    prompt_tokens: Tokens = (512,)
    output_tokens: Tokens = (128,)
    context_tokens: Tokens | None = None
    concurrency: Counts = (1,)
    usd_per_gpu_hour: Prices | None = None
    usd_factor: Prices = (1.0,)

    @model_validator(mode="after")
    def _check(self) -> Axes:
        problems = {}
        longest = max(self.prompt_tokens) + max(self.output_tokens)
        if self.context_tokens is not None and min(self.context_tokens) < longest:
            what = f"{min(self.context_tokens)} is below the longest prompt_tokens + output_tokens = {longest}"
            problems["context_tokens"] = what
        if self.usd_per_gpu_hour is not None and self.usd_factor != (1.0,):
            problems["usd_factor"] = "multiplies the catalogue's rate: give either it or usd_per_gpu_hour, not both"
        contradict(problems)
        return self

    @property
    def least_devices(self) -> int:
        """Devices of the smallest deployment, as far as the axes say."""
        parts = (self.tp, self.pp, self.dp, self.replicas)
        return min(self.gpus) if self.gpus else math.prod(min(part) for part in parts if part)


class Range(Table):
    """Numbers `from` one `to` another, both included: `step` apart, or `n` of them, by ratio with `scale = "log"`."""

    first: Annotated[float, Field(alias="from")]
    last: Annotated[float, Field(alias="to")]
    step: Annotated[float, Field(gt=0)] | None = None
    n: Annotated[int, Field(ge=2, le=MOST_VALUES)] | None = None
    scale: Literal["linear", "log"] = "linear"

    @model_validator(mode="after")
    def _check(self) -> Range:
        problems = {}
        if self.first >= self.last:
            problems["to"] = f"the range goes nowhere: {self.last:g} is not above from = {self.first:g}"
        elif self.step is not None and self.n is not None:
            problems["n"] = "give either step or n, not both"
        elif self.step is None and self.n is None:
            problems["step"] = "required key is missing (or n in its place)"
        elif self.scale == "log" and self.step is not None:
            problems["step"] = 'does not go with scale = "log": give n'
        elif self.scale == "log" and self.first <= 0:
            problems["from"] = f'expected more than 0 with scale = "log", got {self.first:g}'
        elif self.step is not None and self._steps() > MOST_VALUES:
            problems["step"] = f"the range explodes: more than {MOST_VALUES:,} values; take a longer step"
        contradict(problems)
        return self

    def _steps(self) -> float:
        """Values of a range of steps; the tolerance keeps the last one where rounding put it just above `to`."""
        assert self.step is not None
        return (self.last - self.first) / self.step * (1 + 1e-12) + 1

    def values(self) -> list[float]:
        """The numbers, increasing."""
        if self.step is not None:
            return [self.first + i * self.step for i in range(int(self._steps()))]
        assert self.n is not None
        shares = [i / (self.n - 1) for i in range(self.n)]
        if self.scale == "log":
            inner = [self.first * (self.last / self.first) ** share for share in shares[1:-1]]
        else:
            inner = [self.first + (self.last - self.first) * share for share in shares[1:-1]]
        return [self.first, *inner, self.last]


class Limits(Table):
    """What a deployment must keep to: at most this, or (of tokens per second) at least. `usd` buys the hardware."""

    ttft_s: Seconds | None = None
    tpot_s: Seconds | None = None
    e2e_s: Seconds | None = None
    usd_per_hour: Usd | None = None
    usd_per_mtok: Usd | None = None
    usd: Usd | None = None
    power_w: Usd | None = None
    n_devices: Count | None = None
    user_tokens_per_s: Usd | None = None
    output_tokens_per_s: Usd | None = None


class Crossover(Table):
    """From which value `along` an axis another value of `between` has the lowest `objective` (default: the first)."""

    along: Text
    between: Text
    objective: Text | None = None


class Answers(Table):
    """What is wanted: objectives to minimize (the first ranks), the best for each value of the axes of `by`, the top.

    The Pareto front is over all objectives of `minimize`.
    """

    minimize: Words = ("usd_per_mtok", "tpot_s")
    by: Annotated[tuple[Text, ...], BeforeValidator(listed), Field(strict=False)] = ("model",)
    top: Annotated[int, Field(gt=0, le=MOST_TOP)] = 10
    crossover: Annotated[tuple[Crossover, ...], Field(strict=False, max_length=100)] = ()


class SweepFile(Table):
    """A sweep's file. `profile` (a path from the file's folder, or "none") and `pay` are as in `sim.estimate`."""

    name: Text
    description: str = ""
    axes: Axes
    limits: Limits = Limits()
    answers: Answers = Answers()
    pay: Literal["rent", "buy"] | None = None
    profile: Text | None = None
