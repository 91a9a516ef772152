"""The decision matrix searched: for each situation a sweep over the catalogue, beside the guide's own picks."""

from __future__ import annotations

import functools
import tomllib
from dataclasses import dataclass
from math import isfinite, nan
from pathlib import Path
from typing import Any, Literal

from sim import catalog
from sim.guide.claims import Claim, sections
from sim.guide.compute import not_real
from sim.guide.forecast import Subject
from sim.params import count
from sim.report.number import show, significant
from sim.report.verdict import layout_line
from sim.schema import Row
from sim.sweeps.slices import slices
from sim.verbs.estimate import estimate
from sim.verbs.sweep import sweep

SAME = 0.05  # costs that differ by less are the same
PAY = {"desk": "buy", "center": "rent"}
COUNTS = (1, 2, 4, 8)  # of devices of a node, and of parts of a layout
FIGURES = {"ttft_s": "TTFT ", "tpot_s": "TPOT ", "usd_per_hour": "", "usd_per_mtok": ""}
_FILE = Path(__file__).with_name("matrix.toml")


class Load(Row):
    """Users at once, and tokens of each request; context is what one sequence may grow to."""

    users: int
    prompt: int
    output: int
    context: int


class Situation(Row):
    """A row of the guide's matrix as a search: for the least `goal` within `limits` (seconds).

    models: of the family that the row asks for; empty: all current ones that are large enough.
    """

    line: int
    title: str
    place: Literal["desk", "center"]
    load: Load
    limits: dict[Literal["ttft_s", "tpot_s"], float]
    goal: Literal["usd_per_hour", "usd_per_mtok"] = "usd_per_hour"
    models: tuple[str, ...] = ()


@dataclass(frozen=True)
class Choice:
    """A deployment, its figures, its cost (`goal` of the situation; NaN: unknown), and what speaks against it."""

    label: str
    figures: str = ""
    cost: float = nan
    problem: str = ""


@dataclass(frozen=True)
class Searched:
    """A situation, the guide's picks at its load, the cheapest that keeps to the limits, and how they compare."""

    situation: Situation
    picks: tuple[Choice, ...]
    found: Choice | None
    configurations: int
    difference: str


@functools.cache
def situations() -> tuple[Situation, ...]:
    """The rows of the matrix, in the guide's order."""
    return tuple(Situation.model_validate(row) for row in _file()["situation"])


def search(situation: Situation, profile: str | None = None) -> Searched:
    """Sweeps a situation, and forecasts the guide's picks at the same load. profile: as in sim.estimate."""
    claims = picks_of(situation.line)
    picks = tuple(_pick(claim, situation, profile) for claim in claims)
    answer = sweep({"name": situation.title, **tables(situation, claims), "profile": profile})
    row = next(iter(answer.front.rows()), None)  # the cheapest, and of those that cost the same the fastest
    found = None if row is None else _found(row, situation)
    return Searched(situation, picks, found, answer.plan.n_cells, _difference(picks, found))


def picks_of(line: int) -> tuple[Claim, ...]:
    """The guide's claims in a row of the matrix that name a model and a machine."""
    rows = next(section for section in sections() if section.title == "Decision matrix").claims
    return tuple(claim for claim in rows if claim.line == line and claim.hardware)


def tables(situation: Situation, claims: tuple[Claim, ...]) -> dict[str, Any]:
    """The sweep's tables: what the catalogue has for the situation, and what the guide names that exists."""
    load, place = situation.load, situation.place
    named = [claim for claim in claims if not not_real(claim)]
    axes: dict[str, Any] = {
        "model": _once(situation.models or _as_large(claims), [catalog.model(claim.model).id for claim in named]),
        "hardware": _once(_file()["machines"][place], [_machine(claim, place) for claim in named]),
        "weights": _once(_file()["weights"][place], [claim.weights for claim in named]),
        "prompt_tokens": load.prompt, "output_tokens": load.output, "context_tokens": load.context,
        "concurrency": load.users,
    }  # fmt: skip
    if place == "center":
        axes |= {"gpus": COUNTS, "tp": COUNTS, "dp": COUNTS}
    answers = {"minimize": [situation.goal, "tpot_s"], "by": "model"}
    return {"axes": axes, "limits": situation.limits, "answers": answers, "pay": PAY[place]}


def _machine(claim: Claim, place: str) -> str:
    """The guide's machine; in a data center its device, since all counts of it are searched."""
    return claim.hardware if place == "desk" else catalog.machine(claim.hardware).device.id


def _as_large(claims: tuple[Claim, ...]) -> tuple[str, ...]:
    """Current models with at least the parameters of the smallest that the guide names here."""
    least = min(count(catalog.model(claim.model)).total for claim in claims)
    return tuple(name for name in slices("model")["current"] if count(catalog.model(name)).total >= least)


def _once(first: Any, second: Any) -> list[str]:
    return list(dict.fromkeys([*first, *second]))


def _pick(claim: Claim, situation: Situation, profile: str | None) -> Choice:
    """The guide's pick at the situation's load; what cannot be bought or downloaded is none."""
    what, load, unreal = Subject(claim.model, claim.hardware, claim.engine, claim.weights), situation.load, ""
    if said := not_real(claim):
        unreal = f"{said}; "
    if what.weights_bytes > what.memory_bytes:
        sizes = f"{show('bytes', what.weights_bytes)} of weights in {show('bytes', what.memory_bytes)}"
        return Choice(what.label(), problem=unreal + sizes)
    result = estimate(
        what.model, what.hardware, engine=what.engine, weights=what.weights, prompt=load.prompt, output=load.output,
        context=load.context, concurrency=[load.users], pay=PAY[situation.place], profile=profile,
    )  # fmt: skip
    row = result.rows()[0]
    if not row["fits"]:
        return Choice(what.label(), problem=f"{unreal}no room beside the weights for the cache of one such request")
    missed = [
        f"{FIGURES[name]}{show(name, row[name])} is above {show(name, limit)}"
        for name, limit in situation.limits.items()
        if row[name] > limit
    ]
    return Choice(what.label(), *_figures(row, situation), (unreal + ", ".join(missed)).removesuffix("; "))


def _found(row: dict[str, Any], situation: Situation) -> Choice:
    """The deployment of a row of a sweep."""
    machine, n = row["hardware"], row["n_gpus"]
    if situation.place == "center" and n > 1:
        machine = f"{n}x {machine}"
    label = Subject(row["model"], machine, row["engine"], row["weights"]).label()
    layout = layout_line(row).strip()
    return Choice(f"{label}, {layout}" if layout else label, *_figures(row, situation))


def _figures(row: dict[str, Any], situation: Situation) -> tuple[str, float]:
    """(TTFT, TPOT and cost in words, the cost)."""
    cost = nan if row[situation.goal] is None else float(row[situation.goal])
    known = [f"{FIGURES[name]}{show(name, row[name])}" for name in ("ttft_s", "tpot_s")]
    return ", ".join([*known, show(situation.goal, cost) if isfinite(cost) else "no price known"]), cost


def _difference(picks: tuple[Choice, ...], found: Choice | None) -> str:
    """How the cheapest of the guide's picks that keeps to the limits compares with what was found."""
    good = [pick for pick in picks if not pick.problem]
    priced = sorted((pick for pick in good if isfinite(pick.cost)), key=lambda pick: pick.cost)
    if found is None:
        return "nothing that was searched keeps to the limits"
    if not priced:
        return f"of {good[0].label} no price is known" if good else "none of the guide's picks does it"
    best, times = priced[0], priced[0].cost / found.cost
    if abs(times - 1) <= SAME:
        same = found.label.startswith(best.label)
        return "the guide's own pick" if same else f"{best.label} costs the same within {SAME:.0%}"
    return f"{best.label} does it at {significant(times)} times the cost"


@functools.cache
def _file() -> dict[str, Any]:
    with _FILE.open("rb") as file:
        return tomllib.load(file)
