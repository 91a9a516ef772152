"""What benchmark files yield: measurements in SI units, rows that cannot be used and why, and problems in sentences."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from sim.errors import clipped

Quantity = Literal[
    "tpot_s", "ttft_s", "itl_s", "e2e_s", "decode_step_s", "prefill_s", "output_tokens_per_s", "total_tokens_per_s"
]
UNITS_OF_TIME = {0: "s", 3: "ms", 6: "us", 9: "ns"}  # by the decimal logarithm of how many are a second
LONGEST_PATH = 400
LONGEST_REASON = 120  # holds the options of all that can be missing


def place(file: str, line: int) -> str:
    """FILE:LINE, as messages name it."""
    return f"{clipped(file, most=LONGEST_PATH)}:{line}"


@dataclass(frozen=True)
class Raw:
    """One row of a file: its place, its cells as read, and, where the file is JSON, the object itself."""

    file: str
    line: int
    columns: dict[str, str]
    entry: dict[str, Any] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class Deployment:
    """What ran, in the catalogue's ids: a model in a format on a machine, split over its devices."""

    model: str
    machine: str
    engine: str
    weights: str
    kv: str
    moe: bool
    tp: int = 1
    pp: int = 1
    ep: int = 1
    dp: int = 1
    replicas: int = 1


@dataclass(frozen=True)
class Load:
    """What it ran on. Lengths are means, in tokens of a sequence; see Measurement for each quantity's reading of them.

    n_requests: of a harness that offers all of them at once, `concurrency` in flight; inf where it is not known.
    """

    concurrency: int
    prompt: float
    output: float
    depth: float = 0.0
    n_requests: float = math.inf
    limits: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Measurement:
    """One measured figure.

    `value` is in seconds or tokens/s, as `quantity` says; the file's own figure is scale · value, or scale / value
    where `inverse` (tokens/s of a batch of B: scale B over the seconds of a step).

    | quantity | measured | prompt, output, depth |
    |---|---|---|
    | tpot_s, itl_s | seconds per output token after the first, of a request | mean lengths |
    | ttft_s, e2e_s | seconds of a request to its first, to its last token | mean lengths |
    | decode_step_s | seconds of one step of `concurrency` sequences | prompt: cached before the first generated token; output: generated, so the mean context is prompt + output/2 |
    | prefill_s | seconds until `concurrency` prompts are processed | prompt: tokens of each; depth: cached before |
    | output_tokens_per_s, total_tokens_per_s | of the whole deployment, over the run | mean lengths |

    `limits` holds what is known of max_num_batched_tokens, max_num_seqs, gpu_memory_utilization, kv_blocks, and of the
    harness: admission_steps, length_spread (arguments of `sim.estimate`).
    tier A: a standard harness with its configuration; B: details are missing.
    """  # noqa: E501

    file: str
    line: int
    columns: dict[str, str]
    id: str
    source: str
    tier: str
    quantity: Quantity
    value: float
    measured_column: str
    scale: float
    inverse: bool
    model: str
    machine: str
    engine: str
    weights: str
    kv: str
    tp: int
    pp: int
    ep: int
    dp: int
    replicas: int
    concurrency: int
    prompt: float
    output: float
    depth: float
    n_requests: float
    limits: dict[str, float]
    stat: str
    moe: bool

    def group(self) -> tuple[str | int, ...]:
        """The configuration, which never straddles a split: model, machine, engine, weights, kv, tp, pp, ep, dp."""
        return (self.model, self.machine, self.engine, self.weights, self.kv, self.tp, self.pp, self.ep, self.dp)

    @property
    def unit(self) -> str:
        """Unit of the file's own figure: "ms", "tokens/s", "tokens/s per GPU" and so on."""
        if self.inverse:
            return "tokens/s"
        if self.quantity.endswith("tokens_per_s"):
            return "tokens/s" if self.scale == 1 else "tokens/s per GPU"
        return UNITS_OF_TIME[round(math.log10(self.scale))]

    def in_file_unit(self, value: float) -> float:
        """A value of this quantity, in SI units, as the file's column would state it."""
        return self.scale / value if self.inverse else self.scale * value


@dataclass(frozen=True)
class Unused:
    """A row without a measurement: a short reason to count it under, and the name or figure at fault."""

    file: str
    line: int
    columns: dict[str, str]
    reason: str
    detail: str


def commonest(rows: Sequence[Unused]) -> str:
    """The three commonest reasons why rows are not used, with how many have each."""
    why = Counter(": ".join(filter(None, (row.reason, clipped(row.detail, most=LONGEST_REASON)))) for row in rows)
    return ", ".join(f"{reason} ({n})" for reason, n in why.most_common(3))


@dataclass(frozen=True)
class Reading:
    """Every row of `files`, as measurements or unused; `problems` are sentences about bad input, with file:line.

    `rejected` are figures left out of rows that other figures are used of; `notes` name figures that no reader takes.
    """

    measurements: list[Measurement] = field(default_factory=list)
    unused: list[Unused] = field(default_factory=list)
    rejected: list[Unused] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    files: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Defaults:
    """What the command line states, for files that do not say it themselves."""

    model: str | None = None
    hardware: str | None = None
    engine: str | None = None
    weights: str | None = None
    kv: str | None = None
    tp: int | None = None
    pp: int | None = None
    ep: int | None = None
    dp: int | None = None
    replicas: int | None = None
    concurrency: int | None = None
    prompt: float | None = None
    output: float | None = None


class Unusable(Exception):
    """A row that cannot be used, though nothing is wrong with the file: a reason to count it under, and a detail."""

    def __init__(self, reason: str, detail: str = ""):
        self.reason, self.detail = reason, detail
        super().__init__(reason)


class Missing(Unusable):
    """A row that lacks what the command line can state: `asked` is what, by its option, as in {"--model": "model"}.

    found: by what is asked, what the file names instead, which is not known.
    """

    def __init__(self, asked: Mapping[str, str], found: Mapping[str, str] | None = None):
        self.asked, self.found = dict(asked), dict(found or {})
        absent = [what for what in dict.fromkeys(asked.values()) if what not in self.found]
        reasons = [f"unknown {what}" for what in self.found]
        reasons += [f"{listed(absent)} not stated"] if absent else []
        remedy = f"state {'it' if len(asked) == 1 else 'them'} with {listed(list(asked))}"
        super().__init__("; ".join(reasons), ": ".join(filter(None, (", ".join(self.found.values()), remedy))))


def all_stated(*parts: Callable[[], Any]) -> list[Any]:
    """What each part gives; else Missing with everything that is missing, not only the first of it."""
    given, asked, found = [], {}, {}
    for part in parts:
        try:
            given.append(part())
        except Missing as missing:
            asked |= missing.asked
            found |= missing.found
    if asked:
        raise Missing(asked, found)
    return given


def listed(words: Sequence[str]) -> str:
    """ "a", "a and b", "a, b and c"."""
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1])))


class Bad(Unusable):
    """A row with a mistake in it, which the user is told of: `detail` is the sentence, `hint` the remedy."""

    def __init__(self, reason: str, detail: str, hint: str = ""):
        self.hint = hint
        super().__init__(reason, detail)
