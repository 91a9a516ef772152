"""Published measurements as cases of `sim.estimate`, their forecasts, and the naive roofline to beat."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import sim
from sim import catalog, measure
from sim.calibrate.naive import naive_prompt_s, naive_token_s
from sim.catalog.lookup import find
from sim.errors import RoofcastError, why_reasons
from sim.params import is_moe

SHARED = Path(__file__).resolve().parents[2] / "shared" / "measurements"
SOURCES = {"decode_step_s": "local", "tpot_s": "silicon", "ttft_s": "silicon-ttft"}
Row = dict[str, str]


@dataclass(frozen=True)
class Case:
    """One measurement: arguments of `sim.estimate`, and the seconds measured: per token, or to the first one."""

    id: str
    source: str
    tier: str
    hardware: str
    model: str
    machine: str
    engine: str
    weights: str
    kv: str
    tp: int
    pp: int
    ep: int
    dp: int
    concurrency: int
    prompt: int
    output: int
    measured_s: float
    moe: bool

    @property
    def column(self) -> str:
        """The forecast to compare: local rows time decode alone, serving rows hold the prefill between its steps."""
        return {source: column for column, source in SOURCES.items()}[self.source]

    @property
    def deployment(self) -> tuple:
        """What must be equal for cases to share one call of `sim.estimate`."""
        place = (self.column, self.model, self.machine, self.engine, self.weights, self.kv)
        return (*place, self.tp, self.pp, self.ep, self.dp)


@dataclass(frozen=True)
class Reading:
    """The cases of one file; rows unusable by (reason, detail); those of them by reason that the headline asks for."""

    cases: list[Case]
    unusable: Counter[tuple[str, str]]
    headline_unusable: Counter[str]


def read_local(path: Path = SHARED / "local.csv.gz") -> Reading:
    """Decode rows of local.csv.gz, any batch and tier."""
    return _read(path, "decode_step_s", is_local_headline)


def read_silicon(path: Path = SHARED / "silicon.csv.gz") -> Reading:
    """TPOT of every row of silicon.csv.gz."""
    return _read(path, "tpot_s", is_silicon_headline)


def read_silicon_ttft(path: Path = SHARED / "silicon.csv.gz") -> Reading:
    """TTFT of every row of silicon.csv.gz: of a run that offers all requests at once, and keeps some in flight."""
    return _read(path, "ttft_s", is_silicon_headline)


def is_local_headline(row: Row) -> bool:
    """Decode at batch 1, tier A, unflagged."""
    return row["phase"] == "decode" and row["tier"] == "A" and float(row["batch"]) == 1 and "FLAG" not in row["notes"]


def is_silicon_headline(row: Row) -> bool:
    """A dense model, or one that the catalogue does not know."""
    known = find(row["model"], catalog.models())
    return known is None or not is_moe(known)


def predict(cases: Sequence[Case]) -> tuple[np.ndarray, Counter[str]]:
    """(Forecast seconds per token of each case, NaN where there is none; how often each reason left none).

    Cases of one deployment share one call of `sim.estimate`, which broadcasts over the load.
    """
    seconds = np.full(len(cases), np.nan)
    problems: Counter[str] = Counter()
    groups: dict[tuple, list[int]] = {}
    for index, case in enumerate(cases):
        groups.setdefault(case.deployment, []).append(index)
    for indices in groups.values():
        group = [cases[i] for i in indices]
        try:
            result = _estimate(group)
        except RoofcastError as error:
            problems[error.problems[0]] += len(group)
            continue
        seconds[indices] = result[group[0].column]
        for why in result["why"][np.isnan(seconds[indices])]:
            problems["; ".join(why_reasons(int(why)))] += 1
    return seconds, problems


def naive_roofline(cases: Sequence[Case]) -> np.ndarray:
    """What a forecast must beat, in s, without KV, fixed times or efficiency: active weight bytes over bandwidth for a
    token, and 2 FLOPs a parameter and prompt token at the 16-bit peak for the first.
    """
    first = [c.source == "silicon-ttft" for c in cases]
    token = np.array([naive_token_s(c.model, c.machine, c.weights, c.tp) for c in cases])
    prompt = np.array([naive_prompt_s(c.model, c.machine, c.tp, c.prompt) for c in cases])
    return np.where(first, prompt, token)


def _estimate(cases: Sequence[Case]) -> sim.Result:
    first = cases[0]
    return sim.estimate(
        first.model, first.machine, engine=first.engine, weights=first.weights, kv=first.kv,
        tp=first.tp, pp=first.pp, ep=first.ep, dp=first.dp,
        concurrency=[c.concurrency for c in cases], prompt=[c.prompt for c in cases], output=[c.output for c in cases],
    )  # fmt: skip


def _read(path: Path, quantity: str, is_headline: Callable[[Row], bool]) -> Reading:
    found = measure.read([path])
    reading = Reading([], Counter(), Counter())
    for m in found.measurements:
        if m.quantity == quantity:
            reading.cases.append(_case(m))
        elif m.source.startswith("local"):
            reading.unusable[("not decode", m.columns["phase"])] += 1
    for row in found.unused:
        reading.unusable[(row.reason, row.detail)] += 1
        reading.headline_unusable[row.reason] += is_headline(row.columns)
    return reading


def _case(m: measure.Measurement) -> Case:
    return Case(
        id=m.id, source=SOURCES[m.quantity], tier=m.tier, hardware=m.machine, model=m.model, machine=m.machine,
        engine=m.engine, weights=m.weights, kv=m.kv, tp=m.tp, pp=m.pp, ep=m.ep, dp=m.dp, concurrency=m.concurrency,
        prompt=round(m.prompt), output=round(m.output), measured_s=m.value, moe=m.moe,
    )  # fmt: skip
